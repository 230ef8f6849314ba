"""Code the planes of an image on several threads: each plane follows, some rows behind, the planes that it sees."""

from __future__ import annotations

from collections.abc import Callable
from threading import Condition

from vaecodec.native.lossless import AHEAD_MAX, reference_planes
from vaecodec.threads import Threads

ROWS = 4  # of one call: few enough that a plane stays within AHEAD_MAX rows of the next, and both stay in the cache

Rows = tuple[int, int]


class PlaneSchedule:
    """Calls work(plane, (first row, row beyond the last)) for all rows of all planes, each when its rows are ready."""

    def __init__(self, height: int, planes: int, work: Callable[[int, Rows], None]) -> None:
        self._height, self._work = height, work
        self._done, self._busy, self._failed = [0] * planes, [False] * planes, False
        self._before = [range(plane - reference_planes(plane, planes), plane) for plane in range(planes)]
        self._after = [[n for n in range(planes) if plane in self._before[n]] for plane in range(planes)]
        self._changed = Condition()

    def run(self, threads: Threads) -> None:
        """Do all the work; raises what it raises."""
        threads.run(self._take, range(min(threads.count, len(self._done))))

    def _bottom(self, plane: int) -> int:
        return min(self._height, self._done[plane] + ROWS)

    def _is_ready(self, plane: int) -> bool:
        bottom, done = self._bottom(plane), self._done
        return (
            not self._busy[plane]
            and done[plane] < self._height
            and all(done[n] >= bottom for n in self._before[plane])
            and all(bottom - done[n] <= AHEAD_MAX for n in self._after[plane])
        )

    def _take(self, _: int) -> None:
        with self._changed:
            while not self._failed and min(self._done) < self._height:
                ready = [plane for plane in range(len(self._done)) if self._is_ready(plane)]
                if ready:
                    self._code(min(ready, key=self._done.__getitem__))
                else:
                    self._changed.wait()  # a plane is busy: of those with the fewest rows, the first is ready or busy

    def _code(self, plane: int) -> None:
        rows = (self._done[plane], self._bottom(plane))
        self._busy[plane] = True
        self._changed.release()
        complete = False
        try:
            self._work(plane, rows)
            complete = True
        finally:
            self._changed.acquire()
            self._busy[plane], self._done[plane] = False, rows[1]
            self._failed = self._failed or not complete
            self._changed.notify_all()
