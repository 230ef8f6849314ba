"""Test training: data sets, resuming, checkpoints, and export of the training step."""

import io
import json
import os
import re
import tarfile
import threading

import numpy as np
import pytest

from support.models import TINY_CONFIG as CONFIG
from support.training import eager

tf = pytest.importorskip("tensorflow")

from PIL import Image

from support.images import synthetic_image
from vaecodec.config import Config
from vaecodec.errors import CodecError
from vaecodec.images.channels import make_vivid
from vaecodec.training import (
    averaged_weights,
    batches_of_crops,
    encoded_images,
    import_state,
    initial_state,
    load_checkpoint,
    random_crops,
    read_training_images,
    save_compact,
    train_step,
    validation,
)
from vaecodec.training import loop as progress_module
from vaecodec.training.loop import train
from vaecodec.training.train_step import Options
from vaecodec.training.vae import VAE, initial_weights


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with two images, one of them in a subfolder, a third that is too small and a fourth that is damaged."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deeper").mkdir()
    Image.fromarray(synthetic_image(80, 100, 1)).save(folder / "a.png")
    Image.fromarray(synthetic_image(90, 70, 2)).save(folder / "deeper" / "b.jpg")
    Image.fromarray(synthetic_image(20, 20, 3)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    (folder / "notes.txt").write_text("not an image")
    return folder


def test_folders_and_shards_give_the_same_images(photos, tmp_path):
    files = list(encoded_images([str(photos)]))
    assert len(files) == 4
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for n, data in enumerate(files):
            member = tarfile.TarInfo(f"{n}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert list(encoded_images([str(tmp_path / "shard.tar")])) == files
    assert list(encoded_images([str(photos / "a.png")])) == [(photos / "a.png").read_bytes()]
    (tmp_path / "empty").mkdir()
    with pytest.raises(CodecError, match="contains no images"):
        list(encoded_images([str(tmp_path / "empty")]))


def test_ms_ssim_replaces_a_share_of_the_distortion():
    x = tf.constant(synthetic_image(192, 192)[None])
    model = VAE(CONFIG, {name: tf.Variable(value) for name, value in initial_weights(CONFIG).items()})
    quality, seed = tf.constant([3.0]), tf.constant([1, 2])
    losses = []
    for model.ms_ssim_share in (0.0, 0.5, 1.0):
        with tf.GradientTape() as tape:
            loss = model.loss(x, quality, seed)
        weights = [model.weights[name] for name in ("synthesis/fine/kernel", "band_gain")]
        assert all(np.isfinite(gradient).all() and np.any(gradient) for gradient in tape.gradient(loss.loss, weights))
        losses.append(loss)
    assert len({float(loss.bpp) for loss in losses}) == len({float(loss.psnr) for loss in losses}) == 1
    without, with_half, with_all = (float(loss.loss) for loss in losses)
    assert with_half == pytest.approx((without + with_all) / 2, rel=1e-5) and without != with_all


@pytest.mark.parametrize(("crop", "share", "message"), [(128, 0.5, "too small"), (192, 1.5, "expected 0 to 1")])
def test_unsuitable_options_of_ms_ssim_are_refused(crop, share, message):
    with pytest.raises(CodecError, match=message):
        train_step.make_step(CONFIG, Options(crop=crop, ms_ssim=share))


def test_crops_are_rotated_and_flipped_parts_of_the_image():
    pixels = synthetic_image(40, 50)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    crops = random_crops(file.getvalue(), 32, 20, np.random.default_rng(0))
    assert crops.shape == (20, 32, 32, 3)
    for crop in crops[:4]:
        orientations = [np.rot90(mirrored, k) for mirrored in (crop, crop[:, ::-1]) for k in range(4)]
        parts = np.lib.stride_tricks.sliding_window_view(pixels, (32, 32, 3))[:, :, 0]
        assert any((parts == orientation).all((2, 3, 4)).any() for orientation in orientations)
    assert len(random_crops(b"nothing", 32, 5, np.random.default_rng(0))) == 0
    assert len(random_crops(file.getvalue(), 41, 5, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_enlarged_crops_are_smooth(channels):
    """Enlarging lowers the differences between pixels of noise, and does not change a flat image."""
    rng = np.random.default_rng(0)
    noise, flat = rng.integers(0, 256, (90, 90, 3), np.uint8), np.full((90, 90, 3), 77, np.uint8)
    files = []
    for pixels in (noise, flat):
        files.append(io.BytesIO())
        Image.fromarray(pixels).convert("RGB" if channels == 3 else "L").save(files[-1], "PNG")
    crops_of_noise, enlarged_crops = (
        random_crops(files[0].getvalue(), 64, 30, np.random.default_rng(1), channels, fraction).astype(int)
        for fraction in (0, 1)
    )
    differences = [np.abs(np.diff(crops, axis=2)).mean((1, 2, 3)) for crops in (crops_of_noise, enlarged_crops)]
    assert enlarged_crops.shape == (30, 64, 64, channels) and differences[1].mean() < 0.8 * differences[0].mean()
    assert differences[1].max() > 1.3 * differences[1].min()  # the scale varies
    assert (random_crops(files[1].getvalue(), 64, 5, rng, channels, 1.0) == 77).all()


@pytest.mark.parametrize("name", ["enlarged", "vivid"])
def test_fractions_of_crops_are_checked(photos, name):
    with pytest.raises(CodecError, match=f"fraction of {name} crops is 1.5"):
        batches_of_crops(read_training_images([str(photos)]), 2, 32, 0, 3, **{name: 1.5})


@pytest.mark.parametrize("channels", [1, 3])
def test_vivid_crops_have_extreme_colours(channels):
    """They are crops as before, of which more samples are black or white, and some channels are inverted."""
    gradient = np.linspace(90, 165, 80, dtype=np.uint8)[None, :, None] + np.arange(3, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(np.broadcast_to(gradient, (80, 80, 3)))).save(file, "PNG")
    plain, vivid = (
        random_crops(file.getvalue(), 64, 40, np.random.default_rng(1), channels, 0.0, fraction) for fraction in (0, 1)
    )
    assert vivid.shape == plain.shape == (40, 64, 64, channels) and vivid.dtype == np.uint8
    assert plain.min() > 80 and plain.max() < 175
    extreme = ((vivid == 0) | (vivid == 255)).mean((1, 2))
    assert (extreme == 0).any() and (extreme > 0.1).any()  # contrasts vary
    rng = np.random.default_rng(2)
    pixels = synthetic_image(64, 64)[..., :channels]
    correlations = [
        np.corrcoef(pixels.mean(-1).ravel(), make_vivid(pixels, rng)[..., 0].ravel())[0, 1] for _ in range(20)
    ]
    assert min(correlations) < -0.3 and max(correlations) > 0.3


def test_batches_skip_unusable_images(photos):
    images = read_training_images([str(photos)])
    for batch in batches_of_crops(images, 3, 64, 0).take(4):
        assert batch.shape == (3, 64, 64, 3) and batch.dtype == tf.uint8
    with pytest.raises(CodecError, match="at least 256 x 256"):
        batches_of_crops(images, 3, 256, 0)


def test_headers_of_arrays_are_read_before_threads_start(tmp_path, monkeypatch):
    """NumPy parses headers with Python's parser, which is not always safe in two threads at once."""
    np.save(tmp_path / "a.npy", synthetic_image(70, 80, 1))
    np.save(tmp_path / "objects.npy", np.array([{}], object))  # needs pickle
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY\1\0\x10\0{'descr': nothing")
    feed = batches_of_crops(read_training_images([str(tmp_path)]), 2, 64, 0)
    monkeypatch.setattr(np, "load", None)
    for batch in feed.take(3):
        assert batch.shape == (2, 64, 64, 3)


def test_a_run_lowers_the_loss_resumes_and_completes(photos, tmp_path, monkeypatch, capfd):
    run, options = str(tmp_path / "run"), Options(batch=1, crop=64, steps=1, minutes=10, hard_from=0)
    with eager():  # test_trellis.py traces the step of the last phase
        train([str(photos)], run, CONFIG, options)
    _, saved_options, state, progress = load_checkpoint(run)
    assert saved_options == options and progress["steps"] == 1 and state[-1] == 1
    options.steps, options.hard_from = 251, 1
    monkeypatch.setattr(progress_module, "REPORT_EVERY", 0.01)  # 0 would keep the thread busy that says it waits
    capfd.readouterr()
    outcome = train([str(photos)], run, CONFIG, options)
    _, _, state, progress = load_checkpoint(run)
    assert progress["steps"] == 251 and state[-1] == 251 and np.isfinite(outcome.means["loss"])
    assert outcome.steps == 251 and outcome.is_complete
    report = capfd.readouterr().err
    steps, parts = np.array(re.findall(r"^step (\d+) loss .* steps/s, \d+ s left \((\d+) %\)", report, re.M), int).T
    assert (abs(parts - 100 * steps / 251) < 1).all()
    losses = [float(loss) for loss in re.findall(r"^step \d+ loss (\S+)", report, re.M)]
    few = len(losses) // 5
    assert few > 2 and np.mean(losses[-few:]) < 0.8 * np.mean(losses[:few]), losses
    assert os.listdir(os.path.join(run, "logs"))
    before = os.stat(os.path.join(run, "checkpoint.safetensors")).st_mtime_ns
    train([str(photos)], run, CONFIG, options)  # the run is complete, so no step follows
    assert load_checkpoint(run)[3]["steps"] == 251
    assert os.stat(os.path.join(run, "checkpoint.safetensors")).st_mtime_ns == before
    with pytest.raises(CodecError, match="another architecture"):
        train([str(photos)], run, Config(**{**CONFIG.to_dict(), "prior": 12}), options)


def test_a_non_finite_loss_keeps_the_last_checkpoint(photos, tmp_path):
    run, options = str(tmp_path / "run"), Options(batch=1, crop=64, steps=1)
    with eager():
        train([str(photos)], run, CONFIG, options)
    with open(os.path.join(run, "checkpoint.safetensors"), "rb") as file:
        checkpoint = file.read()
    options.steps, options.rate = 60, 1e30
    with eager(), pytest.raises(CodecError, match="not finite"):
        train([str(photos)], run, CONFIG, options)
    with open(os.path.join(run, "checkpoint.safetensors"), "rb") as file:
        assert file.read() == checkpoint


def test_compact_checkpoints_hold_the_running_average(photos, tmp_path):
    run = str(tmp_path / "run")
    with eager():
        train([str(photos)], run, CONFIG, Options(batch=1, crop=64, steps=1))
    config, weights = averaged_weights(run)
    path = str(tmp_path / "compact.safetensors")
    save_compact(path, config, weights, {"steps": 1})
    loaded_config, loaded = averaged_weights(path)
    assert loaded_config == CONFIG and loaded.keys() == weights.keys()
    assert all(np.array_equal(loaded[name], weights[name]) for name in weights)
    (tmp_path / "foreign").write_bytes(b"12345678{}")
    with pytest.raises(CodecError, match="not a checkpoint"):
        averaged_weights(str(tmp_path / "foreign"))
    with pytest.raises(CodecError, match="gone: No such file or directory$"):
        averaged_weights(str(tmp_path / "gone"))


def test_export_writes_the_step_as_text_with_its_state(tmp_path):
    options = Options(batch=2, crop=64)
    train_step.export_step(CONFIG, options, str(tmp_path / "bundle"), initial_state(CONFIG))
    text = (tmp_path / "bundle" / "step.mlir").read_text()
    state = train_step.load_pieces(str(tmp_path / "bundle"))
    assert "stablehlo." in text
    # Each array of the state is an argument and a result, beside images, rate, seed and metrics.
    (entry,) = [line for line in text.splitlines() if "func.func" in line and "private" not in line]
    assert entry.count("%arg") == len(state) + 3
    import_state(str(tmp_path / "bundle"), str(tmp_path / "run"), CONFIG, options)
    _, _, imported, progress = load_checkpoint(str(tmp_path / "run"))
    assert all(np.array_equal(a, b) for a, b in zip(imported, state, strict=True)) and progress["steps"] == 0
    np.savez(tmp_path / "bundle" / "state-00.npz", **{f"{n:05d}": np.full_like(a, np.nan) for n, a in enumerate(state)})
    with pytest.raises(CodecError, match="not finite"):
        import_state(str(tmp_path / "bundle"), str(tmp_path / "run"), CONFIG, options)
    with pytest.raises(CodecError, match=r"contains no state-\*\.npz"):
        train_step.load_pieces(str(tmp_path))


def test_joining_inverts_splitting_of_the_state(monkeypatch):
    state = initial_state(CONFIG)
    state = [vector + n for n, vector in enumerate(state)]
    monkeypatch.setattr(train_step, "PIECE_LENGTH", len(state[0]) // 3 + 1)
    pieces = train_step.split_state(state)
    assert len(pieces) == 4 * 3 + 1 and max(piece.size for piece in pieces) <= train_step.PIECE_LENGTH
    assert all(np.array_equal(a, b) for a, b in zip(train_step.join_state(pieces, np.concatenate), state, strict=True))


def test_towers_divide_the_batch():
    options = train_step.Options(batch=4, crop=64, towers=2)
    state = [tf.constant(value) for value in initial_state(CONFIG)]
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    with eager():
        after, metrics = train_step.make_step(CONFIG, options)(
            state, tf.constant(images), tf.constant(1e-3), tf.constant([0, 1])
        )
    assert np.isfinite(metrics.numpy()).all() and not np.array_equal(after[0], state[0])
    with pytest.raises(CodecError, match="a batch of 3 cannot be divided between 2 towers"):
        train_step.make_step(CONFIG, train_step.Options(batch=3, towers=2))
    train_step.spread(options)
    assert options.batch % options.towers == 0


def test_arrays_of_any_memory_order_are_saved_with_their_values(tmp_path):
    """safetensors writes the memory of an array, so a transposed view must be copied first."""
    from safetensors.numpy import load

    from vaecodec.model.file import pack_model

    transposed = np.arange(12, dtype=np.float32).reshape(3, 4).T
    save_compact(str(tmp_path / "w"), CONFIG, {"a": transposed}, {})
    assert np.array_equal(averaged_weights(str(tmp_path / "w"))[1]["a"], transposed)
    assert np.array_equal(load(pack_model("name", CONFIG, {"a": transposed}, {}))["a"], transposed)


@pytest.fixture(scope="module")
def album(tmp_path_factory):
    """A folder with twelve images, of which one is held out."""
    folder = tmp_path_factory.mktemp("album")
    for seed in range(12):
        Image.fromarray(synthetic_image(80, 90, seed)).save(folder / f"{seed}.png")
    return folder


def test_a_tenth_of_the_images_is_held_out_by_content(album):
    images = read_training_images([str(album)])
    training, held = validation.hold_out(images)
    assert len(training) == 11 and len(held) == 1 and held[0] not in training
    assert validation.hold_out(images[::-1])[1] == held  # in any order
    assert validation.hold_out(images[:9]) == (images[:9], [])


def test_runs_are_validated_against_their_start(album, tmp_path):
    run, lines = str(tmp_path / "run"), []
    start = initial_weights(CONFIG, 3)
    with eager():
        arguments = [str(album)], run, CONFIG, Options(batch=1, crop=64, steps=2)
        outcome = train(*arguments, start=start, start_name="other", validate=[], say=lines.append)
    text = "\n".join(lines)
    assert re.match(r".*run: 11 images, 1 more for validation; .* million weights; .* starts from other", lines[0])
    assert re.search(r"validation at step 2: bpp [\d.]+ psnr [\d.]+ .*, BD-rate [-+][\d.]+ % against other", text)
    assert outcome.against == "other" and np.isfinite(outcome.bd_rate)
    with open(os.path.join(run, "validation.json")) as file:
        record = json.load(file)
    assert len(record["reference"]) == len(validation.QUALITIES) and record["results"][0]["step"] == 2
    (events,) = [os.path.join(run, "logs", name) for name in os.listdir(os.path.join(run, "logs"))]
    tags = {value.tag for event in tf.compat.v1.train.summary_iterator(events) for value in event.summary.value}
    assert {"validation/bd_rate", "validation/0, original and decoded", "loss"} <= tags
    with eager():  # the reference is in the record
        options = Options(batch=1, crop=64, steps=3)
        resumed = train([str(album)], run, CONFIG, options, validate=[], say=lines.append)
    assert resumed.against == "other"
    with pytest.raises(CodecError, match="none of the 1 validation images"):
        (tmp_path / "broken.png").write_bytes(b"")
        train([str(album)], run, CONFIG, Options(crop=64, steps=4), validate=[str(tmp_path / "broken.png")])


def test_bd_rates_of_scaled_rates():
    reference = [(0.1, 28.0), (0.2, 31.0), (0.5, 35.0), (1.0, 39.0)]
    assert validation.bd_rate(reference, reference) == pytest.approx(0)
    assert validation.bd_rate(reference, [(0.9 * bpp, psnr) for bpp, psnr in reference]) == pytest.approx(-10)
    assert np.isnan(validation.bd_rate(reference, [(bpp, psnr + 50) for bpp, psnr in reference]))


def test_long_waits_say_how_long(tmp_path, monkeypatch):
    monkeypatch.setattr(progress_module, "REPORT_EVERY", 0.05)
    lines, reached = [], threading.Event()

    def say(text):
        lines.append(text)
        if len(lines) == 2:
            reached.set()

    with progress_module.Progress(str(tmp_path), {}, ("loss",), say).waiting("compiling"):
        assert reached.wait(60)
    assert lines[:2] == ["compiling", "compiling: 0 s so far"]
