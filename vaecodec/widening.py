"""Scales that a picture as a whole has larger or smaller than its prior says: of each part, by how many rungs.

The prior sees a neighbourhood, and what all of a picture has in common, grain or the lack of it, only as far as that
tells.  So an encoder may move the table rows of a part, all but the deterministic one, up or down the scale ladder:

    a bit, whether it does; then for each part 8 + rungs, four bits, before any symbol
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaecodec.coding import DETERMINISTIC, uniform
from vaecodec.tables import PRECISION, Tables

BITS = 4
LEAST, MOST = -8, 7  # rungs
SAMPLE, MORE = 1024, 8192  # symbols of a part that the choice is made by, and where time matters less

Part = tuple[np.ndarray, np.ndarray]  # symbols i32[n], rows u8[n]


def chosen(parts: Sequence[Part], tables: Tables, scales: int, sample: int = SAMPLE) -> list[int] | None:
    """For each part the rungs that save most, of so many of its symbols; None where that is not worth its own bits."""
    found, saved = list[int](), -float(BITS * len(parts))
    for symbols, rows in parts:
        coded = np.flatnonzero(rows)
        some = coded[:: max(1, len(coded) // sample)]
        costs = _costs(symbols[some], rows[some], tables, scales)
        best = int(np.argmin(costs)) if len(some) else -LEAST
        found.append(best + LEAST)
        saved += float(costs[-LEAST] - costs[best]) * (len(coded) / max(1, len(some)))
    return found if saved > 0 else None


def _costs(symbols: np.ndarray, rows: np.ndarray, tables: Tables, scales: int) -> np.ndarray:
    """f64[MOST - LEAST + 1]: bits of coded symbols, for each number of rungs."""
    moved = np.clip(rows.astype(np.intp) + np.arange(LEAST, MOST + 1)[:, None], 1, scales - 1)
    last = tables.last[moved]
    place = symbols - tables.low[moved]
    outside = (place < 0) | (place >= last)
    freq = tables.freq[tables.start[moved] + np.where(outside, last, place)]
    return (PRECISION - np.log2(freq) + 32 * outside).sum(1)


def moved(rows: np.ndarray, rungs: int, scales: int) -> np.ndarray:
    """Rows so many rungs further up, within those of the scale ladder; of what is not coded as they were."""
    if not rungs:
        return rows
    return np.where(rows == DETERMINISTIC, rows, np.clip(rows.astype(np.int16) + rungs, 1, scales - 1))


def push_rungs(coder, rungs: Sequence[int] | None) -> None:  # type: ignore[no-untyped-def]
    """Puts them on the stack; inverse of pop_rungs."""
    if rungs is not None:
        coder.encode_reverse(np.array(rungs, np.int32) - LEAST, uniform(BITS))
    coder.encode_reverse(np.array([rungs is not None], np.int32), uniform(1))


def pop_rungs(coder, count: int) -> list[int]:  # type: ignore[no-untyped-def]
    """Takes those of so many parts off the stack."""
    if not int(coder.decode(uniform(1), 1)[0]):
        return [0] * count
    return (coder.decode(uniform(BITS), count) + LEAST).tolist()


def bits(rungs: Sequence[int] | None) -> int:
    """What push_rungs puts there."""
    return 1 + BITS * len(rungs or ())
