"""Whether a picture looks like the photographs that the model was trained on, told by what it costs.

a few strips, without loss, quickly     a hundredth of the time of encoding
a window, by the model and as AVIF      a quarter of it, for the few pictures that the strips leave in doubt
"""

from __future__ import annotations

import numpy as np

from vaecodec.codec import fallback as classical
from vaecodec.codec.codec import Codec
from vaecodec.config import lambda_at
from vaecodec.container import image_file
from vaecodec.container.image_file import quality_index_of
from vaecodec.images.channels import count_channels, join_alpha

STRIPS, STRIP_ROWS, STRIP_PIXELS = 4, 8, 8192
BLOCK_ROWS = 64
SMALL = 64 * 64  # pixels up to which there is no telling, and nothing to be saved
WINDOW = 128  # pixels a side

# What photographs, made smaller and so full of detail, do not do.  At quality 10 to 100 the model took at most 0.058
# bits a pixel for each point of quality.  Their strips cost more without loss than 1.5 times what the model takes,
# where its errors are worth a bit a sample (0.72 if it is at its best at high rates).
DEAR, DEAR_FROM = 0.06, 10
ERRORS, ROOM = 1.0, 1.4
# What few of them do up to quality 75: smooth pictures with a little grain are easy without loss, fine patterns dear.
RATHER_DEAR, LITTLE_ROOM = 0.03, 1.9
# Of those that do, few cost less than this part as AVIF up to quality 75, as such pictures do; above it some, rightly.
AVIF_LEAST = 0.92


def is_photograph(codec: Codec, samples: np.ndarray, rgb: np.ndarray, coded: bytes, quality: float) -> bool:
    """Whether the model is at home with u8 `samples` of colours u8[H, W, 3], which it has made a file of."""
    height, width = samples.shape[:2]
    rate, dear = bits(coded, samples), max(quality, DEAR_FROM)
    if height * width <= SMALL or rate > DEAR * dear:
        return False
    rows = max(STRIP_ROWS, STRIP_PIXELS // width)
    tops = [max(0, (height - rows) * (2 * n + 1) // (2 * STRIPS)) for n in range(STRIPS)]
    strips = np.concatenate([samples[top : top + rows] for top in tops])
    expected = 8 * classical.quick_size(strips) / (strips.shape[0] * width)
    room = expected / (rate + ERRORS * count_channels(samples))
    if room <= ROOM or (room > LITTLE_ROOM and rate <= RATHER_DEAR * dear) or not classical.has_avif():
        return room > ROOM
    return _share_as_avif(codec, _busiest(rgb), count_channels(samples) < 3, quality) > AVIF_LEAST


def _busiest(rgb: np.ndarray) -> np.ndarray:
    """Of nine windows of u8[H, W, 3], spread evenly, the one with the largest differences between neighbours."""
    tops, lefts = ([max(0, side - WINDOW) * n // 2 for n in range(3)] for side in rgb.shape[:2])
    windows = [rgb[top : top + WINDOW, left : left + WINDOW] for top in tops for left in lefts]

    def activity(window: np.ndarray) -> float:
        rows, columns = window[::4].astype(np.int16), window[:, ::4].astype(np.int16)
        return float(np.abs(np.diff(rows, axis=1)).sum() + np.abs(np.diff(columns, axis=0)).sum())

    return np.ascontiguousarray(max(windows, key=activity))


def _share_as_avif(codec: Codec, rgb: np.ndarray, grey: bool, quality: float) -> float:
    """What a window of u8[H, W, 3] costs as AVIF, as a part of what it costs the model.

    Both as rate + lambda * 255^2 * MSE, headers left out; without a filter, which would be that of the window alone.
    """
    samples, step = join_alpha(rgb, grey, None), quality_index_of(quality)
    ours, avif = codec.encode_unfiltered(rgb, quality), classical.encode_avif(samples, classical.avif_quality(step))

    def cost(payload: int, again: np.ndarray) -> float:
        error = squares(samples, join_alpha(again, grey, None)) / samples.size
        return 8 * payload / (samples.shape[0] * samples.shape[1]) + lambda_at(step) * error

    theirs = cost(len(avif) - avif.index(b"mdat"), classical.decode_avif(avif, samples.shape[:2]))
    return theirs / cost(image_file.contents(ours).data.length, codec.decode(ours))


def bits(data: bytes, samples: np.ndarray) -> float:
    """Bits a pixel of a file of these samples."""
    return 8 * len(data) / (samples.shape[0] * samples.shape[1])


def squares(samples: np.ndarray, again: np.ndarray) -> float:
    """The sum of squared differences."""
    total = 0.0
    for top in range(0, len(samples), BLOCK_ROWS):  # a large picture in floating point would be four times as large
        rows = slice(top, top + BLOCK_ROWS)
        total += np.square(again[rows].astype(np.float32) - samples[rows]).sum(dtype=np.float64)
    return total
