"""The training loop: architectures and options from TOML, checkpoints, progress, and the run itself."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from safetensors.numpy import load_file, save

from vaecodec.atomic import write_atomic
from vaecodec.config import PRESETS, Config, without_retired_fields
from vaecodec.errors import CodecError
from vaecodec.model.file import read_config
from vaecodec.model.generative import GENERATIVE, Generative
from vaecodec.training import datasets, generative_vae, train_step, vae
from vaecodec.training.train_step import GROUPS, SCHEDULE, Layout, Options

Architecture = Config | Generative
Weights = dict[str, np.ndarray]
CHECKPOINT = "checkpoint.safetensors"


class Kind(NamedTuple):
    """How models of a kind of architecture are trained."""

    initial_weights: Callable[[Any, int], Weights]  # of an architecture and a seed
    make_step: Callable[[Any, Options, bool], Callable[..., Any]]
    batches: Callable[[list[str], Any, Options, int], tf.data.Dataset]  # endless, of paths and a seed
    metrics: tuple[str, ...]
    defaults: dict[str, Any]  # of Options, where they differ


def kind_of(config: Architecture) -> Kind:
    """How to train an architecture."""
    if isinstance(config, Generative):
        module = generative_vae
        return Kind(module.initial_weights, module.make_step, module.batches, module.METRICS, module.DEFAULTS)
    return Kind(vae.initial_weights, train_step.make_step, _crops, train_step.METRICS, {})


def _crops(paths: list[str], config: Config, options: Options, seed: int) -> tf.data.Dataset:
    return datasets.batches(paths, options.batch, options.crop, seed, config.channels, options.enlarged)


def preset(name: str) -> Architecture:
    """The architecture of a name; raises CodecError if there is none."""
    presets: dict[str, Architecture] = {**PRESETS, **GENERATIVE}
    if name not in presets:
        raise CodecError(f"unknown preset {name!r} (known: {', '.join(presets)})")
    return presets[name]


def with_channels(config: Architecture, channels: int) -> Config:
    """The architecture for another number of samples a pixel; raises CodecError."""
    if isinstance(config, Generative):
        raise CodecError("a model of digits has one channel")
    try:
        return Config.from_dict({**config.to_dict(), "channels": channels})
    except ValueError as exc:
        raise CodecError(str(exc)) from exc


def read_recipe(path: str) -> tuple[Architecture | None, dict[str, Any]]:
    """Read the architecture (None if not given) and the values of Options in a TOML file.

        [model]
        preset = "small"      # then any sizes that differ: prior = 96
        [training]
        minutes = 90.0        # fields of Options

    Raises CodecError for malformed TOML, and for unknown names, wrong types and impossible sizes.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        with open(path, "rb") as file:
            tables = tomllib.load(file)
        if set(tables) - {"model", "training"} or not all(isinstance(table, dict) for table in tables.values()):
            raise ValueError("expected the tables [model] and [training]")
        config = None
        if "model" in tables:
            sizes = dict(tables["model"])
            config = preset(sizes.pop("preset", "small"))
            config = read_config({**config.to_dict(), **sizes}) if sizes else config
        values = tables.get("training", {})
        options = {field.name: field for field in fields(Options) if field.name != "towers"}
        for name, value in values.items():
            if name not in options:
                raise ValueError(f"[training] has no {name} (known: {', '.join(options)})")
            expected: Any = type(options[name].default)
            if type(value) is not expected and not (expected is float and type(value) is int):
                raise ValueError(f"[training] {name} is {value!r}, expected {expected.__name__}")
            if expected not in (bool, str) and value < 0:
                raise ValueError(f"[training] {name} is {value!r}, expected 0 or more")
        return config, {n: float(v) if options[n].type == "float" else v for n, v in values.items()}
    except (CodecError, OSError, ValueError, TypeError) as exc:  # TOMLDecodeError is a ValueError
        raise CodecError(f"{path}: {getattr(exc, 'strerror', None) or exc}") from exc


def format_recipe(config: Architecture, options: Options) -> str:
    """The TOML text that `read_recipe` reads, with the preset of the same kind that differs in fewest sizes."""

    def differences(name: str) -> dict[str, int]:
        base = asdict(preset(name))
        return {key: value for key, value in asdict(config).items() if base[key] != value}

    nearest = min(GENERATIVE if isinstance(config, Generative) else PRESETS, key=lambda name: len(differences(name)))
    training = asdict(options)
    del training["towers"]  # depends on the machine
    tables = {"model": {"preset": nearest, **differences(nearest)}, "training": training}
    # JSON writes strings, integers, floats and booleans as TOML does.
    lines = {name: "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items()) for name, table in tables.items()}
    return "\n".join(f"[{name}]\n{text}" for name, text in lines.items())


def layout_of(config: Architecture) -> Layout:
    """The layout of an architecture's weights in its state."""
    return Layout(kind_of(config).initial_weights(config, 0))


def initial_state(config: Architecture, seed: int = 0, weights: Weights | None = None) -> list[np.ndarray]:
    """The flat state at step 0, from `weights` or initial ones."""
    weights = kind_of(config).initial_weights(config, seed) if weights is None else weights
    return Layout(weights).initial_state(weights)


def save_checkpoint(
    run: str, config: Architecture, options: Options, state: list[Any], progress: dict[str, float]
) -> None:
    """Replace RUN/checkpoint.safetensors atomically."""
    layout, arrays = layout_of(config), {"count": np.asarray(state[-1])}
    for group, vector in zip(GROUPS, state, strict=False):
        # safetensors writes the memory of an array regardless of its strides.
        for name, value in layout.unpack(np.asarray(vector)).items():
            arrays[f"{group}/{name}"] = np.asarray(value, order="C")
    metadata = {"config": config.to_dict(), "options": asdict(options), "progress": progress}
    data = save(arrays, {key: json.dumps(value) for key, value in metadata.items()})
    write_atomic(os.path.join(run, CHECKPOINT), data, overwrite=True)


def load_checkpoint(run: str) -> tuple[Architecture, Options, list[np.ndarray], dict[str, float]]:
    """The inverse of save_checkpoint; raises CodecError for a missing or foreign file."""
    path = os.path.join(run, CHECKPOINT)
    config, metadata = _read_metadata(path)
    arrays, layout = load_file(path), layout_of(config)
    if {f"{group}/{name}" for group in GROUPS for name in layout.names} | {"count"} != set(arrays):
        raise CodecError(f"{path}: weights of another architecture")
    state = [layout.pack({name: arrays[f"{group}/{name}"] for name in layout.names}) for group in GROUPS]
    return config, Options(**metadata["options"]), [*state, arrays["count"]], metadata["progress"]


def _read_metadata(path: str) -> tuple[Architecture, dict[str, Any]]:
    """The architecture and all JSON metadata of a safetensors file; raises CodecError if it has none."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 1 << 24)))
        metadata = {key: json.loads(value) for key, value in header["__metadata__"].items()}
        values = metadata["config"]
        values = values if values.get("kind") == Generative.kind else without_retired_fields(values)
        return read_config(values), metadata
    except (OSError, ValueError, KeyError, AttributeError) as exc:
        raise CodecError(f"{path}: not a checkpoint ({exc})") from exc


def averaged_weights(path: str) -> tuple[Architecture, Weights]:
    """The running average of the weights in a run folder or a compact checkpoint."""
    if os.path.isdir(path):
        config, _, state, _ = load_checkpoint(path)
        return config, layout_of(config).unpack(state[GROUPS.index("average")])
    config, _ = _read_metadata(path)
    return config, {name: value.astype(np.float32) for name, value in load_file(path).items()}


def save_compact(
    path: str, config: Architecture, weights: Weights, notes: dict[str, Any], dtype: npt.DTypeLike = np.float32
) -> None:
    """Write a compact checkpoint: weights alone, f32 or f16, for version control and to start another run from.

    Raises CodecError for weights that are not finite in this type.
    """
    metadata = {"config": json.dumps(config.to_dict()), "notes": json.dumps(notes)}
    with np.errstate(over="ignore"):
        arrays = {name: np.asarray(value, dtype, order="C") for name, value in weights.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise CodecError(f"{name} is not finite in {array.dtype}")
    write_atomic(path, save(arrays, metadata), overwrite=True)


def compact(source: str, out: str, half: bool = False) -> int:
    """Write the compact checkpoint `out` of a run folder, f16 if `half`; return the number of its parameters."""
    config, weights = averaged_weights(source)
    steps = load_checkpoint(source)[-1]["steps"] if os.path.isdir(source) else 0
    save_compact(out, config, weights, {"steps": int(steps)} if steps else {}, np.float16 if half else np.float32)
    return sum(value.size for value in weights.values())


def resume(
    run: str, config: Architecture, options: Options, weights: Weights | None
) -> tuple[list[np.ndarray], dict[str, float]]:
    """(state, progress) of the checkpoint in `run`, or of a new run; raises CodecError for another architecture."""
    if not os.path.exists(os.path.join(run, CHECKPOINT)):
        return initial_state(config, options.seed, weights), {"seconds": 0.0, "steps": 0}
    stored, _, state, progress = load_checkpoint(run)
    if stored != config:
        raise CodecError(f"{run}: contains a run of another architecture: {stored}")
    return state, progress


def import_state(folder: str, run: str, config: Config, options: Options) -> None:
    """Make the state in a bundle the checkpoint of `run`; raises CodecError if it does not fit or is not finite."""
    pieces, expected = train_step.load_pieces(folder), train_step.split_state(initial_state(config))
    if [array.shape for array in pieces] != [array.shape for array in expected]:
        raise CodecError(f"{folder}: contains the state of another architecture")
    state = train_step.join_state(pieces, np.concatenate)
    if not all(np.isfinite(array).all() for array in state):
        raise CodecError(f"{folder}: contains values that are not finite")
    progress = {"seconds": 0.0, "steps": 0}
    if os.path.exists(os.path.join(run, CHECKPOINT)):
        *_, progress = load_checkpoint(run)
    os.makedirs(run, exist_ok=True)
    save_checkpoint(run, config, options, state, {**progress, "steps": int(state[-1])})


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
    """Average metrics between reports, and report them on stderr and to TensorBoard."""

    def __init__(self, run: str, means: dict[str, float], metrics: tuple[str, ...]) -> None:
        self.means = {name: means.get(name, math.nan) for name in metrics}
        self._writer = tf.summary.create_file_writer(os.path.join(run, "logs"))
        self._sums, self._count, self._since = np.zeros(len(metrics)), 0, time.monotonic()

    def add(self, metrics: np.ndarray) -> bool:
        """Add the metrics of a step; False if any is not finite."""
        self._sums, self._count = self._sums + metrics, self._count + 1
        return bool(np.isfinite(self._sums).all())

    def report(self, number: int, lr: float, minutes_left: float) -> None:
        """Report the means since the last report."""
        now = time.monotonic()
        speed, self._since = self._count / (now - self._since), now
        self.means = dict(zip(self.means, map(float, self._sums / self._count), strict=True))
        self._sums, self._count = np.zeros(len(self.means)), 0
        text = " ".join(f"{name} {value:.4f}" for name, value in self.means.items())
        text = f"step {number} {text} lr {lr:.1e} | {speed:.1f} steps/s, {minutes_left:.0f} min left"
        print(text, file=sys.stderr, flush=True)
        with self._writer.as_default(step=number):
            for name, value in {**self.means, "lr": lr, "steps_per_second": speed}.items():
                tf.summary.scalar(name, value)


def train(
    paths: list[str],
    run: str,
    config: Architecture,
    options: Options,
    start: Weights | None = None,
    save_every: float = 120.0,
    devices: int = 1,
) -> dict[str, float]:
    """Train into the folder `run`, or resume from its checkpoint; return the last mean metrics.

    Args:
        paths: what to train on; see datasets.batches.
        run: folder of the checkpoint and logs.
        config: the architecture.
        options: how to train.
        start: initial weights, if not random.
        save_every: seconds between checkpoints.  One is also written at the end, and after SIGINT or SIGTERM.
        devices: devices to divide each batch between; checkpoints do not depend on it.

    Raises:
        CodecError: the loss is not finite (the last good checkpoint is kept), or arguments do not fit each other.
    """
    kind = kind_of(config)
    make_step = kind.make_step
    if devices > 1:
        if isinstance(config, Generative):
            raise CodecError("a model of digits is trained on one device")
        if options.batch % devices:
            raise CodecError(f"a batch of {options.batch} cannot be divided between {devices} devices")
        make_step = partial(train_step.make_step, strategy=train_step.strategy_for(devices))
    os.makedirs(run, exist_ok=True)
    state, before = resume(run, config, options, start)
    steps = [tf.function(make_step(config, options, hard)) for hard in (False, True)]
    number, began, saved = int(before["steps"]), 0.0, time.monotonic()
    batches = iter(kind.batches(paths, config, options, options.seed + number))
    state = [tf.constant(value) for value in state]
    points, progress = np.array(SCHEDULE), Progress(run, before, kind.metrics)

    def seconds() -> float:
        return before["seconds"] + (time.monotonic() - began if began else 0.0)

    def checkpoint() -> None:
        save_checkpoint(run, config, options, state, {"seconds": seconds(), "steps": number, **progress.means})

    with StopRequest() as stop:
        while not stop.requested:
            done = max(seconds() / (60 * options.minutes), number / options.steps if options.steps else 0.0)
            if done >= 1:
                break
            lr = options.rate * float(np.interp(done, points[:, 0], points[:, 1]))
            seed = tf.constant([options.seed, number], tf.int32)
            step = steps[done >= options.hard_from]
            state, metrics = step(state, next(batches), tf.constant(lr, tf.float32), seed)
            number += 1
            if not progress.add(metrics.numpy()):
                raise CodecError(f"the loss is not finite at step {number}; the last good checkpoint is kept in {run}")
            began = began or time.monotonic()  # the first step compiles, and is not counted
            if number % 100 == 0:
                progress.report(number, lr, (1 - done) / max(done, 1e-9) * seconds() / 60)
                if time.monotonic() - saved > save_every:
                    checkpoint()
                    saved = time.monotonic()
        if number > before["steps"]:
            checkpoint()
    return progress.means
