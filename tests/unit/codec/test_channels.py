"""Test models with other channels than RGB: models of grey images and of arrays."""

import io
from functools import cache

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_channels, synthetic_image
from support.paths import GOLDEN
from support.training import eager
from vaecodec import cli, container
from vaecodec.config import PRESETS, Config
from vaecodec.container import image_file
from vaecodec.container.image_file import Header
from vaecodec.errors import CodecError, FormatError
from vaecodec.images.channels import read_training_image

SIZES = Config(16, 1, 24, 1, prior=16, coarser=20, hyper_width=16)


@pytest.fixture(scope="module")
def train_model(tmp_path_factory):
    """A function that returns the path of a model with the given channels, trained for a step."""
    pytest.importorskip("tensorflow")
    from vaecodec import training
    from vaecodec.training import loop
    from vaecodec.training.freezing import freeze

    @cache
    def train(channels):
        folder = tmp_path_factory.mktemp("run")
        config = Config.from_dict({**SIZES.to_dict(), "channels": channels})
        if channels == 1:
            Image.fromarray(synthetic_image(90, 100, 5)).save(folder / "colour.png")  # is converted to grey
        else:
            np.save(folder / "bands.npy", synthetic_channels(90, 100, channels))
            np.save(folder / "others.npy", synthetic_channels(90, 100, channels + 1))  # is skipped
        options = loop.Options(batch=2, crop=64, steps=1, minutes=1e9)
        with eager():
            means = loop.train([str(folder)], str(folder / "run"), config, options)
        assert training.load_checkpoint(str(folder / "run"))[3]["steps"] == 1 and means
        freeze(str(folder / "run"), str(folder / "own.vcm"))
        return str(folder / "own.vcm")

    return train


@pytest.fixture(scope="module", params=[1, 2, 5])
def model(request, train_model):
    """(channels, path of a model)."""
    return request.param, train_model(request.param)


@pytest.fixture(scope="module", params=[2, 5])
def array_model(request, train_model):
    """(channels, path of a model) of arrays."""
    return request.param, train_model(request.param)


@pytest.fixture(scope="module")
def grey_model(train_model):
    """The path of a model of grey images."""
    return train_model(1)


def test_symbols_and_pixels_equal_the_reference_decoder(model):
    from reference import reference_decoder
    from vaecodec.codec import Codec
    from vaecodec.model.file import load_model

    channels, path = model
    image = synthetic_channels(100, 150, channels)
    codec = vaecodec.load(path)
    assert not codec.model.shipped and codec.model.config.channels == channels
    data = codec.encode(image, 70, tile=64)
    reference_model = reference_decoder.read_model(path)
    crcs = reference_decoder.symbol_crcs(data, reference_model)
    assert crcs == codec.symbol_crcs(data) and len(crcs) == 6
    decoded = codec.decode(data, check=True)
    assert decoded.shape == image.shape and decoded.dtype == np.uint8
    assert np.array_equal(decoded, reference_decoder.decode(data, reference_model))
    threaded_codec = Codec(load_model(path), threads=3)
    assert threaded_codec.encode(image, 70, tile=64) == data and np.array_equal(threaded_codec.decode(data), decoded)
    assert 10 * np.log10(255**2 / np.square(decoded.astype(float) - image).mean()) > 20
    assert np.array_equal(codec.decode(data, (50, 60, 30, 70)), decoded[50:80, 60:130])
    assert codec.decode(data, reduce=8).shape == (13, 19, channels)
    assert codec.decode_levels(data).shape == image.shape
    assert len(codec.encode(image, 70, effort=3)) <= 1.05 * len(codec.encode(image, 70))


def test_unfreezing_and_freezing_keep_the_model(model, tmp_path):
    from vaecodec.model.file import load_model
    from vaecodec.training import save_compact
    from vaecodec.training.freezing import freeze, unfreeze

    model_file = load_model(model[1])
    config, weights = unfreeze(model_file)
    save_compact(str(tmp_path / "again.safetensors"), config, weights, {})
    assert freeze(str(tmp_path / "again.safetensors"), str(tmp_path / "again.vcm")) == model_file.id


def test_arrays_with_other_channels_are_refused(model):
    channels, path = model
    codec = vaecodec.load(path)
    for pixels in (
        synthetic_image(32, 32),
        synthetic_image(32, 32)[..., 0],
        synthetic_channels(32, 32, 6),
        np.zeros((32, 32, channels)),
    ):
        with pytest.raises(CodecError, match=rf"expected uint8\[H, W, {channels}\]"):
            codec.encode(pixels)
    header = Header(codec.model.id, 32, 32, 400, 1024, channels=16)
    with pytest.raises(FormatError, match=f"the header gives 16 channels, its model {channels}"):
        codec.decode(image_file.pack(header, [(b"", 0, 0)]))
    if channels == 1:
        with pytest.raises(CodecError, match="in colour, and the model is for grey ones"):
            vaecodec.encode(synthetic_image(80, 90), model=path)
    else:
        for image in (
            synthetic_image(80, 90),
            synthetic_image(80, 90)[..., 0],
            Image.fromarray(synthetic_image(80, 90)),
            "photo.png",
        ):
            with pytest.raises(CodecError, match=rf"for arrays uint8\[H, W, {channels}\], not for"):
                vaecodec.encode(image, model=path)


def test_the_package_codes_arrays(array_model):
    channels, path = array_model
    image = synthetic_channels(70, 90, channels)
    image[:8, :8, -1] = 0  # the last channel is not alpha, so the others are kept below it
    data = vaecodec.encode(image, quality=80, model=path)
    assert np.array_equal(vaecodec.load(path).decode(data), vaecodec.decode(data, model=path))
    info = vaecodec.info(data)
    assert (info["kind"], info["channels"], info["depth"], info["coding"]) == ("array", channels, 8, "vae")
    assert vaecodec.decode_batch(vaecodec.encode_batch([image, image[:40]], model=path), model=path)[1].shape[0] == 40
    targeted = vaecodec.encode(image, model=path, target_psnr=22)
    assert 10 * np.log10(255**2 / np.square(vaecodec.decode(targeted, model=path).astype(float) - image).mean()) >= 22


def test_files_of_arrays_are_not_images(array_model, tmp_path, capsys):
    import vaecodec.integrations.pillow
    from vaecodec.integrations.tfdata import Decoder

    channels, path = array_model
    file = tmp_path / "bands.vae"
    file.write_bytes(vaecodec.encode(synthetic_channels(70, 90, channels), model=path))
    message = f"holds {channels} channels, which no image has"
    with pytest.raises(OSError, match=message):
        Image.open(file)
    with pytest.raises(ValueError, match=message):
        Decoder(3, path)(file.read_bytes(), "bands.vae")
    assert cli.main(["decompress", "-m", path, str(file)]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "bands.png").exists()
    assert cli.main(["verify", "-m", path, str(file)]) == 0
    assert cli.main(["info", str(file)]) == 0
    assert f"{channels} channels" in capsys.readouterr().out
    Image.fromarray(synthetic_image(40, 50)).save(tmp_path / "photo.png")
    assert cli.main(["compress", "-m", path, str(tmp_path / "photo.png")]) == 1
    assert "not for uint8[40, 50, 3]" in capsys.readouterr().err and not (tmp_path / "photo.vae").exists()
    with pytest.raises(CodecError, match="not for an image"):
        vaecodec.sample(1, model=path)


def test_a_grey_model_codes_grey_images(grey_model, tmp_path):
    import vaecodec.integrations.pillow

    grey = synthetic_image(100, 130)[..., 1]
    alpha = np.where(np.arange(130) < 60, 0, 255).astype(np.uint8) * np.ones((100, 1), np.uint8)
    data = vaecodec.load(grey_model).encode(grey[..., None], 70)
    assert vaecodec.info(data)["channels"] == 1 and vaecodec.decode(data, model=grey_model).shape == grey.shape
    for samples in (grey, np.dstack([grey, alpha])):
        data = vaecodec.encode(samples, quality=70, model=grey_model)
        decoded = vaecodec.decode(data, model=grey_model)
        assert decoded.shape == samples.shape and vaecodec.info(data)["channels"] == samples.shape[2:].count(2) + 1
        if samples.ndim == 3:
            assert np.array_equal(decoded[..., 1], alpha) and not decoded[:, :60, 0].any()
    deep = grey.astype(np.uint16) * 257
    decoded = vaecodec.decode(vaecodec.encode(deep, quality=70, model=grey_model), model=grey_model)
    assert decoded.dtype == np.uint16 and np.abs(decoded.astype(int) - deep).mean() < 20 * 257
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert cli.main(["compress", "-m", grey_model, str(tmp_path / "a.png")]) == 0
    assert cli.main(["decompress", "-f", "-m", grey_model, str(tmp_path / "a.vae")]) == 0
    assert Image.open(tmp_path / "a.png").mode == "L"
    assert vaecodec.sample(2, model=grey_model, size=(32, 48)).shape == (2, 32, 48)
    assert np.isfinite(vaecodec.score(grey, model=grey_model).corrected)


def test_large_grey_images_are_coded_in_strips(grey_model, monkeypatch):
    from vaecodec.codec import modes
    from vaecodec.images.strips import Strips

    rgb = np.repeat(synthetic_image(200, 96)[..., :1], 3, 2)
    codec = vaecodec.load(grey_model)
    data = modes.encode_rows(codec, lambda: Strips(rgb.shape, iter(np.split(rgb, 8)), True), True, 60)
    assert data == codec.encode(rgb[..., :1], 60)
    with pytest.raises(CodecError, match="in colour"):
        modes.encode_rows(codec, lambda: Strips(rgb.shape, iter([rgb]), False), False, 60)


def test_the_header_stores_the_channels():
    for channels in (1, 2, 3, 4, 16):
        data = image_file.pack(Header("0" * 32, 20, 30, 5, 64, channels=channels), [(b"", 0, 0)])
        parsed = image_file.contents(data)
        assert parsed.header.channels == parsed.channels == channels and parsed.grey == (channels == 1)
        assert image_file.info(data)["channels"] == channels
    head = image_file.HEAD.pack(1, 0, bytes(16), 20, 30, 5, 6, 3) + bytes(12)
    with pytest.raises(FormatError, match="3 are written as 0"):
        image_file.read_head(head, len(head))
    for channels, tag in ((1, container.GREY), (2, container.ALPHA), (4, container.GREY)):
        data = image_file.pack(Header("0" * 32, 20, 30, 5, 64, channels=channels), [(b"", 0, 0)])
        with pytest.raises(FormatError, match=f"does not go with {channels} channels"):
            image_file.contents(container.insert_chunks(data, [(tag, b"")]))


def test_configurations_have_channels():
    assert vaecodec.load(str(GOLDEN / "tiny.vcm")).model.config.channels == 3
    assert Config.from_dict(PRESETS["small"].to_dict()) == PRESETS["small"]
    for sizes in ({"channels": 0}, {"channels": 17}):
        with pytest.raises(ValueError, match="channels"):
            Config.from_dict({**PRESETS["small"].to_dict(), **sizes})
    grey = Config.from_dict({**PRESETS["small"].to_dict(), "channels": 1})
    assert grey.to_dict()["channels"] == 1 and grey.latents == 256


def test_quality_means_the_same_error_for_all_channels():
    """An untrained grey model codes a grey image with the same error as an untrained RGB model, at every quality."""
    tf = pytest.importorskip("tensorflow")
    from vaecodec.training.vae import VAE, initial_weights

    grey = synthetic_image(128, 128)[None, ..., :1]
    for quality in (0.0, 3.5, 6.0):
        fidelities = []
        for channels in (1, 3):
            config = Config(8, 1, 8, 1, prior=8, coarser=8, hyper_width=8, channels=channels)
            model = VAE(config, initial_weights(config))
            x = tf.constant(np.repeat(grey, channels, 3))
            fidelities.append(float(model.loss(x, tf.constant([quality]), tf.constant([0, 1])).psnr))
        assert abs(fidelities[0] - fidelities[1]) < 1.5, (
            fidelities
        )  # symbols are chosen by rate, and RGB has more of them


def test_training_images_have_the_channels_of_the_model():
    def file(array, kind):
        out = io.BytesIO()
        if kind == "npy":
            np.save(out, array)
        else:
            Image.fromarray(array).save(out, kind)
        return out.getvalue()

    rgba = np.dstack([synthetic_image(20, 30), synthetic_image(20, 30, 1)[..., 0]])
    assert np.array_equal(read_training_image(file(rgba, "PNG"), 4), rgba)
    assert read_training_image(file(rgba, "PNG"), 3).shape == (20, 30, 3)
    assert read_training_image(file(rgba, "PNG"), 1).shape == (20, 30, 1)
    assert np.array_equal(read_training_image(file(rgba[..., 0], "npy"), 1)[..., 0], rgba[..., 0])
    assert read_training_image(file(synthetic_channels(20, 30, 7), "npy"), 7).shape == (20, 30, 7)
    for array, kind, channels in ((rgba, "PNG", 5), (rgba, "npy", 3), (rgba.astype(np.int16), "npy", 4)):
        with pytest.raises(ValueError, match="expected uint8"):
            read_training_image(file(array, kind), channels)
    with pytest.raises(ValueError):  # pickles are never loaded
        read_training_image(file(np.array([{}], object), "npy"), 4)


def test_the_train_command_accepts_channels(tmp_path, capsys):
    pytest.importorskip("tensorflow")
    np.save(tmp_path / "bands.npy", synthetic_channels(70, 80, 4))
    (tmp_path / "tiny.toml").write_text(
        "[model]\n" + "".join(f"{name} = 8\n" for name in ("hyper_width", "fine", "coarse", "prior", "coarser"))
    )
    line = ["train", str(tmp_path), "--config", str(tmp_path / "tiny.toml"), "--steps", "1", "--batch", "1"]
    line += ["--crop", "64", "--out", str(tmp_path / "run")]
    with eager():
        assert cli.main([*line, "--channels", "4"]) == 0
    assert "channels = 4" in (tmp_path / "run" / "config.toml").read_text()
    assert cli.main([*line[:-1], str(tmp_path / "other"), "--channels", "5"]) == 1
    assert "at least 64 x 64 and 5 channels" in capsys.readouterr().err
    assert cli.main([*line[:-1], str(tmp_path / "grey"), "--channels", "1", "--from", "small"]) == 1
    assert "small does not have the architecture" in capsys.readouterr().err
    assert cli.main(["train", str(tmp_path), "--out", "x", "--preset", "digits", "--channels", "2"]) == 1
    assert cli.main(["train", str(tmp_path), "--out", "x", "--channels", "17"]) == 1
    assert "integer in 1..16" in capsys.readouterr().err


def test_no_eye_looks_at_channels_that_are_no_colours(array_model):
    channels, path = array_model
    codec, pixels = vaecodec.load(path), synthetic_channels(60, 70, channels)
    assert codec.encode(pixels, 60, tune="eye") == codec.encode(pixels, 60, tune="psnr")
    with pytest.raises(ValueError, match="tune"):
        codec.encode(pixels, 60, tune="ear")


def test_grey_images_are_tuned_for_the_eye(grey_model):
    codec, pixels = vaecodec.load(grey_model), synthetic_channels(60, 70, 1)
    assert codec.encode(pixels, 60, tune="eye") != codec.encode(pixels, 60, tune="psnr")
