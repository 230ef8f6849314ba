"""Propagate gradients through the networks of the prior and of the synthesis: kernels of refinement.

The gradient of a dense layer is a dense layer of its transposed weights.  So gradients by activations are int16, in a
unit that the caller chooses by the shifts of the transposed layers, and saturate; gradients by values and samples are
float32.  A tape holds what a block keeps of its forward pass (`networks.tape_lines`).

There is no kind "numpy" of these: rdo.prior_gradients and rdo.float_decoder compute the same in floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vaecodec.native import library, prior
from vaecodec.native.library import check, check_rows, check_writable
from vaecodec.native.networks import Dense, Depthwise, addresses, check_tape
from vaecodec.native.prior import PASSED, Before, Octave, cells_of

Rows = tuple[int, int]  # the first row, and the one beyond the last
INDICES = 256


class BlockBack(NamedTuple):
    """The transposed layers of a residual block, in the order in which gradients pass them."""

    mix: Dense
    gate: Dense
    out: Dense
    space: Depthwise
    enter: Dense
    shift: int  # activations of the forward pass have the unit 2**-shift

    @property
    def channels(self) -> int:
        return self.space.channels

    def check(self) -> None:
        """Raise ValueError unless the layers fit each other."""
        c = self.channels
        shapes = [layer.kernel.shape for layer in self.layers]
        if shapes != [(c, c), (2 * c, c), (c, c), (3, 3, c), (c, c)] or not 0 <= self.shift <= 15:
            raise ValueError("the layers of a block do not fit each other")

    @property
    def layers(self) -> tuple[Dense | Depthwise, ...]:
        return self[:5]


class OctaveBack(NamedTuple):
    """The transposed layers of the networks of an octave."""

    second: Dense
    passing: Dense | None
    after: BlockBack
    known: Dense
    first: Dense
    before: BlockBack
    enter: Dense

    def check(self, networks: Octave) -> None:
        """Raise ValueError unless these are of the shapes of an octave's networks."""
        self.after.check()
        self.before.check()
        pairs = [(self.second, networks.second), (self.known, networks.known), (self.first, networks.first)]
        pairs += [(self.enter, networks.enter), (self.before.mix, networks.before.mix)]
        pairs += [(self.after.mix, networks.after.mix)]
        if self.passing is not None and networks.passing is not None:
            pairs.append((self.passing, networks.passing))
        fits = all(back.kernel.shape == layer.kernel.shape[::-1] for back, layer in pairs)
        if not fits or (self.passing is None) != (networks.passing is None):
            raise ValueError("transposed layers do not fit the networks of an octave")


class SymbolTables(NamedTuple):
    """Numbers of symbols in concatenated frequency tables: `entries` by place, and `zero` of symbol 0 by index."""

    entries: np.ndarray  # f32[n] or i32[n]
    zero: np.ndarray  # [256], of the same type
    start: np.ndarray  # i32[R]
    low: np.ndarray  # i32[R]
    last: np.ndarray  # i32[R]

    def check(self, dtype: type) -> None:
        """Raise ValueError unless entries have this type and all places lie within the tables."""
        check("entries", self.entries, dtype, (len(self.entries),))
        check("zero", self.zero, dtype, (INDICES,))
        for name, array in (("start", self.start), ("low", self.low), ("last", self.last)):
            check(name, array, np.int32, (INDICES,))
        if self.start.min() < 0 or self.last.min() < 0 or (self.start + self.last).max() >= len(self.entries):
            raise ValueError("the places of symbols lie beyond their tables")


class Slopes(NamedTuple):
    """How gradients enter and leave the networks of the prior."""

    unit: float  # of gradients by activations
    tables: SymbolTables  # i32, of 16 bits each: gradients by the mean below, by the table index above
    loc_gain: float  # from a gradient by a value to that by its mean


class Half(NamedTuple):
    """Half of an octave: gradients f32[h, w, 6C] by its values, symbols i32 and table indices u8 of the same shape."""

    gradients: np.ndarray
    symbols: np.ndarray
    indices: np.ndarray


def block_back(
    block: BlockBack,
    gradient: np.ndarray,
    tape: np.ndarray | None,
    out: np.ndarray,
    multiplier: np.ndarray | None,
    strip: Rows,
) -> None:
    """Gradients i16[h, w, C] by the result of a block -> by its input, times multiplier i32[C] with the unit 2**-12."""
    shape = gradient.shape
    check("gradient", gradient, np.int16, (*shape[:2], block.channels))
    check_writable("out", out, np.int16, shape)
    if out is gradient:
        raise ValueError("a block is not computed in place")
    check_rows(strip, shape[0])
    check_tape(tape, shape)
    if multiplier is not None:
        check("multiplier", multiplier, np.int32, shape[2:])
    scratch = library.memory(library.size("block_back_scratch", shape[1], shape[2]))
    arrays = (gradient, tape, multiplier, out, scratch)
    layers = addresses(*block.layers)
    library.call("block_back", "piiiii" + "p" * 5, layers, block.shift, *shape[:2], *strip, *arrays)


def second_half_back(
    networks: Octave,
    back: OctaveBack,
    slopes: Slopes,
    shape: tuple[int, ...],
    half: Half,
    passed: np.ndarray | None,
    values: np.ndarray,
    tape: np.ndarray | None,
    first: np.ndarray,
    features: np.ndarray,
    strip: Rows,
) -> None:
    """Propagate the bits of the second half of an octave [H, W] to the values of the first half, and its features.

    Args:
        networks: of the octave.
        back: the same, transposed.
        slopes: of the tables.
        shape: [.., H, W].
        half: the second half.
        passed: gradients i16[h, w, 4 PASSED] by the features that were passed on, if any were.
        values: i32[h, w, 6C] of the first half.
        tape: of the block.
        first: gradients f32[h, w, 6C] by these values, which are added to.
        features: gradients i16[h, w, F], which are written.
        strip: rows of cells to compute.
    """
    cells = _check_half(networks, back, slopes, shape, half, strip)
    check("values", values, np.int32, half.gradients.shape)
    check_writable("first", first, np.float32, half.gradients.shape)
    check_writable("features", features, np.int16, (*cells, networks.features))
    check_tape(tape, features.shape)
    if (passed is None) != (back.passing is None):
        raise ValueError("features are passed on if and only if there is a network for them")
    if passed is not None:
        check("passed", passed, np.int16, (*cells, 4 * PASSED))
    layers = addresses(back.second, back.passing, *back.after.layers, back.known)
    numbers = prior.numbers_of(networks, shape)
    tables = (back.after.shift, slopes.unit, *slopes.tables, slopes.loc_gain)
    arrays = (*half, passed, values, tape, first, features, _scratch(networks, cells[1]))
    library.call("prior_second_back", "piiiiipii" + "ifpppppf" + "p" * 9, layers, *numbers, *strip, *tables, *arrays)


class Context(NamedTuple):
    """Gradients by what an octave is predicted from."""

    details: np.ndarray  # f32[C, H, W]: by the details of the low-pass image; written
    parents: tuple[np.ndarray, np.ndarray] | None  # f32[.., .., 6C]: by the halves of the coarser octave; added to
    passed: np.ndarray | None  # i16[.., .., 4 PASSED]: by what its networks passed on; written


def first_half_back(
    networks: Octave,
    back: OctaveBack,
    slopes: Slopes,
    before: Before,
    half: Half,
    features: np.ndarray,
    tape: np.ndarray | None,
    out: Context,
    strip: Rows,
) -> None:
    """Propagate the bits of the first half of an octave, and gradients i16[h, w, F] by its features, to its context."""
    low = before.low
    cells = _check_half(networks, back, slopes, low.shape, half, strip)
    across = prior.check_before(networks, before, cells)
    check("features", features, np.int16, (*cells, networks.features))
    check("low", low, np.int32, (networks.colours, *low.shape[1:]))
    check_tape(tape, features.shape)
    check_writable("details", out.details, np.float32, low.shape)
    if (before.parents is None) != (out.parents is None) or (before.passed is None) != (out.passed is None):
        raise ValueError("the gradients of a context do not fit it")
    for array, values in zip(out.parents or (), before.parents or (), strict=True):
        check_writable("parents", array, np.float32, values.shape)
    if out.passed is not None and before.passed is not None:
        check_writable("passed", out.passed, np.int16, before.passed.shape)
    layers = addresses(back.first, *back.before.layers, back.enter)
    numbers = prior.numbers_of(networks, low.shape)
    tables = (back.before.shift, slopes.unit, *slopes.tables, slopes.loc_gain)
    parents, passed = before.parents or (None, None), out.passed
    given = (*half, features, low, *parents, across, tape)
    arrays = (*given, out.details, *(out.parents or (None, None)), passed, _scratch(networks, cells[1]))
    signature = "piiiiipii" + "ifpppppf" + "pppppppip" + "ppppp"
    library.call("prior_first_back", signature, layers, *numbers, *strip, *tables, *arrays)


def _check_half(
    networks: Octave, back: OctaveBack, slopes: Slopes, shape: tuple[int, ...], half: Half, strip: Rows
) -> tuple[int, int]:
    back.check(networks)
    slopes.tables.check(np.int32)
    cells = cells_of(shape)
    check_rows(strip, cells[0])
    expected = (*cells, 6 * networks.colours)
    for name, array, dtype in zip(Half._fields, half, (np.float32, np.int32, np.uint8), strict=True):
        check(name, array, dtype, expected)
    return cells


def _scratch(networks: Octave, across: int) -> np.ndarray:
    return library.memory(library.size("prior_back_scratch", across, networks.colours, networks.features))


def inverse_dwt_back(
    samples: np.ndarray, scales: Sequence[float], low: np.ndarray, subbands: Sequence[np.ndarray]
) -> None:
    """Gradients f32[2h, 2w] by a plane of the inverse wavelet -> by its low f32[h, w] and its three subbands.

    The wavelet has no normalisation; results are multiplied by `scales`.  Rows are contiguous.
    """
    height, width = samples.shape
    if height % 2 or width % 2 or not samples.size:
        raise ValueError(f"samples are {list(samples.shape)}, expected even sides")
    row, low_row = _row("samples", samples, samples.shape), _row("low", low, (height // 2, width // 2))
    rows = {_row("subbands", band, low.shape) for band in subbands}
    factors = np.array(scales, np.float32)
    if len(subbands) != 3 or len(rows) != 1 or factors.shape != (4,):
        raise ValueError("expected three subbands of one layout, and four scales")
    arrays = samples, row, factors, low, low_row, *subbands, rows.pop(), np.empty(16 * low.shape[1], np.float32)
    library.call("inverse_dwt_back", "iipqppqpppqp", *low.shape, *arrays)


def _row(name: str, plane: np.ndarray, shape: tuple[int, ...]) -> int:
    """Distance between rows in elements; raises ValueError unless they are contiguous, of this shape and type."""
    if plane.dtype != np.float32 or plane.shape != shape or plane.strides[1] != 4 or plane.strides[0] % 4:
        raise ValueError(f"{name} is {plane.dtype}{list(plane.shape)}, expected rows of float32{list(shape)}")
    return plane.strides[0] // 4


def add_to_halves(planes: np.ndarray, scales: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
    """Add planes f32[3C, H, W], times scales f32[3C], to the halves f32[h, w, 6C] of an octave."""
    count, height, width = planes.shape
    cells = cells_of(planes.shape)
    if planes.dtype != np.float32 or (planes.size and planes.strides[2] != 4) or count % 3:
        raise ValueError(f"expected planes f32[3C, H, W] of contiguous rows, not {planes.dtype}{list(planes.shape)}")
    check("scales", scales, np.float32, (count,))
    for half in (first, second):
        check_writable("half", half, np.float32, (*cells, 2 * count))
    strides = planes.strides[0] // 4, planes.strides[1] // 4
    library.call("add_to_halves", "iiipqqppp", count // 3, height, width, planes, *strides, scales, first, second)


def details_back(details: np.ndarray, plane: np.ndarray) -> None:
    """Add gradients f32[H, W] by the details of a plane to those by the plane."""
    check("details", details, np.float32, details.shape)
    check_writable("plane", plane, np.float32, details.shape)
    line = np.empty(2 * details.shape[1], np.float32)
    library.call("details_back", "iippp", *details.shape, details, plane, line)


def level_errors(
    levels: np.ndarray,
    pixels: np.ndarray,
    within: tuple[int, int],
    scale: float,
    error: np.ndarray,
    squares: np.ndarray,
    rows: Rows,
) -> None:
    """Subtract pixels u8[H, W, C] from levels i16, unit 2**-6 of a level, 0 in the middle of the range.

    Writes errors i16 in the unit 2**-6 / scale, and into squares f64[H] the sums of squares of each row in levels.
    Samples that are not `within` (rows, columns) have no error.
    """
    height, width, channels = levels.shape
    check("levels", levels, np.int16, levels.shape)
    check("pixels", pixels, np.uint8, levels.shape)
    check_writable("error", error, np.int16, levels.shape)
    check_writable("squares", squares, np.float64, (height,))
    check_rows(rows, height)
    if not (0 <= within[0] <= height and 0 <= within[1] <= width):
        raise ValueError(f"{within} is not within {height, width}")
    arrays = (levels, pixels, error, squares)
    library.call("level_errors", "iiiiiifpppp", width, channels, *within, *rows, scale, *arrays)


def pixels_back(layer: Dense, error: np.ndarray, multiplier: np.ndarray, out: np.ndarray, rows: Rows) -> None:
    """Errors i16[8h, 8w, C] through the transposed last layer of the synthesis -> out i16[h, w, fine]."""
    h, w, channels = error.shape[0] // 8, error.shape[1] // 8, error.shape[2]
    _check_layer(layer, 64 * channels, layer.channels)
    check("error", error, np.int16, (8 * h, 8 * w, channels))
    check("multiplier", multiplier, np.int32, (layer.channels,))
    check_writable("out", out, np.int16, (h, w, layer.channels))
    check_rows(rows, h)
    arrays = (error, multiplier, out, _samples_scratch(w, channels, layer.channels))
    library.call("pixels_back", "piiiipppp", layer.packed, channels, w, *rows, *arrays)


def samples_back(
    layer: Dense, x: np.ndarray, error: np.ndarray, unit: float, rotation: np.ndarray, planes: np.ndarray, rows: Rows
) -> None:
    """Errors i16[8h, 8w, C], and x i16[h, w, fine] through the transposed skip layer -> planes f32[C, 8h, 8w].

    `unit` is that of the layer's results, in the unit of errors; rotation f32[C, C] that of the colour transform.
    """
    (h, w, fine), channels = x.shape, error.shape[2]
    _check_layer(layer, fine, 64 * channels)
    check("x", x, np.int16, x.shape)
    check("error", error, np.int16, (8 * h, 8 * w, channels))
    check("rotation", rotation, np.float32, (channels, channels))
    check_writable("planes", planes, np.float32, (channels, 8 * h, 8 * w))
    check_rows(rows, h)
    arrays = (x, error, unit, rotation, planes, _samples_scratch(w, channels, fine))
    library.call("samples_back", "piiiiippfppp", layer.packed, channels, h, w, *rows, *arrays)


def coefficients_back(
    layer: Dense, x: np.ndarray, unit: float, bands: Sequence[np.ndarray], low: np.ndarray, rows: Rows
) -> None:
    """Add x i16[h, w, coarse], through the transposed first layer of the synthesis and times `unit`, to planes f32."""
    channels, h, w = low.shape
    _check_layer(layer, x.shape[2], 256 * channels)
    check("x", x, np.int16, (h, w, x.shape[2]))
    check_writable("low", low, np.float32, low.shape)
    if len(bands) != 4:
        raise ValueError(f"there are {len(bands)} octaves, expected 4")
    for octave, band in enumerate(bands):
        check_writable("band", band, np.float32, (3 * channels, (8 >> octave) * h, (8 >> octave) * w))
    check_rows(rows, h)
    scratch = library.memory(library.size("transform_scratch", w, channels, x.shape[2], 1))
    arrays = (x, unit, *bands, low, scratch)
    library.call("coefficients_back", "piiiiipf" + "p" * 6, layer.packed, channels, h, w, *rows, *arrays)


def _check_layer(layer: Dense, inputs: int, channels: int) -> None:
    if layer.kernel.shape != (inputs, channels):
        raise ValueError(f"a layer is {list(layer.kernel.shape)}, expected {[inputs, channels]}")


def _samples_scratch(w: int, channels: int, fine: int) -> np.ndarray:
    return library.memory(library.size("samples_back_scratch", w, channels, fine))


def symbol_bits(symbols: np.ndarray, indices: np.ndarray, bits: SymbolTables) -> tuple[float, int]:
    """Bits of symbols i32[n] with table indices u8[n], and the number of symbols that are not 0 under index 0."""
    bits.check(np.float32)
    check("symbols", symbols, np.int32, (symbols.size,))
    check("indices", indices, np.uint8, symbols.shape)
    out = np.empty(2, np.float64)
    library.call("symbol_bits", "q" + "p" * 8, symbols.size, symbols, indices, *bits, out)
    return float(out[0]), int(out[1])


def descend(
    targets: np.ndarray,
    first: np.ndarray,
    values: np.ndarray,
    gradients: np.ndarray,
    step: float,
    rate: float,
    reach: float,
) -> None:
    """Move targets f32[n] by a part, `rate`, of the way to values - step * gradients, within `reach` of first f32[n].

    Values are i32[n] in the unit 2**-6, gradients f32[n].
    """
    shape = (targets.size,)
    check_writable("targets", targets, np.float32, shape)
    for name, array in (("first", first), ("gradients", gradients)):
        check(name, array, np.float32, shape)
    check("values", values, np.int32, shape)
    library.call("descend", "qpppfffp", targets.size, first, values, gradients, step, rate, reach, targets)
