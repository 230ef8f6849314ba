"""The modes of an array chunk, both ways: values [n], little-endian, in C order <-> the parts of a chunk."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from vaecodec.arrays import chains, chunks, scaling
from vaecodec.arrays.chunks import BASED, CONSTANT, GRID, PLANES, STORED, Chunk, Coding
from vaecodec.arrays.masks import apply_mask, apply_patches, missed, pack_mask, pack_patches, read_mask
from vaecodec.codec.codec import Codec, codec_for
from vaecodec.container import image_file
from vaecodec.container.image_file import MAX_SIDE
from vaecodec.errors import FormatError

LEVELS_WHITE = 255 << 6  # white, less black, in the unit of levels
PATCHED = 64  # at most one value in so many is kept by itself
BASE_SIDE, BASE_PLANE = 64, 24  # least sides, in pixels, of a picture, and of a plane in it, for which a base is tried
BASE_FROM = 4 / 255  # and the least bound, as a part of the range
QUALITIES = ((8 / 255, 30.0), (16 / 255, 15.0), (math.inf, 5.0))  # of the base, up to these


class Task(NamedTuple):
    """An array to be coded, little-endian, in C order."""

    values: np.ndarray
    max_error: float
    layout: int  # that it had, and whether it has channels: flags of chunks

    @property
    def channels(self) -> bool:
        return bool(self.layout & chunks.CHANNELS)

    @property
    def flat(self) -> np.ndarray:
        return self.values.reshape(-1)

    def chunk(self, mode: int, again: np.ndarray, parts: list[bytes]) -> bytes:
        """The bytes of a chunk that decodes to `again`."""
        values = self.values
        return chunks.pack(Chunk(mode, values.dtype, values.shape, self.layout, chunks.checksum(again), parts))


class Prepared(NamedTuple):
    """A task as planes of integers i64[L, H, W], which of them are coded (None: all), and the bound on them."""

    numbers: np.ndarray
    valid: np.ndarray | None
    scale: scaling.Scale
    bound: int

    @property
    def part(self) -> float:
        """The bound as a part of the range."""
        return self.bound / max(1, self.scale.top)


def stored(task: Task) -> bytes:
    """A chunk of mode stored."""
    return task.chunk(STORED, task.flat, [chunks.store(task.flat)])


def read_stored(chunk: Chunk) -> np.ndarray:
    return chunks.unstore(chunk.parts[0], chunk.dtype, chunk.size)


def constant(task: Task) -> bytes | None:
    """A chunk of one value, if one is within the bound of all that are finite."""
    some = task.flat[np.isfinite(task.flat)]
    low, high = (float(some.min()), float(some.max())) if len(some) else (0.0, 0.0)
    if not task.values.size or not high - low <= 2 * task.max_error:
        return None
    # One value as it is, with the sign of its zero.
    value = some[0] if low == high and len(some) else np.array(low + (high - low) / 2, task.values.dtype)
    mask = pack_mask(task.flat)
    again = _constant(value, mask, task.values.size)
    if len(missed(task.flat, again, task.max_error)):
        return None
    return task.chunk(CONSTANT, again, [value.tobytes(), mask])


def read_constant(chunk: Chunk) -> np.ndarray:
    value, mask = chunk.parts
    if len(value) != chunk.dtype.itemsize:
        raise FormatError("the chunk's one value has another type")
    return _constant(np.frombuffer(value, chunk.dtype)[0], mask, chunk.size)


def _constant(value: np.ndarray, mask: bytes, count: int) -> np.ndarray:
    again = np.full(count, value)
    apply_mask(again, read_mask(mask, again.dtype, count))
    return again


def prepare(task: Task) -> Prepared | None:
    """The values as integers, or None where no scale suits them."""
    finite = np.isfinite(task.flat)
    some = task.flat[finite]
    chosen = scaling.choose(some, task.max_error) if len(some) else None
    if chosen is None:
        if task.values.dtype != np.float32 or not task.values.size:
            return None
        scale = scaling.choose_ordered(task.flat)
        return Prepared(to_planes(scaling.integers(task.values, scale), task.channels), None, scale, 0)
    scale, bound = chosen[0], min(chosen[1], chosen[0].top)
    numbers = np.empty(task.values.size, np.int64)
    numbers[finite] = scaling.integers(some, scale)
    if finite.all():
        return Prepared(to_planes(numbers.reshape(task.values.shape), task.channels), None, scale, bound)
    numbers[~finite] = int(numbers[finite].mean())
    valid = to_planes(finite.reshape(task.values.shape), task.channels)
    return Prepared(to_planes(numbers.reshape(task.values.shape), task.channels), valid, scale, bound)


def planes(task: Task, prepared: Prepared, codec: Codec | None) -> bytes | None:
    """A chunk of mode vae, with a base by this codec, or of mode planes; None where too many values miss the bound."""
    shape, (numbers, valid, scale, bound) = task.values.shape, prepared
    coding = Coding(scale, 2 * bound + 1, chain_of(task, numbers))
    base, file = None, []
    if codec is not None:
        picture = _picture(numbers, scale.top, _colours(shape, task.channels))
        file = [codec.encode_unfiltered(picture, _quality(prepared))]
        base = _base(codec, file[0], numbers.shape, scale.top)
    weights, data, found = chains.encode(numbers, valid, coding, base)
    return _checked(task, prepared, coding, found, BASED if codec else PLANES, [weights, data, *file])


def _checked(
    task: Task, prepared: Prepared, coding: Coding, found: np.ndarray, mode: int, more: list[bytes]
) -> bytes | None:
    """A chunk whose planes decode to `found`, with what they miss as patches; None where that is too much."""
    found = from_planes(found, task.values.shape, task.channels)
    again = scaling.values(found, coding.scale, task.values.dtype).reshape(-1)
    mask = b"" if prepared.valid is None else pack_mask(task.flat)
    apply_mask(again, read_mask(mask, again.dtype, again.size))
    places = missed(task.flat, again, task.max_error)
    if len(places) > task.values.size // PATCHED:
        return None
    again[places] = task.flat[places]
    return task.chunk(mode, again, [chunks.pack_coding(coding), mask, pack_patches(task.flat, places), *more])


def grid(task: Task, prepared: Prepared) -> bytes | None:
    """A chunk of mode grid: the steps of the integers, stored; for what repeats rather than varies smoothly."""
    coding = Coding(prepared.scale, 2 * prepared.bound + 1, 1)
    steps = (prepared.numbers + prepared.bound) // coding.step
    if prepared.valid is not None:
        steps *= prepared.valid
    content = chunks.store(steps.astype(_steps_type(coding)).reshape(-1))
    return _checked(task, prepared, coding, _off_grid(steps, coding), GRID, [content])


def _steps_type(coding: Coding) -> np.dtype:
    """The smallest type that holds the steps."""
    most = -(-coding.scale.top // coding.step)
    return np.dtype(f"<u{next(size for size in (1, 2, 4, 8) if most < 1 << 8 * size)}")


def _off_grid(steps: np.ndarray, coding: Coding) -> np.ndarray:
    """The integers that steps stand for."""
    return np.minimum(steps.astype(np.float64) * coding.step, coding.scale.top)


def read_planes(chunk: Chunk, model: str | None) -> np.ndarray:
    """The values of modes planes, vae and grid; `model` is the .vcm file of a base, None a shipped one."""
    coded, mask, patches, *more = chunk.parts
    shape = planes_of(chunk.shape, chunk.channels)
    if not chunk.size:
        raise FormatError("an empty chunk has planes")
    coding = chunks.parse_coding(coded, chunk.dtype, shape)
    special, base = read_mask(mask, chunk.dtype, chunk.size), None
    valid = None if special is None else to_planes((special == 0).reshape(chunk.shape), chunk.channels)
    if chunk.mode == BASED:
        header, colours = image_file.parse(more[2]).header, _colours(chunk.shape, chunk.channels)
        if header.channels != 3:
            raise FormatError(f"the base has {header.channels} channels, expected 3")
        if (header.height, header.width) != (shape[0] // colours * shape[1], shape[2]):
            raise FormatError("the base has another size than the planes")
        base = _base(codec_for(more[2], model), more[2], shape, coding.scale.top)
    if chunk.mode == GRID:
        if coding.chain != 1:
            raise FormatError(f"a chunk of mode grid has chains of {coding.chain}, expected 1")
        found = _off_grid(chunks.unstore(more[0], _steps_type(coding), chunk.size), coding).reshape(shape)
    else:
        found = chains.decode(more[0], more[1], shape, valid, coding, base)
    again = scaling.values(from_planes(found, chunk.shape, chunk.channels), coding.scale, chunk.dtype).reshape(-1)
    apply_mask(again, special)
    apply_patches(again, patches)
    return again


def planes_of(shape: tuple[int, ...], channels: bool) -> tuple[int, int, int]:
    """[L, H, W] of an array's planes; one of one axis is a plane of one row."""
    if channels:
        shape = (*shape[:-3], shape[-1], *shape[-3:-1])
    shape = (1, 1, 1, *shape)
    return math.prod(shape[:-2]), shape[-2], shape[-1]


def to_planes(values: np.ndarray, channels: bool) -> np.ndarray:
    """An array as planes [L, H, W], channels of a picture one after another."""
    target = planes_of(values.shape, channels)
    return np.ascontiguousarray(np.moveaxis(values, -1, -3) if channels else values).reshape(target)


def from_planes(found: np.ndarray, shape: tuple[int, ...], channels: bool) -> np.ndarray:
    """The inverse of to_planes."""
    if not channels:
        return found.reshape(shape)
    return np.ascontiguousarray(np.moveaxis(found.reshape(*shape[:-3], shape[-1], *shape[-3:-1]), -3, -1))


def chain_of(task: Task, numbers: np.ndarray) -> int:
    """How many planes to code one after another: channels, or slices that resemble each other."""
    count, height, width = numbers.shape
    if task.channels:
        return task.values.shape[-1] if task.values.shape[-1] <= chunks.longest_chain((count, height, width)) else 1
    if count == 1 or width == 1 or height * width < chunks.LARGE_PLANE:
        return 1
    across = np.abs(np.diff(numbers[:: max(1, count // 8)][:8].astype(np.float64), axis=2)).mean()
    some = np.arange(0, count - 1, max(1, count // 8))
    along = np.abs((numbers[some + 1] - numbers[some]).astype(np.float64)).mean()
    return count if along < 2 * across else 1


def suits_a_base(task: Task, prepared: Prepared) -> bool:
    """Whether a picture below is worth a try."""
    count, height, width = prepared.numbers.shape
    large = min(height, width) >= BASE_PLANE and min(count * height, width) >= BASE_SIDE
    return large and count * height <= MAX_SIDE and prepared.part >= BASE_FROM


def _colours(shape: tuple[int, ...], channels: bool) -> int:
    """Planes that are the colours of one picture."""
    return 3 if channels and shape[-1] == 3 else 1


def _quality(prepared: Prepared) -> float:
    return next(quality for most, quality in QUALITIES if prepared.part <= most)


def _picture(numbers: np.ndarray, top: int, colours: int) -> np.ndarray:
    """u8[L / colours * H, W, 3] of planes i64[L, H, W], grey where there are no colours."""
    pixels = np.rint(numbers * (255.0 / max(1, top))).astype(np.uint8)
    pixels = pixels.reshape(-1, colours, *numbers.shape[1:]).transpose(0, 2, 3, 1)
    pixels = pixels.reshape(-1, numbers.shape[2], colours)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def _base(codec: Codec, file: bytes, shape: tuple[int, ...], top: int) -> np.ndarray:
    """f64[L, H, W], integers in 0..top, of a base's file."""
    pixels = codec.decode_levels(file, None).astype(np.int64) + LEVELS_WHITE // 2
    colours = shape[0] * shape[1] // pixels.shape[0]
    pixels = pixels.reshape(-1, shape[1], shape[2], 3).transpose(0, 3, 1, 2)
    pixels = (pixels if colours == 3 else pixels[:, 1]).reshape(shape)
    scaled = pixels * top
    scaled += LEVELS_WHITE // 2
    scaled //= LEVELS_WHITE
    return np.clip(scaled, 0, top, out=scaled).astype(np.float64)
