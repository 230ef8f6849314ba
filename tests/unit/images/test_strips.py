"""Test that reading and writing in strips equals reading and writing whole images."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from vaecodec.arguments import Limits
from vaecodec.container import insert_chunks
from vaecodec.errors import CodecError, LimitError
from vaecodec.files import compression
from vaecodec.images import PNG_SIGNATURE, strips, writing
from vaecodec.images.colours import split_alpha
from vaecodec.images.reading import read_image
from vaecodec.images.strips import open_strips, png_chunk
from vaecodec.images.writing import write_image, write_strips

HEIGHT, WIDTH = 150, 117


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 1)
    monkeypatch.setattr(strips, "STRIP_BYTES", 3 * WIDTH * 7)
    monkeypatch.setattr(writing, "PNG_BLOCK", 3 * WIDTH * 11)


def exif():
    tags = Image.Exif()
    tags[0x010F] = "Acme"
    return tags


def read_rows(large, height=50, overlap=13):
    """Read all rows in overlapping strips, as a codec requests them."""
    out = []
    for top in range(0, HEIGHT, height):
        first = max(0, top - overlap)
        strip = large[first : min(HEIGHT, top + height + overlap)]
        out.append(strip[top - first :][:height].copy())
    return np.concatenate(out)


KINDS = {
    "png": ("a.png", {}, strips.PngStripReader),
    "png with metadata": ("a.png", {"exif": exif()}, strips.PngStripReader),
    "ppm": ("a.ppm", {}, None),
    "bmp": ("a.bmp", {}, None),
    "tga": ("a.tga", {}, None),
    "tiff": ("a.tif", {}, None),
    "tiff, lzw": ("a.tif", {"compression": "tiff_lzw", "exif": exif()}, None),
    "jpeg": ("a.jpg", {"exif": exif()}, None),
    "progressive jpeg": ("a.jpg", {"progressive": True}, None),
    "webp": ("a.webp", {}, None),
}


def has_mode(kind, mode):
    """Whether Pillow saves this kind of file in a mode."""
    name, options, _ = KINDS[kind]
    try:
        Image.new("RGB", (8, 8)).convert(mode).save(io.BytesIO(), Image.registered_extensions()[name[1:]], **options)
    except (OSError, KeyError):
        return False
    return True


MODES = [(kind, mode) for kind in KINDS for mode in ("RGB", "P", "CMYK", "L", "1") if has_mode(kind, mode)]


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_strips_equal_the_whole_image(tmp_path, kind, mode):
    name, options, _ = KINDS[kind]
    path = tmp_path / name
    Image.fromarray(synthetic_image(HEIGHT, WIDTH)).convert(mode).save(path, **options)
    pixels, metadata = read_image(path)
    large = open_strips(path)
    if mode == "1" and kind in ("ppm", "bmp", "tga"):  # images of one bit per sample have no strips
        assert large is None
        return
    assert large is not None
    assert large[0].shape == (HEIGHT, WIDTH, 3) and large[1] == metadata and large[0].grey == (pixels.ndim == 2)
    np.testing.assert_array_equal(read_rows(large[0]), split_alpha(pixels)[0])
    with pytest.raises(StopIteration):
        large[0][HEIGHT : HEIGHT + 1]


def test_a_tiff_of_many_strips_and_a_bmp_from_the_bottom_are_read_row_by_row(tmp_path):
    """The rows are located in the file, so the image is not decoded as a whole."""
    pixels = synthetic_image(HEIGHT, WIDTH)
    for name in ("a.bmp", "a.tif", "a.ppm"):
        path = tmp_path / name
        Image.fromarray(pixels).save(path, **({"tiffinfo": {278: 9}} if name == "a.tif" else {}))
        with Image.open(path) as image:
            assert strips._has_raw_rows(image)
            piece = strips._raw_strip(path, 31, 57)
            assert piece.size == (WIDTH, 26)
            np.testing.assert_array_equal(np.asarray(piece.convert("RGB")), pixels[31:57])


def save(tmp_path, image, name="a.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_unsupported_images_have_no_strips(tmp_path, monkeypatch):
    rgb = Image.fromarray(synthetic_image(HEIGHT, WIDTH))
    turned = exif()
    turned[0x0112] = 6
    assert open_strips(save(tmp_path, rgb, exif=turned)) is None
    assert open_strips(save(tmp_path, rgb, "a.jpg", exif=turned)) is None
    assert open_strips(save(tmp_path, rgb.convert("RGBA"))) is None
    assert open_strips(save(tmp_path, Image.fromarray(np.zeros((9, 9), np.uint16)))) is None
    assert open_strips(save(tmp_path, Image.fromarray(np.zeros((9, 9), np.uint16)), "a.tif")) is None
    assert open_strips(save(tmp_path, rgb, "a.gif")) is None
    (tmp_path / "a.txt").write_text("not an image")
    assert open_strips(tmp_path / "a.txt") is None
    assert open_strips(tmp_path / "missing.png") is None
    monkeypatch.setattr(strips, "LARGE", HEIGHT * WIDTH + 1)
    assert open_strips(save(tmp_path, rgb)) is None


def interlaced(pixels):
    """A PNG with Adam7 whose passes are unfiltered."""
    height, width = pixels.shape[:2]
    data = b""
    for first_row, first_column, row_step, column_step in (
        (0, 0, 8, 8),
        (0, 4, 8, 8),
        (4, 0, 8, 4),
        (0, 2, 4, 4),
        (2, 0, 4, 2),
        (0, 1, 2, 2),
    ):
        data += b"".join(b"\0" + row.tobytes() for row in pixels[first_row::row_step, first_column::column_step])
    data += b"".join(b"\0" + row.tobytes() for row in pixels[1::2])
    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    parts = (
        png_chunk(b"IHDR", ihdr),
        png_chunk(b"IDAT", zlib.compress(data)),
        png_chunk(b"IEND", b""),
    )
    return PNG_SIGNATURE + b"".join(parts)


def test_interlaced_pngs_are_decoded_as_a_whole(tmp_path):
    pixels = synthetic_image(HEIGHT, WIDTH)
    (tmp_path / "a.png").write_bytes(interlaced(pixels))
    with open(tmp_path / "a.png", "rb") as file:
        assert not strips.PngStripReader.supports(strips.read_png_layout(file))
    np.testing.assert_array_equal(read_rows(open_strips(tmp_path / "a.png")[0]), pixels)


def test_every_filter_of_png_is_read(tmp_path):
    """The rows have each filter in turn (PNG 3rd edition, section 9)."""
    pixels = synthetic_image(HEIGHT, WIDTH)
    flat = pixels.reshape(HEIGHT, -1).astype(int)
    left_samples, samples_above = np.pad(flat, ((0, 0), (3, 0)))[:, :-3], np.pad(flat, ((1, 0), (0, 0)))[:-1]
    corner = np.pad(flat, ((1, 0), (3, 0)))[:-1, :-3]
    estimate = left_samples + samples_above - corner
    nearest = np.stack([abs(estimate - left_samples), abs(estimate - samples_above), abs(estimate - corner)]).argmin(0)
    predictions = [
        0 * flat,
        left_samples,
        samples_above,
        (left_samples + samples_above) // 2,
        np.choose(nearest, [left_samples, samples_above, corner]),
    ]
    filtered_rows = b"".join(
        bytes([n % 5]) + ((flat[n] - predictions[n % 5][n]) % 256).astype(np.uint8).tobytes() for n in range(HEIGHT)
    )
    ihdr = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    data = zlib.compress(filtered_rows)
    parts = [
        png_chunk(b"IHDR", ihdr),
        *(png_chunk(b"IDAT", data[n : n + 99]) for n in range(0, len(data), 99)),
    ]
    (tmp_path / "a.png").write_bytes(PNG_SIGNATURE + b"".join(parts) + png_chunk(b"IEND", b""))
    np.testing.assert_array_equal(read_rows(open_strips(tmp_path / "a.png")[0]), pixels)


def test_errors_of_damaged_files_name_the_file(tmp_path):
    data = save(tmp_path, Image.fromarray(synthetic_image(HEIGHT, WIDTH))).read_bytes()
    position = data.index(b"IDAT")
    for damaged in (
        data[: position + 900] + b"\xff" + data[position + 901 :],
        data[: position + 4] + zlib.compress(bytes(50)) + data[position + 4 :],
    ):
        (tmp_path / "b.png").write_bytes(damaged)
        with pytest.raises(CodecError, match=r"b\.png"):
            large = open_strips(tmp_path / "b.png")
            read_rows(large[0]) if large else read_image(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(data[:-500])
    assert open_strips(tmp_path / "c.png") is None  # read_image raises the error
    path = save(tmp_path, Image.fromarray(synthetic_image(HEIGHT, WIDTH)), "d.ppm")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CodecError, match=r"d\.ppm"):
        read_rows(open_strips(path)[0])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("format", ["PNG", "PPM", "BMP", "TIFF"])
def test_written_strips_equal_written_images(format, channels):
    pixels = synthetic_image(HEIGHT, WIDTH)
    if channels == 1:
        pixels = pixels[..., 0].copy()
    elif channels == 4 and format in ("PNG", "TIFF"):
        pixels = np.dstack([pixels, np.full((HEIGHT, WIDTH), 77, np.uint8)])
    metadata = {"exif": exif().tobytes()[6:], "xmp": b"<x/>"} if format == "PNG" else {}
    whole_file, file_of_strips = io.BytesIO(), io.BytesIO()
    write_image(pixels, whole_file, metadata, format)
    write_strips(pixels.shape, iter([pixels[:60], pixels[60:61], pixels[61:]]), file_of_strips, metadata, format)
    samples, read_metadata = read_image(file_of_strips.getvalue())
    np.testing.assert_array_equal(samples, pixels)
    assert read_metadata == read_image(whole_file.getvalue())[1] and (read_metadata or not metadata)
    assert abs(len(file_of_strips.getvalue()) - len(whole_file.getvalue())) < 0.02 * len(whole_file.getvalue()) + 500


@pytest.mark.parametrize("name", ["a.png", "a.ppm", "a.jpg", "grey.png", "grey.ppm"])
def test_compression_in_strips_gives_the_same_files(tmp_path, monkeypatch, name):
    pixels = synthetic_image(HEIGHT, WIDTH)
    source = save(tmp_path, Image.fromarray(pixels[..., 0] if "grey" in name else pixels), name)
    reports = []

    def convert(tag):
        coded, back = tmp_path / f"{tag}.vae", tmp_path / f"{tag}.png"
        vaecodec.compress_file(source, coded, progress=lambda *numbers: reports.append(numbers))
        vaecodec.decompress_file(coded, back, progress=lambda *numbers: reports.append(numbers))
        return coded.read_bytes(), read_image(back)[0]

    in_strips = convert("strips")
    assert vaecodec.info(in_strips[0])["channels"] == (1 if "grey" in name else 3)
    monkeypatch.setattr(strips, "LARGE", 1 << 30)
    expected = convert("whole")
    assert in_strips[0] == expected[0]
    np.testing.assert_array_equal(in_strips[1], expected[1])
    assert reports == [(0, 1), (1, 1)] * 4


def tiled(pixels, grey=False):
    """Encode an image with several rows of tiles, which is decoded in strips."""
    return insert_chunks(vaecodec.load().encode(pixels, tile=64), [(b"grey", b"")] * grey)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".ppm", ".tif"])
def test_output_in_strips_is_verified_before_the_source_is_removed(tmp_path, monkeypatch, suffix, grey):
    source, back = tmp_path / "a.vae", tmp_path / f"a{suffix}"
    source.write_bytes(tiled(synthetic_image(HEIGHT, WIDTH), grey))
    expected = vaecodec.decode(source.read_bytes())
    report = vaecodec.decompress_file(source, back)
    assert report["image_bytes"] == back.stat().st_size
    np.testing.assert_array_equal(read_image(back)[0], expected)
    write_atomic = compression.write_atomic

    def damaging(path, *arguments):
        write_atomic(path, *arguments)
        data = bytearray(back.read_bytes())
        data[-40] ^= 1
        back.write_bytes(data)

    with monkeypatch.context() as patch, pytest.raises(CodecError, match="not removed"):
        patch.setattr(compression, "write_atomic", damaging)
        vaecodec.decompress_file(source, back, overwrite=True, remove=True)
    assert source.exists()
    vaecodec.decompress_file(source, back, overwrite=True, remove=True)
    assert not source.exists()
    np.testing.assert_array_equal(read_image(back)[0], expected)


def test_bytes_after_large_images_are_reported(tmp_path):
    for name in ("a.jpg", "a.png"):
        path = save(tmp_path, Image.fromarray(synthetic_image(HEIGHT, WIDTH)), name)
        path.write_bytes(path.read_bytes() + b"a film" * 9)
        with pytest.warns(UserWarning, match="54 bytes after the end"), pytest.raises(CodecError, match="not removed"):
            vaecodec.compress_file(path, tmp_path / f"{name}.vae", remove=True)
        assert path.exists()


def test_limits_apply_to_files(tmp_path):
    source = save(tmp_path, Image.fromarray(synthetic_image(HEIGHT, WIDTH)))
    limits = Limits(pixels=HEIGHT * WIDTH - 2)
    with pytest.raises(LimitError):
        vaecodec.compress_file(source, tmp_path / "a.vae", limits=limits)
    before = Image.MAX_IMAGE_PIXELS
    vaecodec.compress_file(source, tmp_path / "a.vae", limits=None)
    assert before == Image.MAX_IMAGE_PIXELS
    with pytest.raises(LimitError):
        vaecodec.decompress_file(tmp_path / "a.vae", tmp_path / "b.png", limits=limits)
    assert not (tmp_path / "b.png").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vaecodec.decompress_file(tmp_path / "a.vae", tmp_path / "b.png", limits=None, window=(0, 0, 9, 9))


def test_a_damaged_file_leaves_no_output(tmp_path):
    """The first strips are written before the damage is detected."""
    data = bytearray(vaecodec.load().encode(synthetic_image(HEIGHT, WIDTH), tile=64))
    from vaecodec.container import image_file

    parsed = image_file.parse(bytes(data))
    payloads = [bytes(data[tile.offset : tile.offset + tile.length]) for tile in parsed.tiles]
    pairs = enumerate(zip(payloads, parsed.tiles, strict=True))
    crcs = [(payload, tile.crc ^ (n == 5), tile.pixels) for n, (payload, tile) in pairs]
    (tmp_path / "a.vae").write_bytes(image_file.pack(parsed.header, crcs))
    with pytest.raises(CodecError, match="tile 5"):
        vaecodec.decompress_file(tmp_path / "a.vae", tmp_path / "a.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.vae"]
