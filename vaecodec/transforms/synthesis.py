"""Synthesis: wavelet coefficients to pixels, in integers: the same on every machine.

coefficients --inverse wavelet--> rotated colours --> samples (linear)
coefficients --coarse blocks--> --fine blocks, which see the samples--> what the network adds
both together are levels; a restoration filter may follow; rounded and clipped they are pixels
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vaecodec.config import Config
from vaecodec.errors import ModelError
from vaecodec.native import transforms as kernels
from vaecodec.native.networks import Block, block
from vaecodec.native.restoration import FilterWeights, restore
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.coefficients import OCTAVES, Coefficients
from vaecodec.transforms.gains import LOG_BITS, interpolate, scaled_gains
from vaecodec.transforms.networks import Arrays, Multipliers, blocks, dense_layer, rotation_matrix, tensor
from vaecodec.transforms.wavelet import inverse_wavelet

VALUE_BITS, PIXEL_BITS = 6, 14  # units of decoded values, in quantisation steps, and of coefficients
# Of logarithms of gains: the shifts that follow from them are 0 to 31.
LOG_MIN, LOG_MAX = -26 << LOG_BITS, (6 << LOG_BITS) - 1


class Gains:
    """What a quantisation step of each subband stands for, at each quality index."""

    def __init__(self, arrays: Arrays, channels: int) -> None:
        self._channels = channels
        self._anchors = tensor(arrays, "gains/coefficients", np.int32, (8, (3 * OCTAVES + 1) * channels))
        if self._anchors.min() < LOG_MIN or self._anchors.max() > LOG_MAX:
            raise ModelError("gains/coefficients is out of range")
        self.logarithms = lru_cache(maxsize=32)(lambda quality_index: interpolate(self._anchors, quality_index))
        self.scaled = lru_cache(maxsize=32)(self._scaled)

    def low_logarithm(self, quality_index: int) -> int:
        """That of the low-pass image of colour 0, whose activity a restoration filter tells classes by."""
        return int(self.logarithms(quality_index)[-self._channels])

    def _scaled(self, quality_index: int) -> tuple[np.ndarray, np.ndarray]:
        """(mantissas, shifts) i32[13 C]: from values, unit 2**-6 steps, to coefficients, unit 2**-14."""
        return scaled_gains(self.logarithms(quality_index), PIXEL_BITS - VALUE_BITS)


class Synthesis:
    """The synthesis transform of one model; raises ModelError where its tensors do not fit."""

    def __init__(self, config: Config, arrays: Arrays) -> None:
        channels, fine, coarse = config.channels, config.fine, config.coarse
        self.channels = channels
        self.rotation = rotation_matrix(channels)
        self.latents = dense_layer(arrays, "synthesis/latents", 256 * channels, coarse)
        self.coarse_blocks = blocks(arrays, "synthesis/coarse", config.coarse_blocks, coarse)
        self.coarse = dense_layer(arrays, "synthesis/coarse", coarse, 4 * fine)
        self.skip = dense_layer(arrays, "synthesis/skip", 64 * channels, fine)
        self.fine_blocks = blocks(arrays, "synthesis/fine", config.fine_blocks, fine)
        self.fine = dense_layer(arrays, "synthesis/fine", fine, 64 * channels)
        self.multipliers = Multipliers(arrays, "synthesis", config, fine)

    def samples(self, coefficients: Coefficients, threads: Threads = ONE_THREAD) -> np.ndarray:
        """i16[16h, 16w, C], unit 2**-14: the inverse wavelet alone, with the colours turned back."""
        planes = inverse_wavelet(coefficients, threads)
        out = np.empty((*planes.shape[1:], self.channels), np.int16)
        threads.over_rows(len(out), lambda rows: kernels.inverse_colors(planes, self.rotation, out, rows))
        return out

    def levels(
        self,
        coefficients: Coefficients,
        quality_index: int,
        threads: Threads = ONE_THREAD,
        pixels: np.ndarray | None = None,
    ) -> np.ndarray:
        """i16[16h, 16w, C], unit 2**-6 of a level, 0 in the middle of the range; or `pixels`, u8, filled with them."""
        samples = self.samples(coefficients, threads)
        x, x_fine = self._coarse_half(coefficients, threads), np.empty(0)
        (h, w), fine = coefficients.cells, self.skip.channels
        x_fine = np.empty((2 * h, 2 * w, fine), np.int16)
        multiplier = self.multipliers.of("fine", quality_index)
        threads.over_rows(
            h, lambda rows: kernels.synthesis_fine(self.coarse, self.skip, x, samples, multiplier, x_fine, rows)
        )
        x_fine = run_blocks(self.fine_blocks, x_fine, threads, self.multipliers.of("out", quality_index))
        levels = np.empty(samples.shape, np.int16) if pixels is None else None
        threads.over_rows(
            2 * h, lambda rows: kernels.synthesis_pixels(self.fine, x_fine, samples, rows, levels, pixels)
        )
        return levels if levels is not None else pixels  # type: ignore[return-value]

    def pixels(
        self,
        coefficients: Coefficients,
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> np.ndarray:
        """u8[16h, 16w, C], through a restoration filter where there is one."""
        if weights is not None:
            return filtered(self.levels(coefficients, quality_index, threads), weights, threads)
        h, w = coefficients.cells
        out = np.empty((16 * h, 16 * w, self.channels), np.uint8)
        return self.levels(coefficients, quality_index, threads, out)

    def _coarse_half(self, coefficients: Coefficients, threads: Threads) -> np.ndarray:
        """i16[h, w, coarse]."""
        x = np.empty((*coefficients.cells, self.latents.channels), np.int16)
        bands, low = coefficients
        threads.over_rows(len(x), lambda rows: kernels.synthesis_coarse(self.latents, bands, low, x, rows))
        return run_blocks(self.coarse_blocks, x, threads)


def filtered(levels: np.ndarray, weights: FilterWeights, threads: Threads = ONE_THREAD) -> np.ndarray:
    """u8[16h, 16w, C]: levels through a restoration filter."""
    out = np.empty(levels.shape, np.uint8)
    threads.over_rows(len(out), lambda rows: restore(levels, weights, slice(*rows), out))
    return out


def run_blocks(
    layers: list[Block], x: np.ndarray, threads: Threads, multiplier: np.ndarray | None = None
) -> np.ndarray:
    """x i16[h, w, C] through blocks, the last of which multiplies its result; x is used up."""
    spare = np.empty_like(x) if layers else x
    for number, layer in enumerate(layers):
        last = multiplier if number == len(layers) - 1 else None
        source, target = x, spare

        def strip(
            rows: tuple[int, int],
            layer: Block = layer,
            source: np.ndarray = source,
            target: np.ndarray = target,
            last: np.ndarray | None = last,
        ) -> None:
            block(layer, source, target, rows, last)

        threads.over_rows(len(x), strip)
        x, spare = target, source
    return x
