"""context.walk for wavelets: from the lowest octave to the finest, each in two halves on a chessboard.

    lowest --> bands of octave 4 --> low-pass, twice as large --> bands of octave 3 --> ... --> bands of octave 0

What the prior sees of an octave are details of the low-pass picture that is known so far, and the bands of the octave
before: one network for all.  Those low-pass pictures are for it alone, in integers, of the tile as if there were
nothing beyond; the synthesis begins from the coefficients.

    value = 64 * symbol + sign(symbol) * centroid + loc         latents in units of 2**-6 quantisation steps
"""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vaecodec import lifting, network, pyramid
from vaecodec.cells import Band, in_bands
from vaecodec.coding import DETERMINISTIC
from vaecodec.config import LEVEL_STEPS
from vaecodec.engines import Engine
from vaecodec.errors import ModelError
from vaecodec.integer import (
    ACTIVATION_BITS,
    ACTIVATION_MAX,
    GAIN_BITS,
    LOC_GAIN,
    PRODUCT_BITS,
    WEIGHT_BITS,
    Exact,
    nearest,
    parity,
    shift,
)

if TYPE_CHECKING:
    from vaecodec.context import Prior, Step

UNIT = 1 << ACTIVATION_BITS
LOWEST_BITS = 4  # the lowest coefficients are seen at 1/16
VALUE_MAX = lifting.REACH  # of all values, in units of 2**-6
INDEX_SHIFT = PRODUCT_BITS - 3  # an activation of 1 is 8 rungs of the scale ladder
ENGINE_LEAST, ENGINE_MOST = 1 << 10, 1 << 15  # cells of a band
PROBE = 6  # rows and columns
PARTS = 2 + 2 * (pyramid.OCTAVES + 1)


class Levels(NamedTuple):
    """The integer side of one prior level; O = 5 octaves, finest first."""

    bias: np.ndarray  # i[O * prior], unit 2**-6, added to the features of each octave
    lowest: np.ndarray  # i[hyper_width], unit 2**-6, added in the network of the lowest
    start: np.ndarray  # i[2 C]: mean, unit 2**-6, and row of the first half of the lowest
    inverse_gain: np.ndarray  # i[O * 3 C], unit 2**-10: of each band, to the steps of the low-pass

    def bias_of(self, octave: int, width: int) -> np.ndarray:
        """i[width]: what is added to the features of one octave."""
        return self.bias[octave * width : (octave + 1) * width]


class Scaled(Exact):
    """integer.Exact with what the octaves ask for."""

    def condition(self, name: str, x: np.ndarray) -> np.ndarray:
        levels: Levels = self.conditions  # type: ignore[assignment]
        bias = levels.lowest if name == "lowest" else levels.bias_of(int(name.rpartition("/")[2]), x.shape[-1])
        return self._clip(np.add(x, bias.astype(x.dtype), out=x))

    def rectify(self, x: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0, out=x)

    def distribution(self, name: str, x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(means, unit 2**-6, rungs) [cells, count]."""
        t = self.layers[name].product(x.reshape(-1, x.shape[-1]))
        loc = t[:, :count] * t.dtype.type(LOC_GAIN)
        return shift(loc, WEIGHT_BITS), shift(t[:, count:], INDEX_SHIFT)


class Networks:
    """The networks of octaves for a band of rows, in NumPy: of its neighbours a row is seen, where there is one."""

    def __init__(self, prior: Prior, levels: Levels) -> None:
        self._prior, self._levels = prior, levels

    def count(self, cells: tuple[int, int]) -> int:
        """Of cells in a band, about; 0 for what suits NumPy."""
        return 0

    def first(self, octave: int, seen: np.ndarray, band: Band) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(features f32[n, w, prior], means f32, unit 2**-6, rows [cells, 6 C]) of `seen` f32[.., w, 14 C]."""
        ops = self._ops(band)
        features = network.octave_features(ops, self._prior.config, octave, seen)
        return features, *self._rows(network.octave_first(ops, self._prior.config, features))

    def second(self, features: np.ndarray, known: np.ndarray, band: Band) -> tuple[np.ndarray, np.ndarray]:
        """(means, rows) of the second half; `known` is f32[.., w, 12 C]."""
        return self._rows(network.octave_second(self._ops(band), self._prior.config, features, known))

    def _ops(self, band: Band) -> Scaled:
        return Scaled(self._prior.layers, self._levels, band.above, band.below)  # type: ignore[arg-type]

    def _rows(self, found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return found[0], np.clip(found[1], 0, self._prior.scales - 1, out=found[1])


class Accelerated(Networks):
    """The same by an engine."""

    def __init__(self, prior: Prior, levels: Levels, engine: Engine) -> None:
        super().__init__(prior, levels)
        self._engine = engine

    def count(self, cells: tuple[int, int]) -> int:
        share = -(-cells[0] * cells[1] // self._prior.threads)
        return min(max(share, ENGINE_LEAST), ENGINE_MOST)

    def first(self, octave: int, seen: np.ndarray, band: Band) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        width = self._prior.config.prior
        bias = self._levels.bias_of(octave, width).astype(np.float32)[None, None]
        return self._run("first", (seen, bias), band, width)  # type: ignore[return-value]

    def second(self, features: np.ndarray, known: np.ndarray, band: Band) -> tuple[np.ndarray, np.ndarray]:
        return self._run("second", (features, known), band)  # type: ignore[return-value]

    def _run(self, name: str, inputs: tuple[np.ndarray, ...], band: Band, *features: int) -> tuple[np.ndarray, ...]:
        """Means and rows, after features of this width where there are any; raises ModelError on others."""
        found, cells = self._engine.run(name, inputs), inputs[0].shape[:2]
        count, kinds = 6 * self._prior.config.channels, [(width, np.float32) for width in features]
        expected = [((1, *cells, width), kind) for width, kind in (*kinds, (count, np.float32), (count, np.uint8))]
        if [(one.shape, one.dtype) for one in found] != expected or found[-1].max() >= self._prior.scales:
            raise ModelError(f"the model's network of octaves, {name}, makes what is none of its parameters")
        return tuple(one[0, band.above : cells[0] - band.below] for one in found)


def fastest(prior: Prior, levels: Levels) -> Networks:
    """An engine's, where there is one that makes what NumPy makes."""
    if prior.engine is not None and prior.engine.agrees(partial(_alike, prior, levels)):
        return Accelerated(prior, levels, prior.engine)
    return Networks(prior, levels)


def _alike(prior: Prior, levels: Levels, engine: Engine) -> bool:
    """Whether both make the same of random activations, at all their range."""
    rng, whole, channels = np.random.default_rng(0), Band(0, PROBE, PROBE, PROBE), prior.config.channels
    both: list[Networks] = [Networks(prior, levels), Accelerated(prior, levels, engine)]
    for most in (60, 300, ACTIVATION_MAX):
        seen, known = (
            rng.integers(-most, most + 1, (PROBE, PROBE, width * channels)).astype(np.float32) for width in (14, 12)
        )
        for octave in range(pyramid.OCTAVES + 1):
            ours, theirs = (one.first(octave, seen.copy(), whole) for one in both)
            if not _same(ours, theirs) or ours[0].shape != theirs[0].shape:
                return False
            if not _same(*(one.second(theirs[0].copy(), known.copy(), whole) for one in both)):
                return False
    return True


def _same(ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(one.ravel(), two.ravel()) for one, two in zip(ours, theirs, strict=True))


@lru_cache(maxsize=4)
def companding(steps: bytes) -> np.ndarray:
    """f32[2 n + 1]: activations of values -n..n; `steps`, i32, are the magnitudes from which on they are 1, 2, ..."""
    edges = np.frombuffer(steps, np.int32)
    half = np.repeat(np.arange(len(edges), dtype=np.float32), np.diff(edges, prepend=0))
    half = np.append(half, np.float32(len(edges)))
    return np.concatenate([-half[:0:-1], half])


class Compander:
    """Values, integers in units of 2**-6, -> activations: logarithms of 1 + their magnitude, with their sign."""

    def __init__(self, steps: np.ndarray) -> None:
        self._table = companding(steps.astype(np.int32).tobytes())
        self._reach = len(self._table) // 2

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self._table.take(values.astype(np.int32) + self._reach, mode="clip")


def details(low: np.ndarray) -> np.ndarray:
    """i32[C, H, W] less the mean of the eight neighbours, mirrored at the edges, halves up."""
    wide = np.pad(low, [(0, 0), (1, 1), (1, 1)], "reflect")
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    around = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]
    around -= low
    around += 4
    around >>= 3
    return low - around


def with_magnitudes(*parts: np.ndarray) -> np.ndarray:
    """[..., a], [..., b] -> [..., 2 (a + b)]: each, and its magnitude."""
    return np.concatenate([both for one in parts for both in (one, np.abs(one))], -1)


def values_of(prior: Prior, symbols: np.ndarray, rows: np.ndarray, loc: np.ndarray) -> np.ndarray:
    """f32: what symbols stand for, within VALUE_MAX, unit 2**-6."""
    found, at = loc.copy(), np.flatnonzero(symbols)
    some = symbols.ravel()[at]
    nudge = prior.centroids[rows.ravel()[at], (np.abs(some) > 1).astype(np.intp)] * np.sign(some)
    found.ravel()[at] += UNIT * some.astype(np.float32) + nudge
    if max(found.max(initial=0), -found.min(initial=0)) > VALUE_MAX:
        np.clip(found, -VALUE_MAX, VALUE_MAX, out=found)
    return found


def walk(prior: Prior, cells: tuple[int, int], step: int) -> Generator[Step, np.ndarray, np.ndarray]:
    """Yields (rows u8, loc f32) and is sent symbols i32, as context.walk; returns y f32[h, w, 256 C].

    In order: even and odd places of the lowest coefficients [n, C], then both halves of octave 4, ..., 0: [cells, 6 C].
    """
    levels = Levels(*(field[step // LEVEL_STEPS] for field in prior.levels))
    compand, width = Compander(prior.companding), pyramid.BANDS * prior.config.channels
    networks = fastest(prior, levels)
    size = (-(-cells[0] // 2), -(-cells[1] // 2))
    low = yield from lowest(prior, levels, size)
    parents = np.zeros((width, *size), np.float32)
    bands: list[np.ndarray] = []
    for octave in range(pyramid.OCTAVES, -1, -1):
        size = low.shape[1:]
        halves = yield from both_halves(prior, networks, octave, compand, low, parents)
        found = pyramid.from_halves(*halves, size)
        if octave < pyramid.OCTAVES:
            bands.insert(0, found)
        if octave:
            gain = levels.inverse_gain[octave * width : (octave + 1) * width] * 2.0**-GAIN_BITS
            scaled = np.clip(nearest(found * gain[:, None, None]), -VALUE_MAX, VALUE_MAX)
            low = lifting.inverse(low, scaled.astype(np.int32), lifting.WHOLE, prior.each)
            np.clip(low, -VALUE_MAX, VALUE_MAX, out=low)
        if octave == pyramid.OCTAVES:
            low = low[:, : cells[0], : cells[1]]
            coarse = low.astype(np.float32)
        parents = found
    return pyramid.pack(pyramid.Planes(coarse, bands))


def lowest(prior: Prior, levels: Levels, size: tuple[int, int]) -> Generator[Step, np.ndarray, np.ndarray]:
    """i32[C, h, w]: the lowest coefficients, half of them by themselves, then those between them."""
    channels = prior.config.channels
    even, odd = parity(*size)
    rows = np.repeat(np.clip(levels.start[channels:], 0, prior.scales - 1).astype(np.uint8)[None], len(even), 0)
    loc = np.repeat(levels.start[:channels].astype(np.float32)[None], len(even), 0)
    known = np.zeros((*size, channels), np.float32)
    flat = known.reshape(-1, channels)
    flat[even] = values_of(prior, (yield rows, loc), rows, loc)

    wide = np.pad(known, [(1, 1), (1, 1), (0, 0)], "reflect")
    beside = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]
    seen = np.clip(shift(known.copy(), LOWEST_BITS), -ACTIVATION_MAX, ACTIVATION_MAX)
    wide = np.pad(seen, [(1, 1), (1, 1), (0, 0)])
    around = np.concatenate([wide[i : i + size[0], j : j + size[1]] for i in range(3) for j in range(3)], -1)
    loc, index = network.lowest_second(Scaled(prior.layers, levels), prior.config, around)  # type: ignore[arg-type]
    loc += shift(beside, 2).reshape(loc.shape)
    loc, rows = loc[odd].astype(np.float32), np.clip(index[odd], 0, prior.scales - 1).astype(np.uint8)
    flat[odd] = values_of(prior, (yield rows, loc), rows, loc)
    return np.ascontiguousarray(known.transpose(2, 0, 1)).astype(np.int32)


def both_halves(
    prior: Prior, networks: Networks, octave: int, compand: Compander, low: np.ndarray, parents: np.ndarray
) -> Generator[Step, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """f32[cells, 6 C] twice: the coefficients of an octave."""
    config, shape = prior.config, low.shape[1:]
    cells, count = (-(-shape[0] // 2), -(-shape[1] // 2)), 6 * config.channels
    # Of what is seen, only a band at a time: all of it takes more memory than the coefficients.
    hidden = compand(details(low))
    features = np.empty((*cells, config.prior), np.float32)

    def put(band: Band, mean: np.ndarray, index: np.ndarray) -> None:
        at, shape = slice(band.top, band.bottom), (band.bottom - band.top, cells[1], count)
        loc[at], rows[at] = mean.reshape(shape), index.reshape(shape)

    def one(band: Band) -> None:
        top, bottom = band.seen.start, band.seen.stop
        before = compand(parents[:, top:bottom, : cells[1]]).transpose(1, 2, 0)
        seen = with_magnitudes(pyramid.to_cells(hidden[:, 2 * top : 2 * bottom]), before)
        ahead, *found = networks.first(octave, seen, band)
        features[band.rows] = ahead
        put(band, *found)

    def two(band: Band) -> None:
        put(band, *networks.second(features[band.seen], with_magnitudes(compand(known[band.seen])), band))

    out = []
    for half, work in enumerate((one, two)):
        rows, loc = np.empty((*cells, count), np.uint8), np.empty((*cells, count), np.float32)
        in_bands(prior.each, cells, work, networks.count(cells))
        _blank(rows, loc, shape, half)
        question = rows.reshape(-1, count), loc.reshape(-1, count)
        if half:
            del features, hidden
        out.append(values_of(prior, (yield question), *question))
        known = out[0].reshape(*cells, count)
    return out[0], out[1]


def _blank(rows: np.ndarray, loc: np.ndarray, shape: tuple[int, ...], half: int) -> None:
    """Where an octave has an odd side, its last cells reach beyond it: what lies there is 0, and not coded."""
    numbers = pyramid.halves(rows.shape[2] // 6)[half]
    place = numbers // (rows.shape[2] // 2)
    for axis, odd in ((0, place // 2), (1, place % 2)):
        if shape[axis] % 2:
            beyond = (slice(-1, None), slice(None)) if axis == 0 else (slice(None), slice(-1, None))
            rows[beyond][..., odd == 1] = DETERMINISTIC
            loc[beyond][..., odd == 1] = 0
