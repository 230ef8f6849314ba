"""Differentiate the bits and the squared error of a tile with the integer kernels of the native core.

The forward passes are those of decoders: of the prior while symbols are chosen, and of the synthesis.  Both keep what
gradients need (tapes).  Transposed layers take gradients back as int16 (native.gradients), in units that fit the layers
of a model: UNIT_BITS in the prior, and in the synthesis such that noise keeps its size from layer to layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np

from vaecodec.config import SQUARED_STEPS_PER_BIT, STRIDE
from vaecodec.entropy.coding import ZERO_TABLE
from vaecodec.model.file import Model
from vaecodec.model.network import INDEX_GAIN, LOC_GAIN
from vaecodec.model.weights import integer_layer
from vaecodec.native import gradients as kernels
from vaecodec.native.gradients import BlockBack, Context, Half, OctaveBack, Slopes, SymbolTables
from vaecodec.native.library import reused
from vaecodec.native.networks import Dense, Depthwise
from vaecodec.native.transforms import analysis_coarse
from vaecodec.prior import LOWEST_PARTS, OCTAVES, OctavePass, Record, level_of
from vaecodec.rdo import Parts, octave_gain
from vaecodec.rdo.prior_gradients import UNIT, BitSlopes, PriorGradients, SymbolBits
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.networks import ACTIVATION_BITS, PIXEL_BITS
from vaecodec.transforms.wavelet import NORM, SUBBANDS, Coefficients, empty_coefficients

UNIT_BITS = 11
ACTIVATION_LIMIT = 32767
PRIOR_SHIFT = 6

Weights = Mapping[str, np.ndarray]


def transposed(kernel: np.ndarray, shift: int = 0) -> Dense:
    """The dense layer of gradients through a kernel f32[inputs, outputs], times 2**shift."""
    layer = integer_layer(kernel.T, np.zeros(len(kernel)), 0, shift)
    return Dense(*layer, limit=ACTIVATION_LIMIT)


def transposed_block(weights: Weights, name: str, shift: int) -> BlockBack:
    """The layers of gradients through a residual block whose activations have the unit 2**-shift."""
    enter, out, gate, mix = (transposed(weights[f"{name}/{part}/kernel"]) for part in ("in", "out", "gate", "mix"))
    taps = weights[f"{name}/space/kernel"][::-1, ::-1]
    space = integer_layer(taps, np.zeros(taps.shape[2]), 0, 0)
    return BlockBack(mix, gate, out, Depthwise(*space, limit=ACTIVATION_LIMIT), enter, shift)


def symbol_tables(model: Model, entries: np.ndarray) -> SymbolTables:
    """Numbers of symbols, f32[n] or i32[n] by place in the tables of a model."""
    tables = model.models.tables
    start, low, last = np.zeros((3, kernels.INDICES), np.int32)
    count = len(tables.low)
    start[:count], low[:count], last[:count] = tables.start[:-1], tables.low, tables.last
    zero = entries[start + np.clip(-low, 0, last)]
    return SymbolTables(entries, np.ascontiguousarray(zero), start, low, last)


class PriorLayers(NamedTuple):
    """What gradients through the prior of a model need beside it."""

    octaves: list[OctaveBack]
    slopes: Slopes
    bits: SymbolTables


@lru_cache(maxsize=4)
def prior_layers(model: Model) -> PriorLayers:
    """Transpose the networks of a prior, and tabulate the bits of symbols and their slopes."""
    weights, octaves = model.prior_weights, list[OctaveBack]()
    for octave in range(OCTAVES + 1):
        name = f"context/{octave}"
        ends = {part: transposed(weights[f"{name}/{part}/kernel"]) for part in ("second", "known", "first", "in")}
        passing = transposed(weights[f"{name}/pass/kernel"]) if octave else None
        blocks = [transposed_block(weights, f"{name}/{part}", PRIOR_SHIFT) for part in ("after", "block")]
        octaves.append(
            OctaveBack(ends["second"], passing, blocks[0], ends["known"], ends["first"], blocks[1], ends["in"])
        )
    slopes = BitSlopes(model.models.tables, model.prior.scales)
    gains = np.array([LOC_GAIN, INDEX_GAIN]) * (1 << UNIT_BITS) * SQUARED_STEPS_PER_BIT / 2
    pairs = np.clip(np.rint(slopes.slopes_by_place.T * gains), -ACTIVATION_LIMIT, ACTIVATION_LIMIT)
    packed = np.ascontiguousarray(pairs, "<i2").view("<i4").ravel().astype(np.int32)
    table = Slopes(2.0**-UNIT_BITS, symbol_tables(model, packed), LOC_GAIN * (1 << UNIT_BITS))
    bits = symbol_tables(model, SymbolBits(model.models.tables).by_place)
    bits.zero[ZERO_TABLE] = 0
    return PriorLayers(octaves, table, bits)


class IntegerPriorGradients:
    """Gradients through a prior at one quality index, for tiles of a given number of cells."""

    def __init__(self, model: Model, quality_index: int, cells: tuple[int, int], threads: Threads = ONE_THREAD) -> None:
        self._prior, self._threads, self._layers = model.prior, threads, prior_layers(model)
        self._level = level_of(quality_index)
        self._gains = [octave_gain(model.prior, quality_index, octave).ravel() for octave in range(OCTAVES + 1)]
        self._lowest = PriorGradients(model, quality_index, cells)

    def bits(self, symbols: Parts, indices: Parts) -> list[tuple[float, int]]:
        """Bits of each part, and the number of its outliers."""
        out = [(0.0, 0)] * len(symbols)

        def look_up(part: int) -> None:
            out[part] = kernels.symbol_bits(symbols[part], indices[part], self._layers.bits)

        self._threads.run(look_up, reversed(range(len(symbols))))  # the largest first
        return out

    def __call__(self, record: Record, symbols: Parts, slopes: Parts) -> Parts:
        """Half of the gradient of squared error and bits together, as PriorGradients has it.

        Args:
            record: of the pass in which symbols i32[n] of each part were chosen.
            symbols: of each part.
            slopes: half of the gradient of the squared error alone, f32[n] of each part; overwritten.
        """
        finer: tuple[np.ndarray, np.ndarray | None] | None = None
        halves = [self._halves(run, symbols, slopes, 2 * n) for n, run in enumerate(record.octaves)]
        for n in range(OCTAVES, -1, -1):
            finer = self._octave_back(OCTAVES - n, record.octaves[n], halves, n, finer)
        assert finer is not None
        return [*self._lowest_back(record, symbols, slopes, finer[0]), *slopes[LOWEST_PARTS:]]

    def _halves(self, run: OctavePass, symbols: Parts, slopes: Parts, number: int) -> tuple[Half, Half]:
        shape, part = run.parts[0][0].shape, LOWEST_PARTS + number
        first, second = (
            Half(slopes[part + n].reshape(shape), symbols[part + n].reshape(shape), run.parts[n][0]) for n in range(2)
        )
        return first, second

    def _octave_back(
        self,
        octave: int,
        run: OctavePass,
        halves: list[tuple[Half, Half]],
        number: int,
        finer: tuple[np.ndarray, np.ndarray | None] | None,
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Add to the gradients of an octave's halves and of its parents; those of its low-pass and passed features."""
        networks, back, slopes = self._prior.octaves[octave], self._layers.octaves[octave], self._layers.slopes
        (first, second), before, over_rows = halves[number], run.before, self._threads.over_rows
        low, passed = np.zeros(before.low.shape, np.float32), None
        if finer is not None:
            self._wavelet_back(octave, finer[0], low, first.gradients, second.gradients)
            passed = finer[1]
        cells = first.gradients.shape[:2]
        features = np.empty((*cells, networks.features), np.int16)
        given = passed, run.parts[0][1], run.tapes[1], first.gradients, features
        over_rows(
            cells[0], lambda rows: kernels.second_half_back(networks, back, slopes, low.shape, second, *given, rows)
        )
        parents = None if number == 0 else (halves[number - 1][0].gradients, halves[number - 1][1].gradients)
        by_passed = None if before.passed is None else np.zeros(before.passed.shape, np.int16)
        context = Context(np.empty_like(low), parents, by_passed)
        over_rows(
            cells[0],
            lambda rows: kernels.first_half_back(
                networks, back, slopes, before, first, features, run.tapes[0], context, rows
            ),
        )
        self._threads.run(lambda c: kernels.details_back(context.details[c], low[c]), range(len(low)))
        return low, by_passed

    def _wavelet_back(
        self, octave: int, finer: np.ndarray, low: np.ndarray, first: np.ndarray, second: np.ndarray
    ) -> None:
        """Propagate gradients by the low-pass image of the next finer octave to `low` and the halves of this one."""
        channels, height, width = low.shape
        if finer.shape[1:] != (2 * height, 2 * width):
            padding = [(0, 0), (0, 2 * height - finer.shape[1]), (0, 2 * width - finer.shape[2])]
            finer = np.pad(finer, padding)
        subbands = np.empty((SUBBANDS * channels, height, width), np.float32)
        scales = NORM**-2, 1.0, 1.0, NORM**2  # of a normalised wavelet

        def transform(channel: int) -> None:
            kernels.inverse_dwt_back(finer[channel], scales, low[channel], list(subbands[channel::channels]))

        self._threads.run(transform, range(channels))
        kernels.add_to_halves(subbands, self._gains[octave], first, second)

    def _lowest_back(self, record: Record, symbols: Parts, slopes: Parts, low: np.ndarray) -> Parts:
        parts = slice(LOWEST_PARTS)
        indices, values = map(list, zip(*record.parts[parts], strict=True))
        floats = [part.astype(np.float32) * np.float32(1 / UNIT) for part in values]
        return self._lowest.lowest(symbols[parts], indices, floats, slopes[parts], low)


class SynthesisLayers(NamedTuple):
    """The transposed layers of a synthesis, from pixels to coefficients."""

    fine: Dense
    fine_blocks: list[BlockBack]
    skip: Dense
    coarse: Dense
    coarse_blocks: list[BlockBack]
    latents: Dense
    skip_unit: float  # of gradients by samples, in the unit of the error
    latents_unit: float  # of gradients by coefficients


@lru_cache(maxsize=4)
def synthesis_layers(model: Model) -> SynthesisLayers:
    """Transpose the networks of the synthesis."""
    config, weights = model.config, model.synthesis_weights
    ends = {part: weights[f"synthesis/{part}/kernel"] for part in ("fine", "skip", "coarse")}
    # Of the core's coefficients, in the order of a model file; those of `weights` are of normalised latents.
    shifts = model.arrays["synthesis/latents/shift"].astype(np.int32)
    ends["latents"] = np.ldexp(model.arrays["synthesis/latents/kernel"].astype(np.float32), -shifts)
    gains = {part: _shift_of_noise(kernel) for part, kernel in ends.items()}
    layers = {part: transposed(kernel, gains[part]) for part, kernel in ends.items()}
    blocks = [
        [transposed_block(weights, f"synthesis/{place}{n}", ACTIVATION_BITS) for n in reversed(range(count))]
        for place, count in (("fine", config.fine_blocks), ("coarse", config.coarse_blocks))
    ]
    skip_unit = 2.0 ** -(gains["fine"] + gains["skip"])
    latents_unit = 2.0 ** -(gains["fine"] + gains["coarse"] + gains["latents"])
    fine, skip, coarse, first = (layers[part] for part in ("fine", "skip", "coarse", "latents"))
    return SynthesisLayers(fine, blocks[0], skip, coarse, blocks[1], first, skip_unit, latents_unit)


def _shift_of_noise(kernel: np.ndarray) -> int:
    """The power of two by which gradients of noise through a kernel [inputs, outputs] keep their size."""
    size = float(np.sqrt(np.square(kernel, dtype=np.float64).sum(1).mean()))
    return 0 if size == 0 else int(np.clip(-np.rint(np.log2(size)), -8, 12))


class IntegerSynthesis:
    """The synthesis at one quality index, and gradients through it, for images of (h, w) cells."""

    def __init__(self, model: Model, quality_index: int, cells: tuple[int, int], threads: Threads = ONE_THREAD) -> None:
        self._synthesis, self._threads, self._layers = model.transforms.synthesis, threads, synthesis_layers(model)
        self._quality_index, self._cells = quality_index, cells
        self._rotation = np.ascontiguousarray(self._synthesis.colors * np.float32(2.0**-PIXEL_BITS), np.float32)
        self._tapes = self._synthesis.tapes(cells)

    def levels(self, coefficients: Coefficients) -> np.ndarray:
        """i16[16h, 16w, C], as decoders compute them; keeps what `back` needs."""
        return self._synthesis.levels(coefficients, self._quality_index, self._threads, self._tapes)

    def back(self, error: np.ndarray) -> Coefficients:
        """Gradients i16[16h, 16w, C] by levels -> by coefficients f32, in their unit if both are of one scale."""
        (h, w), layers, synthesis, over_rows = self._cells, self._layers, self._synthesis, self._threads.over_rows
        multipliers = [synthesis.multipliers.at(place, self._quality_index) for place in ("out", "fine")]
        y = reused("fine slopes", (2 * h, 2 * w, layers.fine.channels), np.int16)
        over_rows(2 * h, lambda rows: kernels.pixels_back(layers.fine, error, multipliers[0], y, rows))
        count = len(layers.coarse_blocks)
        y = self._blocks_back(layers.fine_blocks, y, self._tapes[count:], multipliers[1])
        planes = reused("plane slopes", (error.shape[2], STRIDE * h, STRIDE * w), np.float32)
        over_rows(
            2 * h,
            lambda rows: kernels.samples_back(layers.skip, y, error, layers.skip_unit, self._rotation, planes, rows),
        )
        x = np.empty((h, w, layers.coarse.channels), np.int16)
        over_rows(h, lambda rows: analysis_coarse(layers.coarse, y, x, rows))
        x = self._blocks_back(layers.coarse_blocks, x, self._tapes[:count])
        out = empty_coefficients(len(planes), (h, w), np.float32, "coefficient slopes")
        self._threads.run(lambda channel: _wavelet_back(planes[channel], out, channel), range(len(planes)))
        over_rows(
            h,
            lambda rows: kernels.coefficients_back(layers.latents, x, layers.latents_unit, out.subbands, out.low, rows),
        )
        return out

    def _blocks_back(
        self, blocks: list[BlockBack], gradient: np.ndarray, tapes: list[np.ndarray], last: np.ndarray | None = None
    ) -> np.ndarray:
        """Through blocks, last to first; the result of the first one is multiplied."""
        other = reused(f"slopes {gradient.shape[2]}", gradient.shape, np.int16)
        for block, tape in zip(blocks, reversed(tapes), strict=True):
            multiplier = last if block is blocks[-1] else None
            arguments = block, gradient, tape, other, multiplier
            self._threads.over_rows(len(gradient), partial(kernels.block_back, *arguments))
            gradient, other = other, gradient
        return gradient


def _wavelet_back(plane: np.ndarray, out: Coefficients, channel: int) -> None:
    """Gradients f32[16h, 16w] by a plane of samples -> by its coefficients."""
    channels, ones = len(out.low), (1.0, 1.0, 1.0, 1.0)
    for octave, planes in enumerate(out.subbands):
        subbands = list(planes[channel::channels])
        low = out.low[channel] if octave == len(out.subbands) - 1 else np.empty(subbands[0].shape, np.float32)
        kernels.inverse_dwt_back(plane, ones, low, subbands)
        plane = low
