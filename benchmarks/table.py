"""A table of measurements: printed, and kept as JSON where `vaecodec bench` finds it for its report."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from vaecodec.bench.report import machine


def publish(about: str, columns: list[str], rows: list[list[Any]], path: str | None) -> None:
    """Prints the rows, and writes {about, machine, columns, rows} to `path`, if any."""
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
