"""The generative VAE of small images: Normal posterior and prior, the likelihood of pixels, and how it is trained.

    -ELBO = KL(q(z | x) || p(z))  -  E_q log p(x | z)         bits; Kingma and Welling 2014, section 2.2

The likelihood is p(x_1 | z) p(x_2 | x_1, z) ... over the phases of `model.generative`, with a `Hurdle` at each pixel.
`generative.image_sets` codes with the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec.errors import CodecError
from vaecodec.generative.image_sets import read_set
from vaecodec.model import generative
from vaecodec.model.generative import LATENT_BITS, ORDER, PHASES, VALUES, Generative
from vaecodec.model.network import ACTIVATION_BITS
from vaecodec.training.densities import LOG2, Hurdle, distributions
from vaecodec.training.layers import Quantised, Shapes, exact_activation, on_grid
from vaecodec.training.train_step import Layout, Options, update
from vaecodec.training.vae import Weights

Tensor = Any
LATENT_GAIN = 2.0 ** (LATENT_BITS - ACTIVATION_BITS)
LOG_SCALE_RANGE = -6.0, 1.0  # base-2 logarithms of the posterior's scales
METRICS = ("loss", "bpd", "kl_bpd")
DEFAULTS = {"batch": 64, "rate": 1e-3, "minutes": 20.0}  # of Options
# The weight of the KL rises to 1, or the decoder would learn to ignore the latents (Bowman et al. 2016, section 3.1).
INITIAL_KL_WEIGHT, WARM_UP_STEPS = 0.1, 6000.0


def specification(config: Generative) -> dict[str, Shapes]:
    """The shapes of weights and the multiply-accumulates of each network, for one image."""
    networks = {name: Shapes() for name in ("encoder", "decoder", "phases")}
    generative.encoder(networks["encoder"], config, (config.side, config.side, 1))
    features = generative.decoder(networks["decoder"], config, (1, 1, config.latents))
    for number in range(PHASES):
        earlier = (*features[:2], number) if number else None
        generative.phase(networks["phases"], config, number, features, earlier)
    return networks


def initial_weights(config: Generative, seed: int = 0) -> Weights:
    """Initial weights f32 by name."""
    rng = np.random.default_rng(seed)
    weights = {}
    for shapes in specification(config).values():
        for name, (shape, deviation) in shapes.weights.items():
            weights[name] = rng.normal(0, deviation, shape)
    # The statistics of a value are polynomials of it: a line, a parabola, ...
    place = np.linspace(-1.0, 1.0, VALUES)
    weights["values/kernel"] = np.polynomial.legendre.legvander(place, config.natural).T[1:]
    weights["values/bias"] = np.zeros(VALUES)
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def phases_of(x: Tensor) -> list[Tensor]:
    """Split [B, S, S, 1] into the pixels [B, S/2, S/2, 1] of each phase."""
    corners = tf.split(tf.nn.space_to_depth(x, 2), PHASES, -1)
    return [corners[corner] for corner in ORDER]


class Loss(NamedTuple):
    """Scalars in bits per dimension, means over the batch; in `loss` the KL has a weight."""

    loss: Tensor
    bpd: Tensor
    kl_bpd: Tensor


@dataclass
class GenerativeVAE:
    """A VAE to sample from, over weights by name."""

    config: Generative
    weights: Mapping[str, Tensor]

    def posterior(self, x: Tensor) -> distributions.Distribution:
        """q(z | x) for f[B, S, S, 1] in [0, 255]: Normal, with parameters on the grids of `model.discrete`."""
        t = generative.encoder(Quantised(self.weights), self.config, x * 2.0**-ACTIVATION_BITS)[:, 0, 0]
        mean, log_scale = tf.split(t, 2, -1)
        scale = tf.exp(LOG2 * tf.clip_by_value(log_scale - 1.0, *LOG_SCALE_RANGE))
        return distributions.Independent(distributions.Normal(mean / LATENT_GAIN, scale), 1)

    def prior(self) -> distributions.Distribution:
        """p(z): standard Normal."""
        zeros = tf.zeros(self.config.latents, next(iter(self.weights.values())).dtype)
        return distributions.Independent(distributions.Normal(zeros, tf.ones_like(zeros)), 1)

    def features(self, z: Tensor) -> Tensor:
        """z f[B, L] -> f[B, S/2, S/2, F]."""
        activations = exact_activation(z * LATENT_GAIN)[:, None, None]
        return generative.decoder(Quantised(self.weights), self.config, activations)

    def likelihood(self, number: int, features: Tensor, earlier: list[Tensor]) -> Hurdle:
        """p(pixels of a phase | z, pixels of earlier phases), of batch shape [B, S/2, S/2]."""
        context = tf.concat(earlier, -1) * 2.0**-ACTIVATION_BITS if earlier else None
        t = generative.phase(Quantised(self.weights), self.config, number, features, context)
        kernel, bias = on_grid(self.weights["values/kernel"], 9), on_grid(self.weights["values/bias"], 15)
        return Hurdle(t[..., 0], t[..., 1:], kernel, bias)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log2 p(x | z) f[B], for x f[B, S, S, 1]."""
        earlier: list[Tensor] = []
        features, total = self.features(z), 0.0
        for number, pixels in enumerate(phases_of(x)):
            density = self.likelihood(number, features, earlier)
            total += tf.reduce_sum(density.log_prob(pixels[..., 0]), [1, 2])
            earlier.append(pixels)
        return total / LOG2

    def loss(self, x: Tensor, kl_weight: Tensor, seed: Tensor) -> Loss:
        """The negative ELBO of x u8[B, S, S, 1]; the KL is multiplied by `kl_weight` f[]."""
        x = tf.cast(x, next(iter(self.weights.values())).dtype)
        posterior = self.posterior(x)
        kl = distributions.kl_divergence(posterior, self.prior()) / LOG2
        reconstruction = -self.log_likelihood(x, posterior.sample(seed=seed))
        pixels = float(self.config.side**2)
        kl, reconstruction = tf.reduce_mean(kl) / pixels, tf.reduce_mean(reconstruction) / pixels
        return Loss(reconstruction + kl_weight * kl, reconstruction + kl, kl)


def make_step(config: Generative, options: Options, hard: bool = False) -> Callable[..., Any]:
    """The pure training step over (state, images u8[B, S, S, 1], lr, seed); `hard` has no effect."""
    layout = Layout(initial_weights(config))

    def step(state: list[Tensor], images: Tensor, lr: Tensor, seed: Tensor) -> tuple[list[Tensor], Tensor]:
        kl_weight = tf.minimum(1.0, INITIAL_KL_WEIGHT + state[-1] / WARM_UP_STEPS)
        with tf.GradientTape() as tape:
            tape.watch(state[0])
            loss = GenerativeVAE(config, layout.unpack(state[0])).loss(images, kl_weight, seed)
        return update(state, tape.gradient(loss.loss, state[0]), lr), tf.stack(loss)

    return step


def read(paths: list[str], config: Generative) -> np.ndarray:
    """Read all images u8[N, S, S, 1] in `paths`; raises CodecError for another size."""
    sets = [read_set(path)[0] for path in paths]
    for path, images in zip(paths, sets, strict=True):
        if images.shape[1:] != (config.side, config.side):
            raise CodecError(f"{path}: images are {images.shape[2]} x {images.shape[1]}, expected {config.side}")
    together: np.ndarray = np.concatenate(sets)[..., None]
    return together


def batches(images: np.ndarray, config: Generative, options: Options, seed: int) -> tf.data.Dataset:
    """Endless random batches u8[batch, S, S, 1] of images u8[N, S, S, 1]."""

    def draw() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(seed)
        while True:
            yield images[rng.integers(len(images), size=options.batch)]

    shape = [options.batch, config.side, config.side, 1]
    return tf.data.Dataset.from_generator(draw, output_signature=tf.TensorSpec(shape, tf.uint8)).prefetch(4)
