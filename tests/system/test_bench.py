"""Test vaecodec bench in processes: resuming, missing packages, and the imports of --help."""

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


def read_results(out) -> list[dict[str, str]]:
    with open(out / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_the_next_run_completes_a_killed_run(folder, tmp_path):
    uninterrupted, out = tmp_path / "whole", tmp_path / "out"
    assert main(["bench", str(folder), "-o", str(uninterrupted), "--quiet", *COMMON]) == 0
    line = [sys.executable, "-m", "vaecodec", "bench", str(folder), "-o", str(out), *COMMON]
    process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
    table = out / "results.csv"
    deadline = time.monotonic() + 120
    while (not table.exists() or table.read_bytes().count(b"\n") < 6) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.002)
    process.kill()
    process.wait()
    table_bytes = table.read_bytes()
    complete_lines = table_bytes[: table_bytes.rfind(b"\n") + 1]
    assert 6 <= complete_lines.count(b"\n") < 1 + 36
    table.write_bytes(complete_lines + b"vaecodec:tiny.vcm,0.1")  # an incomplete line, as after a crash of the machine
    assert main(["bench", str(folder), "-o", str(out), "--quiet", *COMMON]) == 0
    assert table.read_bytes().startswith(complete_lines)
    compared = (*measure.IDENTITY, "bytes", "psnr", "ms_ssim")
    assert sorted([row[key] for key in compared] for row in read_results(out)) == sorted(
        [row[key] for key in compared] for row in read_results(uninterrupted)
    )


def test_missing_packages_are_named_in_one_line(folder, tmp_path):
    missing = ["scipy", "tqdm", "matplotlib", "imagecodecs", "bjontegaard"]
    code = f"import sys; sys.modules.update(dict.fromkeys({missing}))"
    code += "; from vaecodec.cli import main; sys.exit(main(sys.argv[1:]))"
    line = [sys.executable, "-c", code, "bench", str(folder / "0.png"), "-o", str(tmp_path), "--codecs", OURS]
    process = subprocess.run(line, capture_output=True, text=True)
    assert process.returncode == 1
    assert process.stderr.count("\n") == 1 and "pip install 'vaecodec[bench]'" in process.stderr


def test_help_imports_no_heavy_packages():
    code = "import sys; from vaecodec.cli import main; main(['bench', '--help']); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.split()
    assert "argparse" in loaded
    assert not {"numpy", "PIL", "scipy", "imagecodecs", "tqdm", "matplotlib"} & set(loaded)
