"""Convert between planes of coefficients, activations of the networks of both transforms, and pixels.

Each function works on a strip of rows of its result, so that threads can share an image, and returns the whole array.
An image has h x w cells of 16 x 16 pixels, and C channels.  Samples are i16[16h, 16w, C] in units of 2**-14, on a scale
of 1 for 255 levels; coefficients are i32 planes in that unit, `low` [C, h, w] and `bands[o]` [3 C, 8h >> o, 8w >> o] of
octaves 0 to 3; levels are i16[16h, 16w, C] in units of 2**-6 of a level, 0 in the middle of the range.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vaecodec.native import library
from vaecodec.native.library import check, check_rows
from vaecodec.native.networks import Dense
from vaecodec.native.reference import transforms as reference

OCTAVES = 4
CELL, FINE_CELL = reference.CELL, reference.FINE_CELL
Rows = tuple[int, int]  # the first row, and the one beyond the last


def inverse_colors(planes: np.ndarray, rotation: np.ndarray, out: np.ndarray, rows: Rows) -> np.ndarray:
    """Planes i32[C, H, W] of rotated colours -> samples i16[H, W, C]; rotation i32[C, C], unit 2**-14."""
    channels, height, width = planes.shape
    check("planes", planes, np.int32, planes.shape)
    check("rotation", rotation, np.int32, (channels, channels))
    check("out", out, np.int16, (height, width, channels))
    check_rows(rows, height)
    if library.in_numpy():
        out[slice(*rows)] = reference.inverse_colors(planes[:, slice(*rows)], rotation)
    else:
        library.call("inverse_colors", "iiiiippp", channels, height, width, *rows, planes, rotation, out)
    return out


def forward_colors(pixels: np.ndarray, rotation: np.ndarray, out: np.ndarray, rows: Rows) -> np.ndarray:
    """Pixels u8[H, W, C] -> planes i32[C, H, W] of rotated colours, unit 2**-14; the inverse of inverse_colors."""
    height, width, channels = pixels.shape
    check("pixels", pixels, np.uint8, pixels.shape)
    check_rows(rows, height)
    check("rotation", rotation, np.int32, (channels, channels))
    check("out", out, np.int32, (channels, height, width))
    if library.in_numpy():
        out[:, slice(*rows)] = reference.forward_colors(pixels[slice(*rows)], rotation)
    else:
        library.call("forward_colors", "iiiiippp", channels, height, width, *rows, pixels, rotation, out)
    return out


def synthesis_coarse(
    layer: Dense, bands: Sequence[np.ndarray], low: np.ndarray, out: np.ndarray, rows: Rows
) -> np.ndarray:
    """Coefficients -> out i16[h, w, coarse], through the first layer of the synthesis."""
    channels, h, w = _check_coefficients(bands, low)
    _check_layer(layer, 256 * channels)
    check("out", out, np.int16, (h, w, layer.channels))
    check_rows(rows, h)
    if library.in_numpy():
        parts = [plane[:, _lines(rows, FINE_CELL >> octave)] for octave, plane in enumerate(bands)]
        out[slice(*rows)] = reference.synthesis_coarse(layer, parts, low[:, slice(*rows)])
    else:
        arrays = (*bands, low, out, _scratch(w, channels, layer.channels, 1))
        library.call("synthesis_coarse", "piiiii" + "p" * 7, layer.packed, channels, h, w, *rows, *arrays)
    return out


def synthesis_fine(
    coarse: Dense,
    skip: Dense,
    x: np.ndarray,
    samples: np.ndarray,
    multiplier: np.ndarray,
    out: np.ndarray,
    rows: Rows,
) -> np.ndarray:
    """x i16[h, w, coarse] and samples -> out i16[2h, 2w, fine]; `rows` are those of x, multiplier i32[fine]."""
    (h, w), channels, fine = x.shape[:2], samples.shape[2], skip.channels
    _check_layer(coarse, x.shape[2], 4 * fine)
    _check_layer(skip, FINE_CELL * FINE_CELL * channels)
    check("x", x, np.int16, x.shape)
    check_rows(rows, h)
    check("samples", samples, np.int16, (CELL * h, CELL * w, channels))
    check("multiplier", multiplier, np.int32, (fine,))
    check("out", out, np.int16, (2 * h, 2 * w, fine))
    if library.in_numpy():
        inputs = x[slice(*rows)], samples[_lines(rows, CELL)]
        out[_lines(rows, 2)] = reference.synthesis_fine(coarse, skip, *inputs, multiplier)
    else:
        arrays = (x, samples, multiplier, out, _scratch(w, channels, x.shape[2], fine))
        layers = coarse.packed, skip.packed
        library.call("synthesis_fine", "ppiiiii" + "p" * 5, *layers, channels, h, w, *rows, *arrays)
    return out


def synthesis_pixels(
    layer: Dense,
    x: np.ndarray,
    samples: np.ndarray,
    rows: Rows,
    levels: np.ndarray | None = None,
    pixels: np.ndarray | None = None,
) -> None:
    """x i16[2h, 2w, fine] and samples -> levels, or pixels u8[16h, 16w, C], or both; `rows` are those of x."""
    h, w, channels = x.shape[0], x.shape[1], samples.shape[2]
    _check_layer(layer, x.shape[2], FINE_CELL * FINE_CELL * channels)
    check("x", x, np.int16, x.shape)
    check_rows(rows, h)
    shape = (FINE_CELL * h, FINE_CELL * w, channels)
    check("samples", samples, np.int16, shape)
    if levels is not None:
        check("levels", levels, np.int16, shape)
    if pixels is not None:
        check("pixels", pixels, np.uint8, shape)
    if library.in_numpy():
        lines = _lines(rows, FINE_CELL)
        strip = reference.synthesis_levels(layer, x[slice(*rows)], samples[lines])
        if levels is not None:
            levels[lines] = strip
        if pixels is not None:
            pixels[lines] = reference.pixels_of(strip)
        return
    arrays = (x, samples, levels, pixels, _scratch(-(-w // 2), channels, 1, x.shape[2]))
    library.call("synthesis_pixels", "piiii" + "p" * 5, layer.packed, channels, w, *rows, *arrays)


def analysis_fine(layer: Dense, pixels: np.ndarray, multiplier: np.ndarray, out: np.ndarray, rows: Rows) -> np.ndarray:
    """Pixels u8[16h, 16w, C] -> out i16[2h, 2w, fine], the first layer of the analysis; multiplier i32[fine]."""
    h, w, channels = pixels.shape[0] // FINE_CELL, pixels.shape[1] // FINE_CELL, pixels.shape[2]
    _check_layer(layer, FINE_CELL * FINE_CELL * channels)
    check("pixels", pixels, np.uint8, (FINE_CELL * h, FINE_CELL * w, channels))
    check("multiplier", multiplier, np.int32, (layer.channels,))
    check("out", out, np.int16, (h, w, layer.channels))
    check_rows(rows, h)
    if library.in_numpy():
        out[slice(*rows)] = reference.analysis_fine(layer, pixels[_lines(rows, FINE_CELL)], multiplier)
    else:
        arrays = (pixels, multiplier, out, _scratch(-(-w // 2), channels, 1, layer.channels))
        library.call("analysis_fine", "piiiipppp", layer.packed, channels, w, *rows, *arrays)
    return out


def analysis_coarse(layer: Dense, x: np.ndarray, out: np.ndarray, rows: Rows) -> np.ndarray:
    """x i16[2h, 2w, fine] -> out i16[h, w, coarse]."""
    h, w, fine = x.shape[0] // 2, x.shape[1] // 2, x.shape[2]
    _check_layer(layer, 4 * fine)
    check("x", x, np.int16, (2 * h, 2 * w, fine))
    check("out", out, np.int16, (h, w, layer.channels))
    check_rows(rows, h)
    if library.in_numpy():
        out[slice(*rows)] = reference.analysis_coarse(layer, x[_lines(rows, 2)])
    else:
        arrays = (x, out, _scratch(w, 1, layer.channels, fine))
        library.call("analysis_coarse", "piiippp", layer.packed, w, *rows, *arrays)
    return out


def analysis_latents(layer: Dense, x: np.ndarray, bands: Sequence[np.ndarray], low: np.ndarray, rows: Rows) -> None:
    """x i16[h, w, coarse] through the last layer of the analysis, added to the coefficients in place."""
    channels, h, w = _check_coefficients(bands, low)
    _check_layer(layer, x.shape[2], 256 * channels)
    check("x", x, np.int16, (h, w, layer.kernel.shape[0]))
    check_rows(rows, h)
    if library.in_numpy():
        parts = [plane[:, _lines(rows, FINE_CELL >> octave)] for octave, plane in enumerate(bands)]
        reference.analysis_latents(layer, x[slice(*rows)], parts, low[:, slice(*rows)])
    else:
        arrays = (x, *bands, low, _scratch(w, channels, x.shape[2], 1))
        library.call("analysis_latents", "piiiii" + "p" * 7, layer.packed, channels, h, w, *rows, *arrays)


def _lines(rows: Rows, factor: int) -> slice:
    """The rows of an array that has `factor` rows for each of these."""
    return slice(factor * rows[0], factor * rows[1])


def _scratch(w: int, channels: int, coarse: int, fine: int) -> np.ndarray:
    return library.memory(library.size("transform_scratch", w, channels, coarse, fine))


def _check_coefficients(bands: Sequence[np.ndarray], low: np.ndarray) -> tuple[int, int, int]:
    """(C, h, w) of coefficients; raises ValueError where their planes do not go together."""
    channels, h, w = low.shape
    check("low", low, np.int32, low.shape)
    if len(bands) != OCTAVES:
        raise ValueError(f"there are {len(bands)} octaves, expected {OCTAVES}")
    for octave, plane in enumerate(bands):
        side = FINE_CELL >> octave
        check(f"octave {octave}", plane, np.int32, (3 * channels, side * h, side * w))
    return channels, h, w


def _check_layer(layer: Dense, inputs: int, channels: int | None = None) -> None:
    if layer.kernel.shape[0] != inputs or layer.channels != (channels or layer.channels):
        raise ValueError(f"a layer has {layer.kernel.shape[0]} inputs and {layer.channels} channels, not {inputs}")


SMALLEST = reference.REACH + 1  # least side of an image that is filtered: samples beyond the edges are mirrored


CLASSES = 4  # of fit_class_sums


class FilterWeights(NamedTuple):
    """Integers of one restoration filter; K classes, C channels."""

    rotation: np.ndarray  # i32[C, C], unit 2**-14: rotated colours in rows
    first: np.ndarray  # i32[K, 9] within +-128: weights of colour 0
    shifts: np.ndarray  # i32[K], 0..15: their units are 2**-shift
    ramps: np.ndarray  # i32[K - 1], 0..65535: how fast a class gives way to the next
    others: np.ndarray  # i32[2 C] within +-128, unit 2**-9; i32[0] where C is 1


def restore(
    samples: np.ndarray,
    weights: FilterWeights,
    rows: slice = slice(None),
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Apply a restoration filter to some rows of an image.

    Args:
        samples: i16[H, W, C], unit 2**-6 of a level, 0 at the middle of the range; sides of at least 5.
        weights: the filter.
        rows: the rows to compute.
        out: u8[H, W, C] to write them into.

    Returns:
        out, or a new u8[H, W, C], with these rows filled.
    """
    height, channels = samples.shape[0], samples.shape[2]
    _check_samples(samples, weights.rotation)
    out = np.empty(samples.shape, np.uint8) if out is None else out
    check("out", out, np.uint8, samples.shape)
    top, bottom, step = rows.indices(height)
    if step != 1:
        raise ValueError("rows must follow each other")
    arrays = _filter_arrays(weights, channels)
    if library.in_numpy():
        out[top:bottom] = reference.pixels_of(reference.restore_levels(samples, *arrays)[top:bottom])
    else:
        _restore(samples, arrays, (top, bottom), out, None)
    return out


def restore_levels(
    samples: np.ndarray, weights: FilterWeights, out: np.ndarray, rows: Rows, adjoint: bool = False
) -> None:
    """Apply a filter as `restore` does, but to samples i16[H, W, C] in their unit, unrounded.

    `adjoint` takes gradients, of any unit, back through a filter of one class; not in the kind "numpy".
    """
    _check_samples(samples, weights.rotation)
    check("out", out, np.int16, samples.shape)
    check_rows(rows, len(samples))
    if adjoint and len(weights.first) > 1:
        raise ValueError("the adjoint is that of a filter of one class")
    arrays = _filter_arrays(weights, samples.shape[2])
    if library.in_numpy() and not adjoint:
        out[slice(*rows)] = reference.restore_levels(samples, *arrays)[slice(*rows)]
    else:
        _restore(samples, arrays, rows, None, out, adjoint)


def _filter_arrays(weights: FilterWeights, channels: int) -> list[np.ndarray]:
    """The weights as kernels take them; raises ValueError on wrong shapes."""
    classes = len(weights.first)
    arrays = [np.ascontiguousarray(array, np.int32) for array in weights]
    shapes = [(channels, channels), (classes, 9), (classes,), (classes - 1,), (2 * channels * (channels > 1),)]
    if [array.shape for array in arrays] != shapes:
        raise ValueError("the filter's weights have the wrong shapes")
    return arrays


def _restore(
    samples: np.ndarray,
    arrays: list[np.ndarray],
    rows: Rows,
    pixels: np.ndarray | None,
    levels: np.ndarray | None,
    adjoint: bool = False,
) -> None:
    height, width, channels = samples.shape
    scratch = library.memory(-(-library.size("restoration_scratch", width, channels) // 64))
    numbers = height, width, channels, *rows, len(arrays[1])
    arguments = (*arrays, samples, scratch, pixels, levels, int(adjoint))
    library.call("restore", "iiiiii" + "p" * 9 + "i", *numbers, *arguments)


class FitSums(NamedTuple):
    """Sums of products of the sums around samples, and of these with what the samples lack; i64, unit 1/64."""

    first: np.ndarray  # [9, 9]
    first_right: np.ndarray  # [9]
    others: np.ndarray  # [C - 1, 4, 4]: own near and diagonal sums, those of colour 0
    others_right: np.ndarray  # [C - 1, 4]


def fit_sums(
    samples: np.ndarray, pixels: np.ndarray, box: tuple[int, int, int, int], every: int, rotation: np.ndarray
) -> FitSums:
    """Sum the normal equations of a filter of one class over every `every`-th row of a box (top, left, bottom, right).

    samples i16[H, W, C] as in `restore`, pixels u8[H, W, C] of the original, rotation i32[C, C].
    """
    height, width, channels = samples.shape
    _check_samples(samples, rotation)
    pixels, rotation = np.ascontiguousarray(pixels), np.ascontiguousarray(rotation, np.int32)
    check("pixels", pixels, np.uint8, samples.shape)
    _check_box(box, every, (height, width))
    if library.in_numpy():
        sums = reference.fit_sums(samples, pixels, box, every, rotation)
    else:
        sums = np.zeros(90 + 20 * (channels - 1), np.int64)
        scratch = library.memory(-(-library.size("fit_scratch", width, channels) // 64))
        numbers = height, width, channels, *box, every
        library.call("fit_sums", "iiiiiiii" + "p" * 5, *numbers, rotation, samples, pixels, scratch, sums)
    first, others = sums[:81].reshape(9, 9), sums[90:].reshape(channels - 1, 20)
    squares = others[:, :16].reshape(-1, 4, 4)
    return FitSums(_symmetric(first), sums[81:90], _symmetric(squares), others[:, 16:])


class ClassSums(NamedTuple):
    """Normal equations of four classes of nine weights side by side, unit 1/64."""

    matrix: np.ndarray  # f64[36, 36]
    right: np.ndarray  # f64[36]


def fit_class_sums(
    samples: np.ndarray,
    pixels: np.ndarray,
    box: tuple[int, int, int, int],
    every: int,
    rotation: np.ndarray,
    ramps: np.ndarray,
) -> ClassSums:
    """Sum equations of colour 0 for four classes, as `fit_sums` does for one; not of the kind "numpy".

    ramps f32[3, 2]: begin and slope of the function of the activity by which a class gives way to the next.
    """
    height, width, channels = samples.shape
    _check_samples(samples, rotation)
    check("pixels", pixels, np.uint8, samples.shape)
    check("rotation", rotation, np.int32, (channels, channels))
    check("ramps", ramps, np.float32, (CLASSES - 1, 2))
    _check_box(box, every, (height, width))
    sums = np.zeros((2 * CLASSES - 1) * 45 + 9 * CLASSES, np.float64)
    scratch = library.memory(library.size("class_scratch", width, channels))
    numbers = height, width, channels, *box, every
    library.call("fit_class_sums", "iiiiiiii" + "p" * 6, *numbers, rotation, ramps, samples, pixels, scratch, sums)
    blocks, right = np.split(sums, [(2 * CLASSES - 1) * 45])
    matrix = np.zeros((CLASSES, 9, CLASSES, 9))
    upper = np.triu_indices(9)
    for n, block in enumerate(blocks.reshape(-1, 45)):  # of a class, and of it and the next one, by turns
        k, m = n // 2, (n + 1) // 2
        matrix[k, upper[0], m, upper[1]] = matrix[k, upper[1], m, upper[0]] = block
        matrix[m, upper[0], k, upper[1]] = matrix[m, upper[1], k, upper[0]] = block
    return ClassSums(matrix.reshape(9 * CLASSES, -1), right)


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    """The symmetric matrix, or stack of matrices, with this upper triangle."""
    upper = np.triu(matrix)
    result: np.ndarray = upper + np.triu(upper, 1).swapaxes(-1, -2)
    return result


def _check_box(box: tuple[int, int, int, int], every: int, shape: tuple[int, int]) -> None:
    top, left, bottom, right = box
    if not (0 <= top <= bottom <= shape[0] and 0 <= left <= right <= shape[1] and every >= 1):
        raise ValueError(f"box {box} does not lie within the image")


def _check_samples(samples: np.ndarray, rotation: np.ndarray) -> None:
    check("samples", samples, np.int16, samples.shape)
    if min(samples.shape[:2]) < SMALLEST or rotation.shape != (samples.shape[2],) * 2:
        raise ValueError(f"samples are {list(samples.shape)}, expected sides of at least {SMALLEST}")
