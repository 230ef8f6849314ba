"""Test the storage of a tile's values, in i16 if possible."""

import numpy as np
import pytest

from vaecodec.transforms.wavelet import Values


@pytest.mark.parametrize(("largest", "dtype"), [(32767, np.int16), (32768, np.int32), (-32768, np.int32)])
def test_values_are_narrowed_if_they_fit_in_i16(largest, dtype):
    halves = [(np.zeros((2, 3, 18), np.int32), np.full((2, 3, 18), -5, np.int32)) for _ in range(4)]
    values = Values(halves, np.array([[[largest, 1]]], np.int32))
    narrowed = values.narrowed()
    assert narrowed.low.dtype == dtype and narrowed.halves[0][1].dtype == dtype
    widened = narrowed.widened()
    assert widened.low.dtype == np.int32 and np.array_equal(widened.low, values.low)
    assert all(
        np.array_equal(a, b) for pair in zip(widened.halves, halves, strict=True) for a, b in zip(*pair, strict=True)
    )
