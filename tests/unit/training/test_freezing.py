"""Test freezing: the integers of the codec equal the floats of training."""

import math

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from support.images import synthetic_image
from support.models import SMALL_CONFIG as CONFIG
from support.models import freeze_weights, random_weights
from vaecodec.codec import Codec
from vaecodec.container.image_file import quality_index_of
from vaecodec.entropy import scale_offsets
from vaecodec.model import network
from vaecodec.model.file import load_model
from vaecodec.native import networks as kernels
from vaecodec.native.prior import companding_table, load_lowest, load_octave
from vaecodec.native.reference.prior import compand
from vaecodec.training import layers, vae
from vaecodec.training.freezing import companding_thresholds, fixed_point, level_at, unfreeze
from vaecodec.training.vae import VAE


@pytest.fixture(scope="module")
def weights():
    return random_weights(CONFIG)


@pytest.fixture(scope="module")
def codec(weights, tmp_path_factory):
    return Codec(load_model(freeze_weights(tmp_path_factory.mktemp("run"), CONFIG, weights)))


def psnr(x, y):
    return 10 * np.log10(255**2 / np.square(x.astype(np.float64) - y).mean())


def test_codec_costs_what_training_predicts(codec, monkeypatch):
    """Bits and PSNR agree, without scale offsets and filter, which training does not model.

    The codec quantises with a trellis, which costs less than the rounding of training.
    """
    monkeypatch.setattr(scale_offsets, "choose_scale_offsets", lambda *_: None)
    x = synthetic_image(128, 192)
    quality_index = 448
    model = VAE(*unfreeze(codec.model))
    quality = tf.constant([quality_index / 128])
    loss = model.loss(tf.constant(x[None]), quality, tf.constant([1, 2]))
    setting = next(float(q) for q in np.arange(1, 100.0, 0.05) if quality_index_of(q) == quality_index)
    data = codec.encode_unfiltered(x, setting)
    information, rate = codec.information(x, setting) / (128 * 192), 8 * len(data) / (128 * 192)
    assert 0.9 * float(loss.bpp) < information < 1.02 * float(loss.bpp)
    assert rate == pytest.approx(information, rel=0.05)
    assert -0.15 < psnr(x, codec.decode(data)) - float(loss.psnr) < 0.6


def test_integer_networks_equal_the_trained_networks():
    """For inputs on the grid of activations, float64 in training equals the integers of the native core."""
    weights = random_weights(seed=3)
    integers = {name: fixed_point(name, weights[name]) for name in vae.specification(CONFIG)["prior"].weights}
    level = type(level := level_at(weights, 3.3))(*map(np.rint, level))
    doubles = {name: tf.constant(value, tf.float64) for name, value in weights.items()}
    ends = np.cumsum([CONFIG.prior, *[CONFIG.coarser] * 4])
    vectors = np.split(level.bias, ends[:-1])
    conditions = {f"context/{octave}": vector / 64 for octave, vector in enumerate(vectors)}
    conditions |= {f"lowest/{part}": vector / 64 for part, vector in enumerate(np.split(level.lowest, 4))}
    trainer = layers.Quantised(doubles, {name: tf.constant(value) for name, value in conditions.items()})
    table, rng = companding_table(companding_thresholds()), np.random.default_rng(1)

    def numbers(count):
        integers = rng.integers(-300, 301, (6, 5, count)).astype(np.int16)
        return integers, tf.constant(integers[None] / 64, tf.float64)

    def compare(sums, expected):
        """Unrounded sums, unit 2**-15, of means and scale indices."""
        loc, scale_sums = np.split(sums.astype(np.int64), 2, -1)
        mean, scale_index = (part.numpy()[0] for part in expected)
        assert np.array_equal(np.floor(mean * 64 + 0.5), (loc + 64) >> 7)
        assert np.array_equal(np.floor(scale_index + 0.5), (scale_sums + 2048) >> 12)

    for octave in (0, 1, 4):
        layer = load_octave(integers, octave, table, 90)
        (inputs, float_inputs), (first_values, float_first_values) = numbers(42 if octave == 4 else 50), numbers(36)
        x = kernels.dense(layer.enter, inputs, vector=vectors[octave].astype(np.int32))
        x = kernels.block(layer.before, x)
        features = network.octave_features(trainer, CONFIG, octave, float_inputs)
        assert np.array_equal(features[0].numpy() * 64, x)
        compare(kernels.dense(layer.first, x), network.octave_first(trainer, CONFIG, octave, features))
        x = kernels.block(layer.after, kernels.dense(layer.known, first_values, residual=x))
        expected = network.octave_second(trainer, CONFIG, octave, features, float_first_values)
        compare(kernels.dense(layer.second, x), expected[:2])
        assert len(expected) == 2 + (octave > 0) and (layer.passing is not None) == (octave > 0)
        if layer.passing is not None:
            passed = depth_to_space(kernels.dense(layer.passing, x))
            assert np.array_equal(tf.nn.depth_to_space(expected[2], 2)[0].numpy() * 64, passed)
    lowest = load_lowest(integers, table, 90)
    for part in (0, 3):
        inputs, float_inputs = numbers(30)
        layer, vector = lowest.parts[part], np.split(level.lowest, 4)[part].astype(np.int32)
        x = np.maximum(kernels.dense(layer.enter, inputs, vector=vector), 0)
        sums = kernels.dense(layer.out, kernels.dense(layer.middle, x))
        compare(sums, network.lowest_part(trainer, CONFIG, part, float_inputs))


def depth_to_space(x):
    """[h, w, 4 C] -> [2 h, 2 w, C]."""
    h, w, count = x.shape
    return x.reshape(h, w, 2, 2, count // 4).transpose(0, 2, 1, 3, 4).reshape(2 * h, 2 * w, -1)


def test_companding_equals_that_of_training():
    values = np.arange(-20000, 20001)
    integers = compand(companding_table(companding_thresholds()), values)
    floats = layers.Quantised({}).compand(tf.constant(values / 64, tf.float64)).numpy() * 64
    assert np.array_equal(integers[np.abs(values) <= 255 * 64], floats[np.abs(values) <= 255 * 64])
    assert np.array_equal(integers, -integers[::-1]) and integers.max() == round(64 * math.log(256))


def test_unfrozen_weights_are_as_precise_as_the_integers(weights, codec):
    config, unfrozen = unfreeze(codec.model)
    assert config == CONFIG and set(unfrozen) == set(weights)
    for name, value in weights.items():
        assert np.abs(unfrozen[name] - value).max() <= 2.0**-9 * max(1, np.abs(value).max()), name
