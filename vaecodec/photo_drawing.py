"""The same from a model of photographs, as far as its prior goes: textures and colours, since it knows no objects.

Latents are drawn by the exact networks, pixels made by LiteRT, which may differ by 1 of 255 between machines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from vaecodec import context, octaves, rounding
from vaecodec.bitsback import drive
from vaecodec.codec import Codec
from vaecodec.config import STRIDE
from vaecodec.container import parse, step_of
from vaecodec.errors import CodecError
from vaecodec.tables import TOTAL, Tables

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


def synthesise(codec: Codec, y: np.ndarray, step: int, size: tuple[int, int]) -> np.ndarray:
    """u8[H, W, C] of y f32[h, w, M], unit 2**-6."""
    gain = codec.model.vector("inverse_gain", step) * np.float32(1.0 / context.UNIT)
    condition = codec.model.condition("synthesis", step)
    return codec.transforms.synthesis((y * gain)[None].astype(np.float32), condition)[0, : size[0], : size[1]]


def walked(codec: Codec, cells: tuple[int, int], step: int, answer: Callable[[context.Step], np.ndarray]) -> np.ndarray:
    """y f32[h, w, M], unit 2**-6, of a walk through the prior."""
    return drive(octaves.walk(codec.model.prior, cells, step), answer)  # type: ignore[arg-type]


def sample(codec: Codec, n: int, size: tuple[int, int], quality: float, seed: int = 0) -> np.ndarray:
    """u8[n, H, W, C]: coefficients from p(y), coarse to fine, then the middle of p(x | y).

    Coefficients are drawn within what pixels can make: further out the prior has seen nothing, and goes further still.
    """
    _check_size(size)
    step, rng, tables = step_of(quality), np.random.default_rng(seed), codec.model.prior.models.tables
    cells = (-(-size[0] // STRIDE), -(-size[1] // STRIDE))

    def one() -> np.ndarray:
        bounds = iter(_bounds(codec, step))

        def answer(question: context.Step) -> np.ndarray:
            symbols, bound = draw(tables, question[0], rng), next(bounds)
            least, most = (np.trunc((edge - question[1]) / context.UNIT) for edge in (-bound, bound))
            return np.clip(symbols, least, most).astype(np.int32)

        return walked(codec, cells, step, answer)

    return np.stack([synthesise(codec, one(), step, size) for _ in range(n)])


def _bounds(codec: Codec, step: int) -> list[float]:
    """For each part of a walk the most that its values may be, unit 2**-6."""
    # From black to white, half of it, in quantisation steps; each octave makes the low-pass picture twice as large.
    reach = 0.5 * math.sqrt(codec.model.config.channels) * float(codec.model.vector("gain", step)[0]) * context.UNIT
    counts = [alike.stop - alike.start for alike in octaves.BY_OCTAVE]
    return [reach * 2 ** (len(counts) - 1 - n) for n, count in enumerate(counts) for _ in range(count)]


def coded(codec: Codec, pixels: np.ndarray, quality: float) -> tuple[list[np.ndarray], np.ndarray]:
    """(symbols i32[n] of each part, y f32[h, w, M], unit 2**-6) of u8[H, W, C]."""
    _check_size(pixels.shape[:2])
    data = codec.encode_unfiltered(pixels, quality, TILE)
    tile, step = parse(data).tiles[0], step_of(quality)
    cells = (-(-pixels.shape[0] // STRIDE), -(-pixels.shape[1] // STRIDE))
    parts: list[np.ndarray] = []
    y = context.decode(codec.model.prior, cells, step, data[tile.offset : tile.offset + tile.length], parts.append)
    return parts, y


def _wanted(codec: Codec, parts: list[np.ndarray], y: np.ndarray, step: int) -> list[np.ndarray]:
    """What the symbols of each part stand for, in quantisation steps."""
    prior, unit = codec.model.prior, np.float32(1 / context.UNIT)
    found, given = list[np.ndarray](), iter(parts)

    def answer(question: context.Step) -> np.ndarray:
        symbols = next(given).reshape(question[0].shape)
        found.append(octaves.values_of(prior, symbols, *question) * unit)
        return symbols

    walked(codec, y.shape[:2], step, answer)
    return found


def vary(codec: Codec, pixels: np.ndarray, strength: float, n: int, quality: float, seed: int = 0) -> np.ndarray:
    """u8[n, H, W, C] around u8[H, W, C]: a part `strength` of all latents is drawn anew, given those before them."""
    step, rng, tables = step_of(quality), np.random.default_rng(seed), codec.model.prior.models.tables
    prior, (parts, y) = codec.model.prior, coded(codec, pixels, quality)
    nearest = partial(rounding.closest, prior)
    wanted = _wanted(codec, parts, y, step)

    def one() -> np.ndarray:
        kept = iter(wanted)

        def answer(question: context.Step) -> np.ndarray:
            rows = question[0]
            symbols = nearest(next(kept), *question)
            return np.where(rng.random(rows.shape) < strength, draw(tables, rows, rng), symbols).astype(np.int32)

        return walked(codec, y.shape[:2], step, answer)

    return np.stack([synthesise(codec, one(), step, pixels.shape[:2]) for _ in range(n)])


def interpolate(codec: Codec, first: np.ndarray, last: np.ndarray, n: int, quality: float) -> np.ndarray:
    """u8[n, H, W, C] from u8[H, W, C] to u8[H, W, C], on the straight line between their latents."""
    if first.shape != last.shape:
        raise CodecError(f"pictures of {list(first.shape)} and {list(last.shape)}, expected one size")
    (_, a), (_, b) = coded(codec, first, quality), coded(codec, last, quality)
    step = step_of(quality)
    return np.stack([synthesise(codec, (1 - t) * a + t * b, step, first.shape[:2]) for t in np.linspace(0, 1, n)])


def _check_size(size: tuple[int, ...]) -> None:
    if min(size) < 1 or size[0] * size[1] > LARGEST or max(size) > TILE:
        raise CodecError(f"a picture of {size[1]} x {size[0]}, expected at most {LARGEST} pixels and sides of {TILE}")
