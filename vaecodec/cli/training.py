"""Commands that train and freeze models."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
from contextlib import suppress
from dataclasses import asdict, fields
from functools import partial
from typing import Any

from vaecodec.atomic import check_target, write_atomic
from vaecodec.errors import CodecError
from vaecodec.model import SUFFIX, added_models, shipped_models
from vaecodec.progress import Console, hushed

Report = tuple[dict[str, Any], str]  # for --json, and as text


def train(args: argparse.Namespace, console: Console) -> int:
    """Train a model, or exchange its training step and state with another machine."""
    if bool(args.paths) == bool(args.export_step or args.import_state):
        args.usage("give the PATHs to train on, or --export-step or --import-state")
    if args.start is not None and args.import_state:
        args.usage("--from does not go with --import-state")
    if args.hard and not args.export_step:
        args.usage("--hard needs --export-step; training here reaches that phase by itself")
    if args.validate and args.no_validation:
        args.usage("--validate does not go with --no-validation")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    console.progress = False  # training shows its own
    if importlib.util.find_spec("tensorflow"):  # which takes seconds to import
        console.note(f"{args.out}: starting TensorFlow")
        with hushed(args.verbose):  # it says on stderr which devices it does not find
            import vaecodec.training.loop  # noqa: F401
    console.attempt(args.out, partial(_train, args, console))
    return console.failures


def _train(args: argparse.Namespace, console: Console) -> Report:
    from vaecodec import training
    from vaecodec.model.generative import Generative
    from vaecodec.training import loop, train_step

    stored = None if args.import_state is not None else training.stored_run(args.out)
    config, options, weights = _resolve(args, stored)
    if isinstance(config, Generative) and (args.export_step or args.import_state or args.validate):
        what = "validated" if args.validate else "exported; it trains in minutes on a CPU"
        raise CodecError(f"a generative model cannot be {what}")
    if args.export_step is not None:
        state, _ = training.resume(args.out, config, options, weights)
        train_step.export_step(config, options, args.export_step, state, args.hard)
        return {"run": args.out, "exported": args.export_step}, f"{args.out}: training step in {args.export_step}"
    if args.import_state is not None:
        training.import_state(args.import_state, args.out, config, options)
        return {"run": args.out, "imported": args.import_state}, f"{args.out}: has the state of {args.import_state}"
    train_step.spread(options, args.devices)
    os.makedirs(args.out, exist_ok=True)
    recipe = training.format_recipe(config, options).encode()
    write_atomic(os.path.join(args.out, "config.toml"), recipe, overwrite=True)
    start = args.start or (stored.start if stored else "")
    outcome = loop.train(
        args.paths,
        args.out,
        config,
        options,
        weights,
        devices=args.devices,
        start_name=start,
        validate=None if args.no_validation else args.validate,
        say=console.note,
    )
    return _report(args, outcome, start if options.tune == "eye" else "")


def _resolve(args: argparse.Namespace, stored: Any) -> tuple[Any, Any, dict[str, Any] | None]:
    """(architecture, options, weights to start from) of the command line and the run that exists, if one does.

    Raises CodecError where the command line asks for something else than the run was begun with.
    """
    from vaecodec import training
    from vaecodec.training import train_step

    config: Any
    config, recipe = training.read_recipe(args.config) if args.config is not None else (None, {})
    chosen = {field.name: getattr(args, field.name, None) for field in fields(train_step.Options)}
    chosen = recipe | {name: value for name, value in chosen.items() if value is not None}
    config = training.preset(args.preset) if args.preset is not None else config
    start_config, weights, tune = None, None, chosen.get("tune", "psnr")
    if args.start is not None and stored is None:
        start_config, weights = _load_weights(args.start, tune)
    if args.channels is not None:
        base = config or (stored.config if stored else start_config or training.preset("small"))
        config = training.with_sizes(base, channels=args.channels)
    if args.analysis_blocks is not None:
        base = config or (stored.config if stored else start_config or training.preset("small"))
        config = training.with_sizes(base, analysis_blocks=args.analysis_blocks)
    if stored is not None:
        _check_unchanged(args, stored, config, chosen)
        if stored.start:  # for validation; a run does not need its start to go on
            with suppress(CodecError, OSError):
                weights = _fitting(*_load_weights(stored.start, tune), stored.config)[1]
        return stored.config, train_step.Options(**{**asdict(stored.options), **chosen}), weights
    if weights is not None:
        start_config, weights = _fitting(start_config, weights, config)
        if config not in (None, start_config, getattr(start_config, "of_decoders", None)):
            raise CodecError(f"{args.start} does not have the architecture {training.describe(config)}")
        config = start_config
    config = config or training.preset("small")
    return config, train_step.Options(**{**training.kind_of(config).defaults, **chosen}), weights


def _check_unchanged(args: argparse.Namespace, stored: Any, config: Any, chosen: dict[str, Any]) -> None:
    """Raise CodecError if the command line differs from the run in what it may not change without --override."""
    from vaecodec import training

    if config not in (None, stored.config):
        raise CodecError(f"contains a run of another architecture, {training.describe(stored.config)}")
    if args.start is not None and stored.start and args.start != stored.start:
        raise CodecError(f"contains a run that started from {stored.start}, not {args.start}; name another --out")
    changed = training.changed_options(stored.options, chosen)
    if changed and not args.override:
        values = asdict(stored.options)
        text = ", ".join(f"{name} {values[name]} (not {chosen[name]})" for name in changed)
        raise CodecError(f"the run was begun with {text}; add --override to change that, or leave the options out")


def _report(args: argparse.Namespace, outcome: Any, eye_of: str) -> Report:
    """What was reached, and what to do next: `eye_of` is the model whose analysis for the eye was trained, or ""."""
    run = args.out
    metrics = {name: value for name, value in outcome.means.items() if math.isfinite(value)}  # JSON has no NaN
    record = {"run": run, **metrics, "steps": outcome.steps, "complete": outcome.is_complete}
    text = ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
    text = f"{run}: {outcome.steps} steps" + (f", {text}" if text else "")
    if math.isfinite(outcome.bd_rate):
        record["bd_rate"] = outcome.bd_rate
        text += f", BD-rate {outcome.bd_rate:+.2f} % against {outcome.against}"
    stem = os.path.basename(os.path.normpath(run)).removesuffix(".run")
    if outcome.is_complete:
        text += f".  Next: vaecodec freeze {run}" + f" --eye-of {eye_of}" * bool(eye_of) + f" -o {stem}{SUFFIX}"
    else:
        text += ".  Not complete: the same command goes on"
    return record, f"{text}; curves: tensorboard --logdir {os.path.join(run, 'logs')}"


def _load_weights(source: str, tune: str) -> tuple[Any, dict[str, Any]]:
    """Return the config and weights of a run folder, a compact checkpoint, or a model by name or path.

    Of the analyses of a model it takes that of a tune.
    """
    is_named = source in shipped_models() + added_models() and not os.path.exists(source)
    if is_named or source.endswith(SUFFIX):
        from vaecodec.model.file import load_model
        from vaecodec.training.freezing import unfreeze

        return unfreeze(load_model(source), tune)
    from vaecodec import training

    return training.averaged_weights(source)


def _fitting(config: Any, weights: dict[str, Any], target: Any) -> tuple[Any, dict[str, Any]]:
    """The config and weights of a model, or of the grey or deeper model made from it where one is wanted."""
    from vaecodec.config import Config
    from vaecodec.training.freezing import COLOURS, grey_weights, with_deeper_analysis

    if isinstance(target, Config) and isinstance(config, Config):
        if (target.channels, config.channels) == (1, COLOURS):
            config, weights = grey_weights(config, weights)
        if target.of_decoders == config.of_decoders and target.analysis_blocks > config.analysis_blocks:
            config, weights = with_deeper_analysis(config, weights, target.analysis_blocks)
    return config, weights


def freeze(args: argparse.Namespace, console: Console) -> int:
    """Make a model file or a compact checkpoint from a training run."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if args.eye_of and (args.name is not None or args.output.endswith(".safetensors")):
        args.usage("--eye-of writes a model file, under the name of its model")

    def work() -> Report:
        from vaecodec import training
        from vaecodec.training import freezing

        check_target(args.run, args.output, args.force)
        if args.output.endswith(".safetensors"):
            count = training.compact(args.run, args.output, args.half)
            return {"run": args.run, "output": args.output, "parameters": count}, f"{args.output}: {count} parameters"
        if args.eye_of:
            model = freezing.freeze_eye(args.run, args.eye_of, args.output)
        else:
            model = freezing.freeze(args.run, args.output, name=args.name)
        return {"run": args.run, "output": args.output, "model": model}, f"{args.output}: model {model}"

    console.progress = False
    with hushed(args.verbose):
        console.attempt(args.output, work)
    return console.failures
