"""Checks that model files of both kinds share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vaecodec.errors import ModelError

MAX_INTEGERS = 1 << 24  # entries of all integer layers


def require(condition: Any, message: str) -> None:
    """Raises ModelError with `message` unless `condition` holds."""
    if not condition:
        raise ModelError(message)


def check_integers(arrays: Mapping[str, np.ndarray], prefix: str) -> None:
    """Types and number of the weights of integer layers, whose names begin with `prefix`; raises ModelError."""
    integers = {name: array for name, array in arrays.items() if name.startswith(prefix)}
    require(sum(array.size for array in integers.values()) <= MAX_INTEGERS, "its integer layers are too large")
    for name, array in integers.items():
        expected = "<i4" if name.endswith("/bias") else "<i2"
        require(array.dtype.str == expected, f"{name} has type {array.dtype}, expected {np.dtype(expected)}")
