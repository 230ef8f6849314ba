"""Latents improved for the one picture at hand: more seconds for the encoder, the same decoder.

The analysis is one guess for all pictures; its answer is the start here.  Descent goes along the gradient of

    bits of the symbols  +  lambda * squared error          (what the model was trained for)

at random roundings of the latents, of which each takes the nearer integer the more surely the longer it goes on
(stochastic Gumbel annealing: Yang, Bamler and Mandt 2020, Improving Inference for Neural Image Compression, section
3.2; a draw of two values needs no Gumbel variables).  Bits come from the integer prior itself, walked anew for each
draw: between two integers they are taken as a straight line.  The synthesis is close to a linear map that weighs all
latents alike, the quantisation steps being what they are, so that plain descent with one rate converges in dozens of
steps, where Adam takes hundreds or runs away.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vaecodec import context
from vaecodec.coding import DETERMINISTIC
from vaecodec.filtering import Equations
from vaecodec.gradients import Distortion
from vaecodec.integer import one_thread, put_half, take_half
from vaecodec.tables import PRECISION, Tables
from vaecodec.tiling import Box
from vaecodec.weights import Model

ITERATIONS = (0, 3, 6, 10, 16, 25, 40, 70, 70)  # by effort, from 1; 120 were measured to gain no more than 70
# lambda * squared error grows by about this for a quantisation step, squared: 6 / ln 2, as of a fine quantiser
# at its best, less what coarse ones make of it.  Measured: 5.5 to 7.3 in the median channel at any quality.
CURVATURE = 7.0
# Few iterations take longer steps and begin colder.  Measured on held-out pictures, at 10 and 40 iterations.
RATE, RATE_FALL = 0.045, 0.4  # of descent, as a part of a Newton step
WARM, WARM_RISE, WARMEST, COLD = 0.25, 0.5, 0.5, 0.05  # temperatures at the beginning, and the one at the end
EDGE = 1e-4  # a latent that is nearer to an integer than this is drawn as if it were this near


ROUGH, MOST_ROUGH = 216, 40  # quality steps below this one gain nothing from more iterations than that, and lose some


def iterations_of(effort: int, step: int) -> int:
    """How often latents are refined at a quality step."""
    return min(ITERATIONS[effort - 1], MOST_ROUGH) if step < ROUGH else ITERATIONS[effort - 1]


def check_effort(effort: int) -> None:
    """Raises ValueError unless `effort` is one of 1..9."""
    if effort not in range(1, len(ITERATIONS) + 1):
        raise ValueError(f"effort is {effort!r}, expected a whole number in 1..{len(ITERATIONS)}")


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


class Refiner:
    """One tile at one quality step.

    `pixels` are u8[16 h, 16 w, C] of the tile and its margin, of which the first `seen` rows and columns are the
    picture's; y f32[h, w, M] goes with them and z with the `inner` cells alone, in quantisation steps.
    """

    def __init__(
        self,
        model: Model,
        pixels: np.ndarray,
        seen: tuple[int, int],
        y: np.ndarray,
        z: np.ndarray,
        inner: Box,
        step: int,
    ) -> None:
        self._prior, self._step, self._z, self._y, self._inner = model.prior, step, np.rint(z), y, inner
        self._pixels, self._seen = pixels.astype(np.float32), seen
        self._distortion, self._costs = Distortion(model, step), Costs(model.prior.models.tables)
        self._lambda = model.config.lambda_of_sum(step)
        self._pixel_step = model.pixel_step(step)
        self.equations: Equations | None = None  # for the picture's filter, of what was found best

    def __call__(self, iterations: int, tick: Callable[[], None] = lambda: None) -> np.ndarray:
        """f32[h', w', M]: better y of the inner cells, or what it was where that is not found; ticks each iteration."""
        rng = np.random.default_rng(0)
        start = self._y[self._inner.slices()]
        share = iterations / 10
        y, rate, warm = start, RATE / max(1.0, share) ** RATE_FALL, min(WARM * share**WARM_RISE, WARMEST)
        with one_thread:
            for n in range(iterations):
                left = 1 - n / iterations
                y = self._descend(y, rate * left, COLD * (warm / COLD) ** left, rng)
                tick()
            return y if self._cost(y) < self._cost(start) else start

    def _descend(self, y: np.ndarray, rate: float, temperature: float, rng: np.random.Generator) -> np.ndarray:
        """y after one step; what is not coded goes to its mean."""
        slopes, live, idle = np.zeros_like(y), np.zeros_like(y), np.zeros_like(y)

        def quantise(half: int, residual: np.ndarray, rows: np.ndarray) -> np.ndarray:
            low = np.floor(residual)
            lower, is_coded = low.astype(np.int32), rows != DETERMINISTIC
            slope = self._costs(lower + 1, rows) - self._costs(lower, rows)
            for array, values in ((slopes, slope), (live, is_coded), (idle, np.where(is_coded, 0, residual))):
                put_half(values, array, half)
            return lower + draw(residual - low, temperature, rng)

        values, _ = self._walk(y, quantise)
        error, back = self._error(values)
        slopes += self._lambda * back(2 * error)[self._inner.slices()]
        slopes *= live * np.float32(rate / (2 * CURVATURE))
        return y - idle - slopes

    def _cost(self, y: np.ndarray) -> float:
        """Bits and lambda * squared error of y, rounded."""
        values, bits = self._walk(y, lambda half, residual, rows: np.rint(residual).astype(np.int32))
        error, _ = self._error(values)
        return bits + self._lambda * float(np.square(error).sum(dtype=np.float64))

    def _walk(self, y: np.ndarray, quantise: Callable[..., np.ndarray]) -> tuple[np.ndarray, float]:
        """(latents as decoded, in quantisation steps, and their bits) where quantise(half, y - mean, rows) rounds."""
        unit, bits = np.float32(1 / context.UNIT), 0.0
        steps = context.walk(self._prior, y.shape[:2], self._step)
        rows, loc = next(steps)
        symbols = self._z.reshape(rows.shape).astype(np.int32)
        try:
            for half in (-1, 0, 1):
                if half >= 0:
                    symbols = quantise(half, take_half(y, half) - loc * unit, rows) * (rows != DETERMINISTIC)
                    bits += float(self._costs(symbols, rows).sum(dtype=np.float64))
                rows, loc = steps.send(symbols)
        except StopIteration as end:
            return end.value * unit, bits
        raise AssertionError("a walk ends with the second half")

    def _error(self, values: np.ndarray) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
        """(picture made of these latents of the inner cells - pixels, way back of its gradient); 0 beyond its edge."""
        picture, back = self._made(values)
        return self._less_pixels(picture), back

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


def draw(part: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
    """i32: 0 or 1 of each f32 in [0, 1), at random, the nearer the likelier; the colder the surer.

    Log odds are (atanh(1 - part) - atanh(part)) / temperature.
    """
    part = np.clip(part, EDGE, 1 - EDGE)
    odds = (2 - part) * (1 - part) / (part * (1 + part))
    with np.errstate(over="ignore"):
        np.power(odds, 0.5 / temperature, out=odds)
        odds += 1
        odds *= 1 - rng.random(part.shape, np.float32)  # never 0, which infinity does not go with
    return (odds < 1).astype(np.int32)
