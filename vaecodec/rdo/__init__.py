"""Rate-distortion optimisation: what only encoders do."""
