"""Build and run the integer networks of analysis (pixels to coefficients) and synthesis (coefficients to pixels).

analysis    pixels --colour transform, wavelet--> coefficients
            pixels --fine blocks, at 1/8--> --coarse blocks, at 1/16--> residual, added to the coefficients

synthesis   coefficients --inverse wavelet, inverse colour transform--> samples
            coefficients --coarse blocks--> --fine blocks, which also see the samples--> residual, added to these

A model stores the base-2 logarithm of each gain at 8 quality anchors, in units of 2**-12.  At a quality index between
them the logarithm is interpolated linearly and rounded; the gain is 2 to that power, by a table of mantissas, so that
all machines have the same gains.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial

import numpy as np

from vaecodec.config import ANCHORS, CELL, FINE_MAX, FINER, INDICES_PER_ANCHOR, LAST_ANCHOR, STRIDE, TILT, Config
from vaecodec.errors import ModelError
from vaecodec.native import networks as layers
from vaecodec.native import transforms as kernels
from vaecodec.native.library import reused
from vaecodec.native.networks import Block, Dense, Depthwise
from vaecodec.native.transforms import FilterWeights, restore, restore_levels
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import wavelet
from vaecodec.transforms.wavelet import OCTAVES, SUBBANDS, VALUE_BITS, Coefficients

LOG_BITS = 12
MANTISSA_BITS = 13  # mantissas are 2**13 .. 2**14
MULTIPLIER_BITS = 12  # unit of the multipliers of activations
MULTIPLIER_MAX = 32767


@lru_cache(maxsize=1)
def mantissas() -> np.ndarray:
    """i32[4096]: round(2**(13 + i / 4096)); no entry is near a half, so any correct exponential gives these."""
    return np.rint(2.0 ** (MANTISSA_BITS + np.arange(1 << LOG_BITS) / (1 << LOG_BITS))).astype(np.int32)


def interpolate(anchors: np.ndarray, quality_index: int) -> np.ndarray:
    """Logarithms i64[n], unit 2**-12, at a quality index, from those at the anchors, i32[8, n]; constant beyond."""
    quality_index = min(quality_index, LAST_ANCHOR)
    first = min(quality_index // INDICES_PER_ANCHOR, ANCHORS - 2)
    distance = quality_index - first * INDICES_PER_ANCHOR
    low, high = anchors[first].astype(np.int64), anchors[first + 1].astype(np.int64)
    return (low * (INDICES_PER_ANCHOR - distance) + high * distance + INDICES_PER_ANCHOR // 2) // INDICES_PER_ANCHOR


def step_logarithms(anchors: np.ndarray, quality_index: int, tilt: int = 0) -> np.ndarray:
    """Logarithms i64[13 C] of quantisation steps, as interpolate; beyond the last anchor all decrease alike.

    A tilt makes those of octaves 0 and 1 larger and those of octave 3 smaller.
    """
    logarithms = interpolate(anchors, quality_index) - FINER * max(0, quality_index - LAST_ANCHOR)
    planes = len(logarithms) // (SUBBANDS * OCTAVES + 1) * SUBBANDS  # of an octave
    tilts = np.repeat(tilt_logarithms(tilt)[:OCTAVES], planes)
    logarithms[: len(tilts)] = np.minimum(logarithms[: len(tilts)] + tilts, LOG_MAX)
    return logarithms


def tilt_logarithms(tilt: int) -> np.ndarray:
    """i64[5]: what a tilt adds to the logarithms of the steps of octaves 0 to 4."""
    return tilt * TILT * (2 - np.arange(OCTAVES + 1))


def scaled_gains(logarithms: np.ndarray, output_bits: int) -> tuple[np.ndarray, np.ndarray]:
    """(mantissa i32[n], shift i32[n]): (x * mantissa + 2**(shift - 1)) >> shift is x times 2**(log + output_bits)."""
    mantissa = mantissas()[logarithms & ((1 << LOG_BITS) - 1)]
    return mantissa, (MANTISSA_BITS - output_bits - (logarithms >> LOG_BITS)).astype(np.int32)


def multipliers(logarithms: np.ndarray) -> np.ndarray:
    """i32[n], unit 2**-12, at most 32767: 2**log, rounded halves up."""
    mantissa = mantissas()[logarithms & ((1 << LOG_BITS) - 1)].astype(np.int64)
    shift = MANTISSA_BITS - MULTIPLIER_BITS - (logarithms >> LOG_BITS)
    left, right = np.clip(-shift, 0, 20), np.clip(shift, 0, 30)
    return np.minimum(((mantissa << left) + (1 << right >> 1)) >> right, MULTIPLIER_MAX).astype(np.int32)


ACTIVATION_MAX = 32767
ACTIVATION_BITS = 11  # unit of activations: 2**-11, by which the product of a gate is shifted
PIXEL_BITS = 14  # unit of samples and of coefficients
LOG_MIN, LOG_MAX = -20 << LOG_BITS, (6 << LOG_BITS) - 1  # of gains: keeps the shifts of scaled_gains in 0..27

Arrays = Mapping[str, np.ndarray]

# Rows: brightness, red against blue, green against both; orthonormal.
COLOR_TRANSFORM = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3.0], [2.0], [6.0]])


def color_transform(channels: int) -> np.ndarray:
    """f64[C, C], orthonormal, the first row a mean: the colour transform, or a DCT-II of channels that are no colours.

    The DCT is that of Ahmed, Natarajan and Rao (1974); its rows are frequencies.
    """
    if channels == 3:
        return COLOR_TRANSFORM
    k, n = np.mgrid[:channels, :channels]
    basis = np.sqrt(2.0 / channels) * np.cos(np.pi * (2 * n + 1) * k / (2 * channels))
    basis[0] /= np.sqrt(2.0)
    return basis


def integer_color_transform(channels: int) -> np.ndarray:
    """i32[C, C], unit 2**-14."""
    return np.rint(color_transform(channels) * 2**PIXEL_BITS).astype(np.int32)


def read_tensor(arrays: Arrays, name: str, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a model file; raises ModelError if it is missing or has another type or shape."""
    array = arrays.get(name)
    if array is None or array.dtype != dtype or array.shape != shape:
        actual = "missing" if array is None else f"{array.dtype}{list(array.shape)}"
        raise ModelError(f"the model's tensor {name} is {actual}, expected {np.dtype(dtype).name}{list(shape)}")
    return array


def read_layer(arrays: Arrays, name: str, shape: tuple[int, ...]) -> list[np.ndarray]:
    """kernel i16[shape], bias i32[outputs] and shift u8[outputs] of a layer; raises ModelError as read_tensor does."""
    parts = (("kernel", np.int16, shape), ("bias", np.int32, shape[-1:]), ("shift", np.uint8, shape[-1:]))
    return [read_tensor(arrays, f"{name}/{part}", dtype, part_shape) for part, dtype, part_shape in parts]


def load_dense(arrays: Arrays, name: str, inputs: int, outputs: int, form: str = "linear") -> Dense:
    """A dense layer; raises ModelError if its shape differs or its sums could overflow."""
    kernel, bias, shift = read_layer(arrays, name, (inputs, outputs))
    try:
        return Dense(kernel, bias, shift, form, ACTIVATION_MAX, ACTIVATION_BITS)
    except ValueError as exc:
        raise ModelError(f"layer {name}: {exc}") from exc


def load_block(arrays: Arrays, name: str, channels: int) -> Block:
    """The five layers of a residual block; raises ModelError as load_dense does."""
    taps, bias, shift = read_layer(arrays, f"{name}/space", (3, 3, channels))
    try:
        space = Depthwise(taps, bias, shift, ACTIVATION_MAX)
    except ValueError as exc:
        raise ModelError(f"layer {name}/space: {exc}") from exc
    return Block(
        load_dense(arrays, f"{name}/in", channels, channels, "relu"),
        space,
        load_dense(arrays, f"{name}/out", channels, channels),
        load_dense(arrays, f"{name}/gate", channels, 2 * channels, "gate"),
        load_dense(arrays, f"{name}/mix", channels, channels),
    )


def run_blocks(
    blocks: list[Block],
    x: np.ndarray,
    threads: Threads,
    multiplier: np.ndarray | None = None,
    tapes: Sequence[np.ndarray | None] | None = None,
) -> np.ndarray:
    """x i16[h, w, C] through blocks, the last of which multiplies its result; overwrites x, and fills tapes."""
    source, target = x, np.empty_like(x)
    for block, tape in zip(blocks, tapes or [None] * len(blocks), strict=True):
        last = multiplier if block is blocks[-1] else None
        threads.over_rows(len(x), partial(layers.block, block, source, target, multiplier=last, tape=tape))
        source, target = target, source
    return source


class SubbandGains:
    """Size of a quantisation step of each subband, by quality index; raises ModelError if the tensor does not fit."""

    def __init__(self, arrays: Arrays, channels: int, tilt: int = 0) -> None:
        self._channels = channels
        shape = (ANCHORS, (SUBBANDS * OCTAVES + 1) * channels)
        self._anchors = read_tensor(arrays, "gains/coefficients", np.int32, shape)
        if self._anchors.min() < LOG_MIN or self._anchors.max() > LOG_MAX:
            raise ModelError("gains/coefficients is out of range")
        self.logarithms = lru_cache(maxsize=32)(
            lambda quality_index: step_logarithms(self._anchors, quality_index, tilt)
        )
        self.scaled = lru_cache(maxsize=32)(self._scaled)

    def low_logarithm(self, quality_index: int) -> int:
        """log2, unit 2**-12, of the step of the low-pass image of channel 0: the unit of the filter's activities."""
        return int(self.logarithms(quality_index)[-self._channels])

    def _scaled(self, quality_index: int) -> wavelet.ScaledGains:
        """(mantissas, shifts) i32[13 C]: from values, unit 2**-6 steps, to coefficients, unit 2**-14."""
        return scaled_gains(self.logarithms(quality_index), PIXEL_BITS - VALUE_BITS)


class Multipliers:
    """Multipliers of the activations of one transform, by place ("fine" or "out") and quality index."""

    def __init__(self, arrays: Arrays, side: str, fine: int, out: int) -> None:
        anchors = {
            place: read_tensor(arrays, f"gains/{side}/{place}", np.int32, (ANCHORS, width))
            for place, width in (("fine", fine), ("out", out))
        }
        self.at = lru_cache(maxsize=32)(lambda place, index: multipliers(interpolate(anchors[place], index)))


def analysis_blocks(arrays: Arrays, place: str, least: int) -> int:
    """How many blocks the analysis has at a place, "fine" or "coarse": as many as there are tensors of, or `least`."""
    count = least
    while f"analysis/{place}{count}/in/kernel" in arrays:
        count += 1
    return count


class Analysis:
    """The analysis transform of a model, of at least as many blocks as the synthesis has.

    Raises ModelError if its tensors do not fit.
    """

    def __init__(self, config: Config, arrays: Arrays) -> None:
        channels, fine, coarse = config.channels, config.fine, config.coarse
        self.channels = channels
        self.colors = integer_color_transform(channels)
        self.fine = load_dense(arrays, "analysis/fine", 64 * channels, fine)
        fine_blocks = range(analysis_blocks(arrays, "fine", config.fine_blocks))
        coarse_blocks = range(analysis_blocks(arrays, "coarse", config.coarse_blocks))
        self.fine_blocks = [load_block(arrays, f"analysis/fine{n}", fine) for n in fine_blocks]
        self.coarse = load_dense(arrays, "analysis/coarse", 4 * fine, coarse)
        self.coarse_blocks = [load_block(arrays, f"analysis/coarse{n}", coarse) for n in coarse_blocks]
        self.latents = load_dense(arrays, "analysis/latents", coarse, CELL * channels)
        self.multipliers = Multipliers(arrays, "analysis", fine, coarse)

    def __call__(self, pixels: np.ndarray, quality_index: int, threads: Threads = ONE_THREAD) -> Coefficients:
        """u8[16h, 16w, C] -> coefficients, unit 2**-14."""
        coefficients = self.linear(pixels, threads)
        h, w = coefficients.cells
        x = np.empty((2 * h, 2 * w, self.fine.channels), np.int16)
        multiplier = self.multipliers.at("fine", quality_index)
        threads.over_rows(2 * h, lambda rows: kernels.analysis_fine(self.fine, pixels, multiplier, x, rows))
        x = run_blocks(self.fine_blocks, x, threads)
        y = np.empty((h, w, self.coarse.channels), np.int16)
        threads.over_rows(h, lambda rows: kernels.analysis_coarse(self.coarse, x, y, rows))
        y = run_blocks(self.coarse_blocks, y, threads, self.multipliers.at("out", quality_index))
        threads.over_rows(h, lambda rows: kernels.analysis_latents(self.latents, y, *coefficients, rows))
        return coefficients

    def linear(self, pixels: np.ndarray, threads: Threads = ONE_THREAD) -> Coefficients:
        """Coefficients of u8[16h, 16w, C], unit 2**-14, without the residual of the network."""
        planes = reused("planes", (self.channels, *pixels.shape[:2]), np.int32)
        threads.over_rows(len(pixels), lambda rows: kernels.forward_colors(pixels, self.colors, planes, rows))
        return wavelet.forward_dwt(planes, threads)


class Synthesis:
    """The synthesis transform of a model; raises ModelError if its tensors do not fit."""

    def __init__(self, config: Config, arrays: Arrays) -> None:
        channels, fine, coarse = config.channels, config.fine, config.coarse
        self.channels = channels
        self.colors = integer_color_transform(channels)
        self.latents = load_dense(arrays, "synthesis/latents", CELL * channels, coarse)
        self.coarse_blocks = [load_block(arrays, f"synthesis/coarse{n}", coarse) for n in range(config.coarse_blocks)]
        self.coarse = load_dense(arrays, "synthesis/coarse", coarse, 4 * fine)
        self.skip = load_dense(arrays, "synthesis/skip", 64 * channels, fine)
        self.fine_blocks = [load_block(arrays, f"synthesis/fine{n}", fine) for n in range(config.fine_blocks)]
        self.fine = load_dense(arrays, "synthesis/fine", fine, 64 * channels)
        self.multipliers = Multipliers(arrays, "synthesis", fine, fine)

    def levels(
        self,
        coefficients: Coefficients,
        quality_index: int,
        threads: Threads = ONE_THREAD,
        tapes: list[np.ndarray] | None = None,
    ) -> np.ndarray:
        """i16[16h, 16w, C], unit 2**-6 of a level of 0..255, 0 in the middle of that range; fills tapes."""
        levels = np.empty(self._shape(coefficients), np.int16)
        self._run(coefficients, quality_index, threads, levels, None, tapes)
        return levels

    def tapes(self, cells: tuple[int, int]) -> list[np.ndarray]:
        """Memory for what gradients need of the blocks, for images of (h, w) cells: coarse ones, then fine ones.

        Later calls in the same thread return the same memory.
        """
        (h, w), coarse, fine = cells, self.latents.channels, self.skip.channels
        shapes = [(h, w, coarse)] * len(self.coarse_blocks) + [(2 * h, 2 * w, fine)] * len(self.fine_blocks)
        lines = map(layers.tape_lines, shapes)
        return [reused(f"synthesis tape{n}", (64 * count,), np.uint8) for n, count in enumerate(lines)]

    def pixels(
        self,
        coefficients: Coefficients,
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> np.ndarray:
        """u8[16h, 16w, C], through a restoration filter if there is one."""
        if weights is not None:
            return restored(self.levels(coefficients, quality_index, threads), weights, threads)
        pixels = np.empty(self._shape(coefficients), np.uint8)
        self._run(coefficients, quality_index, threads, None, pixels)
        return pixels

    def linear(self, coefficients: Coefficients, threads: Threads = ONE_THREAD) -> np.ndarray:
        """Samples i16[16h, 16w, C], unit 2**-14, without the residual of the network."""
        return self._linear(coefficients, np.empty(self._shape(coefficients), np.int16), threads)

    def _linear(self, coefficients: Coefficients, samples: np.ndarray, threads: Threads) -> np.ndarray:
        """Fill and return the samples."""
        h, w = coefficients.cells
        planes = reused("planes", (self.channels, STRIDE * h, STRIDE * w), np.int32)
        wavelet.inverse_dwt(coefficients, threads, planes)
        threads.over_rows(len(samples), lambda rows: kernels.inverse_colors(planes, self.colors, samples, rows))
        return samples

    def _shape(self, coefficients: Coefficients) -> tuple[int, int, int]:
        h, w = coefficients.cells
        return STRIDE * h, STRIDE * w, self.channels

    def _run(
        self,
        coefficients: Coefficients,
        quality_index: int,
        threads: Threads,
        levels: np.ndarray | None,
        pixels: np.ndarray | None,
        tapes: list[np.ndarray] | None = None,
    ) -> None:
        """Fill either `levels` or `pixels`."""
        h, w = coefficients.cells
        count = len(self.coarse_blocks)
        coarse_tapes, fine_tapes = (None, None) if tapes is None else (tapes[:count], tapes[count:])
        samples = self._linear(coefficients, reused("samples", self._shape(coefficients), np.int16), threads)
        x = np.empty((h, w, self.latents.channels), np.int16)
        threads.over_rows(h, lambda rows: kernels.synthesis_coarse(self.latents, *coefficients, x, rows))
        x = run_blocks(self.coarse_blocks, x, threads, tapes=coarse_tapes)
        y = np.empty((2 * h, 2 * w, self.skip.channels), np.int16)
        multiplier = self.multipliers.at("fine", quality_index)
        threads.over_rows(
            h, lambda rows: kernels.synthesis_fine(self.coarse, self.skip, x, samples, multiplier, y, rows)
        )
        y = run_blocks(self.fine_blocks, y, threads, self.multipliers.at("out", quality_index), fine_tapes)
        threads.over_rows(2 * h, lambda rows: kernels.synthesis_pixels(self.fine, y, samples, rows, levels, pixels))


def fine_levels(levels: np.ndarray, weights: FilterWeights | None = None, threads: Threads = ONE_THREAD) -> np.ndarray:
    """u16[16h, 16w, C], 0..FINE_MAX: levels, through a restoration filter if there is one, counted from black.

    (fine + 32) >> 6 is the pixel that `restored` gives.
    """
    if weights is not None:
        filtered = np.empty_like(levels)
        threads.over_rows(len(levels), lambda rows: restore_levels(levels, weights, filtered, rows))
        levels = filtered
    middle = FINE_MAX // 2
    return (np.clip(levels, -middle, middle) + np.int16(middle)).view(np.uint16)


def restored(levels: np.ndarray, weights: FilterWeights, threads: Threads = ONE_THREAD) -> np.ndarray:
    """u8[16h, 16w, C]: levels through a restoration filter."""
    pixels = np.empty(levels.shape, np.uint8)
    threads.over_rows(len(pixels), lambda rows: restore(levels, weights, slice(*rows), pixels))
    return pixels
