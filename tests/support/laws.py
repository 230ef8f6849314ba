"""Properties that hold for every table, symbol, shape or quality; tests of each module apply them."""

from __future__ import annotations

import numpy as np

from vaecodec.entropy import coding
from vaecodec.entropy.tables import TOTAL, Tables, build
from vaecodec.model.file import Model
from vaecodec.prior.model import Distributions
from vaecodec.prior.tile import decode_tile, encode_tile


def random_tables(rng: np.random.Generator, rows: int, entries: int) -> Tables:
    """Rows of 2..entries random frequencies, then the byte row."""
    out = []
    for _ in range(rows):
        n = int(rng.integers(2, entries + 1))
        weights = rng.exponential(size=n) ** rng.integers(1, 6)
        freq = np.maximum(1, np.floor(weights / weights.sum() * (TOTAL - n))).astype(np.int64)
        freq[np.argmax(freq)] += TOTAL - freq.sum()
        out.append((int(rng.integers(-50, 50)), freq.astype(np.uint32)))
    out.append((0, np.full(256, 1 << 16, np.uint32)))
    return build(out)


def pop_inverts_push(tables: Tables, symbols: np.ndarray, rows: np.ndarray, below: np.ndarray) -> bytes:
    """Whatever lies on the stack, pushing and popping symbols returns them and leaves the stack as it was."""
    models = coding.Models(tables)
    coder = coding.writer()
    coding.push(coder, below, np.full(len(below), len(tables.low) - 2, np.uint8), models)
    before = coding.words(coder)
    coding.push(coder, symbols, rows, models)
    after = coding.words(coder)
    again = coding.reader(after)
    assert np.array_equal(coding.pop(again, rows, models), symbols)
    assert coding.words(again) == before
    return after


def decoding_inverts_encoding(model: Model, cells: tuple[int, int], step: int, rng: np.random.Generator) -> None:
    """Decoding the symbols that an encoder chose, whatever they are, returns them and the values they stand for."""

    def choose(part: int, distributions: Distributions) -> np.ndarray:
        indices = distributions.indices
        spread = 3 * rng.standard_normal(indices.shape) * 40 ** rng.random(indices.shape)
        symbols = np.rint(np.clip(spread, -60000, 60000)).astype(np.int32)
        symbols[(indices == coding.DETERMINISTIC) & (rng.random(indices.shape) < 0.9)] = 0
        return symbols

    coded = encode_tile(model.prior, model.models, cells, step, choose)
    decoded: list[np.ndarray] = []
    values = decode_tile(model.prior, model.models, cells, step, coded.payload, coded.crc, see=decoded.append)
    assert all(np.array_equal(a, b) for a, (b, _) in zip(decoded, coded.parts, strict=True))
    assert np.array_equal(values.low, coded.values.low)
    for halves, others in zip(values.halves, coded.values.halves, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(halves, others, strict=True))
    assert values.low.shape == (model.config.channels, *cells)
