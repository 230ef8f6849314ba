"""Models of wavelets: frozen from weights that training might make, and loaded as a stranger's."""

import math

import numpy as np
import pytest

from support.images import synthetic_image
from support.models import SMALL_CONFIG as CONFIG
from support.models import freeze_weights, random_weights

pytest.importorskip("tensorflow")

import tensorflow as tf

from support.wavelets import latents_of_pixels
from vaecodec.codec.codec import Codec
from vaecodec.config import QUALITY_INDICES, SQUARED_STEPS_PER_BIT, Config, without_retired_fields
from vaecodec.container.image_file import parse, quality_index_of
from vaecodec.entropy import coding
from vaecodec.generative import generation
from vaecodec.images.channels import downscale
from vaecodec.model.file import load_model
from vaecodec.native import networks as kernels
from vaecodec.native.prior import companding_table, load_lowest, load_octave
from vaecodec.native.reference.prior import compand, details
from vaecodec.prior.context_model import Distributions
from vaecodec.prior.tile import choose_symbols, decode_tile
from vaecodec.rdo import quantization
from vaecodec.training import layers, loop, train_step, vae, wavelets
from vaecodec.training.densities import bits
from vaecodec.training.freezing import companding_thresholds, fixed_point, level_at, unfreeze
from vaecodec.training.vae import VAE, lambda_of
from vaecodec.transforms.tiling import Box, halo
from vaecodec.transforms.wavelet import empty_coefficients, quantisation_targets


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    weights = random_weights(CONFIG)
    return freeze_weights(tmp_path_factory.mktemp("run"), CONFIG, weights), weights


@pytest.fixture(scope="module")
def codec(made):
    model = load_model(made[0])
    assert not model.shipped and model.config == CONFIG  # so that its networks are looked through
    return Codec(model)


def psnr(x, y):
    return 10 * np.log10(255**2 / np.square(x.astype(np.float64) - y).mean())


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (16, 16), (33, 48), (200, 333)])
def test_pictures_survive_it(codec, shape):
    x = synthetic_image(*shape)
    found = [codec.encode(x, quality) for quality in (20, 60, 100)]
    decoded = [codec.decode(data) for data in found]
    assert [y.shape for y in decoded] == [x.shape] * 3
    assert psnr(x, decoded[2]) > 29 and psnr(x, decoded[2]) > psnr(x, decoded[0])
    # A picture of one pixel costs next to nothing at any quality.
    assert len(found[0]) <= len(found[1]) <= len(found[2]) or x.shape == (1, 1, 3)


@pytest.mark.parametrize("quality", [1, 50, 100])
def test_values_are_close_to_what_they_stand_for(codec, quality):
    x, step, model = synthetic_image(130, 170), quality_index_of(quality), codec.model
    [tile] = parse(data := codec.encode(x, quality)).tiles
    payload = data[tile.offset : tile.offset + tile.length]
    values = decode_tile(model.prior, model.models, (9, 11), step, payload, tile.crc)
    wanted = quantisation_targets(codec.analyse_batch([x], quality)[0][0], model.gains.scaled(step))
    for found, target in zip((*values.halves, (values.low,)), (*wanted.halves, (wanted.low,)), strict=True):
        for one, other in zip(found, target, strict=True):
            # But for the fifth octave, which is rounded on its way, within a step or two.
            assert np.abs(one / quantization.UNIT - other).max() < 2.5


def test_tiles_and_windows_join_as_if_there_were_none(codec):
    x = synthetic_image(190, 260)
    tiled = codec.encode(x, 70, tile=64)
    whole = codec.decode(tiled)
    assert psnr(x, whole) > 25
    assert np.array_equal(codec.decode(tiled, window=(50, 70, 90, 120)), whole[50:140, 70:190])


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_previews_are_means_of_what_is_decoded(codec, factor):
    x = synthetic_image(190, 260)
    data = codec.encode(x, 95, tile=64)
    whole, small = codec.decode(data), codec.decode(data, reduce=factor)
    assert psnr(downscale(whole, Box(0, 0, 190, 260), factor), small) > 35
    window = codec.decode(data, window=(32, 64, 100, 90), reduce=factor)
    box = Box(32, 64, 132, 154).reduce(factor)
    assert np.array_equal(window, small[box.slices()])


def test_latents_are_varied_and_drawn(codec):
    x = synthetic_image(64, 96)
    near, far = (generation.vary_photograph(codec, x, strength, 1, 90)[0] for strength in (0.0, 1.0))
    assert np.array_equal(near, codec.decode(codec.encode_unfiltered(x, 90))) and psnr(x, far) < psnr(x, near)
    between = generation.interpolate_photographs(codec, x, x[::-1].copy(), 3, 90)
    assert np.array_equal(between[0], near) and between.shape == (3, 64, 96, 3)
    drawn = generation.sample_photographs(codec, 2, (40, 56), 50)
    assert drawn.shape == (2, 40, 56, 3) and (drawn[0] != drawn[1]).any()


def test_halo_is_as_far_as_the_transforms_reach(codec):
    """One cell changed leaves pixels beyond the halo as they are, to the last bit; one cell less would not do.

    What the wavelet has at its ends the networks round away more often than not: so they may reach less far.
    """
    step, rng = quality_index_of(80), np.random.default_rng(0)
    side, reach = 19, halo(CONFIG)
    given, other = empty_coefficients(3, (side, side)), empty_coefficients(3, (side, side))
    for plane, copy in zip(given.planes(), other.planes(), strict=True):
        plane[...] = rng.normal(0, 500, plane.shape)
        copy[...] = plane
    for plane in other.crop(9, 9, 10, 10).planes():
        plane += rng.normal(0, 2**26, plane.shape).astype(np.int32)

    def reached(one, two):
        """Pixels beyond the cell that differ."""
        places = np.argwhere((one != two).any(2))
        return int(np.maximum(144 - places, places - 159).max())

    assert reached(*(codec.transforms.synthesis.linear(each) for each in (given, other))) == 46
    pixels = [codec.transforms.pixels([each], step)[0] for each in (given, other)]
    furthest = 46 + 8 * CONFIG.fine_blocks
    assert 30 < reached(*pixels) <= furthest and 16 * (reach - 1) < furthest <= 16 * reach
    x = rng.integers(0, 256, (16 * side, 16 * side, 3), np.uint8)
    moved = x.copy()
    moved[144:160, 144:160] = 255 - moved[144:160, 144:160]
    one, two = (codec.transforms.analysis([image], step)[0] for image in (x, moved))
    furthest = 0
    for plane, copy in zip(one.planes(), two.planes(), strict=True):
        cells = np.argwhere((plane != copy).any(0)) // (plane.shape[1] // side)
        furthest = max(furthest, int(np.abs(cells - 9).max()))
    assert furthest == reach


def test_training_graph_and_codec_agree(made, codec, monkeypatch):
    """In float64, and with the exact low-pass pictures replaced by real ones, only their rounding differs.

    But for the scales and the filter of a whole picture, of which the training graph knows nothing.
    """
    monkeypatch.setattr(coding, "choose_scale_offsets", lambda *_: None)
    x = synthetic_image(128, 192)
    step = 448
    vae = VAE(*unfreeze(codec.model))
    quality = tf.constant([step / 128])
    loss = vae.loss(tf.constant(x[None]), quality, tf.constant([1, 2]))
    q = next(q for q in np.arange(1, 100.0, 0.05) if quality_index_of(q) == step)
    data = codec.encode_unfiltered(x, float(q))
    assert float(loss.bpp) == pytest.approx(codec.information(x, float(q)) / x.shape[0] / x.shape[1], rel=0.02)
    assert 8 * len(data) / (x.shape[0] * x.shape[1]) == pytest.approx(float(loss.bpp), rel=0.05)
    assert float(loss.psnr) == pytest.approx(psnr(x, codec.decode(data)), abs=0.15)


def test_integer_networks_equal_the_trained_ones():
    """Of inputs on the grid of activations: the core's integers are the training graph's float64."""
    from vaecodec.model import network

    weights = random_weights(seed=3)
    ints = {name: fixed_point(name, weights[name]) for name in vae.specification(CONFIG)["prior"].weights}
    level = type(level := level_at(weights, 3.3))(*map(np.rint, level))
    double = {name: tf.constant(value, tf.float64) for name, value in weights.items()}
    ends = np.cumsum([CONFIG.prior, *[CONFIG.coarser] * 4])
    vectors = np.split(level.bias, ends[:-1])
    added = {f"context/{octave}": vector / 64 for octave, vector in enumerate(vectors)}
    added |= {f"lowest/{part}": vector / 64 for part, vector in enumerate(np.split(level.lowest, 4))}
    trainer = layers.Quantised(double, {name: tf.constant(value) for name, value in added.items()})
    table, rng = companding_table(companding_thresholds()), np.random.default_rng(1)

    def numbers(count):
        ours = rng.integers(-300, 301, (6, 5, count)).astype(np.int16)
        return ours, tf.constant(ours[None] / 64, tf.float64)

    def compare(sums, wanted):
        """Unrounded sums, unit 2**-15, of means and scale indices."""
        loc, index = np.split(sums.astype(np.int64), 2, -1)
        mean, rung = (part.numpy()[0] for part in wanted)
        assert np.array_equal(np.floor(mean * 64 + 0.5), (loc + 64) >> 7)
        assert np.array_equal(np.floor(rung + 0.5), (index + 2048) >> 12)

    for octave in (0, 1, 4):
        layer = load_octave(ints, octave, table, 90)
        (seen, some), (known, other) = numbers(42 if octave == 4 else 50), numbers(36)
        x = kernels.dense(layer.enter, seen, vector=vectors[octave].astype(np.int32))
        x = kernels.block(layer.before, x)
        features = network.octave_features(trainer, CONFIG, octave, some)
        assert np.array_equal(features[0].numpy() * 64, x)
        compare(kernels.dense(layer.first, x), network.octave_first(trainer, CONFIG, octave, features))
        x = kernels.block(layer.after, kernels.dense(layer.known, known, residual=x))
        wanted = network.octave_second(trainer, CONFIG, octave, features, other)
        compare(kernels.dense(layer.second, x), wanted[:2])
        assert len(wanted) == 2 + (octave > 0) and (layer.passing is not None) == (octave > 0)
        if layer.passing is not None:
            passed = pyramid_shuffled(kernels.dense(layer.passing, x))
            assert np.array_equal(tf.nn.depth_to_space(wanted[2], 2)[0].numpy() * 64, passed)
    lowest = load_lowest(ints, table, 90)
    for part in (0, 3):
        around, beside = numbers(30)
        layer, vector = lowest.parts[part], np.split(level.lowest, 4)[part].astype(np.int32)
        x = np.maximum(kernels.dense(layer.enter, around, vector=vector), 0)
        sums = kernels.dense(layer.out, kernels.dense(layer.middle, x))
        compare(sums, network.lowest_part(trainer, CONFIG, part, beside))


def pyramid_shuffled(x):
    """Depth to space: [h, w, 4 C] -> [2 h, 2 w, C]."""
    h, w, count = x.shape
    return x.reshape(h, w, 2, 2, count // 4).transpose(0, 2, 1, 3, 4).reshape(2 * h, 2 * w, -1)


def test_companding_is_that_of_training(codec):
    values = np.arange(-20000, 20001)
    ours = compand(codec.model.prior.companding, values)
    theirs = layers.Quantised({}, {}).compand(tf.constant(values / 64, tf.float64)).numpy() * 64
    assert np.array_equal(ours[np.abs(values) <= 255 * 64], theirs[np.abs(values) <= 255 * 64])
    assert np.array_equal(ours, -ours[::-1]) and ours.max() == round(64 * math.log(256))


def test_details_and_wavelets_are_those_of_training():
    low = np.random.default_rng(0).integers(-4000, 4000, (3, 12, 10)).astype(np.int32)
    theirs = wavelets.details(tf.constant(low.transpose(1, 2, 0)[None] / 64, tf.float64))[0].numpy()
    whole = details(low, slice(0, 12))
    assert np.abs(whole.transpose(1, 2, 0) - theirs * 64).max() <= 0.5
    for rows in (slice(0, 4), slice(4, 8), slice(8, 12), slice(11, 12)):
        assert np.array_equal(details(low, rows), whole[:, rows])
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (64, 96, 3)).astype(np.float32)
    y = layers.Float({}, {}).forward_dwt(tf.constant(x[None]))
    assert np.abs(y[0].numpy() - latents_of_pixels(x)).max() < 1e-5
    assert np.abs(layers.Float({}, {}).inverse_dwt(y)[0].numpy() - x).max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9, 4)])
def test_strips_of_rows_give_what_the_whole_gives(codec, shape, monkeypatch):
    from vaecodec.threads import Threads

    found = []
    for count in (1, 3, 10**6):
        rows = [(n, n + count) for n in range(0, 200, count)]
        monkeypatch.setattr(Threads, "strips", lambda _, h, rows=rows: [(a, min(b, h)) for a, b in rows if a < h])
        rng, seen = np.random.default_rng(2), []

        def choose(part, distributions, rng=rng, seen=seen):
            seen += distributions
            symbols = rng.integers(-3, 4, distributions.indices.shape) * (distributions.indices > 0)
            return symbols.astype(np.int32)

        _, values = choose_symbols(codec.model.prior, shape, 300, choose)
        found.append([*seen, values.low, *(half for pair in values.halves for half in pair)])
    for other in found[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_tensorflow_makes_the_same(codec):
    pytest.importorskip("vaecodec.transforms.tensorflow")
    other, x = Codec(codec.model, "tensorflow"), synthetic_image(96, 130)
    data = codec.encode(x, 70)
    assert np.array_equal(codec.decode(data), other.decode(data)) and other.encode(x, 70) == data


def test_rounding_picks_the_cheaper_of_two(codec):
    """Against the costs themselves, of every row and many residuals."""
    prior, tables = codec.model.prior, codec.model.models.tables
    chosen = quantization.quantizer(prior, tables)
    residual = np.linspace(-6, 6, 2001, dtype=np.float32)
    for row in range(1, prior.scales, 7):
        rows = np.full(residual.shape, row, np.uint8)
        symbols = chosen(residual + np.float32(0.25), Distributions(rows, np.full(residual.shape, 16, np.int32)))
        worth, size = quantization.symbol_bits(tables, row), np.abs(residual)
        nudge = prior.centroids[row] / quantization.UNIT

        def cost(n, worth=worth, size=size, nudge=nudge):
            value = n + np.where(n == 0, 0, np.where(n == 1, nudge[0], nudge[1]))
            return np.square(size - value) + SQUARED_STEPS_PER_BIT * worth[n]

        near = np.rint(size).astype(int)
        best = np.where((near > 0) & (cost(np.maximum(near - 1, 0)) < cost(near)), near - 1, near)
        assert (np.abs(np.abs(symbols) - best) * (np.abs(cost(best) - cost(np.abs(symbols))) > 1e-4)).max() == 0
        assert (np.sign(symbols) * np.sign(residual) >= 0).all()
    zeros = Distributions(np.zeros(residual.shape, np.uint8), np.zeros(residual.shape, np.int32))
    strays = chosen(residual, zeros)
    assert np.array_equal(strays, np.rint(residual) * (np.abs(residual) >= quantization.OUTLIER))


def test_loss_is_rate_and_distortion_of_what_is_coded(made):
    """bpp are the bits of symbols under the densities of `parts`, and what it ends with is p(x | y)."""
    x = synthetic_image(64, 128)[None]
    model, quality = VAE(CONFIG, made[1]), tf.constant([3.0])
    loss = model.loss(tf.constant(x), quality, tf.constant([1, 2]), hard=True)
    gains, lmbda = model.gains(quality), lambda_of(quality)
    scaled = model.analysis(tf.constant(x, tf.float32), gains) * gains.gain
    joint, total = model.parts(gains, lmbda, tf.constant([1, 2, 4, 3])), 0.0
    density, index, where = next(joint)
    for target in model.targets(scaled, gains):
        symbols = model.choose_symbols(density, index, target)
        found = bits(density, density.loc + symbols)
        value = layers.on_grid(density.loc + vae.centroid(made[1]["centroid"], symbols, index), 6)
        if where is not None:
            found, value = tf.where(where, found, 0.0), tf.where(where, value, 0.0)
        total += float(tf.reduce_sum(found))
        density, index, where = joint.send(value)
    mse = float(tf.reduce_mean((x - density.loc) ** 2))
    assert total / (64 * 128) == pytest.approx(float(loss.bpp), rel=1e-3)
    objective = total / (64 * 128) + float(lmbda[0]) * mse
    assert float(loss.loss) * math.sqrt(float(lmbda[0])) == pytest.approx(objective, rel=1e-3)


def test_training_lowers_the_loss():
    options = train_step.Options(batch=2, crop=64)
    step = tf.function(train_step.make_step(CONFIG, options))
    state = [tf.constant(value) for value in loop.initial_state(CONFIG)]
    images = tf.constant(np.stack([synthetic_image(64, 64), synthetic_image(64, 64)[::-1]]))
    found = []
    for n in range(12):
        state, metrics = step(state, images, tf.constant(2e-3), tf.constant([0, n % 2]))
        found.append(float(metrics[0]))
    assert np.mean(found[-2:]) < 0.9 * np.mean(found[:2])


def test_weights_come_back_from_the_frozen_model(made, codec):
    config, found = unfreeze(codec.model)
    assert config == CONFIG and set(found) == set(made[1])
    for name, value in made[1].items():
        assert np.abs(found[name] - value).max() <= 2.0**-9 * max(1, np.abs(value).max()), name


def test_every_quality_step_has_its_step_of_quantisation(codec):
    sizes = np.array([codec.model.step_size(step) for step in (0, 448, QUALITY_INDICES - 1)])  # of the low-pass picture
    worth = np.sqrt(3 / (SQUARED_STEPS_PER_BIT * np.array([0.0006, math.sqrt(0.0006 * 0.18), 0.18])))
    assert sizes == pytest.approx(worth, rel=2e-4)


def test_other_channels(tmp_path):
    config = Config(16, 1, 16, 1, prior=16, coarser=20, hyper_width=8, channels=1)
    codec = Codec(load_model(freeze_weights(tmp_path, config, random_weights(config))))
    grey = synthetic_image(70, 90)[..., :1].copy()
    found = codec.decode(codec.encode(grey, 90))
    assert found.shape == grey.shape and psnr(grey, found) > 28


@pytest.mark.parametrize("fields", [{"hyper": 4}, {"channels": 0}, {"coarser": 5000}, {"prior": 1.5}])
def test_a_config_that_does_not_fit_is_refused(fields):
    with pytest.raises(ValueError, match="config"):
        Config.from_dict({**CONFIG.to_dict(), **fields})


def test_checkpoints_with_retired_fields_are_read():
    old = {name: value for name, value in CONFIG.to_dict().items() if name != "channels"}
    old |= {"latents": 768, "hyper": 0, "wavelet": 1}
    assert Config.from_dict(without_retired_fields(old)) == CONFIG
    assert without_retired_fields(CONFIG.to_dict()) == CONFIG.to_dict()
    for other in ({**old, "latents": 384}, {**old, "hyper": 48}, {**old, "lapped": 1}, {**old, "wavelet": 0}):
        with pytest.raises(ValueError, match="not of a wavelet model"):
            without_retired_fields(other)
