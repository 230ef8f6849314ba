"""The examples of docs/examples run, and docs show what works."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from support.paths import ROOT

ENV = dict(os.environ, PYTHONPATH=str(ROOT))


def run(name: str, *args: str) -> str:
    """What an example prints."""
    command = [sys.executable, str(ROOT / "docs" / "examples" / name), *args]
    return subprocess.run(command, env=ENV, check=True, capture_output=True, text=True, timeout=600).stdout


def test_digits_are_drawn_and_kept(tmp_path):
    out = run("draw_digits.py", str(tmp_path))
    ours, png = (int(found.replace(",", "")) for found in re.findall(r"([\d,]+) bytes", out))
    assert ours < png / 2 and Image.open(tmp_path / "digits.png").size[0] > 560


def test_intruders_are_found():
    out = run("find_strange.py")
    first, second = re.findall(r"(\d) of 4 intruders", out)
    # Likelihood alone takes the blank picture for the most usual of all 16; the correction does not.
    assert int(first) == 3 and "blank at 16" in out.splitlines()[0] and int(second) >= int(first)
    assert int(re.search(r"blank at (\d+)", out.splitlines()[1]).group(1)) < 16


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / "generation.md").read_text(), re.S)


@pytest.mark.parametrize("block", blocks("python"))
def test_python_blocks_of_the_docs_run(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(vaecodec.sample(1)[0]).save("seven.png")
    Image.fromarray(synthetic_image(64, 80)).save("photo.png")
    exec(compile(block, "docs/generation.md", "exec"), {})


def test_shell_blocks_of_the_docs_run(tmp_path):
    digits = vaecodec.sample(8)
    np.save(tmp_path / "digits.npy", digits)
    (tmp_path / "folder").mkdir()
    for n, one in enumerate(digits):
        Image.fromarray(one).save(tmp_path / "folder" / f"{n}.png")
    for name in ("one.png", "two.png"):
        Image.fromarray(digits[len(name) - 7]).save(tmp_path / name)
    (tmp_path / "photos").mkdir()
    Image.fromarray(synthetic_image(64, 80)).save(tmp_path / "photos" / "a.jpg")
    lines = [line for block in blocks("sh") for line in block.splitlines() if "vaecodec train" not in line]
    script = f'set -e\nvaecodec() {{ "{sys.executable}" -m vaecodec "$@"; }}\n' + "\n".join(lines)
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=ENV, check=True, capture_output=True, timeout=600)
    assert (tmp_path / "digits.png").exists() and (tmp_path / "strangest.png").exists()
