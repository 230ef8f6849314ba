"""The training step on several devices at once: tf.distribute.MirroredStrategy under the same pure function.

    weights --> each device: the towers of its share of the batch --> gradients --reduced to a sum--> one update

The state stays one flat vector of each kind, on the first device: it goes out and its gradient comes back once a step.
Towers have the seeds that they have on one device, so that the result is the same but for the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tensorflow as tf

from vaecodec.errors import CodecError
from vaecodec.model.generative import Generative
from vaecodec.training.loop import Options, draw_quality, make_tower
from vaecodec.training.optimization import update


def strategy_of(devices: int) -> tf.distribute.MirroredStrategy:
    """Over so many GPUs, or logical CPUs where there are none; raises CodecError where they are fewer."""
    found = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    if len(found) < devices:
        raise CodecError(f"{devices} devices are asked for, and TensorFlow has {len(found)}: {found[0].device_type}")
    return tf.distribute.MirroredStrategy([device.name for device in found[:devices]])


def mirrored(config: Any, options: Options, devices: int) -> Callable[..., Any]:
    """A make_step over so many devices; raises CodecError where the batch or the model cannot be divided so."""
    if isinstance(config, Generative):
        raise CodecError("a model of digits is trained on one device")
    if options.batch % devices:
        raise CodecError(f"a batch of {options.batch} cannot be divided between {devices} devices")
    strategy = strategy_of(devices)
    return lambda config, options, hard: make_step(config, options, hard, strategy)


def make_step(config: Any, options: Options, hard: bool, strategy: tf.distribute.Strategy) -> Any:
    """See training.make_step; each device has as many towers as are left to it, at least one."""
    replicas = strategy.num_replicas_in_sync
    each = options.towers // replicas if options.towers % replicas == 0 else 1
    towers = max(each, 1) * replicas
    tower, size = make_tower(config, replace(options, towers=towers), hard), options.batch // towers

    def share(weights: tf.Tensor, images: tf.Tensor, quality: tf.Tensor, seed: tf.Tensor):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        found = []
        for n in range(towers // replicas):
            number = replica * (towers // replicas) + n
            x = tf.ensure_shape(images[number * size : (number + 1) * size], [size, *images.shape[1:]])
            q = tf.ensure_shape(quality[number * size : (number + 1) * size], [size])
            found.append(tower(weights, x, q, seed, number))
        return [tf.add_n(one) / towers for one in zip(*found, strict=True)]

    def step(state: list[tf.Tensor], images: tf.Tensor, lr: tf.Tensor, seed: tf.Tensor):
        found = strategy.run(share, args=(state[0], images, draw_quality(options, seed), seed))
        gradient, metrics = (strategy.reduce(tf.distribute.ReduceOp.SUM, one, axis=None) for one in found)
        return update(state, gradient, lr), metrics

    return step
