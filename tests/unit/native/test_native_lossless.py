"""Test the lossless coder of planes: every core writes the bytes of NumPy, and decodes what was encoded."""

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from PIL import Image

from support.paths import ROOT
from vaecodec.native import library, lossless
from vaecodec.native.reference import lossless_bits

NOISE, FLAT, CHECKERBOARD, GRADIENT, EXTREMES = "noise", "flat", "checkerboard", "gradient", "extremes"
PATTERNS = [NOISE, FLAT, CHECKERBOARD, GRADIENT, EXTREMES]


def pattern(name: str, shape: tuple[int, int, int], depth: int = 8, seed: int = 0) -> np.ndarray:
    """Samples of a depth in u8 or u16."""
    rng, maximum = np.random.default_rng(seed), (1 << depth) - 1
    y, x, channel = np.indices(shape)
    values = {
        NOISE: rng.integers(0, maximum + 1, shape),
        FLAT: np.full(shape, maximum // 3),
        CHECKERBOARD: (x + y + channel) % 2 * maximum,
        GRADIENT: (3 * x + 5 * y + 7 * channel) * maximum // 200 % (maximum + 1),
        EXTREMES: rng.choice([0, maximum], shape, p=(0.9, 0.1)),
    }[name]
    return values.astype(np.uint8 if depth <= 8 else np.uint16)


def encode(
    samples: np.ndarray, depth: int = 8, bound: int = 0, rows: int = 3, level: int = 0
) -> tuple[list[bytes], np.ndarray]:
    """The streams of all planes, and the samples that decoders get."""
    coded, (height, _, channels) = samples.copy(), samples.shape
    coder, streams = lossless.PlaneCoder(coded, depth, bound, level), [b""] * channels
    for top in range(0, height, rows):
        for plane in range(channels):
            streams[plane] += coder.encode(plane, (top, min(height, top + rows)))
    return streams, coded


def decode(
    streams: list[bytes], like: np.ndarray, depth: int = 8, bound: int = 0, level: int = 0
) -> tuple[np.ndarray, bool]:
    """The samples, and whether every stream was long enough."""
    samples, complete = np.zeros_like(like), True
    coder = lossless.PlaneCoder(samples, depth, bound, level)
    for y in range(len(like)):
        for plane in range(like.shape[2]):
            complete &= coder.decode(plane, (y, y + 1), streams[plane])
    return samples, complete


def check_round_trip(samples: np.ndarray, depth: int = 8, bound: int = 0, level: int = 0) -> list[bytes]:
    streams, coded = encode(samples, depth, bound, level=level)
    assert np.abs(coded.astype(np.int64) - samples).max() <= bound
    decoded, complete = decode(streams, samples, depth, bound, level)
    np.testing.assert_array_equal(decoded, coded)
    assert complete
    return streams


def check_against_reference(kinds, samples: np.ndarray, depth: int = 8, bound: int = 0, level: int = 0) -> None:
    with library.use("numpy"):
        expected = check_round_trip(samples, depth, bound, level)
    for kind in kinds:
        with library.use(kind):
            assert check_round_trip(samples, depth, bound, level) == expected, kind


@pytest.mark.parametrize("height", range(1, 21))
def test_all_small_sizes(height):
    for width in range(1, 21):
        check_round_trip(pattern(NOISE, (height, width, 3), seed=width))
        check_round_trip(pattern(GRADIENT, (height, width, 1)), bound=width % 3)


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_every_kind_is_the_reference(kinds, name, channels):
    check_against_reference(kinds, pattern(name, (6, 11, channels)), bound=channels % 2)


@pytest.mark.parametrize("depth", [1, 2, 7, 8, 9, 10, 12, 13, 16])
def test_every_depth_is_the_reference(kinds, depth):
    for name, bound in itertools.product((NOISE, EXTREMES), (0, 2)):
        check_against_reference(kinds, pattern(name, (5, 9, 3), depth), depth, bound)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("name", PATTERNS)
def test_every_level_is_the_reference(kinds, name, level):
    for channels, depth, bound in ((3, 8, 0), (1, 8, 3), (2, 1, 0), (4, 13, 0), (3, 16, 16)):
        check_against_reference(kinds, pattern(name, (7, 10, channels), depth), depth, bound, level)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5, 6])
def test_levels_agree_on_larger_images(kinds, level):
    for depth, name in itertools.product((8, 16), PATTERNS):
        samples, streams = pattern(name, (25, 130, 3), depth), set()
        for kind in kinds:
            with library.use(kind):
                streams.add(tuple(check_round_trip(samples, depth, 2 * (depth > 8), level)))
        assert len(streams) == 1


@pytest.mark.parametrize("width", [63, 64, 65, 130])
def test_kinds_agree_for_widths_about_whole_vectors(kinds, width):
    check_against_reference(kinds, pattern(GRADIENT, (4, width, 1)))


def test_kinds_agree_on_larger_images(kinds):
    for depth, name in itertools.product((8, 11, 16), PATTERNS):
        samples = pattern(name, (40, 150, 3), depth)
        streams = set()
        for kind in kinds:
            with library.use(kind):
                streams.add(tuple(encode(samples, depth)[0]))
        assert len(streams) == 1


@pytest.mark.parametrize("bound", [0, 1, 2, 16])
@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("depth", [1, 8, 12, 16])
def test_round_trips_keep_the_bound(name, depth, bound):
    for channels in (1, 2, 3, 4):
        check_round_trip(pattern(name, (37, 29, channels), depth), depth, bound)


def test_streams_do_not_depend_on_the_rows_of_a_call():
    samples = pattern(GRADIENT, (30, 20, 3))
    assert encode(samples, rows=1)[0] == encode(samples, rows=7)[0] == encode(samples, rows=12)[0]


def test_larger_bounds_cost_fewer_bytes():
    samples = pattern(NOISE, (40, 40, 1))
    sizes = [len(encode(samples, bound=bound)[0][0]) for bound in (0, 1, 2, 16)]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] < 1.15 * samples.size
    assert len(encode(pattern(FLAT, (64, 64, 1)))[0][0]) < 64


@pytest.mark.parametrize("level", [0, 1, 3, 4, 6])
def test_damaged_and_truncated_streams_decode_within_memory(kinds, level):
    samples, rng = pattern(GRADIENT, (24, 40, 3), 12), np.random.default_rng(1)
    streams, _ = encode(samples, 12, level=level)
    for n in range(30):
        damaged = [bytearray(stream) for stream in streams]
        for stream in damaged:
            stream[rng.integers(len(stream))] ^= 1 << rng.integers(8)
            del stream[int(rng.integers(len(stream))) if n % 2 else len(stream) :]
        damaged = [bytes(stream) for stream in damaged]
        results = []
        for kind in kinds:
            with library.use(kind):
                decoded, complete = decode(damaged, samples, 12, level=level)
            assert decoded.max() < 1 << 12
            results.append((decoded.tobytes(), complete))
        assert len(set(results)) == 1
    assert not decode([b""] * 3, samples, 12, level=level)[1]
    for noise in (bytes(4000), b"\xff" * 4000, rng.bytes(4000)):
        for depth in (1, 12, 16):
            decode([noise] * 3, samples, depth, level=level)


def test_bytes_beyond_a_stream_are_not_read(kinds):
    """A truncated stream goes on with zeros, whatever lies behind it in memory."""
    samples = pattern(NOISE, (9, 20, 1))
    ((stream,), _) = encode(samples)
    for size in (0, 1, 3, 4, 5, len(stream) // 2):
        for kind in kinds:
            with library.use(kind):
                in_noise = decode([memoryview(stream[:size] + b"\xff" * 999)[:size]], samples)[0]
                before_zeros = decode([memoryview(stream[:size] + bytes(999))[:size]], samples)[0]
            np.testing.assert_array_equal(in_noise, before_zeros)


def test_contexts_that_are_met_more_often_than_they_count_are_the_reference(kinds):
    """Counters end at 250, far below the samples of a flat image."""
    check_against_reference(kinds, pattern(FLAT, (3, 400, 1)))


def test_a_photograph(kinds):
    image = np.array(Image.open(ROOT / "docs" / "examples" / "parrots.png").convert("RGB"))
    check_against_reference(kinds, np.ascontiguousarray(image[100:124, 200:240]))
    samples = np.ascontiguousarray(image[100:356, 200:456])
    assert 8 * sum(map(len, check_round_trip(samples))) < 2.75 * samples.size
    assert 8 * sum(map(len, check_round_trip(samples, bound=2))) < 1.15 * samples.size
    sizes = [sum(map(len, check_round_trip(samples, level=level))) for level in range(7)]
    assert sizes == sorted(sizes, reverse=True) and sizes[3] < 0.99 * sizes[0]


def test_tables():
    parts = np.split(lossless_bits.tables(), (6144, 10240, 10496, 14592, 17664, 20736))
    squash, stretch, rates, reciprocals, softplus, gaps, trust = parts
    x = np.arange(-3072, 3072) / 256
    np.testing.assert_allclose(squash, np.clip(65536 / (1 + np.exp(-x)), 16, 65520), atol=0.51)
    p = (np.arange(4096) + 0.5) / 4096
    np.testing.assert_allclose(stretch.view(np.int16), 256 * np.log(p / (1 - p)), atol=1.01)
    np.testing.assert_array_equal(rates, (65536 / (np.arange(256) + 1.6)).astype(int))
    np.testing.assert_array_equal(reciprocals[2:], 65536 // np.arange(2, 4096))
    x = np.arange(3072) / 256
    for table, exact in ((softplus, np.log1p(np.exp(-x))), (gaps[1:], -np.log(-np.expm1(-x[1:])))):
        assert np.abs(256 * exact % 1 - 0.5).min() > 1e-5  # roundings do not depend on the last bits of a logarithm
        np.testing.assert_allclose(table, 256 * exact, atol=0.5)
    assert gaps[0] == gaps[1]
    np.testing.assert_array_equal(trust, (256 * (np.arange(256) + 0.5) / (np.arange(256) + 2)).astype(int))


def test_arguments_are_checked():
    samples = pattern(NOISE, (4, 4, 3))
    for image, depth, bound in (
        (samples, 9, 0),
        (samples, 0, 0),
        (samples, 8, 17),
        (samples, 8, -1),
        (samples[:, ::2], 8, 0),
        (samples[..., 0], 8, 0),
        (samples.astype(np.int32), 8, 0),
        (np.zeros((4, 4, 5), np.uint8), 8, 0),
        (np.zeros((0, 4, 1), np.uint8), 8, 0),
    ):
        with pytest.raises(ValueError):
            lossless.PlaneCoder(image, depth, bound)
    for level in (-1, 7):
        with pytest.raises(ValueError, match="level"):
            lossless.PlaneCoder(samples, 8, level=level)
    coder = lossless.PlaneCoder(samples, 8)
    for plane, rows in ((3, (0, 1)), (-1, (0, 1)), (0, (0, 5)), (0, (2, 1))):
        with pytest.raises(ValueError):
            coder.encode(plane, rows)
    samples.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        lossless.PlaneCoder(samples, 8).decode(0, (0, 1), b"")


def check_small_sizes(kinds, heights: Iterable[int]) -> None:
    rng = np.random.default_rng(0)
    for height, width in itertools.product(heights, range(1, 17)):
        channels, depth, bound = rng.integers(1, 5), rng.integers(1, 17), rng.choice((0, 0, 1, 16))
        level = int(rng.integers(7))
        samples = pattern(str(rng.choice(PATTERNS)), (height, width, channels), int(depth), seed=width)
        streams = set()
        for kind in kinds:
            with library.use(kind):
                streams.add(tuple(check_round_trip(samples, int(depth), int(bound), level)))
        assert len(streams) == 1


def test_kinds_agree_on_small_sizes(kinds):
    check_small_sizes(kinds, (1, 2, 7, 16))


@pytest.mark.long
@pytest.mark.parametrize("height", range(1, 17))
def test_kinds_and_the_reference_agree_on_all_small_sizes(kinds, height):
    check_small_sizes([*kinds, "numpy"], (height,))
