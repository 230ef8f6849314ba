"""Arrange wavelet coefficients as the latents that networks are trained on, and transform latents to pixels in floats.

Latents [h, w, 256 C] hold 16x16 coefficients of each channel of a cell, in rows, each at the position of a sample:
octave 0, the finest, in odd rows or columns; octave 1 likewise in what remains, which is every second row and column;
and so on to octave 3 and the low-pass image, which has one coefficient in a cell.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from vaecodec.config import CELL, STRIDE
from vaecodec.native.reference.prior import octave_order
from vaecodec.native.wavelet import octave_halves
from vaecodec.transforms import wavelet
from vaecodec.transforms.networks import color_transform
from vaecodec.transforms.wavelet import OCTAVES, SIDES, SUBBANDS, Coefficients, Half, Values, dequantise


def pack_latents(coefficients: Coefficients) -> np.ndarray:
    """Latents [h, w, 256 C] of the planes of an image, which may have any type."""
    low = coefficients.low
    for subbands in reversed(coefficients.subbands):
        low = wavelet.interleave(low, subbands)
    channels, height, width = low.shape
    h, w = height // STRIDE, width // STRIDE
    runs = _runs(low.reshape(channels, h, STRIDE, w, STRIDE)).transpose(1, 3, 0, 2).copy()
    return runs.view(low.dtype).reshape(h, w, CELL * channels)


def unpack_latents(latents: np.ndarray) -> Coefficients:
    """The inverse of pack_latents."""
    low, subbands = _spread(latents), []
    for _ in range(OCTAVES):
        subbands.append(np.concatenate([low[:, n // 2 :: 2, n % 2 :: 2] for n in range(1, 1 + SUBBANDS)]))
        low = low[:, ::2, ::2]
    return Coefficients(subbands, np.ascontiguousarray(low))


def _spread(latents: np.ndarray) -> np.ndarray:
    """[h, w, 256 C] -> [C, 16 h, 16 w]: coefficients at the positions of samples."""
    h, w, channels = latents.shape[0], latents.shape[1], latents.shape[2] // CELL
    runs = _runs(latents.reshape(h, w, channels, STRIDE, STRIDE)).transpose(2, 0, 3, 1).copy()
    return runs.view(latents.dtype).reshape(channels, STRIDE * h, STRIDE * w)


def _runs(x: np.ndarray) -> np.ndarray:
    """View [..., n] as [...] of items n times as large, which NumPy transposes in a third of the time."""
    return x.view((np.void, x.shape[-1] * x.itemsize))[..., 0]


def values_of_latents(latents: np.ndarray) -> Values:
    """Latents f32[h, w, 256 C] in the order of Values."""
    coefficients = unpack_latents(latents)
    return Values([octave_halves(planes) for planes in coefficients.subbands], coefficients.low)


def latents_of_values(values: Values) -> np.ndarray:
    """f32[h, w, 256 C]: values i32 of a tile as latents."""
    ones = np.ones((SUBBANDS * OCTAVES + 1) * len(values.low), np.int32)
    return pack_latents(dequantise(values, (ones, 0 * ones))).astype(np.float32)


def inverse_dwt(latents: np.ndarray) -> np.ndarray:
    """Latents f32[h, w, 256 C] -> pixels f32[16 h, 16 w, C]: the inverse wavelet and colour transform."""
    planes = _spread(latents)
    for channel in range(len(planes)):
        for octave in range(OCTAVES - 1, -1, -1):
            low = planes[channel : channel + 1, :: 1 << octave, :: 1 << octave]
            low[...] = wavelet.float_inverse_dwt(low.copy() if octave else low)
    colors = color_transform(len(planes)).astype(np.float32)
    return (planes.reshape(len(planes), -1).T @ colors).reshape(*planes.shape[1:], -1)


def inverse_dwt_adjoint(gradient: np.ndarray) -> np.ndarray:
    """Gradient by pixels f32[16 h, 16 w, C] -> by latents f32[h, w, 256 C]."""
    height, width, channels = gradient.shape
    planes = color_transform(channels).astype(np.float32) @ gradient.reshape(-1, channels).T
    low, subbands = planes.reshape(channels, height, width), []
    for _ in range(OCTAVES):
        low, octave = wavelet.float_inverse_dwt_adjoint(low)
        subbands.append(octave)
    return pack_latents(Coefficients(subbands, low))


def tile_octave(low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Octave 4: low f[C, h, w] of a tile -> lowest f[C, h', w'] and subbands f[3 C, h', w'], h' = ceil(h / 2)."""
    return wavelet.float_forward_dwt(np.pad(low, _to_even(low), "edge"))


def tile_octave_adjoint(gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient by low -> by the results of tile_octave."""
    return wavelet.float_inverse_dwt_adjoint(np.pad(gradient, _to_even(gradient)))


def _to_even(planes: np.ndarray) -> list[tuple[int, int]]:
    """Padding that makes the sides of [P, H, W] even."""
    return [(0, 0), (0, planes.shape[1] % 2), (0, planes.shape[2] % 2)]


def to_squares(planes: np.ndarray) -> np.ndarray:
    """[P, H, W] -> [h, w, 4 P]: squares of 2x2 positions, by row, column and plane; 0 beyond odd sides."""
    even = np.pad(planes, _to_even(planes))
    count, height, width = even.shape
    squares = even.reshape(count, height // 2, 2, width // 2, 2).transpose(1, 3, 2, 4, 0)
    return np.ascontiguousarray(squares).reshape(height // 2, width // 2, 4 * count)


def join_halves(first: Half, second: Half, shape: tuple[int, int]) -> np.ndarray:
    """Halves [h, w, 6 C] of an octave -> its subbands [3 C, H, W]: the inverse of native octave_halves."""
    planes = first.shape[2] // 2
    out = np.empty((planes, 2 * first.shape[0], 2 * first.shape[1]), first.dtype)
    for half, numbers in zip((first, second), octave_order(planes // SUBBANDS), strict=True):
        for column, number in enumerate(numbers.tolist()):
            place, plane = divmod(number, planes)
            out[plane, place // 2 :: 2, place % 2 :: 2] = half[..., column]
    return out[:, : shape[0], : shape[1]]


def subbands_in_file_order(channels: int) -> np.ndarray:
    """i64[256 C]: the subband, 0 to 13 C - 1, of each coefficient of a cell in the order of a model file.

    That order is: octaves 0 to 3, of each its 3 C planes, in rows; then the low-pass of each channel.
    """
    counts = np.repeat(np.square(SIDES), [SUBBANDS * channels] * OCTAVES + [channels])
    return np.repeat(np.arange(len(counts)), counts)


@lru_cache(maxsize=16)
def file_order(channels: int) -> np.ndarray:
    """i64[256 C]: the place of each latent of a cell in the order of a model file."""
    places = np.split(np.arange(CELL * channels), np.cumsum([SUBBANDS * channels * side**2 for side in SIDES[:-1]]))
    planes = [place.reshape(-1, side, side) for place, side in zip(places, SIDES, strict=True)]
    return pack_latents(Coefficients(planes[:-1], planes[-1])).ravel()


def subband_of(channels: int) -> np.ndarray:
    """i64[256 C]: the subband, 0 to 13 C - 1, of each latent of a cell."""
    return subbands_in_file_order(channels)[file_order(channels)]
