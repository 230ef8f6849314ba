"""Test images that are kept without loss or within a bound, through the public functions and the command line."""

import json

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_channels, synthetic_image
from vaecodec import cli
from vaecodec.codec import exact
from vaecodec.integrations import pillow  # noqa: F401  (makes .vae a format of Pillow)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, which contains photo.png and photo.jpg."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(synthetic_image(60, 80)).save("photo.png", dpi=(72, 72))
    Image.fromarray(synthetic_image(60, 80)).save("photo.jpg")
    return tmp_path


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_every_sample_is_kept_or_within_the_bound(channels, dtype, monkeypatch):
    monkeypatch.setattr(vaecodec, "load", None)  # no model is needed
    samples = synthetic_channels(50, 60, channels).astype(dtype)
    if dtype == np.uint16:
        samples = 200 * samples + np.random.default_rng(0).integers(0, 200, samples.shape).astype(dtype)
    samples = samples[..., 0] if channels == 1 else samples
    data = vaecodec.encode(samples, lossless=True)
    np.testing.assert_array_equal(vaecodec.decode(data), samples)
    about = vaecodec.info(data)
    assert (about.coding, about.max_error, about.quality, about.channels) == ("lossless", 0, None, channels)
    for bound in (1, 16):
        data = vaecodec.encode(samples, max_error=bound)
        about = vaecodec.info(data)
        assert (about.coding, about.max_error) == ("near-lossless", bound)
        errors = np.abs(vaecodec.decode(data).astype(int) - samples)
        assert errors.max() == bound
        assert channels in (1, 3) or not errors[..., -1].any()


def test_quality_100_is_lossy(small):
    image = synthetic_image(100, 120)
    assert (vaecodec.decode(vaecodec.encode(image, 100)) != image).any()


def test_batches_are_coded_as_single_images():
    images = [synthetic_image(30, 40), synthetic_image(20, 20)[..., 0]]
    for options in ({"lossless": True}, {"max_error": 2}):
        assert vaecodec.encode_batch(images, **options) == [vaecodec.encode(image, **options) for image in images]
    for options in ({"lossless": True, "quality": 50}, {"lossless": True, "max_error": 2}, {"max_error": 0}):
        with pytest.raises(ValueError, match=r"lossless|max_error"):
            vaecodec.encode_batch(images, **options)


def test_threads_change_no_byte():
    image = synthetic_image(70, 90)
    assert len({vaecodec.encode(image, lossless=True, threads=threads) for threads in (1, 2, 5)}) == 1


def test_larger_bounds_give_smaller_files():
    image = synthetic_image(120, 140)
    sizes = [len(exact.encode(image, bound)) for bound in (0, 1, 2, 4, 8, 16)]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < sizes[0] / 3


def test_files_keep_pixels_and_metadata(folder):
    for name, options, bound in (
        ("photo.png", {"lossless": True}, 0),
        ("photo.jpg", {"lossless": True}, 0),
        ("photo.jpg", {"max_error": 2}, 2),
    ):
        vaecodec.compress_file(name, "out.vae", **options, overwrite=True)
        pixels = np.asarray(Image.open(name))
        assert np.abs(vaecodec.decode("out.vae").astype(int) - pixels).max() == bound
        about = vaecodec.info("out.vae")
        assert about.max_error == bound
    assert vaecodec.info(vaecodec.encode("photo.png", lossless=True)).metadata == ("dpi",)


def test_the_command_line_keeps_samples(folder, capsys):
    assert cli.main(["compress", "--lossless", "photo.png"]) == 0
    assert cli.main(["compress", "--max-error", "3", "photo.png", "-o", "near.vae"]) == 0
    assert cli.main(["info", "photo.vae", "near.vae"]) == 0
    exact_line, near_line = capsys.readouterr().out.splitlines()
    assert "80 x 60 pixels, RGB, lossless" in exact_line and "80 x 60 pixels, RGB, within 3" in near_line
    assert cli.main(["info", "--json", "near.vae"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["coding"], record["max_error"]) == ("near-lossless", 3)
    assert cli.main(["verify", "photo.vae", "near.vae"]) == 0
    assert cli.main(["decompress", "photo.vae", "-o", "back.png"]) == 0
    assert (np.asarray(Image.open("back.png")) == np.asarray(Image.open("photo.png"))).all()
    assert cli.main(["compress", "--lossless", "--rm", "photo.jpg", "-o", "jpeg.vae"]) == 0
    assert not (folder / "photo.jpg").exists()
    for options in (["-q", "5"], ["--max-error", "1"], ["--target-size", "900"]):
        assert cli.main(["compress", "-f", "--lossless", *options, "photo.png"]) == 2
    for bound in ("0", "17", "x", "1.5"):
        assert cli.main(["compress", "-f", "--max-error", bound, "photo.png"]) == 2


def test_a_run_over_folders_repeats_with_other_settings(folder, capsys):
    for options in (["--lossless"], ["--max-error", "4"], []):
        assert cli.main(["compress", "-r", "-f", "-j", "1", *options, ".", "--output-dir", "out"]) == 0
        about = vaecodec.info("out/photo.png.vae" if (folder / "out/photo.png.vae").exists() else "out/photo.vae")
        assert about.max_error == {"--lossless": 0, "--max-error": 4}.get((options or [""])[0])
