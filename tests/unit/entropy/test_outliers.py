"""Outliers: symbols where the prior is sure of 0, which go beside the others, by place and value."""

import random
import tracemalloc
import warnings

import numpy as np
import pytest

from support.damage import mutants, truncations
from support.images import synthetic_image
from support.models import reload
from support.symbols import INVALID_OUTLIERS, outlier_stack
from vaecodec.codec import Codec
from vaecodec.container.image_file import parse
from vaecodec.entropy import coding
from vaecodec.entropy.coding import pop_outliers, push_outliers
from vaecodec.errors import CodecError, FormatError, ModelError
from vaecodec.limits import Limits
from vaecodec.prior.context_model import decode_tile, encode_tile


@pytest.fixture(scope="module")
def models(tiny):
    return tiny.model.models


@pytest.fixture(scope="module")
def sure(tiny):
    """A codec whose model is sure of its zeros: most coefficients are of table 0."""
    arrays, channels = tiny.model.arrays, tiny.model.config.channels
    changes = {"levels/start": arrays["levels/start"] * np.repeat(np.array([1, 0], np.int32), channels)}
    changes["centroids"] = np.tile(np.array([9, -7], np.int8), (len(arrays["centroids"]), 1))
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
def test_pictures_of_surprises_come_back(sure, tile, monkeypatch):
    found = []

    def seen(coder, symbols, rows, models):
        found.append(symbols[(rows == coding.ZERO_TABLE) & (symbols != 0)])
        return push_outliers(coder, symbols, rows, models)

    monkeypatch.setattr("vaecodec.entropy.coding.push_outliers", seen)
    x = flat_with_spots()
    data = sure.encode(x, 100, tile=tile)
    assert sum(len(part) > 0 for part in found) >= 8 and len(np.concatenate(found)) > 100
    assert np.concatenate(found).min() < -1 and np.concatenate(found).max() > 1
    assert any(len(part) == 0 for part in found)
    sure.verify(data)
    assert np.abs(sure.decode(data).astype(int) - x).mean() < 8


@pytest.mark.parametrize("reach", [0.3, 40, 4000])
@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (2, 9)])
def test_any_symbols_come_back(sure, cells, reach):
    """Also far beyond what pictures have, where values are clipped, and at places beyond odd sides."""
    rng, model = np.random.default_rng(0), sure.model

    def choose(part, distributions):
        symbols = np.rint(rng.standard_cauchy(distributions.indices.shape) * reach)
        return np.clip(symbols, -coding.SYMBOL_MAX, coding.SYMBOL_MAX).astype(np.int32)

    coded, decoded = encode_tile(model.prior, model.models, cells, 700, choose), []
    values = decode_tile(model.prior, model.models, cells, 700, coded.payload, coded.crc, observe=decoded.append)
    assert all(np.array_equal(a, b) for a, (b, _) in zip(decoded, coded.parts, strict=True))
    every = [values.low, *(half for pair in values.halves for half in pair)]
    wanted = [coded.values.low, *(half for pair in coded.values.halves for half in pair)]
    assert all(np.array_equal(a, b) for a, b in zip(every, wanted, strict=True))
    strays = sum(np.count_nonzero(symbols[rows == coding.ZERO_TABLE]) for symbols, rows in coded.parts)
    assert strays > 10 and (reach < 4000 or max(np.abs(one).max() for one in every) == 2**16)


def test_an_outlier_counts_in_the_checksum(sure):
    """Its place and its value."""
    model, cells, crcs = sure.model, (3, 5), set()
    for place, value in ((None, 0), (0, 1), (1, 1), (0, 2)):

        def choose(part, distributions, place=place, value=value):
            symbols = np.zeros(distributions.indices.shape, np.int32)
            if part == 8 and place is not None:
                symbols[np.flatnonzero(distributions.indices == 0)[place]] = value
            return symbols

        crcs.add(encode_tile(model.prior, model.models, cells, 300, choose).crc)
    assert len(crcs) == 4


def test_strays_come_back_whatever_they_are(models):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, 70_000).astype(np.uint8)
    for kind in ([-1, 255], [-coding.SYMBOL_MAX, coding.SYMBOL_MAX], [0]):
        symbols = rng.choice(kind, rows.shape).astype(np.int32) * (rows == 0)
        coder = coding.writer()
        assert not push_outliers(coder, symbols, rows, models).any()
        coder, again = coding.reader(coding.words(coder)), np.zeros_like(symbols)
        pop_outliers(coder, again, rows, models)
        assert np.array_equal(again, symbols) and coder.is_empty()


@pytest.mark.parametrize("case", INVALID_OUTLIERS)
def test_strays_that_are_none_are_refused(models, case):
    rows = np.array([0, 0, 7, 0, 7], np.uint8)
    reading = coding.reader(outlier_stack(models, *INVALID_OUTLIERS[case]))
    with pytest.raises(FormatError):
        pop_outliers(reading, np.zeros(5, np.int32), rows, models)


def test_a_claim_of_many_strays_takes_no_memory(models):
    rows = np.zeros(1 << 22, np.uint8)
    symbols = np.zeros(len(rows), np.int32)
    many = [len(rows), *np.stack([np.arange(1 << 17), np.ones(1 << 17, int)], -1).ravel()]
    for numbers in ([len(rows)], many):
        reading = coding.reader(outlier_stack(models, numbers))
        tracemalloc.start()
        with pytest.raises(FormatError):
            pop_outliers(reading, symbols, rows, models)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 1 << 24


@pytest.fixture(scope="module")
def files(tiny, sure):
    """(codec, file)s: some tiles, a filter, many strays, odd sides."""
    codec = Codec(tiny.model, threads=1)
    shapes = (((33, 48), 60), ((1, 1), 1), ((90, 70), 1))
    found = [(codec, codec.encode(synthetic_image(*shape), quality, tile=64)) for shape, quality in shapes]
    found.append((codec, codec.encode(synthetic_image(80, 90), 50, effort=2)))
    return [*found, (sure, sure.encode(flat_with_spots(), 90, tile=64))]


def test_every_truncation_is_noticed(files):
    for codec, data in files:
        for damaged in list(truncations(data))[:: 1 + len(data) // 500]:
            with pytest.raises(FormatError):
                codec.decode(damaged)


def test_bits_of_payloads_are_noticed_by_the_tiles_themselves(files):
    """Or change nothing: those of the rungs of a part without symbols."""
    rng, noticed = random.Random(1), 0
    for codec, data in files:
        parsed = parse(data)
        begin, end = parsed.tiles[0].offset, parsed.tiles[-1].offset + parsed.tiles[-1].length
        for _ in range(25):
            damaged = bytearray(data)
            damaged[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
            try:  # a window leaves out the CRC of DATA
                found = codec.decode(bytes(damaged), (0, 0, parsed.header.height, parsed.header.width))
                assert np.array_equal(found, codec.decode(data))
            except FormatError:
                noticed += 1
    assert noticed >= 110


def test_mutants_of_files_are_decoded_or_refused(files):
    outcomes, limits = set(), Limits(pixels=1 << 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for number, (codec, data) in enumerate(files):
            for mutant in mutants(number, 120, [data, *(other for _, other in files)]):
                try:
                    codec.decode(mutant, limits=limits)
                    outcomes.add(str)
                except CodecError as exc:
                    outcomes.add(type(exc))
    assert outcomes >= {str, FormatError, ModelError}
