"""Commands that train, freeze and calibrate models, draw from them, or code sets of images."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import math
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from functools import partial
from typing import Any

import numpy as np

from vaecodec import generative
from vaecodec.atomic import check_target, write_atomic
from vaecodec.codec import Codec
from vaecodec.errors import CodecError
from vaecodec.generative import Score, image_sets
from vaecodec.generative.image_sets import IMAGE_SUFFIXES, contact_sheet, read_set
from vaecodec.images.colours import to_model_channels
from vaecodec.images.reading import read_image, read_rgb
from vaecodec.images.writing import format_of, write_image
from vaecodec.model import SUFFIX, added_models, shipped_models
from vaecodec.model.generative import Generator
from vaecodec.progress import Console, hushed
from vaecodec.rdo import fit_tables

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
    _prepare_tensorflow()
    console.progress = False  # training shows its own
    if importlib.util.find_spec("tensorflow"):  # which takes seconds to import
        console.note(f"{args.out}: starting TensorFlow")
        with hushed(args.verbose):  # it says on stderr which devices it does not find
            import vaecodec.training.loop  # noqa: F401
    console.attempt(args.out, partial(_train, args, console))
    return console.failures


def _prepare_tensorflow() -> None:
    """Have TensorFlow log errors alone, and load only the Keras of TensorFlow Probability, which saves 1.5 s."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if importlib.util.find_spec("tf_keras"):
        os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


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
    from vaecodec.training.freezing import fit_architecture

    config: Any
    config, recipe = training.read_recipe(args.config) if args.config is not None else (None, {})
    chosen = {field.name: getattr(args, field.name, None) for field in fields(train_step.Options)}
    chosen = recipe | {name: value for name, value in chosen.items() if value is not None}
    config = training.preset(args.preset) if args.preset is not None else config
    start_config, weights, tune = None, None, chosen.get("tune", "psnr")
    if args.start is not None and stored is None:
        start_config, weights = _load_weights(args.start, tune)
    sizes = {"channels": args.channels, "analysis_blocks": args.analysis_blocks}
    if sizes := {name: size for name, size in sizes.items() if size is not None}:
        base = config or (stored.config if stored else start_config or training.preset("small"))
        config = training.with_sizes(base, **sizes)
    if stored is not None:
        _check_unchanged(args, stored, config, chosen)
        if stored.start:  # for validation; a run does not need its start to go on
            with suppress(CodecError, OSError):
                weights = fit_architecture(*_load_weights(stored.start, tune), stored.config)[1]
        return stored.config, train_step.Options(**{**asdict(stored.options), **chosen}), weights
    if weights is not None:
        start_config, weights = fit_architecture(start_config, weights, config)
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


def freeze(args: argparse.Namespace, console: Console) -> int:
    """Make a model file or a compact checkpoint from a training run."""
    _prepare_tensorflow()
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


LARGE_CELL, SMALL_CELL = 192, 84  # sides of the cells of a contact sheet, in pixels


def pack(args: argparse.Namespace, console: Console) -> int:
    """Pack sets of small images into one .vae file."""

    def work() -> Report:
        check_target(args.inputs[0], args.output, args.force)
        images = _concatenate([read_set(path)[0] for path in args.inputs])
        data = image_sets.encode(images, args.model)
        write_atomic(args.output, data, args.force)
        record = {"input": args.inputs[0], "output": args.output, "count": len(images), "bytes": len(data)}
        record["bpp"] = 8 * len(data) / images.size
        return record, "{output}: {count} images, {bytes} bytes, {bpp:.4f} bpp".format(**record)

    return _attempt(args, console, args.inputs[0], work)


def unpack(args: argparse.Namespace, console: Console) -> int:
    """Unpack the .vae file of a set to a .npy array or a folder of PNG files."""

    def work() -> Report:
        with open(args.input, "rb") as file:
            data = file.read()
        to_npy = args.output.endswith(".npy")
        if to_npy:
            check_target(args.input, args.output, args.force)
        elif os.path.isdir(args.output) and os.listdir(args.output) and not args.force:
            raise CodecError(f"{args.output} is not empty (-f overwrites files in it)")
        images = image_sets.decode(data, args.model)
        if to_npy:
            write_atomic(args.output, lambda file: np.save(file, images), args.force)
        else:
            os.makedirs(args.output, exist_ok=True)
            digits = len(str(len(images) - 1))
            for n, image in enumerate(images):
                png = io.BytesIO()
                write_image(image, png, format="PNG")
                write_atomic(os.path.join(args.output, f"{n:0{digits}d}.png"), png.getvalue(), args.force)
        return {"input": args.input, "output": args.output, "count": len(images)}, f"{len(images)} images"

    return _attempt(args, console, args.input, work)


def sample(args: argparse.Namespace, console: Console) -> int:
    """Draw images from a model as a contact sheet."""
    options = {"seed": args.seed, "size": args.size, "quality": args.quality, "noisy": args.noisy}
    return _draw(args, console, lambda: generative.sample(args.number, args.model, **options))


def vary(args: argparse.Namespace, console: Console) -> int:
    """Draw images that resemble an image as a contact sheet."""
    options = {"seed": args.seed, "quality": args.quality}
    return _draw(args, console, lambda: generative.vary(args.input, args.strength, args.number, args.model, **options))


def interpolate(args: argparse.Namespace, console: Console) -> int:
    """Draw images between two images as a contact sheet."""
    ends, options = (args.first, args.last), (args.number, args.model, args.quality)
    return _draw(args, console, lambda: generative.interpolate(*ends, *options))


def _draw(args: argparse.Namespace, console: Console, draw: Callable[[], np.ndarray]) -> int:
    def work() -> Report:
        check_target("", args.output, args.force)
        images = draw()
        _write_sheet(list(images), args.output, args.force, args.columns)
        return {"output": args.output, "count": len(images)}, f"{args.output}: {len(images)} images"

    return _attempt(args, console, args.output, work)


def _write_sheet(images: list[np.ndarray], path: str, force: bool, columns: int = 0) -> None:
    cell = SMALL_CELL if max(images[0].shape[:2]) < SMALL_CELL else LARGE_CELL
    sheet = contact_sheet(images, columns, cell)
    write_atomic(path, lambda file: write_image(sheet, file, format=format_of(path)), force)


def score(args: argparse.Namespace, console: Console) -> int:
    """Write a CSV with the scores of images, most unusual first, and a contact sheet of the first ones."""

    def work() -> Report:
        for path in filter(None, (args.output, args.sheet)):
            check_target("", path, args.force)
        model = generative.load(args.model or _model_for(args.paths))
        names, images = _read_images(args, console, model)
        scores = generative.score_images(model, images)
        order = sorted(range(len(scores)), key=lambda n: -getattr(scores[n], args.by))
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["input", *Score._fields])
        rows.writerows([names[n], *("" if x is None else f"{x:.4f}" for x in scores[n])] for n in order)
        if args.output:
            write_atomic(args.output, table.getvalue().encode(), args.force)
        elif not args.json:
            sys.stdout.write(table.getvalue())
        for n in order if args.json else ():
            console.say({"input": names[n], **scores[n]._asdict()}, "")
        if args.sheet:
            _write_sheet([generative.squeeze_grey(images[n]) for n in order[: args.most]], args.sheet, args.force)
        mean = float(np.mean([score.bpd for score in scores]))
        return {"count": len(scores), "bpd": mean}, f"{len(scores)} images, {mean:.4f} bits per dimension on average"

    return _attempt(args, console, args.paths[0], work)


def calibrate(args: argparse.Namespace, console: Console) -> int:
    """Add the quantiles of the scores of images to a model file, and fit its frequency tables if asked to."""

    def work() -> Report:
        check_target(args.model, args.output, args.force)
        model = generative.load(args.model)
        _, images = _read_images(args, console, model)
        if args.tables:
            if isinstance(model, Generator):
                raise CodecError(f"{args.model} codes sets: its tables do not depend on images")
            model = Codec(fit_tables(model.model, images))
        scores = generative.score_images(model, images)
        data = generative.calibrate(model if isinstance(model, Generator) else model.model, scores)
        write_atomic(args.output, data, args.force)
        return {"output": args.output, "count": len(scores)}, f"{args.output}: calibrated on {len(scores)} images"

    return _attempt(args, console, args.output, work)


def _read_images(args: argparse.Namespace, console: Console, model: Generator | Codec) -> tuple[list[str], Any]:
    """Return the names and samples of all images that can be read; report the others on the console."""
    names: list[str] = []
    images: Any = []
    for path in args.paths:
        try:
            if isinstance(model, Generator):
                image_set, set_names = read_set(path)
                images.append(image_set)
                names += set_names
                continue
            for name in _image_paths(path):
                try:
                    rgb = read_rgb(name)
                    is_grey = bool((rgb == rgb[..., :1]).all())
                    images.append(to_model_channels(model.model.config.channels, rgb, is_grey))
                    names.append(name)
                except CodecError as exc:
                    console.fail(name, exc)
        except (CodecError, OSError) as exc:
            console.fail(path, exc)
    if not names:
        raise CodecError("no images to score")
    if isinstance(model, Generator):
        images = _concatenate(images)
    return names, images


def _model_for(paths: list[str]) -> str:
    """Name the model for the first image that can be read; sets of images are for a generative one."""
    for path in paths:
        for name in _image_paths(path):
            if not name.lower().endswith(IMAGE_SUFFIXES):
                return generative.GENERATIVE
            with suppress(CodecError, OSError):
                return generative.model_for(read_image(name)[0])
    return generative.PHOTOGRAPHS


def _image_paths(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.lower().endswith(IMAGE_SUFFIXES)]


def _concatenate(sets: list[np.ndarray]) -> np.ndarray:
    if len({images.shape[1:] for images in sets}) > 1:
        raise CodecError("the images have different sizes")
    return np.concatenate(sets)


def _attempt(args: argparse.Namespace, console: Console, name: str, work: Callable[[], Report]) -> int:
    """Do the work of a command and report it or its error; return the exit status."""

    def work_or_codec_error() -> Report:
        try:
            return work()
        except ValueError as exc:
            raise CodecError(str(exc)) from exc

    with hushed(args.verbose):
        console.attempt(name, work_or_codec_error)
    return int(console.failures > 0)
