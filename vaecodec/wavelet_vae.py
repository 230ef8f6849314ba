"""The VAE whose latents are wavelet coefficients, and whose prior goes from the coarsest of them to the finest.

    p(y) = p(lowest)  p(octave 4 | lowest)  p(octave 3 | what is coarser) ...      each in two halves
    p(x | y)  Normal around the picture that a network makes of the inverse transform and of y

There is no z: what a hyper-latent would say, the coarser octaves do.  Symbols are picked as the encoder will pick them,
the nearer to 0 where that is the cheaper error; the encoder's network learns from the rate of noisy values beside.
Read `WaveletVAE.parts` side by side with `octaves.walk`.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec import network, wavelet_layers
from vaecodec.config import ANCHORS, CELL, LAMBDA_MAX, LAMBDA_MIN, SCALE_MIN, SCALE_RATIO, STRIDE, WORTH, Config
from vaecodec.densities import bits, conditional, tfd
from vaecodec.integer import ACTIVATION_BITS, INDEX_GAIN, LOC_GAIN
from vaecodec.layers import on_grid, straight_through
from vaecodec.pyramid import BANDS, LOWEST, OCTAVES, band_of
from vaecodec.quantization import add_noise
from vaecodec.vae import VAE, Gains, Loss, lambda_of
from vaecodec.wavelet_layers import Quantised, Shapes, details, from_halves, to_halves, with_magnitudes

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
    for part, (distance, corners) in enumerate(LOWEST):
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
    for number in range(len(LOWEST)):
        weights[f"lowest/{number}/out/bias"][channels:] = _rung(LOWEST_SIGMA)
    weights["band_gain"] = np.zeros((ANCHORS, ALL_OCTAVES * BANDS * channels))
    weights["centroid"] = np.zeros((KNOTS, 2))
    weights["tail/log_ratio"] = np.array(TAIL_START)
    weights["tail/logit"] = np.array([0.5, -0.5])
    return {name: np.asarray(value, np.float32) for name, value in weights.items()}


def log_steps(config: Config) -> np.ndarray:
    """f64[A]: logarithms of the quantisation step at the anchors, on a scale of 1 for 255."""
    return 0.5 * np.log(config.weighty / (WORTH * np.geomspace(LAMBDA_MIN, LAMBDA_MAX, ANCHORS))) - math.log(255)


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


class WaveletVAE(VAE):
    """One model for every rate."""

    def __init__(self, config: Config, weights: dict[str, np.ndarray] | None = None, seed: int = 0) -> None:
        super().__init__(config, initial_weights(config, seed) if weights is None else weights)

    def gains(self, quality: tf.Tensor) -> Gains:
        """quality f32[B] in [0, A - 1] -> per-channel vectors; hyper_gain is that of bands, [B, 1, 1, O * 3 C]."""
        at = self.interpolation(quality)
        bands = at("band_gain")
        step = 0.5 * tf.math.log(self.config.weighty / (WORTH * lambda_of(quality))) - math.log(255.0)
        channels = self.config.channels
        known = tf.concat([bands[..., : OCTAVES * BANDS * channels], 0 * bands[..., :1]], -1)
        gain = tf.gather(known, band_of(channels), axis=-1) - step[:, None, None, None]
        conditions = {"start": at("start"), **self.conditions(at)}
        return Gains(tf.exp(gain), tf.exp(-gain), tf.exp(bands), conditions)

    def targets(self, scaled: tf.Tensor, gains: Gains) -> list[tf.Tensor]:
        """y [B, h, w, 256 C], h and w even, in quantisation steps -> what is coded, in the order of `parts`."""
        low, bands = wavelet_layers.unpack(scaled)
        lowest, fifth = wavelet_layers.forward(low)
        fifth *= gains.hyper_gain[..., -fifth.shape[3] :]
        return [lowest] * (1 + len(LOWEST)) + [
            *(half for octave in (fifth, *reversed(bands)) for half in to_halves(octave))
        ]

    def parts(self, gains: Gains, lmbda: tf.Tensor, shape: tf.Tensor) -> Generator[Question, tf.Tensor, None]:
        """p(y) p(x | y): yields densities, the indices of their scales and where they hold, and is sent values.

        `shape` is that of the lowest coefficients, [B, h, w, C].  A density that holds at half of the places is sent
        values with 0 elsewhere.
        """
        prior, config, width = Quantised(self.weights, gains.conditions), self.config, BANDS * self.config.channels
        start = tf.broadcast_to(gains.conditions["start"], tf.concat([shape[:3], [2 * config.channels]], 0))
        loc, index = tf.split(start, 2, -1)
        first, *others = wavelet_layers.lowest_masks(shape[1], shape[2])
        low = yield self.asked(LOC_GAIN * loc, INDEX_GAIN * index, first)
        for part, ((distance, corners), where) in enumerate(zip(LOWEST, others, strict=True)):
            near = wavelet_layers.around(low, distance, corners)
            mean = on_grid(tf.add_n(near) / 4, ACTIVATION_BITS)
            around = [prior.compand(tf.stop_gradient(one)) for one in (*(one - mean for one in near), mean)]
            loc, index = network.lowest_part(prior, config, part, with_magnitudes(*around))
            low += yield self.asked(loc + mean, index, where)
        parents, found = tf.zeros_like(tf.tile(low[:, ::2, ::2], [1, 1, 1, BANDS])), list[tf.Tensor]()
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
                gain = gains.hyper_gain[..., octave * width : (octave + 1) * width]
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
            return error * error + WORTH * bits(density, density.base.loc + symbols)

        return tf.stop_gradient(tf.where(cost(nearer) < cost(nearest), nearer, nearest))

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
        return Loss(loss, tf.reduce_mean(bpp), psnr, tf.reduce_mean(tf.add_n(rates[: 1 + len(LOWEST)])) / pixels)


def _sum(rates: tf.Tensor, where: Any) -> tf.Tensor:
    """Bits of each picture, of the places that are asked for."""
    return tf.reduce_sum(rates if where is None else tf.where(where, rates, 0.0), [1, 2, 3])
