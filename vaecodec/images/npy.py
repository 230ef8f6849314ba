"""Arrays of .npy files that may be broken."""

from __future__ import annotations

import io
from tokenize import TokenError

import numpy as np

MAGIC = b"\x93NUMPY"


def read_npy(data: bytes) -> np.ndarray:
    """The array of a .npy file without pickles; raises ValueError on whatever is wrong with it.

    NumPy has Python's parser read the header, so that errors come as they like, and of CPython 3.11 that parser now and
    then fails while another thread is parsing, as TensorFlow does where it traces a function: not for use in threads.
    """
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (EOFError, OSError, SyntaxError, TokenError, MemoryError) as exc:
        raise ValueError(str(exc)) from exc
