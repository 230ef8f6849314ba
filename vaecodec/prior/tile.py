"""Code the symbols of a tile into a payload with a CRC-32, and back (docs/reference/format.md, "Tile payload").

The entropy coder is a stack: parts are pushed from the last to the first, and popped from the first to the last.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vaecodec.entropy import coding
from vaecodec.entropy.coding import ZERO_TABLE, Models, Part
from vaecodec.errors import FormatError
from vaecodec.prior.context_model import PARTS, Distributions, Prior, code_coefficients
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.wavelet import Values

Chooser = Callable[[int, Distributions], np.ndarray]  # number of a part and its distributions -> symbols i32[n]


class CodedTile(NamedTuple):
    """A tile's payload, the CRC-32 of its symbols, its parts, and the values that a decoder reconstructs."""

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
    """Code a tile of (h, w) cells with the symbols that `choose` returns; raises CodecError if one cannot be coded."""
    parts, values = choose_symbols(prior, cells, quality_index, choose, threads)
    offsets = coding.choose_scale_offsets(parts, models.tables, prior.scales)
    coder, crcs = coding.writer(), []
    for (symbols, indices), offset in zip(reversed(parts), reversed(offsets or [0] * len(parts)), strict=True):
        runs, tables = coding.by_table(indices), coding.shifted_tables(offset, prior.scales)
        crcs.append(part_checksum(symbols, indices, runs))
        inliers = coding.push_outliers(coder, symbols, indices, models)
        coding.push(coder, inliers, indices, models, tables, runs)
    coding.push_scale_offsets(coder, offsets)
    return CodedTile(coding.words(coder), tile_checksum(crcs[::-1]), parts, values)


def choose_symbols(
    prior: Prior, cells: tuple[int, int], quality_index: int, choose: Chooser, threads: Threads = ONE_THREAD
) -> tuple[list[Part], Values]:
    """Parts of a tile and their values, without coding them."""
    part_coder, parts = code_coefficients(prior, cells, quality_index, threads), list[Part]()
    distributions = next(part_coder)
    while True:
        symbols = choose(len(parts), distributions)
        parts.append((symbols, distributions.indices))
        try:
            distributions = part_coder.send(symbols)
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
    observe: Callable[[np.ndarray], None] | None = None,
) -> Values:
    """Values of a tile; raises FormatError if its symbols are damaged.  `observe` gets the symbols of each part."""
    part_coder = code_coefficients(prior, cells, quality_index, threads)
    coder, crcs = coding.reader(payload), list[int]()
    offsets = coding.pop_scale_offsets(coder, PARTS)
    distributions = next(part_coder)
    for offset in offsets:
        indices = distributions.indices
        runs, tables = coding.by_table(indices), coding.shifted_tables(offset, prior.scales)
        symbols = coding.pop(coder, indices, models, tables, runs)
        coding.pop_outliers(coder, symbols, indices, models)
        crcs.append(part_checksum(symbols, indices, runs))
        if observe is not None:
            observe(symbols)
        try:
            distributions = part_coder.send(symbols)
        except StopIteration as end:
            values = end.value
    if not coder.is_empty():
        raise FormatError("words are left over after the last symbol")
    if tile_checksum(crcs) != crc:
        raise FormatError("the CRC of its symbols does not match")
    return values


def information(prior: Prior, models: Models, parts: list[Part]) -> float:
    """Information content of the symbols of a tile under the model, in bits."""
    tables = models.tables
    offsets = coding.choose_scale_offsets(parts, tables, prior.scales)
    bits = sum(coding.outlier_bits(tables, *part) for part in parts) + coding.scale_offset_bits(offsets)
    for (symbols, indices), offset in zip(parts, offsets or [0] * len(parts), strict=True):
        bits += tables.bits(symbols, coding.shift_tables(indices, offset, prior.scales))
    return bits


def part_checksum(symbols: np.ndarray, indices: np.ndarray, runs: coding.Runs) -> int:
    """CRC-32 of a part: its coded symbols by table, then the place and the symbol of each outlier, all as i32."""
    coded = symbols[runs.order]
    crc = zlib.crc32(coded.astype("<i4", copy=False).data)
    if np.count_nonzero(coded) != np.count_nonzero(symbols):
        places = np.flatnonzero((symbols != 0) & (indices == ZERO_TABLE))
        crc = zlib.crc32(np.stack([places, symbols[places]], -1).astype("<i4").data, crc)
    return crc


def tile_checksum(part_checksums: Sequence[int]) -> int:
    """CRC-32 of a tile: that of the CRCs of its parts, each as u32."""
    return zlib.crc32(np.array(part_checksums, "<u4").tobytes())
