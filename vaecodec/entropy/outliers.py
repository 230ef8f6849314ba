"""Symbols where none was expected: what a tile has besides the symbols of its table rows.

Of a coefficient on the lowest row of the scale ladder the prior says that it is 0, and none is coded.  Where it is far
from that, an encoder says so all the same, at the price of its place and its value:

    a symbol of row FLAG, 0 where there are none; else how many, and then place and value of each, in four bytes
"""

from __future__ import annotations

import numpy as np

from vaecodec.entropy.coding import (
    DETERMINISTIC,
    NUMBER_BYTES,
    SYMBOL_MAX,
    Models,
    pop_numbers,
    pop_one,
    push,
    push_numbers,
)
from vaecodec.entropy.tables import Tables
from vaecodec.errors import FormatError

FLAG = 1
AT_ONCE = 1 << 16  # strays taken off together: a file may claim as many as there are places


def push_strays(coder, symbols: np.ndarray, rows: np.ndarray, models: Models) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Puts those of symbols i32[n] that rows u8[n] have no place for on the stack; returns the others, 0 where they
    were.
    """
    places = np.flatnonzero(symbols != 0)
    places = places[rows[places] == DETERMINISTIC]
    if len(places):
        numbers = np.stack([places, symbols[places]], -1).ravel()
        push_numbers(coder, np.append(len(places), numbers), models)
        symbols = np.where(rows == DETERMINISTIC, 0, symbols)
    push(coder, np.array([len(places) > 0], np.int32), np.array([FLAG], np.uint8), models)
    return symbols


def pop_strays(coder, symbols: np.ndarray, rows: np.ndarray, models: Models) -> None:  # type: ignore[no-untyped-def]
    """Takes them off the stack and puts them in their places of symbols i32[n]; raises FormatError on what is none."""
    flag = pop_one(coder, FLAG, models)
    if flag not in (0, 1):
        raise FormatError("a symbol that says whether there are others is neither 0 nor 1")
    if not flag:
        return
    count, before = int(pop_numbers(coder, 1, models)[0]), -1
    if not 0 < count <= np.count_nonzero(rows == DETERMINISTIC):
        raise FormatError("there are more symbols than places for them")
    for begin in range(0, count, AT_ONCE):
        numbers = pop_numbers(coder, 2 * min(AT_ONCE, count - begin), models)
        places, values = numbers.astype(np.int64).reshape(-1, 2).T
        rising = places[0] > before and (np.diff(places) > 0).all() and places[-1] < len(rows)
        if not rising or (rows[places] != DETERMINISTIC).any():
            raise FormatError("a symbol has no place among the others")
        if not values.all() or np.abs(values).max() > SYMBOL_MAX:
            raise FormatError("a symbol is out of range")
        symbols[places], before = values, int(places[-1])


def stray_bits(tables: Tables, symbols: np.ndarray, rows: np.ndarray) -> float:
    """Information content in bits of what push_strays puts there."""
    count = np.count_nonzero(symbols[rows == DETERMINISTIC])
    flag = tables.bits(np.array([count > 0], np.int32), np.array([FLAG]))
    return flag + 8 * NUMBER_BYTES * (1 + 2 * count if count else 0)
