"""Models: architecture, file format, weights, and the library of shipped and added models."""
