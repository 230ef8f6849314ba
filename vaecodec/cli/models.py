"""Commands on models: list, show, add and remove them, train and freeze them, and compare codecs with them."""

from __future__ import annotations

import argparse
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any

from vaecodec.atomic import check_target, write_atomic
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
from vaecodec.progress import Console, format_bytes, hushed

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


def train(args: argparse.Namespace, console: Console) -> int:
    """Train a model, or exchange its training step and state with another machine."""
    if bool(args.paths) == bool(args.export_step or args.import_state):
        args.usage("give the PATHs to train on, or --export-step or --import-state")
    if args.start is not None and args.import_state:
        args.usage("--from does not go with --import-state")
    if args.hard and not args.export_step:
        args.usage("--hard needs --export-step; training here reaches that phase by itself")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    console.progress = False  # training shows its own
    console.attempt(args.out, partial(_train, args))
    return console.failures


def _train(args: argparse.Namespace) -> Report:
    from vaecodec.model.generative import Generative
    from vaecodec.training import loop, train_step

    config: Any
    config, recipe = loop.read_recipe(args.config) if args.config is not None else (None, {})
    chosen = {field.name: getattr(args, field.name, None) for field in fields(train_step.Options)}
    chosen = recipe | {name: value for name, value in chosen.items() if value is not None}
    config, weights = loop.preset(args.preset) if args.preset is not None else config, None
    if args.channels is not None:
        config = loop.with_channels(config or loop.preset("small"), args.channels)
    if args.start is not None:
        start_config, weights = _load_weights(args.start)
        if config not in (None, start_config):
            name = args.preset or (f"in {args.config}" if args.config else "small")
            name += f" with {args.channels} channels" if args.channels is not None else ""
            raise CodecError(f"{args.start} does not have the architecture {name}")
        config = start_config
    config = config or loop.preset("small")
    options = train_step.Options(**{**loop.kind_of(config).defaults, **chosen})
    if isinstance(config, Generative) and (args.export_step or args.import_state):
        raise CodecError("the step of a generative model cannot be exported; it trains in minutes on a CPU")
    if args.export_step is not None:
        state, _ = loop.resume(args.out, config, options, weights)
        train_step.export_step(config, options, args.export_step, state, args.hard)
        return {"run": args.out, "exported": args.export_step}, f"{args.out}: training step in {args.export_step}"
    if args.import_state is not None:
        loop.import_state(args.import_state, args.out, config, options)
        return {"run": args.out, "imported": args.import_state}, f"{args.out}: has the state of {args.import_state}"
    train_step.spread(options, args.devices)
    os.makedirs(args.out, exist_ok=True)
    write_atomic(os.path.join(args.out, "config.toml"), loop.format_recipe(config, options).encode(), overwrite=True)
    metrics = loop.train(args.paths, args.out, config, options, weights, devices=args.devices)
    metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}  # JSON has no NaN
    text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    return {"run": args.out, **metrics}, f"{args.out}: {text or 'the run was too short for metrics'}"


def _load_weights(source: str) -> tuple[Any, dict[str, Any]]:
    """Return the config and weights of a run folder, a compact checkpoint, or a model by name or path."""
    is_named = source in shipped_models() + added_models() and not os.path.exists(source)
    if is_named or source.endswith(SUFFIX):
        from vaecodec.model.file import load_model
        from vaecodec.training.freezing import unfreeze

        return unfreeze(load_model(source))
    from vaecodec.training import loop

    return loop.averaged_weights(source)


def freeze(args: argparse.Namespace, console: Console) -> int:
    """Make a model file or a compact checkpoint from a training run."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

    def work() -> Report:
        from vaecodec.training import freezing, loop

        check_target(args.run, args.output, args.force)
        if args.output.endswith(".safetensors"):
            count = loop.compact(args.run, args.output, args.half)
            return {"run": args.run, "output": args.output, "parameters": count}, f"{args.output}: {count} parameters"
        model = freezing.freeze(args.run, args.output, name=args.name)
        return {"run": args.run, "output": args.output, "model": model}, f"{args.output}: model {model}"

    console.progress = False
    with hushed(args.verbose):
        console.attempt(args.output, work)
    return console.failures


def bench(args: argparse.Namespace, console: Console) -> int:
    """Measure rate, distortion and time of codecs on images, and write a report."""
    from vaecodec.bench import command

    try:
        with hushed(args.verbose), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", category=UserWarning, module="vaecodec")  # not those of the libraries
            warnings.showwarning = lambda message, *_: console.note(f"warning: {message}")
            command.bench(args, console)
    except (CodecError, OSError) as exc:
        console.fail(args.output, exc)
    return int(console.failures > 0)
