"""Files of wavelet models: a second decoder finds the same in them, and damage gives errors of ours."""

import dataclasses
import pathlib
import random
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from conftest import picture
from mutants import mutants, mutate, truncations

pytest.importorskip("tensorflow")

import reference_decoder
from test_vetting import assert_refused, changed, with_arrays
from test_wavelet import CONFIG, frozen

from vaecodec import coding, context, networks, octaves, tiles
from vaecodec.codec import Codec
from vaecodec.container import parse
from vaecodec.engines import Engine
from vaecodec.errors import CodecError, FormatError, ModelError
from vaecodec.limits import Limits
from vaecodec.networks import check_network
from vaecodec.strays import FLAG, pop_strays, push_strays
from vaecodec.transforms import LiteRT
from vaecodec.model.file import load_model, make_prior, parse_model
from vaecodec.widening import push_rungs


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return frozen(tmp_path_factory.mktemp("run"))[0]


@pytest.fixture(scope="module")
def codec(path):
    return Codec(load_model(path), threads=1)


@pytest.fixture(scope="module")
def sure(codec, tmp_path_factory):
    """The path of a model that is sure of its zeros: most coefficients are of row 0."""
    arrays = codec.model.arrays
    changes = {"levels/start": arrays["levels/start"] * np.array([1, 1, 1, 0, 0, 0], np.int32)}
    changes["centroids"] = np.tile(np.array([9, -7], np.int8), (len(arrays["centroids"]), 1))
    lowest = (f"lowest/{part}/out" for part in range(4))
    for name in (*lowest, *(f"context/{octave}/{half}" for octave in range(5) for half in ("first", "second"))):
        bias = arrays[f"integer/{name}/bias"].copy()
        bias[len(bias) // 2 :] -= 4 << 15
        changes[f"integer/{name}/bias"] = bias
    path = tmp_path_factory.mktemp("sure") / "sure.vcm"
    path.write_bytes(with_arrays(codec.model, **changes))
    return str(path)


def flat_with_a_spot():
    x = np.full((75, 91, 3), 60, np.uint8)
    x[40, 41] = 255
    return x


def assert_same(codec, path, data):
    """The symbols of both decoders are the same, and their pixels within 1 of 255."""
    theirs = reference_decoder.read_model(path)
    header, symbols, values = reference_decoder.decode_latents(data, theirs)
    assert [zlib.crc32(tile.tobytes()) for tile in symbols] == codec.symbol_crcs(data)
    pixels = reference_decoder.synthesis(values, header, theirs).astype(int)
    assert np.abs(codec.decode(data) - pixels).max() <= 1


@pytest.mark.parametrize("quality", [1, 50, 77.3, 100])
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (33, 48), (130, 90)])
def test_the_reference_decoder_agrees(codec, path, shape, quality):
    assert_same(codec, path, codec.encode(picture(*shape), quality, tile=64))


@pytest.mark.parametrize(("quality", "tile"), [(30, 64), (90, 1024)])
def test_the_reference_decoder_agrees_on_larger_pictures(codec, path, quality, tile):
    assert_same(codec, path, codec.encode(picture(200, 333), quality, tile=tile))


@pytest.mark.parametrize("channels", [1, 2])
def test_the_reference_decoder_agrees_on_other_channels(tmp_path, channels):
    config = dataclasses.replace(CONFIG, channels=channels)
    path = frozen(tmp_path, config)[0]
    codec = Codec(load_model(path))
    assert_same(codec, path, codec.encode(picture(70, 90)[..., :channels].copy(), 80, tile=64))


@pytest.mark.parametrize("tile", [64, 1024])
def test_the_reference_decoder_agrees_where_there_are_strays(sure, tile, monkeypatch):
    found = []

    def seen(coder, symbols, rows, models):
        found.append(symbols[(rows == coding.DETERMINISTIC) & (symbols != 0)])
        return push_strays(coder, symbols, rows, models)

    monkeypatch.setattr("vaecodec.context.push_strays", seen)
    codec = Codec(load_model(sure), threads=1)
    data = codec.encode(flat_with_a_spot(), 100, tile=tile)
    assert sum(len(part) > 0 for part in found) >= 8 and len(np.concatenate(found)) > 100
    assert np.concatenate(found).min() < -1 and np.concatenate(found).max() > 1
    assert any(len(part) == 0 for part in found)
    assert_same(codec, sure, data)


@pytest.mark.parametrize("reach", [0.3, 40, 4000])
@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (2, 9)])
def test_the_reference_decoder_agrees_on_any_symbols(sure, cells, reach):
    """Also far beyond what pictures have, where values are clipped, and at places beyond odd sides."""
    values, strays = assert_same_symbols(sure, cells, 700, reach)
    assert strays > 10 and (reach < 4000 or np.abs(values).max() == 2**16)


def assert_same_symbols(path, cells, step, reach):
    """Of a tile of random symbols, with long tails: what both decoders have of it, and how many symbols are strays."""
    rng, prior = np.random.default_rng(0), load_model(str(path)).prior

    def any_symbols(part, question):
        symbols = np.rint(rng.standard_cauchy(question[0].shape) * reach)
        return np.clip(symbols, -coding.SYMBOL_MAX, coding.SYMBOL_MAX).astype(np.int32)

    found = context.encode(prior, cells, step, any_symbols)
    ours = context.decode(prior, cells, step, found.data, lambda symbols: None)
    symbols, values = reference_decoder.decode_tile(found.data, *cells, step, reference_decoder.read_model(path))
    assert np.array_equal(symbols, found.symbols) and np.array_equal(values, ours)
    strays = sum(np.count_nonzero(symbols[rows == coding.DETERMINISTIC]) for symbols, rows in found.parts)
    return values, strays


def coded(models, numbers, flag=1):
    """A stack that a flag and these numbers are to be taken off."""
    coder = coding.writer()
    coding.push_numbers(coder, np.array(numbers), models)
    coding.push(coder, np.array([flag], np.int32), np.array([FLAG], np.uint8), models)
    return coding.words(coder)


def test_strays_come_back_whatever_they_are(codec):
    models, rng = codec.model.prior.models, np.random.default_rng(0)
    rows = rng.integers(0, 2, 70_000).astype(np.uint8)
    for kind in ([-1, 255], [-coding.SYMBOL_MAX, coding.SYMBOL_MAX], [0]):
        symbols = rng.choice(kind, rows.shape).astype(np.int32) * (rows == 0)
        coder = coding.writer()
        assert not push_strays(coder, symbols, rows, models).any()
        coder, again = coding.reader(coding.words(coder)), np.zeros_like(symbols)
        pop_strays(coder, again, rows, models)
        assert np.array_equal(again, symbols) and coder.is_empty()


STRAYS = {
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


@pytest.mark.parametrize("case", STRAYS)
def test_strays_that_are_none_are_refused_by_both(codec, path, case):
    rows = np.array([0, 0, 7, 0, 7], np.int64)
    reading = coding.reader(coded(codec.model.prior.models, *STRAYS[case]))
    with pytest.raises(FormatError):
        pop_strays(reading, np.zeros(5, np.int32), rows.astype(np.uint8), codec.model.prior.models)
    # In the whole of a part the symbols of row 7 come first.
    coder = coding.reader(coded(codec.model.prior.models, *STRAYS[case]))
    coding.push(coder, np.array([3, -2], np.int32), np.array([7, 7], np.uint8), codec.model.prior.models)
    push_rungs(coder, None)
    model = reference_decoder.read_model(path)
    octaves = reference_decoder.Octaves(None, reference_decoder.Stack(coding.words(coder)), {}, model)
    with pytest.raises(ValueError, match="stray"):
        octaves.take(np.zeros(5, np.int64), rows)


def test_a_claim_of_many_strays_takes_no_memory(codec):
    models, rows = codec.model.prior.models, np.zeros(1 << 22, np.uint8)
    symbols = np.zeros(len(rows), np.int32)
    many = [len(rows), *np.stack([np.arange(1 << 17), np.ones(1 << 17, int)], -1).ravel()]
    for numbers in ([len(rows)], many):
        reading = coding.reader(coded(models, numbers))
        tracemalloc.start()
        with pytest.raises(FormatError):
            pop_strays(reading, symbols, rows, models)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 1 << 24


@pytest.fixture(scope="module")
def files(codec, sure):
    """(codec, file)s: some tiles, many strays, odd sides."""
    other = Codec(load_model(sure), threads=1)
    found = [
        (codec, codec.encode(picture(*shape), quality, tile=64)) for shape, quality in (((33, 48), 60), ((1, 1), 1))
    ]
    found += [
        (codec, codec.encode(picture(90, 70), 1, tile=64)),
        (other, other.encode(flat_with_a_spot(), 90, tile=64)),
    ]
    return found


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
    assert noticed >= 95


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


CASES = {
    "no companding": ("companding", lambda a: None, "companding"),
    "companding that is empty": ("companding", lambda a: a[:0], "companding"),
    "companding that falls": ("companding", lambda a: a[::-1], "rise"),
    "companding that stays": ("companding", lambda a: changed(a, a[1]), "rise"),
    "companding of 0": ("companding", lambda a: changed(a, 0), "rise"),
    "companding beyond values": ("companding", lambda a: changed(a, 2**16 + 1, -1), "rise"),
    "companding beyond activations": ("companding", lambda a: np.arange(1, 1025, dtype=np.int32), "companding"),
    "companding of floats": ("companding", lambda a: a.astype(np.float32), "companding"),
    "no centroids": ("centroids", lambda a: None, "centroids"),
    "centroids of another shape": ("centroids", lambda a: a[1:], "centroids"),
    "centroids of another type": ("centroids", lambda a: a.astype(np.int16), "centroids"),
    "an inverse gain of 0": ("levels/inverse_gain", lambda a: changed(a, 0), "inverse_gain"),
    "an inverse gain below 0": ("levels/inverse_gain", lambda a: changed(a, -5), "inverse_gain"),
    "an inverse gain beyond exact arithmetic": ("levels/inverse_gain", lambda a: changed(a, 2**28), "inverse_gain"),
    "levels of other octaves": ("levels/bias", lambda a: a[:, :-20], "levels/bias"),
    "no levels of the lowest": ("levels/lowest", lambda a: None, "levels/lowest"),
    "levels of the lowest that are too large": ("levels/lowest", lambda a: changed(a, -(2**31)), "levels/lowest"),
    "a start out of range": ("levels/start", lambda a: changed(a, 2**17), "levels/start"),
    "a start of another shape": ("levels/start", lambda a: a[:, :3], "levels/start"),
    "no second vector": ("anchors/synthesis/out", lambda a: None, "synthesis/out"),
    "a second vector that is no number": ("anchors/synthesis/out", lambda a: changed(a, np.nan), "synthesis/out"),
    "an encoder's that overflows": ("anchors/analysis/out", lambda a: changed(a, 1e30), "analysis/out"),
    "no kernel": ("integer/context/3/known/kernel", lambda a: None, "context/3/known"),
    "a kernel of another shape": ("integer/context/1/in/kernel", lambda a: a[1:], "context/1/in"),
    "a kernel of too few outputs": ("integer/context/0/second/kernel", lambda a: a[:, 1:], "context/0/second|not a"),
    "a kernel that would broadcast": ("integer/context/4/block/space/kernel", lambda a: a[..., :1], "shape|not a"),
    "a bias that would broadcast": ("integer/lowest/0/in/bias", lambda a: a[:1], "shape"),
    "a network of the lowest of another shape": ("integer/lowest/3/out/kernel", lambda a: a[:-1], "lowest/3/out"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_that_no_training_makes_is_refused(codec, case):
    assert_refused(codec.model, *CASES[case])


def test_a_model_without_a_row_for_flags_is_refused(codec):
    tables = codec.model.prior.models.tables
    freq = np.concatenate([tables.row(0), tables.row(len(tables.low) - 1)])
    start = np.array([0, len(tables.row(0)), len(freq)])
    some = {"tables/freq": freq, "tables/start": start, "tables/low": tables.low[[0, -1]]}
    with pytest.raises(ModelError, match="flags"):
        parse_model(with_arrays(codec.model, **some, centroids=np.zeros((1, 2), np.int8)), "bad.vcm")


MOST = {"levels/bias": 2**20, "levels/lowest": 2**20, "levels/start": 2**16, "levels/inverse_gain": 2**27}


@pytest.mark.parametrize("seed", range(8))
def test_the_reference_decoder_agrees_with_any_model(codec, tmp_path, seed):
    """Integers up to the limits of each tensor: where sums are largest, and float64 has to carry them."""
    rng, arrays = np.random.default_rng(seed), {}
    for name, array in codec.model.arrays.items():
        if name.startswith(("integer/", "levels/", "centroids")) and rng.random() < 0.5:
            most = int(min(MOST.get(name, np.iinfo(array.dtype).max), 2 ** rng.uniform(1, 32)))
            least = 1 if name == "levels/inverse_gain" else -most
            values = rng.integers(least, most + 1, array.shape) if seed % 2 else rng.choice([least, most], array.shape)
            arrays[name] = values.astype(array.dtype)
    path = tmp_path / "other.vcm"
    path.write_bytes(with_arrays(codec.model, **arrays))
    assert_same_symbols(path, (3, 4), 112 * seed, 100)


def test_what_was_coded_with_other_models_is_damaged(codec, files):
    rng, tile = random.Random(0), parse(files[0][1]).tiles[0]
    payload = files[0][1][tile.offset : tile.offset + tile.length]
    names = [name for name in codec.model.arrays if name.startswith(("integer/", "levels/"))]
    for _ in range(40):
        name = rng.choice(names)
        array = np.abs(codec.model.arrays[name][..., ::-1])
        prior = parse_model(with_arrays(codec.model, **{name: array}), "other.vcm").prior
        with pytest.raises(FormatError):
            tiles.decode(prior, (3, 3), rng.randrange(897), payload, tile.crc)


GRAPHS = ("analysis", "synthesis", "first/0", "second/3")


def test_mutants_of_networks_are_looked_through_or_refused(codec):
    rng, outcomes = random.Random(3), set()
    contents = [codec.model.transform(name) for name in GRAPHS]
    for number in range(60):
        name = GRAPHS[number % 4]
        try:
            check_network(mutate(rng, codec.model.transform(name), contents), 4096)
            outcomes.add("passed")
        except ModelError:
            outcomes.add("refused")
    assert outcomes == {"passed", "refused"}


def test_networks_of_another_kind_are_refused_when_run(codec, tiny):
    y, x = np.zeros((1, 2, 2, CONFIG.latents), np.float32), picture(32, 32)[None]
    conditions = {name: codec.model.condition(name, 300) for name in ("analysis", "synthesis")}
    ours, others = codec.model.arrays, tiny.model.arrays
    swapped = {"litert/analysis": ours["litert/synthesis"], "litert/synthesis": ours["litert/analysis"]}
    for arrays in (swapped, {name: others[name] for name in swapped}):
        transforms = LiteRT(codec.model._replace(arrays={**ours, **arrays}), 1)
        with pytest.raises(ModelError):
            transforms.synthesis(y, conditions["synthesis"])
        with pytest.raises(ModelError):
            transforms.analysis(x, conditions["analysis"])


def levels_of(prior):
    return octaves.Levels(*(field[30] for field in prior.levels))


def test_an_engine_of_strangers_is_looked_through_before_it_is_used(path, monkeypatch):
    prior = load_model(path).prior
    assert isinstance(octaves.fastest(prior, levels_of(prior)), octaves.Accelerated)
    monkeypatch.delitem(networks.OPERATIONS, "DEPTHWISE_CONV_2D")
    arrays = load_model(path).arrays
    for shipped, kind in ((True, octaves.Accelerated), (False, octaves.Networks)):
        prior = make_prior(CONFIG, arrays, shipped)
        assert type(octaves.fastest(prior, levels_of(prior))) is kind


BROKEN = {
    "a row that there is not": lambda found: [*found[:-1], np.full_like(found[-1], 255)],
    "rows of another type": lambda found: [*found[:-1], found[-1].astype(np.float32)],
    "another shape": lambda found: [one[:, 1:] for one in found],
    "numbers": lambda found: [one[0, 0, 0, 0] for one in found],
    "too few": lambda found: found[1:],
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_engine_that_changes_its_mind_is_a_model_error(path, case, monkeypatch):
    codec = Codec(parse_model(pathlib.Path(path).read_bytes(), "it"), threads=1)
    data, run = codec.encode(picture(40, 50), 50), Engine.run
    assert codec.model.prior.engine.agrees(lambda engine: False)  # it was asked before, and has agreed
    monkeypatch.setattr(Engine, "run", lambda *given: run(*given[:-1], lambda found: given[-1](BROKEN[case](found))))
    with pytest.raises(ModelError, match="makes what is none"):
        codec.decode(data)


@pytest.mark.parametrize("value", [np.nan, np.inf, -3e38])
def test_latents_that_are_no_numbers_are_a_model_error(codec, tiny, monkeypatch, value):
    for one in (codec, tiny):
        analysis = one.transforms.analysis
        monkeypatch.setattr(one.transforms, "analysis", lambda *given, of=analysis: changed(of(*given), value, 7))
        with np.errstate(all="ignore"), pytest.raises(ModelError, match="out of range"):
            one.encode(picture(32, 32))
