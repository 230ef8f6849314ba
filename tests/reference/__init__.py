"""Second decoders, written from the documents alone."""
