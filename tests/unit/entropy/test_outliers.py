"""Test outliers: nonzero symbols at positions of table 0, which are coded by position and value."""

import random
import tracemalloc
import warnings

import numpy as np
import pytest

from support.damage import mutants, truncations
from support.images import synthetic_image
from support.models import reload
from support.symbols import INVALID_OUTLIERS, outlier_stack
from vaecodec.arguments import Limits
from vaecodec.codec import Codec
from vaecodec.container.image_file import parse
from vaecodec.entropy import coding
from vaecodec.entropy.coding import pop_outliers, push_outliers
from vaecodec.errors import CodecError, FormatError, ModelError
from vaecodec.native.wavelet import LOW_MAX, VALUE_MAX
from vaecodec.prior import decode_tile, encode_tile


@pytest.fixture(scope="module")
def models(tiny):
    return tiny.model.models


@pytest.fixture(scope="module")
def sparse_codec(tiny):
    """A codec whose model assigns table 0 to most coefficients."""
    arrays, channels = tiny.model.arrays, tiny.model.config.channels
    changes = {"levels/start": arrays["levels/start"] * np.repeat(np.array([1, 0], np.int32), channels)}
    changes["centroids"] = np.tile(np.array([9, -7, 5, -3], np.int8), (len(arrays["centroids"]), 1))
    lowest = (f"lowest/{part}/out" for part in range(4))
    for name in (*lowest, *(f"context/{octave}/{half}" for octave in range(5) for half in ("first", "second"))):
        bias = arrays[f"prior/{name}/bias"].copy()
        bias[len(bias) // 2 :] -= 4 << 15
        changes[f"prior/{name}/bias"] = bias
    return Codec(reload(tiny.model, **changes), threads=1)


def flat_with_spots():
    x = np.full((75, 91, 3), 60, np.uint8)
    x[8::16, 8::16] = 255
    return x


@pytest.mark.parametrize("tile", [64, 1024])
def test_images_with_many_outliers_round_trip(sparse_codec, tile, monkeypatch):
    outliers = []

    def observed(coder, symbols, indices, models):
        outliers.append(symbols[(indices == coding.ZERO_TABLE) & (symbols != 0)])
        return push_outliers(coder, symbols, indices, models)

    monkeypatch.setattr("vaecodec.entropy.coding.push_outliers", observed)
    x = flat_with_spots()
    data = sparse_codec.encode(x, 100, tile=tile)
    assert sum(len(values) > 0 for values in outliers) >= 8 and len(np.concatenate(outliers)) > 100
    assert np.concatenate(outliers).min() < -1 and np.concatenate(outliers).max() > 1
    assert any(len(values) == 0 for values in outliers)
    sparse_codec.verify(data)
    assert np.abs(sparse_codec.decode(data).astype(int) - x).mean() < 8


@pytest.mark.parametrize("reach", [0.3, 40, 4000])
@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (2, 9)])
def test_decoding_inverts_encoding_for_any_symbols(sparse_codec, cells, reach):
    """Symbols include values beyond those of images, which are clipped, and positions beyond odd sides."""
    rng, model = np.random.default_rng(0), sparse_codec.model

    def choose(part, distributions):
        symbols = np.rint(rng.standard_cauchy(distributions.indices.shape) * reach)
        return np.clip(symbols, -coding.SYMBOL_MAX, coding.SYMBOL_MAX).astype(np.int32)

    coded, decoded = encode_tile(model.prior, model.models, cells, 700, choose), []
    values = decode_tile(model.prior, model.models, cells, 700, coded.payload, coded.crc, observe=decoded.append)
    assert all(np.array_equal(a, b) for a, (b, _) in zip(decoded, coded.parts, strict=True))
    planes = [values.low, *(half for pair in values.halves for half in pair)]
    expected = [coded.values.low, *(half for pair in coded.values.halves for half in pair)]
    assert all(np.array_equal(a, b) for a, b in zip(planes, expected, strict=True))
    outliers = sum(np.count_nonzero(symbols[indices == coding.ZERO_TABLE]) for symbols, indices in coded.parts)
    assert outliers > 10
    if reach == 4000:  # the low-pass image and the coefficients have bounds of their own
        assert np.abs(values.low).max() == LOW_MAX
        assert max(np.abs(half).max() for pair in values.halves for half in pair) == VALUE_MAX


def test_the_checksum_covers_outliers(sparse_codec):
    """The checksum depends on the position and the value of an outlier."""
    model, cells, crcs = sparse_codec.model, (3, 5), set()
    for position, value in ((None, 0), (0, 1), (1, 1), (0, 2)):

        def choose(part, distributions, position=position, value=value):
            symbols = np.zeros(distributions.indices.shape, np.int32)
            if part == 8 and position is not None:
                symbols[np.flatnonzero(distributions.indices == 0)[position]] = value
            return symbols

        crcs.add(encode_tile(model.prior, model.models, cells, 300, choose).crc)
    assert len(crcs) == 4


def test_popping_inverts_pushing(models):
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 2, 70_000).astype(np.uint8)
    for values in ([-1, 255], [-coding.SYMBOL_MAX, coding.SYMBOL_MAX], [0]):
        symbols = rng.choice(values, indices.shape).astype(np.int32) * (indices == 0)
        coder = coding.writer()
        assert not push_outliers(coder, symbols, indices, models).any()
        coder, popped = coding.reader(coding.words(coder)), np.zeros_like(symbols)
        pop_outliers(coder, popped, indices, models)
        assert np.array_equal(popped, symbols) and coder.is_empty()


def test_the_bits_of_outliers_are_those_that_are_pushed(models):
    indices = np.zeros(300, np.uint8)
    for count in (0, 1, 50):
        symbols = np.where(np.arange(300) < count, 3, 0).astype(np.int32)
        coder = coding.writer()
        push_outliers(coder, symbols, indices, models)
        bits = coding.outlier_bits(models.tables, symbols, indices)
        assert abs(bits - 8 * len(coding.words(coder))) <= 64  # words, and the state


@pytest.mark.parametrize("case", INVALID_OUTLIERS)
def test_invalid_outliers_are_refused(models, case):
    indices = np.array([0, 0, 7, 0, 7], np.uint8)
    coder = coding.reader(outlier_stack(models, *INVALID_OUTLIERS[case]))
    with pytest.raises(FormatError):
        pop_outliers(coder, np.zeros(5, np.int32), indices, models)


def test_claimed_counts_of_outliers_allocate_no_memory(models):
    indices = np.zeros(1 << 22, np.uint8)
    symbols = np.zeros(len(indices), np.int32)
    many = [len(indices), *np.stack([np.arange(1 << 17), np.ones(1 << 17, int)], -1).ravel()]
    for numbers in ([len(indices)], many):
        coder = coding.reader(outlier_stack(models, numbers))
        tracemalloc.start()
        with pytest.raises(FormatError):
            pop_outliers(coder, symbols, indices, models)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 1 << 24


@pytest.fixture(scope="module")
def files(tiny, sparse_codec):
    """Pairs of codec and file: several tiles, a filter, many outliers, odd sides."""
    codec = Codec(tiny.model, threads=1)
    shapes = (((33, 48), 60), ((1, 1), 1), ((90, 70), 1))
    pairs = [(codec, codec.encode(synthetic_image(*shape), quality, tile=64)) for shape, quality in shapes]
    pairs.append((codec, codec.encode(synthetic_image(80, 90), 50, effort=2)))
    return [*pairs, (sparse_codec, sparse_codec.encode(flat_with_spots(), 90, tile=64))]


def test_truncations_are_detected(files):
    for codec, data in files:
        for damaged in list(truncations(data))[:: 1 + len(data) // 500]:
            with pytest.raises(FormatError):
                codec.decode(damaged)


def test_tiles_detect_flipped_bits_of_payloads(files):
    """Damage is detected or harmless: the scale offset of a part without symbols has no effect."""
    rng, detected = random.Random(1), 0
    for codec, data in files:
        parsed = parse(data)
        start, end = parsed.tiles[0].offset, parsed.tiles[-1].offset + parsed.tiles[-1].length
        for _ in range(25):
            damaged = bytearray(data)
            damaged[rng.randrange(start, end)] ^= 1 << rng.randrange(8)
            try:  # a window skips the CRC of DATA
                decoded = codec.decode(bytes(damaged), (0, 0, parsed.header.height, parsed.header.width))
                assert np.array_equal(decoded, codec.decode(data))
            except FormatError:
                detected += 1
    assert detected >= 110


def test_mutants_of_files_are_decoded_or_refused(files):
    outcomes, limits = set(), Limits(pixels=1 << 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for number, (codec, data) in enumerate(files):
            for mutant in mutants(number, 120, [data, *(file for _, file in files)]):
                try:
                    codec.decode(mutant, limits=limits)
                    outcomes.add(str)
                except CodecError as exc:
                    outcomes.add(type(exc))
    assert outcomes >= {str, FormatError, ModelError}
