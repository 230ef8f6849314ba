"""Checkpoints of training runs, and compact checkpoints: weights alone."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save

from vaecodec.atomic import write_atomic
from vaecodec.config import Config, without_retired_fields
from vaecodec.errors import CodecError
from vaecodec.model.file import read_config
from vaecodec.model.generative import Generative
from vaecodec.training import train_step
from vaecodec.training.kinds import Architecture, Weights, initial_state, layout_of
from vaecodec.training.train_step import GROUPS, Options

CHECKPOINT = "checkpoint.safetensors"


def save_checkpoint(
    run: str, config: Architecture, options: Options, state: list[Any], progress: dict[str, float], start: str = ""
) -> None:
    """Replace RUN/checkpoint.safetensors atomically; `start` names the weights that the run started from."""
    layout, arrays = layout_of(config), {"count": np.asarray(state[-1])}
    for group, vector in zip(GROUPS, state, strict=False):
        # safetensors writes the memory of an array regardless of its strides.
        for name, value in layout.unpack(np.asarray(vector)).items():
            arrays[f"{group}/{name}"] = np.asarray(value, order="C")
    metadata = {"config": config.to_dict(), "options": asdict(options), "progress": progress, "start": start}
    data = save(arrays, {key: json.dumps(value) for key, value in metadata.items()})
    write_atomic(os.path.join(run, CHECKPOINT), data, overwrite=True)


class Stored(NamedTuple):
    """What a run was begun with."""

    config: Architecture
    options: Options
    start: str  # "" if random or not known


def stored_run(run: str) -> Stored | None:
    """What the run in a folder was begun with, None without a checkpoint; raises CodecError for a foreign file."""
    path = os.path.join(run, CHECKPOINT)
    if not os.path.exists(path):
        return None
    config, metadata = _read_metadata(path)
    return Stored(config, Options(**metadata["options"]), metadata.get("start", ""))


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
    except OSError as exc:
        raise CodecError(f"{path}: {exc.strerror or exc}") from exc
    except (ValueError, KeyError, AttributeError) as exc:
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
    progress, stored = {"seconds": 0.0, "steps": 0}, stored_run(run)
    if stored is not None:
        *_, progress = load_checkpoint(run)
    os.makedirs(run, exist_ok=True)
    progress = {**progress, "steps": int(state[-1])}
    save_checkpoint(run, config, options, state, progress, stored.start if stored else "")
