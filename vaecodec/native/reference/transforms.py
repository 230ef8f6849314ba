"""The kernels of the transforms in NumPy: the wavelet, colours, the networks of both transforms, and restoration.

Short and normative: native.wavelet and native.transforms give the same integers.  int32 arrays wrap modulo 2**32.

Samples are i16[16h, 16w, C] in units of 2**-14, on a scale of 1 for 255 levels; coefficients are planes of i32 in that
unit; activations i16 in units of 2**-11.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from vaecodec.native.reference.prior import dense, octave_order, rounded

if TYPE_CHECKING:
    from vaecodec.native.networks import Dense

# Lifting steps of the CDF 9/7 wavelet: round(factor * (sum of two neighbours), bits) is added to what `sign` says.
STEPS = ((7266, 14, -1), (7233, 13, -1), (3472, 16, 1), (6497, 12, 1))
LOW_SCALE, LOW_BITS = 12397, 14  # 1 / 1.149604398860241**2


def rounded32(x: np.ndarray, bits: int) -> np.ndarray:
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
    target[edge] += sign * rounded32(2 * other[edge] * factor, bits)
    target[inner] += sign * rounded32((other[:-1] + other[1:]) * factor, bits)


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
        low = rounded32(low * LOW_SCALE, LOW_BITS)
    across, down, both = np.split(bands, 3)
    samples = _join(_join(low, down, 1), _join(across, both, 1), 2)[:, : shape[0], : shape[1]]
    return np.clip(samples, -limit, limit) if limit else samples


def forward_dwt(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (low, down), (across, both) = (_split(half, 1) for half in _split(samples, 2))
    return low, np.concatenate([across, down, both])


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
    result: np.ndarray = np.clip(scaled, -limit, limit) if limit else scaled
    return result


def octave_halves(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    count, height, width = planes.shape
    planes = np.pad(planes, [(0, 0), (0, height % 2), (0, width % 2)])
    h, w = planes.shape[1] // 2, planes.shape[2] // 2
    cells = planes.reshape(count, h, 2, w, 2).transpose(1, 3, 2, 4, 0).reshape(h, w, 4 * count)
    first, second = (cells[..., numbers] for numbers in octave_order(count // 3))
    return first, second


LIMIT = 32767
CELL, FINE_CELL = 16, 8


def narrow(x: np.ndarray) -> np.ndarray:
    """i16 within +-32767."""
    result: np.ndarray = np.clip(x, -LIMIT, LIMIT).astype(np.int16)
    return result


def inverse_colors(planes: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """i32[C, H, W] of rotated colours -> samples i16[H, W, C]; rotation i32[C, C], unit 2**-14."""
    return narrow((np.einsum("khw,kc->hwc", planes, rotation).astype(np.int32) + np.int32(1 << 13)) >> 14)


def forward_colors(pixels: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """u8[H, W, C] -> i32[C, H, W] of rotated colours; 257 / 8 is 2**14 / 510, all but."""
    sums = np.einsum("hwc,kc->khw", 2 * pixels.astype(np.int64) - 255, rotation)
    result: np.ndarray = ((257 * sums + (1 << 16)) >> 17).astype(np.int32)
    return result


def unshuffle(x: np.ndarray, side: int) -> np.ndarray:
    """[h * side, w * side, C] -> [h, w, side * side * C]: each cell's positions in rows, channels innermost."""
    h, w, channels = x.shape[0] // side, x.shape[1] // side, x.shape[2]
    result: np.ndarray = x.reshape(h, side, w, side, channels).transpose(0, 2, 1, 3, 4).reshape(h, w, -1)
    return result


def shuffle(x: np.ndarray, side: int) -> np.ndarray:
    """The inverse of unshuffle."""
    h, w, channels = x.shape[0], x.shape[1], x.shape[2] // (side * side)
    result: np.ndarray = (
        x.reshape(h, w, side, side, channels).transpose(0, 2, 1, 3, 4).reshape(h * side, w * side, channels)
    )
    return result


def cells_of(planes: np.ndarray, side: int) -> np.ndarray:
    """[P, h * side, w * side] -> [h, w, P * side * side], plane by plane, each in rows."""
    count, h, w = planes.shape[0], planes.shape[1] // side, planes.shape[2] // side
    result: np.ndarray = planes.reshape(count, h, side, w, side).transpose(1, 3, 0, 2, 4).reshape(h, w, -1)
    return result


def planes_of(cells: np.ndarray, side: int) -> np.ndarray:
    """The inverse of cells_of."""
    h, w, count = cells.shape[0], cells.shape[1], cells.shape[2] // (side * side)
    result: np.ndarray = (
        cells.reshape(h, w, count, side, side).transpose(2, 0, 3, 1, 4).reshape(count, h * side, w * side)
    )
    return result


def synthesis_coarse(layer: Dense, bands: Sequence[np.ndarray], low: np.ndarray) -> np.ndarray:
    """Coefficients -> i16[h, w, coarse]."""
    cells = [cells_of(plane, FINE_CELL >> octave) for octave, plane in enumerate(bands)]
    x = np.concatenate([*cells, cells_of(low, 1)], -1)
    return dense(layer, narrow((x + np.int32(4)) >> 3))


def synthesis_fine(
    coarse: Dense, skip: Dense, x: np.ndarray, samples: np.ndarray, multiplier: np.ndarray
) -> np.ndarray:
    """i16[h, w, coarse] and samples -> i16[2h, 2w, fine]."""
    residual = shuffle(dense(coarse, x), 2)
    return dense(skip, unshuffle(samples, FINE_CELL), residual=residual, multiplier=multiplier)


def synthesis_levels(layer: Dense, x: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """i16[2h, 2w, fine] and samples -> levels i16[16h, 16w, C], unit 2**-6, 0 in the middle of the range."""
    added = shuffle(dense(layer, x), FINE_CELL).astype(np.int32)
    return narrow(rounded(255 * (samples + added), 8))


def pixels_of(levels: np.ndarray) -> np.ndarray:
    """u8: levels, rounded and clipped."""
    result: np.ndarray = (np.clip(levels >> 6, -128, 127) + 128).astype(np.uint8)
    return result


def analysis_fine(layer: Dense, pixels: np.ndarray, multiplier: np.ndarray) -> np.ndarray:
    """u8[16h, 16w, C] -> i16[2h, 2w, fine]."""
    x = unshuffle((64 * (2 * pixels.astype(np.int32) - 255)).astype(np.int16), FINE_CELL)
    zero = np.zeros((*x.shape[:2], layer.channels), np.int16)
    return dense(layer, x, residual=zero, multiplier=multiplier)


def analysis_coarse(layer: Dense, x: np.ndarray) -> np.ndarray:
    """i16[2h, 2w, fine] -> i16[h, w, coarse]."""
    return dense(layer, unshuffle(x, 2))


def analysis_latents(layer: Dense, x: np.ndarray, bands: Sequence[np.ndarray], low: np.ndarray) -> None:
    """i16[h, w, coarse] through the last layer, added to the coefficients in place."""
    residual, first = dense(layer, x), 0
    for octave, plane in enumerate((*bands, low)):
        side = FINE_CELL >> octave if octave < len(bands) else 1
        count = len(plane) * side * side
        plane += planes_of(residual[..., first : first + count], side)
        first += count


REACH = 4
DISTANCES = (1, 2, 3)
WEIGHTS = 3 * len(DISTANCES)
COLOR_MAX = 4095
ADDED_MAX = 32767


def rotate(samples: np.ndarray, rotation: np.ndarray) -> np.ndarray:
    """i16[H, W, C], unit 2**-6, and i32[C, C], unit 2**-14 -> i32[C, H + 2 REACH, W + 2 REACH], edges mirrored."""
    sums = np.einsum("hwc,kc->khw", samples.astype(np.int32), rotation) + (1 << 16)
    planes = np.clip(sums.astype(np.int32) >> 17, -COLOR_MAX, COLOR_MAX)
    return np.pad(planes, ((0, 0), (REACH, REACH), (REACH, REACH)), "reflect")


def shifted(plane: np.ndarray, down: int, along: int, margin: int = REACH) -> np.ndarray:
    """The samples so many rows and columns further, without the margin."""
    height, width = plane.shape[0] - 2 * margin, plane.shape[1] - 2 * margin
    return plane[margin + down : margin + down + height, margin + along : margin + along + width]


def sums_around(plane: np.ndarray, far: int) -> list[np.ndarray]:
    """[h, w] three times: two samples in the row, two in the column, four on the diagonals, each less the centre."""
    centre = shifted(plane, 0, 0)
    row = shifted(plane, 0, -far) + shifted(plane, 0, far)
    column = shifted(plane, -far, 0) + shifted(plane, far, 0)
    corners = sum(shifted(plane, far * i, far * j) for i in (-1, 1) for j in (-1, 1))
    return [row - 2 * centre, column - 2 * centre, corners - 4 * centre]


def mean9(plane: np.ndarray, far: int) -> np.ndarray:
    """16 times the mean of nine samples that far from each other, weighted 1, 2, 1 both ways; smaller by `far`."""
    rows = plane[: -2 * far] + 2 * plane[far:-far] + plane[2 * far :]
    result: np.ndarray = rows[:, : -2 * far] + 2 * rows[:, far:-far] + rows[:, 2 * far :]
    return result


def activity(plane: np.ndarray) -> np.ndarray:
    """i32[h, w]: the deviation of samples from the mean around them, twice smoothed, times 4096."""
    deviation = np.abs(16 * plane[1:-1, 1:-1] - mean9(plane, 1))
    return mean9(mean9(deviation, 1), 2)


def class_part(active: np.ndarray, ramp: int) -> np.ndarray:
    """i32[h, w], 0 to 256: how far a sample belongs to the class above a limit, by its activity."""
    busy = np.minimum(active >> 8, 32767).astype(np.uint32)
    result: np.ndarray = np.clip(((busy * np.uint32(ramp)) >> 12).astype(np.int32) - 256, 0, 256)
    return result


def restore_levels(
    samples: np.ndarray,
    rotation: np.ndarray,
    first: np.ndarray,
    shifts: np.ndarray,
    ramps: np.ndarray,
    others: np.ndarray,
) -> np.ndarray:
    """Levels i16[H, W, C], unit 2**-6, 0 in the middle of the range -> filtered levels; arrays as in vc_filter."""
    planes = rotate(samples, rotation)
    basis = [sums for far in DISTANCES for sums in sums_around(planes[0], far)]
    active = activity(planes[0]) if len(first) > 1 else None
    total = before = np.zeros(0, np.int32)
    for k, (weights, shift) in enumerate(zip(first, shifts - 7, strict=True)):
        weighted = sum(w * sums for w, sums in zip(weights, basis, strict=True))
        here = (weighted + (1 << shift >> 1)) >> shift if shift > 0 else weighted << -shift
        if active is None or not k:
            total = (here << 8) + 128
        else:
            total = total + class_part(active, int(ramps[k - 1])) * (here - before)
        before = here
    added = [np.clip(total >> 8, -ADDED_MAX, ADDED_MAX)]
    for k in range(1, len(planes)):
        row, column, corners = sums_around(planes[k], 1)
        sums = others[0] * (row + column) + others[1] * corners
        sums = sums + others[2 * k] * (basis[0] + basis[1]) + others[2 * k + 1] * basis[2]
        added.append(np.clip((sums + 2) >> 2, -ADDED_MAX, ADDED_MAX))
    rotated = np.einsum("khw,kc->hwc", np.stack(added).astype(np.int32), rotation).astype(np.int32) + (1 << 17)
    return narrow(samples + (rotated >> 18))


def fit_sums(
    samples: np.ndarray, original: np.ndarray, box: tuple[int, int, int, int], every: int, rotation: np.ndarray
) -> np.ndarray:
    """i64[90 + 20 (C - 1)]: what native.transforms.fit_sums returns."""
    top, left, bottom, right = box
    inside = slice(top, bottom, every), slice(left, right)
    planes = rotate(samples, rotation)
    lack = 64 * original.astype(np.int32) - 8160 - samples
    lack = np.einsum("hwc,kc->khw", lack[inside], rotation).astype(np.int32) + (1 << 16)
    lack = np.clip(lack >> 17, -COLOR_MAX, COLOR_MAX).astype(np.int64).reshape(len(planes), -1)

    def chosen(sums: list[np.ndarray]) -> np.ndarray:
        return np.stack([plane[inside].ravel() for plane in sums]).astype(np.int64)

    basis = chosen([sums for far in DISTANCES for sums in sums_around(planes[0], far)])
    products = [np.triu(basis @ basis.T).ravel(), basis @ lack[0]]
    for k in range(1, len(planes)):
        row, column, corners = chosen(sums_around(planes[k], 1))
        four = np.stack([row + column, corners, basis[0] + basis[1], basis[2]])
        products += [np.triu(four @ four.T).ravel(), four @ lack[k]]
    return np.concatenate(products)
