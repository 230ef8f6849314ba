"""What docs/integrations.md shows works as shown."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from support.images import synthetic_image
from support.paths import ROOT

TEXT = (ROOT / "docs" / "integrations.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in TEXT.split("\n## ")[1:]}
NEEDS = {"imageio": "imageio", "tf.data": "tensorflow", "Ray": "ray"}  # what a section imports that may not be here


def blocks(language: str) -> list:
    """(section, code) of every fenced block of a language."""
    fenced = re.compile(rf"```{language}\n(.*?)```", re.S)
    sections = [(name, code) for name, part in SECTIONS.items() for code in fenced.findall(part)]
    return [
        pytest.param(name, code, id=f"{name}-{number}")
        for number, (name, code) in enumerate(sections)
        if not code.startswith("pip install")
    ]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a photograph."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(synthetic_image(160, 200)).save("photo.jpg")
    return tmp_path


@pytest.mark.parametrize(("section", "code"), blocks("python"))
def test_python_blocks_run(section, code, folder):
    pytest.importorskip(NEEDS.get(section, "vaecodec"))
    (folder / "block.py").write_text(code)
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "block.py"], env=env, capture_output=True, text=True, timeout=1200)
    if "Ray does not start" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("section", "code"), blocks("sh"))
def test_shell_blocks_run(section, code, folder):
    for program in ("file", "update-mime-database"):
        if program in code and not shutil.which(program):
            pytest.skip(f"{program} is not installed")
    script = (
        f'set -e\nvaecodec() {{ "{sys.executable}" -m vaecodec "$@"; }}\nvaecodec compress --quiet photo.jpg\n{code}'
    )
    env = dict(os.environ, PYTHONPATH=str(ROOT), HOME=str(folder))
    done = subprocess.run(["bash", "-c", script], env=env, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    if "file photo.vae" in code:
        assert "photo.vae: vaecodec image data, 200 x 160, version 1" in done.stdout
    else:
        assert all((folder / path).stat().st_size > 1000 for path in re.findall(r"> ~/(\S+)", code))
