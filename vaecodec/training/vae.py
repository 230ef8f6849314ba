"""The VAE of photographs: posterior, prior and likelihood, and its negative ELBO as the training loss.

    x --g_a--> y                   q(y | x): the unit box around wavelet coefficients and what a network adds to them
    p(y) = p(lowest)  p(octave 4 | lowest)  p(octave 3 | coarser) ...      each octave in two halves
    p(x | y)                       Normal around the image that g_s reconstructs

Symbols are chosen as the encoder chooses them, by rate-distortion cost; the analysis network learns from the rate of
noisy values.  `VAE.parts` mirrors `prior.coefficients`, which codes with the same numbers.
Letters: B batch; H W pixels of C samples; h w latent cells; A anchors of quality.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec.config import (
    ANCHORS,
    FINER,
    INDICES_PER_ANCHOR,
    LAMBDA_MAX,
    LAMBDA_MIN,
    SCALE_MIN,
    SCALE_RATIO,
    SQUARED_STEPS_PER_BIT,
    STRIDE,
    Config,
)
from vaecodec.model import network
from vaecodec.model.network import ACTIVATION_BITS, INDEX_GAIN, LOC_GAIN
from vaecodec.native.prior import LOWEST_DISTANCES
from vaecodec.training import operations
from vaecodec.training.densities import (
    KNOTS,
    Trellis,
    bits,
    centroid,
    distributions,
    joined,
    latent_density,
    sums_at_mask,
    sums_of_parts,
)
from vaecodec.training.layers import Float, Quantised, Shapes, on_grid, straight_through
from vaecodec.training.operations import details, from_halves, ms_ssim, to_halves, with_magnitudes
from vaecodec.transforms.latents import subband_of
from vaecodec.transforms.networks import LOG_BITS, tilt_logarithms
from vaecodec.transforms.wavelet import OCTAVES, SUBBANDS

Tensor = Any
Weights = dict[str, np.ndarray]
SQUARED_ERROR_PER_MS_SSIM = 2300.0  # equal weight with 1 - MS-SSIM; `small` gives 2100 to 2400 on held-out photographs
ALL_OCTAVES = OCTAVES + 1
TAIL_RATIOS = (math.log(0.75), math.log(1.6))  # initial logarithms
LOWEST_SIGMA = 37.0  # initial scale of the lowest coefficients, in quantisation steps
SUBBAND_SIGMA = 0.31


def specification(config: Config, size: int = 256) -> dict[str, Shapes]:
    """The shapes of weights and the multiply-accumulates of each network, for a size x size image."""
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
    prior.macs["context/wavelet"] = operations.dwt_macs(size * size * channels, range(1, ALL_OCTAVES))
    for part, (distance, corners) in enumerate(LOWEST_DISTANCES):
        side = (size >> ALL_OCTAVES) // distance
        network.lowest_part(prior, config, part, (side // 2, side // (1 + corners), 10 * channels))
    return networks


def initial_weights(config: Config, seed: int = 0) -> Weights:
    """Initial weights f32 by name: He-scaled networks around a working wavelet codec."""
    rng = np.random.default_rng(seed)
    weights: Weights = {}
    for shapes in specification(config).values():
        for name, (shape, deviation) in shapes.weights.items():
            weights[name] = rng.normal(0, deviation, shape) if deviation else np.zeros(shape)
        for name, count in shapes.conditions.items():
            weights[f"{name}/condition"] = np.zeros((ANCHORS, count))
    for side in ("analysis", "synthesis"):
        weights[f"{side}/out/condition"] += log_step_sizes(config)[:, None]
    channels = config.channels
    weights["start"] = np.repeat(np.array([[0.0, _scale_activation(LOWEST_SIGMA)]]), channels, 1).repeat(ANCHORS, 0)
    for octave in range(ALL_OCTAVES):
        for half in ("first", "second"):
            weights[f"context/{octave}/{half}/bias"][6 * channels :] = _scale_activation(SUBBAND_SIGMA)
    for part in range(len(LOWEST_DISTANCES)):
        weights[f"lowest/{part}/out/bias"][channels:] = _scale_activation(LOWEST_SIGMA)
    weights["band_gain"] = np.zeros((ANCHORS, ALL_OCTAVES * SUBBANDS * channels))
    weights["centroid"] = np.zeros((KNOTS, 2))
    weights["tail/log_ratio"] = np.array(TAIL_RATIOS)
    weights["tail/logit"] = np.array([0.5, -0.5])
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def gain_of_latent(channels: int) -> np.ndarray:
    """The place i64[256 C] in `band_gain` of the gain of each latent; that of the low-pass image is 1, at the end."""
    return np.asarray(np.minimum(subband_of(channels), OCTAVES * SUBBANDS * channels))


def log_step_sizes(config: Config) -> np.ndarray:
    """Logarithms f64[A] of the quantisation step size at the anchors, on a scale of 1 for 255."""
    lambdas = np.geomspace(LAMBDA_MIN, LAMBDA_MAX, ANCHORS)
    log_steps: np.ndarray = 0.5 * np.log(config.lambda_channels / (SQUARED_STEPS_PER_BIT * lambdas)) - math.log(255)
    return log_steps


def _scale_activation(sigma: float) -> float:
    """The activation that gives the scale index of sigma."""
    return math.log(sigma / SCALE_MIN) / math.log(SCALE_RATIO) / INDEX_GAIN


def add_noise(x: Tensor, seed: Tensor) -> Tensor:
    """Add U(-1/2, 1/2): a sample of the unit box around x, the posterior (Balle et al. 2017, section 3)."""
    return x + tf.random.stateless_uniform(x.shape, seed, -0.5, 0.5, x.dtype)


def lambda_of(quality: Tensor) -> Tensor:
    """lambda at a quality in [0, A - 1]; anchors are spaced logarithmically."""
    ratio = math.log(LAMBDA_MAX / LAMBDA_MIN) / (ANCHORS - 1)
    return LAMBDA_MIN * tf.exp(quality * ratio)


class Gains(NamedTuple):
    """Vectors f32[B, 1, 1, channels] that depend on quality, interpolated between anchors."""

    gain: Tensor  # quantisation steps in a latent
    inverse_gain: Tensor
    subbands: Tensor  # [B, 1, 1, O * 3 C]: gain of each subband of each octave relative to the low-pass image
    conditions: dict[str, Tensor]


class Part(NamedTuple):
    """The distribution of a part of the latents."""

    density: distributions.Distribution
    index: Tensor  # scale indices
    mask: np.ndarray | None  # bool: places that belong to the part; None for all


class Coded(NamedTuple):
    """A batch with its symbols chosen; f32[B] each."""

    bpp: Tensor
    noisy_bpp: Tensor  # of values with noise, which have a gradient in the weights of the analysis
    lowest_bpp: Tensor
    likelihood: distributions.Distribution  # p(x | y)


class Loss(NamedTuple):
    """Scalars, means over the batch."""

    loss: Tensor
    bpp: Tensor
    psnr: Tensor
    lowest_bpp: Tensor


@dataclass
class VAE:
    """One model for all qualities, over weights by name."""

    config: Config
    weights: Mapping[str, Tensor]
    operands: tf.DType = tf.float32  # of the dense layers of the transforms
    ms_ssim_share: float = 0.0  # of the distortion: 1 - MS-SSIM in place of squared error
    tilt: int = 0  # of the steps of octaves: see networks.tilt_logarithms

    def gains(self, quality: Tensor) -> Gains:
        """Interpolate all vectors that depend on quality f32[B], at least 0, log-linearly between anchors.

        Beyond the last anchor only steps become smaller.
        """
        beyond = tf.nn.relu(quality - (ANCHORS - 1.0))
        hat = tf.nn.relu(1.0 - tf.abs((quality - beyond)[:, None] - tf.range(ANCHORS, dtype=quality.dtype)))  # [B, A]

        def at(name: str) -> Tensor:
            return tf.matmul(hat, self.weights[name])[:, None, None, :]

        channels, log_2 = self.config.channels, math.log(2.0) / (1 << LOG_BITS)
        tilts = np.repeat(tilt_logarithms(self.tilt), SUBBANDS * channels) * log_2
        subbands = at("band_gain") - tf.constant(tilts, quality.dtype)
        squared_step = self.config.lambda_channels / (SQUARED_STEPS_PER_BIT * lambda_of(quality - beyond))
        log_step = 0.5 * tf.math.log(squared_step) - math.log(255.0) - FINER * INDICES_PER_ANCHOR * log_2 * beyond
        relative = tf.concat([subbands[..., : OCTAVES * SUBBANDS * channels], 0 * subbands[..., :1]], -1)
        gain = tf.gather(relative, gain_of_latent(channels), axis=-1) - log_step[:, None, None, None]
        conditions = {"start": at("start")}
        for name in self.weights:
            if name.endswith("/condition"):
                vector = at(name)
                # Factors for the transforms, terms for the prior.
                vector = tf.exp(vector) if name.startswith(("analysis/", "synthesis/")) else vector
                conditions[name.removesuffix("/condition")] = vector
        return Gains(tf.exp(gain), tf.exp(-gain), tf.exp(subbands), conditions)

    def analysis(self, x: Tensor, gains: Gains) -> Tensor:
        """f32[B, H, W, C] in [0, 255] -> y f32[B, h, w, 256 C], before the gain."""
        ops = Float(self.weights, gains.conditions, self.operands)
        return network.analysis(ops, self.config, x / 255.0 - 0.5)

    def synthesis(self, y: Tensor, gains: Gains) -> Tensor:
        """y f32[B, h, w, 256 C] in quantisation steps -> f32[B, H, W, C] in [0, 255], apart from overshoot."""
        ops = Float(self.weights, gains.conditions, self.operands)
        return 255.0 * (network.synthesis(ops, self.config, y * gains.inverse_gain) + 0.5)

    def tail(self) -> tuple[Tensor, Tensor]:
        """(ratios f32[K], weights f32[K]) of the Normals in the mixture."""
        return tf.exp(self.weights["tail/log_ratio"]), tf.nn.softmax(self.weights["tail/logit"])

    def likelihood(self, mean: Tensor, lmbda: Tensor) -> distributions.Distribution:
        """p(x | y): Normal with the variance for which -log2 p is lambda * 255^2 * MSE a pixel, and a constant.

        For 3 samples a pixel and MSE on a scale of 1, sum (x - mean)^2 / (2 s^2 ln 2) = lambda * 255^2 * MSE, so
        s^2 = 3 / (2 ln 2 * lambda) in units of 1/255 (Balle et al. 2017, section 3).  Models of more channels use the
        same variance, so the weight of a sample does not depend on their number.
        """
        scale = tf.sqrt(self.config.lambda_channels / (2.0 * math.log(2.0) * lmbda))[:, None, None, None]
        return distributions.Normal(mean, scale)

    def targets(self, scaled: Tensor, gains: Gains) -> list[Tensor]:
        """Split y [B, h, w, 256 C] in quantisation steps, h and w even, into the values of `parts`, in their order."""
        low, octaves = operations.unpack(scaled)
        lowest, coarsest = operations.forward_octave(low)
        coarsest *= gains.subbands[..., -coarsest.shape[3] :]
        return [lowest] * (1 + len(LOWEST_DISTANCES)) + [
            *(half for octave in (coarsest, *reversed(octaves)) for half in to_halves(octave))
        ]

    def parts(self, gains: Gains, lmbda: Tensor, shape: tuple[int, ...]) -> Generator[Part, Tensor, None]:
        """Yield the distributions of p(y) p(x | y) part by part, and receive the values of each.

        `shape` is [B, h, w], that of y.  Values are 0 at places outside the mask of a part.
        The last part is p(x | y), with neither scale indices nor values.
        """
        prior, config = Quantised(self.weights, gains.conditions), self.config
        count, height, width = shape[0], shape[1] // 2, shape[2] // 2  # of the lowest coefficients
        start = tf.broadcast_to(gains.conditions["start"], [count, height, width, 2 * config.channels])
        loc, index = tf.split(start, 2, -1)
        first_mask, *masks = operations.lowest_masks(height, width)
        low = yield self._part(LOC_GAIN * loc, INDEX_GAIN * index, first_mask)
        for part, mask in enumerate(masks):
            near = operations.four_neighbours(low, part)
            mean = on_grid(tf.add_n(near) / 4, ACTIVATION_BITS)
            inputs = [prior.compand(tf.stop_gradient(x)) for x in (*(x - mean for x in near), mean)]
            loc, index = network.lowest_part(prior, config, part, with_magnitudes(*inputs))
            low += yield self._part(loc + mean, index, mask)
        parents, octaves = tf.zeros_like(tf.tile(low[:, ::2, ::2], [1, 1, 1, SUBBANDS])), list[Tensor]()
        passed: list[Tensor] = []
        for octave in range(OCTAVES, -1, -1):
            hidden = prior.compand(tf.stop_gradient(details(low))), prior.compand(tf.stop_gradient(parents))
            inputs = with_magnitudes(tf.nn.space_to_depth(hidden[0], 2), hidden[1], between=passed)
            features = network.octave_features(prior, config, octave, inputs)
            first = yield self._part(*network.octave_first(prior, config, octave, features))
            known = with_magnitudes(prior.compand(tf.stop_gradient(first)))
            loc, index, *to_finer = network.octave_second(prior, config, octave, features, known)
            passed = [tf.nn.depth_to_space(x, 2) for x in to_finer]
            second = yield self._part(loc, index)
            parents = from_halves(first, second)
            octaves.insert(0, parents)
            if octave:
                gain = gains.subbands[..., octave * parents.shape[3] : (octave + 1) * parents.shape[3]]
                low = operations.inverse_octave(low, parents / gain)
            if octave == OCTAVES:
                low_pass, parents = low, octaves.pop()
        yield Part(self.likelihood(self.synthesis(operations.pack(low_pass, octaves), gains), lmbda), None, None)

    def _part(self, loc: Tensor, index: Tensor, mask: Tensor | None = None) -> Part:
        """A part with means on the grid of latents."""
        return Part(latent_density(on_grid(loc, ACTIVATION_BITS), index, *self.tail()), index, mask)

    def choose_symbols(
        self, density: distributions.Distribution, index: Tensor, target: Tensor, price: Tensor = 1.0
    ) -> Tensor:
        """Choose between the nearest integer and its neighbour towards 0 by cost, with bits at a relative price."""
        residual, table = target - density.loc, self.weights["centroid"]
        nearest = tf.round(residual)
        smaller = tf.sign(residual) * tf.maximum(tf.abs(nearest) - 1.0, 0.0)

        symbols = tf.stack([nearest, smaller])
        error = residual - centroid(table, symbols, index)
        cost = error * error + SQUARED_STEPS_PER_BIT * price * bits(density, density.loc + symbols)
        return tf.stop_gradient(tf.where(cost[1] < cost[0], smaller, nearest))

    def distortion(self, x: Tensor, density: distributions.Distribution, lmbda: Tensor) -> tuple[Tensor, Tensor]:
        """(lambda * distortion in bits a pixel, squared error) f32[B] of x f32[B, H, W, C] under p(x | y)."""
        # Relative to x at its own mean, which removes the constant of the Normal.
        distortion = bits(density, x) - bits(density, density.loc)
        distortion = tf.reduce_sum(distortion, [1, 2, 3]) / (x.shape[1] * x.shape[2])
        mse = distortion / lmbda * (self.config.lambda_channels / self.config.channels)
        if self.ms_ssim_share:
            dissimilarity = lmbda * SQUARED_ERROR_PER_MS_SSIM * (1.0 - ms_ssim(x, density.loc, stride=2))
            distortion = (1.0 - self.ms_ssim_share) * distortion + self.ms_ssim_share * dissimilarity
        return distortion, mse

    def loss(
        self, x: Tensor, quality: Tensor, seed: Tensor, hard: bool = False, trellis: Trellis | None = None
    ) -> Loss:
        """The loss (rate + lambda * distortion) / sqrt(lambda) of x u8[B, H, W, C], sides multiples of 64.

        The prior learns from the rate of symbols.  The analysis network learns from the rate of noisy values, which
        contributes its gradient alone; with `hard` that network is not trained.  With a trellis symbols and their
        bits are those of an encoder.
        """
        x, lmbda = tf.cast(x, tf.float32), lambda_of(quality)
        coded = self.code(x, quality, seed, hard, trellis)
        distortion, mse = self.distortion(x, coded.likelihood, lmbda)
        rate = coded.bpp + coded.noisy_bpp - tf.stop_gradient(coded.noisy_bpp)
        return mean_loss((rate + distortion) / tf.sqrt(lmbda), coded.bpp, mse, coded.lowest_bpp)

    def code(
        self,
        x: Tensor,
        quality: Tensor,
        seed: Tensor,
        hard: bool = False,
        trellis: Trellis | None = None,
        prices: Sequence[Tensor] = (),
    ) -> Coded:
        """Choose the symbols of x f32[B, H, W, C], at given prices of a bit in each part: see `loss`."""
        gains, lmbda = self.gains(quality), lambda_of(quality)
        scaled = self.analysis(x, gains) * gains.gain
        if hard:
            scaled = tf.stop_gradient(scaled)
        fixed = {name: tf.stop_gradient(self.weights[name]) for name in ("centroid", "tail/log_ratio", "tail/logit")}
        frozen = replace(self, weights=fixed)  # to choose symbols
        masks, indices, moving, exact, rates = [], [], [], [], []
        parts = self.parts(gains, lmbda, scaled.shape[:3])
        density, index, mask = next(parts)
        for number, target in enumerate(self.targets(scaled, gains)):
            loc, fixed_index = density.loc, tf.stop_gradient(index)
            if trellis:
                rate, value = trellis.code(tf.stop_gradient(target), loc, index, mask)
                rates.append(tf.reduce_sum(rate, [1, 2, 3]))
            else:
                symbols = frozen.choose_symbols(density, fixed_index, target, prices[number] if prices else 1.0)
                # The gradient treats a symbol as its target relative to the mean.
                moving.append(straight_through(tf.stop_gradient(target) - loc, symbols))
                value = loc + centroid(self.weights["centroid"], symbols, fixed_index)
            if mask is not None:
                masks.append(mask)
            indices.append(index)
            exact.append(target - loc)
            value = on_grid(value + target - tf.stop_gradient(target), ACTIVATION_BITS)
            density, index, mask = parts.send(value if mask is None else tf.where(mask, value, 0.0))
        lowest_mask = np.concatenate([np.repeat(mask, self.config.channels, -1).ravel() for mask in masks])
        index, mean = joined(indices), tf.zeros([], x.dtype)  # all values are relative to their means
        if trellis:
            lowest, total = sums_of_parts(rates)
        else:
            rate = bits(latent_density(mean, index, *self.tail()), joined(moving))
            lowest, total = sums_at_mask(rate, lowest_mask)
        noisy_rate = bits(latent_density(mean, tf.stop_gradient(index), *frozen.tail()), add_noise(joined(exact), seed))
        _, noisy_total = sums_at_mask(noisy_rate, lowest_mask)
        pixels = x.shape[1] * x.shape[2]
        return Coded(total / pixels, noisy_total / pixels, lowest / pixels, density)

    def prior_loss(self, x: Tensor, quality: Tensor, trellis: Trellis) -> Loss:
        """The loss that the trellis minimises, of x u8[B, H, W, C], sides multiples of 64; it trains the prior alone.

        Distortion is the squared error of coefficients.
        """
        gains, lmbda = self.gains(quality), lambda_of(quality)
        scaled = self.analysis(tf.cast(x, tf.float32), gains) * gains.gain
        parts = self.parts(gains, lmbda, scaled.shape[:3])
        density, index, mask = next(parts)
        rates, errors = [], []
        targets = self.targets(tf.stop_gradient(scaled), gains)
        for number, target in enumerate(targets):
            rate, error, values = trellis.cost(target, density.loc, index, mask)
            rates.append(tf.reduce_sum(rate, [1, 2, 3]))
            errors.append(tf.reduce_sum(error, [1, 2, 3]))
            if number + 1 < len(targets):  # the last is followed by p(x | y), which is not trained
                density, index, mask = parts.send(values)
        pixels = x.shape[1] * x.shape[2]
        lowest, total = sums_of_parts(rates)
        bpp, error = total / pixels, tf.add_n(errors) / pixels
        mse = error / lmbda * (self.config.lambda_channels / self.config.channels)
        return mean_loss((bpp + error) / tf.sqrt(lmbda), bpp, mse, lowest / pixels)


def mean_loss(loss: Tensor, bpp: Tensor, mse: Tensor, lowest_bpp: Tensor) -> Loss:
    """Means over the batch, of f32[B]."""
    psnr = tf.reduce_mean(-10.0 * tf.math.log(tf.maximum(mse, 1e-3) / 255.0**2) / math.log(10.0))
    return Loss(tf.reduce_mean(loss), tf.reduce_mean(bpp), psnr, tf.reduce_mean(lowest_bpp))
