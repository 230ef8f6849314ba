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

The price of a bit follows the squared error, such that it comes to a limit: that of effort 1 (`price`).  Of all
iterations the symbols with the least cost within that limit are used.  Errors are measured after the restoration
filter that fits best (`filter`), as the file will have it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from vaecodec import rdo
from vaecodec.config import LAST_ANCHOR, SQUARED_STEPS_PER_BIT
from vaecodec.model.file import Model
from vaecodec.native import library
from vaecodec.prior import LOWEST_PARTS, OCTAVES, PARTS, PARTS_BY_OCTAVE
from vaecodec.rdo import Parts, Quantizer, quantizer
from vaecodec.rdo.passes import FloatPasses, IntegerPasses, Passes, Trial
from vaecodec.rdo.prices import NARROW, POWER, Price, Prices, Tolerance, share_of_error, weights_of_pixels
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import Box
from vaecodec.transforms.networks import LOG_BITS, tilt_logarithms
from vaecodec.transforms.wavelet import Coefficients

# Chosen on held-out images.
RATE = 0.25  # part of the way to go in the first iteration; decreases to 0
REACH = 1.0  # quantisation steps that a target may move from its start
MIN_CURVATURE, MAX_CURVATURE = 0.25, 4.0
SHARPNESS = 1.15  # power of the curvature by which the worth of a bit decreases
CORRECTIONS = 2  # of the price after the last iteration, at most
UNFORESEEN = -0.034  # logarithm of what error_after does not foresee, at the last anchor
WORSE = 1.02  # an iteration with this many times the least cost is undone, and the next ones go half as far


class Refiner:
    """Refine one tile at one quality index.

    Args:
        model: the model to code with.
        pixels: u8[16 h, 16 w, C] of the tile and its halo.
        within: (rows, columns) of `pixels` that belong to the image; the rest is padding.
        coefficients: those of `pixels`.
        inner: cells of the tile itself.
        quality_index: 0..1232.
        threads: share the work.
        prices: of the coefficients of each part, f32[n] or None; without, all are 1.
        tune: "psnr", or "eye": prices are then those of the eye, which also weigh the squared error, and no curvature
            moves bits from one octave to another.
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
        prices: Prices | None = None,
        tune: str = "psnr",
    ) -> None:
        self._prices, self._for_eye, weights = prices or [None] * PARTS, tune == "eye", None
        if self._for_eye and prices:
            weights = weights_of_pixels(prices, inner, coefficients.cells, within)
        self._model, self._lambda = model, model.config.lambda_of_sum(quality_index)
        self._quality_index = quality_index
        self._unforeseen = math.exp(UNFORESEEN * quality_index / LAST_ANCHOR)
        arguments = model, pixels, within, coefficients, inner, quality_index
        self._passes: Passes
        if library.in_numpy():
            self._passes = FloatPasses(*arguments, weights)
        else:
            self._passes = IntegerPasses(*arguments, threads, weights)

    def unrefined(self) -> tuple[float, float]:
        """Bits and squared error of the tile without refinement."""
        trial = self._passes.trial(self._passes.targets(), self._quantizers([1.0] * PARTS, 1.0))
        return trial.bits, trial.squared_error

    def __call__(
        self,
        iterations: int,
        tick: Callable[[], None] = lambda: None,
        limit: float | None = None,
        tolerance: Tolerance = NARROW,
    ) -> Trial:
        """Find the symbols with the least cost within a limit of the squared error.

        Args:
            iterations: at least 1.
            tick: called in each iteration.
            limit: of the squared error; without it that of the first trial, which is not refined.
            tolerance: of the squared error.

        Returns:
            The trial with the least cost of those that meet the limit; if none is below it, that with the least error.
        """
        passes, start = self._passes, self._passes.targets()
        targets, shortening, least_cost, rank = start, 1.0, np.inf, (True, True, np.inf)
        share = share_of_error(self._quality_index, iterations) if self._for_eye else 1.0
        allocation, price = [1.0] * PARTS, Price(limit, tolerance, share)
        for n in range(iterations + CORRECTIONS + 1):
            trial = passes.trial(targets, self._quantizers(allocation, price.value))
            excess, cost = price.exceeds_limit(trial.squared_error), trial.bits + self._lambda * trial.squared_error
            met = price.meets_limit(trial.squared_error)
            trial_rank = excess, not met, trial.squared_error if excess else cost
            if trial_rank < rank:
                rank, best = trial_rank, trial
            if n >= iterations:
                if met:
                    break
                price.correct(trial.squared_error)
                continue
            tick()
            if n > 0:
                price.follow(trial.squared_error)
            if cost < least_cost:
                least_cost, best_targets = cost, targets
            if not cost < WORSE * least_cost:
                targets, shortening = best_targets, shortening / 2
                continue
            # Half of the gradient of the squared error, in squared quantisation steps, as in quantisation.
            gradients = self._in_steps(passes.error_gradients())
            if n == 0:
                values = _floats(trial)
                curvatures = curvatures_of(values, start, gradients)
                expected = trial.squared_error
                if not self._for_eye:
                    allocation = curvatures
                    expected *= error_after(curvatures, values, start) * self._unforeseen
                price.start(expected)
            # The gradient is linear in the squared error and in bits, which count `price` times.
            gradients = self._weighed([part / np.float32(price.value) for part in gradients], np.divide)
            gradients = self._weighed(passes.gradients(trial, gradients), np.multiply)
            steps = [price.value / curvature for curvature in curvatures]
            rate = shortening * RATE * (1 - n / iterations)
            targets = passes.descend(targets, start, trial, gradients, steps, rate, REACH)
        return best

    def _in_steps(self, gradients: Parts) -> Parts:
        """Gradients of the squared error in steps of octaves as large as without a tilt.

        For the eye steps are larger where errors are seen less, so that squared steps count alike in all octaves.
        """
        if not self._model.tilt:
            return gradients
        octaves = 2.0 ** (-2 / (1 << LOG_BITS) * tilt_logarithms(self._model.tilt))
        weights = [1.0] * LOWEST_PARTS + [float(octaves[OCTAVES - n // 2]) for n in range(PARTS - LOWEST_PARTS)]
        return [part * np.float32(weight) for part, weight in zip(gradients, weights, strict=True)]

    def _weighed(self, parts: Parts, by: np.ufunc) -> Parts:
        """Multiply or divide gradients by prices, for the eye: a squared error counts the less, the dearer a bit is."""
        if not self._for_eye:
            return parts
        pairs = zip(parts, self._prices, strict=True)
        return [part if prices is None else by(part, prices) for part, prices in pairs]

    def _quantizers(self, curvatures: list[float], price: float) -> list[Quantizer]:
        """Quantizers of each part, with this price of a bit relative to effort 1."""
        prior, tables, bit = self._model.prior, self._model.models.tables, price * SQUARED_STEPS_PER_BIT
        of_parts = zip(curvatures, self._prices, strict=True)
        return [quantizer(prior, tables, bit / curvature**SHARPNESS, prices) for curvature, prices in of_parts]


def _floats(trial: Trial) -> Parts:
    """f32[n]: values of each part in quantisation steps."""
    return [part.astype(np.float32) * np.float32(1 / rdo.UNIT) for part in trial.values]


def error_after(curvatures: list[float], values: Parts, targets: Parts) -> float:
    """The squared error to expect where the curvatures weigh the price of bits, relative to that without.

    An octave contributes curvature * its squared distances, which grow with a power of the price there.
    """
    before = after = 1e-9
    for curvature, value, target in zip(curvatures, values, targets, strict=True):
        distance = value - target
        part = curvature * float(np.vdot(distance, distance))
        before += part
        after += part * curvature ** (-SHARPNESS * POWER)
    return after / before


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
