"""Test that the examples in docs/examples run and print plausible results."""

import gzip
import importlib.util
import os
import re
import struct
import subprocess
import sys

import numpy as np
from PIL import Image

from support.paths import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
EXAMPLES = ROOT / "docs" / "examples"


def output_of(name: str, *arguments: str) -> str:
    """Run an example and return what it prints."""
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    return subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True, timeout=600).stdout


def test_first_steps_prints_size_and_psnr():
    output = output_of("first_steps.py")
    psnr = float(re.search(r"PSNR ([\d.]+) dB", output).group(1))
    size = int(re.search(r"compressed to ([\d,]+) bytes", output).group(1).replace(",", ""))
    assert psnr > 30 and 5_000 < size < 60_000


def test_drawn_digits_take_less_than_half_the_bytes_of_png(tmp_path):
    output = output_of("draw_digits.py", str(tmp_path))
    vae, png = (int(size.replace(",", "")) for size in re.findall(r"([\d,]+) bytes", output))
    assert vae < png / 2 and Image.open(tmp_path / "digits.png").size[0] > 560


def test_the_correction_finds_at_least_as_many_intruders():
    output = output_of("find_strange.py")
    by_likelihood, by_corrected_likelihood = re.findall(r"(\d) of 4 intruders", output)
    # By likelihood alone the blank image ranks as the most usual of all 16; the correction changes this.
    assert (
        int(by_likelihood) == 3
        and "blank at 16" in output.splitlines()[0]
        and int(by_corrected_likelihood) >= int(by_likelihood)
    )
    assert int(re.search(r"blank at (\d+)", output.splitlines()[1]).group(1)) < 16


def test_relief_tiles_divide_the_world_between_training_and_test():
    specification = importlib.util.spec_from_file_location("relief_tiles", EXAMPLES / "relief_tiles.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    world = Image.effect_noise((module.SIDE * module.COLUMNS, module.SIDE * module.ROWS), 60).convert("RGB")
    world.paste((90, 140, 200), (0, 0, module.SIDE, module.SIDE))
    names = module.tiles(world)
    assert len(names) == 71  # all but the tile of open sea
    columns = {part: {int(n[-6:-4]) for n in names if n.startswith(part)} for part in ("train", "heldout")}
    assert columns == {"train": set(range(5, 12)), "heldout": set(range(5))}


def test_brain_slices_come_from_the_files_of_packages(tmp_path):
    """A NIfTI file and an array in the folders of two packages, which are not imported."""
    head = np.random.default_rng(0).integers(0, 256, (7, 233, 5), np.uint8)
    header = struct.pack("<i36x8h14xh36xf240x", 348, 3, *head.shape, 1, 1, 1, 1, 2, 352.0)
    assert len(header) == 352
    files = {
        "nilearn/datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz": gzip.compress(
            header + head.tobytes(order="F")
        ),
        "nilearn/__init__.py": b"raise ImportError",
        "dipy/__init__.py": b"raise ImportError",
    }
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    (tmp_path / "dipy/data/files").mkdir(parents=True)
    np.save(tmp_path / "dipy/data/files/t1_coronal_slice.npy", np.array([[0.0, 2.0], [4.0, 1.0]]))
    line = [sys.executable, str(EXAMPLES / "brain_slices.py"), str(tmp_path / "slices")]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    printed = subprocess.run(line, env=environment, check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == ["train: 95 slices", "front: 18 slices", "patient: 1 slices"]
    assert np.array_equal(Image.open(tmp_path / "slices/front/125.png"), head[:, 125].T[::-1])
    assert np.asarray(Image.open(tmp_path / "slices/patient/0.png")).tolist() == [[0, 128], [255, 64]]
    process = subprocess.run(line, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert importlib.util.find_spec("nilearn") or "pip install --no-deps nilearn" in process.stderr
