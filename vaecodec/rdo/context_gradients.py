"""What wavelet coefficients do to the bits of all that is coded after them, and to its values.

    a value --> what networks see --> means and scales of other symbols, which stay as they are --> their bits
                                      a mean, where the symbol is 0 --> a value --> squared error, and so on

Of a tile whose values are all known each network can be run again by itself: forwards from the lowest coefficients to
octave 0, and backwards from there, as what comes of a value is to be known before what comes of its mean.  Low-pass
pictures and what octaves pass on take gradients from one octave to the coarser one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.config import LEVEL_STEPS, WORTH
from vaecodec.model import network
from vaecodec.model.file import Model
from vaecodec.native.lowest import DISTANCES, neighbours
from vaecodec.native.lowest import places as lowest_places
from vaecodec.prior.coefficients import LOWEST_PARTS, PARTS_BY_OCTAVE
from vaecodec.rdo.gradients import Node, Slot, unshuffle
from vaecodec.rdo.prior_gradients import UNIT, BitSlopes, Tape, details, details_adjoint, from_cells
from vaecodec.rdo.rounding import octave_gain
from vaecodec.transforms import banded, lifting, pyramid
from vaecodec.transforms.integer import shuffle

Parts = list[np.ndarray]  # of a tile, in coding order


class Lowest(NamedTuple):
    """A part of the lowest coefficients, run forwards; in slots gradients gather on the way back."""

    tape: Tape
    seen: Slot  # [n, 5 C]: four neighbours less their mean, and it


class Octave(NamedTuple):
    """An octave, run forwards: H by W places, h by w cells."""

    shape: tuple[int, ...]  # H, W
    first: Tape
    second: Tape
    seen: Slot  # [h, w, 7 C]: details of the low-pass picture, and values of the octave before
    passed: list[Slot]  # [h, w, PASSED]: what the octave before passes on; of octave 4 there is none
    known: Slot  # [h, w, 6 C]: values of the first half
    asked: Slot  # [h, w, 12 C]: means and rungs of the second half


class Received(NamedTuple):
    """Gradients with respect to what an octave knows beforehand, as octaves.Before has it."""

    low: np.ndarray  # [C, H, W]
    parents: np.ndarray  # [3 C, h, w]
    passed: list[np.ndarray]  # [h, w, PASSED]


class ContextGradients:
    """Those of a prior at one quality step, for a tile of so many cells."""

    def __init__(self, model: Model, step: int, cells: tuple[int, int]) -> None:
        self._config, self._cells, prior, level = model.config, cells, model.prior, step // LEVEL_STEPS
        self._bits = BitSlopes(model.models.tables, prior.scales)
        self._weights = model.prior_weights
        lowest = np.split(prior.lowest_bias(level), len(DISTANCES))
        bias = {f"lowest/{part}": vector for part, vector in enumerate(lowest)}
        for octave in range(pyramid.OCTAVES + 1):
            bias[f"context/{octave}"] = prior.bias(octave, level)
        self._conditions = {name: (vector / UNIT).astype(np.float32) for name, vector in bias.items()}
        # Steps of the low-pass image in one of each subband.
        self._gains = [octave_gain(prior, step, octave) for octave in range(pyramid.OCTAVES + 1)]
        self._places, self._around = (of(*_cells(cells)) for of in (lowest_places, neighbours))

    def __call__(self, symbols: Parts, rows: Parts, values: Parts, slopes: Parts) -> Parts:
        """Half of the gradient of squared error and bits together, weighed as in rounding, with respect to each part,
        f32, where of the squared error alone it is `slopes`; values f32, and what gradients are for, are in
        quantisation steps.
        """
        symbols, rows, values, slopes = (self._shaped(parts) for parts in (symbols, rows, values, slopes))
        bits = [np.float32(WORTH / 2) * self._bits.of(*pair) for pair in zip(symbols, rows, strict=True)]
        made = self.back(*self.forward(values), bits, [part == 0 for part in symbols], slopes)
        return [part.ravel() for part in made]

    def _shaped(self, parts: Parts) -> Parts:
        """[n, C] of the lowest coefficients, [cells, 6 C] of octaves."""
        channels = self._config.channels
        return [
            part.reshape(-1, channels if number < LOWEST_PARTS else 6 * channels) for number, part in enumerate(parts)
        ]

    def forward(self, values: Parts) -> tuple[list[Lowest], list[Octave]]:
        """All parts but the first, with these values f[n, count]."""
        count = LOWEST_PARTS
        known = np.concatenate(values[:count])[np.argsort(np.concatenate(self._places))]
        low = np.ascontiguousarray(known.T).reshape(-1, *_cells(self._cells))
        lowest = [self._lowest(part, known[around]) for part, around in enumerate(self._around)]
        return lowest, self._octaves(low, values[count:])

    def _lowest(self, part: int, near: np.ndarray) -> Lowest:
        """Of neighbours f[4, n, C]."""
        tape, mean = Tape(self._weights, self._conditions), near.mean(0)
        seen = Node(np.concatenate([*(near - mean), mean], -1), Slot())
        network.lowest_part(tape, self._config, part, tape.companded(seen))
        return Lowest(tape, seen.slot)

    def _octaves(self, low: np.ndarray, values: Parts) -> list[Octave]:
        """From 4 to 0, of halves f[h w, 6 C]; `low` f[C, h, w] are the lowest coefficients."""
        config, found, passed = self._config, list[Octave](), list[np.ndarray]()
        parents = np.zeros((pyramid.BANDS * len(low), *_cells(low.shape[1:])), low.dtype)
        for octave in range(pyramid.OCTAVES, -1, -1):
            shape, cells, number = low.shape[1:], _cells(low.shape[1:]), 2 * len(found)
            halves = [part.reshape(*cells, -1) for part in values[number : number + 2]]
            before = np.concatenate([pyramid.to_cells(details(low)), parents.transpose(1, 2, 0)], -1)
            seen, known = Node(before, Slot()), Node(halves[0], Slot())
            beside = [Node(one[: cells[0], : cells[1]], Slot()) for one in passed]
            first, second = Tape(self._weights, self._conditions), Tape(self._weights, self._conditions)
            features = network.octave_features(first, config, octave, first.companded(seen, *beside))
            network.octave_first(first, config, octave, features)
            asked, *handed = network.octave_second(second, config, octave, features, second.companded(known))
            slots = [node.slot for node in beside]
            found.append(Octave(shape, first, second, seen.slot, slots, known.slot, asked.slot))
            if octave:
                passed = [shuffle(node.value, 2) for node in handed]
                parents = pyramid.from_halves(halves[0], halves[1], (shape[0], shape[1]))
                low = banded.both(pyramid.joined(low, parents * self._gains[octave]), banded.samples)
            if octave == pyramid.OCTAVES:
                low = low[:, : self._cells[0], : self._cells[1]]
        return found

    def back(self, lowest: list[Lowest], run: list[Octave], bits: Parts, idle: Parts, slopes: Parts) -> Parts:
        """`slopes` of all parts and what comes of `bits`, f[2, n, count]: slopes of those by symbol and by row.

        Where a symbol is `idle`, 0, a value is its mean.
        """
        found, received = list(slopes), None
        for octave, one in enumerate(reversed(run)):
            parts = PARTS_BY_OCTAVE[len(run) - octave]
            found[parts], received = self._octave_back(octave, one, received, bits[parts], idle[parts], found[parts])
        assert received is not None
        values = received.low.reshape(len(received.low), -1).T.copy()
        for places, slope in zip(self._places, slopes, strict=False):
            values[places] += slope
        for part in range(len(lowest), 0, -1):
            tape, seen = lowest[part - 1]
            parameters = _parameters(values[self._places[part]], bits[part], idle[part])
            tape.back(parameters)
            *apart, mean = np.split(_gathered(seen), 5, -1)
            mean = (mean + parameters[:, : mean.shape[1]] - sum(apart)) / 4  # means that are predicted are beside it
            np.add.at(values, self._around[part - 1], np.stack([one + mean for one in apart]))
        found[: len(self._places)] = [values[places] for places in self._places]
        return found

    def _octave_back(
        self, octave: int, run: Octave, after: Received | None, bits: Parts, idle: Parts, slopes: Parts
    ) -> tuple[Parts, Received]:
        """Gradients of both halves and of what comes before, where `after` are those of what the next octave knows."""
        cells, (height, width) = _cells(run.shape), run.shape
        halves, passed, fine = [part.reshape(*cells, -1) for part in slopes], list[np.ndarray](), np.float32(0)
        if after is not None:
            fine, bands = lifting.inverse_adjoint(_widened(after.low, 2 * height, 2 * width), lifting.REAL)
            bands *= self._gains[octave]
            bands += after.parents
            halves = [one + more for one, more in zip(halves, pyramid.to_halves(bands), strict=True)]
            wide = (_widened(one.transpose(2, 0, 1), 2 * cells[0], 2 * cells[1]) for one in after.passed)
            passed = [unshuffle(one.transpose(1, 2, 0), 2) for one in wide]
        inside = _inside(run.shape, halves[0].shape[2])
        given = [_parameters(halves[1], bits[1], idle[1]) * np.tile(inside[1], 2), *passed]
        if passed:
            run.asked.receive(given[0])
        run.second.back(given[-1])
        halves[0] = halves[0] + _gathered(run.known) * inside[0]
        run.first.back(_parameters(halves[0], bits[0], idle[0]) * np.tile(inside[0], 2))
        seen, count = _gathered(run.seen), 4 * self._config.channels
        low = details_adjoint(from_cells(seen[..., :count], run.shape)) + fine
        before = Received(low, seen[..., count:].transpose(2, 0, 1), [_gathered(slot) for slot in run.passed])
        return [half.reshape(-1, half.shape[2]) for half in halves], before


def _cells(shape: tuple[int, ...]) -> tuple[int, int]:
    return -(-shape[0] // 2), -(-shape[1] // 2)


def _gathered(slot: Slot) -> np.ndarray:
    assert slot.gradient is not None  # the way back has been here
    return slot.gradient


def _widened(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """[P, h, w] with zeros after its rows and columns, to so many."""
    return np.pad(x, [(0, 0), (0, height - x.shape[1]), (0, width - x.shape[2])])


def _parameters(values: np.ndarray, bits: np.ndarray, idle: np.ndarray) -> np.ndarray:
    """The gradient of means and rungs [.., 2 n], where that of values is [.., n].

    Where a mean is no value it moves towards what is coded, or away: bits go with it as with a smaller symbol.
    """
    by_symbol, by_row = bits.reshape(2, *values.shape)
    loc = values * idle.reshape(values.shape)
    loc -= by_symbol
    return np.concatenate([loc, by_row], -1)


def _inside(shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    """f32[h, w, 6 C] of either half of an octave: 1, and 0 beyond sides that are odd, where nothing is coded."""
    if shape[0] % 2 or shape[1] % 2:
        return pyramid.to_halves(np.ones((count // 2, *shape), np.float32))
    return 2 * [np.ones(count, np.float32)]
