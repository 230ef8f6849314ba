"""Model files: their tensors, what they must be, and how trained weights become integers."""
