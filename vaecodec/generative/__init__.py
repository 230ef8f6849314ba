"""Generate images with any model (sample, vary, interpolate), and score how unusual an image is to it.

Generative models (digits) draw a latent vector.  Models of photographs draw wavelet coefficients from coarse to fine,
which gives textures and colours, since their prior has no notion of objects.  All networks are exact integers, so a
seed gives the same pixels on every machine.

The score of an image is its negative ELBO in bits per dimension, with the percentile in training.  Likelihood alone
rates smooth images as usual, whatever they show.  The corrected score subtracts the bits of a general coder (PNG),
which makes it a log-likelihood ratio of two models (Serra et al. 2020, section 3).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vaecodec import rdo
from vaecodec.codec import Codec, cached_codec
from vaecodec.config import IMAGE_CHANNELS, STRIDE, lambda_at
from vaecodec.container.image_file import parse, quality_index_of, quality_of
from vaecodec.entropy import TOTAL, Tables
from vaecodec.errors import CodecError
from vaecodec.generative import image_sets
from vaecodec.images.channels import check_array, count_channels
from vaecodec.images.colours import split_alpha, to_model_channels
from vaecodec.images.reading import read_image
from vaecodec.model import generative
from vaecodec.model.file import Model, load_any, load_generator, pack_model
from vaecodec.model.generative import Generator
from vaecodec.model.network import ACTIVATION_MAX
from vaecodec.native.symbols import HALF_LEVEL, symbol_values
from vaecodec.prior import (
    PARTS_BY_OCTAVE,
    Chooser,
    Distributions,
    choose_symbols,
    decode_tile,
    value_limit,
)
from vaecodec.transforms.wavelet import Values, dequantise

GENERATIVE, PHOTOGRAPHS = "digits", "small"  # models for images of either kind
BATCH = 256  # images rendered at once
LATENT_UNIT = 2.0**8  # latents are activations in units of 2**-8
TILE = 4096  # the largest tile, so a photograph is a single one
MAX_PIXELS = 2048 * 2048
SCORED_INDEX = 443  # quality index of photographs that are scored
QUANTILES = 101
SCORED_AT_ONCE = 64  # images


def load(model: str) -> Generator | Codec:
    """Load a generative model, or the codec of a model of photographs; raises ModelError."""
    loaded = load_any(model)
    if isinstance(loaded, Generator):
        return loaded
    if loaded.config.channels not in IMAGE_CHANNELS:
        check_array(loaded.config.channels, None)
    return cached_codec(loaded)


def read_for(model: str | None, *images: Any) -> tuple[Generator | Codec, list[np.ndarray]]:
    """Load a model, and read images in the form that it takes, u8[S, S] or u8[H, W, C].

    Images are arrays, PIL images or image files.  Without a name the model is that of `model_for`.  Raises CodecError.
    """
    samples = [read_image(image)[0] for image in images]
    if any(image.dtype != np.uint8 for image in samples):
        raise CodecError("the image has 16 bits a sample, expected 8")
    loaded = load(model or model_for(samples[0]))
    return loaded, [_to_form(loaded, image) for image in samples]


def model_for(samples: np.ndarray) -> str:
    """Name the shipped model for an image: GENERATIVE if it is grey and of that model's size, else PHOTOGRAPHS."""
    side = load_generator(GENERATIVE).config.side
    if samples.shape[:2] != (side, side):
        return PHOTOGRAPHS
    rgb, _ = split_alpha(samples)
    return GENERATIVE if (rgb == rgb[..., :1]).all() else PHOTOGRAPHS


def _to_form(model: Generator | Codec, samples: np.ndarray) -> np.ndarray:
    if not isinstance(model, Generator):
        rgb = split_alpha(samples)[0]
        return to_model_channels(model.model.config.channels, rgb, count_channels(samples) < 3)
    if samples.ndim == 2:
        return samples
    rgb, _ = split_alpha(samples)
    if (rgb != rgb[..., :1]).any():
        raise CodecError("the image has colour, expected grey")
    return np.ascontiguousarray(rgb[..., 0])


def squeeze_grey(images: np.ndarray) -> np.ndarray:
    """Drop the channel axis of u8[..., H, W, C] if C is 1."""
    return images[..., 0] if images.shape[-1] == 1 else images


def sample(n: int, model: str, seed: int, size: tuple[int, int], quality: float, noisy: bool) -> np.ndarray:
    """Draw n images from a model's prior; see vaecodec.sample."""
    loaded = load(model)
    if n < 1:
        raise ValueError(f"n is {n!r}, expected 1 or more")
    if not isinstance(loaded, Generator):
        return squeeze_grey(sample_photographs(loaded, n, size, quality, seed))
    z = np.random.default_rng(seed).standard_normal((n, loaded.config.latents))
    return render(loaded, z, seed if noisy else None)


def vary(image: Any, strength: float, n: int, model: str | None, seed: int, quality: float) -> np.ndarray:
    """Draw n images near an image; see vaecodec.vary.

    The latent vector of a digit becomes sqrt(1 - s^2) z + s noise, which keeps its distribution for any strength s.
    """
    if not 0 <= strength <= 1 or n < 1:
        raise ValueError(f"strength is {strength!r} and n {n!r}, expected 0..1 and 1 or more")
    loaded, [pixels] = read_for(model, image)
    if not isinstance(loaded, Generator):
        return squeeze_grey(vary_photograph(loaded, pixels, strength, n, quality, seed))
    noise = np.random.default_rng(seed).standard_normal((n, loaded.config.latents))
    return render(loaded, np.sqrt(1 - strength**2) * posterior_means(loaded, pixels[None]) + strength * noise)


def interpolate(a: Any, b: Any, n: int, model: str | None, quality: float) -> np.ndarray:
    """Generate n images from a to b; see vaecodec.interpolate.

    The latent vectors of digits follow the great circle between both (White 2016, section 2.1).
    """
    if n < 2:
        raise ValueError(f"n is {n!r}, expected 2 or more")
    loaded, [first, last] = read_for(model, a, b)
    if first.shape != last.shape:
        raise CodecError(f"the images have sizes {list(first.shape)} and {list(last.shape)}, expected one size")
    if not isinstance(loaded, Generator):
        return squeeze_grey(interpolate_photographs(loaded, first, last, n, quality))
    start, end = posterior_means(loaded, np.stack([first, last]))
    cosine = np.clip(start @ end / max(np.linalg.norm(start) * np.linalg.norm(end), 1e-12), -1, 1)
    angle = np.arccos(cosine)
    t = np.linspace(0, 1, n)[:, None]
    if np.sin(angle) < 1e-6:
        return render(loaded, (1 - t) * start + t * end)
    return render(loaded, (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle))


def random_symbols(rng: np.random.Generator) -> image_sets.Chooser:
    """A chooser that draws each symbol from its frequencies."""

    def choose(frequencies: np.ndarray) -> np.ndarray:
        place = rng.integers(TOTAL, size=(len(frequencies), 1))
        return np.asarray((np.cumsum(frequencies, 1) <= place).sum(1), np.int32)

    return choose


def median_symbols(frequencies: np.ndarray) -> np.ndarray:
    """The median of each distribution: at least half of the mass lies on either side."""
    return np.asarray((np.cumsum(frequencies, 1) < TOTAL // 2).sum(1), np.int32)


def render(model: Generator, z: np.ndarray, seed: int | None = None) -> np.ndarray:
    """Decode latents z f64[N, L], of unit variance, to u8[N, S, S]; pixels are medians, or drawn if there is a seed."""
    activations = np.clip(np.rint(z * LATENT_UNIT), -ACTIVATION_MAX, ACTIVATION_MAX).astype(np.float32)
    choose = median_symbols if seed is None else random_symbols(np.random.default_rng([seed, 1]))
    batches = [activations[start : start + BATCH] for start in range(0, len(activations), BATCH)]
    return np.concatenate([image_sets.choose_pixels(model, batch, choose) for batch in batches])


def posterior_means(model: Generator, images: np.ndarray) -> np.ndarray:
    """The means f64[N, L] of q(z | x), for images u8[N, S, S]; raises CodecError for another shape."""
    image_sets.check_images(model, images)
    return image_sets.posterior_parameters(model, images)[0] / LATENT_UNIT


def sample_photographs(codec: Codec, n: int, size: tuple[int, int], quality: float, seed: int = 0) -> np.ndarray:
    """Draw n photographs u8[n, H, W, C]: coefficients from p(y), coarse to fine, then the mean of p(x | y).

    Coefficients are limited to what pixels can produce: beyond that the prior has seen no examples, and diverges.
    """
    quality_index, rng, model = quality_index_of(quality), np.random.default_rng(seed), codec.model
    tables = model.models.tables
    # Half of the range from black to white, in quantisation steps; each octave doubles the scale of the low-pass image.
    reach = 0.5 * math.sqrt(model.config.channels) / float(model.inverse_gain(quality_index)[0]) * rdo.UNIT
    counts = [octave.stop - octave.start for octave in PARTS_BY_OCTAVE]
    bounds = [reach * 2 ** (len(counts) - 1 - n) for n, count in enumerate(counts) for _ in range(count)]

    def choose(part: int, distributions: Distributions) -> np.ndarray:
        symbols = _draw_symbols(tables, distributions.indices, rng)
        low, high = (np.trunc((bound - distributions.loc) / rdo.UNIT) for bound in (-bounds[part], bounds[part]))
        return np.asarray(np.clip(symbols, low, high), np.int32)

    return np.stack([_draw_photograph(codec, size, quality_index, choose) for _ in range(n)])


def vary_photograph(
    codec: Codec, pixels: np.ndarray, strength: float, n: int, quality: float, seed: int = 0
) -> np.ndarray:
    """Draw n variants u8[n, H, W, C] of u8[H, W, C].

    A fraction `strength` of all coefficients is drawn anew, given the coarser ones.
    """
    quality_index, rng, model = quality_index_of(quality), np.random.default_rng(seed), codec.model
    symbols, size = _encode_symbols(codec, pixels, quality)[0], (pixels.shape[0], pixels.shape[1])
    targets: list[np.ndarray] = []  # of each part, f32[n] in quantisation steps

    def record(part: int, distributions: Distributions) -> np.ndarray:
        values = symbol_values(symbols[part], *distributions, model.prior.centroids, value_limit(part))
        targets.append(values.astype(np.float32) * np.float32(1 / rdo.UNIT))
        return symbols[part]

    choose_symbols(model.prior, _cells(size), quality_index, record)
    nearest = rdo.quantizer(model.prior, model.models.tables, 0.0)

    def choose(part: int, distributions: Distributions) -> np.ndarray:
        # What a symbol stands for depends on those before it, so values are drawn, and then all are quantised.
        drawn = _draw_symbols(model.models.tables, distributions.indices, rng)
        levels = HALF_LEVEL * (2 * drawn - np.sign(drawn) * rng.integers(0, 2, len(drawn)))
        values = ((levels + distributions.loc) / rdo.UNIT).astype(np.float32)
        redrawn = rng.random(len(drawn)) < strength
        return nearest(np.where(redrawn, values, targets[part]), distributions)

    return np.stack([_draw_photograph(codec, size, quality_index, choose) for _ in range(n)])


def interpolate_photographs(codec: Codec, first: np.ndarray, last: np.ndarray, n: int, quality: float) -> np.ndarray:
    """Generate n images u8[n, H, W, C] between two u8[H, W, C], on the straight line between their coefficients."""
    (_, a), (_, b) = (_encode_symbols(codec, pixels, quality) for pixels in (first, last))

    def blend(t: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.rint((1 - t) * x + t * y).astype(np.int32)

    def values(t: float) -> Values:
        octaves = zip(a.halves, b.halves, strict=True)
        return Values([(blend(t, x[0], y[0]), blend(t, x[1], y[1])) for x, y in octaves], blend(t, a.low, b.low))

    size = first.shape[0], first.shape[1]
    return np.stack([_synthesise(codec, values(t), quality_index_of(quality), size) for t in np.linspace(0, 1, n)])


def _draw_symbols(tables: Tables, indices: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Symbols i32[n], each drawn from the table of its index; an escape becomes 0."""
    symbols, places = np.zeros(indices.size, np.int32), rng.integers(TOTAL, size=indices.size)
    for index in np.unique(indices[indices != 0]):
        here = np.flatnonzero(indices == index)
        entries = np.searchsorted(np.cumsum(tables.row(index), dtype=np.int64), places[here], "right")
        symbols[here] = np.where(entries == tables.last[index], 0, entries + tables.low[index])
    return symbols


def _draw_photograph(codec: Codec, size: tuple[int, int], quality_index: int, choose: Chooser) -> np.ndarray:
    _, values = choose_symbols(codec.model.prior, _cells(size), quality_index, choose)
    return _synthesise(codec, values, quality_index, size)


def _synthesise(codec: Codec, values: Values, quality_index: int, size: tuple[int, int]) -> np.ndarray:
    coefficients = dequantise(values, codec.model.gains.scaled(quality_index))
    [pixels] = codec.transforms.pixels([coefficients], quality_index)
    return pixels[: size[0], : size[1]]


def _encode_symbols(codec: Codec, pixels: np.ndarray, quality: float) -> tuple[list[np.ndarray], Values]:
    """(symbols i32[n] of each part, values) of u8[H, W, C], coded as one tile."""
    cells = _cells((pixels.shape[0], pixels.shape[1]))
    data, model = codec.encode_unfiltered(pixels, quality, TILE), codec.model
    (header, [tile], _), parts = parse(data), list[np.ndarray]()
    payload = data[tile.offset : tile.offset + tile.length]
    coded = cells, header.quality_index, payload, tile.crc
    return parts, decode_tile(model.prior, model.models, *coded, observe=parts.append, by_band=header.by_band)


def _cells(size: tuple[int, int]) -> tuple[int, int]:
    """(h, w): latent cells of an image; raises CodecError if it is too large."""
    if min(size) < 1 or size[0] * size[1] > MAX_PIXELS or max(size) > TILE:
        raise CodecError(f"the image is {size[1]} x {size[0]}, more than {MAX_PIXELS} pixels or a side of {TILE}")
    return -(-size[0] // STRIDE), -(-size[1] // STRIDE)


class Score(NamedTuple):
    """Scores of an image in bits per dimension; a pixel has one dimension for each channel.

    A percentile is the percentage of the training set that scores lower, or None if the model is not calibrated.
    """

    bpd: float  # negative ELBO
    complexity: float  # size as a PNG file
    corrected: float  # bpd less complexity
    percentile: float | None  # of bpd
    corrected_percentile: float | None


def score(image: Any, model: str | None = None) -> Score:
    """Score an array, PIL image or image file; see vaecodec.score."""
    return score_images(*read_for(model, image))[0]


def score_images(model: Generator | Codec, images: Sequence[np.ndarray]) -> list[Score]:
    """Score images, u8[S, S] for a generative model or u8[H, W, C] for a codec; raises CodecError for other shapes."""
    if isinstance(model, Generator):
        arrays, bpd = model.arrays, negative_elbo(model, np.asarray(images)) / model.config.side**2
    else:
        arrays, bpd = model.model.arrays, np.array([photograph_bpd(model, pixels) for pixels in images])

    def percentile(name: str, value: float) -> float | None:
        quantiles = arrays.get(f"calibration/{name}")
        if quantiles is None:
            return None
        return float(np.interp(value, quantiles, np.linspace(0, 100, len(quantiles))))

    scores = []
    for value, pixels in zip(bpd.tolist(), images, strict=True):
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(file, "PNG", optimize=True)
        complexity = 8 * file.tell() / pixels.size
        percentiles = percentile("bpd", value), percentile("corrected", value - complexity)
        scores.append(Score(value, complexity, value - complexity, *percentiles))
    return scores


def negative_elbo(model: Generator, images: np.ndarray, draws: int = 4, seed: int = 0) -> np.ndarray:
    """Estimate the bits f64[N] that bits-back coding takes for each of u8[N, S, S], over `draws` latents per image."""
    image_sets.check_images(model, images)
    bits = []
    for start in range(0, len(images), SCORED_AT_ONCE):
        choose = random_symbols(np.random.default_rng([seed, start]))
        batch = images[start : start + SCORED_AT_ONCE]
        bits.append(np.mean([_negative_elbo(model, batch, choose) for _ in range(draws)], 0))
    return np.concatenate(bits)


def _negative_elbo(model: Generator, images: np.ndarray, choose: image_sets.Chooser) -> np.ndarray:
    frequencies, count = image_sets.posterior(model, images), len(images)
    bins = choose(frequencies)
    total: np.ndarray = generative.BINS * model.config.latents - _information(bins, frequencies).reshape(count, -1).sum(
        1
    )
    stages = image_sets.pixel_stages(model, images, image_sets.bin_centres(model, bins))
    for (nonzero, ink), (values, frequencies) in zip(stages[::2], stages[1::2], strict=True):
        total += _information(nonzero, ink).reshape(count, -1).sum(1)
        image_of = np.flatnonzero(nonzero) // (len(nonzero) // count)
        total += np.bincount(image_of, _information(values, frequencies), count)
    return total


def _information(symbols: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Information content f64[n] of each symbol, in bits."""
    return np.asarray(np.log2(TOTAL) - np.log2(frequencies[np.arange(len(frequencies)), symbols]))


def photograph_bpd(codec: Codec, pixels: np.ndarray) -> float:
    """The negative ELBO of u8[H, W, C] at one quality: bits of its latents, and -log2 p(x | y).

    p(x | y) is Normal with the variance used in training (vae.VAE.likelihood), so this is the loss with its constant.
    """
    lmbda, dimensions = lambda_at(SCORED_INDEX), codec.model.config.lambda_channels
    data = codec.encode_unfiltered(pixels, quality_of(SCORED_INDEX))
    error = np.mean((codec.decode(data, limits=None).astype(np.float32) - pixels) ** 2)
    constant = 0.5 * math.log2(2 * math.pi * dimensions / (2 * math.log(2) * lmbda))
    rate = 8 * sum(tile.length for tile in parse(data).tiles)
    return rate / pixels.size + lmbda * float(error) / dimensions + constant


def calibrate(model: Generator | Model, scores: Sequence[Score]) -> bytes:
    """The model file with the quantiles of these scores in it; its id does not change."""
    arrays = dict(model.arrays)
    for name in ("bpd", "corrected"):
        values = np.quantile([getattr(score, name) for score in scores], np.linspace(0, 1, QUANTILES))
        arrays[f"calibration/{name}"] = np.maximum.accumulate(values.astype(np.float32))
    return pack_model(model.name, model.config, arrays, model.notes)
