"""Work of one tile, by several threads perhaps."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

Each = Callable[..., Iterable[Any]]


def run(each: Each, work: Callable[[Any], None], items: Iterable[Any]) -> None:
    """work(item) of all of them by `each`, which may be as lazy as map is."""
    deque(each(work, items), maxlen=0)


def in_two(length: int) -> list[slice]:
    """Halves, for two threads."""
    return [slice(0, length // 2), slice(length // 2, length)]
