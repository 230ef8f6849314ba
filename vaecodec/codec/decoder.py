"""Decode images: a .vae file to pixels, exactly.

    payload --entropy decoding--> values --dequantisation--> coefficients --synthesis, restoration filter--> pixels

Tiles are decoded one row after another; pixels depend neither on that nor on threads.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from vaecodec.arguments import DEFAULT_LIMITS, NO_LIMITS, Limits, check_reduction
from vaecodec.codec.tiles import (
    DecodePlan,
    DecodeTask,
    Schedule,
    group_consecutive,
    join_tiles,
    pixel_box,
    reduce_samples,
)
from vaecodec.config import STRIDE
from vaecodec.container.image_file import Header, parse
from vaecodec.errors import FormatError, ModelError
from vaecodec.images.strips import Window, gather
from vaecodec.model.file import Model
from vaecodec.native.transforms import FilterWeights
from vaecodec.prior import decode_tile
from vaecodec.progress import Progress, counted, named
from vaecodec.threads import Threads
from vaecodec.transforms import Box, Grid, Transforms, halo, read_filter, window_box
from vaecodec.transforms.networks import fine_levels
from vaecodec.transforms.wavelet import Coefficients, Values, dequantise, empty_coefficients

PlacedTile = tuple[Box, np.ndarray]  # place in the output, and pixels


class Decoder:
    """Decode with one model; safe to share between threads."""

    def __init__(self, model: Model, transforms: Transforms, threads: int) -> None:
        self.model, self._transforms, self._threads = model, transforms, threads

    def decode(
        self,
        data: bytes,
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT_LIMITS,
        progress: Progress | None = None,
        check: bool = False,
        is_fine: bool = False,
    ) -> np.ndarray:
        """Decode a .vae file, or a window of it.

        Args:
            data: the file.
            window: (top, left, height, width) in pixels; only the tiles it needs are decoded.
            reduce: 1, 2, 4, 8 or 16: decode at this fraction of the sides, rounded up.
            limits: limits on the size of images; None for none.
            progress: called as tiles are done.
            check: compare the pixels of each whole tile with the CRC in the file.
            is_fine: return 1/64 of steps of 8 bits, 0..FINE_MAX.

        Returns:
            u8[H, W, C], or u16[H, W, C] where `is_fine`.

        Raises:
            FormatError: the file is damaged.
            ModelError: the file was encoded with another model.
            LimitError: the image exceeds the limits.
            ValueError: the window or the reduction is invalid.
        """
        return gather(*self.decode_strips(data, window, reduce, limits, progress, check, is_fine))

    def decode_strips(
        self,
        data: bytes,
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT_LIMITS,
        progress: Progress | None = None,
        check: bool = False,
        is_fine: bool = False,
    ) -> tuple[tuple[int, int, int], Iterator[np.ndarray]]:
        """Return (H, W, C) and the rows of what `decode` returns, [n, W, C], a row of tiles at a time.

        Raises as `decode` does; damage to a tile is found when its turn comes.
        """
        task = self._task(data, window, reduce, limits)._replace(is_fine=is_fine)
        shape = (*task.plan.output.shape, self.model.config.channels)
        return shape, self._strips(task, progress, check and reduce == 1)

    def decode_batch(
        self,
        files: Sequence[bytes],
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT_LIMITS,
        progress: Progress | None = None,
        names: Sequence[str] | None = None,
        are_fine: Sequence[bool] | None = None,
    ) -> list[np.ndarray]:
        """Decode .vae files as `decode` does, in order; tiles of one shape are decoded together.

        `are_fine` is `is_fine` of each file.  Raises as `decode` does; messages begin with the file's name, without
        `names` "file 0", "file 1".
        """
        names = names or [f"file {n}" for n in range(len(files))]
        tasks = []
        for name, data, is_fine in zip(names, files, are_fine or [False] * len(files), strict=True):
            with named(name):
                tasks.append(self._task(data, window, reduce, limits, f"{name}: ")._replace(is_fine=is_fine))
        keys = [(task.plan.grid, task.parsed.header.quality_index) for task in tasks]
        order = sorted(range(len(tasks)), key=keys.__getitem__)
        with Schedule.of_grids(((task.plan.grid, task.tile_count) for task in tasks), self._threads) as schedule:
            tiles = self._tiles(schedule, [tasks[n] for n in order])
            tiles = counted(tiles, sum(task.tile_count for task in tasks), progress)
            images = {}
            for n in order:
                output = tasks[n].plan.output
                shape = (*output.shape, self.model.config.channels)
                images[n] = gather(shape, join_tiles(output, islice(tiles, tasks[n].tile_count)))
        return [images[n] for n in range(len(tasks))]

    def decode_levels(self, data: bytes, limits: Limits | None = DEFAULT_LIMITS) -> np.ndarray:
        """Decode to levels, before the restoration filter and rounding.

        Returns i16[H, W, C] in units of 2**-6 of a level, 0 in the middle of the range.  Raises as `decode` does.
        """
        task = self._task(data, None, 1, limits)
        out = np.empty((*task.plan.output.shape, self.model.config.channels), np.int16)
        quality_index, margin = task.parsed.header.quality_index, halo(self.model.config)
        with Schedule.of_grids([(task.plan.grid, task.tile_count)], self._threads) as schedule:
            for place, outer, coefficients in self._with_halo(schedule, task, margin):
                [levels] = self._transforms.levels([coefficients], quality_index, schedule.inner)
                out[place.slices()] = levels[place.relative_to(pixel_box(outer)).slices()]
        return out

    def symbol_crcs(
        self, data: bytes, limits: Limits | None = DEFAULT_LIMITS, progress: Progress | None = None
    ) -> list[int]:
        """Decode and check the symbols of each tile, and return their CRC-32; raises as `decode` does."""
        task = self._task(data, None, 1, limits)
        with Schedule.of_grids([(task.plan.grid, task.tile_count)], self._threads) as schedule:
            decoded = self._coefficients(schedule, task, task.plan.cells)
            return [task.parsed.tiles[index].crc for index, _ in counted(decoded, task.tile_count, progress)]

    def pixel_crcs(
        self, data: bytes, limits: Limits | None = DEFAULT_LIMITS, values: Sequence[Values] = ()
    ) -> list[int]:
        """CRC-32 of the decoded pixels of each tile; raises as `decode` does.

        An encoder knows the values of all tiles, so that their symbols need not be decoded.
        """
        task = self._task(data, None, 1, limits)._replace(values=values)
        with Schedule.of_grids([(task.plan.grid, task.tile_count)], self._threads) as schedule:
            return [pixel_crc(pixels) for _, pixels in self._tiles(schedule, [task])]

    def verify(self, data: bytes, limits: Limits | None = DEFAULT_LIMITS, progress: Progress | None = None) -> None:
        """Decode everything and compare symbols and pixels with the CRCs in the file; raises as `decode` does."""
        _, strips = self.decode_strips(data, limits=limits, progress=progress, check=True)
        for _ in strips:
            pass

    def _task(
        self, data: bytes, window: Window | None, reduce: int, limits: Limits | None, name: str = ""
    ) -> DecodeTask:
        """Parse a file, check that it can be decoded within the limits, and plan what to decode."""
        parsed = parse(data, check_data=window is None)
        header, channels = parsed.header, self.model.config.channels
        if header.model != self.model.id:
            raise ModelError(f"this file needs model {header.model}, and the one at hand is {self.model.id}")
        if header.channels != channels:
            raise FormatError(f"the header gives {header.channels} channels, its model {channels}")
        check_reduction(reduce)
        target = window_box(window, (header.height, header.width))
        (limits or NO_LIMITS).check(target.shape[1], target.shape[0])
        self._filter_weights(header)
        plan = DecodePlan(Grid(header.height, header.width, header.tile), target, reduce)
        return DecodeTask(data, parsed, plan, name)

    def _filter_weights(self, header: Header) -> FilterWeights | None:
        """The restoration filter of a file, if it has one."""
        if not header.filter:
            return None
        weights = read_filter(header.filter, header.channels)
        low = self.model.gains.low_logarithm(header.quality_index)
        return weights.weights(self.model.transforms.synthesis.colors, low)

    def _strips(self, task: DecodeTask, progress: Progress | None, check: bool) -> Iterator[np.ndarray]:
        with Schedule.of_grids([(task.plan.grid, task.tile_count)], self._threads) as schedule:
            tiles = self._tiles(schedule, [task])
            if check:
                tiles = _checked(task, tiles)
            yield from join_tiles(task.plan.output, counted(tiles, task.tile_count, progress))

    def _tiles(self, schedule: Schedule, tasks: list[DecodeTask]) -> Iterator[PlacedTile]:
        """Decode the tiles of each task, in order."""
        if tasks and tasks[0].plan.reduce > 1:
            return chain.from_iterable(self._reduced_tiles(schedule, task) for task in tasks)
        return self._synthesised_tiles(schedule, tasks)

    def _synthesised_tiles(self, schedule: Schedule, tasks: list[DecodeTask]) -> Iterator[PlacedTile]:
        def surrounded(task: DecodeTask) -> Iterator[tuple[DecodeTask, Box, Box, Coefficients]]:
            margin = halo(self.model.config, bool(task.parsed.header.filter))
            return ((task, *tile) for tile in self._with_halo(schedule, task, margin))

        def synthesise(*tiles: tuple[DecodeTask, Box, Box, Coefficients]) -> list[PlacedTile]:
            header, coefficients = tiles[0][0].parsed.header, [tile[3] for tile in tiles]
            how = header.quality_index, self._filter_weights(header), schedule.inner
            images = (self._fine if tiles[0][0].is_fine else self._transforms.pixels)(coefficients, *how)
            return [
                (place, image[place.relative_to(pixel_box(outer)).slices()])
                for (_, place, outer, _), image in zip(tiles, images, strict=True)
            ]

        def key(tile: tuple[DecodeTask, Box, Box, Coefficients]) -> tuple[object, ...]:
            header = tile[0].parsed.header
            return header.quality_index, header.filter, tile[0].is_fine, tile[3].low.shape

        tiles = chain.from_iterable(map(surrounded, tasks))
        groups = group_consecutive(tiles, key, self._transforms.batch)
        return chain.from_iterable(schedule.map(synthesise, groups))

    def _fine(
        self, coefficients: list[Coefficients], quality_index: int, weights: FilterWeights | None, threads: Threads
    ) -> list[np.ndarray]:
        """u16[16h, 16w, C] each, where Transforms.pixels returns u8."""
        levels = self._transforms.levels(coefficients, quality_index, threads)
        return [fine_levels(image, weights, threads) for image in levels]

    def _reduced_tiles(self, schedule: Schedule, task: DecodeTask) -> Iterator[PlacedTile]:
        """Decode at a fraction of the size, by means of the linear part of the synthesis, without its network.

        All symbols are decoded and checked, so that no preview is made of a damaged file.
        """
        factor = task.plan.reduce
        for place, outer, coefficients in self._with_halo(schedule, task, halo(self.model.config)):
            samples = self.model.transforms.synthesis.linear(coefficients, schedule.inner)
            pixels = reduce_samples(samples, factor, task.is_fine)
            yield place, pixels[place.relative_to(pixel_box(outer).reduce(factor)).slices()]

    def _with_halo(self, schedule: Schedule, task: DecodeTask, margin: int) -> Iterator[tuple[Box, Box, Coefficients]]:
        """Yield (place in the output, cells, their coefficients) of each tile with a margin of cells."""
        plan, grid = task.plan, task.plan.grid
        needed = plan.cells.grow(margin, grid.cells)
        decoded = self._coefficients(schedule, task, needed)
        known: dict[int, Coefficients] = {}
        for index in grid.overlapping(plan.cells):
            box = grid.box(index)
            outer = box.grow(margin, grid.cells).intersection(needed)
            if grid.total == 1 and outer == box:
                yield plan.output_of(box), outer, next(decoded)[1]
                return
            whole = empty_coefficients(self.model.config.channels, outer.shape)
            for other in grid.overlapping(outer):
                while other not in known:
                    known.update([next(decoded)])
                place = grid.box(other)
                shared = place.intersection(outer)
                target, source = whole.crop(*shared.relative_to(outer)), known[other].crop(*shared.relative_to(place))
                for into, plane in zip(target.planes(), source.planes(), strict=True):
                    into[...] = plane
            rows = -(-margin * STRIDE // grid.tile)  # a margin may be wider than a tile
            oldest = index - (grid.columns * rows + rows - 1)
            for past in [other for other in known if other < oldest]:
                del known[past]
            yield plan.output_of(box), outer, whole

    def _coefficients(self, schedule: Schedule, task: DecodeTask, cells: Box) -> Iterator[tuple[int, Coefficients]]:
        """Decode (index, coefficients) of each tile that touches these cells."""
        data, parsed, grid = memoryview(task.data), task.parsed, task.plan.grid
        quality_index, model = parsed.header.quality_index, self.model.tilted(parsed.header.tilt)
        prior, models, gains = model.prior, model.models, model.gains.scaled(quality_index)
        if task.values:
            known = ((index, task.values[index]) for index in grid.overlapping(cells))
            return schedule.map(lambda index, values: (index, dequantise(values.widened(), gains)), known)

        def decode(index: int) -> tuple[int, Coefficients]:
            tile, cells = parsed.tiles[index], grid.box(index).shape
            payload = bytes(data[tile.offset : tile.offset + tile.length])
            try:
                coded = payload, tile.crc, schedule.inner
                values = decode_tile(prior, models, cells, quality_index, *coded, by_band=parsed.header.by_band)
            except FormatError as exc:
                raise FormatError(f"{task.name}tile {index} is damaged: {exc}") from exc
            return index, dequantise(values, gains)

        return schedule.map(decode, ((index,) for index in grid.overlapping(cells)))


def pixel_crc(pixels: np.ndarray) -> int:
    """CRC-32 of u8[H, W, C], row by row."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def _checked(task: DecodeTask, tiles: Iterator[PlacedTile]) -> Iterator[PlacedTile]:
    """Compare tiles that are decoded as a whole with their CRCs; raises FormatError."""
    grid, target = task.plan.grid, task.plan.target
    for index, (place, pixels) in zip(grid.overlapping(task.plan.cells), tiles, strict=True):
        whole = pixel_box(grid.box(index)).intersection(Box(0, 0, grid.height, grid.width))
        shown = ((pixels + 32) >> 6).astype(np.uint8) if task.is_fine else pixels
        if whole.intersection(target) == whole and pixel_crc(shown) != task.parsed.tiles[index].pixels:
            raise FormatError(f"{task.name}tile {index} is damaged: the CRC of its pixels does not match")
        yield place, pixels
