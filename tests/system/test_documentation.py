"""Test README.md and the pages of docs: links and paths exist, tables agree with the results, and code blocks run.

The blocks of a page run in order in one folder, which contains the files of the fixture `folder`. Lines that install
packages are skipped, and so are blocks that import a module of OPTIONAL that is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_channels, synthetic_image
from support.paths import ROOT
from support.training import shell_functions

READMES = sorted(path for folder in ("benchmarks", "tests") for path in (ROOT / folder).rglob("README.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES += READMES
OPTIONAL = ("tensorflow", "torch", "ray", "zarr", "numcodecs", "xarray", "dask", "imageio", "av")
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.S | re.M)
CONSOLE = re.compile(r"^```console\n.*?^```", re.S | re.M)
TOOLS = ("file ", "update-mime-database", "man ")  # programs that a machine may lack
INSTALLS = ("pip install", "python3 -m venv", ".venv/bin/")
INSTALLS += ("python docs/examples/relief_tiles.py", "python docs/examples/brain_slices.py")  # of data in packages

# Useful training takes minutes, so the page runs with the smallest sizes and a single step instead.
TINY = (
    "[model]\nfine = 8\ncoarse = 8\nprior = 8\nhyper_width = 8\n[training]\nsteps = 1\nbatch = 1\ncrop = 64\n",
    [
        ("--from small --steps 2000 --rate 4e-4", "--config tiny.toml"),
        ("--steps 400 --rate 4e-4", "--steps 1 --batch 1 --crop 64"),
        ("vaecodec-model:small,vaecodec-model:brain.vcm", "vaecodec-model:small,vaecodec-model:brain.vcm --quick"),
        ("vaecodec-model:brain.vcm 30 44", "vaecodec-model:brain.vcm 20 50"),
        ("--minutes 90", "--config tiny.toml"),
        ("vaecodec-model:small,vaecodec-model:relief.vcm", "vaecodec-model:small,vaecodec-model:base --quick"),
        ("vaecodec-model:small vaecodec-model:relief.vcm 33 44", "vaecodec-model:small vaecodec-model:base 28 38"),
    ],
)


# The files that the blocks of a page must write, and the pattern that they must print.
OUTCOMES = {
    "README": (("photo.vae", "photo.png", "out/album"), ""),
    "how-to/desktop": (
        (
            ".local/share/mime/packages/vaecodec.xml",
            ".local/share/thumbnailers/vaecodec.thumbnailer",
            ".zfunc/_vaecodec",
            ".config/fish/completions/vaecodec.fish",
        ),
        "photo.vae: vaecodec image data, 200 x 160, version 1" if shutil.which("file") else "",
    ),
    "how-to/folders": (("notes.txt.vae", "back/album/photo.png", "back/album/notes.txt", "part.png", "piped.vae"), ""),
    "how-to/generative": (("sheet.png", "varied.png", "between.png", "strangest.png", "album.csv", "unpacked.npy"), ""),
    "how-to/benchmark": (("quick/report.html", "quick/tables.md", "mine/report.html"), ""),
    "how-to/ray": (("ray-out/album",), "2 done, 0 unchanged, 0 skipped"),
    "tutorial/first-steps": (("photo.png", "small.vae", "fits.vae", "back/album/notes.txt"), ""),
    "tutorial/grey-model": (
        ("brain.run/validation.json", "models/brain.vcm", "slices/patient/0.vae"),
        r"(?s)(vaecodec-model:brain.vcm against vaecodec-model:small: [+-]\d+\.\d % bits.*){2}",
    ),
    "tutorial/own-model": (
        ("tile.vae", "page.vae", "models/relief.vcm", "bands.vcm"),
        r"vaecodec-model:base against vaecodec-model:small: [+-]\d+\.\d % bits, .* 1 images",
    ),
}


def name(page: Path) -> str:
    """Return the name of a page in test ids: its path without docs/ and the suffix."""
    return str(page.relative_to(ROOT).with_suffix("")).removeprefix("docs/")


def runnable() -> list:
    """Return the pages that have code blocks as parameters."""
    pages = [page for page in PAGES if page.exists() and BLOCK.search(page.read_text())]
    return [pytest.param(page, id=name(page)) for page in pages]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the files that the pages name."""
    slices = ("slices/train", "slices/front", "slices/patient")
    for path in ("album", "images", "digits", "scans", "bands", "tiles/train", "tiles/heldout", *slices):
        (tmp_path / path).mkdir(parents=True)
    for path in slices:
        Image.fromarray(synthetic_image(96, 80, len(path))[..., 0]).save(tmp_path / path / "0.png")
    photos = ("photo.jpg", "scan.png", "album/photo.png", "images/a.png", "tile.png", "tiles/train/a.png")
    for path in (*photos, "tiles/heldout/a.png", "scans/a.png"):
        Image.fromarray(synthetic_image(160, 200, len(path))).save(tmp_path / path)
    for path in ("notes.txt", "album/notes.txt"):
        (tmp_path / path).write_text("notes")
    Image.fromarray(synthetic_image(80, 90)[..., 0]).save(tmp_path / "page.png")
    np.save(tmp_path / "bands" / "a.npy", synthetic_channels(80, 90, 5))
    np.save(tmp_path / "field.npy", synthetic_channels(70, 100, 5))
    digits = vaecodec.sample(8)
    np.save(tmp_path / "digits.npy", digits)
    for index, digit in enumerate(digits):
        Image.fromarray(digit).save(tmp_path / "digits" / f"{index}.png")
    for index, path in enumerate(("one.png", "two.png", "seven.png")):
        Image.fromarray(digits[index]).save(tmp_path / path)
    (tmp_path / "tiny.toml").write_text(TINY[0])
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    return tmp_path


def missing(code: str) -> list[str]:
    """Return the modules that a block imports and that are not installed."""
    imported = [module for module in OPTIONAL if re.search(rf"^(import|from) {module}\b", code, re.M)]
    if "integrations.ray" in code:
        imported.append("ray")
    return [module for module in imported if importlib.util.find_spec(module) is None]


def script(code: str) -> str:
    """Return a block of shell lines as a script that runs this package."""
    for line, replacement in TINY[1]:
        code = code.replace(line, replacement)
    lines = [line for line in code.splitlines() if not line.startswith(INSTALLS)]
    missing_tools = tuple(tool for tool in TOOLS if not shutil.which(tool.strip()))
    lines = [line for line in lines if not line.startswith(missing_tools)]
    return shell_functions(sys.executable) + "\n".join(lines)


@pytest.mark.parametrize("page", runnable())
def test_code_blocks_run(page: Path, folder: Path) -> None:
    printed = ""
    home = {"HOME": str(folder), "VAECODEC_MODELS": str(folder / "models"), "PYTHONPATH": str(ROOT)}
    for number, (language, code) in enumerate(BLOCK.findall(page.read_text())):
        if language == "python" and missing(code):
            continue
        if language == "sh":
            if "vaecodec train" in code and importlib.util.find_spec("tensorflow") is None:
                return  # the rest of the page needs the trained model
            command = ["bash", "-c", script(code)]
        else:
            (folder / f"block{number}.py").write_text(code)
            command = [sys.executable, f"block{number}.py"]
        environment = {**os.environ, **home}
        process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
        if "Ray does not start" in process.stderr:  # Ray has a limit of half a minute, which a loaded machine exceeds
            pytest.skip(process.stderr.splitlines()[-1])
        assert process.returncode == 0, f"block {number} of {name(page)}:\n{code}\n{process.stderr[-3000:]}"
        printed += process.stdout
    paths, pattern = OUTCOMES.get(name(page), ((), ""))
    if not any(missing(code) for _, code in BLOCK.findall(page.read_text())):
        assert [path for path in paths if not (folder / path).exists()] == []
        assert re.search(pattern, printed)


def test_the_readme_shows_the_commands_of_continuous_integration() -> None:
    readme = (ROOT / "README.md").read_text()
    setup = "python3 -m venv .venv && .venv/bin/pip install -q"
    assert f"{setup} . && .venv/bin/python docs/examples/first_steps.py\n" in readme
    assert re.findall(r"^.*pytest$", readme, re.M) == [f"{setup} -e '.[train,test]' && .venv/bin/python -m pytest"]
    assert "README.md" in (ROOT / ".ci" / "run").read_text()
    assert len(readme.splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_lines_are_short(page: Path) -> None:
    """Tables and images, which cannot be wrapped, what terminals print, and indented formulas are exempt."""
    text = CONSOLE.sub(lambda block: "\n".join(re.findall(r"^\$ .*", block[0], re.M)), page.read_text())
    lines = [line for line in text.splitlines() if not line.startswith(("|", "![", "    "))]
    assert [line for line in lines if len(line) > 100] == []


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.M)
    return {
        re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower()) for heading in headings
    }


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if target.startswith("https://"):
            continue
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target
    if "decisions" not in page.parts:  # records name files that existed at their date
        paths = re.findall(r"`((?:vaecodec|tests|docs|benchmarks)/[\w./-]+)`", text)
        paths += re.findall(r"(?<![\w/.])((?:vaecodec|tests|docs|benchmarks)/[\w./-]+\.(?:py|md|json|h|c))\b", text)
        assert [path for path in paths if not (ROOT / path).exists()] == []


def test_pages_named_in_sources_exist() -> None:
    sources = [path for suffix in ("py", "h", "c", "md") for path in (ROOT / "vaecodec").rglob(f"*.{suffix}")]
    sources += [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    named = {(path, page) for path in sources for page in re.findall(r"\bdocs/[\w/-]+\.md", path.read_text())}
    assert {(path, page) for path, page in named if not (ROOT / page).exists()} == set()


def test_the_documented_packages_follow_the_order_of_imports() -> None:
    tree = re.findall(r"^  (\w+)/ ", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    order = (ROOT / "tests" / "unit" / "test_imports.py").read_text().split('ORDER = """')[1].split('"""')[0].split()
    assert tree == [package for package in order if (ROOT / "vaecodec" / package).is_dir()]
    assert set(tree) == {path.parent.name for path in (ROOT / "vaecodec").glob("*/__init__.py")}
    text = (ROOT / "CONTRIBUTING.md").read_text().split("```text\nvaecodec/\n")[1].split("```")[0]
    assert re.findall(r"\b([a-z]\w*)\.py\b", text) == [name for name in order if name not in tree]


def test_the_recorded_session_is_what_a_terminal_shows() -> None:
    command = [sys.executable, str(ROOT / "docs" / "record.py"), str(ROOT / "docs" / "tutorial" / "ten-tasks.md")]
    process = subprocess.run([*command, "--check"], capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, f"run python docs/record.py docs/tutorial/ten-tasks.md\n{process.stderr}"


def test_tables_agree_with_the_results() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "tables.py"), "--check"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 0, f"{process.stdout}run python benchmarks/tables.py"


def test_the_command_line_page_names_every_option() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    commands = ["compress", "decompress", "train", "bench", "sample", "vary", "interpolate", "score", "models"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in commands:
        line = [sys.executable, "-m", "vaecodec", command, "--help"]
        text = subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout
        options = set(re.findall(r"(?<=\s)--[a-z][a-z-]+", text.split("examples:")[0]))
        general = {"--help", "--version", "--number", "--output", "--force", "--quality", "--model"}
        assert {option for option in options - general if option not in page} == set(), command


# Print the functions of this package that a command calls, in the order of their first calls.
TRACE = """
import sys, threading
from vaecodec.cli import main
def profile(frame, event, _):
    if event == "call" and (function := (frame.f_code.co_filename, frame.f_code.co_qualname)) not in calls:
        calls[function] = None
calls = {}
threading.setprofile(profile)
sys.setprofile(profile)
main(["compress", "--quiet", "--threads", "1", "photo.jpg"])
sys.setprofile(None)
for path, name in calls:
    print(path, name)
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="functions have qualified names from Python 3.11 on")
def test_the_explained_functions_follow_the_order_of_their_calls(folder: Path) -> None:
    page = re.sub(r"\s+", " ", (ROOT / "docs" / "explanation" / "how-it-works.md").read_text())
    steps = re.findall(r"\d+\. `([\w.]+)` in `(vaecodec/[\w/]+\.py)`", page)
    assert 15 <= len(steps) <= 25
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = [sys.executable, "-c", TRACE]
    process = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    calls = [tuple(call.split(" ", 1)) for call in process.stdout.splitlines()]
    positions = [calls.index((str(ROOT / path), name)) for name, path in steps]
    assert positions == sorted(positions)


def test_the_site_is_built_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    process = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "reference" / "python" / "index.html").exists()


def test_the_tests_that_the_reliability_page_names_exist() -> None:
    text = (ROOT / "docs/explanation/reliability.md").read_text()
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    functions = {name for path in files for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M)}
    names = set(re.findall(r"\btest_[\w*]+(?:\.py)?", text))
    known = functions | {path.name for path in files} | {"test_native_*.py"}
    assert len(names) > 30 and not names - known
