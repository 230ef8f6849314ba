"""A wanted size or fidelity -> the quality step that meets it, in few trials.

Rate grows nearly exponentially with the step and PSNR nearly linearly, so that a line through what is known, in the
logarithm for rates, foretells the next trial well.  A trial is a whole encoding: the analysis, too, knows the step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from vaecodec.config import QUALITY_INDICES
from vaecodec.container.image_file import quality_of
from vaecodec.errors import TargetError

MIDDLE = (QUALITY_INDICES - 1) // 2


class Target(NamedTuple):
    """What a file is to have instead of a quality: `kind` is "size" (bytes, at most), "bpp" (bits a pixel of the
    whole file, at most) or "psnr" (dB over all colour samples, at least).
    """

    kind: str
    value: float

    @classmethod
    def given(
        cls, size: int | None = None, bpp: float | None = None, psnr: float | None = None, quality: float = 50
    ) -> Target | float:
        """The one target that is not None, or else `quality`; raises ValueError on several, and on one not above 0."""
        found = [cls(kind, value) for kind, value in zip(KINDS, (size, bpp, psnr), strict=True) if value is not None]
        if len(found) > 1:
            raise ValueError(f"{' and '.join(f'target_{one.kind}' for one in found)} exclude each other")
        for one in found:
            if not 0 < one.value < math.inf:  # refuses NaN too
                raise ValueError(f"target_{one.kind} is {one.value!r}, expected a number above 0")
        return found[0] if found else quality

    def __str__(self) -> str:
        return f"target {self.value:g} {UNITS[self.kind]}"

    def of(self, height: int, width: int) -> Target:
        """The same for a picture: a size in bytes, or a fidelity."""
        return Target("size", self.value * height * width // 8) if self.kind == "bpp" else self

    @property
    def is_least(self) -> bool:
        """Whether the target is a least value, and not a most."""
        return self.kind == "psnr"

    def missed(self, wanted: float, found: float) -> float:
        """By how much a value is on the wrong side of what is wanted; below 0 on the right one."""
        return wanted - found if self.is_least else found - wanted

    def along(self, measured: float) -> float:
        """Where a measured value lies on an axis along which it grows evenly with the quality step."""
        return measured if self.is_least else math.log(max(measured, 1))

    @property
    def typical(self) -> float:
        """How far along that axis one quality step leads, on photographs."""
        return (15.0 if self.is_least else 3.2) / QUALITY_INDICES

    @property
    def near(self) -> float:
        """How close along that axis a trial must come to end the search: 0.02 dB, or 0.5 % of a rate."""
        return 0.02 if self.is_least else 0.005


KINDS = ("size", "bpp", "psnr")
UNITS = {"size": "bytes", "bpp": "bpp", "psnr": "dB"}


def search(target: Target, trial: Callable[[int], float], start: int = MIDDLE) -> int:
    """The quality step whose value is nearest to the target on its right side, or the end of the range that is
    nearest to it where none is there.

    `trial(step)` gives what coding at a step in 0..896 comes to, and is asked once for each, `start` first; it should
    not fall as the step grows.  The step returned is one that was tried.
    """
    goal = target.along(target.value)
    # Steps known to lie below and above the goal, with where they lie; none is known at first.
    below, above = (-1, -math.inf), (QUALITY_INDICES, math.inf)
    step = start
    while above[0] - below[0] > 1:
        place = target.along(trial(step))
        if -target.near <= target.missed(goal, place) <= 0:
            return step
        if place < goal or (place == goal and not target.is_least):
            below = step, place
        else:
            above = step, place
        if math.isfinite(above[1] - below[1]):
            slope = max((above[1] - below[1]) / (above[0] - below[0]), 1e-6)
        else:
            slope = target.typical
        # Aimed at the middle of what ends the search, on the right side of the goal.
        aim = goal + (0.5 if target.is_least else -0.5) * target.near
        step += round(min(max((aim - place) / slope, -QUALITY_INDICES), QUALITY_INDICES))
        step = min(max(step, below[0] + 1), above[0] - 1)
    choice = above[0] if target.is_least else below[0]
    return min(max(choice, 0), QUALITY_INDICES - 1)


def meet(
    target: Target,
    pixels: tuple[int, int],
    encode: Callable[[float, int], bytes],
    psnr: Callable[[bytes], float],
    effort: int = 1,
) -> bytes:
    """The file of the quality that meets a target; `pixels` are (height, width).

    `encode(quality, effort)` makes a file, `psnr(file)` measures it in dB.  A picture that is smaller at quality 100
    than it may be, or better at quality 1 than it need be, is that.  Above effort 1 the search begins where it ended
    at effort 1.  Raises TargetError where no quality meets the target.
    """
    target = target.of(*pixels)
    step, data, value = _nearest(target, lambda quality: encode(quality, 1), psnr)
    if effort > 1:
        step, data, value = _nearest(target, lambda quality: encode(quality, effort), psnr, step)
    if target.missed(target.value, value) > 0:
        least = f"{value:.2f} dB at most" if target.is_least else f"{value:.0f} bytes at least"
        raise TargetError(f"the picture comes to {least}, and the target is {target.value:.10g}")
    return data


def _nearest(
    target: Target, encode: Callable[[float], bytes], psnr: Callable[[bytes], float], start: int = MIDDLE
) -> tuple[int, bytes, float]:
    """(step, file, value) of the trial that is nearest to the target on its right side, or of all if none is there."""
    best = (math.inf, start, b"", math.nan)

    def trial(step: int) -> float:
        nonlocal best
        data = encode(quality_of(step))
        value = psnr(data) if target.is_least else float(len(data))
        by = target.missed(target.value, value)
        if (by <= 0 and (best[0] > 0 or by > best[0])) or 0 < by < best[0]:
            best = by, step, data, value
        return value

    search(target, trial, start)
    return best[1:]
