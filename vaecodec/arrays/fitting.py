"""What only encoders of arrays do: the weights of each stage, by least squares where they pay for themselves."""

from __future__ import annotations

import numpy as np

from vaecodec.arrays.lattice import (
    EXPECT_BITS,
    EXPECT_MAX,
    PREDICT_BITS,
    PREDICT_MAX,
    Scene,
    Stage,
    Weights,
    answer,
)
from vaecodec.arrays.weights import OWN, Memory

SAMPLE = 16_000  # points of a stage that are looked at, about
BANDS = 6  # in so many places
WEIGHT_COST = 13  # bits of a weight, about


class Chooser:
    """Answers walks with weights; `choices` are what a decoder needs.

    `values` i64[P, H, W] and which of them are `valid` are those of the planes that are being walked over.
    """

    def __init__(self) -> None:
        self.choices: list[tuple[int, Weights | None]] = []
        self._memory = Memory()

    def begin(self, values: np.ndarray, valid: np.ndarray | None) -> None:
        """Turns to the next planes."""
        self._values, self._valid = values, valid

    def __call__(self, scene: Scene) -> Weights:
        stage, target = self._sample(scene)
        options = self._memory.options(scene)
        count, columns = int(np.prod(scene.shape)), sum(scene.sizes)
        if min(count, len(target)) > 4 * columns:
            options[OWN] = fit(stage, target, scene.step, scene.top)
        costs = {}
        for choice, weights in options.items():
            costs[choice] = bits(stage, target, weights, scene.step, scene.top) * count / max(1, len(target))
        if OWN in costs:
            costs[OWN] += WEIGHT_COST * columns
        best = min(costs, key=lambda choice: costs[choice])
        self.choices.append((best, options[best] if best == OWN else None))
        return self._memory.keep(scene, options[best])

    def _sample(self, scene: Scene) -> tuple[Stage, np.ndarray]:
        """Some points of a stage, as columns, and their values f64[n]."""
        bands = list(scene.bands())
        bands = bands[:: -(-len(bands) // BANDS)]
        every = max(1, int(np.prod(scene.shape)) // SAMPLE) | 1
        parts, targets = [], []
        for band in bands:
            where = scene.where(band)
            target = self._values[where].ravel()[::every].astype(np.float64)
            kept = slice(None) if self._valid is None else self._valid[where].ravel()[::every]
            parts.append(_thin(scene.look(band), every, kept))
            targets.append(target[kept])
        return _joined(parts), np.concatenate(targets)


def _thin(stage: Stage, every: int, kept: slice | np.ndarray) -> Stage:
    def pick(x: np.ndarray) -> np.ndarray:
        return x.ravel()[::every][kept] if x.ndim else x

    return Stage(pick(stage.mean), list(map(pick, stage.differences)), list(map(pick, stage.magnitudes)))


def _joined(parts: list[Stage]) -> Stage:
    def join(*pieces: np.ndarray) -> np.ndarray:
        return np.concatenate(pieces) if pieces[0].ndim else pieces[0]

    differences = [join(*pieces) for pieces in zip(*(part.differences for part in parts), strict=True)]
    magnitudes = [join(*pieces) for pieces in zip(*(part.magnitudes for part in parts), strict=True)]
    return Stage(join(*(part.mean for part in parts)), differences, magnitudes)


def bits(stage: Stage, target: np.ndarray, weights: Weights, step: int, top: int) -> float:
    """About what the residuals of these points cost: each context a Laplace density of their mean magnitude."""
    predicted, rows = answer(stage, weights, step, top)
    sizes = np.abs(target - predicted) / step
    scale = ((np.bincount(rows, sizes) + 0.1) / np.maximum(np.bincount(rows), 1))[rows]
    inside = -np.log2(-np.expm1(-0.5 / scale))
    outside = (np.maximum(sizes - 0.5, 0) / scale) * np.log2(np.e) + np.log2(2 * scale + 1)
    return float(np.where(sizes < 0.5, inside, outside).sum())


def fit(stage: Stage, target: np.ndarray, step: int, top: int) -> Weights:
    """Least squares, points of great activity weighing less."""
    columns = np.stack(stage.differences, 1).astype(np.float64)
    busy = (stage.magnitudes[1] + stage.magnitudes[3]) / 16.0 + step / 2
    predict = _whole(_solve(columns / busy[:, None], (4 * target - stage.mean) / busy, 0.01), PREDICT_BITS, PREDICT_MAX)
    predicted, _ = answer(stage, Weights(predict, np.zeros(len(stage.magnitudes), np.int16)), step, top)
    expect = _expectation(stage, np.abs(target - predicted), busy)
    return Weights(predict, _whole(expect, EXPECT_BITS, EXPECT_MAX))


def _expectation(stage: Stage, sizes: np.ndarray, busy: np.ndarray) -> np.ndarray:
    """f64[k]: weights, none negative, of the magnitudes that sum to these sizes."""
    columns = np.stack([np.broadcast_to(x, sizes.shape).astype(np.float64) for x in stage.magnitudes], 1)
    columns, sizes = columns / busy[:, None], sizes / busy
    kept, found = np.arange(columns.shape[1]), np.zeros(columns.shape[1])
    while len(kept):
        solved = _solve(columns[:, kept], sizes, 1e-6)
        if (solved >= 0).all():
            found[kept] = solved
            break
        kept = kept[solved > 0]
    return found


def _solve(columns: np.ndarray, target: np.ndarray, ridge: float) -> np.ndarray:
    gram = columns.T @ columns
    gram[np.diag_indices_from(gram)] += ridge * len(target) / len(gram) + 1e-9
    try:
        return np.linalg.solve(gram, columns.T @ target)
    except np.linalg.LinAlgError:
        return np.zeros(len(gram))


def _whole(weights: np.ndarray, unit: int, most: int) -> np.ndarray:
    """i16: in units of 2**-unit, made smaller where their magnitudes sum to more than `most`."""
    units = np.rint(np.nan_to_num(weights) * (1 << unit))
    return np.trunc(units * min(1.0, most / max(np.abs(units).sum(), 1.0))).astype(np.int16)
