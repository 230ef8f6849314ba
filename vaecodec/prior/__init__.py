"""The prior: what is expected of each wavelet coefficient, given those that are coded before it, in integers."""
