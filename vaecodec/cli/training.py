"""The train and freeze commands: arguments -> the training half of the library, which is loaded here."""

from __future__ import annotations

import argparse
import math
import os
from dataclasses import fields
from typing import Any

from vaecodec.atomic import write_atomic
from vaecodec.errors import CodecError
from vaecodec.model.generative import Generative


def train(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """(record, prose) of a run that has ended, or of a training step handed over or taken back."""
    from vaecodec.training import loop, train_step

    config: Any
    config, recipe = loop.read_recipe(args.config) if args.config is not None else (None, {})
    given = {field.name: getattr(args, field.name, None) for field in fields(train_step.Options)}
    given = recipe | {name: value for name, value in given.items() if value is not None}
    config, start = loop.preset(args.preset) if args.preset is not None else config, None
    if args.channels is not None:
        config = loop.with_channels(config or loop.preset("small"), args.channels)
    if args.start is not None:
        found, start = _weights(args.start)
        if config not in (None, found):
            raise CodecError(f"{args.start} is not of the architecture {_asked(args)}")
        config = found
    config = config or loop.preset("small")
    options = train_step.Options(**{**loop.kind_of(config).defaults, **given})
    if isinstance(config, Generative) and (args.export_step or args.import_state):
        raise CodecError("the step of a generative model is not for export: it trains in minutes on a CPU")
    if args.export_step is not None:
        state, _ = loop.resume(args.out, config, options, start)
        train_step.export_step(config, options, args.export_step, state, args.hard)
        return {"run": args.out, "exported": args.export_step}, f"{args.out}: training step in {args.export_step}"
    if args.import_state is not None:
        loop.import_state(args.import_state, args.out, config, options)
        return {"run": args.out, "imported": args.import_state}, f"{args.out}: holds the state of {args.import_state}"
    train_step.spread(options, args.devices)
    os.makedirs(args.out, exist_ok=True)
    write_atomic(os.path.join(args.out, "config.toml"), loop.format_recipe(config, options).encode(), overwrite=True)
    metrics = loop.train(args.paths, args.out, config, options, start, devices=args.devices)
    metrics = {name: value for name, value in metrics.items() if math.isfinite(value)}  # NaN is none yet, and no JSON
    text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    return {"run": args.out, **metrics}, f"{args.out}: {text or 'too short a run for metrics'}"


def freeze(args: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """(record, prose) of the model file that was made."""
    from vaecodec.atomic import check_target
    from vaecodec.training import freezing

    check_target(args.run, args.output, args.force)
    model = freezing.freeze(args.run, args.output, name=args.name)
    return {"run": args.run, "output": args.output, "model": model}, f"{args.output}: model {model}"


def _asked(args: argparse.Namespace) -> str:
    """What was said of the architecture."""
    named = args.preset or (f"in {args.config}" if args.config else "small")
    return named if args.channels is None else f"{named} with {args.channels} channels"


def _weights(source: str) -> tuple[Any, dict[str, Any]]:
    """(config, weights) of a run folder, a compact checkpoint, or a model by name or path."""
    from vaecodec.model import library
    from vaecodec.training import loop

    named = source in library.shipped() + library.added() and not os.path.exists(source)
    if not named and not source.endswith(library.SUFFIX):
        return loop.averaged_weights(source)
    from vaecodec.model.file import load_model
    from vaecodec.training.freezing import unfreeze

    return unfreeze(load_model(source))
