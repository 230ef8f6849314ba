"""Code images without loss, or with a bound on every error: by WebP or PNG, or in tiles of vaecodec.lossless.

colours [H, W, 1 or 3] --expansion undone--> tiles --lossless--> DATA      alpha --fallback--> ALPH

Screenshots and drawings repeat colours exactly, which WebP finds, and the adaptive coding of vaecodec.lossless does
not.  Photographs are the other way round.  Between them both are tried, and the smaller file is kept.  Samples of 16
bits that stem from fewer bits are coded with those.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vaecodec import lossless
from vaecodec.arguments import NO_LIMITS
from vaecodec.codec import fallback
from vaecodec.codec.tiles import Schedule, join_tiles, pixel_box
from vaecodec.config import STRIDE
from vaecodec.container import ALPHA, SCALED, SHIFTED, FallbackHeader, insert_chunks
from vaecodec.container.image_file import Contents, pack_fallback
from vaecodec.errors import FormatError
from vaecodec.images.channels import alpha_channel, count_channels, downscale
from vaecodec.progress import Progress, counted
from vaecodec.threads import Threads, available_cores
from vaecodec.transforms import DEFAULT_TILE, Box, Grid

PROBE = 1009  # one of so many samples shows whether an expansion is likely


class Depth(NamedTuple):
    """Bits of the samples, bits that are coded, and the expansion from these to those (container.FallbackHeader)."""

    bits: int
    coded: int
    expansion: int


def find_depth(colours: np.ndarray) -> Depth:
    """Find how few bits hold u8 or u16 samples."""
    if colours.dtype == np.uint8:
        return Depth(8, 8, 0)
    used = int(np.bitwise_or.reduce(colours, axis=None))
    if used < 1 << 15:
        bits = max(9, used.bit_length())
        return Depth(bits, bits, 0)
    zeros = (used & -used).bit_length() - 1
    if zeros:
        return Depth(16, 16 - zeros, SHIFTED)
    probe = colours.reshape(-1)[::PROBE]
    for bits in range(1, 16):
        depth = Depth(16, bits, SCALED)
        if all(np.array_equal(expand(reduce_depth(part, depth), depth), part) for part in (probe, colours)):
            return depth
    return Depth(16, 16, 0)


def reduce_depth(colours: np.ndarray, depth: Depth) -> np.ndarray:
    """u8 or u16 samples of depth.coded bits; inverse of `expand` for samples that were expanded."""
    if depth.expansion == SHIFTED:
        colours = colours >> (16 - depth.coded)
    elif depth.expansion == SCALED:
        colours = (colours.astype(np.uint32) * ((1 << depth.coded) - 1) + 32767) // 65535
    return colours.astype(np.uint8 if depth.coded <= 8 else np.uint16, copy=False)


def expand(coded: np.ndarray, depth: Depth) -> np.ndarray:
    """u8 or u16 samples of depth.bits from those that are coded."""
    if depth.expansion == SHIFTED:
        return coded.astype(np.uint16) << (16 - depth.coded)
    if depth.expansion == SCALED:
        top = (1 << depth.coded) - 1
        return ((coded.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    return coded


def pack(
    samples: np.ndarray,
    max_error: int = 0,
    metadata: dict[str, bytes] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    tile: int = DEFAULT_TILE,
    effort: int = 1,
) -> bytes:
    """Encode u8 or u16 samples [H, W] or [H, W, 2, 3 or 4] to a .vae file.

    Args:
        samples: grey, grey + alpha, RGB or RGBA.
        max_error: of a colour sample, 0..16; alpha has none.
        metadata: by name.
        threads: cores to use; without, all.
        progress: called as tiles are done.
        tile: pixels a side: 64, 128, .. 4096.
        effort: 1..9: fewer bytes for more time, of the decoder as well.
    """
    alpha, channels = alpha_channel(samples), count_channels(samples)
    colours = samples[..., None] if samples.ndim == 2 else samples if alpha is None else samples[..., :-1]
    depth = find_depth(colours)
    bound = 0 if depth.expansion else max_error  # steps of an expansion are larger than most bounds
    grid = Grid(samples.shape[0], samples.shape[1], tile)
    image = Box(0, 0, grid.height, grid.width)
    with Schedule.for_planes(grid.total, threads or available_cores()) as schedule:

        def encode(index: int) -> bytes:
            part = colours[pixel_box(grid.box(index)).intersection(image).slices()]
            return lossless.encode(reduce_depth(part, depth), bound, depth.coded, schedule.inner, effort)

        tiles = schedule.map(encode, ((index,) for index in range(grid.total)))
        data = b"".join(counted(tiles, grid.total, progress))
    header = FallbackHeader(
        "adaptive", grid.height, grid.width, channels, depth.bits, max_error=bound, tile=tile, expansion=depth.expansion
    )
    chunks = [] if alpha is None else [(ALPHA, fallback.encode_plane(np.ascontiguousarray(alpha)))]
    return insert_chunks(pack_fallback(header, data, metadata), chunks)


def decode_strips(
    data: bytes,
    contents: Contents,
    header: FallbackHeader,
    box: Box,
    reduce: int = 1,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[np.ndarray]:
    """Yield rows of a box of an image, u8 or u16 [n, W] or [n, W, C], a row of tiles at a time.

    Only the tiles that the box touches are decoded, but alpha as a whole.  Raises FormatError on damage.
    """
    grid, image = Grid(header.height, header.width, header.tile), Box(0, 0, header.height, header.width)
    squares = Box(*(reduce * edge for edge in box.reduce(reduce))).intersection(image) if reduce > 1 else box
    needed = list(grid.overlapping(squares.reduce(STRIDE)))
    alpha = None
    if contents.alpha is not None:
        depth = 8 if header.depth == 8 else 16
        alpha = fallback.decode_lossless(contents.alpha.of(data), image.shape, 1, depth)[squares.slices()]
    with Schedule.for_planes(len(needed), threads or available_cores()) as schedule:

        def decode(index: int, part: memoryview) -> tuple[Box, np.ndarray]:
            place = pixel_box(grid.box(index)).intersection(image)
            try:
                pixels = _decode_tile(part, header, place.shape, schedule.inner)
            except FormatError as exc:
                raise FormatError(f"tile {index} is damaged: {exc}") from exc
            inside = place.intersection(squares)
            return inside.relative_to(squares), pixels[inside.relative_to(place).slices()]

        tiles = counted(schedule.map(decode, _find_tiles(data, contents, grid, needed)), len(needed), progress)
        top = 0
        for strip in join_tiles(Box(0, 0, *squares.shape), tiles):
            bottom = top + len(strip)
            if alpha is not None:
                strip = np.concatenate([strip, alpha[top:bottom, :, None]], axis=2)
            strip = strip[..., 0] if strip.shape[2] == 1 else strip
            yield downscale(strip, Box(0, 0, *strip.shape[:2]), reduce)
            top = bottom


def _find_tiles(data: bytes, contents: Contents, grid: Grid, needed: list[int]) -> Iterator[tuple[int, memoryview]]:
    """Yield (index, payload) of tiles, which lie end to end."""
    view, position, chosen = contents.data.of(data), 0, set(needed)
    for index in range(needed[-1] + 1):
        size = lossless.size_at(view, position)
        if index in chosen:
            yield index, view[position : position + size]
        position += size
    if needed[-1] == grid.total - 1 and position != len(view):
        raise FormatError(f"{len(view) - position} bytes follow the last tile")


def _decode_tile(part: memoryview, header: FallbackHeader, shape: tuple[int, int], threads: Threads) -> np.ndarray:
    """Decode a payload to u8 or u16 [h, w, C]."""
    about = lossless.read_header(part)
    channels = header.channels - (header.channels % 2 == 0)
    is_coded = about.depth < 16 if header.expansion else about.depth == header.depth
    if (about.height, about.width, about.channels) != (*shape, channels):
        raise FormatError(f"it has {about.channels} channels of {about.width} x {about.height}")
    if about.max_error != header.max_error or not is_coded:
        raise FormatError(f"it has {about.depth} bits and an error of {about.max_error}")
    coded = lossless.decode(part, threads, limits=NO_LIMITS)
    return expand(coded, Depth(header.depth, about.depth, header.expansion)).reshape(*shape, channels)


SMALL = 1 << 16  # pixels up to which both are tried
REPEATED = 0.9  # part of pixels that equal a neighbour, from which on the adaptive coding is larger
VARIED = 0.3  # the same, up to which an image of many colours is a photograph
COLOURS = 4096  # in SMALL pixels
PAIRS = 1 << 20  # pixels that are compared with neighbours


def encode(
    samples: np.ndarray,
    max_error: int = 0,
    metadata: dict[str, bytes] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    effort: int = 1,
) -> bytes:
    """Encode u8 or u16 samples [H, W] or [H, W, 2, 3 or 4] to a .vae file.

    Args:
        samples: grey, grey + alpha, RGB or RGBA; colours where alpha is 0 are kept, too.
        max_error: the largest error of a colour sample, 0..16; alpha has none.
        metadata: by name.
        threads: cores to use; without, all.  The bytes do not depend on it.
        progress: called as tiles are done.
        effort: 1..9, of the adaptive coding; above 1 decoding takes longer, too.
    """
    files = []
    repeated = repetition(samples)
    is_small = samples.shape[0] * samples.shape[1] <= SMALL
    if is_small or repeated <= REPEATED:
        files.append(pack(samples, max_error, metadata, threads, progress, effort=effort))
    if is_small or repeated > VARIED or not has_many_colours(samples):
        files.append(fallback.pack_lossless(samples, metadata))
    return min(files, key=len)


def repetition(samples: np.ndarray) -> float:
    """The part of pixels that equal the next one, in their row and in their column; the mean of both."""
    pixels = samples[..., None] if samples.ndim == 2 else samples
    step = max(1, pixels.size // pixels.shape[2] // PAIRS)
    rows, columns = pixels[::step], pixels[:, ::step]
    across = (rows[:, 1:] == rows[:, :-1]).all(axis=2)
    down = (columns[1:] == columns[:-1]).all(axis=2)
    return float(np.mean([part.mean() for part in (across, down) if part.size] or [1.0]))


def has_many_colours(samples: np.ndarray) -> bool:
    """Whether a part of an image has more colours than palettes and dithering have; grey images never do."""
    if count_channels(samples) < 3:
        return False
    step = max(1, samples.shape[0] * samples.shape[1] // SMALL)
    pixels = samples[..., :3].reshape(-1, 3)[::step].astype(np.uint64)
    return len(np.unique(pixels @ np.array([1, 1 << 16, 1 << 32], np.uint64))) > COLOURS
