"""Share what the scripts measure and write: crops of images, seconds of calls, and tables."""

from __future__ import annotations

import io
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

from vaecodec.bench.report import machine

PARROTS = pathlib.Path(__file__).parent.parent / "docs" / "examples" / "parrots.png"


def center_crops(paths: list[str], count: int, side: int) -> list[Any]:
    """u8[side, side, 3] from the centres of `count` images, at even distances among those that are large enough.

    `paths` are folders, .tar files or images.
    """
    import numpy as np
    from PIL import Image

    from vaecodec.training import encoded_images

    large = [data for data in encoded_images(paths) if min(Image.open(io.BytesIO(data)).size) >= side]
    crops = []
    for n in range(min(count, len(large))):
        image = Image.open(io.BytesIO(large[n * len(large) // count])).convert("RGB")
        left, top = (image.width - side) // 2, (image.height - side) // 2
        crops.append(np.asarray(image.crop((left, top, left + side, top + side))))
    return crops


def least_seconds(work: Callable[[], Any], repeat: int) -> float:
    """The least seconds of a call, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def significant(value: float) -> float:
    """A positive number with one decimal, or two significant digits where that is more: no measurement becomes 0."""
    return round(value, 1) if value >= 1 else float(f"{value:.2g}")


def publish(about: str, columns: list[str], rows: list[list[Any]], path: str | None) -> None:
    """Print a table, and write {about, machine, columns, rows} to `path`, where `vaecodec bench` may find it."""
    about = f"{about}  {', '.join(f'{key} {value}' for key, value in machine().items())}."
    print(about)
    cells = [columns, *([f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if path is not None:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        table = {"about": about, "machine": machine(), "columns": columns, "rows": rows}
        pathlib.Path(path).write_text(json.dumps(table, indent=1) + "\n")
