"""The VAE: posterior, priors and likelihood, and the loss that is its negative ELBO.

    x --g_a--> y                   q(y | x): the unit box around the analysis output, wavelet coefficients
    p(y) = p(lowest)  p(octave 4 | lowest)  p(octave 3 | what is coarser) ...      each in two halves
    p(x | y)                       Normal around the picture that a network makes of the inverse transform and of y

Symbols are picked as the encoder will pick them, the nearer to 0 where that is the cheaper error; the encoder's network
learns from the rate of noisy values beside.  Read `VAE.parts` side by side with `octaves.walk`.
Letters: B batch; H W pixels of C samples; h w latent cells; A anchors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec.config import (
    ANCHORS,
    CELL,
    LAMBDA_MAX,
    LAMBDA_MIN,
    SCALE_MIN,
    SCALE_RATIO,
    SQUARED_STEPS_PER_BIT,
    STRIDE,
    Config,
)
from vaecodec.model import network
from vaecodec.native.prior import LOWEST_DISTANCES
from vaecodec.training import wavelet_layers
from vaecodec.training.densities import bits, conditional, tfd
from vaecodec.training.layers import Float, on_grid, straight_through
from vaecodec.training.quantization import add_noise
from vaecodec.training.similarity import ms_ssim
from vaecodec.training.wavelet_layers import Quantised, Shapes, details, from_halves, to_halves, with_magnitudes
from vaecodec.transforms.integer import ACTIVATION_BITS, INDEX_GAIN, LOC_GAIN
from vaecodec.transforms.latents import subband_of
from vaecodec.transforms.wavelet import OCTAVES, SUBBANDS

if TYPE_CHECKING:
    from typing_extensions import Self

# Squared error that weighs as much as 1 - MS-SSIM: what `small` makes of held-out photographs, 2100 to 2400 throughout.
SIMILARITY = 2300.0
ALL_OCTAVES = OCTAVES + 1
KNOTS = 24  # centroids are learned at every second rung, and beyond the last one are alike
TAIL_START = (math.log(0.75), math.log(1.6))
LOWEST_SIGMA = 37.0  # quantisation steps, to begin with
BAND_SIGMA = 0.31

Question = tuple[tfd.Distribution, tf.Tensor, Any]  # density, index of its scale in rungs, and where it is asked


def specification(config: Config, size: int = 256) -> dict[str, Shapes]:
    """Shapes, starting deviations and multiply-accumulates of each network, on a size x size picture."""
    networks = {name: Shapes() for name in ("analysis", "prior", "synthesis")}
    network.analysis(networks["analysis"], config, (size, size, config.channels))
    network.synthesis(networks["synthesis"], config, (size // STRIDE, size // STRIDE, config.latents))
    prior, channels = networks["prior"], config.channels
    for octave in range(ALL_OCTAVES):
        cells = (size >> (octave + 2), size >> (octave + 2))
        count = 14 * channels + network.PASSED * (octave < OCTAVES)
        features = network.octave_features(prior, config, octave, (*cells, count))
        network.octave_first(prior, config, octave, features)
        network.octave_second(prior, config, octave, features, (*cells, 12 * channels))
    prior.macs["context/wavelet"] = wavelet_layers.octaves_macs(size * size * channels, range(1, ALL_OCTAVES))
    for part, (distance, corners) in enumerate(LOWEST_DISTANCES):
        side = (size >> ALL_OCTAVES) // distance
        network.lowest_part(prior, config, part, (side // 2, side // (1 + corners), 10 * channels))
    return networks


def initial_weights(config: Config, seed: int = 0) -> dict[str, np.ndarray]:
    """Starting values by name, f32: He-scaled networks around a working wavelet codec."""
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for part in specification(config).values():
        for name, weight in part.weights.items():
            deviation = weight.deviation
            weights[name] = rng.normal(0, deviation, weight.shape) if deviation else np.zeros(weight.shape)
        for name, channels in part.conditions.items():
            weights[f"{name}/condition"] = np.zeros((ANCHORS, channels))
    for side in ("analysis", "synthesis"):
        weights[f"{side}/out/condition"] += log_steps(config)[:, None]
    channels = config.channels
    weights["start"] = np.repeat(np.array([[0.0, _rung(LOWEST_SIGMA)]]), channels, 1).repeat(ANCHORS, 0)
    for octave in range(ALL_OCTAVES):
        for name in ("first", "second"):
            weights[f"context/{octave}/{name}/bias"][6 * channels :] = _rung(BAND_SIGMA)
    for number in range(len(LOWEST_DISTANCES)):
        weights[f"lowest/{number}/out/bias"][channels:] = _rung(LOWEST_SIGMA)
    weights["band_gain"] = np.zeros((ANCHORS, ALL_OCTAVES * SUBBANDS * channels))
    weights["centroid"] = np.zeros((KNOTS, 2))
    weights["tail/log_ratio"] = np.array(TAIL_START)
    weights["tail/logit"] = np.array([0.5, -0.5])
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def gain_of_latent(channels: int) -> np.ndarray:
    """i64[256 C]: the place in `band_gain` of the gain of each latent; all of the low-pass image has that of one."""
    return np.minimum(subband_of(channels), OCTAVES * SUBBANDS * channels)


def log_steps(config: Config) -> np.ndarray:
    """f64[A]: logarithms of the quantisation step at the anchors, on a scale of 1 for 255."""
    return 0.5 * np.log(
        config.lambda_channels / (SQUARED_STEPS_PER_BIT * np.geomspace(LAMBDA_MIN, LAMBDA_MAX, ANCHORS))
    ) - math.log(255)


def _rung(sigma: float) -> float:
    """The scale index that stands for a scale, as an activation."""
    return math.log(sigma / SCALE_MIN) / math.log(SCALE_RATIO) / INDEX_GAIN


def centroid(table: tf.Tensor, symbols: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    """What symbols stand for, less the mean: a little more or less than themselves, by magnitude and scale."""
    size = tf.abs(symbols)
    place = tf.clip_by_value(index / 2.0, 0.0, KNOTS - 2.0)
    first = tf.floor(place)
    part, flat = place - first, tf.reshape(table, [-1])
    first = 2 * tf.cast(first, tf.int32) + tf.cast(size > 1.5, tf.int32)
    nudge = tf.gather(flat, first) * (1.0 - part) + tf.gather(flat, first + 2) * part
    return symbols + tf.sign(symbols) * nudge


def lambda_of(quality: tf.Tensor) -> tf.Tensor:
    """lambda at `quality` in [0, A - 1]: log-spaced anchors."""
    ratio = math.log(LAMBDA_MAX / LAMBDA_MIN) / (ANCHORS - 1)
    return LAMBDA_MIN * tf.exp(quality * ratio)


class Gains(NamedTuple):
    """What quality means for each channel: real vectors f32[B, 1, 1, channels], interpolated between anchors."""

    gain: tf.Tensor  # latent units -> quantisation steps
    inverse_gain: tf.Tensor  # and back
    bands: tf.Tensor  # [B, 1, 1, O * 3 C]: of each band of each octave, against the low-pass picture
    conditions: dict[str, tf.Tensor]


class Loss(NamedTuple):
    """Scalars, mean over the batch."""

    loss: tf.Tensor
    bpp: tf.Tensor
    psnr: tf.Tensor
    lowest_bpp: tf.Tensor


class Weighted(tf.Module):
    """Of `config`; `weights` maps names to variables, or to tensors after `bind`."""

    def __init__(self, name: str, config: Any, weights: dict[str, np.ndarray]) -> None:
        super().__init__(name=name)
        self.config = config
        self.weights: dict[str, Any] = {key: tf.Variable(value, name=key) for key, value in weights.items()}

    def bind(self, weights: dict[str, tf.Tensor]) -> Self:
        """The same model over other weights, so that a training step can be a pure function of them."""
        other = copy.copy(self)
        other.weights = weights
        return other


def make(config: Config, weights: dict[str, np.ndarray] | None = None) -> VAE:
    """The VAE of an architecture, from its initial weights where none are given."""
    return VAE(config, weights)


class VAE(Weighted):
    """One model for every rate."""

    def __init__(self, config: Config, weights: dict[str, np.ndarray] | None = None, seed: int = 0) -> None:
        super().__init__("vae", config, initial_weights(config, seed) if weights is None else weights)
        self.operands = tf.float32
        self.similar = 0.0  # the part of the distortion that 1 - MS-SSIM has in place of squared error

    def gains(self, quality: tf.Tensor) -> Gains:
        """quality f32[B] in [0, A - 1] -> per-channel vectors, log-linear between anchors."""
        at = self.interpolation(quality)
        bands = at("band_gain")
        step = 0.5 * tf.math.log(self.config.lambda_channels / (SQUARED_STEPS_PER_BIT * lambda_of(quality))) - math.log(
            255.0
        )
        channels = self.config.channels
        known = tf.concat([bands[..., : OCTAVES * SUBBANDS * channels], 0 * bands[..., :1]], -1)
        gain = tf.gather(known, gain_of_latent(channels), axis=-1) - step[:, None, None, None]
        conditions = {"start": at("start"), **self.conditions(at)}
        return Gains(tf.exp(gain), tf.exp(-gain), tf.exp(bands), conditions)

    def interpolation(self, quality: tf.Tensor) -> Callable[[str], tf.Tensor]:
        """A function of a weight's name: what it is, [B, 1, 1, channels], at quality f32[B]."""
        anchors = tf.range(ANCHORS, dtype=quality.dtype)
        hat = tf.nn.relu(1.0 - tf.abs(quality[:, None] - anchors))  # [B, A]
        return lambda name: tf.matmul(hat, self.weights[name])[:, None, None, :]

    def conditions(self, at: Callable[[str], tf.Tensor]) -> dict[str, tf.Tensor]:
        """Conditioning vectors by name: factors for the transforms, sums for the prior."""
        names = [name[: -len("/condition")] for name in self.weights if name.endswith("/condition")]
        found = {name: at(f"{name}/condition") for name in names}
        return {n: tf.exp(v) if n.startswith(("analysis/", "synthesis/")) else v for n, v in found.items()}

    def analysis(self, x: tf.Tensor, gains: Gains) -> tf.Tensor:
        """f32[B, H, W, C] in [0, 255] -> y f32[B, h, w, M], before the gain."""
        ops = Float(self.weights, gains.conditions, self.operands)
        return network.analysis(ops, self.config, x / 255.0 - 0.5)

    def synthesis(self, y: tf.Tensor, gains: Gains) -> tf.Tensor:
        """y f32[B, h, w, M] in quantisation steps -> f32[B, H, W, C], in [0, 255] up to overshoot."""
        ops = Float(self.weights, gains.conditions, self.operands)
        return 255.0 * (network.synthesis(ops, self.config, y * gains.inverse_gain) + 0.5)

    def tail(self) -> tuple[tf.Tensor, tf.Tensor]:
        """(ratios f32[K], weights f32[K]) of the Normals in p(y | z)."""
        return tf.exp(self.weights["tail/log_ratio"]), tf.nn.softmax(self.weights["tail/logit"])

    def likelihood(self, mean: tf.Tensor, lmbda: tf.Tensor) -> tfd.Distribution:
        """p(x | y): Normal whose variance makes -log2 p = lambda * 255^2 * MSE a pixel, and a constant.

        Per pixel, with 3 sub-pixels and MSE on a scale of 1:  sum (x - mean)^2 / (2 s^2 ln 2) = lambda * 255^2 * MSE
        so  s^2 = 3 / (2 ln 2 * lambda)  in units of 1/255 (Balle et al. 2017, section 3).  It is that of more channels
        too, so that no sample is worth less for its company.
        """
        scale = tf.sqrt(self.config.lambda_channels / (2.0 * math.log(2.0) * lmbda))[:, None, None, None]
        return tfd.Normal(mean, scale)

    def targets(self, scaled: tf.Tensor, gains: Gains) -> list[tf.Tensor]:
        """y [B, h, w, 256 C], h and w even, in quantisation steps -> what is coded, in the order of `parts`."""
        low, bands = wavelet_layers.unpack(scaled)
        lowest, fifth = wavelet_layers.forward(low)
        fifth *= gains.bands[..., -fifth.shape[3] :]
        return [lowest] * (1 + len(LOWEST_DISTANCES)) + [
            *(half for octave in (fifth, *reversed(bands)) for half in to_halves(octave))
        ]

    def parts(self, gains: Gains, lmbda: tf.Tensor, shape: tf.Tensor) -> Generator[Question, tf.Tensor, None]:
        """p(y) p(x | y): yields densities, the indices of their scales and where they hold, and is sent values.

        `shape` is that of the lowest coefficients, [B, h, w, C].  A density that holds at half of the places is sent
        values with 0 elsewhere.
        """
        prior, config, width = Quantised(self.weights, gains.conditions), self.config, SUBBANDS * self.config.channels
        start = tf.broadcast_to(gains.conditions["start"], tf.concat([shape[:3], [2 * config.channels]], 0))
        loc, index = tf.split(start, 2, -1)
        first, *others = wavelet_layers.lowest_masks(shape[1], shape[2])
        low = yield self.asked(LOC_GAIN * loc, INDEX_GAIN * index, first)
        for part, ((distance, corners), where) in enumerate(zip(LOWEST_DISTANCES, others, strict=True)):
            near = wavelet_layers.around(low, distance, corners)
            mean = on_grid(tf.add_n(near) / 4, ACTIVATION_BITS)
            around = [prior.compand(tf.stop_gradient(one)) for one in (*(one - mean for one in near), mean)]
            loc, index = network.lowest_part(prior, config, part, with_magnitudes(*around))
            low += yield self.asked(loc + mean, index, where)
        parents, found = tf.zeros_like(tf.tile(low[:, ::2, ::2], [1, 1, 1, SUBBANDS])), list[tf.Tensor]()
        passed: list[tf.Tensor] = []
        for octave in range(OCTAVES, -1, -1):
            hidden = prior.compand(tf.stop_gradient(details(low))), prior.compand(tf.stop_gradient(parents))
            seen = with_magnitudes(tf.nn.space_to_depth(hidden[0], 2), hidden[1], beside=passed)
            features = network.octave_features(prior, config, octave, seen)
            first = yield self.asked(*network.octave_first(prior, config, octave, features))
            known = with_magnitudes(prior.compand(tf.stop_gradient(first)))
            loc, index, *handed = network.octave_second(prior, config, octave, features, known)
            passed = [tf.nn.depth_to_space(one, 2) for one in handed]
            second = yield self.asked(loc, index)
            parents = from_halves(first, second)
            found.insert(0, parents)
            if octave:
                gain = gains.bands[..., octave * width : (octave + 1) * width]
                low = wavelet_layers.inverse(low, parents / gain)
            if octave == OCTAVES:
                coarse, parents = low, found.pop()
        y = wavelet_layers.pack(coarse, found)
        yield self.likelihood(self.synthesis(y, gains), lmbda), None, None

    def asked(self, loc: tf.Tensor, index: tf.Tensor, where: Any = None) -> Question:
        """p of one part around means on the grid of latents."""
        loc = on_grid(loc, ACTIVATION_BITS)
        return conditional(loc, index, *self.tail()), index, where

    def chosen(self, density: tfd.Distribution, index: tf.Tensor, target: tf.Tensor) -> tf.Tensor:
        """Symbols: of the nearest integer and the one next to it on the side of 0, the one that costs less."""
        residual, table = target - density.base.loc, self.weights["centroid"]
        nearest = tf.round(residual)
        nearer = tf.sign(residual) * tf.maximum(tf.abs(nearest) - 1.0, 0.0)

        def cost(symbols: tf.Tensor) -> tf.Tensor:
            error = residual - centroid(table, symbols, index)
            return error * error + SQUARED_STEPS_PER_BIT * bits(density, density.base.loc + symbols)

        return tf.stop_gradient(tf.where(cost(nearer) < cost(nearest), nearer, nearest))

    def distortion(self, x: tf.Tensor, density: tfd.Distribution, lmbda: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(distortion, bits a pixel, squared error) f32[B] of x f32[B, H, W, C] under p(x | y)."""
        # All of x at its own density: the distortion, without the constant of the Normal.
        distortion = bits(density, x) - bits(density, density.loc)
        distortion = tf.reduce_sum(distortion, [1, 2, 3]) / (x.shape[1] * x.shape[2])
        mse = distortion / lmbda * (self.config.lambda_channels / self.config.channels)
        if self.similar:
            unlike = lmbda * SIMILARITY * (1.0 - ms_ssim(x, density.loc, stride=2))
            distortion = (1.0 - self.similar) * distortion + self.similar * unlike
        return distortion, mse

    def loss(self, x: tf.Tensor, quality: tf.Tensor, seed: tf.Tensor, hard: bool = False) -> Loss:
        """x u8[B, H, W, C], sides multiples of 64; quality f32[B] -> rate + lambda * distortion, over sqrt(lambda).

        The prior learns from the rate of symbols, the encoder from that of noisy values, which is added to the loss in
        gradient alone.  With `hard` the encoder stands still.
        """
        x = tf.cast(x, tf.float32)
        gains, lmbda = self.gains(quality), lambda_of(quality)
        scaled = self.analysis(x, gains) * gains.gain
        if hard:
            scaled = tf.stop_gradient(scaled)
        frozen = self.bind({name: tf.stop_gradient(value) for name, value in self.weights.items()})
        rates, noisy = [], []
        joint = self.parts(gains, lmbda, tf.shape(scaled) // [1, 2, 2, CELL])
        density, index, where = next(joint)
        for number, target in enumerate(self.targets(scaled, gains)):
            loc = density.base.loc
            symbols = frozen.chosen(density, tf.stop_gradient(index), target)
            # In gradient, a symbol moves with what it stands for, against the mean.
            moving = straight_through(tf.stop_gradient(target) - loc, symbols)
            rates.append(_sum(bits(conditional(0.0 * loc, index, *self.tail()), moving), where))
            residual = add_noise(target - loc, seed + [number, 0])
            still = conditional(0.0 * loc, tf.stop_gradient(index), *frozen.tail())
            noisy.append(_sum(bits(still, residual), where))
            value = loc + centroid(self.weights["centroid"], symbols, tf.stop_gradient(index))
            value = on_grid(value + target - tf.stop_gradient(target), ACTIVATION_BITS)
            density, index, where = joint.send(value if where is None else tf.where(where, value, 0.0))
        pixels = x.shape[1] * x.shape[2]
        bpp, noise = tf.add_n(rates) / pixels, tf.add_n(noisy) / pixels
        distortion, mse = self.distortion(x, density, lmbda)
        moved = bpp + noise - tf.stop_gradient(noise)
        loss = tf.reduce_mean((moved + distortion) / tf.sqrt(lmbda))
        psnr = tf.reduce_mean(-10.0 * tf.math.log(tf.maximum(mse, 1e-3) / 255.0**2) / math.log(10.0))
        return Loss(
            loss, tf.reduce_mean(bpp), psnr, tf.reduce_mean(tf.add_n(rates[: 1 + len(LOWEST_DISTANCES)])) / pixels
        )


def _sum(rates: tf.Tensor, where: Any) -> tf.Tensor:
    """Bits of each picture, of the places that are asked for."""
    return tf.reduce_sum(rates if where is None else tf.where(where, rates, 0.0), [1, 2, 3])
