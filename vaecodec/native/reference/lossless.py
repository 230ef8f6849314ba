"""Define the lossless coder of planes: the same integers as the kernels, one sample at a time in plain Python.

All arithmetic is of integers; `>>` rounds towards minus infinity.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from vaecodec.native.reference.lossless_bits import CLASSES, Bits, Shape, clip

CHANNELS_MAX, DEPTH_MAX, BOUND_MAX, LEVEL_MAX = 4, 16, 16, 6
AHEAD_MAX = 12  # rows that a plane may be ahead of one that sees it
PAD, BLOCK = 8, 8
FINE = 3  # bits of estimates of samples below those of samples, with a bound
OWN = [(-1, 0), (-2, 0), (-3, 0), (-1, -1), (1, -1), (0, -2), (2, -1), (-2, -1), (-1, -2), (1, -2)]  # (dx, dy)
OWN += [(2, -2), (-2, -2), (0, -3), (3, -1), (-3, -1), (-1, -3), (1, -3), (-4, -1), (4, -1)]
OTHER = [(0, 0), (-1, 0), (1, 0), (-1, -1), (1, -1), (-2, 0), (2, 0)]
NUMBERS = ((19,), (12, 7), (8, 6, 5))  # features in the plane itself, in the one before, and in the one before that
FEATURES, SERIAL, RIDGE = 19, 3, 200
PAIRS = list(combinations_with_replacement(range(FEATURES + 1), 2))
BIAS_COUNT_MAX, DEVIATION_COUNT_MAX, DEVIATIONS = 255, 100, 96
WINDOWS_OF_FITS = ((2, 4),), ((1, 6), (3, 1)), ((1, 6), (2, 4), (4, 1))  # radius in blocks, decay
WINDOWS = WINDOWS_OF_FITS[0], *WINDOWS_OF_FITS, *WINDOWS_OF_FITS  # by level


def order_of_planes(channels: int) -> tuple[int, ...]:
    """The channel of each plane: green, red, blue, alpha; of one or two channels as they are."""
    return (1, 0, 2, 3)[:channels] if channels > 2 else tuple(range(channels))


def reference_planes(plane: int, channels: int) -> int:
    """The number of planes before this one that it sees."""
    return plane if channels > 2 and plane < 3 else 0


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of the lower 32 bits, signed."""
    return a.astype(np.int32).astype(np.int64) * b.astype(np.int32)


def _bits(values: np.ndarray) -> np.ndarray:
    return np.array([int(value).bit_length() for value in values], np.int64)


def solve(sums: np.ndarray) -> np.ndarray:
    """Weights i64[19, B] in 1/2^14 from sums of products i64[20, 20, B], the upper triangle: least squares by Cholesky.

    Inverse pivots, 1 / sqrt, are found by Newton's method from a straight line.
    """
    shift = 54 - _bits(np.einsum("iib->ib", sums).max(axis=0) + RIDGE)
    ridge = RIDGE << shift
    rest = sums << shift
    factor = np.zeros_like(rest)
    inverse, half = np.zeros_like(rest[0]), np.zeros_like(rest[0])
    for j in range(FEATURES):
        pivot = np.clip(rest[j, j] + ridge, ridge >> 6, 1 << 54)
        half[j] = (62 - _bits(pivot)) >> 1
        mantissa = (pivot << (2 * half[j])) >> 31
        root = 1148903751 - (mantissa * 644245094 >> 31)
        for _ in range(3):
            root = root * ((3 << 28) - ((root * root >> 30) * mantissa >> 31)) >> 29
        inverse[j] = root
        factor[j, j + 1 :] = _product(rest[j, j + 1 :] >> (28 - half[j]), root) >> 32
        for i in range(j + 1, FEATURES):
            rest[i, i:] -= _product(factor[j, i], factor[j, i:])
    solved = np.zeros_like(inverse)
    for j in reversed(range(FEATURES)):
        total = factor[j, FEATURES] << 16
        for i in range(j + 1, FEATURES):
            total = total - _product(factor[j, i], solved[i])
        total = np.clip(total >> (20 - half[j]), 1 - (1 << 31), (1 << 31) - 1)
        solved[j] = np.clip(total * inverse[j] >> 40, -1 << 19, 1 << 19)
    return solved[:FEATURES] >> 2


def log4(x: int) -> int:
    """4 log2(x) + 1, with straight lines between powers of two; 0 of 0."""
    exponent = x.bit_length() - 1
    return 4 * exponent + ((x << 2 >> exponent) & 3) + 1 if x else 0


def estimate(coded: int, residual: int, mean: int, energy: int, bound: int, maximum: int) -> int:
    """Estimate a sample that was coded within a bound, in eighths: of what its residual leaves open, near the mean."""
    half = 16 * bound + 8
    share = (half << 8) // (half + energy + 4)
    offset = half * share >> 9
    change = offset if residual < 0 else -offset if residual else (mean - 64 * coded) * share >> 11
    return clip((coded << FINE) + change, 0, maximum << FINE)


def nine(x: int) -> int:
    """One of nine classes of a difference."""
    size = sum(abs(x) >= limit for limit in (2, 6, 14, 32))
    return 4 - size if x < 0 else 4 + size


class _Plane:
    def __init__(self, height: int, width: int, level: int) -> None:
        self.blocks = -(-width // BLOCK)
        shape = height + 3, BLOCK * self.blocks + 2 * PAD  # three rows above
        self.samples, self.errors = np.zeros(shape, np.int64), np.zeros(shape, np.int64)  # samples, or estimates
        self.windows = WINDOWS[level]
        self.sums = np.zeros((len(self.windows), FEATURES + 1, FEATURES + 1, self.blocks), np.int64)
        self.weights = np.zeros((len(self.windows), FEATURES, self.blocks), np.int64)
        self.misses = np.zeros((len(self.windows), *shape), np.int64)  # errors of each fit
        self.deviations: dict[tuple[int, int], list[int]] = {}  # means of errors in 1/4096, counts
        self.bias: dict[int, list[int]] = defaultdict(lambda: [0, 0])  # mean in 1/4096, count
        self.coded = [0] * width  # samples of the row
        self.bits = Bits(level)


class PlaneCoder:
    """As lossless.PlaneCoder."""

    def __init__(self, image: np.ndarray, depth: int, bound: int = 0, level: int = 0) -> None:
        self._image, self._depth, self._bound, self._level = image, depth, bound, level
        self._planes = [_Plane(image.shape[0], image.shape[1], level) for _ in range(image.shape[2])]

    def encode(self, plane: int, rows: tuple[int, int]) -> bytes:
        """Encode the next rows of a plane."""
        bits = self._planes[plane].bits
        bits.out.clear()
        for y in range(*rows):
            self._code_row(plane, y)
        if rows[1] == len(self._image):
            bits.out.append(bits.high >> 24)
        return bytes(bits.out)

    def decode(self, plane: int, rows: tuple[int, int], data: bytes) -> bool:
        """Decode the next rows of a plane from its whole stream; returns whether the stream was long enough."""
        bits = self._planes[plane].bits
        if bits.data is None:
            bits.data = data
            for _ in range(4):
                bits.code = bits.code << 8 | bits.read()
        for y in range(*rows):
            self._code_row(plane, y)
        return bits.position <= len(data) + 3

    def _features(self, index: int, y: int) -> np.ndarray:
        """i64[20, columns] of a row, relative to the samples above; the last is the row itself."""
        count = reference_planes(index, len(self._planes))
        columns = BLOCK * self._planes[index].blocks
        features = []
        for back, number in enumerate(NUMBERS[count]):
            samples = self._planes[index - back].samples
            for dx, dy in (OTHER if back else OWN)[:number]:
                above = samples[y + 2, PAD : PAD + columns]
                features.append(samples[y + 3 + dy, PAD + dx : PAD + dx + columns] - above)
        samples = self._planes[index].samples
        features.append(samples[y + 3, PAD : PAD + columns] - samples[y + 2, PAD : PAD + columns])
        return np.array(features)

    def _code_row(self, index: int, y: int) -> None:
        plane, width = self._planes[index], self._image.shape[1]
        count = reference_planes(index, len(self._planes))
        row = self._image[y, :, order_of_planes(len(self._planes))[index]]
        samples, errors, fine = plane.samples[y + 3], plane.errors[y + 3], FINE if self._bound else 0
        if y == 0:
            plane.samples[:3] = self._planes[index - 1].samples[3, PAD] if count else 1 << (self._depth - 1 + fine)
        samples[:PAD], errors[:PAD] = plane.samples[y + 2, PAD], plane.errors[y + 2, PAD]
        samples[PAD:] = 0
        if plane.bits.data is None:
            plane.coded = np.minimum(row, (1 << self._depth) - 1).tolist()
        plane.misses[:, y + 3, :PAD] = plane.misses[:, y + 2, PAD, None]
        weights = np.repeat(plane.weights, BLOCK, axis=2)
        partial = (self._features(index, y)[SERIAL:-1] * weights[:, SERIAL:]).sum(axis=1)
        spreads = self._code_samples(index, y, partial.tolist(), weights[:, :SERIAL].tolist())
        plane.misses[:, y + 3, PAD + width :] = plane.misses[:, y + 3, PAD + width - 1, None]
        samples[PAD + width :], errors[PAD + width :] = samples[PAD + width - 1], errors[PAD + width - 1]
        row[:] = plane.coded
        # Learn the weights of the next row.
        scale = np.zeros(BLOCK * plane.blocks, np.int64)
        scale[:width] = spreads
        scaled = np.clip((self._features(index, y) >> max(0, self._depth - 12)) * scale >> (12 + fine), -511, 511)
        scaled = scaled.reshape(FEATURES + 1, plane.blocks, BLOCK)
        products = np.einsum("ibx,jbx->ijb", scaled, scaled)
        for fit, (radius, decay) in enumerate(plane.windows):
            plane.sums[fit] += products - (plane.sums[fit] >> 4) * decay
            wide = np.pad(plane.sums[fit], ((0, 0), (0, 0), (radius, radius)))
            windows = [wide[..., n : n + plane.blocks] for n in range(2 * radius + 1)]
            plane.weights[fit] = solve(np.sum(windows, axis=0))

    def _blend(self, plane: _Plane, fitted: list[int], y: int, x: int) -> int:
        """The mean of the predictions of fits, weighted by their squared errors around x."""
        if len(fitted) == 1:
            return fitted[0]
        weights = []
        for misses in plane.misses:
            here, above, above2 = (misses[y + 3 - n].tolist() for n in range(3))
            missed = 2 * here[x - 1] + 2 * above[x] + above[x - 1] + above[x + 1] + here[x - 2] + above2[x]
            weights.append((1 << 34) // ((missed >> (max(0, self._depth - 8) >> 1)) + 4) ** 2 + 1)
        total = sum(weights)
        return (sum(w * m for w, m in zip(weights, fitted, strict=True)) + (total >> 1)) // total

    def _place_shapes(
        self, plane: _Plane, y: int, x: int, predictions: list[int], base: int, o1: int, keys: list[tuple[int, int]]
    ) -> list[list[int]]:
        """Place the shapes of a sample around predictions of fits, the final one and guesses; returns their deviations.

        `keys` are those of the deviations of the final one, which has three, and of guesses.
        """
        places = []
        for fit, misses in enumerate(plane.misses):
            here, above, above2 = (misses[y + 3 - n].tolist() for n in range(3))
            missed = 4 * here[x - 1] + 4 * above[x] + 2 * above[x - 1] + 3 * above[x + 1] + here[x - 2] + above2[x]
            places.append((fit, min(log4((missed + above[x + 2] + 8 * o1) >> 3), DEVIATIONS - 1)))
        deviations = []
        for n, key in enumerate(places + keys):
            if key not in plane.deviations:
                octave, part = divmod(key[1] - 1, 4)
                start = 819 + (128 * (4 + part) << min(octave, 18) if key[1] else 0)
                plane.deviations[key] = [0 if key[0] in (4, 5) else start, 0]
            deviations.append(plane.deviations[key])
            if key[0] in (4, 5) and not deviations[n][1]:
                deviations[n][0] = deviations[len(places)][0]
        pairs = zip(predictions, deviations, strict=True)
        step = 2 * self._bound + 1
        plane.bits.shapes = [Shape(plane.bits.tables, prediction - base, d, step) for prediction, d in pairs]
        return deviations

    def _code_samples(self, index: int, y: int, partial: list[list[int]], weights: list[list[list[int]]]) -> list[int]:
        """Code a row's samples into plane.samples and plane.errors; returns the scale of each for the fit."""
        plane, depth, bound, width = self._planes[index], self._depth, self._bound, self._image.shape[1]
        count, bits, maximum, step = (
            reference_planes(index, len(self._planes)),
            plane.bits,
            (1 << depth) - 1,
            2 * bound + 1,
        )
        less, fine = max(0, depth - 8) >> 1, FINE if bound else 0
        unit = 64 >> fine  # of samples and estimates
        line: Any = plane.samples[y + 3].tolist()
        above2, above = plane.samples[y + 1 : y + 3].tolist()
        errors2, errors1 = plane.errors[y + 1 : y + 3].tolist()
        errors = plane.errors[y + 3].tolist()
        before = self._planes[index - 1] if count else plane
        other_above, other = before.samples[y + 2 : y + 4].tolist()
        other_errors = before.errors[y + 3].tolist()
        first_above, first_samples = (self._planes[index - 2] if count > 1 else plane).samples[y + 2 : y + 4].tolist()
        first_errors = self._planes[index - 2].errors[y + 3].tolist() if count > 1 else other_errors
        scales = []
        for n in range(width):
            x = PAD + n
            value, W, WW, N, NW, NE, NN = (
                plane.coded[n],
                line[x - 1],
                line[x - 2],
                above[x],
                above[x - 1],
                above[x + 1],
                above2[x],
            )
            if y:
                fitted = []
                for sums, own_weights in zip(partial, weights, strict=True):
                    total = sums[n] + sum((line[x - k - 1] - N) * own_weights[k][n] for k in range(SERIAL))
                    fitted.append(clip((total >> (8 + fine)) + unit * N, 0, 64 * maximum))
            else:
                start = clip(W + other[x] - other[x - 1], 0, maximum << fine) if count else W
                fitted = [unit * start] * len(plane.windows)
            mean = self._blend(plane, fitted, y, x) if y else fitted[0]
            eW, eWW, eN, eNW = abs(errors[x - 1]), abs(errors[x - 2]), abs(errors1[x]), abs(errors1[x - 1])
            eNE, eNEE, eNN, eNNE = abs(errors1[x + 1]), abs(errors1[x + 2]), abs(errors2[x]), abs(errors2[x + 1])
            o1, o2 = abs(other_errors[x]) * (count > 0), abs(first_errors[x]) * (count > 1)
            own = (4 * eW + 4 * eN + 2 * eNW + 3 * eNE + eWW + eNN + eNEE) >> 2
            total = (own, (2 * own + 8 * o1) >> 2, (2 * own + 4 * o1 + 4 * o2) >> 2)[count]
            log_own, log_all = log4(own >> 1), log4(total >> 1)
            texture = sum((unit * p > mean) << k for k, p in enumerate((W, N, NW, NE, WW, NN)))
            side = other_errors[x] if count else errors1[x + 1]
            triples = (
                [e >> (1 + less) for e in (errors[x - 1], errors1[x], side)],
                [(unit * p - mean) >> (5 + less) for p in (N, W, NE)],
            )
            places = [texture * 16 + min(log_own >> 2, 15)]
            places += [1024 * (k + 1) + nine(a) * 81 + nine(b) * 9 + nine(c) for k, (a, b, c) in enumerate(triples)]
            biases = [plane.bias[place] for place in places]
            unbiased = mean
            mean = clip(mean + (sum(bias[0] for bias in biases) * 21846 >> 22), 0, 64 * maximum)
            prediction = (mean + 32) >> 6
            fraction = (mean - 64 * prediction + 32) >> 3
            if count:
                a, b, c = W - other[x - 1], N - other_above[x], NW - other_above[x - 1]
                median = other[x] + sorted((a, b, a + b - c))[1]
            else:
                median = sorted((W, N, W + N - NW))[1]
            activity = abs(W - NW) + abs(N - NW) + abs(N - NE) + abs(W - WW) + abs(N - NN)
            half, g1, g2 = min(log_all >> 1, 15), min(log4(o1 >> less) >> 2, 8), min(log4(o2 >> less) >> 2, 8)
            s1, s2 = other_errors[x] if count else errors[x - 1], first_errors[x] if count > 1 else errors1[x]
            r1, r2 = (s1 + (2 << less)) >> (2 + less), (s2 + (4 << less)) >> (3 + less)
            dN, dW, dM = ((unit * p - mean) >> (5 + less) for p in (N, W, median))
            groups = [log4(e >> less) for e in (eNW + eNN + eNNE, eW + eWW, eN + eNE + eNEE)]
            contexts = (
                min(log_all, 63) * 8 + fraction,
                (min(log_own >> 1, 23) * 9 + g1) * 9 + g2
                if count
                else min(log4(activity >> (less + fine)), 40) * 48 + min(log_all, 47),
                (nine(dN) * 9 + nine(dW)) * 16 + half,
                ((clip(r1, -8, 8) + 8) * 7 + clip(r2, -3, 3) + 3) * 16 + half,
                (clip(dM, -7, 7) + 7) * 128 + half * 8 + fraction,
                (prediction >> max(0, depth - 8)) * 8 + min(log_all >> 2, 7),
                (clip(groups[0] >> 1, 4, 19) - 4) * 128
                + (clip(groups[1] >> 1, 4, 19) - 4) * 8
                + (clip(groups[2] >> 2, 2, 9) - 2),
            )
            bits.contexts = [2048 * k + context for k, context in enumerate(contexts)]
            bits.error_class = min(log_all >> 1, CLASSES - 1)
            deviations: list[list[int]] = []
            if self._level:
                bits.sides = nine(dN) * 9 + nine(dW)
                keys = [(3, min(log_all, DEVIATIONS - 1)), (4, contexts[6]), (5, contexts[1])]
                predictions = [*fitted, mean, mean, mean]
            if self._level > 3:
                bits.height = prediction << 5 >> depth
                bits.map_sides = nine((unit * WW - mean) >> (5 + less)) * 9 + nine((unit * NE - mean) >> (5 + less))
                guesses = (
                    median,
                    W + other[x] - other[x - 1] if count else 2 * W - WW,
                    N + other[x] - other_above[x] if count else 2 * N - NN,
                    W + first_samples[x] - first_samples[x - 1] if count > 1 else W + NE - N,
                    N + first_samples[x] - first_above[x] if count > 1 else W + N - NW,
                )
                keys += [(6 + n, min(log_all, DEVIATIONS - 1)) for n in range(len(guesses))]
                predictions += [unit * guess for guess in guesses]
            if self._level:
                deviations = self._place_shapes(plane, y, x, predictions, 64 * prediction, o1, keys)
            residual = value - prediction
            residual = -((bound - residual) // step) if residual < 0 else (residual + bound) // step
            residual = bits.residual(depth, residual)
            coded = plane.coded[n] = clip(prediction + residual * step, 0, maximum)
            guess = estimate(coded, residual, mean, total, bound, maximum) if bound else coded
            line[x] = plane.samples[y + 3, x] = guess
            errors[x] = plane.errors[y + 3, x] = (64 * coded - mean) >> 4
            for deviation, centre in zip(deviations, predictions if deviations else (), strict=True):
                deviation[0] += (64 * abs(64 * coded - centre) - deviation[0]) * bits.tables.reciprocals[
                    deviation[1] + 2
                ] >> 16
                deviation[1] += deviation[1] < DEVIATION_COUNT_MAX
            plane.misses[:, y + 3, x] = [abs(64 * coded - centre) >> 4 for centre in fitted]
            for bias in biases:
                bias[0] += (64 * (64 * coded - unbiased) - bias[0]) * bits.tables.reciprocals[bias[1] + 2] >> 16
                bias[1] += bias[1] < BIAS_COUNT_MAX
            spread = (((eW + eN + eNW + eNE) >> 2) + (abs(errors[x]) >> 1)) >> max(0, depth - 12)
            scales.append(4 * bits.tables.reciprocals[min(4 + spread, 4095)])
        return scales
