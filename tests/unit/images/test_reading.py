"""Test reading and writing of images: kinds, orientation, metadata, and errors in one line."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from support.images import synthetic_image
from vaecodec.errors import CodecError, LimitError
from vaecodec.images.reading import read_image, read_rgb
from vaecodec.images.writing import encode_png16, format_of, write_image

imagecodecs = pytest.importorskip("imagecodecs")
ORIENTATION, MAKE, GPS = 0x0112, 0x010F, 0x8825
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">a photograph</x:xmpmeta>'
DPI = struct.pack("<II", 11811, 11811)  # 300 dots an inch
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encode_with_pillow(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def exif_bytes(**orientation):
    exif = Image.Exif()
    exif[MAKE] = "Acme"
    exif[GPS] = {1: "N", 2: (1.0, 2.0, 3.0)}
    if orientation:
        exif[ORIENTATION] = orientation["orientation"]
    return exif.tobytes()


def profile(space, tags):
    """An ICC profile of version 2 (ICC.1:2001-04) with Lab as its connection space for CMYK, XYZ for grey."""
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        table += struct.pack(">4sII", name, start + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02200000, b"prtr", space, tags and PCS[space])
    header = header.ljust(36, b"\0") + b"acsp"
    header = header.ljust(68, b"\0") + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + table + body


PCS = {b"CMYK": b"Lab ", b"GRAY": b"XYZ "}


def cmyk_profile(lightness, a, b):
    """A profile that maps every ink without black to a single Lab colour: 8-bit table of 2 ** 4 points."""
    ramp = bytes(range(256))
    point, black = bytes([round(lightness * 2.55), a + 128, b + 128]), bytes([0, 128, 128])
    matrix = struct.pack(">9I", *(0x10000 * (n % 4 == 0) for n in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + (point + black) * 8 + ramp * 3
    return profile(b"CMYK", {b"A2B0": table})


def grey_profile(gamma):
    white = b"XYZ " + bytes(4) + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    return profile(b"GRAY", {b"wtpt": white, b"kTRC": curve})


KINDS = {"1": "L", "L": "L", "LA": "LA", "PA": "RGBA", "RGBA": "RGBA"}  # other modes become RGB


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_images_of_any_mode_become_grey_or_rgb(mode):
    colour = Image.fromarray(synthetic_image(24, 40))
    image = colour.convert("P").convert("PA") if mode == "PA" else colour.convert(mode)
    pixels, metadata = read_image(image)
    assert pixels.dtype == np.uint8 and metadata == {}
    np.testing.assert_array_equal(pixels, np.asarray(image.convert(KINDS.get(mode, "RGB"))))
    assert len(np.unique(pixels)) > 1


def test_paths_bytes_arrays_and_pillow_images_are_read_alike(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode_with_pillow(Image.fromarray(synthetic_image(24, 40))))
    for source in (path, str(path), path.read_bytes(), synthetic_image(24, 40), Image.open(path)):
        np.testing.assert_array_equal(read_image(source)[0], synthetic_image(24, 40))


def test_other_types_raise_a_type_error():
    with pytest.raises(TypeError, match=r"image is 7 \(int\)"):
        read_image(7)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16, ">u2"])
def test_arrays_keep_their_shape_and_depth(depth):
    rgb = synthetic_image(24, 40).astype(depth) * (1 if depth is np.uint8 else 257)
    for array in (rgb, rgb[..., 0], rgb[..., :2], np.dstack([rgb, rgb[..., 0]])):
        read = read_image(array)[0]
        np.testing.assert_array_equal(read, array)
        assert read.dtype.isnative
    np.testing.assert_array_equal(read_image(rgb[..., :1])[0], rgb[..., 0])


def test_benchmarks_read_opaque_images_of_8_bits_only():
    grey = Image.fromarray(synthetic_image(24, 40)[..., 0])
    np.testing.assert_array_equal(read_rgb(encode_with_pillow(grey)), np.dstack([synthetic_image(24, 40)[..., 0]] * 3))
    np.testing.assert_array_equal(
        read_rgb(encode_with_pillow(grey.convert("RGBA")))[..., 1], synthetic_image(24, 40)[..., 0]
    )
    with pytest.raises(CodecError, match="flatten"):
        read_rgb(encode_with_pillow(Image.new("RGBA", (4, 4), (1, 2, 3, 254))))
    with pytest.raises(CodecError, match="more than 8 bits"):
        read_rgb(encode_with_pillow(Image.fromarray(np.zeros((4, 4), np.uint16))))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.int16), "int16"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
    ],
)
def test_arrays_that_are_not_images_are_refused(array, message):
    with pytest.raises(CodecError, match=message):
        read_image(array, "plane")


def transparent_images():
    alpha = np.full((24, 40), 255, np.uint8)
    alpha[:, :9], alpha[7, 30] = 0, 77
    rgb = synthetic_image(24, 40)
    rgba, grey = Image.fromarray(np.dstack([rgb, alpha])), Image.fromarray(rgb[..., 0])
    grey_alpha = Image.fromarray(np.dstack([rgb[..., 0], alpha]))
    palette = Image.fromarray(rgb).quantize(8)
    entries = bytes([255, 255, 0, 255, 99, 255, 255, 255])
    colours = np.asarray(palette.convert("RGB"))
    index = np.asarray(palette)
    yield "RGBA", encode_with_pillow(rgba), np.asarray(rgba)
    yield "LA", encode_with_pillow(grey_alpha), np.asarray(grey_alpha)
    yield (
        "palette",
        encode_with_pillow(palette, transparency=entries),
        np.dstack([colours, np.frombuffer(entries, "u1")[index]]),
    )
    yield "GIF", encode_with_pillow(palette, "GIF", transparency=3), np.dstack([colours, np.where(index == 3, 0, 255)])
    grey_palette = Image.fromarray(rgb[..., 0] & 7, "P")
    grey_palette.putpalette(np.repeat(np.arange(0, 80, 10), 3).astype(np.uint8).tobytes())
    yield (
        "grey palette",
        encode_with_pillow(grey_palette, transparency=entries),
        np.stack([np.asarray(grey_palette) * 10, np.frombuffer(entries, "u1")[np.asarray(grey_palette)]], -1),
    )
    key_value = int(rgb[5, 5, 0])
    keyed_samples = np.dstack([rgb[..., 0], np.where(rgb[..., 0] == key_value, 0, 255)])
    yield "grey with a colour key", encode_with_pillow(grey, transparency=key_value), keyed_samples
    colour = tuple(map(int, rgb[5, 5]))
    keyed_samples = np.dstack([rgb, np.where((rgb == colour).all(-1), 0, 255)])
    yield "RGB with a colour key", encode_with_pillow(Image.fromarray(rgb), transparency=colour), keyed_samples
    yield "WebP", encode_with_pillow(rgba, "WEBP", lossless=True, exact=True), np.asarray(rgba)
    yield "TIFF", encode_with_pillow(rgba, "TIFF"), np.asarray(rgba)


@pytest.mark.parametrize(("kind", "data", "expected"), list(transparent_images()))
def test_transparency_becomes_straight_alpha(kind, data, expected):
    samples = read_image(data)[0]
    assert samples.shape == expected.shape and samples.dtype == np.uint8
    np.testing.assert_array_equal(samples, expected)


@pytest.mark.parametrize(("bits", "spread"), [(1, 255), (2, 85), (4, 17)])
def test_colour_keys_of_few_bits_are_scaled_like_samples(bits, spread):
    header = struct.pack(">IIBBBBB", 8 // bits, 1, bits, 0, 0, 0, 0)
    line = b"\0" + bytes([0b10010011])
    data = png(IHDR=header, tRNS=struct.pack(">H", 1), IDAT=zlib.compress(line), IEND=b"")
    values = np.unpackbits(np.frombuffer(line[1:], np.uint8)).reshape(-1, bits) @ (1 << np.arange(bits)[::-1])
    expected = np.stack([values * spread, np.where(values == 1, 0, 255)], -1)[None]
    np.testing.assert_array_equal(read_image(data)[0], expected if 1 in values else expected[..., 0])


def test_unused_transparency_gives_no_alpha():
    grey = np.full((3, 3), 9, np.uint8)
    np.testing.assert_array_equal(read_image(encode_with_pillow(Image.fromarray(grey), transparency=200))[0], grey)
    palette = Image.fromarray(synthetic_image(24, 40)).quantize(8)
    assert read_image(encode_with_pillow(palette, transparency=bytes([255] * 8)))[0].shape == (24, 40, 3)


def png(**chunks):
    """Build a PNG of these chunks."""
    out = b"\x89PNG\r\n\x1a\n"
    for tag, data in chunks.items():
        tag = tag.encode()
        out += struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))
    return out


def random_16_bit(channels, maximum=65535):
    samples = np.random.default_rng(channels).integers(0, maximum + 1, (9, 13, channels)).astype(np.uint16)
    return samples[..., 0] if channels == 1 else samples


def images_of_16_bits():
    for channels in (1, 2, 3, 4):
        samples = random_16_bit(channels)
        yield f"PNG of {channels}", imagecodecs.png_encode(samples), samples
        yield f"PNG of {channels}, our own", encode_png16(samples), samples
    for channels in (1, 3, 4):
        for compression in ("none", "deflate", "lzw"):
            samples = random_16_bit(channels)
            yield (
                f"TIFF of {channels}, {compression}",
                imagecodecs.tiff_encode(samples, compression=compression),
                samples,
            )
    big_endian = Image.frombytes("I;16B", (13, 9), random_16_bit(1).astype(">u2").tobytes())
    yield "big-endian TIFF", encode_with_pillow(big_endian, "TIFF"), random_16_bit(1)
    for channels, kind in ((1, b"P5"), (3, b"P6")):
        for maximum in (65535, 4095, 300):
            samples = random_16_bit(channels, maximum)
            data = kind + b" 13 9 %d\n" % maximum + samples.astype(">u2").tobytes()
            yield f"PPM of {channels} to {maximum}", data, samples / maximum * 65535


@pytest.mark.parametrize(("kind", "data", "expected"), list(images_of_16_bits()))
def test_16_bit_samples_are_read_exactly(kind, data, expected, tmp_path):
    (tmp_path / "a").write_bytes(data)
    with Image.open(tmp_path / "a") as image:
        for source in (data, image):
            samples = read_image(source)[0]
            assert samples.dtype == np.uint16 and samples.shape == expected.shape
            assert np.abs(samples - expected.astype(float)).max() <= 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_a_deep_colour_key_becomes_alpha(channels):
    samples = random_16_bit(channels)
    key = samples[4, 6].reshape(-1)
    chunks = encode_png16(samples)
    position = chunks.index(b"IDAT") - 4
    body = b"tRNS" + key.astype(">u2").tobytes()
    data = (
        chunks[:position]
        + struct.pack(">I", len(body) - 4)
        + body
        + struct.pack(">I", zlib.crc32(body))
        + chunks[position:]
    )
    read = read_image(data)[0]
    np.testing.assert_array_equal(read[..., :-1].squeeze(), samples)
    assert read[4, 6, -1] == 0 and (read[..., -1] == 65535).sum() >= 9 * 13 - 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_image_is_turned_upright(orientation):
    samples = random_16_bit(3)
    read, metadata = read_image(encode_png16(samples, {"exif": exif_bytes(orientation=orientation), "dpi": (254, 508)}))
    np.testing.assert_array_equal(read, UPRIGHT[orientation](samples))
    assert struct.unpack("<II", metadata["dpi"]) == ((10000, 20000) if orientation < 5 else (20000, 10000))


def unreadable_deep_images():
    ramp = np.arange(64).reshape(8, 8)
    yield "int32 TIFF", encode_with_pillow(Image.fromarray(ramp.astype(np.int32)), "TIFF")
    yield "float TIFF", encode_with_pillow(Image.fromarray(ramp.astype(np.float32)), "TIFF")
    yield "16-bit CMYK TIFF", imagecodecs.tiff_encode(random_16_bit(4), photometric="separated")
    yield "10-bit AVIF", imagecodecs.avif_encode(random_16_bit(3, 1023), bitspersample=10)
    yield "12-bit AVIF", imagecodecs.avif_encode(random_16_bit(3, 4095), bitspersample=12)
    yield "16-bit colour JPEG 2000", imagecodecs.jpeg2k_encode(random_16_bit(3), level=0)


@pytest.mark.parametrize(("kind", "data"), list(unreadable_deep_images()))
def test_unsupported_depths_are_refused(kind, data):
    with pytest.raises(CodecError, match="more than 8 bits"):
        read_image(data)


def test_8_bit_files_are_not_refused_as_deeper():
    for data in (imagecodecs.avif_encode(synthetic_image(24, 40)), imagecodecs.jpeg2k_encode(synthetic_image(24, 40))):
        assert read_image(data)[0].shape == (24, 40, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_16_bit_samples_are_written_exactly_with_metadata(channels, tmp_path):
    metadata = {"icc": SRGB, "exif": exif_bytes().removeprefix(b"Exif\0\0"), "xmp": XMP, "dpi": DPI}
    samples = random_16_bit(channels)
    for destination in (tmp_path / "a.png", io.BytesIO()):
        write_image(samples, destination, metadata)
        data = destination.read_bytes() if destination == tmp_path / "a.png" else destination.getvalue()
        read, read_metadata = read_image(data)
        np.testing.assert_array_equal(read, samples)
        np.testing.assert_array_equal(imagecodecs.png_decode(data), samples)
        assert read_metadata == metadata
    if channels == 1:
        for suffix in (".tif", ".pgm"):
            write_image(samples, tmp_path / f"a{suffix}")
            np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}")[0], samples)
    for suffix in (".jpg", ".webp", ".avif", ".bmp") + ((".tif", ".ppm") if channels > 1 else ()):
        with pytest.raises(CodecError, match="cannot hold"):
            write_image(samples, tmp_path / f"b{suffix}")
        assert not (tmp_path / f"b{suffix}").exists()


def test_transparency_is_written_or_refused(tmp_path):
    rgba = np.dstack([synthetic_image(24, 40), synthetic_image(24, 40, 1)[..., 0]])
    for samples in (rgba, rgba[..., 2:]):
        for suffix in (".png", ".webp", ".tif"):
            write_image(samples, tmp_path / f"a{suffix}")
            read = read_image(tmp_path / f"a{suffix}")[0]
            np.testing.assert_array_equal(read[..., -1], samples[..., -1])
            np.testing.assert_array_equal(read[..., 0][samples[..., -1] > 0], samples[..., 0][samples[..., -1] > 0])
        for suffix in (".jpg", ".ppm", ".bmp", ".gif"):
            with pytest.raises(CodecError, match="cannot hold transparency"):
                write_image(samples, tmp_path / f"b{suffix}")
    opaque = np.dstack([synthetic_image(24, 40), np.full((24, 40), 255, np.uint8)])
    write_image(opaque, tmp_path / "a.bmp")
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp")[0], synthetic_image(24, 40))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".pgm", ".gif"])
def test_grey_stays_grey(suffix, tmp_path):
    grey = synthetic_image(24, 40)[..., 0]
    write_image(grey, tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}")[0], grey)


def test_lab_is_refused():
    with pytest.raises(CodecError, match="colour mode LAB"):
        read_image(encode_with_pillow(Image.new("LAB", (4, 4)), "TIFF"))


def test_vector_drawings_are_refused_without_rendering():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(CodecError, match="vector graphics"):
        read_image(eps)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_orientation_is_applied_and_its_tag_dropped(orientation, format):
    data = encode_with_pillow(
        Image.fromarray(synthetic_image(24, 40)), format, exif=exif_bytes(orientation=orientation)
    )
    pixels, metadata = read_image(data)
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](synthetic_image(24, 40)))
    exif = Image.Exif()
    exif.load(metadata["exif"])
    assert exif.get(ORIENTATION, 1) == 1
    assert exif[MAKE] == "Acme" and exif.get_ifd(GPS)[2] == (1.0, 2.0, 3.0)


def test_orientation_is_removed_from_xmp():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:D tiff:Orientation="6"/></x:xmpmeta>'
    data = encode_with_pillow(
        Image.fromarray(synthetic_image(24, 40)), "WEBP", lossless=True, xmp=xmp, exif=exif_bytes(orientation=6)
    )
    pixels, metadata = read_image(data)
    assert pixels.shape == (40, 24, 3)
    assert b"Orientation" not in metadata["xmp"] and b"rdf:D" in metadata["xmp"]


def test_damaged_exif_is_dropped():
    data = encode_with_pillow(Image.fromarray(synthetic_image(24, 40)), exif=b"Exif\0\0not a TIFF directory")
    with pytest.warns(UserWarning, match="EXIF data is damaged"):
        pixels, metadata = read_image(data)
    np.testing.assert_array_equal(pixels, synthetic_image(24, 40))
    assert metadata == {}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_metadata_survives_every_format_that_holds_it(format):
    metadata = {"icc": SRGB, "exif": exif_bytes().removeprefix(b"Exif\0\0"), "xmp": XMP}
    if format not in ("WEBP", "AVIF"):
        metadata["dpi"] = DPI
    file = io.BytesIO()
    write_image(synthetic_image(24, 40), file, metadata, format)
    assert read_image(file.getvalue())[1] == metadata


def test_each_kind_of_metadata_is_kept_without_the_others():
    for kind, value in (("icc", SRGB), ("exif", exif_bytes()[6:]), ("xmp", XMP), ("dpi", DPI)):
        for format in ("PNG", "JPEG", "TIFF"):
            file = io.BytesIO()
            write_image(synthetic_image(24, 40), file, {kind: value}, format)
            assert read_image(file.getvalue())[1][kind] == value


def test_formats_without_metadata_give_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="BMP has no place for icc, xmp"):
        write_image(synthetic_image(24, 40), tmp_path / "a.bmp", {"icc": SRGB, "xmp": XMP})
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp")[0], synthetic_image(24, 40))


def test_cmyk_is_converted_by_its_profile_and_the_profile_dropped():
    image = Image.fromarray(synthetic_image(24, 40)).convert("CMYK")
    pixels, metadata = read_image(encode_with_pillow(image, "TIFF", icc_profile=cmyk_profile(54, 81, 70)))
    # Lab (54, 81, 70) is close to sRGB red; a conversion without the profile would return the gradient.
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 12
    assert "icc" not in metadata


def test_grey_keeps_its_profile_and_is_converted_by_it_for_formats_without_grey(tmp_path):
    icc = grey_profile(1.0)
    grey, metadata = read_image(encode_with_pillow(Image.new("L", (3, 3), 128), icc_profile=icc))
    assert (grey == 128).all() and metadata["icc"] == icc
    write_image(grey, tmp_path / "a.webp", metadata)
    # Linear light of 128/255 is 188 in sRGB's curve (IEC 61966-2-1).
    pixels, metadata = read_image(tmp_path / "a.webp")
    assert np.abs(pixels.astype(int) - 188).max() <= 1 and "icc" not in metadata


def test_grey_keeps_a_colour_profile():
    assert read_image(encode_with_pillow(Image.new("L", (3, 3), 128), icc_profile=SRGB))[1]["icc"] == SRGB


@pytest.mark.parametrize(
    ("mode", "icc"),
    [("CMYK", cmyk_profile(54, 81, 70)[:200]), ("CMYK", SRGB), ("RGB", grey_profile(1.0)), ("RGB", b"short")],
)
def test_unsuitable_profiles_are_dropped_with_a_warning(mode, icc):
    image = Image.fromarray(synthetic_image(24, 40)).convert(mode)
    with pytest.warns(UserWarning, match="colour profile"):
        pixels, metadata = read_image(encode_with_pillow(image, "TIFF", icc_profile=icc))
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    assert "icc" not in metadata


def test_animation_gives_its_first_frame_with_a_warning():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encode_with_pillow(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="only the first"):
        pixels, _ = read_image(data)
    assert (pixels == [255, 0, 0]).all()


def test_resolution_is_kept_and_rotated():
    data = encode_with_pillow(
        Image.fromarray(synthetic_image(24, 40)), "JPEG", dpi=(72, 300), exif=exif_bytes(orientation=6)
    )
    x, y = struct.unpack("<II", read_image(data)[1]["dpi"])
    assert (x, y) == (round(300 / 0.0254), round(72 / 0.0254))
    for dpi in ((0, 0), (-1, 5), (float("nan"), 1), (1e30, 1), (72,)):
        image = Image.new("L", (4, 4))
        image.info["dpi"] = dpi
        assert "dpi" not in read_image(image)[1]


def test_other_gammas_than_srgb_are_dropped_with_a_warning():
    header, body = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0), zlib.compress(b"\0\7")
    with pytest.warns(UserWarning, match="gamma of 1 is left out"):
        read_image(png(IHDR=header, gAMA=struct.pack(">I", 100000), IDAT=body, IEND=b""))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(png(IHDR=header, gAMA=struct.pack(">I", 45455), IDAT=body, IEND=b""))


def test_a_png_with_a_wrong_crc_is_refused():
    data = bytearray(encode_with_pillow(Image.fromarray(synthetic_image(24, 40))))
    data[data.index(b"IDAT") + 4 + struct.unpack_from(">I", data, data.index(b"IDAT") - 4)[0]] ^= 1
    with pytest.raises(CodecError, match="checksum"):
        read_image(bytes(data))


def test_a_still_image_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(encode_with_pillow(Image.fromarray(synthetic_image(24, 40))))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89VAE\r\n\x1a\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_other_files_are_refused_with_their_name(tmp_path, content):
    path = tmp_path / "holiday.png"
    path.write_bytes(content)
    with pytest.raises(CodecError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    with pytest.raises(CodecError, match=r"^attachment: "):
        read_image(content, "attachment")


def test_a_missing_file_and_a_folder_are_errors_of_the_system(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(IsADirectoryError):
        read_image(tmp_path)


FORMATS = ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM", "JPEG2000"]


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_images_are_refused(format):
    rng = np.random.default_rng(0)
    data = encode_with_pillow(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), format)
    for length in (1, 10, len(data) // 4, len(data) // 2):
        with pytest.raises(CodecError):
            read_image(data[:length])


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_images_give_pixels_or_a_codec_error(format):
    rng = np.random.default_rng(7)
    data = encode_with_pillow(Image.fromarray(synthetic_image(24, 40)), format)
    outcomes = set()
    for _ in range(60):
        damaged = np.frombuffer(data, np.uint8).copy()
        # Half of the damage goes to the headers, which hold the fields.
        reach = rng.choice([min(64, len(data)), len(data)])
        damaged[rng.integers(0, reach, 3)] = rng.integers(0, 256, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pixels, _ = read_image(damaged.tobytes())
                assert pixels.dtype in (np.uint8, np.uint16) and pixels.ndim in (2, 3)
                outcomes.add("pixels")
            except CodecError as exc:
                assert str(exc).startswith("image: ")
                outcomes.add("error")
    assert "error" in outcomes


def test_decompression_bomb_is_a_limit_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(LimitError, match=r"image: .*exceeds limit"):
        read_image(encode_with_pillow(Image.fromarray(synthetic_image(24, 40))))


def test_the_callers_image_is_not_changed():
    image = Image.open(
        io.BytesIO(encode_with_pillow(Image.fromarray(synthetic_image(24, 40)), exif=exif_bytes(orientation=6)))
    )
    read_image(image)
    assert image.size == (40, 24) and image.getexif()[ORIENTATION] == 6
    image.getpixel((0, 0))  # raises if the image was closed


@pytest.mark.parametrize(("name", "format"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a", "PNG"), ("b.c/a", "PNG")])
def test_the_suffix_determines_the_format(name, format):
    assert format_of(name) == format


@pytest.mark.parametrize("name", ["a.xyz", "a.vae", "a.txt"])
def test_unknown_suffixes_are_refused(name):
    with pytest.raises(CodecError, match="suffix"):
        format_of(name)


def test_lossless_formats_keep_the_pixels(tmp_path):
    for suffix in (".png", ".webp", ".tiff", ".bmp", ".ppm"):
        write_image(synthetic_image(24, 40), tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}")[0], synthetic_image(24, 40))


def test_jpeg_keeps_the_resolution_of_chroma(tmp_path):
    # Stripes of chroma that are one pixel wide; subsampled chroma (4:2:0) would average them.
    stripes = np.where(np.arange(16)[:, None] % 2, [200, 100, 60], [60, 152, 200]).astype(np.uint8)
    stripes = np.broadcast_to(stripes, (16, 16, 3))
    write_image(stripes, tmp_path / "a.jpg")
    assert np.abs(read_image(tmp_path / "a.jpg")[0].astype(int) - stripes).max() <= 12


def test_errors_of_writing_take_one_line(tmp_path):
    with pytest.raises(CodecError, match="No such file"):
        write_image(synthetic_image(24, 40), tmp_path / "no" / "a.png")
    with pytest.raises(CodecError, match="cannot be written as JPEG"):
        write_image(synthetic_image(24, 40), io.BytesIO(), {"exif": bytes(70_000)}, "JPEG")
    with pytest.raises(CodecError, match="cannot be written as TIFF"):
        write_image(synthetic_image(24, 40), io.BytesIO(), {"exif": b"no", "xmp": XMP}, "TIFF")
