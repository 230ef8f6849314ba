"""The frozen transforms: pixels -> latents -> pixels, by LiteRT, or by TensorFlow on request.

Floats describe, they never choose a probability: the two may differ in the last bit, and a file decodes to
the same latents with either.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

import numpy as np

from vaecodec.weights import Model

Vector = np.ndarray


class Transforms(Protocol):
    """Both implementations; conditioning vectors are f32[fine]."""

    def analysis(self, pixels: np.ndarray, condition: Vector) -> np.ndarray:
        """u8[H, W, 3], sides multiples of 16 -> f32[h, w, M]."""

    def hyper_analysis(self, y: np.ndarray) -> np.ndarray:
        """f32[h, w, M], h and w multiples of 4 -> f32[h/4, w/4, N]."""

    def synthesis(self, y: np.ndarray, condition: Vector) -> np.ndarray:
        """f32[h, w, M] -> u8[H, W, 3]."""


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
    """One flatbuffer in an interpreter, which is laid out anew when the shapes of its inputs change."""

    def __init__(self, content: bytes, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        self._inputs = [d["index"] for d in sorted(self._interpreter.get_input_details(), key=lambda one: one["name"])]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._shapes: list[tuple[int, ...]] = []

    def __call__(self, inputs: tuple[np.ndarray, ...]) -> np.ndarray:
        shapes = [value.shape for value in inputs]
        if shapes != self._shapes:
            self._shapes = []  # should the layout fail
            for index, shape in zip(self._inputs, shapes, strict=True):
                self._interpreter.resize_tensor_input(index, shape)
            self._interpreter.allocate_tensors()
            self._shapes = shapes
        for index, value in zip(self._inputs, inputs, strict=True):
            self._interpreter.set_tensor(index, value)
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)[0]


class LiteRT:
    """The transforms as flatbuffers, on the CPU; one interpreter each, made when first used."""

    def __init__(self, model: Model, threads: int | None = None) -> None:
        self._model = model
        self._threads = threads or int(os.environ.get("VAECODEC_THREADS", 0)) or min(os.cpu_count() or 1, 4)
        self._of_parents: list[dict[str, Runner]] = []
        self._begin()

    def _begin(self) -> None:
        self._runners: dict[str, Runner] = {}
        self._lock = threading.Lock()  # interpreters hold their tensors: one call at a time
        self._process = os.getpid()

    def _run(self, name: str, *inputs: np.ndarray) -> np.ndarray:
        if self._process != os.getpid():
            # A fork has the interpreters but not their threads; to use one, or to let go of it, would wait for ever.
            self._of_parents.append(self._runners)
            self._begin()
        # The banner comes with the first interpreter of a process.
        with self._lock, nullcontext() if self._runners else without_banner():
            if name not in self._runners:
                self._runners[name] = Runner(self._model.transform(name), self._threads)
            return self._runners[name](inputs)

    def analysis(self, pixels: np.ndarray, condition: Vector) -> np.ndarray:
        return self._run("analysis", pixels[None], condition[None, None, None])

    def hyper_analysis(self, y: np.ndarray) -> np.ndarray:
        return self._run("hyper_analysis", y[None])

    def synthesis(self, y: np.ndarray, condition: Vector) -> np.ndarray:
        return self._run("synthesis", y[None], condition[None, None, None])


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
