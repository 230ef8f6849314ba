"""Encoder and decoder of images."""
