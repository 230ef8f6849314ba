"""Codec: pixels <-> bytes, two mirrored halves.

pixels --analysis--> y --hyper-analysis--> z --quantise, walk, push--> words --pack--> bytes
pixels <--synthesis-- y <------------------walk, pop------------------ words <--parse-- bytes

Both go from tile to tile and hold a row of tiles at a time; the bytes depend on neither that nor on `threads`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import chain, groupby, islice
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from vaecodec import context, fixed, preview, tiles
from vaecodec.config import HYPER_STRIDE, STRIDE
from vaecodec.container import Header, Parsed, pack, parse, step_of
from vaecodec.errors import CodecError, FormatError, ModelError
from vaecodec.limits import DEFAULT, NONE, Limits
from vaecodec.parallel import Crew, cores
from vaecodec.refinement import Refiner, check_effort, iterations_of
from vaecodec.tiling import DEFAULT_TILE, Box, Grid, halo, window_box
from vaecodec.transforms import make_transforms
from vaecodec.weights import Model, find_model, load_model

T = TypeVar("T")
Window = tuple[int, int, int, int]  # top, left, height, width
Progress = Callable[[int, int], None]  # tiles, or their iterations: those that are done, and all


class Rows(Protocol):
    """What encode needs of u8[H, W, 3]: slices of rows, the beginning of each not before that of the last."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class Plan(NamedTuple):
    """What to decode: pixels of a picture, `reduce` by `reduce` of them to one that comes out."""

    grid: Grid
    target: Box
    reduce: int

    @property
    def cells(self) -> Box:
        """The cells that the target touches."""
        return self.target.reduce(STRIDE)

    def reduced(self, pixels: Box) -> Box:
        """A rectangle of the picture in pixels of what comes out; those that it cuts count."""
        return pixels.reduce(self.reduce)

    @property
    def out(self) -> Box:
        """What comes out."""
        return self.reduced(self.target)

    def shown(self, cells: Box) -> Box:
        """What comes out of these cells."""
        return self.reduced(pixels_of(cells).meet(self.target))


class Part(NamedTuple):
    """One file of a batch, and what to decode of it; `name` is what errors call it, if it has one."""

    data: bytes
    parsed: Parsed
    plan: Plan
    name: str = ""

    @property
    def total(self) -> int:
        """Tiles to decode."""
        return sum(1 for _ in self.plan.grid.touching(self.plan.cells))


class Job(NamedTuple):
    """One tile to encode."""

    seen: np.ndarray  # u8[H, W, 3]: its pixels and those of its margin, whole cells
    inner: Box  # its cells among those
    within: tuple[int, int]  # pixels of `seen` that are the picture's


class Codec:
    """One model, both directions; safe to share between threads.

    `threads` are the cores that one call may keep busy: all, or VAECODEC_THREADS, where not given.
    """

    def __init__(self, model: Model, device: str = "cpu", threads: int | None = None) -> None:
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
        """u8[H, W, 3] -> a .vae file, bytes; quality in 1..100, effort in 1..9.

        Above effort 1 the latents are refined for this picture (see refinement), and `progress` is told of each
        tile's iterations.  Raises CodecError on another shape or type, ValueError on a value outside its range.
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
        """u8[H, W, 3] of any sizes -> a .vae file each, bytes, in order; `metadata` are those of each.

        One set of worker processes serves them all, and TensorFlow takes tiles of one shape together, whichever
        picture they are of.  Raises as `encode` does.
        """
        step = step_of(quality)
        check_effort(effort)
        for pixels in pictures:
            if pixels.dtype != np.uint8 or len(pixels.shape) != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
                raise CodecError(f"pixels are {pixels.dtype}{list(pixels.shape)}, expected uint8[H, W, 3]")
        if tile & (tile - 1) or not 64 <= tile <= 4096:
            raise ValueError(f"tile is {tile!r}, expected a power of two in 64..4096")
        grids = [Grid(pixels.shape[0], pixels.shape[1], tile) for pixels in pictures]
        order = sorted(range(len(grids)), key=grids.__getitem__)
        iterations = iterations_of(effort, step)
        rounds = max(1, iterations)
        tick = ticker(rounds * sum(grid.total for grid in grids), progress)
        with self._crew(((grid, grid.total) for grid in grids), rounds) as crew:
            chosen = ((pictures[n], grids[n]) for n in order)
            found = self._tiles(crew, chosen, step, tiles.encode, iterations, tick)
            coded = {n: list(islice(found, grids[n].total)) for n in order}
        headers = [Header(self.model.id, grid.height, grid.width, step, tile) for grid in grids]
        kinds = metadata or [None] * len(headers)
        return [pack(header, coded[n], kinds[n]) for n, header in enumerate(headers)]

    def information(self, pixels: np.ndarray, quality: float = 50, tile: int = DEFAULT_TILE) -> float:
        """Bits that the symbols of u8[H, W, 3] are worth under the model: what encode's bytes are held against."""
        grid = Grid(pixels.shape[0], pixels.shape[1], tile)
        with self._crew([(grid, grid.total)]) as crew:
            return sum(self._tiles(crew, [(pixels, grid)], step_of(quality), tiles.bits))

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
        iterations: int = 0,
        tick: Callable[[], None] = lambda: None,
    ) -> Iterator[Any]:
        """work(prior, y, z, step) of each tile of each picture, in order, its y refined in so many iterations."""
        turn = threading.Semaphore(self.threads)  # a refinement takes a core, and much memory

        def one(job: Job, y: np.ndarray, z: np.ndarray) -> Any:
            if iterations:
                with turn:
                    refine = Refiner(self.model, job.seen, job.within, y, z, job.inner, step)
                    y = refine(iterations, tick)
            else:
                y = y[job.inner.slices()]
            found = crew.call(work, y, z, step)
            if not iterations:
                tick()
            return found

        def some(*jobs: Job) -> list[Any]:
            latents = self._latents([job.seen for job in jobs], jobs[0].inner, step)
            return [one(job, *found) for job, found in zip(jobs, latents, strict=True)]

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

    def _latents(self, pixels: list[np.ndarray], inner: Box, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(y f32[h, w, M] of each u8[H, W, 3], z f32[h'/4, w'/4, N] of its `inner` cells), in quantisation steps."""
        y = self.transforms.analysis(np.stack(pixels), self.model.vector("analysis/fine", step))
        part = y[:, inner.top : inner.bottom, inner.left : inner.right]
        short = (-part.shape[1] % HYPER_STRIDE, -part.shape[2] % HYPER_STRIDE)
        padded = np.pad(part, ((0, 0), (0, short[0]), (0, short[1]), (0, 0))) if any(short) else part
        z = self.transforms.hyper_analysis(padded) * self.model.vector("hyper_gain", step)
        return zip(y * self.model.vector("gain", step), z, strict=True)

    def decode(
        self,
        data: bytes,
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """A .vae file -> u8[H, W, 3], or its (top, left, height, width) window, at 1/`reduce` of the sides, rounded up.

        A window decodes only the tiles it needs; `reduce` is 1, 2, 4, 8 or 16 (see preview).  Raises FormatError on
        damage, ModelError where the file was made with another model, LimitError beyond the limits (None: there are
        none), ValueError on a bad window or reduction.
        """
        return gather(*self.decode_strips(data, window, reduce, limits, progress))

    def decode_batch(
        self,
        files: Sequence[bytes],
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT,
        progress: Progress | None = None,
        names: Sequence[str] | None = None,
    ) -> list[np.ndarray]:
        """.vae files -> what `decode` makes of each, in order; taken together as by encode_batch.

        Raises as `decode` does; the message begins with the file's name (without `names`: file 0, file 1).
        """
        names = names or [f"file {n}" for n in range(len(files))]
        parts = []
        for name, data in zip(names, files, strict=True):
            with named(name):
                parts.append(self._part(data, window, reduce, limits, f"{name}: "))
        keys = [(part.plan.grid, part.parsed.header.step) for part in parts]
        order = sorted(range(len(parts)), key=keys.__getitem__)
        with self._crew((part.plan.grid, part.total) for part in parts) as crew:
            squares = self._squares(crew, [parts[n] for n in order], reduce)
            squares = counted(squares, sum(part.total for part in parts), progress)
            out = {}
            for n in order:
                place = parts[n].plan.out
                out[n] = gather((*place.shape, 3), strips_of(place, islice(squares, parts[n].total)))
        return [out[n] for n in range(len(parts))]

    def decode_strips(
        self,
        data: bytes,
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT,
        progress: Progress | None = None,
    ) -> tuple[tuple[int, int, int], Iterator[np.ndarray]]:
        """(H, W, 3) and, from the top, the rows of what `decode` returns, u8[n, W, 3]: a row of tiles at a time.

        Raises as `decode` does; damage to a tile shows when its turn comes.
        """
        part = self._part(data, window, reduce, limits)
        return (*part.plan.out.shape, 3), self._strips(part, progress)

    def _part(self, data: bytes, window: Window | None, reduce: int, limits: Limits | None, name: str = "") -> Part:
        parsed = parse(data, check_data=window is None)
        return Part(data, parsed, self._admit(parsed, window, reduce, limits), name)

    def _strips(self, part: Part, progress: Progress | None) -> Iterator[np.ndarray]:
        with self._crew([(part.plan.grid, part.total)]) as crew:
            squares = self._squares(crew, [part], part.plan.reduce)
            yield from strips_of(part.plan.out, counted(squares, part.total, progress))

    def _squares(self, crew: Crew, parts: list[Part], reduce: int) -> Iterator[tuple[Box, np.ndarray]]:
        """(place in what comes out, pixels) of each tile of each file."""
        if reduce == 1:
            return self._synthesised(crew, parts)
        return chain.from_iterable(self._reduced(crew, part) for part in parts)

    def _synthesised(self, crew: Crew, parts: list[Part]) -> Iterator[tuple[Box, np.ndarray]]:
        channels = self.model.config.latents

        def jobs(part: Part) -> Iterator[tuple[int, Box, Box, np.ndarray]]:
            found = self._surrounded(crew, part, halo(self.model.config), channels, tiles.decode)
            return ((part.parsed.header.step, *one) for one in found)

        def some(*jobs: tuple[int, Box, Box, np.ndarray]) -> list[tuple[Box, np.ndarray]]:
            step = jobs[0][0]
            gain = self.model.vector("inverse_gain", step) * np.float32(1.0 / context.UNIT)
            condition = self.model.vector("synthesis/fine", step)
            y = jobs[0][-1][None] if len(jobs) == 1 else np.stack([y for *_, y in jobs])
            y *= gain
            pictures = self.transforms.synthesis(y, condition)
            places = [shown.inside(pixels_of(outer)) for _, shown, outer, _ in jobs]
            found = zip(jobs, pictures, places, strict=True)
            return [(job[1], picture[place.slices()]) for job, picture, place in found]

        every = chain.from_iterable(jobs(part) for part in parts)
        groups = alike(every, lambda job: (job[0], job[3].shape), self.transforms.batch)
        return chain.from_iterable(crew.map(some, groups))

    def decode_exact(self, data: bytes, limits: Limits | None = DEFAULT) -> np.ndarray:
        """As `decode`, but i64[H, W, 3] in units of 2**-14, black and white at about 0 and 2**14: exactly.

        By fixed.Synthesis, about twice as slow as the network in floating point.  Raises as `decode` does.
        """
        part, config = self._part(data, None, 1, limits), self.model.config
        out = np.empty((*part.plan.out.shape, 3), np.int64)
        with self._crew([(part.plan.grid, part.total)]) as crew:
            for shown, outer, y in self._surrounded(crew, part, halo(config), config.latents, tiles.decode):
                made = self._fixed(y, part.parsed.header.step)[shown.inside(pixels_of(outer)).slices()]
                out[shown.slices()] = made + (1 << (fixed.BITS - 1))
        return out

    @cached_property
    def _fixed(self) -> fixed.Synthesis:
        return fixed.Synthesis(self.model)

    def _reduced(self, crew: Crew, part: Part) -> Iterator[tuple[Box, np.ndarray]]:
        """As `_synthesised`, but without the network and at a fraction of the size."""
        plan = part.plan
        kernel, bias = preview.projection(self.model, part.parsed.header.step, plan.reduce)
        margin, work = self.model.config.lapped, tiles.project
        for shown, outer, y in self._surrounded(crew, part, margin, len(bias), work, kernel, bias):
            pixels = preview.render(self.model, y, plan.reduce)
            yield shown, pixels[shown.inside(plan.reduced(pixels_of(outer))).slices()]

    def _surrounded(
        self, crew: Crew, part: Part, margin: int, channels: int, work: Callable[..., np.ndarray], *more: Any
    ) -> Iterator[tuple[Box, Box, np.ndarray]]:
        """(place in what comes out, cells, f32[h, w, channels] of `work` for them) of each tile and its margin."""
        plan, grid = part.plan, part.plan.grid
        needed = plan.cells.grow(margin, grid.cells)
        decoded = self._decoded(crew, part, needed, work, *more)
        latents: dict[int, np.ndarray] = {}
        for index in grid.touching(plan.cells):
            box = grid.box(index)
            outer = box.grow(margin, grid.cells).meet(needed)
            if grid.total == 1 and outer == box:
                yield plan.shown(box), outer, next(decoded)[1]
                return
            y = np.empty((*outer.shape, channels), np.float32)
            for other in grid.touching(outer):
                while other not in latents:
                    latents.update([next(decoded)])
                place = grid.box(other)
                shared = place.meet(outer)
                y[shared.inside(outer).slices()] = latents[other][shared.inside(place).slices()]
            for past in [other for other in latents if other < index - grid.columns]:
                del latents[past]
            yield plan.shown(box), outer, y

    def _decoded(
        self, crew: Crew, part: Part, cells: Box, work: Callable[..., T], *more: Any
    ) -> Iterator[tuple[int, T]]:
        """(index, work(prior, cells, step, payload, crc, *more)) of each tile that has some of these cells."""
        data, parsed, grid = part.data, part.parsed, part.plan.grid

        def one(index: int) -> tuple[int, T]:
            tile = parsed.tiles[index]
            payload = bytes(memoryview(data)[tile.offset : tile.offset + tile.length])
            try:
                return index, crew.call(work, grid.box(index).shape, parsed.header.step, payload, tile.crc, *more)
            except FormatError as exc:
                raise FormatError(f"{part.name}tile {index} is damaged: {exc}") from exc

        return crew.map(one, ((index,) for index in grid.touching(cells)))

    def _admit(self, parsed: Parsed, window: Window | None, reduce: int, limits: Limits | None) -> Plan:
        """What to decode, within the limits."""
        header = parsed.header
        if header.model != self.model.id:
            raise ModelError(f"this file needs model {header.model}, and the one at hand is {self.model.id}")
        preview.check(reduce)
        target = window_box(window, (header.height, header.width))
        (limits or NONE).check(target.shape[1], target.shape[0])
        return Plan(Grid(header.height, header.width, header.tile), target, reduce)

    def symbol_crcs(self, data: bytes, limits: Limits | None = DEFAULT, progress: Progress | None = None) -> list[int]:
        """CRC-32 of the decoded symbols of each tile, as an exact decoder must find them; raises as `decode` does."""
        part = self._part(data, None, 1, limits)
        with self._crew([(part.plan.grid, part.total)]) as crew:
            found = self._decoded(crew, part, part.plan.cells, tiles.check)
            return [crc for _, crc in counted(found, part.total, progress)]

    def verify(self, data: bytes, limits: Limits | None = DEFAULT, progress: Progress | None = None) -> None:
        """Decodes every symbol and checks it, without making pixels; raises as `decode` does."""
        self.symbol_crcs(data, limits, progress)


def counted(items: Iterator[T], total: int, progress: Progress | None) -> Iterator[T]:
    """The same items, with a word to `progress` before the first and after each."""
    if progress is not None:
        progress(0, total)
    for done, item in enumerate(items, 1):
        if progress is not None:
            progress(done, total)
        yield item


def ticker(total: int, progress: Progress | None) -> Callable[[], None]:
    """A function that tells `progress` of one more each time it is called, from whatever thread."""
    if progress is None:
        return lambda: None
    lock, done = threading.Lock(), 0

    def tick() -> None:
        nonlocal done
        with lock:
            done += 1
            progress(done, total)

    progress(0, total)
    return tick


def alike(jobs: Iterable[T], key: Callable[[T], Any], most: int) -> Iterator[tuple[T, ...]]:
    """The jobs in order, in groups of at most `most` neighbours that have the same key."""
    for _, neighbours in groupby(jobs, key):
        while group := tuple(islice(neighbours, most)):
            yield group


@contextmanager
def named(name: str) -> Iterator[None]:
    """Puts a file's name before what goes wrong with it."""
    try:
        yield
    except CodecError as exc:
        raise type(exc)(f"{name}: {exc}") from exc


def strips_of(out: Box, squares: Iterable[tuple[Box, np.ndarray]]) -> Iterator[np.ndarray]:
    """The rows u8[n, W, 3] that tiles, (place, pixels) in order, make up."""
    strip = np.empty(0, np.uint8)
    for place, pixels in squares:
        if place.left == out.left:
            strip = np.empty((place.shape[0], out.shape[1], 3), np.uint8)
        strip[:, place.left - out.left : place.right - out.left] = pixels
        if place.right == out.right:
            yield strip


def gather(shape: tuple[int, ...], strips: Iterator[np.ndarray]) -> np.ndarray:
    """[H, W] or [H, W, C] of its rows."""
    out, top = np.empty(0), 0
    for strip in strips:
        if not top:
            out = strip if strip.shape == shape else np.empty(shape, strip.dtype)
        if out is not strip:
            out[top : top + len(strip)] = strip
        top += len(strip)
    return out


def cut(pixels: np.ndarray, cells: Box) -> np.ndarray:
    """u8[H', W', 3] of the given cells, the picture's last row and column repeated where it ends inside one."""
    height, width = pixels.shape[:2]
    part = pixels[pixels_of(cells).meet(Box(0, 0, height, width)).slices()]
    short = [STRIDE * want - have for want, have in zip(cells.shape, part.shape[:2], strict=True)]
    return np.pad(part, ((0, short[0]), (0, short[1]), (0, 0)), "edge") if any(short) else part


def pixels_of(cells: Box) -> Box:
    """The pixels of cells, those beyond the picture's edge included."""
    return Box(*(STRIDE * edge for edge in cells))


def codec_for(data: bytes, model: str | None = None, device: str = "cpu", threads: int | None = None) -> Codec:
    """The codec that a file was made with: the shipped one of its id, or the given one.

    Raises FormatError where `data` is no .vae file, ModelError where no shipped model has its id.
    """
    found = parse(data, check_data=False).header.model
    return cached_codec(load_model(model) if model else find_model(found), device, threads)


_codecs: dict[tuple[int, str, int | None], Codec] = {}
CACHED = 8


def cached_codec(model: Model, device: str = "cpu", threads: int | None = None) -> Codec:
    """One codec for each loaded model, device and number of threads, so that interpreters are made once."""
    # Not by the model's id: files that differ in what only encoders use share one.  A codec keeps its model, so
    # that none other can have its place in memory.
    key = (id(model), device, threads)
    codec = _codecs.get(key)
    if codec is None:
        codec = _codecs[key] = Codec(model, device, threads)
        if len(_codecs) > CACHED:
            _codecs.pop(next(iter(_codecs)), None)
    return codec
