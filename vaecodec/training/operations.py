"""Operations on images [B, H, W, C] in TensorFlow, with gradients: wavelets, neighbourhoods, MS-SSIM and SSIMULACRA2.

Shapes are known when a graph is made, which saves it most of its operations.  Wavelets are those of
`transforms.wavelet` and `transforms.latents`, as products with matrices.  The two metrics are those of
`images.metrics`, for losses.  SSIMULACRA2 is that of Sneyers (github.com/cloudinary/ssimulacra2,
version 2.1); its constants are those of the package `ssimulacra2`:

    image, at six scales --> XYB --> errors of structure, new edges, lost edges --> norms --> one score
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec.config import CELL, STRIDE
from vaecodec.images.metrics import SSIM_C1, SSIM_C2, SSIM_TAPS, SSIM_WEIGHTS, gaussian
from vaecodec.native.prior import lowest_neighbours, lowest_parts, lowest_places
from vaecodec.native.reference.prior import octave_order
from vaecodec.transforms.wavelet import BLOCK, OCTAVES, REACH, SUBBANDS, merge_axis, split_axis

Tensor = Any


def dwt_macs(samples: int, octaves: range) -> int:
    """Multiply-accumulates of these octaves of a transform of so many samples, as products with banded matrices."""
    return sum(2 * (BLOCK + 2 * REACH) * (samples >> (2 * octave)) for octave in octaves)


def forward_dwt(x: Tensor) -> Tensor:
    """Transform f[B, H, W, C], sides multiples of 16, to y f[B, h, w, 256 C]."""
    octaves = []
    for _ in range(OCTAVES):
        x, subbands = forward_octave(x)
        octaves.append(subbands)
    return pack(x, octaves)


def inverse_dwt(y: Tensor) -> Tensor:
    """The inverse of forward_dwt."""
    low, octaves = unpack(y)
    for subbands in reversed(octaves):
        low = inverse_octave(low, subbands)
    return low


def forward_octave(x: Tensor) -> tuple[Tensor, Tensor]:
    """Split f[B, H, W, C] into low f[B, H/2, W/2, C] and subbands f[B, H/2, W/2, 3 C].

    Products with matrices take a tenth of the operations of lifting.
    """
    columns = _product(_split_matrix(x.shape[2]), tf.transpose(x, [2, 0, 1, 3]))
    rows = _product(_split_matrix(x.shape[1]), tf.transpose(columns, [2, 1, 0, 3]))
    low, *subbands = (
        quarter for half in tf.split(tf.transpose(rows, [1, 0, 2, 3]), 2, 1) for quarter in tf.split(half, 2, 2)
    )
    return low, tf.concat(subbands, -1)


def inverse_octave(low: Tensor, subbands: Tensor) -> Tensor:
    """The inverse of forward_octave."""
    across, down, both = tf.split(subbands, SUBBANDS, -1)
    joined = tf.concat([tf.concat([low, across], 2), tf.concat([down, both], 2)], 1)
    rows = _product(_merge_matrix(joined.shape[1]), tf.transpose(joined, [1, 0, 2, 3]))
    columns = _product(_merge_matrix(joined.shape[2]), tf.transpose(rows, [2, 1, 0, 3]))
    return tf.transpose(columns, [1, 2, 0, 3])


def _product(matrix: np.ndarray, x: Tensor) -> Tensor:
    """Multiply along the first axis of x."""
    return tf.reshape(tf.matmul(tf.constant(matrix, x.dtype), tf.reshape(x, [len(matrix), -1])), x.shape)


@lru_cache(maxsize=64)
def _split_matrix(length: int) -> np.ndarray:
    """f64[length, length]: times samples, this is low-pass coefficients followed by detail."""
    return np.concatenate(split_axis(np.eye(length), 0))


@lru_cache(maxsize=64)
def _merge_matrix(length: int) -> np.ndarray:
    """The inverse of _split_matrix."""
    low, high = np.split(np.eye(length), 2)
    return merge_axis(low, high, 0)


def pack(low: Tensor, octaves: list[Tensor]) -> Tensor:
    """Arrange low f[B, h, w, C] and the subbands f[B, n h, n w, 3 C] of each octave, finest first, as y."""
    *shape, channels = low.shape
    for subbands in reversed(octaves):
        low = tf.nn.depth_to_space(tf.concat([low, subbands], -1), 2)
    places = tf.reshape(low, [shape[0], shape[1], STRIDE, shape[2], STRIDE, channels])
    return tf.reshape(tf.transpose(places, [0, 1, 3, 5, 2, 4]), [*shape, CELL * channels])


def unpack(y: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The inverse of pack."""
    *shape, latents = y.shape
    channels, octaves = latents // CELL, []
    places = tf.transpose(tf.reshape(y, [*shape, channels, STRIDE, STRIDE]), [0, 1, 4, 2, 5, 3])
    low = tf.reshape(places, [shape[0], shape[1] * STRIDE, shape[2] * STRIDE, channels])
    for _ in range(OCTAVES):
        low, subbands = tf.split(tf.nn.space_to_depth(low, 2), [channels, SUBBANDS * channels], -1)
        octaves.append(subbands)
    return low, octaves


def to_halves(subbands: Tensor) -> tuple[Tensor, Tensor]:
    """Split the coefficients f[B, H, W, 3 C] of an octave into halves f[B, H/2, W/2, 6 C]."""
    order = np.concatenate(octave_order(subbands.shape[3] // SUBBANDS))
    first, second = tf.split(_permute(tf.nn.space_to_depth(subbands, 2), order), 2, -1)
    return first, second


def from_halves(first: Tensor, second: Tensor) -> Tensor:
    """The inverse of to_halves."""
    order = np.argsort(np.concatenate(octave_order(first.shape[3] // 6)))
    return tf.nn.depth_to_space(_permute(tf.concat([first, second], -1), order), 2)


def _permute(x: Tensor, order: np.ndarray) -> Tensor:
    """Reorder channels; the gradient is the inverse permutation, so that TensorFlow does not scatter and add."""
    inverse = np.argsort(order)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def gather(x: Tensor) -> Any:
        return tf.gather(x, order, axis=-1), lambda gradient: tf.gather(gradient, inverse, axis=-1)

    return gather(x)


def details(low: Tensor) -> Tensor:
    """f[B, h, w, C] less the mean of the eight neighbours; edges are mirrored."""
    wide = tf.pad(low, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    rows = wide[:, :-2] + wide[:, 1:-1] + wide[:, 2:]
    sums = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return low - (sums - low) / 8


def with_magnitudes(*parts: Tensor, between: Sequence[Tensor] = ()) -> Tensor:
    """Concatenate channels: the parts, the tensors `between`, and the magnitudes of the parts."""
    return tf.concat([*parts, *between, *map(tf.abs, parts)], -1)


def lowest_masks(height: int, width: int) -> list[np.ndarray]:
    """The places bool[h, w, 1] of each part of the lowest coefficients: see native.prior.lowest_parts."""
    return [mask[..., None] for mask in lowest_parts(*np.indices((height, width)))]


def four_neighbours(x: Tensor, part: int) -> list[Tensor]:
    """The four neighbours of each place of f[B, h, w, C] that is in a part of the lowest coefficients but the first.

    See native.prior.lowest_neighbours.  Values at other places are arbitrary.
    """
    count, height, width, channels = x.shape
    places = np.zeros((4, height * width), np.int32)
    places[:, lowest_places(height, width)[1 + part]] = lowest_neighbours(height, width)[part]
    near = tf.gather(tf.reshape(x, [count, -1, channels]), places, axis=1)
    return tf.unstack(tf.reshape(near, [count, 4, height, width, channels]), axis=1)


MS_SSIM_FLOOR = 1e-4  # of a mean of contrasts, because a power has no gradient at 0


def ms_ssim(x: Tensor, y: Tensor, stride: int = 1) -> Tensor:
    """MS-SSIM f32[B] of two f32[B, H, W, C] on a scale of 255, sides above SSIM_LEAST; the mean over channels.

    The product over scales of mean(contrast * structure)^weight, with luminance at the coarsest (Wang, Simoncelli and
    Bovik 2003, section 3).  At the finest scale, which is three quarters of the work and a twentieth of the weight,
    only every `stride`th window each way is evaluated.  Blurs and means are matrix products, which on a CPU are
    several times as fast as convolutions and slices and their gradients.
    """
    count, _, _, channels = x.shape
    planes = count * channels
    x, y = (tf.reshape(tf.transpose(t, [1, 0, 3, 2]), [t.shape[1], planes, t.shape[2]]) for t in (x, y))
    product = tf.ones([planes])
    for scale, weight in enumerate(SSIM_WEIGHTS):
        if scale:
            x, y = _halve_valid(x), _halve_valid(y)
        step = 1 if scale else stride
        mean_x, mean_y = _blur_windows(x, step), _blur_windows(y, step)
        mean_product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
        luminance = (2 * mean_product + SSIM_C1) / (squares + SSIM_C1)
        covariance, variances = _blur_windows(x * y, step) - mean_product, _blur_windows(x * x + y * y, step) - squares
        contrast = (2 * covariance + SSIM_C2) / (variances + SSIM_C2)
        last = scale == len(SSIM_WEIGHTS) - 1
        mean = tf.reduce_mean(luminance * contrast if last else contrast, [0, 2])
        product *= tf.maximum(mean, MS_SSIM_FLOOR) ** weight
    return tf.reduce_mean(tf.reshape(product, [-1, channels]), 1)


def _blur_windows(x: Tensor, stride: int) -> Tensor:
    """Gaussian means over the complete windows of f32[H, planes, W], or over every `stride`th window."""
    taps, kernels = gaussian(), []
    for side in (x.shape[0], x.shape[2]):
        kernel = np.zeros((side - SSIM_TAPS + 1, side), np.float32)
        for row in range(len(kernel)):
            kernel[row, row : row + SSIM_TAPS] = taps
        kernels.append(kernel[::stride])
    down, along = kernels
    t = tf.reshape(tf.matmul(down, tf.reshape(x, [x.shape[0], -1])), [-1, x.shape[2]])
    return tf.reshape(tf.matmul(t, along, transpose_b=True), [len(down), -1, len(along)])


def _halve_valid(x: Tensor) -> Tensor:
    """Means of 2 x 2 of f32[H, planes, W], sides even."""
    height, width = x.shape[0], x.shape[2]
    down, along = (np.repeat(np.eye(side // 2, dtype=np.float32), 2, axis=0) / 2 for side in (height, width))
    t = tf.reshape(tf.matmul(tf.reshape(x, [-1, width]), along), [height, -1])
    return tf.reshape(tf.matmul(down, t, transpose_a=True), [height // 2, -1, width // 2])


SCALES = 6
LEAST_SIDE = 8  # of a scale that is compared
CHANNELS, NORMS, MAPS = 3, 2, 3  # X, Y, B - Y; means and 4-norms; structure, new edges, lost edges
LEAST_WEIGHT = 0.01  # of a 4-norm that is computed; those below it hardly change a score
TINY = 1e-18  # because a root has no gradient at 0
# The score of a weighted sum of errors.
FACTOR, CUBIC = 0.9562382616834844, (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)
RANGE, POWER = 10.0, 0.6276336467831387


def ssimulacra2(x: Tensor, y: Tensor) -> Tensor:
    """Score f32[B] of f32[B, H, W, 3] on a scale of 255 compared with x; H and W static, and at least LEAST_SIDE.

    Scales of odd sides end the pyramid, so that sides should be multiples of 32.
    """
    from ssimulacra2.ssimulacra2 import kC2, weights  # of the extra `train`

    table = weights.reshape(CHANNELS, SCALES, NORMS, MAPS)
    pair = [_linear(tf.transpose(image, [3, 0, 1, 2])) for image in (x, y)]
    total: Tensor = 0.0
    for scale in range(SCALES):
        height, width = pair[0].shape[2:]
        if min(height, width) < LEAST_SIDE:
            break
        maps = _errors(_xyb(pair[0]), _xyb(pair[1]), kC2)
        for errors, weight in zip(maps, np.moveaxis(table[:, scale], -1, 0), strict=True):
            means, fourths = weight.T.astype(np.float32)
            total += tf.tensordot(tf.constant(means), tf.reduce_mean(errors, [2, 3]), 1)
            for channel in np.flatnonzero(fourths > LEAST_WEIGHT):
                mean = tf.reduce_mean(tf.square(tf.square(errors[channel])), [1, 2])
                total += float(fourths[channel]) * tf.pow(mean + TINY, 0.25)
        if height % 2 or width % 2:
            break
        pair = [_halve(image) for image in pair]
    error = FACTOR * total
    error *= CUBIC[0] + error * (CUBIC[1] + error * CUBIC[2])
    return 100.0 - RANGE * tf.pow(tf.maximum(error, 1e-3), POWER)


def _linear(x: Tensor) -> Tensor:
    """Linear light of sRGB samples in [0, 255]; others are clipped."""
    x = tf.clip_by_value(x, 0.0, 255.0) / 255.0
    # The power is that of a positive number in either branch, for the sake of gradients.
    return tf.where(x <= 0.04045, x / 12.92, tf.pow((tf.maximum(x, 0.04) + 0.055) / 1.055, 2.4))


def _xyb(linear: Tensor) -> Tensor:
    """Linear RGB [3, B, H, W] -> X, Y and B - Y [3, B, H, W], shifted and scaled to be positive."""
    from ssimulacra2.ssimulacra2 import kB0, kOpsinAbsorbanceMatrix

    matrix = kOpsinAbsorbanceMatrix.reshape(CHANNELS, CHANNELS).astype(np.float32)
    mixed = tf.maximum(tf.tensordot(tf.constant(matrix), linear, 1) + float(kB0), 1e-4)
    long, middle, short = tf.unstack(tf.pow(mixed, 1 / 3) - float(np.cbrt(kB0)))
    y = 0.5 * (long + middle)
    return tf.stack([7.0 * (long - middle) + 0.42, y + 0.01, short - y + 0.55])


def _errors(x: Tensor, y: Tensor, c2: float) -> tuple[Tensor, Tensor, Tensor]:
    """Maps [3, B, H, W] of errors of structure (SSIM without its luminance's denominator), and of edges."""
    blur = _Blur(*x.shape[2:])
    mean_x, mean_y = blur(x), blur(y)
    covariance = blur(x * y) - mean_x * mean_y
    variances = blur(x * x + y * y) - mean_x**2 - mean_y**2
    similarity = (1.0 - (mean_x - mean_y) ** 2) * (2.0 * covariance + c2) / (variances + c2)
    edges = (1.0 + tf.abs(y - mean_y)) / (1.0 + tf.abs(x - mean_x)) - 1.0
    return tf.nn.relu(1.0 - similarity), tf.nn.relu(edges), tf.nn.relu(-edges)


class _Blur:
    """Gaussian means of [..., H, W] as products with matrices, which are faster on a CPU than convolutions.

    Rows are mirrored at their ends and columns are followed by zeros, as the package `ssimulacra2` has it.
    """

    def __init__(self, height: int, width: int) -> None:
        self._down, self._along = tf.constant(_band(height, True)), tf.constant(_band(width, False))

    def __call__(self, x: Tensor) -> Tensor:
        planes = [-1, x.shape[-2], x.shape[-1]]
        rows = tf.reshape(tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), self._along, transpose_b=True), planes)
        return tf.reshape(tf.matmul(self._down, rows), x.shape)


def _band(side: int, mirror: bool) -> np.ndarray:
    """f32[side, side]: the weights of samples in each Gaussian mean."""
    band = np.zeros((side, side))
    for row in range(side):
        for place, tap in enumerate(gaussian(), row - SSIM_TAPS // 2):
            if mirror:
                inside = place % (2 * side)
                band[row, min(inside, 2 * side - 1 - inside)] += tap
            elif 0 <= place < side:
                band[row, place] += tap
    return band.astype(np.float32)


def _halve(x: Tensor) -> Tensor:
    """Means of 2 x 2 of [3, B, H, W], sides even."""
    height, width = x.shape[2:]
    return tf.reduce_mean(tf.reshape(x, [CHANNELS, -1, height // 2, 2, width // 2, 2]), [3, 5])
