"""Encode arrays of numbers with a bound on the error of every value, in chunks.

docs/reference/array-chunks.md describes the chunks.

    values -> scaling -> integers -> prediction -> residuals -> entropy coding              mode planes
                         integers -> image -> Codec -> .vae, the base of a prediction       mode vae
                         integers -> quantisation -> Zstandard                              mode grid
    values -> Zstandard                                                                     mode stored

The encoder takes the smallest.  Decoding is exact, so a bound that the encoder checks holds on every machine.  Values
are handled [n], little-endian, in C order.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from vaecodec.arguments import DEFAULT_LIMITS, NO_LIMITS, Limits, check_number
from vaecodec.arrays import chunks, planes
from vaecodec.arrays.chunks import (
    BASED,
    CONSTANT,
    GRID,
    PLANES,
    STORED,
    Chunk,
    Coding,
    from_planes,
    planes_shape,
    to_planes,
)
from vaecodec.arrays.prediction import Scale, choose_scale, ordered_scale, to_integers, to_values
from vaecodec.codec import Codec, cached_codec, codec_for
from vaecodec.container import MAX_SIDE, image_file
from vaecodec.container.image_file import quality_of
from vaecodec.errors import FormatError, LimitError
from vaecodec.images.channels import to_numpy
from vaecodec.model import added_models, shipped_models
from vaecodec.model.file import load_model

__all__ = ["decode", "encode", "info"]

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
    return min(_candidates(Task(values, float(max_error), layout), mode, model), key=len)


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
        values = decode_constant(chunk)
    else:
        values = decode_planes(chunk, model)
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


def _candidates(task: Task, mode: str, model: str) -> Iterator[bytes]:
    """The chunks that a mode allows, at least one."""
    constant = encode_constant(task)
    if constant is not None:
        yield constant
        return
    source = None if mode == "stored" else integer_planes(task)
    candidates = []
    if source is not None and mode in ("auto", "planes"):
        candidates.append(encode_planes(task, source, None))
    if source is not None and mode in ("auto", "grid"):
        candidates.append(encode_grid(task, source))
    if source is not None and (mode == "vae" or (mode == "auto" and is_base_useful(source))):
        candidates.append(encode_planes(task, source, cached_codec(load_model(model))))
    yield from filter(None, candidates)
    if mode in ("auto", "stored") or not any(candidates):
        yield encode_stored(task)


WHITE_LEVEL = 255 << 6  # white minus black in the codec's levels
PATCH_LIMIT = 64  # at most one value in so many has a patch
# A base is tried from these sides of its image and of a plane on, and from this bound on, as a fraction of the range.
MIN_BASE_SIDE, MIN_BASE_PLANE_SIDE, MIN_BASE_BOUND = 64, 24, 4 / 255
BASE_INDICES = ((8 / 255, 262), (16 / 255, 127), (math.inf, 36))  # quality indices of bases, up to these bounds


class Task(NamedTuple):
    """An array to encode, little-endian, in C order."""

    values: np.ndarray
    max_error: float
    layout: int  # flags

    @property
    def channels(self) -> bool:
        """Whether the last axis is channels."""
        return bool(self.layout & chunks.CHANNELS)

    @property
    def flat(self) -> np.ndarray:
        """The values [n]."""
        return self.values.reshape(-1)

    def chunk(self, mode: int, decoded: np.ndarray, parts: list[bytes]) -> bytes:
        """Pack a chunk that decodes to values [n]."""
        chunk = Chunk(mode, self.values.dtype, self.values.shape, self.layout, chunks.checksum(decoded), parts)
        return chunks.pack(chunk)


class IntegerPlanes(NamedTuple):
    """The values of a task as planes of integers."""

    numbers: np.ndarray  # i64[L, H, W]
    valid: np.ndarray | None  # bool[L, H, W]: finite values; None if all are
    scale: Scale
    bound: int  # on the error of the integers

    @property
    def relative_bound(self) -> float:
        """The bound as a fraction of the range."""
        return self.bound / max(1, self.scale.top)


def encode_stored(task: Task) -> bytes:
    """Encode the values by Zstandard, lossless."""
    return task.chunk(STORED, task.flat, [chunks.store(task.flat)])


def encode_constant(task: Task) -> bytes | None:
    """Encode a single value, if one is within the bound of all finite ones."""
    finite = task.flat[np.isfinite(task.flat)]
    number = float if task.values.dtype.kind == "f" else int  # 64-bit integers are not floats exactly
    low, high = (number(finite.min()), number(finite.max())) if len(finite) else (0, 0)
    if not task.values.size or not high - low <= 2 * task.max_error:
        return None
    # A value that all share keeps its bits, and with them the sign of a zero.
    middle = low + (high - low) / 2 if number is float else low + (high - low) // 2
    value = finite[0] if low == high and len(finite) else np.array(middle).astype(task.values.dtype)
    mask = chunks.pack_mask(task.flat)
    decoded = np.full(task.values.size, value)
    chunks.apply_mask(decoded, chunks.parse_mask(mask, decoded.dtype, decoded.size))
    if len(misses(task.flat, decoded, task.max_error)):
        return None
    return task.chunk(CONSTANT, decoded, [value.tobytes(), mask])


def decode_constant(chunk: Chunk) -> np.ndarray:
    """Decode the values of mode constant."""
    value, mask = chunk.parts
    if len(value) != chunk.dtype.itemsize:
        raise FormatError("the chunk's one value has another type")
    decoded = np.full(chunk.size, np.frombuffer(value, chunk.dtype)[0])
    chunks.apply_mask(decoded, chunks.parse_mask(mask, decoded.dtype, chunk.size))
    return decoded


def integer_planes(task: Task) -> IntegerPlanes | None:
    """The values as integers; None where no scale fits."""
    is_finite = np.isfinite(task.flat)
    finite = task.flat[is_finite]
    choice = choose_scale(finite, task.max_error) if len(finite) else None
    if choice is None:
        if task.values.dtype != np.float32 or not task.values.size:
            return None
        scale = ordered_scale(task.flat)
        return IntegerPlanes(to_planes(to_integers(task.values, scale), task.channels), None, scale, 0)
    scale, bound = choice[0], min(choice[1], choice[0].top)
    numbers = np.empty(task.values.size, np.int64)
    numbers[is_finite] = to_integers(finite, scale)
    valid = None
    if not is_finite.all():
        numbers[~is_finite] = int(numbers[is_finite].mean())
        valid = to_planes(is_finite.reshape(task.values.shape), task.channels)
    return IntegerPlanes(to_planes(numbers.reshape(task.values.shape), task.channels), valid, scale, bound)


def encode_planes(task: Task, source: IntegerPlanes, codec: Codec | None) -> bytes | None:
    """Encode mode vae, with a base by this codec, or mode planes; None where too many values miss the bound."""
    coding = Coding(source.scale, 2 * source.bound + 1, _choose_chain(task, source.numbers))
    base, file = None, []
    if codec is not None:
        colours, (_, height, width) = _base_colours(task.values.shape, task.channels), source.numbers.shape
        pixels = np.rint(source.numbers * (255.0 / max(1, source.scale.top))).astype(np.uint8)
        pixels = pixels.reshape(-1, colours, height, width).transpose(0, 2, 3, 1).reshape(-1, width, colours)
        rgb = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        quality_index = next(index for most, index in BASE_INDICES if source.relative_bound <= most)
        file = [codec.encode_unfiltered(rgb, quality_of(quality_index))]
        base = _decode_base(codec, file[0], source.numbers.shape, source.scale.top)
    weights, words, decoded = planes.encode(source.numbers, source.valid, coding, base)
    return _checked(task, source, coding, decoded, BASED if codec else PLANES, [weights, words, *file])


def encode_grid(task: Task, source: IntegerPlanes) -> bytes | None:
    """Encode mode grid, the quantised integers by Zstandard: for values that repeat rather than vary smoothly."""
    coding = Coding(source.scale, 2 * source.bound + 1, 1)
    quantised = (source.numbers + source.bound) // coding.step
    if source.valid is not None:
        quantised *= source.valid
    content = chunks.store(quantised.astype(_quantised_type(coding)).reshape(-1))
    return _checked(task, source, coding, _dequantise(quantised, coding), GRID, [content])


def _quantised_type(coding: Coding) -> np.dtype:
    """The smallest type that holds the quantised integers."""
    most = -(-coding.scale.top // coding.step)
    return np.dtype(f"<u{next(size for size in (1, 2, 4, 8) if most < 1 << 8 * size)}")


def _dequantise(quantised: np.ndarray, coding: Coding) -> np.ndarray:
    return np.minimum(quantised.astype(np.float64) * coding.step, coding.scale.top)


def _checked(
    task: Task, source: IntegerPlanes, coding: Coding, decoded: np.ndarray, mode: int, parts: list[bytes]
) -> bytes | None:
    """Pack planes that decode to `decoded`, with patches for misses; None where these are too many."""
    decoded = from_planes(decoded, task.values.shape, task.channels)
    values = to_values(decoded, coding.scale, task.values.dtype).reshape(-1)
    mask = b"" if source.valid is None else chunks.pack_mask(task.flat)
    chunks.apply_mask(values, chunks.parse_mask(mask, values.dtype, values.size))
    places = misses(task.flat, values, task.max_error)
    if len(places) > task.values.size // PATCH_LIMIT:
        return None
    values[places] = task.flat[places]
    return task.chunk(mode, values, [chunks.pack_coding(coding), mask, chunks.pack_patches(task.flat, places), *parts])


def misses(values: np.ndarray, decoded: np.ndarray, max_error: float) -> np.ndarray:
    """The places i64 where `decoded` [n] is not within the bound of values [n]; for 0, where bits differ."""
    if max_error == 0:
        bits = f"u{values.itemsize}"
        return np.flatnonzero(values.view(bits) != decoded.view(bits))
    if values.dtype.kind in "iu" and values.itemsize == 8:  # float64 would round differences
        above, below = np.maximum(values, decoded).view("u8"), np.minimum(values, decoded).view("u8")
        return np.flatnonzero(above - below > int(min(max_error, 2**64 - 1)))
    with np.errstate(invalid="ignore"):
        close = np.abs(decoded.astype(np.float64) - values.astype(np.float64)) <= max_error
    # Infinities of one sign are equal; a NaN must be a NaN.
    return np.flatnonzero(~(close | (decoded == values) | ((decoded != decoded) & (values != values))))


def decode_planes(chunk: Chunk, model: str | None) -> np.ndarray:
    """Decode the values of modes planes, vae and grid; `model` is the .vcm file of a base, None a shipped one."""
    coding_part, mask_part, patches, *parts = chunk.parts
    shape = planes_shape(chunk.shape, chunk.channels)
    if not chunk.size:
        raise FormatError("an empty chunk has planes")
    coding = chunks.parse_coding(coding_part, chunk.dtype, shape)
    mask, base = chunks.parse_mask(mask_part, chunk.dtype, chunk.size), None
    valid = None if mask is None else to_planes((mask == 0).reshape(chunk.shape), chunk.channels)
    if chunk.mode == BASED:
        header, colours = image_file.parse(parts[2]).header, _base_colours(chunk.shape, chunk.channels)
        if header.channels != 3:
            raise FormatError(f"the base has {header.channels} channels, expected 3")
        if (header.height, header.width) != (shape[0] // colours * shape[1], shape[2]):
            raise FormatError("the base has another size than the planes")
        base = _decode_base(codec_for(parts[2], model), parts[2], shape, coding.scale.top)
    if chunk.mode == GRID:
        if coding.chain != 1:
            raise FormatError(f"a chunk of mode grid has chains of {coding.chain}, expected 1")
        decoded = _dequantise(chunks.unstore(parts[0], _quantised_type(coding), chunk.size), coding).reshape(shape)
    else:
        decoded = planes.decode(parts[0], parts[1], shape, valid, coding, base)
    values = to_values(from_planes(decoded, chunk.shape, chunk.channels), coding.scale, chunk.dtype).reshape(-1)
    chunks.apply_mask(values, mask)
    chunks.apply_patches(values, patches)
    return values


def _choose_chain(task: Task, numbers: np.ndarray) -> int:
    """The planes in a chain: the channels, or all slices if they resemble each other, or 1."""
    count, height, width = numbers.shape
    if task.channels:
        return task.values.shape[-1] if task.values.shape[-1] <= chunks.longest_chain((count, height, width)) else 1
    if count == 1 or width == 1 or height * width < chunks.LARGE_PLANE:
        return 1
    stride = max(1, count // 8)
    within = np.abs(np.diff(numbers[::stride][:8].astype(np.float64), axis=2)).mean()
    sampled = np.arange(0, count - 1, stride)
    between = np.abs((numbers[sampled + 1] - numbers[sampled]).astype(np.float64)).mean()
    return count if between < 2 * within else 1


def is_base_useful(source: IntegerPlanes) -> bool:
    """Whether a base may make the planes smaller."""
    count, height, width = source.numbers.shape
    is_large = min(height, width) >= MIN_BASE_PLANE_SIDE and min(count * height, width) >= MIN_BASE_SIDE
    return is_large and count * height <= MAX_SIDE and source.relative_bound >= MIN_BASE_BOUND


def _base_colours(shape: tuple[int, ...], channels: bool) -> int:
    """The number of planes that are the colours of a base, 1 or 3."""
    return 3 if channels and shape[-1] == 3 else 1


def _decode_base(codec: Codec, file: bytes, shape: tuple[int, ...], top: int) -> np.ndarray:
    """Decode a base's file: f64[L, H, W], integers in 0..top."""
    levels = codec.decode_levels(file, None).astype(np.int64) + WHITE_LEVEL // 2
    colours = shape[0] * shape[1] // levels.shape[0]
    levels = levels.reshape(-1, shape[1], shape[2], 3).transpose(0, 3, 1, 2)
    numbers = (levels if colours == 3 else levels[:, 1]).reshape(shape) * top
    numbers += WHITE_LEVEL // 2
    numbers //= WHITE_LEVEL
    base: np.ndarray = np.clip(numbers, 0, top, out=numbers).astype(np.float64)
    return base
