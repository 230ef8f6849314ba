"""The commands around generative models: pack, unpack, sample, vary, interpolate, score, calibrate."""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from vaecodec.atomic import check_target, write_atomic
from vaecodec.console import Console, hushed
from vaecodec.errors import CodecError
from vaecodec.generative import generation, image_sets, scoring
from vaecodec.generative.image_sets import IMAGE_SUFFIXES, contact_sheet, read_set
from vaecodec.generative.scoring import Score
from vaecodec.images.channels import to_model_channels
from vaecodec.images.reading import read_rgb
from vaecodec.images.writing import format_of, write_image
from vaecodec.model.generative import Generator

Report = tuple[dict[str, Any], str]
THUMBNAIL, DIGIT = 192, 84  # sides of the cells of a sheet


def pack(args: argparse.Namespace, console: Console) -> int:
    """Sets of small pictures -> one .vae file."""

    def work() -> Report:
        check_target(args.inputs[0], args.output, args.force)
        pictures = np.concatenate(_one_size([read_set(path)[0] for path in args.inputs]))
        data = image_sets.encode(pictures, args.model)
        write_atomic(args.output, data, args.force)
        record = {"input": args.inputs[0], "output": args.output, "count": len(pictures), "bytes": len(data)}
        record["bpp"] = 8 * len(data) / pictures.size
        text = "{output}: {count} pictures, {bytes} bytes, {bpp:.4f} bits a pixel".format(**record)
        return record, text

    return _attempt(args, console, args.inputs[0], work)


def unpack(args: argparse.Namespace, console: Console) -> int:
    """.vae file of a set -> .npy array, or a folder of PNG files where OUT does not end in .npy."""

    def work() -> Report:
        with open(args.input, "rb") as file:
            data = file.read()
        if args.output.endswith(".npy"):
            check_target(args.input, args.output, args.force)
        elif os.path.isdir(args.output) and os.listdir(args.output) and not args.force:
            raise CodecError(f"{args.output} is not empty (-f overwrites what is in it)")
        pictures = image_sets.decode(data, args.model)
        if args.output.endswith(".npy"):
            write_atomic(args.output, lambda file: np.save(file, pictures), args.force)
        else:
            os.makedirs(args.output, exist_ok=True)
            digits = len(str(len(pictures) - 1))
            for n, picture in enumerate(pictures):
                write_atomic(os.path.join(args.output, f"{n:0{digits}d}.png"), _png(picture), args.force)
        return {"input": args.input, "output": args.output, "count": len(pictures)}, f"{len(pictures)} pictures"

    return _attempt(args, console, args.input, work)


def sample(args: argparse.Namespace, console: Console) -> int:
    """A contact sheet of new pictures."""
    options = {"seed": args.seed, "size": args.size, "quality": args.quality, "noisy": args.noisy}
    return _drawn(args, console, lambda: generation.sample(args.number, args.model, **options))


def vary(args: argparse.Namespace, console: Console) -> int:
    """A contact sheet of pictures near one."""
    options = {"seed": args.seed, "quality": args.quality}
    return _drawn(args, console, lambda: generation.vary(args.input, args.strength, args.number, args.model, **options))


def interpolate(args: argparse.Namespace, console: Console) -> int:
    """A contact sheet of pictures from one to another."""

    def draw() -> np.ndarray:
        return generation.interpolate(args.first, args.last, args.number, args.model, args.quality)

    return _drawn(args, console, draw)


def _drawn(args: argparse.Namespace, console: Console, draw: Callable[[], np.ndarray]) -> int:
    def work() -> Report:
        check_target("", args.output, args.force)
        pictures = draw()
        _write_sheet(list(pictures), args.output, args.force, args.columns)
        return {"output": args.output, "count": len(pictures)}, f"{args.output}: {len(pictures)} pictures"

    return _attempt(args, console, args.output, work)


def _write_sheet(pictures: list[np.ndarray], path: str, force: bool, columns: int = 0) -> None:
    cell = DIGIT if max(pictures[0].shape[:2]) < DIGIT else THUMBNAIL
    sheet = contact_sheet(pictures, columns, cell)
    write_atomic(path, lambda file: write_image(sheet, file, format=format_of(path)), force)


def score(args: argparse.Namespace, console: Console) -> int:
    """A CSV with a line for each picture, the strangest first, and a contact sheet of those."""

    def work() -> Report:
        for path in filter(None, (args.output, args.sheet)):
            check_target("", path, args.force)
        names, pictures, found = _scored(args, console)
        order = sorted(range(len(found)), key=lambda n: -getattr(found[n], args.by))
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["input", *Score._fields])
        for n in order:
            rows.writerow([names[n], *("" if value is None else f"{value:.4f}" for value in found[n])])
        if args.output:
            write_atomic(args.output, table.getvalue().encode(), args.force)
        elif not args.json:
            sys.stdout.write(table.getvalue())
        if args.sheet:
            _write_sheet([generation.squeeze_grey(pictures[n]) for n in order[: args.most]], args.sheet, args.force)
        mean = float(np.mean([one.bpd for one in found]))
        return {"count": len(found), "bpd": mean}, f"{len(found)} pictures, {mean:.4f} bits per dimension on average"

    return _attempt(args, console, args.paths[0], work)


def _scored(args: argparse.Namespace, console: Console) -> tuple[list[str], Any, list[Score]]:
    """(names, pictures, scores) of all that can be read; what cannot is told to the console."""
    model = generation.load(args.model)
    names: list[str] = []
    pictures: Any = []
    for path in args.paths:
        try:
            if isinstance(model, Generator):
                some, called = read_set(path)
                pictures.append(some)
                names += called
                continue
            for name in _photographs(path):
                try:
                    rgb = read_rgb(name)
                    grey = bool((rgb == rgb[..., :1]).all())
                    pictures.append(to_model_channels(model.model.config.channels, rgb, grey))
                    names.append(name)
                except CodecError as exc:
                    console.fail(name, exc)
        except (CodecError, OSError) as exc:
            console.fail(path, exc)
    if not names:
        raise CodecError("nothing to score")
    if isinstance(model, Generator):
        pictures = np.concatenate(_one_size(pictures))
    return names, pictures, scoring.score_images(model, pictures)


def _photographs(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.lower().endswith(IMAGE_SUFFIXES)]


def calibrate(args: argparse.Namespace, console: Console) -> int:
    """A model file with the quantiles of its scores on pictures like those it was trained on."""

    def work() -> Report:
        check_target(args.model, args.output, args.force)
        _, _, found = _scored(args, console)
        model = generation.load(args.model)
        data = scoring.calibrate(model if isinstance(model, Generator) else model.model, found)
        write_atomic(args.output, data, args.force)
        return {"output": args.output, "count": len(found)}, f"{args.output}: calibrated on {len(found)} pictures"

    return _attempt(args, console, args.output, work)


def _one_size(sets: list[np.ndarray]) -> list[np.ndarray]:
    if len({one.shape[1:] for one in sets}) > 1:
        raise CodecError("the pictures are not all of one size")
    return sets


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    write_image(picture, file, format="PNG")
    return file.getvalue()


def _attempt(args: argparse.Namespace, console: Console, name: str, work: Callable[[], Report]) -> int:
    def guarded() -> Report:
        try:
            return work()
        except ValueError as exc:
            raise CodecError(str(exc)) from exc

    with hushed(args.verbose):
        console.attempt(name, guarded)
    return int(console.failures > 0)
