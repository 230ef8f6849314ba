"""Arrays of numbers <-> bytes, with a bound on the error of every value: docs/reference/array-chunks.md.

    values --scaling--> integers --chains--> weights, words                                 mode planes
                        integers --> picture --Codec--> .vae --fixed--> base of the same    mode vae
                        integers --> steps --> Zstandard                                    mode grid
    values --> Zstandard                                                                    mode stored

The smallest is taken.  What a decoder computes is exact, so that the bound that was checked holds on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from vaecodec.arrays import chunks
from vaecodec.arrays import modes as modes_of_arrays
from vaecodec.arrays.chunks import BASED, CONSTANT, STORED
from vaecodec.arrays.modes import Task
from vaecodec.codec.codec import cached_codec
from vaecodec.container import image_file
from vaecodec.errors import FormatError, LimitError
from vaecodec.limits import DEFAULT, NONE, Limits
from vaecodec.model.file import load_model
from vaecodec.model.library import added, shipped

MODES = ("auto", "planes", "vae", "grid", "stored")


def encode(
    values: Any, max_error: float = 0, channels: bool | None = None, mode: str = "auto", model: str = "small"
) -> bytes:
    """An array [..., H, W], or [..., H, W, C] with channels -> a chunk, bytes; u8 to u32, i8 to i32, f32 or f64.

    Every value comes back within `max_error`, in the units of the data, NaNs and infinities as such; with 0 all bits
    come back.  `channels` None counts a last axis of 2 to 4, of three or more, as channels.  `mode` is "auto", or one
    of "planes", "vae" (a picture by `model` below), "grid" and "stored" (without loss).  Raises CodecError on an array
    that it cannot take, ValueError on a bound or a mode that cannot be.
    """
    check_options(max_error, mode)
    values = np.asarray(values)
    if channels is None:
        channels = values.ndim >= 3 and values.shape[-1] in (2, 3, 4)
    chunks.check_array(values, channels)
    layout = chunks.layout_of(values, channels)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(values.shape)
    return min(_ways(Task(values, float(max_error), layout), mode, model), key=len)


def decode(
    data: bytes | memoryview,
    model: str | None = None,
    limits: Limits | None = DEFAULT,
    expected: tuple[tuple[int, ...], np.dtype] | None = None,
) -> np.ndarray:
    """A chunk's bytes -> the array, the same bits on every machine, and the order in memory that it had.

    `limits.pixels` bounds how many values there are (limits=None: nothing does); `expected` is the (shape, dtype) that
    they must have.  `model` is the .vcm file of a chunk whose model is not shipped.  Raises FormatError on damage,
    LimitError beyond the limits, ModelError where the model is missing.
    """
    chunk = chunks.parse(data)
    if expected is not None and (chunk.shape, chunk.dtype) != (tuple(expected[0]), expected[1].newbyteorder("<")):
        raise FormatError(f"the chunk is {chunk.dtype}{list(chunk.shape)}, expected {expected[1]}{list(expected[0])}")
    most = (limits or NONE).pixels
    if most is not None and chunk.size > most:
        raise LimitError(f"{chunk.size} values exceed the limit of {most}")
    if chunk.mode == STORED:
        flat = modes_of_arrays.read_stored(chunk)
    elif chunk.mode == CONSTANT:
        flat = modes_of_arrays.read_constant(chunk)
    else:
        flat = modes_of_arrays.read_planes(chunk, model)
    if chunks.checksum(flat) != chunk.crc:
        raise FormatError("the chunk is damaged (the CRC of its values does not match)")
    return chunks.laid_out(flat, chunk)


def check_options(max_error: float, mode: str) -> None:
    """Raises ValueError on a bound or a mode that encode does not take."""
    if not 0 <= max_error < math.inf:
        raise ValueError(f"max_error is {max_error!r}, expected a finite number, 0 or more")
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")


def options(codec: Any) -> dict[str, Any]:
    """The parameters of encode that an object has as attributes, JSON-ready."""
    return {name: getattr(codec, name) for name in ("max_error", "channels", "mode", "model")}


def model_path(model: str) -> str | None:
    """What decode wants to be told of encode's model: a chunk names one of those here itself."""
    return None if model in shipped() + added() else model


def info(data: bytes | memoryview) -> dict[str, Any]:
    """What a chunk says of itself, JSON-ready: mode, dtype, shape, channels, bytes, and the model of a base."""
    chunk = chunks.parse(data)
    found: dict[str, Any] = {"mode": chunks.MODES[chunk.mode], "dtype": chunk.dtype.name, "shape": list(chunk.shape)}
    found.update(channels=chunk.channels, bytes=len(data))
    if chunk.mode == BASED:
        found["model"] = image_file.parse(chunk.parts[-1]).header.model
    return found


def _ways(task: Task, mode: str, model: str) -> Iterator[bytes]:
    """The chunks that a mode allows, at least one."""
    constant = modes_of_arrays.constant(task)
    if constant is not None:
        yield constant
        return
    prepared = None if mode == "stored" else modes_of_arrays.prepare(task)
    found = []
    if prepared is not None and mode in ("auto", "planes"):
        found.append(modes_of_arrays.planes(task, prepared, None))
    if prepared is not None and mode in ("auto", "grid"):
        found.append(modes_of_arrays.grid(task, prepared))
    if prepared is not None and (mode == "vae" or (mode == "auto" and modes_of_arrays.suits_a_base(task, prepared))):
        found.append(modes_of_arrays.planes(task, prepared, cached_codec(load_model(model))))
    yield from filter(None, found)
    if mode in ("auto", "stored") or not any(found):
        yield modes_of_arrays.stored(task)
