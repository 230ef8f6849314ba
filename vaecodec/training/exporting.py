"""The training step as StableHLO, to train where JAX runs but TensorFlow does not; and the state back.

A bundle is a folder: step.mlir (the step as text), state-*.npz (its state: arrays 00000, 00001, ... in order, each
vector cut into pieces that travel) and spec.json (batch, crop, metrics, learning rate).  Whoever runs it calls

    state, metrics = step(*state, images u8[B, crop, crop, C], lr f32[], seed i32[2])

and returns the state in files of the same form.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec.config import Config
from vaecodec.errors import CodecError
from vaecodec.training.loop import (
    METRICS,
    SCHEDULE,
    Options,
    initial_state,
    load_checkpoint,
    make_step,
    save_checkpoint,
)
from vaecodec.training.optimization import GROUPS

PART_BYTES = 14 << 20
PIECE = 13 << 18  # numbers in a piece of a vector: 13 MiB, so that a file of the state holds one


def cut(state: list[Any]) -> list[Any]:
    """The vectors of a state in pieces, and the count; of NumPy or TensorFlow."""
    pieces = []
    for vector in state[:-1]:
        size = int(vector.shape[0])
        pieces += [vector[at : at + PIECE] for at in range(0, size, PIECE)]
    return [*pieces, state[-1]]


def join(pieces: list[Any], concatenate: Callable[[list[Any], int], Any]) -> list[Any]:
    """The inverse of cut."""
    each = (len(pieces) - 1) // len(GROUPS)
    return [*(concatenate(pieces[n * each : (n + 1) * each], 0) for n in range(len(GROUPS))), pieces[-1]]


def export_step(
    config: Config,
    options: Options,
    folder: str,
    run: str | None = None,
    hard: bool = False,
    start: dict[str, np.ndarray] | None = None,
) -> None:
    """Writes a bundle that starts from the checkpoint of `run`, else from the weights `start`, else from scratch.

    `hard` makes it the step of the last phase.  Raises CodecError on a checkpoint of another architecture.
    """
    state = initial_state(config, options.seed, start)
    if run is not None and os.path.exists(os.path.join(run, "checkpoint.safetensors")):
        found, _, state, _ = load_checkpoint(run)
        if found != config:
            raise CodecError(f"{run}: holds a run of another architecture: {found}")
    os.makedirs(folder, exist_ok=True)
    step = make_step(config, options, hard)
    pieces = cut(state)
    count = len(pieces)

    @tf.function(jit_compile=True, autograph=False)
    def flat(*arguments: tf.Tensor) -> list[tf.Tensor]:
        after, metrics = step(join(list(arguments[:count]), tf.concat), *arguments[count:])
        return [*cut(after), metrics]

    images = np.zeros((options.batch, options.crop, options.crop, config.channels), np.uint8)
    arguments = [*map(tf.constant, pieces), tf.constant(images), tf.constant(0.0), tf.constant([0, 0])]
    text = flat.experimental_get_compiler_ir(*arguments)(stage="stablehlo")
    with open(os.path.join(folder, "step.mlir"), "w") as file:
        file.write(text)
    save_state(folder, pieces)
    spec = {
        "batch": options.batch,
        "crop": options.crop,
        "metrics": list(METRICS),
        "learning_rate": [[at, factor * options.rate] for at, factor in SCHEDULE],
        "config": config.to_dict(),
    }
    with open(os.path.join(folder, "spec.json"), "w") as file:
        json.dump(spec, file, indent=1)


def save_state(folder: str, state: list[np.ndarray]) -> None:
    """Writes state-00.npz, state-01.npz, ... of at most 14 MiB each, unless one array is larger."""
    part: dict[str, np.ndarray] = {}
    number = 0
    for index, array in enumerate(state):
        if part and sum(value.nbytes for value in part.values()) + array.nbytes > PART_BYTES:
            np.savez(os.path.join(folder, f"state-{number:02d}.npz"), **part)  # type: ignore[arg-type]
            part, number = {}, number + 1
        part[f"{index:05d}"] = array
    np.savez(os.path.join(folder, f"state-{number:02d}.npz"), **part)  # type: ignore[arg-type]


def load_state(folder: str) -> list[np.ndarray]:
    """The inverse of save_state; raises CodecError where the folder holds no state."""
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "state*.npz"))):
        with np.load(path, allow_pickle=False) as part:
            arrays.update({name: part[name] for name in part.files})
    if not arrays:
        raise CodecError(f"{folder}: no state-*.npz in it")
    return [arrays[name] for name in sorted(arrays)]


def import_state(folder: str, run: str, config: Config, options: Options) -> None:
    """Makes the state in `folder` the checkpoint of `run`; raises CodecError where it does not fit or is not finite."""
    pieces, expected = load_state(folder), cut(initial_state(config))
    if [array.shape for array in pieces] != [array.shape for array in expected]:
        raise CodecError(f"{folder}: holds the state of another architecture")
    state = join(pieces, np.concatenate)
    if not all(np.isfinite(array).all() for array in state):
        raise CodecError(f"{folder}: holds values that are not finite")
    progress = {"seconds": 0.0, "steps": 0}
    if os.path.exists(os.path.join(run, "checkpoint.safetensors")):
        *_, progress = load_checkpoint(run)
    os.makedirs(run, exist_ok=True)
    save_checkpoint(run, config, options, state, {**progress, "steps": int(state[-1])})
