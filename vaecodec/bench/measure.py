"""Measure every codec at every setting on every image, and append a row each to results.csv.

A row is written once its image is decoded and measured, so a run that was killed resumes.  Metrics are those of
`vaecodec.images.metrics`, optional ones, and those of installed packages: a package registers a `Metric` as an entry
point of the group METRIC_POINTS, and the entry's name is the metric's.
"""

from __future__ import annotations

import csv
import io
import math
import os
import shutil
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from importlib.metadata import entry_points
from typing import Any, NamedTuple

import numpy as np

from vaecodec.atomic import write_atomic
from vaecodec.bench.peer import Peer, check_decoded
from vaecodec.errors import CodecError
from vaecodec.images.channels import to_numpy
from vaecodec.images.metrics import METRICS, Metric
from vaecodec.images.reading import read_rgb
from vaecodec.images.writing import write_image
from vaecodec.progress import explain, one_line

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


IDENTITY = ("codec", "version", "settings", "setting", "threads", "device", "image", "crc32")
METRIC_COLUMNS = tuple(metric.column for metric in METRICS.values())
COLUMNS = (*IDENTITY, "width", "height", "bytes", "bpp", *METRIC_COLUMNS, "encode_s", "decode_s")  # others may follow
MAX_FAILURES = 3  # in succession: after so many a codec skips the image, after so many images the rest

Row = dict[str, Any]
Fail = Callable[[str, BaseException], None]


class Image(NamedTuple):
    """An image of the benchmark, u8[H, W, 3], with the CRC-32 of its pixels."""

    name: str
    pixels: np.ndarray
    crc: str


def find_images(paths: Iterable[str], fail: Fail, excluded: str = "") -> list[tuple[str, str]]:
    """(name, path) of the given files and of the files in the given folders, sorted; an empty folder is reported.

    Nothing below the folder `excluded` is taken: it holds the results.
    """
    files: list[tuple[str, str]] = []
    for path in paths:
        if not os.path.isdir(path):
            files.append((os.path.basename(path), path))
            continue
        below = sorted(
            os.path.join(folder, name)
            for folder, _, names in os.walk(path)
            for name in names
            if not name.startswith(".") and not _is_within(folder, excluded)
        )
        if not below:
            fail(path, CodecError("no images in this folder"))
        files += [(os.path.relpath(file, path), file) for file in below]
    names = [name for name, _ in files]
    return [(one_line(name if names.count(name) == 1 else path), path) for name, path in files]


def _is_within(folder: str, other: str) -> bool:
    folder, other = os.path.realpath(folder), os.path.realpath(other)
    return folder == other or folder.startswith(other + os.sep)


def read_images(files: Iterable[tuple[str, str]], fail: Fail) -> Iterator[Image]:
    """Read one image after another; those that cannot be read are reported and left out."""
    for name, path in files:
        try:
            pixels = read_rgb(path)
        except (CodecError, OSError, MemoryError) as exc:
            fail(path, exc)
        else:
            yield Image(name, pixels, f"{zlib.crc32(pixels.tobytes()):08x}")


def identity(peer: Peer, setting: float, image: Image) -> Row:
    """The columns that tell a row from all others."""
    values = (peer.name, peer.version, peer.options, f"{setting:g}", peer.threads, peer.device)
    return dict(zip(IDENTITY, (*map(str, values), image.name, image.crc), strict=True))


def measure(peer: Peer, setting: float, image: Image, metrics: Iterable[str]) -> Row:
    """One row: bytes, metrics and seconds of a codec at a setting on an image; raises what the codec raises."""
    started = time.perf_counter()
    data = peer.encode(image.pixels, setting)
    encoded = time.perf_counter()
    pixels = check_decoded(peer.decode(data), image.pixels)
    decoded = time.perf_counter()
    height, width = image.pixels.shape[:2]
    row: Row = dict.fromkeys(COLUMNS, "") | identity(peer, setting, image)
    row.update(width=width, height=height, bytes=len(data), bpp=f"{8 * len(data) / (height * width):.6f}")
    row.update(encode_s=f"{encoded - started:.6f}", decode_s=f"{decoded - encoded:.6f}")
    for name in metrics:
        row[known()[name].column] = f"{known()[name].measure(image.pixels, pixels):.6f}"
    return row


def read_rows(path: str) -> list[Row]:
    """The rows of a results file, of equal identities the last one; no rows where there is no file.

    Raises CodecError where the file has other columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if None not in row and None not in row.values()]
            if reader.fieldnames is not None and tuple(reader.fieldnames)[: len(COLUMNS)] != COLUMNS:
                raise CodecError(f"{path}: not a table of this version's benchmark; name another folder with -o")
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as exc:
        raise CodecError(f"{path}: cannot be read as CSV ({exc})") from exc
    return list({tuple(row[key] for key in IDENTITY): row for row in rows}.values())


def _line(values: Iterable[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


class Table:
    """The results file: rows are appended, flushed and synced; an incomplete last line is dropped on opening.

    Columns of `metrics` that it lacks are added to it.
    """

    def __init__(self, path: str, metrics: Iterable[str] = ()) -> None:
        self.path = path
        if os.path.exists(path):
            with open(path, "r+b") as file:
                file.truncate(file.read().rfind(b"\n") + 1)
        self.rows = {tuple(row[key] for key in IDENTITY): row for row in read_rows(path)}
        old = tuple(next(iter(self.rows.values()), COLUMNS))
        asked = (known()[name].column for name in metrics)
        self.columns = (*old, *(column for column in dict.fromkeys(asked) if column not in old))
        if self.rows and self.columns != old:
            lines = [self.columns, *([row.get(name, "") for name in self.columns] for row in self.rows.values())]
            write_atomic(path, "".join(map(_line, lines)).encode(), overwrite=True)
        self._file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115
        if not self.rows:
            self._file.truncate(0)
            self._write(self.columns)

    def has(self, key: Row, metrics: Iterable[str]) -> bool:
        """Whether a row of this identity has all these metrics."""
        row = self.rows.get(tuple(key[name] for name in IDENTITY))
        return row is not None and all(row.get(known()[name].column, "") != "" for name in metrics)

    def add(self, row: Row) -> None:
        """Append a row, which is on the disk on return."""
        self.rows[tuple(row[name] for name in IDENTITY)] = row
        self._write([row.get(name, "") for name in self.columns])

    def _write(self, values: Iterable[Any]) -> None:
        self._file.write(_line(values))
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def measure_all(
    peers: list[Peer],
    sweeps: dict[str, tuple[float, ...]],
    files: list[tuple[str, str]],
    metrics: list[str],
    table: Table,
    fail: Fail,
    step: Callable[[int], None] = lambda jobs: None,
) -> list[Image]:
    """Complete the table image by image; return the images that could be read, without their pixels.

    A codec that fails MAX_FAILURES times in succession skips the image; after as many such images it skips the rest,
    and that is reported.

    Args:
        sweeps: each codec's settings, by its name.
        step: is called with the number of jobs done or skipped.
    """
    failed_images = dict.fromkeys(sweeps, 0)
    warm: set[tuple[str, tuple[int, ...]]] = set()
    images = []
    for image in read_images(files, fail):
        images.append(image._replace(pixels=image.pixels[:0]))
        for peer in peers:
            failures = 0
            for setting in sweeps[peer.name]:
                step(1)
                gave_up = MAX_FAILURES in (failures, failed_images[peer.name])
                if gave_up or table.has(identity(peer, setting, image), metrics):
                    continue
                try:
                    case = peer.name, image.pixels.shape
                    if case not in warm and not peer.is_program:
                        warm.add(case)
                        peer.decode(peer.encode(image.pixels, setting))
                    row = measure(peer, setting, image, metrics)
                except Exception as exc:  # a codec may raise anything, and the others are still to be measured
                    failures += 1
                    where = f"{peer.name} at {setting:g} on {image.name}"
                    fail(where, exc if explain(where, exc) else CodecError(type(exc).__name__))
                else:
                    failures = failed_images[peer.name] = 0
                    table.add(row)
            if failures == MAX_FAILURES:
                failed_images[peer.name] += 1
                if failed_images[peer.name] == MAX_FAILURES:
                    reason = f"failed on {MAX_FAILURES} images in succession and is left out of the rest"
                    fail(peer.name, CodecError(reason))
    step(sum(map(len, sweeps.values())) * (len(files) - len(images)))  # jobs of images that cannot be read
    return images
