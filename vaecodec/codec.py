"""Codec: pixels <-> bytes; encoder has the one half, and here is its mirror image.

pixels <--synthesis-- y <--walk, pop-- words <--parse-- bytes

From tile to tile, a row of them at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from typing import TypeVar

import numpy as np

from vaecodec import context, fixed, preview, tiles, wiener
from vaecodec.config import STRIDE
from vaecodec.container import Header, Parsed, parse
from vaecodec.encoder import Encoder
from vaecodec.errors import FormatError, ModelError
from vaecodec.limits import DEFAULT, NONE, Limits
from vaecodec.parallel import Crew
from vaecodec.plans import Part, Plan, Window, alike, gather, pixels_of, strips_of
from vaecodec.progress import Progress, counted, named
from vaecodec.tiling import Box, Grid, halo, window_box
from vaecodec.transforms import stacked
from vaecodec.weights import Model, find_model, load_model
from vaecodec.wiener import Filter

T = TypeVar("T")


class Codec(Encoder):
    """One model, both directions; safe to share between threads.  C are the model's channels, 3 of those shipped."""

    def decode(
        self,
        data: bytes,
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT,
        progress: Progress | None = None,
    ) -> np.ndarray:
        """A .vae file -> u8[H, W, C], or its (top, left, height, width) window, at 1/`reduce` of the sides, rounded up.

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
                shape = (*place.shape, self.model.config.channels)
                out[n] = gather(shape, strips_of(place, islice(squares, parts[n].total)))
        return [out[n] for n in range(len(parts))]

    def decode_strips(
        self,
        data: bytes,
        window: Window | None = None,
        reduce: int = 1,
        limits: Limits | None = DEFAULT,
        progress: Progress | None = None,
    ) -> tuple[tuple[int, int, int], Iterator[np.ndarray]]:
        """(H, W, C) and, from the top, the rows of what `decode` returns, u8[n, W, C]: a row of tiles at a time.

        Raises as `decode` does; damage to a tile shows when its turn comes.
        """
        part = self._part(data, window, reduce, limits)
        return (*part.plan.out.shape, self.model.config.channels), self._strips(part, progress)

    def _part(self, data: bytes, window: Window | None, reduce: int, limits: Limits | None, name: str = "") -> Part:
        parsed = parse(data, check_data=window is None)
        plan = self._admit(parsed, window, reduce, limits)
        self._filter_of(parsed.header)
        return Part(data, parsed, plan, name)

    def _filter_of(self, header: Header) -> Filter | None:
        """That of a file, if it has one."""
        return wiener.from_bytes(header.filter, header.channels) if header.filter else None

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
        config = self.model.config

        def jobs(part: Part) -> Iterator[tuple[Header, Box, Box, np.ndarray]]:
            margin = halo(config, bool(part.parsed.header.filter))
            found = self._surrounded(crew, part, margin)
            return ((part.parsed.header, *one) for one in found)

        def some(*jobs: tuple[Header, Box, Box, np.ndarray]) -> list[tuple[Box, np.ndarray]]:
            step, found = jobs[0][0].step, self._filter_of(jobs[0][0])
            gain = self.model.vector("inverse_gain", step) * np.float32(1.0 / context.UNIT)
            condition = self.model.condition("synthesis", step)
            y = stacked([y for *_, y in jobs])
            y *= gain
            if found is None:
                pictures = self.transforms.synthesis(y, condition, crew.hands)
            else:
                restoration = wiener.Restoration(found, self.model.pixel_step(step))
                made = self.transforms.unrounded(y, condition, crew.hands)
                pictures = np.empty(made.shape, np.uint8)
                for one, pixels in zip(made, pictures, strict=True):
                    restoration(one, crew.hands.each, pixels)
            places = [shown.inside(pixels_of(outer)) for _, shown, outer, _ in jobs]
            every = zip(jobs, pictures, places, strict=True)
            return [(job[1], picture[place.slices()]) for job, picture, place in every]

        every = chain.from_iterable(jobs(part) for part in parts)
        groups = alike(every, lambda job: (job[0].step, job[0].filter, job[3].shape), self.transforms.batch)
        return chain.from_iterable(crew.map(some, groups))

    def decode_exact(self, data: bytes, limits: Limits | None = DEFAULT) -> np.ndarray:
        """As `decode`, but i64[H, W, C] in units of 2**-14, black and white at about 0 and 2**14: exactly.

        By fixed.Synthesis, about twice as slow as the network in floating point.  Raises as `decode` does.
        """
        part, config = self._part(data, None, 1, limits), self.model.config
        out = np.empty((*part.plan.out.shape, config.channels), np.int64)
        with self._crew([(part.plan.grid, part.total)]) as crew:
            header, found = part.parsed.header, self._filter_of(part.parsed.header)
            margin = halo(config, found is not None)
            for shown, outer, y in self._surrounded(crew, part, margin):
                made = self._fixed(y, header.step, found)[shown.inside(pixels_of(outer)).slices()]
                out[shown.slices()] = made + (1 << (fixed.BITS - 1))
        return out

    @cached_property
    def _fixed(self) -> fixed.Synthesis:
        return fixed.Synthesis(self.model)

    def _reduced(self, crew: Crew, part: Part) -> Iterator[tuple[Box, np.ndarray]]:
        """As `_synthesised`, but without the network and at a fraction of the size."""
        plan, step, config = part.plan, part.parsed.header.step, self.model.config
        for shown, outer, y in self._surrounded(crew, part, halo(config)):
            pixels = preview.render(self.model, y, plan.reduce, step)
            yield shown, pixels[shown.inside(plan.reduced(pixels_of(outer))).slices()]

    def _surrounded(self, crew: Crew, part: Part, margin: int) -> Iterator[tuple[Box, Box, np.ndarray]]:
        """(place in what comes out, cells, their latents f32[h, w, M]) of each tile and its margin."""
        plan, grid = part.plan, part.plan.grid
        needed = plan.cells.grow(margin, grid.cells)
        decoded = self._decoded(crew, part, needed, tiles.decode)
        latents: dict[int, np.ndarray] = {}
        for index in grid.touching(plan.cells):
            box = grid.box(index)
            outer = box.grow(margin, grid.cells).meet(needed)
            if grid.total == 1 and outer == box:
                yield plan.shown(box), outer, next(decoded)[1]
                return
            y = np.empty((*outer.shape, self.model.config.latents), np.float32)
            for other in grid.touching(outer):
                while other not in latents:
                    latents.update([next(decoded)])
                place = grid.box(other)
                shared = place.meet(outer)
                y[shared.inside(outer).slices()] = latents[other][shared.inside(place).slices()]
            deep = -(-margin * STRIDE // grid.tile)  # a margin may be wider than a tile
            before = grid.columns * deep + deep - 1
            for past in [other for other in latents if other < index - before]:
                del latents[past]
            yield plan.shown(box), outer, y

    def _decoded(self, crew: Crew, part: Part, cells: Box, work: Callable[..., T]) -> Iterator[tuple[int, T]]:
        """(index, work(prior, cells, step, payload, crc)) of each tile that has some of these cells."""
        data, parsed, grid = part.data, part.parsed, part.plan.grid

        def one(index: int) -> tuple[int, T]:
            tile = parsed.tiles[index]
            payload = bytes(memoryview(data)[tile.offset : tile.offset + tile.length])
            try:
                return index, crew.call(work, grid.box(index).shape, parsed.header.step, payload, tile.crc)
            except FormatError as exc:
                raise FormatError(f"{part.name}tile {index} is damaged: {exc}") from exc

        return crew.map(one, ((index,) for index in grid.touching(cells)))

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

    def symbol_crcs(self, data: bytes, limits: Limits | None = DEFAULT, progress: Progress | None = None) -> list[int]:
        """CRC-32 of the decoded symbols of each tile, as an exact decoder must find them; raises as `decode` does."""
        part = self._part(data, None, 1, limits)
        with self._crew([(part.plan.grid, part.total)]) as crew:
            found = self._decoded(crew, part, part.plan.cells, tiles.check)
            return [crc for _, crc in counted(found, part.total, progress)]

    def verify(self, data: bytes, limits: Limits | None = DEFAULT, progress: Progress | None = None) -> None:
        """Decodes every symbol and checks it, without making pixels; raises as `decode` does."""
        self.symbol_crcs(data, limits, progress)


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
