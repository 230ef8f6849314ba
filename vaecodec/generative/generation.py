"""What a VAE does besides compression, for any model: sample, vary, interpolate, score."""

from __future__ import annotations

from typing import Any

import numpy as np

from vaecodec.codec.codec import Codec, cached_codec
from vaecodec.config import PICTURE_CHANNELS
from vaecodec.errors import CodecError
from vaecodec.generative import drawing, scoring
from vaecodec.generative import photographs as photo_drawing
from vaecodec.generative.scoring import Score
from vaecodec.images import bands, planes
from vaecodec.images.files import read_image
from vaecodec.model.file import load_any
from vaecodec.model.generator import Generator

SIZE = (256, 256)


def load(model: str) -> Generator | Codec:
    """A generative model, or the codec of a model of photographs; raises ModelError."""
    found = load_any(model)
    if isinstance(found, Generator):
        return found
    if found.config.channels not in PICTURE_CHANNELS:
        bands.check_array(found.config.channels, None)
    return cached_codec(found)


def picture_for(model: Generator | Codec, image: Any) -> np.ndarray:
    """An array, PIL image or path as the model takes it: u8[S, S], or u8[H, W, C]; raises CodecError otherwise."""
    samples, _ = read_image(image)
    if samples.dtype != np.uint8:
        raise CodecError("a picture of 16 bits a sample, expected 8")
    if not isinstance(model, Generator):
        rgb = planes.split(samples)[0]
        return bands.as_model_has(model.model.config.channels, rgb, planes.channels_of(samples) < 3)
    if samples.ndim == 3:
        rgb, _ = planes.split(samples)
        if (rgb != rgb[..., :1]).any():
            raise CodecError("a picture in colour, expected grey")
        samples = np.ascontiguousarray(rgb[..., 0])
    return samples


def shown(pictures: np.ndarray) -> np.ndarray:
    """u8[..., H, W, C] as pictures are: [..., H, W] where C is 1."""
    return pictures[..., 0] if pictures.shape[-1] == 1 else pictures


def sample(
    n: int,
    model: str = "digits",
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    quality: float = scoring.QUALITY,
    noisy: bool = False,
) -> np.ndarray:
    """See vaecodec.sample."""
    found = load(model)
    if n < 1:
        raise ValueError(f"n is {n!r}, expected 1 or more")
    if isinstance(found, Generator):
        return drawing.sample(found, n, seed, noisy)
    return shown(photo_drawing.sample(found, n, size, quality, seed))


def vary(
    image: Any, strength: float, n: int = 1, model: str = "digits", seed: int = 0, quality: float = scoring.QUALITY
) -> np.ndarray:
    """See vaecodec.vary."""
    if not 0 <= strength <= 1 or n < 1:
        raise ValueError(f"strength is {strength!r} and n {n!r}, expected 0..1 and 1 or more")
    found = load(model)
    picture = picture_for(found, image)
    if isinstance(found, Generator):
        return drawing.vary(found, picture, strength, n, seed)
    return shown(photo_drawing.vary(found, picture, strength, n, quality, seed))


def interpolate(a: Any, b: Any, n: int, model: str = "digits", quality: float = scoring.QUALITY) -> np.ndarray:
    """See vaecodec.interpolate."""
    if n < 2:
        raise ValueError(f"n is {n!r}, expected 2 or more")
    found = load(model)
    first, last = picture_for(found, a), picture_for(found, b)
    if isinstance(found, Generator):
        if first.shape != last.shape:
            raise CodecError("pictures of different sizes")
        return drawing.interpolate(found, first, last, n)
    return shown(photo_drawing.interpolate(found, first, last, n, quality))


def score(image: Any, model: str = "digits") -> Score:
    """See vaecodec.score."""
    found = load(model)
    picture = picture_for(found, image)
    return scoring.scores(found, picture[None] if isinstance(found, Generator) else [picture])[0]
