"""Entropy coding of a tile: the symbols of a walk through the prior (octaves.walk) on one stack.

The walk yields (rows, loc) and is sent symbols.  An encoder answers with the symbols it has, a decoder with what it
pops.  Letters: h w latent cells; M channels of y.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Generator, Iterable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from vaecodec import octaves, widening
from vaecodec.cells import Each
from vaecodec.coding import Models, pop, push, reader, words, writer
from vaecodec.config import Config
from vaecodec.engines import Engine
from vaecodec.errors import FormatError
from vaecodec.integer import Layer, one_thread
from vaecodec.strays import pop_strays, push_strays

UNIT = octaves.UNIT
AT_ONCE = 1 << 16  # symbols whose checksum is worth another thread
NOTHING = np.zeros(0, np.int32)

Step = tuple[np.ndarray, np.ndarray]


class Prior(NamedTuple):
    """The integer half of a model: all that chooses a probability."""

    config: Config
    layers: dict[str, Layer]
    levels: octaves.Levels  # each field [LEVELS, channels]
    models: Models
    each: Each = map  # goes through bands of rows, perhaps with several threads
    threads: int = 1  # of an engine
    engine: Engine | None = None
    companding: np.ndarray = NOTHING  # i32[n], magnitudes from which on an activation is 1, 2, ...
    centroids: np.ndarray = NOTHING  # i8[scales, 2], unit 2**-6, beyond symbols of 1 and of more

    @property
    def scales(self) -> int:
        """Rungs of the scale ladder: rows of the tables before that of bytes."""
        return len(self.models.tables.low) - 1


def checksum(parts: Iterable[np.ndarray], crc: int = 0) -> int:
    """CRC-32 of symbols in coding order, as docs/format.md defines it; `crc` is that of what came before."""
    for symbols in parts:
        crc = zlib.crc32(np.ascontiguousarray(symbols, "<i4").data, crc)
    return crc


class Coded(NamedTuple):
    """A tile's payload, and (symbols i32, rows u8) of each part in coding order; what was made of it beside."""

    data: bytes
    parts: list[tuple[np.ndarray, np.ndarray]]
    crc: int  # of the symbols
    beside: Any = None

    @property
    def symbols(self) -> np.ndarray:
        """i32[n]: those of all parts."""
        return np.concatenate([symbols for symbols, _ in self.parts])


def encode(
    prior: Prior,
    cells: tuple[int, int],
    step: int,
    quantise: Callable[[int, Step], np.ndarray],
    beside: Callable[[np.ndarray], Any] | None = None,
) -> Coded:
    """Walks forward with the symbols that `quantise(part, (rows, loc))` picks, then codes them backwards.

    `beside` is called with what `decode` will return, by another thread if there is one.
    """
    steps, y = octaves.walk(prior, cells, step), np.empty(0)
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    with one_thread:
        question = next(steps)
        while True:
            symbols = quantise(len(parts), question)
            parts.append((symbols.ravel(), question[0].ravel()))
            if len(parts) == octaves.PARTS and beside is None:
                break
            following, y = _sent(steps, symbols)
            if following is None:
                break
            question = following

    def made() -> Any:
        return beside(y) if beside else None

    # The caller has the first and longest: whoever is to help may be late.
    jobs = [made, lambda: _pushed(prior, parts), lambda: checksum(symbols for symbols, _ in parts)]
    found, data, crc = prior.each(lambda work: work(), jobs)
    return Coded(data, parts, crc, found)


def _sent(steps: Generator[Step, np.ndarray, np.ndarray], symbols: np.ndarray) -> tuple[Step | None, np.ndarray]:
    """What a walk asks next; or None, and what it comes to."""
    try:
        return steps.send(symbols), np.empty(0)
    except StopIteration as end:
        return None, end.value


def _pushed(prior: Prior, parts: list[tuple[np.ndarray, np.ndarray]]) -> bytes:
    """The payload of a tile's symbols and rows."""
    coder = writer()
    rungs = widening.chosen(parts, prior.models.tables, prior.scales)
    for (symbols, rows), up in zip(reversed(parts), reversed(rungs or [0] * len(parts)), strict=True):
        others = push_strays(coder, symbols, rows, prior.models)
        push(coder, others, rows, prior.models, partial(widening.moved, rungs=up, scales=prior.scales))
    widening.push_rungs(coder, rungs)
    return words(coder)


def decode(
    prior: Prior, cells: tuple[int, int], step: int, data: bytes, see: Callable[[np.ndarray], Any]
) -> np.ndarray:
    """Latents f32[h, w, M], unit 2**-6; raises FormatError on damage that can be seen.

    `see` is called with the symbols i32[n] of each part, which are not kept.
    """
    steps, coder = octaves.walk(prior, cells, step), reader(data)
    with one_thread:
        question: Step | None = next(steps)
        rungs = iter(widening.pop_rungs(coder, octaves.PARTS))
        while question is not None:
            rows = question[0]
            moved = partial(widening.moved, rungs=next(rungs), scales=prior.scales)
            symbols = pop(coder, rows.ravel(), prior.models, moved)
            pop_strays(coder, symbols, rows.ravel(), prior.models)
            # Of what comes next some is done by one thread alone.
            each = prior.each if symbols.size >= AT_ONCE else map
            jobs = [partial(_sent, steps, symbols.reshape(rows.shape)), partial(see, symbols)]
            (question, y), _ = each(lambda work: work(), jobs)
    if not coder.is_empty():
        raise FormatError("words are left over after the last symbol")
    return y
