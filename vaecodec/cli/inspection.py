"""Commands that only print or that keep models: info, filetype, models and completion.

`info` needs the standard library alone.  `completion` prints a script, made by shtab (extra completion), that completes
options, choices, files and the names of models, which it asks `vaecodec models names` for.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from vaecodec.arguments import is_url, read_url
from vaecodec.cli.options import check_stdin
from vaecodec.cli.parser import make_parser
from vaecodec.container.info import describe_file
from vaecodec.errors import CodecError, ModelError
from vaecodec.model import (
    SUFFIX,
    add_model,
    added_models,
    card_of_model,
    id_of_model,
    name_of_model,
    path_of_model,
    remove_model,
    shipped_models,
    summary_of_model,
)
from vaecodec.progress import Console, format_bytes

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


Report = tuple[dict[str, Any], str]  # for --json, and as text


def models(args: argparse.Namespace, console: Console) -> int:
    """List, show, add or remove models."""
    action = args.action or "list"
    works: dict[str, Callable[[str], Report]] = {
        "list": _list,
        "names": lambda name: ({"name": name}, name),
        "show": _show,
        "add": partial(_add, args),
        "remove": _remove,
    }
    names = shipped_models() + added_models() if action in ("list", "names") else args.names
    if action == "add" and args.name is not None and len(names) > 1:
        args.usage("--name goes with one model at a time")
    for name in names:
        done = console.attempt(name, partial(works[action], name), product=action in ("list", "names", "show"))
        if done and action == "show" and not args.json:
            console.page(_show(name)[0]["card"])
    return int(console.failures > 0)


def _list(name: str) -> Report:
    model_id, origin = id_of_model(name), "shipped" if name in shipped_models() else "added"
    summary = summary_of_model(name) or "added"
    record = {"name": name, "model": model_id, "from": origin, "path": path_of_model(name), "summary": summary}
    return record, f"{name:10}  {model_id}  {summary}"


def _show(name: str) -> Report:
    from vaecodec.model.file import load_any

    model, path = load_any(name), path_of_model(name)
    networks = ("prior/", "synthesis/", "analysis/", "integer/")
    weights = [a for key, a in model.arrays.items() if key.startswith(networks) and not key.endswith("/shift")]
    sizes, count = model.config.to_dict(), sum(array.size for array in weights)
    card = card_of_model(name) or "".join(f"{key}: {value}\n" for key, value in {**sizes, **model.notes}.items())
    record: dict[str, Any] = {
        "name": model.name,
        "model": model.id,
        "path": path,
        "bytes": os.path.getsize(path),
        "parameters": count,
        "config": sizes,
        "notes": model.notes,
        "card": card,
    }
    text = f"{model.name}  {model.id}, {format_bytes(record['bytes'])}, {count:,} parameters, {path}"
    return record, text


def _add(args: argparse.Namespace, source: str) -> Report:
    from vaecodec.model.file import MAX_BYTES, parse_model

    try:
        with open(source, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise CodecError(exc.strerror or str(exc)) from exc
    if len(data) > MAX_BYTES:
        raise ModelError(f"larger than the limit for models of {MAX_BYTES} bytes")
    model = parse_model(data, source)
    name = os.path.basename(source).removesuffix(SUFFIX) if args.name is None else args.name
    path = add_model(name, data, args.force)
    return {"name": name, "model": model.id, "path": path}, f"{source}: added as {name}, {path}"


def _remove(name: str) -> Report:
    path = remove_model(name)
    return {"name": name, "path": path}, f"{name}: removed, {path}"


MODELS = "vaecodec models names"
# What arguments take, by their name in the parser.
FILES = frozenset("inputs input paths first last run output sheet config published start".split())
FOLDERS = frozenset("output_dir out export_step import_state".split())
MODEL_NAMES = frozenset("model names".split())


def completion(args: argparse.Namespace, console: Console) -> int:
    """Print a completion script."""
    console.say_text(completion_script(args.shell))
    return 0


def completion_script(shell: str) -> str:
    """Return the completion script for a shell."""
    import shtab

    parser = make_parser()
    _describe(parser)
    return shtab.complete(parser, shell)


def _describe(parser: argparse.ArgumentParser) -> None:
    """Tell shtab what the arguments of a parser and of its commands take."""
    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _describe(command)
        elif action.dest in MODEL_NAMES and not parser.prog.endswith(" add"):
            action.complete = shtab.cmd(MODELS)  # type: ignore[attr-defined]
        elif action.dest in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.dest in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
