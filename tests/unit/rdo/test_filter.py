"""A picture's own filter: what is fitted is what is gained, and every decoder does the same with it."""

import struct

import numpy as np
import pytest
from PIL import Image

from reference import reference_decoder
from support.models import with_filter
from vaecodec.cli import main
from vaecodec.codec import Codec, tiles
from vaecodec.container import chunks, image_file
from vaecodec.container.image_file import parse
from vaecodec.errors import CodecError, FormatError
from vaecodec.model.file import load_model, path_of_model
from vaecodec.native.transforms import restore
from vaecodec.rdo import filter as filters
from vaecodec.rdo.filter import Equations, FloatFilter
from vaecodec.transforms import restoration
from vaecodec.transforms.float_wavelet import NORM
from vaecodec.transforms.networks import integer_color_transform
from vaecodec.transforms.restoration import CLASSES, Filter
from vaecodec.transforms.tiling import Box, halo

STEP = 8.0
SQUARED_STEPS_PER_BIT = 10.0  # bits for a squared error of 1
LOGARITHM = round(4096 * np.log2(STEP / 255 / NORM**8))  # of the gain of the lowest coefficients at that step


def filter_of(classes, channels, seed=0, most=20):
    rng = np.random.default_rng(seed)
    first = rng.integers(-most, most + 1, (classes, filters.WEIGHTS)).astype(np.int8)
    others = rng.integers(-most, most + 1, 2 * channels if channels > 1 else 0).astype(np.int8)
    return Filter(first, rng.integers(8, 12, classes).astype(np.uint8), others)


def made(height, width, channels, seed=0):
    """f32[H, W, C]: a gradient and noise, more of it to the right."""
    noise = np.random.default_rng(seed).normal(size=(height, width, channels)) * np.linspace(0, 12, width)[:, None]
    return (noise + np.linspace(60, 180, height)[:, None, None]).astype(np.float32)


@pytest.fixture(scope="module")
def codec(request):
    return Codec(load_model("small"), threads=2)


@pytest.fixture(scope="module")
def crop(request):
    """u8[125, 150, 3] of a photograph."""
    path = request.config.rootpath / "docs" / "examples" / "parrots.png"
    return np.asarray(Image.open(path).convert("RGB"))[150:275, 200:350]


@pytest.fixture(scope="module")
def filtered(codec, crop):
    """A file with a filter of four classes that does much, and the same file without it."""
    data = codec.encode_unfiltered(crop, 40)
    return with_filter(codec, data, filter_of(4, 3, most=60).to_bytes()), data


def levels_of(x):
    """i16, unit 2**-6 of a level, 0 in the middle, of f32 on a scale of 255."""
    return np.rint((x - 127.5) * 64).astype(np.int16)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_bytes_are_read_back(classes, channels):
    found = filter_of(classes, channels)
    again = restoration.from_bytes(found.to_bytes(), channels)
    assert all((a == b).all() for a, b in zip(found, again, strict=True))
    for bad in (found.to_bytes() + b"\0", found.to_bytes()[:-1], b"\3" + found.to_bytes()[1:], b""):
        with pytest.raises(FormatError, match="filter"):
            restoration.from_bytes(bad, channels)
    with pytest.raises(FormatError, match="units"):
        restoration.from_bytes(found.to_bytes()[:1] + b"\x10" + found.to_bytes()[2:], channels)


@pytest.mark.parametrize("classes", CLASSES)
def test_nothing_is_added_to_a_flat_or_by_a_filter_of_zeros(classes):
    flat = np.full((20, 30, 3), 77, np.float32)
    assert np.abs(FloatFilter(filter_of(classes, 3, most=127), STEP)(flat.copy()) - flat).max() < 1e-3
    zeros = filter_of(classes, 3)._replace(first=np.zeros((classes, 9), np.int8), others=np.zeros(6, np.int8))
    x = made(20, 30, 3)
    assert (FloatFilter(zeros, STEP)(x.copy()) == x).all()


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pixels_are_the_reference_decoders(classes, channels):
    x, found = made(48, 33, channels), filter_of(classes, channels, most=60)
    levels = levels_of(x)
    expected = reference_decoder.restored(levels.astype(np.int64), found.to_bytes(), LOGARITHM)
    assert np.abs(expected - x).max() > 1
    assert np.array_equal(restore(levels, found.weights(integer_color_transform(channels), LOGARITHM)), expected)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_integers_are_near_the_floats_that_encoders_fit_by(classes, channels):
    x, found = made(48, 33, channels), filter_of(classes, channels)
    pixels = restore(levels_of(x), found.weights(integer_color_transform(channels), LOGARITHM))
    floats = FloatFilter(found, STEP)(levels_of(x) / np.float32(64) + np.float32(127.5))
    assert np.abs(np.clip(floats, 0, 255) - pixels).max() < 1


def test_strips_change_nothing(monkeypatch):
    x, found = made(64, 40, 3), filter_of(4, 3)
    whole = FloatFilter(found, STEP)(x.copy())
    monkeypatch.setattr(filters, "STRIP_SAMPLES", 200)
    assert np.abs(FloatFilter(found, STEP)(x.copy()) - whole).max() < 1e-4


@pytest.mark.parametrize("classes", CLASSES)
def test_adjoint_is_that_of_inner_products(classes, monkeypatch):
    """Away from the edges, of a change that moves no class."""
    x, restoration = made(40, 44, 3), FloatFilter(filter_of(classes, 3), STEP)
    rng = np.random.default_rng(1)
    move, error = np.zeros_like(x), rng.normal(size=x.shape).astype(np.float32)
    move[10:-10, 10:-10] = rng.normal(size=(20, 24, 3))
    error[:6], error[-6:], error[:, :6], error[:, -6:] = 0, 0, 0, 0
    still = FloatFilter(filter_of(classes, 3), STEP)
    still._ramps = [
        lambda active, one=one: one(filters._activity(filters._rotated(x)[0]).ravel()) for one in still._ramps
    ]
    change = still((x + move).copy()) - still(x.copy())
    there, here = float((change * error).sum()), float((restoration.adjoint(x, error) * move).sum())
    assert here == pytest.approx(there, rel=2e-3, abs=0.05)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_what_is_fitted_is_what_is_gained(channels):
    x, true = made(96, 80, channels), filter_of(4, channels, seed=3, most=60)
    wanted = FloatFilter(true, STEP)(x.copy())
    equations = filters.fit_classes(x, wanted, Box(0, 0, 96, 80), STEP)
    found = equations.best_filter(SQUARED_STEPS_PER_BIT)
    again = FloatFilter(found, STEP)(x.copy())
    before, after = (float(np.square(wanted - one, dtype=np.float64).sum()) for one in (x, again))
    assert len(found.first) == 4 and after < 0.01 * before
    finest = np.ldexp(found.first.astype(float), -found.shifts.astype(int)[:, None]).ravel()
    gained = equations.first.error_reduction(finest) + equations.others.error_reduction(
        np.ldexp(found.others, -filters.OTHER_SHIFT)
    )
    assert gained == pytest.approx(before - after, rel=1e-3)


def test_a_filter_is_worth_its_bytes_or_is_none():
    x = made(32, 32, 3)
    noise = np.random.default_rng(5).normal(size=x.shape).astype(np.float32)
    equations = filters.fit_classes(x, x + noise, Box(0, 0, 32, 32), STEP)
    assert equations.best_filter(1e-3) is None
    assert Equations.zero(3).best_filter(1.0) is None and Equations.zero(1).best_filter(1.0) is None
    one = filters.fit_classes(x, FloatFilter(filter_of(1, 3, most=60), STEP)(x.copy()), Box(0, 0, 32, 32), STEP)
    assert len(one.best_filter(SQUARED_STEPS_PER_BIT).first) == 1  # more would say the same


def test_equations_of_parts_are_those_of_the_whole(monkeypatch):
    x, wanted = made(40, 48, 3), made(40, 48, 3, seed=1)
    whole = filters.fit_classes(x, wanted, Box(0, 0, 40, 48), STEP)
    monkeypatch.setattr(filters, "STRIP_SAMPLES", 300)
    parts = [Box(0, 0, 16, 48), Box(16, 0, 40, 20), Box(16, 20, 40, 48)]
    first, *rest = (filters.fit_classes(x, wanted, part, STEP) for part in parts)
    for one in rest:
        first = first + one
    for ours, theirs in zip((*whole.first, *whole.others), (*first.first, *first.others), strict=True):
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(ours).max()


def test_files_are_decoded_alike(codec, crop, filtered):
    data, plain = filtered
    pixels = codec.decode(data).astype(int)
    assert np.abs(pixels - codec.decode(plain)).max() > 8
    model = reference_decoder.read_model(path_of_model("small"))
    assert np.array_equal(reference_decoder.decode(data, model), pixels)
    assert codec.symbol_crcs(data) == codec.symbol_crcs(plain)
    assert codec.decode(data, reduce=4).shape == (32, 38, 3)
    assert image_file.info(data)["filtered"] and not image_file.info(plain)["filtered"]


def test_info_says_so(filtered, tmp_path, capsys):
    for name, data in zip(("one.vae", "two.vae"), filtered, strict=True):
        (tmp_path / name).write_bytes(data)
        assert main(["info", str(tmp_path / name)]) == 0
    one, two = capsys.readouterr().out.splitlines()
    assert one.endswith(", with a filter") and "filter" not in two


def test_windows_and_batches_are_parts_of_the_whole(codec, filtered, crop):
    data, plain = filtered
    whole = codec.decode(data)
    assert (codec.decode(data, (30, 40, 50, 60)) == whole[30:80, 40:100]).all()
    both = codec.decode_batch([data, plain, data])
    assert (both[0] == whole).all() and (both[1] == codec.decode(plain)).all() and (both[2] == whole).all()


@pytest.fixture(scope="module")
def shifted(crop):
    """u8[224, 256, 3] whose colours are not quite in their places."""
    large = np.tile(crop, (2, 2, 1))[:224, :256]
    large[..., 2] = np.roll(large[..., 2], 1, 1)
    return large


def test_effort_fits_a_filter_over_all_tiles(codec, shifted):
    files = [codec.encode_unfiltered(shifted, 60), *(codec.encode(shifted, 60, effort=effort) for effort in (1, 2))]
    errors = [float(np.square(codec.decode(one).astype(float) - shifted).sum()) for one in files]
    none, one_class, found = (parse(one).header.filter for one in files)
    assert not none and one_class[0] == 0 and len(found) >= len(one_class) and errors[0] > errors[1] >= errors[2]
    assert codec.symbol_crcs(files[0]) == codec.symbol_crcs(files[1]) == codec.symbol_crcs(files[2])
    tiled = codec.encode(shifted, 60, effort=2, tile=128)
    assert len(parse(tiled).tiles) == 4 and parse(tiled).header.filter
    whole = reference_decoder.decode(tiled, reference_decoder.read_model(path_of_model("small")))  # knows no seams
    assert np.array_equal(codec.decode(tiled, check=True), whole)
    part = codec.decode(tiled, (100, 100, 60, 60))
    assert (part == codec.decode(tiled)[100:160, 100:160]).all()


def test_latents_are_coded_with_the_filter_of_their_picture(codec, shifted):
    for tile in (1024, 128):
        data = codec.encode(shifted, 60, tile=tile)
        assert parse(data).header.filter
        latents = codec.analyse_batch([shifted], 60, tile)[0]
        assert codec.encode_latents(shifted, latents, 60, tile=tile) == data


def test_a_tile_without_a_pixel_to_itself_has_no_filter(codec, shifted):
    assert not parse(codec.encode(shifted, 60, tile=64)).header.filter
    cells, whole = (14, 16), (224, 250)
    assert tiles.halo_free_area(Box(0, 0, 8, 8), cells, whole, 4) == (0, 0, 64, 64)
    assert tiles.halo_free_area(Box(8, 8, 14, 16), cells, whole, 4) == (64, 64, 96, 122)
    assert tiles.halo_free_area(Box(0, 0, 14, 16), cells, whole, 4) == (0, 0, *whole)
    for box in (Box(4, 4, 8, 8), Box(4, 0, 8, 16), Box(12, 12, 14, 16)):
        assert tiles.halo_free_area(box, cells, whole, 4).shape == (0, 0)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_equations_of_one_class_are_those_of_all_together(channels, monkeypatch):
    levels, wanted = levels_of(made(48, 64, channels)), np.clip(made(48, 64, channels, seed=1), 0, 255).astype(np.uint8)
    x, rotation = levels * np.float32(1 / 64) + np.float32(127.5), integer_color_transform(channels)
    for area in (Box(16, 0, 45, 64), Box(0, 3, 48, 40)):
        whole = filters.fit_classes(x, wanted.astype(np.float32), area, STEP)
        monkeypatch.setattr(filters, "STRIP_SAMPLES", 300)
        found = filters.fit_one_class(levels, wanted, area, 1, rotation)
        monkeypatch.undo()
        for theirs, ours in zip(
            (*whole._with_classes(1), *whole.others), (*found._with_classes(1), *found.others), strict=True
        ):
            assert np.abs(ours - theirs).max(initial=0) <= 2e-2 * np.abs(theirs).max(initial=0)
        sparse = filters.fit_one_class(levels, wanted, area, 5, rotation)
        assert sparse.first.right[0] == pytest.approx(found.first.right[0], rel=0.5)
        assert len(found.best_filter(SQUARED_STEPS_PER_BIT).first) == 1


def test_the_halo_is_wide_enough(codec):
    config = codec.model.config
    assert halo(config, True) * 16 >= 46 + 8 * config.fine_blocks + filters.REACH
    assert halo(config) <= halo(config, True)


def test_refined_files_have_filters_that_lower_the_cost(codec, crop, monkeypatch):
    data = codec.encode(crop, 50, effort=3)
    found = parse(data)
    assert found.header.filter
    without = with_filter(codec, data, b"")
    errors = [float(np.square(codec.decode(one).astype(float) - crop).sum()) for one in (data, without)]
    assert errors[0] < errors[1] and len(data) - len(without) == len(found.header.filter)


def test_damage_is_said(codec, filtered):
    data, _ = filtered
    found = parse(data)
    tiles = [(data[one.offset : one.offset + one.length], one.crc, one.pixels) for one in found.tiles]
    for bad in (b"\7", found.header.filter + b"\0", found.header.filter[:-1]):
        with pytest.raises(FormatError, match="filter"):
            codec.decode(image_file.pack(found.header._replace(filter=bad), tiles))
        with pytest.raises(FormatError, match="filter"):
            codec.verify(image_file.pack(found.header._replace(filter=bad), tiles))


@pytest.mark.parametrize("flags, filter", [(0, b"\0" * 17), (1, b""), (2, b""), (3, b"\0" * 17)])
def test_flags_say_whether_there_is_a_filter(codec, filtered, flags, filter):
    plain = filtered[1]
    at, length = next((at, length) for tag, at, length in chunks.read_chunks(plain) if tag == b"HEAD")
    head = bytearray(plain[at : at + length]) + filter
    head[1] = flags
    body = plain[at + length + 4 :]
    bad = chunks.MAGIC + chunks.pack_chunk(b"HEAD", bytes(head)) + body
    with pytest.raises(CodecError, match="header"):
        codec.decode(bad)
    with pytest.raises(Exception, match="HEAD"):
        reference_decoder.read_file(bad, reference_decoder.read_model(path_of_model("small")))
    assert struct.unpack_from("<B", bytes(head), 1) == (flags,)


@pytest.mark.parametrize("extreme", [-128, 127])
def test_extreme_weights_are_decoded_by_all(codec, filtered, extreme):
    found = Filter(np.full((4, 9), extreme, np.int8), np.zeros(4, np.uint8), np.full(6, extreme, np.int8))
    data = with_filter(codec, filtered[1], found.to_bytes())
    pixels = codec.decode(data)
    theirs = reference_decoder.decode(data, reference_decoder.read_model(path_of_model("small")))
    assert np.array_equal(pixels, theirs)


def test_mutants_are_decoded_or_refused(codec, filtered):
    data = filtered[0]
    at, length = next((at, length) for tag, at, length in chunks.read_chunks(data) if tag == b"HEAD")
    rng, outcomes = np.random.default_rng(0), set()
    for _ in range(60):
        head = bytearray(data[at : at + length])
        head[int(rng.integers(42, length))] = int(rng.integers(256))
        body = data[at + length + 4 :]
        try:
            codec.decode(chunks.MAGIC + chunks.pack_chunk(b"HEAD", bytes(head)) + body)
            outcomes.add(str)
        except FormatError as exc:
            outcomes.add(type(exc))
    assert str in outcomes
