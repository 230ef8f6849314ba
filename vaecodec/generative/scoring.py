"""How unusual a picture is to a model: its negative ELBO in bits per dimension, and where that lies in training.

Likelihood alone takes what is smooth for usual, whatever it shows; less the bits that a general coder takes, it is a
log-ratio of two models, which compares like with like (Serra et al. 2020, section 3).
"""

from __future__ import annotations

import io
import math
from typing import Any, NamedTuple

import numpy as np

from vaecodec.codec.codec import Codec
from vaecodec.config import lambda_at
from vaecodec.container.picture import parse, step_of
from vaecodec.generative import drawing
from vaecodec.model.file import Model
from vaecodec.model.generator import Generator

QUALITY = 50.0  # at which photographs are scored
QUANTILES = 101


class Score(NamedTuple):
    """Of one picture; bits per dimension, of which a pixel has one for each channel.

    Percentiles say how much of the training set scores lower, in percent; None where the model is not calibrated.
    """

    bpd: float  # negative ELBO
    complexity: float  # as a PNG file
    corrected: float  # the first less the second
    percentile: float | None
    corrected_percentile: float | None


def generator_bpd(model: Generator, pictures: np.ndarray) -> np.ndarray:
    """f64[N] of u8[N, S, S]."""
    return drawing.bits(model, pictures) / model.config.side**2


def photograph_bpd(codec: Codec, pixels: np.ndarray) -> float:
    """Of u8[H, W, C], at quality 50: what its latents take, and -log2 of the Normal around what they give back.

    The variance of that Normal is the one of training (vae.VAE.likelihood), so this is the loss, with its constant.
    """
    step, count = step_of(QUALITY), codec.model.config.weighty
    lmbda = lambda_at(step)
    data = codec.encode_unfiltered(pixels, QUALITY)
    error = np.mean((codec.decode(data, limits=None).astype(np.float32) - pixels) ** 2)
    constant = 0.5 * math.log2(2 * math.pi * count / (2 * math.log(2) * lmbda))
    rate = 8 * sum(tile.length for tile in parse(data).tiles)
    return rate / pixels.size + lmbda * float(error) / count + constant


def png_bpd(pixels: np.ndarray) -> float:
    """Bits per dimension of u8[H, W] or u8[H, W, 1 or 3] as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(file, "PNG", optimize=True)
    return 8 * file.tell() / pixels.size


def scores(model: Generator | Codec, pictures: Any) -> list[Score]:
    """Of each of u8[N, S, S], or for a codec each of a list of u8[H, W, C]; raises CodecError on other shapes."""
    if isinstance(model, Generator):
        bpd, of = generator_bpd(model, pictures), model.arrays
    else:
        bpd, of = np.array([photograph_bpd(model, one) for one in pictures]), model.model.arrays
    out = []
    for one, pixels in zip(bpd, pictures, strict=True):
        complexity = png_bpd(pixels)
        places = [_percentile(of, "bpd", one), _percentile(of, "corrected", one - complexity)]
        out.append(Score(float(one), complexity, float(one - complexity), *places))
    return out


def _percentile(arrays: dict[str, np.ndarray], name: str, value: float) -> float | None:
    quantiles = arrays.get(f"calibration/{name}")
    if quantiles is None:
        return None
    return float(np.interp(value, quantiles, np.linspace(0, 100, len(quantiles))))


def calibrated(model: Generator | Model, found: list[Score]) -> bytes:
    """The model file with the quantiles of these scores in it; its id stays."""
    from vaecodec.model.file import pack_model

    arrays = dict(model.arrays)
    for name in ("bpd", "corrected"):
        values = np.quantile([getattr(one, name) for one in found], np.linspace(0, 1, QUANTILES))
        arrays[f"calibration/{name}"] = np.maximum.accumulate(values.astype(np.float32))
    return pack_model(model.name, model.config, arrays, model.notes)
