"""One tile: latents <-> a payload and the CRC of its symbols.

What worker processes do: each function begins with the prior, which they hold, and makes no pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vaecodec import context, rounding, widening
from vaecodec.context import Prior
from vaecodec.errors import FormatError
from vaecodec.strays import stray_bits

Symbols = list[np.ndarray]  # i32[n, count] of each part of octaves.walk


def code(
    prior: Prior,
    y: np.ndarray,
    step: int,
    symbols: Symbols | None = None,
    beside: Callable[[np.ndarray], Any] | None = None,
) -> context.Coded:
    """Code y f32[h, w, M], in quantisation steps, rounded as `rounding` says, or these symbols in its place.

    `beside` is that of context.encode.
    """
    if symbols is not None:
        return context.encode(prior, y.shape[:2], step, lambda part, question: symbols[part], beside)
    targets, quantise = rounding.targets(prior, y, step), rounding.rounding(prior)
    return context.encode(prior, y.shape[:2], step, lambda part, question: quantise(targets[part], *question), beside)


def encode(prior: Prior, y: np.ndarray, step: int, symbols: Symbols | None = None) -> tuple[bytes, int]:
    """(payload, CRC-32 of the symbols) of a tile; latents or symbols as in `code`."""
    coded = code(prior, y, step, symbols)
    return coded.data, coded.crc


def encode_seen(
    prior: Prior, y: np.ndarray, step: int, see: Callable[[np.ndarray], Any] = np.asarray
) -> tuple[tuple[bytes, int], Any]:
    """What `encode` makes, and what `see` makes of what `decode` will."""
    coded = code(prior, y, step, beside=see)
    return (coded.data, coded.crc), coded.beside


def latents(prior: Prior, y: np.ndarray, step: int) -> np.ndarray:
    """The latents of a tile themselves, to be coded elsewhere."""
    return y


def bits(prior: Prior, y: np.ndarray, step: int) -> float:
    """Bits that the symbols of a tile are worth under the model; latents as in `code`."""
    parts, tables = code(prior, y, step).parts, prior.models.tables
    rungs = widening.chosen(parts, tables, prior.scales)
    found = sum(stray_bits(tables, *part) for part in parts) + widening.bits(rungs)
    for (symbols, rows), up in zip(parts, rungs or [0] * len(parts), strict=True):
        found += tables.bits(symbols, widening.moved(rows, up, prior.scales))
    return found


def decode(prior: Prior, cells: tuple[int, int], step: int, payload: bytes, crc: int) -> np.ndarray:
    """f32[h, w, M]: latents in units of 2**-6 quantisation steps; raises FormatError on damage."""
    found = 0

    def see(symbols: np.ndarray) -> None:
        nonlocal found
        found = context.checksum([symbols], found)

    y = context.decode(prior, cells, step, payload, see)
    if found != crc:
        raise FormatError("the CRC of its symbols does not match")
    return y


def check(prior: Prior, cells: tuple[int, int], step: int, payload: bytes, crc: int) -> int:
    """The CRC of a tile, once its symbols are found to have it; raises FormatError on damage."""
    decode(prior, cells, step, payload, crc)
    return crc
