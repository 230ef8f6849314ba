"""What the planes of an array chunk cannot hold <-> bytes: a mask of values that are not finite, and patches.

mask      a byte a value: 0 finite, 1 NaN, 2 infinity, 3 minus infinity; deflated, or empty where all are finite
patches   u32 place of each, ascending, then the values themselves; deflated, or empty where there are none
"""

from __future__ import annotations

import zlib

import numpy as np

from vaecodec.arrays.weights import inflate
from vaecodec.errors import FormatError

SPECIAL = (np.nan, np.inf, -np.inf)


def pack_mask(values: np.ndarray) -> bytes:
    """The mask of values [n]."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return b""
    mask = np.isnan(values) + 2 * np.isposinf(values) + 3 * np.isneginf(values)
    return zlib.compress(mask.astype(np.uint8).tobytes(), 9)


def read_mask(data: bytes, dtype: np.dtype, count: int) -> np.ndarray | None:
    """u8[n], or None where all values are finite; raises FormatError on damage."""
    if not data:
        return None
    mask = np.frombuffer(inflate(data, count), np.uint8)
    if dtype.kind != "f" or len(mask) != count or mask.max(initial=0) > len(SPECIAL):
        raise FormatError("the mask does not fit the values")
    return mask


def apply_mask(values: np.ndarray, mask: np.ndarray | None) -> None:
    """Puts what is not finite into values [n]."""
    if mask is not None:
        for code, special in enumerate(SPECIAL, 1):
            values[mask == code] = special


def missed(values: np.ndarray, again: np.ndarray, max_error: float) -> np.ndarray:
    """i64: the places where `again` [n] is not within the bound of values [n]: not of the same bits, where it is 0."""
    if max_error == 0:
        bits = f"u{values.itemsize}"
        return np.flatnonzero(values.view(bits) != again.view(bits))
    with np.errstate(invalid="ignore"):
        close = np.abs(again.astype(np.float64) - values.astype(np.float64)) <= max_error
    # Infinities of one sign are equal; a NaN is nothing but a NaN.
    return np.flatnonzero(~(close | (again == values) | ((again != again) & (values != values))))


def pack_patches(values: np.ndarray, places: np.ndarray) -> bytes:
    """The patches of values [n] at these places."""
    return zlib.compress(places.astype("<u4").tobytes() + values[places].tobytes(), 9) if len(places) else b""


def apply_patches(values: np.ndarray, data: bytes) -> None:
    """Puts the patches into values [n]; raises FormatError on damage."""
    if not data:
        return
    each = 4 + values.itemsize
    content = inflate(data, each * len(values))
    count = len(content) // each
    places = np.frombuffer(content[: 4 * count], "<u4").astype(np.int64)
    if len(content) % each or (np.diff(places) <= 0).any() or places[-1:].max(initial=0) >= len(values):
        raise FormatError("the patches do not fit the values")
    values[places] = np.frombuffer(content[4 * count :], values.dtype)
