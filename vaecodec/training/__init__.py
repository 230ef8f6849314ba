"""Train models with TensorFlow Probability: what a run trains on, the kind of its model, its recipe, its checkpoints.

Random crops come through tf.data, from image files or .npy arrays in folders and tar shards.  Kinds are photographs and
sets of small images.  A recipe is an architecture and options, by name or in a TOML file.  Checkpoints hold the state
of a run; compact ones hold weights alone.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from PIL import Image
from safetensors.numpy import load_file, save

from vaecodec.atomic import write_atomic
from vaecodec.config import IMAGE_CHANNELS, PRESETS, Config, without_retired_fields
from vaecodec.errors import CodecError
from vaecodec.images.channels import load_npy, make_vivid, read_training_image
from vaecodec.model.file import read_config
from vaecodec.model.generative import GENERATIVE, Generative
from vaecodec.training import generative_vae, train_step, vae
from vaecodec.training.train_step import GROUPS, Layout, Options

Encoded = bytes | np.ndarray  # an image file, or the array of a .npy file
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".npy")
CROPS_PER_IMAGE = 8  # decoding an image costs more than cropping it
MAX_ENLARGEMENT = 2.0  # images from a camera are as smooth as this, where most others were reduced before
SHUFFLED_CROPS = 1024  # so that crops of one image rarely meet in a batch


def encoded_images(paths: Iterable[str]) -> Iterator[bytes]:
    """Yield the image files in folders, in tar shards, or named directly, in a stable order.

    Raises CodecError for a path that contains none.
    """
    for path in paths:
        count = 0
        if os.path.isdir(path):
            for folder, folders, names in os.walk(path):
                folders.sort()
                for name in sorted(names):
                    if name.lower().endswith(SUFFIXES):
                        with open(os.path.join(folder, name), "rb") as file:
                            yield file.read()
                        count += 1
        elif path.lower().endswith(".tar"):
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and member.name.lower().endswith(SUFFIXES):
                        yield tar.extractfile(member).read()  # type: ignore[union-attr]
                        count += 1
        else:
            with open(path, "rb") as file:
                yield file.read()
            count = 1
        if not count:
            raise CodecError(f"{path}: contains no images (looked for {' '.join(SUFFIXES)})")


def read_training_images(paths: Iterable[str]) -> list[Encoded]:
    """The image files in paths, and the arrays of .npy files; raises as encoded_images does."""
    return [load_npy(encoded) for encoded in encoded_images(paths)]


def random_crops(
    encoded: Encoded,
    crop: int,
    count: int,
    rng: np.random.Generator,
    channels: int = 3,
    enlarged: float = 0.0,
    vivid: float = 0.0,
) -> np.ndarray:
    """Crops u8[count, crop, crop, C] of an image at random offsets, flipped and rotated at random.

    A fraction `enlarged` of them is enlarged up to MAX_ENLARGEMENT by cubic interpolation, and a fraction `vivid` has
    the colours of `make_vivid`.  Returns no crops if the image is too small or broken.
    """
    try:
        pixels = read_training_image(encoded, channels)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return np.zeros((0, crop, crop, channels), np.uint8)
    if min(pixels.shape[:2]) < crop:
        return np.zeros((0, crop, crop, channels), np.uint8)
    crops = np.empty((count, crop, crop, channels), np.uint8)
    for n in range(count):
        side = round(crop / MAX_ENLARGEMENT ** rng.random()) if enlarged and rng.random() < enlarged else crop
        top, left = rng.integers(pixels.shape[0] - side + 1), rng.integers(pixels.shape[1] - side + 1)
        patch = pixels[top : top + side, left : left + side]
        if side != crop:
            planes = [Image.fromarray(plane) for plane in np.moveaxis(patch, -1, 0)]
            resized = [plane.resize((crop, crop), Image.Resampling.BICUBIC) for plane in planes]
            patch = np.stack([np.asarray(plane) for plane in resized], -1)
        patch = make_vivid(patch, rng) if vivid and rng.random() < vivid else patch
        patch = patch[:, ::-1] if rng.random() < 0.5 else patch
        crops[n] = np.rot90(patch, int(rng.integers(4)))
    return crops


def batches_of_crops(
    images: Sequence[Encoded],
    batch: int,
    crop: int,
    seed: int,
    channels: int = 3,
    enlarged: float = 0.0,
    vivid: float = 0.0,
) -> tf.data.Dataset:
    """Endless batches u8[batch, crop, crop, C] of random_crops; raises CodecError if no image is large enough."""
    for name, fraction in (("enlarged", enlarged), ("vivid", vivid)):
        if not 0 <= fraction <= 1:
            raise CodecError(f"the fraction of {name} crops is {fraction}, expected 0 to 1")
    rng = np.random.default_rng(seed)
    if not any(len(random_crops(image, crop, 1, rng, channels)) for image in images):
        size = f"{crop} x {crop}" + f" and {channels} channels" * (channels not in IMAGE_CHANNELS)
        raise CodecError(f"none of the {len(images)} images is readable and of at least {size}")

    def cut(index: np.ndarray, draw: np.ndarray) -> np.ndarray:
        local = np.random.default_rng([seed, int(index), int(draw)])
        return random_crops(images[int(index)], crop, CROPS_PER_IMAGE, local, channels, enlarged, vivid)

    def crops(draw: Any, index: Any) -> Any:
        out = tf.numpy_function(cut, [index, draw], tf.uint8)
        return tf.ensure_shape(out, [None, crop, crop, channels])

    order = tf.data.Dataset.range(len(images)).shuffle(len(images), seed=seed).repeat()
    cropped = order.enumerate().map(crops, num_parallel_calls=2).unbatch()
    return cropped.shuffle(SHUFFLED_CROPS, seed=seed).batch(batch, drop_remainder=True).prefetch(4)


Architecture = Config | Generative
Weights = dict[str, np.ndarray]


class Kind(NamedTuple):
    """How models of a kind of architecture are trained."""

    initial_weights: Callable[[Any, int], Weights]  # of an architecture and a seed
    make_step: Callable[[Any, Options, bool], Callable[..., Any]]
    read: Callable[[list[str], Any], Sized]  # the images in paths, for an architecture
    batches: Callable[[Any, Any, Options, int], tf.data.Dataset]  # endless, of images and a seed
    metrics: tuple[str, ...]
    defaults: dict[str, Any]  # of Options, where they differ


def kind_of(config: Architecture) -> Kind:
    """How to train an architecture."""
    if isinstance(config, Generative):
        module = generative_vae
        return Kind(
            module.initial_weights, module.make_step, module.read, module.batches, module.METRICS, module.DEFAULTS
        )
    return Kind(vae.initial_weights, train_step.make_step, _read, _crops, train_step.METRICS, {})


def _read(paths: list[str], _: Config) -> list[Encoded]:
    return read_training_images(paths)


def _crops(images: list[Encoded], config: Config, options: Options, seed: int) -> tf.data.Dataset:
    size = options.batch, options.crop
    return batches_of_crops(images, *size, seed, config.channels, options.enlarged, options.vivid)


def layout_of(config: Architecture) -> Layout:
    """The layout of an architecture's weights in its state."""
    return Layout(kind_of(config).initial_weights(config, 0))


def initial_state(config: Architecture, seed: int = 0, weights: Weights | None = None) -> list[np.ndarray]:
    """The flat state at step 0, from `weights` or initial ones."""
    weights = kind_of(config).initial_weights(config, seed) if weights is None else weights
    return Layout(weights).initial_state(weights)


def preset(name: str) -> Architecture:
    """The architecture of a name; raises CodecError if there is none."""
    presets: dict[str, Architecture] = {**PRESETS, **GENERATIVE}
    if name not in presets:
        raise CodecError(f"unknown preset {name!r} (known: {', '.join(presets)})")
    return presets[name]


def with_sizes(config: Architecture, **sizes: int) -> Config:
    """The architecture with other fields of Config, such as channels; raises CodecError."""
    if isinstance(config, Generative):
        raise CodecError("a model of digits has one channel, and an analysis of its own")
    try:
        return Config.from_dict({**config.to_dict(), **sizes})
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


def nearest_preset(config: Architecture) -> tuple[str, dict[str, int]]:
    """The preset of the same kind that differs in fewest sizes, and the sizes that differ."""

    def differences(name: str) -> dict[str, int]:
        base = asdict(preset(name))
        return {key: value for key, value in asdict(config).items() if base[key] != value}

    nearest = min(GENERATIVE if isinstance(config, Generative) else PRESETS, key=lambda name: len(differences(name)))
    return nearest, differences(nearest)


def describe(config: Architecture) -> str:
    """An architecture in words: "small", or "small with prior 96"."""
    nearest, differences = nearest_preset(config)
    sizes = ", ".join(f"{key} {value}" for key, value in differences.items())
    return f"{nearest} with {sizes}" if sizes else nearest


def changed_options(stored: Options, given: dict[str, Any]) -> list[str]:
    """The names of given options that differ from those of a run."""
    values = asdict(stored)
    return [name for name, value in given.items() if values[name] != value]


def format_recipe(config: Architecture, options: Options) -> str:
    """The TOML text that `read_recipe` reads, with the preset of the same kind that differs in fewest sizes."""

    nearest, differences = nearest_preset(config)
    training = asdict(options)
    del training["towers"]  # depends on the machine
    tables = {"model": {"preset": nearest, **differences}, "training": training}
    # JSON writes strings, integers, floats and booleans as TOML does.
    lines = {name: "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items()) for name, table in tables.items()}
    return "\n".join(f"[{name}]\n{text}" for name, text in lines.items())


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
