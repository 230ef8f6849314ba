"""The transform of the channels of a pixel: a colour rotation, or a DCT where they are not colours."""

from __future__ import annotations

import numpy as np


def dct_basis(size: int) -> np.ndarray:
    """f64[size, size]: orthonormal DCT-II, rows are frequencies (Ahmed, Natarajan and Rao 1974)."""
    k, n = np.mgrid[:size, :size]
    basis = np.sqrt(2.0 / size) * np.cos(np.pi * (2 * n + 1) * k / (2 * size))
    basis[0] /= np.sqrt(2.0)
    return basis


# Rows: brightness, red against blue, green against both; orthonormal.
COLOUR = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3.0], [2.0], [6.0]])


def rotation(channels: int) -> np.ndarray:
    """f64[C, C]: what turns the channels of a pixel, a DCT where they are not colours; the first row is a mean."""
    return COLOUR if channels == 3 else dct_basis(channels)
