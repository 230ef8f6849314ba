"""Entropy coding: frequency tables, and coders of symbols and of integers of any size."""
