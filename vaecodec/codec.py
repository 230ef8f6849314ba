"""Codec: pixels <-> bytes, two mirrored halves.

pixels --analysis--> y --hyper-analysis--> z --quantise, walk, push--> words --pack--> bytes
pixels <--synthesis-- y <------------------walk, pop------------------ words <--parse-- bytes
"""

from __future__ import annotations

import numpy as np

from vaecodec import context
from vaecodec.coding import DETERMINISTIC, SYMBOL_MAX
from vaecodec.config import HYPER_STRIDE, STRIDE
from vaecodec.container import Header, Parsed, pack, parse, step_of
from vaecodec.errors import CodecError, FormatError, ModelError
from vaecodec.integer import take_half
from vaecodec.tiling import DEFAULT_TILE, Box, Grid, halo, window_box
from vaecodec.transforms import make_transforms
from vaecodec.weights import Model, find_model, load_model

MAX_PIXELS = 2 * 89_478_485  # what Pillow, too, takes for an attack (Image.MAX_IMAGE_PIXELS, doubled)


class Codec:
    """One model, both directions; safe to share between threads."""

    def __init__(self, model: Model, device: str = "cpu", threads: int | None = None) -> None:
        self.model = model
        self.transforms = make_transforms(model, device, threads)

    def encode(
        self,
        pixels: np.ndarray,
        quality: float = 50,
        metadata: dict[str, bytes] | None = None,
        tile: int = DEFAULT_TILE,
    ) -> bytes:
        """u8[H, W, 3] -> a .vae file, bytes; quality in 1..100.

        Raises CodecError on another shape or type, ValueError on a quality outside its range.
        """
        step = step_of(quality)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
            raise CodecError(f"pixels are {pixels.dtype}{list(pixels.shape)}, expected uint8[H, W, 3]")
        if tile & (tile - 1) or not 64 <= tile <= 4096:
            raise ValueError(f"tile is {tile!r}, expected a power of two in 64..4096")
        height, width = pixels.shape[:2]
        grid = Grid(height, width, tile)
        tiles = []
        for index in range(grid.rows * grid.columns):
            coded = self._encode_tile(pixels, grid, index, step)
            tiles.append((coded.data, context.checksum(symbols for symbols, _ in coded.parts)))
        return pack(Header(self.model.id, height, width, step, tile), tiles, metadata)

    def information(self, pixels: np.ndarray, quality: float = 50, tile: int = DEFAULT_TILE) -> float:
        """Bits that the symbols of u8[H, W, 3] are worth under the model: what encode's bytes are held against."""
        height, width = pixels.shape[:2]
        grid, step = Grid(height, width, tile), step_of(quality)
        coded = (self._encode_tile(pixels, grid, index, step) for index in range(grid.rows * grid.columns))
        return sum(self.model.prior.models.tables.bits(*part) for one in coded for part in one.parts)

    def _encode_tile(self, pixels: np.ndarray, grid: Grid, index: int, step: int) -> context.Coded:
        box = grid.box(index)
        outer = box.grow(halo(self.model.config), grid.cells)
        y = self.transforms.analysis(cut(pixels, outer), self.model.vector("analysis/fine", step))
        y = y[box.inside(outer).slices()]
        h, w = box.shape
        short = (-h % HYPER_STRIDE, -w % HYPER_STRIDE)
        padded = np.pad(y, ((0, short[0]), (0, short[1]), (0, 0))) if any(short) else y
        z = self.transforms.hyper_analysis(padded) * self.model.vector("hyper_gain", step)
        y = y * self.model.vector("gain", step)

        def quantise(part: int, question: context.Step) -> np.ndarray:
            rows, loc = question
            values = z.reshape(loc.shape).copy() if part == 0 else take_half(y, part - 1)
            values -= loc * np.float32(1.0 / context.UNIT)
            values *= rows != DETERMINISTIC
            return np.rint(np.clip(values, -SYMBOL_MAX, SYMBOL_MAX, out=values), out=values).astype(np.int32)

        return context.encode(self.model.prior, box.shape, step, quantise)

    def decode(
        self, data: bytes, window: tuple[int, int, int, int] | None = None, max_pixels: int | None = MAX_PIXELS
    ) -> np.ndarray:
        """A .vae file -> u8[H, W, 3], or the (top, left, height, width) window of it.

        A window decodes only the tiles it needs.  Raises FormatError on damage, ModelError where the file was
        made with another model, LimitError beyond `max_pixels` (None: no limit), ValueError on a bad window.
        """
        parsed = parse(data, check_data=window is None)
        grid, target = self._admit(parsed, window, max_pixels)
        condition = self.model.vector("synthesis/fine", parsed.header.step)
        needed = target_cells(target).grow(halo(self.model.config), grid.cells)
        out = np.empty((*target.shape, 3), np.uint8)
        latents: dict[int, np.ndarray] = {}
        for index in grid.touching(target_cells(target)):
            box = grid.box(index)
            outer = box.grow(halo(self.model.config), grid.cells).meet(needed)
            y = np.empty((*outer.shape, self.model.config.latents), np.float32)
            for other in grid.touching(outer):
                if other not in latents:
                    latents[other] = self._decode_tile(data, parsed, grid, other)
                place = grid.box(other)
                shared = place.meet(outer)
                y[shared.inside(outer).slices()] = latents[other][shared.inside(place).slices()]
            # Only the row of tiles above is still to be a neighbour.
            latents = {n: value for n, value in latents.items() if n >= index - grid.columns - 1}
            pixels = self.transforms.synthesis(y, condition)
            shown = box.scale(STRIDE, (grid.height, grid.width)).meet(target)
            whole = outer.scale(STRIDE, (grid.height + STRIDE, grid.width + STRIDE))
            out[shown.inside(target).slices()] = pixels[shown.inside(whole).slices()]
        return out

    def _decode_tile(self, data: bytes, parsed: Parsed, grid: Grid, index: int) -> np.ndarray:
        """f32[h, w, M]: the latents of one tile, scaled for the synthesis."""
        header, tile = parsed.header, parsed.tiles[index]
        payload = bytes(memoryview(data)[tile.offset : tile.offset + tile.length])
        symbols, y = context.decode(self.model.prior, grid.box(index).shape, header.step, payload)
        if context.checksum([symbols]) != tile.crc:
            raise FormatError(f"tile {index} is damaged (the CRC of its symbols does not match)")
        return y * (self.model.vector("inverse_gain", header.step) * np.float32(1.0 / context.UNIT))

    def _admit(
        self, parsed: Parsed, window: tuple[int, int, int, int] | None, max_pixels: int | None
    ) -> tuple[Grid, Box]:
        """The tiles and the pixels to decode, within the limits."""
        header = parsed.header
        if header.model != self.model.id:
            raise ModelError(f"this file needs model {header.model}, and the one at hand is {self.model.id}")
        target = window_box(window, (header.height, header.width), max_pixels)
        return Grid(header.height, header.width, header.tile), target

    def symbol_crcs(self, data: bytes) -> list[int]:
        """CRC-32 of the decoded symbols of each tile, as an exact decoder must find them; raises FormatError."""
        parsed = parse(data)
        grid, _ = self._admit(parsed, None, None)
        for index in range(len(parsed.tiles)):
            self._decode_tile(data, parsed, grid, index)
        return [tile.crc for tile in parsed.tiles]

    def verify(self, data: bytes) -> None:
        """Decodes every symbol and checks it, without making pixels; raises FormatError or ModelError."""
        self.symbol_crcs(data)


def cut(pixels: np.ndarray, cells: Box) -> np.ndarray:
    """u8[H', W', 3] of the given cells, the picture's last row and column repeated where it ends inside one."""
    height, width = pixels.shape[:2]
    part = pixels[cells.scale(STRIDE, (height, width)).slices()]
    short = [STRIDE * want - have for want, have in zip(cells.shape, part.shape[:2], strict=True)]
    return np.pad(part, ((0, short[0]), (0, short[1]), (0, 0)), "edge") if any(short) else part


def target_cells(pixels: Box) -> Box:
    """The cells that a rectangle of pixels touches."""
    return Box(pixels.top // STRIDE, pixels.left // STRIDE, -(-pixels.bottom // STRIDE), -(-pixels.right // STRIDE))


def codec_for(data: bytes, model: str | None = None, device: str = "cpu") -> Codec:
    """The codec that a file was made with: the shipped one of its id, or the given one.

    Raises FormatError where `data` is no .vae file, ModelError where no shipped model has its id.
    """
    found = parse(data, check_data=False).header.model
    return cached_codec(load_model(model) if model else find_model(found), device)


_codecs: dict[tuple[str, str], Codec] = {}


def cached_codec(model: Model, device: str = "cpu") -> Codec:
    """One codec a model and device, so that interpreters are made once."""
    key = (model.id, device)
    if key not in _codecs:
        _codecs[key] = Codec(model, device)
    return _codecs[key]
