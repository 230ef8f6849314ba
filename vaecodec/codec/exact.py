"""Encode images without loss, or with a bound on every error: choose between WebP or PNG and the adaptive coding.

Screenshots and drawings repeat colours exactly, which WebP finds, and the adaptive coding does not.  Photographs are
the other way round.  Between them both are tried, and the smaller file is kept.
"""

from __future__ import annotations

import numpy as np

from vaecodec.codec import adaptive, fallback
from vaecodec.images import count_channels
from vaecodec.progress import Progress

SMALL = 1 << 16  # pixels up to which both are tried
REPEATED = 0.9  # part of pixels that equal a neighbour, from which on the adaptive coding is larger
VARIED = 0.3  # the same, up to which an image of many colours is a photograph
COLOURS = 4096  # in SMALL pixels
PAIRS = 1 << 20  # pixels that are compared with neighbours


def encode(
    samples: np.ndarray,
    max_error: int = 0,
    metadata: dict[str, bytes] | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    effort: int = 1,
) -> bytes:
    """Encode u8 or u16 samples [H, W] or [H, W, 2, 3 or 4] to a .vae file.

    Args:
        samples: grey, grey + alpha, RGB or RGBA; colours where alpha is 0 are kept, too.
        max_error: the largest error of a colour sample, 0..16; alpha has none.
        metadata: by name.
        threads: cores to use; without, all.  The bytes do not depend on it.
        progress: called as tiles are done.
        effort: 1..9, of the adaptive coding; above 1 decoding takes longer, too.
    """
    files = []
    repeated = repetition(samples)
    is_small = samples.shape[0] * samples.shape[1] <= SMALL
    if is_small or repeated <= REPEATED:
        files.append(adaptive.pack(samples, max_error, metadata, threads, progress, effort=effort))
    if is_small or repeated > VARIED or not has_many_colours(samples):
        files.append(fallback.pack_lossless(samples, metadata))
    return min(files, key=len)


def repetition(samples: np.ndarray) -> float:
    """The part of pixels that equal the next one, in their row and in their column; the mean of both."""
    pixels = samples[..., None] if samples.ndim == 2 else samples
    step = max(1, pixels.size // pixels.shape[2] // PAIRS)
    rows, columns = pixels[::step], pixels[:, ::step]
    across = (rows[:, 1:] == rows[:, :-1]).all(axis=2)
    down = (columns[1:] == columns[:-1]).all(axis=2)
    return float(np.mean([part.mean() for part in (across, down) if part.size] or [1.0]))


def has_many_colours(samples: np.ndarray) -> bool:
    """Whether a part of an image has more colours than palettes and dithering have; grey images never do."""
    if count_channels(samples) < 3:
        return False
    step = max(1, samples.shape[0] * samples.shape[1] // SMALL)
    pixels = samples[..., :3].reshape(-1, 3)[::step].astype(np.uint64)
    return len(np.unique(pixels @ np.array([1, 1 << 16, 1 << 32], np.uint64))) > COLOURS
