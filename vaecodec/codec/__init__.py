"""Encode and decode images: Codec has an encoder and a decoder of one model, and OpenedImage the image in a file.

An opened image has its size and metadata now, and its pixels as they are asked for.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any

import numpy as np

from vaecodec.arguments import (
    DEFAULT_LIMITS,
    DEFAULT_MODEL,
    DEFAULT_TUNE,
    REDUCTIONS,
    Limits,
    Readable,
    check_reduction,
    check_window,
    to_bytes,
)
from vaecodec.codec.decoder import Decoder
from vaecodec.codec.encoder import Encoder
from vaecodec.codec.tiles import Latents
from vaecodec.container import image_file
from vaecodec.container.image_file import parse
from vaecodec.container.info import Info
from vaecodec.errors import CodecError
from vaecodec.images.strips import Rows, Window
from vaecodec.images.writing import write_image
from vaecodec.model.file import Model, find_model, load_model
from vaecodec.progress import Progress
from vaecodec.threads import available_cores
from vaecodec.transforms import DEFAULT_TILE, Transforms, load_transforms

__all__ = ["Codec", "cached_codec", "codec_for", "load"]


class Codec:
    """Encode and decode with one model; safe to share between threads.  C is the model's number of channels.

    Args:
        model: a loaded model.
        device: "cpu", "gpu", or "tensorflow" on any device; pixels and bytes are the same.
        threads: cores that one call may use; without, VAECODEC_THREADS or all.
    """

    def __init__(self, model: Model, device: str = "cpu", threads: int | None = None) -> None:
        self.model, self.threads = model, threads or available_cores()
        self._arguments = model.id, model.path, device, threads
        self.transforms: Transforms = model.transforms
        if device != "cpu":
            self.transforms = load_transforms(model.config, model.arrays, model.name, device)
        self.decoder = Decoder(model, self.transforms, self.threads)
        self.encoder = Encoder(model, self.transforms, self.decoder, self.threads)

    def __repr__(self) -> str:
        threads = f"{self.threads} thread" + "s" * (self.threads > 1)
        return f"<vaecodec.Codec {self.model.name} {self.model.id}, {self._arguments[2]}, {threads}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by the id of the model, which must be installed where the codec is loaded again."""
        return _load_again, self._arguments

    def encode(
        self,
        pixels: np.ndarray | Rows,
        quality: float = 75,
        metadata: dict[str, bytes] | None = None,
        tile: int = DEFAULT_TILE,
        progress: Progress | None = None,
        effort: int = 1,
        weights: np.ndarray | None = None,
        tune: str = DEFAULT_TUNE,
    ) -> bytes:
        """Encode u8[H, W, C] to a .vae file; see Encoder.encode_batch."""
        of_images = None if weights is None else [weights]
        return self.encoder.encode_batch([pixels], quality, [metadata], tile, progress, effort, of_images, tune)[0]

    def encode_batch(
        self,
        images: Sequence[np.ndarray | Rows],
        quality: float = 75,
        metadata: Sequence[dict[str, bytes] | None] | None = None,
        tile: int = DEFAULT_TILE,
        progress: Progress | None = None,
        effort: int = 1,
        tune: str = DEFAULT_TUNE,
    ) -> list[bytes]:
        """See Encoder.encode_batch."""
        return self.encoder.encode_batch(images, quality, metadata, tile, progress, effort, None, tune)

    def encode_unfiltered(self, pixels: np.ndarray, quality: float = 75, tile: int = DEFAULT_TILE) -> bytes:
        """See Encoder.encode_unfiltered."""
        return self.encoder.encode_unfiltered(pixels, quality, tile)

    def analyse_batch(
        self,
        images: Sequence[np.ndarray | Rows],
        quality: float = 75,
        tile: int = DEFAULT_TILE,
        tune: str = DEFAULT_TUNE,
    ) -> list[list[Latents]]:
        """See Encoder.analyse_batch."""
        return self.encoder.analyse_batch(images, quality, tile, tune)

    def encode_latents(
        self,
        pixels: np.ndarray | Rows,
        latents: Sequence[Latents],
        quality: float = 75,
        metadata: dict[str, bytes] | None = None,
        tile: int = DEFAULT_TILE,
        tune: str = DEFAULT_TUNE,
    ) -> bytes:
        """See Encoder.encode_latents."""
        return self.encoder.encode_latents(pixels, latents, quality, metadata, tile, tune)

    def information(self, pixels: np.ndarray, quality: float = 75, tile: int = DEFAULT_TILE) -> float:
        """See Encoder.information."""
        return self.encoder.information(pixels, quality, tile)

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
        """Decode a .vae file to u8[H, W, C]; see Decoder.decode."""
        return self.decoder.decode(data, window, reduce, limits, progress, check, is_fine)

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
        """See Decoder.decode_batch."""
        return self.decoder.decode_batch(files, window, reduce, limits, progress, names, are_fine)

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
        """See Decoder.decode_strips."""
        return self.decoder.decode_strips(data, window, reduce, limits, progress, check, is_fine)

    def decode_levels(self, data: bytes, limits: Limits | None = DEFAULT_LIMITS) -> np.ndarray:
        """See Decoder.decode_levels."""
        return self.decoder.decode_levels(data, limits)

    def symbol_crcs(
        self, data: bytes, limits: Limits | None = DEFAULT_LIMITS, progress: Progress | None = None
    ) -> list[int]:
        """See Decoder.symbol_crcs."""
        return self.decoder.symbol_crcs(data, limits, progress)

    def verify(self, data: bytes, limits: Limits | None = DEFAULT_LIMITS, progress: Progress | None = None) -> None:
        """See Decoder.verify."""
        self.decoder.verify(data, limits, progress)


def codec_for(data: bytes, model: str | None = None, device: str = "cpu", threads: int | None = None) -> Codec:
    """The codec of a file: of the given model, or of the installed model that the file names.

    Raises FormatError where `data` is not a .vae file, ModelError where no installed model has its id.
    """
    model_id = parse(data, check_data=False).header.model
    return cached_codec(load_model(model) if model else find_model(model_id), device, threads)


def _load_again(model_id: str, path: str, device: str, threads: int | None) -> Codec:
    """The codec of a model by its id: the model in the same file, if that has not changed, or the installed one.

    Raises ModelError if there is neither.
    """
    with suppress(CodecError):
        model = load_model(path)
        if model.id == model_id:
            return cached_codec(model, device, threads)
    return cached_codec(find_model(model_id), device, threads)


_codecs: dict[tuple[int, str, int | None], Codec] = {}
CACHED = 8


def cached_codec(model: Model, device: str = "cpu", threads: int | None = None) -> Codec:
    """Return the one codec for each loaded model, device and number of threads."""
    # Model files that differ only in what encoders use share the model's id, so it is no key.  A codec keeps its model
    # alive, so no other model can have its id().
    key = (id(model), device, threads)
    codec = _codecs.get(key)
    if codec is None:
        codec = _codecs[key] = Codec(model, device, threads)
        if len(_codecs) > CACHED:
            _codecs.pop(next(iter(_codecs)), None)
    return codec


def load(name_or_path: str = DEFAULT_MODEL, device: str = "cpu", threads: int | None = None) -> Codec:
    """The codec of an installed model, by name, or of a .vcm file, by path; raises ModelError."""
    return cached_codec(load_model(name_or_path), device, threads)


SHOWN_SIDE = 1024  # pixels, of what a notebook shows
KINDS = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGBA"}


class OpenedImage:
    """The image in a .vae file; every method that returns pixels decodes only what it needs, each time.

    NumPy, Pillow and others take it as an array.  Its arguments and errors are those of vaecodec.decode.
    """

    def __init__(
        self,
        source: Readable,
        model: str | None = None,
        limits: Limits | None = DEFAULT_LIMITS,
        threads: int | None = None,
    ) -> None:
        self._data = to_bytes(source, "source")
        self._options: dict[str, Any] = {"model": model, "limits": limits, "threads": threads}
        self._name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
        self._contents = image_file.contents(self._data)

    @cached_property
    def info(self) -> Info:
        """What the header says, as vaecodec.info returns it."""
        return Info.from_record(image_file.info(self._data))

    @cached_property
    def metadata(self) -> dict[str, bytes]:
        """Metadata by name: "icc", "exif", "xmp", and "dpi" (two u32: pixels per metre)."""
        return image_file.metadata(self._data)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, as in Pillow."""
        return self._contents.header.width, self._contents.header.height

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array: (height, width), or (height, width, channels)."""
        channels = self._contents.channels
        return (*self.size[::-1], channels)[: 2 + (channels > 1)]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples: u8, or u16 for images of more than 8 bits."""
        return np.dtype(np.uint16 if self._contents.depth > 8 else np.uint8)

    def decode(self, window: Window | None = None, reduce: int = 1) -> np.ndarray:
        """Decode the image, a window of it, or a preview."""
        from vaecodec.codec import modes  # which imports this module

        return modes.decode(self._data, check_window(window), check_reduction(reduce), **self._options)

    def crop(self, window: Window) -> np.ndarray:
        """Decode a window, (top, left, height, width) in pixels; only the tiles it needs are decoded."""
        return self.decode(window)

    def preview(self, reduce: int) -> np.ndarray:
        """Decode at 1/2, 1/4, 1/8 or 1/16 of the sides."""
        return self.decode(None, reduce)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("copy is False, and an image in a .vae file is decoded to a new array")
        pixels = self.decode()
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def __repr__(self) -> str:
        about = self.info
        kind = KINDS.get(about.channels or 0, "") if about.kind == "picture" else f"{about.channels} channels"
        coding = about.coding if about.quality is None else f"quality {about.quality:g}"
        name = f" {self._name!r}" * bool(self._name)
        return f"<vaecodec.OpenedImage{name}: {about.width} x {about.height}, {kind}, {coding}, {about.bytes} bytes>"

    def _repr_png_(self) -> bytes | None:
        """Return a PNG of at most 1024 pixels a side, for notebooks; None for arrays that are no images."""
        if self.info.kind != "picture":
            return None
        longest = max(self.size)
        reduce = next((factor for factor in REDUCTIONS if longest <= factor * SHOWN_SIDE), REDUCTIONS[-1])
        file = io.BytesIO()
        write_image(self.preview(reduce), file, {}, "PNG")
        return file.getvalue()
