"""A wanted size or fidelity -> the quality step that meets it, in few trials.

Rate grows nearly exponentially with the step and PSNR nearly linearly, so that a line through what is known, in the
logarithm for rates, foretells the next trial well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from vaecodec.config import STEPS

Result = TypeVar("Result")


class Target(NamedTuple):
    """What a file is to have: `kind` is "size" (bytes, at most), "bpp" (at most) or "psnr" (dB, at least)."""

    kind: str
    value: float

    @property
    def rising(self) -> bool:
        """Whether the target is a least value, and not a most."""
        return self.kind == "psnr"

    def along(self, measured: float) -> float:
        """Where a measured value lies on an axis along which it grows evenly with the quality step."""
        return measured if self.rising else math.log(measured)

    @property
    def typical(self) -> float:
        """How far along that axis one quality step leads, on photographs."""
        return (15.0 if self.rising else 3.2) / STEPS

    @property
    def near(self) -> float:
        """How close along that axis a trial must come to end the search: 0.02 dB, or 0.5 % of a rate."""
        return 0.02 if self.rising else 0.005


def search(target: Target, trial: Callable[[int], tuple[float, Result]]) -> tuple[float, Result]:
    """The trial, (measured value, what it made), of the quality step that comes nearest to the target on its right
    side; where no step is on that side, the one at the end of the range.

    `trial(step)` codes at a step in 0..895; its value should not fall as the step grows.
    """
    tried: dict[int, tuple[float, Result]] = {}
    goal = target.along(target.value)
    # Steps known to lie below and above the goal, with where they lie; none is known at first.
    below, above = (-1, -math.inf), (STEPS, math.inf)
    step = (STEPS - 1) // 2
    while above[0] - below[0] > 1:
        tried[step] = trial(step)
        place = target.along(tried[step][0])
        good = place >= goal if target.rising else place <= goal
        if good and abs(place - goal) <= target.near:
            return tried[step]
        if place < goal:
            below = step, place
        else:
            above = step, place
        if math.isfinite(above[1] - below[1]):
            slope = max((above[1] - below[1]) / (above[0] - below[0]), 1e-6)
        else:
            slope = target.typical
        # Aimed at the middle of what ends the search, on the right side of the goal.
        aim = goal + (0.5 if target.rising else -0.5) * target.near
        step = min(max(round(step + (aim - place) / slope), below[0] + 1), above[0] - 1)
    choice = above[0] if target.rising else below[0]
    return tried[min(max(choice, 0), STEPS - 1)]
