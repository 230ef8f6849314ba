"""The prior of one octave: distributions of the two halves of its coefficients, from all that is coded before.

An octave [H, W] of C colours is coded in cells of 2x2 places, h = ceil(H / 2) by w = ceil(W / 2), in two halves
i32[h, w, 6C] that lie among each other like the colours of a checkerboard.  Both functions compute a strip of rows
of cells into arrays of the whole octave, so that threads can share one.  Values are int32 in units of 2**-6
quantisation steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vaecodec.native import library
from vaecodec.native.networks import Block, Dense, Depthwise
from vaecodec.native.reference import prior as reference

PASSED = 8  # channels that the network of an octave hands to each cell of the next finer one
COLOURS_MAX, SCALES_MAX = 16, 256
ACTIVATION_MAX, WEIGHT_BITS, GATE_BITS = 1023, 9, 6

Weights = Mapping[str, np.ndarray]


class Octave(NamedTuple):
    """The networks of one octave."""

    enter: Dense
    before: Block
    first: Dense  # sums: means, then scale indices
    known: Dense
    after: Block
    second: Dense
    passing: Dense | None  # none in the finest octave
    companding: np.ndarray  # i16[n]: what stands for each magnitude, the last for all beyond
    scales: int

    @property
    def colours(self) -> int:
        return self.known.kernel.shape[0] // 12

    @property
    def features(self) -> int:
        """Channels."""
        return self.enter.channels


class Before(NamedTuple):
    """What is known of a tile before an octave."""

    low: np.ndarray  # i32[C, H, W]: low-pass planes
    parents: tuple[np.ndarray, np.ndarray] | None  # halves of the next coarser octave; none of the coarsest
    passed: np.ndarray | None  # i16[.., .., 4 * PASSED]: what its network passed on


class FirstHalf(NamedTuple):
    features: np.ndarray  # i16[h, w, features]
    loc: np.ndarray  # i32[h, w, 6C]
    rows: np.ndarray  # u8[h, w, 6C]: table indices


class SecondHalf(NamedTuple):
    passed: np.ndarray | None  # i16[h, w, 4 * PASSED]
    loc: np.ndarray
    rows: np.ndarray


def load_octave(weights: Weights, octave: int, companding: np.ndarray, scales: int) -> Octave:
    """The networks of an octave from integer tensors by name.

    Raises ValueError where shapes do not fit each other, or sums could overflow, and KeyError where one is missing.
    """
    name, passes = f"context/{octave}", octave > 0
    enter, first = load_dense(weights, f"{name}/in"), load_dense(weights, f"{name}/first", "sums")
    known, second = load_dense(weights, f"{name}/known"), load_dense(weights, f"{name}/second", "sums")
    before, after = load_block(weights, f"{name}/block"), load_block(weights, f"{name}/after")
    passing = load_dense(weights, f"{name}/pass") if passes else None
    networks = Octave(enter, before, first, known, after, second, passing, companding, scales)
    _check_octave(networks)
    return networks


def load_dense(weights: Weights, name: str, form: str = "linear") -> Dense:
    """A layer of the prior: activations in units of 2**-6, weights in units of 2**-9."""
    kernel, bias = weights[f"{name}/kernel"], weights[f"{name}/bias"]
    return Dense(kernel, bias, np.array(WEIGHT_BITS), form=form, limit=ACTIVATION_MAX, gate=GATE_BITS)


def load_block(weights: Weights, name: str) -> Block:
    space = Depthwise(
        weights[f"{name}/space/kernel"], weights[f"{name}/space/bias"], np.array(WEIGHT_BITS), limit=ACTIVATION_MAX
    )
    forms = {"in": "relu", "out": "linear", "gate": "gate", "mix": "linear"}
    enter, out, gate, mix = (load_dense(weights, f"{name}/{part}", form) for part, form in forms.items())
    return Block(enter, space, out, gate, mix)


def companding_table(steps: np.ndarray) -> np.ndarray:
    """i16[n] of magnitudes 0 to n - 1, from the rising magnitudes at which one more is reached."""
    return np.searchsorted(steps, np.arange(int(steps[-1]) + 1), side="right").astype(np.int16)


def cells_of(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of cells of an octave [H, W]."""
    return -(-shape[-2] // 2), -(-shape[-1] // 2)


def empty_first(networks: Octave, cells: tuple[int, int]) -> FirstHalf:
    """Arrays to be filled."""
    loc, rows = _empty_parameters(networks, cells)
    return FirstHalf(np.empty((*cells, networks.features), np.int16), loc, rows)


def empty_second(networks: Octave, cells: tuple[int, int]) -> SecondHalf:
    """Arrays to be filled."""
    loc, rows = _empty_parameters(networks, cells)
    return SecondHalf(np.empty((*cells, 4 * PASSED), np.int16) if networks.passing else None, loc, rows)


def first_half(
    networks: Octave,
    vector: np.ndarray,
    before: Before,
    out: FirstHalf | None = None,
    strip: tuple[int, int] | None = None,
) -> FirstHalf:
    """Features and distributions of the first half; `vector` i32[features] is added to what enters the network."""
    colours, low = networks.colours, before.low
    _expect("low", low, np.int32, (colours, *low.shape[1:]))
    cells = cells_of(low.shape)
    out, (top, bottom) = out or empty_first(networks, cells), strip or (0, cells[0])
    vector = np.ascontiguousarray(vector, np.int32)
    _expect("vector", vector, np.int32, (networks.features,))
    _expect("features", out.features, np.int16, (*cells, networks.features))
    _expect_parameters(networks, cells, out.loc, out.rows, (top, bottom))
    across = _check_before(networks, before, cells)
    if library.kind() == library.REFERENCE:
        for array, found in zip(out, reference.first_half(networks, vector, before, (top, bottom)), strict=True):
            array[top:bottom] = found
        return out
    layers = library.addresses([networks.enter.packed, *networks.before.packed, networks.first.packed])
    parents = before.parents or (None, None)
    signature = "piiiiipii" + "pppppippp" + "p"
    arrays = (vector, low, *parents, before.passed, across, *out)
    library.call("prior_first", signature, layers, *_numbers(networks, low.shape), top, bottom, *arrays,
                 _scratch(networks, cells[1]))  # fmt: skip
    return out


def second_half(
    networks: Octave,
    shape: tuple[int, int],
    features: np.ndarray,
    values: np.ndarray,
    out: SecondHalf | None = None,
    strip: tuple[int, int] | None = None,
) -> SecondHalf:
    """Distributions of the second half, and what is passed on, from the features and values of the first half.

    Args:
        shape: (H, W) of the octave.
        values: i32[h, w, 6C].
    """
    cells = cells_of(shape)
    out, (top, bottom) = out or empty_second(networks, cells), strip or (0, cells[0])
    _expect("features", features, np.int16, (*cells, networks.features))
    _expect("values", values, np.int32, (*cells, 6 * networks.colours))
    _expect_parameters(networks, cells, out.loc, out.rows, (top, bottom))
    if (out.passed is None) != (networks.passing is None):
        raise ValueError("what is passed on is computed if and only if there is a network for it")
    if out.passed is not None:
        _expect("passed", out.passed, np.int16, (*cells, 4 * PASSED))
    if library.kind() == library.REFERENCE:
        made = reference.second_half(networks, shape, features, values, (top, bottom))
        for array, found in zip(out, made, strict=True):
            if array is not None:
                array[top:bottom] = found
        return out
    passing = networks.passing.packed if networks.passing else 0
    layers = library.addresses([networks.known.packed, *networks.after.packed, networks.second.packed, passing])
    numbers = _numbers(networks, shape)
    library.call("prior_second", "piiiiipii" + "pppppp", layers, *numbers, top, bottom, features, values, *out,
                 _scratch(networks, cells[1]))  # fmt: skip
    return out


def _numbers(networks: Octave, shape: tuple[int, ...]) -> tuple[object, ...]:
    table = networks.companding
    return networks.colours, shape[-2], shape[-1], networks.scales, len(table) - 1, table


def _scratch(networks: Octave, across: int) -> np.ndarray:
    return library.memory(library.call("prior_scratch", "iii", across, networks.colours, networks.features))


def _empty_parameters(networks: Octave, cells: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    shape = (*cells, 6 * networks.colours)
    return np.empty(shape, np.int32), np.empty(shape, np.uint8)


def _check_octave(networks: Octave) -> None:
    colours, width = networks.colours, networks.features
    inputs = networks.enter.kernel.shape[0]
    square, shapes = (width, width), [layer.kernel.shape for layer in (networks.first, networks.second)]
    blocks = [layer.kernel.shape for block in (networks.before, networks.after) for layer in block]
    expected = [square, (3, 3, width), square, (width, 2 * width), square]
    if (
        not 1 <= colours <= COLOURS_MAX
        or inputs not in (14 * colours, 14 * colours + PASSED)
        or networks.known.kernel.shape != (12 * colours, width)
        or shapes != [(width, 12 * colours)] * 2
        or blocks != expected * 2
        or (networks.passing is not None and networks.passing.kernel.shape != (width, 4 * PASSED))
    ):
        raise ValueError("the layers of an octave's networks do not fit each other")
    table = networks.companding
    if table.dtype != np.int16 or table.ndim != 1 or not len(table) or table[0] or table.min() < 0:
        raise ValueError("companding must be i16[n], not negative and 0 for 0")
    if table.max() > ACTIVATION_MAX or not table.flags.c_contiguous:
        raise ValueError(f"companding must be contiguous, and at most {ACTIVATION_MAX}")
    if not 1 <= networks.scales <= SCALES_MAX:
        raise ValueError(f"{networks.scales} scales, expected 1 to {SCALES_MAX}")


def _check_before(networks: Octave, before: Before, cells: tuple[int, int]) -> int:
    """Columns of cells of the next coarser octave, 0 where there is none."""
    inputs, colours = networks.enter.kernel.shape[0], networks.colours
    if (before.passed is not None) != (inputs == 14 * colours + PASSED):
        raise ValueError("what was passed on is not what the octave's network takes")
    coarser = [*(before.parents or ()), *([] if before.passed is None else [before.passed])]
    if not coarser:
        return 0
    size = coarser[0].shape[:2]
    if size[0] < -(-cells[0] // 2) or size[1] < -(-cells[1] // 2):
        raise ValueError(f"the next coarser octave has {list(size)} cells, too few for {list(cells)}")
    for half in before.parents or ():
        _expect("parents", half, np.int32, (*size, 6 * colours))
    if before.passed is not None:
        _expect("passed", before.passed, np.int16, (*size, 4 * PASSED))
    return int(size[1])


def _expect_parameters(
    networks: Octave, cells: tuple[int, int], loc: np.ndarray, rows: np.ndarray, strip: tuple[int, int]
) -> None:
    shape = (*cells, 6 * networks.colours)
    _expect("loc", loc, np.int32, shape)
    _expect("rows", rows, np.uint8, shape)
    if not 0 <= strip[0] <= strip[1] <= cells[0]:
        raise ValueError(f"rows {strip[0]} to {strip[1]} of {cells[0]}")


def _expect(name: str, array: np.ndarray, dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous or 0 in shape:
        found = f"{array.dtype}{list(array.shape)}"
        raise ValueError(f"{name}: expected contiguous {np.dtype(dtype)}{list(shape)}, not {found}")
