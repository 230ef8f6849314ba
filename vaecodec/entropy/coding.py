"""Code symbols under frequency tables by asymmetric numeral systems (ANS, Duda 2013), with outliers.

    push: symbols ---> words        a stack: the last symbol pushed is popped first, so encoding goes
    pop:  symbols <--- words        backwards over what decoding goes through forwards

The only file that imports constriction (Bamler 2022, arXiv:2201.01741).  Symbols of one table are coded together, in
one call.  Where constriction has no wheel, or VAECODEC_CODER=core is set, the coder of the native core writes and
reads the same words.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np

from vaecodec import entropy
from vaecodec.entropy import Tables
from vaecodec.errors import CodecError, FormatError
from vaecodec.native.symbols import AnsTables, ans_tables, gather_symbols, place_symbols, sort_by_table
from vaecodec.threads import ONE_THREAD, Threads

ZERO_TABLE = 0  # symbols under this table are 0 and are not coded
OUTLIER_FLAG = 1  # table of the symbol that tells whether outliers follow
NUMBER_BYTES = 4  # of an escaped symbol, and of other numbers without a table
SYMBOL_MAX = 2**16 - 1  # a larger magnitude is clipped by encoders and refused by decoders
OUTLIERS_AT_ONCE = 1 << 16  # taken off together: a file may claim as many as there are places
VARIABLE = "VAECODEC_CODER"

EntropyModel = Any  # of constriction or of ans.py
Part = tuple[np.ndarray, np.ndarray]  # symbols i32[n], table indices u8[n]


class Coder(Protocol):
    """A stack of symbols: an AnsCoder of constriction or of ans.py."""

    def encode_reverse(self, symbols: Any, model: EntropyModel, /, *parameters: Any) -> None:
        """Push symbols i32[n], the last one first."""

    def decode(self, model: EntropyModel, count_or_parameters: Any, /) -> Any:
        """Pop a number of symbols, or one for each row of parameters."""

    def get_compressed(self) -> Any:
        """The stack as words u32[n]."""

    def num_words(self) -> int:
        """The number of these words."""

    def is_empty(self) -> bool:
        """Whether there are none."""


@lru_cache(maxsize=1)
def _constriction() -> Any:
    """constriction's stream coders; None where the native core is to code, or constriction is not installed."""
    if os.environ.get(VARIABLE) == "core":
        return None
    try:
        import constriction
    except ImportError:
        return None
    return constriction.stream


def categorical(freq: np.ndarray) -> EntropyModel:
    """The entropy model with exactly these integer frequencies, u32[n], sum 2**24.

    constriction scales floats so that every entry keeps at least 1; given freq - 1, its scale is exactly 1
    (tests/unit/entropy/test_coding.py checks that).
    """
    if _constriction() is None:
        return entropy.Categorical(freq)
    return _constriction().model.Categorical((freq - 1).astype(np.float64), perfect=False)


@lru_cache(maxsize=32)
def uniform(bits: int) -> EntropyModel:
    """The entropy model of equally likely integers below 2**bits; exact, as they divide 2**24."""
    return entropy.Uniform(1 << bits) if _constriction() is None else _constriction().model.Uniform(1 << bits)


class Models:
    """Entropy models of frequency tables, created on first use."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.low = np.ascontiguousarray(tables.low, np.int32)
        self.last = tables.last
        self._models: dict[int, EntropyModel] = {}

    def __getitem__(self, index: int) -> EntropyModel:
        if index not in self._models:
            self._models[index] = categorical(self.tables.row(index))
        return self._models[index]

    @cached_property
    def ans_tables(self) -> AnsTables:
        """The tables in the form of the native coder."""
        return ans_tables(self.tables.freq, self.tables.start)

    @property
    def bytes(self) -> EntropyModel:
        """The model of the last table, which is uniform over bytes: escaped symbols go through it."""
        return self[len(self.tables.low) - 1]


class Runs(NamedTuple):
    """Coded symbols sorted by table index: their places, u32[m], and the number under each index, i32[256]."""

    order: np.ndarray
    counts: np.ndarray


def by_table(indices: np.ndarray) -> Runs:
    """The runs of table indices u8[n]; symbols of index 0 are not coded."""
    return Runs(*sort_by_table(indices))


SAME = np.arange(256, dtype=np.uint8)  # each table index is coded by the table of this number


def push(
    coder: Coder,
    symbols: np.ndarray,
    indices: np.ndarray,
    models: Models,
    table_of: np.ndarray = SAME,
    runs: Runs | None = None,
) -> None:
    """Put symbols i32[n] of table indices u8[n] on the stack; inverse of pop.

    `table_of` u8[256] is the table that codes the symbols of each index (entropy.scale_offsets).  Raises CodecError
    where a symbol of index 0 is not 0 or a symbol is out of range.
    """
    runs = runs or by_table(indices)
    (used,) = runs.counts.nonzero()
    positions, escapes, uncodable = gather_symbols(symbols, *runs, models.low, models.last, table_of)
    if uncodable:
        raise CodecError("a symbol cannot be coded under its table")
    if len(escapes):
        push_numbers(coder, symbols[runs.order[escapes]], models)
    if isinstance(coder, entropy.AnsCoder):
        coder.encode_runs(models.ans_tables, positions, table_of[used].astype(np.int32), runs.counts[used])
        return
    end = len(positions)
    for table, count in zip(table_of[used[::-1]].tolist(), runs.counts[used[::-1]].tolist(), strict=True):
        coder.encode_reverse(positions[end - count : end], models[table])
        end -= count


def pop(
    coder: Coder, indices: np.ndarray, models: Models, table_of: np.ndarray = SAME, runs: Runs | None = None
) -> np.ndarray:
    """Take symbols i32[n] of table indices u8[n] off the stack; raises FormatError on a symbol out of range."""
    runs = runs or by_table(indices)
    (used,) = runs.counts.nonzero()
    if not len(used):
        return np.zeros(len(indices), np.int32)
    if isinstance(coder, entropy.AnsCoder):
        positions = coder.decode_runs(models.ans_tables, table_of[used].astype(np.int32), runs.counts[used])
    else:
        pairs = zip(table_of[used].tolist(), runs.counts[used].tolist(), strict=True)
        positions = np.concatenate([coder.decode(models[table], count) for table, count in pairs])
    symbols, escapes = place_symbols(len(indices), positions, *runs, models.low, models.last, table_of)
    if len(escapes):
        numbers = pop_numbers(coder, len(escapes), models)
        if np.abs(numbers.astype(np.int64)).max() > SYMBOL_MAX:
            raise FormatError("a symbol is out of range")
        symbols[runs.order[escapes]] = numbers
    return symbols


def part_checksum(symbols: np.ndarray, indices: np.ndarray, runs: Runs) -> int:
    """CRC-32 of a part: its coded symbols by table, then the place and the symbol of each outlier, all as i32."""
    coded = symbols[runs.order]
    crc = zlib.crc32(coded.astype("<i4", copy=False).data)
    if np.count_nonzero(coded) != np.count_nonzero(symbols):
        places = np.flatnonzero((symbols != 0) & (indices == ZERO_TABLE))
        crc = zlib.crc32(np.stack([places, symbols[places]], -1).astype("<i4").data, crc)
    return crc


def sort_parts(parts: Sequence[Part], threads: Threads = ONE_THREAD) -> tuple[dict[int, Runs], list[int]]:
    """The runs of each part by its number, and the CRC-32 of each."""
    runs_of, crcs = dict[int, Runs](), [0] * len(parts)

    def sort(part: int) -> None:
        runs_of[part] = by_table(parts[part][1])
        crcs[part] = part_checksum(*parts[part], runs_of[part])

    threads.run(sort, range(len(parts) - 1, -1, -1))
    return runs_of, crcs


def push_numbers(coder: Coder, numbers: np.ndarray, models: Models) -> None:
    """Put i32[n] on the stack, four bytes each; inverse of pop_numbers."""
    coder.encode_reverse(numbers.astype("<i4").view(np.uint8).astype(np.int32), models.bytes)


def pop_numbers(coder: Coder, count: int, models: Models) -> np.ndarray:
    """Take i32[count] off the stack."""
    return np.asarray(coder.decode(models.bytes, NUMBER_BYTES * count), np.uint8).view("<i4")


@lru_cache(maxsize=1)
def _family() -> EntropyModel:
    """The entropy models whose frequencies come with each symbol, as in `categorical`."""
    return entropy.CategoricalFamily() if _constriction() is None else _constriction().model.Categorical(perfect=False)


def _parameters(freq: np.ndarray) -> np.ndarray:
    """Frequencies in the form that the family takes."""
    return freq if _constriction() is None else (freq - 1).astype(np.float64)


def push_each(coder: Coder, symbols: np.ndarray, freq: np.ndarray) -> None:
    """Put symbols i32[n] on the stack, each under its own frequencies i64[n, K] of sum 2**24; inverse of pop_each."""
    if len(symbols):
        coder.encode_reverse(symbols.astype(np.int32, copy=False), _family(), _parameters(freq))


def pop_each(coder: Coder, freq: np.ndarray) -> np.ndarray:
    """Take symbols i32[n] off the stack, one for each row of frequencies i64[n, K] of sum 2**24."""
    if not len(freq):
        return np.zeros(0, np.int32)
    return np.asarray(coder.decode(_family(), _parameters(freq)), np.int32)


def writer() -> Coder:
    """An empty stack."""
    return entropy.AnsCoder() if _constriction() is None else _constriction().stack.AnsCoder()


def words(coder: Coder) -> bytes:
    """The stack as little-endian 32-bit words."""
    return bytes(coder.get_compressed().astype("<u4").tobytes())


def reader(data: bytes) -> Coder:
    """A stack over `data`; raises FormatError unless it is whole words, the last one not zero."""
    if len(data) % 4:
        raise FormatError(f"{len(data)} bytes are not whole 32-bit words")
    array = np.frombuffer(data, "<u4").astype(np.uint32)
    if len(array) and array[-1] == 0:
        raise FormatError("it ends in a zero word")
    return entropy.AnsCoder(array) if _constriction() is None else _constriction().stack.AnsCoder(array)


# Outliers.  A prior says of a coefficient under ZERO_TABLE that it is 0, and its symbol is not coded.  An encoder sends
# a value that is far from it all the same, as its place and its value:
#
#     a symbol of table OUTLIER_FLAG, 0 where there are none; else their number, then place and value of each, 4 bytes


def push_outliers(coder: Coder, symbols: np.ndarray, indices: np.ndarray, models: Models) -> np.ndarray:
    """Put the symbols i32[n] under ZERO_TABLE that are not 0 on the stack; the others, with 0 in their places."""
    places = np.flatnonzero(symbols != 0)
    places = places[indices[places] == ZERO_TABLE]
    if len(places):
        numbers = np.stack([places, symbols[places]], -1).ravel()
        push_numbers(coder, np.append(len(places), numbers), models)
        symbols = np.where(indices == ZERO_TABLE, 0, symbols)
    _push_flag(coder, int(len(places) > 0), models)
    return symbols


def pop_outliers(coder: Coder, symbols: np.ndarray, indices: np.ndarray, models: Models) -> None:
    """Take outliers off the stack and put them in their places of symbols i32[n]; raises FormatError on damage."""
    flag = _pop_flag(coder, models)
    if flag not in (0, 1):
        raise FormatError(f"the flag for outliers is {flag}, expected 0 or 1")
    if not flag:
        return
    count, before = int(pop_numbers(coder, 1, models)[0]), -1
    if not 0 < count <= np.count_nonzero(indices == ZERO_TABLE):
        raise FormatError("there are more outliers than places for them")
    for begin in range(0, count, OUTLIERS_AT_ONCE):
        numbers = pop_numbers(coder, 2 * min(OUTLIERS_AT_ONCE, count - begin), models)
        places, values = numbers.astype(np.int64).reshape(-1, 2).T
        rising = places[0] > before and (np.diff(places) > 0).all() and places[-1] < len(indices)
        if not rising or (indices[places] != ZERO_TABLE).any():
            raise FormatError("an outlier is out of place")
        if not values.all() or np.abs(values).max() > SYMBOL_MAX:
            raise FormatError("an outlier is out of range")
        symbols[places], before = values, int(places[-1])


# What push and pop do with one symbol of table OUTLIER_FLAG, in a tenth of their time: every part has such a symbol.


def _push_flag(coder: Coder, flag: int, models: Models) -> None:
    position, escape = flag - int(models.low[OUTLIER_FLAG]), int(models.last[OUTLIER_FLAG])
    if not 0 <= position < escape:
        push_numbers(coder, np.array([flag]), models)
        position = escape
    coder.encode_reverse(np.array([position], np.int32), models[OUTLIER_FLAG])


def _pop_flag(coder: Coder, models: Models) -> int:
    position, escape = int(coder.decode(models[OUTLIER_FLAG], 1)[0]), int(models.last[OUTLIER_FLAG])
    if position == escape:
        return int(pop_numbers(coder, 1, models)[0])
    return position + int(models.low[OUTLIER_FLAG])


def outlier_bits(tables: Tables, symbols: np.ndarray, indices: np.ndarray) -> float:
    """Information content in bits of what push_outliers puts on the stack."""
    return outlier_bits_of(tables, int(np.count_nonzero(symbols[indices == ZERO_TABLE])))


def outlier_bits_of(tables: Tables, count: int) -> float:
    """The same of so many outliers."""
    flag = tables.bits(np.array([count > 0], np.int32), np.array([OUTLIER_FLAG]))
    return flag + 8 * NUMBER_BYTES * (1 + 2 * count if count else 0)
