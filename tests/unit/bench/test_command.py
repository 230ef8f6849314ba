"""Test vaecodec bench with three images and two peers: results, resuming, and errors."""

import csv
import json
import shutil
import sys

import pytest
from PIL import Image

from support.bench import COMMON, OURS, write_images
from support.images import synthetic_image
from support.paths import ROOT
from vaecodec import bench
from vaecodec.bench import measure
from vaecodec.cli import benchmark, main

pytest.importorskip("scipy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished_run(folder, tmp_path_factory):
    """A finished quick run."""
    out = tmp_path_factory.mktemp("out")
    assert main(["bench", str(folder), "-o", str(out), "--quiet", *COMMON]) == 0
    return out


def read_results(out) -> list[dict[str, str]]:
    with open(out / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def keys(table: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return [tuple(row[name] for name in measure.IDENTITY) for row in table]


def test_every_codec_has_a_row_for_every_image_and_setting(finished_run):
    table = read_results(finished_run)
    assert tuple(table[0]) == measure.COLUMNS
    assert len(table) == len(set(keys(table))) == 3 * 3 * 4
    for row in table:
        assert float(row["bpp"]) == pytest.approx(8 * int(row["bytes"]) / (176 * 192), abs=1e-6)
        assert min(float(row["encode_s"]), float(row["decode_s"])) > 0
        assert 0 < float(row["ms_ssim"]) < 1 and row["ssimulacra2"] == ""


def test_the_summary_is_plausible(finished_run):
    summary = json.loads((finished_run / "summary.json").read_text())
    assert [curve["name"] for curve in summary["curves"]] == ["vaecodec:tiny.vcm", "jpeg", "webp"]
    for curve in summary["curves"]:
        for axis in ("bpp", "psnr", "ms-ssim"):
            values = [point[axis] for point in curve["points"]]
            if curve["name"] in ("jpeg", "webp"):  # the curve of the untrained tiny model need not rise
                assert values == sorted(values) and len(values) == 4
    for metric in ("psnr", "ms-ssim"):
        for name in ("jpeg", "webp"):
            assert summary["bd"][metric][name][name]["rate"] in (0, None)
    assert summary["bd"]["psnr"]["jpeg"]["webp"]["rate"] is not None
    assert "| jpeg |" in (finished_run / "tables.md").read_text()
    assert [sentence.partition(",")[0] for sentence in summary["place"]] == ["vaecodec:tiny.vcm"] * 2
    assert all((finished_run / name).stat().st_size > 5000 for name in ("rd-psnr.png", "rd-ms-ssim.png", "speed.png"))


def test_curves_follow_the_schema_of_compressai(finished_run):
    schema = json.loads((finished_run / "compressai" / "jpeg.json").read_text())
    assert set(schema) == {"name", "description", "results"}
    assert set(schema["results"]) == {"psnr-rgb", "ms-ssim-rgb", "bpp", "encoding_time", "decoding_time"}
    assert {len(values) for values in schema["results"].values()} == {4}
    measurements = [row for row in read_results(finished_run) if row["codec"] == "jpeg" and row["setting"] == "95"]
    seconds = sum(float(row["encode_s"]) for row in measurements) / len(measurements)
    assert schema["results"]["encoding_time"][-1] == pytest.approx(seconds, rel=1e-3)
    assert schema["results"]["bpp"][-1] == pytest.approx(sum(float(row["bpp"]) for row in measurements) / 3, rel=1e-5)


def test_a_second_run_repeats_no_measurement(finished_run, folder, monkeypatch):
    before = (finished_run / "results.csv").read_bytes()
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("measured again"))
    assert main(["bench", str(folder), "-o", str(finished_run), "--quiet", *COMMON]) == 0
    assert (finished_run / "results.csv").read_bytes() == before


def test_later_runs_add_metrics(folder, tmp_path):
    common = ["bench", str(folder / "0.png"), "-o", str(tmp_path), "--codecs", "jpeg", "--qualities", "30,80"]
    assert main([*common, "--quiet", "--show", "0", "--metrics", "psnr"]) == 0
    assert main([*common, "--quiet", "--show", "0", "--metrics", "psnr,ssimulacra2"]) == 0
    table = measure.read_rows(str(tmp_path / "results.csv"))
    assert len(table) == 2 and all(row["ssimulacra2"] and row["psnr"] for row in table)


def test_unreadable_inputs_have_a_line_each_and_others_are_measured(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("not an image")
    broken = tmp_path / "broken.png"
    broken.write_bytes((folder / "0.png").read_bytes()[:2000])
    paths = [str(tmp_path / name) for name in ("empty", "notes.txt", "broken.png", "missing.png")]
    line = ["bench", *paths, str(folder / "0.png"), "-o", str(tmp_path / "out"), "--show", "0", "--metrics", "psnr"]
    assert main([*line, "--codecs", "jpeg,nonsense", "--qualities", "jpeg=10,90,900"]) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vaecodec: ")]
    messages = [
        f"{paths[0]}: no images in this folder",
        f"{paths[1]}: not an image that Pillow can read",
        f"{paths[2]}: ",
        f"{paths[3]}: No such file or directory",
        "nonsense: no codec is called 'nonsense'",
        "jpeg: quality 900 is not in 1..100",
    ]
    assert len(lines) == len(messages)
    for start in messages:
        assert any(line.startswith(f"vaecodec: {start}") for line in lines), start
    assert [row["setting"] for row in read_results(tmp_path / "out")] == ["10", "90"]


def test_an_empty_folder_is_an_error(tmp_path, capsys):
    assert main(["bench", str(tmp_path), "-o", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"vaecodec: {tmp_path}: no images in this folder",
        "vaecodec: bench: nothing to do: no images",
    ]


def test_a_broken_peer_is_reported_and_skipped(folder, tmp_path, capsys, monkeypatch):
    def broken(options: bench.Options) -> bench.Peer:
        jpeg = bench.open_peer("jpeg", options)
        return jpeg._replace(name="broken", decode=lambda data: jpeg.decode(data)[:5])

    monkeypatch.setitem(bench.PEERS, "broken", broken)
    line = ["bench", str(folder), "-o", str(tmp_path), "--show", "1", "--metrics", "psnr", "--qualities", "20,50,80"]
    assert main([*line, "--codecs", "broken,jpeg"]) == 1
    messages = capsys.readouterr().err
    assert "broken at 20 on 0.png: decoded to uint8[5, 192, 3], expected uint8[176, 192, 3]" in messages
    assert "broken: failed on 3 images in succession and is left out of the rest" in messages
    assert {row["codec"] for row in read_results(tmp_path)} == {"jpeg"}
    assert (tmp_path / "report.html").exists()


def test_images_that_a_codec_refuses_are_skipped(tmp_path, capsys, monkeypatch):
    def picky(options: bench.Options) -> bench.Peer:
        jpeg = bench.open_peer("jpeg", options)

        def encode(x, quality):
            if x.shape[0] < 16:
                raise ValueError("too small")
            return jpeg.encode(x, quality)

        return jpeg._replace(name="picky", encode=encode)

    monkeypatch.setitem(bench.PEERS, "picky", picky)
    for n, side in enumerate((8, 32, 8, 32)):
        Image.fromarray(synthetic_image(side, side, n)).save(tmp_path / f"{n}.png")
    line = ["bench", str(tmp_path), "-o", str(tmp_path / "out"), "--show", "0", "--metrics", "psnr"]
    assert main([*line, "--codecs", "picky", "--qualities", "20,40,60,80"]) == 1
    assert {row["image"] for row in read_results(tmp_path / "out")} == {"1.png", "3.png"}
    messages = capsys.readouterr().err
    assert messages.count("too small") == 6 and "no codec was measured on every image" in messages


@pytest.mark.parametrize("codecs", ["png", "jpeg"])
def test_runs_without_curves_have_a_report(codecs, folder, tmp_path, capsys):
    line = ["bench", str(folder / "0.png"), "-o", str(tmp_path), "--codecs", codecs, "--metrics", "psnr"]
    assert main([*line, "--qualities", "jpeg=50"]) == 0
    assert (tmp_path / "report.html").exists() and "Warning" not in capsys.readouterr().err


def test_missing_default_peers_are_noted(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(bench, "DEFAULT", ("jpeg", "hevc"))
    line = ["bench", str(folder / "0.png"), "-o", str(tmp_path), "--show", "0", "--metrics", "psnr"]
    assert main([*line, "--qualities", "20,80"]) == 0
    assert "vaecodec: hevc is left out: needs PyAV with x265: pip install av" in capsys.readouterr().err


def test_results_in_the_folder_of_images_are_not_measured(folder, tmp_path):
    shutil.copy(folder / "0.png", tmp_path)
    out = tmp_path / "out"
    common = ["--codecs", "jpeg", "--qualities", "20,80", "--metrics", "psnr", "--show", "1", "--quiet"]
    for _ in range(2):
        assert main(["bench", str(tmp_path), "-o", str(out), *common]) == 0
    assert {row["image"] for row in read_results(out)} == {"0.png"}


def test_foreign_tables_are_not_changed(folder, tmp_path, capsys):
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    assert main(["bench", str(folder), "-o", str(tmp_path), "--codecs", "jpeg"]) == 1
    assert "not a table of this version's benchmark" in capsys.readouterr().err
    assert (tmp_path / "results.csv").read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    "arguments", [["--metrics", "vmaf"], ["--qualities", "jpeg=a"], ["--threads", "0"], ["--codecs", ","]]
)
def test_usage_errors_exit_with_2(folder, arguments, capsys):
    assert main(["bench", str(folder), *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_published_curves_are_shown_only_for_kodak(folder, tmp_path, capsys, monkeypatch):
    table = str(ROOT / "benchmarks" / "published" / "kodak.csv")
    line = ["bench", "--codecs", "jpeg", "--metrics", "psnr", "--show", "0", "--published", table]
    assert main([*line, str(folder), "-o", str(tmp_path / "other")]) == 0
    assert "is left out: it is of Kodak's 24 images" in capsys.readouterr().err
    kodak = tmp_path / "kodak"
    kodak.mkdir()
    for n in range(1, 25):
        Image.fromarray(synthetic_image(32, 32, n)).save(kodak / f"kodim{n:02}.png")
    assert main([*line, str(kodak), "-o", str(tmp_path / "small")]) == 0
    assert "is left out: it is of Kodak's 24 images" in capsys.readouterr().err
    monkeypatch.setattr(benchmark, "KODAK_PIXELS", 32 * 32)
    assert main([*line, str(kodak), "-o", str(tmp_path / "out"), "--quiet"]) == 0
    names = [curve["name"] for curve in json.loads((tmp_path / "out" / "summary.json").read_text())["curves"]]
    assert names[0] == "jpeg" and "VTM-9.1 4:4:4" in names


def test_tensorflow_measures_the_same_curve(folder, tmp_path):
    pytest.importorskip("vaecodec.transforms.tensorflow")
    line = ["bench", str(folder / "0.png"), "-o", str(tmp_path), "--codecs", OURS, "--metrics", "psnr"]
    line += ["--qualities", "20,80", "--show", "0", "--quiet"]
    assert main(line) == main([*line, "--device", "tensorflow"]) == 0
    table = {(row["device"], row["setting"]): row for row in read_results(tmp_path)}
    for setting in ("20", "80"):
        cpu, tensorflow = table["cpu", setting], table["tensorflow", setting]
        assert (cpu["bytes"], cpu["psnr"]) == (tensorflow["bytes"], tensorflow["psnr"])


def test_a_missing_gpu_is_reported_in_one_line(folder, tmp_path, capsys):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("vaecodec.transforms.tensorflow")
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    line = ["bench", str(folder / "0.png"), "-o", str(tmp_path), "--codecs", OURS, "--device", "gpu"]
    assert main(line) == 1
    assert "TensorFlow sees no GPU on this machine" in capsys.readouterr().err
