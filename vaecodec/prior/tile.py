"""Code one tile: the symbols of its coefficients <-> a payload and the CRC-32 of these symbols.

The prior says how each part is distributed, a chooser picks the symbols, and the stack takes them part by part from the
last to the first, since it gives back first what it took last.  docs/reference/format.md, "Tile payload".
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from vaecodec.entropy import coding
from vaecodec.entropy.coding import ZERO_TABLE, Models
from vaecodec.errors import FormatError
from vaecodec.prior.coefficients import PARTS, code_coefficients
from vaecodec.prior.model import Distributions, Prior
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.wavelet import Values

Part = tuple[np.ndarray, np.ndarray]  # symbols i32[n] and their table indices u8[n]
Chooser = Callable[[int, Distributions], np.ndarray]  # number of the part -> symbols i32[n]


class CodedTile(NamedTuple):
    """A tile's payload, the CRC-32 of its symbols, its parts, and the values that a decoder will find."""

    payload: bytes
    crc: int
    parts: list[Part]
    values: Values


def encode_tile(
    prior: Prior,
    models: Models,
    cells: tuple[int, int],
    quality_index: int,
    choose: Chooser,
    threads: Threads = ONE_THREAD,
) -> CodedTile:
    """Code a tile of (h, w) cells with the symbols that `choose` picks; raises CodecError where one cannot be coded."""
    parts, values = choose_symbols(prior, cells, quality_index, choose, threads)
    offsets = coding.choose_scale_offsets(parts, models.tables, prior.scales)
    coder, crcs = coding.writer(), []
    for (symbols, indices), offset in zip(reversed(parts), reversed(offsets or [0] * len(parts)), strict=True):
        runs = coding.by_table(indices)
        crcs.append(part_checksum(symbols, indices, runs))
        others = coding.push_outliers(coder, symbols, indices, models)
        coding.push(
            coder, others, indices, models, partial(coding.shift_tables, offset=offset, scales=prior.scales), runs
        )
    coding.push_scale_offsets(coder, offsets)
    return CodedTile(coding.words(coder), _joined(reversed(crcs)), parts, values)


def choose_symbols(
    prior: Prior, cells: tuple[int, int], quality_index: int, choose: Chooser, threads: Threads = ONE_THREAD
) -> tuple[list[Part], Values]:
    """The parts of a tile and their values, without coding them."""
    walk, parts = code_coefficients(prior, cells, quality_index, threads), list[Part]()
    distributions = next(walk)
    while True:
        symbols = choose(len(parts), distributions)
        parts.append((symbols, distributions.indices))
        try:
            distributions = walk.send(symbols)
        except StopIteration as end:
            return parts, end.value


def decode_tile(
    prior: Prior,
    models: Models,
    cells: tuple[int, int],
    quality_index: int,
    payload: bytes,
    crc: int,
    threads: Threads = ONE_THREAD,
    see: Callable[[np.ndarray], None] | None = None,
) -> Values:
    """The values of a tile; raises FormatError where its symbols are damaged.  `see` gets each part's symbols."""
    walk, coder, crcs = code_coefficients(prior, cells, quality_index, threads), coding.reader(payload), list[int]()
    offsets = coding.pop_scale_offsets(coder, PARTS)
    distributions = next(walk)
    for offset in offsets:
        indices = distributions.indices
        runs = coding.by_table(indices)
        symbols = coding.pop(
            coder, indices, models, partial(coding.shift_tables, offset=offset, scales=prior.scales), runs
        )
        coding.pop_outliers(coder, symbols, indices, models)
        crcs.append(part_checksum(symbols, indices, runs))
        if see is not None:
            see(symbols)
        try:
            distributions = walk.send(symbols)
        except StopIteration as end:
            values = end.value
    if not coder.is_empty():
        raise FormatError("words are left over after the last symbol")
    if _joined(crcs) != crc:
        raise FormatError("the CRC of its symbols does not match")
    return values


def information(prior: Prior, models: Models, parts: list[Part]) -> float:
    """Bits that the symbols of a tile are worth under the model."""
    tables = models.tables
    offsets = coding.choose_scale_offsets(parts, tables, prior.scales)
    bits = sum(coding.outlier_bits(tables, *part) for part in parts) + coding.scale_offset_bits(offsets)
    for (symbols, indices), offset in zip(parts, offsets or [0] * len(parts), strict=True):
        bits += tables.bits(symbols, coding.shift_tables(indices, offset, prior.scales))
    return bits


def part_checksum(symbols: np.ndarray, indices: np.ndarray, runs: coding.Runs) -> int:
    """CRC-32 of a part: its coded symbols by table, then its outliers, place and symbol of each; all as i32."""
    coded = symbols[runs.order]
    crc = zlib.crc32(coded.astype("<i4", copy=False).data)
    if np.count_nonzero(coded) != np.count_nonzero(symbols):
        places = np.flatnonzero((symbols != 0) & (indices == ZERO_TABLE))
        crc = zlib.crc32(np.stack([places, symbols[places]], -1).astype("<i4").data, crc)
    return crc


def _joined(crcs: object) -> int:
    """The CRC-32 of a tile: that of the CRCs of its parts, each as u32."""
    return zlib.crc32(np.array(list(crcs), "<u4").tobytes())  # type: ignore[call-overload]
