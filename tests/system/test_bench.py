"""vaecodec bench in processes: a killed run is resumed, missing packages are named, and --help stays light."""

import csv
import signal
import subprocess
import sys
import time

import pytest

from support.bench import COMMON, OURS, write_images
from vaecodec.bench import measure
from vaecodec.cli import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


def rows(out) -> list[dict[str, str]]:
    with open(out / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_killed_run_is_finished_by_the_next(folder, tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert main(["bench", str(folder), "-o", str(whole), "--quiet", *COMMON]) == 0
    line = [sys.executable, "-m", "vaecodec", "bench", str(folder), "-o", str(out), *COMMON]
    running = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    table = out / "results.csv"
    deadline = time.monotonic() + 120
    while (not table.exists() or table.read_bytes().count(b"\n") < 6) and time.monotonic() < deadline:
        assert running.poll() is None
        time.sleep(0.002)
    running.kill()
    running.wait()
    kept = table.read_bytes()
    done = kept[: kept.rfind(b"\n") + 1]
    assert 6 <= done.count(b"\n") < 1 + 36
    table.write_bytes(done + b"vaecodec:tiny.vcm,0.1")  # a torn line, as a crash of the machine leaves it
    assert main(["bench", str(folder), "-o", str(out), "--quiet", *COMMON]) == 0
    assert table.read_bytes().startswith(done)
    same = (*measure.IDENTITY, "bytes", "psnr", "ms_ssim")
    assert sorted([row[key] for key in same] for row in rows(out)) == sorted(
        [row[key] for key in same] for row in rows(whole)
    )


def test_without_the_extra_one_line_says_so(folder, tmp_path):
    missing = ["scipy", "tqdm", "matplotlib", "imagecodecs", "bjontegaard"]
    code = f"import sys; sys.modules.update(dict.fromkeys({missing}))"
    code += "; from vaecodec.cli import main; sys.exit(main(sys.argv[1:]))"
    line = [sys.executable, "-c", code, "bench", str(folder / "0.png"), "-o", str(tmp_path), "--codecs", OURS]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "pip install 'vaecodec[bench]'" in done.stderr


def test_help_stays_light():
    code = "import sys; from vaecodec.cli import main; main(['bench', '--help']); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.split()
    assert "argparse" in loaded
    assert not {"numpy", "PIL", "scipy", "imagecodecs", "tqdm", "matplotlib"} & set(loaded)
