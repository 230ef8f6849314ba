"""Build the integer layers of both transforms from the tensors of a model file."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from vaecodec.config import Config
from vaecodec.errors import ModelError
from vaecodec.native.networks import Block, Dense, Depthwise
from vaecodec.transforms.channels import rotation
from vaecodec.transforms.gains import interpolate, multipliers

LIMIT = 32767
GATE_BITS = 11  # unit of activations: the product of a gate is shifted by it

Arrays = Mapping[str, np.ndarray]


def rotation_matrix(channels: int) -> np.ndarray:
    """i32[C, C], unit 2**-14: the rotated colours of a pixel, in rows."""
    return np.rint(rotation(channels) * 2**14).astype(np.int32)


def dense_layer(arrays: Arrays, name: str, inputs: int, outputs: int, form: str = "linear") -> Dense:
    """One dense layer; raises ModelError where it has another shape, or sums that could overflow."""
    kernel, bias, shift = _tensors(arrays, name, (inputs, outputs))
    try:
        return Dense(kernel, bias, shift, form, LIMIT, GATE_BITS)
    except ValueError as exc:
        raise ModelError(f"layer {name}: {exc}") from exc


def block_layers(arrays: Arrays, name: str, channels: int) -> Block:
    """The five layers of one residual block; raises ModelError as dense_layer does."""
    taps, bias, shift = _tensors(arrays, f"{name}/space", (3, 3, channels))
    try:
        space = Depthwise(taps, bias, shift, LIMIT)
    except ValueError as exc:
        raise ModelError(f"layer {name}/space: {exc}") from exc
    return Block(
        dense_layer(arrays, f"{name}/in", channels, channels, "relu"),
        space,
        dense_layer(arrays, f"{name}/out", channels, channels),
        dense_layer(arrays, f"{name}/gate", channels, 2 * channels, "gate"),
        dense_layer(arrays, f"{name}/mix", channels, channels),
    )


def blocks(arrays: Arrays, name: str, count: int, channels: int) -> list[Block]:
    """The blocks name0, name1, ... of a transform."""
    return [block_layers(arrays, f"{name}{n}", channels) for n in range(count)]


class Multipliers:
    """What the activations of one transform are multiplied by, at each quality index."""

    def __init__(self, arrays: Arrays, side: str, config: Config, last: int) -> None:
        self._anchors = {
            place: tensor(arrays, f"gains/{side}/{place}", np.int32, (8, width))
            for place, width in (("fine", config.fine), ("out", last))
        }
        self.of = lru_cache(maxsize=32)(self._of)

    def _of(self, place: str, quality_index: int) -> np.ndarray:
        return multipliers(interpolate(self._anchors[place], quality_index))


def tensor(arrays: Arrays, name: str, kind: type, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of a model file; raises ModelError where it is missing or has another type or shape."""
    found = arrays.get(name)
    if found is None or found.dtype != kind or found.shape != shape:
        what = "missing" if found is None else f"{found.dtype}{list(found.shape)}"
        raise ModelError(f"the model's tensor {name} is {what}, expected {np.dtype(kind).name}{list(shape)}")
    return found


def _tensors(arrays: Arrays, name: str, shape: tuple[int, ...]) -> list[np.ndarray]:
    parts = (("kernel", np.int16, shape), ("bias", np.int32, shape[-1:]), ("shift", np.uint8, shape[-1:]))
    return [tensor(arrays, f"{name}/{part}", kind, size) for part, kind, size in parts]
