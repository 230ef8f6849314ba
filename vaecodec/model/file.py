"""Read and write model files: one safetensors file of integers with metadata, named by an id in .vae files.

    prior/*, levels/*, companding, centroids   the prior: see vaecodec.prior
    tables/*                                   frequency tables
    synthesis/*, analysis/*, gains/*           the transforms: see model.weights
    eye/analysis/*, eye/gains/*                the analysis for the eye, if it has one of its own
    calibration/*, start/*                     quantiles of scores, and weights to continue training from
    integer/*, discrete/*                      generative models: see model.generative

A file holds numbers and metadata, and nothing in it is run.  Loading raises ModelError unless all tensors fit the
architecture that the configuration names and no sum that is computed with them can overflow.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from vaecodec import entropy
from vaecodec.config import MAX_SCALES, Config
from vaecodec.entropy import Tables
from vaecodec.entropy.coding import OUTLIER_FLAG, SYMBOL_MAX, Models
from vaecodec.errors import ModelError, require
from vaecodec.model import MAX_HEADER, SHIPPED, name_of_model, of_file, path_of_model, weights
from vaecodec.model.generative import Generative, Generator, build_generator
from vaecodec.prior import Prior
from vaecodec.transforms import EYE, NativeTransforms
from vaecodec.transforms.networks import SubbandGains

FORMAT = 1
ID_DIGITS = 32  # hexadecimal: 128 bits
MAX_BYTES = 1 << 27
MAX_GAIN = 20 << 12  # of a logarithm, unit 2**-12
PREFIXES = (
    *("prior/", "levels/", "tables/", "synthesis/", "analysis/", "gains/", "calibration/", "start/"),
    *(f"{EYE}analysis/", f"{EYE}gains/analysis/"),
)
SINGLE_NAMES = ("companding", "centroids")
MALFORMED = (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError)  # of contents of wrong forms
NOT_IN_ID = ("analysis/", "gains/analysis/", EYE, "calibration/", "start/")  # decoders do not need these


class Model:
    """A frozen model of photographs, ready to code with."""

    def __init__(
        self,
        name: str,
        model_id: str,
        config: Config,
        arrays: dict[str, np.ndarray],
        notes: dict[str, Any],
        shipped: bool = False,
    ) -> None:
        """Raises ModelError if tensors are missing or do not fit."""
        self.name, self.id, self.config, self.arrays, self.notes = name, model_id, config, arrays, notes
        self.shipped = shipped  # with the package
        self.path = ""  # of the file it was loaded from
        self.tilt, self._tilted = 0, {0: self}
        self.models = Models(_read_tables(arrays))
        self.scales = len(self.models.low) - 1
        self.prior = Prior(config, arrays, self.scales)
        self.gains = SubbandGains(arrays, config.channels)
        self.transforms = NativeTransforms(config, arrays, name)
        if not shipped:
            self.transforms.check()

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.id}>"

    def tilted(self, tilt: int) -> Model:
        """This model with steps of quantisation that change by octave, as a file says."""
        model = self._tilted.get(tilt)
        if model is None:
            model = copy.copy(self)
            model.tilt, model.prior = tilt, self._tilted[0].prior.tilted(tilt)
            model.gains = SubbandGains(self.arrays, self.config.channels, tilt)
            self._tilted[tilt] = model
        return model

    def step_size(self, quality_index: int) -> float:
        """Quantisation step of the lowest coefficients, on a scale of 0..255."""
        return 255 * float(self.inverse_gain(quality_index)[0])

    def inverse_gain(self, quality_index: int) -> np.ndarray:
        """f32[256 C]: see weights.inverse_gain."""
        return weights.inverse_gain(self.config, self.arrays, quality_index, self.tilt)

    @cached_property
    def latent_scales(self) -> np.ndarray:
        """f32[256 C]: see weights.latent_scales."""
        return weights.latent_scales(self.config.channels)

    @cached_property
    def synthesis_weights(self) -> dict[str, np.ndarray]:
        """Weights of the synthesis in f32: see weights.transform_weights."""
        return weights.transform_weights(self.config, self.arrays, ("synthesis",))

    @cached_property
    def prior_weights(self) -> dict[str, np.ndarray]:
        """Weights of the prior in f32: see weights.prior_weights."""
        return weights.prior_weights(self.arrays)

    def array(self, name: str) -> np.ndarray:
        """A tensor of the file; raises ModelError if there is none of this name."""
        if name not in self.arrays:
            raise ModelError(f"model {self.name} has no {name}")
        return self.arrays[name]


def identify(config: dict[str, int], arrays: dict[str, np.ndarray]) -> str:
    """The id of a model: 32 hexadecimal digits of the SHA-256 over all that a decoder uses, in the order of names."""
    digest = hashlib.sha256(json.dumps([FORMAT, config], sort_keys=True).encode())
    for name in sorted(arrays):
        if not name.startswith(NOT_IN_ID):
            array = arrays[name]
            digest.update(json.dumps([name, array.dtype.str, array.shape]).encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:ID_DIGITS]


def pack_model(name: str, config: Config | Generative, arrays: dict[str, np.ndarray], notes: dict[str, Any]) -> bytes:
    """The bytes of a model file: the inverse of parse_model."""
    from safetensors.numpy import save

    fields = {"format": FORMAT, "name": name, "config": config.to_dict(), "notes": notes}
    fields["id"] = identify(config.to_dict(), arrays)
    # safetensors ignores strides and writes the memory of an array as it is.
    arrays = {key: np.asarray(value, order="C") for key, value in arrays.items()}
    return save(arrays, {key: json.dumps(value) for key, value in fields.items()})


def parse_model(data: bytes, source: str, shipped: bool = False) -> Model | Generator:
    """A model of either kind from the bytes of a file, checked against its id; raises ModelError naming `source`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        size = int.from_bytes(data[:8], "little")
        require(size <= MAX_HEADER, f"not a vaecodec model (a header of {size} bytes, expected {MAX_HEADER} at most)")
        header = json.loads(data[8 : 8 + size])
        fields = {key: json.loads(value) for key, value in header["__metadata__"].items()}
        require(fields["format"] == FORMAT, f"format {fields['format']} is not supported (expected {FORMAT})")
        name, notes = fields["name"], fields["notes"]
        require(
            isinstance(name, str) and isinstance(notes, dict), "its name is not text, or its notes are not a mapping"
        )
        config = read_config(fields["config"])
        arrays = load(data)
        matches = identify(config.to_dict(), arrays) == fields["id"]
        require(matches, "the model is damaged (its contents do not match its id)")
        return build_model(name, fields["id"], config, arrays, notes, shipped)
    except ModelError as exc:
        raise ModelError(f"{source}: {exc}") from exc
    except (SafetensorError, *MALFORMED) as exc:
        raise ModelError(f"{source}: not a vaecodec model ({type(exc).__name__}: {exc})") from exc


def build_model(
    name: str,
    model_id: str,
    config: Config | Generative,
    arrays: dict[str, np.ndarray],
    notes: dict[str, Any],
    shipped: bool = False,
) -> Model | Generator:
    """A model of either kind from what its file contains; raises ModelError or one of MALFORMED if it does not fit."""
    _check_calibration(arrays)
    if isinstance(config, Generative):
        return build_generator(name, model_id, config, arrays, notes)
    _check_tensors(arrays)
    require(not config.analysis_blocks, "its configuration has analysis_blocks, which only training needs")
    return Model(name, model_id, config, arrays, notes, shipped)


def read_config(values: dict[str, Any]) -> Config | Generative:
    """The configuration of a model of either kind from its fields; raises ValueError."""
    return Generative.from_dict(values) if values.get("kind") == Generative.kind else Config.from_dict(values)


def _check_tensors(arrays: dict[str, np.ndarray]) -> None:
    """Check names, and the ranges that the parts of a model do not check themselves."""
    for name, array in arrays.items():
        if name not in SINGLE_NAMES and not name.startswith(PREFIXES):
            raise ModelError(f"it has a tensor {name} that this version does not know")
        if name.removeprefix(EYE).startswith("gains/") and (
            array.dtype != np.int32 or not (np.abs(array.astype(np.int64)) <= MAX_GAIN).all()
        ):
            raise ModelError(f"{name} is out of range")
        if name.startswith("start/") and not (array.dtype.str == "<f4" and np.isfinite(array).all()):
            raise ModelError(f"{name} is not finite float32")


def _check_calibration(arrays: dict[str, np.ndarray]) -> None:
    """Raise ModelError unless the quantiles that scoring compares with rise."""
    for name, array in arrays.items():
        if name.startswith("calibration/"):
            require(
                array.dtype.str == "<f4" and array.ndim == 1 and 2 <= array.size <= 1 << 16, f"{name} is not f32[n]"
            )
            require(np.isfinite(array).all() and (np.diff(array) >= 0).all(), f"{name} does not rise")


def _read_tables(arrays: dict[str, np.ndarray]) -> Tables:
    """Frequency tables: one for each scale, the lowest of which is not coded, and the uniform one of bytes."""
    stored = Tables(*(arrays[f"tables/{name}"] for name in Tables._fields))
    entropy.check(stored)
    count, least = len(stored.low), OUTLIER_FLAG + 2
    require(least <= count <= MAX_SCALES + 1, f"it has {count} tables, expected {least} to {MAX_SCALES + 1}")
    low = stored.low.astype(np.int64)
    reach = max(-low.min(), (low + stored.last - 1).max())
    require(reach <= SYMBOL_MAX, f"its tables reach to symbol {reach}, expected at most {SYMBOL_MAX}")
    uniform = stored.row(count - 1)
    require(low[-1] == 0 and len(uniform) == 256 and (uniform == 1 << 16).all(), "the last table is not that of bytes")
    return stored


def load_model(name_or_path: str) -> Model:
    """A model of photographs by name or path; raises ModelError.  Cached until its file changes."""
    model = load_any(name_or_path)
    if not isinstance(model, Model):
        raise ModelError(f"model {model.name} is for sets of small images (vaecodec pack), not for photographs")
    return model


def load_generator(name_or_path: str) -> Generator:
    """A generative model by name or path; raises ModelError.  Cached until its file changes."""
    model = load_any(name_or_path)
    if not isinstance(model, Generator):
        raise ModelError(f"model {model.name} is for photographs, not for sets of small images")
    return model


def load_any(name_or_path: str) -> Model | Generator:
    """A model of either kind by name or path; raises ModelError.  Cached until its file changes."""
    return of_file(_load, path_of_model(name_or_path))


@lru_cache(maxsize=8)
def _load(path: str, changed: int, size: int) -> Model | Generator:
    if size > MAX_BYTES:
        raise ModelError(f"{path}: has {size} bytes, expected at most {MAX_BYTES}")
    with open(path, "rb") as file:
        model = parse_model(file.read(MAX_BYTES), path, os.path.dirname(path) == SHIPPED)
    if isinstance(model, Model):
        model.path = os.path.abspath(path)
    return model


def find_model(model_id: str) -> Model:
    """The model of photographs with this id, shipped or added; raises ModelError naming the id."""
    return load_model(_installed(model_id))


def find_generator(model_id: str) -> Generator:
    """The generative model with this id, shipped or added; raises ModelError naming the id."""
    return load_generator(_installed(model_id))


def _installed(model_id: str) -> str:
    name = name_of_model(model_id)
    if name is None:
        text = "which is not among those here: name its .vcm file, or add it"
        raise ModelError(f"this file needs model {model_id}, {text}")
    return name
