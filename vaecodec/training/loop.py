"""The training step as a pure function, the loop around it, and its checkpoints.

    step: (state, images u8[B, crop, crop, C], lr f32[], seed i32[2]) -> (state, metrics f32[4])

State is what `optimization` says: four vectors and the step count.  Nothing else goes in or out, so the same step
runs here and, exported, elsewhere.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from safetensors.numpy import load_file, save, save_file

from vaecodec.atomic import write_atomic
from vaecodec.config import ANCHORS, Config, without_retired_fields
from vaecodec.errors import CodecError
from vaecodec.images.metrics import SSIM_LEAST
from vaecodec.model.generative import Generative, read_config
from vaecodec.training.datasets import batches
from vaecodec.training.optimization import GROUPS, Layout, update
from vaecodec.training.vae import initial_weights, make

METRICS = ("loss", "bpp", "psnr", "lowest_bpp")
APART = 1 << 20  # of the seeds of two towers
Tower = Callable[[Any, Any, Any, Any, Any], tuple[Any, Any]]

# Learning rate, linear between (fraction of the run, factor).
SCHEDULE = ((0.0, 0.05), (0.01, 1.0), (0.2, 1.0), (0.5, 0.4), (0.75, 0.14), (0.9, 0.05), (1.0, 0.01))


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
    ms_ssim: float = 0.0  # part of the distortion that is 1 - MS-SSIM, and not squared error
    enlarged: float = 0.0  # part of the crops that are cut from less, down to half of a side, and enlarged
    towers: int = 1  # parts of a batch that are worked on at once


class Kind(NamedTuple):
    """What training asks of a kind of model: of photographs here, of small pictures in `generative_training`."""

    weights: Callable[[Any, int], dict[str, np.ndarray]]  # initial ones of an architecture, by seed
    make_step: Callable[[Any, Options, bool], Any]
    batches: Callable[[list[str], Any, Options, int], Any]  # endless, from a seed on
    metrics: tuple[str, ...]
    defaults: dict[str, Any] = {}  # of Options, where they are others  # noqa: RUF012


def kind_of(config: Any) -> Kind:
    """The kind that an architecture is of."""
    if isinstance(config, Generative):
        from vaecodec.training.generative_training import KIND

        return KIND
    return PHOTOGRAPHS


def spread(options: Options, devices: int = 1) -> None:
    """As many towers as there are cores, if the batch divides so, and a core each; before TensorFlow has begun.

    Where there are no GPUs, so many devices are made of the CPU.
    """
    if devices > 1 and not tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):
            cpus = [tf.config.LogicalDeviceConfiguration()] * devices
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options.towers = max(n for n in range(1, min(cores, options.batch) + 1) if options.batch % n == 0)
    with suppress(RuntimeError):  # it has begun already, in this process
        tf.config.threading.set_inter_op_parallelism_threads(options.towers)
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores // options.towers))


def layout_of(config: Any) -> Layout:
    """How the weights of an architecture lie in its state."""
    return Layout(kind_of(config).weights(config, 0))


def initial_state(config: Any, seed: int = 0, weights: dict[str, np.ndarray] | None = None) -> list[np.ndarray]:
    """The flat state at step 0, from `weights` where given."""
    return layout_of(config).begin(kind_of(config).weights(config, seed) if weights is None else weights)


def make_tower(config: Config, options: Options, hard: bool) -> Tower:
    """A function of weights f32[P], a part of a batch, its qualities, seed and number: gradient f32[P], metrics f32[4].

    Raises CodecError where the batch cannot be divided between the towers, or MS-SSIM not be had.
    """
    model = make(config, {})
    model.operands = tf.bfloat16 if options.bfloat16 else tf.float32
    model.similar = options.ms_ssim
    layout = layout_of(config)
    if not 0 <= options.ms_ssim <= 1:
        raise CodecError(f"the part of MS-SSIM is {options.ms_ssim}, expected 0 to 1")
    if options.ms_ssim and options.crop <= SSIM_LEAST:
        raise CodecError(f"crops of {options.crop} are too small for MS-SSIM, which needs more than {SSIM_LEAST}")
    if options.batch % max(options.towers, 1):
        raise CodecError(f"a batch of {options.batch} cannot be divided between {options.towers} towers")

    def tower(weights: tf.Tensor, x: tf.Tensor, quality: tf.Tensor, seed: tf.Tensor, number: Any):
        with tf.GradientTape() as tape:
            tape.watch(weights)
            loss = model.bind(layout.unpack(weights)).loss(x, quality, seed + [0, (number + 1) * APART], hard)
        return tape.gradient(loss.loss, weights), tf.stack([getattr(loss, name) for name in METRICS])

    return tower


def draw_quality(options: Options, seed: tf.Tensor) -> tf.Tensor:
    """f32[B]: a quality for each example, uniform."""
    return tf.random.stateless_uniform([options.batch], seed, 0.0, ANCHORS - 1.0)


def make_step(config: Config, options: Options, hard: bool = False) -> Any:
    """The pure training step over (state, images, lr, seed).

    The batch is worked on in `options.towers` equal parts that nothing connects but the sum of their gradients, so
    that each can have a core: small operations divide badly between threads.
    """
    tower, towers = make_tower(config, options, hard), max(options.towers, 1)

    def step(state: list[tf.Tensor], images: tf.Tensor, lr: tf.Tensor, seed: tf.Tensor):
        parts = zip(tf.split(images, towers), tf.split(draw_quality(options, seed), towers), strict=True)
        found = [tower(state[0], x, q, seed, n) for n, (x, q) in enumerate(parts)]
        gradient, metrics = (tf.add_n([one / towers for one in each]) for each in zip(*found, strict=True))
        return update(state, gradient, lr), metrics

    return step


PHOTOGRAPHS = Kind(
    initial_weights,
    make_step,
    lambda paths, config, options, seed: batches(
        paths, options.batch, options.crop, seed, config.channels, options.enlarged
    ),
    METRICS,
)


def save_checkpoint(run: str, config: Any, options: Options, state: list[Any], progress: dict[str, float]) -> None:
    """Writes RUN/checkpoint.safetensors, which is the old one until it is the new one, on the disk."""
    layout, arrays = layout_of(config), {"count": np.asarray(state[-1])}
    for group, vector in zip(GROUPS, state, strict=False):
        # safetensors writes an array's memory as it lies, whatever its strides.
        for name, value in layout.unpack(np.asarray(vector)).items():
            arrays[f"{group}/{name}"] = np.asarray(value, order="C")
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


def _config_of(metadata: dict[str, Any], path: str) -> Any:
    """The architecture of a checkpoint; raises CodecError on one that there is none of."""
    try:
        values = metadata["config"]
        return read_config(values if values.get("kind") == Generative.kind else without_retired_fields(values))
    except (ValueError, KeyError, AttributeError) as exc:
        raise CodecError(f"{path}: not a checkpoint ({exc})") from exc


def load_checkpoint(run: str) -> tuple[Any, Options, list[np.ndarray], dict[str, float]]:
    """The inverse of save_checkpoint; raises CodecError on a missing or foreign file."""
    path = os.path.join(run, "checkpoint.safetensors")
    metadata = read_metadata(path)
    config = _config_of(metadata, path)
    arrays, layout = load_file(path), layout_of(config)
    if {f"{group}/{name}" for group in GROUPS for name in layout.names} | {"count"} != set(arrays):
        raise CodecError(f"{path}: weights of another architecture")
    state = [layout.pack({name: arrays[f"{group}/{name}"] for name in layout.names}) for group in GROUPS]
    return config, Options(**metadata["options"]), [*state, arrays["count"]], metadata["progress"]


def averaged_weights(path: str) -> tuple[Any, dict[str, np.ndarray]]:
    """(config, running average of the weights) of a run folder or of a compact checkpoint file."""
    if os.path.isdir(path):
        config, _, state, _ = load_checkpoint(path)
        return config, layout_of(config).unpack(state[GROUPS.index("average")])
    config = _config_of(read_metadata(path), path)
    return config, {name: value.astype(np.float32) for name, value in load_file(path).items()}


def save_compact(path: str, config: Any, weights: dict[str, np.ndarray], notes: dict[str, Any]) -> None:
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

    def __init__(self, run: str, before: dict[str, float], metrics: tuple[str, ...] = METRICS) -> None:
        self._metrics = metrics
        self.means = {name: before.get(name, math.nan) for name in metrics}
        self._writer = tf.summary.create_file_writer(os.path.join(run, "logs"))
        self._sums, self._count, self._since = np.zeros(len(metrics)), 0, time.monotonic()

    def add(self, metrics: np.ndarray) -> bool:
        """Counts one step's metrics; False once one of them is not finite."""
        self._sums, self._count = self._sums + metrics, self._count + 1
        return bool(np.isfinite(self._sums).all())

    def report(self, number: int, lr: float, minutes_left: float) -> None:
        """One line on stderr and one point of each curve, of the mean since the last report."""
        now = time.monotonic()
        speed, self._since = self._count / (now - self._since), now
        self.means = dict(zip(self._metrics, map(float, self._sums / self._count), strict=True))
        self._sums, self._count = np.zeros(len(self._metrics)), 0
        text = " ".join(f"{name} {value:.4f}" for name, value in self.means.items())
        text = f"step {number} {text} lr {lr:.1e} | {speed:.1f} steps/s, {minutes_left:.0f} min left"
        print(text, file=sys.stderr, flush=True)
        with self._writer.as_default(step=number):
            for name, value in {**self.means, "lr": lr, "steps_per_second": speed}.items():
                tf.summary.scalar(name, value)


def train(
    paths: list[str],
    run: str,
    config: Any,
    options: Options,
    start: dict[str, np.ndarray] | None = None,
    save_every: float = 120.0,
    devices: int = 1,
) -> dict[str, float]:
    """Trains into the folder `run`, resuming from its checkpoint where it has one; returns the last metrics.

    Saves every `save_every` seconds, at the end, and when asked to stop (SIGINT, SIGTERM).  Batches are divided between
    so many `devices` (see mirrored); checkpoints do not tell.  Raises CodecError when the loss is not finite; the last
    good checkpoint is kept.
    """
    make = kind_of(config).make_step
    if devices > 1:
        from vaecodec.training.mirrored import mirrored

        make = mirrored(config, options, devices)
    os.makedirs(run, exist_ok=True)
    if os.path.exists(os.path.join(run, "checkpoint.safetensors")):
        found, _, state, before = load_checkpoint(run)
        if found != config:
            raise CodecError(f"{run}: holds a run of another architecture: {found}")
    else:
        state, before = initial_state(config, options.seed, start), {"seconds": 0.0, "steps": 0}
    kind = kind_of(config)
    steps = [tf.function(make(config, options, hard)) for hard in (False, True)]
    number, began, saved = int(before["steps"]), None, time.monotonic()
    feed = iter(kind.batches(paths, config, options, options.seed + number))
    tensors, points, progress = (
        [tf.constant(value) for value in state],
        np.array(SCHEDULE),
        Progress(run, before, kind.metrics),
    )

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
