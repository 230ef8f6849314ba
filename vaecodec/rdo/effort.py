"""Define what an effort means: iterations, the quality index to code with, and the price of a bit.

At every effort the squared error comes to that of effort 1.  The price of a bit makes sure of it: a higher price makes
more symbols 0 or smaller.  The squared error grows with a power of the price, about POWER.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from vaecodec.arguments import check_effort as check_effort
from vaecodec.config import LAST_ANCHOR

ITERATIONS = (0, 1, 2, 3, 5, 7, 10, 14, 22)  # of refinement, for efforts 1 to 9
PRECISE = 3  # the effort from which on squared errors are met closely, and filters may have several classes

# Refinement lowers squared errors.  From effort 3 on a part of that is given up for larger steps: by how much the
# quality index is lowered in the middle of the scale.  Chosen on held-out images.
INDEX_OFFSETS = (0, 0, 10, 14, 18, 20, 22, 23, 23)


def coded_index(quality_index: int, effort: int) -> int:
    """The quality index to code with: lower than what is asked for if refinement makes up for it."""
    offset = INDEX_OFFSETS[effort - 1] * (1.3 - 0.6 * quality_index / LAST_ANCHOR)
    return max(0, quality_index - round(offset))


class Tolerance(NamedTuple):
    """Squared errors to accept, and to aim at, in limits."""

    lowest: float
    aim: float
    highest: float


# Chosen on held-out images.  The wide one is met by most first trials at the price that `start` sets.
NARROW, WIDE = Tolerance(0.99, 0.9985, 1.004), Tolerance(0.95, 0.99, 1.01)
POWER = 0.3  # of the price, where targets stay
FOLLOWING = 2.0  # power of the excess by which the price decreases in an iteration; more oscillates
MIN_PRICE, MAX_PRICE = 0.2, 5.0
LEAST_ERROR = 1e-3  # has a logarithm


class Price:
    """The price of a bit, relative to effort 1.

    `limit` is that of the squared error, of which `share` is allowed; without it, the first squared error is the limit.
    """

    def __init__(self, limit: float | None, tolerance: Tolerance = NARROW, share: float = 1.0) -> None:
        self.value, self._tolerance, self._power, self._share = 1.0, tolerance, POWER, share
        self._limit = None if limit is None else share * limit
        self._last: tuple[float, float] | None = None  # logarithms of price and excess

    def exceeds_limit(self, squared_error: float) -> bool:
        """Whether the squared error is too large."""
        if self._limit is None:
            self._limit = self._share * squared_error
        return squared_error > self._tolerance.highest * self._limit

    def meets_limit(self, squared_error: float) -> bool:
        """Whether the squared error is within the limit, and close to it."""
        least = math.log(self._tolerance.lowest / self._tolerance.aim)
        return not self.exceeds_limit(squared_error) and self._excess(squared_error) >= least

    def start(self, squared_error: float) -> None:
        """Set the price of the first iteration, by the squared error to expect of it at the price of effort 1."""
        self.value = 1.0
        self._multiply(-self._excess(squared_error) / POWER)

    def follow(self, squared_error: float) -> None:
        """Change the price for the next iteration, in which targets move."""
        self._multiply(-FOLLOWING * self._excess(squared_error))

    def correct(self, squared_error: float) -> None:
        """Change the price for the same targets (secant method)."""
        place = math.log(self.value), self._excess(squared_error)
        if self._last is not None and place[0] != self._last[0]:
            power = (place[1] - self._last[1]) / (place[0] - self._last[0])
            self._power = min(max(power, POWER / 3), 3 * POWER)
        self._last = place
        self._multiply(-place[1] / self._power)

    def _excess(self, squared_error: float) -> float:
        """The logarithm of a squared error, relative to the one to aim at."""
        assert self._limit is not None
        return math.log(max(squared_error, LEAST_ERROR) / (self._tolerance.aim * max(self._limit, LEAST_ERROR)))

    def _multiply(self, logarithm: float) -> None:
        self.value = min(max(self.value * math.exp(logarithm), MIN_PRICE), MAX_PRICE)
