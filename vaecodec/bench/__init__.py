"""Benchmarks: this codec and its peers."""
