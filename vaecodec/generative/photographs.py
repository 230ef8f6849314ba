"""The same from a model of photographs, as far as its prior goes: textures and colours, since it knows no objects.

Latents are drawn by the exact networks, so that one seed gives the same pixels on every machine.
"""

from __future__ import annotations

import math

import numpy as np

from vaecodec.codec.codec import Codec
from vaecodec.config import STRIDE
from vaecodec.container.picture import parse, step_of
from vaecodec.entropy.tables import TOTAL, Tables
from vaecodec.errors import CodecError
from vaecodec.native.symbols import symbol_values
from vaecodec.prior.coefficients import PARTS_BY_OCTAVE
from vaecodec.prior.model import Distributions
from vaecodec.prior.tile import Chooser, choose_symbols, decode_tile
from vaecodec.rdo import rounding
from vaecodec.rdo.rounding import UNIT
from vaecodec.transforms.coefficients import Values
from vaecodec.transforms.dequantization import coefficients_of

TILE = 4096  # the largest: one tile, and so one walk, for a picture
LARGEST = 2048 * 2048  # pixels


def draw(tables: Tables, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """i32 symbols at random, one from each of the table rows; what the table leaves to its escape is 0."""
    symbols, places = np.zeros(rows.size, np.int32), rng.integers(TOTAL, size=rows.size)
    flat = rows.ravel()
    for row in np.unique(flat[flat != 0]):
        here = np.flatnonzero(flat == row)
        found = np.searchsorted(np.cumsum(tables.row(row), dtype=np.int64), places[here], "right")
        symbols[here] = np.where(found == tables.last[row], 0, found + tables.low[row])
    return symbols.reshape(rows.shape)


def synthesise(codec: Codec, values: Values, step: int, size: tuple[int, int]) -> np.ndarray:
    """u8[H, W, C] of the values of a tile."""
    coefficients = coefficients_of(values, codec.model.gains.scaled(step))
    [pixels] = codec.transforms.pixels([coefficients], step)
    return pixels[: size[0], : size[1]]


def sample(codec: Codec, n: int, size: tuple[int, int], quality: float, seed: int = 0) -> np.ndarray:
    """u8[n, H, W, C]: coefficients from p(y), coarse to fine, then the middle of p(x | y).

    Coefficients are drawn within what pixels can make: further out the prior has seen nothing, and goes further still.
    """
    _check_size(size)
    step, rng, tables = step_of(quality), np.random.default_rng(seed), codec.model.models.tables
    cells, bounds = (-(-size[0] // STRIDE), -(-size[1] // STRIDE)), _bounds(codec, step)

    def choose(part: int, question: Distributions) -> np.ndarray:
        symbols = draw(tables, question.indices, rng)
        least, most = (np.trunc((edge - question.loc) / UNIT) for edge in (-bounds[part], bounds[part]))
        return np.clip(symbols, least, most).astype(np.int32)

    return np.stack([synthesise(codec, _values(codec, cells, step, choose), step, size) for _ in range(n)])


def _values(codec: Codec, cells: tuple[int, int], step: int, choose: Chooser) -> Values:
    """Those that the symbols of a tile stand for, as they are chosen."""
    return choose_symbols(codec.model.prior, cells, step, choose)[1]


def _bounds(codec: Codec, step: int) -> list[float]:
    """For each part of a tile the most that its values may be, unit 2**-6."""
    # From black to white, half of it, in quantisation steps; each octave makes the low-pass image twice as large.
    reach = 0.5 * math.sqrt(codec.model.config.channels) / float(codec.model.inverse_gain(step)[0]) * UNIT
    counts = [alike.stop - alike.start for alike in PARTS_BY_OCTAVE]
    return [reach * 2 ** (len(counts) - 1 - n) for n, count in enumerate(counts) for _ in range(count)]


def coded(codec: Codec, pixels: np.ndarray, quality: float) -> tuple[list[np.ndarray], Values]:
    """(symbols i32[n] of each part, their values) of u8[H, W, C]."""
    _check_size(pixels.shape[:2])
    data = codec.encode_unfiltered(pixels, quality, TILE)
    tile, step = parse(data).tiles[0], step_of(quality)
    payload = data[tile.offset : tile.offset + tile.length]
    parts: list[np.ndarray] = []
    model, cells = codec.model, _cells(pixels.shape)
    return parts, decode_tile(model.prior, model.models, cells, step, payload, tile.crc, see=parts.append)


def _wanted(codec: Codec, parts: list[np.ndarray], cells: tuple[int, int], step: int) -> list[np.ndarray]:
    """What the symbols of each part stand for, f32[n] in quantisation steps."""
    wanted: list[np.ndarray] = []

    def choose(part: int, question: Distributions) -> np.ndarray:
        values = symbol_values(parts[part], *question, codec.model.prior.centroids)
        wanted.append(values.astype(np.float32) * np.float32(1 / UNIT))
        return parts[part]

    _values(codec, cells, step, choose)
    return wanted


def vary(codec: Codec, pixels: np.ndarray, strength: float, n: int, quality: float, seed: int = 0) -> np.ndarray:
    """u8[n, H, W, C] around u8[H, W, C]: a part `strength` of all latents is drawn anew, given those before them."""
    step, rng, tables = step_of(quality), np.random.default_rng(seed), codec.model.models.tables
    cells, prior = _cells(pixels.shape), codec.model.prior
    wanted = _wanted(codec, coded(codec, pixels, quality)[0], cells, step)

    def choose(part: int, question: Distributions) -> np.ndarray:
        symbols, again = rounding.closest(prior, wanted[part], question), rng.random(len(question.loc)) < strength
        return np.where(again, draw(tables, question.indices, rng), symbols).astype(np.int32)

    size = pixels.shape[0], pixels.shape[1]
    return np.stack([synthesise(codec, _values(codec, cells, step, choose), step, size) for _ in range(n)])


def interpolate(codec: Codec, first: np.ndarray, last: np.ndarray, n: int, quality: float) -> np.ndarray:
    """u8[n, H, W, C] from u8[H, W, C] to u8[H, W, C], on the straight line between their latents."""
    if first.shape != last.shape:
        raise CodecError(f"pictures of {list(first.shape)} and {list(last.shape)}, expected one size")
    (_, a), (_, b) = coded(codec, first, quality), coded(codec, last, quality)
    step, size = step_of(quality), (first.shape[0], first.shape[1])

    def between(part: float, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return np.rint((1 - part) * one + part * other).astype(np.int32)

    def values(part: float) -> Values:
        pairs = zip(a.halves, b.halves, strict=True)
        halves = [tuple(between(part, *both) for both in zip(*pair, strict=True)) for pair in pairs]
        return Values(halves, between(part, a.low, b.low))  # type: ignore[arg-type]

    return np.stack([synthesise(codec, values(part), step, size) for part in np.linspace(0, 1, n)])


def _cells(shape: tuple[int, ...]) -> tuple[int, int]:
    return -(-shape[0] // STRIDE), -(-shape[1] // STRIDE)


def _check_size(size: tuple[int, ...]) -> None:
    if min(size) < 1 or size[0] * size[1] > LARGEST or max(size) > TILE:
        raise CodecError(f"a picture of {size[1]} x {size[0]}, expected at most {LARGEST} pixels and sides of {TILE}")
