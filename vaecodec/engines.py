"""The octaves' networks by LiteRT: the same integers as those of integer.Exact, in a third of the time.

All numbers are integers in float32, and no sum of them can reach 2**24 (a model for which one could has no engine):
in whatever order a library adds them up, there is one right answer.  Should a machine that none of us has seen have
another all the same, the first comparison finds it, and NumPy does the work there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from vaecodec.interpreters import Runners

GRAPHS = ("first", "second")


class Engine:
    """Flatbuffers by the names of GRAPHS; arrays [h, w, C] in and out."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents
        self._runners: dict[int, Runners] = {}
        self._usable: bool | None = None

    def run(self, name: str, inputs: tuple[np.ndarray, ...], threads: int) -> list[np.ndarray]:
        """The outputs of a graph, by so many threads; raises ModelError where it cannot be run."""
        if threads not in self._runners:
            self._runners[threads] = Runners(self._contents.__getitem__, threads)
        found = self._runners[threads](name, tuple(value[None] for value in inputs))
        return [value[0] for value in found]

    def agrees(self, check: Callable[[Engine], bool]) -> bool:
        """Whether check(self) holds, which is asked once; False where LiteRT cannot be had, or run."""
        if self._usable is None:
            try:
                self._usable = check(self)
            except Exception:  # whatever it is, NumPy does without
                self._usable = False
        return self._usable
