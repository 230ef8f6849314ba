"""Test 16-bit images at a quality: samples of their own depth, from the model, without bands in smooth areas."""

import io

import numpy as np
import pytest

import vaecodec
from reference import reference_decoder
from support.images import synthetic_image
from support.paths import GOLDEN
from vaecodec import container
from vaecodec.codec import modes
from vaecodec.config import FINE_MAX
from vaecodec.container import image_file
from vaecodec.errors import FormatError, TargetError
from vaecodec.images.channels import alpha_channel, count_bits, join_alpha, to_8_bits
from vaecodec.images.reading import read_weights
from vaecodec.native import library

TINY = str(GOLDEN / "tiny.vcm")


def deep_image(channels, height=100, width=150, bits=16):
    """u16: a photograph-like image with noise below 8 bits; alpha has a hole, a soft edge and an opaque part."""
    colour = synthetic_image(height, width)[..., : 1 if channels < 3 else 3].astype(np.int64) * 257
    colour = colour + np.random.default_rng(channels).integers(-128, 129, colour.shape)
    colour = np.clip(colour, 0, 65535) >> (16 - bits)
    if channels in (2, 4):
        alpha = np.broadcast_to(np.clip(1999 * (np.arange(width) - width // 3), 0, 65535), (height, width))
        colour = np.dstack([colour, alpha])
    return (colour[..., 0] if channels == 1 else colour).astype(np.uint16)


def gradient(height=128, width=256):
    """u16[H, W, 3]: a sky."""
    y, x = np.mgrid[:height, :width]
    return np.stack([20000 + 4500 * y / height + 900 * x / width, 26000 + 40 * y, 40000 + 45 * y], -1).astype(np.uint16)


def psnr(samples, decoded, bits=16):
    colours = slice(None) if samples.ndim == 2 else slice(0, 1 if samples.shape[2] == 2 else 3)
    visible = ... if alpha_channel(samples) is None else alpha_channel(samples) > 0
    error = (decoded[visible].astype(float) - samples[visible])[..., colours]
    return 10 * np.log10((2**bits - 1) ** 2 / np.mean(error**2))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("quality", [20, 90])
def test_16_bits_are_coded_at_a_quality(small, channels, quality):
    samples = deep_image(channels)
    data = modes.encode(small, samples, quality)
    about, decoded = vaecodec.info(data), modes.decode(data, check=True)
    assert (about.coding, about.depth, about.channels) == ("vae", 16, channels)
    assert decoded.dtype == np.uint16 and decoded.shape == samples.shape
    assert psnr(samples, decoded) > (28 if quality == 20 else 34)
    assert 8 * len(data) < 4 * samples.size  # a fraction of what it takes without loss
    if channels in (2, 4):
        np.testing.assert_array_equal(decoded[..., -1], samples[..., -1])
        assert not decoded[samples[..., -1] == 0].any()
    modes.verify(data)


@pytest.mark.parametrize("channels", [1, 4])
def test_windows_previews_and_batches_equal_the_whole(small, channels):
    samples = deep_image(channels)
    files = [modes.encode(small, image, 60) for image in (samples, to_8_bits(samples))]
    whole = modes.decode(files[0])
    for window in ((30, 50, 41, 37), (0, 0, 1, 150)):
        top, left, height, width = window
        np.testing.assert_array_equal(modes.decode(files[0], window), whole[top : top + height, left : left + width])
    for reduce in (1, 4):
        batch = modes.decode_batch(files, reduce=reduce)
        assert [image.dtype for image in batch] == [np.uint16, np.uint8]
        for image, data in zip(batch, files, strict=True):
            np.testing.assert_array_equal(image, modes.decode(data, reduce=reduce))
    opened = vaecodec.open(files[0])
    assert opened.dtype == np.uint16 and opened.shape == samples.shape
    preview = modes.decode(files[0], reduce=4)[2:23, 20:35]
    means = whole[8:92, 80:140].reshape(21, 4, 15, 4, *whole.shape[2:]).mean((1, 3))
    assert psnr(preview, means) > 28


@pytest.mark.parametrize("bits", [9, 10, 12, 15])
def test_samples_keep_their_number_of_bits(small, bits):
    samples = deep_image(3, bits=bits)
    data = modes.encode(small, samples, 90)
    decoded = modes.decode(data)
    assert vaecodec.info(data).depth == count_bits(samples) == bits
    assert decoded.max() < 1 << bits and psnr(samples, decoded, bits) > 34


def test_gradients_have_no_bands(small):
    samples = gradient()
    data = modes.encode(small, samples, 90, tune="psnr")
    decoded = modes.decode(data)
    rounded = to_8_bits(samples).astype(np.uint16) * 257
    assert vaecodec.info(data).coding == "vae"
    assert psnr(samples, decoded) > psnr(samples, rounded) + 1  # which has 18 values in the first channel
    assert len(np.unique(decoded[..., 0])) > 500


@pytest.mark.parametrize("effort", [1, 3])
def test_fine_samples_round_to_the_pixels(tiny, kinds, effort):
    data = tiny.encode(synthetic_image(90, 110, 13), 25, tile=64, effort=effort, tune="psnr")
    assert bool(image_file.parse(data).header.filter) == (effort == 3)
    expected = tiny.decode(data, is_fine=True)
    assert expected.dtype == np.uint16 and expected.max() <= FINE_MAX
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            fine = tiny.decode(data, is_fine=True, check=True)
            np.testing.assert_array_equal(fine, expected, kind)
            np.testing.assert_array_equal((fine + 32) >> 6, tiny.decode(data), kind)


def test_black_and_white_are_the_ends_of_the_range():
    fine = np.array([0, 1, FINE_MAX // 2, FINE_MAX - 1, FINE_MAX], np.uint16).reshape(1, 5, 1)
    for bits in range(9, 17):
        top = (1 << bits) - 1
        expected = np.floor(fine.ravel() * (top / FINE_MAX) + 0.5)
        np.testing.assert_array_equal(join_alpha(fine, True, None, bits).ravel(), expected)
        eight = to_8_bits(np.array([[0, top // 2, top]], np.uint16))
        np.testing.assert_array_equal(eight, [[0, 127, 255]])


def test_no_pixel_becomes_transparent_or_visible():
    alpha = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    reduced = to_8_bits(np.dstack([np.full_like(alpha, 9), alpha]))[..., 1]
    np.testing.assert_array_equal(reduced == 0, alpha == 0)
    assert np.abs(reduced - alpha / 257).max() < 1


def test_noise_and_drawings_are_kept(small):
    noise = np.random.default_rng(0).integers(0, 65536, (60, 70, 3)).astype(np.uint16)
    labels = np.kron(np.arange(48).reshape(6, 8) * 1001, np.ones((16, 16))).astype(np.uint16)
    for samples, quality in ((noise, 100), (labels, 75), (labels[:1, :1], 1)):
        data = modes.encode(small, samples, quality)
        assert vaecodec.info(data).coding == "lossless" or samples is noise
        if samples is not noise:
            np.testing.assert_array_equal(modes.decode(data), samples)


def test_targets_are_met():
    samples = deep_image(3, 128, 192, 12)
    data = vaecodec.encode(samples, target_psnr=36)
    assert 36 <= psnr(samples, vaecodec.decode(data), 12) <= 36.3
    assert 0.9 * 4000 <= len(vaecodec.encode(samples, target_size=4000)) <= 4000
    with pytest.raises(TargetError, match="dB at most, and the target is 70"):
        vaecodec.encode(samples, target_psnr=70)
    np.testing.assert_array_equal(vaecodec.decode(vaecodec.encode(samples, lossless=True)), samples)
    within = vaecodec.decode(vaecodec.encode(samples, max_error=3)).astype(int)
    assert np.abs(within - samples).max() == 3


def test_regions_of_interest_go_with_16_bits(small):
    samples, weights = deep_image(3), np.zeros((100, 150), np.float32)
    weights[:, :75] = 1
    everywhere = vaecodec.encode(samples, 80, model="small")
    data = modes.encode(small, samples, 80, weights=read_weights(weights, (100, 150)))
    error, even = (np.square(modes.decode(file).astype(float) - samples).mean((0, 2)) for file in (data, everywhere))
    assert len(data) < 0.9 * len(everywhere) and vaecodec.info(data).depth == 16
    assert error[96:].mean() > 1.05 * even[96:].mean() and error[:64].mean() < 1.05 * even[:64].mean()


def test_damaged_depths_are_refused(tiny):
    data = modes.encode(tiny, deep_image(3, 40, 50), 50)
    assert image_file.contents(data).depth == image_file.read_preamble(io.BytesIO(data)).depth == 16
    latents = tiny.encode(synthetic_image(40, 50), 50)
    pict = image_file.pack_fallback(image_file.FallbackHeader("lossless", 40, 50, 3, 8), b"")
    model = reference_decoder.read_model(TINY)
    wrong = [
        container.insert_chunks(latents, [(container.DEEP, payload)])
        for payload in (b"", b"\x08", b"\x11", b"\x0c\x00")
    ]
    wrong += [
        container.insert_chunks(data, [(container.DEEP, b"\x10")]),
        container.insert_chunks(pict, [(container.DEEP, b"\x0c")]),
    ]
    for file in wrong:
        with pytest.raises(FormatError, match="deep"):
            modes.decode(file, model=TINY)
        with pytest.raises(FormatError, match="deep"):
            image_file.read_preamble(io.BytesIO(file))
        with pytest.raises(ValueError, match="deep"):
            reference_decoder.decode(file, model)
