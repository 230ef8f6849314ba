"""Models of wavelets: frozen from weights that training might make, and loaded as a stranger's."""

import math

import numpy as np
import pytest
from conftest import picture

pytest.importorskip("tensorflow")

import tensorflow as tf
from vaecodec.engines import Engine

from vaecodec import (
    cells,
    context,
    layers,
    octaves,
    parallel,
    photo_drawing,
    planes,
    pyramid,
    rounding,
    training,
    vae,
    wavelet_layers,
    widening,
)
from vaecodec.codec import Codec
from vaecodec.config import STEPS, WORTH, Config, without_retired_fields
from vaecodec.container import step_of
from vaecodec.densities import bits
from vaecodec.freezing import at_quality, freeze, integer_weights
from vaecodec.integer import prepare
from vaecodec.model.file import load_model
from vaecodec.tiling import Box, halo
from vaecodec.unfreezing import weights_of
from vaecodec.vae import lambda_of, make

CONFIG = Config(16, 2, 24, 1, prior=20, coarser=24, hyper_width=12)


def trained(config=CONFIG, seed=0):
    """Initial weights, and so much more that every network matters."""
    rng = np.random.default_rng(seed)
    weights = vae.initial_weights(config, seed)
    parts = vae.specification(config)
    for name in parts["prior"].weights:
        weights[name] = weights[name] + rng.normal(0, 0.05, weights[name].shape).astype(np.float32)
    wide = [name for name in weights if name.endswith(("/first/bias", "/second/bias"))]
    for name in (*wide, *(f"lowest/{part}/out/bias" for part in range(4))):  # so that nothing is a surprise
        weights[name][len(weights[name]) // 2 :] += 2.5
    for name in ("analysis/latents/kernel", "synthesis/fine/kernel"):
        weights[name] = weights[name] + rng.normal(0, 0.004, weights[name].shape).astype(np.float32)
    weights["band_gain"] += rng.normal(0, 0.1, weights["band_gain"].shape).astype(np.float32)
    weights["centroid"] = np.tile(np.array([[0.08, -0.05]], np.float32), (len(weights["centroid"]), 1))
    for name in weights:
        if name.startswith(("context/", "lowest/")) and name.endswith("/condition"):
            weights[name] += rng.normal(0, 0.2, weights[name].shape).astype(np.float32)
    return weights


def frozen(folder, config=CONFIG, seed=0):
    weights = trained(config, seed)
    training.save_checkpoint(
        str(folder), config, training.Options(), training.initial_state(config, 0, weights), {"steps": 0}
    )
    freeze(str(folder), str(folder / "wavelet.vcm"))
    return str(folder / "wavelet.vcm"), weights


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return frozen(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def codec(made):
    model = load_model(made[0])
    assert not model.shipped and model.config == CONFIG  # so that its networks are looked through
    return Codec(model)


def psnr(x, y):
    return 10 * np.log10(255**2 / np.square(x.astype(np.float64) - y).mean())


@pytest.mark.parametrize("shape", [(1, 1), (7, 300), (16, 16), (33, 48), (200, 333)])
def test_pictures_survive_it(codec, shape):
    x = picture(*shape)
    found = [codec.encode(x, quality) for quality in (20, 60, 100)]
    decoded = [codec.decode(data) for data in found]
    assert [y.shape for y in decoded] == [x.shape] * 3
    assert psnr(x, decoded[2]) > 29 and psnr(x, decoded[2]) > psnr(x, decoded[0])
    assert len(found[0]) <= len(found[1]) <= len(found[2])


@pytest.mark.parametrize("quality", [1, 50, 100])
def test_decoder_has_the_symbols_of_the_encoder(codec, quality):
    x = picture(130, 170)
    y = codec.analyse_batch([x], quality)[0][0]
    step = step_of(quality)
    coded = rounding_coded(codec, y, step)
    found = []
    latents = context.decode(codec.model.prior, y.shape[:2], step, coded.data, found.append)
    assert np.array_equal(np.concatenate(found), coded.symbols) and len(found) == octaves.PARTS
    # But for the fifth octave, which is rounded on its way, latents are within a step or two of what they stand for.
    assert np.abs(latents / context.UNIT - y).max() < 2.5


def rounding_coded(codec, y, step):
    from vaecodec import tiles

    return tiles.code(codec.model.prior, y, step)


def test_tiles_and_windows_join_as_if_there_were_none(codec):
    x = picture(190, 260)
    tiled = codec.encode(x, 70, tile=64)
    whole = codec.decode(tiled)
    assert psnr(x, whole) > 25
    assert np.array_equal(codec.decode(tiled, window=(50, 70, 90, 120)), whole[50:140, 70:190])


@pytest.mark.parametrize("factor", [2, 4, 16])
def test_previews_are_means_of_what_is_decoded(codec, factor):
    x = picture(190, 260)
    data = codec.encode(x, 95, tile=64)
    whole, small = codec.decode(data), codec.decode(data, reduce=factor)
    assert psnr(planes.reduce(whole, Box(0, 0, 190, 260), factor), small) > 35
    window = codec.decode(data, window=(32, 64, 100, 90), reduce=factor)
    box = Box(32, 64, 132, 154).reduce(factor)
    assert np.array_equal(window, small[box.slices()])


def test_latents_are_varied_and_drawn(codec):
    x = picture(64, 96)
    near, far = (photo_drawing.vary(codec, x, strength, 1, 90)[0] for strength in (0.0, 1.0))
    assert np.array_equal(near, codec.decode(codec.encode_unfiltered(x, 90))) and psnr(x, far) < psnr(x, near)
    between = photo_drawing.interpolate(codec, x, x[::-1].copy(), 3, 90)
    assert np.array_equal(between[0], near) and between.shape == (3, 64, 96, 3)
    drawn = photo_drawing.sample(codec, 2, (40, 56), 50)
    assert drawn.shape == (2, 40, 56, 3) and (drawn[0] != drawn[1]).any()


def test_halo_is_as_far_as_the_transforms_reach(codec):
    """One latent changed leaves pixels beyond the halo as they are, to the last bit; one cell less would not do."""
    step, rng = step_of(80), np.random.default_rng(0)
    side, reach = 19, halo(CONFIG)
    y = rng.normal(0, 0.05, (side, side, 768)).astype(np.float32)
    condition = codec.model.condition("synthesis", step)
    other = y.copy()
    other[9, 9] += 3000 * rng.normal(size=768).astype(np.float32)
    one, two = (codec.transforms.synthesis(one[None], condition)[0].astype(int) for one in (y, other))
    changed = np.argwhere((one != two).any(2)) // 16
    assert np.abs(changed - 9).max() == reach
    x = rng.integers(0, 256, (1, 16 * side, 16 * side, 3), np.uint8)
    moved = x.copy()
    moved[0, 144:160, 144:160] = 255 - moved[0, 144:160, 144:160]
    condition = codec.model.condition("analysis", step)
    one, two = (codec.transforms.analysis(one, condition)[0] for one in (x, moved))
    assert np.abs(np.argwhere((np.abs(one - two) > 1e-6).any(2)) - 9).max() == reach


def test_training_graph_and_codec_agree(made, codec, monkeypatch):
    """In float64, and with the exact low-pass pictures replaced by real ones, only their rounding differs.

    But for the scales and the filter of a whole picture, of which the training graph knows nothing.
    """
    monkeypatch.setattr(widening, "chosen", lambda *_: None)
    x = picture(128, 192)
    step = 448
    vae = make(CONFIG, {n: v for n, v in weights_of(codec.model)[1].items()})
    quality = tf.constant([step / 128])
    loss = vae.loss(tf.constant(x[None]), quality, tf.constant([1, 2]))
    q = next(q for q in np.arange(1, 100.0, 0.05) if step_of(q) == step)
    data = codec.encode_unfiltered(x, float(q))
    assert float(loss.bpp) == pytest.approx(codec.information(x, float(q)) / x.shape[0] / x.shape[1], rel=0.02)
    assert 8 * len(data) / (x.shape[0] * x.shape[1]) == pytest.approx(float(loss.bpp), rel=0.05)
    assert float(loss.psnr) == pytest.approx(psnr(x, codec.decode(data)), abs=0.15)


def test_integer_networks_equal_the_trained_ones():
    weights = trained(seed=3)
    prefix = len("integer/")
    ints = prepare({name[prefix:]: value for name, value in integer_weights(CONFIG, weights).items()})
    from vaecodec import network, wavelet_freezing

    levels = octaves.Levels(*map(np.rint, wavelet_freezing.level(weights, lambda a: at_quality(a, 3.3))))
    double = {name: tf.constant(value, tf.float64) for name, value in weights.items()}
    added = {f"context/{o}": levels.bias_of(o, CONFIG.prior_of(o)) / 64 for o in range(5)}
    added |= {f"lowest/{part}": part_of / 64 for part, part_of in enumerate(np.split(levels.lowest, 4))}
    trainer = wavelet_layers.Quantised(double, {name: tf.constant(value) for name, value in added.items()})
    exact, rng = octaves.Scaled(ints, levels), np.random.default_rng(1)
    seen, known, around = (rng.integers(-300, 301, (6, 5, n)).astype(np.float32) for n in (50, 36, 30))
    some, other, beside = (tf.constant(x[None] / 64, tf.float64) for x in (seen, known, around))
    both = (exact, around), (trainer, beside)
    pairs = [tuple(network.lowest_part(ops, CONFIG, part, x) for ops, x in both) for part in (0, 3)]
    for octave in (0, 1, 4):
        count = 42 if octave == 4 else 50
        ours = network.octave_features(exact, CONFIG, octave, seen[..., :count])
        theirs = network.octave_features(trainer, CONFIG, octave, some[..., :count])
        assert np.array_equal(theirs[0].numpy() * 64, ours)
        both = (exact, ours, known), (trainer, theirs, other)
        pairs.append(tuple(network.octave_first(ops, CONFIG, octave, x) for ops, x, _ in both))
        second = [network.octave_second(ops, CONFIG, octave, x, k) for ops, x, k in both]
        pairs.append(tuple(found[:2] for found in second))
        assert [len(found) for found in second] == [2 + (octave > 0)] * 2
        assert octave == 0 or np.array_equal(second[1][2][0].numpy() * 64, second[0][2])
    for found, wanted in pairs:
        (loc, index), (mean, rung) = found, (part.numpy()[0].reshape(len(found[0]), -1) for part in wanted)
        assert np.array_equal(np.floor(mean * 64 + 0.5), loc) and np.array_equal(np.floor(rung + 0.5), index)


def test_companding_is_that_of_training(codec):
    values = np.arange(-20000, 20001)
    ours = octaves.Compander(codec.model.prior.companding)(values)
    theirs = wavelet_layers.Quantised({}, {}).compand(tf.constant(values / 64, tf.float64)).numpy() * 64
    assert np.array_equal(ours[np.abs(values) <= 255 * 64], theirs[np.abs(values) <= 255 * 64])
    assert np.array_equal(ours, -ours[::-1]) and ours.max() == round(64 * math.log(256))


def test_details_and_wavelets_are_those_of_training():
    low = np.random.default_rng(0).integers(-4000, 4000, (3, 12, 10)).astype(np.int32)
    theirs = wavelet_layers.details(tf.constant(low.transpose(1, 2, 0)[None] / 64, tf.float64))[0].numpy()
    assert np.abs(octaves.details(low).transpose(1, 2, 0) - theirs * 64).max() <= 0.5
    for rows in (slice(0, 4), slice(4, 8), slice(8, 12), slice(11, 12)):
        assert np.array_equal(octaves.details(low, rows), octaves.details(low)[:, rows])
    x = np.random.default_rng(1).uniform(-0.5, 0.5, (64, 96, 3)).astype(np.float32)
    y = wavelet_layers.coefficients(tf.constant(x[None]))
    assert np.abs(y[0].numpy() - pyramid.coefficients(x)).max() < 1e-5
    assert np.abs(wavelet_layers.samples(y)[0].numpy() - x).max() < 1e-5


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (9, 4)])
def test_bands_of_rows_give_what_the_whole_gives(codec, shape, monkeypatch):
    found = []
    for count in (1, 16, 10**6):
        monkeypatch.setattr(cells, "BAND", count)
        monkeypatch.setattr(cells, "LEAST", 2)
        rng, seen = np.random.default_rng(2), []
        steps = octaves.walk(codec.model.prior, shape, 300)
        question = next(steps)
        with pytest.raises(StopIteration) as end:
            while True:
                seen += question
                symbols = rng.integers(-3, 4, question[0].shape) * (question[0] > 0)
                question = steps.send(symbols.astype(np.int32))
        found.append([*seen, end.value.value])
    assert len(found[0]) == 2 * octaves.PARTS + 1
    for other in found[1:]:
        assert all(np.array_equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_tensorflow_makes_what_litert_makes(codec):
    """But for the last bit of a float, which may round a latent or a sample another way."""
    other, x = Codec(codec.model, "tensorflow"), picture(96, 130)
    data = codec.encode(x, 70)
    assert np.abs(codec.decode(data).astype(int) - other.decode(data)).max() <= 1
    assert len(other.encode(x, 70)) == pytest.approx(len(data), rel=0.002)


def test_an_engine_makes_what_numpy_makes(codec, monkeypatch):
    """And is not used where it does not."""
    prior, level = codec.model.prior, octaves.Levels(*(field[30] for field in codec.model.prior.levels))
    assert isinstance(octaves.fastest(prior, level), octaves.Accelerated)
    x = picture(200, 333)
    data = codec.encode(x, 60)
    slow = Codec(codec.model._replace(prior=prior._replace(engine=None)))
    assert slow.encode(x, 60) == data and np.array_equal(slow.decode(data), codec.decode(data))
    monkeypatch.setattr(octaves, "ENGINE_LEAST", 16)
    monkeypatch.setattr(octaves, "ENGINE_MOST", 16)
    assert np.array_equal(codec.decode(data), slow.decode(data))
    other = dict(prior.engine._contents)
    other["second/2"] = other["second/2"].replace(np.float32(0.5).tobytes(), np.float32(0.4).tobytes())
    wrong = prior._replace(engine=Engine(other, 4096))
    assert not isinstance(octaves.fastest(wrong, level), octaves.Accelerated)
    broken = prior._replace(engine=Engine({**other, "first/4": b"TFL3"}, 4096))
    assert not isinstance(octaves.fastest(broken, level), octaves.Accelerated)


@pytest.mark.parametrize("few", [0, 3])
def test_workers_make_the_same(codec, few, monkeypatch):
    monkeypatch.setattr(parallel, "PIXELS_EACH", 1)
    monkeypatch.setattr(parallel, "FEW", few)
    monkeypatch.setattr(parallel, "PIXELS_OWN", 1)
    x = picture(300, 200)
    data = codec.encode(x, 60, tile=64)
    with monkeypatch.context() as alone:
        alone.setattr(parallel, "PIXELS_EACH", 1 << 40)
        alone.setattr(parallel, "PIXELS_OWN", 1 << 40)
        assert codec.encode(x, 60, tile=64) == data
        whole = codec.decode(data)
    assert np.array_equal(codec.decode(data), whole)


def test_rounding_picks_the_cheaper_of_two(codec):
    """Against the costs themselves, of every row and many residuals."""
    prior = codec.model.prior
    chosen = rounding.rounding(prior)
    residual = np.linspace(-6, 6, 2001, dtype=np.float32)
    for row in range(1, prior.scales, 7):
        rows = np.full(residual.shape, row, np.uint8)
        symbols = chosen(residual + 0.25, rows, np.full(residual.shape, 16, np.float32))
        worth, size = rounding.bits_of(prior.models.tables, row), np.abs(residual)
        nudge = prior.centroids[row] / context.UNIT

        def cost(n, worth=worth, size=size, nudge=nudge):
            value = n + np.where(n == 0, 0, np.where(n == 1, nudge[0], nudge[1]))
            return np.square(size - value) + WORTH * worth[n]

        near = np.rint(size).astype(int)
        best = np.where((near > 0) & (cost(np.maximum(near - 1, 0)) < cost(near)), near - 1, near)
        assert (np.abs(np.abs(symbols) - best) * (np.abs(cost(best) - cost(np.abs(symbols))) > 1e-4)).max() == 0
        assert (np.sign(symbols) * np.sign(residual) >= 0).all()
    strays = chosen(residual, np.zeros(residual.shape, np.uint8), np.zeros(residual.shape, np.float32))
    assert np.array_equal(strays, np.rint(residual) * (np.abs(residual) >= rounding.STRAY))


def test_loss_is_rate_and_distortion_of_what_is_coded(made):
    """bpp are the bits of symbols under the densities of `parts`, and what it ends with is p(x | y)."""
    x = picture(64, 128)[None]
    model, quality = make(CONFIG, made[1]), tf.constant([3.0])
    loss = model.loss(tf.constant(x), quality, tf.constant([1, 2]), hard=True)
    gains, lmbda = model.gains(quality), lambda_of(quality)
    scaled = model.analysis(tf.constant(x, tf.float32), gains) * gains.gain
    joint, total = model.parts(gains, lmbda, tf.constant([1, 2, 4, 3])), 0.0
    density, index, where = next(joint)
    for target in model.targets(scaled, gains):
        symbols = model.chosen(density, index, target)
        found = bits(density, density.base.loc + symbols)
        value = layers.on_grid(density.base.loc + vae.centroid(made[1]["centroid"], symbols, index), 6)
        if where is not None:
            found, value = tf.where(where, found, 0.0), tf.where(where, value, 0.0)
        total += float(tf.reduce_sum(found))
        density, index, where = joint.send(value)
    mse = float(tf.reduce_mean((x - density.loc) ** 2))
    assert total / (64 * 128) == pytest.approx(float(loss.bpp), rel=1e-3)
    objective = total / (64 * 128) + float(lmbda[0]) * mse
    assert float(loss.loss) * math.sqrt(float(lmbda[0])) == pytest.approx(objective, rel=1e-3)


def test_training_lowers_the_loss():
    options = training.Options(batch=2, crop=64)
    step = tf.function(training.make_step(CONFIG, options))
    state = [tf.constant(value) for value in training.initial_state(CONFIG)]
    images = tf.constant(np.stack([picture(64, 64), picture(64, 64)[::-1]]))
    found = []
    for n in range(12):
        state, metrics = step(state, images, tf.constant(2e-3), tf.constant([0, n % 2]))
        found.append(float(metrics[0]))
    assert np.mean(found[-2:]) < 0.9 * np.mean(found[:2])


def test_weights_come_back_from_the_frozen_model(made, codec):
    config, found = weights_of(codec.model)
    assert config == CONFIG and set(found) == set(made[1])
    for name, value in made[1].items():
        assert np.abs(found[name] - value).max() <= 2.0**-9 * max(1, np.abs(value).max()), name


def test_every_quality_step_has_its_step_of_quantisation(codec):
    gains = np.array([codec.model.vector("gain", step)[0] for step in (0, 448, STEPS - 1)])  # of the low-pass picture
    worth = 255 * np.sqrt(WORTH * np.array([0.0006, math.sqrt(0.0006 * 0.18), 0.18]) / 3)
    assert gains == pytest.approx(worth, rel=1e-5)


def test_other_channels(tmp_path):
    config = Config(16, 1, 16, 1, prior=16, coarser=20, hyper_width=8, channels=1)
    codec = Codec(load_model(frozen(tmp_path, config)[0]))
    grey = picture(70, 90)[..., :1].copy()
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
