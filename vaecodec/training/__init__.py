"""Train models with TensorFlow Probability, and freeze them."""
