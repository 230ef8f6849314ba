"""Test sampling, varying, interpolating and scoring images, by the API and the commands."""

import csv
import io
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from support.paths import DATA
from support.skips import needs_data
from vaecodec import cli, generative
from vaecodec.errors import CodecError
from vaecodec.generative import image_sets
from vaecodec.generative.image_sets import contact_sheet
from vaecodec.model.file import parse_model

MNIST = DATA / "mnist" / "t10k-images-idx3-ubyte.gz"
needs_mnist = needs_data(MNIST, "MNIST")


@pytest.fixture(scope="module")
def sampled() -> np.ndarray:
    """Digits drawn from the shipped model."""
    return vaecodec.sample(6, seed=3)


def test_samples_depend_only_on_the_seed(sampled):
    assert sampled.shape == (6, 28, 28) and sampled.dtype == np.uint8 and len(np.unique(sampled, axis=0)) == 6
    assert np.array_equal(vaecodec.sample(6, seed=3), sampled)
    assert not np.array_equal(vaecodec.sample(6, seed=4), sampled)
    assert not np.array_equal(vaecodec.sample(6, seed=3, noisy=True), sampled)
    assert (sampled[:, :2] == 0).mean() > 0.95  # digits have a margin
    with pytest.raises(ValueError, match="n is 0"):
        vaecodec.sample(0)


def test_variations_differ_more_with_strength(sampled):
    unchanged = vaecodec.vary(sampled[0], 0, n=2)
    assert np.array_equal(unchanged[0], unchanged[1])
    small_difference, large_difference = (
        np.mean([np.abs(v - unchanged[0].astype(float)).mean() for v in vaecodec.vary(sampled[0], s, n=8)])
        for s in (0.2, 1.0)
    )
    assert small_difference < large_difference
    with pytest.raises(ValueError, match="strength"):
        vaecodec.vary(sampled[0], 1.5)


def test_interpolation_starts_and_ends_with_the_images(sampled):
    images = vaecodec.interpolate(sampled[0], sampled[1], 5)
    assert images.shape == (5, 28, 28)
    assert np.array_equal(images[0], vaecodec.vary(sampled[0], 0)[0])
    assert np.array_equal(images[-1], vaecodec.vary(sampled[1], 0)[0])
    constant = vaecodec.interpolate(sampled[0], sampled[0], 3)
    assert (constant == constant[0]).all()


def test_photographs_are_sampled_varied_and_interpolated():
    sampled = vaecodec.sample(2, model="small", size=(40, 56), quality=40, seed=1)
    assert sampled.shape == (2, 40, 56, 3) and not np.array_equal(sampled[0], sampled[1])
    assert np.array_equal(vaecodec.sample(2, model="small", size=(40, 56), quality=40, seed=1), sampled)
    a, b = synthetic_image(40, 56, 1), synthetic_image(40, 56, 2)
    small = vaecodec.load("small")
    decoded = small.decode(small.encode(a, 75, tune="psnr"), limits=None)
    assert np.array_equal(vaecodec.vary(a, 0, model="small")[0], decoded)
    small_difference, large_difference = (
        np.abs(vaecodec.vary(a, s, model="small")[0] - decoded.astype(float)).mean() for s in (0.05, 1.0)
    )
    assert 0 < small_difference < large_difference
    images = vaecodec.interpolate(a, b, 3, model="small")
    assert np.array_equal(images[0], decoded) and images.shape == (3, 40, 56, 3)
    with pytest.raises(CodecError, match="one size"):
        vaecodec.interpolate(a, b[:-1], 3, model="small")


@needs_mnist
def test_other_images_score_higher_than_digits(sampled):
    x = image_sets.read_set(str(MNIST))[0][:40]
    model = generative.load("digits")
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, x.shape).astype(np.uint8)
    shuffled = rng.permuted(x.reshape(40, -1), axis=1).reshape(x.shape)
    usual = generative.score_images(model, x)
    for images in (noise, shuffled, 255 - x):
        assert min(score.bpd for score in generative.score_images(model, images)) > max(score.bpd for score in usual)
    assert 25 < np.mean([score.percentile for score in usual]) < 75
    blank = vaecodec.score(np.zeros((28, 28), np.uint8))
    # By likelihood a blank image ranks as the most usual; after the correction for complexity, as the strangest.
    assert blank.percentile < 1 and blank.corrected_percentile > 95
    assert blank.corrected == pytest.approx(blank.bpd - blank.complexity)


def test_noise_scores_higher_than_photographs():
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    usual, strange = vaecodec.score(synthetic_image(48, 64), model="small"), vaecodec.score(noise, model="small")
    assert strange.bpd > usual.bpd and usual.percentile is not None and strange.percentile > 90


def test_unsuitable_images_are_refused():
    grey = np.zeros((28, 28), np.uint8)
    assert vaecodec.score(np.repeat(grey[..., None], 3, 2)) == vaecodec.score(grey)  # grey samples in three channels
    for unsuitable in (np.zeros((28, 27), np.uint8), synthetic_image(28, 28), np.zeros((28, 28), np.uint16)):
        with pytest.raises(CodecError):
            vaecodec.score(unsuitable, model="digits")


def test_the_model_is_chosen_by_the_image():
    digit, photograph = np.zeros((28, 28), np.uint8), synthetic_image(40, 50)
    assert vaecodec.vary(digit, 0.1).shape == (1, 28, 28)
    assert vaecodec.vary(photograph, 0.1, n=2).shape == (2, 40, 50, 3)
    assert vaecodec.interpolate(photograph, photograph, 2).shape == (2, 40, 50, 3)
    assert vaecodec.score(photograph) == vaecodec.score(photograph, model="small")
    for image in (synthetic_image(28, 28), digit[:27]):  # of the size of digits in colour; grey of another size
        assert vaecodec.score(image) == vaecodec.score(image, model="small")


def test_calibration_keeps_the_id(sampled, tmp_path, capsys):
    np.save(tmp_path / "x.npy", np.concatenate([sampled, vaecodec.sample(20)]))
    out = tmp_path / "own.vcm"
    assert cli.main(["calibrate", "digits", str(tmp_path / "x.npy"), "-o", str(out)]) == 0
    model = parse_model(out.read_bytes(), "it")
    assert model.id == generative.load("digits").id and len(model.arrays["calibration/bpd"]) == generative.QUANTILES
    assert vaecodec.score(sampled[0], model=str(out)).percentile is not None


def test_commands_write_sheets(sampled, tmp_path, capsys):
    for n, digit in enumerate(sampled[:3]):
        Image.fromarray(digit).save(tmp_path / f"{n}.png")
    first, second, out = str(tmp_path / "0.png"), str(tmp_path / "1.png"), tmp_path / "out"
    out.mkdir()
    commands = {
        "s.png": ["sample", "-n", "9", "--columns", "3"],
        "v.png": ["vary", first, "-n", "4", "--strength", "0.4"],
        "i.png": ["interpolate", first, second, "-n", "5", "--columns", "5"],
        "t.png": ["sample", "-n", "2", "-m", "small", "--size", "40x32"],
    }
    for name, command in commands.items():
        assert cli.main([*command, "-o", str(out / name)]) == 0, capsys.readouterr().err
    assert Image.open(out / "s.png").size == Image.open(out / "s.png").size[::-1]
    assert Image.open(out / "i.png").size[0] > 5 * 84 and Image.open(out / "t.png").mode == "RGB"
    assert cli.main(["sample", "-o", str(out / "s.png")]) == 1 and "exists already" in capsys.readouterr().err
    assert cli.main(["vary", str(tmp_path / "none.png"), "-o", str(out / "n.png")]) == 1
    assert cli.main(["vary", first, "--strength", "2", "-o", str(out / "n.png")]) == 2
    assert "strength" in capsys.readouterr().err and not (out / "n.png").exists()


def test_score_writes_a_table_and_a_sheet(sampled, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for n, image in enumerate([*sampled[:2], np.random.default_rng(0).integers(0, 256, (28, 28)).astype(np.uint8)]):
        Image.fromarray(image).save(folder / f"{n}.png")
    assert cli.main(["score", str(folder), "--sheet", str(tmp_path / "s.png"), "--most", "2"]) == 0
    scores = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert pathlib.Path(scores[0]["input"]).name == "2.png" and len(scores) == 3
    assert (
        float(scores[0]["bpd"]) > float(scores[1]["bpd"]) >= float(scores[2]["bpd"])
        and float(scores[0]["percentile"]) == 100
    )
    assert cli.main(["score", str(folder), "-o", str(tmp_path / "t.csv"), "--by", "corrected", "--quiet"]) == 0
    assert (
        (tmp_path / "t.csv").read_text().startswith("input,bpd,complexity,corrected,percentile,corrected_percentile\n")
    )
    capsys.readouterr()
    assert cli.main(["score", str(folder), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record.get("input") for record in records] == [*(score["input"] for score in scores), None]
    assert all(f"{record['bpd']:.4f}" == score["bpd"] for record, score in zip(records, scores, strict=False))
    # Damaged files are reported, and other files are scored.
    Image.fromarray(synthetic_image(40, 50)).save(folder / "3.png")
    (folder / "4.png").write_bytes(b"no image")
    assert cli.main(["score", str(folder), "-m", "small"]) == 1
    output = capsys.readouterr()
    assert len(output.out.splitlines()) == 5 and "4.png" in output.err


def test_contact_sheets_scale_and_pad_images():
    small, large = np.full((7, 7), 9, np.uint8), np.full((40, 20, 3), 200, np.uint8)
    sheet = contact_sheet([small, large], cell=16)
    assert sheet.ndim == 3 and (sheet[2:16, 2:16] == 9).all() and sheet.shape == (20, 34, 3)
    assert contact_sheet([small] * 5, columns=5).shape == (11, 47)
