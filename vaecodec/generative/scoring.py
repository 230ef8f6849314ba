"""Score how unusual an image is to a model: its negative ELBO in bits per dimension, and the percentile in training.

Likelihood alone rates smooth images as usual, whatever they show.  The corrected score subtracts the bits of a general
coder (PNG), which makes it a log-likelihood ratio of two models (Serra et al. 2020, section 3).
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vaecodec.codec import Codec
from vaecodec.config import lambda_at
from vaecodec.container.image_file import parse, quality_index_of
from vaecodec.entropy.tables import TOTAL
from vaecodec.generative import bitsback, generation
from vaecodec.model import discrete
from vaecodec.model.file import Model, pack_model
from vaecodec.model.generative import Generator

QUALITY = 50.0  # of photographs
QUANTILES = 101
BATCH = 64  # images


class Score(NamedTuple):
    """Scores of an image in bits per dimension; a pixel has one dimension for each channel.

    A percentile is the percentage of the training set that scores lower, or None if the model is not calibrated.
    """

    bpd: float  # negative ELBO
    complexity: float  # size as a PNG file
    corrected: float  # bpd less complexity
    percentile: float | None  # of bpd
    corrected_percentile: float | None


def score(image: Any, model: str = "digits") -> Score:
    """Score an array, PIL image or path; see vaecodec.score."""
    loaded = generation.load(model)
    return score_images(loaded, [generation.read_for(loaded, image)])[0]


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
    bitsback.check_images(model, images)
    bits = []
    for start in range(0, len(images), BATCH):
        choose = generation.random_symbols(np.random.default_rng([seed, start]))
        batch = images[start : start + BATCH]
        bits.append(np.mean([_negative_elbo(model, batch, choose) for _ in range(draws)], 0))
    return np.concatenate(bits)


def _negative_elbo(model: Generator, images: np.ndarray, choose: bitsback.Chooser) -> np.ndarray:
    frequencies, count = bitsback.posterior(model, images), len(images)
    bins = choose(frequencies)
    total: np.ndarray = discrete.BINS * model.config.latents - _information(bins, frequencies).reshape(count, -1).sum(1)
    stages = bitsback.pixel_stages(model, images, bitsback.bin_centres(model, bins))
    for (nonzero, ink), (values, frequencies) in zip(stages[::2], stages[1::2], strict=True):
        total += _information(nonzero, ink).reshape(count, -1).sum(1)
        image_of = np.flatnonzero(nonzero) // (len(nonzero) // count)
        total += np.bincount(image_of, _information(values, frequencies), count)
    return total


def _information(symbols: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Information content f64[n] of each symbol, in bits."""
    return np.asarray(np.log2(TOTAL) - np.log2(frequencies[np.arange(len(frequencies)), symbols]))


def photograph_bpd(codec: Codec, pixels: np.ndarray) -> float:
    """The negative ELBO of u8[H, W, C] at quality 50: bits of its latents, and -log2 p(x | y).

    p(x | y) is Normal with the variance used in training (vae.VAE.likelihood), so this is the loss with its constant.
    """
    quality_index, dimensions = quality_index_of(QUALITY), codec.model.config.lambda_channels
    lmbda = lambda_at(quality_index)
    data = codec.encode_unfiltered(pixels, QUALITY)
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
