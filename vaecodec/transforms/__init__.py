"""Divide an image into tiles, choose where transforms run, and store the restoration filter of an image.

+-------+-------+--+      The symbols of a tile depend on its own cells alone.  The transforms also see a halo of
|       |       |  |      cells of its neighbours, as wide as they reach, so tiles join as if the image had been
+-------+-------+--+      transformed whole.
|       |       |  |
+-------+-------+--+

Transforms run in the native core, an image at a time, or in TensorFlow.  The encoder of an image fits its filter, and
the file carries it.

The filter adds weighted sums of neighbours to each sample, after the colour transform (least squares by Wiener; in
video: Tsai et al. 2013, Adaptive Loop Filtering for Video Coding).  Channel 0 has nine weights: for samples 1, 2 and 3
away along a row, a column and both diagonals.  It has nine of each class of samples, by the activity around them; the
weights change gradually from class to class.  All other channels share two weights, for the nearest samples, and each
has two for those of channel 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from vaecodec.config import FILTER_REACH, STRIDE, Config
from vaecodec.errors import FormatError, ModelError
from vaecodec.native.transforms import FilterWeights
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.networks import LOG_BITS, MANTISSA_BITS, Analysis, Arrays, Synthesis, mantissas
from vaecodec.transforms.wavelet import Coefficients

DEFAULT_TILE = 1024  # pixels
FORWARD_REACH, INVERSE_REACH = 4, 46  # of four octaves of the wavelet: cells, and pixels


class Box(NamedTuple):
    """A rectangle, ends exclusive, in cells unless stated otherwise."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.bottom - self.top, self.right - self.left

    def slices(self) -> tuple[slice, slice]:
        """Index of an array [height, width, ...]."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def relative_to(self, outer: Box) -> Box:
        """The same rectangle in the coordinates of `outer`."""
        return Box(self.top - outer.top, self.left - outer.left, self.bottom - outer.top, self.right - outer.left)

    def intersection(self, other: Box) -> Box:
        """The rectangle that both cover."""
        return Box(*map(max, self[:2], other[:2]), *map(min, self[2:], other[2:]))

    def reduce(self, factor: int) -> Box:
        """The rectangle at 1/factor of the size, rounded outwards."""
        return Box(self.top // factor, self.left // factor, -(-self.bottom // factor), -(-self.right // factor))

    def grow(self, margin: int, limit: tuple[int, int]) -> Box:
        """The rectangle with a margin on each side, within (height, width)."""
        grown = Box(self.top - margin, self.left - margin, self.bottom + margin, self.right + margin)
        return grown.intersection(Box(0, 0, *limit))


def window_box(window: tuple[int, int, int, int] | None, image: tuple[int, int]) -> Box:
    """The pixels of a (top, left, height, width) window, None for all, of an image of (height, width).

    Raises ValueError if the window does not lie within the image.
    """
    top, left, height, width = window or (0, 0, *image)
    if min(top, left) < 0 or min(height, width) < 1 or top + height > image[0] or left + width > image[1]:
        raise ValueError(f"window {window} does not lie within the image of {image[1]} x {image[0]}")
    return Box(top, left, top + height, left + width)


def halo(config: Config, filtered: bool = False) -> int:
    """Cells that the transforms reach beyond a cell.

    A coarse block reaches one cell and a fine block half a cell.  Fine blocks see the result of the inverse wavelet,
    and a restoration filter sees that of the fine blocks.
    """
    blocks = config.coarse_blocks + (config.fine_blocks + 1) // 2
    pixels = INVERSE_REACH + STRIDE // 2 * config.fine_blocks + FILTER_REACH * filtered
    return max(blocks, FORWARD_REACH, -(-pixels // STRIDE))


class Grid(NamedTuple):
    """The tiles of an image, numbered in rows from the top left."""

    height: int  # pixels
    width: int
    tile: int

    @property
    def cells(self) -> tuple[int, int]:
        """Latent cells (h, w) of the whole image."""
        return -(-self.height // STRIDE), -(-self.width // STRIDE)

    @property
    def columns(self) -> int:
        return -(-self.width // self.tile)

    @property
    def rows(self) -> int:
        return -(-self.height // self.tile)

    @property
    def total(self) -> int:
        """Number of tiles."""
        return self.rows * self.columns

    def row(self, index: int) -> Box:
        """The cells of a row of tiles."""
        side = self.tile // STRIDE
        return Box(index * side, 0, min(index * side + side, self.cells[0]), self.cells[1])

    def box(self, index: int) -> Box:
        """The cells of one tile."""
        row, column = divmod(index, self.columns)
        side = self.tile // STRIDE
        return Box(row * side, column * side, row * side + side, column * side + side).intersection(
            Box(0, 0, *self.cells)
        )

    def overlapping(self, box: Box) -> Iterator[int]:
        """The tiles that share cells with `box`, in order."""
        side = self.tile // STRIDE
        for row in range(box.top // side, -(-box.bottom // side)):
            for column in range(box.left // side, -(-box.right // side)):
                yield row * self.columns + column


FILTER_WEIGHTS = 9
FILTER_CLASSES = (1, 2, 4)
# Activities between classes, in 64ths of the quantisation step of the lowest coefficients (measured); weights change
# from two thirds to four thirds of each.
CLASS_LIMITS: dict[int, tuple[int, ...]] = {1: (), 2: (6,), 4: (2, 6, 19)}
RAMPS = {2: 8088, 6: 2696, 19: 851}  # by limit: 16 * 3 * 2**12 * 64 / (255 * NORM**8 * limit)
RAMP_MAX = 65535
FILTER_MAX_SHIFT = 15  # a unit of weights is 2**-shift
OTHER_SHIFT = 9  # of the channels but the first


class Filter(NamedTuple):
    """Weights i8[K, 9] of channel 0 by class, in units of 2**-shift u8[K], and i8[2 C] of the others, in 2**-9.

    `others` holds the two shared weights, then the two for channel 0 of each; it is empty if there is one channel.
    """

    first: np.ndarray
    shifts: np.ndarray
    others: np.ndarray

    def to_bytes(self) -> bytes:
        """Serialise for the header: a byte for the number of classes, shift and weights of each, then the others."""
        data = bytes([FILTER_CLASSES.index(len(self.first))])
        for shift, weights in zip(self.shifts.tolist(), self.first, strict=True):
            data += bytes([shift]) + weights.tobytes()
        return data + self.others.tobytes()

    def weights(self, colors: np.ndarray, low_logarithm: int) -> FilterWeights:
        """Weights for the core, given log2, unit 2**-12, of the quantisation step of the lowest coefficients."""
        ramps = [_ramp(limit, low_logarithm) for limit in CLASS_LIMITS[len(self.first)]]
        arrays = (np.asarray(array, np.int32) for array in (self.first, self.shifts, ramps, self.others))
        return FilterWeights(colors, *arrays)


def read_filter(data: bytes, channels: int) -> Filter:
    """The inverse of Filter.to_bytes; raises FormatError if `data` is not a filter of so many channels."""
    others = 2 * channels if channels > 1 else 0
    if (
        not data
        or data[0] >= len(FILTER_CLASSES)
        or len(data) != 1 + (1 + FILTER_WEIGHTS) * FILTER_CLASSES[data[0]] + others
    ):
        raise FormatError(f"the header gives a filter of {len(data)} bytes, which this version does not know")
    weights = np.frombuffer(data, np.int8, offset=1)
    first = weights[: len(weights) - others].reshape(-1, 1 + FILTER_WEIGHTS)
    if not (first[:, 0].min() >= 0 and first[:, 0].max() <= FILTER_MAX_SHIFT):
        raise FormatError(f"the header gives a filter in units below 2**-{FILTER_MAX_SHIFT}")
    return Filter(first[:, 1:], first[:, 0].astype(np.uint8), weights[len(weights) - others :])


def _ramp(limit: int, low_logarithm: int) -> int:
    """Slope of the change between two classes: (activity * ramp) >> 12 goes from 256 to 512."""
    mantissa, power = mantissas()[-low_logarithm & ((1 << LOG_BITS) - 1)], -low_logarithm >> LOG_BITS
    scaled, shift = RAMPS[limit] * int(mantissa), MANTISSA_BITS + 4 - power
    return min(scaled >> shift if shift > 0 else scaled << -shift, RAMP_MAX)


EYE = "eye/"  # before the names of tensors of an analysis for the eye


class Transforms(Protocol):
    """Both transforms of a model, for images of one size at one quality index; all give the same integers."""

    batch: int  # images that are best transformed at once

    def analysis(
        self, images: Sequence[np.ndarray], quality_index: int, threads: Threads = ONE_THREAD, tune: str = "psnr"
    ) -> list[Coefficients]:
        """u8[16h, 16w, C] each -> coefficients of each, unit 2**-14, for a tune ("eye" or "psnr")."""

    def levels(
        self, coefficients: Sequence[Coefficients], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[np.ndarray]:
        """i16[16h, 16w, C] each, unit 2**-6 of a level of 0..255, 0 in the middle of that range."""

    def pixels(
        self,
        coefficients: Sequence[Coefficients],
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> list[np.ndarray]:
        """u8[16h, 16w, C] each, through a restoration filter if there is one."""


def arrays_for_the_eye(arrays: Arrays) -> dict[str, np.ndarray]:
    """The tensors of an analysis for the eye, named as those of the other one; none if a model has no such analysis."""
    return {name.removeprefix(EYE): array for name, array in arrays.items() if name.startswith(EYE)}


def load_analysis(config: Config, arrays: Arrays, name: str, tune: str = "psnr") -> Analysis:
    """The analysis transform of a model; raises ModelError if it has none, or its tensors do not fit.

    A model may have another one for the tune "eye".
    """
    if tune == "eye" and f"{EYE}analysis/latents/kernel" in arrays:
        return Analysis(config, arrays_for_the_eye(arrays))
    if "analysis/latents/kernel" not in arrays:
        raise ModelError(f"model {name} has no analysis transform: it decodes, but does not encode")
    return Analysis(config, arrays)


class NativeTransforms:
    """Transforms in the native core, or its NumPy reference.  Implements Transforms."""

    batch = 1

    def __init__(self, config: Config, arrays: Arrays, name: str = "") -> None:
        self._arrays = arrays
        self.synthesis = Synthesis(config, arrays)
        self._analysis = lru_cache(maxsize=None)(lambda tune: load_analysis(config, arrays, name, tune))

    def check(self) -> None:
        """Raise ModelError if there is an analysis transform whose tensors do not fit."""
        for tune, prefix in (("psnr", ""), ("eye", EYE)):
            if any(name.startswith(f"{prefix}analysis/") for name in self._arrays):
                self._analysis(tune)

    def analysis(
        self, images: Sequence[np.ndarray], quality_index: int, threads: Threads = ONE_THREAD, tune: str = "psnr"
    ) -> list[Coefficients]:
        analysis = self._analysis(tune)
        return [analysis(image, quality_index, threads) for image in images]

    def levels(
        self, coefficients: Sequence[Coefficients], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[np.ndarray]:
        return [self.synthesis.levels(image, quality_index, threads) for image in coefficients]

    def pixels(
        self,
        coefficients: Sequence[Coefficients],
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> list[np.ndarray]:
        return [self.synthesis.pixels(image, quality_index, weights, threads) for image in coefficients]


def load_transforms(config: Config, arrays: Arrays, name: str = "", device: str = "cpu") -> Transforms:
    """Both transforms of a model.

    Args:
        config: sizes of the model.
        arrays: tensors of the model.
        name: name of the model, for messages.
        device: "cpu" for the native core; "gpu", or "tensorflow" for any device that TensorFlow finds.

    Raises:
        CodecError: `device` is "gpu" and TensorFlow finds none.
        ModelError: tensors are missing or do not fit.
        ValueError: `device` is unknown.
    """
    if device == "cpu":
        return NativeTransforms(config, arrays, name)
    if device in ("gpu", "tensorflow"):
        from vaecodec.transforms.tensorflow import TensorFlowTransforms  # takes seconds to import

        return TensorFlowTransforms(config, arrays, name, device)
    raise ValueError(f"device is {device!r}, expected 'cpu', 'gpu' or 'tensorflow'")
