"""Symbols and their table rows <-> 32-bit words, by asymmetric numeral systems.

    push: symbols ---> words        a stack: what was pushed last is popped first, so that encoding
    pop:  symbols <--- words        walks backwards over what decoding walks forwards

The only file that imports constriction (Bamler 2022, arXiv:2201.01741).  Symbols of equal rows are coded
together: one call a row.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from vaecodec.errors import CodecError, FormatError
from vaecodec.tables import Tables

DETERMINISTIC = 0  # this row's symbols are 0 and take no part in coding
NUMBER_BYTES = 4  # of an escaped symbol, and of others that have no row
CHUNK = 1 << 22  # symbols sorted at once: that takes 16 bytes each
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


@lru_cache(maxsize=32)
def uniform(bits: int):  # type: ignore[no-untyped-def]
    """An entropy model of integers below 2**bits, all alike; exact, as they divide 2**24."""
    return _constriction().model.Uniform(1 << bits)


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


def by_row(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(order i64 or u32[m], rows i64[k], ends i64[k]): what is coded, rows ascending, else in order; runs of it."""
    values = np.arange(int(rows.max(initial=0)) + 1, dtype=rows.dtype)
    parts = []
    for begin in range(0, max(1, len(rows)), CHUNK):
        coded = np.flatnonzero(rows[begin : begin + CHUNK] != DETERMINISTIC)
        part = rows[begin : begin + CHUNK][coded]
        order = np.argsort(part, kind="stable")  # a radix sort, since rows are of an 8 or 16 bit type
        ends = np.searchsorted(part, values, "right", sorter=order)
        order = coded[order]
        parts.append(((order + begin).astype(np.uint32) if len(rows) > CHUNK else order, ends))
    if len(parts) > 1:
        pieces = [
            order[0 if row == 0 else ends[row - 1] : ends[row]] for row in range(len(values)) for order, ends in parts
        ]
        order, ends = np.concatenate(pieces), np.sum([ends for _, ends in parts], axis=0)
    found = np.flatnonzero(np.diff(ends, prepend=0))
    return order, found, ends[found]


Moved = Callable[[np.ndarray], np.ndarray]  # table rows -> others that their symbols are coded under


def push(  # type: ignore[no-untyped-def]
    coder, symbols: np.ndarray, rows: np.ndarray, models: Models, moved: Moved | None = None
) -> None:
    """Puts symbols i32[n] under rows u8[n] or u16[n] on the stack; inverse of pop.

    Raises CodecError where a symbol of the deterministic row is not 0 or a symbol is out of range.
    """
    order, runs, ends = by_row(rows)
    runs = moved(runs) if moved else runs
    position, counts = symbols[order], np.diff(ends, prepend=0)
    most = max(symbols.max(initial=0), -symbols.min(initial=0))
    if most > SYMBOL_MAX or np.count_nonzero(symbols) != np.count_nonzero(position):
        raise CodecError("a symbol cannot be coded in its row")
    low, last = (np.repeat(bound[runs], counts) for bound in (models.tables.low, models.tables.last))
    position -= low
    # As unsigned numbers, those below the table lie above it too.
    outside = np.flatnonzero(position.view(np.uint32) >= last.view(np.uint32))
    if len(outside):
        escapes = position[outside] + low[outside]
        position[outside] = last[outside]
        push_numbers(coder, escapes, models)
    for row, end, count in zip(runs[::-1].tolist(), ends[::-1].tolist(), counts[::-1].tolist(), strict=True):
        coder.encode_reverse(position[end - count : end], models[row])


def pop(  # type: ignore[no-untyped-def]
    coder, rows: np.ndarray, models: Models, moved: Moved | None = None
) -> np.ndarray:
    """Takes i32[n] symbols under rows u8[n] or u16[n] off the stack; raises FormatError on a symbol out of range."""
    order, runs, ends = by_row(rows)
    runs = moved(runs) if moved else runs
    counts, symbols = np.diff(ends, prepend=0), np.zeros(len(rows), np.int32)
    parts = [coder.decode(models[row], count) for row, count in zip(runs.tolist(), counts.tolist(), strict=True)]
    if not parts:
        return symbols
    found = np.concatenate(parts)
    escaped = np.flatnonzero(found == np.repeat(models.tables.last[runs], counts))
    found += np.repeat(models.tables.low[runs], counts)
    if len(escaped):
        found[escaped] = pop_numbers(coder, len(escaped), models)
        if np.abs(found[escaped].astype(np.int64)).max() > SYMBOL_MAX:
            raise FormatError("a symbol is out of range")
    symbols[order] = found
    return symbols


def pop_one(coder, row: int, models: Models) -> int:  # type: ignore[no-untyped-def]
    """Takes a symbol under a row off the stack."""
    position = int(coder.decode(models[row], 1)[0])
    if position == models.tables.last[row]:
        return int(pop_numbers(coder, 1, models)[0])
    return position + int(models.tables.low[row])


def push_numbers(coder, numbers: np.ndarray, models: Models) -> None:  # type: ignore[no-untyped-def]
    """Puts i32[n] on the stack, four bytes each; inverse of pop_numbers."""
    coder.encode_reverse(numbers.astype("<i4").view(np.uint8).astype(np.int32), models[models.byte_row])


def pop_numbers(coder, count: int, models: Models) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Takes i32[count] off the stack."""
    data = np.asarray(coder.decode(models[models.byte_row], NUMBER_BYTES * count), np.uint8)
    return data.view("<i4")


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
