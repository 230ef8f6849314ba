"""Tune for the eye: bits go where errors are seen, and decoders need not know."""

import io
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.paths import ROOT
from vaecodec.arguments import TUNES
from vaecodec.cli import main
from vaecodec.codec import Codec
from vaecodec.config import MAX_TILT, QUALITY_INDICES
from vaecodec.container import image_file
from vaecodec.container.image_file import parse
from vaecodec.model.file import load_model
from vaecodec.native import library
from vaecodec.prior import GAIN_MAX
from vaecodec.rdo import prices
from vaecodec.rdo.prices import prices_of_tile, squares_of_weights
from vaecodec.transforms.networks import LOG_MAX, step_logarithms
from vaecodec.transforms.wavelet import Coefficients, empty_coefficients


@pytest.fixture(scope="module")
def image():
    """Flat on the left, and busy on the right."""
    image = np.array(Image.open(ROOT / "docs" / "examples" / "parrots.png"))[60:210, 40:230]
    flat = np.asarray(Image.fromarray(image).resize((19, 15)).resize((190, 150), Image.Resampling.BICUBIC))
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    image[:, :95] = np.clip(flat[:, :95] + noise[:, :95], 0, 255)
    image[:, 95:] = np.clip(image[:, 95:] + 8 * noise[:, 95:], 0, 255)
    return image


def squared_errors(data, image):
    errors = np.square(vaecodec.decode(data).astype(float) - image).mean(-1)
    return errors[:, :90].mean(), errors[:, 100:].mean()


@pytest.mark.parametrize("effort", [1, 2])
def test_errors_move_from_flat_to_busy_regions(image, effort):
    files = [vaecodec.encode(image, 60, effort=effort, tune=tune) for tune in TUNES]
    (flat, busy), (plain_flat, plain_busy) = (squared_errors(data, image) for data in files)
    assert flat / busy < 0.85 * plain_flat / plain_busy


def test_a_target_psnr_is_met_with_fewer_bits_without_the_eye(image):
    default, eye_file, plain = (
        vaecodec.encode(image, target_psnr=30, **how) for how in ({}, {"tune": "eye"}, {"tune": "psnr"})
    )
    assert default == plain and len(plain) < len(eye_file)
    assert vaecodec.encode(image, target_size=3000, tune="eye") != vaecodec.encode(image, target_size=3000, tune="psnr")


def test_threads_and_tiles_and_kernels_do_not_change_the_bytes(tiny, kinds, image):
    for options in ({}, {"tile": 64}, {"tile": 64, "effort": 2}):
        files = {Codec(tiny.model, threads=n).encode(image, 60, tune="eye", **options) for n in (1, 3)}
        assert len(files) == 1 and files != {tiny.encode(image, 60, tune="psnr", **options)}
    files = set()
    for kind in (*kinds, library.REFERENCE):
        with library.use(kind):
            files.add(tiny.encode(image[:70, :90], 60, tune="eye"))
    assert len(files) == 1


def test_coefficients_without_their_halo_give_the_same_file(tiny, image):
    [latents] = tiny.analyse_batch([image], 60, tile=64, tune="eye")
    assert tiny.encode_latents(image, latents, 60, tile=64, tune="eye") == tiny.encode(image, 60, tile=64, tune="eye")


def test_the_header_tells_decoders_the_tilt(tiny, image):
    data, plain = (tiny.encode(image, 60, tune=tune) for tune in TUNES)
    assert (parse(data).header.tilt, parse(plain).header.tilt) == (prices.TILT, 0)
    assert tiny.encode_latents(image, tiny.analyse_batch([image], 60, tune="eye")[0], 60, tune="eye") == data
    np.testing.assert_array_equal(tiny.decode_batch([data, plain])[0], tiny.decode(data, check=True))
    assert tiny.decode(data, reduce=4).shape == (38, 48, 3)


def test_a_tilt_scales_steps_by_octave_and_keeps_their_bounds(tiny):
    model, tilted = tiny.model, tiny.model.tilted(MAX_TILT)
    assert tilted.tilted(0) is model and model.tilted(MAX_TILT) is tilted
    for octave in range(5):
        ratio = 2 ** (MAX_TILT * (2 - octave) / 16)
        before, after = (m.prior.inverse_gain(octave, 60) for m in (model, tilted))
        np.testing.assert_allclose(after, np.clip(before * ratio, 1, GAIN_MAX), atol=0.51)
        if octave < 4:
            places = slice(9 * octave, 9 * octave + 9)
            steps = [m.gains.logarithms(500)[places] for m in (model, tilted)]
            np.testing.assert_array_equal(steps[1] - steps[0], 4096 * MAX_TILT * (2 - octave) // 16)
    np.testing.assert_array_equal(*(m.gains.logarithms(500)[36:] for m in (model, tilted)))
    assert step_logarithms(np.full((8, 39), LOG_MAX, np.int32), 500, MAX_TILT).max() == LOG_MAX


def test_weights_and_the_eye_compose(tiny, image):
    pixels = np.ascontiguousarray(image[:48, :80])
    coefficients = tiny.model.transforms.analysis([pixels], 500)[0]
    weights = np.full((48, 80), 0.25, np.float32)
    both, of_eye = (prices_of_tile("eye", coefficients, roi) for roi in (weights, None))
    assert prices_of_tile("psnr", coefficients) is None
    for a, b in zip(both, of_eye, strict=True):
        assert a is b is None or np.array_equal(a, 4 * b)
    ones = np.ones(image.shape[:2])
    assert vaecodec.encode(image, 60, roi=ones, tune="eye") == vaecodec.encode(image, 60, tune="eye")
    assert vaecodec.encode(image, 60, roi=ones / 4, tune="eye") != vaecodec.encode(image, 60, tune="eye")


def coefficients_of(cells, channels=3):
    rng, planes = np.random.default_rng(sum(cells)), empty_coefficients(channels, cells).planes()
    for octave, plane in enumerate(planes):
        plane[...] = rng.laplace(0, 60 << octave, plane.shape).astype(np.int32)
    return Coefficients(planes[:-1], planes[-1])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (4, 2)])
def test_prices_are_powers_of_the_activity(cells, channels):
    coefficients = coefficients_of(cells, channels)
    squares = prices.prices_of_squares(coefficients)
    expected = squares_of_weights(np.ones((16 * cells[0], 16 * cells[1]), np.float32), cells)
    assert [price.shape for price in squares] == [price.shape for price in expected]
    means = []
    for octave, side in enumerate((4, 2, 1)):
        brightness = np.abs(coefficients.subbands[octave][::channels].astype(float)).mean(0)
        means.append(brightness.reshape(2 * cells[0], side, 2 * cells[1], side).mean((1, 3)))
    padded = np.pad(sum(means) * 255 / 2**14, 1, "edge")
    rows, columns = np.indices(means[0].shape)
    around = sum(padded[rows + y, columns + x] for y in range(3) for x in range(3)) / 9
    exact = ((around + prices.FLOOR) / prices.TYPICAL) ** prices.EXPONENT
    step = 2 ** (prices.EXPONENT / prices.LEVELS_PER_OCTAVE)
    assert (squares[1] <= exact * 1.001).all() and (squares[1] * step >= exact * 0.999).all()
    np.testing.assert_array_equal(squares[0], squares[1].repeat(2, 0).repeat(2, 1))
    for finer, coarser in pairwise(squares[1:]):
        assert finer.min() <= coarser.min() and coarser.max() <= finer.max()


def test_prices_are_bounded_by_those_of_no_and_full_activity():
    flat, full = coefficients_of((2, 3)), coefficients_of((2, 3))
    for plane in flat.planes():
        plane[...] = 0
    for plane in full.planes():
        plane[...] = -(1 << 16)
    for coefficients, index in ((flat, 0), (full, -1)):
        assert {float(price) for squares in prices.prices_of_squares(coefficients) for price in squares.ravel()} <= {
            float(price) for price in (prices.PRICES[:1] if index == 0 else prices.PRICES[40:])
        }


def test_the_command_line_takes_a_tune(image, tmp_path, capsys):
    source = str(tmp_path / "a.png")
    Image.fromarray(image).save(source)
    for tune in TUNES:
        out = tmp_path / f"{tune}.vae"
        assert main(["compress", source, "--tune", tune, "-o", str(out), "-m", "small"]) == 0
        assert out.read_bytes() == vaecodec.encode(image, tune=tune, model="small")
        buffer = io.BytesIO()
        vaecodec.compress_file(source, buffer, tune=tune, model="small")
        assert buffer.getvalue() == out.read_bytes()
    assert main(["compress", source, "--tune", "ear"]) == 2
    assert "--tune" in capsys.readouterr().err


def test_files_tell_the_quality_that_was_asked_for(tiny, image):
    assert image_file.quality_index_of(60, 3) > image_file.quality_index_of(60)
    for tune in TUNES:
        for quality in (1, 50, 60.5, 90, 100):
            assert image_file.info(tiny.encode(image[:20, :30], quality, tune=tune))["quality"] == quality
    for tilt in range(4):
        indices = [image_file.quality_index_of(quality, tilt) for quality in range(1, 101)]
        assert indices == sorted(indices) and indices[-1] == QUALITY_INDICES - 1
        shown = [image_file.shown_quality_of(index, tilt) for index in indices]
        assert all(a == b or index == indices[-1] for a, b, index in zip(shown, range(1, 101), indices, strict=True))


def squares(side, colours, seed):
    """u8[256, 256, 3] of squares of these colours, at random."""
    count = -(-256 // side)
    places = np.random.default_rng(seed).integers(0, len(colours), (count, count))
    pixels = np.asarray(colours, np.uint8)[np.kron(places, np.ones((side, side), int))[:256, :256]]
    return np.ascontiguousarray(pixels)


CORNERS = np.stack(np.meshgrid(*[(0, 255)] * 3), -1).reshape(-1, 3)  # of the colour cube
YELLOW, WHITE, BLACK, BLUE, MAGENTA = (255, 220, 0), (255,) * 3, (0,) * 3, (0, 0, 255), (255, 0, 255)


@pytest.mark.parametrize("name", ["small", "base"])
@pytest.mark.parametrize("side", [2, 4, 8, 16])
def test_extreme_colours_are_no_larger_and_worse(name, side):
    """An analysis for the eye that has not seen saturated colours may fail on them."""
    codec = Codec(load_model(name), threads=1)
    for colours in (CORNERS, (YELLOW, WHITE), (YELLOW, BLACK), (BLUE, MAGENTA)):
        image = squares(side, colours, side)
        files = [codec.encode(image, 75, tune=tune) for tune in TUNES]
        errors = [np.square(codec.decode(data).astype(float) - image).mean() for data in files]
        excess = 10 * np.log10(errors[0] / errors[1])
        assert len(files[0]) < 1.03 * len(files[1]) or excess < 1, (colours, len(files[0]) / len(files[1]), excess)
        assert excess < 8, (colours, excess)
