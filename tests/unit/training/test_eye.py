"""Test training for the eye: the metric, the prices, and that only the analysis changes."""

import io
import json

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("ssimulacra2")

from PIL import Image

from support.images import synthetic_image
from support.models import random_weights
from vaecodec import Codec
from vaecodec.cli import main
from vaecodec.config import Config
from vaecodec.errors import CodecError, ModelError
from vaecodec.images import metrics
from vaecodec.model.file import Model, load_model, pack_model, parse_model
from vaecodec.rdo.prices import prices_of_squares
from vaecodec.training import initial_state, layout_of, train_step
from vaecodec.training.freezing import photograph_arrays, unfreeze, with_deeper_analysis
from vaecodec.training.operations import ssimulacra2
from vaecodec.training.train_step import eye_loss, prices_of_parts
from vaecodec.training.vae import VAE
from vaecodec.training.validation import frozen
from vaecodec.transforms.networks import Analysis

CONFIG = Config(fine=8, fine_blocks=1, coarse=8, coarse_blocks=1, prior=12, coarser=8, hyper_width=8)


@pytest.fixture(scope="module")
def photograph():
    rng = np.random.default_rng(3)
    return np.clip(synthetic_image(256, 256, 1) + rng.normal(0, 4, (256, 256, 3)), 0, 255).astype(np.uint8)


def as_jpeg(pixels, quality):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("quality", [20, 50, 75, 95])
def test_score_is_that_of_the_package(photograph, quality):
    other = as_jpeg(photograph, quality)
    pair = (tf.constant(image[None], tf.float32) for image in (photograph, other))
    assert float(ssimulacra2(*pair)[0]) == pytest.approx(metrics.ssimulacra2(photograph, other), abs=0.7)


def test_equal_images_have_the_highest_score_and_finite_gradients(photograph):
    x = tf.constant(photograph[None, :64, :64], tf.float32)
    with tf.GradientTape() as tape:
        y = tf.identity(x)
        tape.watch(y)
        score = ssimulacra2(x, y)
    assert float(score[0]) > 99 and np.isfinite(tape.gradient(score, y)).all()


def test_gradient_of_the_score_is_its_slope(photograph):
    x = tf.constant(photograph[None, :96, :96], tf.float32)
    y = tf.constant(as_jpeg(photograph, 40)[None, :96, :96], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(y)
        score = ssimulacra2(x, y)
    direction = x - y
    slope = float(tf.reduce_sum(tape.gradient(score, y) * direction))
    difference = float(ssimulacra2(x, y + 0.01 * direction)[0] - ssimulacra2(x, y - 0.01 * direction)[0]) / 0.02
    assert slope == pytest.approx(difference, rel=0.05) and slope > 0


def test_prices_are_those_of_the_encoder(photograph):
    model = load_model("small")
    coefficients = Analysis(model.config, model.arrays).linear(np.ascontiguousarray(photograph))
    ours = prices_of_parts(tf.constant(photograph[None], tf.float32))
    for octave, theirs in enumerate(prices_of_squares(coefficients)):
        ratio = ours[len(ours) - 1 - 2 * octave].numpy()[0, ..., 0] / theirs
        assert (ratio > 0.99).all() and (ratio < 1.14).all()  # those of the encoder are rounded down, octave by octave


def test_training_lowers_the_loss_and_changes_the_analysis_alone():
    """An analysis that is off by a constant finds back."""
    config, weights = unfreeze(load_model("small"))
    weights["analysis/latents/bias"] = weights["analysis/latents/bias"] + np.float32(0.3)
    step = tf.function(train_step.make_step(config, train_step.Options(batch=1, crop=192, tune="eye")), autograph=False)
    start = [tf.constant(value) for value in initial_state(config, weights=weights)]
    image, state, losses = tf.constant(synthetic_image(192, 192, 1)[None]), start, []
    for _ in range(25):
        state, values = step(state, image, tf.constant(3e-3), tf.constant([0, 2]))
        losses.append(float(values[0]))
    assert np.mean(losses[-3:]) < losses[0] - 2
    layout = layout_of(config)
    before, after = (layout.unpack(np.asarray(vector[0])) for vector in (start, state))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed and all(name.startswith("analysis/") for name in changed)


def test_tilts_and_qualities_beyond_the_anchors_are_those_of_the_codec():
    model = load_model("small")
    config, weights = unfreeze(model)
    for index, tilt in ((300, 3), (1100, 0), (1232, 5)):
        vae = VAE(config, {name: tf.constant(value) for name, value in weights.items()}, tilt=tilt)
        gains = vae.gains(tf.constant([index / 128], tf.float32))
        expected = model.tilted(tilt).inverse_gain(index)
        ratio = gains.inverse_gain.numpy().ravel() / expected
        assert np.abs(ratio / ratio[0] - 1).max() < 2e-3


@pytest.mark.parametrize(("changes", "message"), [({"tune": "ear"}, "'ear'"), ({"tune": "eye", "crop": 128}, "192")])
def test_options_that_do_not_fit(changes, message):
    with pytest.raises(CodecError, match=message):
        train_step.make_step(CONFIG, train_step.Options(**{"batch": 2, "crop": 64, **changes}))


def test_loss_has_no_gradient_by_what_decoders_need(photograph):
    weights = {name: tf.constant(value) for name, value in random_weights(CONFIG).items()}
    with tf.GradientTape() as tape:
        tape.watch(weights)
        loss = eye_loss(
            VAE(CONFIG, weights), tf.constant(photograph[None, :192, :192]), tf.constant([3.0]), tf.constant([1, 2])
        )
    gradients = tape.gradient(loss.loss, weights)
    assert {name for name, value in gradients.items() if value is not None} <= {n for n in weights if "analysis/" in n}


@pytest.fixture(scope="module")
def tuned_path(tmp_path_factory):
    """Path of `small` with another, deeper analysis for the eye."""
    from safetensors.numpy import save_file

    folder, rng = tmp_path_factory.mktemp("eye"), np.random.default_rng(4)
    config, weights = with_deeper_analysis(*unfreeze(load_model("small")), 3)
    for place in ("fine2", "coarse2"):
        name = f"analysis/{place}/mix/kernel"
        weights[name] = rng.normal(0, 0.02, weights[name].shape).astype(np.float32)
    weights["analysis/latents/bias"] = weights["analysis/latents/bias"] + np.float32(0.004)
    path = str(folder / "eye.safetensors")
    metadata = {"config": json.dumps(config.to_dict())}
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, path, metadata)
    out = str(folder / "out.vcm")
    assert main(["freeze", path, "--eye-of", "small", "-o", out]) == 0
    return out


def test_an_analysis_for_the_eye_changes_files_of_that_tune_alone(tuned_path, photograph):
    plain, tuned = load_model("small"), load_model(tuned_path)
    assert tuned.id == plain.id
    for tune, same in (("psnr", True), ("eye", False)):
        files = [Codec(model, threads=1).encode(photograph, 60, tune=tune) for model in (plain, tuned)]
        assert (files[0] == files[1]) is same
        assert np.array_equal(*(Codec(plain, threads=1).decode(file) for file in files[1:] * 2))
    for tune in ("psnr", "eye"):
        native, other = (Codec(tuned, threads=1, device=device) for device in ("cpu", "tensorflow"))
        assert native.encode(photograph, 60, tune=tune) == other.encode(photograph, 60, tune=tune)


def test_training_goes_on_from_the_analysis_of_its_tune(tuned_path):
    model = load_model(tuned_path)
    (plain_config, plain), (config, eye) = (unfreeze(model, tune) for tune in ("psnr", "eye"))
    assert np.allclose(eye["analysis/latents/bias"] - plain["analysis/latents/bias"], 0.004, atol=1e-4)
    assert plain_config == model.config == config.of_decoders and config.analysis_blocks == 3
    assert set(eye) - set(plain) == {name for name in eye if name.startswith(("analysis/fine2/", "analysis/coarse2/"))}


def test_new_blocks_change_nothing_until_they_are_trained(photograph):
    config, weights = unfreeze(load_model("small"))
    models = [frozen(*pair) for pair in ((config, weights), with_deeper_analysis(config, weights, 4))]
    assert models[0].id == models[1].id and len(models[1].arrays) > len(models[0].arrays)
    blocks = [Analysis(model.config, model.arrays).coarse_blocks for model in models]
    assert [*map(len, blocks)] == [2, 4]
    plain, deeper = (Codec(model, threads=1).encode(photograph, 60) for model in models)
    assert plain == deeper


def test_models_do_not_keep_the_number_of_blocks(tuned_path):
    with open(tuned_path, "rb") as file:
        data = file.read()
    config, weights = with_deeper_analysis(*unfreeze(load_model("small")), 3)
    arrays = photograph_arrays(config, weights)
    assert Model("a", "0", config.of_decoders, arrays, {}).config == load_model("small").config
    with pytest.raises(ModelError, match="analysis_blocks"):
        parse_model(pack_model("a", config, arrays, {}), "here")
    assert b"analysis_blocks" not in data


def test_options_make_a_deeper_analysis():
    from vaecodec import training
    from vaecodec.training.freezing import fit_architecture

    config, weights = unfreeze(load_model("small"))
    deeper, more = fit_architecture(config, weights, training.with_sizes(config, analysis_blocks=5))
    assert deeper.of_analysis.fine_blocks == deeper.of_analysis.coarse_blocks == 5
    assert set(more) == set(layout_of(deeper).names) > set(weights)
    assert training.describe(deeper) == "small with analysis_blocks 5"
    for wrong in (65, -1):
        with pytest.raises(CodecError, match="analysis_blocks"):
            training.with_sizes(config, analysis_blocks=wrong)


def test_another_architecture_is_refused(tmp_path, capsys):
    assert main(["freeze", "benchmarks/training/digits.safetensors", "--eye-of", "small", "-o", "x.vcm"]) == 1
    assert "architecture" in capsys.readouterr().err


def test_an_analysis_for_the_eye_that_does_not_fit_is_refused(tuned_path):
    from safetensors.numpy import load, save

    with open(tuned_path, "rb") as file:
        data = file.read()

    metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    arrays = load(data)
    arrays["eye/analysis/latents/bias"] = arrays["eye/analysis/latents/bias"][:-1].copy()
    with pytest.raises(ModelError, match="analysis/latents"):
        parse_model(save(arrays, metadata), "here")


@pytest.mark.parametrize("options", [["-o", "x.safetensors"], ["-o", "x.vcm", "--name", "mine"]])
def test_options_that_go_with_other_outputs_are_refused(options, capsys):
    assert main(["freeze", "run", "--eye-of", "small", *options]) == 2
    assert "--eye-of writes a model file" in capsys.readouterr().err
