"""The frozen transforms: pixels -> latents -> pixels, by LiteRT, or by TensorFlow on request.

Floats describe, they never choose a probability: the two may differ in the last bit, and a file decodes to
the same latents with either.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

import numpy as np

from vaecodec import lapped, pyramid
from vaecodec.config import CELL, HYPER_STRIDE, STRIDE
from vaecodec.errors import ModelError
from vaecodec.graphs import without_filter
from vaecodec.networks import check_network
from vaecodec.tiling import DEFAULT_TILE, Grid, halo
from vaecodec.vetting import require
from vaecodec.weights import Model

Vector = np.ndarray
MOST = 2 * (DEFAULT_TILE // STRIDE) ** 2  # cells at once: what LiteRT holds of each is five times as large


class Transforms(Protocol):
    """Both implementations; B tiles at once, at most `batch`; conditioning vectors are those of Model.condition."""

    batch: int

    def analysis(self, pixels: np.ndarray, condition: Vector) -> np.ndarray:
        """u8[B, H, W, C], sides multiples of 16 -> f32[B, h, w, M]."""

    def hyper_analysis(self, y: np.ndarray) -> np.ndarray:
        """f32[B, h, w, M], h and w multiples of 4 -> f32[B, h/4, w/4, N]."""

    def synthesis(self, y: np.ndarray, condition: Vector) -> np.ndarray:
        """f32[B, h, w, M] -> u8[B, H, W, C]."""


BANNER = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU."


@contextmanager
def without_banner() -> Iterator[None]:
    """Keeps LiteRT's one line of greeting off stderr, which it writes past Python; all else is passed on."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as caught:
        os.dup2(caught.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            caught.seek(0)
            others = [line for line in caught.readlines() if line.strip() != BANNER]
            if others:
                os.write(2, b"".join(others))


class Runner:
    """One flatbuffer in an interpreter, which is laid out anew when the shapes of its inputs change.

    Raises ModelError on one that cannot be run, or makes other shapes.
    """

    def __init__(self, content: bytes, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with _as_model_errors():
            self._interpreter = Interpreter(model_content=content, num_threads=threads)
            inputs = sorted(self._interpreter.get_input_details(), key=lambda one: one["name"])
            self._inputs = [one["index"] for one in inputs]
            self._output = self._interpreter.get_output_details()[0]["index"]
        self._shapes: list[tuple[int, ...]] = []

    def __call__(self, inputs: tuple[np.ndarray, ...], expected: tuple[int, ...], kind: type) -> np.ndarray:
        """The output for these inputs, which must be of the expected shape and type."""
        with _as_model_errors():
            self._lay_out([value.shape for value in inputs])
            for index, value in zip(self._inputs, inputs, strict=True):
                self._interpreter.set_tensor(index, value)
            self._interpreter.invoke()
            output = self._interpreter.get_tensor(self._output)  # its shape may not have been known before
        found, given = output.shape, list(inputs[0].shape[1:])
        require(found == expected, f"its network makes {list(found[1:])} of {given}")
        require(output.dtype == kind, f"its network makes {output.dtype}")
        return output

    def _lay_out(self, shapes: list[tuple[int, ...]]) -> None:
        if shapes == self._shapes:
            return
        self._shapes = []  # should the layout fail
        for index, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(index, shape)
        self._interpreter.allocate_tensors()
        self._shapes = shapes


@contextmanager
def _as_model_errors() -> Iterator[None]:
    """What LiteRT raises on a flatbuffer that it cannot run, as a ModelError."""
    try:
        yield
    except (ValueError, RuntimeError, TypeError, IndexError) as exc:
        raise ModelError(f"the model's network cannot be run ({str(exc).partition(chr(10))[0]})") from exc


class LiteRT:
    """The transforms as flatbuffers, on the CPU; one interpreter each, made when first used."""

    batch = 1  # a tile keeps the cores busy

    def __init__(self, model: Model, threads: int | None = None) -> None:
        self._model = model
        self._threads = threads or int(os.environ.get("VAECODEC_THREADS", 0)) or min(os.cpu_count() or 1, 4)
        self._of_parents: list[dict[str, Runner]] = []
        self._begin()
        _alive.add(self)

    def _begin(self) -> None:
        self._runners: dict[str, Runner] = {}
        self._lock = threading.Lock()  # interpreters hold their tensors: one call at a time

    def forked(self) -> None:
        """In the child of a fork, which has the interpreters but not their threads.

        To use one, or to let go of it, would wait for ever.
        """
        self._of_parents.append(self._runners)
        self._begin()

    def _run(self, name: str, inputs: tuple[np.ndarray, ...], expected: tuple[int, ...], kind: type) -> np.ndarray:
        # The banner comes with the first interpreter of a process.
        with self._lock, nullcontext() if self._runners else without_banner():
            if name not in self._runners:
                self._runners[name] = Runner(self._content(name), self._threads)
            return self._runners[name](inputs, expected, kind)

    def _content(self, name: str) -> bytes:
        """The flatbuffer of one transform; that of a model which did not come with the package is looked through."""
        content, config = self._model.transform(name), self._model.config
        if not self._model.shipped:
            widths = (config.latents, config.hyper, config.fine, config.coarse, config.hyper_width)
            side = {"analysis": STRIDE, "hyper_analysis": HYPER_STRIDE, "synthesis": 1}[name]
            check_network(content, max(CELL * config.channels, 4 * max(widths)), side, config.channels)
        return without_filter(content, name) if config.lapped and name != "hyper_analysis" else content

    def _filter(self, name: str) -> np.ndarray:
        """f32[16, 16]: the lapped filter of one transform, which is none of LiteRT's affairs."""
        kernel = self._model.array(f"weights/{name}/lapped/kernel").astype(np.float32)
        require(kernel.shape == (STRIDE, STRIDE), "the model's lapped filter has another shape")
        return kernel

    def analysis(self, pixels: np.ndarray, condition: Vector) -> np.ndarray:
        batch, height, width = pixels.shape[:3]
        expected = (batch, height // STRIDE, width // STRIDE, self._model.config.latents)
        if self._model.config.lapped:
            kernel = self._filter("analysis")
            pixels = np.stack([lapped.filtered(one, kernel, self._threads) for one in pixels])
        y = self._run("analysis", (pixels, *self._vectors(condition)), expected, np.float32)
        if self._model.config.wavelet:
            for one, picture in zip(y, pixels, strict=True):
                one += pyramid.coefficients(picture * np.float32(1 / 255) - np.float32(0.5))
        return y

    def _vectors(self, condition: Vector) -> list[np.ndarray]:
        """What Model.condition put end to end, as LiteRT takes it."""
        return [one[None, None, None] for one in np.split(condition, [self._model.config.fine]) if len(one)]

    def hyper_analysis(self, y: np.ndarray) -> np.ndarray:
        batch, h, w = y.shape[:3]
        expected = (batch, h // HYPER_STRIDE, w // HYPER_STRIDE, self._model.config.hyper)
        return self._run("hyper_analysis", (y,), expected, np.float32)

    def synthesis(self, y: np.ndarray, condition: Vector) -> np.ndarray:
        grid, margin = Grid(y.shape[1] * STRIDE, y.shape[2] * STRIDE, DEFAULT_TILE), halo(self._model.config)
        if y.shape[1] * y.shape[2] <= MOST:
            return self._synthesis(y, condition)
        out = np.empty((y.shape[0], grid.height, grid.width, self._model.config.channels), np.uint8)
        for box in map(grid.box, range(grid.total)):
            outer = box.grow(margin, grid.cells)
            part = self._synthesis(y[:, outer.top : outer.bottom, outer.left : outer.right], condition)
            top, left, bottom, right = (STRIDE * edge for edge in box.inside(outer))
            place = out[:, STRIDE * box.top : STRIDE * box.bottom, STRIDE * box.left : STRIDE * box.right]
            place[:] = part[:, top:bottom, left:right]
        return out

    def _synthesis(self, y: np.ndarray, condition: Vector) -> np.ndarray:
        expected = (y.shape[0], y.shape[1] * STRIDE, y.shape[2] * STRIDE, self._model.config.channels)
        kind = np.float32 if self._model.config.lapped else np.uint8
        more = [np.stack([pyramid.samples(one) for one in y])] if self._model.config.wavelet else []
        pictures = self._run("synthesis", (y, *self._vectors(condition), *more), expected, kind)
        if self._model.config.lapped:
            kernel = self._filter("synthesis")
            pictures = np.stack([lapped.pixels(one, kernel, self._threads) for one in pictures])
        return pictures


_alive: weakref.WeakSet[LiteRT] = weakref.WeakSet()


def _after_fork() -> None:
    for transforms in list(_alive):
        transforms.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


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
