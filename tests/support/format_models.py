"""Models that tests make: tiny ones of random weights, frozen as training would freeze them, and changed ones."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vaecodec.codec.codec import Codec
from vaecodec.config import Config
from vaecodec.container.picture import pack, parse, with_pixel_crcs
from vaecodec.model.file import Model, pack_model, parse_model

CONFIG = Config(8, 1, 12, 2, prior=8, coarser=12, hyper_width=10)  # widths that cannot be mistaken


@lru_cache(maxsize=8)
def random_model(config: Config = CONFIG, index_offset: float = 1.5) -> bytes:
    """A model file whose networks all matter; with a low `index_offset` most coefficients have table index 0."""
    from vaecodec.training import vae
    from vaecodec.training.freezing import _photographic

    rng, weights = np.random.default_rng(0), vae.initial_weights(config, 0)
    for name in vae.specification(config)["prior"].weights:
        weights[name] += rng.normal(0, 0.05, weights[name].shape).astype(np.float32)
    for name in weights:
        if name.endswith(("/first/bias", "/second/bias", "/out/bias")) and name.startswith(("context/", "lowest/")):
            if "block" not in name and "after" not in name:
                weights[name][len(weights[name]) // 2 :] += index_offset
        if name.startswith(("context/", "lowest/")) and name.endswith("/condition"):
            weights[name] += rng.normal(0, 0.2, weights[name].shape).astype(np.float32)
    for name in ("analysis/latents/kernel", "synthesis/fine/kernel"):
        weights[name] += rng.normal(0, 0.004, weights[name].shape).astype(np.float32)
    weights["band_gain"] += rng.normal(0, 0.1, weights["band_gain"].shape).astype(np.float32)
    weights["centroid"][:] = (0.08, -0.05)
    arrays = _photographic(config, weights)
    return pack_model("random", config, arrays, {})


def with_arrays(model: Model, **changes: np.ndarray | None) -> bytes:
    """The file of a model with other arrays, and the id that goes with them; None drops one."""
    arrays = {**model.arrays, **changes}
    return pack_model("changed", model.config, {k: a for k, a in arrays.items() if a is not None}, {})


def changed(array: np.ndarray, value: float, index: int = 0) -> np.ndarray:
    """An array with one other element."""
    out = array.copy()
    out.reshape(-1)[index] = value
    return out


def loaded(data: bytes) -> Model:
    """A model file's model."""
    model = parse_model(data, "it")
    assert isinstance(model, Model)
    return model


def with_filter(codec: Codec, data: bytes, filter: bytes) -> bytes:
    """A file with another filter, or none, and the CRCs of the pixels that follow."""
    parsed = parse(data)
    tiles = [(data[tile.offset : tile.offset + tile.length], tile.crc, 0) for tile in parsed.tiles]
    data = pack(parsed.header._replace(filter=filter), tiles)
    return with_pixel_crcs(data, codec.decoder.pixel_crcs(data))
