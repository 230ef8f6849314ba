"""Code images of 1 to 4 channels and 1 to 16 bits without a model, exactly or with a bound on the error of each sample.

The planes are coded on several threads: each follows, some rows behind, the planes that it sees.  A payload is:

u32         CRC-32 of the decoded samples, row by row, u8 for up to 8 bits, else u16
u8          76, which neither a WebP nor a PNG begins with
u8          channels, 1..4
u8          depth: bits of a sample, 1..16
u8          bound: the largest error of a sample, 0..16; plus 32 times the level of adaptation, 0..6
u32         height, width
u32[C]      sizes of the streams
streams     of the planes, in the order of native.lossless.order_of_planes

Integers are little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from threading import Condition
from typing import NamedTuple

import numpy as np

from vaecodec import arguments
from vaecodec.arguments import Limits
from vaecodec.errors import CodecError, FormatError
from vaecodec.native.lossless import (
    AHEAD_MAX,
    BOUND_MAX,
    CHANNELS_MAX,
    DEPTH_MAX,
    LEVEL_MAX,
    PlaneCoder,
    reference_planes,
)
from vaecodec.threads import ONE_THREAD, Threads

ROWS = 4  # of one call: few enough that a plane stays within AHEAD_MAX rows of the next, and both stay in the cache

Rows = tuple[int, int]


class PlaneSchedule:
    """Calls work(plane, (first row, row beyond the last)) for all rows of all planes, each when its rows are ready."""

    def __init__(self, height: int, planes: int, work: Callable[[int, Rows], None]) -> None:
        self._height, self._work = height, work
        self._done, self._busy, self._failed = [0] * planes, [False] * planes, False
        self._before = [range(plane - reference_planes(plane, planes), plane) for plane in range(planes)]
        self._after = [[n for n in range(planes) if plane in self._before[n]] for plane in range(planes)]
        self._changed = Condition()

    def run(self, threads: Threads) -> None:
        """Do all the work; raises what it raises."""
        threads.run(self._take, range(min(threads.count, len(self._done))))

    def _bottom(self, plane: int) -> int:
        return min(self._height, self._done[plane] + ROWS)

    def _is_ready(self, plane: int) -> bool:
        bottom, done = self._bottom(plane), self._done
        return (
            not self._busy[plane]
            and done[plane] < self._height
            and all(done[n] >= bottom for n in self._before[plane])
            and all(bottom - done[n] <= AHEAD_MAX for n in self._after[plane])
        )

    def _take(self, _: int) -> None:
        with self._changed:
            while not self._failed and min(self._done) < self._height:
                ready = [plane for plane in range(len(self._done)) if self._is_ready(plane)]
                if ready:
                    self._code(min(ready, key=self._done.__getitem__))
                else:
                    self._changed.wait()  # a plane is busy: of those with the fewest rows, the first is ready or busy

    def _code(self, plane: int) -> None:
        rows = (self._done[plane], self._bottom(plane))
        self._busy[plane] = True
        self._changed.release()
        complete = False
        try:
            self._work(plane, rows)
            complete = True
        finally:
            self._changed.acquire()
            self._busy[plane], self._done[plane] = False, rows[1]
            self._failed = self._failed or not complete
            self._changed.notify_all()


TAG = 76
HEADER = struct.Struct("<I4B2I")
SIDE_MAX = 65_535
LEVELS = (0, 1, 1, 2, 4, 4, 5, 6, 6)  # of adaptation, by effort
DAMAGED = "the lossless payload is damaged"


class Header(NamedTuple):
    """What a payload's first bytes say."""

    crc: int
    channels: int
    depth: int
    max_error: int
    level: int
    height: int
    width: int
    sizes: tuple[int, ...]  # of the planes' streams


def encode(
    samples: np.ndarray,
    max_error: int = 0,
    depth: int | None = None,
    threads: Threads = ONE_THREAD,
    effort: int = 1,
) -> bytes:
    """Encode u8 or u16 [H, W] or [H, W, C], of 1 to 4 channels and sides up to 65535.

    Args:
        samples: grey, grey + alpha, RGB or RGBA; of other channels the first three should resemble each other.
        max_error: the largest difference between a sample and its decoded value, 0..16.
        depth: bits of a sample: 1..8 of u8 and 9..16 of u16; by default 8 or 16.
        threads: at most one for each plane is used.
        effort: 1..9: fewer bytes for more time, of the decoder as well.

    Raises:
        CodecError: the samples or numbers are not as above.
    """
    image = _check_samples(samples)
    depth = 8 * image.itemsize if depth is None else depth
    if not 8 * image.itemsize - 8 < depth <= 8 * image.itemsize or not 0 <= max_error <= BOUND_MAX:
        raise CodecError(f"depth {depth} of {image.dtype} or error {max_error}: expected depth 1..8 of uint8, 9..16 of "
                         f"uint16, and an error of 0..{BOUND_MAX}")  # fmt: skip
    if int(image.max()) >> depth:
        raise CodecError(f"a sample is {int(image.max())}, which does not fit {depth} bits")
    height, width, channels = image.shape
    if max_error:
        image = image.copy()
    level = LEVELS[effort - 1]
    coder, streams = PlaneCoder(image, depth, max_error, level), [bytearray() for _ in range(channels)]

    def work(plane: int, rows: Rows) -> None:
        streams[plane] += coder.encode(plane, rows)

    PlaneSchedule(height, channels, work).run(threads)
    start = HEADER.pack(_crc(image), TAG, channels, depth, max_error | level << 5, height, width)
    return start + struct.pack(f"<{channels}I", *map(len, streams)) + b"".join(streams)


def decode(
    payload: bytes | memoryview, threads: Threads = ONE_THREAD, *, limits: Limits = arguments.DEFAULT_LIMITS
) -> np.ndarray:
    """Decode what `encode` returned to u8 or u16 [H, W] for one channel, or [H, W, C].

    Raises:
        FormatError: the payload is damaged.
        LimitError: the image is larger than the limits.
    """
    header = read_header(payload)
    limits.check(header.width, header.height)
    position = HEADER.size + 4 * header.channels
    streams = []
    for size in header.sizes:
        streams.append(bytes(payload[position : position + size]))
        position += size
    shape = (header.height, header.width, header.channels)
    image = np.empty(shape, np.uint8 if header.depth <= 8 else np.uint16)
    coder = PlaneCoder(image, header.depth, header.max_error, header.level)

    def work(plane: int, rows: Rows) -> None:
        if not coder.decode(plane, rows, streams[plane]):
            raise FormatError(f"{DAMAGED}: stream {plane} ends too early")

    PlaneSchedule(header.height, header.channels, work).run(threads)
    if _crc(image) != header.crc:
        raise FormatError(f"{DAMAGED}: the CRC of its samples does not match")
    return image[..., 0] if header.channels == 1 else image


def size_at(data: bytes | memoryview, position: int) -> int:
    """The size of the payload that begins at a position; raises FormatError where its header is cut off."""
    if len(data) < position + HEADER.size:
        raise FormatError(f"{DAMAGED}: its header is cut off")
    channels = HEADER.unpack_from(data, position)[2]
    if len(data) < position + HEADER.size + 4 * channels:
        raise FormatError(f"{DAMAGED}: its header is cut off")
    sizes = struct.unpack_from(f"<{channels}I", data, position + HEADER.size)
    return HEADER.size + 4 * channels + sum(sizes)


def read_header(payload: bytes | memoryview) -> Header:
    """Read and check the header; raises FormatError where it is damaged, or the streams are not of these sizes."""
    if len(payload) < HEADER.size:
        raise FormatError(f"{DAMAGED}: it has {len(payload)} bytes")
    crc, tag, channels, depth, adaptation, height, width = HEADER.unpack_from(payload)
    max_error, level = adaptation & 31, adaptation >> 5
    if (
        tag != TAG
        or not 1 <= channels <= CHANNELS_MAX
        or not 1 <= depth <= DEPTH_MAX
        or max_error > BOUND_MAX
        or level > LEVEL_MAX
    ):
        raise FormatError(
            f"{DAMAGED}: tag {tag}, {channels} channels of {depth} bits, error {max_error}, level {level}"
        )
    if not 1 <= height <= SIDE_MAX or not 1 <= width <= SIDE_MAX:
        raise FormatError(f"{DAMAGED}: {width} x {height} pixels")
    if len(payload) < HEADER.size + 4 * channels:
        raise FormatError(f"{DAMAGED}: it has {len(payload)} bytes")
    sizes = struct.unpack_from(f"<{channels}I", payload, HEADER.size)
    if HEADER.size + 4 * channels + sum(sizes) != len(payload):
        raise FormatError(f"{DAMAGED}: its streams have {sum(sizes)} bytes, and it has {len(payload)}")
    return Header(crc, channels, depth, max_error, level, height, width, sizes)


def _check_samples(samples: np.ndarray) -> np.ndarray:
    """u8 or u16 [H, W, C], contiguous and in native byte order."""
    image = samples[..., None] if samples.ndim == 2 else samples
    if image.ndim != 3 or image.dtype not in (np.uint8, np.uint16) or not 1 <= image.shape[2] <= CHANNELS_MAX:
        raise CodecError(f"samples are {samples.dtype}{list(samples.shape)}, expected uint8 or uint16 [H, W] or "
                         f"[H, W, C] of at most {CHANNELS_MAX} channels")  # fmt: skip
    if not 1 <= min(image.shape[:2]) <= max(image.shape[:2]) <= SIDE_MAX:
        raise CodecError(f"sides of {image.shape[1]} x {image.shape[0]}, expected 1..{SIDE_MAX}")
    return np.ascontiguousarray(image)


def _crc(image: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(image, image.dtype.newbyteorder("<")).data)
