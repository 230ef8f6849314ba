"""Metrics of a benchmark: those of `vaecodec.images.metrics`, optional ones, and those of installed packages.

A package registers a `Metric` as an entry point of the group METRIC_POINTS; the entry's name is the metric's.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache, partial
from importlib.metadata import entry_points
from typing import Any

import numpy as np

from vaecodec.errors import CodecError
from vaecodec.images.metrics import METRICS, Metric
from vaecodec.images.writing import write_image
from vaecodec.tensors import to_numpy

METRIC_POINTS = "vaecodec.bench.metrics"
BUTTERAUGLI = "butteraugli_main"  # a program of libjxl
OLD_BUTTERAUGLI = "butteraugli"  # the program of 2016, which Debian has
PROBE_SIDE = 192  # of the images that a metric is tried on


def _decibels(distance: float) -> float:
    """A distance in dB, larger where images are more alike."""
    return -10 * math.log10(distance) if distance > 0 else math.inf


@lru_cache(maxsize=2)
def _network(name: str) -> Any:
    import piq
    import torch

    torch.set_grad_enabled(False)
    return {"LPIPS": piq.LPIPS, "DISTS": piq.DISTS}[name]()


def _learned(name: str, a: np.ndarray, b: np.ndarray) -> float:
    import torch

    x, y = (torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float32) / 255) for pixels in (a, b))
    return float(to_numpy(_network(name)(x, y)))


def _run_on_files(program: str, package: str, a: np.ndarray, b: np.ndarray) -> str:
    """What a program prints that compares two PNG files; raises CodecError if it is missing or fails."""
    path = shutil.which(program)
    if path is None:
        raise CodecError(f"{program}, a program of {package}, is not on the PATH")
    with tempfile.TemporaryDirectory(prefix="vaecodec-") as folder:
        images = [os.path.join(folder, name) for name in ("a.png", "b.png")]
        for image, pixels in zip(images, (a, b), strict=True):
            with open(image, "wb") as file:
                write_image(pixels, file, None, "PNG")
        done = subprocess.run([path, *images], capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise CodecError(f"{program} failed with code {done.returncode}: {done.stderr.strip()[-200:]}")
    return done.stdout


def _butteraugli(a: np.ndarray, b: np.ndarray) -> float:
    lines = _run_on_files(BUTTERAUGLI, "libjxl", a, b).splitlines()
    norms = [line.split()[1] for line in lines if line.startswith("3-norm:")]
    if not norms:
        raise CodecError(f"{BUTTERAUGLI} printed no 3-norm")
    return float(norms[0])


def _largest_butteraugli(a: np.ndarray, b: np.ndarray) -> float:
    printed = _run_on_files(OLD_BUTTERAUGLI, "the package of this name", a, b)
    try:
        return float(printed.split()[0])
    except (IndexError, ValueError) as exc:
        raise CodecError(f"{OLD_BUTTERAUGLI} printed no distance: {printed.strip()[-200:]!r}") from exc


# Distances: smaller is better, and shown in dB.
OPTIONAL = {
    "butteraugli": Metric(
        "butteraugli", "butteraugli", "Butteraugli, 3-norm", "dB", _butteraugli, _decibels, (-4.0, 4.0)
    ),
    "butteraugli-max": Metric(
        "butteraugli-max",
        "butteraugli_max",
        "Butteraugli of 2016, largest distance",
        "dB",
        _largest_butteraugli,
        _decibels,
        (-8.0, 0.0),
    ),
    "lpips": Metric("lpips", "lpips", "LPIPS (VGG)", "dB", partial(_learned, "LPIPS"), _decibels, (4.0, 12.0)),
    "dists": Metric("dists", "dists", "DISTS", "dB", partial(_learned, "DISTS"), _decibels, (6.0, 14.0)),
}


@lru_cache(maxsize=1)
def known() -> dict[str, Metric]:
    """All metrics by name; those of packages that cannot be imported are left out."""
    metrics = {**METRICS, **OPTIONAL}
    for point in entry_points(group=METRIC_POINTS):
        try:
            metrics.setdefault(point.name, point.load())
        except Exception:  # another package may raise anything, and the others are still to be used
            continue
    return metrics


def check_metric(name: str) -> None:
    """Try a known metric on two images; raises CodecError with the reason if it cannot be used."""
    if name in METRICS:  # their packages are those of the extra `bench`
        return
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (PROBE_SIDE, PROBE_SIDE, 3), np.uint8) for _ in range(2)]
    try:
        known()[name].measure(*images)
    except ImportError as exc:
        raise CodecError(f"needs more packages: pip install 'vaecodec[perceptual]' ({exc})") from exc
    except CodecError:
        raise
    except OSError as exc:  # urllib.error.URLError among them
        raise CodecError(f"its weights cannot be downloaded ({exc})") from exc
    except Exception as exc:  # of torch
        raise CodecError(f"cannot be used ({type(exc).__name__}: {exc})") from exc
