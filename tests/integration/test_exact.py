"""Test that files and pixels are bit-exact on every core, with any number of threads, and in windows."""

import hashlib

import numpy as np
import pytest

from support.damage import with_right_crcs
from support.images import synthetic_image
from support.models import reload
from vaecodec.codec import Codec
from vaecodec.codec.tiles import Schedule
from vaecodec.container.image_file import parse, with_pixel_crcs
from vaecodec.errors import FormatError
from vaecodec.native import library
from vaecodec.threads import Threads

THREADS = (1, 2, 5)


def sha(data):
    return hashlib.sha256(data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes()).hexdigest()


def with_threads(codec, threads):
    return Codec(codec.model, threads=threads)


@pytest.fixture(params=["tiny", "small"])
def codec(request, tiny, small):
    return {"tiny": tiny, "small": small}[request.param]


@pytest.mark.parametrize(("shape", "quality"), [((33, 50), 60), ((20, 17), 95)])
def test_all_cores_write_the_same_file_and_pixels(kinds, codec, shape, quality):
    pixels, files, decoded = synthetic_image(*shape, seed=5), set(), set()
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            new_codec = Codec(codec.model, threads=1)
            data = new_codec.encode(pixels, quality)
            files.add(sha(data))
            decoded.add(sha(new_codec.decode(data)))
            new_codec.verify(data)
    assert len(files) == len(decoded) == 1


def test_all_cores_code_tiles_alike(kinds, tiny):
    """The image has several tiles, the last of them cropped; levels before rounding are compared too."""
    pixels, results = synthetic_image(70, 90, seed=6), set()
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            new_codec = Codec(tiny.model, threads=1)
            data = new_codec.encode(pixels, 30, tile=64)
            results.add((sha(data), sha(new_codec.decode(data)), sha(new_codec.decode_levels(data))))
    assert len(results) == 1


def test_all_cores_decode_refined_files_alike(kinds, tiny):
    data, decoded = tiny.encode(synthetic_image(60, 80, seed=7), 50, effort=3), set()
    assert parse(data).header.filter
    for kind in (library.REFERENCE, *kinds):
        with library.use(kind):
            decoded.add(sha(Codec(tiny.model, threads=1).decode(data)))
    assert len(decoded) == 1


@pytest.mark.parametrize("tile", [64, 128, 1024])
@pytest.mark.parametrize("effort", [1, 2])
def test_results_do_not_depend_on_the_number_of_threads(codec, tile, effort):
    pixels, results = synthetic_image(150, 210, seed=8), set()
    for threads in THREADS:
        threaded_codec = with_threads(codec, threads)
        data = threaded_codec.encode(pixels, 55, tile=tile, effort=effort)
        threaded_codec.verify(data)
        results.add(
            (
                sha(data),
                sha(threaded_codec.decode(data)),
                sha(threaded_codec.decode_levels(data)),
                sha(threaded_codec.decode(data, reduce=2)),
            )
        )
    assert len(results) == 1


def test_results_do_not_depend_on_how_threads_share_tiles(tiny, monkeypatch):
    """Threads take whole tiles if these are large enough, and share each tile otherwise."""
    pixels, results, parallel = synthetic_image(260, 300, seed=9), set(), set()
    for least in (1, 1 << 30):
        monkeypatch.setattr("vaecodec.codec.tiles.OWN_TILE_PIXELS", least)
        with Schedule(25, 260 * 300, 3) as schedule:
            parallel.add(schedule.inner.count == 1)
        threaded_codec = with_threads(tiny, 3)
        data = threaded_codec.encode(pixels, 55, tile=64)
        results.add((sha(data), sha(threaded_codec.decode(data))))
    assert len(results) == 1 and parallel == {True, False}


@pytest.mark.parametrize("strip_height", [1, 2, 7])
def test_results_do_not_depend_on_the_height_of_strips(tiny, strip_height, monkeypatch):
    data = tiny.encode(synthetic_image(100, 90, seed=10), 60)
    expected = with_threads(tiny, 1).decode(data)
    strips = [(n, min(n + strip_height, 1 << 20)) for n in range(0, 1 << 12, strip_height)]
    monkeypatch.setattr(Threads, "strips", lambda self, count: [(a, min(b, count)) for a, b in strips if a < count])
    assert sha(with_threads(tiny, 2).decode(data)) == sha(expected)
    assert tiny.encode(synthetic_image(100, 90, seed=10), 60) == data


@pytest.mark.parametrize("tile", [64, 256])
def test_windows_equal_crops_of_the_whole_image(codec, tile):
    data, rng = codec.encode(synthetic_image(170, 230, seed=11), 70, tile=tile), np.random.default_rng(0)
    image = codec.decode(data)
    reduced = codec.decode(data, reduce=4)
    for _ in range(8):
        top, left = int(rng.integers(169)), int(rng.integers(229))
        height, width = int(rng.integers(1, 171 - top)), int(rng.integers(1, 231 - left))
        part = codec.decode(data, window=(top, left, height, width), check=True)
        np.testing.assert_array_equal(part, image[top : top + height, left : left + width])
        part = codec.decode(data, (top, left, height, width), reduce=4)
        bottom, right = -(-(top + height) // 4), -(-(left + width) // 4)
        np.testing.assert_array_equal(part, reduced[top // 4 : bottom, left // 4 : right])


def test_strips_and_batches_equal_whole_images(codec):
    data = codec.encode(synthetic_image(150, 100, seed=12), 40, tile=64)
    image = codec.decode(data)
    shape, strips = codec.decode_strips(data)
    assert shape == image.shape
    np.testing.assert_array_equal(np.concatenate(list(strips)), image)
    for decoded in codec.decode_batch([data, data]):
        np.testing.assert_array_equal(decoded, image)


def test_levels_round_to_pixels_without_a_filter(tiny):
    data = tiny.encode_unfiltered(synthetic_image(70, 90, seed=13), 70, tile=64)
    levels = tiny.decode_levels(data)
    assert levels.dtype == np.int16
    np.testing.assert_array_equal(np.clip((levels.astype(int) + 8192) >> 6, 0, 255), tiny.decode(data))


@pytest.mark.parametrize("tile", [64, 1024])
def test_crcs_of_pixels_are_checked_on_request(tiny, tile):
    data = tiny.encode(synthetic_image(70, 90, seed=14), 70, tile=tile)
    crcs = [tile.pixels for tile in parse(data).tiles]
    assert crcs == tiny.decoder.pixel_crcs(data)
    image = tiny.decode(data, check=True)
    for index in range(len(crcs)):
        wrong_crcs = [crc ^ (1 << 7) if n == index else crc for n, crc in enumerate(crcs)]
        damaged = with_pixel_crcs(data, wrong_crcs)
        np.testing.assert_array_equal(tiny.decode(damaged), image)
        for call in (tiny.verify, lambda data: tiny.decode(data, check=True)):
            with pytest.raises(FormatError, match=f"tile {index} is damaged: the CRC of its pixels"):
                call(damaged)
        tiny.symbol_crcs(damaged)


def test_windows_check_the_tiles_that_they_contain(tiny):
    data = tiny.encode(synthetic_image(128, 192, seed=15), 70, tile=64)
    crcs = [tile.pixels for tile in parse(data).tiles]
    damaged = with_pixel_crcs(data, [crcs[0] ^ 1, *crcs[1:]])
    with pytest.raises(FormatError, match="tile 0"):
        tiny.decode(damaged, window=(0, 0, 70, 64), check=True)
    tiny.decode(damaged, window=(1, 0, 70, 64), check=True)
    tiny.decode(damaged, window=(64, 64, 64, 128), check=True)


def test_pixels_of_another_synthesis_are_detected(tiny):
    """The CRC of pixels depends on the synthesis; the CRC of symbols does not."""
    bias = tiny.model.arrays["synthesis/fine/bias"]
    other_codec = Codec(reload(tiny.model, **{"synthesis/fine/bias": bias + np.int32(1 << 20)}), threads=1)
    data = tiny.encode(synthetic_image(40, 50, seed=16), 70)
    forged = with_right_crcs(data.replace(bytes.fromhex(tiny.model.id), bytes.fromhex(other_codec.model.id)))
    assert other_codec.symbol_crcs(forged) == tiny.symbol_crcs(data)
    with pytest.raises(FormatError, match="pixels"):
        other_codec.verify(forged)
