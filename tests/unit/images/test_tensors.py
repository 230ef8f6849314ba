"""Test that arrays of other libraries become NumPy arrays, through `__array__` or DLPack."""

import numpy as np
import pytest

from vaecodec import arrays
from vaecodec.images.channels import is_array, to_numpy

VALUES = np.arange(12, dtype=np.uint8).reshape(3, 4)


class WithArray:
    """An array of a library that has `__array__` alone."""

    def __array__(self, dtype=None, copy=None):
        return VALUES


class WithDlpack:
    """An array of a library that has DLPack alone, like those of the array API standard."""

    def __dlpack__(self, **options):
        return VALUES.__dlpack__(**options)

    def __dlpack_device__(self):
        return VALUES.__dlpack_device__()


class WithGradient(WithDlpack):
    """A tensor that refuses `__array__`, and exports itself after `detach`, as PyTorch's do."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("can't call numpy() on a tensor that requires grad")

    def __dlpack__(self, **options):
        raise BufferError("can't export tensors that require gradient")

    def detach(self):
        return WithDlpack()


class OnDevice(WithDlpack):
    """A tensor on another device, which `cpu` copies."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert a tensor on a GPU")

    def __dlpack__(self, **options):
        raise BufferError("unsupported device")

    def cpu(self):
        return WithDlpack()


@pytest.mark.parametrize("values", [VALUES, WithArray(), WithDlpack(), WithGradient(), OnDevice()])
def test_values_are_kept(values):
    assert is_array(values) and np.array_equal(to_numpy(values), VALUES)
    assert np.array_equal(arrays.decode(arrays.encode(values)), VALUES)


def test_other_objects_are_no_arrays():
    assert not any(map(is_array, ("path", b"bytes", 3)))
    assert to_numpy([[1, 2], [3, 4]]).shape == (2, 2)
