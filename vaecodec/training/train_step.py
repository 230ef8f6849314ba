"""The training step as a pure function: Adam on a flat state, on one or several devices, or exported as StableHLO.

    step: (state, images u8[B, crop, crop, C], lr f32[], seed i32[2]) -> (state, metrics f32[4])
    state = [weights, moment1, moment2, average, count]        vectors f32[P] of all weights in order of name

One long vector takes few operations, where a hundred weights would take a fifth of a step on a CPU.  Nothing else goes
in or out, so the same step runs here and, exported, where JAX runs but TensorFlow does not.

The analysis for the eye has a loss of its own: at equal SSIMULACRA2 as few bits as can be, with all that a decoder
needs as it is.  Steps are tilted and bits have the prices of `rdo.prices`, as encoders have it.
"""

from __future__ import annotations

import glob
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec.arguments import TUNES
from vaecodec.config import ANCHORS, INDICES_PER_ANCHOR, QUALITY_INDICES, Config
from vaecodec.errors import CodecError
from vaecodec.images.metrics import SSIM_LEAST
from vaecodec.native.prior import LOWEST_DISTANCES
from vaecodec.rdo import prices
from vaecodec.training import operations
from vaecodec.training.densities import load_trellis
from vaecodec.training.layers import pointwise
from vaecodec.training.operations import ms_ssim, ssimulacra2
from vaecodec.training.vae import VAE, Loss, Tensor, initial_weights, mean_loss
from vaecodec.transforms.networks import PIXEL_BITS, color_transform
from vaecodec.transforms.wavelet import NORM, OCTAVES

# How fast the logarithm of the rate of `base` rises with SSIMULACRA2, MS-SSIM in dB, and PSNR, by quality index.
INDICES = (228.0, 408.0, 580.0, 743.0, 956.0, 1182.0)
PER_POINT = (0.0257, 0.0285, 0.0367, 0.0509, 0.0795, 0.1246)
PER_MS_SSIM_DECIBEL = (0.3, 0.255, 0.215, 0.183, 0.16, 0.15)
PER_DECIBEL = (0.272, 0.242, 0.213, 0.1915, 0.1655, 0.1458)
MS_SSIM_SHARE = PSNR_SHARE = 0.15  # of the loss, so that what the metric does not see stays as it is
LEAST_DISSIMILARITY = 5e-4  # added to 1 - MS-SSIM before its logarithm
LEAST_RATE = 0.02  # bits a pixel, added to a rate before its logarithm
LEAST_ERROR = 0.05  # squared, of the PSNR


def eye_loss(vae: VAE, x: Tensor, quality: Tensor, seed: Tensor) -> Loss:
    """The logarithm of the rate, less what it costs to reach the quality otherwise.

    Args:
        vae: of images of three channels.
        x: u8[B, H, W, 3], sides multiples of 64, and above 160 for MS-SSIM.
        quality: f32[B] in [0, A - 1], which is spread over all quality indices.
        seed: i32[2], of the noise.
    """
    x, index = tf.cast(x, tf.float32), quality * ((QUALITY_INDICES - 1) / (ANCHORS - 1))
    weights = {
        name: value if name.startswith("analysis/") else tf.stop_gradient(value) for name, value in vae.weights.items()
    }
    vae, quality = replace(vae, weights=weights, tilt=prices.TILT), index / INDICES_PER_ANCHOR
    coded = vae.code(x, quality, seed, prices=prices_of_parts(x))
    y = coded.likelihood.loc
    mse = tf.reduce_mean(tf.square(x - y), [1, 2, 3])
    psnr = _decibels(tf.maximum(mse, LEAST_ERROR) / 255.0**2)
    similarity = _decibels(1.0 + LEAST_DISSIMILARITY - ms_ssim(x, y, stride=2))
    gained = (1.0 - MS_SSIM_SHARE - PSNR_SHARE) * _between(index, PER_POINT) * ssimulacra2(x, y)
    gained += MS_SSIM_SHARE * _between(index, PER_MS_SSIM_DECIBEL) * similarity
    gained += PSNR_SHARE * _between(index, PER_DECIBEL) * psnr
    rate = coded.bpp + coded.noisy_bpp - tf.stop_gradient(coded.noisy_bpp)
    return mean_loss(tf.math.log(rate + LEAST_RATE) - gained, coded.bpp, mse, coded.lowest_bpp)


def prices_of_parts(x: Tensor) -> list[Tensor]:
    """Prices of a bit in the squares of each part, as rdo.prices.prices_of_squares has them, but not in levels.

    x is f32[B, H, W, 3] on a scale of 255; prices are f32[B, h, w, 1], and 1 for the lowest coefficients.
    """
    brightness = pointwise(x / 255.0 - 0.5, tf.constant(color_transform(3)[:1].T, tf.float32))
    sums: Tensor = 0.0  # of magnitudes in 8 x 8 pixels
    for octave in range(3):
        brightness, subbands = operations.forward_octave(brightness)
        scales = NORM ** (-2 * octave) * np.array([1.0, 1.0, NORM**2], np.float32)
        magnitudes = tf.reduce_sum(tf.abs(subbands) * scales, -1, keepdims=True)
        side = 4 >> octave
        sums += 4**octave * side**2 * tf.nn.avg_pool2d(magnitudes, side, side, "VALID")
    around = tf.pad(sums, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    activity = 9 * prices.ACTIVITY_UNIT * 2**PIXEL_BITS * tf.nn.avg_pool2d(around, 3, 1, "VALID")
    price = prices.EXPONENT * tf.math.log((prices.FLOOR + activity) / prices.TYPICAL)
    squares = [tf.repeat(tf.repeat(price, 2, 1), 2, 2), price]
    for _ in range(2, OCTAVES + 1):
        price = tf.nn.avg_pool2d(price, 2, 2, "SAME")
        squares.append(price)
    lowest = [tf.ones([])] * (1 + len(LOWEST_DISTANCES))
    return lowest + [tf.exp(price) for price in reversed(squares) for _ in range(2)]


def _decibels(error: Tensor) -> Tensor:
    """-10 log10(error)."""
    return -10.0 / math.log(10.0) * tf.math.log(error)


def _between(index: Tensor, values: tuple[float, ...]) -> Tensor:
    """Values f32[B] at quality indices f32[B], rounded down, linear between INDICES and constant beyond."""
    table = np.interp(np.arange(QUALITY_INDICES), INDICES, values).astype(np.float32)
    return tf.gather(tf.constant(table), tf.cast(index, tf.int32))


Step = Callable[..., Any]
METRICS = ("loss", "bpp", "psnr", "lowest_bpp")
GROUPS = ("weights", "moment1", "moment2", "average")
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Kingma and Ba 2015, section 2
MAX_GRADIENT_NORM = 1.0
AVERAGE_DECAY = 0.999  # of the running average of the weights, which is what is frozen
TOWER_SEED_DISTANCE = 1 << 20
# Learning rate: (fraction of the run, factor), linear in between.
SCHEDULE = ((0.0, 0.05), (0.01, 1.0), (0.2, 1.0), (0.5, 0.4), (0.75, 0.14), (0.9, 0.05), (1.0, 0.01))
MAX_FILE_BYTES = 14 << 20  # of an exported state, unless one array is larger
PIECE_LENGTH = 13 << 18  # numbers in a piece of a vector: 13 MiB, so a file holds one piece


@dataclass
class Options:
    """Options of a run, stored in its checkpoint."""

    batch: int = 8
    crop: int = 128
    rate: float = 1.2e-3
    minutes: float = 60.0  # training time of the whole run, over all its starts
    steps: int = 0  # of the whole run, if not 0; the run ends at whichever comes first
    hard_from: float = 0.85  # fraction of the run after which the analysis, or with a trellis all but the prior, stays
    seed: int = 0
    bfloat16: bool = False
    ms_ssim: float = 0.0  # share of 1 - MS-SSIM in the distortion, in place of squared error
    enlarged: float = 0.0  # fraction of crops that are enlarged, up to twofold
    vivid: float = 0.0  # fraction of crops whose colours are extreme
    trellis: str = ""  # model whose trellis chooses symbols; "" for none
    tune: str = "psnr"  # "eye" trains the analysis alone, by SSIMULACRA2
    towers: int = 1  # parts of a batch that are computed in parallel


class Layout:
    """The places of weights in the vector f32[P]."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.names = sorted(weights)
        self.shapes = [weights[name].shape for name in self.names]
        self.sizes = [math.prod(shape) for shape in self.shapes]

    def pack(self, weights: Mapping[str, np.ndarray]) -> np.ndarray:
        """Concatenate weights to f32[P]."""
        return np.concatenate([np.asarray(weights[name], np.float32).ravel() for name in self.names])

    def unpack(self, vector: Any) -> dict[str, Any]:
        """The weights by name in f32[P], of NumPy or TensorFlow; the inverse of pack."""
        if isinstance(vector, np.ndarray):
            vectors = np.split(vector, np.cumsum(self.sizes)[:-1])
            return {name: part.reshape(s) for name, part, s in zip(self.names, vectors, self.shapes, strict=True)}
        tensors = zip(self.names, tf.split(vector, self.sizes), self.shapes, strict=True)
        return {name: part if len(shape) == 1 else tf.reshape(part, shape) for name, part, shape in tensors}

    def initial_state(self, weights: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The state at step 0."""
        vector = self.pack(weights)
        return [vector, np.zeros_like(vector), np.zeros_like(vector), vector, np.zeros((), np.float32)]


def update(state: list[Tensor], gradient: Tensor, rate: Tensor) -> list[Tensor]:
    """The state after one step of Adam along a gradient f32[P], clipped in norm."""
    weights, first, second, average, count = state
    count += 1.0
    gradient = tf.clip_by_norm(gradient, MAX_GRADIENT_NORM)
    rate *= tf.sqrt(1.0 - BETA2**count) / (1.0 - BETA1**count)
    first += (1 - BETA1) * (gradient - first)
    second += (1 - BETA2) * (gradient * gradient - second)
    weights -= rate * first / (tf.sqrt(second) + EPSILON)
    decay = tf.minimum(AVERAGE_DECAY, count / (count + 10.0))  # the average forgets the initial weights quickly
    return [weights, first, second, average + (1 - decay) * (weights - average), count]


def spread(options: Options, devices: int = 1) -> None:
    """Set options.towers to the largest divisor of the batch that cores can serve, with a core for each tower.

    With several `devices` and no GPU, also divide the CPU into logical devices.  Has no effect on a TensorFlow that is
    initialised already.
    """
    if devices > 1 and not tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):
            cpus = [tf.config.LogicalDeviceConfiguration()] * devices
            tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], cpus)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options.towers = max(n for n in range(1, min(cores, options.batch) + 1) if options.batch % n == 0)
    with suppress(RuntimeError):
        tf.config.threading.set_inter_op_parallelism_threads(options.towers)
        tf.config.threading.set_intra_op_parallelism_threads(max(1, cores // options.towers))


def make_tower(config: Config, options: Options, hard: bool) -> Callable[..., tuple[Tensor, Tensor]]:
    """A function of weights f32[P], part of a batch, its qualities, seed and number: gradient f32[P], metrics f32[4].

    Raises CodecError if the batch cannot be divided between towers, or MS-SSIM cannot be computed.
    """
    if not 0 <= options.ms_ssim <= 1:
        raise CodecError(f"the share of MS-SSIM is {options.ms_ssim}, expected 0 to 1")
    if options.ms_ssim and options.crop <= SSIM_LEAST:
        raise CodecError(f"crops of {options.crop} are too small for MS-SSIM, which needs more than {SSIM_LEAST}")
    if options.tune not in TUNES:
        raise CodecError(f"tune is {options.tune!r}, expected {' or '.join(TUNES)}")
    if options.tune == "eye" and (config.channels != 3 or options.crop % 64 or options.crop <= SSIM_LEAST):
        raise CodecError("training for the eye takes RGB, and crops of 192, 256 or another multiple of 64")
    if options.batch % max(options.towers, 1):
        raise CodecError(f"a batch of {options.batch} cannot be divided between {options.towers} towers")
    trellis = load_trellis(options.trellis) if options.trellis else None
    operands, layout = tf.bfloat16 if options.bfloat16 else tf.float32, Layout(initial_weights(config))

    def tower(weights: Tensor, x: Tensor, quality: Tensor, seed: Tensor, number: Any) -> tuple[Tensor, Tensor]:
        seed += [0, (number + 1) * TOWER_SEED_DISTANCE]
        with tf.GradientTape() as tape:
            tape.watch(weights)
            vae = VAE(config, layout.unpack(weights), operands, options.ms_ssim)
            if options.tune == "eye":
                loss = eye_loss(vae, x, quality, seed)
            elif trellis and hard:
                loss = vae.prior_loss(x, quality, trellis)
            else:
                loss = vae.loss(x, quality, seed, hard, trellis)
        return tape.gradient(loss.loss, weights), tf.stack([getattr(loss, name) for name in METRICS])

    return tower


def strategy_for(devices: int) -> tf.distribute.Strategy:
    """Mirror weights on GPUs, or logical CPUs if there are none; raises CodecError if there are too few."""
    available = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(available) < devices:
        kind = available[0].device_type
        raise CodecError(f"{devices} devices are requested, but TensorFlow has {len(available)} of type {kind}")
    return tf.distribute.MirroredStrategy([device.name for device in available[:devices]])


def make_step(
    config: Config, options: Options, hard: bool = False, strategy: tf.distribute.Strategy | None = None
) -> Step:
    """The pure training step over (state, images, lr, seed).

    The batch is divided between `options.towers` towers that share nothing but the sum of their gradients.  Each can
    occupy a core, because small operations parallelise badly inside.  With a strategy, the towers are divided between
    its devices, at least one on each: weights go to each device and the sum of its gradients comes back to the first.
    Results differ by the order of sums alone.
    """
    devices = strategy.num_replicas_in_sync if strategy else 1
    share = max(options.towers // devices if options.towers % devices == 0 else 1, 1)  # towers of a device
    towers = share * devices
    size, tower = options.batch // towers, make_tower(config, replace(options, towers=towers), hard)
    if share > 1:
        tower = tf.function(tower, autograph=False)  # traced once

    def run_share(weights: Tensor, images: Tensor, quality: Tensor, seed: Tensor) -> list[Tensor]:
        device = tf.distribute.get_replica_context().replica_id_in_sync_group if strategy else 0
        results = []
        for n in range(share):
            number = device * share + n
            x = tf.ensure_shape(images[number * size : (number + 1) * size], [size, *images.shape[1:]])
            q = tf.ensure_shape(quality[number * size : (number + 1) * size], [size])
            results.append(tower(weights, x, q, seed, tf.convert_to_tensor(number)))
        return [tf.add_n([value / towers for value in values]) for values in zip(*results, strict=True)]

    def step(state: list[Tensor], images: Tensor, lr: Tensor, seed: Tensor) -> tuple[list[Tensor], Tensor]:
        quality = tf.random.stateless_uniform([options.batch], seed, 0.0, ANCHORS - 1.0)
        arguments = state[0], images, quality, seed
        if strategy is None:
            gradient, metrics = run_share(*arguments)
        else:
            results = strategy.run(run_share, args=arguments)
            gradient, metrics = (strategy.reduce(tf.distribute.ReduceOp.SUM, x, axis=None) for x in results)
        return update(state, gradient, lr), metrics

    return step


def split_state(state: list[Any]) -> list[Any]:
    """Cut the vectors of a state, of NumPy or TensorFlow, into pieces of PIECE_LENGTH; the count stays."""
    starts = range(0, int(state[0].shape[0]), PIECE_LENGTH)
    return [*(vector[start : start + PIECE_LENGTH] for vector in state[:-1] for start in starts), state[-1]]


def join_state(pieces: list[Any], concatenate: Callable[[list[Any], int], Any]) -> list[Any]:
    """The inverse of split_state."""
    count = (len(pieces) - 1) // len(GROUPS)
    return [*(concatenate(pieces[n * count : (n + 1) * count], 0) for n in range(len(GROUPS))), pieces[-1]]


def export_step(config: Config, options: Options, folder: str, state: list[np.ndarray], hard: bool = False) -> None:
    """Write a bundle to train elsewhere, starting from a state.

    A bundle is a folder of step.mlir (the step as StableHLO text), state-*.npz (arrays 00000, 00001, ... of the state,
    with vectors cut into pieces) and spec.json (batch, crop, metrics, learning rate, config).  Call it as

        state, metrics = step(*state, images u8[B, crop, crop, C], lr f32[], seed i32[2])

    and return the state in files of the same form.  `hard` exports the step of the last phase.
    """
    os.makedirs(folder, exist_ok=True)
    step, pieces = make_step(config, options, hard), split_state(state)
    count = len(pieces)

    @tf.function(jit_compile=True, autograph=False)  # type: ignore[untyped-decorator]
    def flat(*arguments: Tensor) -> list[Tensor]:
        after, metrics = step(join_state(list(arguments[:count]), tf.concat), *arguments[count:])
        return [*split_state(after), metrics]

    images = np.zeros((options.batch, options.crop, options.crop, config.channels), np.uint8)
    arguments = [*map(tf.constant, pieces), tf.constant(images), tf.constant(0.0), tf.constant([0, 0])]
    text = flat.experimental_get_compiler_ir(*arguments)(stage="stablehlo")
    with open(os.path.join(folder, "step.mlir"), "w") as file:
        file.write(text)
    spec = {
        "batch": options.batch,
        "crop": options.crop,
        "metrics": list(METRICS),
        "learning_rate": [[at, factor * options.rate] for at, factor in SCHEDULE],
        "config": config.to_dict(),
    }
    with open(os.path.join(folder, "spec.json"), "w") as file:
        json.dump(spec, file, indent=1)
    parts: list[dict[str, np.ndarray]] = [{}]
    for index, piece in enumerate(pieces):
        if parts[-1] and sum(array.nbytes for array in parts[-1].values()) + piece.nbytes > MAX_FILE_BYTES:
            parts.append({})
        parts[-1][f"{index:05d}"] = piece
    for number, part in enumerate(parts):
        np.savez(os.path.join(folder, f"state-{number:02d}.npz"), **part)  # type: ignore[arg-type]


def load_pieces(folder: str) -> list[np.ndarray]:
    """Read the pieces of the state in a bundle; raises CodecError if there are none."""
    arrays: dict[str, np.ndarray] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "state*.npz"))):
        with np.load(path, allow_pickle=False) as part:
            arrays.update({name: part[name] for name in part.files})
    if not arrays:
        raise CodecError(f"{folder}: contains no state-*.npz")
    return [arrays[name] for name in sorted(arrays)]
