"""Random training crops through tf.data, from image files or .npy arrays in folders and tar shards."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from vaecodec.config import IMAGE_CHANNELS
from vaecodec.errors import CodecError
from vaecodec.images import load_npy, read_training_image

Encoded = bytes | np.ndarray  # an image file, or the array of a .npy file
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".npy")
CROPS_PER_IMAGE = 8  # decoding an image costs more than cropping it
MAX_ENLARGEMENT = 2.0  # images from a camera are as smooth as this, where most others were reduced before
SHUFFLED_CROPS = 1024  # so that crops of one image rarely meet in a batch


def encoded_images(paths: Iterable[str]) -> Iterator[bytes]:
    """Yield the image files in folders, in tar shards, or named directly, in a stable order.

    Raises CodecError for a path that contains none.
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
            raise CodecError(f"{path}: contains no images (looked for {' '.join(SUFFIXES)})")


def read_images(paths: Iterable[str]) -> list[Encoded]:
    """The image files in paths, and the arrays of .npy files; raises as encoded_images does."""
    return [load_npy(encoded) for encoded in encoded_images(paths)]


def random_crops(
    encoded: Encoded,
    crop: int,
    count: int,
    rng: np.random.Generator,
    channels: int = 3,
    enlarged: float = 0.0,
) -> np.ndarray:
    """Crops u8[count, crop, crop, C] of an image at random offsets, flipped and rotated at random.

    A fraction `enlarged` of them is enlarged up to MAX_ENLARGEMENT by cubic interpolation.  Returns no crops if the
    image is too small or broken.
    """
    try:
        pixels = read_training_image(encoded, channels)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError):
        return np.zeros((0, crop, crop, channels), np.uint8)
    if min(pixels.shape[:2]) < crop:
        return np.zeros((0, crop, crop, channels), np.uint8)
    crops = np.empty((count, crop, crop, channels), np.uint8)
    for n in range(count):
        side = round(crop / MAX_ENLARGEMENT ** rng.random()) if enlarged and rng.random() < enlarged else crop
        top, left = rng.integers(pixels.shape[0] - side + 1), rng.integers(pixels.shape[1] - side + 1)
        patch = pixels[top : top + side, left : left + side]
        if side != crop:
            planes = [Image.fromarray(plane) for plane in np.moveaxis(patch, -1, 0)]
            resized = [plane.resize((crop, crop), Image.Resampling.BICUBIC) for plane in planes]
            patch = np.stack([np.asarray(plane) for plane in resized], -1)
        patch = patch[:, ::-1] if rng.random() < 0.5 else patch
        crops[n] = np.rot90(patch, int(rng.integers(4)))
    return crops


def batches(
    images: Sequence[Encoded], batch: int, crop: int, seed: int, channels: int = 3, enlarged: float = 0.0
) -> tf.data.Dataset:
    """Endless batches u8[batch, crop, crop, C] of random_crops; raises CodecError if no image is large enough."""
    if not 0 <= enlarged <= 1:
        raise CodecError(f"the fraction of enlarged crops is {enlarged}, expected 0 to 1")
    rng = np.random.default_rng(seed)
    if not any(len(random_crops(image, crop, 1, rng, channels)) for image in images):
        size = f"{crop} x {crop}" + f" and {channels} channels" * (channels not in IMAGE_CHANNELS)
        raise CodecError(f"none of the {len(images)} images is readable and of at least {size}")

    def cut(index: np.ndarray, draw: np.ndarray) -> np.ndarray:
        local = np.random.default_rng([seed, int(index), int(draw)])
        return random_crops(images[int(index)], crop, CROPS_PER_IMAGE, local, channels, enlarged)

    def crops(draw: Any, index: Any) -> Any:
        out = tf.numpy_function(cut, [index, draw], tf.uint8)
        return tf.ensure_shape(out, [None, crop, crop, channels])

    order = tf.data.Dataset.range(len(images)).shuffle(len(images), seed=seed).repeat()
    cropped = order.enumerate().map(crops, num_parallel_calls=2).unbatch()
    return cropped.shuffle(SHUFFLED_CROPS, seed=seed).batch(batch, drop_remainder=True).prefetch(4)
