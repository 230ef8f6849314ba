"""Run both transforms in TensorFlow, a batch of images at a time, for GPUs: the same integers as the native core.

Integers are carried in float64, which is exact up to 2**53; a shift is a multiplication by a power of two and a floor.
They are not int32 because TensorFlow adds and multiplies int32 on the host, even if a graph runs on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import tensorflow as tf

from vaecodec.config import Config
from vaecodec.errors import CodecError
from vaecodec.native.networks import Block, Dense, Depthwise
from vaecodec.native.reference.prior import MULTIPLIER_BITS
from vaecodec.native.reference.transforms import FINE_CELL, STEPS
from vaecodec.native.transforms import FilterWeights
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import load_analysis
from vaecodec.transforms.networks import ACTIVATION_MAX, Analysis, Arrays, Synthesis, restored
from vaecodec.transforms.wavelet import OCTAVES, SIDES, SUBBANDS, Coefficients

REAL = tf.float64
WORD = 32  # bits of coefficients, whose arithmetic wraps
BYTE = 256.0
# Compute capabilities of GPUs that compute in float64 at half the rate of float32; others at a 32nd or a 64th.
FAST_FLOAT64 = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}

Product = Callable[[tf.Tensor, np.ndarray], tf.Tensor]  # [..., inputs] and i16[inputs, outputs] -> [..., outputs]


def constant(values: np.ndarray) -> tf.Tensor:
    """A constant of the traced graph, which thereby holds the weights and can be exported."""
    return tf.constant(np.asarray(values, np.float64))


def rounded(x: tf.Tensor, bits: np.ndarray | int) -> tf.Tensor:
    """round(x / 2**bits), halves up."""
    return tf.floor(x * np.ldexp(1.0, -np.asarray(bits)) + 0.5)


def wrapped(x: tf.Tensor, bits: int = WORD) -> tf.Tensor:
    """x modulo 2**bits, at least -2**(bits - 1).

    For an int32 that wraps, round(x, b) is wrapped(rounded(x, b), 32 - b).
    """
    return x - tf.floor(x * 2.0**-bits + 0.5) * 2.0**bits


def narrow(x: tf.Tensor, low: int = -ACTIVATION_MAX) -> tf.Tensor:
    """x clipped to low..32767."""
    return tf.clip_by_value(x, float(low), float(ACTIVATION_MAX))


def float64_product(x: tf.Tensor, kernel: np.ndarray) -> tf.Tensor:
    """x times the kernel of a layer; exact, because a layer refuses weights whose sums could reach 2**31."""
    return tf.tensordot(x, constant(kernel), 1)


def bytes_product(x: tf.Tensor, kernel: np.ndarray) -> tf.Tensor:
    """float64_product by products in float32 of bytes, -128 to 128, two for each factor.

    Bytes stay exact in libraries that round the factors of a float32 product to TF32 or bfloat16.  Sums stay below
    2**24 and are exact: the sums of a layer are below 2**31 for inputs of 32767, so the magnitudes of the weights of an
    output sum to at most 65538; no byte is larger than its weight; and 128 * 65538 is below 2**24.
    """
    outputs = kernel.shape[1]
    weights = kernel.astype(np.float64)
    high = np.floor(weights / BYTE + 0.5)
    factors = tf.constant(np.concatenate([high, weights - BYTE * high], 1).astype(np.float32))
    x_high = rounded(x, 8)
    parts = (tf.tensordot(tf.cast(part, tf.float32), factors, 1) for part in (x_high, x - BYTE * x_high))
    (a, b), (c, d) = (tf.split(tf.cast(part, REAL), [outputs, outputs], -1) for part in parts)
    return (a * BYTE + (b + c)) * BYTE + d


class Layers:
    """The layers of native.networks on [B, h, w, channels]."""

    def __init__(self, product: Product) -> None:
        self.product = product

    def dense(
        self, layer: Dense, x: tf.Tensor, residual: tf.Tensor | None = None, multiplier: tf.Tensor | None = None
    ) -> tf.Tensor:
        t = rounded(self.product(x, layer.kernel) + constant(layer.bias), layer.shifts)
        if layer.form == "gate":
            a, b = tf.split(t, [layer.channels, layer.channels], -1)
            t = rounded(narrow(a, 0) * narrow(b), layer.gate)
        t = narrow(t, 0 if layer.form == "relu" else -ACTIVATION_MAX)
        if residual is not None:
            t = narrow(t + residual)
        return t if multiplier is None else narrow(rounded(t * multiplier, MULTIPLIER_BITS))

    def depthwise(self, layer: Depthwise, x: tf.Tensor) -> tf.Tensor:
        """Always in float64, for which no library uses a transform that would round (Winograd, FFT)."""
        taps = constant(layer.kernel)[..., None]
        sums = tf.nn.depthwise_conv2d(x, taps, [1, 1, 1, 1], "SAME") + constant(layer.bias)
        return narrow(rounded(sums, layer.shifts))

    def block(self, block: Block, x: tf.Tensor, multiplier: tf.Tensor | None = None) -> tf.Tensor:
        spread = self.depthwise(block.space, self.dense(block.enter, x))
        x = self.dense(block.out, spread, residual=x)
        return self.dense(block.mix, self.dense(block.gate, x), residual=x, multiplier=multiplier)

    def blocks(self, blocks: list[Block], x: tf.Tensor, multiplier: tf.Tensor | None = None) -> tf.Tensor:
        """Run blocks, the last of which multiplies its result."""
        for number, block in enumerate(blocks):
            x = self.block(block, x, multiplier if number == len(blocks) - 1 else None)
        return x


def unshuffle(x: tf.Tensor, side: int) -> tf.Tensor:
    """[B, h * side, w * side, C] -> [B, h, w, side * side * C]: positions of a cell by row, channels innermost."""
    shape, channels = tf.shape(x), x.shape[3]
    h, w = shape[1] // side, shape[2] // side
    x = tf.reshape(x, [-1, h, side, w, side, channels])
    return tf.reshape(tf.transpose(x, [0, 1, 3, 2, 4, 5]), [-1, h, w, side * side * channels])


def shuffle(x: tf.Tensor, side: int) -> tf.Tensor:
    """The inverse of unshuffle."""
    shape, channels = tf.shape(x), x.shape[3] // (side * side)
    h, w = shape[1], shape[2]
    x = tf.reshape(x, [-1, h, w, side, side, channels])
    return tf.reshape(tf.transpose(x, [0, 1, 3, 2, 4, 5]), [-1, h * side, w * side, channels])


def cells_of(planes: tf.Tensor, side: int) -> tf.Tensor:
    """[B, P, h * side, w * side] -> [B, h, w, P * side * side], plane by plane, each by row."""
    shape, count = tf.shape(planes), planes.shape[1]
    h, w = shape[2] // side, shape[3] // side
    x = tf.reshape(planes, [-1, count, h, side, w, side])
    return tf.reshape(tf.transpose(x, [0, 2, 4, 1, 3, 5]), [-1, h, w, count * side * side])


def planes_of(cells: tf.Tensor, side: int) -> tf.Tensor:
    """The inverse of cells_of."""
    shape, count = tf.shape(cells), cells.shape[3] // (side * side)
    h, w = shape[1], shape[2]
    x = tf.reshape(cells, [-1, h, w, count, side, side])
    return tf.reshape(tf.transpose(x, [0, 3, 1, 4, 2, 5]), [-1, count, h * side, w * side])


def _slice(x: tf.Tensor, axis: int, first: int | None, last: int | None, step: int | None = None) -> tf.Tensor:
    """x[first:last:step] along an axis."""
    return x[(slice(None),) * axis + (slice(first, last, step),)]


def _lift(even: tf.Tensor, odd: tf.Tensor, axis: int, step: int, sign: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Lifting step 0 to 3 along an axis, or its inverse where sign is -1; edges are mirrored."""
    factor, bits, direction = STEPS[step]
    if step % 2 == 0:  # an even coefficient lies between odd ones, the first beside one
        other = odd + tf.concat([_slice(odd, axis, None, 1), _slice(odd, axis, None, -1)], axis)
    else:
        other = even + tf.concat([_slice(even, axis, 1, None), _slice(even, axis, -1, None)], axis)
    change = sign * direction * wrapped(rounded(other * float(factor), bits), WORD - bits)
    return (even + change, odd) if step % 2 == 0 else (even, odd + change)


def _join(even: tf.Tensor, odd: tf.Tensor, axis: int) -> tf.Tensor:
    """Coefficients -> samples, twice as many along an axis, 2 or 3."""
    for step in range(4):
        even, odd = _lift(even, odd, axis, step, 1)
    shape = tf.unstack(tf.shape(even))
    shape[axis] *= 2
    joined = tf.reshape(tf.stack([even, odd], axis + 1), shape)
    joined.set_shape([None, even.shape[1], None, None])
    return joined


def _split(samples: tf.Tensor, axis: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The inverse of _join."""
    even, odd = _slice(samples, axis, 0, None, 2), _slice(samples, axis, 1, None, 2)
    for step in (3, 2, 1, 0):
        even, odd = _lift(even, odd, axis, step, -1)
    return even, odd


def inverse_dwt(subbands: Sequence[tf.Tensor], low: tf.Tensor) -> tf.Tensor:
    """Planes [B, C, 16h, 16w] of the subbands of each octave and of the low-pass image, not yet wrapped."""
    channels = low.shape[1]
    for octave in reversed(subbands):
        columns = _join(tf.concat([low, octave[:, :channels]], 1), octave[:, channels:], 2)
        low = _join(columns[:, :channels], columns[:, channels:], 3)
    return low


def forward_dwt(low: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
    """The inverse of inverse_dwt."""
    subbands, channels = [], low.shape[1]
    for _ in range(OCTAVES):
        even, odd = _split(tf.concat(_split(low, 3), 1), 2)
        low = even[:, :channels]
        subbands.append(tf.concat([even[:, channels:], odd], 1))
    return subbands, low


def synthesis_levels(
    layers: Layers, model: Synthesis, coefficients: Sequence[tf.Tensor], fine: tf.Tensor, out: tf.Tensor
) -> tf.Tensor:
    """Planes i32 of each octave and of the low-pass image -> levels [B, 16h, 16w, C], unit 2**-6.

    `fine` and `out` i32[fine] are the multipliers of activations at the quality index.
    """
    planes = [tf.cast(plane, REAL) for plane in coefficients]
    rotated = tf.transpose(inverse_dwt(planes[:-1], planes[-1]), [0, 2, 3, 1])
    samples = narrow(wrapped(rounded(tf.tensordot(rotated, constant(model.colors), 1), 14), WORD - 14))
    cells = tf.concat([cells_of(plane, side) for plane, side in zip(planes, SIDES, strict=True)], -1)
    x = layers.dense(model.latents, narrow(wrapped(rounded(cells, 3), WORD - 3)))
    x = shuffle(layers.dense(model.coarse, layers.blocks(model.coarse_blocks, x)), 2)
    x = layers.dense(model.skip, unshuffle(samples, FINE_CELL), residual=x, multiplier=tf.cast(fine, REAL))
    x = layers.blocks(model.fine_blocks, x, tf.cast(out, REAL))
    residual = shuffle(layers.dense(model.fine, x), FINE_CELL)
    return narrow(rounded(255.0 * (samples + residual), 8))


def pixels_of(levels: tf.Tensor) -> tf.Tensor:
    """Levels, of which 0 stands for 127.5 -> u8, rounded and clipped."""
    return tf.cast(tf.clip_by_value(tf.floor(levels / 64.0) + 128.0, 0.0, 255.0), tf.uint8)


def analysis_coefficients(
    layers: Layers, model: Analysis, pixels: tf.Tensor, fine: tf.Tensor, out: tf.Tensor
) -> list[tf.Tensor]:
    """u8[B, 16h, 16w, C] -> planes i32 of each octave and of the low-pass image.

    `fine` i32[fine] and `out` i32[coarse] are the multipliers of activations at the quality index.
    """
    centred = 2.0 * tf.cast(pixels, REAL) - 255.0
    rotated = 257.0 * tf.tensordot(centred, constant(model.colors.T), 1)
    subbands, low = forward_dwt(tf.transpose(rounded(rotated, 17), [0, 3, 1, 2]))
    x = layers.dense(model.fine, unshuffle(64.0 * centred, FINE_CELL), multiplier=tf.cast(fine, REAL))
    x = layers.dense(model.coarse, unshuffle(layers.blocks(model.fine_blocks, x), 2))
    residual = layers.dense(model.latents, layers.blocks(model.coarse_blocks, x, tf.cast(out, REAL)))
    counts = [SUBBANDS * model.channels * side * side for side in SIDES[:-1]] + [model.channels]
    planes = zip((*subbands, low), tf.split(residual, counts, -1), SIDES, strict=True)
    return [tf.cast(wrapped(plane + planes_of(cells, side)), tf.int32) for plane, cells, side in planes]


class TensorFlowTransforms:
    """Transforms of a model in TensorFlow, on a GPU if there is one.  Implements backends.Transforms."""

    batch = 16  # tiles of 512 x 512: enough to fill a GPU

    def __init__(
        self,
        config: Config,
        arrays: Arrays,
        name: str = "",
        device: str = "tensorflow",
        product: Product | None = None,
    ) -> None:
        """See backends.load_transforms; `product` is that of dense layers, by default the faster one."""
        gpus = tf.config.list_physical_devices("GPU")
        if device == "gpu" and not gpus:
            raise CodecError("device is 'gpu', and TensorFlow sees no GPU on this machine")
        self._config = config
        self._analysis = lru_cache(maxsize=None)(lambda tune: load_analysis(config, arrays, name, tune))
        self._layers = Layers(product or fast_product(gpus))
        self._synthesis = Synthesis(config, arrays)
        width, channels = tf.TensorSpec([config.fine], tf.int32), config.channels
        counts = [SUBBANDS * channels] * OCTAVES + [channels]
        planes = [tf.TensorSpec([None, count, None, None], tf.int32) for count in counts]

        @tf.function(autograph=False, input_signature=[planes, width, width])
        def levels(coefficients: list[tf.Tensor], fine: tf.Tensor, out: tf.Tensor) -> tf.Tensor:
            return tf.cast(synthesis_levels(self._layers, self._synthesis, coefficients, fine, out), tf.int16)

        @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, None, None, channels], tf.int16)])
        def pixels(levels: tf.Tensor) -> tf.Tensor:
            return pixels_of(tf.cast(levels, REAL))

        self.level_function, self.pixel_function = levels, pixels
        self.analysis_function = lru_cache(maxsize=None)(self._trace_analysis)

    def _trace_analysis(self, tune: str) -> Callable[..., list[tf.Tensor]]:
        """(u8[B, 16h, 16w, C], multipliers i32[fine] and i32[coarse]) -> planes; raises ModelError as load_analysis."""
        config, model = self._config, self._analysis(tune)
        images = tf.TensorSpec([None, None, None, config.channels], tf.uint8)
        fine, coarse = (tf.TensorSpec([width], tf.int32) for width in (config.fine, config.coarse))

        @tf.function(autograph=False, input_signature=[images, fine, coarse])
        def coefficients(pixels: tf.Tensor, fine: tf.Tensor, out: tf.Tensor) -> list[tf.Tensor]:
            return analysis_coefficients(self._layers, model, pixels, fine, out)

        return coefficients

    def analysis(
        self, images: Sequence[np.ndarray], quality_index: int, threads: Threads = ONE_THREAD, tune: str = "psnr"
    ) -> list[Coefficients]:
        of = self._analysis(tune).multipliers.at
        planes = self.analysis_function(tune)(np.stack(images), of("fine", quality_index), of("out", quality_index))
        return [Coefficients(list(subbands), low) for *subbands, low in zip(*(p.numpy() for p in planes), strict=True)]

    def levels(
        self, coefficients: Sequence[Coefficients], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[np.ndarray]:
        return list(self._levels(coefficients, quality_index).numpy())

    def pixels(
        self,
        coefficients: Sequence[Coefficients],
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> list[np.ndarray]:
        """See Transforms; the core applies the restoration filter."""
        if weights is None:
            return list(self.pixel_function(self._levels(coefficients, quality_index)).numpy())
        return [restored(levels, weights, threads) for levels in self.levels(coefficients, quality_index)]

    def _levels(self, coefficients: Sequence[Coefficients], quality_index: int) -> tf.Tensor:
        planes = [np.stack(parts) for parts in zip(*(image.planes() for image in coefficients), strict=True)]
        of = self._synthesis.multipliers.at
        return self.level_function(planes, of("fine", quality_index), of("out", quality_index))


def fast_product(gpus: Sequence[tf.config.PhysicalDevice]) -> Product:
    """float64_product if float64 is fast: on CPUs, where it takes half the time, and on scientific GPUs."""
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    fast = all(gpu.get("compute_capability") in FAST_FLOAT64 for gpu in details)
    return float64_product if fast else bytes_product
