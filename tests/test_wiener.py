"""A picture's own filter: what is fitted is what is gained, and every decoder does the same with it."""

import struct

import numpy as np
import pytest
from PIL import Image

from vaecodec import container, filtering, plans, wiener
from vaecodec.cli import main
from vaecodec.codec import Codec
from vaecodec.container import parse
from vaecodec.errors import CodecError, FormatError
from vaecodec.lifting import NORM
from vaecodec.model.file import load_model
from vaecodec.native import library
from vaecodec.native.restoration import restore
from vaecodec.threads import pool_of
from vaecodec.tiling import Box, halo
from vaecodec.transforms import restoration
from vaecodec.transforms.networks import rotation_matrix
from vaecodec.transforms.restoration import CLASSES, Filter
from vaecodec.wiener import Restoration

STEP = 8.0
LOGARITHM = round(4096 * np.log2(STEP / 255 / NORM**8))  # of the core's lowest coefficients, unit 2**-12
WORTH = 10.0  # bits for a squared error of 1


def filter_of(classes, channels, seed=0, most=20):
    rng = np.random.default_rng(seed)
    first = rng.integers(-most, most + 1, (classes, wiener.WEIGHTS)).astype(np.int8)
    others = rng.integers(-most, most + 1, wiener.others_of(channels)).astype(np.int8)
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
    found = parse(data)
    header = found.header._replace(filter=filter_of(4, 3, most=60).to_bytes())
    return repacked(codec, data, header), data


def repacked(codec, data, header):
    """The tiles of a file under another header, with the CRCs of the pixels that it leads to, where it leads to any."""
    tiles = [(data[one.offset : one.offset + one.length], one.crc, 0) for one in parse(data).tiles]
    found = container.pack(header, tiles)
    try:
        return container.with_pixel_crcs(found, codec.decoder.pixel_crcs(found))
    except FormatError:
        return found


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
    assert np.abs(Restoration(filter_of(classes, 3, most=127), STEP)(flat.copy()) - flat).max() < 1e-3
    zeros = filter_of(classes, 3)._replace(first=np.zeros((classes, 9), np.int8), others=np.zeros(6, np.int8))
    x = made(20, 30, 3)
    assert (Restoration(zeros, STEP)(x.copy()) == x).all()


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pixels_of_the_core_are_those_of_floats_but_for_rounding(classes, channels):
    levels = np.rint((made(48, 33, channels) - 127.5) * 64).astype(np.int16)
    x, found = filtering.pixels_of_levels(levels), filter_of(classes, channels, most=60)
    expected = Restoration(found, STEP)(x.copy())
    assert np.abs(expected - x).max() > 1
    ours = restore(levels, found.weights(rotation_matrix(channels), LOGARITHM))
    assert_close(ours, expected, x)


def assert_close(ours, expected, before):
    """Half a level is rounding to bytes; the core adds at most 32 to each rotated colour."""
    little = np.abs(expected - before).max(2) < 15
    assert little.mean() > 0.7
    assert np.abs(ours - np.clip(expected, 0, 255))[little].max() < 1
    assert np.abs(ours - np.clip(before, 0, 255)).max() < 32.5 * np.sqrt(before.shape[2]) + 1


def test_pixels_are_clipped_and_lose_their_fractions():
    x, found = 2 * made(64, 40, 3) - 120, filter_of(2, 3)
    whole, out = Restoration(found, STEP)(x.copy()), np.empty(x.shape, np.uint8)
    assert Restoration(found, STEP)(x, out=out) is out
    assert whole.min() < 0 and whole.max() > 255
    assert np.array_equal(out, np.clip(whole, 0, 255).astype(np.uint8))


def test_strips_change_nothing(monkeypatch):
    x, found = made(64, 40, 3), filter_of(4, 3)
    whole = Restoration(found, STEP)(x.copy())
    monkeypatch.setattr(wiener, "SAMPLES", 200)
    assert np.abs(Restoration(found, STEP)(x.copy()) - whole).max() < 1e-4


@pytest.mark.parametrize("classes", CLASSES)
def test_adjoint_is_that_of_inner_products(classes, monkeypatch):
    """Away from the edges, of a change that moves no class."""
    monkeypatch.setattr(wiener, "_halves", lambda height: [range(height)])  # so that activities are those of all
    x, filtered = made(40, 44, 3), Restoration(filter_of(classes, 3), STEP)
    rng = np.random.default_rng(1)
    move, error = np.zeros_like(x), rng.normal(size=x.shape).astype(np.float32)
    move[10:-10, 10:-10] = rng.normal(size=(20, 24, 3))
    error[:6], error[-6:], error[:, :6], error[:, -6:] = 0, 0, 0, 0
    still = Restoration(filter_of(classes, 3), STEP)
    still._ramps = [lambda active, one=one: one(wiener.activity(wiener.turned(x)[0]).ravel()) for one in still._ramps]
    change = still((x + move).copy()) - still(x.copy())
    there, here = float((change * error).sum()), float((filtered.adjoint(x, error) * move).sum())
    assert here == pytest.approx(there, rel=2e-3, abs=0.05)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_what_is_fitted_is_what_is_gained(channels):
    x, true = made(96, 80, channels), filter_of(4, channels, seed=3, most=60)
    wanted = Restoration(true, STEP)(x.copy())
    equations = filtering.equations(x, wanted, Box(0, 0, 96, 80), STEP)
    found = equations.best(WORTH)
    again = Restoration(found, STEP)(x.copy())
    before, after = (float(np.square(wanted - one, dtype=np.float64).sum()) for one in (x, again))
    assert len(found.first) == 4 and after < 0.01 * before
    finest = np.ldexp(found.first.astype(float), -found.shifts.astype(int)[:, None]).ravel()
    gained = equations.first.gained(finest) + equations.others.gained(np.ldexp(found.others, -restoration.OTHER_SHIFT))
    assert gained == pytest.approx(before - after, rel=1e-3)


def test_a_filter_is_worth_its_bytes_or_is_none():
    x = made(32, 32, 3)
    noise = np.random.default_rng(5).normal(size=x.shape).astype(np.float32)
    equations = filtering.equations(x, x + noise, Box(0, 0, 32, 32), STEP)
    assert equations.best(1e-3) is None
    assert filtering.none(3).best(1.0) is None and filtering.none(1).best(1.0) is None
    one = filtering.equations(x, Restoration(filter_of(1, 3, most=60), STEP)(x.copy()), Box(0, 0, 32, 32), STEP)
    assert len(one.best(WORTH).first) == 1  # more would say the same


def test_equations_of_parts_are_those_of_the_whole(monkeypatch):
    x, wanted = made(40, 48, 3), made(40, 48, 3, seed=1)
    whole = filtering.equations(x, wanted, Box(0, 0, 40, 48), STEP)
    monkeypatch.setattr(wiener, "SAMPLES", 300)
    parts = [Box(0, 0, 16, 48), Box(16, 0, 40, 20), Box(16, 20, 40, 48)]
    first, *rest = (filtering.equations(x, wanted, part, STEP) for part in parts)
    for one in rest:
        first = first + one
    for ours, theirs in zip((*whole.first, *whole.others), (*first.first, *first.others), strict=True):
        assert np.abs(ours - theirs).max() < 1e-5 * np.abs(ours).max()


def test_files_are_decoded_alike(codec, crop, filtered):
    data, plain = filtered
    pixels = codec.decode(data).astype(int)
    assert np.abs(pixels - codec.decode(plain)).max() > 8
    np.testing.assert_array_equal(codec.decode_levels(data), codec.decode_levels(plain))  # before the filter
    exact = Restoration(filter_of(4, 3, most=60), codec.model.step_size(parse(data).header.step))
    before = filtering.pixels_of_levels(codec.decode_levels(data))
    inside = slice(0, -8), slice(0, -8)  # decoders filter whole cells, and cut off what is beyond the picture then
    assert_close(pixels[inside], exact(before.copy())[inside], before[inside])
    codec.verify(data)
    assert codec.symbol_crcs(data) == codec.symbol_crcs(plain)
    assert codec.decode(data, reduce=4).shape == (32, 38, 3)
    assert container.info(data)["filtered"] and not container.info(plain)["filtered"]


def test_info_says_so(filtered, tmp_path, capsys):
    for name, data in zip(("one.vae", "two.vae"), filtered, strict=True):
        (tmp_path / name).write_bytes(data)
        assert main(["info", str(tmp_path / name)]) == 0
    one, two = capsys.readouterr().out.splitlines()
    assert one.endswith(", with a filter") and "filter" not in two


def test_tensorflow_decodes_alike(codec, filtered):
    pytest.importorskip("vaecodec.transforms.tensorflow")
    np.testing.assert_array_equal(Codec(codec.model, "tensorflow").decode(filtered[0]), codec.decode(filtered[0]))


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
    levels, header = codec.decode_levels(tiled), parse(tiled).header  # of the whole, which has no seams
    low = int(codec.model.gains.logarithms(header.step)[-1])
    weights = restoration.from_bytes(header.filter, 3).weights(rotation_matrix(3), low)
    np.testing.assert_array_equal(codec.decode(tiled), restore(levels, weights))
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
    assert plans.undisturbed(Box(0, 0, 8, 8), cells, whole, 4) == (0, 0, 64, 64)
    assert plans.undisturbed(Box(8, 8, 14, 16), cells, whole, 4) == (64, 64, 96, 122)
    assert plans.undisturbed(Box(0, 0, 14, 16), cells, whole, 4) == (0, 0, *whole)
    for box in (Box(4, 4, 8, 8), Box(4, 0, 8, 16), Box(12, 12, 14, 16)):
        assert plans.undisturbed(box, cells, whole, 4).shape == (0, 0)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_equations_of_one_class_are_those_of_all_together(channels):
    """Sums of the core are of samples in eighths of a level."""
    levels = np.rint((made(48, 64, channels) - 127.5) * 64).astype(np.int16)
    x, wanted = filtering.pixels_of_levels(levels), np.clip(made(48, 64, channels, seed=1), 0, 255).astype(np.uint8)
    rotation = rotation_matrix(channels)
    for area in (Box(16, 0, 45, 64), Box(0, 3, 48, 40)):
        whole = filtering.equations(x, wanted.astype(np.float32), area, STEP)
        found = filtering.of_one_class(levels, wanted, area, 1, rotation)
        with pool_of(3) as threads:
            again = filtering.of_one_class(levels, wanted, area, 1, rotation, threads)
        for theirs, ours in zip((*whole._merged(1), *whole.others), (*found._merged(1), *found.others), strict=True):
            assert np.abs(ours - theirs).max(initial=0) <= 0.01 * np.abs(theirs).max(initial=0)
        for one, other in zip((*found.first, *found.others), (*again.first, *again.others), strict=True):
            np.testing.assert_array_equal(one, other)
        sparse = filtering.of_one_class(levels, wanted, area, 5, rotation)
        assert sparse.first.right[0] == pytest.approx(found.first.right[0], rel=0.5)
        assert len(found.best(WORTH).first) == 1


def test_the_halo_is_wide_enough(codec):
    config = codec.model.config
    assert halo(config, True) * 16 >= 46 + 8 * config.fine_blocks + wiener.REACH
    assert halo(config) <= halo(config, True)


def test_refined_files_have_filters_that_lower_the_cost(codec, crop, monkeypatch):
    data = codec.encode(crop, 50, effort=3)
    found = parse(data)
    assert found.header.filter
    without = repacked(codec, data, found.header._replace(filter=b""))
    errors = [float(np.square(codec.decode(one).astype(float) - crop).sum()) for one in (data, without)]
    assert errors[0] < errors[1] and len(data) - len(without) == len(found.header.filter)


def test_damage_is_said(codec, filtered):
    data, _ = filtered
    found = parse(data)
    for bad in (b"\7", found.header.filter + b"\0", found.header.filter[:-1]):
        with pytest.raises(FormatError, match="filter"):
            codec.decode(repacked(codec, data, found.header._replace(filter=bad)))
        with pytest.raises(FormatError, match="filter"):
            codec.verify(repacked(codec, data, found.header._replace(filter=bad)))


@pytest.mark.parametrize("flags, filter", [(0, b"\0" * 17), (1, b""), (2, b""), (3, b"\0" * 17)])
def test_flags_say_whether_there_is_a_filter(codec, filtered, flags, filter):
    plain = filtered[1]
    at, length = next((at, length) for tag, at, length in container.chunks(plain) if tag == b"HEAD")
    head = bytearray(plain[at : at + length]) + filter
    head[1] = flags
    body = plain[at + length + 4 :]
    bad = container.MAGIC + container.chunk(b"HEAD", bytes(head)) + body
    with pytest.raises(CodecError, match="header"):
        codec.decode(bad)
    assert struct.unpack_from("<B", bytes(head), 1) == (flags,)


@pytest.mark.parametrize("extreme", [-128, 127])
def test_extreme_weights_are_decoded_alike_by_all(codec, filtered, extreme):
    found = Filter(np.full((4, 9), extreme, np.int8), np.zeros(4, np.uint8), np.full(6, extreme, np.int8))
    data = repacked(codec, filtered[1], parse(filtered[1]).header._replace(filter=found.to_bytes()))
    decoded = []
    for kind in library.kinds():
        with library.use(kind):
            decoded.append(Codec(codec.model, threads=2).decode(data))
    assert all(np.array_equal(pixels, decoded[0]) for pixels in decoded)
    added = decoded[0].astype(int) - codec.decode(filtered[1])
    assert 30 < np.abs(added).max() < 32.5 * np.sqrt(3) + 1  # at most 32 in each rotated colour


def test_mutants_are_decoded_or_refused(codec, filtered):
    data = filtered[0]
    at, length = next((at, length) for tag, at, length in container.chunks(data) if tag == b"HEAD")
    rng, outcomes = np.random.default_rng(0), set()
    for _ in range(60):
        head = bytearray(data[at : at + length])
        head[int(rng.integers(30, length))] = int(rng.integers(256))
        body = data[at + length + 4 :]
        try:
            codec.decode(container.MAGIC + container.chunk(b"HEAD", bytes(head)) + body)
            outcomes.add(str)
        except FormatError as exc:
            outcomes.add(type(exc))
    assert str in outcomes
