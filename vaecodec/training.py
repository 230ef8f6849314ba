"""The training step as a pure function, the loop around it, and its checkpoints.

    step: (state, images u8[B, crop, crop, 3], lr f32[], seed i32[2]) -> (state, metrics f32[4])

State is a flat list: weights, Adam's two moments, their running average, each in the order of sorted names,
and the step count.  Nothing else goes in or out, so the same step runs here and, exported, elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from safetensors.numpy import load_file, save, save_file

from vaecodec.atomic import write_atomic
from vaecodec.config import ANCHORS, Config
from vaecodec.datasets import batches
from vaecodec.errors import CodecError
from vaecodec.vae import VAE, initial_weights

GROUPS = ("weights", "moment1", "moment2", "average")
METRICS = ("loss", "bpp", "psnr", "hyper_bpp")
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Kingma and Ba 2015, section 2
CLIP = 1.0  # global norm of the gradient
AVERAGE = 0.999  # decay of the running average of the weights, which is what freezes

# Learning rate, linear between (fraction of the run, factor).
SCHEDULE = ((0.0, 0.05), (0.01, 1.0), (0.55, 1.0), (0.75, 0.3), (0.9, 0.08), (1.0, 0.01))


@dataclass
class Options:
    """How a run trains; stored beside its checkpoint."""

    batch: int = 8
    crop: int = 128
    rate: float = 1.2e-3
    minutes: float = 60.0  # training time of the whole run, over all its starts
    steps: int = 0  # or steps of the whole run, where not 0; whichever comes first
    hard_from: float = 0.85  # from this fraction on the rate is that of rounded latents
    seed: int = 0
    bfloat16: bool = False


def initial_state(config: Config, seed: int = 0, weights: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    """The flat state at step 0, from `weights` where given."""
    start = initial_weights(config, seed) if weights is None else weights
    values = [np.asarray(start[name], np.float32) for name in sorted(start)]
    zeros = [np.zeros_like(value) for value in values]
    return [*values, *zeros, *zeros, *values, np.zeros((), np.float32)]


def make_step(config: Config, options: Options, hard: bool = False) -> Any:
    """The pure training step over (state, images, lr, seed); qualities are drawn uniformly, one an example."""
    model = VAE(config, {})
    model.operands = tf.bfloat16 if options.bfloat16 else tf.float32
    names = sorted(initial_weights(config))

    def step(state: list[tf.Tensor], images: tf.Tensor, lr: tf.Tensor, seed: tf.Tensor):
        count = len(names)
        weights, first, second, average = (state[n * count : (n + 1) * count] for n in range(4))
        quality = tf.random.stateless_uniform([options.batch], seed, 0.0, ANCHORS - 1.0)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = model.bind(dict(zip(names, weights, strict=True))).loss(images, quality, seed + [0, 1 << 20], hard)
        gradients = tape.gradient(loss.loss, weights, unconnected_gradients="zero")
        gradients, _ = tf.clip_by_global_norm(gradients, CLIP)
        number = state[-1] + 1.0
        rate = lr * tf.sqrt(1.0 - BETA2**number) / (1.0 - BETA1**number)
        first = [m + (1 - BETA1) * (g - m) for m, g in zip(first, gradients, strict=True)]
        second = [v + (1 - BETA2) * (g * g - v) for v, g in zip(second, gradients, strict=True)]
        weights = [w - rate * m / (tf.sqrt(v) + EPSILON) for w, m, v in zip(weights, first, second, strict=True)]
        # Early on the average follows closely, or the start would linger in it.
        decay = tf.minimum(AVERAGE, number / (number + 10.0))
        average = [a + (1 - decay) * (w - a) for a, w in zip(average, weights, strict=True)]
        metrics = tf.stack([getattr(loss, name) for name in METRICS])
        return [*weights, *first, *second, *average, number], metrics

    return step


def save_checkpoint(run: str, config: Config, options: Options, state: list[Any], progress: dict[str, float]) -> None:
    """Writes RUN/checkpoint.safetensors, which is the old one until it is the new one, on the disk."""
    names = [f"{group}/{name}" for group in GROUPS for name in sorted(initial_weights(config))] + ["count"]
    # safetensors writes an array's memory as it lies, whatever its strides.
    arrays = {name: np.asarray(value, order="C") for name, value in zip(names, state, strict=True)}
    metadata = {"config": config.to_dict(), "options": asdict(options), "progress": progress}
    data = save(arrays, {key: json.dumps(value) for key, value in metadata.items()})
    write_atomic(os.path.join(run, "checkpoint.safetensors"), data, overwrite=True)


def read_metadata(path: str) -> dict[str, Any]:
    """The JSON metadata of a safetensors file; raises CodecError where it has none."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 1 << 24)))
        return {key: json.loads(value) for key, value in header["__metadata__"].items()}
    except (OSError, ValueError, KeyError) as exc:
        raise CodecError(f"{path}: not a checkpoint ({exc})") from exc


def load_checkpoint(run: str) -> tuple[Config, Options, list[np.ndarray], dict[str, float]]:
    """The inverse of save_checkpoint; raises CodecError on a missing or foreign file."""
    path = os.path.join(run, "checkpoint.safetensors")
    metadata = read_metadata(path)
    config = Config.from_dict(metadata["config"])
    arrays = load_file(path)
    names = [f"{group}/{name}" for group in GROUPS for name in sorted(initial_weights(config))] + ["count"]
    if sorted(names) != sorted(arrays):
        raise CodecError(f"{path}: weights of another architecture")
    return config, Options(**metadata["options"]), [arrays[name] for name in names], metadata["progress"]


def averaged_weights(path: str) -> tuple[Config, dict[str, np.ndarray]]:
    """(config, running average of the weights) of a run folder or of a compact checkpoint file."""
    if os.path.isdir(path):
        config, _, state, _ = load_checkpoint(path)
        names = sorted(initial_weights(config))
        return config, dict(zip(names, state[3 * len(names) : 4 * len(names)], strict=True))
    config = Config.from_dict(read_metadata(path)["config"])
    return config, {name: value.astype(np.float32) for name, value in load_file(path).items()}


def save_compact(path: str, config: Config, weights: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
    """Weights alone, f32, for version control and for starting the next run from."""
    metadata = {"config": json.dumps(config.to_dict()), "notes": json.dumps(notes)}
    save_file({name: np.asarray(value, np.float32, order="C") for name, value in weights.items()}, path, metadata)


class Stop:
    """Within it, the first SIGINT or SIGTERM asks to stop after this step, and the second does what it did before."""

    def __init__(self) -> None:
        self.wanted = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        with suppress(ValueError):  # outside of the main thread signals are somebody else's
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            signal.signal(*self._before.popitem())

    def _ask(self, *_: object) -> None:
        self.wanted = True
        self.__exit__()


class Progress:
    """Means of the metrics since the last report, and where they go: stderr and TensorBoard."""

    def __init__(self, run: str, before: dict[str, float]) -> None:
        self.means = {name: before.get(name, math.nan) for name in METRICS}
        self._writer = tf.summary.create_file_writer(os.path.join(run, "logs"))
        self._sums, self._count, self._since = np.zeros(len(METRICS)), 0, time.monotonic()

    def add(self, metrics: np.ndarray) -> bool:
        """Counts one step's metrics; False once one of them is not finite."""
        self._sums, self._count = self._sums + metrics, self._count + 1
        return bool(np.isfinite(self._sums).all())

    def report(self, number: int, lr: float, minutes_left: float) -> None:
        """One line on stderr and one point of each curve, of the mean since the last report."""
        now = time.monotonic()
        speed, self._since = self._count / (now - self._since), now
        self.means = dict(zip(METRICS, map(float, self._sums / self._count), strict=True))
        self._sums, self._count = np.zeros(len(METRICS)), 0
        text = " ".join(f"{name} {value:.4f}" for name, value in self.means.items())
        text = f"step {number} {text} lr {lr:.1e} | {speed:.1f} steps/s, {minutes_left:.0f} min left"
        print(text, file=sys.stderr, flush=True)
        with self._writer.as_default(step=number):
            for name, value in {**self.means, "lr": lr, "steps_per_second": speed}.items():
                tf.summary.scalar(name, value)


def train(
    paths: list[str],
    run: str,
    config: Config,
    options: Options,
    start: dict[str, np.ndarray] | None = None,
    save_every: float = 120.0,
) -> dict[str, float]:
    """Trains into the folder `run`, resuming from its checkpoint where it has one; returns the last metrics.

    Saves every `save_every` seconds, at the end, and when asked to stop (SIGINT, SIGTERM).  Raises CodecError when
    the loss is not finite; the last good checkpoint is kept.
    """
    os.makedirs(run, exist_ok=True)
    if os.path.exists(os.path.join(run, "checkpoint.safetensors")):
        found, _, state, before = load_checkpoint(run)
        if found != config:
            raise CodecError(f"{run}: holds a run of another architecture: {found}")
    else:
        state, before = initial_state(config, options.seed, start), {"seconds": 0.0, "steps": 0}
    steps = [tf.function(make_step(config, options, hard)) for hard in (False, True)]
    number, began, saved = int(before["steps"]), None, time.monotonic()
    feed = iter(batches(paths, options.batch, options.crop, options.seed + number))
    tensors, points, progress = [tf.constant(value) for value in state], np.array(SCHEDULE), Progress(run, before)

    def spent() -> float:
        return before["seconds"] + (time.monotonic() - began if began else 0.0)

    def save() -> None:
        done = {"seconds": spent(), "steps": number, **progress.means}
        save_checkpoint(run, config, options, tensors, done)

    with Stop() as stop:
        while not stop.wanted:
            done = max(spent() / (60 * options.minutes), number / options.steps if options.steps else 0.0)
            if done >= 1:
                break
            lr = options.rate * float(np.interp(done, points[:, 0], points[:, 1]))
            seed = tf.constant([options.seed, number], tf.int32)
            step = steps[done >= options.hard_from]
            tensors, metrics = step(tensors, next(feed), tf.constant(lr, tf.float32), seed)
            number += 1
            if not progress.add(metrics.numpy()):
                raise CodecError(f"the loss is not finite at step {number}; the last good checkpoint is kept in {run}")
            began = began or time.monotonic()  # compiling does not count
            if number % 100 == 0:
                progress.report(number, lr, (1 - done) / max(done, 1e-9) * spent() / 60)
                if time.monotonic() - saved > save_every:
                    save()
                    saved = time.monotonic()
        if number > before["steps"]:
            save()
    return progress.means
