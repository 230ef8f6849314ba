"""Decoder: a .vae file to pixels, exactly.

    payload --entropy decoding--> values --dequantisation--> coefficients --synthesis, restoration filter--> pixels

From tile to tile, a row of them at a time.  Pixels depend on neither that nor on threads.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import numpy as np

from vaecodec.codec import preview
from vaecodec.codec.plans import Part, Plan, alike, pixels_of, strips_of
from vaecodec.codec.schedule import Schedule, schedule_of
from vaecodec.config import STRIDE
from vaecodec.container.image_file import Header, Parsed, Tile, parse
from vaecodec.errors import FormatError, ModelError
from vaecodec.images.strips import Window, gather
from vaecodec.limits import DEFAULT, NONE, Limits
from vaecodec.model.file import Model
from vaecodec.native.transforms import FilterWeights
from vaecodec.prior.tile import decode_tile
from vaecodec.progress import Progress, counted, named
from vaecodec.transforms import restoration
from vaecodec.transforms.backends import Transforms
from vaecodec.transforms.tiling import Box, Grid, halo, window_box
from vaecodec.transforms.wavelet import Coefficients, dequantise, empty_coefficients

Square = tuple[Box, np.ndarray]  # place in what comes out, and its pixels


class Decoder:
    """One model, and the way from bytes to pixels; safe to share between threads."""

    def __init__(self, model: Model, transforms: Transforms, threads: int) -> None:
        self.model, self._transforms, self._threads = model, transforms, threads

    def decode(
        self,
        data: bytes,
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT,
        progress: Progress | None = None,
        check: bool = False,
    ) -> np.ndarray:
        """Decode a .vae file, or a window of it.

        Args:
            data: the file.
            window: (top, left, height, width) in pixels; only the tiles it needs are decoded.
            reduce: 1, 2, 4, 8 or 16: decode at this fraction of the sides, rounded up.
            limits: None for no limits.
            progress: called with what is done.
            check: compare the pixels of each whole tile with the CRC in the file.

        Returns:
            u8[H, W, C].

        Raises:
            FormatError: the file is damaged.
            ModelError: it was made with another model.
            LimitError: it is beyond the limits.
            ValueError: the window or the reduction is not possible.
        """
        return gather(*self.decode_strips(data, window, reduce, limits, progress, check))

    def decode_strips(
        self,
        data: bytes,
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT,
        progress: Progress | None = None,
        check: bool = False,
    ) -> tuple[tuple[int, int, int], Iterator[np.ndarray]]:
        """(H, W, C) and, from the top, the rows of what `decode` returns, u8[n, W, C]: a row of tiles at a time.

        Raises as `decode` does; damage to a tile shows when its turn comes.
        """
        part = self._part(data, window, reduce, limits)
        shape = (*part.plan.out.shape, self.model.config.channels)
        return shape, self._strips(part, progress, check and reduce == 1)

    def decode_batch(
        self,
        files: Sequence[bytes],
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT,
        progress: Progress | None = None,
        names: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """.vae files -> what `decode` makes of each, in order; tiles of one shape are taken together.

        Raises as `decode` does; the message begins with the file's name (without `names`: file 0, file 1).
        """
        names = names or [f"file {n}" for n in range(len(files))]
        parts = []
        for name, data in zip(names, files, strict=True):
            with named(name):
                parts.append(self._part(data, window, reduce, limits, f"{name}: "))
        keys = [(part.plan.grid, part.parsed.header.quality_index) for part in parts]
        order = sorted(range(len(parts)), key=keys.__getitem__)
        with schedule_of(((part.plan.grid, part.total) for part in parts), self._threads) as schedule:
            squares = self._squares(schedule, [parts[n] for n in order])
            squares = counted(squares, sum(part.total for part in parts), progress)
            out = {}
            for n in order:
                place = parts[n].plan.out
                shape = (*place.shape, self.model.config.channels)
                out[n] = gather(shape, strips_of(place, islice(squares, parts[n].total)))
        return [out[n] for n in range(len(parts))]

    def decode_levels(self, data: bytes, limits: Limits | None = DEFAULT) -> np.ndarray:
        """Decode to levels, before the restoration filter and rounding.

        i16[H, W, C] in units of 2**-6 of a level, 0 in the middle of the range.  Raises as `decode` does.
        """
        part = self._part(data, None, 1, limits)
        out = np.empty((*part.plan.out.shape, self.model.config.channels), np.int16)
        with schedule_of([(part.plan.grid, part.total)], self._threads) as schedule:
            for shown, outer, coefficients in self._surrounded(schedule, part, halo(self.model.config)):
                [made] = self._transforms.levels([coefficients], part.parsed.header.quality_index, schedule.inner)
                out[shown.slices()] = made[shown.inside(pixels_of(outer)).slices()]
        return out

    def symbol_crcs(self, data: bytes, limits: Limits | None = DEFAULT, progress: Progress | None = None) -> list[int]:
        """CRC-32 of the decoded symbols of each tile, once they are found to be right; raises as `decode` does."""
        part = self._part(data, None, 1, limits)
        with schedule_of([(part.plan.grid, part.total)], self._threads) as schedule:
            decoded = self._decoded(schedule, part, part.plan.cells)
            return [part.parsed.tiles[index].crc for index, _ in counted(decoded, part.total, progress)]

    def pixel_crcs(self, data: bytes, limits: Limits | None = DEFAULT) -> list[int]:
        """CRC-32 of the decoded pixels of each tile; raises as `decode` does."""
        part = self._part(data, None, 1, limits)
        with schedule_of([(part.plan.grid, part.total)], self._threads) as schedule:
            return [pixel_crc(pixels) for _, pixels in self._squares(schedule, [part])]

    def verify(self, data: bytes, limits: Limits | None = DEFAULT, progress: Progress | None = None) -> None:
        """Decode everything and compare symbols and pixels with the CRCs in the file; raises as `decode` does."""
        _, strips = self.decode_strips(data, limits=limits, progress=progress, check=True)
        for _ in strips:
            pass

    def _part(self, data: bytes, window: Window | None, reduce: int, limits: Limits | None, name: str = "") -> Part:
        parsed = parse(data, check_data=window is None)
        plan = self._admit(parsed, window, reduce, limits)
        self._weights(parsed.header)
        return Part(data, parsed, plan, name)

    def _weights(self, header: Header) -> FilterWeights | None:
        """The restoration filter of a file, if it has one."""
        if not header.filter:
            return None
        found = restoration.from_bytes(header.filter, header.channels)
        return found.weights(
            self.model.transforms.synthesis.colors, self.model.gains.low_logarithm(header.quality_index)
        )

    def _admit(self, parsed: Parsed, window: Window | None, reduce: int, limits: Limits | None) -> Plan:
        """What to decode, within the limits."""
        header = parsed.header
        if header.model != self.model.id:
            raise ModelError(f"this file needs model {header.model}, and the one at hand is {self.model.id}")
        if header.channels != self.model.config.channels:
            raise FormatError(f"the header gives {header.channels} channels, its model {self.model.config.channels}")
        preview.check(reduce)
        target = window_box(window, (header.height, header.width))
        (limits or NONE).check(target.shape[1], target.shape[0])
        return Plan(Grid(header.height, header.width, header.tile), target, reduce)

    def _strips(self, part: Part, progress: Progress | None, check: bool) -> Iterator[np.ndarray]:
        with schedule_of([(part.plan.grid, part.total)], self._threads) as schedule:
            squares = self._squares(schedule, [part])
            if check:
                squares = _checked(part, squares)
            yield from strips_of(part.plan.out, counted(squares, part.total, progress))

    def _squares(self, schedule: Schedule, parts: list[Part]) -> Iterator[Square]:
        """The tiles of each file, of those of its plan."""
        if parts and parts[0].plan.reduce > 1:
            return chain.from_iterable(self._reduced(schedule, part) for part in parts)
        return self._synthesized(schedule, parts)

    def _synthesized(self, schedule: Schedule, parts: list[Part]) -> Iterator[Square]:
        def jobs(part: Part) -> Iterator[tuple[Header, Box, Box, Coefficients]]:
            margin = halo(self.model.config, bool(part.parsed.header.filter))
            return ((part.parsed.header, *each) for each in self._surrounded(schedule, part, margin))

        def synthesize(*jobs: tuple[Header, Box, Box, Coefficients]) -> list[Square]:
            header = jobs[0][0]
            coefficients, weights = [job[3] for job in jobs], self._weights(header)
            images = self._transforms.pixels(coefficients, header.quality_index, weights, schedule.inner)
            return [
                (shown, image[shown.inside(pixels_of(outer)).slices()])
                for (_, shown, outer, _), image in zip(jobs, images, strict=True)
            ]

        every = chain.from_iterable(jobs(part) for part in parts)
        groups = alike(
            every, lambda job: (job[0].quality_index, job[0].filter, job[3].low.shape), self._transforms.batch
        )
        return chain.from_iterable(schedule.map(synthesize, groups))

    def _reduced(self, schedule: Schedule, part: Part) -> Iterator[Square]:
        """As `_synthesized`, but without the network and at a fraction of the size."""
        plan = part.plan
        for shown, outer, coefficients in self._surrounded(schedule, part, halo(self.model.config)):
            samples = self.model.transforms.synthesis.linear(coefficients, schedule.inner)
            pixels = preview.reduced(samples, plan.reduce)
            yield shown, pixels[shown.inside(plan.reduced(pixels_of(outer))).slices()]

    def _surrounded(self, schedule: Schedule, part: Part, margin: int) -> Iterator[tuple[Box, Box, Coefficients]]:
        """(place in what comes out, cells, their coefficients) of each tile and its margin of cells."""
        plan, grid = part.plan, part.plan.grid
        needed = plan.cells.grow(margin, grid.cells)
        decoded = self._decoded(schedule, part, needed)
        known: dict[int, Coefficients] = {}
        for index in grid.touching(plan.cells):
            box = grid.box(index)
            outer = box.grow(margin, grid.cells).meet(needed)
            if grid.total == 1 and outer == box:
                yield plan.shown(box), outer, next(decoded)[1]
                return
            whole = empty_coefficients(self.model.config.channels, outer.shape)
            for other in grid.touching(outer):
                while other not in known:
                    known.update([next(decoded)])
                place = grid.box(other)
                shared = place.meet(outer)
                target, source = whole.crop(*shared.inside(outer)), known[other].crop(*shared.inside(place))
                for into, plane in zip(target.planes(), source.planes(), strict=True):
                    into[...] = plane
            deep = -(-margin * STRIDE // grid.tile)  # a margin may be wider than a tile
            before = grid.columns * deep + deep - 1
            for past in [other for other in known if other < index - before]:
                del known[past]
            yield plan.shown(box), outer, whole

    def _decoded(self, schedule: Schedule, part: Part, cells: Box) -> Iterator[tuple[int, Coefficients]]:
        """(index, coefficients) of each tile that has some of these cells."""
        data, parsed, grid = memoryview(part.data), part.parsed, part.plan.grid
        step, prior, models = parsed.header.quality_index, self.model.prior, self.model.models
        gains = self.model.gains.scaled(step)

        def decode(index: int) -> tuple[int, Coefficients]:
            tile: Tile = parsed.tiles[index]
            payload = bytes(data[tile.offset : tile.offset + tile.length])
            try:
                values = decode_tile(prior, models, grid.box(index).shape, step, payload, tile.crc, schedule.inner)
            except FormatError as exc:
                raise FormatError(f"{part.name}tile {index} is damaged: {exc}") from exc
            return index, dequantise(values, gains)

        return schedule.map(decode, ((index,) for index in grid.touching(cells)))


def pixel_crc(pixels: np.ndarray) -> int:
    """CRC-32 of u8[H, W, C], row by row."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def _checked(part: Part, squares: Iterator[Square]) -> Iterator[Square]:
    """The squares, those that are whole tiles compared with their CRCs; raises FormatError."""
    grid, target = part.plan.grid, part.plan.target
    for index, (shown, pixels) in zip(grid.touching(part.plan.cells), squares, strict=True):
        whole = pixels_of(grid.box(index)).meet(Box(0, 0, grid.height, grid.width))
        if whole.meet(target) == whole and pixel_crc(pixels) != part.parsed.tiles[index].pixels:
            raise FormatError(f"{part.name}tile {index} is damaged: the CRC of its pixels does not match")
        yield shown, pixels
