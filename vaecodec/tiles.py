"""One tile: latents <-> a payload and the CRC of its symbols.

What worker processes do: each function begins with the prior, which they hold, and makes no pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from vaecodec import context, rounding, widening
from vaecodec.coding import DETERMINISTIC, SYMBOL_MAX
from vaecodec.context import Prior
from vaecodec.errors import FormatError
from vaecodec.integer import one_thread, take_half
from vaecodec.strays import stray_bits


def targets(prior: Prior, y: np.ndarray, z: np.ndarray, step: int) -> list[np.ndarray]:
    """f32[n, count]: what the symbols of each part of context.walk are to stand for, in quantisation steps.

    y is f32[h, w, M], z f32[h', w', N].
    """
    if prior.config.wavelet:
        return rounding.targets(prior, y, step)
    return [z.reshape(-1, z.shape[2]), take_half(y, 0), take_half(y, 1)]


def nearest(target: np.ndarray, rows: np.ndarray, loc: np.ndarray) -> np.ndarray:
    """Symbols i32 nearest to what they are to stand for, under these rows and means f32, unit 2**-6."""
    values = target - loc * np.float32(1.0 / context.UNIT)
    values *= rows != DETERMINISTIC
    return np.rint(np.clip(values, -SYMBOL_MAX, SYMBOL_MAX, out=values), out=values).astype(np.int32)


def code(
    prior: Prior,
    y: np.ndarray,
    z: np.ndarray | list[np.ndarray],
    step: int,
    beside: Callable[[np.ndarray], Any] | None = None,
) -> context.Coded:
    """Codes y f32[h, w, M] and z f32[h', w', N], in quantisation steps: rounded, of wavelets as `rounding` says.

    Where z is a list, it is of the symbols of each part, which were picked already.  `beside` is that of
    context.encode.
    """
    if isinstance(z, list):
        picked = z
        return context.encode(prior, y.shape[:2], step, lambda part, question: picked[part], beside)
    wanted = targets(prior, y, z, step)
    quantise = rounding.rounding(prior) if prior.config.wavelet else nearest
    return context.encode(prior, y.shape[:2], step, lambda part, question: quantise(wanted[part], *question), beside)


def encode(prior: Prior, y: np.ndarray, z: np.ndarray | list[np.ndarray], step: int) -> tuple[bytes, int]:
    """(payload, CRC-32 of the symbols) of a tile; latents as in `code`."""
    coded = code(prior, y, z, step)
    return coded.data, coded.crc


def encode_seen(
    prior: Prior,
    y: np.ndarray,
    z: np.ndarray | list[np.ndarray],
    step: int,
    see: Callable[[np.ndarray], Any] = np.asarray,
) -> tuple[tuple[bytes, int], Any]:
    """What `encode` makes, and what `see` makes of what `decode` will."""
    coded = code(prior, y, z, step, see)
    return (coded.data, coded.crc), coded.beside


def latents(prior: Prior, y: np.ndarray, z: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The latents of a tile themselves, to be coded elsewhere."""
    return y, z


def bits(prior: Prior, y: np.ndarray, z: np.ndarray, step: int) -> float:
    """Bits that the symbols of a tile are worth under the model; latents as in `code`."""
    parts, tables = code(prior, y, z, step).parts, prior.models.tables
    if not prior.config.wavelet:
        return sum(tables.bits(*part) for part in parts)
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


def project(
    prior: Prior, cells: tuple[int, int], step: int, payload: bytes, crc: int, kernel: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """f32[h, w, K]: the latents of `decode` through a linear layer, kernel f32[M, K]."""
    y = decode(prior, cells, step, payload, crc)
    with one_thread:
        return y @ kernel + bias


def check(prior: Prior, cells: tuple[int, int], step: int, payload: bytes, crc: int) -> int:
    """The CRC of a tile, once its symbols are found to have it; raises FormatError on damage."""
    decode(prior, cells, step, payload, crc)
    return crc
