"""Symbols and their table rows <-> 32-bit words, by asymmetric numeral systems.

    push: symbols ---> words        a stack: what was pushed last is popped first, so that encoding
    pop:  symbols <--- words        walks backwards over what decoding walks forwards

The only file that imports constriction (Bamler 2022, arXiv:2201.01741).  Symbols of equal rows are coded
together: one call a row.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vaecodec.errors import CodecError, FormatError
from vaecodec.tables import Tables

DETERMINISTIC = 0  # this row's symbols are 0 and take no part in coding
ESCAPE_BYTES = 4
SYMBOL_MAX = 2**16 - 1  # a larger magnitude is clipped by encoders and refused by decoders


@lru_cache(maxsize=1)
def _constriction():  # type: ignore[no-untyped-def]
    import constriction

    return constriction.stream


def categorical(freq: np.ndarray):  # type: ignore[no-untyped-def]
    """An entropy model with exactly these integer frequencies, u32[n], sum 2**24.

    constriction scales floats so that every entry keeps at least 1; given freq - 1, its scale is exactly 1
    (guarded by tests/test_coding.py).
    """
    return _constriction().model.Categorical((freq - 1).astype(np.float64), perfect=False)


class Models:
    """Entropy models of the rows of `tables`, made when first used."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._models: dict[int, object] = {}

    def __getitem__(self, row: int):  # type: ignore[no-untyped-def]
        if row not in self._models:
            self._models[row] = categorical(self.tables.row(row))
        return self._models[row]

    @property
    def byte_row(self) -> int:
        """The last row is uniform over bytes: escaped symbols go through it."""
        return len(self.tables.low) - 1


def _by_row(rows: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """(order i64[m], [(row, begin, end)]): the symbols that are coded, rows ascending, else in order."""
    coded = np.flatnonzero(rows != DETERMINISTIC)
    kept = rows[coded]
    order = np.argsort(kept, kind="stable")  # a radix sort, since rows are of an 8 or 16 bit type
    counts = np.bincount(kept)
    ends = np.cumsum(counts)
    return coded[order], [(int(row), int(ends[row] - counts[row]), int(ends[row])) for row in np.flatnonzero(counts)]


def push(coder, symbols: np.ndarray, rows: np.ndarray, models: Models) -> None:  # type: ignore[no-untyped-def]
    """Puts symbols i32[n] under rows u8[n] or u16[n] on the stack; inverse of pop.

    Raises CodecError where a symbol of the deterministic row is not 0 or a symbol is out of range.
    """
    if max(symbols.max(initial=0), -symbols.min(initial=0)) > SYMBOL_MAX or symbols[rows == DETERMINISTIC].any():
        raise CodecError("a symbol cannot be coded in its row")
    order, runs = _by_row(rows)
    position, low, last = symbols[order], models.tables.low, models.tables.last
    escapes = []
    for row, begin, end in runs:
        run = position[begin:end]
        run -= low[row]
        # As unsigned numbers, those below the table lie above it too.
        outside = np.flatnonzero(run.view(np.uint32) >= last[row])
        if len(outside):
            escapes.append(run[outside] + low[row])
            run[outside] = last[row]
    if escapes:
        outliers = np.concatenate(escapes).astype("<i4").view(np.uint8).astype(np.int32)
        coder.encode_reverse(outliers, models[models.byte_row])
    for row, begin, end in reversed(runs):
        coder.encode_reverse(position[begin:end], models[row])


def pop(coder, rows: np.ndarray, models: Models) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Takes i32[n] symbols under rows u8[n] or u16[n] off the stack; raises FormatError on a symbol out of range."""
    order, runs = _by_row(rows)
    ordered, low, last = np.empty(len(order), np.int32), models.tables.low, models.tables.last
    escaped = []
    for row, begin, end in runs:
        run = coder.decode(models[row], end - begin)
        outside = np.flatnonzero(run == last[row])
        if len(outside):
            escaped.append(outside + begin)
        np.add(run, low[row], out=ordered[begin:end])
    if escaped:
        where = np.concatenate(escaped)
        data = np.asarray(coder.decode(models[models.byte_row], ESCAPE_BYTES * len(where)), np.uint8)
        ordered[where] = data.view("<i4")
        if np.abs(ordered[where].astype(np.int64)).max() > SYMBOL_MAX:
            raise FormatError("a symbol is out of range")
    symbols = np.zeros(len(rows), np.int32)
    symbols[order] = ordered
    return symbols


def push_each(coder, symbols: np.ndarray, freq: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    """Puts symbol n of i32[n] under frequencies freq[n], i64[n, K] of sum 2**24, on the stack; inverse of pop_each."""
    if len(symbols):
        coder.encode_reverse(symbols.astype(np.int32, copy=False), _family(), (freq - 1).astype(np.float64))


def pop_each(coder, freq: np.ndarray) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Takes i32[n] symbols off the stack, one for each row of frequencies i64[n, K] of sum 2**24."""
    if not len(freq):
        return np.zeros(0, np.int32)
    return np.asarray(coder.decode(_family(), (freq - 1).astype(np.float64)), np.int32)


@lru_cache(maxsize=1)
def _family():  # type: ignore[no-untyped-def]
    """Entropy models whose frequencies come with each symbol, as in `categorical`."""
    return _constriction().model.Categorical(perfect=False)


def writer():  # type: ignore[no-untyped-def]
    """An empty stack."""
    return _constriction().stack.AnsCoder()


def words(coder) -> bytes:  # type: ignore[no-untyped-def]
    """The stack as little-endian 32-bit words."""
    return coder.get_compressed().astype("<u4").tobytes()


def reader(data: bytes):  # type: ignore[no-untyped-def]
    """A stack over `data`; raises FormatError unless it is whole words, the last one not zero."""
    if len(data) % 4:
        raise FormatError(f"{len(data)} bytes are not whole 32-bit words")
    array = np.frombuffer(data, "<u4").astype(np.uint32)
    if len(array) and array[-1] == 0:
        raise FormatError("it ends in a zero word")
    return _constriction().stack.AnsCoder(array)
