"""Weights of pixels move bits to where the squared error counts."""

import io

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.paths import ROOT
from vaecodec.cli import main
from vaecodec.codec import Codec
from vaecodec.native import library
from vaecodec.native import symbols as native
from vaecodec.prior import PARTS
from vaecodec.rdo import quantizer
from vaecodec.rdo.prices import LEAST_WEIGHT, prices_of_parts, squares_of_weights


def squared_errors(data, image, inside):
    errors = np.square(vaecodec.decode(data).astype(float) - image).mean(-1)
    return errors[inside].mean(), errors[~inside].mean()


@pytest.fixture(scope="module")
def image():
    return np.asarray(Image.open(ROOT / "docs" / "examples" / "parrots.png"))[60:210, 40:230]


@pytest.fixture(scope="module")
def roi(image):
    roi = np.full(image.shape[:2], 0.05)
    roi[40:100, 50:120] = 1
    return roi


@pytest.mark.parametrize("effort", [1, 2])
def test_other_regions_have_larger_errors_and_fewer_bits(image, roi, effort):
    plain, weighted = (
        vaecodec.encode(image, 60, effort=effort, roi=weights, tune="psnr") for weights in (roi * 0 + 1, roi)
    )
    inside, outside = (squared_errors(data, image, roi == 1) for data in (plain, weighted))
    assert len(weighted) < 0.8 * len(plain)
    assert outside[0] < 1.1 * inside[0] and outside[1] > 1.3 * inside[1]


def test_at_one_size_the_error_inside_is_smaller(image, roi):
    plain, weighted = (
        vaecodec.encode(image, target_size=2000, roi=weights, tune="psnr") for weights in (roi * 0 + 1, roi)
    )
    assert len(weighted) <= 2000
    assert squared_errors(weighted, image, roi == 1)[0] < 0.95 * squared_errors(plain, image, roi == 1)[0]


def test_a_weight_of_1_changes_nothing(image):
    assert vaecodec.encode(image, 60, roi=np.ones(image.shape[:2])) == vaecodec.encode(image, 60)


def test_tiles_and_threads_take_their_weights(tiny, image, roi):
    weights = roi.astype(np.float32)
    files = {Codec(tiny.model, threads=n).encode(image, 60, tile=64, weights=weights) for n in (1, 3)}
    assert len(files) == 1 and len(files.pop()) < len(tiny.encode(image, 60, tile=64))


def test_masks_are_arrays_images_and_files(image, roi):
    mask = np.rint(255 * roi).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(mask).save(file, "PNG")
    expected = vaecodec.encode(image, 50, roi=mask / 255)
    for source in (mask, Image.fromarray(mask), file.getvalue(), np.dstack([mask] * 3)):
        assert vaecodec.encode(image, 50, roi=source) == expected
    assert vaecodec.encode(image, 50, roi=roi == 1) == vaecodec.encode(image, 50, roi=(roi == 1).astype("f8"))


def test_wrong_masks_are_refused(image, roi):
    for wrong in (roi[:-1], roi + 0.1, roi - 0.1, roi * np.nan, image):
        with pytest.raises(ValueError, match="roi"):
            vaecodec.encode(image, roi=wrong)
    with pytest.raises(ValueError, match="roi excludes"):
        vaecodec.encode(image, lossless=True, roi=roi)


def test_images_of_16_bits_take_masks(image, roi):
    deep = image.astype(np.uint16) * 257
    data = vaecodec.encode(deep, 60, roi=roi)
    assert vaecodec.decode(data).dtype == np.uint16 and len(data) < len(vaecodec.encode(deep, 60))


@pytest.mark.parametrize("cells", [(1, 1), (3, 5), (4, 2)])
def test_prices_are_those_of_the_squares(cells):
    weights = np.zeros((16 * cells[0], 16 * cells[1]), np.float32)
    weights[5, 9] = 0.5
    prices = prices_of_parts(squares_of_weights(weights, cells), 3)
    assert len(prices) == PARTS and prices[:5] == [None] * 5
    for octave in range(5):
        first, second = prices[13 - 2 * octave], prices[14 - 2 * octave]
        side = 4 << octave
        assert first is second and len(first) == 18 * -(-16 * cells[0] // side) * -(-16 * cells[1] // side)
        assert np.count_nonzero(first == 2) == 18 and first.max() in (2, 1 / LEAST_WEIGHT)


def test_kernels_agree_on_prices(kinds, tiny):
    rng, rule = np.random.default_rng(0), quantizer(tiny.model.prior, tiny.model.models.tables)
    for size in (1, 33, 300, 3000):
        target = rng.normal(0, 4, size).astype(np.float32)
        indices, loc = rng.integers(0, 40, size).astype(np.uint8), rng.integers(-90, 90, size).astype(np.int32)
        prices = rng.uniform(0.02, 60, size).astype(np.float32)
        arguments, results = (target, indices, loc, rule.centroids, rule.costs), []
        for kind in (*kinds, library.REFERENCE):
            with library.use(kind):
                results.append(native.quantise(*arguments, prices))
                ones = native.quantise(*arguments, np.ones(size, np.float32))
                np.testing.assert_array_equal(ones, native.quantise(*arguments))
        for symbols in results:
            np.testing.assert_array_equal(symbols, results[0])


def test_the_command_line_takes_a_mask(image, roi, tmp_path, capsys):
    source, mask, small = (str(tmp_path / name) for name in ("a.png", "mask.png", "small.png"))
    for name, pixels in ((source, image), (mask, np.rint(255 * roi).astype(np.uint8)), (small, image[:9, :9, 0])):
        Image.fromarray(pixels).save(name)
    for name, options in (("plain.vae", []), ("weighted.vae", ["--roi", mask])):
        assert main(["compress", source, "-o", str(tmp_path / name), *options]) == 0
    assert (tmp_path / "weighted.vae").stat().st_size < (tmp_path / "plain.vae").stat().st_size
    assert main(["compress", source, "--roi", small, "-o", str(tmp_path / "none.vae")]) == 1
    assert "roi is [9, 9]" in capsys.readouterr().err and not (tmp_path / "none.vae").exists()
    assert main(["compress", "-r", str(tmp_path), "--roi", mask]) == 2
