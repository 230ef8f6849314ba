"""Commands on models: list, show, add and remove them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from functools import partial
from typing import Any

from vaecodec.errors import CodecError, ModelError
from vaecodec.model.library import (
    SUFFIX,
    add_model,
    added_models,
    card_of_model,
    id_of_model,
    path_of_model,
    remove_model,
    shipped_models,
    summary_of_model,
)
from vaecodec.progress import Console, format_bytes

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
