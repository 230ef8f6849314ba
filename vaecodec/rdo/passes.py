"""Evaluate refinement: quantise the targets of a tile, decode them, and differentiate the bits and the squared error.

`IntegerPasses` uses the kernels of decoders, and gradients in integers.  Errors are measured after the best restoration
filter of one class, as at effort 1, and gradients pass through it.  `FloatPasses` is its reference in NumPy and floats,
and what runs without the native core.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from vaecodec import rdo
from vaecodec.config import SQUARED_STEPS_PER_BIT, STRIDE
from vaecodec.entropy.coding import Part, outlier_bits, outlier_bits_of
from vaecodec.model.file import Model
from vaecodec.native import gradients as kernels
from vaecodec.native.library import reused
from vaecodec.native.symbols import symbol_values
from vaecodec.native.transforms import FilterWeights, restore_levels
from vaecodec.prior import Distributions, Record, choose_symbols, value_limit
from vaecodec.rdo import Parts, Quantizer
from vaecodec.rdo.filter import Equations, fit_all_classes, fit_one_class, sparsity
from vaecodec.rdo.float_decoder import Backward, FloatFilter, Synthesis, fit_classes
from vaecodec.rdo.integer_gradients import IntegerPriorGradients, IntegerSynthesis
from vaecodec.rdo.prior_gradients import PriorGradients, SymbolBits
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import Box
from vaecodec.transforms.latents import latents_of_values, pack_latents, values_of_latents
from vaecodec.transforms.networks import PIXEL_BITS
from vaecodec.transforms.wavelet import (
    OCTAVES,
    SUBBANDS,
    VALUE_BITS,
    Coefficients,
    Values,
    dequantise,
    quantisation_targets,
)


class Trial(NamedTuple):
    """Quantised targets: symbols i32[n], table indices u8[n] and values i32[n], unit 2**-6 steps, of each part."""

    symbols: Parts
    indices: Parts
    values: Parts
    bits: float
    squared_error: float  # after the restoration filter that fits best
    equations: Callable[[bool], Equations]  # of the filter; of one class, or of several
    decoded: Values
    levels: np.ndarray | None  # i16[H, W, C] of the tile and its halo, where decoders compute these

    @property
    def parts(self) -> list[Part]:
        """Symbols and table indices of each part."""
        return list(zip(self.symbols, self.indices, strict=True))


class Passes(Protocol):
    """Forward and backward passes for one tile; gradients are those of the last trial."""

    def targets(self) -> Parts: ...

    def trial(self, targets: Parts, quantizers: list[Quantizer]) -> Trial: ...

    def error_gradients(self) -> Parts: ...

    def gradients(self, trial: Trial, error_gradients: Parts) -> Parts: ...

    def descend(
        self,
        targets: Parts,
        first: Parts,
        trial: Trial,
        gradients: Parts,
        steps: list[float],
        rate: float,
        reach: float,
    ) -> Parts: ...


FIT_SAMPLES, SPARSITY = 1 << 16, 11  # iterations fit a filter to so many samples, at least, or to one in so many rows
ERROR_UNIT = 1 << 10  # of errors, in quantisation steps: they saturate at 32


class IntegerPasses:
    """Forward and backward passes for one tile at one quality index.

    Args:
        model: the model to code with.
        pixels: u8[16 h, 16 w, C] of the tile and its halo.
        within: (rows, columns) of `pixels` that belong to the image; the rest is padding.
        coefficients: those of `pixels`.
        inner: cells of the tile itself.
        quality_index: 0..1232.
        threads: share the work.
        weights: f64[16 h, 16 w] of the squared errors of `pixels`; without, all are 1.
    """

    def __init__(
        self,
        model: Model,
        pixels: np.ndarray,
        within: tuple[int, int],
        coefficients: Coefficients,
        inner: Box,
        quality_index: int,
        threads: Threads = ONE_THREAD,
        weights: np.ndarray | None = None,
    ) -> None:
        self._pixel_weights = weights
        self._model, self._quality_index, self._inner, self._threads = model, quality_index, inner, threads
        self._pixels, self._within = np.ascontiguousarray(pixels), within
        self._coefficients = Coefficients([planes.copy() for planes in coefficients.subbands], coefficients.low.copy())
        self._lambda = model.config.lambda_of_sum(quality_index)
        self._step_size = model.step_size(quality_index)
        self._synthesis = IntegerSynthesis(model, quality_index, coefficients.cells, threads)
        self._prior_gradients = IntegerPriorGradients(model, quality_index, inner.shape, threads)
        self._record = Record()
        self._error: np.ndarray = reused("error", pixels.shape, np.int16)
        self._weights: FilterWeights | None = None
        self._restored = reused("restored", pixels.shape, np.int16)
        self._area = Box(*(STRIDE * edge for edge in inner)).intersection(Box(0, 0, *within))
        mantissas, shifts = model.gains.scaled(quality_index)
        steps = np.ldexp(mantissas.astype(np.float64), VALUE_BITS - PIXEL_BITS - shifts)  # of coefficients
        scale = self._lambda * SQUARED_STEPS_PER_BIT * 255 * self._step_size / ERROR_UNIT
        self._slope_scales = (scale * steps).astype(np.float32)

    def targets(self) -> Parts:
        """What the symbols of each part approximate, f32[n] in quantisation steps."""
        inner, gains = self._coefficients.crop(*self._inner), self._model.gains.scaled(self._quality_index)
        return rdo.targets(self._model.prior, quantisation_targets(inner, gains), self._quality_index)

    def trial(self, targets: Parts, quantizers: list[Quantizer]) -> Trial:
        """Quantise targets, and decode them."""

        def choose(part: int, distributions: Distributions) -> np.ndarray:
            return quantizers[part](targets[part], distributions, self._threads)

        model, cells = self._model, self._inner.shape
        parts, decoded = choose_symbols(model.prior, cells, self._quality_index, choose, self._threads, self._record)
        symbols, indices = (list(column) for column in zip(*parts, strict=True))
        bits = 0.0
        for part_bits, outliers in self._prior_gradients.bits(symbols, indices):
            bits += part_bits + outlier_bits_of(model.models.tables, outliers)
        levels = self._levels(decoded)
        squared_error = self._measure(levels)
        values = [values for _, values in self._record.parts]
        equations = partial(self._equations, levels)
        return Trial(symbols, indices, values, bits, squared_error, equations, decoded, levels)

    def error_gradients(self) -> Parts:
        """Half of the gradient of the squared error of the last trial by values of parts, in squared steps."""
        inner = self._synthesis.back(self._filtered(self._error, adjoint=True)).crop(*self._inner)
        width, halves = SUBBANDS * len(inner.low), list[tuple[np.ndarray, np.ndarray]]()
        for octave, planes in enumerate(inner.subbands):
            scales = self._slope_scales[octave * width : (octave + 1) * width]
            cells = -(-planes.shape[1] // 2), -(-planes.shape[2] // 2)
            first, second = np.zeros((2, *cells, 2 * width), np.float32)
            kernels.add_to_halves(planes, scales, first, second)
            halves.append((first, second))
        low = inner.low * self._slope_scales[OCTAVES * width :, None, None]
        return rdo.part_gradients(self._model.prior, Values(halves, low), self._quality_index)

    def gradients(self, trial: Trial, error_gradients: Parts) -> Parts:
        """Half of the gradient of squared error and bits together of the last trial; may overwrite its argument."""
        return self._prior_gradients(self._record, trial.symbols, error_gradients)

    def descend(
        self,
        targets: Parts,
        first: Parts,
        trial: Trial,
        gradients: Parts,
        steps: list[float],
        rate: float,
        reach: float,
    ) -> Parts:
        """Targets moved by a part, `rate`, of the way to values - steps * gradients, within `reach` of the first."""
        moved = [target.copy() for target in targets]
        columns = list(zip(moved, first, trial.values, gradients, steps, strict=True))
        self._threads.run(lambda column: kernels.descend(*column, rate, reach), columns[::-1])  # the largest first
        return moved

    def _levels(self, decoded: Values) -> np.ndarray:
        """i16[16h, 16w, C] of the tile and its halo, before the filter."""
        tile = dequantise(decoded, self._model.gains.scaled(self._quality_index), "decoded")
        if tile.cells == self._coefficients.cells:
            return self._synthesis.levels(tile)
        for target, source in zip(self._coefficients.crop(*self._inner).planes(), tile.planes(), strict=True):
            target[...] = source
        return self._synthesis.levels(self._coefficients)

    def _measure(self, levels: np.ndarray) -> float:
        """The squared error after the best filter of one class, if that helps; keeps the error."""
        model, rotation = self._model, self._model.transforms.synthesis.colors
        fitted = fit_one_class(levels, self._pixels, self._area, self._every(), rotation, self._threads)
        if best := fitted.best_filter(self._lambda):
            unfiltered = self._keep_error(levels)
            self._weights = best.weights(rotation, model.gains.low_logarithm(self._quality_index))
            filtered = self._keep_error(self._filtered(levels))
            if filtered < unfiltered:  # weights that fit some of the rows may not fit the others
                return filtered
        self._weights = None
        return self._keep_error(levels)

    def _keep_error(self, levels: np.ndarray) -> float:
        """Keep the error of levels; the squared error of decoded pixels."""
        squares, scale = np.empty(len(levels)), ERROR_UNIT / (64 * self._step_size)
        arguments = levels, self._pixels, self._within, scale, self._error, squares

        def measure(rows: tuple[int, int]) -> None:
            kernels.level_errors(*arguments, rows)
            if self._pixel_weights is not None:
                errors = self._error[slice(*rows)].astype(np.float64)
                of_pixels = (errors * errors).sum(-1) * self._pixel_weights[slice(*rows)]
                squares[slice(*rows)] = of_pixels.sum(-1) * (self._step_size / ERROR_UNIT) ** 2

        self._threads.over_rows(len(levels), measure)
        return float(squares.sum())

    def _filtered(self, samples: np.ndarray, adjoint: bool = False) -> np.ndarray:
        """Samples through the filter that fits the last trial, or gradients back through it; overwritten later."""
        weights, out = self._weights, self._restored
        if weights is None:
            return samples
        self._threads.over_rows(len(samples), lambda rows: restore_levels(samples, weights, out, rows, adjoint))
        return out

    def _equations(self, levels: np.ndarray, several: bool) -> Equations:
        """Equations of filters of one class, from some rows, or of all classes, from all rows."""
        model, threads = self._model, self._threads
        rotation, area = model.transforms.synthesis.colors, self._area
        if not several:
            return fit_one_class(levels, self._pixels, area, sparsity(area), rotation, threads)
        return fit_all_classes(levels, self._pixels, area, self._step_size, 1, rotation, threads)

    def _every(self) -> int:
        """One in how many rows an iteration fits a filter to."""
        return min(max(1, self._area.shape[0] * self._area.shape[1] // FIT_SAMPLES), SPARSITY)


class FloatPasses:
    """Forward and backward passes for one tile; see IntegerPasses."""

    def __init__(
        self,
        model: Model,
        pixels: np.ndarray,
        within: tuple[int, int],
        coefficients: Coefficients,
        inner: Box,
        quality_index: int,
        weights: np.ndarray | None = None,
    ) -> None:
        self._pixel_weights = 1.0 if weights is None else weights[..., None]
        self._model, self._quality_index, self._inner = model, quality_index, inner
        self._latents = pack_latents(coefficients).astype(np.float32)
        self._latents *= 2.0**-14 / (model.inverse_gain(quality_index) * model.latent_scales)
        self._pixels, self._within = pixels.astype(np.float32), within
        self._synthesis = Synthesis(model, quality_index)
        self._symbol_bits = SymbolBits(model.models.tables)
        self._lambda = model.config.lambda_of_sum(quality_index)
        self._step_size = model.step_size(quality_index)
        self._prior_gradients = PriorGradients(model, quality_index, inner.shape)
        self._back: tuple[np.ndarray, Backward] | None = None

    def targets(self) -> Parts:
        """What the symbols of each part approximate, f32[n] in quantisation steps."""
        values = values_of_latents(self._latents[self._inner.slices()])
        return rdo.targets(self._model.prior, values, self._quality_index)

    def trial(self, targets: Parts, quantizers: list[Quantizer]) -> Trial:
        """Quantise targets, and decode them."""
        prior, tables, bits, values = self._model.prior, self._model.models.tables, 0.0, list[np.ndarray]()

        def choose(part: int, distributions: Distributions) -> np.ndarray:
            symbols = quantizers[part](targets[part], distributions)
            values.append(symbol_values(symbols, *distributions, prior.centroids, value_limit(part)))
            return symbols

        parts, decoded = choose_symbols(prior, self._inner.shape, self._quality_index, choose)
        for symbols, indices in parts:
            bits += float(self._symbol_bits(symbols, indices).sum(dtype=np.float64))
            bits += outlier_bits(tables, symbols, indices)
        all_symbols, all_indices = (list(column) for column in zip(*parts, strict=True))
        error, back, equations = self._filtered_error(decoded)
        self._back = error, back
        shown = np.clip(np.rint(error), -self._pixels, 255 - self._pixels)  # pixels are whole, in 0..255
        squared_error = float((np.square(shown) * self._pixel_weights).sum(dtype=np.float64))
        return Trial(all_symbols, all_indices, values, bits, squared_error, lambda several: equations, decoded, None)

    def error_gradients(self) -> Parts:
        """Half of the gradient of the squared error of the last trial by values of parts, in squared steps."""
        assert self._back is not None
        error, back = self._back
        slopes = back(np.float32(self._lambda * SQUARED_STEPS_PER_BIT) * error)[self._inner.slices()]
        return rdo.part_gradients(self._model.prior, values_of_latents(slopes), self._quality_index)

    def gradients(self, trial: Trial, error_gradients: Parts) -> Parts:
        """Half of the gradient of squared error and bits together of the last trial; may overwrite its argument."""
        values = [part.astype(np.float32) * np.float32(1 / rdo.UNIT) for part in trial.values]
        return self._prior_gradients(trial.symbols, trial.indices, values, error_gradients)

    def descend(
        self,
        targets: Parts,
        first: Parts,
        trial: Trial,
        gradients: Parts,
        steps: list[float],
        rate: float,
        reach: float,
    ) -> Parts:
        """Targets moved by a part, `rate`, of the way to values - steps * gradients, within `reach` of the first."""
        moved = []
        for target, start, value, gradient, step in zip(targets, first, trial.values, gradients, steps, strict=True):
            way = value.astype(np.float32) * np.float32(1 / rdo.UNIT) - gradient * np.float32(step) - target
            moved.append(np.clip(target + np.float32(rate) * way, start - np.float32(reach), start + np.float32(reach)))
        return moved

    def _filtered_error(self, decoded: Values) -> tuple[np.ndarray, Backward, Equations]:
        """Synthesise and filter values of the tile: (error f32[H, W, C], backward pass, equations of the filter)."""
        latents = self._latents.copy()
        latents[self._inner.slices()] = latents_of_values(decoded) * np.float32(1 / rdo.UNIT)
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
