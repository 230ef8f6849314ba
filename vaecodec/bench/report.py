"""One HTML file that shows it all and needs nothing else: report.html with the numbers and pictures put in."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

from vaecodec.atomic import write_atomic
from vaecodec.bench.gallery import View

TEMPLATE = os.path.join(os.path.dirname(__file__), "report.html")


def save(path: str, summary: dict[str, Any], views: list[View]) -> None:
    """Writes the report of a summary and of the views of a gallery; raises OSError."""
    with open(TEMPLATE, encoding="utf-8") as file:
        template = file.read()
    data = {"summary": summary, "views": [_embedded(view) for view in views]}
    # "</" would end the script element, whatever a picture is called.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/").replace("<!--", "<\\!--")
    write_atomic(path, template.replace("/*DATA*/ null", text).encode(), overwrite=True)


def _embedded(view: View) -> dict[str, Any]:
    """A view with its picture as a data URL."""
    with open(view.file, "rb") as file:
        data = base64.b64encode(file.read()).decode()
    return {**view._asdict(), "file": f"data:image/webp;base64,{data}"}
