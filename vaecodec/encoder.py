"""Encoder: pixels -> bytes.

pixels --analysis--> y --quantise, walk, push--> words --pack--> bytes

From tile to tile, a row of them at a time; the bytes depend on neither that nor on `threads`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

from vaecodec import filtering, memory, tiles
from vaecodec.cells import Hands
from vaecodec.config import STRIDE
from vaecodec.container import Header, pack, step_of
from vaecodec.context import UNIT
from vaecodec.errors import CodecError, ModelError
from vaecodec.filtering import Equations
from vaecodec.parallel import Crew, cores
from vaecodec.plans import Job, Latents, Rows, alike, cut, pixels_of, undisturbed
from vaecodec.progress import Progress, ticker
from vaecodec.refinement import ITERATIONS, Refiner, check_effort
from vaecodec.tiling import DEFAULT_TILE, Box, Grid, halo
from vaecodec.transforms import make_transforms
from vaecodec.weights import Model

ENOUGH, SPARSELY = 1 << 17, 5  # samples of a tile to fit a filter by, of no more than so many times as many
LATENT_MAX = 2.0**64  # quantisation steps: far more than are coded, and no sum of some overflows


class Done(NamedTuple):
    """What was made of a tile, and the equations for its filter where it was refined."""

    result: Any
    equations: Equations | None


class Encoder:
    """One model, and the way from pixels to bytes.

    `threads` are the cores that one call may keep busy: all, or VAECODEC_THREADS, where not given.
    """

    def __init__(self, model: Model, device: str = "cpu", threads: int | None = None) -> None:
        memory.keep()
        self.model = model
        self.threads = threads or cores()
        self.transforms = make_transforms(model, device, min(self.threads, 4))  # more do not make them faster

    def encode(
        self,
        pixels: np.ndarray | Rows,
        quality: float = 50,
        metadata: dict[str, bytes] | None = None,
        tile: int = DEFAULT_TILE,
        progress: Progress | None = None,
        effort: int = 1,
    ) -> bytes:
        """u8[H, W, C] -> a .vae file, bytes; quality in 1..100, effort in 1..9.

        The file may have a filter (see wiener).  Above effort 1 the latents are refined for this picture (see
        refinement), of which `progress` is told each tile's iterations.  Raises CodecError on another
        shape or type, ValueError on a value outside its range.
        """
        return self.encode_batch([pixels], quality, [metadata], tile, progress, effort)[0]

    def encode_batch(
        self,
        pictures: Sequence[np.ndarray | Rows],
        quality: float = 50,
        metadata: Sequence[dict[str, bytes] | None] | None = None,
        tile: int = DEFAULT_TILE,
        progress: Progress | None = None,
        effort: int = 1,
    ) -> list[bytes]:
        """u8[H, W, C] of any sizes -> a .vae file each, bytes, in order; `metadata` are those of each.

        One set of worker processes serves them all, and TensorFlow takes tiles of one shape together, whichever
        picture they are of.  Raises as `encode` does.
        """
        step = step_of(quality)
        check_effort(effort)
        made = self._of_each(pictures, step, tile, tiles.encode, effort, progress)
        coded = [[done.result for done in each] for each in made]
        headers = [
            self._header(pixels.shape[0], pixels.shape[1], step, tile, self._fitted(each, step))
            for pixels, each in zip(pictures, made, strict=True)
        ]
        kinds = metadata or [None] * len(headers)
        return [pack(*one) for one in zip(headers, coded, kinds, strict=True)]

    def encode_unfiltered(self, pixels: np.ndarray, quality: float = 50, tile: int = DEFAULT_TILE) -> bytes:
        """What `encode` makes of u8[H, W, C] at effort 1, but without a filter; raises as it does."""
        step = step_of(quality)
        coded = [done.result for done in self._of_each([pixels], step, tile, tiles.encode)[0]]
        return pack(self._header(pixels.shape[0], pixels.shape[1], step, tile), coded)

    def analyse_batch(
        self, pictures: Sequence[np.ndarray], quality: float = 50, tile: int = DEFAULT_TILE
    ) -> list[list[Latents]]:
        """u8[H, W, 3] of any sizes -> latents of each tile of each, as `encode_latents` takes them.

        The first half of encoding, for another machine than the second; raises as encode_batch does.
        """
        found = self._of_each(pictures, step_of(quality), tile, tiles.latents)
        return [[done.result for done in each] for each in found]

    def encode_latents(
        self,
        pixels: np.ndarray,
        latents: Sequence[Latents],
        quality: float = 50,
        metadata: dict[str, bytes] | None = None,
        tile: int = DEFAULT_TILE,
    ) -> bytes:
        """What `encode` makes at effort 1 of u8[H, W, C], which analyse_batch gave these latents of."""
        step, grid = step_of(quality), Grid(pixels.shape[0], pixels.shape[1], tile)

        def one(number: int, y: np.ndarray) -> Done:
            box = grid.box(number)
            sure = undisturbed(box, grid.cells, pixels.shape[:2], halo(self.model.config))
            fit = self._fit(cut(pixels, box), step, sure, False, crew.hands)
            return Done(*crew.call_and_see(tiles.encode_seen, y, step, see=fit))

        with self._crew([(grid, grid.total)]) as crew:
            made = list(crew.map(one, enumerate(latents)))
        coded = [done.result for done in made]
        return pack(
            self._header(pixels.shape[0], pixels.shape[1], step, tile, self._fitted(made, step)), coded, metadata
        )

    def _header(self, height: int, width: int, step: int, tile: int, found: bytes = b"") -> Header:
        return Header(self.model.id, height, width, step, tile, channels=self.model.config.channels, filter=found)

    def _fitted(self, made: list[Done], step: int) -> bytes:
        """The filter of a picture by the equations of its tiles, if it is to have one."""
        equations = [done.equations for done in made if done.equations]
        if not equations:
            return b""
        found = reduce(Equations.__add__, equations).best(self.model.config.lambda_of_sum(step))
        return found.to_bytes() if found else b""

    def information(self, pixels: np.ndarray, quality: float = 50, tile: int = DEFAULT_TILE) -> float:
        """Bits that the symbols of u8[H, W, 3] are worth under the model: what encode's bytes are held against."""
        return sum(done.result for done in self._of_each([pixels], step_of(quality), tile, tiles.bits)[0])

    def _of_each(
        self,
        pictures: Sequence[np.ndarray | Rows],
        step: int,
        tile: int,
        work: Callable[..., Any],
        effort: int = 0,
        progress: Progress | None = None,
    ) -> list[list[Done]]:
        """work(prior, y, step) of each tile of each picture, in order; pictures of one size are next to each other
        in the making.  At effort 0 there is no filter either.
        """
        channels = self.model.config.channels
        for pixels in pictures:
            if pixels.dtype != np.uint8 or len(pixels.shape) != 3 or pixels.shape[2] != channels or 0 in pixels.shape:
                raise CodecError(f"pixels are {pixels.dtype}{list(pixels.shape)}, expected uint8[H, W, {channels}]")
        if tile & (tile - 1) or not 64 <= tile <= 4096:
            raise ValueError(f"tile is {tile!r}, expected a power of two in 64..4096")
        grids = [Grid(pixels.shape[0], pixels.shape[1], tile) for pixels in pictures]
        order = sorted(range(len(grids)), key=grids.__getitem__)
        rounds = _iterations(effort) or 1
        tick = ticker(rounds * sum(grid.total for grid in grids), progress)
        with self._crew(((grid, grid.total) for grid in grids), rounds) as crew:
            chosen = ((pictures[n], grids[n]) for n in order)
            found = self._tiles(crew, chosen, step, work, effort, tick)
            made = {n: list(islice(found, grids[n].total)) for n in order}
        return [made[n] for n in range(len(grids))]

    def _crew(self, counts: Iterable[tuple[Grid, int]], work: int = 1) -> Crew:
        """For so many of the tiles of each grid, each of which is `work` times as much to do as it is to code."""
        tiles, pixels = 0, 0
        for grid, count in counts:
            tiles += count
            pixels += work * count * min(grid.tile, grid.height) * min(grid.tile, grid.width)
        return Crew(self.model, tiles, pixels, self.threads)

    def _tiles(
        self,
        crew: Crew,
        pictures: Iterable[tuple[np.ndarray | Rows, Grid]],
        step: int,
        work: Callable[..., Any],
        effort: int,
        tick: Callable[[], None],
    ) -> Iterator[Done]:
        """work(prior, y, step) of each tile of each picture, in order, its y refined as the effort says."""
        turn = threading.Semaphore(self.threads)  # a refinement takes a core, and much memory
        iterations = _iterations(effort)

        def one(job: Job, y: np.ndarray) -> Done:
            inner = y[job.inner.slices()]
            if iterations:
                with turn:
                    refine = Refiner(self.model, job.seen, job.within, y, job.inner, step)
                    symbols = refine(iterations, tick)
                return Done(crew.call(work, inner, step, symbols), refine.equations)
            if effort:
                sure = undisturbed(job.inner, y.shape[:2], job.within, halo(self.model.config))
                fit = self._fit(job.seen[pixels_of(job.inner).slices()], step, sure, effort > 1, crew.hands)
                done = Done(*crew.call_and_see(tiles.encode_seen, inner, step, see=fit))
            else:
                done = Done(crew.call(work, inner, step), None)
            tick()
            return done

        def some(*jobs: Job) -> list[Done]:
            latents = self._latents([job.seen for job in jobs], step, crew.hands)
            return [one(job, y) for job, y in zip(jobs, latents, strict=True)]

        def jobs(pixels: np.ndarray | Rows, grid: Grid) -> Iterator[Job]:
            for row in range(grid.rows):
                band = grid.row(row).grow(halo(self.model.config), grid.cells)
                rows = pixels[STRIDE * band.top : min(STRIDE * band.bottom, grid.height)]
                for column in range(grid.columns):
                    box = grid.box(row * grid.columns + column)
                    outer = box.grow(halo(self.model.config), grid.cells)
                    within = pixels_of(outer).meet(Box(0, 0, grid.height, grid.width)).shape
                    yield Job(cut(rows, outer.inside(band)), box.inside(outer), within)

        every = chain.from_iterable(jobs(*picture) for picture in pictures)
        groups = alike(every, lambda job: (job.seen.shape, job.inner), self.transforms.batch)
        return chain.from_iterable(crew.map(some, groups))

    def _fit(
        self, pixels: np.ndarray, step: int, sure: Box, all_of_it: bool, hands: Hands
    ) -> Callable[[np.ndarray], Equations | None]:
        """From values f32[h, w, M], unit 2**-6, that a tile u8[H, W, C] is decoded as, to the equations for its filter.

        They are by itself, and so of `sure` pixels of it.  Unless all of it is wanted, it is of one class.
        """
        count = sure.shape[0] * sure.shape[1]
        every = min(max(1, count // ENOUGH), SPARSELY)

        def fit(values: np.ndarray) -> Equations | None:
            if not count:
                return None
            y = values * (self.model.vector("inverse_gain", step) * np.float32(1 / UNIT))
            made = self.transforms.unrounded(y[None], self.model.condition("synthesis", step), hands)[0]
            made -= np.float32(0.5)
            if not all_of_it:
                return filtering.of_one_class(made, pixels, sure, every)
            return filtering.equations(made, pixels.astype(np.float32), sure, self.model.pixel_step(step), every)

        return fit

    def _latents(self, pixels: list[np.ndarray], step: int, hands: Hands) -> np.ndarray:
        """f32[B, h, w, M], in quantisation steps, of B arrays u8[H, W, C]."""
        y = self.transforms.analysis(np.stack(pixels), self.model.condition("analysis", step), hands)
        y *= self.model.vector("gain", step)
        _check_latents(y)
        return y


def _iterations(effort: int) -> int:
    """How often latents are refined."""
    return ITERATIONS[effort - 1] if effort > 1 else 0


def _check_latents(latents: np.ndarray) -> None:
    """Raises ModelError on what no model of ours makes, and no rounding is prepared for."""
    if not max(latents.max(), -latents.min()) < LATENT_MAX:  # which is so of NaN, too
        raise ModelError("the model's network makes latents that are out of range")
