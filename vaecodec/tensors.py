"""Accept arrays of other libraries: tensors of PyTorch and JAX, and whatever else NumPy or DLPack can read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def is_array(value: Any) -> bool:
    """Whether a value is an array, of any library, rather than a path, a file or an image of Pillow."""
    return hasattr(value, "__array_interface__") or hasattr(value, "__array__") or hasattr(value, "__dlpack__")


def to_numpy(values: Any) -> np.ndarray:
    """A NumPy array of the values of an array of any library, without a copy where that is possible.

    An object with `__array__` decides itself.  If it has none or refuses, as tensors on a GPU do, `__dlpack__` is used;
    for other devices than the CPU that copies (Python array API standard 2023.12).  Raises TypeError, ValueError or
    BufferError where neither works.
    """
    import numpy as np

    if isinstance(values, np.ndarray) or not hasattr(values, "__dlpack__"):
        return np.asarray(values)
    if hasattr(values, "__array__"):
        try:
            return np.asarray(values)
        except (TypeError, ValueError, RuntimeError):
            pass
    values = values.detach() if hasattr(values, "detach") else values  # PyTorch exports no tensor that has a gradient
    try:
        array: np.ndarray = np.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError):
        if not hasattr(values, "cpu"):
            array = np.from_dlpack(values, device="cpu", copy=True)
        else:
            array = np.from_dlpack(values.cpu())
    return array
