"""Test that untrusted model files are loaded as valid models or refused with a ModelError."""

import json
import random

import numpy as np
import pytest

import vaecodec
from support.damage import mutate, with_right_crcs
from support.images import synthetic_image
from support.models import assert_refused, reload, with_arrays, with_entry
from support.paths import GOLDEN
from vaecodec.codec import Codec, cached_codec
from vaecodec.errors import FormatError, ModelError
from vaecodec.model.file import MAX_HEADER, _read_tables, identify, load_model, parse_model
from vaecodec.model.weights import subband_scales


@pytest.fixture(scope="module")
def data():
    return (GOLDEN / "tiny.vcm").read_bytes()


INT16_MAX, INT32_MAX = 2**15 - 1, 2**31 - 1
CASES = {
    "a kernel of floats": ("prior/lowest/0/middle/kernel", lambda a: a.astype(np.float32), "type"),
    "a kernel of 32 bits": ("prior/lowest/0/middle/kernel", lambda a: a.astype(np.int32), "type"),
    "a bias of 64 bits": ("prior/lowest/0/middle/bias", lambda a: a.astype(np.int64), "type"),
    "a kernel of another shape": ("prior/context/1/first/kernel", lambda a: a[:, :-1], "layers|not a"),
    "no inputs for passed features": ("prior/context/1/in/kernel", lambda a: a[8:], "other widths"),
    "inputs that nothing passes": ("prior/context/4/in/kernel", lambda a: np.pad(a, ((0, 8), (0, 0))), "other widths"),
    "a kernel of too few inputs": ("prior/context/1/in/kernel", lambda a: a[1:], "layers|not a"),
    "a kernel that would broadcast": ("prior/context/4/block/space/kernel", lambda a: a[..., :1], "layers|not a"),
    "a bias that would broadcast": ("prior/context/2/after/in/bias", lambda a: a[:1], r"\[1\] values for 12"),
    "a network of the lowest of another shape": ("prior/lowest/3/out/kernel", lambda a: a[:-1], "layers|not a"),
    "no kernel": ("prior/context/2/known/kernel", lambda a: None, "context/2/known"),
    "a bias of the prior at the end of 32 bits": (
        "prior/lowest/2/out/bias",
        lambda a: with_entry(a, INT32_MAX),
        "can reach",
    ),
    "no companding": ("companding", lambda a: None, "companding"),
    "companding that is empty": ("companding", lambda a: a[:0], "companding"),
    "companding that falls": ("companding", lambda a: a[::-1], "rise"),
    "companding that stays": ("companding", lambda a: with_entry(a, a[1]), "rise"),
    "companding of 0": ("companding", lambda a: with_entry(a, 0), "rise"),
    "companding beyond values": ("companding", lambda a: with_entry(a, 2**16 + 1, -1), "rise"),
    "companding beyond activations": ("companding", lambda a: np.arange(1, 1025, dtype=np.int32), "companding"),
    "companding of floats": ("companding", lambda a: a.astype(np.float32), "companding"),
    "no centroids": ("centroids", lambda a: None, "centroids"),
    "centroids of another shape": ("centroids", lambda a: a[1:], "centroids"),
    "centroids of another type": ("centroids", lambda a: a.astype(np.int16), "centroids"),
    "a gain of 0": ("levels/inverse_gain", lambda a: with_entry(a, 0), "inverse_gain"),
    "a gain below 0": ("levels/inverse_gain", lambda a: with_entry(a, -5), "inverse_gain"),
    "a gain beyond 32-bit arithmetic": ("levels/inverse_gain", lambda a: with_entry(a, 2**13 + 1), "inverse_gain"),
    "the lowest integer as an index": ("levels/start", lambda a: with_entry(a, -(2**31)), "levels/start"),
    "a start out of range": ("levels/start", lambda a: with_entry(a, 2**17), "levels/start"),
    "a start of another shape": ("levels/start", lambda a: a[:, :3], "levels/start"),
    "levels of another shape": ("levels/bias", lambda a: a[:5], "levels/bias"),
    "levels of other octaves": ("levels/bias", lambda a: a[:, :-20], "levels/bias"),
    "no levels of the lowest": ("levels/lowest", lambda a: None, "levels/lowest"),
    "levels of the lowest that are too large": ("levels/lowest", lambda a: with_entry(a, -(2**31)), "levels/lowest"),
    "gains of floats": ("gains/coefficients", lambda a: a.astype(np.float32), "gains/coefficients"),
    "a gain whose shift is below 0": ("gains/coefficients", lambda a: with_entry(a, 6 << 12), "gains/coefficients"),
    "a gain whose shift is beyond 31": ("gains/coefficients", lambda a: with_entry(a, -27 << 12), "gains/coefficients"),
    "the lowest integer as a gain": ("gains/coefficients", lambda a: with_entry(a, -(2**31)), "gains/coefficients"),
    "the lowest integer as a multiplier": ("gains/synthesis/fine", lambda a: with_entry(a, -(2**31)), "synthesis/fine"),
    "no multipliers": ("gains/synthesis/out", lambda a: None, "synthesis/out"),
    "multipliers of another shape": ("gains/analysis/fine", lambda a: a[:, 1:], "analysis/fine"),
    "an encoder's multiplier out of range": ("gains/analysis/out", lambda a: with_entry(a, 2**30), "analysis/out"),
    "a kernel of the synthesis of another shape": ("synthesis/latents/kernel", lambda a: a[:-1], "latents/kernel"),
    "a kernel of the synthesis of floats": ("synthesis/fine/kernel", lambda a: a.astype(np.float32), "fine/kernel"),
    "no bias of the synthesis": ("synthesis/coarse0/gate/bias", lambda a: None, "coarse0/gate/bias"),
    "a shift beyond 30": ("synthesis/coarse0/in/shift", lambda a: with_entry(a, 31), "coarse0/in.*shift"),
    "sums of the synthesis beyond 32 bits": (
        "synthesis/latents/kernel",
        lambda a: np.full_like(a, INT16_MAX),
        "latents.*can reach",
    ),
    "taps whose sum is beyond 32 bits": (
        "synthesis/fine0/space/kernel",
        lambda a: np.full_like(a, INT16_MAX),
        "fine0/space.*can reach",
    ),
    "a bias of the synthesis at the end of 32 bits": (
        "synthesis/skip/bias",
        lambda a: with_entry(a, -(2**31)),
        "skip.*can reach",
    ),
    "a shift of another type": ("synthesis/skip/shift", lambda a: a.astype(np.int8), "skip/shift"),
    "a kernel of the analysis of another shape": ("analysis/fine/kernel", lambda a: a[:, :-1], "analysis/fine"),
    "sums of the analysis beyond 32 bits": (
        "analysis/latents/kernel",
        lambda a: np.full_like(a, INT16_MAX),
        "analysis/latents.*can reach",
    ),
    "an analysis without a layer": ("analysis/coarse/kernel", lambda a: None, "analysis/coarse"),
    "a tensor that no version knows": ("companding", lambda a: a, "does not know"),
    "numbers to train on from that are none": ("start/centroid", lambda a: with_entry(a, np.nan), "finite"),
    "numbers to train on from in double precision": ("start/centroid", lambda a: a.astype(np.float64), "float32"),
    "a frequency of 0": ("tables/freq", lambda a: with_entry(with_entry(a, 0), a[0] + a[1], 1), "sum"),
    "frequencies that do not sum": ("tables/freq", lambda a: with_entry(a, a[0] + 1), "sum"),
    "a table that begins before the last one ends": ("tables/start", lambda a: with_entry(a, 2**40, 1), "add up"),
    "starts that are floats": ("tables/start", lambda a: a.astype(np.float64), "type"),
    "a symbol out of range": ("tables/low", lambda a: with_entry(a, 65536, 3), "65535|range"),
    "a byte table that does not begin at 0": ("tables/low", lambda a: with_entry(a, 1, -1), "bytes"),
    "too many tables": ("tables/low", lambda a: np.append(a, a[-1:]), "type or shape"),
}


@pytest.mark.parametrize("case", CASES)
def test_invalid_models_are_refused(tiny, case):
    name, change, message = CASES[case]
    if message == "does not know":
        with pytest.raises(ModelError, match=message):
            parse_model(with_arrays(tiny.model, **{"litert/synthesis": np.zeros(9, np.uint8)}), "bad.vcm")
    else:
        assert_refused(tiny.model, name, change, message)


def test_the_unchanged_model_is_valid(tiny):
    assert parse_model(with_arrays(tiny.model), "good.vcm").id == tiny.model.id


@pytest.mark.parametrize("low", [1, 2])
def test_tables_may_reach_to_the_largest_symbol(tiny, low):
    """A table of 65,535 symbols and an escape, that begins at 1, ends at symbol 65,535."""
    tables = tiny.model.models.tables
    freq = np.full(1 << 16, 1 << 8, np.uint32)
    rows = [tables.row(0), tables.row(1), freq, tables.row(len(tables.low) - 1)]
    start = np.cumsum([0, *map(len, rows)], dtype=np.int64)
    lows = np.array([*tables.low[:2], low, 0], np.int32)
    arrays = {"tables/freq": np.concatenate(rows), "tables/start": start, "tables/low": lows}
    if low == 1:
        assert _read_tables(arrays).last.max() == 65_535
    else:
        with pytest.raises(ModelError, match="reach to symbol 65536"):
            _read_tables(arrays)


@pytest.mark.parametrize("count", [1, 2])
def test_two_quantiles_calibrate_scores(tiny, count):
    data = with_arrays(tiny.model, **{"calibration/bpd": np.arange(count, dtype="<f4")})
    if count == 2:
        assert parse_model(data, "calibrated.vcm").id == tiny.model.id
    else:
        with pytest.raises(ModelError, match="calibration/bpd"):
            parse_model(data, "calibrated.vcm")


def test_the_step_size_is_that_of_the_lowest_coefficients(tiny):
    """At the first anchor the gain of their subband, a logarithm in units of 2**-12, over their scale."""
    channels, gains = tiny.model.config.channels, tiny.model.arrays["gains/coefficients"]
    expected = 255 * 2.0 ** (gains[0, 12 * channels] / 4096) / subband_scales(channels)[12 * channels]
    assert tiny.model.step_size(0) == pytest.approx(expected, rel=1e-5)


def test_a_model_without_a_table_for_flags_is_refused(tiny):
    tables = tiny.model.models.tables
    freq = np.concatenate([tables.row(0), tables.row(len(tables.low) - 1)])
    start = np.array([0, len(tables.row(0)), len(freq)])
    tables_without_flags = {"tables/freq": freq, "tables/start": start, "tables/low": tables.low[[0, -1]]}
    with pytest.raises(ModelError, match="tables, expected 3"):
        parse_model(with_arrays(tiny.model, **tables_without_flags, centroids=np.zeros((1, 4), np.int8)), "bad.vcm")


def with_metadata(data, **fields):
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"].update(fields)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "2"}, "format 2"),
        ({"id": '"00000000000000000000000000000000"'}, "id"),
        ({"config": '{"fine": 1000000000}'}, "config"),
        ({"config": "[]"}, "not a vaecodec model"),
        ({"name": "7"}, "name"),
        ({"notes": "7"}, "notes"),
        ({"notes": "[" * 100_000}, "not a vaecodec model"),
        ({"notes": "{"}, "not a vaecodec model"),
    ],
)
def test_metadata_out_of_range_is_refused(data, fields, message):
    with pytest.raises(ModelError, match=message):
        parse_model(with_metadata(data, **fields), "bad.vcm")


@pytest.mark.parametrize("data", [b"", b"1234567", (2**62).to_bytes(8, "little") + b"{}", bytes(9) + b"{}"])
def test_other_data_are_refused(data):
    with pytest.raises(ModelError):
        parse_model(data, "bad.vcm")


def test_oversized_headers_are_not_parsed():
    with pytest.raises(ModelError, match="header"):
        parse_model((MAX_HEADER + 1).to_bytes(8, "little") + b"[" * (MAX_HEADER + 1), "bad.vcm")


def test_mutants_are_refused_or_keep_the_id(data, tiny):
    """The id excludes the encoder's part, which does not affect decoding."""
    rng = random.Random(3)
    for _ in range(60):
        with np.errstate(all="ignore"):
            try:
                model = parse_model(mutate(rng, data, [data]), "mutant.vcm")
            except ModelError:
                continue
        assert model.id == tiny.model.id


def test_the_id_covers_all_tensors_of_decoders(tiny):
    config, arrays = tiny.model.config.to_dict(), tiny.model.arrays
    assert len(tiny.model.id) == 32 and identify(config, arrays) == tiny.model.id
    for name, array in arrays.items():
        changed_id = identify(config, {**arrays, name: with_entry(array, array.ravel()[0] + array.dtype.type(1))})
        encoders = name.startswith(("analysis/", "gains/analysis/", "start/"))
        assert (changed_id == tiny.model.id) == encoders, name


def test_models_without_analysis_only_decode(tiny):
    dropped = {name: None for name in tiny.model.arrays if name.startswith(("analysis/", "gains/analysis/"))}
    codec = Codec(reload(tiny.model, **dropped), threads=1)
    np.testing.assert_array_equal(codec.decode((GOLDEN / "photo.vae").read_bytes()), np.load(GOLDEN / "photo.npy"))
    with pytest.raises(ModelError, match="no analysis"):
        codec.encode(synthetic_image(32, 32))


def test_models_with_the_same_id_have_separate_codecs(tmp_path, tiny):
    """The id excludes the encoder's part, so two files with the same id may encode differently."""
    model = tiny.model
    gains = model.arrays["gains/analysis/out"]
    louder = with_arrays(model, **{"gains/analysis/out": gains + np.int32(3 << 12)})
    (tmp_path / "louder.vcm").write_bytes(louder)
    codec, louder_codec = vaecodec.load(str(GOLDEN / "tiny.vcm")), vaecodec.load(str(tmp_path / "louder.vcm"))
    assert codec.model.id == louder_codec.model.id and codec is not louder_codec
    pixels = synthetic_image(48, 64)
    assert codec.encode(pixels, 90) != louder_codec.encode(pixels, 90)
    assert vaecodec.load(str(GOLDEN / "tiny.vcm")) is codec
    assert cached_codec(load_model(str(tmp_path / "louder.vcm"))) is louder_codec


MOST = {"levels/bias": 2**20, "levels/lowest": 2**20, "levels/start": 2**16, "levels/inverse_gain": 2**13}
MOST |= {"gains/coefficients": 5 << 12, "gains/synthesis/fine": 20 << 12, "gains/synthesis/out": 20 << 12}


@pytest.mark.parametrize("seed", range(6))
def test_models_of_random_integers_decode_what_they_encode(tiny, seed):
    """The integers of each tensor reach its limits, as far as sums allow."""
    rng, arrays = np.random.default_rng(seed), {}
    for name, array in tiny.model.arrays.items():
        if name.startswith(("prior/", "levels/", "centroids", "synthesis/", "gains/synthesis", "gains/coef")):
            if name.endswith("/shift") or rng.random() < 0.5:
                continue
            most = int(min(MOST.get(name, np.iinfo(array.dtype).max), 2 ** rng.uniform(1, 32 if name in MOST else 7)))
            least = 1 if name == "levels/inverse_gain" else -most
            arrays[name] = rng.integers(least, most + 1, array.shape).astype(array.dtype)
    codec = Codec(reload(tiny.model, **arrays), threads=1)
    for data in (
        codec.encode(synthetic_image(40, 50), 1 + 19 * seed),
        codec.encode(synthetic_image(70, 65), 50, tile=64),
    ):
        codec.verify(data)


def test_files_of_other_models_are_detected_as_damaged(tiny):
    """The header names a model with other integers; a few of them do not affect the file."""
    data, rng = tiny.encode(synthetic_image(48, 48), 60), random.Random(0)
    names = [name for name in tiny.model.arrays if name.startswith(("prior/", "levels/bias"))]
    detected = 0
    for name in rng.sample(names, 25):
        array = np.abs(tiny.model.arrays[name][..., ::-1]).copy()
        if np.array_equal(array, tiny.model.arrays[name]):
            continue
        try:
            other_codec = Codec(reload(tiny.model, **{name: array}), threads=1)
        except ModelError:  # sums could overflow
            continue
        forged = data.replace(bytes.fromhex(tiny.model.id), bytes.fromhex(other_codec.model.id))
        try:
            other_codec.verify(with_right_crcs(forged))
        except FormatError as exc:
            assert "damaged" in str(exc)
            detected += 1
    assert detected > 10
