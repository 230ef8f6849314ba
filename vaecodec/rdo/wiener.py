"""A filter for one picture, which its encoder fits and its file carries: what the synthesis for all pictures leaves.

    rotated colours --sums of samples around each--> weighted --> what is added to them

Weights are those of least squares (Wiener's; in video: Tsai et al. 2013, Adaptive Loop Filtering for Video Coding).
The first colour has nine, for samples 1, 2 and 3 away along a row, a column and both diagonals, and nine of each class
of samples, by how much happens around them.  From class to class weights go over gradually, so that a last bit of a
float, in which machines differ, decides nothing.  All other colours share two, for the nearest samples, and each has
two for those of the first colour.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.cells import Each, in_two, run
from vaecodec.config import FILTER_REACH
from vaecodec.transforms.channels import rotation
from vaecodec.transforms.restoration import LIMITS, OTHER_SHIFT, Filter

DISTANCES = (1, 2, 3)
WEIGHTS = 3 * len(DISTANCES)  # along rows, along columns, diagonally; of each distance
COUNTS = (2, 2, 4) * len(DISTANCES)  # samples in the sum of each
NEAREST = (4, 4)  # of those of the other colours: along rows and columns, diagonally
REACH = FILTER_REACH  # of the activity, which reaches further than the weights
SMOOTH = 1 << 12  # what an activity is multiplied by, the weights of its three means being whole numbers
SAMPLES = 1 << 15  # at once, so that they stay in a cache


def weights_of(found: Filter) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Those of the first colour f64[K, 10], and of the others, shared f64[3] and each's f64[C - 1, 3], in its units;
    the last of each is that of the sample itself, so that nothing is added to a flat.
    """
    first, others = found.first.astype(np.float64), found.others.astype(np.float64).reshape(-1, 2)
    return _with_centre(first, COUNTS), _with_centre(others[:1], NEAREST), _with_centre(others[1:], NEAREST)


def others_of(channels: int) -> int:
    """Weights of the colours but the first."""
    return 2 * channels if channels > 1 else 0


def _with_centre(weights: np.ndarray, counts: tuple[int, ...]) -> np.ndarray:
    return np.concatenate([weights, -(weights @ np.array(counts, weights.dtype))[:, None]], 1)


class Restoration:
    """A filter at work on pictures f32[H, W, C] on a scale of 255, whose quantisation step is `step` on that scale."""

    def __init__(self, found: Filter, step: float) -> None:
        self._ramps = [ramp(limit * step / 64) for limit in LIMITS[len(found.first)]]
        first, shared, each = weights_of(found)
        self._first = np.ldexp(first, -found.shifts.astype(np.int32)[:, None]).astype(np.float32)
        self._shared, self._each = (np.ldexp(one, -OTHER_SHIFT).astype(np.float32) for one in (shared, each))
        self._turn = rotation(1 + len(each)).astype(np.float32)
        # All in one product: of each class, then of each other colour, with the sums of all colours.
        self._all = np.zeros((len(first) + len(each), WEIGHTS + 1 + 3 * len(each)), np.float32)
        self._all[: len(first), : WEIGHTS + 1] = self._first
        for n, one in enumerate(self._each):
            self._all[len(first) + n, [0, 1, 2, WEIGHTS]] = one[[0, 0, 1, 2]]
            self._all[len(first) + n, WEIGHTS + 1 + 3 * n :][:3] = self._shared[0]
        if len(first) == 1:
            self._all = self._turn.T @ self._all  # straight to the colours of the picture

    def __call__(self, picture: np.ndarray, each: Each = map, out: np.ndarray | None = None) -> np.ndarray:
        """The picture with what is added to it, in place; sides are at least REACH + 1.  `each` is a map for halves.

        Where there is `out`, u8[H, W, C], it is made that, clipped and without fractions.
        """
        planes, (height, width) = turned(picture, each), picture.shape[:2]

        def add(half: range) -> None:
            rows = min(max(1, SAMPLES // width), len(half))
            room = np.empty((self._all.shape[1], rows * width), np.float32)
            for top in half[::rows]:
                strip = picture[top : min(top + rows, half.stop)]
                seen = planes[:, top : top + len(strip) + 2 * REACH]
                strip += self._added(seen, room[:, : len(strip) * width]).reshape(strip.shape)
                if out is not None:  # while the strip is in a cache
                    out[top : top + len(strip)] = np.clip(strip, 0, 255, out=strip)

        run(each, add, _halves(height))
        return picture if out is None else out

    def _added(self, planes: np.ndarray, sums: np.ndarray) -> np.ndarray:
        """f32[h w, C]: to the colours of rotated f32[C, h + 2 REACH, w + 2 REACH]; `sums` is room for their sums."""
        basis(planes[0], sums[: WEIGHTS + 1])
        for n, plane in enumerate(planes[1:]):
            nearest(plane, sums[WEIGHTS + 1 + 3 * n :][:3])
        if not self._ramps:
            return sums.T @ self._all.T
        first, others = np.split(self._all @ sums, [len(self._first)])
        active = activity(planes[0]).ravel()
        for more, one in zip(np.subtract(first[1:], first[:-1], out=first[1:]), self._ramps, strict=True):
            more *= one(active)
            first[0] += more
        return np.concatenate([first[:1], others]).T @ self._turn

    def adjoint(self, picture: np.ndarray, error: np.ndarray) -> np.ndarray:
        """What the filter does to the gradient f32[H, W, C] with respect to what it made of `picture`, classes standing
        still; but for the outermost samples, where mirrored ones are left out.
        """
        channels, slopes = error.shape[2], turned(error)[:, REACH:-REACH, REACH:-REACH]
        weights = self._first[0]
        if self._ramps:
            active = activity(turned(picture)[0])
            for one, more in zip(self._ramps, np.diff(self._first, axis=0), strict=True):
                weights = weights + one(active)[..., None] * more
        out = np.stack([_spread(slopes[0], weights), *(_spread(one, self._shared[0]) for one in slopes[1:])])
        for slope, each in zip(slopes[1:], self._each, strict=True):
            out[0] += _spread(slope, each)
        return error + (out.reshape(channels, -1).T @ self._turn).reshape(error.shape)


class Ramp(NamedTuple):
    """From 0 to 1, between two activities; `slope` is 1 / (end - begin)."""

    begin: np.float32
    slope: np.float32

    def __call__(self, active: np.ndarray) -> np.ndarray:
        out = active - self.begin
        out *= self.slope
        return np.clip(out, 0, 1, out=out)


def ramp(limit: float) -> Ramp:
    """That around a limit, on the scale of samples; activities are SMOOTH times as large."""
    return Ramp(np.float32(limit * SMOOTH * 2 / 3), np.float32(1.5 / (limit * SMOOTH)))


def _halves(height: int) -> list[range]:
    return [range(height)[half] for half in in_two(height)]


def turned(picture: np.ndarray, each: Each = map) -> np.ndarray:
    """f32[C, H + 2 REACH, W + 2 REACH]: rotated colours of f32[H, W, C], mirrored at the edges."""
    height, width, channels = picture.shape
    turn, rows = rotation(channels).astype(np.float32), max(1, SAMPLES // width)
    planes = np.empty((channels, height + 2 * REACH, width + 2 * REACH), np.float32)
    inside = planes[:, REACH:-REACH, REACH:-REACH]

    def fill(half: range) -> None:
        for top in half[::rows]:
            part = picture[top : min(top + rows, half.stop)]
            into = inside[:, top : top + len(part)]
            into[:] = (turn @ part.reshape(-1, channels).T).reshape(channels, *part.shape[:2])

    run(each, fill, _halves(height))
    return mirrored(planes)


def mirrored(planes: np.ndarray) -> np.ndarray:
    """Planes [C, H + 2 REACH, W + 2 REACH], whose margins are filled in place."""
    for _ in range(2):
        planes[:, :REACH] = planes[:, 2 * REACH : REACH : -1]
        planes[:, -REACH:] = planes[:, -REACH - 2 : -2 * REACH - 2 : -1]
        planes = planes.swapaxes(1, 2)
    return planes


def _inside(plane: np.ndarray, down: int, along: int) -> np.ndarray:
    """[h, w] of [h + 2 REACH, w + 2 REACH], so many rows and columns further."""
    height, width = plane.shape[0] - 2 * REACH, plane.shape[1] - 2 * REACH
    return plane[REACH + down : REACH + down + height, REACH + along : REACH + along + width]


def basis(plane: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """f[10, h w] of a plane and its margin of REACH: the nine sums around each sample, and itself."""
    centre = _inside(plane, 0, 0)
    out = np.empty((WEIGHTS + 1, centre.size), plane.dtype) if out is None else out
    sums = out.reshape(-1, *centre.shape)
    for n, far in enumerate(DISTANCES):
        rows = _pairs(plane, far)
        sums[3 * n] = rows[far:-far]
        np.add(_inside(plane, -far, 0), _inside(plane, far, 0), out=sums[3 * n + 1])
        np.add(rows[: -2 * far], rows[2 * far :], out=sums[3 * n + 2])
    sums[-1] = centre
    return out


def _pairs(plane: np.ndarray, far: int) -> np.ndarray:
    """[h + 2 far, w]: sums of the two samples of a row that are that far from each."""
    rows, width = slice(REACH - far, far - REACH or None), plane.shape[1] - 2 * REACH
    return plane[rows, REACH - far : REACH - far + width] + plane[rows, REACH + far : REACH + far + width]


def nearest(plane: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """f[3, h w]: the sums of the nearest samples along rows and columns, and diagonally; and the sample itself."""
    centre, rows = _inside(plane, 0, 0), _pairs(plane, 1)
    out = np.empty((3, centre.size), plane.dtype) if out is None else out
    sums = out.reshape(-1, *centre.shape)
    np.add(_inside(plane, -1, 0), _inside(plane, 1, 0), out=sums[0])
    sums[0] += rows[1:-1]
    np.add(rows[:-2], rows[2:], out=sums[1])
    sums[2] = centre
    return out


def nearest_of(sums: np.ndarray) -> np.ndarray:
    """`nearest` of the plane that `basis` made these sums of."""
    return np.stack([sums[0] + sums[1], sums[2], sums[-1]])


def activity(plane: np.ndarray) -> np.ndarray:
    """f[h, w]: how far samples of a plane with its margin are from the mean around, twice smoothed; times SMOOTH."""
    away = 16 * plane[1:-1, 1:-1] - _mean(plane, 1)
    return _mean(_mean(np.abs(away, out=away), 1), 2)


def _mean(plane: np.ndarray, far: int) -> np.ndarray:
    """16 times the weighted mean of nine samples that far from each other: one, two, one along rows and columns."""
    rows = plane[far:-far] * plane.dtype.type(2)
    rows += plane[: -2 * far]
    rows += plane[2 * far :]
    out = rows[:, far:-far] * plane.dtype.type(2)
    out += rows[:, : -2 * far]
    out += rows[:, 2 * far :]
    return out


def _spread(slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The adjoint of sums around samples [h, w], with weights [n] or [h, w, n], the last of which is the centre's."""
    out = slopes * weights[..., -1]
    if weights.shape[-1] == len(NEAREST) + 1:
        weights = weights[..., [0, 0, 1]]
    for n in range(weights.shape[-1] // 3):
        along, down, diagonal = (slopes * weights[..., 3 * n + k] for k in range(3))
        far = DISTANCES[n]
        out[:, far:] += along[:, :-far]
        out[:, :-far] += along[:, far:]
        out[far:] += down[:-far]
        out[:-far] += down[far:]
        out[far:, far:] += diagonal[:-far, :-far]
        out[:-far, :-far] += diagonal[far:, far:]
        out[far:, :-far] += diagonal[:-far, far:]
        out[:-far, far:] += diagonal[far:, :-far]
    return out
