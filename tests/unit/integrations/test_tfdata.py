"""Test the tf.data source: it yields the images of files in order and with known shapes."""

import numpy as np
import pytest

import vaecodec
from support.images import synthetic_image

tf = pytest.importorskip("tensorflow")

from vaecodec.integrations import tfdata

SIZES = [(48, 64)] * 5 + [(70, 50)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Paths of five images of one size and a sixth of another size, and the decoded images."""
    folder = tmp_path_factory.mktemp("files")
    encoded = vaecodec.encode_batch([synthetic_image(*size, seed) for seed, size in enumerate(SIZES)])
    for number, data in enumerate(encoded):
        (folder / f"{number}.vae").write_bytes(data)
    return [folder / f"{number}.vae" for number in range(len(SIZES))], vaecodec.decode_batch(encoded)


def elements(dataset):
    return list(dataset.as_numpy_iterator())


def test_datasets_yield_images_in_order_with_static_shapes(files):
    paths, expected = files
    equal_sizes = tfdata.dataset(paths[:5], workers=3)
    assert equal_sizes.element_spec == tf.TensorSpec([48, 64, 3], tf.uint8)
    assert int(equal_sizes.cardinality()) == 5
    for image, expected_image in zip(elements(equal_sizes), expected[:5], strict=True):
        np.testing.assert_array_equal(image, expected_image)
    assert next(iter(equal_sizes.batch(5))).shape == (5, 48, 64, 3)
    mixed = tfdata.dataset(paths, workers=2)
    assert mixed.element_spec.shape.as_list() == [None, None, 3]
    for image, expected_image in zip(elements(mixed), expected, strict=True):
        np.testing.assert_array_equal(image, expected_image)
    unordered = {
        expected_image.tobytes() for expected_image in elements(tfdata.dataset(paths, workers=3, deterministic=False))
    }
    assert unordered == {expected_image.tobytes() for expected_image in expected}


def test_shuffling_and_cropping_are_reproducible_and_differ_in_each_epoch(files):
    paths, expected = files
    crops = tfdata.dataset(paths, crop=(32, 40), shuffle=True, seed=7)
    assert crops.element_spec == tf.TensorSpec([32, 40, 3], tf.uint8)
    first, second = elements(crops), elements(crops)
    repeated = elements(tfdata.dataset(paths, crop=(32, 40), shuffle=True, seed=7, workers=1))
    np.testing.assert_array_equal(first, repeated)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, elements(tfdata.dataset(paths, crop=(32, 40), shuffle=True, seed=8)))

    def sources(crop):
        """Indices of the images that contain the crop."""
        windows = [np.lib.stride_tricks.sliding_window_view(image, crop.shape)[:, :, 0] for image in expected]
        return [n for n, places in enumerate(windows) if (places == crop).all((2, 3, 4)).any()]

    assert sorted(n for crop in first for n in sources(crop)) == list(range(len(paths)))


def test_datasets_yield_previews(files):
    paths, _ = files
    small = tfdata.dataset(paths[:5], reduce=4)
    assert small.element_spec.shape.as_list() == [12, 16, 3]
    np.testing.assert_array_equal(elements(small)[2], vaecodec.decode(paths[2].read_bytes(), reduce=4))
    with pytest.raises(ValueError, match="does not go with reduce"):
        tfdata.dataset(paths, crop=(8, 8), reduce=2)


def test_datasets_convert_channels(tmp_path):
    rgb = synthetic_image(40, 40)
    alpha = np.arange(1600, dtype=np.uint8).reshape(40, 40)
    kinds = {"grey": rgb[..., 0], "greya": np.dstack([rgb[..., 0], alpha | 1]), "rgba": np.dstack([rgb, alpha | 1])}
    paths = {name: tmp_path / f"{name}.vae" for name in [*kinds, "deep"]}
    for name, samples in kinds.items():
        paths[name].write_bytes(vaecodec.encode(samples))
    paths["deep"].write_bytes(vaecodec.encode(rgb.astype(np.uint16) * 257))
    grey, greya, rgba = elements(tfdata.dataset([paths[name] for name in kinds]))
    decoded = {name: vaecodec.decode(paths[name].read_bytes()) for name in kinds}
    np.testing.assert_array_equal(grey, np.repeat(decoded["grey"][..., None], 3, axis=2))
    np.testing.assert_array_equal(greya[..., 0], decoded["greya"][..., 0])
    np.testing.assert_array_equal(rgba, decoded["rgba"][..., :3])
    first, second = elements(tfdata.dataset([paths["grey"], paths["greya"]], channels=1))
    np.testing.assert_array_equal(
        np.concatenate([first, second], 2), np.dstack([decoded["grey"], decoded["greya"][..., 0]])
    )
    for name, options in (("rgba", {"channels": 1}), ("deep", {})):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"{name}.vae: has "):
            elements(tfdata.dataset([paths[name]], **options))
    with pytest.raises(ValueError, match="expected 1 or 3"):
        tfdata.dataset([paths["rgba"]], channels=4)


def test_errors_name_the_file(files, tmp_path):
    paths, _ = files
    data = paths[1].read_bytes()
    (tmp_path / "cut.vae").write_bytes(data[:-5])
    (tmp_path / "none.vae").write_bytes(b"nothing")
    sources = [paths[0], tmp_path / "cut.vae", paths[1]]
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"cut\.vae: the file is cut off"):
        elements(tfdata.dataset(sources))
    assert len(elements(tfdata.dataset(sources).ignore_errors())) == 2
    with pytest.raises(tf.errors.InvalidArgumentError, match="64 x 48 pixels are smaller than the crop of 65 x 48"):
        elements(tfdata.dataset(paths[:1], crop=(48, 65)))
    with pytest.raises(vaecodec.CodecError, match=r"none\.vae: not a \.vae file"):
        tfdata.dataset([tmp_path / "none.vae"])
    with pytest.raises(vaecodec.CodecError, match="no files"):
        tfdata.dataset([])


def test_decode_image_works_in_any_pipeline(files):
    paths, expected = files
    names = tf.data.Dataset.from_tensor_slices([str(path) for path in paths])
    images = names.map(tf.io.read_file).map(tfdata.decode_image, num_parallel_calls=2)
    assert images.element_spec.shape.as_list() == [None, None, 3]
    for image, expected_image in zip(elements(images), expected, strict=True):
        np.testing.assert_array_equal(image, expected_image)
