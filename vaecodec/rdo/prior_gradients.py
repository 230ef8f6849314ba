"""The arithmetic of the octaves' networks with a way back: how means and scales go with all that networks see.

It is carried in floats.  Activations are clipped as those of octaves.Scaled, and in gradient their rounding is as if it
were none (the straight-through estimator: Bengio, Leonard and Courville 2013, arXiv:1308.3432).  Encoders alone use it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vaecodec.entropy.coding import DETERMINISTIC
from vaecodec.entropy.tables import PRECISION, Tables
from vaecodec.rdo.gradients import Node, Reverse
from vaecodec.transforms.integer import ACTIVATION_MAX, INDEX_GAIN, LOC_GAIN, shuffle

UNIT = 64  # of values, activations and means
COMPANDED = 255.0  # beyond this many quantisation steps the prior sees no difference
MOST = ACTIVATION_MAX / UNIT


class Costs:
    """Bits of symbols under rows, from a table of them; escapes count without their bytes."""

    def __init__(self, tables: Tables) -> None:
        self._bits = (PRECISION - np.log2(tables.freq.astype(np.float64))).astype(np.float32)
        self._start, self._low, self._last = tables.start[:-1].astype(np.int64), tables.low, tables.last
        self._zero = self._start + np.clip(-self._low, 0, self._last)

    def __call__(self, symbols: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """f32[...] of symbols i32[...] and rows u[...]; the deterministic row costs nothing."""
        return self._bits[self.places(symbols, rows)] * (rows != DETERMINISTIC)

    def places(self, symbols: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """i64[...]: where in the table."""
        found, at = self._zero.take(rows), np.flatnonzero(symbols.ravel() != 0)  # most are 0
        rows, symbols = rows.ravel()[at], symbols.ravel()[at]
        found.ravel()[at] = self._start[rows] + np.clip(symbols - self._low[rows], 0, self._last[rows])
        return found


class BitSlopes(Costs):
    """How bits change with a symbol and with its row, by differences in the table."""

    def __init__(self, tables: Tables, scales: int) -> None:
        super().__init__(tables)
        rows = np.repeat(np.arange(len(self._last)), self._last + 1)
        symbols = np.arange(len(rows)) - self._start[rows] + self._low[rows]
        # The deterministic row costs nothing: for it and for the next one stands what there is from that one on.
        below, above = np.clip(rows - 1, 1, scales - 2), np.clip(rows + 1, 2, scales - 1)
        by_row = (self(symbols, above) - self(symbols, below)) / (above - below)
        by_symbol = (self(symbols + 1, rows) - self(symbols - 1, rows)) / 2
        self._slopes = np.stack([by_symbol, by_row]).astype(np.float32)

    def of(self, symbols: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """f32[2, ...] of symbols i32[...] and rows u8[...]: bits a symbol more, and bits a row more."""
        return self._slopes.take(self.places(symbols, rows), 1)


class Tape(Reverse):
    """octaves.Scaled over Nodes, for one pass, in units of 1 where that has 2**-6."""

    def _made(self, value: np.ndarray, give: Callable[[np.ndarray], None]) -> Node:
        if max(value.max(initial=0), -value.min(initial=0)) <= MOST:
            return super()._made(value, give)
        within = np.abs(value) < MOST
        return super()._made(np.clip(value, -MOST, MOST, out=value), lambda g: give(g * within))

    def condition(self, name: str, x: Node) -> Node:
        return self._made(x.value + self._conditions[name], x.slot.receive)

    def rectify(self, x: Node) -> Node:
        passed, slot = x.value > 0, x.slot
        return self._made(x.value * passed, lambda g: slot.receive(g * passed))

    def distribution(self, name: str, x: Node, count: int) -> tuple[Node]:
        """The place for the gradient of means and rungs [.., 2 count] together; what they are is known already."""
        gains, slot = np.repeat(np.array([LOC_GAIN, INDEX_GAIN], np.float32), count), x.slot
        return (super()._made(x.value, lambda g: slot.receive(self._transposed(name, g * gains))),)

    def companded(self, x: Node, *beside: Node) -> Node:
        """What a network sees of values [.., n] in quantisation steps: them companded, what is beside them, and their
        magnitudes.
        """
        count, slot, slots = x.value.shape[-1], x.slot, [node.slot for node in beside]
        size, sign = np.abs(x.value), np.sign(x.value)
        within = size < COMPANDED
        np.minimum(size, COMPANDED, out=size)
        size += 1
        slope = within / size
        np.log(size, out=size)

        def give(g: np.ndarray) -> None:
            t = g[..., -count:] * sign
            t += g[..., :count]
            t *= slope
            slot.receive(t)
            for one in slots:
                one.receive(g[..., count:-count])

        return super()._made(np.concatenate([size * sign, *(node.value for node in beside), size], -1), give)


def details(low: np.ndarray) -> np.ndarray:
    """octaves.details of f[C, H, W], not rounded."""
    return _details(low, 0)


def details_adjoint(gradient: np.ndarray) -> np.ndarray:
    """What details does to gradients f[C, H, W]."""
    return _details(gradient, 1)


def _details(x: np.ndarray, adjoint: int) -> np.ndarray:
    around = _threes(_threes(x, adjoint).swapaxes(1, 2), adjoint).swapaxes(1, 2)
    around -= x
    around *= around.dtype.type(1 / 8)
    return x - around


def _threes(x: np.ndarray, adjoint: int) -> np.ndarray:
    """Of f[P, H, W] each sample and the two next to it in its column, mirrored at the ends; or the adjoint of that."""
    if x.shape[1] == 1:
        return 3 * x
    out = x.copy()
    out[:, 1:] += x[:, :-1]
    out[:, :-1] += x[:, 1:]
    # What lies beyond an end is the sample next to the last: that is read twice, or is given twice.
    out[:, adjoint] += x[:, 1 - adjoint]
    out[:, -1 - adjoint] += x[:, adjoint - 2]
    return out


def from_cells(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of pyramid.to_cells: [h, w, 4 P] -> [P, H, W]."""
    return shuffle(cells, 2).transpose(2, 0, 1)[:, : shape[0], : shape[1]]
