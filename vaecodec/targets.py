"""A wanted size or fidelity -> the quality step that meets it, in few trials.

Rate is nearly exponential in the step and PSNR nearly linear, so that the line through the two ends of a bracket,
in the logarithm for rates, foretells the next trial well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from vaecodec.config import STEPS

Result = TypeVar("Result")
ENOUGH = 0.005  # a trial this near to the target, as a share of it, ends the search


class Target(NamedTuple):
    """What a file is to have: `kind` is "bytes" (at most), "bpp" or "psnr" (dB, at least)."""

    kind: str
    value: float

    def scale(self, measured: float) -> float:
        """Where a measured value lies on an axis along which it grows evenly with the quality step."""
        return measured if self.kind == "psnr" else math.log(measured)

    def meets(self, measured: float) -> bool:
        """Whether this value is on the right side: bytes and bits at most the target, dB at least."""
        return measured >= self.value if self.kind == "psnr" else measured <= self.value


def search(target: Target, trial: Callable[[int], tuple[float, Result]]) -> tuple[float, Result]:
    """The trial, (measured value, what it made), of the quality step whose value is nearest to the target on its
    right side; where no step is on that side, the one at the end of the range that comes nearest.

    `trial(step)` codes at a step in 0..895; its value must not fall as the step grows.
    """
    low, high = 0, STEPS - 1
    tried: dict[int, tuple[float, Result]] = {}

    def at(step: int) -> float:
        if step not in tried:
            tried[step] = trial(step)
        return target.scale(tried[step][0])

    goal, step = target.scale(target.value), (STEPS - 1) // 2
    ends = {}  # the values at low and high, once they were tried
    while high - low > 1:
        value = at(step)
        if target.meets(tried[step][0]) and abs(tried[step][0] - target.value) <= ENOUGH * target.value * (
            0.1 if target.kind == "psnr" else 1.0
        ):
            return tried[step]
        if value < goal:
            low, ends["low"] = step, value
        else:
            high, ends["high"] = step, value
        # Typical slopes stand in for an end that was not tried yet.
        slope = 15.0 / STEPS if target.kind == "psnr" else 3.2 / STEPS
        if len(ends) == 2:
            slope = max((ends["high"] - ends["low"]) / (high - low), 1e-6)
        base, origin = (low, ends["low"]) if "low" in ends else (high, ends["high"])
        # A little to the right side of the target, so that the trial can end the search.
        aim = goal + (0.01 if target.kind == "psnr" else -ENOUGH / 3)
        step = min(max(round(base + (aim - origin) / slope), low + 1), high - 1)
        if high - low <= 1:
            break
    for step in (low, high):
        at(step)
    good = [tried[step] for step in tried if target.meets(tried[step][0])]
    if good:
        return min(good, key=lambda one: abs(one[0] - target.value))
    return min(tried.values(), key=lambda one: abs(one[0] - target.value))
