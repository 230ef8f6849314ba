"""What README.md shows works as shown."""

import os
import re
import subprocess
import sys

import pytest
from PIL import Image

from support.images import synthetic_image
from support.paths import ROOT

README = (ROOT / "README.md").read_text()


def blocks(language: str, heading: str) -> list[str]:
    """Fenced blocks of a language under a heading."""
    section = README.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    found = re.findall(rf"```{language}\n(.*?)```", section, re.S)
    assert found
    return found


@pytest.mark.parametrize("block", blocks("python", "From Python"))
def test_python_blocks_run(block):
    exec(compile(block, "README.md", "exec"), {})


def test_shell_blocks_run(tmp_path):
    Image.fromarray(synthetic_image(60, 80)).save(tmp_path / "photo.jpg")
    (block,) = blocks("sh", "From the command line")
    # The first line makes photo.vae of a JPEG, the last pipes a PNG, which the second has made by then.
    script = f'set -e\nvaecodec() {{ "{sys.executable}" -m vaecodec "$@"; }}\n{block}'
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=300)
    assert (tmp_path / "photo.png").exists() and (tmp_path / "p.vae").stat().st_size > 64


def test_shell_blocks_on_files_and_folders_run(tmp_path):
    (tmp_path / "album").mkdir()
    Image.fromarray(synthetic_image(60, 80)).save(tmp_path / "album" / "photo.png")
    for path in (tmp_path / "notes.txt", tmp_path / "album" / "notes.txt"):
        path.write_text("notes")
    (block,) = blocks("sh", "Any file, any folder")
    script = f'set -e\nvaecodec() {{ "{sys.executable}" -m vaecodec "$@"; }}\n{block}'
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=300)
    assert (tmp_path / "notes.txt.vae").exists() and (tmp_path / "back" / "album" / "photo.png").exists()
    assert (tmp_path / "back" / "album" / "notes.txt").read_text() == "notes"


def test_shell_blocks_on_training_run(tmp_path):
    pytest.importorskip("tensorflow")
    (tmp_path / "pictures").mkdir()
    Image.fromarray(synthetic_image(80, 100)).save(tmp_path / "pictures" / "photo.png")
    Image.fromarray(synthetic_image(60, 80)).save(tmp_path / "photo.png")
    (block,) = blocks("sh", "Training")
    assert "--minutes 90" in block
    block = block.replace("pip install 'vaecodec[train]'\n", "tar cf more.tar pictures\n")
    # Of the smallest sizes, and not for long: what is tested is the way through.
    sizes = "\n".join(f"{name} = 8" for name in ("fine", "coarse", "prior", "hyper_width"))
    options = "[training]\nsteps = 1\nbatch = 1\ncrop = 64\n"
    (tmp_path / "tiny.toml").write_text(f"[model]\n{sizes}\n{options}")
    block = block.replace("--minutes 90", "--config tiny.toml")
    script = f'set -e\nvaecodec() {{ "{sys.executable}" -m vaecodec "$@"; }}\n{block}'
    env = dict(os.environ, PYTHONPATH=str(ROOT), VAECODEC_MODELS=str(tmp_path / "models"))
    subprocess.run(["bash", "-c", script], cwd=tmp_path, env=env, check=True, capture_output=True, timeout=600)
    assert (tmp_path / "photo.vae").exists() and (tmp_path / "models" / "my.vcm").exists()
    assert (tmp_path / "other.run" / "checkpoint.safetensors").exists()


def test_the_example_says_what_it_cost():
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    script = str(ROOT / "docs" / "examples" / "first_steps.py")
    out = subprocess.run([sys.executable, script], env=env, check=True, capture_output=True, text=True).stdout
    psnr = float(re.search(r"PSNR ([\d.]+) dB", out).group(1))
    size = int(re.search(r"compressed to ([\d,]+) bytes", out).group(1).replace(",", ""))
    assert psnr > 30 and 5_000 < size < 60_000


def test_continuous_integration_runs_the_test_line_of_the_readme():
    lines = [line for line in blocks("sh", "Two commands")[1].splitlines() if line]
    assert len(lines) == 1 and lines[0].endswith("-m pytest")
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
    assert len(re.findall(r"^.*pytest$", README, re.M)) == 1
