"""Code planes of integers i64[L, H, W] as weights and entropy-coded residuals.

The planes are L / n chains of n planes, each of which is predicted with the two planes before it in its chain.  Chains
go in groups, whose planes are coded together: the first planes of all chains, then the second ones.  The encoder fits
the weights of a stage by least squares where they pay for themselves.

Weights are a zlib stream: a byte for each stage names its weights, and those of the stages with weights of their own
(OWN) follow, as i16.
"""

from __future__ import annotations

import zlib
from functools import partial
from typing import Protocol

import numpy as np

from vaecodec.arrays import prediction
from vaecodec.arrays.chunks import Coding, inflate
from vaecodec.arrays.prediction import Features, Guide, Index, Stage, Weights, predict, stages, weight_counts
from vaecodec.entropy import adaptive
from vaecodec.entropy.coding import reader, words, writer
from vaecodec.errors import FormatError
from vaecodec.threads import single_threaded_blas

GROUP_VALUES = 1 << 20  # of the planes that are coded together, unless a single plane is larger
GUIDES = 2
DEFAULT, FOLLOW, OWN, LAST, LAST_AT_LEVEL = range(5)  # weights of a stage
SAMPLE = 16_000  # approximate number of points that weights are fitted to
SAMPLE_STRIPS = 6
WEIGHT_BITS = 13  # approximate cost of a weight

Group = tuple[slice, int]  # index of planes [L / n, n, H, W]: chains, and the position in each


class Coder(Protocol):
    """An encoder or decoder of the weights and residuals of planes."""

    def weights(self, group: Group, stage: Stage) -> Weights: ...

    def residuals(self, group: Group, where: Index, predicted: np.ndarray, contexts: np.ndarray) -> np.ndarray: ...


def encode(
    numbers: np.ndarray, valid: np.ndarray | None, coding: Coding, base: np.ndarray | None
) -> tuple[bytes, bytes, np.ndarray]:
    """Encode i64[L, H, W] in 0..top, each within (step - 1) / 2: (weights, words, the planes that decode returns).

    Values that are not `valid` cost nothing and decode to anything.  `base`, of values in 0..top, approximates the
    planes.
    """
    encoder = _Encoder(numbers, valid, coding)
    with single_threaded_blas:  # least squares are small products
        decoded = _code_chains(numbers.shape, valid, coding, base, encoder)
    own = [part.astype("<i2").tobytes() for _, weights in encoder.choices if weights for part in weights]
    weights = zlib.compress(bytes(choice for choice, _ in encoder.choices) + b"".join(own), 9)
    coder = writer()
    encoder.symbols.push(coder)
    return weights, words(coder), decoded


def decode(
    weights: bytes,
    data: bytes,
    shape: tuple[int, ...],
    valid: np.ndarray | None,
    coding: Coding,
    base: np.ndarray | None,
) -> np.ndarray:
    """Decode float[L, H, W] from weights and words; raise FormatError on visible damage."""
    chains = shape[0] // coding.chain
    groups = coding.chain * -(-chains // _chains_in_group(shape, coding))
    stage_count = groups * sum(1 for _ in stages((1, *shape[1:])))
    empty = np.empty(0)
    guides = [Guide(empty, empty)] * GUIDES + [Guide(empty)] * (base is not None)
    most = max(sum(weight_counts(kind, guides)) for kind in range(3))
    coder = reader(data)
    decoder = _Decoder(inflate(weights, stage_count * (1 + 2 * most)), stage_count, adaptive.Decoder(coder))
    decoded = _code_chains(shape, valid, coding, base, decoder)
    decoder.check_end()
    if not coder.is_empty():
        raise FormatError("words are left over after the last residual")
    return decoded


def _code_chains(
    shape: tuple[int, ...], valid: np.ndarray | None, coding: Coding, base: np.ndarray | None, coder: Coder
) -> np.ndarray:
    """Code all planes in groups; returns what they decode to, float[L, H, W]."""
    top = coding.scale.top
    decoded = _chained(np.empty(shape, np.float32 if top <= prediction.FLOAT32_TOP else np.float64), coding)
    masks, bases = (None if planes is None else _chained(planes, coding) for planes in (valid, base))

    def residuals(group: Group, where: Index, predicted: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        contexts = contexts if masks is None else contexts * masks[group][where].ravel()
        return coder.residuals(group, where, predicted, contexts)

    together = _chains_in_group(shape, coding)
    for first in range(0, len(decoded), together):
        previous: list[Guide] = []
        for position in range(coding.chain):
            group = (slice(first, first + together), position)
            guides = previous[-GUIDES:] + ([] if bases is None else [Guide(bases[group])])
            weights, code = partial(coder.weights, group), partial(residuals, group)
            previous.append(prediction.code_plane(decoded[group].shape, top, coding.step, guides, weights, code))
            decoded[group] = previous[-1].values
    return decoded.reshape(shape)


def _chained(planes: np.ndarray, coding: Coding) -> np.ndarray:
    """Planes as [L / n, n, H, W]."""
    return planes.reshape(-1, coding.chain, *planes.shape[1:])


def _chains_in_group(shape: tuple[int, ...], coding: Coding) -> int:
    """The number of chains in a group; the last group may have fewer."""
    return max(1, min(GROUP_VALUES // (shape[1] * shape[2]), shape[0] // coding.chain))


class _History:
    """The weights that a stage may reuse."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, ...], Weights] = {}

    def options(self, stage: Stage) -> dict[int, Weights]:
        """Weights by choice, but for OWN."""
        options = {DEFAULT: prediction.default_weights(stage.kind, stage.guides, False)}
        if stage.guides:
            options[FOLLOW] = prediction.default_weights(stage.kind, stage.guides, True)
        for choice, key in self._keys(stage).items():
            if key in self._last:
                options[choice] = self._last[key]
        return options

    def add(self, stage: Stage, weights: Weights) -> Weights:
        """Record the weights of a stage, and return them."""
        self._last |= dict.fromkeys(self._keys(stage).values(), weights)
        return weights

    @staticmethod
    def _keys(stage: Stage) -> dict[int, tuple[int, ...]]:
        key = (stage.kind, *stage.weight_counts)
        return {LAST: key, LAST_AT_LEVEL: (stage.level, *key)}


class _Decoder:
    """Decode weights and residuals."""

    def __init__(self, weights: bytes, stage_count: int, symbols: adaptive.Decoder) -> None:
        if len(weights) < stage_count:
            raise FormatError("the weights are cut off")
        self._choices, self._own = iter(weights[:stage_count]), memoryview(weights)[stage_count:]
        self._history, self._symbols = _History(), symbols

    def weights(self, group: Group, stage: Stage) -> Weights:
        choice, options = next(self._choices), self._history.options(stage)
        if choice == OWN:
            options[OWN] = self._own_weights(*stage.weight_counts)
        if choice not in options:
            raise FormatError(f"a stage has weights of kind {choice}, which it cannot have")
        return self._history.add(stage, options[choice])

    def _own_weights(self, predict_count: int, expect_count: int) -> Weights:
        size = 2 * (predict_count + expect_count)
        if len(self._own) < size:
            raise FormatError("the weights are cut off")
        weights, self._own = np.frombuffer(self._own[:size], "<i2"), self._own[size:]
        own = Weights(weights[:predict_count], weights[predict_count:])
        predict_sum, expect_sum = (np.abs(part.astype(np.int64)).sum() for part in own)
        if predict_sum > prediction.PREDICT_MAX or expect_sum > prediction.EXPECT_MAX or own.expect.min() < 0:
            raise FormatError("the weights of a stage are out of range")
        return own

    def residuals(self, group: Group, where: Index, predicted: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        return self._symbols.get(contexts)

    def check_end(self) -> None:
        """Raise FormatError if weights are left."""
        if len(self._own):
            raise FormatError("weights are left over after the last stage")


class _Encoder:
    """Choose the weights of each stage by their cost, and encode residuals."""

    def __init__(self, numbers: np.ndarray, valid: np.ndarray | None, coding: Coding) -> None:
        self._numbers, self._valid = _chained(numbers, coding), None if valid is None else _chained(valid, coding)
        self._step, self._history = coding.step, _History()
        self.choices: list[tuple[int, Weights | None]] = []
        self.symbols = adaptive.Encoder()

    def residuals(self, group: Group, where: Index, predicted: np.ndarray, contexts: np.ndarray) -> np.ndarray:
        errors = self._numbers[group][where] - predicted.astype(np.int64)
        residuals = ((errors + self._step // 2) // self._step).ravel()
        residuals *= contexts > 0
        self.symbols.put(residuals, contexts)
        return residuals

    def weights(self, group: Group, stage: Stage) -> Weights:
        features, target = self._sample(group, stage)
        options = self._history.options(stage)
        count, columns = int(np.prod(stage.shape)), sum(stage.weight_counts)
        if min(count, len(target)) > 4 * columns:
            options[OWN] = fit_weights(features, target, stage.step, stage.top)
        costs = {}
        for choice, weights in options.items():
            bits = _estimate_bits(features, target, weights, stage.step, stage.top)
            costs[choice] = bits * count / max(1, len(target))
        if OWN in costs:
            costs[OWN] += WEIGHT_BITS * columns
        best = min(costs, key=lambda choice: costs[choice])
        self.choices.append((best, options[best] if best == OWN else None))
        return self._history.add(stage, options[best])

    def _sample(self, group: Group, stage: Stage) -> tuple[Features, np.ndarray]:
        """The features [n] of valid points throughout a stage, and their values f64[n]."""
        strips = list(stage.strips())
        every = max(1, int(np.prod(stage.shape)) // SAMPLE) | 1
        samples, targets = [], []
        for strip in strips[:: -(-len(strips) // SAMPLE_STRIPS)]:
            where = stage.where(strip)
            target = self._numbers[group][where].ravel()[::every].astype(np.float64)
            valid = slice(None) if self._valid is None else self._valid[group][where].ravel()[::every]
            targets.append(target[valid])
            features = stage.features(strip)
            arrays = [features.mean, *features.differences, *features.magnitudes]
            samples.append([array.ravel()[::every][valid] if array.ndim else array for array in arrays])
        mean, *rest = (np.concatenate(parts) if parts[0].ndim else parts[0] for parts in zip(*samples, strict=True))
        split = len(features.differences)
        return Features(mean, rest[:split], rest[split:]), np.concatenate(targets)


def _estimate_bits(features: Features, target: np.ndarray, weights: Weights, step: int, top: int) -> float:
    """The approximate cost of residuals: a Laplace density for each context, of its mean magnitude."""
    predicted, context = predict(features, weights, step, top)
    sizes = np.abs(target - predicted) / step
    scale = ((np.bincount(context, sizes) + 0.1) / np.maximum(np.bincount(context), 1))[context]
    inside = -np.log2(-np.expm1(-0.5 / scale))
    outside = (np.maximum(sizes - 0.5, 0) / scale) * np.log2(np.e) + np.log2(2 * scale + 1)
    return float(np.where(sizes < 0.5, inside, outside).sum())


def fit_weights(features: Features, target: np.ndarray, step: int, top: int) -> Weights:
    """Fit weights by least squares, in which points weigh less where values vary more."""
    columns = np.stack(features.differences, 1).astype(np.float64)
    activity = (features.magnitudes[1] + features.magnitudes[3]) / 16.0 + step / 2
    solved = _solve(columns / activity[:, None], (4 * target - features.mean) / activity, 0.01)
    predict_weights = _to_integers(solved, prediction.PREDICT_BITS, prediction.PREDICT_MAX)
    predicted, _ = predict(features, Weights(predict_weights, np.zeros(len(features.magnitudes), np.int16)), step, top)
    errors = np.abs(target - predicted) / activity
    columns = np.stack([np.broadcast_to(x, errors.shape).astype(np.float64) for x in features.magnitudes], 1)
    columns /= activity[:, None]
    kept, expectation = np.arange(columns.shape[1]), np.zeros(columns.shape[1])
    while len(kept):  # until no weight is negative
        solved = _solve(columns[:, kept], errors, 1e-6)
        if (solved >= 0).all():
            expectation[kept] = solved
            break
        kept = kept[solved > 0]
    return Weights(predict_weights, _to_integers(expectation, prediction.EXPECT_BITS, prediction.EXPECT_MAX))


def _solve(columns: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    """Ridge regression; 0 where there is no solution."""
    gram = columns.T @ columns
    gram[np.diag_indices_from(gram)] += ridge * len(target) / len(gram) + 1e-9
    try:
        return np.linalg.solve(gram, columns.T @ target)
    except np.linalg.LinAlgError:
        return np.zeros(len(gram))


def _to_integers(weights: np.ndarray, bits: int, most: int) -> np.ndarray:
    """Weights i16 in units of 2**-bits, scaled down where their magnitudes sum to more than `most`."""
    units = np.rint(np.nan_to_num(weights) * (1 << bits))
    integers: np.ndarray = np.trunc(units * min(1.0, most / max(np.abs(units).sum(), 1.0))).astype(np.int16)
    return integers
