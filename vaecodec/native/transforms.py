"""The parts of both transforms between planes of coefficients, the blocks of their networks, and pixels.

Each function works on a strip of rows of its result, so that threads can share an image, and returns the whole array.
Letters: h, w cells of 16 x 16 pixels, C colours.  Samples are i16[16h, 16w, C] in units of 2**-14, on a scale of 1 for
255 levels; coefficients are i32 planes in that unit, `low` [C, h, w] and `bands[o]` [3 C, 8h >> o, 8w >> o] of octaves
0 to 3; levels are i16[16h, 16w, C] in units of 2**-6 of a level, 0 in the middle of the range.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vaecodec.native import library
from vaecodec.native.networks import Dense
from vaecodec.native.reference import transforms as reference

OCTAVES = 4
CELL, FINE_CELL = reference.CELL, reference.FINE_CELL
Rows = tuple[int, int]  # the first row, and the one beyond the last


def inverse_colors(planes: np.ndarray, rotation: np.ndarray, out: np.ndarray, rows: Rows) -> np.ndarray:
    """Planes i32[C, H, W] of rotated colours -> samples i16[H, W, C]; rotation i32[C, C], unit 2**-14."""
    channels, height, width = planes.shape
    _check("planes", planes, np.int32, planes.shape)
    _check("rotation", rotation, np.int32, (channels, channels))
    _check("out", out, np.int16, (height, width, channels), rows)
    if library.kind() == library.REFERENCE:
        out[slice(*rows)] = reference.inverse_colors(planes[:, slice(*rows)], rotation)
    else:
        library.call("inverse_colors", "iiiiippp", channels, height, width, *rows, planes, rotation, out)
    return out


def forward_colors(pixels: np.ndarray, rotation: np.ndarray, out: np.ndarray, rows: Rows) -> np.ndarray:
    """Pixels u8[H, W, C] -> planes i32[C, H, W] of rotated colours, unit 2**-14; the inverse of inverse_colors."""
    height, width, channels = pixels.shape
    _check("pixels", pixels, np.uint8, pixels.shape, rows)
    _check("rotation", rotation, np.int32, (channels, channels))
    _check("out", out, np.int32, (channels, height, width))
    if library.kind() == library.REFERENCE:
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
    _check("out", out, np.int16, (h, w, layer.channels), rows)
    if library.kind() == library.REFERENCE:
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
    _check("x", x, np.int16, x.shape, rows)
    _check("samples", samples, np.int16, (CELL * h, CELL * w, channels))
    _check("multiplier", multiplier, np.int32, (fine,))
    _check("out", out, np.int16, (2 * h, 2 * w, fine))
    if library.kind() == library.REFERENCE:
        seen = x[slice(*rows)], samples[_lines(rows, CELL)]
        out[_lines(rows, 2)] = reference.synthesis_fine(coarse, skip, *seen, multiplier)
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
    _check("x", x, np.int16, x.shape, rows)
    shape = (FINE_CELL * h, FINE_CELL * w, channels)
    _check("samples", samples, np.int16, shape)
    for name, array, kind in (("levels", levels, np.int16), ("pixels", pixels, np.uint8)):
        if array is not None:
            _check(name, array, kind, shape)
    if library.kind() == library.REFERENCE:
        lines = _lines(rows, FINE_CELL)
        made = reference.synthesis_levels(layer, x[slice(*rows)], samples[lines])
        if levels is not None:
            levels[lines] = made
        if pixels is not None:
            pixels[lines] = reference.pixels_of(made)
        return
    arrays = (x, samples, levels, pixels, _scratch(-(-w // 2), channels, 1, x.shape[2]))
    library.call("synthesis_pixels", "piiii" + "p" * 5, layer.packed, channels, w, *rows, *arrays)


def analysis_fine(layer: Dense, pixels: np.ndarray, multiplier: np.ndarray, out: np.ndarray, rows: Rows) -> np.ndarray:
    """Pixels u8[16h, 16w, C] -> out i16[2h, 2w, fine], the first layer of the analysis; multiplier i32[fine]."""
    h, w, channels = pixels.shape[0] // FINE_CELL, pixels.shape[1] // FINE_CELL, pixels.shape[2]
    _check_layer(layer, FINE_CELL * FINE_CELL * channels)
    _check("pixels", pixels, np.uint8, (FINE_CELL * h, FINE_CELL * w, channels))
    _check("multiplier", multiplier, np.int32, (layer.channels,))
    _check("out", out, np.int16, (h, w, layer.channels), rows)
    if library.kind() == library.REFERENCE:
        out[slice(*rows)] = reference.analysis_fine(layer, pixels[_lines(rows, FINE_CELL)], multiplier)
    else:
        arrays = (pixels, multiplier, out, _scratch(-(-w // 2), channels, 1, layer.channels))
        library.call("analysis_fine", "piiiipppp", layer.packed, channels, w, *rows, *arrays)
    return out


def analysis_coarse(layer: Dense, x: np.ndarray, out: np.ndarray, rows: Rows) -> np.ndarray:
    """x i16[2h, 2w, fine] -> out i16[h, w, coarse]."""
    h, w, fine = x.shape[0] // 2, x.shape[1] // 2, x.shape[2]
    _check_layer(layer, 4 * fine)
    _check("x", x, np.int16, (2 * h, 2 * w, fine))
    _check("out", out, np.int16, (h, w, layer.channels), rows)
    if library.kind() == library.REFERENCE:
        out[slice(*rows)] = reference.analysis_coarse(layer, x[_lines(rows, 2)])
    else:
        arrays = (x, out, _scratch(w, 1, layer.channels, fine))
        library.call("analysis_coarse", "piiippp", layer.packed, w, *rows, *arrays)
    return out


def analysis_latents(layer: Dense, x: np.ndarray, bands: Sequence[np.ndarray], low: np.ndarray, rows: Rows) -> None:
    """x i16[h, w, coarse] through the last layer of the analysis, added to the coefficients in place."""
    channels, h, w = _check_coefficients(bands, low)
    _check_layer(layer, x.shape[2], 256 * channels)
    _check("x", x, np.int16, (h, w, layer.kernel.shape[0]), rows)
    if library.kind() == library.REFERENCE:
        parts = [plane[:, _lines(rows, FINE_CELL >> octave)] for octave, plane in enumerate(bands)]
        reference.analysis_latents(layer, x[slice(*rows)], parts, low[:, slice(*rows)])
    else:
        arrays = (x, *bands, low, _scratch(w, channels, x.shape[2], 1))
        library.call("analysis_latents", "piiiii" + "p" * 7, layer.packed, channels, h, w, *rows, *arrays)


def _lines(rows: Rows, factor: int) -> slice:
    """The rows of an array that has `factor` of them for each."""
    return slice(factor * rows[0], factor * rows[1])


def _scratch(w: int, channels: int, coarse: int, fine: int) -> np.ndarray:
    return library.memory(library.call("transform_scratch", "iiii", w, channels, coarse, fine))


def _check_coefficients(bands: Sequence[np.ndarray], low: np.ndarray) -> tuple[int, int, int]:
    """(C, h, w); raises ValueError where planes do not go together."""
    channels, h, w = low.shape
    _check("low", low, np.int32, low.shape)
    if len(bands) != OCTAVES:
        raise ValueError(f"there are {len(bands)} octaves, expected {OCTAVES}")
    for octave, plane in enumerate(bands):
        side = FINE_CELL >> octave
        _check(f"octave {octave}", plane, np.int32, (3 * channels, side * h, side * w))
    return channels, h, w


def _check_layer(layer: Dense, inputs: int, channels: int | None = None) -> None:
    if layer.kernel.shape[0] != inputs or layer.channels != (channels or layer.channels):
        raise ValueError(f"a layer has {layer.kernel.shape[0]} inputs and {layer.channels} channels, not {inputs}")


def _check(name: str, array: np.ndarray, kind: type, shape: tuple[int, ...], rows: Rows = (0, 0)) -> None:
    if array.dtype != kind or array.shape != shape or not array.flags.c_contiguous:
        found = f"{array.dtype}{list(array.shape)}"
        raise ValueError(f"{name} must be contiguous {np.dtype(kind).name}{list(shape)}, not {found}")
    if not 0 <= rows[0] <= rows[1] <= shape[0]:
        raise ValueError(f"rows {rows[0]} to {rows[1]} do not lie within {shape[0]}")
