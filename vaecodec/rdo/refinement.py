"""Refine the wavelet coefficients of one tile: more time for the encoder, fewer bits, the same decoder.

RDO quantisation assumes that the error of an image is that of its coefficients, equal in all octaves, and that bits
depend on one symbol alone.  But wavelets are not quite orthogonal, the synthesis network corrects some errors and
magnifies others, and every value is a context of those coded after it.  Hence three steps:

1.  Curvature: measure on the tile how fast the squared error grows with the coefficients of each octave.  The faster it
    grows, the fewer squared steps a bit is worth in quantisation.
2.  Gradient: propagate the squared error back through the synthesis, and bits back through the means and scales that
    values lead to (`prior_gradients`).  The bits of a value's own symbol are left to quantisation.
3.  Descent: for a decoded value and its gradient, the coefficient should have been  value - gradient / curvature.  Move
    the targets a decreasing part of the way there and quantise them again (a proximal gradient method with quantisation
    as the proximal operator: Parikh and Boyd 2014, Proximal Algorithms, section 4.2).

The symbols with the lowest cost of all iterations are used; the first are those of effort 1.  Errors are measured after
the restoration filter that fits best (`filter`), as the file will have it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vaecodec.config import SQUARED_STEPS_PER_BIT, STRIDE
from vaecodec.entropy.coding import outlier_bits
from vaecodec.model.file import Model
from vaecodec.native.symbols import symbol_values
from vaecodec.prior.context_model import PARTS, PARTS_BY_OCTAVE, Distributions, choose_symbols
from vaecodec.rdo import quantization
from vaecodec.rdo.filter import Equations, FloatFilter, fit_classes
from vaecodec.rdo.prior_gradients import PriorGradients, SymbolBits
from vaecodec.rdo.quantization import Parts, Quantizer, part_gradients, quantizer
from vaecodec.rdo.synthesis_gradients import Backward, Synthesis
from vaecodec.transforms.latents import latents_of_values, pack_latents, values_of_latents
from vaecodec.transforms.tiling import Box
from vaecodec.transforms.wavelet import Coefficients

ITERATIONS = (0, 0, 1, 2, 4, 6, 9, 14, 22)  # for efforts 1 to 9; effort 2 has the filter alone
# Chosen on held-out images, as are the numbers below.
RATE = 0.25  # part of the way to go in the first iteration; decreases to 0
REACH = 1.0  # quantisation steps that a target may move from its start
MIN_CURVATURE, MAX_CURVATURE = 0.25, 4.0
SHARPNESS = 1.15  # power of the curvature by which the worth of a bit decreases
WORSE = 1.02  # an iteration with this many times the least cost is undone, and the next ones go half as far


def check_effort(effort: int) -> None:
    """Raise ValueError unless `effort` is one of 1..9."""
    if effort not in range(1, len(ITERATIONS) + 1):
        raise ValueError(f"effort is {effort!r}, expected a whole number in 1..{len(ITERATIONS)}")


class Trial(NamedTuple):
    """Quantised targets: symbols i32[n], table indices u8[n] and values f32[n] of each part."""

    symbols: Parts
    indices: Parts
    values: Parts
    latents: np.ndarray  # f32[h, w, M], in quantisation steps
    bits: float


class Refiner:
    """Refine one tile at one quality index.

    Args:
        model: the model to code with.
        pixels: u8[16 h, 16 w, C] of the tile and its halo.
        within: (rows, columns) of `pixels` that belong to the image; the rest is padding.
        coefficients: those of `pixels`.
        inner: cells of the tile itself.
        quality_index: 0..896.
    """

    def __init__(
        self,
        model: Model,
        pixels: np.ndarray,
        within: tuple[int, int],
        coefficients: Coefficients,
        inner: Box,
        quality_index: int,
    ) -> None:
        self._model, self._quality_index, self._inner = model, quality_index, inner
        self._latents = pack_latents(coefficients).astype(np.float32)
        self._latents *= 2.0**-14 / (model.inverse_gain(quality_index) * model.latent_scales)
        self._pixels, self._within = pixels.astype(np.float32), within
        self._synthesis = Synthesis(model, quality_index)
        self._symbol_bits = SymbolBits(model.models.tables)
        self._lambda = model.config.lambda_of_sum(quality_index)
        self._step_size = model.step_size(quality_index)
        self.equations: Equations | None = None  # for the image's filter, from the best iteration

    def __call__(self, iterations: int, tick: Callable[[], None] = lambda: None) -> Parts:
        """Find the symbols i32[n] of each part with the lowest cost; call `tick` in each iteration."""
        prior, tables = self._model.prior, self._model.models.tables
        start = quantization.targets(prior, values_of_latents(self._latents[self._inner.slices()]), self._quality_index)
        targets, shortening, least_cost = start, 1.0, np.inf
        quantizers = [quantizer(prior, tables)] * PARTS
        prior_gradients = PriorGradients(self._model, self._quality_index, self._inner.shape)
        for n in range(iterations + 1):
            trial = self._quantise(targets, quantizers)
            error, back, equations = self._filtered_error(trial.latents)
            cost = trial.bits + self._lambda * float(np.square(error).sum(dtype=np.float64))
            if cost < least_cost:
                least_cost, best, best_targets, self.equations = cost, trial.symbols, targets, equations
            if n == iterations:
                break
            tick()
            if not cost < WORSE * least_cost:
                targets, shortening = best_targets, shortening / 2
                continue
            # Half of the gradient of the squared error, in squared quantisation steps, as in quantisation.
            slopes = back(np.float32(self._lambda * SQUARED_STEPS_PER_BIT) * error)[self._inner.slices()]
            gradients = part_gradients(prior, values_of_latents(slopes), self._quality_index)
            del error, back
            if n == 0:
                curvatures = curvatures_of(trial.values, start, gradients)
                quantizers = [
                    quantizer(prior, tables, SQUARED_STEPS_PER_BIT / curvature**SHARPNESS) for curvature in curvatures
                ]
            gradients = prior_gradients(trial.symbols, trial.indices, trial.values, gradients)
            rate = np.float32(shortening * RATE * (1 - n / iterations))
            moved = []
            for target, first, value, gradient, curvature in zip(
                targets, start, trial.values, gradients, curvatures, strict=True
            ):
                way = value - gradient * np.float32(1 / curvature) - target
                moved.append(np.clip(target + rate * way, first - np.float32(REACH), first + np.float32(REACH)))
            targets = moved
        return best

    def _quantise(self, targets: Parts, quantizers: list[Quantizer]) -> Trial:
        prior, unit, bits = self._model.prior, np.float32(1 / quantization.UNIT), 0.0
        values = list[np.ndarray]()

        def choose(part: int, distributions: Distributions) -> np.ndarray:
            symbols = quantizers[part](targets[part], distributions)
            values.append(symbol_values(symbols, *distributions, prior.centroids).astype(np.float32) * unit)
            return symbols

        parts, decoded = choose_symbols(prior, self._inner.shape, self._quality_index, choose)
        for symbols, indices in parts:
            bits += float(self._symbol_bits(symbols, indices).sum(dtype=np.float64))
            bits += outlier_bits(self._model.models.tables, symbols, indices)
        all_symbols, all_indices = (list(column) for column in zip(*parts, strict=True))
        return Trial(all_symbols, all_indices, values, latents_of_values(decoded) * unit, bits)

    def _filtered_error(self, values: np.ndarray) -> tuple[np.ndarray, Backward, Equations]:
        """Synthesise and filter latents of the tile: (error f32[H, W, C], backward pass, equations of the filter)."""
        latents = self._latents.copy()
        latents[self._inner.slices()] = values
        image, back = self._synthesis.forward(latents)
        area = Box(*(STRIDE * edge for edge in self._inner)).intersection(Box(0, 0, *self._within))
        equations = fit_classes(image, self._pixels, area, self._step_size)
        weights = equations.best_filter(self._lambda)
        if weights is None:
            return self._error(image), back, equations
        float_filter = FloatFilter(weights, self._step_size)
        error = self._error(float_filter(image.copy()))
        return error, lambda gradient: back(float_filter.adjoint(image, gradient)), equations

    def _error(self, image: np.ndarray) -> np.ndarray:
        """Subtract the original in place; padding has no error."""
        image -= self._pixels
        image[self._within[0] :] = 0
        image[:, self._within[1] :] = 0
        return image


def curvatures_of(values: Parts, targets: Parts, gradients: Parts) -> list[float]:
    """The curvature of each part: the slope of the gradient in values - targets, by least squares in each octave."""
    curvatures = []
    for parts in PARTS_BY_OCTAVE:
        product, square = 0.0, 1e-9
        for value, target, gradient in zip(values[parts], targets[parts], gradients[parts], strict=True):
            distance = value - target
            product += float(np.vdot(distance, gradient))
            square += float(np.vdot(distance, distance))
        curvatures += len(values[parts]) * [float(np.clip(product / square, MIN_CURVATURE, MAX_CURVATURE))]
    return curvatures
