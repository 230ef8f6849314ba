"""Analysis: pixels to wavelet coefficients, in integers: an encoder writes the same bytes on every machine.

pixels --colours, wavelet--> coefficients
pixels --fine blocks--> --coarse blocks--> what the network adds to them
"""

from __future__ import annotations

import numpy as np

from vaecodec.config import Config
from vaecodec.native import transforms as kernels
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.coefficients import Coefficients
from vaecodec.transforms.networks import Arrays, Multipliers, blocks, dense_layer, rotation_matrix
from vaecodec.transforms.synthesis import run_blocks
from vaecodec.transforms.wavelet import forward_wavelet


class Analysis:
    """The analysis transform of one model; raises ModelError where its tensors do not fit."""

    def __init__(self, config: Config, arrays: Arrays) -> None:
        channels, fine, coarse = config.channels, config.fine, config.coarse
        self.channels = channels
        self.rotation = rotation_matrix(channels)
        self.fine = dense_layer(arrays, "analysis/fine", 64 * channels, fine)
        self.fine_blocks = blocks(arrays, "analysis/fine", config.fine_blocks, fine)
        self.coarse = dense_layer(arrays, "analysis/coarse", 4 * fine, coarse)
        self.coarse_blocks = blocks(arrays, "analysis/coarse", config.coarse_blocks, coarse)
        self.latents = dense_layer(arrays, "analysis/latents", coarse, 256 * channels)
        self.multipliers = Multipliers(arrays, "analysis", config, coarse)

    def wavelet(self, pixels: np.ndarray, threads: Threads = ONE_THREAD) -> Coefficients:
        """The coefficients of u8[16h, 16w, C] without what the network adds, unit 2**-14."""
        planes = np.empty((self.channels, *pixels.shape[:2]), np.int32)
        threads.over_rows(len(pixels), lambda rows: kernels.forward_colors(pixels, self.rotation, planes, rows))
        return forward_wavelet(planes, threads)

    def __call__(self, pixels: np.ndarray, quality_index: int, threads: Threads = ONE_THREAD) -> Coefficients:
        """u8[16h, 16w, C] -> coefficients, unit 2**-14."""
        h, w = pixels.shape[0] // 16, pixels.shape[1] // 16
        found = self.wavelet(pixels, threads)
        x = np.empty((2 * h, 2 * w, self.fine.channels), np.int16)
        multiplier = self.multipliers.of("fine", quality_index)
        threads.over_rows(2 * h, lambda rows: kernels.analysis_fine(self.fine, pixels, multiplier, x, rows))
        x = run_blocks(self.fine_blocks, x, threads)
        y = np.empty((h, w, self.coarse.channels), np.int16)
        threads.over_rows(h, lambda rows: kernels.analysis_coarse(self.coarse, x, y, rows))
        y = run_blocks(self.coarse_blocks, y, threads, self.multipliers.of("out", quality_index))
        threads.over_rows(h, lambda rows: kernels.analysis_latents(self.latents, y, found.bands, found.low, rows))
        return found
