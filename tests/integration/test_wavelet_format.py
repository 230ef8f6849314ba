"""Test files and models of the format: the reference decoder agrees exactly, and both decoders refuse damage."""

import dataclasses

import numpy as np
import pytest

from support.images import synthetic_image

pytest.importorskip("tensorflow")

from reference import reference_decoder
from support.models import DISTINCT_CONFIG, load_bytes, random_model, with_arrays, with_entry, with_filter
from support.symbols import INVALID_OUTLIERS, outlier_stack
from vaecodec.codec import Codec
from vaecodec.container import image_file
from vaecodec.container.image_file import Header, parse
from vaecodec.entropy import coding
from vaecodec.entropy.coding import pop_outliers, push_outliers
from vaecodec.entropy.scale_offsets import push_scale_offsets
from vaecodec.errors import FormatError, ModelError
from vaecodec.model.file import parse_model
from vaecodec.native.wavelet import octave_planes
from vaecodec.prior import band_patterns, decode_tile, encode_tile
from vaecodec.transforms import Filter


def load_both(data, folder):
    """Return a codec and the model of the reference decoder for the bytes of a model file."""
    (folder / "model.vcm").write_bytes(data)
    return Codec(load_bytes(data), threads=1), reference_decoder.read_model(folder / "model.vcm")


@pytest.fixture(scope="module")
def usual_decoders(tmp_path_factory):
    return load_both(random_model(), tmp_path_factory.mktemp("usual"))


@pytest.fixture(scope="module")
def sparse_decoders(tmp_path_factory):
    """Decoders of a model that assigns table 0 to most coefficients, so that nonzero symbols are outliers."""
    return load_both(random_model(index_offset=-4.0), tmp_path_factory.mktemp("sure"))


@pytest.fixture(scope="module")
def codec(usual_decoders):
    return usual_decoders[0]


def flat_with_a_spot():
    x = np.full((75, 91, 3), 60, np.uint8)
    x[40, 41] = 255
    return x


def assert_same(models, data):
    """Check that both decoders return the same symbols and pixels."""
    codec, reference_model = models
    pixels = codec.decode(data, check=True)
    assert np.array_equal(reference_decoder.decode(data, reference_model), pixels)
    assert reference_decoder.symbol_crcs(data, reference_model) == codec.symbol_crcs(data)


@pytest.mark.parametrize("quality", [1, 50, 77.3, 100])
@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (33, 48), (130, 90)])
def test_the_reference_decoder_agrees(usual_decoders, shape, quality):
    assert_same(usual_decoders, usual_decoders[0].encode(synthetic_image(*shape), quality, tile=64))


@pytest.mark.parametrize("effort", [1, 2])
@pytest.mark.parametrize("tile", [128, 1024])
def test_the_reference_decoder_agrees_on_filtered_files(usual_decoders, tile, effort):
    data = usual_decoders[0].encode(synthetic_image(120, 133), 45, tile=tile, effort=effort)
    assert parse(data).header.filter
    assert_same(usual_decoders, data)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_the_reference_decoder_agrees_on_any_filter(usual_decoders, kind):
    rng, codec = np.random.default_rng(kind), usual_decoders[0]
    unfiltered = codec.encode_unfiltered(synthetic_image(100, 70), 90, tile=64)
    for _ in range(3):
        first, shifts = rng.integers(-128, 128, (1 << kind, 9)), rng.integers(0, 16, 1 << kind)
        filter_weights = Filter(
            first.astype(np.int8), shifts.astype(np.uint8), rng.integers(-128, 128, 6).astype(np.int8)
        )
        assert_same(usual_decoders, with_filter(codec, unfiltered, filter_weights.to_bytes()))


def test_the_reference_decoder_agrees_with_the_shipped_model(small):
    from vaecodec.model.file import path_of_model

    models = small, reference_decoder.read_model(path_of_model("small"))
    for quality, tile, effort in ((30, 64, 1), (90, 1024, 2)):
        assert_same(models, small.encode(synthetic_image(140, 233), quality, tile=tile, effort=effort))


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_the_reference_decoder_agrees_on_other_channels(tmp_path, channels):
    models = load_both(random_model(dataclasses.replace(DISTINCT_CONFIG, channels=channels)), tmp_path)
    pixels = np.concatenate([synthetic_image(70, 90), 255 - synthetic_image(70, 90, 1)], -1)[..., :channels].copy()
    for effort in (1, 2):
        assert_same(models, models[0].encode(pixels, 80, tile=64, effort=effort))


@pytest.mark.parametrize("tile", [64, 1024])
def test_the_reference_decoder_agrees_on_outliers(sparse_decoders, tile, monkeypatch):
    outliers = []

    def observed(coder, symbols, indices, models):
        outliers.append(symbols[(indices == coding.ZERO_TABLE) & (symbols != 0)])
        return push_outliers(coder, symbols, indices, models)

    monkeypatch.setattr("vaecodec.entropy.coding.push_outliers", observed)
    data = sparse_decoders[0].encode(flat_with_a_spot(), 100, tile=tile)
    assert sum(len(values) > 0 for values in outliers) >= 4 and len(np.concatenate(outliers)) > 10
    assert np.concatenate(outliers).min() < -1 and np.concatenate(outliers).max() > 1
    assert any(len(values) == 0 for values in outliers)
    assert_same(sparse_decoders, data)


@pytest.mark.parametrize("tilt", [0, 3, 7])
@pytest.mark.parametrize("reach", [0.3, 40, 4000])
@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (2, 9)])
def test_the_reference_decoder_agrees_on_any_symbols(sparse_decoders, cells, reach, tilt):
    """Symbols include values beyond those of images, which are clipped, and positions beyond odd sides."""
    values, outliers = assert_same_symbols(sparse_decoders, cells, 700, reach, tilt)
    assert_same_symbols(sparse_decoders, cells, 700, reach, tilt, by_band=True)
    assert outliers > 10 and (reach < 4000 or max(np.abs(half).max() for half in values.halves[0]) == 2**16)


def assert_same_symbols(models, cells, quality_index, reach, tilt=0, by_band=False):
    """Check that both decoders agree on random symbols with long tails; return the values and count of outliers."""
    codec, reference_model = models
    rng, model = np.random.default_rng(0), codec.model.tilted(tilt)

    def any_symbols(part, distributions):
        symbols = np.rint(rng.standard_cauchy(distributions.loc.shape) * reach)
        return np.clip(symbols, -coding.SYMBOL_MAX, coding.SYMBOL_MAX).astype(np.int32)

    coded = encode_tile(model.prior, model.models, cells, quality_index, any_symbols, by_band=by_band)
    values = decode_tile(model.prior, model.models, cells, quality_index, coded.payload, coded.crc, by_band=by_band)
    tile = reference_decoder.decode_tile(coded.payload, *cells, quality_index, reference_model, tilt, by_band)
    assert tile.crc == coded.crc and np.array_equal(np.moveaxis(tile.low, -1, 0), values.low)
    for octave, halves in enumerate(values.halves):
        shape, count = [side << (3 - octave) for side in cells], 3 * values.low.shape[0]
        planes = octave_planes(*halves, shape, np.ones(count, np.int32), np.zeros(count, np.int32))
        assert np.array_equal(np.moveaxis(tile.octaves[octave], -1, 0), planes)
    header = Header(model.id, 16 * cells[0], 16 * cells[1], quality_index, 4096, channels=model.config.channels)
    data = image_file.pack(header._replace(tilt=tilt, by_band=by_band), [(coded.payload, coded.crc, 0)])
    assert_same(models, image_file.with_pixel_crcs(data, codec.decoder.pixel_crcs(data)))
    outliers = sum(np.count_nonzero(symbols[indices == coding.ZERO_TABLE]) for symbols, indices in coded.parts)
    return values, outliers


def test_both_decoders_check_the_pixels(usual_decoders):
    codec, reference_model = usual_decoders
    data = codec.encode(synthetic_image(70, 90), 50, tile=64)
    crcs = [tile.pixels for tile in parse(data).tiles]
    damaged = image_file.with_pixel_crcs(data, [*crcs[:-1], crcs[-1] ^ 1])
    with pytest.raises(FormatError, match="pixels"):
        codec.verify(damaged)
    with pytest.raises(ValueError, match="pixels"):
        reference_decoder.decode(damaged, reference_model)


@pytest.mark.parametrize("case", INVALID_OUTLIERS)
def test_both_decoders_refuse_invalid_outliers(usual_decoders, case):
    (codec, reference_model), indices = usual_decoders, np.array([0, 0, 7, 0, 7], np.int64)
    reader = coding.reader(outlier_stack(codec.model.models, *INVALID_OUTLIERS[case]))
    with pytest.raises(FormatError):
        pop_outliers(reader, np.zeros(5, np.int32), indices.astype(np.uint8), codec.model.models)
    # In a complete part the symbols of table 7 come first.
    coder = coding.reader(outlier_stack(codec.model.models, *INVALID_OUTLIERS[case]))
    coding.push(coder, np.array([3, -2], np.int32), np.array([7, 7], np.uint8), codec.model.models)
    push_scale_offsets(coder, None, band_patterns(3, False))
    tile = reference_decoder.TileDecoder(reference_decoder.Stack(coding.words(coder)), 0, reference_model)
    with pytest.raises(ValueError, match="outlier"):
        tile.take(np.zeros(5, np.int64), indices)


CASES = {
    "no companding": ("companding", lambda a: None),
    "companding that is empty": ("companding", lambda a: a[:0]),
    "companding that falls": ("companding", lambda a: a[::-1]),
    "companding that stays": ("companding", lambda a: with_entry(a, a[1])),
    "companding of 0": ("companding", lambda a: with_entry(a, 0)),
    "companding beyond values": ("companding", lambda a: with_entry(a, 2**16 + 1, -1)),
    "companding beyond activations": ("companding", lambda a: np.arange(1, 1025, dtype=np.int32)),
    "companding of floats": ("companding", lambda a: a.astype(np.float32)),
    "no centroids": ("centroids", lambda a: None),
    "centroids of another shape": ("centroids", lambda a: a[1:]),
    "centroids of another type": ("centroids", lambda a: a.astype(np.int16)),
    "an inverse gain of 0": ("levels/inverse_gain", lambda a: with_entry(a, 0)),
    "an inverse gain below 0": ("levels/inverse_gain", lambda a: with_entry(a, -5)),
    "an inverse gain beyond its bound": ("levels/inverse_gain", lambda a: with_entry(a, 2**13 + 1)),
    "levels of other octaves": ("levels/bias", lambda a: a[:, :-20]),
    "no levels of the lowest": ("levels/lowest", lambda a: None),
    "levels of the lowest that are too large": ("levels/lowest", lambda a: with_entry(a, -(2**31))),
    "a start out of range": ("levels/start", lambda a: with_entry(a, 2**17)),
    "a start of another shape": ("levels/start", lambda a: a[:, :3]),
    "no gains": ("gains/coefficients", lambda a: None),
    "a gain too large": ("gains/coefficients", lambda a: with_entry(a, 6 << 12)),
    "a gain too small": ("gains/coefficients", lambda a: with_entry(a, -(20 << 12) - 1)),
    "no second multipliers": ("gains/synthesis/out", lambda a: None),
    "multipliers out of range": ("gains/synthesis/fine", lambda a: with_entry(a, (20 << 12) + 1)),
    "the lowest integer as a multiplier": ("gains/synthesis/fine", lambda a: with_entry(a, -(2**31))),
    "multipliers of floats": ("gains/synthesis/fine", lambda a: a.astype(np.float32)),
    "no kernel": ("prior/context/3/known/kernel", lambda a: None),
    "a kernel of another shape": ("prior/context/1/in/kernel", lambda a: a[1:]),
    "a kernel of another type": ("prior/context/1/in/kernel", lambda a: a.astype(np.int32)),
    "a kernel of too few outputs": ("prior/context/0/second/kernel", lambda a: a[:, 1:]),
    "a kernel that would broadcast": ("prior/context/4/block/space/kernel", lambda a: a[..., :1]),
    "a bias that would broadcast": ("prior/lowest/0/in/bias", lambda a: a[:1]),
    "a network of the lowest of another shape": ("prior/lowest/3/out/kernel", lambda a: a[:-1]),
    "a sum that overflows": ("prior/context/2/first/bias", lambda a: with_entry(a, 2**31 - 1)),
    "no layer of the synthesis": ("synthesis/coarse/kernel", lambda a: None),
    "a layer of the synthesis of another shape": ("synthesis/skip/kernel", lambda a: a[1:]),
    "a shift above 30": ("synthesis/fine/shift", lambda a: with_entry(a, 31)),
    "a shift of another type": ("synthesis/fine/shift", lambda a: a.astype(np.int32)),
    "no shift": ("synthesis/fine0/gate/shift", lambda a: None),
    "a sum of the synthesis that overflows": ("synthesis/coarse0/in/kernel", lambda a: np.full_like(a, 32767)),
    "starts of another type": ("tables/start", lambda a: a.astype(np.int32)),
    "a frequency of 0": ("tables/freq", lambda a: with_entry(with_entry(a, 0), a[0] + a[1], 1)),
    "frequencies that do not sum": ("tables/freq", lambda a: with_entry(a, a[0] + 1)),
    "a symbol out of range": ("tables/low", lambda a: with_entry(a, 65536, 3)),
    "a table of bytes that does not begin at 0": ("tables/low", lambda a: with_entry(a, 1, -1)),
    "a tensor of another name": ("litert/synthesis", lambda a: np.zeros(4, np.uint8)),
}


@pytest.mark.parametrize("case", CASES)
def test_both_decoders_refuse_invalid_models(codec, tmp_path, case):
    name, change = CASES[case]
    data = with_arrays(codec.model, **{name: change(codec.model.arrays.get(name))})
    with pytest.raises(ModelError, match="it: "):
        parse_model(data, "it")
    (tmp_path / "model.vcm").write_bytes(data)
    with pytest.raises((ValueError, KeyError)):
        reference_decoder.read_model(tmp_path / "model.vcm")


BOUNDS = {
    "levels/bias": (-(2**20), 2**20),
    "levels/lowest": (-(2**20), 2**20),
    "levels/start": (-(2**16), 2**16),
    "levels/inverse_gain": (1, 2**13),
    "centroids": (-128, 127),
    "gains/coefficients": (-(20 << 12), (6 << 12) - 1),
    "gains/synthesis/fine": (-(20 << 12), 20 << 12),
    "gains/synthesis/out": (-(20 << 12), 20 << 12),
}


def extreme(rng, arrays):
    """Random tensors up to their bounds, and layers whose sums come as close to 2^31 as the format allows."""
    out = {}
    for name, (least, most) in BOUNDS.items():
        if rng.random() < 0.5:
            values = rng.integers(least, most + 1, arrays[name].shape)
            out[name] = np.where(rng.random(values.shape) < 0.3, rng.choice([least, most]), values)
    for name in arrays:
        if name.startswith(("prior/", "synthesis/")) and name.endswith("/kernel") and rng.random() < 0.5:
            out |= extreme_layer(rng, name.removesuffix("/kernel"), arrays[name].shape)
    return {name: array.astype(arrays[name].dtype) for name, array in out.items()}


def extreme_layer(rng, name, shape):
    synthesis = name.startswith("synthesis/")
    limit, shift = (32767, rng.integers(0, 31, shape[-1:])) if synthesis else (1023, np.full(shape[-1:], 9))
    most = min(32767, (2**31 - 2**29 - 1) // limit // int(np.prod(shape[:-1])))
    kernel = rng.integers(-most, most + 1, shape) if rng.random() < 0.5 else rng.choice([-most, most], shape)
    room = 2**31 - 1 - np.maximum(1 << shift >> 1, 2**11) - np.abs(kernel).reshape(-1, shape[-1]).sum(0) * limit
    bias = rng.choice([-1, 1], shape[-1:]) * (room >> rng.integers(0, 31, shape[-1:]))
    return {f"{name}/kernel": kernel, f"{name}/bias": bias} | ({f"{name}/shift": shift} if synthesis else {})


@pytest.mark.parametrize("seed", range(12))
def test_the_reference_decoder_agrees_with_any_model(codec, tmp_path, seed):
    arrays = extreme(np.random.default_rng(seed), codec.model.arrays)
    assert_same_symbols(load_both(with_arrays(codec.model, **arrays), tmp_path), (3, 4), 81 * seed, 100)
