"""Pictures of any kind <-> bytes: which are coded by the model, which are kept without loss, and what goes beside.

    samples --split--> RGB --Codec--> latents     + alpha, without loss     the usual file
    samples --lossless--> WebP or PNG                                       16 bits; and where it costs less

The model was trained on photographs, on the sum of rate and lambda * 255^2 * MSE.  The same sum decides: screenshots,
text and drawings are coded both ways, and the way of the lower sum is taken; without loss its second term is 0.
Photographs are told apart by coding a few strips without loss, quickly, which takes a hundredth of the time.
"""

from __future__ import annotations

import numpy as np

from vaecodec import container, lossless, planes
from vaecodec.codec import MAX_PIXELS, Codec, codec_for
from vaecodec.config import LAMBDA_MAX, LAMBDA_MIN, STEPS
from vaecodec.container import Contents, Kept
from vaecodec.errors import CodecError
from vaecodec.tiling import window_box

STRIPS, STRIP_ROWS, STRIP_PIXELS = 4, 8, 8192
SMALL = 64 * 64  # pixels up to which the lossless way is always tried
# Bits a sample that a model's picture loses, as its training counts it, if it is coded well: at high rates the
# derivative of rate by distortion, -1 / (2 ln 2 D), meets -lambda; with some room for strips that mislead.
GOOD_LOSS, ROOM = 0.72, 1.3


def encode(codec: Codec, samples: np.ndarray, quality: float = 50, metadata: dict[str, bytes] | None = None) -> bytes:
    """u8 or u16 [H, W] or [H, W, 2, 3 or 4] (grey, grey + alpha, RGB, RGBA) -> a .vae file, bytes.

    16 bits are kept without loss at any quality.  Raises CodecError on other samples, ValueError on a quality
    outside 1..100.
    """
    check(samples)
    step = container.step_of(quality)
    samples = planes.clear(samples)
    if samples.dtype == np.uint16:
        return _keep(samples, metadata)
    rgb, alpha = planes.split(samples)
    extra = [(container.GREY, b"")] if planes.channels_of(samples) < 3 else []
    if alpha is not None:
        extra.append((container.ALPHA, lossless.encode(alpha)))
    coded = container.insert(codec.encode(rgb, quality, metadata), extra)
    if _may_be_smaller(samples, coded):
        kept = _keep(samples, metadata)
        if len(kept) <= len(coded) or _bits(kept, samples) < _bits(coded, samples) + _loss(codec, coded, samples, step):
            return kept
    return coded


def check(samples: np.ndarray) -> None:
    """Raises CodecError on what encode does not take."""
    if samples.dtype not in (np.uint8, np.uint16):
        raise CodecError(f"pixels are {samples.dtype}, expected uint8 in [0, 255] or uint16 in [0, 65535]")
    if samples.ndim not in (2, 3) or samples.shape[2:] not in ((), (2,), (3,), (4,)) or not samples.size:
        raise CodecError(f"shape {samples.shape}, expected [H, W], or [H, W, 2, 3 or 4], none of them 0")


def decode(
    data: bytes,
    window: tuple[int, int, int, int] | None = None,
    model: str | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> np.ndarray:
    """A .vae file -> samples as encode took them, or the (top, left, height, width) window of them.

    `model` None is the shipped one that made the file.  Raises FormatError on damage, ModelError on a file of another
    model, LimitError beyond `max_pixels` (None: no limit), ValueError on a bad window.
    """
    found = container.contents(data, check_data=window is None)
    head = found.head
    box = window_box(window, (head.height, head.width), max_pixels)
    if isinstance(head, Kept):
        window_box(None, (head.height, head.width), max_pixels)  # all of it is decoded
        return np.ascontiguousarray(_kept(data, found)[box.slices()])
    rgb = codec_for(data, model).decode(data, window, max_pixels)
    alpha = _alpha(data, found)
    return planes.join(rgb, found.grey, None if alpha is None else alpha[box.slices()])


def verify(data: bytes, model: str | None = None) -> None:
    """Decodes everything that has a checksum, without making pixels of latents; raises FormatError or ModelError."""
    found = container.contents(data)
    if isinstance(found.head, Kept):
        _kept(data, found)
    else:
        _alpha(data, found)
        codec_for(data, model).verify(data)


def _keep(samples: np.ndarray, metadata: dict[str, bytes] | None) -> bytes:
    height, width = samples.shape[:2]
    kept = Kept(height, width, planes.channels_of(samples), 8 * samples.itemsize)
    return container.pack_kept(kept, lossless.encode(samples), metadata)


def _kept(data: bytes, found: Contents) -> np.ndarray:
    head = found.head
    assert isinstance(head, Kept)
    return lossless.decode(found.data.of(data), (head.height, head.width), head.channels, head.depth)


def _alpha(data: bytes, found: Contents) -> np.ndarray | None:
    if found.alpha is None:
        return None
    return lossless.decode(found.alpha.of(data), (found.head.height, found.head.width), 1, 8)


def _may_be_smaller(samples: np.ndarray, coded: bytes) -> bool:
    """Whether to code without loss, too: a few strips are, quickly, and held against what a photograph would cost."""
    height, width = samples.shape[:2]
    if height * width <= SMALL:
        return True
    rows = max(STRIP_ROWS, STRIP_PIXELS // width)
    tops = [(height - rows) * (2 * n + 1) // (2 * STRIPS) for n in range(STRIPS)]
    strips = np.concatenate([samples[max(0, top) : max(0, top) + rows] for top in tops])
    expected = 8 * lossless.quick_size(strips) / (strips.shape[0] * width)
    return expected < ROOM * (_bits(coded, samples) + GOOD_LOSS * planes.channels_of(samples))


def _bits(data: bytes, samples: np.ndarray) -> float:
    """Bits a pixel."""
    return 8 * len(data) / (samples.shape[0] * samples.shape[1])


def _loss(codec: Codec, coded: bytes, samples: np.ndarray, step: int) -> float:
    """What the errors of a coded picture are worth, in bits a pixel: lambda * 255^2 * MSE."""
    found = container.contents(coded, check_data=False)
    again = planes.join(codec.decode(coded), found.grey, planes.alpha_of(samples))
    error = again.astype(np.float32) - samples
    trade = LAMBDA_MIN * (LAMBDA_MAX / LAMBDA_MIN) ** (step / (STEPS - 1))
    return trade * float(np.mean(np.square(error)))
