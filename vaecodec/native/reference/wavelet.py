"""The kernels of native.wavelet in NumPy: slower, and normative.  int32 arrays wrap modulo 2**32."""

from __future__ import annotations

import numpy as np

# Lifting steps of the CDF 9/7 wavelet: round(factor * (sum of two neighbours), bits) is added to what `sign` says.
STEPS = ((7266, 14, -1), (7233, 13, -1), (3472, 16, 1), (6497, 12, 1))
LOW_SCALE, LOW_BITS = 12397, 14  # 1 / 1.149604398860241**2


def rounded(x: np.ndarray, bits: int) -> np.ndarray:
    """round(x, bits) modulo 2**32."""
    return (x + np.int32(1 << (bits - 1))) >> bits


def _lift(even: np.ndarray, odd: np.ndarray, step: int, sign: int) -> None:
    """Add lifting step 0..3, or subtract it with sign -1, along the first axis."""
    factor, bits, direction = STEPS[step]
    if step % 2 == 0:
        target, around = even, np.concatenate([odd[:1], odd])
    else:
        target, around = odd, np.concatenate([even, even[-1:]])
    target += np.int32(sign * direction) * rounded((around[:-1] + around[1:]) * np.int32(factor), bits)


def _join(even: np.ndarray, odd: np.ndarray) -> np.ndarray:
    """Coefficients along the first axis -> samples, twice as many."""
    even, odd = even.copy(), odd.copy()
    for step in range(4):
        _lift(even, odd, step, 1)
    return np.stack([even, odd], 1).reshape(2 * len(even), *even.shape[1:])


def _split(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of _join; the last sample is repeated where their number is odd."""
    if len(samples) % 2:
        samples = np.concatenate([samples, samples[-1:]])
    even, odd = samples[::2].copy(), samples[1::2].copy()
    for step in (3, 2, 1, 0):
        _lift(even, odd, step, -1)
    return even, odd


def inverse_dwt(low: np.ndarray, bands: np.ndarray, shape: tuple[int, int], scale_low: bool, limit: int) -> np.ndarray:
    if scale_low:
        low = rounded(low * np.int32(LOW_SCALE), LOW_BITS)
    across, down, both = (part.transpose(1, 2, 0) for part in np.split(bands, 3))
    left, right = _join(low.transpose(1, 2, 0), down), _join(across, both)
    samples = _join(left.transpose(1, 0, 2), right.transpose(1, 0, 2)).transpose(2, 1, 0)
    samples = samples[:, : shape[0], : shape[1]]
    return np.clip(samples, -limit, limit) if limit else samples


def forward_dwt(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    halves = _split(samples.transpose(2, 1, 0))
    (low, down), (across, both) = (_split(half.transpose(1, 0, 2)) for half in halves)
    return low.transpose(2, 0, 1), np.concatenate([part.transpose(2, 0, 1) for part in (across, down, both)])


def octave_order(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of a 2x2 square, numbered by row, column, subband and channel, in the first and second half."""
    odd = np.indices((2, 2, 3, channels)).sum(0).ravel() % 2
    return np.flatnonzero(odd == 0), np.flatnonzero(odd)


def octave_planes(
    first: np.ndarray,
    second: np.ndarray,
    shape: tuple[int, int],
    mantissa: np.ndarray,
    shift: np.ndarray,
    limit: int,
) -> np.ndarray:
    h, w, width = first.shape
    cells = np.empty((h, w, 2 * width), np.int32)
    for half, numbers in zip((first, second), octave_order(width // 6), strict=True):
        cells[..., numbers] = half
    planes = cells.reshape(h, w, 2, 2, width // 2).transpose(4, 0, 2, 1, 3)
    planes = planes.reshape(width // 2, 2 * h, 2 * w)[:, : shape[0], : shape[1]]
    shift = shift[:, None, None]
    product = planes * mantissa[:, None, None]
    # Halves up without adding 2**(shift - 1), which might wrap.
    scaled = (product >> shift) + (product >> np.maximum(shift - 1, 0) & (shift > 0))
    return np.clip(scaled, -limit, limit) if limit else scaled


def octave_halves(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count, height, width = planes.shape
    planes = np.pad(planes, [(0, 0), (0, height % 2), (0, width % 2)])
    h, w = planes.shape[1] // 2, planes.shape[2] // 2
    cells = planes.reshape(count, h, 2, w, 2).transpose(1, 3, 2, 4, 0).reshape(h, w, 4 * count)
    first, second = (cells[..., numbers] for numbers in octave_order(count // 3))
    return first, second
