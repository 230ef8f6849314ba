"""The kernels of native.wavelet in NumPy: slower, and normative.  int32 arrays wrap modulo 2**32."""

from __future__ import annotations

import numpy as np

# Lifting steps of the CDF 9/7 wavelet: round(factor * (sum of two neighbours), bits) is added to what `sign` says.
STEPS = ((7266, 14, -1), (7233, 13, -1), (3472, 16, 1), (6497, 12, 1))
LOW_SCALE, LOW_BITS = 12397, 14  # 1 / 1.149604398860241**2


def rounded(x: np.ndarray, bits: int) -> np.ndarray:
    """round(x, bits) modulo 2**32."""
    return (x + (1 << (bits - 1))) >> bits


def _lift(even: np.ndarray, odd: np.ndarray, step: int, sign: int) -> None:
    """Add lifting step 0..3, or subtract it with sign -1, along the first axis."""
    factor, bits, direction = STEPS[step]
    if step % 2 == 0:  # even coefficients lie between odd ones, the first beside one
        target, other, edge, inner = even, odd, slice(0, 1), slice(1, None)
    else:
        target, other, edge, inner = odd, even, slice(-1, None), slice(0, -1)
    sign *= direction
    target[edge] += sign * rounded(2 * other[edge] * factor, bits)
    target[inner] += sign * rounded((other[:-1] + other[1:]) * factor, bits)


def _join(even: np.ndarray, odd: np.ndarray, axis: int) -> np.ndarray:
    """Coefficients along an axis -> samples, twice as many."""
    shape = list(even.shape)
    shape[axis] *= 2
    samples = np.empty(shape, np.int32)
    along = np.moveaxis(samples, axis, 0)
    even, odd = np.moveaxis(even.copy(), axis, 0), np.moveaxis(odd.copy(), axis, 0)
    for step in range(4):
        _lift(even, odd, step, 1)
    along[::2], along[1::2] = even, odd
    return samples


def _split(samples: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of _join; the last sample is repeated where their number is odd."""
    if samples.shape[axis] % 2:
        samples = np.concatenate([samples, samples.take([-1], axis)], axis)
    along = np.moveaxis(samples, axis, 0)
    even, odd = along[::2].copy("K"), along[1::2].copy("K")
    for step in (3, 2, 1, 0):
        _lift(even, odd, step, -1)
    return np.moveaxis(even, 0, axis), np.moveaxis(odd, 0, axis)


def inverse_dwt(low: np.ndarray, bands: np.ndarray, shape: tuple[int, int], scale_low: bool, limit: int) -> np.ndarray:
    if scale_low:
        low = rounded(low * LOW_SCALE, LOW_BITS)
    across, down, both = np.split(bands, 3)
    samples = _join(_join(low, down, 1), _join(across, both, 1), 2)[:, : shape[0], : shape[1]]
    return np.clip(samples, -limit, limit) if limit else samples


def forward_dwt(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (low, down), (across, both) = (_split(half, 1) for half in _split(samples, 2))
    return low, np.concatenate([across, down, both])


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
    planes = np.empty((width // 2, 2 * h, 2 * w), np.int32)
    for half, numbers in zip((first, second), octave_order(width // 6), strict=True):
        for channel, number in enumerate(numbers.tolist()):
            place, plane = divmod(number, len(planes))
            planes[plane, place // 2 :: 2, place % 2 :: 2] = half[..., channel]
    planes, shift = planes[:, : shape[0], : shape[1]], shift[:, None, None]
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
