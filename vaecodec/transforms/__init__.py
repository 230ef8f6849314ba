"""Pixels to wavelet coefficients and back: colours, the wavelet, both networks, and the restoration filter."""
