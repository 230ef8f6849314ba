"""Test BD-rates of single images, their confidence intervals, and the comparison of two runs."""

import json
import math
import shutil

import numpy as np
import pytest

from support.bench import write_images
from vaecodec.bench import curves
from vaecodec.bench.curves import Curve, Point, Samples, delta, image_rates, interval
from vaecodec.cli import main
from vaecodec.images.metrics import METRICS, linear_rate, rising

pytest.importorskip("bjontegaard")
PSNR = METRICS["psnr"]


def samples(factors: list[float]) -> Samples:
    """An image for each factor, with that factor times the bits at equal PSNR."""
    rates = np.array([[factor * 0.05 * 2**q for q in range(6)] for factor in factors])
    return Samples(rates, {"psnr": np.array([[24.0 + 4 * q for q in range(6)]] * len(factors))})


def test_rates_of_images_are_those_of_their_factors():
    anchor, ours = samples([1.0] * 3), samples([0.5, 1.0, 2.0])
    rates = image_rates(anchor, ours, PSNR)
    assert [rate for rate, _ in rates] == pytest.approx([-50, 0, 100])
    assert [bpp for _, bpp in rates] == pytest.approx([0.05 * 2 ** (9 / 4)] * 3)  # at 33 dB


def test_linear_rates_are_close_to_cubic_ones():
    def curve(factor: float, bend: float) -> tuple[Curve, tuple[np.ndarray, np.ndarray]]:
        bpp = factor * 0.05 * 2.0 ** np.arange(8)
        psnr = 24 + 2.5 * np.arange(8) - bend * np.arange(8) ** 2
        points = [Point(math.nan, *pair) for pair in zip(bpp, ({"psnr": value} for value in psnr), strict=True)]
        return Curve("", "", points), (np.log(bpp), psnr)

    (anchor, first), (ours, second) = curve(1.0, 0.02), curve(0.8, 0.05)
    assert linear_rate(first, second, PSNR.window) == pytest.approx(delta(anchor, ours, PSNR).rate, abs=0.5)


def test_intervals_cover_the_estimate_and_shrink_with_images():
    rng = np.random.default_rng(0)
    widths = []
    for count in (10, 90):
        factors = list(np.exp(rng.normal(0, 0.2, count)))
        low, high = interval(samples([1.0] * count), samples(factors), PSNR, -3.0)
        assert low < -3 < high
        widths.append(high - low)
    assert widths[1] < 0.6 * widths[0]
    assert interval(samples([1.0] * 3), samples([1.0] * 3), PSNR, 0.0) is None
    same = interval(samples([1.0] * 9), samples([0.9] * 9), PSNR, -10.0)
    assert same == pytest.approx((-10, -10))


def test_points_that_are_worse_are_left_out():
    x, y = rising(np.array([3.0, 1.0, 2.0, 4.0]), np.array([5.0, 1.0, 6.0, np.nan]))
    assert x.tolist() == [1, 2] and y.tolist() == [1, 6]
    assert math.isnan(linear_rate((x, y), (x[:1], y[:1]), (0, 10)))
    assert math.isnan(linear_rate((x, y), (x, y + 5)))


def test_settings_that_lack_an_image_are_no_samples():
    row = {"codec": "a", "version": "", "settings": "", "threads": "1", "device": "cpu", "crc32": "0"}
    row |= {"bpp": "1", "psnr": "30"}
    rows = [row | {"image": image, "setting": setting} for image, setting in (("x", "1"), ("y", "1"), ("x", "2"))]
    kinds = {"a": ("a", "", "", "1", "cpu"), "b": ("b", "", "", "1", "cpu")}
    samples = curves.samples_of(rows, [("x", "0"), ("y", "0")], kinds, ["psnr"])
    assert list(samples) == ["a"] and samples["a"].bpp.tolist() == [[1], [1]]


def test_runs_are_compared(tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    write_images(folder)
    common = ["bench", str(folder), "--quick", "--metrics", "psnr", "--show", "0"]
    assert main([*common, "-o", str(tmp_path / "old"), "--codecs", "jpeg,webp", "--quiet"]) == 0
    shutil.copytree(tmp_path / "old", tmp_path / "new")
    assert main([*common, "-o", str(tmp_path / "new"), "--codecs", "webp", "--compare", str(tmp_path / "old")]) == 0
    assert f"webp since {tmp_path / 'old'}: bits by psnr +0.00 %; encoding at 1.00" in capsys.readouterr().err
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert [curve["name"] for curve in summary["curves"]] == ["webp"]  # those asked for, and no earlier ones
    assert [row["name"] for row in summary["compare"]["codecs"]] == ["webp"]
    assert main([*common, "-o", str(tmp_path / "new"), "--codecs", "webp", "--compare", str(tmp_path / "none")]) == 1
    assert "no results to compare with" in capsys.readouterr().err
    assert main([*common, "-o", str(tmp_path / "new"), "--codecs", "webp", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["schema"], record["command"], record["status"], record["codecs"]) == (1, "bench", "done", ["webp"])
