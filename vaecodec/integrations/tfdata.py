""".vae files -> tf.data, for training: pictures decoded on the CPU, by threads of TensorFlow's own.

paths --read--> bytes --decode, a codec to each thread--> u8[H, W, C] --batch, prefetch--> a training step

Neither the transforms nor TensorFlow hold Python's lock; entropy coding does, for about a sixth of a picture's time, so
that some six cores can be kept busy.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from vaecodec.codec import modes
from vaecodec.codec.codec import Codec
from vaecodec.container import image_file
from vaecodec.container.image_file import FallbackHeader, Header, read_preamble
from vaecodec.errors import CodecError
from vaecodec.images.channels import count_channels, split_alpha
from vaecodec.limits import DEFAULT, Limits
from vaecodec.model.file import find_model, load_model
from vaecodec.threads import available_cores


def dataset(
    files: Iterable[str | os.PathLike[str]],
    crop: tuple[int, int] | None = None,
    reduce: int = 1,
    channels: int = 3,
    shuffle: bool = False,
    seed: int = 0,
    workers: int | None = None,
    deterministic: bool = True,
    model: str | None = None,
    limits: Limits | None = DEFAULT,
) -> tf.data.Dataset:
    """u8[H, W, channels] of each .vae file, in order, or in another one each time through with `shuffle`.

    `crop` takes a random (height, width) of each, at full size, and decodes little more than that; `reduce` a preview
    at 1/2 to 1/16 of the sides.  `seed` settles crops and order; every pass draws anew.  The shape is static where
    `crop` gives it or all files are of one size, by their headers.  `workers` files at once (default: all cores);
    `deterministic` False gives them as they come.  Grey becomes RGB with 3 channels; alpha is left out.

    Raises CodecError where there are no files or, without `crop`, on a damaged header.  What is found wrong with a
    file while decoding is TensorFlow's InvalidArgumentError; `.ignore_errors()` leaves such files out.
    """
    if crop and reduce != 1:
        raise ValueError("a crop is taken at full size: it does not go with reduce")
    paths = [os.fspath(file) for file in files]
    shape = (*(crop or _size(paths, reduce)), channels)
    decode, workers = Decoder(channels, model, limits), workers or available_cores()

    def work(path: bytes, data: bytes, draw: np.int64) -> np.ndarray:
        return decode(data, path.decode(errors="replace"), crop, reduce, np.random.default_rng([seed, int(draw)]))

    def one(path: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        pixels = tf.numpy_function(work, [path, tf.io.read_file(path), draw], tf.uint8)
        return tf.ensure_shape(pixels, shape)

    order = tf.data.Dataset.from_tensor_slices(paths)
    if shuffle:
        order = order.shuffle(len(paths), seed=seed, reshuffle_each_iteration=True)
    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    return tf.data.Dataset.zip(order, draws).map(one, num_parallel_calls=workers, deterministic=deterministic)


def decode_image(contents: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """string[] with the bytes of a .vae file -> u8[H, W, channels], in a graph; to stand where tf.io.decode_jpeg does.

    Grey becomes RGB with 3 channels; alpha is left out.  Damage is an error of TensorFlow's.
    """
    decode = _decoders.setdefault(channels, Decoder(channels))
    pixels = tf.numpy_function(lambda data: decode(data, "image"), [contents], tf.uint8)
    return tf.ensure_shape(pixels, [None, None, channels])


class Decoder:
    """Decodes for several threads: each call has a codec to itself, of one thread, as calls of one take turns."""

    def __init__(self, channels: int = 3, model: str | None = None, limits: Limits | None = DEFAULT) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels are {channels!r}, expected 1 or 3")
        self._channels, self._model, self._limits = channels, model, limits
        self._idle: defaultdict[str, deque[Codec]] = defaultdict(deque)  # by the model's id; no more than calls at once

    def __call__(
        self,
        data: bytes,
        name: str,
        crop: tuple[int, int] | None = None,
        reduce: int = 1,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """u8[H, W, channels], all of a file or a random crop; raises ValueError, which TensorFlow makes its own."""
        try:
            head = image_file.contents(data, check_data=False).header
            image_file.check_is_image(head)
            window = None
            if crop is not None and rng is not None:
                if head.height < crop[0] or head.width < crop[1]:
                    raise ValueError(
                        f"{head.width} x {head.height} pixels are less than the crop of {crop[1]} x {crop[0]}"
                    )
                corner = rng.integers((head.height - crop[0] + 1, head.width - crop[1] + 1)).tolist()
                window = (*corner, *crop)
            with self._codec(head) as codec:
                samples = modes.decode(data, window, reduce, limits=self._limits, codec=codec)
            return self._fit(samples)
        except (CodecError, ValueError) as exc:
            raise ValueError(f"{name}: {exc}") from exc

    @contextmanager
    def _codec(self, head: Header | FallbackHeader) -> Iterator[Codec | None]:
        """One that nobody else uses now; none for what needs none."""
        if isinstance(head, FallbackHeader):
            yield None
            return
        idle = self._idle[head.model]
        try:
            codec = idle.pop()
        except IndexError:
            codec = Codec(load_model(self._model) if self._model else find_model(head.model), threads=1)
        try:
            yield codec
        finally:
            idle.append(codec)

    def _fit(self, samples: np.ndarray) -> np.ndarray:
        if samples.dtype != np.uint8:
            raise CodecError("has 16 bits a sample")
        if self._channels == 3:
            return split_alpha(samples)[0]
        if count_channels(samples) > 2:
            raise CodecError("has colours, and 1 channel is asked for")
        return samples.reshape(*samples.shape[:2], -1)[..., :1]


_decoders: dict[int, Decoder] = {}


def _size(paths: list[str], reduce: int) -> tuple[int | None, int | None]:
    """(height, width) that all files give, None where they differ; raises CodecError on what has none."""
    if not paths:
        raise CodecError("no files to make a dataset of")
    sizes = set()
    for path in paths:
        try:
            with open(path, "rb") as file:
                head = read_preamble(file).header
        except (CodecError, OSError) as exc:
            raise CodecError(f"{path}: {exc}") from exc
        sizes.add((-(-head.height // reduce), -(-head.width // reduce)))
        if len(sizes) > 1:
            return None, None
    return sizes.pop()
