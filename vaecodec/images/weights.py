"""Read the weights of an image's pixels: a map of what matters in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vaecodec.errors import CodecError
from vaecodec.images.reading import read_image

if TYPE_CHECKING:
    from vaecodec.arguments import ImageLike


def read_weights(source: ImageLike, shape: tuple[int, int]) -> np.ndarray:
    """Weights f32[H, W], 0..1, of an image of (H, W) pixels.

    Args:
        source: an array [H, W] of floats 0..1, or a grey image as read_image takes it, where white is 1.
        shape: (H, W).

    Raises:
        OSError: the source cannot be read.
        TypeError: it is neither an array nor what read_image takes.
        ValueError: it is no image, or has another size, or colours, or a number beyond 0..1.
    """
    if isinstance(source, np.ndarray) and source.dtype.kind in "fb":
        weights = source.astype(np.float32)
    else:
        try:
            samples, _ = read_image(source)
        except CodecError as exc:
            raise ValueError(f"roi is no image: {exc}") from exc
        except TypeError as exc:
            raise TypeError(f"roi{str(exc).removeprefix('image')}") from exc
        if samples.ndim == 3 and samples.shape[2] >= 3 and (samples[..., :3] == samples[..., :1]).all():
            samples = samples[..., 0]
        if samples.ndim != 2:
            raise ValueError("roi is not a grey image")
        weights = samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)
    if weights.shape != shape:
        raise ValueError(f"roi is {list(weights.shape)}, expected {list(shape)}: the image's rows and columns")
    if not ((weights >= 0) & (weights <= 1)).all():
        raise ValueError("roi has numbers beyond 0..1")
    return weights
