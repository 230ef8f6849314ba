"""The frozen model: one safetensors file that holds all that coding needs, and the id that a .vae names it by.

integer/*        kernels and biases of the prior               levels/*    its conditioning, by prior level
tables/*         frequency tables                              anchors/*   float gains of the transforms
weights/*        float16 transforms, for TensorFlow            litert/*    the same as LiteRT flatbuffers
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

import numpy as np

from vaecodec import library, octaves
from vaecodec.coding import Models
from vaecodec.config import ANCHORS, CELL, STEPS, SUBSTEPS, Config
from vaecodec.context import Prior
from vaecodec.engines import GRAPHS, Engine
from vaecodec.errors import ModelError
from vaecodec.generative import Generative, read_config
from vaecodec.generator import Generator
from vaecodec.generator import make as make_generator
from vaecodec.integer import prepare
from vaecodec.tables import Tables
from vaecodec.vetting import check_arrays, check_prior, require

T = TypeVar("T")

FORMAT = 1
MAX_BYTES = 1 << 27
MAX_HEADER = 1 << 20  # bytes of a model file's JSON
# What only an encoder uses may change without a new id.
ENCODER_ONLY = ("weights/analysis", "litert/analysis", "anchors/gain", "anchors/analysis", "calibration/", "start/")


class Model(NamedTuple):
    """A frozen model, ready to code with."""

    name: str
    id: str  # 16 hexadecimal digits
    prior: Prior
    arrays: dict[str, np.ndarray]  # all tensors of the file, by name
    notes: dict[str, Any]
    shipped: bool = False  # with the package, and so not a stranger's

    @property
    def config(self) -> Config:
        return self.prior.config

    def vector(self, name: str, step: int) -> np.ndarray:
        """f32[channels] of anchors/`name` at a quality step: linear in the logarithm, between anchors.

        Raises ModelError where it is an encoder's and the model has none.
        """
        anchors = self.array(f"anchors/{name}")
        position = np.float32(min(step, STEPS - 1) / SUBSTEPS)
        first = min(int(position), ANCHORS - 2)
        part = position - np.float32(first)
        return np.exp(anchors[first] * (1 - part) + anchors[first + 1] * part)

    def condition(self, side: str, step: int) -> np.ndarray:
        """f32[n]: what the transform "analysis" or "synthesis" is told of a quality step, end to end."""
        return np.concatenate([self.vector(name, step) for name in conditions(side)])

    def pixel_step(self, step: int) -> float:
        """The quantisation step of the lowest wavelet coefficients at a quality step, on a scale of 255."""
        return 255 * float(self.vector("inverse_gain", step)[0])

    def transform(self, name: str) -> bytes:
        """The LiteRT flatbuffer of one transform; raises ModelError where there is none."""
        return self.array(f"litert/{name}").tobytes()

    def array(self, name: str) -> np.ndarray:
        """A tensor of the file; raises ModelError where there is none."""
        require(name in self.arrays, f"model {self.name} has no {name}")
        return self.arrays[name]


def conditions(side: str) -> list[str]:
    """The anchors that the transform "analysis" or "synthesis" is told, by name."""
    return [f"{side}/fine", f"{side}/out"]


def identify(config: dict[str, int], arrays: dict[str, np.ndarray]) -> str:
    """16 hexadecimal digits of the SHA-256 over everything a decoder uses, in the order of names."""
    digest = hashlib.sha256(json.dumps([FORMAT, config], sort_keys=True).encode())
    for name in sorted(arrays):
        if not name.startswith(ENCODER_ONLY):
            array = arrays[name]
            digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]


def pack_model(name: str, config: Config | Generative, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> bytes:
    """A model file's bytes; inverse of parse_model."""
    from safetensors.numpy import save

    fields = {"format": FORMAT, "name": name, "config": config.to_dict(), "notes": notes}
    fields["id"] = identify(config.to_dict(), arrays)
    # safetensors writes an array's memory as it lies, whatever its strides.
    arrays = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    return save(arrays, {key: json.dumps(value) for key, value in fields.items()})


def parse_model(data: bytes, source: str, shipped: bool = False) -> Model | Generator:
    """A model of either kind from a file's bytes, checked against its id; raises ModelError naming `source`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        size = int.from_bytes(data[:8], "little")
        require(size <= MAX_HEADER, f"its header has {size} bytes, expected at most {MAX_HEADER}")
        header = json.loads(data[8 : 8 + size])
        fields = {key: json.loads(value) for key, value in header["__metadata__"].items()}
        require(fields["format"] == FORMAT, f"format {fields['format']} is not supported (expected {FORMAT})")
        name, notes = fields["name"], fields["notes"]
        require(isinstance(name, str) and isinstance(notes, dict), "its name is not text, or its notes are no mapping")
        config = read_config(fields["config"])
        arrays = load(data)
        if identify(config.to_dict(), arrays) != fields["id"]:
            raise ModelError("the model is damaged (its contents do not match its id)")
        check_calibration(arrays)
        if isinstance(config, Generative):
            return make_generator(name, fields["id"], config, arrays, notes)
        check_arrays(config, arrays)
        prior = make_prior(config, arrays, shipped)
        check_prior(prior)
        return Model(name, fields["id"], prior, arrays, notes)
    except ModelError as exc:
        raise ModelError(f"{source}: {exc}") from exc
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
        raise ModelError(f"{source}: not a vaecodec model ({type(exc).__name__}: {exc})") from exc


def check_calibration(arrays: dict[str, np.ndarray]) -> None:
    """Raises ModelError unless what scoring compares with is rising numbers, where there is any."""
    for name, array in arrays.items():
        if name.startswith("calibration/"):
            require(array.dtype.str == "<f4" and array.ndim == 1 and 2 <= array.size <= 1 << 16, f"{name} is no f32[n]")
            require(np.isfinite(array).all() and (np.diff(array) >= 0).all(), f"{name} does not rise")


def make_prior(config: Config, arrays: dict[str, np.ndarray], shipped: bool = False) -> Prior:
    """The integer half of a model, from arrays that check_arrays has seen."""
    tables = Tables(*(arrays[f"tables/{name}"] for name in Tables._fields))
    prefix = "integer/"
    layers = prepare({name[len(prefix) :]: array for name, array in arrays.items() if name.startswith(prefix)})
    levels = octaves.Levels(*(arrays[f"levels/{name}"] for name in octaves.Levels._fields))
    graphs = {name: arrays[f"litert/{name}"].tobytes() for name in GRAPHS if f"litert/{name}" in arrays}
    small = all(layer.kernel.dtype == np.float32 for layer in layers.values())
    most = max(4 * config.prior, 4 * config.coarser, CELL * config.channels)
    engine = Engine(graphs, most, shipped) if small and len(graphs) == len(GRAPHS) else None
    return Prior(config, layers, levels, Models(tables), map, 1, engine, arrays["companding"], arrays["centroids"])


def load_model(name_or_path: str) -> Model:
    """A model of photographs by name, or any by path; raises ModelError.  Loaded once, until it changes."""
    model = load_any(name_or_path)
    if not isinstance(model, Model):
        raise ModelError(f"model {model.name} is for sets of small pictures (vaecodec pack), not for this")
    return model


def load_generator(name_or_path: str) -> Generator:
    """A generative model by name, or any by path; raises ModelError."""
    model = load_any(name_or_path)
    if not isinstance(model, Generator):
        raise ModelError(f"model {model.name} is for photographs, not for sets of small pictures")
    return model


def load_any(name_or_path: str) -> Model | Generator:
    """A model of either kind: a shipped or added one by name, or any by path; raises ModelError."""
    return _of_file(_load, library.path_of(name_or_path))


def _of_file(function: Callable[[str, int, int], T], path: str) -> T:
    """What a cached function of (path, time of change, size) gives for a file; raises ModelError."""
    try:
        state = os.stat(path)
        return function(path, state.st_mtime_ns, state.st_size)
    except OSError as exc:
        raise ModelError(f"{path}: cannot be read ({exc.strerror})") from exc


@lru_cache(maxsize=8)
def _load(path: str, changed: int, size: int) -> Model | Generator:
    if size > MAX_BYTES:
        raise ModelError(f"{path}: larger than a model may be ({MAX_BYTES} bytes)")
    shipped = os.path.dirname(path) == library.SHIPPED
    with open(path, "rb") as file:
        return parse_model(file.read(MAX_BYTES), path, shipped)._replace(shipped=shipped)


def find_model(model_id: str) -> Model:
    """The model of photographs with this id, shipped or added; raises ModelError naming the id."""
    return load_model(_name_of(model_id))


def find_generator(model_id: str) -> Generator:
    """The generative model with this id, shipped or added; raises ModelError naming the id."""
    return load_generator(_name_of(model_id))


def _name_of(model_id: str) -> str:
    for name in library.shipped() + library.added():
        with suppress(ModelError):  # what is wrong with a model does not matter to files of another
            if _of_file(_stated_id, library.path_of(name)) == model_id:
                return name
    raise ModelError(f"this file needs model {model_id}, which is not among those here: name its .vcm file, or add it")


@lru_cache(maxsize=64)
def _stated_id(path: str, changed: int, size: int) -> str:
    """The id that a model file gives itself, unchecked; asked of every model for every file that is decoded."""
    with open(path, "rb") as file:
        header = file.read(8)
        header = file.read(min(int.from_bytes(header, "little"), MAX_HEADER))
    try:
        return str(json.loads(json.loads(header)["__metadata__"]["id"]))
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ModelError(f"{path}: not a vaecodec model ({type(exc).__name__}: {exc})") from exc
