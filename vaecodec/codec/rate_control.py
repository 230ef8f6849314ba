"""Rate control: find the quality that meets a target size or fidelity, in few encodings.

Rate grows nearly exponentially with the quality index and PSNR nearly linearly.  So a line through the known points,
for rates in the logarithm, predicts the next trial well.  A trial is a whole encoding, since the analysis depends on
the quality index, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from vaecodec.arguments import DEFAULT_QUALITY, check_targets
from vaecodec.config import LAST_ANCHOR, QUALITY_INDICES
from vaecodec.container.image_file import quality_of
from vaecodec.errors import TargetError

MIDDLE = LAST_ANCHOR // 2
KINDS = ("size", "bpp", "psnr")
UNITS = {"size": "bytes", "bpp": "bpp", "psnr": "dB"}


class Target(NamedTuple):
    """A target in place of a quality.

    `kind` is "size" (bytes, at most), "bpp" (bits per pixel of the whole file, at most) or "psnr" (dB over all colour
    samples, at least); or "error" (of any colour sample, at most), which no quality meets but a coding of its own.
    """

    kind: str
    value: float

    @classmethod
    def from_arguments(
        cls,
        size: int | None = None,
        bpp: float | None = None,
        psnr: float | None = None,
        quality: float | None = None,
        lossless: bool = False,
        max_error: int | None = None,
    ) -> Target | float:
        """Return the target or the quality that is not None, DEFAULT_QUALITY without either; `lossless` is an error 0.

        Raises ValueError or TypeError on several of them, and on a wrong one.
        """
        check_targets(quality, size, bpp, psnr, lossless, max_error)
        if lossless or max_error is not None:
            return cls("error", 0 if lossless else int(max_error or 0))
        for kind, value in zip(KINDS, (size, bpp, psnr), strict=True):
            if value is not None:
                return cls(kind, value)
        return DEFAULT_QUALITY if quality is None else float(quality)

    def __str__(self) -> str:
        if self.is_bound:
            return f"max error {self.value:g}" if self.value else "lossless"
        return f"target {self.value:g} {UNITS[self.kind]}"

    @property
    def is_bound(self) -> bool:
        """Whether it bounds the error of every sample."""
        return self.kind == "error"

    def for_image(self, height: int, width: int) -> Target:
        """Convert bits per pixel to bytes for an image."""
        return Target("size", self.value * height * width // 8) if self.kind == "bpp" else self

    @property
    def is_minimum(self) -> bool:
        """Whether the value must be reached, rather than not exceeded."""
        return self.kind == "psnr"

    def excess(self, goal: float, value: float) -> float:
        """By how much a value is on the wrong side of a goal; negative on the right side."""
        return goal - value if self.is_minimum else value - goal

    def axis(self, value: float) -> float:
        """Map a value to an axis along which it grows linearly with the quality index."""
        return value if self.is_minimum else math.log(max(value, 1))

    @property
    def typical_slope(self) -> float:
        """The growth along that axis in a step of the quality index, on photographs."""
        return (15.0 if self.is_minimum else 3.2) / LAST_ANCHOR

    @property
    def tolerance(self) -> float:
        """How close along that axis a trial must be to end the search: 0.02 dB, or 0.5 % of a rate."""
        return 0.02 if self.is_minimum else 0.005


def search(target: Target, trial: Callable[[int], float], start: int = MIDDLE) -> int:
    """Find the quality index whose value is nearest to the target on its right side.

    Args:
        target: a size or a PSNR.
        trial: returns the value at a quality index in 0..1232.  It is called once for each, with `start` first, and
            should not decrease.
        start: the first trial.

    Returns:
        A quality index that was tried; the nearest end of the range where no trial is on the right side.
    """
    goal = target.axis(target.value)
    # (quality index, axis) below and above the goal; unknown at first.
    below, above = (-1, -math.inf), (QUALITY_INDICES, math.inf)
    index = start
    while above[0] - below[0] > 1:
        place = target.axis(trial(index))
        if -target.tolerance <= target.excess(goal, place) <= 0:
            return index
        if place < goal or (place == goal and not target.is_minimum):
            below = index, place
        else:
            above = index, place
        if math.isfinite(above[1] - below[1]):
            slope = max((above[1] - below[1]) / (above[0] - below[0]), 1e-6)
        else:
            slope = target.typical_slope
        # Aim at the middle of the tolerance, on the right side of the goal.
        aim = goal + (0.5 if target.is_minimum else -0.5) * target.tolerance
        index += round(min(max((aim - place) / slope, -QUALITY_INDICES), QUALITY_INDICES))
        index = min(max(index, below[0] + 1), above[0] - 1)
    choice = above[0] if target.is_minimum else below[0]
    return min(max(choice, 0), QUALITY_INDICES - 1)


def meet(
    target: Target,
    size: tuple[int, int],
    encode: Callable[[float, int], bytes],
    psnr: Callable[[bytes], float],
    effort: int = 1,
) -> bytes:
    """Encode an image at the quality that meets a target.

    An image that is smaller than the target at quality 100, or better than it at quality 1, is encoded at that quality.

    Args:
        target: the target.
        size: (height, width).
        encode: encode(quality, effort) returns a file.
        psnr: psnr(file) returns its PSNR in dB.
        effort: above 1, a second search begins where the search at effort 1 ended.

    Raises:
        TargetError: no quality meets the target.
    """
    target = target.for_image(*size)
    index, data, value = _search_files(target, lambda quality: encode(quality, 1), psnr)
    if effort > 1:
        index, data, value = _search_files(target, lambda quality: encode(quality, effort), psnr, index)
    if target.excess(target.value, value) > 0:
        limit = f"{value:.2f} dB at most" if target.is_minimum else f"{value:.0f} bytes at least"
        exact = "; lossless coding meets any" if target.is_minimum else ""
        raise TargetError(f"the image comes to {limit}, and the target is {target.value:.10g}{exact}")
    return data


def _search_files(
    target: Target, encode: Callable[[float], bytes], psnr: Callable[[bytes], float], start: int = MIDDLE
) -> tuple[int, bytes, float]:
    """Search as `search` does; (quality index, file, value) of the trial nearest to the target on its right side.

    Where no trial is on the right side, that of the nearest trial.
    """
    best = (math.inf, start, b"", math.nan)

    def trial(index: int) -> float:
        nonlocal best
        data = encode(quality_of(index))
        value = psnr(data) if target.is_minimum else float(len(data))
        excess = target.excess(target.value, value)
        if (excess <= 0 and (best[0] > 0 or excess > best[0])) or 0 < excess < best[0]:
            best = excess, index, data, value
        return value

    search(target, trial, start)
    return best[1:]
