"""Lossless and near-lossless coding of images of 1 to 4 channels and 1 to 16 bits, without a model."""
