"""Encoder: pixels to a .vae file.

    pixels --analysis--> coefficients --RDO quantisation, entropy coding--> payload --pack--> file

From tile to tile, a row of them at a time; the bytes depend on neither that nor on threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from vaecodec.codec.decoder import Decoder, pixel_crc
from vaecodec.codec.plans import Job, Latents, alike, cut, undisturbed
from vaecodec.codec.plans import pixels_of as pixel_box
from vaecodec.codec.schedule import Schedule, schedule_of
from vaecodec.config import STRIDE
from vaecodec.container.image_file import Header, pack, quality_index_of, with_pixel_crcs
from vaecodec.errors import CodecError
from vaecodec.images.strips import Rows
from vaecodec.model.file import Model
from vaecodec.native.reference.transforms import pixels_of
from vaecodec.native.transforms import restore
from vaecodec.prior.tile import CodedTile, encode_tile, information
from vaecodec.progress import Progress, ticker
from vaecodec.rdo import quantization
from vaecodec.rdo.filter import Equations, fit_classes, fit_one_class
from vaecodec.rdo.refinement import ITERATIONS, Refiner, check_effort
from vaecodec.threads import ONE_THREAD, Threads, single_threaded_blas
from vaecodec.transforms.backends import Transforms
from vaecodec.transforms.restoration import Filter
from vaecodec.transforms.tiling import DEFAULT_TILE, Box, Grid, halo
from vaecodec.transforms.wavelet import Coefficients, dequantise, quantisation_targets

ENOUGH, SPARSELY = 1 << 17, 5  # samples of a tile to fit a filter by, of no more than so many times as many

# u8[65536]: the pixel of each level, by its bits.
PIXELS = pixels_of(np.arange(1 << 16, dtype=np.uint16).view(np.int16))


class Encoded(NamedTuple):
    """What is kept of a coded tile: equations for the filter, and levels i16[H, W, C] where it is the only tile."""

    payload: bytes
    crc: int
    equations: Equations | None = None
    levels: np.ndarray | None = None


class Encoder:
    """One model, and the way from pixels to bytes; safe to share between threads."""

    def __init__(self, model: Model, transforms: Transforms, decoder: Decoder, threads: int) -> None:
        self.model, self._transforms, self._decoder, self._threads = model, transforms, decoder, threads

    def encode_batch(
        self,
        images: Sequence[np.ndarray | Rows],
        quality: float = 50,
        metadata: Sequence[dict[str, bytes] | None] | None = None,
        tile: int = DEFAULT_TILE,
        progress: Progress | None = None,
        effort: int = 1,
    ) -> list[bytes]:
        """Encode images u8[H, W, C] of any sizes to a .vae file each, in order.

        Args:
            images: arrays, or what gives slices of their rows.
            quality: 1..100.
            metadata: those of each image.
            tile: side of the tiles in pixels, a power of two in 64..4096.
            progress: called with what is done.
            effort: 1..9; above 1 a larger filter is fitted, above 2 coefficients are refined for each image.

        Raises:
            CodecError: an image has another shape or type.
            ValueError: another argument is out of range.
        """
        step = quality_index_of(quality)
        check_effort(effort)
        encoded = self._of_each(images, step, tile, effort, progress)
        kinds = metadata or [None] * len(encoded)
        triples = zip(images, encoded, kinds, strict=True)
        return [self._packed(image.shape[:2], tiles, step, tile, kind) for image, tiles, kind in triples]

    def encode_unfiltered(self, pixels: np.ndarray, quality: float = 50, tile: int = DEFAULT_TILE) -> bytes:
        """What `encode_batch` makes of u8[H, W, C] at effort 1, but without a filter; raises as it does."""
        step = quality_index_of(quality)
        return self._packed(pixels.shape[:2], self._of_each([pixels], step, tile)[0], step, tile)

    def analyse_batch(
        self, images: Sequence[np.ndarray], quality: float = 50, tile: int = DEFAULT_TILE
    ) -> list[list[Latents]]:
        """u8[H, W, C] of any sizes -> the coefficients of each tile of each, as `encode_latents` takes them.

        The first half of encoding, for another machine than the second; raises as encode_batch does.
        """
        step, grids = quality_index_of(quality), self._grids(images, tile)
        with schedule_of(((grid, grid.total) for grid in grids), self._threads) as schedule:
            jobs = chain.from_iterable(self._jobs(*pair) for pair in zip(images, grids, strict=True))
            analysed = self._analysed(schedule, jobs, step)
            parts = (coefficients.crop(*job.inner) for job, coefficients in analysed)
            return [list(islice(parts, grid.total)) for grid in grids]

    def encode_latents(
        self,
        pixels: np.ndarray,
        latents: Sequence[Latents],
        quality: float = 50,
        metadata: dict[str, bytes] | None = None,
        tile: int = DEFAULT_TILE,
    ) -> bytes:
        """What `encode_batch` makes at effort 1 of u8[H, W, C], which analyse_batch gave these coefficients of."""
        step, [grid] = quality_index_of(quality), self._grids([pixels], tile)
        with schedule_of([(grid, grid.total)], self._threads) as schedule:
            jobs = zip(self._jobs(pixels, grid), latents, strict=True)
            tiles = list(schedule.map(lambda job, part: self._coded(job, part, step, 1, schedule.inner), jobs))
        return self._packed(pixels.shape[:2], tiles, step, tile, metadata)

    def information(self, pixels: np.ndarray, quality: float = 50, tile: int = DEFAULT_TILE) -> float:
        """Bits that the symbols of u8[H, W, C] are worth under the model: what the bytes are held against."""
        bits: list[float] = []

        def see(tile: CodedTile) -> None:
            bits.append(information(self.model.prior, self.model.models, tile.parts))

        self._of_each([pixels], quality_index_of(quality), tile, see=see)
        return math.fsum(bits)  # threads finish in any order, and a plain sum would depend on it

    def _packed(
        self,
        size: tuple[int, ...],
        tiles: list[Encoded],
        step: int,
        tile: int,
        metadata: dict[str, bytes] | None = None,
    ) -> bytes:
        """A file of coded tiles, with the filter that fits them, and the CRCs of their pixels."""
        found, height, width = self._fitted(tiles, step), size[0], size[1]
        head = Header(
            self.model.id, height, width, step, tile,
            channels=self.model.config.channels, filter=found.to_bytes() if found else b"",
        )  # fmt: skip
        if len(tiles) == 1 and tiles[0].levels is not None:
            crcs = [pixel_crc(self._pixels(tiles[0].levels, found, step)[:height, :width])]
        else:
            crcs = [0] * len(tiles)
        coded = [(each.payload, each.crc, crc) for each, crc in zip(tiles, crcs, strict=True)]
        data = pack(head, coded, metadata)
        if len(tiles) == 1 and tiles[0].levels is not None:
            return data
        # The pixels of a tile depend on its neighbours, and all on the filter, which follows from all tiles.
        return with_pixel_crcs(data, self._decoder.pixel_crcs(data, None))

    def _pixels(self, levels: np.ndarray, found: Filter | None, step: int) -> np.ndarray:
        if found is None:
            return PIXELS.take(levels.view(np.uint16))
        rotation, low = self.model.transforms.synthesis.colors, self.model.gains.low_logarithm(step)
        return restore(levels, found.weights(rotation, low))

    def _fitted(self, tiles: list[Encoded], step: int) -> Filter | None:
        """The filter of an image by the equations of its tiles, if it is to have one."""
        equations = [each.equations for each in tiles if each.equations]
        if not equations:
            return None
        return reduce(Equations.__add__, equations).best_filter(self.model.config.lambda_of_sum(step))

    def _grids(self, images: Sequence[np.ndarray | Rows], tile: int) -> list[Grid]:
        """Those of images, which are checked, as is the side of the tiles."""
        channels = self.model.config.channels
        for pixels in images:
            if pixels.dtype != np.uint8 or len(pixels.shape) != 3 or pixels.shape[2] != channels or 0 in pixels.shape:
                raise CodecError(f"pixels are {pixels.dtype}{list(pixels.shape)}, expected uint8[H, W, {channels}]")
        if tile & (tile - 1) or not 64 <= tile <= 4096:
            raise ValueError(f"tile is {tile!r}, expected a power of two in 64..4096")
        return [Grid(pixels.shape[0], pixels.shape[1], tile) for pixels in images]

    def _of_each(
        self,
        images: Sequence[np.ndarray | Rows],
        step: int,
        tile: int,
        effort: int = 0,
        progress: Progress | None = None,
        see: Callable[[CodedTile], None] = lambda tile: None,
    ) -> list[list[Encoded]]:
        """The tiles of each image, in order; images of one size are next to each other in the making.

        At effort 0 there is no filter either.  `see` is called with each tile as it is coded.
        """
        grids = self._grids(images, tile)
        order = sorted(range(len(grids)), key=grids.__getitem__)
        rounds = _iterations(effort) or 1
        tick = ticker(rounds * sum(grid.total for grid in grids), progress)
        turn = threading.Semaphore(self._threads)  # a refinement takes a core, and much memory
        with schedule_of(((grid, grid.total) for grid in grids), self._threads, rounds) as schedule:

            def code(*jobs: Job) -> list[Encoded]:
                images = self._transforms.analysis([job.seen for job in jobs], step, schedule.inner)
                pairs = zip(jobs, images, strict=True)
                return [self._coded(job, part, step, effort, schedule.inner, tick, turn, see) for job, part in pairs]

            jobs = chain.from_iterable(self._jobs(images[n], grids[n]) for n in order)
            groups = alike(jobs, lambda job: (job.seen.shape, job.inner), self._transforms.batch)
            tiles = chain.from_iterable(schedule.map(code, groups))
            made = {n: list(islice(tiles, grids[n].total)) for n in order}
        return [made[n] for n in range(len(grids))]

    def _analysed(self, schedule: Schedule, jobs: Iterable[Job], step: int) -> Iterator[tuple[Job, Coefficients]]:
        """Each tile, and the coefficients of it and its margin."""

        def analyse(*jobs: Job) -> list[tuple[Job, Coefficients]]:
            images = [job.seen for job in jobs]
            return list(zip(jobs, self._transforms.analysis(images, step, schedule.inner), strict=True))

        groups = alike(jobs, lambda job: (job.seen.shape, job.inner), self._transforms.batch)
        return chain.from_iterable(schedule.map(analyse, groups))

    def _jobs(self, pixels: np.ndarray | Rows, grid: Grid) -> Iterator[Job]:
        """The tiles of an image, each with its margin."""
        margin = halo(self.model.config)
        for row in range(grid.rows):
            strip = grid.row(row).grow(margin, grid.cells)
            rows = pixels[STRIDE * strip.top : min(STRIDE * strip.bottom, grid.height)]
            for column in range(grid.columns):
                box = grid.box(row * grid.columns + column)
                outer = box.grow(margin, grid.cells)
                within = pixel_box(outer).meet(Box(0, 0, grid.height, grid.width)).shape
                yield Job(np.ascontiguousarray(cut(rows, outer.inside(strip))), box.inside(outer), within)

    def _coded(
        self,
        job: Job,
        coefficients: Coefficients,
        step: int,
        effort: int,
        threads: Threads = ONE_THREAD,
        tick: Callable[[], None] = lambda: None,
        turn: threading.Semaphore | None = None,
        see: Callable[[CodedTile], None] = lambda tile: None,
    ) -> Encoded:
        """Code one tile, of which the coefficients are given: with its margin, or without."""
        inner = coefficients if coefficients.cells == job.inner.shape else coefficients.crop(*job.inner)
        if _iterations(effort):
            with turn or threading.Semaphore(), single_threaded_blas:
                refine = Refiner(self.model, job.seen, job.within, coefficients, job.inner, step)
                symbols = refine(_iterations(effort), tick)
            tile = self._encoded(inner.cells, step, lambda part, _: symbols[part], threads)
            see(tile)
            return Encoded(tile.payload, tile.crc, refine.equations)
        prior, tables = self.model.prior, self.model.models.tables
        gains = self.model.gains.scaled(step)
        targets = quantization.targets(prior, quantisation_targets(inner, gains), step)
        choose = quantization.quantizer(prior, tables)
        tile = self._encoded(inner.cells, step, lambda part, question: choose(targets[part], question), threads)
        see(tile)
        tick()
        return self._with_fit(job, tile, step, effort, threads) if effort else Encoded(tile.payload, tile.crc)

    def _encoded(self, cells: tuple[int, int], step: int, choose: Callable, threads: Threads) -> CodedTile:
        return encode_tile(self.model.prior, self.model.models, cells, step, choose, threads)

    def _with_fit(self, job: Job, tile: CodedTile, step: int, effort: int, threads: Threads) -> Encoded:
        """The tile with the equations for its filter: by itself, and so of those pixels that no other tile reaches.

        At effort 1 all samples are of one class.
        """
        margin, cells = halo(self.model.config), (job.seen.shape[0] // STRIDE, job.seen.shape[1] // STRIDE)
        sure = undisturbed(job.inner, cells, job.within, margin)
        count = sure.shape[0] * sure.shape[1]
        if not count:
            return Encoded(tile.payload, tile.crc)
        every = min(max(1, count // ENOUGH), SPARSELY)
        coefficients = dequantise(tile.values, self.model.gains.scaled(step))
        [levels] = self._transforms.levels([coefficients], step, threads)
        pixels = job.seen[pixel_box(job.inner).slices()]
        if effort == 1:
            rotation = self.model.transforms.synthesis.colors
            equations = fit_one_class(levels, pixels, sure, every, rotation, threads)
        else:
            made = levels * np.float32(1 / 64) + np.float32(127.5)
            equations = fit_classes(made, pixels.astype(np.float32), sure, self.model.step_size(step), every)
        alone = job.inner.shape == cells
        return Encoded(tile.payload, tile.crc, equations, levels if alone else None)


def _iterations(effort: int) -> int:
    """How often coefficients are refined."""
    return ITERATIONS[effort - 1] if effort > 1 else 0
