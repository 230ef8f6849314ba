"""The prior of the VAE: from the lowest octave to the finest, each in two halves on a checkerboard.

    lowest, in five parts --> bands of octave 4 --> low-pass, twice as large --> bands of octave 3 --> ... --> octave 0

What the prior sees of an octave are details of the low-pass picture that is known so far, the bands of the octave
before, and what the network of that one passes on.  Those low-pass pictures are for it alone, in integers, of the tile
as if there were nothing beyond; the synthesis begins from the coefficients.

    value = 64 * symbol + sign(symbol) * centroid + loc         latents in units of 2**-6 quantisation steps
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vaecodec import banded, network, pyramid
from vaecodec.cells import Band, Each, in_bands, run
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
    Layer,
    nearest,
    shift,
    shuffle,
)

if TYPE_CHECKING:
    from vaecodec.context import Prior, Step

UNIT = 1 << ACTIVATION_BITS
VALUE_MAX = 1 << 16  # of all values, in units of 2**-6
COMPANDED = 255.0  # beyond this many quantisation steps the prior sees no difference
INDEX_SHIFT = PRODUCT_BITS - 3  # an activation of 1 is 8 rungs of the scale ladder
ENGINE_LEAST, ENGINE_MOST = 1 << 10, 1 << 15  # cells of a band
AT_ONCE = 1 << 15  # coefficients from which on threads are worth their while
PROBE = 6  # rows and columns
LOWEST_PARTS = 1 + len(pyramid.LOWEST)
PARTS = LOWEST_PARTS + 2 * (pyramid.OCTAVES + 1)

# Parts of each octave, coarse to fine, the lowest coefficients first.
BY_OCTAVE = [slice(0, LOWEST_PARTS), *(slice(part, part + 2) for part in range(LOWEST_PARTS, PARTS, 2))]

Places = Sequence[np.ndarray]


class Levels(NamedTuple):
    """The integer side of one prior level; O = 5 octaves, finest first."""

    bias: np.ndarray  # i[prior + (O - 1) * coarser], unit 2**-6, added to the features of each octave
    lowest: np.ndarray  # i[4 hyper_width], unit 2**-6, added in the networks of the lowest
    start: np.ndarray  # i[2 C]: mean, unit 2**-6, and row of the first part of the lowest
    inverse_gain: np.ndarray  # i[O * 3 C], unit 2**-10: of each band, to the steps of the low-pass

    def bias_of(self, octave: int, width: int) -> np.ndarray:
        """i[width]: what is added to the features of one octave."""
        last = len(self.bias) - (pyramid.OCTAVES - octave) * width if octave else width
        return self.bias[last - width : last]


class Scaled(Exact):
    """integer.Exact with what the octaves ask for."""

    def __init__(self, layers: Mapping[str, Layer], levels: Levels, above: bool = False, below: bool = False) -> None:
        super().__init__(layers, above, below)
        self._levels = levels

    def condition(self, name: str, x: np.ndarray) -> np.ndarray:
        (kind, number), width = name.split("/"), x.shape[-1]
        first = int(number) * width
        levels, lowest = self._levels, kind == "lowest"
        bias = levels.lowest[first : first + width] if lowest else levels.bias_of(int(number), width)
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
        `seen` f32[n, w, 7 C + PASSED] of a band and its neighbours; into `out`, from the band's first row on.
        """
        ops, config = self._ops(band), self._prior.config
        features = network.octave_features(ops, config, octave, with_magnitudes(seen, 7 * config.channels))
        self._put(out, features, *network.octave_first(ops, config, octave, features))

    def second(self, octave: int, features: np.ndarray, known: np.ndarray, band: Band, out: Places) -> None:
        """But of octave 0, what is passed on, f32[h, w, 4 PASSED]; means and rows of the second half; `known`,
        f32[n, w, 6 C], is the first.
        """
        ops, config = self._ops(band), self._prior.config
        loc, rows, *passed = network.octave_second(ops, config, octave, features, with_magnitudes(known))
        self._put(out, *passed, loc, rows)

    def _ops(self, band: Band) -> Scaled:
        return Scaled(self._prior.layers, self._levels, band.above, band.below)

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
    widths = 7 * channels + network.PASSED, 6 * channels
    seen, known = (rng.integers(-most, most + 1, (*cells, width)).astype(np.float32) for width in widths)
    for octave in range(pyramid.OCTAVES + 1):
        first, second = ([_parameters(prior.config, cells) for _ in both] for _ in range(2))
        features, passed = ([_filled(cells, width) for _ in both] for width in _widths(prior.config, octave))
        for one, found, places in zip(both, features, first, strict=True):
            one.first(
                octave, seen[..., : widths[0] if octave < pyramid.OCTAVES else 7 * channels], whole, (found, *places)
            )
        for one, found, places in zip(both, passed, second, strict=True):
            one.second(octave, features[0].copy(), known, whole, (found, *places) if octave else places)
        if not all(_same(*two) for two in (first, second, [features[:1], features[1:]], [passed[:1], passed[1:]])):
            return False
    return True


def _widths(config: Config, octave: int) -> tuple[int, int]:
    """Channels of an octave's features, and of what it passes on."""
    return config.prior_of(octave), 4 * network.PASSED if octave else 0


def _filled(cells: tuple[int, int], width: int) -> np.ndarray:
    """f32, to be filled."""
    return np.empty((*cells, width), np.float32)


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


def with_magnitudes(x: np.ndarray, count: int | None = None) -> np.ndarray:
    """x, and the magnitudes of its first channels, or of all."""
    return np.concatenate([x, np.abs(x[..., :count])], -1)


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
    """Yields (rows u8, loc f32, unit 2**-6) and is sent symbols i32; returns y f32[h, w, 256 C], unit 2**-6.

    An encoder sends the symbols that it has, a decoder those that it decodes; both compute the same integers between.
    `cells` is (h, w), each at least 1.  In order: five parts of the lowest coefficients [n, C], then both halves of
    octave 4, ..., 0: [cells, 6 C].
    """
    levels = Levels(*(field[step // LEVEL_STEPS] for field in prior.levels))
    compand, width = Compander(prior.companding), pyramid.BANDS * prior.config.channels
    networks = fastest(prior, levels)
    size = (-(-cells[0] // 2), -(-cells[1] // 2))
    low = yield from lowest(prior, levels, compand, size)
    parents, passed = np.zeros((width, *size), np.float32), _filled(size, 0)
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for octave in range(pyramid.OCTAVES, -1, -1):
        size = low.shape[1:]
        before = Before(low, parents, passed)
        halves, passed = yield from both_halves(prior, networks, octave, compand, before)
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

    run(each if low.size >= AT_ONCE else map, one, range(channels))
    return out


def lowest(
    prior: Prior, levels: Levels, compand: Compander, size: tuple[int, int]
) -> Generator[Step, np.ndarray, np.ndarray]:
    """i32[C, h, w]: the lowest coefficients, few of them by themselves, then those between them, in four parts."""
    config, channels = prior.config, prior.config.channels
    places = pyramid.lowest_places(*size)
    rows = np.repeat(np.clip(levels.start[channels:], 0, prior.scales - 1).astype(np.uint8)[None], len(places[0]), 0)
    loc = np.repeat(levels.start[:channels].astype(np.float32)[None], len(places[0]), 0)
    known = np.zeros((size[0] * size[1], channels), np.float32)
    known[places[0]] = values_of(prior, (yield rows, loc), rows, loc)
    ops = Scaled(prior.layers, levels)
    for part, (here, around) in enumerate(zip(places[1:], pyramid.neighbours(*size), strict=True)):
        near = known[around]
        mean = shift(near.sum(0), 2)
        seen = compand(np.concatenate([*(near - mean), mean], -1))[None]
        loc, index = network.lowest_part(ops, config, part, with_magnitudes(seen))
        loc, rows = (loc + mean).astype(np.float32), np.clip(index, 0, prior.scales - 1).astype(np.uint8)
        known[here] = values_of(prior, (yield rows, loc), rows, loc)
    return np.ascontiguousarray(known.T).reshape(channels, *size).astype(np.int32)


class Before(NamedTuple):
    """What is known of a tile before an octave."""

    low: np.ndarray  # i32[C, H, W]: the low-pass picture, unit 2**-6
    parents: np.ndarray  # f32[3 C, h, w] or larger: values of the next coarser octave
    passed: np.ndarray  # f32[h, w, PASSED] or larger: what its network hands on; of octave 4 there are no channels


def both_halves(
    prior: Prior, networks: Networks, octave: int, compand: Compander, before: Before
) -> Generator[Step, np.ndarray, tuple[tuple[np.ndarray, np.ndarray], np.ndarray]]:
    """f32[h, w, 6 C] twice, the coefficients of an octave, and f32[2 h, 2 w, PASSED] for the next."""
    shape, (width, count) = before.low.shape[1:], _widths(prior.config, octave)
    cells = (-(-shape[0] // 2), -(-shape[1] // 2))
    features, passed = _filled(cells, width), _filled(cells, count)

    def one(band: Band) -> None:
        top, bottom = band.seen.start, band.seen.stop
        parents = compand(before.parents[:, top:bottom, : cells[1]]).transpose(1, 2, 0)
        hidden = compand(details(before.low, slice(2 * top, 2 * bottom)))
        seen = np.concatenate([pyramid.to_cells(hidden), parents, before.passed[top:bottom, : cells[1]]], -1)
        networks.first(octave, seen, band, [place[band.top :] for place in (features, loc, rows)])

    def two(band: Band) -> None:
        places = (passed, loc, rows) if octave else (loc, rows)
        known = compand(out[0][band.seen])
        networks.second(octave, features[band.seen], known, band, [place[band.top :] for place in places])

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
    return (out[0], out[1]), shuffle(passed, 2)


def _blank(rows: np.ndarray, loc: np.ndarray, shape: tuple[int, ...], half: int) -> None:
    """Where an octave has an odd side, its last cells reach beyond it: what lies there is 0, and not coded."""
    numbers = pyramid.halves(rows.shape[2] // 6)[half]
    place = numbers // (rows.shape[2] // 2)
    for axis, odd in ((0, place // 2), (1, place % 2)):
        if shape[axis] % 2:
            beyond = (slice(-1, None), slice(None)) if axis == 0 else (slice(None), slice(-1, None))
            rows[beyond][..., odd == 1] = DETERMINISTIC
            loc[beyond][..., odd == 1] = 0
