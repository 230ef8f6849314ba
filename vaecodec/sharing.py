"""A map for a few threads, of which the calling one works too: it does not wait for the others to wake up.

On a virtual machine that can take milliseconds, as long as all the work: then it does all the work by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from typing import Any

from vaecodec.cells import Each


def sharing(pool: Executor, others: int) -> Each:
    """A map like that of `pool`, which has so many threads, but that all is done when it returns.

    The caller has the first call, whoever else is awake.  Raises what a call raises; those that have not begun by then
    are not made.
    """

    def each(work: Callable[..., Any], *iterables: Iterable[Any]) -> list[Any]:
        jobs = deque(enumerate(zip(*iterables, strict=True)))
        found: list[Any] = [None] * len(jobs)

        def some() -> None:
            while True:
                try:
                    number, job = jobs.popleft()
                except IndexError:
                    return
                found[number] = work(*job)

        first = jobs.popleft() if jobs else None
        helpers = [pool.submit(some) for _ in range(min(others, len(jobs)))]
        try:
            if first:
                found[first[0]] = work(*first[1])
            some()
        finally:
            jobs.clear()
            late = [helper for helper in helpers if not helper.cancel()]
            for helper in late:
                helper.exception()
        for helper in late:
            helper.result()
        return found

    return each
