"""The VAE: posterior, priors and likelihood, and the loss that is its negative ELBO.

    x --g_a--> y --h_a--> z        q(y, z | x): the unit box around the analysis output
    z ~ p(z)   y ~ p(y | z)        factorized prior; conditional prior in two steps
    x ~ p(x | y)                   Normal around the synthesis output

The generative side is one generator, `VAE.joint`: it yields densities and is sent values, as `context.walk`
yields table rows and is sent symbols.  Read the two side by side.
Letters: B batch; H W pixels of C samples; h w latent cells; M, N channels of y, z; A anchors.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec import network
from vaecodec.bases import lapped_filter, shortcut_basis
from vaecodec.config import ANCHORS, LAMBDA_MAX, LAMBDA_MIN, SCALE_MIN, SCALE_RATIO, STRIDE, Config
from vaecodec.densities import bits, conditional, factorized, tfd
from vaecodec.integer import INDEX_GAIN
from vaecodec.layers import Float, Quantised, Shapes, put_half, take_half
from vaecodec.quantization import add_noise, round_straight_through
from vaecodec.similarity import ms_ssim

if TYPE_CHECKING:
    from typing_extensions import Self

# Squared error that weighs as much as 1 - MS-SSIM: what `small` makes of held-out photographs, 2100 to 2400 throughout.
SIMILARITY = 2300.0
MIXTURE = 3  # logistics in p(z)
RATIO_START = (0.75, 1.6)  # Normals in p(y | z), as multiples of the predicted scale


def step_at_centre(config: Config) -> float:
    """The quantisation step D of the middle lambda: a longer step saves 1 / (D ln 2) bits and costs lambda * D / 18,
    of grey lambda * D / 6.
    """
    return math.sqrt(6 * config.weighty / math.log(2) / math.sqrt(LAMBDA_MIN * LAMBDA_MAX)) / 255


def lambda_of(quality: tf.Tensor) -> tf.Tensor:
    """lambda at `quality` in [0, A - 1]: log-spaced anchors."""
    ratio = math.log(LAMBDA_MAX / LAMBDA_MIN) / (ANCHORS - 1)
    return LAMBDA_MIN * tf.exp(quality * ratio)


def specification(config: Config, size: int = 256) -> Mapping[str, Shapes]:
    """Shapes, starting deviations and multiply-accumulates of each network, on a size x size picture."""
    if config.wavelet:
        from vaecodec import wavelet_vae

        return wavelet_vae.specification(config, size)
    cells = (size // STRIDE, size // STRIDE)
    y, z = (*cells, config.latents), (cells[0] // 4, cells[1] // 4, config.hyper)
    networks = {name: Shapes() for name in ("analysis", "hyper_analysis", "prior", "synthesis")}
    network.analysis(networks["analysis"], config, (size, size, config.channels))
    network.hyper_analysis(networks["hyper_analysis"], config, y)
    features = network.hyper_synthesis(networks["prior"], config, z)
    features, _ = network.first_parameters(networks["prior"], config, features)
    network.second_parameters(networks["prior"], config, features, y)
    network.synthesis(networks["synthesis"], config, y)
    return networks


def initial_weights(config: Config, seed: int = 0) -> dict[str, np.ndarray]:
    """Starting values by name, f32: He-scaled networks around a working linear transform codec."""
    if config.wavelet:
        from vaecodec import wavelet_vae

        return wavelet_vae.initial_weights(config, seed)
    rng = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for part in specification(config).values():
        for name, weight in part.weights.items():
            weights[name] = (
                rng.normal(0, weight.deviation, weight.shape) if weight.deviation else np.zeros(weight.shape)
            )
        for name, channels in part.conditions.items():
            weights[f"{name}/condition"] = np.zeros((ANCHORS, channels))
    basis, frequency = shortcut_basis(config.latents, config.channels)
    step = step_at_centre(config)
    weights["analysis/shortcut/kernel"] = basis / step
    weights["synthesis/shortcut/kernel"] = basis.T * step
    if config.lapped:
        weights["analysis/lapped/kernel"] = lapped_filter(STRIDE)
        weights["synthesis/lapped/kernel"] = np.linalg.inv(lapped_filter(STRIDE))
    log_lambda = np.linspace(-0.5, 0.5, ANCHORS) * math.log(LAMBDA_MAX / LAMBDA_MIN)
    gain = np.tile(0.5 * log_lambda[:, None], (1, config.latents))
    weights["gain"], weights["inverse_gain"] = gain, -gain
    weights["hyper_gain"] = np.tile(0.25 * log_lambda[:, None], (1, config.hyper))
    # Scales fall with frequency as in natural pictures (Field 1987); the networks refine them.
    scale = np.maximum(9.0 / (frequency + 0.3) ** 1.1, SCALE_MIN)
    rung = np.log(scale / SCALE_MIN) / math.log(SCALE_RATIO) / INDEX_GAIN
    for name in ("first/out", "second/out"):
        weights[f"{name}/bias"][config.latents :] = rung
    weights["mixture/logits"] = np.zeros((config.hyper, MIXTURE))
    weights["mixture/loc"] = np.tile(np.linspace(-1.0, 1.0, MIXTURE), (config.hyper, 1))
    weights["mixture/log_scale"] = np.zeros((config.hyper, MIXTURE))
    weights["tail/log_ratio"] = np.log(np.array(RATIO_START))
    weights["tail/logit"] = np.array([0.5, -0.5])
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


class Gains(NamedTuple):
    """What quality means for each channel: real vectors f32[B, 1, 1, channels], interpolated between anchors."""

    gain: tf.Tensor  # latent units -> quantisation steps
    inverse_gain: tf.Tensor  # and back, learned apart
    hyper_gain: tf.Tensor
    conditions: dict[str, tf.Tensor]


class Loss(NamedTuple):
    """Scalars, mean over the batch."""

    loss: tf.Tensor
    bpp: tf.Tensor
    psnr: tf.Tensor
    hyper_bpp: tf.Tensor


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
    if config.wavelet:
        from vaecodec.wavelet_vae import WaveletVAE

        return WaveletVAE(config, weights)
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
        return Gains(tf.exp(at("gain")), tf.exp(at("inverse_gain")), tf.exp(at("hyper_gain")), self.conditions(at))

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

    def hyper_analysis(self, y: tf.Tensor) -> tf.Tensor:
        """y f32[B, h, w, M] -> z f32[B, h/4, w/4, N], before the gain."""
        return network.hyper_analysis(Float(self.weights, {}, self.operands), self.config, y)

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
        scale = tf.sqrt(self.config.weighty / (2.0 * math.log(2.0) * lmbda))[:, None, None, None]
        return tfd.Normal(mean, scale)

    def joint(self, gains: Gains, lmbda: tf.Tensor) -> Generator[tfd.Distribution, tf.Tensor, None]:
        """p(z) p(y_1 | z) p(y_2 | y_1, z) p(x | y): yields densities, is sent values.

        y_1 and y_2 f32[B, h, w, M/2] are the two halves of y on a checkerboard, in quantisation steps; the prior
        works in latent units, where one network serves every rate.
        """
        weights, config = self.weights, self.config
        prior = Quantised(weights, gains.conditions)
        rungs = tf.math.log(gains.gain) / math.log(SCALE_RATIO)

        def density(parameters: tuple[tf.Tensor, tf.Tensor], half: int) -> tfd.Distribution:
            loc, index = parameters
            gain, rung = (take_half(tf.broadcast_to(g, full), half) for g in (gains.gain, rungs))
            return conditional(loc * gain, index + rung, *self.tail())

        mixture = [weights[f"mixture/{part}"] for part in ("logits", "loc", "log_scale")]
        z = yield factorized(*mixture, gains.hyper_gain)  # type: ignore[call-arg]  # mypy cannot count them

        features = network.hyper_synthesis(prior, config, z / gains.hyper_gain)
        full = tf.concat([tf.shape(features)[:-1], [config.latents]], 0)
        features, parameters = network.first_parameters(prior, config, features)
        y_1 = put_half((yield density(parameters, 0)), 0)

        parameters = network.second_parameters(prior, config, features, y_1 / gains.gain)
        y_2 = put_half((yield density(parameters, 1)), 1)

        yield self.likelihood(self.synthesis(y_1 + y_2, gains), lmbda)

    def distortion(self, x: tf.Tensor, density: tfd.Distribution, lmbda: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """(distortion, bits a pixel, squared error) f32[B] of x f32[B, H, W, C] under p(x | y)."""
        # All of x at its own density: the distortion, without the constant of the Normal.
        distortion = bits(density, x) - bits(density, density.loc)
        distortion = tf.reduce_sum(distortion, [1, 2, 3]) / (x.shape[1] * x.shape[2])
        mse = distortion / lmbda * (self.config.weighty / self.config.channels)
        if self.similar:
            unlike = lmbda * SIMILARITY * (1.0 - ms_ssim(x, density.loc, stride=2))
            distortion = (1.0 - self.similar) * distortion + self.similar * unlike
        return distortion, mse

    def loss(self, x: tf.Tensor, quality: tf.Tensor, seed: tf.Tensor, hard: bool = False) -> Loss:
        """x u8[B, H, W, C], sides multiples of 64; quality f32[B] -> rate + lambda * distortion, over sqrt(lambda).

        The rate is taken at noisy values (a sample of the posterior), what follows them at rounded ones.
        With `hard` the rate too is that of the rounded values, and the encoder stands still: the last phase, which
        fits prior and decoder to what they will see.  (Rounding tells an encoder nothing about its rate: left free
        in this phase it undid what the decay of the learning rate had gained.)
        """
        x = tf.cast(x, tf.float32)
        gains, lmbda = self.gains(quality), lambda_of(quality)
        y = self.analysis(x, gains)
        z = self.hyper_analysis(y) * gains.hyper_gain
        scaled = y * gains.gain
        if hard:
            scaled, z = tf.stop_gradient(scaled), tf.stop_gradient(z)
            gains = gains._replace(gain=tf.stop_gradient(gains.gain), hyper_gain=tf.stop_gradient(gains.hyper_gain))
        pixels = x.shape[1] * x.shape[2]
        seeds = [seed + [n, 0] for n in range(3)]

        def rate(density: tfd.Distribution, noisy: tf.Tensor) -> tf.Tensor:
            return tf.reduce_sum(bits(density, noisy), [1, 2, 3])

        joint = self.joint(gains, lmbda)
        density = next(joint)
        z_hat = round_straight_through(z)
        rates = [rate(density, z_hat if hard else add_noise(z, seeds[0]))]
        density = joint.send(z_hat)
        for half in (0, 1):
            loc = density.base.loc
            residual = take_half(scaled, half) - loc
            coded = round_straight_through(residual)
            rates.append(rate(density, loc + (coded if hard else add_noise(residual, seeds[half + 1]))))
            density = joint.send(loc + coded)
        bpp = tf.add_n(rates) / pixels
        distortion, mse = self.distortion(x, density, lmbda)
        loss = tf.reduce_mean((bpp + distortion) / tf.sqrt(lmbda))
        psnr = tf.reduce_mean(-10.0 * tf.math.log(tf.maximum(mse, 1e-3) / 255.0**2) / math.log(10.0))
        return Loss(loss, tf.reduce_mean(bpp), psnr, tf.reduce_mean(rates[0]) / pixels)
