"""The prior: the distribution of each wavelet coefficient given those coded before it, in exact integers."""
