"""The octaves' networks by LiteRT: the same integers as those of integer.Exact, in a third of the time.

All numbers are integers in float32, and no sum of them can reach 2**24 (a model for which one could has no engine):
in whatever order a library adds them up, there is one right answer.  Should a machine that none of us has seen have
another all the same, the first comparison finds it, and NumPy does the work there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import numpy as np

from vaecodec.interpreters import Spare
from vaecodec.pyramid import OCTAVES

T = TypeVar("T")
GRAPHS = tuple(f"{name}/{octave}" for octave in range(OCTAVES + 1) for name in ("first", "second"))


class Engine:
    """Flatbuffers by the names of GRAPHS, which take arrays [h, w, C].

    Those of strangers are looked through before: they may be so many `channels` wide.
    """

    def __init__(self, contents: Mapping[str, bytes], channels: int, shipped: bool = False) -> None:
        self._contents, self._channels, self._shipped = contents, channels, shipped
        self._runners = Spare(contents.__getitem__)
        self._usable: bool | None = None

    def run(self, name: str, inputs: tuple[np.ndarray, ...], see: Callable[[list[np.ndarray]], T]) -> T:
        """see(the outputs of a graph, [1, h, w, C], which are its own); raises ModelError where it cannot be run.

        Each thread that calls has interpreters to itself, of one thread: LiteRT's own go on spinning for a while once
        they have nothing to do, on the core that the next interpreter wants.
        """
        return self._runners(name, tuple(value[None] for value in inputs), see)

    def agrees(self, check: Callable[[Engine], bool]) -> bool:
        """Whether check(self) holds, which is asked once; False where LiteRT cannot be had, or run."""
        if self._usable is None:
            from vaecodec.networks import check_network

            try:
                for content in () if self._shipped else self._contents.values():
                    check_network(content, self._channels)
                self._usable = check(self)
            except Exception:  # whatever it is, NumPy does without
                self._usable = False
        return self._usable
