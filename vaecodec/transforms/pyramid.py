"""Wavelet coefficients as latents: four octaves of a picture, so that a cell of 16x16 pixels has as many as samples.

    pixels --rotation of colours--> planes --banded, four times--> coefficients, where samples were --by cells--> y

    y [h, w, 256 C]: of each cell 16x16 coefficients of each colour, in rows.  Those of octave 0, the finest, are in
    odd rows or columns; of the others, which are in every second row and column, octave 1 likewise; and so on to
    octave 3 and the low-pass picture, one coefficient a cell.

Octave 4, the last that the prior knows, is made of a tile's low-pass picture alone: `fifth`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from vaecodec.config import CELL, STRIDE
from vaecodec.threads import Each, half_slices, run
from vaecodec.transforms import banded
from vaecodec.transforms.channels import rotation
from vaecodec.transforms.lifting import REAL, Arithmetic, Halves, forward, inverse, inverse_adjoint

OCTAVES = 4  # in y; one more within a tile
BANDS = 3  # of detail along rows, along columns, along both


class Planes(NamedTuple):
    """low [C, h, w], and bands [3 C, n h, n w] of each octave, finest first: n = 8, 4, 2, 1."""

    low: np.ndarray
    bands: list[np.ndarray]


def spread(y: np.ndarray) -> np.ndarray:
    """[h, w, 256 C] -> [C, 16 h, 16 w], a copy: coefficients where samples were."""
    h, w, channels = y.shape[0], y.shape[1], y.shape[2] // CELL
    places = _runs(y.reshape(h, w, channels, STRIDE, STRIDE)).transpose(2, 0, 3, 1).copy()
    return places.view(y.dtype).reshape(channels, STRIDE * h, STRIDE * w)


def by_cells(places: np.ndarray) -> np.ndarray:
    """The inverse of spread."""
    channels, height, width = places.shape
    h, w = height // STRIDE, width // STRIDE
    cells = _runs(places.reshape(channels, h, STRIDE, w, STRIDE)).transpose(1, 3, 0, 2).copy()
    return cells.view(places.dtype).reshape(h, w, CELL * channels)


def _runs(x: np.ndarray) -> np.ndarray:
    """[..., n] -> [...]: what is next to each other as one thing, which NumPy moves in a third of the time."""
    return x.view((np.void, x.shape[-1] * x.itemsize))[..., 0]


def joined(low: np.ndarray, bands: np.ndarray) -> np.ndarray:
    """low [C, h, w] and bands [3 C, h, w] -> [C, 2 h, 2 w]: by turns."""
    channels, height, width = low.shape
    out = np.empty((channels, 2 * height, 2 * width), bands.dtype)
    for n, part in enumerate((low, *np.split(bands, BANDS))):
        out[:, n // 2 :: 2, n % 2 :: 2] = part
    return out


def unpack(y: np.ndarray) -> Planes:
    """[h, w, 256 C] -> its planes, contiguous."""
    low, bands = spread(y), []
    for _ in range(OCTAVES):
        bands.append(np.concatenate([low[:, n // 2 :: 2, n % 2 :: 2] for n in range(1, 1 + BANDS)]))
        low = low[:, ::2, ::2]
    return Planes(np.ascontiguousarray(low), bands)


def pack(planes: Planes) -> np.ndarray:
    """The inverse of unpack."""
    low = planes.low
    for bands in reversed(planes.bands):
        low = joined(low, bands)
    return by_cells(low)


@lru_cache(maxsize=16)
def _rotation(channels: int) -> np.ndarray:
    return rotation(channels).astype(np.float32)


def coefficients(x: np.ndarray, each: Each = map) -> np.ndarray:
    """f32[H, W, C], or u8 that stands for what is in [-1/2, 1/2], sides multiples of 16 -> y f32[h, w, 256 C].

    `each` is a map for halves and colours, here and in `samples`.
    """
    places = _turned(x, each)

    def one(colour: int) -> None:
        low = places[colour : colour + 1]
        low[...] = banded.both(low, banded.coefficients)
        for _ in range(1, OCTAVES):
            low = low[:, ::2, ::2]
            low[...] = banded.both(low.copy(), banded.coefficients)

    run(each, one, range(len(places)))
    return by_cells(places)


def samples(y: np.ndarray, each: Each = map) -> np.ndarray:
    """The inverse of coefficients: f32[h, w, 256 C] -> f32[H, W, C]."""
    places = spread(np.asarray(y, np.float32))
    channels, height, width = places.shape
    planes, out = places.reshape(channels, -1), np.empty((height * width, channels), np.float32)

    def one(colour: int) -> None:
        for octave in range(OCTAVES - 1, -1, -1):
            low = places[colour : colour + 1, :: 1 << octave, :: 1 << octave]
            low[...] = banded.both(low.copy() if octave else low, banded.samples)

    def turn(half: slice) -> None:
        np.matmul(planes[:, half].T, _rotation(channels), out=out[half])

    run(each, one, range(channels))
    run(each, turn, half_slices(len(out)))
    return out.reshape(height, width, channels)


def samples_adjoint(x: np.ndarray) -> np.ndarray:
    """What samples does to gradients: f32[H, W, C] -> f32[h, w, 256 C]."""
    low, bands = _turned(x), []
    for _ in range(OCTAVES):
        low, octave = inverse_adjoint(low, REAL)
        bands.append(octave)
    return pack(Planes(low, bands))


def _turned(x: np.ndarray, each: Each = map) -> np.ndarray:
    """[H, W, C] -> f32[C, H, W] of rotated colours."""
    turn, pixels = _rotation(x.shape[2]), x.reshape(-1, x.shape[2])
    out = np.empty((len(turn), len(pixels)), np.float32)
    centre = turn.sum(1, keepdims=True) * np.float32(0.5)

    def one(half: slice) -> None:
        part = pixels[half]
        if part.dtype == np.uint8:
            np.matmul(turn * np.float32(1 / 255), part.astype(np.float32).T, out=out[:, half])
            out[:, half] -= centre
        else:
            np.matmul(turn, part.T, out=out[:, half])

    run(each, one, half_slices(len(pixels)))
    return out.reshape(len(turn), *x.shape[:2])


def restored(planes: Planes, arithmetic: Arithmetic) -> np.ndarray:
    """[C, H, W] of all octaves."""
    low = planes.low
    for octave in reversed(planes.bands):
        low = inverse(low, octave, arithmetic)
    return low


def fifth(low: np.ndarray) -> Halves:
    """low [C, h, w] of a tile -> (lowest [C, h', w'], bands [3 C, h', w']), h' = h / 2, w' = w / 2, rounded up."""
    edge = [(0, 0), (0, low.shape[1] % 2), (0, low.shape[2] % 2)]
    return forward(np.pad(low, edge, "edge"), REAL)


def fifth_adjoint(low: np.ndarray) -> Halves:
    """Gradients with respect to low -> with respect to what fifth makes of it."""
    edge = [(0, 0), (0, low.shape[1] % 2), (0, low.shape[2] % 2)]
    return inverse_adjoint(np.pad(low, edge), REAL)


@lru_cache(maxsize=16)
def band_of(channels: int) -> np.ndarray:
    """i64[256 C]: of each latent the number of its band, 3 C an octave from the finest on, 12 C of the low-pass."""
    width = BANDS * channels
    numbers = [np.arange(octave * width, (octave + 1) * width)[:, None, None] for octave in range(OCTAVES)]
    bands = [np.tile(one, (1, 8 >> octave, 8 >> octave)) for octave, one in enumerate(numbers)]
    return pack(Planes(np.full((channels, 1, 1), OCTAVES * width), bands)).ravel()


@lru_cache(maxsize=16)
def halves(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients of 2x2 positions, numbered by row, column, band and colour, that are coded first and second.

    Position, band and colour by turns, like a chessboard: each lies among some of the other half.
    """
    row, column, band, colour = np.indices((2, 2, BANDS, channels))
    odd = (row + column + band + colour).ravel() % 2
    return np.flatnonzero(odd == 0), np.flatnonzero(odd)


def to_cells(planes: np.ndarray) -> np.ndarray:
    """[P, H, W] -> [h, w, 4 P] of each 2x2 positions, by row, column and plane; 0 where sides are odd."""
    wide = np.pad(planes, [(0, 0), (0, planes.shape[1] % 2), (0, planes.shape[2] % 2)])
    count, height, width = wide.shape
    cells = wide.reshape(count, height // 2, 2, width // 2, 2).transpose(1, 3, 2, 4, 0)
    return np.ascontiguousarray(cells).reshape(height // 2, width // 2, 4 * count)


def from_halves(first: np.ndarray, second: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Halves [h, w, 6 C] of the coefficients of an octave -> its bands [3 C, H, W]."""
    planes = first.shape[2] // 2
    out = np.empty((planes, 2 * first.shape[0], 2 * first.shape[1]), first.dtype)
    for half, numbers in zip((first, second), halves(planes // BANDS), strict=True):
        for column, number in enumerate(numbers.tolist()):
            place, plane = divmod(number, planes)
            out[plane, place // 2 :: 2, place % 2 :: 2] = half[..., column]
    return out[:, : shape[0], : shape[1]]


def to_halves(bands: np.ndarray) -> list[np.ndarray]:
    """The inverse of from_halves: [3 C, H, W] -> two of [h, w, 6 C]."""
    cells = to_cells(bands)
    return [cells[..., numbers] for numbers in halves(len(bands) // BANDS)]


class Coded(NamedTuple):
    """The coefficients of y as they are coded: halves [h, w, 6 C] of octaves 0, 1 and 2, bands of 3, and low."""

    halves: list[tuple[np.ndarray, np.ndarray]]
    third: np.ndarray  # [3 C, h, w]
    low: np.ndarray  # [C, h, w]


def _views(cells: np.ndarray) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """Of [h, w, 256 C] the places of halves, [h, n, w, n, 6 C] with n = 4, 2, 1, of octave 3 and low, [h, w, ..]."""
    h, w, channels = cells.shape[0], cells.shape[1], cells.shape[2] // CELL
    found, first = [], 0
    for side in (4, 2, 1):
        last = first + 4 * BANDS * channels * side * side
        squares = cells[..., first:last].reshape(h, w, side, side, -1).transpose(0, 2, 1, 3, 4)
        found.append((squares[..., : 6 * channels], squares[..., 6 * channels :]))
        first = last
    return found, cells[..., first:-channels], cells[..., -channels:]


@lru_cache(maxsize=16)
def _order(channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each latent of a cell lies in the order of _views, and the other way round."""
    found, third, low = _views(np.arange(CELL * channels).reshape(1, 1, -1))
    bands = []
    for (first, second), side in zip(found, (4, 2, 1), strict=True):
        shape = (side, side, 6 * channels)
        bands.append(from_halves(first.reshape(shape), second.reshape(shape), (2 * side, 2 * side)))
    order = pack(Planes(low.T, [*bands, third.T])).ravel()
    return order, np.argsort(order)


def assembled(coded: Coded) -> np.ndarray:
    """y f32[h, w, 256 C]."""
    channels, h, w = coded.low.shape
    cells = np.empty((h, w, CELL * channels), np.float32)
    found, third, low = _views(cells)
    for places, pair in zip(found, coded.halves, strict=True):
        for place, half in zip(places, pair, strict=True):
            _runs(place)[...] = _runs(half.reshape(place.shape))
    third[...], low[...] = coded.third.transpose(1, 2, 0), coded.low.transpose(1, 2, 0)
    return cells.take(_order(channels)[0], -1, mode="wrap")


def apart(y: np.ndarray) -> Coded:
    """The inverse of assembled."""
    found, third, low = _views(y.take(_order(y.shape[2] // CELL)[1], -1, mode="wrap"))
    count = low.shape[2] * 6
    pairs = []
    for first, second in found:
        height, width = first.shape[0] * first.shape[1], first.shape[2] * first.shape[3]
        pairs.append((first.reshape(height, width, count), second.reshape(height, width, count)))
    return Coded(pairs, third.transpose(2, 0, 1), low.transpose(2, 0, 1))
