"""Commands on generative models: pack, unpack, sample, vary, interpolate, score, calibrate."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
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
from vaecodec.model.generative import Generator
from vaecodec.progress import Console, hushed
from vaecodec.rdo import fit_tables

Report = tuple[dict[str, Any], str]  # for --json, and as text
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
        names, images, scores = _score_images(args, console)
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


def _score_images(args: argparse.Namespace, console: Console) -> tuple[list[str], Any, list[Score]]:
    """Return (names, images, scores) of all images that can be read; report the others on the console."""
    model = generative.load(args.model or _model_for(args.paths))
    names, images = _read_images(args, console, model)
    return names, images, generative.score_images(model, images)


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
