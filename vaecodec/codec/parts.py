"""Split samples into the colours that a model codes and the chunks beside them, and join them again.

samples --split--> colours u8[H, W, 1 or 3]  + grey, deep, ALPH
colours of a decoder --join--> samples
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.codec import fallback
from vaecodec.container import ALPHA, DEEP, GREY
from vaecodec.container.image_file import Contents
from vaecodec.errors import CodecError
from vaecodec.images import alpha_channel, count_bits, count_channels
from vaecodec.images.colours import ColourRows


class Parts(NamedTuple):
    """What the model codes of samples, and what is beside it."""

    colours: ColourRows
    chunks: list[tuple[bytes, bytes]]


def split(samples: np.ndarray, channels: int) -> Parts:
    """Split u8 or u16 samples, whatever they have under alpha 0, for a model of 1 or 3 channels."""
    alpha, colours = alpha_channel(samples), ColourRows(samples, channels)
    chunks = [(GREY, b"")] if count_channels(samples) < 3 and channels == 3 else []
    if samples.dtype == np.uint16:
        chunks.append((DEEP, bytes([count_bits(samples)])))
    if alpha is not None:
        chunks.append((ALPHA, fallback.encode_plane(np.ascontiguousarray(alpha))))
    return Parts(colours, chunks)


def decode_alpha(data: bytes, contents: Contents) -> np.ndarray | None:
    """Decode the alpha [H, W] of a file, u8 or u16 as its colours, if it is in a chunk of its own."""
    if contents.alpha is None:
        return None
    head, depth = contents.header, 8 if contents.depth == 8 else 16
    return fallback.decode_lossless(contents.alpha.of(data), (head.height, head.width), 1, depth)


def check_samples(samples: np.ndarray) -> None:
    """Raise CodecError on what no image is encoded from."""
    if samples.dtype not in (np.uint8, np.uint16):
        raise CodecError(f"pixels are {samples.dtype}, expected uint8 in [0, 255] or uint16 in [0, 65535]")
    if samples.ndim not in (2, 3) or samples.shape[2:] not in ((), (2,), (3,), (4,)) or not samples.size:
        raise CodecError(f"shape {samples.shape}, expected [H, W], or [H, W, 2, 3 or 4], none of them 0")
