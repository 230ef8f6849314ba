"""Test prediction from coarse to fine and coding of residuals: sums are exact, and decoding inverts encoding."""

import numpy as np
import pytest

from vaecodec.arrays import prediction
from vaecodec.arrays.prediction import (
    KINDS,
    Guide,
    Stage,
    Weights,
    code_plane,
    predict,
    stage_shape,
    stages,
    weight_counts,
)
from vaecodec.entropy import adaptive
from vaecodec.entropy.coding import reader, words, writer

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (2, 9, 1), (1, 2, 2), (3, 5, 4), (1, 33, 64), (1, 65, 17)])
def test_stages_visit_every_point_once(shape):
    visits = np.zeros(shape, int)
    visits[:, 0, 0] += 1
    for level, kind in stages(shape):
        stage = Stage(Guide(np.zeros(shape), np.zeros(shape)), [], level, kind, 1, 9)
        for strip in stage.strips():
            visits[stage.where(strip)] += 1
    assert (visits == 1).all()
    assert sum(np.prod(stage_shape(shape, *stage)) for stage in stages(shape)) == (np.prod(shape[1:]) - 1) * shape[0]


def test_features_depend_on_known_points_only():
    """Points of a stage and of later ones are NaN; features must not depend on them."""
    shape = (2, 24, 37)
    for level, kind in stages(shape):
        grid = np.full(shape, np.nan)
        grid[:, :: 2 << level, :: 2 << level] = 1
        for earlier in range(kind):
            parity = KINDS[earlier].parity
            grid[:, parity[0] << level :: 2 << level, parity[1] << level :: 2 << level] = 1
        if 1 in grid[:, :: 1 << level, :: 1 << level].shape[1:]:
            continue  # a level of a single row, whose new points are filled in first
        stage = Stage(Guide(grid, grid), [], level, kind, 1, 9)
        features = stage.features(next(stage.strips()))
        assert all(np.isfinite(part).all() for part in (*features.differences, *features.magnitudes))


@pytest.mark.parametrize("top", [255, prediction.TOP_MAX])
def test_sums_are_exact_at_their_bounds(top):
    """Compare with Python integers, at the largest weights and values."""
    dtype = np.float32 if top <= prediction.FLOAT32_TOP else np.float64
    shape, kind = (1, 16, 16), 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        planes = [np.where(rng.random(shape) < 0.5, 0, top).astype(dtype) for _ in range(6)]
        planes[0] = rng.integers(0, top + 1, shape).astype(dtype) if seed % 2 else planes[0]
        guides = [Guide(planes[2], planes[3]), Guide(planes[4], planes[5]), Guide(planes[1])]
        stage = Stage(Guide(planes[0], planes[3]), guides, 0, kind, 1, top)
        features = stage.features(next(stage.strips()))
        weights = []
        for size, most in zip(
            weight_counts(kind, guides), (prediction.PREDICT_MAX, prediction.EXPECT_MAX), strict=True
        ):
            split = rng.multinomial(most, rng.dirichlet(np.full(size, 0.1)))
            signs = rng.choice([-1, 1], size) if most == prediction.PREDICT_MAX else 1
            weights.append((split * signs).astype(np.int16))
        predicted, contexts = predict(features, Weights(*weights), 1, top)
        for n in range(0, predicted.size, 7):
            total = 1024 * int(features.mean.flat[n]) + 2048
            total += sum(int(w) * int(d.flat[n]) for w, d in zip(weights[0], features.differences, strict=True))
            assert predicted.flat[n] == min(max(total >> 12, 0), top)
            magnitudes = [int(m.flat[n] if m.ndim else m) for m in features.magnitudes]
            total_magnitude = sum(int(w) * size for w, size in zip(weights[1], magnitudes, strict=True))
            assert contexts[n] == context(total_magnitude // 512)
            assert all(m.flat[n if m.ndim else 0] <= 16 * top for m in features.magnitudes)


def context(expected: int) -> int:
    """Compute the context as docs/reference/array-chunks.md defines it."""
    bits = (expected + 1).bit_length()
    half = bits > 1 and (expected + 1) >> (bits - 2) & 1
    return min(2 * (bits - 1) + half, 63) + 1


def test_contexts_are_half_octaves():
    numbers = np.concatenate([np.arange(5000), 2 ** np.arange(44), 2 ** np.arange(2, 44) - 1])
    assert adaptive.contexts(numbers.astype(np.float64)).tolist() == [context(int(n)) for n in numbers]


def test_tokens_represent_numbers_of_every_size():
    edges = [2**n + d for n in range(34) for d in (-2, -1, 0, 1, 2)]
    numbers = np.array([*range(-70, 70), *edges, *(-e for e in edges)])
    token, raw, low = adaptive.tokens(numbers)
    assert token.min() >= 0 and token.max() < adaptive.TOKENS
    assert np.array_equal(adaptive.low_bits(token), low)
    assert np.array_equal(adaptive.values(token, raw), numbers)
    assert (raw < 2.0**low).all()


def test_residuals_of_every_size_round_trip():
    scale = 2.0 ** RNG.uniform(0, 33, 20_000)
    numbers = (RNG.laplace(0, 1, 20_000) * scale).astype(np.int64)
    contexts = adaptive.contexts(np.floor(8 * scale))
    contexts[::10], numbers[::10] = 0, 0
    encoder, coder = adaptive.Encoder(), writer()
    for part in np.array_split(np.arange(20_000), 7):
        encoder.put(numbers[part], contexts[part])
    encoder.push(coder)
    data = words(coder)
    stack = reader(data)
    decoder = adaptive.Decoder(stack)
    for part in np.array_split(np.arange(20_000), 7):
        assert np.array_equal(decoder.get(contexts[part]), numbers[part])
    assert stack.is_empty()
    assert len(data) < 20_000 * (17 + 4) / 8


def test_initial_tables_are_valid_and_symmetric():
    for context in range(1, adaptive.CONTEXTS + 1):
        counts = adaptive.initial_counts(context)
        assert (counts >= 0).all() and counts.sum() > 0 and np.array_equal(counts, counts[::-1])
        tables = adaptive.Adaptive()
        tables.model(context)
        tables.update(context, np.zeros(10**6, np.int32))
        tables.model(context)


def test_tables_adapt_to_the_source():
    """The cost of a source of two values approaches its entropy."""
    numbers = np.where(RNG.random(60_000) < 0.1, 3, 0)
    encoder, coder = adaptive.Encoder(), writer()
    encoder.put(numbers, np.full(60_000, 5, np.uint8))
    encoder.push(coder)
    entropy = -(0.1 * np.log2(0.1) + 0.9 * np.log2(0.9)) * 60_000 / 8
    assert len(words(coder)) < 1.03 * entropy


def test_decoded_planes_equal_the_planes_of_the_encoder():
    exact, residuals_sent = RNG.integers(0, 1000, (2, 13, 22)), []

    def default_weights(stage):
        return prediction.default_weights(stage.kind, [], False)

    def encode(where, predicted, contexts):
        residuals_sent.append(((exact[where] - predicted.astype(int) + 3) // 7).ravel())
        return residuals_sent[-1]

    encoded = code_plane(exact.shape, 1000, 7, [], default_weights, encode)
    assert np.abs(encoded.values - exact).max() <= 3
    residuals = iter(residuals_sent)
    decoded = code_plane(exact.shape, 1000, 7, [], default_weights, lambda *_: next(residuals))
    assert np.array_equal(decoded.values, encoded.values)
