"""Solve least squares by normal equations, which can be added."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RIDGE = 1e-6  # of the mean of the diagonal


class NormalEquations(NamedTuple):
    """Normal equations of least squares: matrix f64[n, n] and right side f64[n]."""

    matrix: np.ndarray
    right: np.ndarray

    @classmethod
    def zero(cls, size: int) -> NormalEquations:
        return cls(np.zeros((size, size)), np.zeros(size))

    @classmethod
    def of_samples(cls, basis: np.ndarray, residual: np.ndarray) -> NormalEquations:
        """Build them from basis f32[n, samples] and what it should approximate, f32[samples]."""
        return cls((basis @ basis.T).astype(np.float64), (basis @ residual).astype(np.float64))

    def __add__(self, other: NormalEquations) -> NormalEquations:  # type: ignore[override]
        return NormalEquations(self.matrix + other.matrix, self.right + other.right)

    def solve(self) -> np.ndarray:
        """f64[n]: the weights."""
        ridge = RIDGE * np.trace(self.matrix) / max(1, len(self.right)) + 1e-9
        return np.linalg.solve(self.matrix + ridge * np.eye(len(self.right)), self.right)

    def error_reduction(self, weights: np.ndarray) -> float:
        """By how much these weights lower the squared error."""
        return float(2 * weights @ self.right - weights @ self.matrix @ weights)
