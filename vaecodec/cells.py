"""Rows of cells, a band at a time, so that what is computed of them stays in cache."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

BAND, LEAST = 768, 8  # cells, and rows of them: a row of either neighbour is computed again
Each = Callable[..., Iterable[Any]]


class Hands(NamedTuple):
    """Who works on a tile: `each` is a map, by several threads perhaps; `alone` where others have their own tiles."""

    each: Each = map
    alone: bool = False


HANDS = Hands()


def run(each: Each, work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """work(item) of all of them by `each`, which may be as lazy as map is."""
    deque(each(work, items), maxlen=0)


def in_two(length: int) -> list[slice]:
    """Halves, for two threads."""
    return [slice(0, length // 2), slice(length // 2, length)]


class Band(NamedTuple):
    """Some rows of cells, so few that what is computed of them stays in cache, and a row of each neighbour."""

    top: int
    bottom: int
    height: int  # of all
    width: int

    @property
    def above(self) -> bool:
        return self.top > 0

    @property
    def below(self) -> bool:
        return self.bottom < self.height

    @property
    def rows(self) -> slice:
        return slice(self.top, self.bottom)

    @property
    def seen(self) -> slice:
        return slice(self.top - self.above, self.bottom + self.below)

    def parts(self, rows: slice) -> tuple[slice, slice]:
        """The even and the odd cells of these rows, in coding order."""
        begin, end, evens = rows.start * self.width, rows.stop * self.width, (self.height * self.width + 1) // 2
        return slice((begin + 1) // 2, (end + 1) // 2), slice(evens + begin // 2, evens + end // 2)


def in_bands(each: Each, cells: tuple[int, ...], work: Callable[[Band], None], count: int = 0) -> None:
    """work(band) for all rows of [h, w] cells, an even number at a time, of `count` (BAND) cells or a few more or less;
    each band by `each`, a map."""
    height, width = cells
    size = max(LEAST, (count or BAND) // width // 2 * 2)
    bands = [Band(top, min(top + size, height), height, width) for top in range(0, height, size)]
    run(map if len(bands) == 1 else each, work, bands)
