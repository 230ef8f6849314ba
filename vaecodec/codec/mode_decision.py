"""Decide how an image is coded: at which quality, and whether by the model, a lossless codec or AVIF.

Rate control finds the quality that meets a target size or fidelity, in few encodings.  Rate grows nearly exponentially
with the quality index and PSNR nearly linearly.  So a line through the known points, for rates in the logarithm,
predicts the next trial well.  A trial is a whole encoding, since the analysis depends on the quality index, too.

The model was trained on photographs, to minimise rate + lambda * 255^2 * MSE.  The same cost decides: screenshots,
text, drawings and noise are encoded in all three ways, and the file with the lowest cost is used.  Photographs are
recognised before that, in a few hundredths of the time, by what they cost:

    a few strips, losslessly at low effort          a hundredth of the time of encoding
    a window, with the model and as AVIF            a quarter of it, for the few images that strips leave in doubt
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from vaecodec.arguments import DEFAULT_QUALITY, check_targets
from vaecodec.codec import Codec, exact, fallback
from vaecodec.codec.fallback import Parts
from vaecodec.config import LAST_ANCHOR, QUALITY_INDICES, lambda_at
from vaecodec.container import ALPHA, FallbackHeader, image_file, insert_chunks
from vaecodec.container.image_file import pack_fallback, quality_index_of, quality_of
from vaecodec.errors import TargetError
from vaecodec.images.channels import alpha_channel, count_bits, count_channels, join_alpha, to_8_bits
from vaecodec.images.strips import Rows

MIDDLE = LAST_ANCHOR // 2
KINDS = ("size", "bpp", "psnr")
UNITS = {"size": "bytes", "bpp": "bpp", "psnr": "dB"}


class Target(NamedTuple):
    """A target in place of a quality.

    `kind` is "size" (bytes, at most), "bpp" (bits per pixel of the whole file, at most) or "psnr" (dB over all colour
    samples, at least); or "error" (of any colour sample, at most), which no quality meets but a coding of its own.
    """

    kind: str
    value: float

    @classmethod
    def from_arguments(
        cls,
        size: int | None = None,
        bpp: float | None = None,
        psnr: float | None = None,
        quality: float | None = None,
        lossless: bool = False,
        max_error: int | None = None,
    ) -> Target | float:
        """Return the target or the quality that is not None, DEFAULT_QUALITY without either; `lossless` is an error 0.

        Raises ValueError or TypeError on several of them, and on a wrong one.
        """
        check_targets(quality, size, bpp, psnr, lossless, max_error)
        if lossless or max_error is not None:
            return cls("error", 0 if lossless else int(max_error or 0))
        for kind, value in zip(KINDS, (size, bpp, psnr), strict=True):
            if value is not None:
                return cls(kind, value)
        return DEFAULT_QUALITY if quality is None else float(quality)

    def __str__(self) -> str:
        if self.is_bound:
            return f"max error {self.value:g}" if self.value else "lossless"
        return f"target {self.value:g} {UNITS[self.kind]}"

    @property
    def is_bound(self) -> bool:
        """Whether it bounds the error of every sample."""
        return self.kind == "error"

    def for_image(self, height: int, width: int) -> Target:
        """Convert bits per pixel to bytes for an image."""
        return Target("size", self.value * height * width // 8) if self.kind == "bpp" else self

    @property
    def is_minimum(self) -> bool:
        """Whether the value must be reached, rather than not exceeded."""
        return self.kind == "psnr"

    def excess(self, goal: float, value: float) -> float:
        """By how much a value is on the wrong side of a goal; negative on the right side."""
        return goal - value if self.is_minimum else value - goal

    def axis(self, value: float) -> float:
        """Map a value to an axis along which it grows linearly with the quality index."""
        return value if self.is_minimum else math.log(max(value, 1))

    @property
    def typical_slope(self) -> float:
        """The growth along that axis in a step of the quality index, on photographs."""
        return (15.0 if self.is_minimum else 3.2) / LAST_ANCHOR

    @property
    def tolerance(self) -> float:
        """How close along that axis a trial must be to end the search: 0.02 dB, or 0.5 % of a rate."""
        return 0.02 if self.is_minimum else 0.005


def search(target: Target, trial: Callable[[int], float], start: int = MIDDLE) -> int:
    """Find the quality index whose value is nearest to the target on its right side.

    Args:
        target: a size or a PSNR.
        trial: returns the value at a quality index in 0..1232.  It is called once for each, with `start` first, and
            should not decrease.
        start: the first trial.

    Returns:
        A quality index that was tried; the nearest end of the range where no trial is on the right side.
    """
    goal = target.axis(target.value)
    # (quality index, axis) below and above the goal; unknown at first.
    below, above = (-1, -math.inf), (QUALITY_INDICES, math.inf)
    index = start
    while above[0] - below[0] > 1:
        place = target.axis(trial(index))
        if -target.tolerance <= target.excess(goal, place) <= 0:
            return index
        if place < goal or (place == goal and not target.is_minimum):
            below = index, place
        else:
            above = index, place
        if math.isfinite(above[1] - below[1]):
            slope = max((above[1] - below[1]) / (above[0] - below[0]), 1e-6)
        else:
            slope = target.typical_slope
        # Aim at the middle of the tolerance, on the right side of the goal.
        aim = goal + (0.5 if target.is_minimum else -0.5) * target.tolerance
        index += round(min(max((aim - place) / slope, -QUALITY_INDICES), QUALITY_INDICES))
        index = min(max(index, below[0] + 1), above[0] - 1)
    choice = above[0] if target.is_minimum else below[0]
    return min(max(choice, 0), QUALITY_INDICES - 1)


def meet(
    target: Target,
    size: tuple[int, int],
    encode: Callable[[float, int], bytes],
    psnr: Callable[[bytes], float],
    effort: int = 1,
) -> bytes:
    """Encode an image at the quality that meets a target.

    An image that is smaller than the target at quality 100, or better than it at quality 1, is encoded at that quality.

    Args:
        target: the target.
        size: (height, width).
        encode: encode(quality, effort) returns a file.
        psnr: psnr(file) returns its PSNR in dB.
        effort: above 1, a second search begins where the search at effort 1 ended.

    Raises:
        TargetError: no quality meets the target.
    """
    target = target.for_image(*size)
    index, data, value = _search_files(target, lambda quality: encode(quality, 1), psnr)
    if effort > 1:
        index, data, value = _search_files(target, lambda quality: encode(quality, effort), psnr, index)
    if target.excess(target.value, value) > 0:
        limit = f"{value:.2f} dB at most" if target.is_minimum else f"{value:.0f} bytes at least"
        exact = "; lossless coding meets any" if target.is_minimum else ""
        raise TargetError(f"the image comes to {limit}, and the target is {target.value:.10g}{exact}")
    return data


def _search_files(
    target: Target, encode: Callable[[float], bytes], psnr: Callable[[bytes], float], start: int = MIDDLE
) -> tuple[int, bytes, float]:
    """Search as `search` does; (quality index, file, value) of the trial nearest to the target on its right side.

    Where no trial is on the right side, that of the nearest trial.
    """
    best = (math.inf, start, b"", math.nan)

    def trial(index: int) -> float:
        nonlocal best
        data = encode(quality_of(index))
        value = psnr(data) if target.is_minimum else float(len(data))
        excess = target.excess(target.value, value)
        if (excess <= 0 and (best[0] > 0 or excess > best[0])) or 0 < excess < best[0]:
            best = excess, index, data, value
        return value

    search(target, trial, start)
    return best[1:]


STRIPS, STRIP_ROWS, STRIP_PIXELS = 4, 8, 8192
BLOCK_ROWS = 64
SMALL = 64 * 64  # pixels up to which images cannot be told apart, and no time can be saved
WINDOW = 128  # pixels a side

# Bounds that photographs, scaled down and so full of detail, keep.  From quality index 81 on the model needs at most
# 0.0064 bits a pixel for each index, counted from -9.  Their strips cost more losslessly than 1.5 times what the model
# needs, with a bit a sample added for its errors (0.72 where the model is best, at high rates).
MAX_RATE, FIRST_INDEX, MIN_RATE_INDEX = 0.00663, -9, 81
ERROR_BITS, MIN_RATIO = 1.0, 1.4
# Beyond these few photographs are found up to quality index 670: smooth images with a little grain cost little
# losslessly, fine patterns cost much.
HIGH_RATE, LOW_RATIO = 0.003315, 1.9
# Such photographs cost at least this part as AVIF up to that index; other such images cost less.
MIN_AVIF_SHARE = 0.94


def choose_file(
    codec: Codec,
    samples: np.ndarray,
    parts: Parts,
    latents: bytes,
    quality: float,
    metadata: dict[str, bytes] | None,
) -> bytes:
    """Return the file with the lowest cost; AVIF is not tried on large images, for which it takes much memory.

    Args:
        codec: the codec that made `latents`.
        samples: u8 or u16, with colours 0 where alpha is 0.
        parts: what the model codes of them, and what is beside it.
        latents: the file of the model.
        quality: 1..100.
        metadata: for the other files.
    """
    quality_index, grey = quality_index_of(quality), count_channels(samples) < 3
    if is_photograph(codec, samples, parts.colours, latents, quality):
        return latents
    files = [exact.encode(samples, 0, metadata, codec.threads), latents]
    if samples.dtype == np.uint8 and fallback.supports_avif(samples.shape[:2], 1 if grey else 3):
        colours = parts.colours[0 : len(samples)]
        colours = np.ascontiguousarray(colours[..., 0]) if grey else colours
        avif = fallback.encode_avif(colours, fallback.avif_quality(quality_index))
        alpha = [chunk for chunk in parts.chunks if chunk[0] == ALPHA]
        files.append(insert_chunks(pack_fallback(fallback.header("avif", samples), avif, metadata), alpha))
    lossless = files[0]
    files = [lossless, *(data for data in files[1:] if len(data) < len(lossless))]  # others cost more: spare decoding
    return min(files, key=lambda data: cost(data, samples, codec, quality_index))


def cost(data: bytes, samples: np.ndarray, codec: Codec, quality_index: int) -> float:
    """Rate + lambda * 255^2 * MSE of a file of these samples, in bits a pixel; 1 is the peak of the MSE."""
    squares = sum(squared_error(*pair) for pair in reconstruct(data, samples, codec))
    error = squares / samples.size / _peak(samples) ** 2
    return _bits_per_pixel(len(data), samples) + lambda_at(quality_index) * 255**2 * error


def is_photograph(codec: Codec, samples: np.ndarray, colours: Rows, latents: bytes, quality: float) -> bool:
    """Whether u8 or u16 samples look like a photograph; `latents` is the model's file of their colours u8[H, W, C]."""
    height, width = samples.shape[:2]
    rate = _bits_per_pixel(len(latents), samples)
    indices = max(quality_index_of(quality), MIN_RATE_INDEX) - FIRST_INDEX
    if height * width <= SMALL or rate > MAX_RATE * indices:
        return False
    rows = max(STRIP_ROWS, STRIP_PIXELS // width)
    tops = [max(0, (height - rows) * (2 * n + 1) // (2 * STRIPS)) for n in range(STRIPS)]
    strips = to_8_bits(np.concatenate([samples[top : top + rows] for top in tops]), count_bits(samples))
    lossless_rate = 8 * fallback.estimate_lossless_size(strips) / (strips.shape[0] * width)
    ratio = lossless_rate / (rate + ERROR_BITS * count_channels(samples))
    if ratio <= MIN_RATIO or (ratio > LOW_RATIO and rate <= HIGH_RATE * indices) or not fallback.has_avif():
        return ratio > MIN_RATIO
    return _avif_share(codec, _busiest_window(colours), count_channels(samples) < 3, quality) > MIN_AVIF_SHARE


def _busiest_window(rgb: Rows) -> np.ndarray:
    """Of nine windows of u8[H, W, C], spread evenly, the one with the largest differences between neighbours."""
    tops, lefts = ([max(0, side - WINDOW) * n // 2 for n in range(3)] for side in rgb.shape[:2])
    windows = [rgb[top : top + WINDOW][:, left : left + WINDOW] for top in tops for left in lefts]

    def activity(window: np.ndarray) -> float:
        rows, columns = window[::4].astype(np.int16), window[:, ::4].astype(np.int16)
        return float(np.abs(np.diff(rows, axis=1)).sum() + np.abs(np.diff(columns, axis=0)).sum())

    return np.ascontiguousarray(max(windows, key=activity))


def _avif_share(codec: Codec, rgb: np.ndarray, grey: bool, quality: float) -> float:
    """The cost of a window u8[H, W, 3] as AVIF, divided by its cost with the model.

    Headers do not count, and the model has no filter, which would be fitted to the window alone.
    """
    samples, quality_index = join_alpha(rgb, grey, None), quality_index_of(quality)
    latents = codec.encode_unfiltered(rgb, quality)
    avif = fallback.encode_avif(samples, fallback.avif_quality(quality_index))

    def payload_cost(payload: int, decoded: np.ndarray) -> float:
        error = squared_error(samples, join_alpha(decoded, grey, None)) / samples.size
        return _bits_per_pixel(payload, samples) + lambda_at(quality_index) * error

    avif_cost = payload_cost(len(avif) - avif.index(b"mdat"), fallback.decode_avif(avif, samples.shape[:2]))
    return avif_cost / payload_cost(image_file.contents(latents).data.length, codec.decode(latents))


def reconstruct(data: bytes, samples: np.ndarray, codec: Codec) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Decode a file that was made of these samples, in strips: (rows of the samples, what is decoded of them).

    What is lossless is taken from the samples.
    """
    contents = image_file.contents(data, check_data=False)
    head = contents.header
    if isinstance(head, FallbackHeader) and head.coding != "avif":
        yield samples, samples
        return
    if isinstance(head, FallbackHeader):
        grey, depth = head.channels < 3, 8
        strips = iter([fallback.decode_avif(contents.data.of(data), (head.height, head.width))])
    else:
        grey, depth = contents.grey, contents.depth
        _, strips = codec.decode_strips(data, limits=None, is_fine=depth > 8)
    top = 0
    for strip in strips:
        rows = samples[top : top + len(strip)]
        yield rows, join_alpha(strip, grey, alpha_channel(rows), depth)
        top += len(strip)


def _peak(samples: np.ndarray) -> int:
    """The largest colour that these samples could have with as many bits as they use."""
    return (1 << count_bits(samples)) - 1


def _bits_per_pixel(length: int, samples: np.ndarray) -> float:
    return 8 * length / (samples.shape[0] * samples.shape[1])


def squared_error(samples: np.ndarray, decoded: np.ndarray) -> float:
    """Sum squared differences in blocks of rows: a large image in floats takes four times its memory."""
    total = 0.0
    for top in range(0, len(samples), BLOCK_ROWS):
        rows = slice(top, top + BLOCK_ROWS)
        difference = decoded[rows].astype(np.float32) - samples[rows].astype(np.float32)
        total += np.square(difference).sum(dtype=np.float64)
    return total


def psnr(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """PSNR in dB over the colour samples of (original, decoded) parts of an image; inf where they are equal.

    The peak is that of the bits that the original uses.
    """
    error, count, peak = 0.0, 0, 0
    for original, decoded in pairs:
        error += squared_error(original, decoded)  # alpha is lossless
        alpha = 0 if alpha_channel(original) is None else original.shape[0] * original.shape[1]
        count += original.size - alpha
        peak = max(peak, _peak(original))
    return 10 * math.log10(peak**2 * count / error) if error else math.inf
