"""Image files and arrays of samples."""
