"""Training of the generative VAE: what `training` asks of a kind of model."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from vaecodec.errors import CodecError
from vaecodec.generative.image_sets import read_set
from vaecodec.model.generative import Generative
from vaecodec.training.generative_vae import GenerativeVAE, initial_weights
from vaecodec.training.loop import Kind, Options, layout_of
from vaecodec.training.optimization import update

METRICS = ("loss", "bpd", "kl_bpd")
# The KL begins at a part of its weight and has it after so many steps: else latents are given up before the decoder
# has learned to read them (Bowman et al. 2016, section 3.1).
WEIGHT, WARM = 0.1, 6000.0


def make_step(config: Generative, options: Options, hard: bool = False) -> Any:
    """The pure training step over (state, images u8[B, S, S, 1], lr, seed); there is no hard phase here."""
    model, layout = GenerativeVAE(config, {}), layout_of(config)

    def step(state: list[tf.Tensor], images: tf.Tensor, lr: tf.Tensor, seed: tf.Tensor):
        weight = tf.minimum(1.0, WEIGHT + state[-1] / WARM)
        with tf.GradientTape() as tape:
            tape.watch(state[0])
            loss = model.bind(layout.unpack(state[0])).loss(images, weight, seed)
        return update(state, tape.gradient(loss.loss, state[0]), lr), tf.stack(loss)

    return step


def batches(paths: list[str], config: Generative, options: Options, seed: int) -> tf.data.Dataset:
    """Endless u8[batch, S, S, 1] of the pictures in `paths`, shuffled; raises CodecError on those of another size."""
    sets = [read_set(path)[0] for path in paths]
    for path, pictures in zip(paths, sets, strict=True):
        if pictures.shape[1:] != (config.side, config.side):
            raise CodecError(f"{path}: pictures of {pictures.shape[2]} x {pictures.shape[1]}, expected {config.side}")
    pictures = np.concatenate(sets)[..., None]

    def draw():
        rng = np.random.default_rng(seed)
        while True:
            yield pictures[rng.integers(len(pictures), size=options.batch)]

    shape = [options.batch, config.side, config.side, 1]
    return tf.data.Dataset.from_generator(draw, output_signature=tf.TensorSpec(shape, tf.uint8)).prefetch(4)


KIND = Kind(initial_weights, make_step, batches, METRICS, {"batch": 64, "rate": 1e-3, "minutes": 20.0})
