"""The models command: lists, shows, adds and removes them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from vaecodec.console import Console
from vaecodec.errors import CodecError, ModelError
from vaecodec.model import library
from vaecodec.model.file import MAX_BYTES, load_any, parse_model

Said = tuple[dict[str, Any], str]


def models(args: argparse.Namespace, console: Console) -> int:
    """Runs what was asked for on each model; an exit code."""
    action = args.action or "list"
    works: dict[str, Callable[[str], Said]] = {
        "list": _list,
        "show": _show,
        "add": partial(_add, args),
        "remove": _remove,
    }
    names = library.shipped() + library.added() if action == "list" else args.names
    if action == "add" and args.name is not None and len(names) > 1:
        args.usage("--name is for one model at a time")
    for name in names:
        console.attempt(name, partial(works[action], name), product=action in ("list", "show"))
    return int(console.failures > 0)


def _list(name: str) -> Said:
    model = load_any(name)
    where = "shipped" if model.shipped else "added"
    return {"name": name, "model": model.id, "from": where}, f"{name}  {model.id}" + "  added" * (not model.shipped)


def _show(name: str) -> Said:
    model, path = load_any(name), library.path_of(name)
    sizes, count = model.config.to_dict(), sum(array.size for array in _weights(model.arrays))
    record = {
        "name": model.name,
        "model": model.id,
        "path": path,
        "bytes": os.path.getsize(path),
        "parameters": count,
        "config": sizes,
        "notes": model.notes,
    }
    text = f"{model.name}  {model.id}, {record['bytes']} bytes, {count} parameters, {path}"
    parts = [f"{key} {value}" for key, value in {**sizes, **model.notes}.items()]
    return record, "; ".join([text, ", ".join(parts)])


def _weights(arrays: dict[str, Any]) -> list[Any]:
    """Kernels and biases of networks."""
    parts = ("prior/", "synthesis/", "analysis/", "integer/")
    return [array for name, array in arrays.items() if name.startswith(parts) and not name.endswith("/shift")]


def _add(args: argparse.Namespace, source: str) -> Said:
    try:
        with open(source, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as exc:
        raise CodecError(exc.strerror or str(exc)) from exc
    if len(data) > MAX_BYTES:
        raise ModelError(f"larger than a model may be ({MAX_BYTES} bytes)")
    model = parse_model(data, source)
    name = os.path.basename(source).removesuffix(library.SUFFIX) if args.name is None else args.name
    path = library.add(name, data, args.force)
    return {"name": name, "model": model.id, "path": path}, f"{source}: added as {name}, {path}"


def _remove(name: str) -> Said:
    path = library.remove(name)
    return {"name": name, "path": path}, f"{name}: removed, {path}"
