"""What docs/integrations.md shows works as shown."""

import os
import pathlib
import re
import subprocess
import sys

import pytest
from conftest import picture
from PIL import Image

ROOT = pathlib.Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "integrations.md").read_text()
SECTIONS = {part.split("\n", 1)[0]: part for part in TEXT.split("\n## ")[1:]}
NEEDS = {"imageio": "imageio"}  # what a section imports that may not be here


def blocks(language: str) -> list:
    """(section, code) of every fenced block of a language."""
    fenced = re.compile(rf"```{language}\n(.*?)```", re.S)
    found = [(name, code) for name, part in SECTIONS.items() for code in fenced.findall(part)]
    return [pytest.param(*one, id=f"{one[0]}-{number}") for number, one in enumerate(found)]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a photograph."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(picture(160, 200)).save("photo.jpg")
    return tmp_path


@pytest.mark.parametrize(("section", "code"), blocks("python"))
def test_python_blocks_run(section, code, folder):
    pytest.importorskip(NEEDS.get(section, "vaecodec"))
    (folder / "block.py").write_text(code)
    env = dict(os.environ, PYTHONPATH=str(ROOT))
    done = subprocess.run([sys.executable, "block.py"], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
