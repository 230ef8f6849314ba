"""Test that batches of images give the results of single images."""

import io

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from support.paths import GOLDEN
from vaecodec.arguments import Limits
from vaecodec.codec import Codec, modes
from vaecodec.errors import FormatError, LimitError, ModelError
from vaecodec.images.writing import encode_png16

SIZES = [(70, 90), (64, 64), (200, 130), (70, 90), (1, 1), (64, 64), (130, 200)]


def mixed_samples() -> list[np.ndarray]:
    """Samples of every kind, in several sizes."""
    rgb = [synthetic_image(*size, seed) for seed, size in enumerate(SIZES)]
    alpha = np.tile(np.arange(90, dtype=np.uint8)[None], (70, 1))
    return [
        *rgb,
        rgb[0][..., 0],
        np.dstack([rgb[0][..., 1], alpha]),
        np.dstack([rgb[3], alpha]),
        rgb[1].astype(np.uint16) * 257,
        np.kron(np.eye(8, dtype=np.uint8) * 255, np.ones((16, 16), np.uint8)),  # a drawing, kept without loss
    ]


def test_a_batch_equals_single_images(tiny):
    images = [synthetic_image(*size, seed) for seed, size in enumerate(SIZES)]
    steps: list[tuple[int, int]] = []
    files = tiny.encode_batch(images, 60, tile=64, progress=lambda *done: steps.append(done))
    assert files == [tiny.encode(image, 60, tile=64) for image in images]
    total = sum(-(-height // 64) * -(-width // 64) for height, width in SIZES)
    assert steps == [(n, total) for n in range(total + 1)]
    for decoded, data in zip(tiny.decode_batch(files), files, strict=True):
        np.testing.assert_array_equal(decoded, tiny.decode(data))
    assert tiny.encode_batch([]) == [] and tiny.decode_batch([]) == []
    metadata = [{"xmp": b"one"}, None]
    assert vaecodec.info(tiny.encode_batch(images[:2], metadata=metadata)[0])["metadata"] == ["xmp"]


def test_files_of_a_batch_may_differ_in_quality_and_be_cropped_or_reduced(tiny):
    files = [tiny.encode(synthetic_image(150, 170, n), quality, tile=64) for n, quality in enumerate((20, 80, 20, 55))]
    for options in ({"window": (10, 20, 100, 90)}, {"reduce": 4}, {"window": (3, 70, 99, 31), "reduce": 2}):
        for decoded, data in zip(tiny.decode_batch(files, **options), files, strict=True):
            np.testing.assert_array_equal(decoded, tiny.decode(data, **options))


def test_tensorflow_batches_tiles_of_several_images(tiny):
    pytest.importorskip("vaecodec.transforms.tensorflow")
    codec = Codec(tiny.model, "tensorflow")
    shapes: list[int] = []
    analysis, pixels = codec.transforms.analysis, codec.transforms.pixels
    codec.transforms.analysis = lambda images, *more: shapes.append(len(images)) or analysis(images, *more)
    codec.transforms.pixels = lambda images, *more: shapes.append(len(images)) or pixels(images, *more)
    batch = [synthetic_image(64, 64, seed) if seed != 2 else synthetic_image(80, 48) for seed in range(5)]
    files = [tiny.encode_unfiltered(image, 70) for image in batch]
    for decoded, data in zip(codec.decode_batch(files), files, strict=True):
        np.testing.assert_array_equal(decoded, tiny.decode(data))
    assert shapes == [4, 1]
    assert codec.encode_batch(batch, 70) == tiny.encode_batch(batch, 70)


@pytest.mark.parametrize("least", [1, 1 << 30])
def test_threads_do_not_change_a_batch(tiny, monkeypatch, least):
    """Threads code whole tiles, or share each tile."""
    monkeypatch.setattr("vaecodec.codec.tiles.OWN_TILE_PIXELS", least)
    codec, images = Codec(tiny.model, threads=2), [synthetic_image(*size, seed) for seed, size in enumerate(SIZES)]
    files = codec.encode_batch(images)
    assert files == [tiny.encode(image) for image in images]
    for decoded, data in zip(codec.decode_batch(files), files, strict=True):
        np.testing.assert_array_equal(decoded, tiny.decode(data))


def test_a_batch_may_mix_all_kinds_of_images(tmp_path):
    samples = mixed_samples()
    files = vaecodec.encode_batch(samples, quality=60)
    assert files == [vaecodec.encode(sample, quality=60) for sample in samples]
    assert {vaecodec.info(data)["coding"] for data in files} >= {"vae", "lossless"}
    for decoded, data, sample in zip(vaecodec.decode_batch(files), files, samples, strict=True):
        np.testing.assert_array_equal(decoded, vaecodec.decode(data))
        assert decoded.shape == sample.shape and decoded.dtype == sample.dtype
    for decoded, data in zip(vaecodec.decode_batch(files, reduce=2), files, strict=True):
        np.testing.assert_array_equal(decoded, vaecodec.decode(data, reduce=2))
    (tmp_path / "deep.png").write_bytes(encode_png16(samples[-2]))
    image = Image.fromarray(samples[0])
    image.info["dpi"] = (300, 300)
    from_files = vaecodec.encode_batch([tmp_path / "deep.png", image, samples[1]])
    assert from_files == [vaecodec.encode(sample) for sample in (tmp_path / "deep.png", image, samples[1])]


def test_errors_name_the_file(small):
    files = small.encode_batch([synthetic_image(64, 64, seed) for seed in range(3)])
    truncated = [*files[:2], files[2][:-9]]
    with pytest.raises(FormatError, match="^file 2: the file is cut off"):
        vaecodec.decode_batch(truncated)
    with pytest.raises(FormatError, match=r"^c\.vae: "):
        modes.decode_batch(truncated, names=["a.vae", "b.vae", "c.vae"])
    at = len(files[1]) - 20
    damaged = files[1][:at] + bytes([files[1][at] ^ 1]) + files[1][at + 1 :]
    with pytest.raises(FormatError, match="^file 1: "):
        small.decode_batch([files[0], damaged])
    with pytest.raises(FormatError, match="^file 1: tile 0 is damaged"):
        small.decode_batch([files[0], damaged], window=(0, 0, 64, 64))
    with pytest.raises(LimitError, match="^file 0: "):
        small.decode_batch(files, limits=Limits(pixels=1000))
    with pytest.raises(ModelError, match="^file 1: "):
        vaecodec.decode_batch([files[0], (GOLDEN / "odd.vae").read_bytes()])
    with pytest.raises(vaecodec.CodecError, match="expected uint8"):
        small.encode_batch([synthetic_image(8, 8), synthetic_image(8, 8)[..., 0]])
    with pytest.raises(ValueError, match="quality"):
        vaecodec.encode_batch([], quality=0)


def test_a_batch_accepts_the_bytes_of_files(small):
    file = io.BytesIO()
    Image.fromarray(synthetic_image(64, 64)).save(file, "PNG")
    assert vaecodec.encode_batch([file.getvalue()]) == [vaecodec.encode(synthetic_image(64, 64))]
