"""Pictures to look at: every codec's file of about the same number of bytes, decoded, for the report.

For each picture and target rate a codec's setting is searched for the largest file that is not above the target.
What is found is kept in a folder, so that the report can be made again without coding again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from vaecodec.atomic import write_atomic
from vaecodec.bench.evaluate import GIVE_UP, Picture, Report, read_pictures
from vaecodec.bench.peers import LOSSLESS, Peer, Scale, check_decoded
from vaecodec.images.metrics import METRICS
from vaecodec.images.writing import write_image

SHOWN = (512, 768)  # rows and columns at most that are kept, from the middle


class View(NamedTuple):
    """One picture as one codec leaves it; codec "" is the original.  `file` is a lossless image of what is shown."""

    image: str
    target: float  # bpp
    codec: str
    setting: float | None
    bytes: int
    bpp: float
    psnr: float | None
    file: str


def largest_within(
    scale: Scale, limit: int, encode: Callable[[float], bytes], tries: int = 12
) -> tuple[float, bytes] | None:
    """(setting, bytes) of the largest file of at most `limit` bytes, by bisection; None where all are larger."""
    last = round((scale.high - scale.low) / scale.step)

    def setting(index: int) -> float:
        return scale.low + scale.step * (index if scale.rising else last - index)

    best: tuple[float, bytes] | None = None
    low, high = 0, last
    while low <= high and tries:
        # Rates grow about exponentially with settings, so what is wanted lies mostly in the lower half.
        middle, tries = (low + high) // 2, tries - 1
        data = encode(setting(middle))
        if len(data) <= limit:
            if best is None or len(data) >= len(best[1]):
                best = setting(middle), data
            low = middle + 1
        else:
            high = middle - 1
    return best


def make_gallery(
    folder: str,
    peers: Iterable[Peer],
    files: list[tuple[str, str]],
    targets: Iterable[float],
    fail: Report,
    step: Callable[[int], None] = lambda jobs: None,
) -> list[View]:
    """Views of each picture at each target rate in bpp, by every lossy codec; kept as files in `folder`."""
    os.makedirs(folder, exist_ok=True)
    peers = [peer for peer in peers if peer.scale != LOSSLESS]
    views: list[View] = []
    failed: dict[str, int] = {}
    for picture in read_pictures(files, fail):
        views.append(_keep(folder, View(picture.name, 0.0, "", None, 0, 24.0, None, ""), picture, picture.pixels, ""))
        for target in targets:
            for peer in peers:
                step(1)
                key = f"{peer.name} {peer.version} {peer.options} {target:g} {picture.crc} {picture.pixels.shape}"
                known = _recall(folder, key)
                if known is None and failed.get(peer.name, 0) < GIVE_UP:
                    try:
                        known = _view(folder, peer, picture, target, key)
                    except Exception as exc:  # as in evaluate.run
                        failed[peer.name] = failed.get(peer.name, 0) + 1
                        fail(f"{peer.name} at {target:g} bpp on {picture.name}", exc)
                if known is not None:
                    views.append(known)
    return views


def _view(folder: str, peer: Peer, picture: Picture, target: float, key: str) -> View | None:
    height, width = picture.pixels.shape[:2]
    found = largest_within(peer.scale, int(target * height * width / 8), lambda s: peer.encode(picture.pixels, s))
    if found is None:
        return None
    setting, data = found
    pixels = check_decoded(peer.decode(data), picture.pixels)
    quality = METRICS["psnr"].measure(picture.pixels, pixels)
    bpp = 8 * len(data) / (height * width)
    view = View(picture.name, target, peer.name, setting, len(data), bpp, quality, "")
    return _keep(folder, view, picture, pixels, key)


def _keep(folder: str, view: View, picture: Picture, pixels: np.ndarray, key: str) -> View:
    """Writes what is shown as lossless WebP, and the record of it beside."""
    name = _name(key or f"original {picture.crc} {picture.pixels.shape}")
    height, width = pixels.shape[:2]
    top, left = max(0, (height - SHOWN[0]) // 2), max(0, (width - SHOWN[1]) // 2)
    path = os.path.join(folder, name + ".webp")
    if key or not os.path.exists(path):
        shown = np.ascontiguousarray(pixels[top : top + SHOWN[0], left : left + SHOWN[1]])
        write_atomic(path, lambda file: write_image(shown, file, None, "WEBP"), overwrite=True)
    view = view._replace(file=path)
    if key:
        record: dict[str, Any] = {**view._asdict(), "file": os.path.basename(path)}
        write_atomic(os.path.join(folder, name + ".json"), json.dumps(record).encode(), overwrite=True)
    return view


def _recall(folder: str, key: str) -> View | None:
    """What _keep wrote, None where it did not."""
    try:
        with open(os.path.join(folder, _name(key) + ".json"), encoding="utf-8") as file:
            record = json.load(file)
        view = View(**{**record, "file": os.path.join(folder, record["file"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return view if os.path.exists(view.file) else None


def _name(key: str) -> str:
    return f"{zlib.crc32(key.encode()):08x}{zlib.adler32(key.encode()):08x}"
