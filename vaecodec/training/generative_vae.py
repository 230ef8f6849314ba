"""The generative VAE in TensorFlow: Normal posterior and prior, the likelihood of pixels, and the negative ELBO.

    -ELBO = KL(q(z | x) || p(z))  -  E_q log p(x | z)         bits; Kingma and Welling 2014, section 2.2

The likelihood is p(x_1 | z) p(x_2 | x_1, z) ... over the phases of `generative`, and a `Hurdle` at each pixel.
Read it side by side with `bitsback`, which codes with the same numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec.model import generative
from vaecodec.model.generative import LATENT_BITS, ORDER, PHASES, VALUES, Generative
from vaecodec.training.densities import LOG2, Hurdle, tfd
from vaecodec.training.grid_layers import Quantised, Shapes
from vaecodec.training.layers import activation, on_grid
from vaecodec.training.vae import Weighted
from vaecodec.transforms.integer import ACTIVATION_BITS

LATENT_GAIN = 2.0 ** (LATENT_BITS - ACTIVATION_BITS)
SCALE_LOW, SCALE_HIGH = -6.0, 1.0  # base-2 logarithms of the posterior's scales


def specification(config: Generative) -> dict[str, Shapes]:
    """Shapes, starting deviations and multiply-accumulates of each network, on one picture."""
    networks = {name: Shapes() for name in ("encoder", "decoder", "phases")}
    generative.encoder(networks["encoder"], config, (config.side, config.side, 1))
    features = generative.decoder(networks["decoder"], config, (1, 1, config.latents))
    for number in range(PHASES):
        before = (*features[:2], number) if number else None
        generative.phase(networks["phases"], config, number, features, before)
    return networks


def initial_weights(config: Generative, seed: int = 0) -> dict[str, np.ndarray]:
    """Starting values by name, f32."""
    rng = np.random.default_rng(seed)
    weights = {}
    for part in specification(config).values():
        for name, weight in part.weights.items():
            weights[name] = rng.normal(0, weight.deviation, weight.shape)
    # Of ink rather little; and values as straight lines, parabolas, ... of their place, to begin with.
    place = np.linspace(-1.0, 1.0, VALUES)
    weights["values/kernel"] = np.polynomial.legendre.legvander(place, config.natural).T[1:]
    weights["values/bias"] = np.zeros(VALUES)
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def phases_of(x: tf.Tensor) -> list[tf.Tensor]:
    """[B, S, S, 1] -> PHASES of [B, S/2, S/2, 1]."""
    corners = tf.split(tf.nn.space_to_depth(x, 2), PHASES, -1)
    return [corners[corner] for corner in ORDER]


class Loss(NamedTuple):
    """Scalars, mean over the batch: bits per dimension, but for `loss`, whose KL has a weight."""

    loss: tf.Tensor
    bpd: tf.Tensor
    kl_bpd: tf.Tensor


class GenerativeVAE(Weighted):
    """The model, from its weights or from the beginning."""

    def __init__(self, config: Generative, weights: dict[str, np.ndarray] | None = None, seed: int = 0) -> None:
        super().__init__("generative_vae", config, initial_weights(config, seed) if weights is None else weights)

    def posterior(self, x: tf.Tensor) -> tfd.Distribution:
        """q(z | x) of x f[B, S, S, 1] in [0, 255]: Normal, on the grids that `discrete` has tables for."""
        t = generative.encoder(Quantised(self.weights), self.config, x * 2.0**-ACTIVATION_BITS)[:, 0, 0]
        mean, log_scale = tf.split(t, 2, -1)
        scale = tf.exp(LOG2 * tf.clip_by_value(log_scale - 1.0, SCALE_LOW, SCALE_HIGH))
        return tfd.Independent(tfd.Normal(mean / LATENT_GAIN, scale), 1)

    def prior(self) -> tfd.Distribution:
        """p(z): standard Normal."""
        zeros = tf.zeros(self.config.latents, next(iter(self.weights.values())).dtype)
        return tfd.Independent(tfd.Normal(zeros, tf.ones_like(zeros)), 1)

    def features(self, z: tf.Tensor) -> tf.Tensor:
        """z f[B, L] -> f[B, S/2, S/2, F]."""
        return generative.decoder(Quantised(self.weights), self.config, activation(z * LATENT_GAIN)[:, None, None])

    def likelihood(self, number: int, features: tf.Tensor, before: list[tf.Tensor]) -> tfd.Distribution:
        """p(x of a phase | z, the phases before it); batch shape [B, S/2, S/2]."""
        context = tf.concat(before, -1) * 2.0**-ACTIVATION_BITS if before else None
        t = generative.phase(Quantised(self.weights), self.config, number, features, context)
        kernel, bias = on_grid(self.weights["values/kernel"], 9), on_grid(self.weights["values/bias"], 15)
        return Hurdle(t[..., 0], t[..., 1:], kernel, bias)

    def log_likelihood(self, x: tf.Tensor, z: tf.Tensor) -> tf.Tensor:
        """log2 p(x | z), f[B], of x f[B, S, S, 1]."""
        before: list[tf.Tensor] = []
        features, total = self.features(z), 0.0
        for number, pixels in enumerate(phases_of(x)):
            density = self.likelihood(number, features, before)
            total += tf.reduce_sum(density.log_prob(pixels[..., 0]), [1, 2])
            before.append(pixels)
        return total / LOG2

    def loss(self, x: tf.Tensor, weight: tf.Tensor, seed: tf.Tensor) -> Loss:
        """x u8[B, S, S, 1] -> the negative ELBO; `weight` f[] multiplies the KL while training warms up."""
        x = tf.cast(x, next(iter(self.weights.values())).dtype)
        posterior = self.posterior(x)
        kl = tfd.kl_divergence(posterior, self.prior()) / LOG2
        z = posterior.sample(seed=seed)
        reconstruction = -self.log_likelihood(x, z)
        pixels = float(self.config.side**2)
        kl, reconstruction = tf.reduce_mean(kl) / pixels, tf.reduce_mean(reconstruction) / pixels
        return Loss(reconstruction + weight * kl, reconstruction + kl, kl)
