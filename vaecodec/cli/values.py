"""Parse the values of options; each error says what is expected.  Standard library only."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from vaecodec.arguments import EFFORTS, MAX_ERROR

T = TypeVar("T")


class Qualities(argparse.Action):
    """--qualities LIST or CODEC=LIST, repeated: collects lists by codec, under "" without one."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, text: Any, *_: Any) -> None:
        codec, _, values = text.rpartition("=")
        try:
            settings = numbers(values)
        except (ValueError, argparse.ArgumentTypeError):
            parser.error(f"argument --qualities: {values!r} is not a list of numbers")
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), codec: settings})


def _number(text: str, kind: Callable[[str], T], fits: Callable[[T], bool], expected: str) -> T:
    """Parse a number, or raise an error that argparse shows: "x is not a number above 0"."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not fits(value):
        raise argparse.ArgumentTypeError(f"{text} is not {expected}")
    return value


def quality(text: str) -> float:
    """Parse a quality."""
    return _number(text, float, lambda value: 1 <= value <= 100, "in 1..100")


def error(text: str) -> int:
    """Parse the largest error of a sample."""
    return _number(text, int, lambda value: 1 <= value <= MAX_ERROR, f"a whole number in 1..{MAX_ERROR}")


def effort(text: str) -> int:
    """Parse an effort."""
    return _number(text, int, lambda value: value in EFFORTS, f"a whole number in 1..{EFFORTS[-1]}")


def positive(text: str) -> int:
    """Parse an integer above 0."""
    return _number(text, int, lambda value: value >= 1, "a whole number of 1 or more")


def above_zero(text: str) -> float:
    """Parse a finite number above 0."""
    return _number(text, float, lambda value: 0 < value < float("inf"), "a number above 0")


def share(text: str) -> float:
    """Parse a number in 0..1."""
    return _number(text, float, lambda value: 0 <= value <= 1, "in 0..1")


def window(text: str) -> tuple[int, ...]:
    """Parse a window."""

    def fits(values: tuple[int, ...]) -> bool:
        return len(values) == 4 and min(values) >= 0 and min(values[2:]) >= 1

    return _number(text, partial(_integers, separator=","), fits, "TOP,LEFT,HEIGHT,WIDTH in pixels")


def size(text: str) -> tuple[int, int]:
    """Parse WIDTHxHEIGHT as (height, width)."""

    def fits(values: tuple[int, ...]) -> bool:
        return len(values) == 2 and min(values) >= 1

    width, height = _number(text.lower(), partial(_integers, separator="x"), fits, "WIDTHxHEIGHT in pixels")
    return height, width


def _integers(text: str, separator: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(separator))


def byte_count(text: str) -> int:
    """Parse a size in bytes, perhaps with a unit: k, M and G are powers of 1000, Ki, Mi and Gi of 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([kKMG])(i?))?B?", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text} is not a size such as 20000, 20k or 64Ki")
    number, unit, binary = match.groups()
    size = float(number) * (1024 if binary else 1000) ** ("kMG".index(unit.replace("K", "k")) + 1 if unit else 0)
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 byte or more")
    return int(size)


def names(text: str) -> tuple[str, ...]:
    """Parse a list of names."""
    values = tuple(part.strip() for part in text.split(",") if part.strip())
    if not values:
        raise argparse.ArgumentTypeError("the list is empty")
    return values


def numbers(text: str) -> tuple[float, ...]:
    """Parse a list of numbers."""
    return tuple(float(part) for part in names(text))
