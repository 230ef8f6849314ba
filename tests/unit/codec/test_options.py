"""Test that --threads, --no-limits and --reduce reach the codec."""

import warnings

import numpy as np
import pytest
from PIL import Image

from support.images import synthetic_image
from vaecodec import arguments, cli
from vaecodec.arguments import Limits
from vaecodec.errors import LimitError
from vaecodec.images.reading import read_image


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(synthetic_image(50, 70)).save("photo.png")
    return tmp_path


def test_previews_have_the_reduced_size(folder):
    assert cli.main(["compress", "--threads", "1", "photo.png"]) == 0
    assert cli.main(["decompress", "photo.vae", "-o", "small.png", "--reduce", "8", "--threads", "2"]) == 0
    assert read_image("small.png")[0].shape == (7, 9, 3)
    assert cli.main(["decompress", "photo.vae", "-o", "part.png", "--reduce", "2", "--window", "10,10,21,20"]) == 0
    assert read_image("part.png")[0].shape == (11, 10, 3)


@pytest.mark.parametrize("options", [["--reduce", "3"], ["--reduce", "2", "--rm"], ["--threads", "0"]])
def test_invalid_options_are_usage_errors(folder, options):
    assert cli.main(["compress", "photo.png"]) == 0
    assert cli.main(["decompress", "photo.vae", "-o", "back.png", *options]) == 2
    assert not (folder / "back.png").exists() and (folder / "photo.vae").exists()


def test_default_limits_are_those_of_pillow():
    """Both warn of more than 89,478,485 pixels, and refuse more than twice as many."""
    assert Limits(178_956_970, 65_535) == arguments.DEFAULT_LIMITS
    assert arguments.PILLOW_WARNING_PIXELS == Image.MAX_IMAGE_PIXELS


def test_images_above_half_of_the_limit_cause_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Limits(pixels=100).check(10, 5)
        arguments.NO_LIMITS.check(1 << 20, 1 << 20)
    with pytest.warns(RuntimeWarning, match="17 x 3 pixels are more than half"):
        Limits(pixels=100).check(17, 3)
    Limits(pixels=100, side=50).refuse(50, 2)
    with pytest.raises(LimitError, match="a side exceeds"):
        Limits(pixels=100, side=50).refuse(51, 1)


def test_only_other_limits_than_the_default_change_those_of_pillow(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1234)
    for chosen, expected in (
        (arguments.DEFAULT_LIMITS, 1234),
        (Limits(pixels=99), 49),
        (Limits(pixels=1), 1),
        (arguments.NO_LIMITS, None),
    ):
        with arguments.pillow_limits(chosen):
            assert expected == Image.MAX_IMAGE_PIXELS
        assert Image.MAX_IMAGE_PIXELS == 1234


def test_limits_apply_unless_lifted(folder, monkeypatch, capsys):
    assert cli.main(["compress", "photo.png"]) == 0
    before = np.asarray(Image.open("photo.png"))
    monkeypatch.setattr(arguments, "DEFAULT_LIMITS", Limits(pixels=50 * 70 - 1))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50 * 70 // 2 - 1)
    for command in (["compress", "photo.png", "-o", "again.vae"], ["decompress", "photo.vae", "-o", "back.png"]):
        capsys.readouterr()
        assert cli.main(command) == 1
        error = capsys.readouterr().err
        assert "exceed" in error and error.count("\n") == 1
        assert cli.main([*command, "--no-limits"]) == 0
    assert cli.main(["verify", "photo.vae"]) == 1
    assert cli.main(["verify", "--no-limits", "photo.vae"]) == 0
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image("back.png")[0].shape == before.shape
    assert (folder / "again.vae").read_bytes() == (folder / "photo.vae").read_bytes()
