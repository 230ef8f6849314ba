"""What tests of models share: weights that training might make, and model files that no training makes."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

from vaecodec.config import Config
from vaecodec.entropy import coding
from vaecodec.entropy.outliers import FLAG
from vaecodec.errors import ModelError
from vaecodec.model.file import Model, pack_model, parse_model

CONFIG = Config(16, 2, 24, 1, prior=20, coarser=24, hyper_width=12)
TRAINED_CONFIG = Config(fine=8, fine_blocks=1, coarse=8, coarse_blocks=1, prior=8, coarser=8, hyper_width=8)


def trained(config: Config = CONFIG, seed: int = 0) -> dict[str, np.ndarray]:
    """Initial weights, and so much more that every network matters."""
    from vaecodec.training import vae

    rng = np.random.default_rng(seed)
    weights = vae.initial_weights(config, seed)
    parts = vae.specification(config)
    for name in parts["prior"].weights:
        weights[name] = weights[name] + rng.normal(0, 0.05, weights[name].shape).astype(np.float32)
    wide = [name for name in weights if name.endswith(("/first/bias", "/second/bias"))]
    for name in (*wide, *(f"lowest/{part}/out/bias" for part in range(4))):  # so that nothing is a surprise
        weights[name][len(weights[name]) // 2 :] += 2.5
    for name in ("analysis/latents/kernel", "synthesis/fine/kernel"):
        weights[name] = weights[name] + rng.normal(0, 0.004, weights[name].shape).astype(np.float32)
    weights["band_gain"] += rng.normal(0, 0.1, weights["band_gain"].shape).astype(np.float32)
    weights["centroid"] = np.tile(np.array([[0.08, -0.05]], np.float32), (len(weights["centroid"]), 1))
    for name in weights:
        if name.startswith(("context/", "lowest/")) and name.endswith("/condition"):
            weights[name] += rng.normal(0, 0.2, weights[name].shape).astype(np.float32)
    return weights


def frozen(
    folder: pathlib.Path, config: Config = CONFIG, weights: dict[str, np.ndarray] | None = None
) -> tuple[str, dict[str, np.ndarray]]:
    """The path of a frozen model, and the weights that it was made of."""
    from vaecodec.training import loop as training
    from vaecodec.training.freezing import freeze

    weights = trained(config) if weights is None else weights
    state = training.initial_state(config, 0, weights)
    training.save_checkpoint(str(folder), config, training.Options(), state, {"steps": 0})
    freeze(str(folder), str(folder / "wavelet.vcm"))
    return str(folder / "wavelet.vcm"), weights


def with_arrays(model: Any, **changes: np.ndarray | None) -> bytes:
    """The bytes of a model with other arrays, and the id that goes with them; None drops one."""
    arrays = {**model.arrays, **changes}
    return pack_model("bad", model.config, {name: array for name, array in arrays.items() if array is not None}, {})


def remade(model: Model, **changes: np.ndarray | None) -> Model:
    """A model with other arrays, loaded as any file is."""
    found = parse_model(with_arrays(model, **changes), "other.vcm")
    assert isinstance(found, Model)
    return found


def changed(array: np.ndarray, value: object, index: int = 0) -> np.ndarray:
    """A copy in which one entry is another."""
    out = array.copy()
    out.reshape(-1)[index] = value
    return out


def assert_refused(model: Any, name: str, change: Any, message: str) -> None:
    """A model with a changed array ends in a ModelError of this message, one line that names the file."""
    bad = with_arrays(model, **{name: change(model.arrays[name])})
    with np.errstate(all="ignore"), pytest.raises(ModelError, match=message) as caught:
        parse_model(bad, "bad.vcm")
    assert str(caught.value).startswith("bad.vcm: ") and "\n" not in str(caught.value)


def stack_of_strays(models: coding.Models, numbers: list[int], flag: int = 1) -> np.ndarray:
    """A stack that a flag and these numbers are to be taken off."""
    coder = coding.writer()
    coding.push_numbers(coder, np.array(numbers), models)
    coding.push(coder, np.array([flag], np.int32), np.array([FLAG], np.uint8), models)
    return coding.words(coder)


# What no encoder says of five symbols, of which those at 0, 1 and 3 have table index 0: numbers, and the flag.
FALSE_STRAYS = {
    "a flag of 2": ([1, 0, 1], 2),
    "a flag below 0": ([1, 0, 1], -65535),
    "none": ([0], 1),
    "less than none": ([-1, 0, 1], 1),
    "more than there are places": ([4, 0, 1, 1, 1, 3, 1, 4, 1], 1),
    "a place below 0": ([1, -1, 1], 1),
    "a place beyond": ([1, 5, 1], 1),
    "a place of another row": ([1, 2, 1], 1),
    "a place twice": ([2, 1, 1, 1, 2], 1),
    "places that fall": ([2, 3, 1, 1, 1], 1),
    "a symbol of 0": ([1, 0, 0], 1),
    "a symbol beyond": ([1, 0, 65536], 1),
    "the lowest integer": ([1, 0, -(2**31)], 1),
}
