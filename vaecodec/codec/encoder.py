"""Encode images: pixels to a .vae file.

    pixels --analysis--> coefficients --RDO quantisation, entropy coding--> payload --pack--> file

Tiles are coded one row after another; the bytes depend neither on that nor on threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from vaecodec.arguments import DEFAULT_TUNE, check_tune
from vaecodec.codec.decoder import Decoder, pixel_crc
from vaecodec.codec.tiles import (
    EncodeTask,
    Latents,
    Schedule,
    cut_padded,
    group_consecutive,
    halo_free_area,
    pixel_box,
)
from vaecodec.config import IMAGE_CHANNELS, STRIDE
from vaecodec.container.image_file import Header, pack, quality_index_of, with_pixel_crcs
from vaecodec.errors import CodecError
from vaecodec.images.strips import Rows
from vaecodec.model.file import Model
from vaecodec.native.library import release_memory
from vaecodec.native.reference.transforms import pixels_of
from vaecodec.prior import CodedTile, code_tile, encode_tile, information
from vaecodec.progress import Progress, ticker
from vaecodec.rdo import quantizer, targets
from vaecodec.rdo.filter import Equations, fit_one_class, sparsity
from vaecodec.rdo.prices import NARROW, WIDE, Plan, check_effort, goal_of_refinement, plan_of, prices_of_tile, tilt_of
from vaecodec.threads import ONE_THREAD, Threads, single_threaded_blas
from vaecodec.transforms import DEFAULT_TILE, Box, Grid, Transforms, halo
from vaecodec.transforms.networks import restored
from vaecodec.transforms.wavelet import Coefficients, Values, dequantise, quantisation_targets

KEPT_SAMPLES = 1 << 24  # of an image whose values are kept: 32 MiB


class EncodedTile(NamedTuple):
    """A coded tile, the equations of its filter, and what the CRC of its pixels follows from.

    That is levels i16[H, W, C] where the tile is the whole image, and values where the image is not too large.
    `saved` are the bits that refinement saved, about.
    """

    payload: bytes
    symbol_crc: int
    equations: Equations | None = None
    levels: np.ndarray | None = None
    values: Values | None = None
    saved: float = 0.0


def _ignore() -> None:
    pass


class Encoder:
    """Encode with one model; safe to share between threads."""

    def __init__(self, model: Model, transforms: Transforms, decoder: Decoder, threads: int) -> None:
        self.model, self._transforms, self._decoder, self._threads = model, transforms, decoder, threads

    def encode_batch(
        self,
        images: Sequence[np.ndarray | Rows],
        quality: float = 75,
        metadata: Sequence[dict[str, bytes] | None] | None = None,
        tile: int = DEFAULT_TILE,
        progress: Progress | None = None,
        effort: int = 1,
        weights: Sequence[np.ndarray] | None = None,
        tune: str = DEFAULT_TUNE,
    ) -> list[bytes]:
        """Encode images u8[H, W, C] of any sizes to a .vae file each, in order.

        Args:
            images: arrays, or objects that return slices of their rows.
            quality: 1..100.
            metadata: metadata of each image.
            tile: side of the tiles in pixels, a power of two in 64..4096.
            progress: called as tiles, or iterations of their refinement, are done.
            effort: 1..9; from 2 on coefficients are refined for each image, and a larger filter is fitted from 3 on, or
                from 2 on for the eye.  For the eye nothing is refined up to quality 40.
            weights: f32[H, W], 0..1, of the squared errors of the pixels of each image.
            tune: "eye" or "psnr": what is to be as good as can be for the bits.

        Raises:
            CodecError: an image has another shape or type.
            ValueError: another argument is out of range.
        """
        check_effort(effort)
        tune = self._tune(tune)
        asked = quality_index_of(quality, tilt_of(tune))
        plan = plan_of(effort, asked, tune)
        rest = None, asked, weights, tune
        encoded = self._encode_tiles(images, plan.quality_index, tile, plan, progress, *rest)
        metadata = metadata or [None] * len(encoded)
        how = plan.quality_index, tile, tilt_of(tune)
        columns = zip(images, encoded, metadata, strict=True)
        files = [self._pack(image.shape[:2], tiles, *how, about) for image, tiles, about in columns]
        if plan.quality_index != asked:
            # Refinement may need more bits for the squared error that it is allowed; then effort 1 has the better file.
            for n in (n for n, tiles in enumerate(encoded) if math.fsum(part.saved for part in tiles) <= 0):
                of_image = [images[n]], quality, [metadata[n]], tile, None, 1, [weights[n]] if weights else None, tune
                files[n] = min(files[n], *self.encode_batch(*of_image), key=len)
        return files

    def encode_unfiltered(self, pixels: np.ndarray, quality: float = 75, tile: int = DEFAULT_TILE) -> bytes:
        """Encode u8[H, W, C] as `encode_batch` does at effort 1, but without a filter; raises as it does."""
        quality_index = quality_index_of(quality)
        [tiles] = self._encode_tiles([pixels], quality_index, tile)
        return self._pack(pixels.shape[:2], tiles, quality_index, tile)

    def analyse_batch(
        self,
        images: Sequence[np.ndarray | Rows],
        quality: float = 75,
        tile: int = DEFAULT_TILE,
        tune: str = DEFAULT_TUNE,
    ) -> list[list[Latents]]:
        """Analyse images u8[H, W, C] of any sizes: the coefficients of each tile of each image.

        `encode_latents` takes them, perhaps on another machine.  Raises as encode_batch does.
        """
        tune = self._tune(tune)
        quality_index, grids = quality_index_of(quality, tilt_of(tune)), self._grids(images, tile)
        with Schedule.of_grids(((grid, grid.total) for grid in grids), self._threads) as schedule:

            def analyse(*tasks: EncodeTask) -> list[Latents]:
                pixels = [task.pixels for task in tasks]
                analysed = self._transforms.analysis(pixels, quality_index, schedule.inner, tune)
                return [part.crop(*task.inner) for part, task in zip(analysed, tasks, strict=True)]

            tasks = chain.from_iterable(self._tasks(*pair) for pair in zip(images, grids, strict=True))
            parts = chain.from_iterable(schedule.map(analyse, self._groups(tasks)))
            return [list(islice(parts, grid.total)) for grid in grids]

    def encode_latents(
        self,
        pixels: np.ndarray | Rows,
        latents: Sequence[Latents],
        quality: float = 75,
        metadata: dict[str, bytes] | None = None,
        tile: int = DEFAULT_TILE,
        tune: str = DEFAULT_TUNE,
    ) -> bytes:
        """Encode u8[H, W, C] as `encode_batch` does at effort 1, from the coefficients of `analyse_batch`."""
        tune = self._tune(tune)
        quality_index, [grid] = quality_index_of(quality, tilt_of(tune)), self._grids([pixels], tile)
        plan = plan_of(1, quality_index, tune)
        with Schedule.of_grids([(grid, grid.total)], self._threads) as schedule:

            def encode(task: EncodeTask, part: Latents) -> EncodedTile:
                return self._encode_tile(task, part, quality_index, plan, schedule.inner, tune=tune)

            tiles = list(schedule.map(encode, zip(self._tasks(pixels, grid), latents, strict=True)))
        return self._pack(pixels.shape[:2], tiles, quality_index, tile, tilt_of(tune), metadata)

    def information(self, pixels: np.ndarray, quality: float = 75, tile: int = DEFAULT_TILE) -> float:
        """Information content in bits of the symbols of u8[H, W, C] under the model: a bound for the size of files."""
        bits: list[float] = []

        def observe(tile: CodedTile) -> None:
            bits.append(information(self.model.prior, self.model.models, tile.parts))

        self._encode_tiles([pixels], quality_index_of(quality), tile, observe=observe)
        return math.fsum(bits)  # threads finish in any order, and a plain sum would depend on it

    def _tune(self, tune: str) -> str:
        """Check what to tune for; no eye looks at channels that are no colours."""
        tune = check_tune(tune)
        return tune if self.model.config.channels in IMAGE_CHANNELS else "psnr"

    def _grids(self, images: Sequence[np.ndarray | Rows], tile: int) -> list[Grid]:
        """Check images and the side of tiles, and divide each image into tiles."""
        channels = self.model.config.channels
        for pixels in images:
            if pixels.dtype != np.uint8 or len(pixels.shape) != 3 or pixels.shape[2] != channels or 0 in pixels.shape:
                raise CodecError(f"pixels are {pixels.dtype}{list(pixels.shape)}, expected uint8[H, W, {channels}]")
        if tile & (tile - 1) or not 64 <= tile <= 4096:
            raise ValueError(f"tile is {tile!r}, expected a power of two in 64..4096")
        return [Grid(pixels.shape[0], pixels.shape[1], tile) for pixels in images]

    def _tasks(self, pixels: np.ndarray | Rows, grid: Grid, weights: np.ndarray | None = None) -> Iterator[EncodeTask]:
        """Cut the tiles of an image, each with its halo."""
        margin = halo(self.model.config)
        for row in range(grid.rows):
            strip = grid.row(row).grow(margin, grid.cells)
            rows = pixels[STRIDE * strip.top : min(STRIDE * strip.bottom, grid.height)]
            for column in range(grid.columns):
                box = grid.box(row * grid.columns + column)
                outer = box.grow(margin, grid.cells)
                within = pixel_box(outer).intersection(Box(0, 0, grid.height, grid.width)).shape
                padded = np.ascontiguousarray(cut_padded(rows, outer.relative_to(strip)))
                tile_weights = None if weights is None else _padded_weights(weights, box)
                yield EncodeTask(padded, box.relative_to(outer), within, tile_weights)

    def _groups(self, tasks: Iterable[EncodeTask]) -> Iterator[tuple[EncodeTask, ...]]:
        return group_consecutive(tasks, lambda task: (task.pixels.shape, task.inner), self._transforms.batch)

    def _encode_tiles(
        self,
        images: Sequence[np.ndarray | Rows],
        quality_index: int,
        tile: int,
        plan: Plan | None = None,
        progress: Progress | None = None,
        observe: Callable[[CodedTile], None] | None = None,
        asked: int | None = None,
        weights: Sequence[np.ndarray] | None = None,
        tune: str = "psnr",
    ) -> list[list[EncodedTile]]:
        """Encode the tiles of each image, in order; without a plan also without a filter.

        Images of one size are coded one after another.  `observe` is called with each coded tile.  `asked` is the
        quality index whose squared error refinement keeps.
        """
        grids = self._grids(images, tile)
        order = sorted(range(len(grids)), key=grids.__getitem__)
        iterations = max(plan.iterations, 1) if plan else 1
        tick = ticker(iterations * sum(grid.total for grid in grids), progress)
        refining = threading.Semaphore(self._threads)  # a refinement takes a core and much memory
        samples = self.model.config.channels * sum(grid.height * grid.width for grid in grids)
        keep = samples <= KEPT_SAMPLES
        with Schedule.of_grids(((grid, grid.total) for grid in grids), self._threads, iterations) as schedule:

            def encode(*tasks: EncodeTask) -> list[EncodedTile]:
                pixels = [task.pixels for task in tasks]
                analysed = self._transforms.analysis(pixels, quality_index, schedule.inner, tune)
                rest = quality_index, plan, schedule.inner, tick, refining, observe, keep, asked, tune
                return [self._encode_tile(task, part, *rest) for task, part in zip(tasks, analysed, strict=True)]

            tasks = chain.from_iterable(
                self._tasks(images[n], grids[n], weights[n] if weights else None) for n in order
            )
            tiles = chain.from_iterable(schedule.map(encode, self._groups(tasks)))
            encoded = {n: list(islice(tiles, grids[n].total)) for n in order}
        return [encoded[n] for n in range(len(grids))]

    def _encode_tile(
        self,
        task: EncodeTask,
        coefficients: Coefficients,
        quality_index: int,
        plan: Plan | None,
        threads: Threads = ONE_THREAD,
        tick: Callable[[], None] = _ignore,
        refining: threading.Semaphore | None = None,
        observe: Callable[[CodedTile], None] | None = None,
        keep: bool = False,
        asked: int | None = None,
        tune: str = "psnr",
    ) -> EncodedTile:
        """Encode one tile, given its coefficients with or without those of its halo; `keep` its values, too.

        `asked` is the quality index whose squared error refinement keeps; None is `quality_index`.
        """
        model, refined, saved = self.model.tilted(tilt_of(tune)), None, 0.0
        inner = coefficients if coefficients.cells == task.inner.shape else coefficients.crop(*task.inner)
        prices = prices_of_tile(tune, inner, task.weights)
        if plan and plan.iterations:
            from vaecodec.rdo.refinement import Refiner  # not needed at lower efforts

            with refining or threading.Semaphore(), single_threaded_blas:
                limit, bits, goal = None, 0.0, task.pixels
                if tune == "eye":
                    [unquantised] = self._transforms.pixels([coefficients], quality_index, None, threads)
                    goal = goal_of_refinement(goal, unquantised)
                if asked not in (None, quality_index):
                    [unrefined] = self._transforms.analysis([task.pixels], asked, threads, tune)
                    rest = unrefined, task.inner, asked, threads, prices, tune
                    bits, limit = Refiner(model, goal, task.within, *rest).unrefined()
                rest = coefficients, task.inner, quality_index, threads, prices, tune
                refiner = Refiner(model, goal, task.within, *rest)
                refined = refiner(plan.iterations, tick, limit, NARROW if plan.is_precise else WIDE)
                equations, saved = refined.equations(plan.is_precise), bits - refined.bits
            coded = code_tile(model.prior, model.models, refined.parts, refined.decoded, threads, by_band=True)
        else:
            parts = targets(model.prior, quantisation_targets(inner, model.gains.scaled(quality_index)), quality_index)
            choose = quantizer(model.prior, model.models.tables).of_parts(parts, prices, threads)
            coded = encode_tile(model.prior, model.models, inner.cells, quality_index, choose, threads, by_band=True)
            tick()
        if observe is not None:
            observe(coded)
        encoded = EncodedTile(coded.payload, coded.crc)
        if refined is not None:
            alone = refined.levels is not None and coefficients.cells == task.inner.shape
            levels = refined.levels if alone else None
            encoded = EncodedTile(coded.payload, coded.crc, equations, levels, saved=saved)
        elif plan:
            encoded = self._fit_filter(task, coded, model, quality_index, threads)
        if keep and encoded.levels is None:  # the CRC of its pixels follows from the values
            return encoded._replace(values=coded.values.narrowed())
        return encoded

    def _fit_filter(
        self, task: EncodeTask, coded: CodedTile, model: Model, quality_index: int, threads: Threads
    ) -> EncodedTile:
        """Add the equations of a filter of one class, from the pixels that no other tile affects."""
        cells = (task.pixels.shape[0] // STRIDE, task.pixels.shape[1] // STRIDE)
        area = halo_free_area(task.inner, cells, task.within, halo(self.model.config))
        if not area.shape[0] * area.shape[1]:
            return EncodedTile(coded.payload, coded.crc)
        coefficients = dequantise(coded.values, model.gains.scaled(quality_index), "decoded")
        [levels] = self._transforms.levels([coefficients], quality_index, threads)
        pixels = task.pixels[pixel_box(task.inner).slices()]
        rotation = self.model.transforms.synthesis.colors
        equations = fit_one_class(levels, pixels, area, sparsity(area), rotation, threads)
        alone = task.inner.shape == cells
        return EncodedTile(coded.payload, coded.crc, equations, levels if alone else None)

    def _pack(
        self,
        size: tuple[int, ...],
        tiles: list[EncodedTile],
        quality_index: int,
        tile: int,
        tilt: int = 0,
        metadata: dict[str, bytes] | None = None,
    ) -> bytes:
        """Pack coded tiles into a file, with the filter that fits them and the CRCs of their pixels."""
        (height, width), model, chosen = size, self.model, None
        if equations := [part.equations for part in tiles if part.equations]:
            lambda_ = model.config.lambda_of_sum(quality_index)
            chosen = reduce(Equations.__add__, equations).best_filter(lambda_)
        header = Header(model.id, height, width, quality_index, tile, channels=model.config.channels)
        header = header._replace(filter=chosen.to_bytes() if chosen else b"", tilt=tilt, by_band=True)
        levels = tiles[0].levels if len(tiles) == 1 else None
        if levels is None:
            # The pixels of a tile depend on its neighbours, and all pixels on the filter, which depends on all tiles.
            data = pack(header, [(part.payload, part.symbol_crc, 0) for part in tiles], metadata)
            values = [part.values for part in tiles if part.values is not None]
            if not values:
                release_memory()
            crcs = self._decoder.pixel_crcs(data, None, values if len(values) == len(tiles) else ())
            return with_pixel_crcs(data, crcs)
        if chosen is None:
            pixels = pixels_of(levels)
        else:
            low = model.gains.low_logarithm(quality_index)
            weights = chosen.weights(model.transforms.synthesis.colors, low)
            with Schedule.of_grids([(Grid(height, width, tile), 1)], self._threads) as schedule:
                pixels = restored(levels, weights, schedule.inner)
        crc = pixel_crc(pixels[:height, :width])
        return pack(header, [(tiles[0].payload, tiles[0].symbol_crc, crc)], metadata)


def _padded_weights(weights: np.ndarray, box: Box) -> np.ndarray:
    """The weights of a tile; the last row and column are repeated to whole cells, as those of the pixels."""
    part = weights[pixel_box(box).slices()]
    height, width = (STRIDE * side for side in box.shape)
    return np.pad(part, [(0, height - part.shape[0]), (0, width - part.shape[1])], "edge")
