"""What a VAE does besides compression: bits-back coding, sampling, interpolation, scores."""
