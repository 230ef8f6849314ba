"""The run of a benchmark: every codec at every setting on every picture, a row each, appended as they come.

A row is written once its picture has been decoded and measured, so that a run that was killed goes on where it stood.
"""

from __future__ import annotations

import csv
import io
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vaecodec.bench.peers import Peer, check_decoded
from vaecodec.console import explain, one_line
from vaecodec.errors import CodecError
from vaecodec.images.metrics import METRICS
from vaecodec.images.reading import read_rgb

IDENTITY = ("codec", "version", "settings", "setting", "threads", "device", "image", "crc32")
METRIC_COLUMNS = tuple(metric.column for metric in METRICS.values())
COLUMNS = (*IDENTITY, "width", "height", "bytes", "bpp", *METRIC_COLUMNS, "encode_s", "decode_s")
GIVE_UP = 3  # failures in succession that leave a codec out of a picture, and pictures that leave it out of the rest

Row = dict[str, Any]
Report = Callable[[str, BaseException], None]


class Picture(NamedTuple):
    """A picture of the benchmark; the CRC-32 is of its pixels."""

    name: str
    pixels: np.ndarray
    crc: str


def find_pictures(paths: Iterable[str], fail: Report, but: str = "") -> list[tuple[str, str]]:
    """(name, path) of the files named and of those in the folders named, sorted; a folder without any is reported.

    Nothing is taken from the folder `but`, where the results go.
    """
    found: list[tuple[str, str]] = []
    for path in paths:
        if os.path.isdir(path):
            inside = sorted(
                os.path.join(folder, file)
                for folder, _, files in os.walk(path)
                for file in files
                if not file.startswith(".") and not _is_within(folder, but)
            )
            if not inside:
                fail(path, CodecError("no pictures in this folder"))
            found += [(os.path.relpath(file, path), file) for file in inside]
        else:
            found.append((os.path.basename(path), path))
    names = [name for name, _ in found]
    return [(one_line(name if names.count(name) == 1 else path), path) for name, path in found]


def _is_within(folder: str, other: str) -> bool:
    folder, other = os.path.realpath(folder), os.path.realpath(other)
    return folder == other or folder.startswith(other + os.sep)


def read_pictures(files: Iterable[tuple[str, str]], fail: Report) -> Iterator[Picture]:
    """The pictures that can be read, one at a time; the others are reported."""
    for name, path in files:
        try:
            pixels = read_rgb(path)
        except (CodecError, OSError, MemoryError) as exc:
            fail(path, exc)
            continue
        yield Picture(name, pixels, f"{zlib.crc32(pixels.tobytes()):08x}")


def measure(peer: Peer, setting: float, picture: Picture, metrics: Iterable[str]) -> Row:
    """One row: bytes, metrics and seconds of one codec at one setting on one picture; raises what the codec raises."""
    began = time.perf_counter()
    data = peer.encode(picture.pixels, setting)
    encoded = time.perf_counter()
    pixels = check_decoded(peer.decode(data), picture.pixels)
    decoded = time.perf_counter()
    height, width = picture.pixels.shape[:2]
    row: Row = dict.fromkeys(COLUMNS, "")
    row.update(identity(peer, setting, picture))
    row.update(width=width, height=height, bytes=len(data), bpp=f"{8 * len(data) / (height * width):.6f}")
    row.update(encode_s=f"{encoded - began:.6f}", decode_s=f"{decoded - encoded:.6f}")
    for name in metrics:
        row[METRICS[name].column] = f"{METRICS[name].measure(picture.pixels, pixels):.6f}"
    return row


def identity(peer: Peer, setting: float, picture: Picture) -> Row:
    """What tells one row from all others."""
    values = (peer.name, peer.version, peer.options, f"{setting:g}", peer.threads, peer.device)
    return dict(zip(IDENTITY, (*map(str, values), picture.name, picture.crc), strict=True))


def read_rows(path: str) -> list[Row]:
    """The rows of a results file, later ones in place of earlier ones of the same identity; [] where there is none.

    Raises CodecError where the file has other columns.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if None not in row and None not in row.values()]
            if reader.fieldnames is not None and tuple(reader.fieldnames) != COLUMNS:
                raise CodecError(f"{path}: not a table of this version's benchmark; name another folder with -o")
    except FileNotFoundError:
        return []
    except (UnicodeDecodeError, csv.Error) as exc:
        raise CodecError(f"{path}: cannot be read as CSV ({exc})") from exc
    return list({tuple(row[key] for key in IDENTITY): row for row in rows}.values())


class Table:
    """The results file: rows are appended, flushed and synced; a last line without its end is dropped first."""

    def __init__(self, path: str) -> None:
        self.path = path
        _drop_torn_line(path)
        self.done = {tuple(row[key] for key in IDENTITY): row for row in read_rows(path)}
        fresh = not os.path.exists(path) or not os.path.getsize(path)
        self._file = open(path, "a", newline="", encoding="utf-8")  # noqa: SIM115
        if fresh:
            self._write(COLUMNS)

    def has(self, key: Row, metrics: Iterable[str]) -> bool:
        """Whether there is a row of this identity with all these metrics."""
        row = self.done.get(tuple(key[name] for name in IDENTITY))
        return row is not None and all(row[METRICS[name].column] != "" for name in metrics)

    def add(self, row: Row) -> None:
        """Appends a row, which is on the disk on return."""
        self.done[tuple(row[name] for name in IDENTITY)] = row
        self._write([row[name] for name in COLUMNS])

    def _write(self, values: Iterable[Any]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(values)
        self._file.write(line.getvalue())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _drop_torn_line(path: str) -> None:
    if os.path.exists(path):
        with open(path, "r+b") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def run(
    peers: list[Peer],
    sweeps: dict[str, tuple[float, ...]],
    files: list[tuple[str, str]],
    metrics: list[str],
    table: Table,
    fail: Report,
    step: Callable[[int], None] = lambda jobs: None,
) -> list[Picture]:
    """Fills the table, picture by picture; the pictures that could be read, without their pixels.

    `sweeps` has each codec's settings by its name.  `step` is told of jobs done, skipped ones included.
    A codec that fails GIVE_UP times in succession is left out of that picture, and after as many such pictures of the
    rest; that is reported, too.
    """
    bad_pictures = dict.fromkeys(sweeps, 0)
    warm: set[tuple[str, tuple[int, ...]]] = set()
    seen = []
    jobs = sum(map(len, sweeps.values()))
    for picture in read_pictures(files, fail):
        seen.append(picture._replace(pixels=picture.pixels[:0]))
        for peer in peers:
            failures = 0
            for setting in sweeps[peer.name]:
                step(1)
                if GIVE_UP in (failures, bad_pictures[peer.name]) or table.has(
                    identity(peer, setting, picture), metrics
                ):
                    continue
                try:
                    kind = (peer.name, picture.pixels.shape)
                    if kind not in warm and not peer.own_process:
                        warm.add(kind)
                        peer.decode(peer.encode(picture.pixels, setting))
                    row = measure(peer, setting, picture, metrics)
                except Exception as exc:  # a codec may raise anything, and the others are still to be measured
                    failures += 1
                    where = f"{peer.name} at {setting:g} on {picture.name}"
                    fail(where, exc if explain(where, exc) else CodecError(type(exc).__name__))
                else:
                    failures = bad_pictures[peer.name] = 0
                    table.add(row)
            if failures == GIVE_UP:
                bad_pictures[peer.name] += 1
                if bad_pictures[peer.name] == GIVE_UP:
                    fail(
                        peer.name, CodecError(f"failed on {GIVE_UP} pictures in succession and is left out of the rest")
                    )
    step(jobs * (len(files) - len(seen)))  # of pictures that could not be read
    return seen
