"""Progress of a training run: lines for people, scalars for TensorBoard, and a stop on request."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import tensorflow as tf

REPORT_EVERY = 10.0  # seconds between lines; a bar on a terminal is redrawn more often
REDRAW_EVERY = 1.0
BAR = 20  # characters
CLEAR = "\r\x1b[K"

Say = Callable[[str], Any]


def say_on_stderr(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


class StopRequest:
    """Catch the first SIGINT or SIGTERM within the context; the second one has its previous effect."""

    def __init__(self) -> None:
        self.requested = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        with suppress(ValueError):  # only the main thread can install handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._handlers[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        while self._handlers:
            signal.signal(*self._handlers.popitem())

    def _request(self, *_: object) -> None:
        self.requested = True
        self.__exit__()


class Progress:
    """Average metrics between reports, and report them to people and to TensorBoard."""

    def __init__(self, run: str, means: dict[str, float], metrics: tuple[str, ...], say: Say = say_on_stderr) -> None:
        self.means = {name: means.get(name, math.nan) for name in metrics}
        self.writer = tf.summary.create_file_writer(os.path.join(run, "logs"))
        self._say = say
        self._is_live = say is not say_on_stderr and sys.stderr is not None and sys.stderr.isatty()
        self._start_interval(time.monotonic())
        self._drawn = 0.0

    def _start_interval(self, now: float) -> None:
        self._sums, self._count, self._since = np.zeros(len(self.means)), 0, now

    def add(self, metrics: np.ndarray) -> bool:
        """Add the metrics of a step; False if any is not finite."""
        self._sums, self._count = self._sums + metrics, self._count + 1
        return bool(np.isfinite(self._sums).all())

    def say(self, text: str) -> None:
        """Print a line."""
        self._clear()
        self._say(text)

    def _clear(self) -> None:
        if self._is_live:
            print(CLEAR, end="", file=sys.stderr, flush=True)

    def update(self, number: int, done: float, lr: float, seconds: float) -> bool:
        """Report if it is time to, and say whether it was; on a terminal, also redraw the bar.

        Args:
            number: the steps that the run has taken.
            done: the part of the run that this is, 0 to 1.
            lr: the learning rate.
            seconds: the time that the run has taken.
        """
        now = time.monotonic()
        left = (1 - done) / max(done, 1e-9) * seconds / 60
        if self._count and now - self._since >= REPORT_EVERY:
            self._report(number, done, lr, left, now)
            return True
        if self._is_live and self._count and now - self._drawn >= REDRAW_EVERY:
            self._drawn = now
            filled = round(BAR * min(done, 1.0))
            text = f"[{'=' * filled}{' ' * (BAR - filled)}] " + self._text(number, self._sums / self._count, left, now)
            print(CLEAR + text[: shutil.get_terminal_size().columns - 1], end="", file=sys.stderr, flush=True)
        return False

    def finish(self, number: int, done: float, lr: float) -> None:
        """Report the steps since the last report, if there are any."""
        if self._count:
            self._report(number, done, lr, 0.0, time.monotonic())
        self._clear()
        self.writer.flush()

    def _text(self, number: int, values: np.ndarray, minutes_left: float, now: float) -> str:
        metrics = " ".join(f"{name} {value:.4f}" for name, value in zip(self.means, values, strict=True))
        speed = self._count / max(now - self._since, 1e-9)
        left = f"{minutes_left:.0f} min left" if minutes_left >= 1 else f"{60 * minutes_left:.0f} s left"
        return f"step {number} {metrics} | {speed:.3g} steps/s, {left}"

    def _report(self, number: int, done: float, lr: float, minutes_left: float, now: float) -> None:
        values = self._sums / self._count
        self.say(self._text(number, values, minutes_left, now) + f" ({100 * done:.0f} %)")
        self.means = dict(zip(self.means, map(float, values), strict=True))
        with self.writer.as_default(step=number):
            for name, value in {**self.means, "lr": lr, "steps_per_second": self._count / (now - self._since)}.items():
                tf.summary.scalar(name, value)
        self._start_interval(now)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens within the context counts for the speed of no step."""
        began = time.monotonic()
        yield
        self._since += time.monotonic() - began

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """Say what goes on for long, and how long it has, until it ends; paused meanwhile."""
        began, ended = time.monotonic(), threading.Event()

        def repeat() -> None:
            while not ended.wait(REPORT_EVERY):
                self.say(f"{what}: {time.monotonic() - began:.0f} s so far")

        self.say(what)
        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        try:
            with self.paused():
                yield
        finally:
            ended.set()
            thread.join()
