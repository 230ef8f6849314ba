"""Test rate control: the search for a size or a fidelity, and files that meet their target."""

import json
import math

import numpy as np
import pytest
from PIL import Image

import vaecodec
from vaecodec import TargetError
from vaecodec.cli import main
from vaecodec.codec import modes
from vaecodec.codec.mode_decision import Target, search
from vaecodec.config import LAST_ANCHOR, QUALITY_INDICES
from vaecodec.images import strips
from vaecodec.images.metrics import psnr


def rate(quality_index):
    """Bytes of an imaginary image, which grow unevenly with the quality index."""
    return round(4000 * math.exp(3.4 * quality_index / LAST_ANCHOR + 0.05 * math.sin(quality_index / 40)))


def fidelity(quality_index):
    """PSNR of an imaginary image in dB."""
    return 26 + 14 * (quality_index / LAST_ANCHOR) ** 0.9


def counting(function):
    trials = []

    def trial(quality_index):
        trials.append(quality_index)
        return function(quality_index)

    return trial, trials


@pytest.mark.parametrize("size", [4100, 5000, 12345, 50000, 110000])
def test_the_search_meets_sizes_from_below_in_few_trials(size):
    trial, trials = counting(rate)
    quality_index = search(Target("size", size), trial)
    assert 0.99 * size <= rate(quality_index) <= size and quality_index in trials
    assert len(trials) == len(set(trials)) <= 6


@pytest.mark.parametrize("target", [26.5, 30.0, 33.3, 39.5])
def test_the_search_meets_fidelities_from_above_in_few_trials(target):
    trial, trials = counting(fidelity)
    quality_index = search(Target("psnr", target), trial)
    assert target <= fidelity(quality_index) <= target + 0.05
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
def test_unreachable_targets_end_at_an_extreme(target, function, end):
    trial, trials = counting(function)
    assert search(target, trial) == end and end in trials and len(trials) <= 12


def test_a_size_is_not_exceeded_even_if_sizes_grow_in_jumps():
    quality_index = search(Target("size", 4500), lambda quality_index: 1000 * (1 + quality_index // 100))
    assert quality_index == 399


@pytest.mark.parametrize("value", [0, -3, math.nan, math.inf])
def test_targets_must_be_positive_numbers(value):
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
def test_files_have_the_requested_size(photograph, size):
    data = vaecodec.encode(photograph, target_size=size)
    assert 0.99 * size <= len(data) <= size
    assert vaecodec.info(data)["coding"] == "vae"


def test_target_bpp_counts_the_whole_file(photograph):
    height, width = photograph.shape[:2]
    for samples in (photograph, np.dstack([photograph, np.full((height, width), 255, np.uint8)])):
        data = vaecodec.encode(samples, target_bpp=0.5)
        assert 0.495 <= vaecodec.info(data)["bpp"] <= 0.5


@pytest.mark.parametrize("target", [30, 36.5])
def test_images_have_the_requested_fidelity(photograph, target):
    data = vaecodec.encode(photograph, target_psnr=target)
    assert target <= psnr(photograph, vaecodec.decode(data)) <= target + 0.15


def test_sizes_include_metadata_and_all_tiles(photograph, small, monkeypatch):
    encode, pixels = small.encode, np.concatenate([photograph[:, :300], photograph[::-1, 200:500]])
    monkeypatch.setattr(small, "encode", lambda *arguments, **options: encode(*arguments, **options, tile=256))
    data = modes.encode_rows(small, lambda: pixels, False, Target("size", 20000), {"exif": bytes(range(256)) * 4})
    info = vaecodec.info(data)
    assert info["metadata"] == ["exif"] and info["tiles"] == 8
    assert 0.99 * 20000 <= len(data) <= 20000


def test_unreachable_targets_raise_an_error(photograph):
    with pytest.raises(TargetError, match=r"comes to \d+ bytes at least, and the target is 500"):
        vaecodec.encode(photograph, target_size=500)
    with pytest.raises(TargetError, match=r"comes to \d+\.\d+ dB at most, and the target is 80"):
        vaecodec.encode(photograph, target_psnr=80)


def test_targets_beyond_the_extremes_are_met_by_the_extremes(photograph):
    corner = photograph[:64, :80]
    assert vaecodec.encode(corner, target_size=10**6) == vaecodec.encode(corner, quality=100)
    assert vaecodec.encode(corner, target_psnr=5) == vaecodec.encode(corner, quality=1, tune="psnr")


def test_lossless_files_meet_any_fidelity():
    samples = np.kron(np.eye(8, dtype=np.uint16) * 999, np.ones((9, 9), np.uint16))
    assert (vaecodec.decode(vaecodec.encode(samples, target_psnr=99)) == samples).all()
    with pytest.raises(TargetError):
        vaecodec.encode(samples, target_size=20)


@pytest.mark.parametrize("target", ["size", "psnr"])
def test_images_read_in_strips_meet_targets(photograph, tmp_path, monkeypatch, target):
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


def test_the_command_line_accepts_one_target(photograph, tmp_path, capsys):
    source = str(tmp_path / "a.png")
    Image.fromarray(photograph).save(source)
    assert main(["compress", source, "--target-bpp", "0.4", "--json"]) == 0
    assert 0.396 <= json.loads(capsys.readouterr().out)["bpp"] <= 0.4
    assert main(["compress", source, "--target-size", "300", "-f"]) == 1
    assert "target is 300" in capsys.readouterr().err
    for options in (["-q", "30"], ["--target-psnr", "30"]):
        assert main(["compress", source, "--target-size", "3000", *options]) == 2
        assert "not allowed with" in capsys.readouterr().err


def test_folders_are_compressed_again_for_another_target(photograph, tmp_path):
    Image.fromarray(photograph[:128, :128]).save(tmp_path / "a.png")
    sizes = []
    for target in (["--target-size", "400"], ["--target-size", "900"], ["-q", "30"]):
        assert main(["compress", "-r", str(tmp_path), "-j", "1", "--only-images", "-f", *target]) == 0
        sizes.append((tmp_path / "a.vae").stat().st_size)
    assert sizes[0] <= 400 < sizes[1] <= 900 and len(set(sizes)) == 3
