"""Make small models for tests: random weights that every network depends on, frozen as training would freeze them."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest

from support.paths import GOLDEN
from vaecodec.codec import Codec
from vaecodec.codec import load as load_codec
from vaecodec.config import Config
from vaecodec.container.image_file import pack, parse, with_pixel_crcs
from vaecodec.errors import ModelError
from vaecodec.model.file import Model, pack_model, parse_model

SMALL_CONFIG = Config(16, 2, 24, 1, prior=20, coarser=24, hyper_width=12)
TINY_CONFIG = Config(fine=8, fine_blocks=1, coarse=8, coarse_blocks=1, prior=8, coarser=8, hyper_width=8)
DISTINCT_CONFIG = Config(8, 1, 12, 2, prior=8, coarser=12, hyper_width=10)  # no two widths are equal by accident

Weights = dict[str, np.ndarray]


def random_weights(config: Config = SMALL_CONFIG, index_offset: float = 2.5, seed: int = 0) -> Weights:
    """Initial weights with seeded noise, so that the output of every network depends on its input.

    `index_offset` is added to all scale indices: with a low one most coefficients have table index 0.
    """
    from vaecodec.training import vae

    rng = np.random.default_rng(seed)
    weights = vae.initial_weights(config, seed)
    deviations = dict.fromkeys(vae.specification(config)["prior"].weights, 0.05)
    deviations |= {"analysis/latents/kernel": 0.004, "synthesis/fine/kernel": 0.004, "band_gain": 0.1}
    for name, deviation in deviations.items():
        weights[name] = weights[name] + rng.normal(0, deviation, weights[name].shape).astype(np.float32)
    biases = [name for name in weights if name.endswith(("/first/bias", "/second/bias"))]
    for name in (*biases, *(f"lowest/{part}/out/bias" for part in range(4))):
        weights[name][len(weights[name]) // 2 :] += index_offset
    for name in weights:
        if name.startswith(("context/", "lowest/")) and name.endswith("/condition"):
            weights[name] += rng.normal(0, 0.2, weights[name].shape).astype(np.float32)
    weights["centroid"][:] = (0.08, -0.05)
    return weights


@lru_cache(maxsize=8)
def random_model(config: Config = DISTINCT_CONFIG, index_offset: float = 1.5) -> bytes:
    """A model file of random weights."""
    from vaecodec.training.freezing import photograph_arrays

    return pack_model("random", config, photograph_arrays(config, random_weights(config, index_offset)), {})


def freeze_weights(folder: pathlib.Path, config: Config, weights: Weights) -> str:
    """Save a checkpoint of a training run in a folder, and return the path of the model frozen from it."""
    from vaecodec import training
    from vaecodec.training import loop
    from vaecodec.training.freezing import freeze

    state = training.initial_state(config, 0, weights)
    training.save_checkpoint(str(folder), config, loop.Options(), state, {"steps": 0})
    freeze(str(folder), str(folder / "frozen.vcm"))
    return str(folder / "frozen.vcm")


def with_arrays(model: Model, **changes: np.ndarray | None) -> bytes:
    """Return the file of a model with changed arrays and a matching id; None drops an array."""
    arrays = {**model.arrays, **changes}
    return pack_model("changed", model.config, {name: a for name, a in arrays.items() if a is not None}, {})


def with_entry(array: np.ndarray, value: float, index: int = 0) -> np.ndarray:
    """Return a copy of an array with another value at a flat index."""
    copy = array.copy()
    copy.reshape(-1)[index] = value
    return copy


def load_bytes(data: bytes) -> Model:
    """Parse the bytes of a model file, which must hold a model for images."""
    model = parse_model(data, "model.vcm")
    assert isinstance(model, Model)
    return model


def reload(model: Model, **changes: np.ndarray | None) -> Model:
    """Change arrays of a model, and load and validate it like a file."""
    return load_bytes(with_arrays(model, **changes))


def assert_refused(model: Model, name: str, change: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    """Check that a changed array raises a ModelError with this message, in a single line that names the file."""
    data = with_arrays(model, **{name: change(model.arrays[name])})
    with np.errstate(all="ignore"), pytest.raises(ModelError, match=message) as caught:
        parse_model(data, "bad.vcm")
    assert str(caught.value).startswith("bad.vcm: ") and "\n" not in str(caught.value)


def with_filter(codec: Codec, data: bytes, filter: bytes) -> bytes:
    """Return a file with another restoration filter, or without a filter, and with the CRCs of its pixels."""
    parsed = parse(data)
    tiles = [(data[tile.offset : tile.offset + tile.length], tile.crc, 0) for tile in parsed.tiles]
    data = pack(parsed.header._replace(filter=filter), tiles)
    return with_pixel_crcs(data, codec.decoder.pixel_crcs(data))


def pixel_crcs_of_golden(path: pathlib.Path) -> list[int]:
    """CRCs of the pixels of a golden file's tiles; other processes import it, which not all can do with tests."""
    return load_codec(str(GOLDEN / "tiny.vcm")).decoder.pixel_crcs(path.read_bytes())
