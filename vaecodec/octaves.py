"""context.walk for wavelets: from the lowest octave to the finest, each in two halves on a chessboard.

    lowest --> bands of octave 4 --> low-pass, twice as large --> bands of octave 3 --> ... --> bands of octave 0

What the prior sees of an octave are details of the low-pass picture that is known so far, and the bands of the octave
before: one network for all.  Those low-pass pictures are for it alone, in integers, of the tile as if there were
nothing beyond; the synthesis begins from the coefficients.

    value = 64 * symbol + sign(symbol) * centroid + loc         latents in units of 2**-6 quantisation steps
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vaecodec import banded, network, pyramid
from vaecodec.cells import Band, Each, in_bands
from vaecodec.coding import DETERMINISTIC
from vaecodec.config import LEVEL_STEPS, Config
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
VALUE_MAX = 1 << 16  # of all values, in units of 2**-6
INDEX_SHIFT = PRODUCT_BITS - 3  # an activation of 1 is 8 rungs of the scale ladder
ENGINE_LEAST, ENGINE_MOST = 1 << 10, 1 << 15  # cells of a band
AT_ONCE = 1 << 15  # coefficients from which on threads are worth their while
PROBE = 6  # rows and columns
PARTS = 2 + 2 * (pyramid.OCTAVES + 1)


Places = Sequence[np.ndarray]


class Levels(NamedTuple):
    """The integer side of one prior level; O = 5 octaves, finest first."""

    bias: np.ndarray  # i[prior + (O - 1) * coarser], unit 2**-6, added to the features of each octave
    lowest: np.ndarray  # i[hyper_width], unit 2**-6, added in the network of the lowest
    start: np.ndarray  # i[2 C]: mean, unit 2**-6, and row of the first half of the lowest
    inverse_gain: np.ndarray  # i[O * 3 C], unit 2**-10: of each band, to the steps of the low-pass

    def bias_of(self, octave: int, width: int) -> np.ndarray:
        """i[width]: what is added to the features of one octave."""
        last = len(self.bias) - (pyramid.OCTAVES - octave) * width if octave else width
        return self.bias[last - width : last]


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

    def first(self, octave: int, seen: np.ndarray, band: Band, out: Places) -> None:
        """The octave's features f32[h, w, prior], means f32[h, w, 6 C], unit 2**-6, and rows u8 of the first half, of
        `seen` f32[n, w, 7 C] of a band and its neighbours; into `out`, from the band's first row on.
        """
        ops, config = self._ops(band), self._prior.config
        features = network.octave_features(ops, config, octave, with_magnitudes(seen))
        self._put(out, features, *network.octave_first(ops, config, octave, features))

    def second(self, octave: int, features: np.ndarray, known: np.ndarray, band: Band, out: Places) -> None:
        """Means and rows of the second half; `known`, f32[n, w, 6 C], is the first."""
        ops, config = self._ops(band), self._prior.config
        self._put(out, *network.octave_second(ops, config, octave, features, with_magnitudes(known)))

    def _ops(self, band: Band) -> Scaled:
        return Scaled(self._prior.layers, self._levels, band.above, band.below)  # type: ignore[arg-type]

    def _put(self, out: Places, *found: np.ndarray) -> None:
        np.clip(found[-1], 0, self._prior.scales - 1, out=found[-1])
        for place, one in zip(out, found, strict=True):
            height = len(one) if one.ndim == 3 else len(one) // place.shape[1]
            place[:height] = one.reshape(height, *place.shape[1:])


class Accelerated(Networks):
    """The same by an engine."""

    def __init__(self, prior: Prior, levels: Levels, engine: Engine) -> None:
        super().__init__(prior, levels)
        self._engine = engine

    def count(self, cells: tuple[int, int]) -> int:
        share = -(-cells[0] * cells[1] // self._prior.threads)
        return min(max(share, ENGINE_LEAST), ENGINE_MOST)

    def first(self, octave: int, seen: np.ndarray, band: Band, out: Places) -> None:
        bias = self._levels.bias_of(octave, self._prior.config.prior_of(octave)).astype(np.float32)
        self._run(f"first/{octave}", (seen, bias[None, None]), band, out)

    def second(self, octave: int, features: np.ndarray, known: np.ndarray, band: Band, out: Places) -> None:
        self._run(f"second/{octave}", (features, known), band, out)

    def _run(self, name: str, inputs: tuple[np.ndarray, ...], band: Band, out: Places) -> None:
        """Raises ModelError where what it makes does not fit into `out`, or has rows that there are not."""
        cells = inputs[0].shape[:2]

        def put(found: list[np.ndarray]) -> None:
            expected = [((1, *cells, place.shape[2]), place.dtype) for place in out]
            if [(one.shape, one.dtype) for one in found] != expected or found[-1].max() >= self._prior.scales:
                raise ModelError(f"the model's network of octaves, {name}, makes what is none of its parameters")
            for place, one in zip(out, found, strict=True):
                place[: band.bottom - band.top] = one[0, band.above : cells[0] - band.below]

        self._engine.run(name, inputs, put)


def fastest(prior: Prior, levels: Levels) -> Networks:
    """An engine's, where there is one that makes what NumPy makes."""
    if prior.engine is not None and prior.engine.agrees(partial(_alike, prior, levels)):
        return Accelerated(prior, levels, prior.engine)
    return Networks(prior, levels)


def _alike(prior: Prior, levels: Levels, engine: Engine) -> bool:
    """Whether both make the same of random activations: in some cells small ones, in others at all their range."""
    rng, whole, channels = np.random.default_rng(0), Band(0, PROBE, PROBE, PROBE), prior.config.channels
    both: list[Networks] = [Networks(prior, levels), Accelerated(prior, levels, engine)]
    cells = (PROBE, PROBE)
    most = rng.choice((60, 300, ACTIVATION_MAX), (*cells, 1))
    seen, known = (rng.integers(-most, most + 1, (*cells, width * channels)).astype(np.float32) for width in (7, 6))
    for octave in range(pyramid.OCTAVES + 1):
        out = [(_features(prior.config, octave, cells), *_parameters(prior.config, cells)) for _ in both]
        for one, places in zip(both, out, strict=True):
            one.first(octave, seen, whole, places)
        if not _same(*out):
            return False
        for one, places in zip(both, out, strict=True):
            one.second(octave, out[0][0].copy(), known, whole, places[1:])
        if not _same(*out):
            return False
    return True


def _features(config: Config, octave: int, cells: tuple[int, int]) -> np.ndarray:
    """Those of an octave, to be filled."""
    return np.empty((*cells, config.prior_of(octave)), np.float32)


def _parameters(config: Config, cells: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Means and rows of half an octave, to be filled."""
    shape = (*cells, 6 * config.channels)
    return np.empty(shape, np.float32), np.empty(shape, np.uint8)


def _same(ours: Places, theirs: Places) -> bool:
    return all(np.array_equal(one, two) for one, two in zip(ours, theirs, strict=True))


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


def details(low: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
    """Of i32[C, H, W] some rows, less the mean of the eight neighbours, mirrored at the edges, halves up."""
    top, bottom, _ = rows.indices(low.shape[1])
    above, below = top > 0, bottom < low.shape[1]
    edges = [(0, 0), (1 - above, 1 - below), (1, 1)]
    wide = np.pad(low[:, top - above : bottom + below], edges, "reflect")
    column = wide[:, :-2] + wide[:, 1:-1]
    column += wide[:, 2:]
    around = column[..., :-2] + column[..., 1:-1]
    around += column[..., 2:]
    here = low[:, top:bottom]
    around -= here
    around += 4
    around >>= 3
    return np.subtract(here, around, out=around)


def with_magnitudes(x: np.ndarray) -> np.ndarray:
    """[..., n] -> [..., 2 n]: x, and its magnitudes."""
    return np.concatenate([x, np.abs(x)], -1)


def values_of(prior: Prior, symbols: np.ndarray, rows: np.ndarray, loc: np.ndarray) -> np.ndarray:
    """f32: what symbols stand for, within VALUE_MAX, unit 2**-6."""
    found, at = loc.copy(), np.flatnonzero(symbols.ravel() != 0)  # of truth values that is fast, of integers slow
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
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for octave in range(pyramid.OCTAVES, -1, -1):
        size = low.shape[1:]
        halves = yield from both_halves(prior, networks, octave, compand, low, parents)
        if octave < pyramid.OCTAVES - 1:
            found.insert(0, halves)
        if octave:
            parents = pyramid.from_halves(*halves, size)
            gain = levels.inverse_gain[octave * width : (octave + 1) * width] * 2.0**-GAIN_BITS
            low = finer(low, parents, gain, prior.each)
        if octave == pyramid.OCTAVES:
            coarse = low = low[:, : cells[0], : cells[1]]
        elif octave == pyramid.OCTAVES - 1:
            third = parents
    return pyramid.assembled(pyramid.Coded(found, third, coarse))


def finer(low: np.ndarray, bands: np.ndarray, gain: np.ndarray, each: Each = map) -> np.ndarray:
    """i32[C, 2 h, 2 w]: the low-pass picture i32[C, h, w] with bands f32[3 C, h, w] times gain f64[3 C] added.

    A colour at a time, by `each`, a map.
    """
    channels, height, width = low.shape
    out = np.empty((channels, 2 * height, 2 * width), np.int32)

    def one(colour: int) -> None:
        scaled = nearest(bands[colour::channels] * gain[colour::channels, None, None])
        places = pyramid.joined(low[colour, None], np.clip(scaled, -VALUE_MAX, VALUE_MAX, out=scaled))
        found = banded.inverse_exactly(places)[0]
        out[colour] = np.clip(found, -VALUE_MAX, VALUE_MAX, out=found)

    for _ in (each if low.size >= AT_ONCE else map)(one, range(channels)):
        pass
    return out


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
    """f32[h, w, 6 C] twice: the coefficients of an octave."""
    shape = low.shape[1:]
    cells = (-(-shape[0] // 2), -(-shape[1] // 2))
    features = _features(prior.config, octave, cells)

    def one(band: Band) -> None:
        top, bottom = band.seen.start, band.seen.stop
        before = compand(parents[:, top:bottom, : cells[1]]).transpose(1, 2, 0)
        hidden = compand(details(low, slice(2 * top, 2 * bottom)))
        seen = np.concatenate([pyramid.to_cells(hidden), before], -1)
        networks.first(octave, seen, band, [place[band.top :] for place in (features, loc, rows)])

    def two(band: Band) -> None:
        known = compand(out[0][band.seen])
        networks.second(octave, features[band.seen], known, band, [place[band.top :] for place in (loc, rows)])

    out = list[np.ndarray]()
    for half, work in enumerate((one, two)):
        loc, rows = _parameters(prior.config, cells)
        in_bands(prior.each, cells, work, networks.count(cells))
        _blank(rows, loc, shape, half)
        question = rows.reshape(-1, rows.shape[2]), loc.reshape(-1, loc.shape[2])
        if half:
            del features
        symbols = yield question
        out.append(values_of(prior, symbols, *question).reshape(rows.shape))
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
