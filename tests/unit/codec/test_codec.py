"""Test coding of images: sizes, windows, tile borders, damage, and exact decoding on all devices."""

import os
import subprocess
import sys

import numpy as np
import pytest

from reference import reference_decoder
from support.images import synthetic_image
from support.paths import GOLDEN
from support.symbols import decoding_inverts_encoding
from vaecodec.arguments import Limits
from vaecodec.codec import Codec, encoder
from vaecodec.codec.tiles import join_tiles
from vaecodec.container.image_file import parse
from vaecodec.errors import CodecError, FormatError, LimitError, ModelError
from vaecodec.transforms import Box


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("shape", [(64, 48), (40, 48), (40, 50), (130, 64), (130, 70)])
def test_decoded_arrays_are_contiguous_and_writeable(tiny, shape):
    image = tiny.decode(tiny.encode(synthetic_image(*shape), tile=64))
    assert image.shape == (*shape, 3) and image.flags.c_contiguous and image.flags.writeable


def test_full_width_tiles_are_copied_only_if_necessary():
    contiguous, strided = np.zeros((32, 48, 3), np.uint8), np.zeros((16, 50, 3), np.uint8)[:, :48]
    read_only = np.zeros((16, 48, 3), np.uint8)
    read_only.flags.writeable = False
    squares = [(Box(0, 0, 32, 48), contiguous), (Box(32, 0, 48, 48), strided), (Box(48, 0, 64, 48), read_only)]
    uncopied, *copies = join_tiles(Box(0, 0, 64, 48), squares)
    assert uncopied is contiguous
    assert all(strip.flags.c_contiguous and strip.flags.writeable and strip.shape == (16, 48, 3) for strip in copies)


@pytest.mark.parametrize("shape", [(1, 1), (1, 70), (70, 1), (7, 5), (16, 16), (17, 33), (65, 64), (200, 129)])
@pytest.mark.parametrize("quality", [1, 50, 100])
def test_images_of_any_size_round_trip(tiny, shape, quality):
    pixels = synthetic_image(*shape)
    data = tiny.encode(pixels, quality)
    decoded = tiny.decode(data)
    assert decoded.shape == pixels.shape and decoded.dtype == np.uint8
    if min(shape) >= 16 and quality == 50:
        assert psnr(decoded, pixels) > 24


@pytest.mark.parametrize("cells", [(1, 1), (1, 9), (5, 4), (6, 7)])
@pytest.mark.parametrize("quality_index", [0, 63, 64, 500, 896])
def test_decoding_inverts_encoding_for_any_symbols(tiny, cells, quality_index):
    decoding_inverts_encoding(tiny.model, cells, quality_index, np.random.default_rng([*cells, quality_index]))


def test_tile_borders_are_invisible(tiny):
    """Tiles are coded independently, and the image is continuous across their borders."""
    pixels = synthetic_image(256, 256)
    untiled, tiled = (tiny.decode(tiny.encode(pixels, 90, tile=tile)) for tile in (256, 128))
    assert abs(psnr(untiled, pixels) - psnr(tiled, pixels)) < 0.1
    error = np.abs(tiled.astype(int) - pixels).mean(2)
    seam, elsewhere = error[:, 126:130].mean(), error[:, 32:96].mean()
    assert seam < 1.5 * elsewhere + 0.5


def test_windows_equal_crops_of_the_whole_image(tiny):
    data = tiny.encode(synthetic_image(200, 330), 60, tile=64)
    image = tiny.decode(data)
    rng = np.random.default_rng(1)
    for _ in range(12):
        top, left = int(rng.integers(199)), int(rng.integers(329))
        height, width = int(rng.integers(1, 200 - top + 1)), int(rng.integers(1, 330 - left + 1))
        part = tiny.decode(data, window=(top, left, height, width))
        np.testing.assert_array_equal(part, image[top : top + height, left : left + width])


@pytest.mark.parametrize("effort", [1, 2, 3])
def test_keeping_values_for_checksums_does_not_change_files(tiny, monkeypatch, effort):
    pixels = synthetic_image(150, 200)
    data = tiny.encode(pixels, 60, tile=64, effort=effort)
    monkeypatch.setattr(encoder, "KEPT_SAMPLES", 0)
    assert tiny.encode(pixels, 60, tile=64, effort=effort) == data
    tiny.decode(data, check=True)


def test_a_window_decodes_only_the_tiles_it_needs(tiny):
    pixels = synthetic_image(256, 256)
    data = bytearray(tiny.encode(pixels, 60, tile=64))
    last_tile = parse(bytes(data)).tiles[15]
    data[last_tile.offset] ^= 1
    assert tiny.decode(bytes(data), window=(0, 0, 64, 64)).shape == (64, 64, 3)
    with pytest.raises(FormatError):
        tiny.decode(bytes(data), window=(192, 192, 64, 64))
    for window in ((0, 0, 257, 1), (-1, 0, 5, 5), (0, 0, 0, 5)):
        with pytest.raises(ValueError, match="window"):
            tiny.decode(bytes(data), window=window)


@pytest.mark.parametrize(("quality", "least"), [(20, 33), (80, 42)])
def test_previews_resemble_the_box_filtered_image(small, quality, least):
    """Previews skip the network, so they are compared by PSNR with the box-filtered full image."""
    from PIL import Image

    photo = np.asarray(Image.open(GOLDEN.parent.parent / "docs" / "examples" / "parrots.png").convert("RGB"))[
        :250, :380
    ]
    data = small.encode(photo, quality)
    image = small.decode(data)
    previous = 0.0
    for reduce in (2, 4, 8, 16):
        preview = small.decode(data, reduce=reduce)
        assert preview.shape == (-(-250 // reduce), -(-380 // reduce), 3)
        height, width = 250 // reduce, 380 // reduce
        boxes = image[: height * reduce, : width * reduce].reshape(height, reduce, width, reduce, 3).mean((1, 3))
        similarity = psnr(boxes, preview[:height, :width])
        assert similarity > max(least, previous - 1)
        previous = similarity
        part = small.decode(data, (37, 50, 101, 203), reduce)
        top, bottom, left, right = 37 // reduce, -(-138 // reduce), 50 // reduce, -(-253 // reduce)
        np.testing.assert_array_equal(part, preview[top:bottom, left:right])
    with pytest.raises(ValueError, match="reduce"):
        small.decode(data, reduce=3)


def test_previews_of_damaged_files_are_refused(tiny):
    data = bytearray(tiny.encode(synthetic_image(64, 64), 60))
    data[parse(bytes(data)).tiles[0].offset] ^= 1
    with pytest.raises(FormatError, match="tile 0"):
        tiny.decode(bytes(data), (0, 0, 64, 64), reduce=16)


def test_file_size_is_close_to_the_information_content(tiny):
    pixels = synthetic_image(256, 320)
    for quality in (5, 50, 95):
        size, bits = len(tiny.encode(pixels, quality, tune="psnr")), tiny.information(pixels, quality)
        assert bits / 8 <= size <= 1.01 * bits / 8 + 64


def test_size_and_fidelity_grow_with_quality(tiny):
    pixels = synthetic_image(256, 256, seed=3)
    files = [tiny.encode(pixels, quality, tune="psnr") for quality in (1, 25, 50, 75, 100)]
    sizes, fidelity = [len(data) for data in files], [psnr(tiny.decode(data), pixels) for data in files]
    assert sizes == sorted(sizes) and len(set(sizes)) == 5
    assert fidelity == sorted(fidelity)


def test_damage_of_any_payload_byte_is_detected(tiny):
    """Damage is detected or harmless: the scale offset of a part without symbols has no effect."""
    data = tiny.encode(synthetic_image(48, 64), 70)
    pixels, harmless = tiny.decode(data), 0
    start = parse(data).tiles[0].offset
    for position in range(start, len(data)):
        for mask in (1, 128):
            damaged = bytearray(data)
            damaged[position] ^= mask
            # A window skips the CRC of the chunk, so the checksums of tiles must detect the damage.
            for window in (None, (0, 0, 48, 64)):
                if window and position >= len(data) - 4:
                    continue
                try:
                    decoded = tiny.decode(bytes(damaged), window)
                except FormatError:
                    continue
                assert window and np.array_equal(decoded, pixels)
                harmless += 1
    assert harmless <= 4


def test_limits_are_checked_before_anything_is_allocated(tiny):
    data = tiny.encode(synthetic_image(64, 64), 10)
    with pytest.raises(LimitError):
        tiny.decode(data, limits=Limits(pixels=64 * 64 - 1))
    with pytest.raises(LimitError, match="side"):
        tiny.verify(data, limits=Limits(side=63))
    assert tiny.decode(data, (0, 0, 63, 63), limits=Limits(side=63)).shape == (63, 63, 3)
    with pytest.warns(RuntimeWarning, match="half"):
        assert tiny.decode(data, limits=Limits(pixels=64 * 64)).shape == (64, 64, 3)


def test_files_of_another_model_are_refused_with_its_id(tiny):
    data = bytearray(tiny.encode(synthetic_image(16, 16)))
    from vaecodec.container.image_file import Header, pack

    parsed = parse(bytes(data))
    foreign = pack(Header("00" * 16, *parsed.header[1:5]), [(b"", 0, 0)])
    with pytest.raises(ModelError, match="00000000000000000000000000000000"):
        tiny.decode(foreign)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)],
)
def test_invalid_pixel_arrays_are_refused(tiny, pixels):
    with pytest.raises(CodecError, match="expected uint8"):
        tiny.encode(pixels)


def test_threads_share_a_codec(tiny):
    from concurrent.futures import ThreadPoolExecutor

    files = [tiny.encode(synthetic_image(48, 48 + 16 * n, n), 60) for n in range(6)]
    expected = [tiny.decode(data) for data in files]
    with ThreadPoolExecutor(4) as pool:
        decoded = list(pool.map(tiny.decode, files * 3))
    assert all(np.array_equal(a, b) for a, b in zip(expected * 3, decoded, strict=True))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_children_of_a_process_that_has_coded_decode():
    """The threads of the parent do not exist in the child, so the child must not wait for them."""
    command = [sys.executable, "-c", FORK, str(GOLDEN)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout == "1 1 1\n"


FORK = """
import os, sys
import vaecodec
codec = vaecodec.load(sys.argv[1] + "/tiny.vcm")
data = open(sys.argv[1] + "/odd.vae", "rb").read()
expected = codec.decode(data)
results = []
for _ in range(2):
    out, into = os.pipe()
    if os.fork() == 0:
        os.write(into, b"%d" % (codec.decode(data) == expected).all())
        os._exit(0)
    results.append(os.read(out, 9).decode())
results.append(str(int((codec.decode(data) == expected).all())))
print(*results)
"""


# ---- exactness: all decoders return the same symbols


def golden_files():
    return sorted(GOLDEN.glob("*.vae"))


def test_all_golden_files_exist():
    names = (GOLDEN / "LIST").read_text().split()
    assert len(names) >= 8
    assert [path.name for path in golden_files()] == sorted(names)
    assert sorted(p.with_suffix(".vae").name for p in GOLDEN.glob("*.npy")) == sorted(names)


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: path.stem)
def test_golden_files_decode_to_the_stored_pixels(tiny, path):
    data = path.read_bytes()
    tiny.verify(data)
    np.testing.assert_array_equal(tiny.decode(data), np.load(path.with_suffix(".npy")))


@pytest.mark.parametrize("path", golden_files(), ids=lambda path: path.stem)
def test_reference_decoder_agrees(tiny, path):
    model = reference_decoder.read_model(str(GOLDEN / "tiny.vcm"))
    data = path.read_bytes()
    assert reference_decoder.symbol_crcs(data, model) == tiny.symbol_crcs(data)
    np.testing.assert_array_equal(reference_decoder.decode(data, model), tiny.decode(data))


DECODE_ALL = """
import glob, sys
import vaecodec
codec = vaecodec.load(sys.argv[1] + "/tiny.vcm")
for path in sorted(glob.glob(sys.argv[1] + "/*.vae")):
    data = open(path, "rb").read()
    print(codec.symbol_crcs(data), codec.decoder.pixel_crcs(data))
"""


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_pixels_do_not_depend_on_threads(tiny, threads):
    number = str(threads)
    env = dict(os.environ, OMP_NUM_THREADS=number, OPENBLAS_NUM_THREADS=number, VAECODEC_THREADS=number)
    process = subprocess.run(
        [sys.executable, "-c", DECODE_ALL, str(GOLDEN)], env=env, capture_output=True, text=True, check=True
    )
    expected = []
    for path in golden_files():
        tiles = parse(path.read_bytes()).tiles
        expected.append(f"{[tile.crc for tile in tiles]} {[tile.pixels for tile in tiles]}\n")
    assert process.stdout == "".join(expected)


def test_tensorflow_gives_the_same_bytes_and_pixels(tiny):
    pytest.importorskip("vaecodec.transforms.tensorflow")
    tensorflow = Codec(tiny.model, device="tensorflow")
    pixels = synthetic_image(100, 150)
    for quality in (20, 80):
        data = tiny.encode(pixels, quality)
        assert tensorflow.encode(pixels, quality) == data
        tensorflow.verify(data)
        np.testing.assert_array_equal(tensorflow.decode(data), tiny.decode(data))


def test_tensorflow_batches_tiles_without_changing_results(tiny, monkeypatch):
    pytest.importorskip("vaecodec.transforms.tensorflow")
    tensorflow, pixels, sizes = Codec(tiny.model, device="tensorflow"), synthetic_image(330, 500), []
    for name in ("analysis", "pixels"):
        transform = getattr(tensorflow.transforms, name)

        def counted(values, *arguments, transform=transform):
            sizes.append(len(values))
            return transform(values, *arguments)

        monkeypatch.setattr(tensorflow.transforms, name, counted)
    data = tensorflow.encode_unfiltered(pixels, 60, tile=64)
    decoded = tensorflow.decode(data)
    assert 1 < max(sizes) <= tensorflow.transforms.batch
    monkeypatch.setattr(tensorflow.transforms, "batch", 1)
    assert tensorflow.encode_unfiltered(pixels, 60, tile=64) == data and np.array_equal(
        tensorflow.decode(data), decoded
    )
    assert np.array_equal(tiny.decode(data), decoded)
