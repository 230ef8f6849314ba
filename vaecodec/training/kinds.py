"""What kinds of models there are to train: photographs and sets of small images, and how each is trained."""

from __future__ import annotations

from collections.abc import Callable, Sized
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec.config import Config
from vaecodec.model.generative import Generative
from vaecodec.training import datasets, generative_vae, train_step, vae
from vaecodec.training.train_step import Layout, Options

Architecture = Config | Generative
Weights = dict[str, np.ndarray]


class Kind(NamedTuple):
    """How models of a kind of architecture are trained."""

    initial_weights: Callable[[Any, int], Weights]  # of an architecture and a seed
    make_step: Callable[[Any, Options, bool], Callable[..., Any]]
    read: Callable[[list[str], Any], Sized]  # the images in paths, for an architecture
    batches: Callable[[Any, Any, Options, int], tf.data.Dataset]  # endless, of images and a seed
    metrics: tuple[str, ...]
    defaults: dict[str, Any]  # of Options, where they differ


def kind_of(config: Architecture) -> Kind:
    """How to train an architecture."""
    if isinstance(config, Generative):
        module = generative_vae
        return Kind(
            module.initial_weights, module.make_step, module.read, module.batches, module.METRICS, module.DEFAULTS
        )
    return Kind(vae.initial_weights, train_step.make_step, _read, _crops, train_step.METRICS, {})


def _read(paths: list[str], _: Config) -> list[datasets.Encoded]:
    return datasets.read_images(paths)


def _crops(images: list[datasets.Encoded], config: Config, options: Options, seed: int) -> tf.data.Dataset:
    return datasets.batches(images, options.batch, options.crop, seed, config.channels, options.enlarged)


def layout_of(config: Architecture) -> Layout:
    """The layout of an architecture's weights in its state."""
    return Layout(kind_of(config).initial_weights(config, 0))


def initial_state(config: Architecture, seed: int = 0, weights: Weights | None = None) -> list[np.ndarray]:
    """The flat state at step 0, from `weights` or initial ones."""
    weights = kind_of(config).initial_weights(config, seed) if weights is None else weights
    return Layout(weights).initial_state(weights)
