"""Commands that only print: headers of .vae files, and file type rules.  Standard library only."""

from __future__ import annotations

import argparse
import io
import sys
from functools import partial
from typing import Any

from vaecodec.cli.checks import check_stdin
from vaecodec.container.info import describe_file
from vaecodec.model.library import name_of_model
from vaecodec.progress import Console, format_bytes
from vaecodec.urls import is_url, read_url

CHANNELS = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGBA"}
CODINGS = {"vae": "quality", "lossless": "lossless", "near-lossless": "within {max_error}", "avif": "as AVIF"}
METADATA = {"icc": "ICC profile", "exif": "EXIF", "xmp": "XMP", "dpi": "resolution"}


def info(args: argparse.Namespace, console: Console) -> int:
    """Print what the headers of .vae files say."""

    def work(name: str) -> tuple[dict[str, Any], str]:
        if is_url(name):
            record = describe_file(io.BytesIO(read_url(name)))
        elif name != "-":
            with open(name, "rb") as file:
                record = describe_file(file)
        else:
            check_stdin(args)
            record = describe_file(sys.stdin.buffer)
        if "model" in record:
            record["model_name"] = name_of_model(record["model"])
        return {"input": name, **record}, f"{name}: {_format(record, args.verbose)}"

    for name in args.inputs:
        console.attempt(name, partial(work, name), product=True)
    return int(console.failures > 0)


def _format(record: dict[str, Any], verbose: bool = False) -> str:
    """Format a record of info as a sentence; `verbose` adds what only experts ask for."""
    if record["kind"] in ("picture", "array"):
        text = _format_image(record)
    elif record["kind"] == "set":
        text = "{count} images of {width} x {height} pixels, without loss".format(**record)
    else:
        text = _format_stored(record)
    text += f", {format_bytes(record['bytes'])}"
    if "bpp" in record:
        text += f" ({record['bpp']:.3f} bits per pixel)"
    if "model" in record:
        text += f", model {record['model_name'] or record['model'] + ' (not installed)'}"
    for kind in record.get("metadata", ()):
        text += f", {METADATA[kind]}"
    if verbose:
        text += f", {record['bytes']} bytes, format version {record['version']}"
        text += f", model id {record['model']}" if "model" in record else ""
        text += ", restoration filter" if record.get("filtered") else ""
    return text


def _format_image(record: dict[str, Any]) -> str:
    """Format the size, the samples and the coding of an image."""
    text = "{width} x {height} pixels, ".format(**record)
    text += CHANNELS[record["channels"]] if record["kind"] == "picture" else f"{record['channels']} channels"
    text += f" of {record['depth']} bits" if record["depth"] > 8 else ""
    text += ", " + CODINGS.get(record["coding"], record["coding"]).format(**record)
    text += f" {record['quality']:g}" if "quality" in record else ""
    if record.get("tiles", 1) > 1:
        text += ", {tiles} tiles of {tile} x {tile} pixels".format(**record)
    return text


def _format_stored(record: dict[str, Any]) -> str:
    """Format what is known of a stored file."""
    text = f"stored file {record['name']} of {format_bytes(record['size'])}"
    if record["mode"] is not None:
        text += f", permissions {record['mode']}"
    if record["mtime_ns"] is not None:
        from datetime import datetime, timedelta, timezone

        time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=record["mtime_ns"] // 1000)
        text += f", of {time:%Y-%m-%d %H:%M:%S} UTC"
    return f"{text}, compressed without loss"


def filetype(args: argparse.Namespace, console: Console) -> int:
    """Print a rule by which other programs recognise .vae files."""
    from importlib.resources import files

    console.say_text((files("vaecodec") / "share" / f"vaecodec.{args.kind}").read_text())
    return 0
