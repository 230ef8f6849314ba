"""Test the mode decision: patterns and drawings are coded by other codecs, photographs by the model."""

import numpy as np
import pytest

from support.images import synthetic_image
from vaecodec.codec import fallback, mode_decision, modes
from vaecodec.config import lambda_at
from vaecodec.container import image_file
from vaecodec.container.image_file import quality_index_of


def zone_plate(height=256, width=384):
    """u8[H, W]: rings that grow finer up to two pixels a ring."""
    y, x = np.mgrid[:height, :width]
    squares = (x - width / 2) ** 2 + (y - height / 2) ** 2
    return np.rint(127.5 + 127.5 * np.cos(np.pi / width * squares)).astype(np.uint8)


def smooth_drawing(height=300, width=400):
    """u8[H, W, 3]: flat discs with a grain of one level."""
    y, x = np.mgrid[:height, :width]
    colour = np.full((height, width, 3), 235.0)
    for n in range(7):
        inside = np.clip(45 - np.hypot(x - 60 * n, (y - 40 * n) * 1.1), 0, 1)[..., None]
        colour += inside * (np.array([70 * n, 40 * n, 90 * n]) % 255 - colour)
    grain = np.random.default_rng(0).normal(0, 1, (height, width, 1))
    return np.clip(colour + grain, 0, 255).astype(np.uint8)


def classify(codec, samples, quality):
    """Whether an image counts as a photograph, and the shares of its windows that were tried as AVIF."""
    shares = []
    share_as_avif = mode_decision._avif_share

    def spy(*arguments):
        shares.append(share_as_avif(*arguments))
        return shares[-1]

    rgb = samples if samples.ndim == 3 else np.repeat(samples[..., None], 3, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mode_decision, "_avif_share", spy)
        return mode_decision.is_photograph(codec, samples, rgb, codec.encode(rgb, quality), quality), shares


def psnr(samples, data):
    return 10 * np.log10(255**2 / max(np.mean((modes.decode(data).astype(float) - samples) ** 2), 1e-6))


def cost(samples, data, quality):
    """Bits per pixel plus lambda times the mean squared error of samples."""
    squares = 255**2 / 10 ** (psnr(samples, data) / 10)
    return 8 * len(data) / (samples.shape[0] * samples.shape[1]) + lambda_at(quality_index_of(quality)) * squares


@pytest.mark.parametrize(
    ("samples", "quality"),
    [*((zone_plate(), quality) for quality in (25, 50, 75)), *((smooth_drawing(), quality) for quality in (50, 75))],
    ids=["zone plate, 25", "zone plate, 50", "zone plate, 75", "smooth drawing, 50", "smooth drawing, 75"],
)
def test_patterns_and_smooth_drawings_are_not_coded_with_the_model(small, samples, quality):
    data = modes.encode(small, samples, quality)
    rgb = samples if samples.ndim == 3 else np.repeat(samples[..., None], 3, 2)
    latents = small.encode(rgb, quality)
    assert image_file.info(data)["coding"] in ("avif", "lossless")
    assert cost(samples, data, quality) < 0.92 * cost(rgb, latents, quality) and len(data) <= 1.3 * len(latents)
    assert psnr(samples, data) > psnr(rgb, latents) + 1


def test_photographs_are_classified_as_photographs(small):
    data = pytest.importorskip("skimage").data
    for samples in (data.astronaut(), data.camera(), data.coffee(), data.chelsea(), synthetic_image(200, 300)):
        for quality in (10, 50, 75):
            assert classify(small, samples, quality)[0]


def test_a_doubtful_photograph_is_tried_as_avif_and_stays_a_photograph(small):
    data = pytest.importorskip("skimage").data
    is_photograph, shares = classify(small, data.retina()[:512, :512].copy(), 75)
    assert is_photograph and len(shares) == 1 and shares[0] > 1


def test_without_avif_no_window_is_tried(small, monkeypatch):
    monkeypatch.setattr(fallback, "has_avif", lambda: False)
    assert classify(small, smooth_drawing(), 50) == (True, [])


@pytest.mark.parametrize("shape", [(65, 64), (70, 300), (300, 70), (128, 129), (1, 5000)])
def test_windows_fit_small_and_narrow_images(small, shape):
    window = mode_decision._busiest_window(np.repeat(zone_plate(*shape)[..., None], 3, 2))
    assert window.shape == (min(128, shape[0]), min(128, shape[1]), 3)
    modes.encode(small, zone_plate(*shape), 50)


def test_the_busiest_window_contains_the_detail():
    samples = np.full((400, 600, 3), 90, np.uint8)
    samples[280:, 480:] = np.random.default_rng(0).integers(0, 255, (120, 120, 3))
    np.testing.assert_array_equal(mode_decision._busiest_window(samples), samples[272:, 472:])
