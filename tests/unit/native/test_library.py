"""Test the memory for kernels."""

import threading

import numpy as np

from vaecodec.native import library


def test_reused_arrays_share_memory_by_name_and_thread():
    first = library.reused("here", (3, 5), np.int32)
    assert first.shape == (3, 5) and first.dtype == np.int32 and first.flags.c_contiguous
    again = library.reused("here", (4, 2), np.int16)
    assert np.shares_memory(first, again) and not np.shares_memory(first, library.reused("there", (3, 5), np.int32))
    larger = library.reused("here", (30, 5), np.int32)
    assert larger.shape == (30, 5)
    arrays_of_thread = []
    thread = threading.Thread(target=lambda: arrays_of_thread.append(library.reused("here", (30, 5), np.int32)))
    thread.start()
    thread.join()
    assert not np.shares_memory(larger, arrays_of_thread[0])


def test_large_arrays_are_not_kept():
    size = library.REUSED_BYTES + 1
    assert not np.shares_memory(library.reused("large", (size,), np.uint8), library.reused("large", (size,), np.uint8))
