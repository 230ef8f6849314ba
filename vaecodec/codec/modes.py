"""Pictures of any kind <-> bytes: which are coded by the model, which by a classical codec, and what goes beside.

    samples --split--> RGB --Codec--> latents     + alpha, without loss     photographs
    samples --classical--> WebP or PNG                                      16 bits; what costs less without loss
    samples --classical--> AVIF                   + alpha, without loss     what costs less that way

The model was trained on photographs, on the sum of rate and lambda * 255^2 * MSE.  The same sum decides: screenshots,
text, drawings and noise are coded in each way, and that of the lowest sum is taken; without loss its second term is 0.
Photographs are told from them (content) in a few hundredths of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from vaecodec.codec import content, preview
from vaecodec.codec import fallback as classical
from vaecodec.codec import rate_control as targets
from vaecodec.codec.codec import Codec, codec_for
from vaecodec.codec.plans import Latents
from vaecodec.codec.rate_control import Target
from vaecodec.config import IMAGE_CHANNELS, lambda_at
from vaecodec.container import chunks, image_file
from vaecodec.container.image_file import Contents, FallbackHeader, quality_index_of
from vaecodec.errors import CodecError
from vaecodec.images.channels import (
    alpha_channel,
    check_array,
    clear_transparent,
    count_channels,
    downscale,
    flatten_channels,
    join_alpha,
    split_alpha,
    to_model_channels,
)
from vaecodec.images.strips import ModelRows, Rows, Window, gather
from vaecodec.limits import DEFAULT, NONE, Limits
from vaecodec.progress import Progress, named
from vaecodec.rdo.refinement import check_effort
from vaecodec.transforms.tiling import Box, window_box


def encode(
    codec: Codec,
    samples: np.ndarray,
    quality: float | Target = 50,
    metadata: dict[str, bytes] | None = None,
    progress: Progress | None = None,
    effort: int = 1,
) -> bytes:
    """u8 or u16 [H, W] or [H, W, 2, 3 or 4] (grey, grey + alpha, RGB, RGBA) -> a .vae file, bytes.

    16 bits are kept without loss at any quality; `effort`, 1..9, is for what the model codes.  A grey model
    takes no colours, and one of channels that are no picture's just u8[H, W, C].  Raises CodecError on other samples,
    ValueError on a quality or effort out of range, TargetError on a target that no quality meets.
    """
    check_effort(effort)
    if not isinstance(quality, Target):
        return encode_batch(codec, [samples], quality, [metadata], progress, effort)[0]
    is_picture = codec.model.config.channels in IMAGE_CHANNELS
    if is_picture:
        check(samples)
        samples = clear_transparent(samples)
    else:
        check_array(codec.model.config.channels, samples)

    def psnr(data: bytes) -> float:
        if is_picture:
            return _psnr([(samples, _again(data, samples, codec))])
        return _psnr([(flatten_channels(samples), flatten_channels(codec.decode(data, limits=None)))])

    return targets.meet(
        quality,
        samples.shape[:2],
        lambda tried, effort: encode(codec, samples, tried, metadata, progress, effort),
        psnr,
        effort,
    )


def encode_batch(
    codec: Codec,
    pictures: Sequence[np.ndarray],
    quality: float = 50,
    metadata: Sequence[dict[str, bytes] | None] | None = None,
    progress: Progress | None = None,
    effort: int = 1,
) -> list[bytes]:
    """Samples as `encode` takes them, of any sizes and kinds -> a .vae file each, in order; raises as `encode` does."""
    quality_index_of(quality)
    check_effort(effort)
    channels = codec.model.config.channels
    if channels not in IMAGE_CHANNELS:
        for samples in pictures:
            check_array(channels, samples)
        return codec.encode_batch(pictures, quality, metadata, progress=progress, effort=effort)
    for samples in pictures:
        check(samples)
    kinds = metadata or [None] * len(pictures)
    clear = [clear_transparent(samples) for samples in pictures]
    parts = {n: _apart(samples, channels) for n, samples in enumerate(clear) if samples.dtype == np.uint8}

    def code(chosen: Sequence[int], effort: int) -> dict[int, bytes]:
        if not chosen:
            return {}
        rgb, about = [parts[n][0] for n in chosen], [kinds[n] for n in chosen]
        files = codec.encode_batch(rgb, quality, about, progress=progress, effort=effort)
        return {n: chunks.insert_chunks(data, parts[n][1]) for n, data in zip(chosen, files, strict=True)}

    coded = code(list(parts), 1)  # decides; only what is worth it is refined
    best = {n: _best(codec, clear[n], *parts[n], coded[n], quality, kinds[n]) for n in parts}
    if effort > 1:
        best |= code([n for n in parts if best[n] is coded[n]], effort)
    return [best[n] if n in best else keep(samples, kinds[n]) for n, samples in enumerate(clear)]


def analyse_batch(codec: Codec, pictures: Sequence[np.ndarray], quality: float = 50) -> list[list[Latents]]:
    """u8 samples as `encode` takes them -> latents of the tiles of each: the first half of encode_batch."""
    channels = codec.model.config.channels
    return codec.analyse_batch([_colours(clear_transparent(samples), channels) for samples in pictures], quality)


def encode_latents(
    codec: Codec,
    samples: np.ndarray,
    latents: Sequence[Latents],
    quality: float = 50,
    metadata: dict[str, bytes] | None = None,
) -> bytes:
    """What `encode` makes of u8 samples, from what analyse_batch made of them at the same quality."""
    samples = clear_transparent(samples)
    rgb, beside = _apart(samples, codec.model.config.channels)
    coded = chunks.insert_chunks(codec.encode_latents(rgb, latents, quality, metadata), beside)
    return _best(codec, samples, rgb, beside, coded, quality, metadata)


def _colours(samples: np.ndarray, channels: int) -> np.ndarray:
    """RGB, or grey u8[H, W, 1] for a model of one channel, of u8 samples."""
    return to_model_channels(channels, split_alpha(samples)[0], count_channels(samples) < 3)


def _apart(samples: np.ndarray, channels: int) -> tuple[np.ndarray, list[tuple[bytes, bytes]]]:
    """(what the model codes, the chunks beside it) of u8 samples."""
    alpha = split_alpha(samples)[1]
    grey = [(chunks.GREY, b"")] if count_channels(samples) < 3 and channels == 3 else []
    beside = [] if alpha is None else [(chunks.ALPHA, classical.encode_lossless(alpha))]
    return _colours(samples, channels), grey + beside


def _best(
    codec: Codec,
    samples: np.ndarray,
    rgb: np.ndarray,
    beside: list[tuple[bytes, bytes]],
    coded: bytes,
    quality: float,
    metadata: dict[str, bytes] | None,
) -> bytes:
    """The file of the lowest sum, of u8 samples and the file that a codec has made of them."""
    step, grey = quality_index_of(quality), count_channels(samples) < 3
    if content.is_photograph(codec, samples, rgb, coded, quality):
        return coded
    files = [keep(samples, metadata), coded]
    if classical.takes_avif(samples.shape[:2]):
        avif = classical.encode_avif(np.ascontiguousarray(rgb[..., 0]) if grey else rgb, classical.avif_quality(step))
        alpha = [chunk for chunk in beside if chunk[0] == chunks.ALPHA]
        files.append(chunks.insert_chunks(image_file.pack_fallback(_head("avif", samples), avif, metadata), alpha))
    return min(files, key=lambda data: _cost(data, samples, codec, step))


def encode_rows(
    codec: Codec,
    open_rows: Callable[[], Rows],
    grey: bool,
    quality: float | Target = 50,
    metadata: dict[str, bytes] | None = None,
    progress: Progress | None = None,
    effort: int = 1,
) -> bytes:
    """Rows u8[H, W, 3] of a picture too large to be tried in other ways -> a .vae file of latents; raises as encode.

    `open_rows` gives them from the top, as often as it is called.
    """
    channels = codec.model.config.channels

    def rows_of() -> Rows:
        return open_rows() if channels == 3 else ModelRows(open_rows(), channels, grey)

    if not isinstance(quality, Target):
        coded = codec.encode(rows_of(), quality, metadata, progress=progress, effort=effort)
        return chunks.insert_chunks(coded, [(chunks.GREY, b"")] if grey and channels == 3 else [])

    def pairs(data: bytes) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        rows, top = open_rows(), 0
        for strip in codec.decode_strips(data, limits=None)[1]:
            yield rows[top : top + len(strip)], join_alpha(strip, grey, None)[..., None] if grey else strip
            top += len(strip)

    height, width, _ = open_rows().shape
    return targets.meet(
        quality,
        (height, width),
        lambda tried, effort: encode_rows(codec, open_rows, grey, tried, metadata, progress, effort),
        lambda data: _psnr(pairs(data)),
        effort,
    )


def keep(samples: np.ndarray, metadata: dict[str, bytes] | None = None) -> bytes:
    """Samples as encode takes them, colours 0 where alpha is 0 -> a .vae file that holds them without loss."""
    return image_file.pack_fallback(_head("lossless", samples), classical.encode_lossless(samples), metadata)


def check(samples: np.ndarray) -> None:
    """Raises CodecError on what encode does not take."""
    if samples.dtype not in (np.uint8, np.uint16):
        raise CodecError(f"pixels are {samples.dtype}, expected uint8 in [0, 255] or uint16 in [0, 65535]")
    if samples.ndim not in (2, 3) or samples.shape[2:] not in ((), (2,), (3,), (4,)) or not samples.size:
        raise CodecError(f"shape {samples.shape}, expected [H, W], or [H, W, 2, 3 or 4], none of them 0")


def decode(
    data: bytes,
    window: Window | None = None,
    reduce: int = 1,
    model: str | None = None,
    limits: Limits | None = DEFAULT,
    threads: int | None = None,
    progress: Progress | None = None,
    codec: Codec | None = None,
    check: bool = False,
) -> np.ndarray:
    """A .vae file -> samples as encode took them, or its (top, left, height, width) window, at 1/`reduce` of the sides.

    `model` None is the shipped one that made the file; a `codec` is used as it is.  With `check` the pixels of each
    whole tile are compared with the checksum in the file.  Raises FormatError on damage,
    ModelError on a file of another model, LimitError beyond the limits (None: there are none), ValueError on a bad
    window or reduction.
    """
    return gather(*decode_strips(data, window, reduce, model, limits, threads, progress, codec, check))


def decode_strips(
    data: bytes,
    window: Window | None = None,
    reduce: int = 1,
    model: str | None = None,
    limits: Limits | None = DEFAULT,
    threads: int | None = None,
    progress: Progress | None = None,
    codec: Codec | None = None,
    check: bool = False,
) -> tuple[tuple[int, ...], Iterator[np.ndarray]]:
    """(shape, rows from the top) of what `decode` returns: a row of tiles at a time, or all of what has no tiles.

    Raises as `decode` does; damage to pixels shows when their turn comes.
    """
    found, box, shape = _admit(data, window, reduce, limits)
    if isinstance(found.header, FallbackHeader):
        return shape, _kept_strips(data, found, found.header, box, reduce)
    codec = codec or codec_for(data, model, threads=threads)
    _, strips = codec.decode_strips(data, window, reduce, None, progress, check)
    return shape, _joined_strips(strips, data, found, box, reduce)


def decode_batch(
    files: Sequence[bytes],
    window: Window | None = None,
    reduce: int = 1,
    model: str | None = None,
    limits: Limits | None = DEFAULT,
    threads: int | None = None,
    names: Sequence[str] | None = None,
) -> list[np.ndarray]:
    """.vae files of any sizes, kinds and models -> what `decode` makes of each, in order; those of a model together.

    Raises as `decode` does; the message begins with the file's name (without `names`: file 0, file 1).
    """
    names = names or [f"file {n}" for n in range(len(files))]
    out: dict[int, np.ndarray] = {}
    latent: dict[Codec, list[int]] = {}
    for n, data in enumerate(files):
        with named(names[n]):
            found, box, shape = _admit(data, window, reduce, limits)
            if isinstance(found.header, FallbackHeader):
                out[n] = gather(shape, _kept_strips(data, found, found.header, box, reduce))
            else:
                latent.setdefault(codec_for(data, model, threads=threads), []).append(n)
    for codec, members in latent.items():
        mine = [names[n] for n in members]
        colours = codec.decode_batch([files[n] for n in members], window, reduce, None, names=mine)
        for n, rgb in zip(members, colours, strict=True):
            with named(names[n]):
                found, box, shape = _admit(files[n], window, reduce, None)
                out[n] = gather(shape, _joined_strips(iter([rgb]), files[n], found, box, reduce))
    return [out[n] for n in range(len(files))]


def _admit(
    data: bytes, window: Window | None, reduce: int, limits: Limits | None
) -> tuple[Contents, Box, tuple[int, ...]]:
    """What a file has, the pixels that are asked for, and the shape of what comes out, within the limits."""
    found = image_file.contents(data, check_data=window is None)
    head, channels = found.header, found.channels
    box = window_box(window, (head.height, head.width))
    preview.check(reduce)
    # All of a classical picture is decoded, and all of an alpha plane.
    whole = isinstance(head, FallbackHeader) or found.alpha is not None
    (limits or NONE).check(*((head.width, head.height) if whole else box.shape[::-1]))
    return found, box, (*box.reduce(reduce).shape, channels)[: 2 + (channels > 1)]


def verify(
    data: bytes,
    model: str | None = None,
    limits: Limits | None = DEFAULT,
    threads: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Decodes all but the pixels of latents, and checks it; raises as `decode` does."""
    found = image_file.contents(data)
    (limits or NONE).check(found.header.width, found.header.height)
    if isinstance(found.header, FallbackHeader):
        _classical(data, found, found.header)
    else:
        _alpha(data, found)
        codec_for(data, model, threads=threads).verify(data, None, progress)


def _head(coding: str, samples: np.ndarray) -> FallbackHeader:
    height, width = samples.shape[:2]
    return FallbackHeader(coding, height, width, count_channels(samples), 8 * samples.itemsize)


def _kept_strips(data: bytes, found: Contents, head: FallbackHeader, box: Box, reduce: int) -> Iterator[np.ndarray]:
    yield downscale(_classical(data, found, head), box, reduce)


def _joined_strips(
    strips: Iterator[np.ndarray], data: bytes, found: Contents, box: Box, reduce: int
) -> Iterator[np.ndarray]:
    """Strips u8[n, W, 3] of the codec with what lies beside them."""
    alpha, top = _alpha(data, found), 0
    if alpha is not None:
        alpha = downscale(alpha, box, reduce)
    for rgb in strips:
        yield join_alpha(rgb, found.grey, None if alpha is None else alpha[top : top + len(rgb)])
        top += len(rgb)


def _classical(data: bytes, found: Contents, head: FallbackHeader) -> np.ndarray:
    """The samples of a picture without latents."""
    shape, payload = (head.height, head.width), found.data.of(data)
    if head.coding == "lossless":
        return classical.decode_lossless(payload, shape, head.channels, head.depth)
    return join_alpha(classical.decode_avif(payload, shape), head.channels < 3, _alpha(data, found))


def _alpha(data: bytes, found: Contents) -> np.ndarray | None:
    if found.alpha is None:
        return None
    return classical.decode_lossless(found.alpha.of(data), (found.header.height, found.header.width), 1, 8)


def _cost(data: bytes, samples: np.ndarray, codec: Codec, step: int) -> float:
    """Rate and lambda * 255^2 * MSE of a file of these samples, in bits a pixel."""
    error = content.squares(samples, _again(data, samples, codec)) / samples.size
    return content.bits(data, samples) + lambda_at(step) * error


def _again(data: bytes, samples: np.ndarray, codec: Codec) -> np.ndarray:
    """What a file that was made of these samples decodes to."""
    found = image_file.contents(data, check_data=False)
    if not isinstance(found.header, FallbackHeader):
        return join_alpha(codec.decode(data, limits=None), found.grey, alpha_channel(samples))
    return samples if found.header.coding == "lossless" else _classical(data, found, found.header)


def _psnr(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """dB over the colour samples of (before, after) of each part of a picture; inf where nothing differs."""
    squares, count = 0.0, 0
    for before, after in pairs:
        squares += content.squares(before, after)  # those of alpha are 0
        count += before.size - (0 if alpha_channel(before) is None else before.shape[0] * before.shape[1])
    return 10 * math.log10(255**2 * count / squares) if squares else math.inf
