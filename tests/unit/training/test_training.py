"""Training reads images, resumes from checkpoints, and never replaces a good checkpoint by a bad one."""

import io
import os
import tarfile

import numpy as np
import pytest

from support.models import TINY_CONFIG as CONFIG
from support.training import eager

tf = pytest.importorskip("tensorflow")

from PIL import Image

from support.images import synthetic_image
from vaecodec.config import Config
from vaecodec.errors import CodecError
from vaecodec.training import loop, train_step
from vaecodec.training.datasets import batches, encoded_images, random_crops
from vaecodec.training.loop import train
from vaecodec.training.train_step import Options
from vaecodec.training.vae import VAE, initial_weights


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder with two pictures, one below, one that is too small and one that is broken."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deeper").mkdir()
    Image.fromarray(synthetic_image(80, 100, 1)).save(folder / "a.png")
    Image.fromarray(synthetic_image(90, 70, 2)).save(folder / "deeper" / "b.jpg")
    Image.fromarray(synthetic_image(20, 20, 3)).save(folder / "small.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def test_folders_and_shards_give_the_same_images(photos, tmp_path):
    found = list(encoded_images([str(photos)]))
    assert len(found) == 4
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for n, data in enumerate(found):
            member = tarfile.TarInfo(f"{n}.png")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    assert list(encoded_images([str(tmp_path / "shard.tar")])) == found
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
        assert all(np.isfinite(one).all() and np.any(one) for one in tape.gradient(loss.loss, weights))
        losses.append(loss)
    assert len({float(loss.bpp) for loss in losses}) == len({float(loss.psnr) for loss in losses}) == 1
    plain, half, full = (float(loss.loss) for loss in losses)
    assert half == pytest.approx((plain + full) / 2, rel=1e-5) and plain != full


@pytest.mark.parametrize(("crop", "part", "message"), [(128, 0.5, "too small"), (192, 1.5, "expected 0 to 1")])
def test_unsuitable_ms_ssim_is_refused(crop, part, message):
    with pytest.raises(CodecError, match=message):
        train_step.make_step(CONFIG, Options(crop=crop, ms_ssim=part))


def test_crops_are_rotated_and_flipped_parts_of_the_image():
    pixels = synthetic_image(40, 50)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    crops = random_crops(file.getvalue(), 32, 20, np.random.default_rng(0))
    assert crops.shape == (20, 32, 32, 3)
    for crop in crops[:4]:
        ways = [np.rot90(flip, k) for flip in (crop, crop[:, ::-1]) for k in range(4)]
        parts = np.lib.stride_tricks.sliding_window_view(pixels, (32, 32, 3))[:, :, 0]
        assert any((parts == way).all((2, 3, 4)).any() for way in ways)
    assert len(random_crops(b"nothing", 32, 5, np.random.default_rng(0))) == 0
    assert len(random_crops(file.getvalue(), 41, 5, np.random.default_rng(0))) == 0


@pytest.mark.parametrize("channels", [1, 3])
def test_enlarged_crops_are_smooth(channels):
    """Noise that is enlarged differs less from pixel to pixel; and of a flat picture nothing changes."""
    rng = np.random.default_rng(0)
    noise, flat = rng.integers(0, 256, (90, 90, 3), np.uint8), np.full((90, 90, 3), 77, np.uint8)
    files = []
    for pixels in (noise, flat):
        files.append(io.BytesIO())
        Image.fromarray(pixels).convert("RGB" if channels == 3 else "L").save(files[-1], "PNG")
    rough, smooth = (
        random_crops(files[0].getvalue(), 64, 30, np.random.default_rng(1), channels, part).astype(int)
        for part in (0, 1)
    )
    steps = [np.abs(np.diff(crops, axis=2)).mean((1, 2, 3)) for crops in (rough, smooth)]
    assert smooth.shape == (30, 64, 64, channels) and steps[1].mean() < 0.8 * steps[0].mean()
    assert steps[1].max() > 1.3 * steps[1].min()  # some more than others
    assert (random_crops(files[1].getvalue(), 64, 5, rng, channels, 1.0) == 77).all()


def test_the_fraction_of_enlarged_crops_is_checked(photos):
    with pytest.raises(CodecError, match="fraction of enlarged crops is 1.5"):
        batches([str(photos)], 2, 32, 0, 3, 1.5)


def test_batches_skip_what_cannot_be_used(photos):
    for batch in batches([str(photos)], 3, 64, 0).take(4):
        assert batch.shape == (3, 64, 64, 3) and batch.dtype == tf.uint8
    with pytest.raises(CodecError, match="at least 256 x 256"):
        batches([str(photos)], 3, 256, 0)


def test_headers_of_arrays_are_read_before_threads_begin(tmp_path, monkeypatch):
    """NumPy has Python's parser read them, which two threads at once do not always survive."""
    np.save(tmp_path / "a.npy", synthetic_image(70, 80, 1))
    np.save(tmp_path / "objects.npy", np.array([{}], object))  # needs pickle
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY\1\0\x10\0{'descr': nothing")
    feed = batches([str(tmp_path)], 2, 64, 0)
    monkeypatch.setattr(np, "load", None)
    for batch in feed.take(3):
        assert batch.shape == (2, 64, 64, 3)


def test_a_run_resumes_and_ends(photos, tmp_path, capfd):
    run, options = str(tmp_path / "run"), Options(batch=2, crop=64, steps=3, minutes=10, hard_from=0)
    train([str(photos)], run, CONFIG, options)
    _, found, state, progress = loop.load_checkpoint(run)
    assert found == options and progress["steps"] == 3 and state[-1] == 3
    options.steps, options.hard_from = 101, 1  # each run traces one of the two steps
    means = train([str(photos)], run, CONFIG, options)
    _, _, state, progress = loop.load_checkpoint(run)
    assert progress["steps"] == 101 and state[-1] == 101 and np.isfinite(means["loss"])
    assert "step 100 loss" in capfd.readouterr().err
    assert os.listdir(os.path.join(run, "logs"))
    before = os.stat(os.path.join(run, "checkpoint.safetensors")).st_mtime_ns
    train([str(photos)], run, CONFIG, options)  # is over: nothing more is done
    assert loop.load_checkpoint(run)[3]["steps"] == 101
    assert os.stat(os.path.join(run, "checkpoint.safetensors")).st_mtime_ns == before
    with pytest.raises(CodecError, match="another architecture"):
        train([str(photos)], run, Config(**{**CONFIG.to_dict(), "prior": 12}), options)


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(photos, tmp_path):
    run, options = str(tmp_path / "run"), Options(batch=2, crop=64, steps=2)
    with eager():
        train([str(photos)], run, CONFIG, options)
    with open(os.path.join(run, "checkpoint.safetensors"), "rb") as file:
        good = file.read()
    options.steps, options.rate = 60, 1e30
    with eager(), pytest.raises(CodecError, match="not finite"):
        train([str(photos)], run, CONFIG, options)
    with open(os.path.join(run, "checkpoint.safetensors"), "rb") as file:
        assert file.read() == good


def test_compact_checkpoints_hold_the_running_average(photos, tmp_path):
    run = str(tmp_path / "run")
    with eager():
        train([str(photos)], run, CONFIG, Options(batch=2, crop=64, steps=2))
    config, weights = loop.averaged_weights(run)
    path = str(tmp_path / "compact.safetensors")
    loop.save_compact(path, config, weights, {"steps": 2})
    again, loaded = loop.averaged_weights(path)
    assert again == CONFIG and loaded.keys() == weights.keys()
    assert all(np.array_equal(loaded[name], weights[name]) for name in weights)
    (tmp_path / "foreign").write_bytes(b"12345678{}")
    with pytest.raises(CodecError, match="not a checkpoint"):
        loop.averaged_weights(str(tmp_path / "foreign"))


def test_the_exported_step_is_text_with_its_state(tmp_path):
    options = Options(batch=2, crop=64)
    train_step.export_step(CONFIG, options, str(tmp_path / "bundle"), loop.initial_state(CONFIG))
    text = (tmp_path / "bundle" / "step.mlir").read_text()
    state = train_step.load_pieces(str(tmp_path / "bundle"))
    assert "stablehlo." in text
    # Each array of the state goes in and comes out, beside images, rate and seed, and metrics.
    (entry,) = [line for line in text.splitlines() if "func.func" in line and "private" not in line]
    assert entry.count("%arg") == len(state) + 3
    loop.import_state(str(tmp_path / "bundle"), str(tmp_path / "run"), CONFIG, options)
    _, _, found, progress = loop.load_checkpoint(str(tmp_path / "run"))
    assert all(np.array_equal(a, b) for a, b in zip(found, state, strict=True)) and progress["steps"] == 0
    np.savez(tmp_path / "bundle" / "state-00.npz", **{f"{n:05d}": np.full_like(a, np.nan) for n, a in enumerate(state)})
    with pytest.raises(CodecError, match="not finite"):
        loop.import_state(str(tmp_path / "bundle"), str(tmp_path / "run"), CONFIG, options)
    with pytest.raises(CodecError, match=r"contains no state-\*\.npz"):
        train_step.load_pieces(str(tmp_path))


def test_a_state_travels_in_pieces(monkeypatch):
    state = loop.initial_state(CONFIG)
    state = [vector + n for n, vector in enumerate(state)]
    monkeypatch.setattr(train_step, "PIECE_LENGTH", len(state[0]) // 3 + 1)
    pieces = train_step.split_state(state)
    assert len(pieces) == 4 * 3 + 1 and max(piece.size for piece in pieces) <= train_step.PIECE_LENGTH
    assert all(np.array_equal(a, b) for a, b in zip(train_step.join_state(pieces, np.concatenate), state, strict=True))


def test_a_batch_is_worked_on_in_towers_that_divide_it():
    options = train_step.Options(batch=4, crop=64, towers=2)
    state = [tf.constant(value) for value in loop.initial_state(CONFIG)]
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    after, metrics = train_step.make_step(CONFIG, options)(
        state, tf.constant(images), tf.constant(1e-3), tf.constant([0, 1])
    )
    assert np.isfinite(metrics.numpy()).all() and not np.array_equal(after[0], state[0])
    with pytest.raises(CodecError, match="a batch of 3 cannot be divided between 2 towers"):
        train_step.make_step(CONFIG, train_step.Options(batch=3, towers=2))
    train_step.spread(options)
    assert options.batch % options.towers == 0


def test_arrays_of_any_memory_order_are_saved_as_they_read(tmp_path):
    """safetensors wrote the transposed view of the first weights as its memory lay: rows and columns scrambled."""
    from safetensors.numpy import load

    from vaecodec.model.file import pack_model

    scrambled = np.arange(12, dtype=np.float32).reshape(3, 4).T
    loop.save_compact(str(tmp_path / "w"), CONFIG, {"a": scrambled}, {})
    assert np.array_equal(loop.averaged_weights(str(tmp_path / "w"))[1]["a"], scrambled)
    assert np.array_equal(load(pack_model("name", CONFIG, {"a": scrambled}, {}))["a"], scrambled)
