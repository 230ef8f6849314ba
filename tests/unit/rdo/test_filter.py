"""Test the restoration filter of an image: fitting predicts the gain, and all decoders agree."""

import struct

import numpy as np
import pytest
from PIL import Image

from reference import reference_decoder
from support.models import with_filter
from vaecodec import container, transforms
from vaecodec.cli import main
from vaecodec.codec import Codec, tiles
from vaecodec.container import image_file
from vaecodec.container.image_file import parse
from vaecodec.errors import CodecError, FormatError
from vaecodec.model.file import load_model, path_of_model
from vaecodec.native import library
from vaecodec.native.transforms import restore
from vaecodec.rdo import filter as filters
from vaecodec.rdo import float_decoder
from vaecodec.rdo.filter import Equations
from vaecodec.rdo.float_decoder import FloatFilter, fit_classes
from vaecodec.transforms import FILTER_CLASSES, Box, Filter, halo
from vaecodec.transforms.networks import integer_color_transform
from vaecodec.transforms.wavelet import NORM

STEP = 8.0
SQUARED_STEPS_PER_BIT = 10.0  # bits for a squared error of 1
LOGARITHM = round(4096 * np.log2(STEP / 255 / NORM**8))  # of the lowest coefficients' gain at this step size


def filter_of(classes, channels, seed=0, most=20):
    rng = np.random.default_rng(seed)
    first = rng.integers(-most, most + 1, (classes, filters.WEIGHTS)).astype(np.int8)
    others = rng.integers(-most, most + 1, 2 * channels if channels > 1 else 0).astype(np.int8)
    return Filter(first, rng.integers(8, 12, classes).astype(np.uint8), others)


def textured_image(height, width, channels, seed=0):
    """f32[H, W, C]: a gradient, and noise that grows to the right."""
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
    """A file with a filter of four classes and large weights, and the same file without a filter."""
    data = codec.encode_unfiltered(crop, 40)
    return with_filter(codec, data, filter_of(4, 3, most=60).to_bytes()), data


def levels_of(x):
    """Convert f32 on a scale of 0 to 255 to i16 around the middle, in units of 2**-6 levels."""
    return np.rint((x - 127.5) * 64).astype(np.int16)


@pytest.mark.parametrize("classes", FILTER_CLASSES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_parsing_inverts_serialisation(classes, channels):
    fitted = filter_of(classes, channels)
    parsed = transforms.read_filter(fitted.to_bytes(), channels)
    assert all((a == b).all() for a, b in zip(fitted, parsed, strict=True))
    for damaged in (fitted.to_bytes() + b"\0", fitted.to_bytes()[:-1], b"\3" + fitted.to_bytes()[1:], b""):
        with pytest.raises(FormatError, match="filter"):
            transforms.read_filter(damaged, channels)
    with pytest.raises(FormatError, match="units"):
        transforms.read_filter(fitted.to_bytes()[:1] + b"\x10" + fitted.to_bytes()[2:], channels)


@pytest.mark.parametrize("classes", FILTER_CLASSES)
def test_flat_images_and_zero_weights_change_no_pixel(classes):
    flat = np.full((20, 30, 3), 77, np.float32)
    assert np.abs(FloatFilter(filter_of(classes, 3, most=127), STEP)(flat.copy()) - flat).max() < 1e-3
    zeros = filter_of(classes, 3)._replace(first=np.zeros((classes, 9), np.int8), others=np.zeros(6, np.int8))
    image = textured_image(20, 30, 3)
    assert (FloatFilter(zeros, STEP)(image.copy()) == image).all()


@pytest.mark.parametrize("classes", FILTER_CLASSES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_pixels_equal_the_reference_decoder(classes, channels):
    x, weights = textured_image(48, 33, channels), filter_of(classes, channels, most=60)
    levels = levels_of(x)
    filtered = reference_decoder.restored(levels.astype(np.int64), weights.to_bytes(), LOGARITHM)
    expected = np.clip((filtered + 8192) >> 6, 0, 255)
    assert np.abs(expected - x).max() > 1
    assert np.array_equal(restore(levels, weights.weights(integer_color_transform(channels), LOGARITHM)), expected)


@pytest.mark.parametrize("classes", FILTER_CLASSES)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_integer_filter_is_close_to_the_float_filter_of_encoders(classes, channels):
    x, weights = textured_image(48, 33, channels), filter_of(classes, channels)
    pixels = restore(levels_of(x), weights.weights(integer_color_transform(channels), LOGARITHM))
    floats = FloatFilter(weights, STEP)(levels_of(x) / np.float32(64) + np.float32(127.5))
    assert np.abs(np.clip(floats, 0, 255) - pixels).max() < 1


def test_strips_do_not_change_the_result(monkeypatch):
    x, weights = textured_image(64, 40, 3), filter_of(4, 3)
    expected = FloatFilter(weights, STEP)(x.copy())
    monkeypatch.setattr(float_decoder, "STRIP_SAMPLES", 200)
    assert np.abs(FloatFilter(weights, STEP)(x.copy()) - expected).max() < 1e-4


@pytest.mark.parametrize("classes", FILTER_CLASSES)
def test_adjoint_preserves_inner_products(classes, monkeypatch):
    """Check away from the edges, with a change that moves no sample to another class."""
    x, float_filter = textured_image(40, 44, 3), FloatFilter(filter_of(classes, 3), STEP)
    rng = np.random.default_rng(1)
    change, error = np.zeros_like(x), rng.normal(size=x.shape).astype(np.float32)
    change[10:-10, 10:-10] = rng.normal(size=(20, 24, 3))
    error[:6], error[-6:], error[:, :6], error[:, -6:] = 0, 0, 0, 0
    frozen_classes = FloatFilter(filter_of(classes, 3), STEP)
    frozen_classes._ramps = [
        lambda active, ramp=ramp: ramp(float_decoder._activity(float_decoder._rotated(x)[0]).ravel())
        for ramp in frozen_classes._ramps
    ]
    response = frozen_classes((x + change).copy()) - frozen_classes(x.copy())
    output_product, input_product = (
        float((response * error).sum()),
        float((float_filter.adjoint(x, error) * change).sum()),
    )
    assert input_product == pytest.approx(output_product, rel=2e-3, abs=0.05)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_fitting_predicts_the_error_reduction(channels):
    x, true = textured_image(96, 80, channels), filter_of(4, channels, seed=3, most=60)
    target = FloatFilter(true, STEP)(x.copy())
    equations = fit_classes(x, target, Box(0, 0, 96, 80), STEP)
    fitted = equations.best_filter(SQUARED_STEPS_PER_BIT)
    restored = FloatFilter(fitted, STEP)(x.copy())
    before, after = (float(np.square(target - image, dtype=np.float64).sum()) for image in (x, restored))
    assert len(fitted.first) == 4 and after < 0.01 * before
    first_weights = np.ldexp(fitted.first.astype(float), -fitted.shifts.astype(int)[:, None]).ravel()
    predicted = equations.first.error_reduction(first_weights) + equations.others.error_reduction(
        np.ldexp(fitted.others, -filters.OTHER_SHIFT)
    )
    assert predicted == pytest.approx(before - after, rel=1e-3)


def test_a_filter_that_does_not_repay_its_bytes_is_dropped():
    x = textured_image(32, 32, 3)
    noise = np.random.default_rng(5).normal(size=x.shape).astype(np.float32)
    equations = fit_classes(x, x + noise, Box(0, 0, 32, 32), STEP)
    assert equations.best_filter(1e-3) is None
    assert Equations.zero(3).best_filter(1.0) is None and Equations.zero(1).best_filter(1.0) is None
    equations_of_one_class = fit_classes(
        x, FloatFilter(filter_of(1, 3, most=60), STEP)(x.copy()), Box(0, 0, 32, 32), STEP
    )
    assert (
        len(equations_of_one_class.best_filter(SQUARED_STEPS_PER_BIT).first) == 1
    )  # more classes would have equal weights


def test_equations_of_areas_add_up(monkeypatch):
    x, target = textured_image(40, 48, 3), textured_image(40, 48, 3, seed=1)
    expected = fit_classes(x, target, Box(0, 0, 40, 48), STEP)
    monkeypatch.setattr(float_decoder, "STRIP_SAMPLES", 300)
    parts = [Box(0, 0, 16, 48), Box(16, 0, 40, 20), Box(16, 20, 40, 48)]
    total, *others = (fit_classes(x, target, part, STEP) for part in parts)
    for equations in others:
        total = total + equations
    for expected_sums, sums in zip((*expected.first, *expected.others), (*total.first, *total.others), strict=True):
        assert np.abs(expected_sums - sums).max() < 1e-5 * np.abs(expected_sums).max()


def test_all_decoders_agree_on_filtered_files(codec, crop, filtered):
    data, unfiltered = filtered
    pixels = codec.decode(data).astype(int)
    assert np.abs(pixels - codec.decode(unfiltered)).max() > 8
    model = reference_decoder.read_model(path_of_model("small"))
    assert np.array_equal(reference_decoder.decode(data, model), pixels)
    assert codec.symbol_crcs(data) == codec.symbol_crcs(unfiltered)
    assert codec.decode(data, reduce=4).shape == (32, 38, 3)
    assert image_file.info(data)["filtered"] and not image_file.info(unfiltered)["filtered"]


def test_info_shows_the_restoration(filtered, tmp_path, capsys):
    for name, data in zip(("one.vae", "two.vae"), filtered, strict=True):
        (tmp_path / name).write_bytes(data)
        assert main(["info", "-v", str(tmp_path / name)]) == 0
    filtered_line, unfiltered_line = capsys.readouterr().out.splitlines()
    assert filtered_line.endswith(", restoration filter") and "filter" not in unfiltered_line


def test_windows_and_batches_equal_whole_images(codec, filtered, crop):
    data, unfiltered = filtered
    expected = codec.decode(data)
    assert (codec.decode(data, (30, 40, 50, 60)) == expected[30:80, 40:100]).all()
    batch = codec.decode_batch([data, unfiltered, data])
    assert (
        (batch[0] == expected).all() and (batch[1] == codec.decode(unfiltered)).all() and (batch[2] == expected).all()
    )


@pytest.fixture(scope="module")
def shifted(crop):
    """u8[224, 256, 3] whose blue channel is shifted by one pixel."""
    large = np.tile(crop, (2, 2, 1))[:224, :256]
    large[..., 2] = np.roll(large[..., 2], 1, 1)
    return large


def test_effort_fits_one_filter_to_all_tiles(codec, shifted):
    files = [
        codec.encode_unfiltered(shifted, 60),
        *(codec.encode(shifted, 60, effort=effort, tune="psnr") for effort in (1, 3)),
    ]
    errors = [float(np.square(codec.decode(file).astype(float) - shifted).sum()) for file in files]
    none, one_class, four_classes = (parse(file).header.filter for file in files)
    assert not none and one_class[0] == 0 and len(four_classes) >= len(one_class) and errors[0] > errors[1] >= errors[2]
    assert codec.symbol_crcs(files[0]) == codec.symbol_crcs(files[1])
    tiled = codec.encode(shifted, 60, effort=3, tile=128)
    assert len(parse(tiled).tiles) == 4 and parse(tiled).header.filter
    expected = reference_decoder.decode(
        tiled, reference_decoder.read_model(path_of_model("small"))
    )  # it decodes the image as one tile
    assert np.array_equal(codec.decode(tiled, check=True), expected)
    part = codec.decode(tiled, (100, 100, 60, 60))
    assert (part == codec.decode(tiled)[100:160, 100:160]).all()


def test_coding_latents_fits_the_same_filter_as_coding_the_image(codec, shifted):
    for tile in (1024, 128):
        data = codec.encode(shifted, 60, tile=tile)
        assert parse(data).header.filter
        latents = codec.analyse_batch([shifted], 60, tile)[0]
        assert codec.encode_latents(shifted, latents, 60, tile=tile) == data


def test_tiles_within_each_others_halo_have_no_filter(codec, shifted):
    assert not parse(codec.encode(shifted, 60, tile=64)).header.filter
    cells, size = (14, 16), (224, 250)
    assert tiles.halo_free_area(Box(0, 0, 8, 8), cells, size, 4) == (0, 0, 64, 64)
    assert tiles.halo_free_area(Box(8, 8, 14, 16), cells, size, 4) == (64, 64, 96, 122)
    assert tiles.halo_free_area(Box(0, 0, 14, 16), cells, size, 4) == (0, 0, *size)
    for box in (Box(4, 4, 8, 8), Box(4, 0, 8, 16), Box(12, 12, 14, 16)):
        assert tiles.halo_free_area(box, cells, size, 4).shape == (0, 0)


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_one_class_fit_matches_the_float_fit(channels, monkeypatch):
    levels, target = (
        levels_of(textured_image(48, 64, channels)),
        np.clip(textured_image(48, 64, channels, seed=1), 0, 255).astype(np.uint8),
    )
    x, rotation = levels * np.float32(1 / 64) + np.float32(127.5), integer_color_transform(channels)
    for area in (Box(16, 0, 45, 64), Box(0, 3, 48, 40)):
        float_equations = fit_classes(x, target.astype(np.float32), area, STEP)
        monkeypatch.setattr(float_decoder, "STRIP_SAMPLES", 300)
        equations = filters.fit_one_class(levels, target, area, 1, rotation)
        monkeypatch.undo()
        for expected, sums in zip(
            (*float_equations._with_classes(1), *float_equations.others),
            (*equations._with_classes(1), *equations.others),
            strict=True,
        ):
            assert np.abs(sums - expected).max(initial=0) <= 2e-2 * np.abs(expected).max(initial=0)
        sparse = filters.fit_one_class(levels, target, area, 5, rotation)
        assert sparse.first.right[0] == pytest.approx(equations.first.right[0], rel=0.5)
        assert len(equations.best_filter(SQUARED_STEPS_PER_BIT).first) == 1


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_class_fit_of_the_core_matches_the_float_fit(channels, kinds):
    levels = levels_of(textured_image(48, 64, channels))
    target = np.clip(textured_image(48, 64, channels, seed=1), 0, 255).astype(np.uint8)
    x, rotation = levels * np.float32(1 / 64) + np.float32(127.5), integer_color_transform(channels)
    for area in (Box(16, 0, 45, 64), Box(0, 3, 48, 40)):
        floats, results = fit_classes(x, target.astype(np.float32), area, STEP), []
        for kind in kinds:
            with library.use(kind):
                results.append(filters.fit_all_classes(levels, target, area, STEP, 1, rotation))
        for other in results:
            for ours, theirs, first in zip(
                (*other.first, *other.others),
                (*floats.first, *floats.others),
                (*results[0].first, *results[0].others),
                strict=True,
            ):
                assert np.abs(ours - theirs).max(initial=0) <= 3e-2 * np.abs(theirs).max(initial=0)
                np.testing.assert_array_equal(ours, first)


def test_the_halo_covers_the_reach_of_the_networks_and_filter(codec):
    config = codec.model.config
    assert halo(config, True) * 16 >= 46 + 8 * config.fine_blocks + float_decoder.REACH
    assert halo(config) <= halo(config, True)


def test_filters_of_refined_files_lower_the_error(codec, crop, monkeypatch):
    data = codec.encode(crop, 50, effort=3)
    parsed = parse(data)
    assert parsed.header.filter
    without = with_filter(codec, data, b"")
    errors = [float(np.square(codec.decode(file).astype(float) - crop).sum()) for file in (data, without)]
    assert errors[0] < errors[1] and len(data) - len(without) == len(parsed.header.filter)


def test_damaged_filters_are_refused(codec, filtered):
    data, _ = filtered
    parsed = parse(data)
    tiles = [(data[tile.offset : tile.offset + tile.length], tile.crc, tile.pixels) for tile in parsed.tiles]
    for damaged in (b"\7", parsed.header.filter + b"\0", parsed.header.filter[:-1]):
        with pytest.raises(FormatError, match="filter"):
            codec.decode(image_file.pack(parsed.header._replace(filter=damaged), tiles))
        with pytest.raises(FormatError, match="filter"):
            codec.verify(image_file.pack(parsed.header._replace(filter=damaged), tiles))


@pytest.mark.parametrize(
    "flags, filter",
    [(0, b"\0" * 17), (1, b""), (2, b"\0" * 17), (15, b""), (16, b"\0" * 17), (17, b""), (32, b""), (33, b"\0" * 17)],
)
def test_flags_must_match_the_filter(codec, filtered, flags, filter):
    unfiltered = filtered[1]
    at, length = next((at, length) for tag, at, length in container.read_chunks(unfiltered) if tag == b"HEAD")
    head = bytearray(unfiltered[at : at + length]) + filter
    head[1] = flags
    body = unfiltered[at + length + 4 :]
    damaged = container.MAGIC + container.pack_chunk(b"HEAD", bytes(head)) + body
    with pytest.raises(CodecError, match="header"):
        codec.decode(damaged)
    with pytest.raises(Exception, match="HEAD"):
        reference_decoder.read_file(damaged, reference_decoder.read_model(path_of_model("small")))
    assert struct.unpack_from("<B", bytes(head), 1) == (flags,)


@pytest.mark.parametrize("extreme", [-128, 127])
def test_all_decoders_agree_on_extreme_weights(codec, filtered, extreme):
    extremes = Filter(np.full((4, 9), extreme, np.int8), np.zeros(4, np.uint8), np.full(6, extreme, np.int8))
    data = with_filter(codec, filtered[1], extremes.to_bytes())
    pixels = codec.decode(data)
    expected = reference_decoder.decode(data, reference_decoder.read_model(path_of_model("small")))
    assert np.array_equal(pixels, expected)


def test_mutants_are_decoded_or_refused_with_a_format_error(codec, filtered):
    data = filtered[0]
    at, length = next((at, length) for tag, at, length in container.read_chunks(data) if tag == b"HEAD")
    rng, outcomes = np.random.default_rng(0), set()
    for _ in range(60):
        head = bytearray(data[at : at + length])
        head[int(rng.integers(42, length))] = int(rng.integers(256))
        body = data[at + length + 4 :]
        try:
            codec.decode(container.MAGIC + container.pack_chunk(b"HEAD", bytes(head)) + body)
            outcomes.add(str)
        except FormatError as exc:
            outcomes.add(type(exc))
    assert str in outcomes
