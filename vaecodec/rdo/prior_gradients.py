"""Differentiate the bits of a tile, and the values of its coefficients, through the prior's networks.

    a value --> inputs of networks --> means and scales of later symbols, which stay fixed --> their bits
                                       a mean, where the symbol is 0 --> a value --> squared error, and so on

All values of the tile are known, so each network runs by itself: forwards from the lowest coefficients to octave 0, and
backwards from there, since the gradient of a value is complete before that of its mean is needed.  Low-pass images and
the features that octaves pass on carry gradients from one octave to the coarser one.

Networks are evaluated in floats.  Activations are clipped as in the integer prior, and rounding is differentiated as
the identity (straight-through estimator: Bengio, Leonard and Courville 2013, arXiv:1308.3432).  Only encoders use this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vaecodec.config import SQUARED_STEPS_PER_BIT
from vaecodec.entropy import PRECISION, Tables
from vaecodec.entropy.coding import ZERO_TABLE
from vaecodec.model import network
from vaecodec.model.file import Model
from vaecodec.model.network import ACTIVATION_MAX, INDEX_GAIN, LOC_GAIN, shuffle
from vaecodec.native.prior import LOWEST_DISTANCES, lowest_neighbours, lowest_places
from vaecodec.native.reference.transforms import octave_halves  # of any float type
from vaecodec.native.symbols import HALF_LEVEL
from vaecodec.prior import LOWEST_PARTS, PARTS_BY_OCTAVE, level_of
from vaecodec.rdo import Parts, octave_gain
from vaecodec.rdo.float_decoder import Node, Reverse, Slot, unshuffle
from vaecodec.transforms import latents, wavelet
from vaecodec.transforms.wavelet import OCTAVES, SUBBANDS

UNIT = 64  # of values, activations and means
SYMBOLS_PER_STEP = np.float32(UNIT / (2 * HALF_LEVEL))
COMPANDED = 255.0  # quantisation steps beyond which the prior sees no difference
MAX_ACTIVATION = ACTIVATION_MAX / UNIT


class SymbolBits:
    """Look up the bits of symbols; an escape counts without the bytes that follow it."""

    def __init__(self, tables: Tables) -> None:
        self.by_place = (PRECISION - np.log2(tables.freq.astype(np.float64))).astype(np.float32)
        self._start, self._low, self._last = tables.start[:-1].astype(np.int64), tables.low, tables.last
        self._zero = self._start + np.clip(-self._low, 0, self._last)

    def __call__(self, symbols: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """Bits f32[...] of symbols i32[...] with table indices u[...]; those of the zero table cost nothing."""
        return self.by_place[self.places(symbols, indices)] * (indices != ZERO_TABLE)

    def places(self, symbols: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """i64[...]: places of symbols in the concatenated tables."""
        places, at = self._zero.take(indices), np.flatnonzero(symbols.ravel() != 0)  # most symbols are 0
        indices, symbols = indices.ravel()[at], symbols.ravel()[at]
        places.ravel()[at] = self._start[indices] + np.clip(symbols - self._low[indices], 0, self._last[indices])
        return places


class BitSlopes(SymbolBits):
    """Look up how bits change with a symbol and with its table index, by differences in the tables."""

    def __init__(self, tables: Tables, scales: int) -> None:
        super().__init__(tables)
        indices = np.repeat(np.arange(len(self._last)), self._last + 1)
        symbols = np.arange(len(indices)) - self._start[indices] + self._low[indices]
        # The zero table costs nothing: for it and the next table, slopes are those of the following two.
        below, above = np.clip(indices - 1, 1, scales - 2), np.clip(indices + 1, 2, scales - 1)
        by_index = (self(symbols, above) - self(symbols, below)) / (above - below)
        by_symbol = (self(symbols + 1, indices) - self(symbols - 1, indices)) / 2 * SYMBOLS_PER_STEP
        self.slopes_by_place = np.stack([by_symbol, by_index]).astype(np.float32)

    def slopes(self, symbols: np.ndarray, indices: np.ndarray) -> np.ndarray:
        """f32[2, ...] of symbols i32[...] and table indices u8[...]: bits by symbol, and bits by table index."""
        return self.slopes_by_place.take(self.places(symbols, indices), 1)


class PriorReverse(Reverse):
    """The arithmetic of the prior's networks over Nodes, for one pass; the unit is 1 where integers have 2**-6."""

    def _record(self, value: np.ndarray, backward: Callable[[np.ndarray], None]) -> Node:
        if max(value.max(initial=0), -value.min(initial=0)) <= MAX_ACTIVATION:
            return super()._record(value, backward)
        within = np.abs(value) < MAX_ACTIVATION
        np.clip(value, -MAX_ACTIVATION, MAX_ACTIVATION, out=value)
        return super()._record(value, lambda g: backward(g * within))

    def condition(self, name: str, x: Node) -> Node:
        return self._record(x.value + self._conditions[name], x.slot.add)

    def rectify(self, x: Node) -> Node:
        passed, slot = x.value > 0, x.slot
        return self._record(x.value * passed, lambda g: slot.add(g * passed))

    def distribution(self, name: str, x: Node, count: int) -> tuple[Node]:
        """A node for the gradient of means and scale indices [.., 2 count]; their values are known already."""
        gains, slot = np.repeat(np.array([LOC_GAIN, INDEX_GAIN], np.float32), count), x.slot
        return (super()._record(x.value, lambda g: slot.add(self._transposed(name, g * gains))),)

    def companded(self, x: Node, *features: Node) -> Node:
        """Network inputs from values [.., n] in quantisation steps: companded values, features, and magnitudes."""
        count, slot, slots = x.value.shape[-1], x.slot, [node.slot for node in features]
        size, sign = np.abs(x.value), np.sign(x.value)
        within = size < COMPANDED
        np.minimum(size, COMPANDED, out=size)
        size += 1
        slope = within / size
        np.log(size, out=size)

        def backward(g: np.ndarray) -> None:
            t = g[..., -count:] * sign
            t += g[..., :count]
            t *= slope
            slot.add(t)
            for feature in slots:
                feature.add(g[..., count:-count])

        value = np.concatenate([size * sign, *(node.value for node in features), size], -1)
        return super()._record(value, backward)


def details(low: np.ndarray) -> np.ndarray:
    """Unrounded differences of f[C, H, W] from the mean of the eight neighbours, mirrored at the edges."""
    return _details(low, 0)


def details_adjoint(gradient: np.ndarray) -> np.ndarray:
    """Propagate gradients f[C, H, W] back through `details`."""
    return _details(gradient, 1)


def _details(x: np.ndarray, adjoint: int) -> np.ndarray:
    around = _sums_of_three(_sums_of_three(x, adjoint).swapaxes(1, 2), adjoint).swapaxes(1, 2)
    around -= x
    around *= around.dtype.type(1 / 8)
    return x - around


def _sums_of_three(x: np.ndarray, adjoint: int) -> np.ndarray:
    """Sums of each sample of f[P, H, W] and its two neighbours in the column, mirrored at the ends; or the adjoint."""
    if x.shape[1] == 1:
        return 3 * x
    out = x.copy()
    out[:, 1:] += x[:, :-1]
    out[:, :-1] += x[:, 1:]
    # The mirrored sample beyond an end is the second one: it is read twice or, in the adjoint, written twice.
    out[:, adjoint] += x[:, 1 - adjoint]
    out[:, -1 - adjoint] += x[:, adjoint - 2]
    return out


def from_cells(cells: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of latents.to_squares: [h, w, 4 P] -> [P, H, W]."""
    return shuffle(cells, 2).transpose(2, 0, 1)[:, : shape[0], : shape[1]]


class LowestPass(NamedTuple):
    """A forward pass of one part of the lowest coefficients."""

    tape: PriorReverse
    inputs: Slot  # [n, 5 C]: four neighbours less their mean, and the mean


class OctavePass(NamedTuple):
    """A forward pass of an octave of H by W coefficients in h by w cells."""

    shape: tuple[int, ...]  # H, W
    first: PriorReverse
    second: PriorReverse
    inputs: Slot  # [h, w, 7 C]: details of the low-pass image, and values of the coarser octave
    features: list[Slot]  # [h, w, F]: features from the coarser octave; none in the coarsest
    first_half: Slot  # [h, w, 6 C]: values of the first half
    parameters: Slot  # [h, w, 12 C]: means and scale indices of the second half


class OctaveGradients(NamedTuple):
    """Gradients with respect to the inputs of an octave."""

    low: np.ndarray  # [C, H, W]
    parents: np.ndarray  # [3 C, h, w]
    features: list[np.ndarray]  # [h, w, F]


class PriorGradients:
    """Gradients through a prior at one quality index, for tiles of a given number of cells."""

    def __init__(self, model: Model, quality_index: int, cells: tuple[int, int]) -> None:
        self._config, self._cells, prior = model.config, cells, model.prior
        level = level_of(quality_index)
        self._bits = BitSlopes(model.models.tables, prior.scales)
        self._weights = model.prior_weights
        lowest = np.split(prior.lowest_bias(level), len(LOWEST_DISTANCES))
        bias = {f"lowest/{part}": vector for part, vector in enumerate(lowest)}
        for octave in range(OCTAVES + 1):
            bias[f"context/{octave}"] = prior.bias(octave, level)
        self._conditions = {name: (vector / UNIT).astype(np.float32) for name, vector in bias.items()}
        self._gains = [octave_gain(prior, quality_index, octave) for octave in range(OCTAVES + 1)]
        self._places, self._neighbours = (of(*_halved(cells)) for of in (lowest_places, lowest_neighbours))

    def __call__(self, symbols: Parts, indices: Parts, values: Parts, slopes: Parts) -> Parts:
        """Compute half of the gradient of squared error and bits together, with respect to the values of each part.

        Args:
            symbols: i32[n] of each part.
            indices: table indices u8[n] of each part.
            values: f32[n] of each part, in quantisation steps.
            slopes: half of the gradient of the squared error alone, in squared steps.

        Returns:
            f32[n] of each part, in squared steps.
        """
        symbols, indices, values, slopes = (self._shaped(parts) for parts in (symbols, indices, values, slopes))
        gradients = self.back(*self.forward(values), *self._slopes_of_bits(symbols, indices), slopes)
        return [part.ravel() for part in gradients]

    def lowest(self, symbols: Parts, indices: Parts, values: Parts, slopes: Parts, low: np.ndarray) -> Parts:
        """The same for the parts of the lowest coefficients, given the gradient f32[C, h, w] by their planes."""
        symbols, indices, values, slopes = (self._shaped(parts) for parts in (symbols, indices, values, slopes))
        passes, _ = self.forward_lowest(values)
        gradients = self.back_lowest(passes, low, *self._slopes_of_bits(symbols, indices), slopes)
        return [part.ravel() for part in gradients]

    def _slopes_of_bits(self, symbols: Parts, indices: Parts) -> tuple[Parts, Parts]:
        """Half of the slopes of bits f32[2, n, count] of parts, in squared steps, and where symbols are 0."""
        pairs = zip(symbols, indices, strict=True)
        bits = [np.float32(SQUARED_STEPS_PER_BIT / 2) * self._bits.slopes(*pair) for pair in pairs]
        return bits, [part == 0 for part in symbols]

    def _shaped(self, parts: Parts) -> Parts:
        """[n, C] for the lowest coefficients, [cells, 6 C] for octaves."""
        channels = self._config.channels
        return [part.reshape(-1, channels if n < LOWEST_PARTS else 6 * channels) for n, part in enumerate(parts)]

    def forward(self, values: Parts) -> tuple[list[LowestPass], list[OctavePass]]:
        """Run the networks of all parts but the first on values f[n, count] of each part."""
        lowest, low = self.forward_lowest(values[:LOWEST_PARTS])
        return lowest, self._octaves(low, values[LOWEST_PARTS:])

    def forward_lowest(self, values: Parts) -> tuple[list[LowestPass], np.ndarray]:
        """Run the networks of the lowest coefficients on values f[n, C] of each part; also these as planes."""
        ordered = np.concatenate(values)[np.argsort(np.concatenate(self._places))]
        lowest = []
        for part, around in enumerate(self._neighbours):
            tape, near = PriorReverse(self._weights, self._conditions), ordered[around]
            mean = near.mean(0)
            inputs = Node(np.concatenate([*(near - mean), mean], -1), Slot())
            network.lowest_part(tape, self._config, part, tape.companded(inputs))
            lowest.append(LowestPass(tape, inputs.slot))
        return lowest, np.ascontiguousarray(ordered.T).reshape(-1, *_halved(self._cells))

    def _octaves(self, low: np.ndarray, values: Parts) -> list[OctavePass]:
        """Run octaves 4 to 0 on halves f[h w, 6 C]; `low` f[C, h, w] are the lowest coefficients."""
        config, passes, features = self._config, list[OctavePass](), list[np.ndarray]()
        parents = np.zeros((SUBBANDS * len(low), *_halved(low.shape[1:])), low.dtype)
        for octave in range(OCTAVES, -1, -1):
            shape, cells, number = low.shape[1:], _halved(low.shape[1:]), 2 * len(passes)
            halves = [part.reshape(*cells, -1) for part in values[number : number + 2]]
            before = np.concatenate([latents.to_squares(details(low)), parents.transpose(1, 2, 0)], -1)
            inputs, first_half = Node(before, Slot()), Node(halves[0], Slot())
            received = [Node(feature[: cells[0], : cells[1]], Slot()) for feature in features]
            first, second = (PriorReverse(self._weights, self._conditions) for _ in range(2))
            hidden = network.octave_features(first, config, octave, first.companded(inputs, *received))
            network.octave_first(first, config, octave, hidden)
            inside = second.companded(first_half)
            parameters, *passed = network.octave_second(second, config, octave, hidden, inside)
            slots = [node.slot for node in received]
            passes.append(OctavePass(shape, first, second, inputs.slot, slots, first_half.slot, parameters.slot))
            if octave:
                features = [shuffle(node.value, 2) for node in passed]
                parents = latents.join_halves(halves[0], halves[1], (shape[0], shape[1]))
                low = wavelet.float_inverse_dwt(wavelet.interleave(low, parents * self._gains[octave]))
            if octave == OCTAVES:
                low = low[:, : self._cells[0], : self._cells[1]]
        return passes

    def back(
        self, lowest: list[LowestPass], passes: list[OctavePass], bits: Parts, zero: Parts, slopes: Parts
    ) -> Parts:
        """Add to `slopes` of all parts what follows from `bits` f[2, n, count], slopes by symbol and by table index.

        Where a symbol is `zero`, a value is its mean.
        """
        gradients, finer = list(slopes), None
        for octave, run in enumerate(reversed(passes)):
            parts = PARTS_BY_OCTAVE[len(passes) - octave]
            gradients[parts], finer = self._octave_back(octave, run, finer, bits[parts], zero[parts], gradients[parts])
        assert finer is not None
        gradients[:LOWEST_PARTS] = self.back_lowest(lowest, finer.low, bits, zero, slopes)
        return gradients

    def back_lowest(self, lowest: list[LowestPass], low: np.ndarray, bits: Parts, zero: Parts, slopes: Parts) -> Parts:
        """The same for the parts of the lowest coefficients, given the gradient f[C, h, w] by their planes."""
        values = low.reshape(len(low), -1).T.copy()
        for places, slope in zip(self._places, slopes, strict=False):
            values[places] += slope
        for part in range(len(lowest), 0, -1):
            tape, inputs = lowest[part - 1]
            parameters = _parameter_gradients(values[self._places[part]], bits[part], zero[part])
            tape.back(parameters)
            *differences, mean = np.split(inputs.gradient, 5, -1)
            # The mean of the neighbours is added to the predicted mean, so it has that gradient, too.
            mean = (mean + parameters[:, : mean.shape[1]] - sum(differences)) / 4
            np.add.at(values, self._neighbours[part - 1], np.stack([difference + mean for difference in differences]))
        return [values[places] for places in self._places]

    def _octave_back(
        self, octave: int, run: OctavePass, finer: OctaveGradients | None, bits: Parts, zero: Parts, slopes: Parts
    ) -> tuple[Parts, OctaveGradients]:
        """Gradients of both halves and of the inputs of an octave, from those of the next finer octave's inputs."""
        cells, (height, width) = _halved(run.shape), run.shape
        first, second = (part.reshape(*cells, -1) for part in slopes)
        passed, low = list[np.ndarray](), np.float32(0)
        if finer is not None:
            low, subbands = wavelet.float_inverse_dwt_adjoint(_padded(finer.low, 2 * height, 2 * width))
            subbands *= self._gains[octave]
            subbands += finer.parents
            first, second = (a + b for a, b in zip((first, second), octave_halves(subbands), strict=True))
            wide = (_padded(part.transpose(2, 0, 1), 2 * cells[0], 2 * cells[1]) for part in finer.features)
            passed = [unshuffle(part.transpose(1, 2, 0), 2) for part in wide]
        inside = _coded_places(run.shape, first.shape[2])
        parameters = _parameter_gradients(second, bits[1], zero[1]) * np.tile(inside[1], 2)
        if passed:
            run.parameters.add(parameters)
            run.second.back(passed[-1])
        else:
            run.second.back(parameters)
        first = first + run.first_half.gradient * inside[0]
        run.first.back(_parameter_gradients(first, bits[0], zero[0]) * np.tile(inside[0], 2))
        inputs, count = run.inputs.gradient, 4 * self._config.channels
        low = details_adjoint(from_cells(inputs[..., :count], run.shape)) + low
        features = [slot.gradient for slot in run.features]
        before = OctaveGradients(low, inputs[..., count:].transpose(2, 0, 1), features)
        return [half.reshape(-1, half.shape[2]) for half in (first, second)], before


def _halved(shape: tuple[int, ...]) -> tuple[int, int]:
    return -(-shape[0] // 2), -(-shape[1] // 2)


def _padded(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """[P, h, w] with zeros after its rows and columns, to this height and width."""
    return np.pad(x, [(0, 0), (0, height - x.shape[1]), (0, width - x.shape[2])])


def _parameter_gradients(values: np.ndarray, bits: np.ndarray, zero: np.ndarray) -> np.ndarray:
    """Gradient of means and scale indices [.., 2 n] from that of values [.., n] and the slopes of bits.

    A mean affects the value only where the symbol is 0.  It affects bits everywhere, as a smaller symbol does.
    """
    by_symbol, by_index = bits.reshape(2, *values.shape)
    loc = values * zero.reshape(values.shape)
    loc -= by_symbol
    return np.concatenate([loc, by_index], -1)


def _coded_places(shape: tuple[int, ...], count: int) -> list[np.ndarray]:
    """f32[h, w, 6 C] for each half of an octave: 1 where a coefficient is coded, 0 beyond sides of odd length."""
    if shape[0] % 2 or shape[1] % 2:
        return list(octave_halves(np.ones((count // 2, *shape), np.float32)))
    return 2 * [np.ones(count, np.float32)]
