"""Compute the distributions of a tile's coefficients with integer networks: of an octave, and of the lowest ones.

An octave [H, W] of C colours is coded in cells of 2x2 places, h = ceil(H / 2) by w = ceil(W / 2), in two halves
i32[h, w, 6C] that interleave like the colours of a checkerboard.  first_half and second_half compute a strip of rows
of cells into arrays of the whole octave, so that threads can share one.  Values are int32 in units of 2**-6
quantisation steps.

The lowest coefficients are coded before any octave, in five parts.  Every fourth coefficient of every fourth row is
the first part.  Each further part lies between four coefficients of parts before it: between their corners, then
between their sides, twice.  A small network sees those four.  There is one lowest coefficient in 1024 samples, so
this is NumPy around the dense kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vaecodec.native import library
from vaecodec.native.library import check, check_rows
from vaecodec.native.networks import Block, Dense, Depthwise, addresses, check_tape, dense
from vaecodec.native.reference import prior as reference
from vaecodec.native.reference.prior import INDEX_SHIFT, LOC_SHIFT, compand, rounded

PASSED = 8  # channels that the network of an octave hands to each cell of the next finer one
COLOURS_MAX, SCALES_MAX = 16, 256
ACTIVATION_MAX, WEIGHT_BITS, GATE_BITS = 1023, 9, 6

Weights = Mapping[str, np.ndarray]
Rows = tuple[int, int]  # the first row, and the one beyond the last


class Octave(NamedTuple):
    """The networks of one octave."""

    enter: Dense
    before: Block
    first: Dense  # sums: means, then scale indices
    known: Dense
    after: Block
    second: Dense
    passing: Dense | None  # none in the finest octave
    companding: np.ndarray  # i16[n]: the input for each magnitude, the last for all beyond
    scales: int

    @property
    def colours(self) -> int:
        return int(self.known.kernel.shape[0] // 12)

    @property
    def features(self) -> int:
        """Channels."""
        return self.enter.channels


class Before(NamedTuple):
    """The context of an octave: what is decoded of a tile before it."""

    low: np.ndarray  # i32[C, H, W]: low-pass planes
    parents: tuple[np.ndarray, np.ndarray] | None  # halves of the next coarser octave; none of the coarsest
    passed: np.ndarray | None  # i16[.., .., 4 * PASSED]: features that its network passed on


class FirstHalf(NamedTuple):
    """Features and distributions of the first half."""

    features: np.ndarray  # i16[h, w, features]
    loc: np.ndarray  # i32[h, w, 6C]: means
    indices: np.ndarray  # u8[h, w, 6C]: table indices


class SecondHalf(NamedTuple):
    """Distributions of the second half, and features for the next finer octave."""

    passed: np.ndarray | None  # i16[h, w, 4 * PASSED]
    loc: np.ndarray
    indices: np.ndarray


def load_octave(weights: Weights, octave: int, companding: np.ndarray, scales: int) -> Octave:
    """The networks of an octave from integer tensors by name.

    Raises ValueError where shapes do not fit each other, or sums could overflow, and KeyError where one is missing.
    """
    name = f"context/{octave}"
    enter, first = load_dense(weights, f"{name}/in"), load_dense(weights, f"{name}/first", "sums")
    known, second = load_dense(weights, f"{name}/known"), load_dense(weights, f"{name}/second", "sums")
    before, after = load_block(weights, f"{name}/block"), load_block(weights, f"{name}/after")
    passing = load_dense(weights, f"{name}/pass") if octave else None
    networks = Octave(enter, before, first, known, after, second, passing, companding, scales)
    colours, width = networks.colours, networks.features
    square, outputs = (width, width), [layer.kernel.shape for layer in (first, second)]
    blocks = [layer.kernel.shape for block in (before, after) for layer in block]
    if (
        not 1 <= colours <= COLOURS_MAX
        or enter.kernel.shape[0] not in (14 * colours, 14 * colours + PASSED)
        or known.kernel.shape != (12 * colours, width)
        or outputs != [(width, 12 * colours)] * 2
        or blocks != [square, (3, 3, width), square, (width, 2 * width), square] * 2
        or (passing is not None and passing.kernel.shape != (width, 4 * PASSED))
    ):
        raise ValueError("the layers of an octave's networks do not fit each other")
    if companding.dtype != np.int16 or companding.ndim != 1 or not len(companding) or companding[0]:
        raise ValueError("companding must be i16[n], 0 for 0")
    if companding.min() < 0 or companding.max() > ACTIVATION_MAX or not companding.flags.c_contiguous:
        raise ValueError(f"companding must be contiguous, 0 to {ACTIVATION_MAX}")
    if not 1 <= scales <= SCALES_MAX:
        raise ValueError(f"{scales} scales, expected 1 to {SCALES_MAX}")
    return networks


def load_dense(weights: Weights, name: str, form: str = "linear") -> Dense:
    """A layer of the prior: activations in units of 2**-6, weights in units of 2**-9."""
    kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
    return Dense(kernel, bias, np.array(WEIGHT_BITS), form=form, limit=ACTIVATION_MAX, gate=GATE_BITS)


def load_block(weights: Weights, name: str) -> Block:
    """A residual block of the prior, in the units of load_dense."""
    taps, bias = weights[f"{name}/space/kernel"], weights[f"{name}/space/bias"]
    space = Depthwise(taps, bias, np.array(WEIGHT_BITS), limit=ACTIVATION_MAX)
    forms = {"in": "relu", "out": "linear", "gate": "gate", "mix": "linear"}
    enter, out, gate, mix = (load_dense(weights, f"{name}/{part}", form) for part, form in forms.items())
    return Block(enter, space, out, gate, mix)


def companding_table(steps: np.ndarray) -> np.ndarray:
    """i16[n] of magnitudes 0 to n - 1, from the rising magnitudes at which one more is reached."""
    return np.bincount(steps).cumsum().astype(np.int16)


def cells_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of cells of an octave [H, W]."""
    return -(-shape[-2] // 2), -(-shape[-1] // 2)


def empty_first(networks: Octave, cells: tuple[int, int]) -> FirstHalf:
    """Arrays for first_half to fill."""
    shape = (*cells, 6 * networks.colours)
    features = np.empty((*cells, networks.features), np.int16)
    return FirstHalf(features, np.empty(shape, np.int32), np.empty(shape, np.uint8))


def empty_second(networks: Octave, cells: tuple[int, int]) -> SecondHalf:
    """Arrays for second_half to fill."""
    shape = (*cells, 6 * networks.colours)
    passed = np.empty((*cells, 4 * PASSED), np.int16) if networks.passing else None
    return SecondHalf(passed, np.empty(shape, np.int32), np.empty(shape, np.uint8))


def first_half(
    networks: Octave,
    vector: np.ndarray,
    before: Before,
    out: FirstHalf | None = None,
    strip: Rows | None = None,
    tape: np.ndarray | None = None,
) -> FirstHalf:
    """Compute features and distributions of the first half.

    `vector` i32[features] is added in the first layer; `tape` is that of networks.block.
    """
    low, colours, width = before.low, networks.colours, networks.features
    cells, numbers = cells_of(low.shape), numbers_of(networks, low.shape)
    out, strip = out or empty_first(networks, cells), strip or (0, cells[0])
    vector = np.ascontiguousarray(vector, np.int32)
    across = check_before(networks, before, cells)
    _check_parameters(networks, cells, out, strip)
    check("low", low, np.int32, (colours, *low.shape[1:]))
    check("vector", vector, np.int32, (width,))
    check("features", out.features, np.int16, (*cells, width))
    if library.in_numpy():
        for array, values in zip(out, reference.first_half(networks, vector, before, strip), strict=True):
            array[slice(*strip)] = values
        return out
    scratch = scratch_of(networks, cells[1])
    check_tape(tape, out.features.shape)
    layers = addresses(networks.enter, *networks.before, networks.first)
    coarser = (*(before.parents or (None, None)), before.passed, across)
    arrays = (vector, low, *coarser, tape, *out, scratch)
    library.call("prior_first", "piiiiipii" + "pppppippppp", layers, *numbers, *strip, *arrays)
    return out


def second_half(
    networks: Octave,
    shape: tuple[int, int],
    features: np.ndarray,
    values: np.ndarray,
    out: SecondHalf | None = None,
    strip: Rows | None = None,
    tape: np.ndarray | None = None,
) -> SecondHalf:
    """Compute distributions of the second half, and the features passed on, from features and values of the first.

    Args:
        shape: (H, W) of the octave.
        values: i32[h, w, 6C].
    """
    cells, numbers = cells_of(shape), numbers_of(networks, shape)
    out, strip = out or empty_second(networks, cells), strip or (0, cells[0])
    colours, width = networks.colours, networks.features
    _check_parameters(networks, cells, out, strip)
    check("features", features, np.int16, (*cells, width))
    check("values", values, np.int32, (*cells, 6 * colours))
    if (out.passed is None) != (networks.passing is None):
        raise ValueError("features are passed on if and only if there is a network for them")
    if out.passed is not None:
        check("passed", out.passed, np.int16, (*cells, 4 * PASSED))
    if library.in_numpy():
        for array, part in zip(out, reference.second_half(networks, shape, features, values, strip), strict=True):
            if array is not None:
                array[slice(*strip)] = part
        return out
    scratch = scratch_of(networks, cells[1])
    check_tape(tape, features.shape)
    layers = addresses(networks.known, *networks.after, networks.second, networks.passing)
    arrays = (features, values, tape, *out, scratch)
    library.call("prior_second", "piiiiipii" + "ppppppp", layers, *numbers, *strip, *arrays)
    return out


def numbers_of(networks: Octave, shape: tuple[int, ...]) -> tuple[object, ...]:
    """Arguments of kernels: C, H, W, scales, and the companding table with its last magnitude."""
    table = networks.companding
    return networks.colours, shape[-2], shape[-1], networks.scales, len(table) - 1, table


def scratch_of(networks: Octave, across: int) -> np.ndarray:
    """Scratch of kernels for rows of so many cells."""
    return library.memory(library.size("prior_scratch", across, networks.colours, networks.features))


def check_before(networks: Octave, before: Before, cells: tuple[int, int]) -> int:
    """Columns of cells of the next coarser octave, 0 where there is none; raises ValueError on other shapes."""
    inputs, colours = networks.enter.kernel.shape[0], networks.colours
    if (before.passed is not None) != (inputs == 14 * colours + PASSED):
        raise ValueError("the octave's network does not take the features that were passed on")
    coarser = [*(before.parents or ()), *([] if before.passed is None else [before.passed])]
    if not coarser:
        return 0
    size = coarser[0].shape[:2]
    if size[0] < -(-cells[0] // 2) or size[1] < -(-cells[1] // 2):
        raise ValueError(f"the next coarser octave has {list(size)} cells, too few for {list(cells)}")
    for half in before.parents or ():
        check("parents", half, np.int32, (*size, 6 * colours))
    if before.passed is not None:
        check("passed", before.passed, np.int16, (*size, 4 * PASSED))
    return int(size[1])


def _check_parameters(networks: Octave, cells: tuple[int, int], out: FirstHalf | SecondHalf, strip: Rows) -> None:
    shape = (*cells, 6 * networks.colours)
    check("loc", out.loc, np.int32, shape)
    check("indices", out.indices, np.uint8, shape)
    check_rows(strip, cells[0])
    if not min(cells):
        raise ValueError("an octave without cells")


LOWEST_GRID = 4  # rows and columns from one coefficient of the first part to the next
LOWEST_DISTANCES = (
    (2, True),
    (2, False),
    (1, True),
    (1, False),
)  # of the four, and if at the corners
LOWEST_PARTS = 1 + len(LOWEST_DISTANCES)


class LowestNetwork(NamedTuple):
    """The network of one part of the lowest coefficients, but the first."""

    enter: Dense
    middle: Dense  # relu
    out: Dense  # sums: means, then scale indices


class LowestNetworks(NamedTuple):
    """The networks of the lowest coefficients."""

    parts: list[LowestNetwork]
    companding: np.ndarray  # as in Octave
    scales: int


def load_lowest(weights: Weights, companding: np.ndarray, scales: int) -> LowestNetworks:
    """The networks of the lowest coefficients from integer tensors by name.

    Raises ValueError where shapes do not fit each other, or sums could overflow, and KeyError where one is missing.
    """
    parts = []
    for part in range(LOWEST_PARTS - 1):
        enter, middle = load_dense(weights, f"lowest/{part}/in"), load_dense(weights, f"lowest/{part}/middle", "relu")
        parts.append(LowestNetwork(enter, middle, load_dense(weights, f"lowest/{part}/out", "sums")))
        inputs, width = enter.kernel.shape
        if inputs % 10 or middle.kernel.shape != (width, width) or parts[-1].out.kernel.shape != (width, inputs // 5):
            raise ValueError("the layers of the lowest coefficients' networks do not fit each other")
    if len({network.enter.kernel.shape for network in parts}) > 1 or not 1 <= scales <= SCALES_MAX:
        raise ValueError("the networks of the lowest coefficients do not fit each other")
    return LowestNetworks(parts, companding, scales)


class Lowest:
    """The lowest coefficients i32[h, w, C] of a tile, part by part.

    Call `distribution` for each part in order, then `put` with the values that were coded.
    """

    def __init__(self, network: LowestNetworks, size: tuple[int, int], vectors: np.ndarray, start: np.ndarray) -> None:
        """`vectors` i32[4 * width] are added in the networks; `start` i32[2C]: means, indices of the first part."""
        self._network, self._size, self._start = network, size, start
        self._vectors = vectors.reshape(LOWEST_PARTS - 1, -1)
        self._known = np.zeros((size[0] * size[1], len(start) // 2), np.int32)
        self._places, self._around = lowest_places(*size), lowest_neighbours(*size)

    def distribution(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        """(table indices u8[n, C], means i32[n, C]) of a part."""
        count, channels = len(self._places[part]), self._known.shape[1]
        if part == 0:
            loc, index = self._start[:channels], np.clip(self._start[channels:], 0, self._network.scales - 1)
            return np.tile(index.astype(np.uint8), (count, 1)), np.tile(loc.astype(np.int32), (count, 1))
        near = self._known[self._around[part - 1]]
        mean = (near.sum(0, dtype=np.int32) + 2) >> 2
        x = compand(self._network.companding, np.concatenate([*(near - mean), mean], -1))
        network = self._network.parts[part - 1]
        hidden = np.maximum(dense(network.enter, np.concatenate([x, np.abs(x)], -1), vector=self._vectors[part - 1]), 0)
        sums = dense(network.out, dense(network.middle, hidden))
        loc = rounded(sums[:, :channels], LOC_SHIFT).astype(np.int32) + mean
        index = np.clip(rounded(sums[:, channels:], INDEX_SHIFT), 0, self._network.scales - 1)
        return index.astype(np.uint8), loc

    def put(self, part: int, values: np.ndarray) -> None:
        """Store the values i32[n, C] of a part."""
        self._known[self._places[part]] = values

    def planes(self) -> np.ndarray:
        """All coefficients, i32[C, h, w]."""
        return np.ascontiguousarray(self._known.T).reshape(-1, *self._size)


def lowest_parts(row: np.ndarray, column: np.ndarray) -> list[np.ndarray]:
    """Masks of the coefficients at these rows and columns that are in each part."""
    masks = [(row % LOWEST_GRID == 0) & (column % LOWEST_GRID == 0)]
    for distance, corners in LOWEST_DISTANCES:
        if corners:
            masks.append((row % (2 * distance) == distance) & (column % (2 * distance) == distance))
        else:
            here = (row % distance == 0) & (column % distance == 0)
            masks.append(here & ((row // distance + column // distance) % 2 == 1))
    return masks


@lru_cache(maxsize=64)
def lowest_places(height: int, width: int) -> list[np.ndarray]:
    """i64[n] of each part: the places of its coefficients, counted in rows from the top."""
    return [np.flatnonzero(part) for part in lowest_parts(*np.indices((height, width)))]


@lru_cache(maxsize=64)
def lowest_neighbours(height: int, width: int) -> list[np.ndarray]:
    """i64[4, n] of each part but the first: the places of the four that each coefficient lies between.

    Beyond an edge it is the one opposite; where there is none either, those at the other two sides.
    """
    neighbours = []
    for part, (distance, corners) in zip(lowest_places(height, width)[1:], LOWEST_DISTANCES, strict=True):
        row, column = np.divmod(part, width)
        up, down = _either_side(row, distance, height)
        left, right = _either_side(column, distance, width)
        if corners:
            four = [up * width + left, up * width + right, down * width + left, down * width + right]
        else:
            vertical, across = [up * width + column, down * width + column], [row * width + left, row * width + right]
            four = [*(across if height <= distance else vertical), *(vertical if width <= distance else across)]
        neighbours.append(np.stack(four))
    return neighbours


def _either_side(place: np.ndarray, distance: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.where(place >= distance, place - distance, place + distance)
    after = np.where(place + distance < count, place + distance, place - distance)
    return before, after
