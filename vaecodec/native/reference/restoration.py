"""The restoration filter in NumPy: weighted sums of neighbouring samples, in rotated colours, added to each pixel.

a[k]   rotated colours, unit 1/8 of a level, within +-4095
B[n]   nine sums around a sample of a[0]: along its row, its column and its diagonals, at distances 1, 2 and 3
b[k]   what is added to a[k], unit 2**-10
"""

from __future__ import annotations

import numpy as np

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
    return rows[:, : -2 * far] + 2 * rows[:, far:-far] + rows[:, 2 * far :]


def activity(plane: np.ndarray) -> np.ndarray:
    """i32[h, w]: the deviation of samples from the mean around them, twice smoothed, times 4096."""
    deviation = np.abs(16 * plane[1:-1, 1:-1] - mean9(plane, 1))
    return mean9(mean9(deviation, 1), 2)


def class_part(active: np.ndarray, ramp: int) -> np.ndarray:
    """i32[h, w], 0 to 256: how far a sample belongs to the class above a limit, by its activity."""
    busy = np.minimum(active >> 8, 32767).astype(np.uint32)
    return np.clip(((busy * np.uint32(ramp)) >> 12).astype(np.int32) - 256, 0, 256)


def restore(
    samples: np.ndarray,
    rotation: np.ndarray,
    first: np.ndarray,
    shifts: np.ndarray,
    ramps: np.ndarray,
    others: np.ndarray,
) -> np.ndarray:
    """Levels i16[H, W, C], unit 2**-6, 0 in the middle of the range -> pixels u8[H, W, C]; arrays as in vc_filter."""
    planes = rotate(samples, rotation)
    basis = [each for far in DISTANCES for each in sums_around(planes[0], far)]
    active = activity(planes[0]) if len(first) > 1 else None
    total = before = np.zeros(0, np.int32)
    for k, (weights, shift) in enumerate(zip(first, shifts - 7, strict=True)):
        weighted = sum(w * each for w, each in zip(weights, basis, strict=True))
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
    turned = np.einsum("khw,kc->hwc", np.stack(added).astype(np.int32), rotation).astype(np.int32) + (1 << 17)
    return np.clip((samples + (turned >> 18) + 8192) >> 6, 0, 255).astype(np.uint8)


def fit_sums(
    samples: np.ndarray, wanted: np.ndarray, box: tuple[int, int, int, int], every: int, rotation: np.ndarray
) -> np.ndarray:
    """i64[90 + 20 (C - 1)]: what `vaecodec.native.restoration.fit_sums` returns."""
    top, left, bottom, right = box
    inside = slice(top, bottom, every), slice(left, right)
    planes = rotate(samples, rotation)
    lack = 64 * wanted.astype(np.int32) - 8160 - samples
    lack = np.einsum("hwc,kc->khw", lack[inside], rotation).astype(np.int32) + (1 << 16)
    lack = np.clip(lack >> 17, -COLOR_MAX, COLOR_MAX).astype(np.int64).reshape(len(planes), -1)

    def chosen(sums: list[np.ndarray]) -> np.ndarray:
        return np.stack([each[inside].ravel() for each in sums]).astype(np.int64)

    basis = chosen([each for far in DISTANCES for each in sums_around(planes[0], far)])
    found = [np.triu(basis @ basis.T).ravel(), basis @ lack[0]]
    for k in range(1, len(planes)):
        row, column, corners = chosen(sums_around(planes[k], 1))
        four = np.stack([row + column, corners, basis[0] + basis[1], basis[2]])
        found += [np.triu(four @ four.T).ravel(), four @ lack[k]]
    return np.concatenate(found)
