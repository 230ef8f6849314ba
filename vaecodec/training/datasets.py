"""Pictures, or arrays -> random training crops: folders of them or tar shards, through tf.data."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf
from PIL import Image

from vaecodec.config import IMAGE_CHANNELS
from vaecodec.errors import CodecError
from vaecodec.images.channels import load_npy, read_training_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".npy")
CROPS_PER_PICTURE = 8  # decoding a picture costs more than cutting it
LARGER = 2.0  # at most; what comes out of a camera is as smooth, where pictures from elsewhere were made smaller before
SHUFFLE = 1024  # crops kept to draw from, so that those of one picture do not meet in a batch


def pictures(paths: Iterable[str]) -> Iterator[bytes]:
    """The encoded pictures under folders, in tar shards, or named directly, in a stable order.

    Raises CodecError where a path has none.
    """
    for path in paths:
        count = 0
        if os.path.isdir(path):
            for folder, folders, names in os.walk(path):
                folders.sort()
                for name in sorted(names):
                    if name.lower().endswith(SUFFIXES):
                        with open(os.path.join(folder, name), "rb") as file:
                            yield file.read()
                        count += 1
        elif path.lower().endswith(".tar"):
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and member.name.lower().endswith(SUFFIXES):
                        yield tar.extractfile(member).read()  # type: ignore[union-attr]
                        count += 1
        else:
            with open(path, "rb") as file:
                yield file.read()
            count = 1
        if not count:
            raise CodecError(f"{path}: no pictures in it (looked for {' '.join(SUFFIXES)})")


def random_crops(
    encoded: bytes | np.ndarray,
    crop: int,
    count: int,
    rng: np.random.Generator,
    channels: int = 3,
    enlarged: float = 0.0,
) -> np.ndarray:
    """u8[count, crop, crop, C]: random offsets, flips, quarter turns; count 0 if the picture is too small or broken.

    The part `enlarged` of them is cut smaller, by a factor of up to LARGER, and enlarged by cubic interpolation.
    """
    try:
        pixels = read_training_image(encoded, channels)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return np.zeros((0, crop, crop, channels), np.uint8)
    if min(pixels.shape[:2]) < crop:
        return np.zeros((0, crop, crop, channels), np.uint8)
    crops = np.empty((count, crop, crop, channels), np.uint8)
    for n in range(count):
        side = round(crop / LARGER ** rng.random()) if enlarged and rng.random() < enlarged else crop
        top, left = rng.integers(pixels.shape[0] - side + 1), rng.integers(pixels.shape[1] - side + 1)
        patch = _resized(pixels[top : top + side, left : left + side], crop)
        patch = patch[:, ::-1] if rng.random() < 0.5 else patch
        crops[n] = np.rot90(patch, int(rng.integers(4)))
    return crops


def _resized(patch: np.ndarray, side: int) -> np.ndarray:
    if len(patch) == side:
        return patch
    planes = [
        Image.fromarray(plane).resize((side, side), Image.Resampling.BICUBIC) for plane in np.moveaxis(patch, -1, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], -1)


def batches(
    paths: list[str], batch: int, crop: int, seed: int, channels: int = 3, enlarged: float = 0.0
) -> tf.data.Dataset:
    """Endless u8[batch, crop, crop, C], as of random_crops.  Raises CodecError where no picture is large enough."""
    if not 0 <= enlarged <= 1:
        raise CodecError(f"the part of enlarged crops is {enlarged}, expected 0 to 1")
    encoded = [load_npy(one) for one in pictures(paths)]
    rng = np.random.default_rng(seed)
    if not any(len(random_crops(one, crop, 1, rng, channels)) for one in encoded):
        what = f"{crop} x {crop}" + f" and {channels} channels" * (channels not in IMAGE_CHANNELS)
        raise CodecError(f"none of the {len(encoded)} pictures is a readable picture of at least {what}")

    def cut(index: np.ndarray, draw: np.ndarray) -> np.ndarray:
        local = np.random.default_rng([seed, int(index), int(draw)])
        return random_crops(encoded[int(index)], crop, CROPS_PER_PICTURE, local, channels, enlarged)

    def crops(draw: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
        out = tf.numpy_function(cut, [index, draw], tf.uint8)
        return tf.ensure_shape(out, [None, crop, crop, channels])

    order = tf.data.Dataset.range(len(encoded)).shuffle(len(encoded), seed=seed).repeat()
    return (
        order.enumerate()
        .map(crops, num_parallel_calls=2)
        .unbatch()
        .shuffle(SHUFFLE, seed=seed)
        .batch(batch, drop_remainder=True)
        .prefetch(4)
    )
