"""Test the memory and the arguments of kernels."""

import threading
import zlib

import numpy as np
import pytest

from vaecodec.native import library, wavelet


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


def test_kernels_read_arrays_that_are_read_only_or_parts_of_others(kinds):
    indices = np.array([[3, 0], [1, 0], [3, 9], [0, 9]], np.uint8)
    frozen = indices[:, 0].copy()
    frozen.flags.writeable = False
    for kind in kinds:
        with library.use(kind):
            order, counts = np.empty(4, np.uint32), np.empty(256, np.int32)
            count = library.call("sort_by_table", "qpppp", 4, frozen, np.empty(4, np.uint32), order, counts)
            assert order[:count].tolist() == [1, 0, 2]
            halves = np.arange(24, dtype=np.int32).reshape(1, 4, 6)
            low, bands = wavelet.forward_dwt(halves[:, :, :4])
            np.testing.assert_array_equal(wavelet.inverse_dwt(low, bands, (4, 4)), halves[:, :, :4])


def test_large_arrays_are_not_kept():
    size = library.REUSED_BYTES + 1
    assert not np.shares_memory(library.reused("large", (size,), np.uint8), library.reused("large", (size,), np.uint8))


def test_a_library_of_other_sources_is_refused(kinds, monkeypatch):
    library.forget()
    monkeypatch.setattr(zlib, "crc32", lambda data, start=0: 1)
    with pytest.raises(ImportError, match=r"built from other sources: run python -m vaecodec\.native\.build"):
        library.kinds()
    monkeypatch.undo()
    assert library.kinds()[1:] == kinds
