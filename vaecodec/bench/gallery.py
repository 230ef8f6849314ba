"""Make crops of decoded images at equal bytes, for the report.

For each image and target rate, a codec's setting is searched for the largest file within the target. Results are kept
in a folder, so that a report can be made again without encoding.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from vaecodec.atomic import write_atomic
from vaecodec.bench.measure import MAX_FAILURES, Fail, Image, known, read_images
from vaecodec.bench.peer import LOSSLESS, Peer, Scale, check_decoded
from vaecodec.images.writing import write_image

THUMBNAIL = (192, 144)  # the most columns and rows
CROP = (512, 768)  # the most rows and columns that are kept, from the middle


class View(NamedTuple):
    """An image as decoded by a codec, "" for the original; `file` is a lossless image of its crop."""

    image: str
    target: float  # bpp
    codec: str
    setting: float | None
    bytes: int
    bpp: float
    metrics: dict[str, float | None]  # of the whole image, as shown in reports; None for infinity
    file: str


def largest_within(
    scale: Scale, limit: int, encode: Callable[[float], bytes], tries: int = 12
) -> tuple[float, bytes] | None:
    """(setting, file) of the largest file of at most `limit` bytes, by bisection; None where all are larger."""
    best: tuple[float, bytes] | None = None

    def fits(setting: float) -> bool:
        nonlocal best
        data = encode(setting)
        if len(data) <= limit and (best is None or len(data) >= len(best[1])):
            best = setting, data
        return len(data) <= limit

    scale.bisect(fits, tries)
    return best


def thumbnails(files: list[tuple[str, str]], names: list[str], fail: Fail) -> dict[str, str]:
    """Small WebP files of the named images, as data URLs."""
    import PIL.Image

    chosen, urls = set(names), {}
    for image in read_images([pair for pair in files if pair[0] in chosen], fail):
        small, file = PIL.Image.fromarray(image.pixels), io.BytesIO()
        small.thumbnail(THUMBNAIL)
        small.save(file, "WEBP", quality=60)
        urls[image.name] = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
    return urls


def make_gallery(
    folder: str,
    peers: Iterable[Peer],
    files: list[tuple[str, str]],
    targets: Iterable[float],
    fail: Fail,
    step: Callable[[int], None] = lambda jobs: None,
    metrics: Sequence[str] = ("psnr",),
) -> list[View]:
    """Views of each image at each target rate in bpp, by every lossy codec, kept as files in `folder`."""
    os.makedirs(folder, exist_ok=True)
    peers = [peer for peer in peers if peer.scale != LOSSLESS]
    views: list[View] = []
    failures = dict.fromkeys((peer.name for peer in peers), 0)
    for image in read_images(files, fail):
        original = View(image.name, 0.0, "", None, 0, 24.0, {}, "")
        views.append(_save_view(folder, f"original {image.crc} {image.pixels.shape}", original, image.pixels))
        for target in targets:
            for peer in peers:
                step(1)
                key = f"{peer.name} {peer.version} {peer.options} {target:g} {image.crc} {image.pixels.shape}"
                view = _load_view(folder, key, metrics)
                if view is None and failures[peer.name] < MAX_FAILURES:
                    try:
                        view = _make_view(folder, peer, image, target, key, metrics)
                    except Exception as exc:  # as in measure.measure_all
                        failures[peer.name] += 1
                        fail(f"{peer.name} at {target:g} bpp on {image.name}", exc)
                if view is not None:
                    views.append(view)
    return views


def _make_view(folder: str, peer: Peer, image: Image, target: float, key: str, metrics: Sequence[str]) -> View | None:
    height, width = image.pixels.shape[:2]
    best = largest_within(peer.scale, int(target * height * width / 8), lambda s: peer.encode(image.pixels, s))
    if best is None:
        return None
    setting, data = best
    pixels = check_decoded(peer.decode(data), image.pixels)
    shown = {name: known()[name].shown(known()[name].measure(image.pixels, pixels)) for name in metrics}
    finite = {name: value if math.isfinite(value) else None for name, value in shown.items()}
    view = View(image.name, target, peer.name, setting, len(data), 8 * len(data) / (height * width), finite, "")
    return _save_view(folder, key, view, pixels)


def _save_view(folder: str, key: str, view: View, pixels: np.ndarray) -> View:
    """Write the crop as lossless WebP, and the record of a decoded view beside it."""
    path = _path(folder, key)
    if view.codec or not os.path.exists(f"{path}.webp"):
        top, left = (max(0, (side - most) // 2) for side, most in zip(pixels.shape[:2], CROP, strict=True))
        crop = np.ascontiguousarray(pixels[top : top + CROP[0], left : left + CROP[1]])
        write_atomic(f"{path}.webp", lambda file: write_image(crop, file, None, "WEBP"), overwrite=True)
    if view.codec:
        record: dict[str, Any] = view._replace(file=os.path.basename(f"{path}.webp"))._asdict()
        write_atomic(f"{path}.json", json.dumps(record).encode(), overwrite=True)
    return view._replace(file=f"{path}.webp")


def _load_view(folder: str, key: str, metrics: Sequence[str]) -> View | None:
    """The view that _save_view has written, or None without one that has these metrics."""
    try:
        with open(f"{_path(folder, key)}.json", encoding="utf-8") as file:
            record = json.load(file)
        view = View(**{**record, "file": os.path.join(folder, record["file"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return view if os.path.exists(view.file) and set(metrics) <= set(view.metrics) else None


def _path(folder: str, key: str) -> str:
    return os.path.join(folder, f"{zlib.crc32(key.encode()):08x}{zlib.adler32(key.encode()):08x}")
