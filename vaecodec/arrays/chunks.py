"""The bytes of one array chunk, as in docs/reference/array-chunks.md; standard library and NumPy only.

magic, version, mode, type, layout, shape, CRC-32 of the values     what every chunk has
parts, each with its length                                       what its mode needs
CRC-32 of all before it
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import NamedTuple

import numpy as np

from vaecodec.arrays.lattice import TOP_MAX
from vaecodec.arrays.scaling import AFFINE, INTEGERS, ORDERED, QUOTIENTS, Scale
from vaecodec.errors import CodecError, FormatError

MAGIC = b"\x89VAA"
VERSION = 1
STORED, CONSTANT, PLANES, BASED, GRID = range(5)
MODES = ("stored", "constant", "planes", "vae", "grid")
TYPES = tuple(np.dtype(name) for name in ("u1", "<u2", "<u4", "i1", "<i2", "<i4", "<f4", "<f8"))
CHANNELS, FORTRAN, BIG_ENDIAN = 1, 2, 4  # flags of a layout
HEAD = struct.Struct("<4sBBBBB")  # magic, version, mode, type, layout, dimensions
SCALE = struct.Struct("<BddQQI")  # kind, low, unit, top, step, planes in a chain
CRC = struct.Struct("<I")
MAX_DIMENSIONS = 32
LARGE_PLANE, SHORT_CHAIN = 1024, 16  # values, planes
MAX_VALUES = (1 << 32) - 1
LEVEL, FAST_LEVEL, MUCH = 19, 9, 1 << 22  # of Zstandard, and the bytes from which on the latter
WAYS = WHOLE, BYTES, BITS = range(3)  # to store values


class Chunk(NamedTuple):
    """What a chunk says; `parts` as many as its mode has.

    FORTRAN and BIG_ENDIAN tell how the array lay in memory, and will again; the type here is little-endian.
    """

    mode: int
    dtype: np.dtype
    shape: tuple[int, ...]
    layout: int  # flags; CHANNELS: the last axis counts them
    crc: int  # of the values, little-endian, in C order
    parts: list[bytes]

    @property
    def channels(self) -> bool:
        """Whether the last axis counts channels."""
        return bool(self.layout & CHANNELS)

    @property
    def size(self) -> int:
        """How many values there are."""
        return math.prod(self.shape)


class Coding(NamedTuple):
    """How the planes of a chunk were coded."""

    scale: Scale
    step: int
    chain: int  # planes one after another, each seeing those before it


PARTS = {STORED: 1, CONSTANT: 2, PLANES: 5, BASED: 6, GRID: 4}


def pack(chunk: Chunk) -> bytes:
    """The bytes of a chunk; inverse of parse."""
    head = HEAD.pack(MAGIC, VERSION, chunk.mode, TYPES.index(chunk.dtype), chunk.layout, len(chunk.shape))
    shape = struct.pack(f"<{len(chunk.shape)}I", *chunk.shape)
    parts = b"".join(CRC.pack(len(part)) + part for part in chunk.parts)
    data = head + shape + CRC.pack(chunk.crc) + parts
    return data + CRC.pack(zlib.crc32(data))


def parse(data: bytes | memoryview) -> Chunk:
    """A chunk taken apart; raises FormatError on damage, and on what this version does not know."""
    view = memoryview(data)
    if bytes(view[:4]) != MAGIC:
        raise FormatError("not an array chunk" + ("" if len(view) else " (it is empty)"))
    if len(view) < HEAD.size + 2 * CRC.size:
        raise FormatError("the chunk is cut off")
    _, version, mode, kind, layout, dimensions = HEAD.unpack_from(view)
    if version != VERSION:
        raise FormatError(f"chunk version {version} is not supported (this is a reader of version {VERSION})")
    if zlib.crc32(view[: -CRC.size]) != CRC.unpack(view[-CRC.size :])[0]:
        raise FormatError("the chunk is damaged (its CRC does not match)")
    if mode not in PARTS or kind >= len(TYPES) or layout > 7 or dimensions > MAX_DIMENSIONS:
        raise FormatError("the chunk has a mode, type or layout that this version does not know")
    at, end = HEAD.size + 4 * dimensions + CRC.size, len(view) - CRC.size
    if at > end:
        raise FormatError("the chunk is cut off inside its header")
    shape = struct.unpack_from(f"<{dimensions}I", view, HEAD.size)
    if _extent(shape) > MAX_VALUES:
        raise FormatError(f"the chunk claims the shape {list(shape)} (at most {MAX_VALUES} values)")
    if layout & CHANNELS and dimensions < 3:
        raise FormatError(f"the chunk has channels in {dimensions} dimensions")
    (crc,) = CRC.unpack_from(view, at - CRC.size)
    parts = []
    for _ in range(PARTS[mode]):
        length = CRC.unpack_from(view, at)[0] if at + CRC.size <= end else end
        if length > end - at - CRC.size:
            raise FormatError("the chunk is cut off inside a part")
        parts.append(bytes(view[at + CRC.size : at + CRC.size + length]))
        at += CRC.size + length
    if at != end:
        raise FormatError(f"{end - at} bytes follow the last part")
    return Chunk(mode, TYPES[kind], shape, layout, crc, parts)


def _extent(shape: tuple[int, ...]) -> int:
    """How many values there are, or would be if no side were 0: NumPy bounds the sides of empty arrays too."""
    return math.prod(max(side, 1) for side in shape)


def longest_chain(shape: tuple[int, int, int]) -> int:
    """The most planes of [L, H, W] in a chain: a walk takes its time however small its plane is."""
    return shape[0] if shape[1] * shape[2] >= LARGE_PLANE else min(shape[0], SHORT_CHAIN)


def pack_coding(coding: Coding) -> bytes:
    """The part that parse_coding reads."""
    kind, low, unit, top = coding.scale
    return SCALE.pack(kind, low, unit, top, coding.step, coding.chain)


def parse_coding(data: bytes, dtype: np.dtype, shape: tuple[int, int, int]) -> Coding:
    """How planes [L, H, W] of this type were coded; raises FormatError on what cannot be."""
    if len(data) != SCALE.size:
        raise FormatError(f"the scale has {len(data)} bytes, expected {SCALE.size}")
    kind, low, unit, top, step, chain = SCALE.unpack(data)
    if dtype.kind == "f":
        fits = kind in (QUOTIENTS, AFFINE) or (kind == ORDERED and dtype == np.float32)
        limits = (-(2.0**31), 2.0**31) if kind == ORDERED else (-np.inf, np.inf)
    else:
        fits, limits = kind == INTEGERS, (float(np.iinfo(dtype).min), np.iinfo(dtype).max + 1.0)
    fits = fits and math.isfinite(low) and math.isfinite(unit) and unit > 0 and top <= TOP_MAX
    if kind in (INTEGERS, ORDERED):
        fits = fits and low == int(low) and limits[0] <= low and low + top < limits[1]
    if not fits or not (step % 2 and step <= 2 * top + 1):
        raise FormatError("the chunk's scale is out of range")
    if not 0 < chain <= longest_chain(shape) or shape[0] % chain:
        raise FormatError(f"the chunk has {shape[0]} planes of {shape[1]} x {shape[2]} in chains of {chain}")
    return Coding(Scale(kind, low, unit, top), step, chain)


def store(values: np.ndarray) -> bytes:
    """Values [n] by Zstandard: as they are, in byte planes or in bit planes, the smallest; inverse of unstore."""
    from vaecodec.container import zstd

    rows = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(-1, values.itemsize)
    bits = np.packbits(np.unpackbits(rows, axis=1).T, axis=1) if values.size else rows
    level = LEVEL if values.nbytes <= MUCH else FAST_LEVEL
    ways = enumerate((rows, rows.T, bits))
    return min((bytes([way]) + zstd.compress(content.tobytes(), level) for way, content in ways), key=len)


def unstore(data: bytes, dtype: np.dtype, count: int) -> np.ndarray:
    """[count] values of this type; raises FormatError on damage that shows."""
    from vaecodec.container import zstd

    width, size = dtype.itemsize, count * dtype.itemsize
    way = data[0] if data else len(WAYS)
    if way == BITS:
        size = 8 * width * -(-count // 8)
    try:
        # What a frame says of its size is judged before it is inflated.
        if way not in WAYS or zstd.get_frame_info(data[1:]).decompressed_size != size:
            raise FormatError("the stored values have another size than they should have")
        frame = zstd.ZstdDecompressor()
        content = frame.decompress(data[1:], size + 1)  # with room left, it goes on to the frame's end
    except zstd.ZstdError as exc:
        raise FormatError(f"the stored values are damaged ({exc})") from exc
    if not frame.eof or frame.unused_data:
        raise FormatError("the stored values are damaged (they are not one whole frame)")
    rows = np.frombuffer(content, np.uint8)
    if way == BITS and count:
        rows = np.packbits(np.unpackbits(rows.reshape(8 * width, -1), axis=1, count=count).T, axis=1)
    elif way == BYTES:
        rows = rows.reshape(width, count).T
    return np.ascontiguousarray(rows).reshape(-1).view(dtype)


def checksum(values: np.ndarray) -> int:
    """CRC-32 of values, little-endian, in C order."""
    return zlib.crc32(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data)


def layout_of(values: np.ndarray, channels: bool) -> int:
    """The flags of an array."""
    fortran = values.flags.f_contiguous and not values.flags.c_contiguous
    big = values.dtype.newbyteorder("<") != values.dtype
    return CHANNELS * channels | FORTRAN * fortran | BIG_ENDIAN * big


def laid_out(values: np.ndarray, chunk: Chunk) -> np.ndarray:
    """Values [n], little-endian, in C order, as the array was: its shape, byte order and order in memory."""
    values = values.reshape(chunk.shape)
    if chunk.layout & BIG_ENDIAN:
        values = values.astype(chunk.dtype.newbyteorder(">"))
    return np.asfortranarray(values) if chunk.layout & FORTRAN else values


def check_array(values: np.ndarray, channels: bool) -> None:
    """Raises CodecError on an array that a chunk cannot hold."""
    if values.dtype.newbyteorder("<") not in TYPES:
        raise CodecError(f"values are {values.dtype}, expected one of {', '.join(kind.name for kind in TYPES)}")
    if values.ndim > MAX_DIMENSIONS or _extent(values.shape) > MAX_VALUES:
        raise CodecError(f"shape {values.shape} is beyond what a chunk can hold")
    if channels and values.ndim < 3:
        raise CodecError(f"shape {values.shape} has no channels, which are the last of three axes or more")
