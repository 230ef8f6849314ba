"""Read .vae files with tf.data for training: decode images on the CPU, in TensorFlow's threads.

    paths --read--> bytes --decode, one codec per thread--> u8[H, W, C] --batch, prefetch--> training step

Only entropy coding holds the GIL, for about a sixth of the time of an image, so about six cores can be used.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import tensorflow as tf

from vaecodec.arguments import DEFAULT_LIMITS, Limits
from vaecodec.codec import Codec, modes
from vaecodec.container import FallbackHeader, image_file
from vaecodec.container.image_file import Header, read_preamble
from vaecodec.errors import CodecError
from vaecodec.images.channels import count_channels
from vaecodec.images.colours import split_alpha
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
    limits: Limits | None = DEFAULT_LIMITS,
) -> tf.data.Dataset:
    """Make a dataset of the images in .vae files, u8[H, W, channels]; alpha is left out.

    The shape is static with `crop`, or if the headers of all files give the same size.

    Args:
        crop: (height, width) of a random crop of each image; little more than the crop is decoded.
        reduce: 2, 4, 8 or 16 decodes previews at that fraction of the sides.
        channels: 1 or 3; with 3, grey becomes RGB.
        shuffle: shuffle the files, in a new order in each pass.
        seed: of crops and order.
        workers: files to decode at once (default: one per core).
        deterministic: keep the order; False is faster.

    Raises:
        CodecError: there are no files or, without `crop`, a header is damaged.  Errors of decoding are TensorFlow's
            InvalidArgumentError; `.ignore_errors()` skips such files.
    """
    if crop and reduce != 1:
        raise ValueError("crop does not go with reduce")
    paths = [os.fspath(file) for file in files]
    shape = (*(crop or _size(paths, reduce)), channels)
    decode, workers = Decoder(channels, model, limits), workers or available_cores()

    def decode_path(path: bytes, data: bytes, draw: np.int64) -> np.ndarray:
        return decode(data, path.decode(errors="replace"), crop, reduce, np.random.default_rng([seed, int(draw)]))

    def load_image(path: tf.Tensor, draw: tf.Tensor) -> tf.Tensor:
        pixels = tf.numpy_function(decode_path, [path, tf.io.read_file(path), draw], tf.uint8)
        return tf.ensure_shape(pixels, shape)

    order = tf.data.Dataset.from_tensor_slices(paths)
    if shuffle:
        order = order.shuffle(len(paths), seed=seed, reshuffle_each_iteration=True)
    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    return tf.data.Dataset.zip(order, draws).map(load_image, num_parallel_calls=workers, deterministic=deterministic)


def decode_image(contents: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Decode the bytes of a .vae file, string[], to u8[H, W, channels] in a graph, like tf.io.decode_jpeg.

    With 3 channels, grey becomes RGB; alpha is left out.  Damage raises an error of TensorFlow.
    """
    decode = _decoders.setdefault(channels, Decoder(channels))
    pixels = tf.numpy_function(lambda data: decode(data, "image"), [contents], tf.uint8)
    return tf.ensure_shape(pixels, [None, None, channels])


class Decoder:
    """Decode in several threads: each call uses a codec of its own, as calls of one codec take turns."""

    def __init__(self, channels: int = 3, model: str | None = None, limits: Limits | None = DEFAULT_LIMITS) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels are {channels!r}, expected 1 or 3")
        self._channels, self._model, self._limits = channels, model, limits
        self._idle: defaultdict[str, deque[Codec]] = defaultdict(deque)  # by model id

    def __call__(
        self,
        data: bytes,
        name: str,
        crop: tuple[int, int] | None = None,
        reduce: int = 1,
        rng: np.random.Generator | None = None,
    ) -> np.ndarray:
        """Decode a file or a random crop of it to u8[H, W, channels]; raises ValueError, for TensorFlow."""
        try:
            head = image_file.contents(data, check_data=False).header
            image_file.check_is_image(head)
            window = None
            if crop is not None and rng is not None:
                if head.height < crop[0] or head.width < crop[1]:
                    raise ValueError(
                        f"{head.width} x {head.height} pixels are smaller than the crop of {crop[1]} x {crop[0]}"
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
        """Lend an idle codec, or a new one; None for a fallback coding, which needs none."""
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
            raise CodecError("has 16 bits per sample")
        if self._channels == 3:
            return split_alpha(samples)[0]
        if count_channels(samples) > 2:
            raise CodecError("has colours, which 1 channel cannot hold")
        return samples.reshape(*samples.shape[:2], -1)[..., :1]


_decoders: dict[int, Decoder] = {}


def _size(paths: list[str], reduce: int) -> tuple[int | None, int | None]:
    """Return the (height, width) that all headers give, or (None, None); raises CodecError on a damaged header."""
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
