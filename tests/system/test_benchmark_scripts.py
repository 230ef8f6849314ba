"""Test that the scripts of benchmarks/ run on small inputs and give complete tables with plausible numbers."""

import json
import runpy
import sys

import pytest
from PIL import Image

from support.images import synthetic_image
from support.models import TINY_CONFIG
from support.paths import GOLDEN, ROOT
from vaecodec.config import PRESETS
from vaecodec.errors import CodecError

SCRIPTS = ROOT / "benchmarks"
MODEL = ["--model", str(GOLDEN / "tiny.vcm")]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """A function that runs a script, checks that its printed table agrees with its JSON, and returns the table."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.setenv("PYTHONPATH", str(SCRIPTS.parent))

    def run(name: str, *arguments: str) -> list[list]:
        path = tmp_path / "table.json"
        monkeypatch.setattr(sys, "argv", [name, *arguments, "-o", str(path)])
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")
        table = json.loads(path.read_text())
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
        assert table["rows"][0][0] in capsys.readouterr().out
        return table["rows"]

    return run


def test_startup_measures_time_and_memory(run):
    rows = {row[0]: row[1:] for row in run("startup.py", "--repeat", "1", *MODEL)}
    assert "vaecodec --help" in rows and all(seconds > 0 and memory > 5 for seconds, memory in rows.values())


def test_throughput_shares_add_up(run):
    sizes = ["--sizes", "64x64,96x64", "--threads", "1", "--at-once", "1,2", "--repeat", "1"]
    rows = run("throughput.py", *sizes, *MODEL)
    assert len(rows) == 2 * 2 + 2
    for direction, _, threads, at_once, speed, *parts in rows:
        assert direction in ("encode", "decode") and threads == 1 and speed > 0
        if at_once == 1:
            assert sum(parts) == pytest.approx(100) and min(parts) >= 0
            analysis, synthesis = parts[:2]  # an encoder needs the decoder's pixels too, for their CRC
            assert synthesis > 0 and (analysis > 0) == (direction == "encode")


def test_speed_compares_instruction_sets_and_threads(run, tmp_path):
    Image.fromarray(synthetic_image(64, 96)).save(tmp_path / "image.png")
    models = ["--models", str(GOLDEN / "tiny.vcm"), "--threads", "1,2", "--repeat", "1"]
    rows = run("speed.py", "instruction-sets", str(tmp_path / "image.png"), *models)
    assert len({row[1] for row in rows}) == len(rows) > 0 and all(min(row[2:]) > 0 for row in rows)


def test_speed_compares_peers_at_equal_psnr(run, tmp_path):
    pytest.importorskip("imagecodecs")
    Image.fromarray(synthetic_image(64, 96)).save(tmp_path / "image.png")
    options = ["--models", str(GOLDEN / "tiny.vcm"), "--threads", "1", "--repeat", "1", "--qualities", "50"]
    rows = run("speed.py", "peers", str(tmp_path / "image.png"), *options, "--efforts", "1")
    assert [row[1] for row in rows] == ["encode", "decode"] and all(min(row[3:]) > 0 for row in rows)


def test_speed_measures_large_images(run):
    options = ["--models", str(GOLDEN / "tiny.vcm"), "--threads", "1,2", "--repeat", "1", "--size", "96", "64"]
    rows = run("speed.py", "large", *options)
    assert [row[1] for row in rows] == [1, 2]
    assert all(row[2] > 0 and row[3] > 0 and min(row[4:]) > 20 for row in rows)


def test_complexity_counts_the_networks(run):
    pytest.importorskip("tensorflow")
    rows = {row[0]: row[1:] for row in run("complexity.py", "--preset", "small")}
    assert rows["all of the decoder"][0] == pytest.approx(rows["prior"][0] + rows["synthesis"][0])
    # A lower bound: the first and last layers of the analysis network, at 1/16 of the sides.
    config = PRESETS["small"]
    assert rows["analysis"][0] > config.coarse**2 / 256 / 1000
    rows, larger = (
        {row[0]: row[1:] for row in run("complexity.py", "--preset", preset)} for preset in ("small", "base")
    )
    assert rows.keys() == larger.keys()
    for name, (macs, parameters) in rows.items():
        if name in ("analysis", "synthesis"):  # base has the transforms of small
            assert larger[name] == [macs, parameters]
        else:
            assert larger[name][0] > macs and larger[name][1] > parameters


def test_transforms_are_measured_in_batches(run, tmp_path):
    pytest.importorskip("tensorflow")
    rows = run("transforms.py", "--size", "32x32", "--batches", "1,2", "--repeat", "1", *MODEL)
    cases = [(d, b, n) for d in ("cpu", "tensorflow") for b in (1, 2) for n in ("analysis", "synthesis")]
    assert [row[:4] for row in rows] == [[device, name, "32 x 32", batch] for device, batch, name in cases]
    assert all(speed > 0 and share > 0 for *_, speed, share in rows)


@pytest.mark.parametrize("device", ["cpu", "tensorflow"])
def test_batches_are_measured_as_on_a_gpu(run, device):
    if device == "tensorflow":
        pytest.importorskip("tensorflow")
    sizes = ["--sizes", "32x32,64x48", "--batches", "1,9", "--most", "0.02", "--repeat", "1", "--threads", "2"]
    rows = run("batches.py", "--device", device, *sizes, *MODEL)
    assert [row[:3] for row in rows] == [[device, "32 x 32", 1], [device, "32 x 32", 9], [device, "64 x 48", 1]]
    assert all(speed > 0 for row in rows for speed in row[3:])


def test_exported_transforms_run_in_jax(run, tmp_path, monkeypatch):
    """What a GPU machine without TensorFlow does, on the CPU: `run` must not import TensorFlow."""
    pytest.importorskip("tensorflow")
    pytest.importorskip("jax")
    bundle = str(tmp_path / "bundle")
    sizes = ["--sizes", "32x32,64x48", "--batches", "2"]
    monkeypatch.setattr(sys, "argv", ["exported.py", "export", bundle, *sizes, *MODEL, "--threads", "2"])
    runpy.run_path(str(SCRIPTS / "exported.py"), run_name="__main__")
    for name in [name for name in sys.modules if name.split(".")[0] == "tensorflow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    rows = run("exported.py", "run", bundle, *MODEL, "--threads", "2", "--repeat", "1")
    assert [row[1:3] for row in rows] == [["32 x 32", 2], ["64 x 48", 2]]
    assert all(speed > 0 for row in rows for speed in row[3:])
    with pytest.raises(CodecError, match="is of the model"):
        run("exported.py", "run", bundle, "--model", "small", "--threads", "2")
    (tmp_path / "bundle" / "pixels-2x32x32.mlir").unlink()
    with pytest.raises(CodecError, match="has no pixels-2x32x32"):
        run("exported.py", "run", bundle, *MODEL, "--threads", "2", "--repeat", "1")


def test_an_exported_training_step_runs_in_jax(run, tmp_path):
    pytest.importorskip("tensorflow")
    pytest.importorskip("jax")
    from vaecodec import training
    from vaecodec.training.train_step import Options, export_step

    options = Options(batch=2, crop=64)
    export_step(TINY_CONFIG, options, str(tmp_path / "bundle"), training.initial_state(TINY_CONFIG))
    [row] = run("exported.py", "step", str(tmp_path / "bundle"), "--repeat", "2")
    assert row[1:3] == ["64 x 64", 2] and row[5] == pytest.approx(row[4] * 2 * 64**2 / 1e6) and min(row[3:]) > 0


def test_mixed_names_the_worst_image(tmp_path, monkeypatch, capsys):
    for n in (1, 2):
        Image.fromarray(synthetic_image(80, 120, n)).save(tmp_path / f"{n}.png")
    monkeypatch.setattr(sys, "argv", ["mixed.py", str(tmp_path), "--qualities", "60", "--worst", "1"])
    runpy.run_path(str(SCRIPTS / "mixed.py"), run_name="__main__")
    header, _, row, *rest = capsys.readouterr().out.splitlines()
    assert header.count("|") == row.count("|") == 8 and not rest
    name, quality, coding, bpp, psnr, *peers = (cell.strip() for cell in row.strip("|").split("|"))
    assert name in ("1.png", "2.png") and quality == "60" and coding in ("vae", "lossless", "near-lossless", "avif")
    assert float(bpp) > 0 and float(psnr) > 30 and all(value == "-" or abs(float(value)) < 30 for value in peers)
    assert set(peers) != {"-"}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_huge_measures_time_and_memory(run):
    before = Image.MAX_IMAGE_PIXELS
    rows = run("huge.py", "--side", "520", "--threads", "1")
    assert len(rows) == 6 and all(seconds > 0 and speed > 0 for _, seconds, speed, _ in rows)
    assert max(memory for *_, memory in rows) > 10  # a busy machine may not sample the peak of every short command
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bulk_compares_folders_and_ray(run, tmp_path):
    pytest.importorskip("ray")
    (tmp_path / "pictures").mkdir()
    Image.fromarray(synthetic_image(70, 80)).save(tmp_path / "pictures" / "a.png")
    try:
        rows = run("bulk.py", str(tmp_path / "pictures"), "--copies", "2", "--repeat", "1")
    except CodecError as exc:  # Ray has a limit of half a minute to start
        pytest.skip(str(exc))
    assert [row[:2] for row in rows[2:]] == [["folder mode", 2], ["Ray", 2], ["Ray, one file", 1]]
    assert all(seconds > 0 for _, _, seconds, _ in rows[1:])


def test_effort_resumes(run, tmp_path):
    images, rows = tmp_path / "pictures", tmp_path / "rows.csv"
    images.mkdir()
    for n in range(3):
        Image.fromarray(synthetic_image(70, 80 + n)).save(images / f"{n}.png")
    arguments = [str(images), *MODEL, "--count", "2", "--crop", "64", "--rows", str(rows)]
    first = run("effort.py", *arguments, "--efforts", "2")
    measured = rows.read_text()
    assert [row[0] for row in first] == ["1", "2"] and first[0][2:7] == [0] * 5 and len(measured.splitlines()) == 20
    assert run("effort.py", *arguments, "--efforts", "2") == first and rows.read_text() == measured


def test_effort_for_the_eye_is_measured_by_ssimulacra2(run, tmp_path):
    pytest.importorskip("ssimulacra2")
    Image.fromarray(synthetic_image(70, 80)).save(tmp_path / "a.png")
    rows = run("effort.py", str(tmp_path), "--tune", "eye", "--crop", "64", "--qualities", "50,90", "--efforts", "2")
    assert [row[:2] for row in rows] == [["1", 0], ["2", 2]] and all(-30 < row[6] < 30 for row in rows)


def test_quality_raises_rate(run, tmp_path):
    Image.fromarray(synthetic_image(70, 80)).save(tmp_path / "a.png")
    rows = run("quality.py", str(tmp_path / "a.png"), *MODEL, "--crop", "64", "--qualities", "10,90")
    assert rows[1][1] > rows[0][1] and rows[1][4] == pytest.approx(100 * (rows[1][1] / rows[0][1] - 1))


def test_pipelines_measure_speed_and_cpu(run, tmp_path):
    pytest.importorskip("tensorflow")
    (tmp_path / "pictures").mkdir()
    for n in range(2):
        Image.fromarray(synthetic_image(130, 140, n)).save(tmp_path / "pictures" / f"{n}.png")
    rows = run("pipelines.py", str(tmp_path / "pictures"), "--repeat", "1", "--threads", "2", *MODEL)
    assert {row[0] for row in rows} == {"tf.data", "encode", "decode"} and len(rows) == 6 + 4
    assert all(speed > 0 and cpu >= 0 for *_, speed, cpu in rows)


def test_arrays_keep_their_bounds(run):
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    rows = run("arrays.py", "--only", "cancer", "--codecs", "vaecodec,blosc-zstd,zfp")
    assert {row[3] for row in rows} == {"vaecodec", "blosc-zstd", "zfp"} and len(rows) == 12
    assert all(row[8] == "yes" for row in rows if row[3] == "vaecodec")
    assert all(row[4] > 0 and row[5] > 1 and min(row[6:8]) > 0 for row in rows if row[3] != "zfp")
