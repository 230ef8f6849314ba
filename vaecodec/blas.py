"""Keep BLAS to one thread while small matrix products run: its workers spin between them, and hold the cores."""

from __future__ import annotations

import os
import threading
from contextlib import nullcontext
from functools import lru_cache
from typing import Any


class OneThread:
    """Within it, matrix products run on the calling thread alone; for any number of threads at once."""

    def __init__(self) -> None:
        self._lock, self._users, self._limit = threading.Lock(), 0, nullcontext()

    def __enter__(self) -> None:
        with self._lock:
            if self._users == 0 and os.environ.get("OPENBLAS_NUM_THREADS") != "1":
                self._limit = _controller().limit(limits=1, user_api="blas")
                self._limit.__enter__()
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._limit.__exit__(None, None, None)
                self._limit = nullcontext()

    def hold(self) -> None:
        """Lets no thread begin or end, until let_go."""
        self._lock.acquire()

    def let_go(self) -> None:
        self._lock.release()


@lru_cache(maxsize=1)
def _controller() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


one_thread = OneThread()

if hasattr(os, "register_at_fork"):
    # Not while some thread tells BLAS how many it may use: the child would wait for ever for the lock that takes.
    os.register_at_fork(
        before=one_thread.hold,
        after_in_parent=one_thread.let_go,
        after_in_child=lambda: one_thread.__init__(),  # type: ignore[misc]
    )
