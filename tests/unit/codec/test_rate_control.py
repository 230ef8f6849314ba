"""Targets: the search for a size or a fidelity, and files that meet them."""

import json
import math

import numpy as np
import pytest
from PIL import Image

import vaecodec
from vaecodec import TargetError
from vaecodec.cli import main
from vaecodec.codec import modes
from vaecodec.codec.rate_control import Target, search
from vaecodec.config import QUALITY_INDICES
from vaecodec.images import strips
from vaecodec.images.metrics import psnr


def rate(step):
    """Bytes of a picture whose rate grows a little unevenly with the step."""
    return round(4000 * math.exp(3.4 * step / QUALITY_INDICES + 0.05 * math.sin(step / 40)))


def fidelity(step):
    """PSNR likewise."""
    return 26 + 14 * (step / QUALITY_INDICES) ** 0.9


def counting(function):
    trials = []

    def trial(step):
        trials.append(step)
        return function(step)

    return trial, trials


@pytest.mark.parametrize("size", [4100, 5000, 12345, 50000, 110000])
def test_sizes_are_met_from_below_in_few_trials(size):
    trial, trials = counting(rate)
    step = search(Target("size", size), trial)
    assert 0.99 * size <= rate(step) <= size and step in trials
    assert len(trials) == len(set(trials)) <= 6


@pytest.mark.parametrize("wanted", [26.5, 30.0, 33.3, 39.5])
def test_fidelities_are_met_from_above_in_few_trials(wanted):
    trial, trials = counting(fidelity)
    step = search(Target("psnr", wanted), trial)
    assert wanted <= fidelity(step) <= wanted + 0.05
    assert len(trials) == len(set(trials)) <= 6


@pytest.mark.parametrize(
    ("target", "function", "end"),
    [
        (Target("size", 100), rate, 0),
        (Target("size", 10**9), rate, QUALITY_INDICES - 1),
        (Target("psnr", 10.0), fidelity, 0),
        (Target("psnr", 90.0), fidelity, QUALITY_INDICES - 1),
    ],
)
def test_what_cannot_be_met_ends_at_an_end(target, function, end):
    trial, trials = counting(function)
    assert search(target, trial) == end and end in trials and len(trials) <= 12


def test_a_coarse_scale_gives_the_best_step_on_the_right_side():
    step = search(Target("size", 4500), lambda step: 1000 * (1 + step // 100))
    assert step == 399


@pytest.mark.parametrize("value", [0, -3, math.nan, math.inf])
def test_a_target_is_a_number_above_0(value):
    with pytest.raises(ValueError, match="above 0"):
        Target.from_arguments(psnr=value)


def test_targets_exclude_each_other():
    with pytest.raises(ValueError, match="target_size and target_psnr exclude each other"):
        vaecodec.encode(np.zeros((16, 16, 3), np.uint8), target_size=100, target_psnr=30)


@pytest.fixture(scope="module")
def photograph(request):
    """u8[512, 768, 3]."""
    path = request.config.rootpath / "docs" / "examples"
    return np.asarray(Image.open(next(p for p in sorted(path.iterdir()) if p.suffix in (".png", ".jpg", ".webp"))))


@pytest.mark.parametrize("size", [9000, 30000])
def test_a_picture_has_the_size_asked_for(photograph, size):
    data = vaecodec.encode(photograph, target_size=size)
    assert 0.99 * size <= len(data) <= size
    assert vaecodec.info(data)["coding"] == "vae"


def test_bits_a_pixel_are_those_of_the_whole_file(photograph):
    height, width = photograph.shape[:2]
    for samples in (photograph, np.dstack([photograph, np.full((height, width), 255, np.uint8)])):
        data = vaecodec.encode(samples, target_bpp=0.5)
        assert 0.495 <= vaecodec.info(data)["bpp"] <= 0.5


@pytest.mark.parametrize("wanted", [30, 36.5])
def test_a_picture_has_the_fidelity_asked_for(photograph, wanted):
    data = vaecodec.encode(photograph, target_psnr=wanted)
    assert wanted <= psnr(photograph, vaecodec.decode(data)) <= wanted + 0.05


def test_metadata_and_many_tiles_count(photograph, small, monkeypatch):
    encode, rows = small.encode, np.concatenate([photograph[:, :300], photograph[::-1, 200:500]])
    monkeypatch.setattr(small, "encode", lambda *given, **more: encode(*given, **more, tile=256))
    data = modes.encode_rows(small, lambda: rows, False, Target("size", 20000), {"exif": bytes(range(256)) * 4})
    info = vaecodec.info(data)
    assert info["metadata"] == ["exif"] and info["tiles"] == 8
    assert 0.99 * 20000 <= len(data) <= 20000


def test_what_is_out_of_reach_is_said(photograph):
    with pytest.raises(TargetError, match=r"comes to \d+ bytes at least, and the target is 500"):
        vaecodec.encode(photograph, target_size=500)
    with pytest.raises(TargetError, match=r"comes to \d+\.\d+ dB at most, and the target is 80"):
        vaecodec.encode(photograph, target_psnr=80)


def test_more_than_enough_is_no_error(photograph):
    corner = photograph[:64, :80]
    assert vaecodec.encode(corner, target_size=10**6) == vaecodec.encode(corner, quality=100)
    assert vaecodec.encode(corner, target_psnr=5) == vaecodec.encode(corner, quality=1)


def test_what_is_kept_without_loss_meets_any_fidelity():
    deep = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
    assert (vaecodec.decode(vaecodec.encode(deep, target_psnr=99)) == deep).all()
    with pytest.raises(TargetError):
        vaecodec.encode(deep, target_size=60)


@pytest.mark.parametrize("target", ["size", "psnr"])
def test_a_picture_read_in_strips_meets_targets(photograph, tmp_path, monkeypatch, target):
    monkeypatch.setattr(strips, "LARGE", 1000)
    monkeypatch.setattr(strips, "STRIP_BYTES", 200000)
    source, coded = str(tmp_path / "a.png"), str(tmp_path / "a.vae")
    Image.fromarray(photograph).save(source)
    assert strips.open_strips(source) is not None
    if target == "size":
        assert 19800 <= vaecodec.compress_file(source, coded, target_size=20000)["bytes"] <= 20000
    else:
        vaecodec.compress_file(source, coded, target_psnr=33)
        with open(coded, "rb") as file:
            assert 33 <= psnr(photograph, vaecodec.decode(file.read())) <= 33.1


def test_the_command_line_takes_one_target(photograph, tmp_path, capsys):
    source = str(tmp_path / "a.png")
    Image.fromarray(photograph).save(source)
    assert main(["compress", source, "--target-bpp", "0.4", "--json"]) == 0
    assert 0.396 <= json.loads(capsys.readouterr().out)["bpp"] <= 0.4
    assert main(["compress", source, "--target-size", "300", "-f"]) == 1
    assert "target is 300" in capsys.readouterr().err
    for more in (["-q", "30"], ["--target-psnr", "30"]):
        assert main(["compress", source, "--target-size", "3000", *more]) == 2
        assert "not allowed with" in capsys.readouterr().err


def test_a_folder_is_done_again_for_another_target(photograph, tmp_path):
    Image.fromarray(photograph[:128, :128]).save(tmp_path / "a.png")
    sizes = []
    for target in (["--target-size", "400"], ["--target-size", "900"], ["-q", "30"]):
        assert main(["compress", "-r", str(tmp_path), "-j", "1", "--only-images", "-f", *target]) == 0
        sizes.append((tmp_path / "a.vae").stat().st_size)
    assert sizes[0] <= 400 < sizes[1] <= 900 and len(set(sizes)) == 3
