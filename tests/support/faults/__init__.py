"""Faults of signals, files and disks: tests/long/faults.py."""
