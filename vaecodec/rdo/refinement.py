"""Wavelet coefficients improved for the one picture at hand: more seconds for the encoder, the same decoder.

Rounding takes the error of a picture to be that of its coefficients, alike in all octaves, and bits to depend on the
symbol at hand alone.  Neither is so: the wavelets are not quite orthogonal, the network after them mends some errors
and magnifies others, and every value is context of those coded after it.  Hence three steps:

1.  Curvature: how much faster or slower than that the error grows with the coefficients of an octave is measured on
    the tile; the faster, the fewer squared steps is a bit worth in rounding.
2.  Gradient: that of the squared error goes back through the synthesis, that of the bits through the means and scales
    that values lead to (`context_gradients`).  Bits of a value's own symbol are left to rounding.
3.  Descent: of a decoded value and the gradient there,  value - gradient / curvature  is what the coefficient should
    have been.  Targets go a part of the way there, which shrinks, and are rounded anew by rate and distortion, in the
    course of a walk (a proximal gradient method, in which rounding is the proximal operator: Parikh and Boyd 2014,
    Proximal Algorithms, section 4.2).

Of all symbols on the way those that cost least are taken, and the first of them are those of effort 1.  Whatever a
tile's pictures are made of, they go through the filter that fits them best (`filtering`), as the file's will be.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vaecodec.config import STRIDE, WORTH
from vaecodec.entropy.outliers import stray_bits
from vaecodec.model.file import Model
from vaecodec.native.symbols import symbol_values
from vaecodec.prior.coefficients import PARTS, PARTS_BY_OCTAVE
from vaecodec.prior.model import Distributions
from vaecodec.prior.tile import choose_symbols
from vaecodec.rdo import filtering, rounding
from vaecodec.rdo.context_gradients import ContextGradients, Parts
from vaecodec.rdo.filtering import Equations
from vaecodec.rdo.gradients import Distortion
from vaecodec.rdo.prior_gradients import Costs
from vaecodec.rdo.wiener import Restoration
from vaecodec.transforms import pyramid
from vaecodec.transforms.coefficients import Coefficients, Values
from vaecodec.transforms.tiling import Box

ITERATIONS = (0, 0, 1, 2, 4, 6, 9, 14, 22)  # by effort, from 1; at 2 there is the filter alone
# Measured on held-out pictures, as are the numbers below.
RATE = 0.25  # what part of the way to go at the beginning; it falls to none
REACH = 1.0  # quantisation steps that a target may go from where it began
LEAST, MOST = 0.25, 4.0  # curvatures
SHARPNESS = 1.15  # the power of the curvature by which worths fall
WORSE = 1.02  # what costs so many times the least is gone back from, and the next steps are half as long


def check_effort(effort: int) -> None:
    """Raises ValueError unless `effort` is one of 1..9."""
    if effort not in range(1, len(ITERATIONS) + 1):
        raise ValueError(f"effort is {effort!r}, expected a whole number in 1..{len(ITERATIONS)}")


class Trial(NamedTuple):
    """Targets as they are rounded: symbols i32[n], table indices u8[n] and values f32[n] of each part.

    Beside them latents f32[h, w, M] in quantisation steps, and the bits.
    """

    symbols: Parts
    rows: Parts
    values: Parts
    y: np.ndarray
    bits: float


class Refiner:
    """One tile at one quality step.

    `pixels` are u8[16 h, 16 w, C] of the tile and its margin, of which the first `seen` rows and columns are the
    picture's; their coefficients go with them.  The tile itself are the `inner` cells.
    """

    def __init__(
        self,
        model: Model,
        pixels: np.ndarray,
        seen: tuple[int, int],
        coefficients: Coefficients,
        inner: Box,
        step: int,
    ) -> None:
        self._model, self._prior, self._step, self._inner = model, model.prior, step, inner
        self._y = pyramid.pack(pyramid.Planes(coefficients.low, coefficients.bands)).astype(np.float32)
        self._y *= 2.0**-14 / (model.inverse_gain(step) * model.latent_scales)
        self._pixels, self._seen = pixels.astype(np.float32), seen
        self._distortion, self._costs = Distortion(model, step), Costs(model.models.tables)
        self._lambda = model.config.lambda_of_sum(step)
        self._pixel_step = model.step_size(step)
        self.equations: Equations | None = None  # for the picture's filter, of what was found best

    def __call__(self, iterations: int, tick: Callable[[], None] = lambda: None) -> Parts:
        """i32[n] of each part of a tile: the symbols that cost least; ticks each iteration."""
        tables = self._model.models.tables
        start = rounding.targets(self._prior, values_of_latents(self._y[self._inner.slices()]), self._step)
        targets, shorter, least = start, 1.0, np.inf
        chosen = [rounding.rounding(self._prior, tables)] * PARTS
        context_gradients = ContextGradients(self._model, self._step, self._inner.shape)
        for n in range(iterations + 1):
            trial = self._rounded(targets, chosen)
            error, back, equations = self._filtered(trial.y)
            cost = trial.bits + self._lambda * float(np.square(error).sum(dtype=np.float64))
            if cost < least:
                least, best, kept, self.equations = cost, trial.symbols, targets, equations
            if n == iterations:
                break
            tick()
            if not cost < WORSE * least:
                targets, shorter = kept, shorter / 2
                continue
            gradient = self._gradient(error, back)
            del error, back
            if n == 0:
                curvatures = curvatures_of(trial.values, start, gradient)
                worths = [WORTH / curvature**SHARPNESS for curvature in curvatures]
                chosen = [rounding.rounding(self._prior, tables, worth) for worth in worths]
            gradient = context_gradients(trial.symbols, trial.rows, trial.values, gradient)
            rate = np.float32(shorter * RATE * (1 - n / iterations))
            found = []
            for part, (value, slope) in enumerate(zip(trial.values, gradient, strict=True)):
                way = value - slope * np.float32(1 / curvatures[part]) - targets[part]
                moved = targets[part] + rate * way
                found.append(np.clip(moved, start[part] - np.float32(REACH), start[part] + np.float32(REACH)))
            targets = found
        return best

    def _filtered(self, values: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray], Equations]:
        """(picture made of these latents of the inner cells, through the filter that fits, - pixels, way back of its
        gradient, equations of the filter); 0 beyond the picture's edge.
        """
        picture, back = self._made(values)
        area = Box(*(STRIDE * edge for edge in self._inner)).meet(Box(0, 0, *self._seen))
        equations = filtering.equations(picture, self._pixels, area, self._pixel_step)
        found = equations.best(self._lambda)
        if found is None:
            return self._less_pixels(picture), back, equations
        restoration = Restoration(found, self._pixel_step)
        error = self._less_pixels(restoration(picture.copy()))
        return error, lambda gradient: back(restoration.adjoint(picture, gradient)), equations

    def _made(self, values: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """The picture f32[H, W, C] made of these latents of the inner cells, and the way back of its gradient."""
        y = self._y.copy()
        y[self._inner.slices()] = values
        return self._distortion.forward(y)

    def _less_pixels(self, picture: np.ndarray) -> np.ndarray:
        """The picture, less what it should be, in place."""
        picture -= self._pixels
        picture[self._seen[0] :] = 0
        picture[:, self._seen[1] :] = 0
        return picture

    def _gradient(self, error: np.ndarray, back: Callable[[np.ndarray], np.ndarray]) -> Parts:
        """Half of that of the squared error, in squared quantisation steps as rounding weighs them."""
        slopes = back(np.float32(self._lambda * WORTH) * error)[self._inner.slices()]
        return rounding.slopes(self._prior, values_of_latents(slopes), self._step)

    def _rounded(self, targets: Parts, chosen: list[rounding.Rounding]) -> Trial:
        unit, bits, tables = np.float32(1 / rounding.UNIT), 0.0, self._model.models.tables
        values = list[np.ndarray]()

        def choose(part: int, question: Distributions) -> np.ndarray:
            symbols = chosen[part](targets[part], question)
            values.append(symbol_values(symbols, *question, self._prior.centroids).astype(np.float32) * unit)
            return symbols

        parts, decoded = choose_symbols(self._prior, self._inner.shape, self._step, choose)
        for symbols, indices in parts:
            bits += float(self._costs(symbols, indices).sum(dtype=np.float64)) + stray_bits(tables, symbols, indices)
        every = [list(column) for column in zip(*parts, strict=True)]
        return Trial(every[0], every[1], values, latents_of_values(decoded) * unit, bits)


def values_of_latents(y: np.ndarray) -> Values:
    """Halves and low-pass image of latents f32[h, w, 256 C] in pyramid's order."""
    coded = pyramid.apart(y)
    third = pyramid.to_halves(coded.third)
    halves = [(np.ascontiguousarray(a), np.ascontiguousarray(b)) for a, b in (*coded.halves, third)]
    return Values(halves, coded.low)


def latents_of_values(values: Values) -> np.ndarray:
    """f32[h, w, 256 C]: the inverse of values_of_latents, of integers too."""
    halves = [(a.astype(np.float32), b.astype(np.float32)) for a, b in values.halves]
    low = values.low.astype(np.float32)
    third = pyramid.from_halves(*halves[3], low.shape[1:])
    return pyramid.assembled(pyramid.Coded(halves[:3], third, low))


def curvatures_of(values: Parts, targets: Parts, gradient: Parts) -> list[float]:
    """For each part, that of its octave: how a gradient goes with values - targets, by least squares."""
    found = []
    for alike in PARTS_BY_OCTAVE:
        product, square = 0.0, 1e-9
        for value, target, slope in zip(values[alike], targets[alike], gradient[alike], strict=True):
            away = value - target
            product += float(np.vdot(away, slope))
            square += float(np.vdot(away, away))
        found += len(values[alike]) * [float(np.clip(product / square, LEAST, MOST))]
    return found
