"""Codec: pixels <-> bytes, two mirrored halves.

pixels --analysis--> y --hyper-analysis--> z --quantise, walk, push--> words --pack--> bytes
pixels <--synthesis-- y <------------------walk, pop------------------ words <--parse-- bytes

Both go from tile to tile and hold a row of tiles at a time; the bytes depend on neither that nor on `threads`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
from vaecodec.tiling import DEFAULT_TILE, Box, Grid, halo, window_box
from vaecodec.transforms import make_transforms
from vaecodec.weights import Model, find_model, load_model

T = TypeVar("T")
Window = tuple[int, int, int, int]  # top, left, height, width
Progress = Callable[[int, int], None]  # tiles done, tiles in all


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
    ) -> bytes:
        """u8[H, W, 3] -> a .vae file, bytes; quality in 1..100.

        Raises CodecError on another shape or type, ValueError on a quality outside its range.
        """
        step = step_of(quality)
        if pixels.dtype != np.uint8 or len(pixels.shape) != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise CodecError(f"pixels are {pixels.dtype}{list(pixels.shape)}, expected uint8[H, W, 3]")
        if tile & (tile - 1) or not 64 <= tile <= 4096:
            raise ValueError(f"tile is {tile!r}, expected a power of two in 64..4096")
        height, width = pixels.shape[:2]
        grid = Grid(height, width, tile)
        with self._crew(grid, grid.total) as crew:
            coded = list(counted(self._tiles(crew, pixels, grid, step, tiles.encode), grid.total, progress))
        return pack(Header(self.model.id, height, width, step, tile), coded, metadata)

    def information(self, pixels: np.ndarray, quality: float = 50, tile: int = DEFAULT_TILE) -> float:
        """Bits that the symbols of u8[H, W, 3] are worth under the model: what encode's bytes are held against."""
        grid = Grid(pixels.shape[0], pixels.shape[1], tile)
        with self._crew(grid, grid.total) as crew:
            return sum(self._tiles(crew, pixels, grid, step_of(quality), tiles.bits))

    def _crew(self, grid: Grid, count: int) -> Crew:
        """For `count` of the tiles."""
        pixels = count * min(grid.tile, grid.height) * min(grid.tile, grid.width)
        return Crew(self.model, count, pixels, self.threads)

    def _tiles(
        self, crew: Crew, pixels: np.ndarray | Rows, grid: Grid, step: int, work: Callable[..., Any]
    ) -> Iterator[Any]:
        """work(prior, y, z, step) of each tile, in order."""

        def some(*jobs: tuple[np.ndarray, Box, Box]) -> list[Any]:
            _, outer, box = jobs[0]
            latents = self._latents([seen for seen, _, _ in jobs], box.inside(outer), step)
            return [crew.call(work, *one, step) for one in latents]

        def jobs() -> Iterator[tuple[np.ndarray, Box, Box]]:
            for row in range(grid.rows):
                band = grid.row(row).grow(halo(self.model.config), grid.cells)
                rows = pixels[STRIDE * band.top : min(STRIDE * band.bottom, grid.height)]
                for column in range(grid.columns):
                    box = grid.box(row * grid.columns + column)
                    outer = box.grow(halo(self.model.config), grid.cells)
                    yield cut(rows, outer.inside(band)), outer, box

        groups = alike(jobs(), lambda job: (job[0].shape, job[2].inside(job[1])), self.transforms.batch)
        return chain.from_iterable(crew.map(some, groups))

    def _latents(self, pixels: list[np.ndarray], inner: Box, step: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(y f32[h, w, M], z f32[h/4, w/4, N]), in quantisation steps, of the `inner` cells of each u8[H, W, 3]."""
        y = self.transforms.analysis(np.stack(pixels), self.model.vector("analysis/fine", step))
        y = y[:, inner.top : inner.bottom, inner.left : inner.right]
        short = (-y.shape[1] % HYPER_STRIDE, -y.shape[2] % HYPER_STRIDE)
        padded = np.pad(y, ((0, 0), (0, short[0]), (0, short[1]), (0, 0))) if any(short) else y
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
        parsed = parse(data, check_data=window is None)
        plan = self._admit(parsed, window, reduce, limits)
        return (*plan.out.shape, 3), self._strips(data, parsed, plan, progress)

    def _strips(self, data: bytes, parsed: Parsed, plan: Plan, progress: Progress | None) -> Iterator[np.ndarray]:
        squares = self._synthesised if plan.reduce == 1 else self._reduced
        count = sum(1 for _ in plan.grid.touching(plan.cells))
        strip = np.empty(0, np.uint8)
        with self._crew(plan.grid, count) as crew:
            for place, pixels in counted(squares(crew, data, parsed, plan), count, progress):
                if place.left == plan.out.left:
                    strip = np.empty((place.shape[0], plan.out.shape[1], 3), np.uint8)
                strip[:, place.left - plan.out.left : place.right - plan.out.left] = pixels
                if place.right == plan.out.right:
                    yield strip

    def _synthesised(self, crew: Crew, data: bytes, parsed: Parsed, plan: Plan) -> Iterator[tuple[Box, np.ndarray]]:
        """(place in what comes out, pixels) of each tile."""
        step, channels = parsed.header.step, self.model.config.latents
        condition = self.model.vector("synthesis/fine", step)
        gain = self.model.vector("inverse_gain", step) * np.float32(1.0 / context.UNIT)
        surrounded = self._surrounded(crew, data, parsed, plan, halo(self.model.config), channels, tiles.decode)

        def some(*jobs: tuple[Box, Box, np.ndarray]) -> list[tuple[Box, np.ndarray]]:
            pictures = self.transforms.synthesis(np.stack([y for _, _, y in jobs]) * gain, condition)
            places = [shown.inside(pixels_of(outer)) for shown, outer, _ in jobs]
            found = zip(jobs, pictures, places, strict=True)
            return [(job[0], picture[place.slices()]) for job, picture, place in found]

        groups = alike(surrounded, lambda job: job[2].shape, self.transforms.batch)
        return chain.from_iterable(crew.map(some, groups))

    def decode_exact(self, data: bytes, limits: Limits | None = DEFAULT) -> np.ndarray:
        """As `decode`, but i64[H, W, 3] in units of 2**-14, black and white at about 0 and 2**14: exactly.

        By fixed.Synthesis, about twice as slow as the network in floating point.  Raises as `decode` does.
        """
        parsed = parse(data)
        plan, config = self._admit(parsed, None, 1, limits), self.model.config
        out = np.empty((*plan.out.shape, 3), np.int64)
        with self._crew(plan.grid, plan.grid.total) as crew:
            places = self._surrounded(crew, data, parsed, plan, halo(config), config.latents, tiles.decode)
            for shown, outer, y in places:
                made = self._fixed(y, parsed.header.step)[shown.inside(pixels_of(outer)).slices()]
                out[shown.slices()] = made + (1 << (fixed.BITS - 1))
        return out

    @cached_property
    def _fixed(self) -> fixed.Synthesis:
        return fixed.Synthesis(self.model)

    def _reduced(self, crew: Crew, data: bytes, parsed: Parsed, plan: Plan) -> Iterator[tuple[Box, np.ndarray]]:
        """As `_synthesised`, but without the network and at a fraction of the size."""
        kernel, bias = preview.projection(self.model, parsed.header.step, plan.reduce)
        margin, work = self.model.config.lapped, tiles.project
        for shown, outer, y in self._surrounded(crew, data, parsed, plan, margin, len(bias), work, kernel, bias):
            pixels = preview.render(self.model, y, plan.reduce)
            yield shown, pixels[shown.inside(plan.reduced(pixels_of(outer))).slices()]

    def _surrounded(
        self,
        crew: Crew,
        data: bytes,
        parsed: Parsed,
        plan: Plan,
        margin: int,
        channels: int,
        work: Callable[..., np.ndarray],
        *more: Any,
    ) -> Iterator[tuple[Box, Box, np.ndarray]]:
        """(place in what comes out, cells, f32[h, w, channels] of `work` for them) of each tile and its margin."""
        grid, needed = plan.grid, plan.cells.grow(margin, plan.grid.cells)
        decoded = self._decoded(crew, data, parsed, grid, needed, work, *more)
        latents: dict[int, np.ndarray] = {}
        for index in grid.touching(plan.cells):
            box = grid.box(index)
            outer = box.grow(margin, grid.cells).meet(needed)
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
        self, crew: Crew, data: bytes, parsed: Parsed, grid: Grid, cells: Box, work: Callable[..., T], *more: Any
    ) -> Iterator[tuple[int, T]]:
        """(index, work(prior, cells, step, payload, crc, *more)) of each tile that has some of these cells."""

        def one(index: int) -> tuple[int, T]:
            tile = parsed.tiles[index]
            payload = bytes(memoryview(data)[tile.offset : tile.offset + tile.length])
            try:
                return index, crew.call(work, grid.box(index).shape, parsed.header.step, payload, tile.crc, *more)
            except FormatError as exc:
                raise FormatError(f"tile {index} is damaged: {exc}") from exc

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
        parsed = parse(data)
        plan = self._admit(parsed, None, 1, limits)
        with self._crew(plan.grid, plan.grid.total) as crew:
            found = self._decoded(crew, data, parsed, plan.grid, plan.cells, tiles.check)
            return [crc for _, crc in counted(found, plan.grid.total, progress)]

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


def alike(jobs: Iterable[T], key: Callable[[T], Any], most: int) -> Iterator[tuple[T, ...]]:
    """The jobs in order, in groups of at most `most` neighbours that have the same key."""
    for _, neighbours in groupby(jobs, key):
        while group := tuple(islice(neighbours, most)):
            yield group


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
