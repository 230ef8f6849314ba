"""Evaluate refinement in floats, in NumPy: the reference of `integer_passes`, and what runs without the native core."""

from __future__ import annotations

import numpy as np

from vaecodec.config import SQUARED_STEPS_PER_BIT, STRIDE
from vaecodec.entropy.coding import outlier_bits
from vaecodec.model.file import Model
from vaecodec.native.symbols import symbol_values
from vaecodec.prior import Distributions, choose_symbols, value_limit
from vaecodec.rdo import quantization
from vaecodec.rdo.filter import Equations, FloatFilter, fit_classes
from vaecodec.rdo.prior_gradients import PriorGradients, SymbolBits
from vaecodec.rdo.quantization import Parts, Quantizer
from vaecodec.rdo.synthesis_gradients import Backward, Synthesis
from vaecodec.rdo.trial import Trial
from vaecodec.transforms.latents import latents_of_values, pack_latents, values_of_latents
from vaecodec.transforms.tiling import Box
from vaecodec.transforms.wavelet import Coefficients, Values


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
        return quantization.targets(self._model.prior, values, self._quality_index)

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
        return quantization.part_gradients(self._model.prior, values_of_latents(slopes), self._quality_index)

    def gradients(self, trial: Trial, error_gradients: Parts) -> Parts:
        """Half of the gradient of squared error and bits together of the last trial; may overwrite its argument."""
        values = [part.astype(np.float32) * np.float32(1 / quantization.UNIT) for part in trial.values]
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
            way = value.astype(np.float32) * np.float32(1 / quantization.UNIT) - gradient * np.float32(step) - target
            moved.append(np.clip(target + np.float32(rate) * way, start - np.float32(reach), start + np.float32(reach)))
        return moved

    def _filtered_error(self, decoded: Values) -> tuple[np.ndarray, Backward, Equations]:
        """Synthesise and filter values of the tile: (error f32[H, W, C], backward pass, equations of the filter)."""
        latents = self._latents.copy()
        latents[self._inner.slices()] = latents_of_values(decoded) * np.float32(1 / quantization.UNIT)
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
