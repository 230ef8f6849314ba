"""Arguments of the command line: text -> what commands take.  Standard library only."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn


class Version(argparse.Action):
    """--version, which looks the number up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from vaecodec.version import __version__

        print(f"vaecodec {__version__}")
        parser.exit()


def quality(text: str) -> float:
    """An argument of -q."""
    value = float(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not in 1..100")
    return value


def window(text: str) -> tuple[int, ...]:
    """An argument of --window."""
    values = tuple(int(part) for part in text.split(","))
    if len(values) != 4 or min(values) < 0 or min(values[2:]) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not TOP,LEFT,HEIGHT,WIDTH in pixels")
    return values


def positive(text: str) -> int:
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return value


def above_zero(text: str) -> float:
    """An argument that measures something."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def size(text: str) -> tuple[int, int]:
    """An argument of --size."""
    values = tuple(int(part) for part in text.lower().split("x"))
    if len(values) != 2 or min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not WIDTHxHEIGHT in pixels")
    return values[1], values[0]


def listed(text: str) -> tuple[str, ...]:
    """An argument that lists names."""
    values = tuple(part.strip() for part in text.split(",") if part.strip())
    if not values:
        raise argparse.ArgumentTypeError("names nothing")
    return values


def numbers(text: str) -> tuple[float, ...]:
    """An argument that lists numbers."""
    return tuple(float(part) for part in listed(text))


class Qualities(argparse.Action):
    """--qualities LIST or CODEC=LIST, which may be repeated: a dictionary, with "" for the general one."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, text: Any, *_: Any) -> None:
        name, _, values = text.rpartition("=")
        try:
            found = numbers(values)
        except (ValueError, argparse.ArgumentTypeError):
            parser.error(f"argument --qualities: {values!r} is not a list of numbers")
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), name: found})
