"""Encode and decode images: Codec has an encoder and a decoder of one model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from vaecodec.arguments import DEFAULT_MODEL, DEFAULT_TUNE
from vaecodec.codec.decoder import Decoder
from vaecodec.codec.encoder import Encoder
from vaecodec.codec.tiles import Latents
from vaecodec.container.image_file import parse
from vaecodec.errors import CodecError
from vaecodec.images.strips import Rows, Window
from vaecodec.limits import DEFAULT, Limits
from vaecodec.model.file import Model, find_model, load_model
from vaecodec.progress import Progress
from vaecodec.threads import available_cores
from vaecodec.transforms import Transforms, load_transforms
from vaecodec.transforms.tiling import DEFAULT_TILE

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
        images: Sequence[np.ndarray],
        quality: float = 75,
        tile: int = DEFAULT_TILE,
        tune: str = DEFAULT_TUNE,
    ) -> list[list[Latents]]:
        """See Encoder.analyse_batch."""
        return self.encoder.analyse_batch(images, quality, tile, tune)

    def encode_latents(
        self,
        pixels: np.ndarray,
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
        limits: Limits | None = DEFAULT,
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
        limits: Limits | None = DEFAULT,
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
        limits: Limits | None = DEFAULT,
        progress: Progress | None = None,
        check: bool = False,
        is_fine: bool = False,
    ) -> tuple[tuple[int, int, int], Iterator[np.ndarray]]:
        """See Decoder.decode_strips."""
        return self.decoder.decode_strips(data, window, reduce, limits, progress, check, is_fine)

    def decode_levels(self, data: bytes, limits: Limits | None = DEFAULT) -> np.ndarray:
        """See Decoder.decode_levels."""
        return self.decoder.decode_levels(data, limits)

    def symbol_crcs(self, data: bytes, limits: Limits | None = DEFAULT, progress: Progress | None = None) -> list[int]:
        """See Decoder.symbol_crcs."""
        return self.decoder.symbol_crcs(data, limits, progress)

    def verify(self, data: bytes, limits: Limits | None = DEFAULT, progress: Progress | None = None) -> None:
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
