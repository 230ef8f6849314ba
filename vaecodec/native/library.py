"""Load the native core, choose the kind of processor, and bind kernels.  The only file that imports ctypes.

kernel = library.kernel("inverse_dwt", "iipppp")    # or None: the NumPy reference does the work
kernel(2, 3, library.pointer(array), ...)
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

VARIABLE = "VAECODEC_CORE"
# As build.library_name has it; that module takes as long to import as all kernels.
SUFFIX = {"win32": "dll", "darwin": "dylib"}.get(sys.platform, "so")
REFERENCE = "numpy"  # the kind that needs no library
# Letters of signatures: int32_t, int64_t, float, pointer.
TYPES: dict[str, Any] = {"i": ctypes.c_int32, "q": ctypes.c_int64, "f": ctypes.c_float, "p": ctypes.c_void_p}

Kernel = Callable[..., int]
_forced: list[str] = []


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """The library beside this file; None where it was not built or cannot be loaded."""
    path = os.environ.get("VAECODEC_CORE_LIBRARY") or os.path.join(os.path.dirname(__file__), f"core.{SUFFIX}")
    try:
        library = ctypes.CDLL(path)
    except OSError:
        return None
    library.vc_kind_name.restype, library.vc_kind_name.argtypes = ctypes.c_char_p, [ctypes.c_int]
    library.vc_kernel_of.restype, library.vc_kernel_of.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_char_p]
    return library


@lru_cache(maxsize=1)
def kinds() -> tuple[str, ...]:
    """The kinds that this machine runs, slowest first; "numpy" is always there."""
    library, found = _library(), [REFERENCE]
    while library is not None and (name := library.vc_kind_name(len(found) - 1)) is not None:
        found.append(name.decode())
    return tuple(found)


def kind() -> str:
    """The kind in use: the one forced by `use` or by $VAECODEC_CORE, else the fastest.

    Raises ValueError where $VAECODEC_CORE names one that this machine does not run.
    """
    return _forced[-1] if _forced else _default_kind()


@lru_cache(maxsize=1)
def _default_kind() -> str:
    asked = os.environ.get(VARIABLE)
    if not asked:
        return kinds()[-1]
    if asked not in kinds():
        raise ValueError(f"{VARIABLE} is {asked!r}, expected one of {', '.join(kinds())}")
    return asked


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
    """Look for the library again, which was built meanwhile."""
    for cached in (_library, kinds, _bound):
        cached.cache_clear()


def kernel(name: str, signature: str) -> Kernel | None:
    """The C function of the kind in use; None where the reference does the work.

    Calls release the GIL.  Kernels return 0; nothing else is expected of those that return nothing.
    """
    return _bound(kind(), name, signature)


@lru_cache(maxsize=256)
def _bound(kind: str, name: str, signature: str) -> Kernel | None:
    library = _library()
    if library is None or kind == REFERENCE:
        return None
    address = library.vc_kernel_of(kinds().index(kind) - 1, name.encode())
    if not address:
        raise LookupError(f"the native core has no kernel {name}")
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, *(TYPES[letter] for letter in signature))
    return prototype(address)


def call(name: str, signature: str, *arguments: Any) -> int:
    """Call a kernel of the kind in use, which is not "numpy"; arrays are passed by address, None as NULL."""
    function = kernel(name, signature)
    if function is None:
        raise LookupError(f"there is no kernel {name} in the kind numpy")
    return function(*(pointer(one) if isinstance(one, np.ndarray) else one for one in arguments))


def memory(lines: int) -> np.ndarray:
    """u8 of so many lines of 64 bytes, as the size functions of kernels count; not initialised."""
    return np.empty(64 * lines, np.uint8)


def addresses(pointers: Sequence[int]) -> np.ndarray:
    """A C array of pointers."""
    return np.array(pointers, np.uintp)


def pointer(array: np.ndarray) -> int:
    """Address of the first element; the caller keeps the array alive, and has checked that it is contiguous."""
    return array.__array_interface__["data"][0]  # type: ignore[no-any-return]
