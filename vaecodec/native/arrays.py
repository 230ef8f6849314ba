"""Check the arrays that kernels are given: a kernel trusts their sizes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def check(name: str, array: np.ndarray, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless the array has this type and shape and is C-contiguous."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(
            f"{name} is {array.dtype}{list(array.shape)}, expected a contiguous {np.dtype(dtype)}{list(shape)}"
        )


def check_writable(name: str, array: np.ndarray, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Raises ValueError unless `check` holds and a kernel may write into the array."""
    check(name, array, dtype, shape)
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only")


def strides_of(name: str, array: np.ndarray, shape: tuple[int, int, int]) -> tuple[int, int]:
    """(plane stride, row stride) in elements of planes i32[P, H, W], which may be a rectangle of a larger array.

    Raises ValueError unless the array has this shape and its rows are contiguous.
    """
    if array.dtype != np.int32 or array.shape != shape:
        raise ValueError(f"{name} is {array.dtype}{list(array.shape)}, expected int32{list(shape)}")
    plane, row, column = array.strides
    if not array.size:
        return 0, 0
    if (shape[2] > 1 and column != array.itemsize) or plane % array.itemsize or row % array.itemsize:
        raise ValueError(f"the rows of {name} are not contiguous")
    return plane // array.itemsize, row // array.itemsize
