"""Latents improved for one picture by gradient descent: more seconds for the encoder, the same decoder.

The encoder is one guess for all pictures; its answer is the start here.  Rounding is annealed (stochastic Gumbel
annealing, Yang, Bamler and Mandt 2020, section 3.2): each latent is drawn between its two neighbouring integers, at
first almost freely, at last almost always the nearer one, and descent moves it to where rate + lambda * distortion of
the draws is small.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec import network
from vaecodec.config import ANCHORS, LEVEL_STEPS, SCALE_RATIO, SUBSTEPS
from vaecodec.densities import bits, conditional, factorized
from vaecodec.errors import ModelError
from vaecodec.integer import ACTIVATION_BITS, PRODUCT_BITS, WEIGHT_BITS
from vaecodec.layers import Float, Quantised, put_half, take_half
from vaecodec.vae import lambda_of
from vaecodec.weights import Model

RATE = 0.02  # Adam's learning rate, in quantisation steps
WARM, COLD = 0.5, 0.05  # temperatures of the annealing, held for a third of the steps and at the end


def float_weights(model: Model) -> dict[str, np.ndarray]:
    """Weights f32 by name of all that a decoder runs and of the densities, as training would have them.

    Raises ModelError where the model file has no densities (made before they were kept).
    """
    out = {}
    for name, array in model.arrays.items():
        kind, _, rest = name.partition("/")
        if kind == "weights":
            out[rest] = array.astype(np.float32)
        elif kind == "integer":
            unit = PRODUCT_BITS if rest.endswith("/bias") else WEIGHT_BITS
            out[rest] = (array / 2.0**unit).astype(np.float32)
        elif kind == "densities":
            out[rest] = array
    if "tail/logit" not in out:
        raise ModelError(f"model {model.name} cannot refine: its file does not hold its densities")
    return out


class Refiner:
    """One model at one quality step."""

    def __init__(self, model: Model, step: int) -> None:
        self._model, self._weights = model, {n: tf.constant(v) for n, v in float_weights(model).items()}
        vectors = {name: model.vector(name, step)[None, None, None] for name in ("gain", "inverse_gain", "hyper_gain")}
        self._gain, self._inverse_gain, self._hyper_gain = (tf.constant(v) for v in vectors.values())
        level = model.prior.levels.bias[step // LEVEL_STEPS] / 2.0**ACTIVATION_BITS
        self._conditions = {
            "hyper": tf.constant(level.astype(np.float32)),
            "synthesis/fine": tf.constant(model.vector("synthesis/fine", step)),
        }
        quality = tf.constant(min(step / SUBSTEPS, ANCHORS - 1.0), tf.float32)
        self._lambda = lambda_of(quality)
        self._iterate = tf.function(self._one, reduce_retracing=True)

    def __call__(
        self,
        pixels: np.ndarray,
        y: np.ndarray,
        z: np.ndarray,
        iterations: int,
        progress: Callable[[], Any] = lambda: None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """pixels u8[16 h, 16 w, 3], y f32[h, w, M] and z f32[h/4, w/4, N] in quantisation steps -> better y and z."""
        x = tf.constant(pixels[None], tf.float32)
        variables = [tf.Variable(y[None]), tf.Variable(z[None])]
        moments = [tf.Variable(tf.zeros_like(v)) for v in (*variables, *variables)]
        for n in range(iterations):
            done = n / max(iterations - 1, 1)
            temperature = WARM * (COLD / WARM) ** max(0.0, (done - 1 / 3) * 1.5)
            rate = RATE * min(1.0, 10 * (1 - done))
            arguments = (tf.constant(value, tf.float32) for value in (temperature, rate, n + 1))
            self._iterate(x, variables, moments, *arguments, tf.constant([n, 1]))
            progress()
        return variables[0].numpy()[0], variables[1].numpy()[0]

    def _one(self, x, variables, moments, temperature, rate, number, seed):
        y, z = variables
        with tf.GradientTape() as tape:
            loss = self._loss(x, y, z, temperature, seed)
        gradients = tape.gradient(loss, variables)
        rate = rate * tf.sqrt(1.0 - 0.999**number) / (1.0 - 0.9**number)
        for value, first, second, g in zip(variables, moments[:2], moments[2:], gradients, strict=True):
            g = tf.where(tf.math.is_finite(g), g, 0.0)  # a draw far out in a tail has none
            first.assign_add(0.1 * (g - first))
            second.assign_add(0.001 * (g * g - second))
            value.assign_sub(rate * first / (tf.sqrt(second) + 1e-12))
        return loss

    def _loss(self, x, y, z, temperature, seed):
        """Bits of a draw of the latents, and lambda * squared error of the picture they make, in bits."""
        weights, config = self._weights, self._model.config
        prior = Quantised(weights, self._conditions)
        rungs = tf.math.log(self._gain) / math.log(SCALE_RATIO)
        ratios, mix = tf.exp(weights["tail/log_ratio"]), tf.nn.softmax(weights["tail/logit"])

        logits, loc, log_scale = (weights[f"mixture/{part}"] for part in ("logits", "loc", "log_scale"))
        density = factorized(logits, loc, log_scale, self._hyper_gain)
        z = anneal(z, temperature, seed)
        total = tf.reduce_sum(bits(density, z))
        features = network.hyper_synthesis(prior, config, z / self._hyper_gain)
        features = features[:, : y.shape[1], : y.shape[2]]
        features, parameters = network.first_parameters(prior, config, features)
        drawn: list[tf.Tensor] = []
        for half in (0, 1):
            if half:
                parameters = network.second_parameters(prior, config, features, drawn[0] / self._gain)
            gain, rung = (take_half(tf.broadcast_to(g, tf.shape(y)), half) for g in (self._gain, rungs))
            loc, index = parameters
            density = conditional(loc * gain, index + rung, ratios, mix)
            residual = anneal(take_half(y, half) - loc * gain, temperature, seed + [0, half + 1])
            total += tf.reduce_sum(bits(density, loc * gain + residual))
            drawn.append(put_half(loc * gain + residual, half))
        ops = Float(weights, self._conditions)
        picture = 255.0 * (network.synthesis(ops, config, (drawn[0] + drawn[1]) * self._inverse_gain) + 0.5)
        return total + self._lambda * tf.reduce_sum(tf.square(x - picture)) / 3.0


def anneal(v: tf.Tensor, temperature: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """A draw between the integers below and above v, the nearer one likelier, relaxed so that v has a gradient."""
    low = tf.floor(v)
    part = tf.clip_by_value(v - low, 1e-5, 1 - 1e-5)
    low = tf.stop_gradient(low)
    logit = (tf.atanh(1 - part) - tf.atanh(part)) / temperature
    uniform = tf.random.stateless_uniform(tf.shape(v), seed, 1e-6, 1 - 1e-6)
    noise = tf.math.log(uniform) - tf.math.log1p(-uniform)  # the difference of two Gumbel variables
    return low + tf.sigmoid((-logit + noise) / temperature)
