"""Test what keeps the memory of encoders small: rows made when they are needed, and trials that large images skip."""

import numpy as np
import pytest

from support.images import synthetic_image
from vaecodec.codec import fallback, mode_decision, modes
from vaecodec.container import image_file
from vaecodec.images.channels import alpha_channel, clear_transparent, count_bits, to_8_bits
from vaecodec.images.colours import ColourRows, fill_transparent, split_alpha
from vaecodec.native.library import release_memory


def image_with_holes(height, width, channels, bits=8, seed=0):
    """Noise of so many bits; alpha, if any, is 0 at most pixels, whose colours may have more bits than the others."""
    random = np.random.default_rng(seed)
    dtype = np.uint8 if bits == 8 else np.uint16
    samples = random.integers(0, 1 << bits, (height, width, channels)).astype(dtype)
    if channels in (2, 4):
        hidden = random.random((height, width)) < 0.7
        hidden[height // 3 : height // 2] = True
        samples[hidden] = np.iinfo(dtype).max
        samples[hidden, -1] = 0
    return samples if channels > 1 else samples[..., 0]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("bits", [8, 11, 16])
def test_rows_of_colours_are_those_of_the_whole_image(channels, bits):
    for seed, (height, width) in enumerate([(1, 1), (1, 9), (200, 3), (131, 70), (258, 41)]):
        samples = image_with_holes(height, width, channels, bits, seed)
        before, cleared = samples.copy(), clear_transparent(samples)
        whole = split_alpha(to_8_bits(cleared))[0]
        rows = ColourRows(samples, 3)
        assert rows.shape == whole.shape and rows.dtype == whole.dtype
        for top, bottom in ((0, height), (0, 1), (height // 2, height), (height // 3, height // 3 + 1)):
            np.testing.assert_array_equal(rows[top:bottom], whole[top:bottom])
        np.testing.assert_array_equal(samples, before)
        assert count_bits(samples) == count_bits(cleared)


def test_pixels_are_filled_as_by_a_pyramid_of_whole_images():
    from PIL import Image

    def fill_whole(rgb, visible):
        if visible.all() or max(visible.shape) == 1:
            return rgb
        height, width = visible.shape
        rows, columns = -(-height // 2), -(-width // 2)
        means, known = np.zeros((rows, columns, 3), np.uint8), np.zeros((rows, columns), bool)
        for y, x in np.ndindex(rows, columns):
            block = np.s_[2 * y : 2 * y + 2, 2 * x : 2 * x + 2]
            if visible[block].any():
                means[y, x], known[y, x] = rgb[block][visible[block]].sum(0, dtype=int) // visible[block].sum(), True
        smooth = Image.fromarray(fill_whole(means, known)).resize((2 * columns, 2 * rows), Image.Resampling.BILINEAR)
        return np.where(visible[..., None], rgb, np.asarray(smooth)[:height, :width])

    for height, width in ((190, 21), (65, 130), (2, 2)):
        samples = image_with_holes(height, width, 4)
        rgb, visible = samples[..., :3].copy(), alpha_channel(samples) != 0
        np.testing.assert_array_equal(fill_transparent(rgb, visible), fill_whole(rgb, visible))


def test_large_images_are_coded_with_the_model_without_a_decision(small, monkeypatch):
    flat = np.full((90, 130, 4), 200, np.uint8)
    flat[:, :40] = 0
    assert image_file.info(modes.encode(small, flat))["coding"] == "lossless"
    monkeypatch.setattr(modes, "is_large", lambda *_: True)
    data = modes.encode(small, flat)
    assert image_file.info(data)["coding"] == "vae"
    decoded = modes.decode(data)
    assert decoded.shape == flat.shape and np.abs(decoded.astype(int) - flat).max() < 8
    np.testing.assert_array_equal(decoded[..., 3], flat[..., 3])
    files = modes.encode_batch(small, [flat, synthetic_image(40, 50)], effort=2)
    assert [image_file.info(file)["height"] for file in files] == [90, 40]


def test_large_graphics_are_webp_only_where_they_hardly_need_bits(monkeypatch):
    flat, busy = np.full((600, 400, 3), 77, np.uint8), image_with_holes(600, 400, 3)
    monkeypatch.setattr(fallback, "WEBP_PIXELS", flat.shape[0] * flat.shape[1])
    assert all(fallback.encode_lossless(samples)[4:8] == b"RIFF" for samples in (flat, busy))
    monkeypatch.setattr(fallback, "WEBP_PIXELS", flat.shape[0] * flat.shape[1] - 1)
    assert fallback.encode_lossless(flat)[4:8] == b"RIFF"
    for samples in (busy, busy[..., 0]):
        data = fallback.encode_lossless(samples)
        assert data[4:].startswith(fallback.PNG_MAGIC)
        decoded = fallback.decode_lossless(data, samples.shape[:2], 1 if samples.ndim == 2 else 3, 8)
        np.testing.assert_array_equal(decoded, samples)
    monkeypatch.setattr(fallback, "WEBP_FLAT_PIXELS", flat.shape[0] * flat.shape[1] - 1)
    assert fallback.encode_lossless(flat)[4:].startswith(fallback.PNG_MAGIC)


def test_costs_are_computed_only_of_files_smaller_than_the_lossless_one(small, monkeypatch):
    samples, measured = np.kron(image_with_holes(8, 9, 3), np.ones((10, 10, 1), np.uint8)), []
    cost = mode_decision.cost

    def spy(data, *rest):
        measured.append(image_file.info(data)["coding"])
        return cost(data, *rest)

    monkeypatch.setattr(mode_decision, "cost", spy)
    assert image_file.info(modes.encode(small, samples))["coding"] == "lossless" and measured == ["lossless"]
    measured.clear()
    monkeypatch.setattr(mode_decision, "is_photograph", lambda *_: False)
    modes.encode(small, synthetic_image(80, 90))
    assert measured[:2] == ["lossless", "vae"]


@pytest.mark.parametrize("bits", [8, 12])
def test_costs_in_strips_are_those_of_the_whole_image(small, bits):
    samples = synthetic_image(1100, 70).astype(np.uint8 if bits == 8 else np.uint16) * (1 if bits == 8 else 16)
    data = modes.encode(small, samples, 40)
    pairs = list(mode_decision.reconstruct(data, samples, small))
    assert len(pairs) == 2
    decoded = modes.decode(data)
    for n in (0, 1):
        np.testing.assert_array_equal(np.concatenate([pair[n] for pair in pairs]), (samples, decoded)[n])
    error = np.mean((decoded.astype(float) - samples) ** 2)
    peak = 255 if bits == 8 else 4095
    assert mode_decision.psnr(iter(pairs)) == pytest.approx(10 * np.log10(peak**2 / error), abs=1e-3)


def test_freed_memory_is_returned_after_large_images(small, monkeypatch):
    released = []
    monkeypatch.setattr(modes, "release_memory", lambda: released.append(1))
    image = synthetic_image(70, 80)
    data = modes.encode(small, image)
    assert not released
    monkeypatch.setattr(modes, "RELEASE", 70 * 80 - 1)
    assert modes.encode(small, image) == data and released == [1]
    monkeypatch.undo()
    release_memory()  # works, or does nothing, on every system
