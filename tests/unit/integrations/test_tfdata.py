"""The tf.data source: files in, pictures out, in order, of known shapes."""

import numpy as np
import pytest

import vaecodec
from support.images import synthetic_image

tf = pytest.importorskip("tensorflow")

from vaecodec.integrations import tfdata

SIZES = [(48, 64)] * 5 + [(70, 50)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of five pictures of one size and one of another, and what they decode to."""
    folder = tmp_path_factory.mktemp("files")
    encoded = vaecodec.encode_batch([synthetic_image(*size, seed) for seed, size in enumerate(SIZES)])
    for number, data in enumerate(encoded):
        (folder / f"{number}.vae").write_bytes(data)
    return [folder / f"{number}.vae" for number in range(len(SIZES))], vaecodec.decode_batch(encoded)


def all_of(dataset):
    return list(dataset.as_numpy_iterator())


def test_pictures_come_in_order_and_in_shape(files):
    paths, expected = files
    same = tfdata.dataset(paths[:5], workers=3)
    assert same.element_spec == tf.TensorSpec([48, 64, 3], tf.uint8)
    assert int(same.cardinality()) == 5
    for found, one in zip(all_of(same), expected[:5], strict=True):
        np.testing.assert_array_equal(found, one)
    assert next(iter(same.batch(5))).shape == (5, 48, 64, 3)
    mixed = tfdata.dataset(paths, workers=2)
    assert mixed.element_spec.shape.as_list() == [None, None, 3]
    for found, one in zip(all_of(mixed), expected, strict=True):
        np.testing.assert_array_equal(found, one)
    unordered = {one.tobytes() for one in all_of(tfdata.dataset(paths, workers=3, deterministic=False))}
    assert unordered == {one.tobytes() for one in expected}


def test_shuffling_and_crops_follow_the_seed_and_change_with_each_pass(files):
    paths, expected = files
    crops = tfdata.dataset(paths, crop=(32, 40), shuffle=True, seed=7)
    assert crops.element_spec == tf.TensorSpec([32, 40, 3], tf.uint8)
    first, second = all_of(crops), all_of(crops)
    again = all_of(tfdata.dataset(paths, crop=(32, 40), shuffle=True, seed=7, workers=1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, all_of(tfdata.dataset(paths, crop=(32, 40), shuffle=True, seed=8)))

    def home(crop):
        """The pictures that have it, at any place."""
        windows = [np.lib.stride_tricks.sliding_window_view(one, crop.shape)[:, :, 0] for one in expected]
        return [n for n, places in enumerate(windows) if (places == crop).all((2, 3, 4)).any()]

    assert sorted(n for crop in first for n in home(crop)) == list(range(len(paths)))


def test_previews(files):
    paths, _ = files
    small = tfdata.dataset(paths[:5], reduce=4)
    assert small.element_spec.shape.as_list() == [12, 16, 3]
    np.testing.assert_array_equal(all_of(small)[2], vaecodec.decode(paths[2].read_bytes(), reduce=4))
    with pytest.raises(ValueError, match="does not go with reduce"):
        tfdata.dataset(paths, crop=(8, 8), reduce=2)


def test_kinds_of_pictures(tmp_path):
    rgb = synthetic_image(40, 40)
    alpha = np.arange(1600, dtype=np.uint8).reshape(40, 40)
    kinds = {"grey": rgb[..., 0], "greya": np.dstack([rgb[..., 0], alpha | 1]), "rgba": np.dstack([rgb, alpha | 1])}
    paths = {name: tmp_path / f"{name}.vae" for name in [*kinds, "deep"]}
    for name, samples in kinds.items():
        paths[name].write_bytes(vaecodec.encode(samples))
    paths["deep"].write_bytes(vaecodec.encode(rgb.astype(np.uint16) * 257))
    grey, greya, rgba = all_of(tfdata.dataset([paths[name] for name in kinds]))
    decoded = {name: vaecodec.decode(paths[name].read_bytes()) for name in kinds}
    np.testing.assert_array_equal(grey, np.repeat(decoded["grey"][..., None], 3, axis=2))
    np.testing.assert_array_equal(greya[..., 0], decoded["greya"][..., 0])
    np.testing.assert_array_equal(rgba, decoded["rgba"][..., :3])
    one, two = all_of(tfdata.dataset([paths["grey"], paths["greya"]], channels=1))
    np.testing.assert_array_equal(np.concatenate([one, two], 2), np.dstack([decoded["grey"], decoded["greya"][..., 0]]))
    for name, options in (("rgba", {"channels": 1}), ("deep", {})):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name}.vae: has "):
            all_of(tfdata.dataset([paths[name]], **options))
    with pytest.raises(ValueError, match="expected 1 or 3"):
        tfdata.dataset([paths["rgba"]], channels=4)


def test_what_is_wrong_is_said_with_the_name(files, tmp_path):
    paths, _ = files
    data = paths[1].read_bytes()
    (tmp_path / "cut.vae").write_bytes(data[:-5])
    (tmp_path / "none.vae").write_bytes(b"nothing")
    mixed = [paths[0], tmp_path / "cut.vae", paths[1]]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"cut\.vae: the file is cut off"):
        all_of(tfdata.dataset(mixed))
    assert len(all_of(tfdata.dataset(mixed).ignore_errors())) == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="64 x 48 pixels are smaller than the crop of 65 x 48"):
        all_of(tfdata.dataset(paths[:1], crop=(48, 65)))
    with pytest.raises(vaecodec.CodecError, match=r"none\.vae: not a \.vae file"):
        tfdata.dataset([tmp_path / "none.vae"])
    with pytest.raises(vaecodec.CodecError, match="no files"):
        tfdata.dataset([])


def test_in_a_pipeline_of_ones_own(files):
    paths, expected = files
    names = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    pictures = names.map(tf.io.read_file).map(tfdata.decode_image, num_parallel_calls=2)
    assert pictures.element_spec.shape.as_list() == [None, None, 3]
    for found, one in zip(all_of(pictures), expected, strict=True):
        np.testing.assert_array_equal(found, one)
