"""docs/own-models.md: its commands and examples work as shown."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from support.images import synthetic_channels, synthetic_image
from support.paths import ROOT

pytest.importorskip("tensorflow")

PAGE = (ROOT / "docs" / "own-models.md").read_text()
SIZES = "".join(f"{name} = 8\n" for name in ("fine", "coarse", "prior", "hyper_width"))
TINY = f"[model]\n{SIZES}[training]\nsteps = 1\nbatch = 1\ncrop = 64\n"


def blocks(language: str, heading: str) -> list[str]:
    section = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


def run(script: str, folder: pathlib.Path) -> str:
    """What a script of the page prints."""
    (folder / "tiny.toml").write_text(TINY)
    (folder / "docs").symlink_to(ROOT / "docs")
    start = f'set -e\nvaecodec() {{ "{sys.executable}" -m vaecodec "$@"; }}\npython() {{ "{sys.executable}" "$@"; }}\n'
    env = dict(os.environ, PYTHONPATH=str(ROOT), VAECODEC_MODELS=str(folder / "models"))
    line = ["bash", "-c", start + script]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_tiles_are_apart():
    path = ROOT / "docs" / "examples" / "relief_tiles.py"
    specification = importlib.util.spec_from_file_location("relief_tiles", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    world = Image.effect_noise((module.SIDE * module.COLUMNS, module.SIDE * module.ROWS), 60).convert("RGB")
    world.paste((90, 140, 200), (0, 0, module.SIDE, module.SIDE))
    names = module.tiles(world)
    assert len(names) == 71  # all but the one of open sea
    columns = {part: {int(n[-6:-4]) for n in names if n.startswith(part)} for part in ("train", "heldout")}
    assert columns == {"train": set(range(5, 12)), "heldout": set(range(5))}


def test_the_walk_through_is_walked(tmp_path):
    for part in ("train", "heldout"):
        (tmp_path / "tiles" / part).mkdir(parents=True)
        Image.fromarray(synthetic_image(96, 96, len(part))).save(tmp_path / "tiles" / part / "a.png")
    Image.fromarray(synthetic_image(60, 80)).save(tmp_path / "tile.png")
    first, second = blocks("sh", "A walk-through: relief maps")
    lines = [line for line in first.splitlines() if not line.startswith("pip ") and "relief_tiles.py" not in line]
    script = "\n".join(lines).replace("--from small --steps 2000", "--config tiny.toml")
    # What is trained here is worth nothing; a model against itself is worth as much.
    script = script.replace("--codecs vaecodec,vaecodec:relief.vcm", "--quick --codecs vaecodec,vaecodec:small")
    script = script.replace("vaecodec vaecodec:relief.vcm 33 44", "vaecodec vaecodec:small 28 38")
    assert script.count("tiny.toml") == 1 and script.count(":small") == 2 and "-o relief.vcm" in script
    out = run(script + "\n" + second, tmp_path)
    assert re.search(r"vaecodec:small against vaecodec: [+-]0\.0 % bits, .* 1 pictures", out)
    assert (tmp_path / "tile.vae").exists() and (tmp_path / "models" / "relief.vcm").exists()


def test_grey_and_arrays_work_as_shown(tmp_path, monkeypatch):
    for folder in ("scans", "bands"):
        (tmp_path / folder).mkdir()
    Image.fromarray(synthetic_image(80, 90)).save(tmp_path / "scans" / "a.png")
    Image.fromarray(synthetic_image(80, 90)[..., 0]).save(tmp_path / "page.png")
    np.save(tmp_path / "bands" / "a.npy", synthetic_channels(80, 90, 5))
    np.save(tmp_path / "field.npy", synthetic_channels(70, 100, 5))
    (script,) = blocks("sh", "Grey, and any number of channels")
    assert script.count("--minutes 90") == 2
    run(script.replace("--minutes 90", "--config tiny.toml"), tmp_path)
    assert (tmp_path / "page.vae").exists()
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python", "Grey, and any number of channels")
    exec(compile(block, "docs/own-models.md", "exec"), {})
