"""The lowest coefficients of a tile: a few by themselves, then those between them, in four parts.

They are one of 1024 samples, so this is NumPy around the layers of the core.
"""

from __future__ import annotations

from collections.abc import Generator

import numpy as np

from vaecodec.native.networks import dense
from vaecodec.native.symbols import symbol_values
from vaecodec.prior.grid import lowest_neighbours, lowest_places
from vaecodec.prior.model import Distributions, LowestNetwork, Prior

LOWEST_PARTS = 5


def code_lowest(prior: Prior, size: tuple[int, int], level: int) -> Generator[Distributions, np.ndarray, np.ndarray]:
    """Yield (indices u8[n], loc i32[n]) of each part, be sent symbols i32[n]; returns values i32[C, h, w]."""
    channels, places = prior.channels, lowest_places(*size)
    known = np.zeros((size[0] * size[1], channels), np.int32)
    mean, index = np.split(prior.start(level), 2)
    count = len(places[0])
    loc = np.tile(mean, count)
    indices = np.tile(np.clip(index, 0, prior.scales - 1).astype(np.uint8), count)
    symbols = yield Distributions(indices, loc)
    known[places[0]] = symbol_values(symbols, indices, loc, prior.centroids).reshape(count, channels)
    for part, (here, around) in enumerate(zip(places[1:], lowest_neighbours(*size), strict=True)):
        indices, loc = _distribution(prior, prior.lowest[part], prior.lowest_bias(part, level), known[around])
        symbols = yield Distributions(indices, loc)
        known[here] = symbol_values(symbols, indices, loc, prior.centroids).reshape(-1, channels)
    return np.ascontiguousarray(known.T).reshape(channels, *size)


def _distribution(
    prior: Prior, network: LowestNetwork, bias: np.ndarray, near: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(indices u8[n * C], loc i32[n * C]) of coefficients between four others, near i32[4, n, C]."""
    if not near.shape[1]:
        return np.zeros(0, np.uint8), np.zeros(0, np.int32)
    mean = (near.sum(0, dtype=np.int32) + 2) >> 2
    seen = prior.compand(np.concatenate([*(near - mean), mean], -1))
    x = dense(network.enter, np.concatenate([seen, np.abs(seen)], -1), vector=bias)
    x = dense(network.middle, np.maximum(x, 0))
    sums = dense(network.out, x)
    loc = ((sums[:, : prior.channels] + 64) >> 7) + mean
    index = np.clip((sums[:, prior.channels :] + 2048) >> 12, 0, prior.scales - 1)
    return index.astype(np.uint8).ravel(), np.ascontiguousarray(loc, np.int32).ravel()
