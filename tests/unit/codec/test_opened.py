"""Test images that are opened without being decoded, and codecs that are copied and pickled."""

import copy
import io
import pickle

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from support.paths import GOLDEN
from vaecodec.codec import Codec, modes
from vaecodec.container.image_file import quality_index_of, shown_quality_of
from vaecodec.errors import ModelError
from vaecodec.images.reading import read_image
from vaecodec.model import add_model
from vaecodec.model.file import load_model

TINY = str(GOLDEN / "tiny.vcm")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("opened") / "photo.vae"
    exif = Image.Exif()
    exif[0x010F] = "Acme"
    file = io.BytesIO()
    Image.fromarray(synthetic_image(90, 130)).save(file, "PNG", exif=exif)
    path.write_bytes(vaecodec.encode(file.getvalue(), quality=60))
    return path


def test_the_header_is_known_before_any_pixel(photo, monkeypatch):
    monkeypatch.setattr(modes, "decode", lambda *_, **__: pytest.fail("decodes"))
    image = vaecodec.open(photo)
    assert image.size == (130, 90) and image.shape == (90, 130, 3) and image.dtype == np.uint8
    assert image.metadata.keys() == {"exif"} and image.info.quality == 60
    assert repr(image).endswith(f"photo.vae': 130 x 90, RGB, quality 60, {photo.stat().st_size} bytes>")


def test_pixels_are_those_of_decode(photo):
    image, data = vaecodec.open(photo), photo.read_bytes()
    np.testing.assert_array_equal(np.asarray(image), vaecodec.decode(data))
    np.testing.assert_array_equal(image.crop((10, 20, 30, 40)), vaecodec.decode(data, (10, 20, 30, 40)))
    np.testing.assert_array_equal(image.preview(4), vaecodec.decode(data, reduce=4))
    assert np.asarray(image, np.float32).dtype == np.float32
    with pytest.raises(ValueError, match="copy"):
        image.__array__(copy=False)
    assert vaecodec.encode(image, quality=30) == vaecodec.encode(vaecodec.decode(data), quality=30)


@pytest.mark.parametrize("samples", [synthetic_image(30, 40)[..., 0], synthetic_image(30, 40).astype(np.uint16) * 99])
def test_every_kind_is_shown_in_notebooks(samples):
    image = vaecodec.open(vaecodec.encode(samples))
    assert image.shape == samples.shape and image.dtype == samples.dtype
    assert read_image(image._repr_png_())[0].shape == samples.shape


def test_notebooks_show_large_images_as_previews():
    image = vaecodec.open(vaecodec.encode(np.zeros((40, 2100, 3), np.uint8) + 9, quality=1))
    with Image.open(io.BytesIO(image._repr_png_())) as shown:
        assert shown.size == (525, 10)


def test_codecs_have_a_name_and_are_copied(tiny):
    codec = vaecodec.load(TINY, threads=1)
    assert codec.model.id in repr(codec) and "tiny" in repr(codec) and "1 thread" in repr(codec)
    assert copy.copy(codec) is copy.deepcopy(codec) is codec


def test_codecs_are_pickled_by_the_id_of_their_model(tmp_path, monkeypatch):
    path = tmp_path / "own.vcm"
    path.write_bytes((GOLDEN / "tiny.vcm").read_bytes())
    codec = vaecodec.load(path, threads=1)
    pickled = pickle.dumps(codec)
    assert len(pickled) < 500 and pickle.loads(pickled) is codec
    other = pickle.loads(pickle.dumps(vaecodec.load("small")))
    assert other is vaecodec.load("small")
    path.unlink()
    monkeypatch.setenv("VAECODEC_MODELS", str(tmp_path / "models"))
    with pytest.raises(ModelError, match=codec.model.id):
        pickle.loads(pickled)
    add_model("mine", (GOLDEN / "tiny.vcm").read_bytes())
    again = pickle.loads(pickled)
    assert isinstance(again, Codec) and again.model.id == codec.model.id and again.threads == 1
    assert pickle.loads(pickle.dumps(Codec(load_model(TINY)))).model.id == codec.model.id


def test_qualities_are_shown_as_they_were_given():
    for tenths in range(10, 1001):
        quality = tenths / 10
        index = quality_index_of(quality)
        shown = shown_quality_of(index)
        assert quality_index_of(shown) == index and round(shown, 1) == shown
        if quality == int(quality):
            assert shown == quality


def test_info_is_a_frozen_record_with_its_dict(photo):
    about = vaecodec.info(photo)
    assert (about.width, about.height, about.kind, about.metadata) == (130, 90, "picture", ("exif",))
    assert dict(about) == about.to_dict() == {**about} and about["metadata"] == ["exif"] and about.count is None
    assert "count" not in about and about == vaecodec.info(photo.read_bytes())
    with pytest.raises(AttributeError):
        about.width = 5
