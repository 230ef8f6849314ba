"""Scales that a picture as a whole has larger or smaller than its prior says: of each part, by how many rungs.

The prior sees a neighbourhood, and what all of a picture has in common, grain or the lack of it, only as far as that
tells.  So an encoder may move the table rows of a part, all but the deterministic one, up or down the scale ladder:

    a bit, whether it does; then for each part 8 + rungs, four bits, before any symbol
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaecodec.entropy.coding import DETERMINISTIC, uniform
from vaecodec.entropy.tables import Tables
from vaecodec.native.symbols import count_symbols

BITS = 4
LEAST, MOST = -8, 7  # rungs
SMALL, SAMPLE = 24, 1024  # symbols up to which all count, and how many larger ones of a part are asked

Part = tuple[np.ndarray, np.ndarray]  # symbols i32[n], rows u8[n]


def chosen(parts: Sequence[Part], tables: Tables, scales: int) -> list[int] | None:
    """For each part the rungs that save most; None where that is not worth its own bits."""
    rows, small = np.meshgrid(np.arange(scales), np.arange(-SMALL, SMALL + 1), indexing="ij")
    costs_of = tables.bits_of_each(small, rows)
    found, saved = list[int](), -float(BITS * len(parts))
    every = [_costs(*each, costs_of, tables) for each in parts]
    for costs in every:
        best = int(np.argmin(costs)) if costs.any() else -LEAST
        found.append(best + LEAST)
        saved += float(costs[-LEAST] - costs[best])
    return found if saved > 0 else None


def _costs(symbols: np.ndarray, rows: np.ndarray, costs_of: np.ndarray, tables: Tables) -> np.ndarray:
    """f64[MOST - LEAST + 1]: bits of coded symbols, for each number of rungs.

    Small symbols are counted, by row; what they cost in each row is `costs_of` [scales, 2 SMALL + 1].
    """
    scales = len(costs_of)
    counts, large = count_symbols(symbols, rows, scales)
    every = np.clip(np.arange(scales) + np.arange(LEAST, MOST + 1)[:, None], 1, scales - 1)
    costs = (costs_of @ counts.T.astype(np.float64))[every, np.arange(scales)].sum(1)  # of each row's, under another
    some = large[:: max(1, len(large) // SAMPLE)]
    if len(some):
        costs += tables.bits_of_each(symbols[some], every[:, rows[some]]).sum(1) * (len(large) / len(some))
    return costs


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
