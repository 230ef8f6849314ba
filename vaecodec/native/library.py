"""Load the native core, choose the kind of processor, call kernels, and check the arrays that they are given.

    if library.in_numpy():
        return reference.sort_by_table(indices)
    library.call("sort_by_table", "qpppp", len(indices), indices, ...)

The only file that imports ctypes.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from threading import local
from typing import Any

import numpy as np
import numpy.typing as npt

from vaecodec.native.build import checksum_of_sources, library_name

VARIABLE = "VAECODEC_CORE"
CHECKOUT = ("..", "..", "pyproject.toml")  # from here: in a clone sources change, and the library may be left behind
REFERENCE = "numpy"  # the kind that needs no library
# Letters of signatures: int32_t, int64_t, float, pointer.
TYPES: dict[str, Any] = {"i": ctypes.c_int32, "q": ctypes.c_int64, "f": ctypes.c_float, "p": ctypes.c_void_p}

Kernel = Callable[..., int]
_forced: list[str] = []


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The library beside this file; None where it was not built or cannot be loaded."""
    path = os.environ.get("VAECODEC_CORE_LIBRARY") or os.path.join(os.path.dirname(__file__), library_name())
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None
    if os.path.exists(os.path.join(os.path.dirname(__file__), *CHECKOUT)):
        _check_sources(library, path)
    library.vc_kind_name.restype, library.vc_kind_name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    library.vc_kernel_of.restype, library.vc_kernel_of.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_char_p]
    return library


def _check_sources(library: ctypes.CDLL, path: str) -> None:
    """Raise ImportError if the library was not built from the sources of this clone."""
    checksum = getattr(library, "vc_sources", None)
    if checksum is None or ctypes.c_uint32(checksum()).value != checksum_of_sources():
        raise ImportError(f"{path} was built from other sources: run python -m vaecodec.native.build")


@lru_cache(maxsize=1)
def kinds() -> tuple[str, ...]:
    """The kinds that this machine runs, slowest first; "numpy" is always there."""
    library, names = _library(), [REFERENCE]
    while library is not None and (name := library.vc_kind_name(len(names) - 1)) is not None:
        names.append(name.decode())
    return tuple(names)


def kind() -> str:
    """The kind in use: the one forced by `use` or by $VAECODEC_CORE, else the fastest.

    Raises ValueError where $VAECODEC_CORE names one that this machine does not run.
    """
    return _forced[-1] if _forced else _default_kind()


@lru_cache(maxsize=1)
def _default_kind() -> str:
    name = os.environ.get(VARIABLE) or kinds()[-1]
    if name not in kinds():
        raise ValueError(f"{VARIABLE} is {name!r}, expected one of {', '.join(kinds())}")
    return name


def in_numpy() -> bool:
    """Whether the kind in use is the NumPy reference."""
    return kind() == REFERENCE


@contextmanager
def use(name: str) -> Iterator[None]:
    """Force a kind, for tests; not for several threads at once."""
    if name not in kinds():
        raise ValueError(f"kind {name!r} is not available, expected one of {', '.join(kinds())}")
    _forced.append(name)
    try:
        yield
    finally:
        _forced.pop()


def forget() -> None:
    """Look for the library again, after it was built."""
    for cached in (_library, kinds, _bound, _size):
        cached.cache_clear()


@lru_cache(maxsize=256)
def _bound(kind: str, name: str, signature: str) -> Kernel:
    library = _library()
    if library is None or kind == REFERENCE:
        raise LookupError(f"there is no kernel {name} in the kind {kind}")
    address = library.vc_kernel_of(kinds().index(kind) - 1, name.encode())
    if not address:
        raise LookupError(f"the native core has no kernel {name}")
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, *(TYPES[letter] for letter in signature))
    return prototype(address)


def call(name: str, signature: str, *arguments: Any) -> int:
    """Call a C kernel of the kind in use, which is not "numpy", without the GIL.

    Arrays are passed by address and must be contiguous, or have strides beside them; None is NULL.
    """
    kernel = _bound(kind(), name, signature)
    try:
        return kernel(*[_view(value) if isinstance(value, np.ndarray) else value for value in arguments])
    except (TypeError, ValueError):  # an array is read-only, or a rectangle of a larger one
        return kernel(*[pointer(value) if isinstance(value, np.ndarray) else value for value in arguments])


# A ctypes array of no elements at the address of a buffer: found in a quarter of the time that `pointer` takes.
_view: Callable[[Any], Any] = (ctypes.c_char * 0).from_buffer


def size(name: str, *numbers: int) -> int:
    """What a size function of the kind in use returns; there are few combinations of numbers, and they are kept."""
    return _size(kind(), name, numbers)


@lru_cache(maxsize=1024)
def _size(kind: str, name: str, numbers: tuple[int, ...]) -> int:
    return _bound(kind, name, "i" * len(numbers))(*numbers)


def release_memory() -> None:
    """Return freed memory to the operating system, of which glibc keeps up to 200 MiB after a large image."""
    trim = getattr(_process(), "malloc_trim", None)
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _process() -> ctypes.CDLL | None:
    """The symbols of this process; None on Windows."""
    try:
        return ctypes.CDLL(None)
    except (OSError, TypeError):
        return None


def memory(lines: int) -> np.ndarray:
    """u8 of so many lines of 64 bytes, the unit of the kernels' size functions; not initialised."""
    return np.empty(64 * lines, np.uint8)


class Packed:
    """A layer in the form that the kernels of each kind read, packed on first use.

    Args:
        name: of the kernel pack_<name>; <name>_size gives the lines of memory that it needs.
        sizes: arguments of both.
        numbers: further arguments of the former.
        arrays: arrays that it reads.
    """

    def __init__(
        self, name: str, sizes: tuple[int, ...], numbers: tuple[int, ...], arrays: tuple[np.ndarray, ...]
    ) -> None:
        self._name, self._sizes, self._arguments = name, sizes, (*sizes, *numbers, *arrays)
        self._signature = (len(sizes) + len(numbers)) * "i" + len(arrays) * "p" + "p"
        self._memory: dict[str, tuple[int, np.ndarray]] = {}  # by kind: the address of an array, and the array

    def pointer(self) -> int:
        """Address of the packed layer for the kind in use, which is not "numpy"."""
        name = kind()
        if name not in self._memory:
            packed = memory(size(f"{self._name}_size", *self._sizes))
            call(f"pack_{self._name}", self._signature, *self._arguments, packed)
            # Stored when complete, and never replaced: other threads may use it at once.
            self._memory.setdefault(name, (pointer(packed), packed))
        return self._memory[name][0]


REUSED_BYTES = 5 << 20  # of the largest array that a thread keeps: planes of 768 x 512
_arrays = local()


def reused(name: str, shape: tuple[int, ...], dtype: npt.DTypeLike) -> np.ndarray:
    """An uninitialised array for the use of one call, which later calls in the same thread overwrite.

    Memory that is freed and allocated again costs a page fault for each 4 KiB, a tenth of the time of encoding.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > REUSED_BYTES:
        return np.empty(shape, dtype)
    memory = _arrays.__dict__.get(name)
    if memory is None or len(memory) < size:
        memory = _arrays.__dict__[name] = np.empty(size, np.uint8)
    return memory[:size].view(dtype).reshape(shape)


def addresses(pointers: Sequence[int]) -> np.ndarray:
    """A C array of pointers."""
    return np.array(pointers, np.uintp)


def pointer(array: np.ndarray) -> int:
    """Address of the first element; the caller keeps the array alive."""
    return array.__array_interface__["data"][0]


def check(name: str, array: np.ndarray, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the array has this type and shape and is C-contiguous: kernels trust sizes."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(
            f"{name} is {array.dtype}{list(array.shape)}, expected a contiguous {np.dtype(dtype)}{list(shape)}"
        )


def check_writable(name: str, array: np.ndarray, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless `check` holds and a kernel may write into the array."""
    check(name, array, dtype, shape)
    if not array.flags.writeable:
        raise ValueError(f"{name} is read-only")


def check_rows(rows: tuple[int, int], height: int) -> None:
    """Raise ValueError unless a strip, (first row, row beyond the last), lies within so many rows."""
    if not 0 <= rows[0] <= rows[1] <= height:
        raise ValueError(f"rows {rows[0]} to {rows[1]} do not lie within {height}")


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
