"""The four octaves of the wavelet, a colour at a time, so that threads can share them."""

from __future__ import annotations

import numpy as np

from vaecodec.config import STRIDE
from vaecodec.native.wavelet import forward_dwt, inverse_dwt
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.coefficients import Coefficients, empty


def inverse_wavelet(coefficients: Coefficients, threads: Threads = ONE_THREAD) -> np.ndarray:
    """Planes i32[C, 16h, 16w] of rotated colours, in the unit of the coefficients."""
    channels, h, w = coefficients.low.shape
    out = np.empty((channels, STRIDE * h, STRIDE * w), np.int32)

    def synthesize(color: int) -> None:
        low = coefficients.low[color : color + 1]
        for octave in range(len(coefficients.bands) - 1, -1, -1):
            made = None if octave else out[color : color + 1]
            low = inverse_dwt(low, coefficients.bands[octave][color::channels], out=made)

    threads.run(synthesize, range(channels))
    return out


def forward_wavelet(planes: np.ndarray, threads: Threads = ONE_THREAD) -> Coefficients:
    """The inverse of inverse_wavelet: coefficients of i32[C, 16h, 16w]."""
    channels, height, width = planes.shape
    out = empty(channels, (height // STRIDE, width // STRIDE))

    def analyze(color: int) -> None:
        low = planes[color : color + 1]
        for bands in out.bands:
            low, found = forward_dwt(low)
            bands[color::channels] = found
        out.low[color] = low[0]

    threads.run(analyze, range(channels))
    return out
