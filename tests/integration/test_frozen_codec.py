"""Test a codec of a frozen model that is not a shipped model."""

import math

import numpy as np
import pytest

from support.images import synthetic_image
from support.models import SMALL_CONFIG as CONFIG
from support.models import freeze_weights, random_weights

pytest.importorskip("tensorflow")

from vaecodec import generative, rdo
from vaecodec.codec import Codec
from vaecodec.config import LAST_ANCHOR, SQUARED_STEPS_PER_BIT, Config
from vaecodec.container.image_file import parse, quality_index_of
from vaecodec.images.channels import downscale
from vaecodec.model.file import load_model
from vaecodec.prior import Distributions, choose_symbols, decode_tile
from vaecodec.threads import Threads
from vaecodec.transforms import Box, halo
from vaecodec.transforms.wavelet import empty_coefficients, quantisation_targets


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    model = load_model(freeze_weights(tmp_path_factory.mktemp("run"), CONFIG, random_weights(CONFIG)))
    assert not model.shipped and model.config == CONFIG
    return Codec(model)


def psnr(x, y):
    return 10 * np.log10(255**2 / np.square(x.astype(np.float64) - y).mean())


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (16, 16), (33, 48), (200, 333)])
def test_quality_improves_with_bits(codec, shape):
    x = synthetic_image(*shape)
    files = [codec.encode(x, quality, tune="psnr") for quality in (20, 60, 100)]
    decoded = [codec.decode(data) for data in files]
    assert [y.shape for y in decoded] == [x.shape] * 3
    assert psnr(x, decoded[2]) > 29 and psnr(x, decoded[2]) > psnr(x, decoded[0])
    # An image of one pixel takes almost no bits at any quality.
    assert len(files[0]) <= len(files[1]) <= len(files[2]) or x.shape == (1, 1, 3)


@pytest.mark.parametrize("quality", [1, 50, 100])
def test_decoded_values_are_close_to_their_targets(codec, quality):
    x, quality_index, model = synthetic_image(130, 170), quality_index_of(quality), codec.model
    header, [tile], _ = parse(data := codec.encode(x, quality, tune="psnr"))
    payload = data[tile.offset : tile.offset + tile.length]
    rest = (9, 11), quality_index, payload, tile.crc
    values = decode_tile(model.prior, model.models, *rest, by_band=header.by_band)
    targets = quantisation_targets(
        codec.analyse_batch([x], quality, tune="psnr")[0][0], model.gains.scaled(quality_index)
    )
    for halves, expected in zip((*values.halves, (values.low,)), (*targets.halves, (targets.low,)), strict=True):
        for half, target in zip(halves, expected, strict=True):
            # Within one step, and two for the fifth octave, which is rounded twice.
            assert np.abs(half / rdo.UNIT - target).max() < 2.5


def test_windows_of_tiled_images_are_crops(codec):
    x = synthetic_image(190, 260)
    tiled = codec.encode(x, 70, tile=64)
    image = codec.decode(tiled)
    assert psnr(x, image) > 25
    assert np.array_equal(codec.decode(tiled, window=(50, 70, 90, 120)), image[50:140, 70:190])


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_previews_are_means_of_the_decoded_image(codec, factor):
    x = synthetic_image(190, 260)
    data = codec.encode(x, 95, tile=64)
    image, preview = codec.decode(data), codec.decode(data, reduce=factor)
    assert psnr(downscale(image, Box(0, 0, 190, 260), factor), preview) > 35
    window = codec.decode(data, window=(32, 64, 100, 90), reduce=factor)
    box = Box(32, 64, 132, 154).reduce(factor)
    assert np.array_equal(window, preview[box.slices()])


def test_images_are_sampled_varied_and_interpolated(codec):
    x = synthetic_image(64, 96)
    unchanged, varied = (generative.vary_photograph(codec, x, strength, 1, 90)[0] for strength in (0.0, 1.0))
    assert np.array_equal(unchanged, codec.decode(codec.encode_unfiltered(x, 90))) and psnr(x, varied) < psnr(
        x, unchanged
    )
    interpolated = generative.interpolate_photographs(codec, x, x[::-1].copy(), 3, 90)
    assert np.array_equal(interpolated[0], unchanged) and interpolated.shape == (3, 64, 96, 3)
    sampled = generative.sample_photographs(codec, 2, (40, 56), 50)
    assert sampled.shape == (2, 40, 56, 3) and (sampled[0] != sampled[1]).any()


def test_the_halo_is_the_reach_of_the_transforms(codec):
    """A changed cell does not change pixels beyond the halo, and does change pixels beyond a smaller halo.

    Networks often round the far end of the wavelet to 0, so they may have a shorter reach.
    """
    quality_index, rng = quality_index_of(80), np.random.default_rng(0)
    side, reach = 19, halo(CONFIG)
    before, after = empty_coefficients(3, (side, side)), empty_coefficients(3, (side, side))
    for plane, copy in zip(before.planes(), after.planes(), strict=True):
        plane[...] = rng.normal(0, 500, plane.shape)
        copy[...] = plane
    for plane in after.crop(9, 9, 10, 10).planes():
        plane += rng.normal(0, 2**26, plane.shape).astype(np.int32)

    def distance(x, y):
        """Return the distance in pixels from the cell to the furthest pixel that differs."""
        positions = np.argwhere((x != y).any(2))
        return int(np.maximum(144 - positions, positions - 159).max())

    assert distance(*(codec.transforms.synthesis.linear(coefficients) for coefficients in (before, after))) == 46
    pixels = [codec.transforms.pixels([coefficients], quality_index)[0] for coefficients in (before, after)]
    furthest = 46 + 8 * CONFIG.fine_blocks
    assert 30 < distance(*pixels) <= furthest and 16 * (reach - 1) < furthest <= 16 * reach
    x = rng.integers(0, 256, (16 * side, 16 * side, 3), np.uint8)
    inverted = x.copy()
    inverted[144:160, 144:160] = 255 - inverted[144:160, 144:160]
    before, after = (codec.transforms.analysis([image], quality_index)[0] for image in (x, inverted))
    furthest = 0
    for plane, changed in zip(before.planes(), after.planes(), strict=True):
        cells = np.argwhere((plane != changed).any(0)) // (plane.shape[1] // side)
        furthest = max(furthest, int(np.abs(cells - 9).max()))
    assert furthest == reach


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9, 4)])
def test_strips_of_rows_do_not_change_the_prior(codec, shape, monkeypatch):
    results = []
    for count in (1, 3, 10**6):
        strips = [(n, n + count) for n in range(0, 200, count)]
        monkeypatch.setattr(Threads, "strips", lambda _, h, strips=strips: [(a, min(b, h)) for a, b in strips if a < h])
        rng, distributions = np.random.default_rng(2), []

        def choose(part, distribution, rng=rng, distributions=distributions):
            distributions += distribution
            symbols = rng.integers(-3, 4, distribution.indices.shape) * (distribution.indices > 0)
            return symbols.astype(np.int32)

        _, values = choose_symbols(codec.model.prior, shape, 300, choose)
        results.append([*distributions, values.low, *(half for pair in values.halves for half in pair)])
    for result in results[1:]:
        assert all(np.array_equal(*pair) for pair in zip(results[0], result, strict=True))


def test_tensorflow_codes_the_same_bytes(codec):
    pytest.importorskip("vaecodec.transforms.tensorflow")
    tensorflow_codec, x = Codec(codec.model, "tensorflow"), synthetic_image(96, 130)
    data = codec.encode(x, 70)
    assert np.array_equal(codec.decode(data), tensorflow_codec.decode(data)) and tensorflow_codec.encode(x, 70) == data


def test_values_that_the_zero_table_does_not_expect_are_outliers(codec):
    quantize = rdo.quantizer(codec.model.prior, codec.model.models.tables)
    residual = np.linspace(-6, 6, 2001, dtype=np.float32)
    zeros = Distributions(np.zeros(residual.shape, np.uint8), np.zeros(residual.shape, np.int32))
    assert np.array_equal(quantize(residual, zeros), np.rint(residual) * (np.abs(residual) >= 2.5))


def test_step_sizes_follow_lambda(codec):
    sizes = np.array([codec.model.step_size(quality_index) for quality_index in (0, 448, LAST_ANCHOR)])
    lambdas = np.array([0.0006, math.sqrt(0.0006 * 0.18), 0.18])
    assert sizes == pytest.approx(np.sqrt(3 / (SQUARED_STEPS_PER_BIT * lambdas)), rel=2e-4)


def test_models_of_one_channel_code_grey(tmp_path):
    config = Config(16, 1, 16, 1, prior=16, coarser=20, hyper_width=8, channels=1)
    codec = Codec(load_model(freeze_weights(tmp_path, config, random_weights(config))))
    grey = synthetic_image(70, 90)[..., :1].copy()
    decoded = codec.decode(codec.encode(grey, 90))
    assert decoded.shape == grey.shape and psnr(grey, decoded) > 28
