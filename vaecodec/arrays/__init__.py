"""Encode arrays of numbers with a bound on the error of every value, in chunks.

docs/reference/array-chunks.md describes the chunks.

    values -> scaling -> integers -> prediction -> residuals -> entropy coding              mode planes
                         integers -> image -> Codec -> .vae, the base of a prediction       mode vae
                         integers -> quantisation -> Zstandard                              mode grid
    values -> Zstandard                                                                     mode stored

The encoder takes the smallest.  Decoding is exact, so a bound that the encoder checks holds on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vaecodec.arguments import DEFAULT_LIMITS, NO_LIMITS, Limits, check_number
from vaecodec.arrays import chunks, modes
from vaecodec.codec import cached_codec
from vaecodec.container import image_file
from vaecodec.errors import FormatError, LimitError
from vaecodec.images import to_numpy
from vaecodec.model import added_models, shipped_models
from vaecodec.model.file import load_model

MODES = ("auto", "planes", "vae", "grid", "stored")


def encode(
    values: Any, max_error: float = 0, channels: bool | None = None, mode: str = "auto", model: str = "small"
) -> bytes:
    """Encode an array [..., H, W], or [..., H, W, C] with channels, as a chunk.

    Args:
        values: u8 to u64, i8 to i64, f32, f64 or bool, in NumPy or any library with `__array__` or DLPack.
        max_error: Bound on the error of each value, in the units of the data; 0 keeps all bits.  NaNs and infinities
            come back as such.  Booleans are kept whatever the bound.
        channels: Whether the last axis is channels; None counts a last axis of 2 to 4, of three or more, as channels.
        mode: "auto", "planes", "vae" (an image coded by `model`), "grid" or "stored" (lossless).
        model: A shipped model or a .vcm file.

    Raises:
        CodecError: A chunk cannot hold the array.
        ValueError, TypeError: The bound or the mode is invalid.
    """
    check_options(max_error, mode)
    values = to_numpy(values)
    if channels is None:
        channels = values.ndim >= 3 and values.shape[-1] in (2, 3, 4)
    chunks.check_array(values, channels)
    layout = chunks.array_layout(values, channels)
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(values.shape)
    if layout & chunks.BOOLEAN:
        values, max_error = values.view(np.uint8), 0
    return min(_candidates(modes.Task(values, float(max_error), layout), mode, model), key=len)


def decode(
    data: bytes | memoryview,
    model: str | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    expected: tuple[tuple[int, ...], np.dtype] | None = None,
) -> np.ndarray:
    """Decode a chunk to the array, with its order in memory; the same bits on every machine.

    Args:
        model: The .vcm file of a chunk whose model is not shipped.
        limits: `limits.pixels` bounds the number of values; None sets no bound.
        expected: The (shape, dtype) that the array must have.

    Raises:
        FormatError: The chunk is damaged or not as expected.
        LimitError: It exceeds the limits.
        ModelError: Its model is missing.
    """
    chunk = chunks.parse(data)
    if expected is not None and (chunk.shape, chunk.kind) != (tuple(expected[0]), expected[1].newbyteorder("<")):
        raise FormatError(f"the chunk is {chunk.kind}{list(chunk.shape)}, expected {expected[1]}{list(expected[0])}")
    most = (limits or NO_LIMITS).pixels
    if most is not None and chunk.size > most:
        raise LimitError(f"{chunk.size} values exceed the limit of {most}")
    if chunk.mode == chunks.STORED:
        values = chunks.unstore(chunk.parts[0], chunk.dtype, chunk.size)
    elif chunk.mode == chunks.CONSTANT:
        values = modes.decode_constant(chunk)
    else:
        values = modes.decode_planes(chunk, model)
    if chunks.checksum(values) != chunk.crc:
        raise FormatError("the chunk is damaged (the CRC of its values does not match)")
    return chunks.restore_layout(values, chunk)


def check_options(max_error: float, mode: str) -> None:
    """Raise ValueError or TypeError on a bound or a mode that encode refuses."""
    check_number("max_error", max_error, 0, expected="a finite number, 0 or more")
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")


def options(codec: Any) -> dict[str, Any]:
    """The parameters of encode that an object has as attributes, JSON-ready."""
    return {name: getattr(codec, name) for name in ("max_error", "channels", "mode", "model")}


def model_path(model: str) -> str | None:
    """The `model` for decode, given that of encode: None for shipped and added ones, which chunks name themselves."""
    return None if model in shipped_models() + added_models() else model


def info(data: bytes | memoryview) -> dict[str, Any]:
    """Describe a chunk, JSON-ready: mode, dtype, shape, channels, bytes, and the model of a base."""
    chunk = chunks.parse(data)
    description: dict[str, Any] = {
        "mode": chunks.MODES[chunk.mode],
        "dtype": chunk.kind.name,
        "shape": list(chunk.shape),
        "channels": chunk.channels,
        "bytes": len(data),
    }
    if chunk.mode == chunks.BASED:
        description["model"] = image_file.parse(chunk.parts[-1]).header.model
    return description


def _candidates(task: modes.Task, mode: str, model: str) -> Iterator[bytes]:
    """The chunks that a mode allows, at least one."""
    constant = modes.encode_constant(task)
    if constant is not None:
        yield constant
        return
    source = None if mode == "stored" else modes.integer_planes(task)
    candidates = []
    if source is not None and mode in ("auto", "planes"):
        candidates.append(modes.encode_planes(task, source, None))
    if source is not None and mode in ("auto", "grid"):
        candidates.append(modes.encode_grid(task, source))
    if source is not None and (mode == "vae" or (mode == "auto" and modes.is_base_useful(source))):
        candidates.append(modes.encode_planes(task, source, cached_codec(load_model(model))))
    yield from filter(None, candidates)
    if mode in ("auto", "stored") or not any(candidates):
        yield modes.encode_stored(task)
