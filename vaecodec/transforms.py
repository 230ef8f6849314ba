"""The frozen transforms: pixels -> latents -> pixels, by LiteRT, or by TensorFlow on request.

Floats describe, they never choose a probability: the two may differ in the last bit, and a file decodes to
the same latents with either.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from vaecodec import pyramid
from vaecodec.cells import HANDS, Hands
from vaecodec.config import STRIDE
from vaecodec.graphs import unrounded
from vaecodec.interpreters import Runners, Spare
from vaecodec.networks import check_network
from vaecodec.tiling import DEFAULT_TILE, Grid, halo
from vaecodec.vetting import require
from vaecodec.weights import Model

Vector = np.ndarray
MOST = 2 * (DEFAULT_TILE // STRIDE) ** 2  # cells at once: what LiteRT holds of each is five times as large


class Transforms(Protocol):
    """Both implementations; B tiles at once, at most `batch`; conditioning vectors are those of Model.condition.

    `hands` may be several threads, or one of several that have tiles of their own.
    """

    batch: int

    def analysis(self, pixels: np.ndarray, condition: Vector, hands: Hands = HANDS) -> np.ndarray:
        """u8[B, H, W, C], sides multiples of 16 -> f32[B, h, w, M]."""

    def synthesis(self, y: np.ndarray, condition: Vector, hands: Hands = HANDS) -> np.ndarray:
        """f32[B, h, w, M] -> u8[B, H, W, C]."""

    def unrounded(self, y: np.ndarray, condition: Vector, hands: Hands = HANDS) -> np.ndarray:
        """f32[B, h, w, M] -> f32[B, H, W, C], on a scale of 255 and a half more, not clipped."""


class LiteRT:
    """The transforms as flatbuffers, on the CPU; one interpreter each, made when first used."""

    batch = 1  # a tile keeps the cores busy

    def __init__(self, model: Model, threads: int | None = None) -> None:
        self._model = model
        self._threads = threads or int(os.environ.get("VAECODEC_THREADS", 0)) or min(os.cpu_count() or 1, 4)
        self._runners, self._spare = Runners(self._content, self._threads), Spare(self._content)

    def _run(
        self, name: str, inputs: tuple[np.ndarray, ...], expected: tuple[int, ...], kind: type, hands: Hands
    ) -> np.ndarray:
        """The one output for these inputs, which must be of the expected shape and type."""
        runners = self._spare if hands.alone else self._runners
        (output,) = runners(name, inputs, lambda found: [one.copy() for one in found])
        found, given = output.shape, list(inputs[0].shape[1:])
        require(found == expected, f"its network makes {list(found[1:])} of {given}")
        require(output.dtype == kind, f"its network makes {output.dtype}")
        return output

    def _content(self, name: str) -> bytes:
        """The flatbuffer of one transform; that of a model which did not come with the package is looked through."""
        if name == "unrounded":
            return unrounded(self._content("synthesis"))
        content, config = self._model.transform(name), self._model.config
        if not self._model.shipped:
            check_network(content, max(config.latents, 4 * max(config.fine, config.coarse)))
        return content

    def analysis(self, pixels: np.ndarray, condition: Vector, hands: Hands = HANDS) -> np.ndarray:
        batch, height, width = pixels.shape[:3]
        expected = (batch, height // STRIDE, width // STRIDE, self._model.config.latents)
        y = self._run("analysis", (pixels, *self._vectors(condition)), expected, np.float32, hands)
        for one, picture in zip(y, pixels, strict=True):
            one += pyramid.coefficients(picture, hands.each)
        return y

    def _vectors(self, condition: Vector) -> list[np.ndarray]:
        """What Model.condition put end to end, as LiteRT takes it."""
        return [one[None, None, None] for one in np.split(condition, [self._model.config.fine])]

    def synthesis(self, y: np.ndarray, condition: Vector, hands: Hands = HANDS) -> np.ndarray:
        return self._in_parts(
            y, np.dtype(np.uint8), lambda part: self._made("synthesis", part, condition, np.uint8, hands)
        )

    def unrounded(self, y: np.ndarray, condition: Vector, hands: Hands = HANDS) -> np.ndarray:
        return self._in_parts(
            y, np.dtype(np.float32), lambda part: self._made("unrounded", part, condition, np.float32, hands)
        )

    def _in_parts(self, y: np.ndarray, kind: np.dtype[Any], make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """What `make` makes of so many cells as can be had at once, with a halo, put together."""
        grid, margin = Grid(y.shape[1] * STRIDE, y.shape[2] * STRIDE, DEFAULT_TILE), halo(self._model.config)
        if y.shape[1] * y.shape[2] <= MOST:
            return make(y)
        out = np.empty((y.shape[0], grid.height, grid.width, self._model.config.channels), kind)
        for box in map(grid.box, range(grid.total)):
            outer = box.grow(margin, grid.cells)
            part = make(y[:, outer.top : outer.bottom, outer.left : outer.right])
            top, left, bottom, right = (STRIDE * edge for edge in box.inside(outer))
            place = out[:, STRIDE * box.top : STRIDE * box.bottom, STRIDE * box.left : STRIDE * box.right]
            place[:] = part[:, top:bottom, left:right]
        return out

    def _made(self, name: str, y: np.ndarray, condition: Vector, kind: type, hands: Hands) -> np.ndarray:
        expected = (y.shape[0], y.shape[1] * STRIDE, y.shape[2] * STRIDE, self._model.config.channels)
        linear = stacked([pyramid.samples(one, hands.each) for one in y])
        return self._run(name, (y, *self._vectors(condition), linear), expected, kind, hands)


def stacked(arrays: list[np.ndarray]) -> np.ndarray:
    """[B, ...]: arrays of one shape; one by itself is not copied."""
    return np.stack(arrays) if len(arrays) > 1 else arrays[0][None]


def make_transforms(model: Model, device: str = "cpu", threads: int | None = None) -> Transforms:
    """LiteRT for "cpu"; TensorFlow for "tensorflow" (wherever it runs) and "gpu"; raises ValueError otherwise.

    `threads` are LiteRT's; as many as there are cores, up to 4, where not given here or as VAECODEC_THREADS.
    """
    if device == "cpu":
        return LiteRT(model, threads)
    if device in ("tensorflow", "gpu"):
        from vaecodec.float_transforms import TensorFlow

        return TensorFlow(model, device)
    raise ValueError(f"device is {device!r}, expected 'cpu', 'gpu' or 'tensorflow'")
