"""Encode and decode images of any kind: choose what codes the samples, and add what the model does not code.

samples --split--> RGB --Codec--> latents      + lossless alpha     photographs
samples --exact--> WebP, PNG, or adaptive      + lossless alpha     what is to be lossless or near-lossless, and what
                                                                    costs less that way
samples --fallback--> AVIF                     + lossless alpha     what costs less that way
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from vaecodec.arguments import DEFAULT_LIMITS, DEFAULT_TUNE, NO_LIMITS, Limits, check_reduction
from vaecodec.codec import Codec, codec_for, exact, fallback
from vaecodec.codec.fallback import check_samples, decode_alpha, split
from vaecodec.codec.mode_decision import Target, choose_file, meet, psnr, reconstruct
from vaecodec.codec.tiles import Latents
from vaecodec.config import IMAGE_CHANNELS
from vaecodec.container import GREY, FallbackHeader, image_file, insert_chunks
from vaecodec.container.image_file import Contents, quality_index_of
from vaecodec.images.channels import check_array, clear_transparent, downscale, join_alpha
from vaecodec.images.colours import ColourRows
from vaecodec.images.strips import ModelRows, Rows, Window, gather, is_large
from vaecodec.native.library import release_memory
from vaecodec.progress import Progress, named
from vaecodec.rdo.prices import check_effort
from vaecodec.transforms import DEFAULT_TILE, Box, window_box

RELEASE = 1 << 21  # pixels of an image after which freed memory is worth the time to return it


def encode(
    codec: Codec,
    samples: np.ndarray,
    quality: float | Target = 75,
    metadata: dict[str, bytes] | None = None,
    progress: Progress | None = None,
    effort: int = 1,
    weights: np.ndarray | None = None,
    tune: str = DEFAULT_TUNE,
) -> bytes:
    """Encode samples to a .vae file.

    Args:
        codec: a codec of RGB or grey; or of other channels, which takes only u8[H, W, C].
        samples: u8 or u16 [H, W] grey, [H, W, 2] grey and alpha, [H, W, 3] RGB, [H, W, 4] RGBA.
        quality: 1..100, or a target.
        metadata: by name, as read_image returns it.
        progress: called as tiles are done.
        effort: 1..9, for what the model codes, and for `lossless` and bounds on errors.
        weights: f32[H, W], 0..1, of the squared errors of pixels; the model then codes every image.
        tune: "eye" or "psnr", for what the model codes.

    Raises:
        CodecError: the samples are of another shape or type.
        ValueError: quality, effort or tune is out of range.
        TargetError: no quality meets the target.
    """
    check_effort(effort)
    if isinstance(quality, Target) and quality.is_bound:
        check_samples(samples)
        return exact.encode(samples, int(quality.value), metadata, codec.threads, progress, effort)
    if not isinstance(quality, Target):
        if weights is not None:
            return _encode_weighted(codec, samples, quality, metadata, progress, effort, weights, tune)
        return encode_batch(codec, [samples], quality, [metadata], progress, effort, tune)[0]
    is_image = codec.model.config.channels in IMAGE_CHANNELS
    if is_image:
        check_samples(samples)
        samples = clear_transparent(samples)
    else:
        check_array(codec.model.config.channels, samples)

    def measure(data: bytes) -> float:
        if is_image:
            return psnr(reconstruct(data, samples, codec))
        return psnr([(samples.reshape(len(samples), -1), codec.decode(data, limits=None).reshape(len(samples), -1))])

    def encode_at(trial: float, effort: int) -> bytes:
        return encode(codec, samples, trial, metadata, progress, effort, weights, tune)

    return meet(quality, samples.shape[:2], encode_at, measure, effort)


def _encode_weighted(
    codec: Codec,
    samples: np.ndarray,
    quality: float,
    metadata: dict[str, bytes] | None,
    progress: Progress | None,
    effort: int,
    weights: np.ndarray,
    tune: str,
) -> bytes:
    """Encode samples with the model, whatever they show."""
    channels, how = codec.model.config.channels, (metadata, DEFAULT_TILE, progress, effort, weights, tune)
    if channels not in IMAGE_CHANNELS:
        check_array(channels, samples)
        return codec.encode(samples, quality, *how)
    check_samples(samples)
    colours, chunks = split(samples, channels)
    return insert_chunks(codec.encode(colours, quality, *how), chunks)


def encode_batch(
    codec: Codec,
    images: Sequence[np.ndarray],
    quality: float = 75,
    metadata: Sequence[dict[str, bytes] | None] | None = None,
    progress: Progress | None = None,
    effort: int = 1,
    tune: str = DEFAULT_TUNE,
) -> list[bytes]:
    """Encode samples of any sizes and kinds to a .vae file each, in order; arguments and errors as of `encode`."""
    quality_index_of(quality)
    check_effort(effort)
    channels = codec.model.config.channels
    if channels not in IMAGE_CHANNELS:
        for samples in images:
            check_array(channels, samples)
        return codec.encode_batch(images, quality, metadata, progress=progress, effort=effort, tune=tune)
    for samples in images:
        check_samples(samples)
    about, numbers = metadata or [None] * len(images), range(len(images))
    parts = [split(samples, channels) for samples in images]

    def encode_latents_of(chosen: Sequence[int], effort: int) -> dict[int, bytes]:
        if not chosen:
            return {}
        colours, kept = [parts[n].colours for n in chosen], [about[n] for n in chosen]
        files = codec.encode_batch(colours, quality, kept, progress=progress, effort=effort, tune=tune)
        return {n: insert_chunks(data, parts[n].chunks) for n, data in zip(chosen, files, strict=True)}

    # The decision is made at effort 1, and only what the model wins is refined.  It would take much memory for large
    # images, which are coded with the model as those that are read in strips.
    undecided = [n for n in numbers if not is_large(*images[n].shape[:2])]
    best = encode_latents_of([n for n in numbers if n not in undecided], effort)
    latents = encode_latents_of(undecided, 1)
    if any(images[n].shape[0] * images[n].shape[1] > RELEASE for n in undecided):
        release_memory()  # other encoders ask for much at once
    for n in undecided:
        best[n] = choose_file(codec, clear_transparent(images[n]), parts[n], latents[n], quality, about[n])
    if effort > 1:
        best |= encode_latents_of([n for n in undecided if best[n] is latents[n]], effort)
    return [best[n] for n in numbers]


def analyse_batch(
    codec: Codec, images: Sequence[np.ndarray], quality: float = 75, tune: str = DEFAULT_TUNE
) -> list[list[Latents]]:
    """Analyse samples: the latents of the tiles of each image, for `encode_latents`."""
    channels = codec.model.config.channels
    return codec.analyse_batch([ColourRows(samples, channels) for samples in images], quality, tune=tune)


def encode_latents(
    codec: Codec,
    samples: np.ndarray,
    latents: Sequence[Latents],
    quality: float = 75,
    metadata: dict[str, bytes] | None = None,
    tune: str = DEFAULT_TUNE,
) -> bytes:
    """Encode samples as `encode` does, with the latents that `analyse_batch` returned at the same quality."""
    samples = clear_transparent(samples)
    parts = split(samples, codec.model.config.channels)
    data = insert_chunks(codec.encode_latents(parts.colours, latents, quality, metadata, tune=tune), parts.chunks)
    return choose_file(codec, samples, parts, data, quality, metadata)


def encode_rows(
    codec: Codec,
    open_rows: Callable[[], Rows],
    grey: bool,
    quality: float | Target = 75,
    metadata: dict[str, bytes] | None = None,
    progress: Progress | None = None,
    effort: int = 1,
    tune: str = DEFAULT_TUNE,
) -> bytes:
    """Encode the rows u8[H, W, 3] of an image too large for several encodings; latents are used without a decision.

    `open_rows` returns rows from the top, at each call.  Raises as `encode` does.
    """
    channels = codec.model.config.channels
    if not isinstance(quality, Target):
        rows = open_rows() if channels == 3 else ModelRows(open_rows(), channels, grey)
        data = codec.encode(rows, quality, metadata, progress=progress, effort=effort, tune=tune)
        return insert_chunks(data, [(GREY, b"")] if grey and channels == 3 else [])

    def encode_at(trial: float, effort: int) -> bytes:
        return encode_rows(codec, open_rows, grey, trial, metadata, progress, effort, tune)

    def strip_pairs(data: bytes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rows, top = open_rows(), 0
        for strip in codec.decode_strips(data, limits=None)[1]:
            yield rows[top : top + len(strip)], join_alpha(strip, grey, None)[..., None] if grey else strip
            top += len(strip)

    height, width, _ = open_rows().shape
    return meet(quality, (height, width), encode_at, lambda data: psnr(strip_pairs(data)), effort)


def decode(
    data: bytes,
    window: Window | None = None,
    reduce: int = 1,
    model: str | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    progress: Progress | None = None,
    codec: Codec | None = None,
    check: bool = False,
) -> np.ndarray:
    """Decode a .vae file, or a window of it, to samples as `encode` takes them.

    Args:
        data: the file.
        window: (top, left, height, width) in pixels.
        reduce: 1, 2, 4, 8 or 16: decode at this fraction of the sides.
        model: a name or .vcm file; None for the installed model that the file names.
        limits: limits on the size of images; None for none.
        threads: cores to use; all without.
        progress: called as tiles are done.
        codec: used instead of `model`.
        check: compare the pixels of each whole tile with the checksum in the file.

    Raises:
        FormatError: the file is damaged.
        ModelError: the file was encoded with another model.
        LimitError: the image exceeds the limits.
        ValueError: the window or the reduction is invalid.
    """
    return gather(*decode_strips(data, window, reduce, model, limits, threads, progress, codec, check))


def decode_strips(
    data: bytes,
    window: Window | None = None,
    reduce: int = 1,
    model: str | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    progress: Progress | None = None,
    codec: Codec | None = None,
    check: bool = False,
) -> tuple[tuple[int, ...], Iterator[np.ndarray]]:
    """Return the shape of what `decode` returns, and its rows from the top: a row of tiles at a time.

    Images without tiles are one strip.  Raises as `decode` does; damage to pixels is found when their turn comes.
    """
    contents, box, shape = _parse(data, window, reduce, limits)
    if isinstance(contents.header, FallbackHeader):
        return shape, _decode_fallback(data, contents, contents.header, box, reduce, threads, progress)
    codec = codec or codec_for(data, model, threads=threads)
    _, strips = codec.decode_strips(data, window, reduce, None, progress, check, contents.depth > 8)
    return shape, _join_strips(strips, data, contents, box, reduce)


def decode_batch(
    files: Sequence[bytes],
    window: Window | None = None,
    reduce: int = 1,
    model: str | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    names: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """Decode .vae files of any sizes, kinds and models as `decode` does, in order; those of one model together.

    Raises as `decode` does; messages begin with the file's name, without `names` "file 0", "file 1".
    """
    names = names or [f"file {n}" for n in range(len(files))]
    images: dict[int, np.ndarray] = {}
    members: dict[Codec, list[int]] = {}
    parsed = {}
    for n, data in enumerate(files):
        with named(names[n]):
            contents, box, shape = parsed[n] = _parse(data, window, reduce, limits)
            if isinstance(contents.header, FallbackHeader):
                images[n] = gather(shape, _decode_fallback(data, contents, contents.header, box, reduce, threads))
            else:
                members.setdefault(codec_for(data, model, threads=threads), []).append(n)
    for codec, numbers in members.items():
        file_names, are_fine = [names[n] for n in numbers], [parsed[n][0].depth > 8 for n in numbers]
        chosen = [files[n] for n in numbers]
        colours = codec.decode_batch(chosen, window, reduce, None, names=file_names, are_fine=are_fine)
        for n, rgb in zip(numbers, colours, strict=True):
            contents, box, shape = parsed[n]
            with named(names[n]):
                images[n] = gather(shape, _join_strips(iter([rgb]), files[n], contents, box, reduce))
    return [images[n] for n in range(len(files))]


def verify(
    data: bytes,
    model: str | None = None,
    limits: Limits | None = DEFAULT_LIMITS,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Decode everything in a .vae file and check it against its checksums; raises as `decode` does."""
    contents = image_file.contents(data)
    (limits or NO_LIMITS).check(contents.header.width, contents.header.height)
    if isinstance(contents.header, FallbackHeader):
        box = Box(0, 0, contents.header.height, contents.header.width)
        for _ in _decode_fallback(data, contents, contents.header, box, 1, threads, progress):
            pass
    else:
        decode_alpha(data, contents)
        codec_for(data, model, threads=threads).verify(data, None, progress)


def _parse(
    data: bytes, window: Window | None, reduce: int, limits: Limits | None
) -> tuple[Contents, Box, tuple[int, ...]]:
    """Parse a file and check it against the limits: contents, pixels to decode, and shape of the output."""
    contents = image_file.contents(data, check_data=window is None)
    head, channels = contents.header, contents.channels
    box = window_box(window, (head.height, head.width))
    check_reduction(reduce)
    # Other codecs and alpha are decoded as a whole.
    whole = (isinstance(head, FallbackHeader) and head.coding != "adaptive") or contents.alpha is not None
    (limits or NO_LIMITS).check(*((head.width, head.height) if whole else box.shape[::-1]))
    return contents, box, (*box.reduce(reduce).shape, channels)[: 2 + (channels > 1)]


def _join_strips(
    strips: Iterator[np.ndarray], data: bytes, contents: Contents, box: Box, reduce: int
) -> Iterator[np.ndarray]:
    """Join strips [n, W, 1 or 3] of the codec with alpha, and convert them to the samples of the image."""
    alpha, top = decode_alpha(data, contents), 0
    if alpha is not None:
        alpha = downscale(alpha, box, reduce)
    for rgb in strips:
        part = None if alpha is None else alpha[top : top + len(rgb)]
        yield join_alpha(rgb, contents.grey, part, contents.depth)
        top += len(rgb)


def _decode_fallback(
    data: bytes,
    contents: Contents,
    header: FallbackHeader,
    box: Box,
    reduce: int,
    threads: int | None,
    progress: Progress | None = None,
) -> Iterator[np.ndarray]:
    """Decode a box of an image without latents in strips of rows, those of other codecs in one."""
    if header.coding == "adaptive":
        return exact.decode_strips(data, contents, header, box, reduce, threads, progress)
    shape, payload = (header.height, header.width), contents.data.of(data)
    if header.coding == "lossless":
        samples = fallback.decode_lossless(payload, shape, header.channels, header.depth)
    else:
        rgb = fallback.decode_avif(payload, shape)
        samples = join_alpha(rgb, header.channels < 3, decode_alpha(data, contents))
    return iter([downscale(samples, box, reduce)])
