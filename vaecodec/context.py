"""Which table row each symbol uses: the prior of the VAE as a generator, for both directions.

The generator yields (rows, loc) and is sent symbols.  An encoder answers with the symbols it has, a decoder
with what it pops; both compute the same integers in between (the shape of vae.VAE.joint).

    value = 64 * symbol + loc          latents in units of 2**-6 quantisation steps

What it yields and is sent has a row for each cell, channels innermost: z from the top, either half of y even cells
first, then odd ones (integer.take_half).  Letters: h w latent cells; M, N channels of y and z.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from vaecodec import network, octaves, widening
from vaecodec.cells import Band, Each, in_bands
from vaecodec.coding import Models, pop, push, reader, words, writer
from vaecodec.config import ANCHORS, HYPER_STRIDE, LEVEL_STEPS, SUBSTEPS, Config
from vaecodec.engines import Engine
from vaecodec.errors import FormatError
from vaecodec.integer import (
    ACTIVATION_BITS,
    CONTEXT_MAX,
    GAIN_BITS,
    INDEX_BITS,
    INPUT_MAX,
    PRODUCT_BITS,
    VALUE_MAX,
    Conditions,
    Exact,
    Layer,
    columns,
    nearest,
    one_thread,
    parity,
    put_half,
    shift,
)
from vaecodec.strays import pop_strays, push_strays

UNIT = octaves.UNIT
PARTS = 3  # z, and two halves of y
HYPER_GROUPS = 2 * ANCHORS - 1  # p(z) is tabulated at the anchors and half way between them

AT_ONCE = 1 << 16  # symbols whose checksum is worth another thread
NOTHING = np.zeros(0, np.int32)

Step = tuple[np.ndarray, np.ndarray]


class Prior(NamedTuple):
    """The integer half of a model: all that chooses a probability."""

    config: Config
    layers: dict[str, Layer]
    levels: Conditions | octaves.Levels  # each field [LEVELS, channels]
    models: Models
    each: Each = map  # goes through bands of rows, perhaps with several threads
    threads: int = 1  # of an engine
    engine: Engine | None = None  # of wavelets, where there is one
    companding: np.ndarray = NOTHING  # of wavelets: i32[n], magnitudes from which on an activation is 1, 2, ...
    centroids: np.ndarray = NOTHING  # of wavelets: i8[scales, 2], unit 2**-6, beyond symbols of 1 and of more

    @property
    def scales(self) -> int:
        """Rungs of the scale ladder: rows of the tables before those of z."""
        return len(self.models.tables.low) - HYPER_GROUPS * self.config.hyper - 1


def hyper_group(step: int) -> int:
    """Which tabulation of p(z) a quality step uses: the nearest half anchor."""
    return (2 * step + SUBSTEPS // 2) // SUBSTEPS


def walk(prior: Prior, cells: tuple[int, int], step: int) -> Generator[Step, np.ndarray, np.ndarray]:
    """Yields (rows u8 or u16, loc f32, unit 2**-6) of z [h/4 * w/4, N], then of two halves of y [h * w, M/2].

    Is sent symbols i32 of the same shape.  Returns y f32[h, w, M], unit 2**-6.  `cells` is (h, w), each at least 1.
    Of wavelets it is octaves.walk.
    """
    if isinstance(prior.levels, octaves.Levels):
        return (yield from octaves.walk(prior, cells, step))
    config, conditions = prior.config, Conditions(*(field[step // LEVEL_STEPS] for field in prior.levels))
    ops, shape = Exact(prior.layers, conditions), (*cells, config.latents)
    hyper = (-(-cells[0] // HYPER_STRIDE), -(-cells[1] // HYPER_STRIDE))
    rows = prior.scales + hyper_group(step) * config.hyper + np.arange(config.hyper, dtype=np.uint16)
    rows = np.repeat(rows[None], hyper[0] * hyper[1], 0)
    z = yield rows, np.zeros(rows.shape, np.float32)

    z = shift(z * conditions.hyper_inverse_gain.astype(np.float64), GAIN_BITS - ACTIVATION_BITS)
    z = np.clip(z, -INPUT_MAX["hyper/in"], INPUT_MAX["hyper/in"]).reshape(*hyper, config.hyper)
    features = network.hyper_synthesis(ops, config, z)[: cells[0], : cells[1]]

    features, rows, loc = first_half(prior, conditions, features)
    y_1 = latents((yield rows, loc), loc)

    rows, loc = second_half(prior, conditions, features, y_1)
    del features  # what follows needs the room
    y_2 = latents((yield rows, loc), loc)

    y = np.empty(shape, np.float32)
    put_half(y_1, y, 0)
    put_half(y_2, y, 1)
    return y


def first_half(prior: Prior, conditions: Conditions, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features f32[h, w, prior] -> (those of the second half, rows u8, loc f32 of the first)."""
    ahead, rows, loc = np.empty_like(features), *empty_half(prior, features.shape[:2])

    def one(band: Band) -> None:
        ops = Exact(prior.layers, conditions, band.above, band.below)
        ahead[band.rows], parameters = network.first_parameters(ops, prior.config, features[band.seen])
        choose(parameters, conditions, prior.scales, 0, [(rows[part], loc[part]) for part in band.parts(band.rows)])

    in_bands(prior.each, features.shape[:2], one)
    return ahead, rows, loc


def second_half(prior: Prior, conditions: Conditions, features: np.ndarray, y: np.ndarray) -> Step:
    """Features f32[h, w, prior] and the first half of y [h * w, M/2] -> (rows u8, loc f32) of the second."""
    rows, loc = empty_half(prior, features.shape[:2])

    def one(band: Band) -> None:
        ops = Exact(prior.layers, conditions, band.above, band.below)
        context = np.empty((*features[band.seen].shape[:2], y.shape[1]), np.float32)
        before_gain([y[part] for part in band.parts(band.seen)], conditions, band.above, context)
        parameters = network.second_parameters(ops, prior.config, features[band.seen], context)
        choose(parameters, conditions, prior.scales, 1, [(rows[part], loc[part]) for part in band.parts(band.rows)])

    in_bands(prior.each, features.shape[:2], one)
    return rows, loc


def empty_half(prior: Prior, cells: tuple[int, ...]) -> Step:
    """(rows u8, loc f32) [h * w, M/2] to be filled."""
    half = (cells[0] * cells[1], prior.config.latents // 2)
    return np.empty(half, np.uint8), np.empty(half, np.float32)


def choose(
    parameters: list[tuple[np.ndarray, np.ndarray]], conditions: Conditions, scales: int, half: int, out: list[Step]
) -> None:
    """Means (unit 2**-15) and indices (unit 2**-4), before the gain -> (rows u8, loc f32, unit 2**-6), [cells, M/2]."""
    for odd, ((loc, index), (rows, locs)) in enumerate(zip(parameters, out, strict=True)):
        here = columns(len(conditions.gain), half, odd)
        loc *= conditions.gain[here] * 2.0 ** -(PRODUCT_BITS + GAIN_BITS - ACTIVATION_BITS)
        locs[:] = np.clip(nearest(loc), -VALUE_MAX, VALUE_MAX, out=loc)
        index += conditions.index[here].astype(index.dtype)
        index = shift(index, INDEX_BITS)
        rows[:] = np.clip(index, 0, scales - 1, out=index)


def latents(symbols: np.ndarray, loc: np.ndarray) -> np.ndarray:
    """f32, in loc: the values that symbols stand for, unit 2**-6, within VALUE_MAX; sums stay below 2**24, so exact."""
    values = symbols.astype(np.float32)
    values *= UNIT
    loc += values
    return np.clip(loc, -VALUE_MAX, VALUE_MAX, out=loc)


def before_gain(parts: list[np.ndarray], conditions: Conditions, first: int, out: np.ndarray) -> None:
    """Even and odd cells of the first half of y, [cells, M/2], to their places in f32[h, w, M/2], before the gain.

    `first` is the parity of the row that `out` begins with.
    """
    cells, places = out.reshape(-1, out.shape[2]), parity(*out.shape[:2])
    for odd, part in enumerate(parts):
        values = part * (conditions.inverse_gain[columns(len(conditions.gain), 0, odd)] * 2.0**-GAIN_BITS)
        cells[places[odd ^ first]] = np.clip(nearest(values), -CONTEXT_MAX, CONTEXT_MAX, out=values)


def checksum(parts: Iterable[np.ndarray], crc: int = 0) -> int:
    """CRC-32 of symbols in coding order, as docs/format.md defines it; `crc` is that of what came before."""
    for symbols in parts:
        crc = zlib.crc32(np.ascontiguousarray(symbols, "<i4").data, crc)
    return crc


class Coded(NamedTuple):
    """A tile's payload, and (symbols i32, rows u8 or u16) of each part in coding order; what was made of it beside."""

    data: bytes
    parts: list[tuple[np.ndarray, np.ndarray]]
    crc: int  # of the symbols
    beside: Any = None

    @property
    def symbols(self) -> np.ndarray:
        """i32[n]: those of all parts."""
        return np.concatenate([symbols for symbols, _ in self.parts])


def encode(
    prior: Prior,
    cells: tuple[int, int],
    step: int,
    quantise: Callable[[int, Step], np.ndarray],
    beside: Callable[[np.ndarray], Any] | None = None,
) -> Coded:
    """Walks forward with the symbols that `quantise(part, (rows, loc))` picks, then codes them backwards.

    `beside` is called with what `decode` will return, by another thread if there is one.
    """
    steps = walk(prior, cells, step)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    count, y = octaves.PARTS if prior.config.wavelet else PARTS, np.empty(0)
    with one_thread:
        question = next(steps)
        while True:
            symbols = quantise(len(parts), question)
            parts.append((symbols.ravel(), question[0].ravel()))
            if len(parts) == count and beside is None:
                break
            following, y = _sent(steps, symbols)
            if following is None:
                break
            question = following

    def made() -> Any:
        return beside(y) if beside else None

    # The caller has the first and longest: whoever is to help may be late.
    jobs = [made, lambda: _pushed(prior, parts), lambda: checksum(symbols for symbols, _ in parts)]
    found, data, crc = prior.each(lambda work: work(), jobs)
    return Coded(data, parts, crc, found)


def _sent(steps: Generator[Step, np.ndarray, np.ndarray], symbols: np.ndarray) -> tuple[Step | None, np.ndarray]:
    """What a walk asks next; or None, and what it comes to."""
    try:
        return steps.send(symbols), np.empty(0)
    except StopIteration as end:
        return None, end.value


def _pushed(prior: Prior, parts: list[tuple[np.ndarray, np.ndarray]]) -> bytes:
    """The payload of a tile's symbols and rows."""
    coder = writer()
    if prior.config.wavelet:
        rungs = widening.chosen(parts, prior.models.tables, prior.scales)
        for (symbols, rows), up in zip(reversed(parts), reversed(rungs or [0] * len(parts)), strict=True):
            others = push_strays(coder, symbols, rows, prior.models)
            push(coder, others, rows, prior.models, partial(widening.moved, rungs=up, scales=prior.scales))
        widening.push_rungs(coder, rungs)
    else:
        for symbols, rows in reversed(parts):
            push(coder, symbols, rows, prior.models)
    return words(coder)


def decode(
    prior: Prior, cells: tuple[int, int], step: int, data: bytes, see: Callable[[np.ndarray], Any]
) -> np.ndarray:
    """Latents f32[h, w, M], unit 2**-6; raises FormatError on damage that can be seen.

    `see` is called with the symbols i32[n] of each part, which are not kept.
    """
    steps, coder = walk(prior, cells, step), reader(data)
    with one_thread:
        question: Step | None = next(steps)
        rungs = iter(widening.pop_rungs(coder, octaves.PARTS) if prior.config.wavelet else [0] * PARTS)
        while question is not None:
            rows = question[0]
            moved = partial(widening.moved, rungs=next(rungs), scales=prior.scales)
            symbols = pop(coder, rows.ravel(), prior.models, moved if prior.config.wavelet else None)
            if prior.config.wavelet:
                pop_strays(coder, symbols, rows.ravel(), prior.models)
            # Of what comes next some is done by one thread alone.
            each = prior.each if symbols.size >= AT_ONCE else map
            jobs = [partial(_sent, steps, symbols.reshape(rows.shape)), partial(see, symbols)]
            (question, y), _ = each(lambda work: work(), jobs)
    if not coder.is_empty():
        raise FormatError("words are left over after the last symbol")
    return y
