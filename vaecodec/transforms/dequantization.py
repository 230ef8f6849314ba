"""Between decoded values, in quantisation steps, and coefficients; and what an encoder's symbols are to stand for."""

from __future__ import annotations

import numpy as np

from vaecodec.native.wavelet import octave_planes, octave_scaled
from vaecodec.transforms.coefficients import OCTAVES, SUBBANDS, Coefficients, Values, empty

VALUE_BITS = 6


def coefficients_of(values: Values, gains: tuple[np.ndarray, np.ndarray]) -> Coefficients:
    """Coefficients, unit 2**-14, of the values of a tile; gains are (mantissas, shifts) i32[13 C]."""
    mantissas, shifts = gains
    channels, h, w = values.low.shape
    width = SUBBANDS * channels
    out = empty(channels, (h, w))
    for octave, bands in enumerate(out.bands):
        part = slice(octave * width, (octave + 1) * width)
        octave_planes(*values.halves[octave], bands.shape[1:], mantissas[part], shifts[part], out=bands)
    mantissa, shift = (gain[OCTAVES * width :, None, None] for gain in (mantissas, shifts))
    np.right_shift(values.low * mantissa + (1 << shift >> 1), shift, out=out.low)
    return out


def step_targets(coefficients: Coefficients, gains: tuple[np.ndarray, np.ndarray]) -> Values:
    """Coefficients of a tile in quantisation steps, f32, in the places of Values: what symbols are to stand for."""
    mantissas, shifts = gains
    scales = np.ldexp(1.0 / mantissas, shifts - VALUE_BITS).astype(np.float32)
    width = SUBBANDS * len(coefficients.low)
    parts = [scales[octave * width : (octave + 1) * width] for octave in range(OCTAVES)]
    halves = [octave_scaled(bands, part) for bands, part in zip(coefficients.bands, parts, strict=True)]
    return Values(halves, coefficients.low.astype(np.float32) * scales[OCTAVES * width :, None, None])
