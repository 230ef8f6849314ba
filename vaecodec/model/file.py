"""Model files: one safetensors file that holds all that coding needs as integers, and the id that a .vae names it by.

    prior/*, levels/*, companding, centroids   the prior: see vaecodec.prior.context_model
    tables/*                                   frequency tables
    synthesis/*, analysis/*, gains/*           the transforms: see vaecodec.model.transforms
    calibration/*, start/*                     quantiles of scores, and what training goes on from: no coding needs them

A file holds numbers and metadata, and nothing in it is run.  What is loaded fits the architecture that its
configuration names, and no sum that is computed with it can overflow; ModelError otherwise.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import numpy as np

from vaecodec.config import MAX_SCALES, Config
from vaecodec.entropy import tables
from vaecodec.entropy.coding import OUTLIER_FLAG, SYMBOL_MAX, Models
from vaecodec.entropy.tables import Tables
from vaecodec.errors import ModelError
from vaecodec.model import floats, library
from vaecodec.model.checks import require
from vaecodec.model.generative import Generative, read_config
from vaecodec.model.generator import Generator
from vaecodec.model.generator import make as make_generator
from vaecodec.model.transforms import subband_scales
from vaecodec.prior.context_model import Prior
from vaecodec.transforms.backends import NativeTransforms
from vaecodec.transforms.latents import subband_of
from vaecodec.transforms.networks import SubbandGains

T = TypeVar("T")

FORMAT = 1
ID_DIGITS = 32  # hexadecimal: 128 bits
MAX_BYTES = 1 << 27
MAX_HEADER = 1 << 20  # bytes of a model file's JSON
MAX_GAIN = 20 << 12  # of a logarithm, unit 2**-12
PARTS = ("prior/", "levels/", "tables/", "synthesis/", "analysis/", "gains/", "calibration/", "start/")
SINGLE = ("companding", "centroids")
ENCODER_ONLY = ("analysis/", "gains/analysis/", "calibration/", "start/")  # may change without a new id


class Model:
    """A frozen model, ready to code with."""

    def __init__(
        self,
        name: str,
        model_id: str,
        config: Config,
        arrays: dict[str, np.ndarray],
        notes: dict[str, Any],
        shipped: bool = False,
    ) -> None:
        """Raises ModelError where tensors are missing or do not fit."""
        self.name, self.id, self.config, self.arrays, self.notes = name, model_id, config, arrays, notes
        self.shipped = shipped  # with the package
        self.models = Models(_tables(arrays))
        self.scales = len(self.models.low) - 1
        self.prior = Prior(config, arrays, self.scales)
        self.gains = SubbandGains(arrays, config.channels)
        self.transforms = NativeTransforms(config, arrays, name)
        if not shipped:
            self.transforms.check()

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.id}>"

    def step_size(self, quality_index: int) -> float:
        """The quantisation step of the lowest coefficients at a quality index, on a scale of 255."""
        return 255 * float(self.inverse_gain(quality_index)[0])

    def inverse_gain(self, quality_index: int) -> np.ndarray:
        """f32[256 C]: see floats.inverse_gain."""
        return floats.inverse_gain(self.config, self.arrays, quality_index)

    @cached_property
    def latent_scales(self) -> np.ndarray:
        """f32[256 C]: how much larger the core's coefficients are than normalised ones."""
        channels = self.config.channels
        return subband_scales(channels)[subband_of(channels)].astype(np.float32)

    @cached_property
    def synthesis_weights(self) -> dict[str, np.ndarray]:
        """Those of the synthesis in f32: see floats.transform_weights."""
        return floats.transform_weights(self.config, self.arrays, ("synthesis",))

    @cached_property
    def prior_weights(self) -> dict[str, np.ndarray]:
        """Those of the prior in f32: see floats.prior_weights."""
        return floats.prior_weights(self.arrays)

    def array(self, name: str) -> np.ndarray:
        """A tensor of the file; raises ModelError where there is none."""
        if name not in self.arrays:
            raise ModelError(f"model {self.name} has no {name}")
        return self.arrays[name]


def identify(config: dict[str, int], arrays: dict[str, np.ndarray]) -> str:
    """32 hexadecimal digits of the SHA-256 over everything a decoder uses, in the order of names."""
    digest = hashlib.sha256(json.dumps([FORMAT, config], sort_keys=True).encode())
    for name in sorted(arrays):
        if not name.startswith(ENCODER_ONLY):
            array = arrays[name]
            digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:ID_DIGITS]


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
        _check_calibration(arrays)
        if isinstance(config, Generative):
            return make_generator(name, fields["id"], config, arrays, notes)
        _check_tensors(arrays)
        return Model(name, fields["id"], config, arrays, notes, shipped)
    except ModelError as exc:
        raise ModelError(f"{source}: {exc}") from exc
    except (SafetensorError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as exc:
        raise ModelError(f"{source}: not a vaecodec model ({type(exc).__name__}: {exc})") from exc


def _check_tensors(arrays: dict[str, np.ndarray]) -> None:
    """Names and ranges that the parts of a model do not look at themselves."""
    for name, array in arrays.items():
        require(name in SINGLE or name.startswith(PARTS), f"it has a tensor {name} that this version does not know")
        if name.startswith("gains/"):
            fits = array.dtype == np.int32 and ((array >= -MAX_GAIN) & (array <= MAX_GAIN)).all()
            require(fits, f"{name} is out of range")
        if name.startswith("start/"):
            require(array.dtype.str == "<f4" and np.isfinite(array).all(), f"{name} is not finite float32")


def _check_calibration(arrays: dict[str, np.ndarray]) -> None:
    """Raises ModelError unless what scoring compares with is rising numbers, where there is any."""
    for name, array in arrays.items():
        if name.startswith("calibration/"):
            require(array.dtype.str == "<f4" and array.ndim == 1 and 2 <= array.size <= 1 << 16, f"{name} is no f32[n]")
            require(np.isfinite(array).all() and (np.diff(array) >= 0).all(), f"{name} does not rise")


def _tables(arrays: dict[str, np.ndarray]) -> Tables:
    """The frequency tables: those of the scales, the lowest of which is not coded, and the uniform one of bytes."""
    found = Tables(*(arrays[f"tables/{name}"] for name in Tables._fields))
    tables.check(found)
    count = len(found.low)
    require(
        OUTLIER_FLAG + 1 < count <= MAX_SCALES + 1,
        f"it has {count} tables, expected {OUTLIER_FLAG + 2} to {MAX_SCALES + 1}",
    )
    low = found.low.astype(np.int64)
    reach = max(-low.min(), (low + found.last - 1).max())
    require(reach <= SYMBOL_MAX, f"its tables reach to symbol {reach}, expected at most {SYMBOL_MAX}")
    uniform = found.row(count - 1)
    require(low[-1] == 0 and len(uniform) == 256 and (uniform == 1 << 16).all(), "the last table is not that of bytes")
    return found


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
    with open(path, "rb") as file:
        return parse_model(file.read(MAX_BYTES), path, os.path.dirname(path) == library.SHIPPED)


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
