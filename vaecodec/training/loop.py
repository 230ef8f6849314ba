"""Run the training loop: steps by time or number, with progress, validation and checkpoints along the way.

Progress is lines for people and scalars for TensorBoard; SIGINT or SIGTERM stops a run between two steps.
"""

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
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec import training
from vaecodec.config import Config
from vaecodec.errors import CodecError
from vaecodec.model.generative import Generative
from vaecodec.training import Architecture, Weights, kind_of, layout_of, resume, save_checkpoint, train_step, validation
from vaecodec.training.train_step import GROUPS, SCHEDULE, Options

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


SAVE_EVERY = 120.0  # seconds
VALIDATE_EVERY, VALIDATION_SHARE = 300.0, 0.05  # seconds; less often if it would take a larger part of the time


class Outcome(NamedTuple):
    """How a run, or this part of it, ended."""

    means: dict[str, float]  # metrics since the last report; nan if no step was taken
    steps: int  # of the whole run
    is_complete: bool
    bd_rate: float = math.nan  # of the last validation, percent
    against: str = ""  # the model that it is against


def train(
    paths: list[str],
    run: str,
    config: Architecture,
    options: Options,
    start: Weights | None = None,
    save_every: float = SAVE_EVERY,
    devices: int = 1,
    start_name: str = "",
    validate: list[str] | None = None,
    say: Say = say_on_stderr,
) -> Outcome:
    """Train into the folder `run`, or resume from its checkpoint.

    Args:
        paths: what to train on; see datasets.encoded_images.
        run: folder of the checkpoint and logs.
        config: the architecture.
        options: how to train.
        start: initial weights, if not random.
        save_every: seconds between checkpoints.  One is also written at the end, and after SIGINT or SIGTERM.
        devices: devices to divide each batch between; checkpoints do not depend on it.
        start_name: the name of `start`.
        validate: None for no validation, [] to hold a tenth of the images out, or what to validate on.
        say: receives lines for people.

    Raises:
        CodecError: the loss is not finite (the last good checkpoint is kept), or arguments do not fit each other.
    """
    kind, make_step = kind_of(config), _step_maker(config, options, devices)
    os.makedirs(run, exist_ok=True)
    state, before = resume(run, config, options, start)
    progress = Progress(run, before, kind.metrics, say)
    images: Any = kind.read(paths, config)
    held: list[training.Encoded] = []
    if validate is not None and isinstance(config, Config):
        images, held = (images, training.read_training_images(validate)) if validate else validation.hold_out(images)
    number = int(before["steps"])
    batches = iter(kind.batches(images, config, options, options.seed + number))
    progress.say(
        f"{run}: {len(images)} images" + f", {len(held)} more for validation" * bool(held) + "; "
        f"{training.describe(config)}, {len(state[0]) / 1e6:.2f} million weights; batches of {options.batch}; "
        + (f"resumes at step {number}" if number else f"starts from {start_name or 'random weights'}")
    )
    loop = _Loop(run, config, options, state, before, progress, start_name)
    if held and isinstance(config, Config) and loop.part_done < 1:
        with progress.waiting("measuring the model that the run starts from"):
            loop.validator = validation.Validator(run, held, config, start, start_name, options.tune)
    loop.run([make_step(config, options, hard) for hard in (False, True)], batches, save_every)
    return loop.outcome


def _step_maker(config: Architecture, options: Options, devices: int) -> Callable[..., train_step.Step]:
    if devices == 1:
        return kind_of(config).make_step
    if isinstance(config, Generative):
        raise CodecError("a model of digits is trained on one device")
    if options.batch % devices:
        raise CodecError(f"a batch of {options.batch} cannot be divided between {devices} devices")
    return partial(train_step.make_step, strategy=train_step.strategy_for(devices))


class _Loop:
    """A run in training: its state, and the time that it has taken without compiling and validating."""

    def __init__(
        self,
        run: str,
        config: Architecture,
        options: Options,
        state: list[np.ndarray],
        before: dict[str, float],
        progress: Progress,
        start_name: str,
    ) -> None:
        self._run, self._config, self._options, self._start_name = run, config, options, start_name
        self._state: list[Any] = [tf.constant(value) for value in state]
        self._number, self._seconds = int(before["steps"]), float(before["seconds"])
        self._progress = progress
        self.validator: validation.Validator | None = None
        self._bd_rate = math.nan

    @property
    def part_done(self) -> float:
        """The part of the run that is done, in [0, 1] or a little more."""
        by_steps = self._number / self._options.steps if self._options.steps else 0.0
        return max(self._seconds / (60 * self._options.minutes), by_steps)

    @property
    def outcome(self) -> Outcome:
        against = self.validator.against if self.validator else ""
        return Outcome(self._progress.means, self._number, self.part_done >= 1, self._bd_rate, against)

    def run(self, steps: list[train_step.Step], batches: Any, save_every: float) -> None:
        """Take steps until the run is complete or a signal asks to stop; `steps` are those of the two phases."""
        functions, compiled, begun_at = [tf.function(step, autograph=False) for step in steps], set(), self._number
        saved = validated = time.monotonic()
        pause, lr = VALIDATE_EVERY, 0.0
        with StopRequest() as stop:
            while not stop.requested and (done := self.part_done) < 1:
                began, hard = time.monotonic(), done >= self._options.hard_from
                points = np.array(SCHEDULE)
                lr = self._options.rate * float(np.interp(done, points[:, 0], points[:, 1]))
                if hard in compiled:
                    self._step(functions[hard], next(batches), lr)
                    self._seconds += time.monotonic() - began
                else:
                    compiled.add(hard)
                    phase = " of the last phase" if hard else ""
                    with self._progress.waiting(f"compiling the training step{phase}; this counts as no training time"):
                        self._step(functions[hard], next(batches), lr)
                is_reported = self._progress.update(self._number, self.part_done, lr, self._seconds)
                if is_reported and time.monotonic() - saved >= save_every:
                    self._save()
                    saved = time.monotonic()
                if self.validator and time.monotonic() - validated >= pause:
                    began = time.monotonic()
                    self._validate()
                    validated = time.monotonic()
                    pause = max(VALIDATE_EVERY, (validated - began) / VALIDATION_SHARE)
        if self._number > begun_at:
            self._progress.finish(self._number, self.part_done, lr)
            self._save()
            if self.validator and not stop.requested:
                self._validate()

    def _step(self, step: Callable[..., Any], images: Any, lr: float) -> None:
        seed = tf.constant([self._options.seed, self._number], tf.int32)
        self._state, metrics = step(self._state, images, tf.constant(lr, tf.float32), seed)
        self._number += 1
        if not self._progress.add(metrics.numpy()):
            message = f"the loss is not finite at step {self._number}; the last good checkpoint is kept in {self._run}"
            raise CodecError(message)

    def _save(self) -> None:
        record = {"seconds": self._seconds, "steps": self._number, **self._progress.means}
        save_checkpoint(self._run, self._config, self._options, self._state, record, self._start_name)

    def _validate(self) -> None:
        assert self.validator is not None
        with self._progress.paused():
            average = layout_of(self._config).unpack(np.asarray(self._state[GROUPS.index("average")]))
            try:
                result = self.validator(average, self._number)
            except CodecError as exc:
                self._progress.say(f"validation at step {self._number} is left out: {exc}")
                return
            text = f"validation at step {self._number}: {result.text}"
            if self.validator.against:
                text += f", BD-rate {result.bd_rate:+.2f} % against {self.validator.against}"
            self._progress.say(text)
            self.validator.summarise(self._progress.writer, result, self._number)
            self._bd_rate = result.bd_rate
