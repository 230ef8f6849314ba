"""Serialise array chunks: header, coding parameters, stored values, masks and patches.

The format is described in docs/reference/array-chunks.md.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import NamedTuple

import numpy as np

from vaecodec.arrays.prediction import AFFINE, INTEGERS, ORDERED, QUOTIENTS, TOP_MAX, Scale
from vaecodec.container import zstandard
from vaecodec.errors import CodecError, FormatError

MAGIC = b"\x89VAA"
VERSION = 1
STORED, CONSTANT, PLANES, BASED, GRID = range(5)
MODES = ("stored", "constant", "planes", "vae", "grid")
PART_COUNTS = {STORED: 1, CONSTANT: 2, PLANES: 5, BASED: 6, GRID: 4}
TYPES = tuple(np.dtype(name) for name in ("u1", "<u2", "<u4", "i1", "<i2", "<i4", "<f4", "<f8", "<u8", "<i8"))
CHANNELS, FORTRAN, BIG_ENDIAN, BOOLEAN = 1, 2, 4, 8  # flags of a layout
HEADER = struct.Struct("<4sBBBBB")  # magic, version, mode, type, layout, dimensions
CODING = struct.Struct("<BddQQI")  # kind, low, unit, top, step, planes in a chain
U32 = struct.Struct("<I")
MAX_DIMENSIONS = 32
MAX_VALUES = (1 << 32) - 1
LARGE_PLANE, SHORT_CHAIN = 1024, 16  # values; the planes in a chain of smaller ones
ZSTD_LEVEL, ZSTD_FAST_LEVEL, ZSTD_FAST_FROM = 19, 9, 1 << 22  # the fast level from so many bytes on
AS_IS, BYTE_PLANES, BIT_PLANES = range(3)  # order of stored values
SPECIAL = (np.nan, np.inf, -np.inf)  # values of a mask, from 1 on


class Chunk(NamedTuple):
    """A parsed chunk."""

    mode: int
    dtype: np.dtype  # little-endian
    shape: tuple[int, ...]
    layout: int  # CHANNELS: the last axis is channels; FORTRAN, BIG_ENDIAN: the array in memory; BOOLEAN: u8 is bool
    crc: int  # of the values, little-endian, in C order
    parts: list[bytes]  # PART_COUNTS[mode] of them

    @property
    def channels(self) -> bool:
        """Whether the last axis is channels."""
        return bool(self.layout & CHANNELS)

    @property
    def kind(self) -> np.dtype:
        """The type of the array: `dtype`, or bool."""
        return np.dtype(bool) if self.layout & BOOLEAN else self.dtype

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)


class Coding(NamedTuple):
    """Parameters that planes of integers are coded with."""

    scale: Scale
    step: int  # between values after quantisation
    chain: int  # consecutive planes that are predicted from each other


def pack(chunk: Chunk) -> bytes:
    """Serialise a chunk; inverse of parse."""
    header = HEADER.pack(MAGIC, VERSION, chunk.mode, TYPES.index(chunk.dtype), chunk.layout, len(chunk.shape))
    shape = struct.pack(f"<{len(chunk.shape)}I", *chunk.shape)
    parts = b"".join(U32.pack(len(part)) + part for part in chunk.parts)
    data = header + shape + U32.pack(chunk.crc) + parts
    return data + U32.pack(zlib.crc32(data))


def parse(data: bytes | memoryview) -> Chunk:
    """Parse a chunk; raise FormatError on damage and on unknown versions, modes and types."""
    view = memoryview(data)
    if bytes(view[:4]) != MAGIC:
        raise FormatError("not an array chunk" + ("" if len(view) else " (it is empty)"))
    if len(view) < HEADER.size + 2 * U32.size:
        raise FormatError("the chunk is cut off")
    _, version, mode, kind, layout, dimensions = HEADER.unpack_from(view)
    if version != VERSION:
        raise FormatError(f"chunk version {version} is not supported (this is a reader of version {VERSION})")
    if zlib.crc32(view[: -U32.size]) != U32.unpack(view[-U32.size :])[0]:
        raise FormatError("the chunk is damaged (its CRC does not match)")
    if mode not in PART_COUNTS or kind >= len(TYPES) or layout > 15 or dimensions > MAX_DIMENSIONS:
        raise FormatError("the chunk has a mode, type or layout that this version does not know")
    if layout & BOOLEAN and TYPES[kind] != np.uint8:
        raise FormatError(f"the chunk has booleans of type {TYPES[kind]}, expected uint8")
    position, end = HEADER.size + 4 * dimensions + U32.size, len(view) - U32.size
    if position > end:
        raise FormatError("the chunk is cut off inside its header")
    shape = struct.unpack_from(f"<{dimensions}I", view, HEADER.size)
    if _extent(shape) > MAX_VALUES:
        raise FormatError(f"the chunk claims the shape {list(shape)} (at most {MAX_VALUES} values)")
    if layout & CHANNELS and dimensions < 3:
        raise FormatError(f"the chunk has channels in {dimensions} dimensions")
    (crc,) = U32.unpack_from(view, position - U32.size)
    parts = []
    for _ in range(PART_COUNTS[mode]):
        length = U32.unpack_from(view, position)[0] if position + U32.size <= end else end
        if length > end - position - U32.size:
            raise FormatError("the chunk is cut off inside a part")
        parts.append(bytes(view[position + U32.size : position + U32.size + length]))
        position += U32.size + length
    if position != end:
        raise FormatError(f"{end - position} bytes follow the last part")
    return Chunk(mode, TYPES[kind], shape, layout, crc, parts)


def check_array(values: np.ndarray, channels: bool) -> None:
    """Raise CodecError on an array that a chunk cannot hold."""
    if values.dtype.newbyteorder("<") not in (*TYPES, bool):
        names = ", ".join(kind.name for kind in TYPES)
        raise CodecError(f"values are {values.dtype}, expected one of {names}, bool")
    if values.ndim > MAX_DIMENSIONS or _extent(values.shape) > MAX_VALUES:
        raise CodecError(f"shape {values.shape} is beyond what a chunk can hold")
    if channels and values.ndim < 3:
        raise CodecError(f"shape {values.shape} has no channels, which are the last of three axes or more")


def _extent(shape: tuple[int, ...]) -> int:
    """The number of values, sides of 0 counted as 1: NumPy bounds the sides of empty arrays too."""
    values: int = math.prod(max(side, 1) for side in shape)
    return values


def array_layout(values: np.ndarray, channels: bool) -> int:
    """The layout flags of an array."""
    is_fortran = values.flags.f_contiguous and not values.flags.c_contiguous
    is_big_endian = values.dtype.newbyteorder("<") != values.dtype
    is_boolean = values.dtype == bool
    return CHANNELS * channels | FORTRAN * is_fortran | BIG_ENDIAN * is_big_endian | BOOLEAN * is_boolean


def restore_layout(values: np.ndarray, chunk: Chunk) -> np.ndarray:
    """Give values [n], little-endian, in C order, the chunk's shape, byte order and order in memory.

    Raises FormatError on booleans that are neither 0 nor 1.
    """
    values = values.reshape(chunk.shape)
    if chunk.layout & BOOLEAN:
        if values.max(initial=0) > 1:
            raise FormatError("the chunk has booleans other than 0 and 1")
        values = values.view(bool)
    if chunk.layout & BIG_ENDIAN:
        values = values.astype(chunk.dtype.newbyteorder(">"))
    return np.asfortranarray(values) if chunk.layout & FORTRAN else values


def planes_shape(shape: tuple[int, ...], channels: bool) -> tuple[int, int, int]:
    """[L, H, W] of an array's planes; an array of one axis is a plane of one row."""
    if channels:
        shape = (*shape[:-3], shape[-1], *shape[-3:-1])
    shape = (1, 1, 1, *shape)
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def to_planes(values: np.ndarray, channels: bool) -> np.ndarray:
    """An array as planes [L, H, W], channels moved before rows."""
    shape = planes_shape(values.shape, channels)
    return np.ascontiguousarray(np.moveaxis(values, -1, -3) if channels else values).reshape(shape)


def from_planes(numbers: np.ndarray, shape: tuple[int, ...], channels: bool) -> np.ndarray:
    """Planes [L, H, W] as an array of this shape; inverse of to_planes."""
    if not channels:
        return numbers.reshape(shape)
    return np.ascontiguousarray(np.moveaxis(numbers.reshape(*shape[:-3], shape[-1], *shape[-3:-1]), -3, -1))


def checksum(values: np.ndarray) -> int:
    """CRC-32 of values, little-endian, in C order."""
    return zlib.crc32(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)


def longest_chain(shape: tuple[int, int, int]) -> int:
    """The longest chain in planes [L, H, W]; shorter for small planes, each of which takes some time."""
    return shape[0] if shape[1] * shape[2] >= LARGE_PLANE else min(shape[0], SHORT_CHAIN)


def pack_coding(coding: Coding) -> bytes:
    """Serialise coding parameters; inverse of parse_coding."""
    return CODING.pack(*coding.scale, coding.step, coding.chain)


def parse_coding(data: bytes, dtype: np.dtype, shape: tuple[int, int, int]) -> Coding:
    """Parse the coding parameters of planes [L, H, W] of this type; raise FormatError where they are out of range."""
    if len(data) != CODING.size:
        raise FormatError(f"the scale has {len(data)} bytes, expected {CODING.size}")
    kind, low, unit, top, step, chain = CODING.unpack(data)
    if dtype.kind == "f":
        fits = kind in (QUOTIENTS, AFFINE) or (kind == ORDERED and dtype == np.float32)
        limits = (-(2.0**31), 2.0**31) if kind == ORDERED else (-np.inf, np.inf)
    else:
        fits, limits = kind == INTEGERS, (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max) + 1)
    fits = fits and math.isfinite(low) and math.isfinite(unit) and unit > 0 and top <= TOP_MAX
    if kind in (INTEGERS, ORDERED):
        fits = fits and low == int(low) and limits[0] <= int(low) and int(low) + top < limits[1]
    if not fits or not (step % 2 and step <= 2 * top + 1):
        raise FormatError("the chunk's scale is out of range")
    if not 0 < chain <= longest_chain(shape) or shape[0] % chain:
        raise FormatError(f"the chunk has {shape[0]} planes of {shape[1]} x {shape[2]} in chains of {chain}")
    return Coding(Scale(kind, low, unit, top), step, chain)


def store(values: np.ndarray) -> bytes:
    """Compress values [n] by Zstandard, in the order that is smallest; inverse of unstore."""
    zstd = zstandard()
    rows = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, values.itemsize)
    bits = np.packbits(np.unpackbits(rows, axis=1).T, axis=1) if values.size else rows
    level = ZSTD_LEVEL if values.nbytes <= ZSTD_FAST_FROM else ZSTD_FAST_LEVEL
    orders = enumerate((rows, rows.T, bits))
    return min((bytes([order]) + zstd.compress(content.tobytes(), level) for order, content in orders), key=len)


def unstore(data: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    """Decompress [count] values of this type; raise FormatError on visible damage."""
    zstd = zstandard()
    width, size = dtype.itemsize, count * dtype.itemsize
    order = data[0] if data else None
    if order == BIT_PLANES:
        size = 8 * width * -(-count // 8)
    try:
        # The size that the frame states is checked before memory is allocated.
        if order not in range(3) or zstd.get_frame_info(data[1:]).decompressed_size != size:
            raise FormatError("the stored values have another size than they should have")
        frame = zstd.ZstdDecompressor()
        content = frame.decompress(data[1:], size + 1)  # with room left, it goes on to the frame's end
    except zstd.ZstdError as exc:
        raise FormatError(f"the stored values are damaged ({exc})") from exc
    if not frame.eof or frame.unused_data:
        raise FormatError("the stored values are damaged (they are not one whole frame)")
    rows = np.frombuffer(content, np.uint8)
    if order == BIT_PLANES and count:
        rows = np.packbits(np.unpackbits(rows.reshape(8 * width, -1), axis=1, count=count).T, axis=1)
    elif order == BYTE_PLANES:
        rows = rows.reshape(width, count).T
    return np.ascontiguousarray(rows).reshape(-1).view(dtype)


def inflate(data: bytes | memoryview, max_size: int) -> bytes:
    """Decompress a whole zlib stream; raise FormatError on damage and beyond `max_size` bytes."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, max_size + 1)
    except zlib.error as exc:
        raise FormatError(f"a deflated part is damaged ({exc})") from exc
    if len(content) > max_size or not stream.eof or stream.unused_data:
        raise FormatError("a deflated part has another size than it should have")
    return content


def pack_mask(values: np.ndarray) -> bytes:
    """The mask of values [n]: a deflated byte for each, 0 finite, 1.. of SPECIAL; b"" where all are finite."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return b""
    mask = np.isnan(values) + 2 * np.isposinf(values) + 3 * np.isneginf(values)
    return zlib.compress(mask.astype(np.uint8).tobytes(), 9)


def parse_mask(data: bytes, dtype: np.dtype, count: int) -> np.ndarray | None:
    """The mask u8[count], or None where all values are finite; raises FormatError on damage."""
    if not data:
        return None
    mask = np.frombuffer(inflate(data, count), np.uint8)
    if dtype.kind != "f" or len(mask) != count or mask.max(initial=0) > len(SPECIAL):
        raise FormatError("the mask does not fit the values")
    return mask


def apply_mask(values: np.ndarray, mask: np.ndarray | None) -> None:
    """Set the values [n] that are not finite."""
    if mask is not None:
        for code, special in enumerate(SPECIAL, 1):
            values[mask == code] = special


def pack_patches(values: np.ndarray, places: np.ndarray) -> bytes:
    """Patches for values [n]: deflated u32 places, ascending, then the values there; b"" without any."""
    return zlib.compress(places.astype("<u4").tobytes() + values[places].tobytes(), 9) if len(places) else b""


def apply_patches(values: np.ndarray, data: bytes) -> None:
    """Replace the values [n] that have patches; raise FormatError on damage."""
    if not data:
        return
    patch_bytes = 4 + values.itemsize
    content = inflate(data, patch_bytes * len(values))
    count = len(content) // patch_bytes
    places = np.frombuffer(content[: 4 * count], "<u4").astype(np.int64)
    if len(content) % patch_bytes or (np.diff(places) <= 0).any() or places[-1:].max(initial=0) >= len(values):
        raise FormatError("the patches do not fit the values")
    values[places] = np.frombuffer(content[4 * count :], values.dtype)
