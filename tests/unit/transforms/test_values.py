"""Values of a tile, in i16 where that holds them."""

import numpy as np
import pytest

from vaecodec.transforms.wavelet import Values


@pytest.mark.parametrize(("largest", "dtype"), [(32767, np.int16), (32768, np.int32), (-32768, np.int32)])
def test_values_are_narrowed_where_i16_holds_them(largest, dtype):
    halves = [(np.zeros((2, 3, 18), np.int32), np.full((2, 3, 18), -5, np.int32)) for _ in range(4)]
    values = Values(halves, np.array([[[largest, 1]]], np.int32))
    narrow = values.narrowed()
    assert narrow.low.dtype == dtype and narrow.halves[0][1].dtype == dtype
    wide = narrow.widened()
    assert wide.low.dtype == np.int32 and np.array_equal(wide.low, values.low)
    assert all(
        np.array_equal(a, b) for pair in zip(wide.halves, halves, strict=True) for a, b in zip(*pair, strict=True)
    )
