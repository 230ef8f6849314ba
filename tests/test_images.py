"""Every kind of image becomes RGB, is turned upright, keeps its metadata, or is refused in one line."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from conftest import picture
from PIL import Image, ImageCms

from vaecodec.errors import CodecError, LimitError
from vaecodec.images import format_of, read_image, write_image

ORIENTATION, MAKE, GPS = 0x0112, 0x010F, 0x8825
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">a photograph</x:xmpmeta>'
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(image, format="PNG", **options):
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
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"lcms", 0x02200000, b"prtr", space, tags and PCS[space])
    head = head.ljust(36, b"\0") + b"acsp"
    head = head.ljust(68, b"\0") + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + table + body


PCS = {b"CMYK": b"Lab ", b"GRAY": b"XYZ "}


def cmyk_profile(lightness, a, b):
    """A profile in which any ink without black is one Lab colour: 8-bit table of 2 ** 4 points, black fastest."""
    ramp = bytes(range(256))
    point, black = bytes([round(lightness * 2.55), a + 128, b + 128]), bytes([0, 128, 128])
    matrix = struct.pack(">9I", *(0x10000 * (n % 4 == 0) for n in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + (point + black) * 8 + ramp * 3
    return profile(b"CMYK", {b"A2B0": table})


def grey_profile(gamma):
    white = b"XYZ " + bytes(4) + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    return profile(b"GRAY", {b"wtpt": white, b"kTRC": curve})


def deep_png():
    """A PNG of 16 bits a sample in RGB, which Pillow reads as 8 bits."""

    def chunk(tag, data):
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 2, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(2 * 25))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "PA", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_opaque_images_of_any_mode_become_rgb(mode):
    colour = Image.fromarray(picture(24, 40))
    image = colour.convert("P").convert("PA") if mode == "PA" else colour.convert(mode)
    pixels, metadata = read_image(image)
    assert pixels.dtype == np.uint8 and pixels.shape == (24, 40, 3) and metadata == {}
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    assert len(np.unique(pixels)) > 1


def test_path_bytes_array_and_pillow_image_are_read_alike(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(picture(24, 40))))
    for source in (path, str(path), path.read_bytes(), picture(24, 40), Image.open(path)):
        np.testing.assert_array_equal(read_image(source)[0], picture(24, 40))


def test_another_type_is_a_programming_error():
    with pytest.raises(TypeError, match="not int"):
        read_image(7)


def test_arrays_of_one_two_and_four_channels():
    grey = picture(24, 40)[..., 0]
    opaque = np.full_like(grey, 255)
    for array in (grey, grey[..., None], np.stack([grey, opaque], -1)):
        np.testing.assert_array_equal(read_image(array)[0], np.stack([grey] * 3, -1))
    np.testing.assert_array_equal(read_image(np.dstack([picture(24, 40), opaque]))[0], picture(24, 40))
    with pytest.raises(CodecError, match="transparent"):
        read_image(np.dstack([picture(24, 40), opaque - 1]))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 3), np.uint16), "uint16"),
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
    ],
)
def test_arrays_that_are_no_8_bit_pictures_are_refused(array, message):
    with pytest.raises(CodecError, match=message):
        read_image(array, "plane")


def transparent_images():
    alpha = Image.new("L", (40, 24), 255)
    alpha.putpixel((39, 23), 254)
    colour = Image.fromarray(picture(24, 40))
    rgba, la = colour.convert("RGBA"), colour.convert("LA")
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    palette = colour.quantize(8)
    grey = colour.convert("L")
    yield "RGBA", encoded(rgba)
    yield "LA", encoded(la)
    yield "palette", encoded(palette, transparency=bytes([255, 255, 0, 255, 255, 255, 255, 255]))
    yield "GIF", encoded(palette, "GIF", transparency=3)
    yield "colour key", encoded(grey, transparency=grey.getpixel((5, 5)))
    yield "WebP", encoded(rgba, "WEBP", lossless=True)


@pytest.mark.parametrize(("kind", "data"), list(transparent_images()))
def test_real_transparency_is_refused(kind, data):
    with pytest.raises(CodecError, match="flatten"):
        read_image(data)


def test_transparency_that_no_pixel_has_is_no_transparency():
    grey = Image.fromarray(np.full((3, 3), 9, np.uint8))
    np.testing.assert_array_equal(read_image(encoded(grey, transparency=200))[0], np.full((3, 3, 3), 9))


def deep_images():
    ramp = np.arange(64).reshape(8, 8)
    yield "16-bit grey PNG", encoded(Image.fromarray((ramp * 1000).astype(np.uint16)))
    yield "16-bit RGB PNG", deep_png()
    yield "16-bit TIFF", encoded(Image.fromarray((ramp * 1000).astype(np.uint16)), "TIFF")
    yield "int32 TIFF", encoded(Image.fromarray(ramp.astype(np.int32)), "TIFF")
    yield "float TIFF", encoded(Image.fromarray(ramp.astype(np.float32)), "TIFF")
    yield "16-bit PPM", b"P6 2 1 65535\n" + bytes(12)
    yield "16-bit PGM", b"P5 2 1 4095\n" + bytes(4)


@pytest.mark.parametrize(("kind", "data"), list(deep_images()))
def test_more_than_8_bits_are_refused(kind, data):
    with pytest.raises(CodecError, match="more than 8 bits"):
        read_image(data)


def test_lab_is_refused():
    with pytest.raises(CodecError, match="colour mode LAB"):
        read_image(encoded(Image.new("LAB", (4, 4)), "TIFF"))


def test_vector_drawings_are_refused_before_anything_renders_them():
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(CodecError, match="drawing"):
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
    data = encoded(Image.fromarray(picture(24, 40)), format, exif=exif_bytes(orientation=orientation))
    pixels, metadata = read_image(data)
    np.testing.assert_array_equal(pixels, UPRIGHT[orientation](picture(24, 40)))
    exif = Image.Exif()
    exif.load(metadata["exif"])
    assert exif.get(ORIENTATION, 1) == 1
    assert exif[MAKE] == "Acme" and exif.get_ifd(GPS)[2] == (1.0, 2.0, 3.0)


def test_orientation_in_xmp_goes_too():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:D tiff:Orientation="6"/></x:xmpmeta>'
    data = encoded(Image.fromarray(picture(24, 40)), "WEBP", lossless=True, xmp=xmp, exif=exif_bytes(orientation=6))
    pixels, metadata = read_image(data)
    assert pixels.shape == (40, 24, 3)
    assert b"Orientation" not in metadata["xmp"] and b"rdf:D" in metadata["xmp"]


def test_damaged_exif_does_not_cost_the_picture():
    data = encoded(Image.fromarray(picture(24, 40)), exif=b"Exif\0\0not a TIFF directory")
    with pytest.warns(UserWarning, match="EXIF data is damaged"):
        pixels, metadata = read_image(data)
    np.testing.assert_array_equal(pixels, picture(24, 40))
    assert metadata == {}


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "AVIF", "TIFF"])
def test_metadata_survives_every_format_that_holds_it(format):
    metadata = {"icc": SRGB, "exif": exif_bytes().removeprefix(b"Exif\0\0"), "xmp": XMP}
    file = io.BytesIO()
    write_image(picture(24, 40), file, metadata, format)
    assert read_image(file.getvalue())[1] == metadata


def test_metadata_alone_can_be_missing():
    for kind, value in (("icc", SRGB), ("exif", exif_bytes()[6:]), ("xmp", XMP)):
        for format in ("PNG", "JPEG", "TIFF"):
            file = io.BytesIO()
            write_image(picture(24, 40), file, {kind: value}, format)
            assert read_image(file.getvalue())[1][kind] == value


def test_a_format_without_room_for_metadata_says_so(tmp_path):
    with pytest.warns(UserWarning, match="BMP has no place for icc, xmp"):
        write_image(picture(24, 40), tmp_path / "a.bmp", {"icc": SRGB, "xmp": XMP})
    np.testing.assert_array_equal(read_image(tmp_path / "a.bmp")[0], picture(24, 40))


def test_cmyk_goes_through_its_profile_which_is_then_not_kept():
    image = Image.fromarray(picture(24, 40)).convert("CMYK")
    pixels, metadata = read_image(encoded(image, "TIFF", icc_profile=cmyk_profile(54, 81, 70)))
    # Lab (54, 81, 70) is next to sRGB red; Pillow's plain conversion would give the gradient back.
    assert np.abs(pixels.astype(int) - [255, 0, 0]).max() < 12
    assert "icc" not in metadata


def test_grey_goes_through_its_profile_which_is_then_not_kept():
    grey = Image.new("L", (3, 3), 128)
    pixels, metadata = read_image(encoded(grey, icc_profile=grey_profile(1.0)))
    # Linear light of 128/255 is 188 in sRGB's curve (IEC 61966-2-1).
    assert np.abs(pixels.astype(int) - 188).max() <= 1
    assert "icc" not in metadata


def test_grey_with_a_colour_profile_keeps_it():
    assert read_image(encoded(Image.new("L", (3, 3), 128), icc_profile=SRGB))[1]["icc"] == SRGB


@pytest.mark.parametrize(
    ("mode", "icc"),
    [("CMYK", cmyk_profile(54, 81, 70)[:200]), ("CMYK", SRGB), ("RGB", grey_profile(1.0)), ("RGB", b"short")],
)
def test_a_profile_that_does_not_fit_is_left_out_with_a_warning(mode, icc):
    image = Image.fromarray(picture(24, 40)).convert(mode)
    with pytest.warns(UserWarning, match="colour profile"):
        pixels, metadata = read_image(encoded(image, "TIFF", icc_profile=icc))
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))
    assert "icc" not in metadata


def test_animation_gives_its_first_frame_with_a_warning():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    with pytest.warns(UserWarning, match="only the first"):
        pixels, _ = read_image(data)
    assert (pixels == [255, 0, 0]).all()


def test_a_still_image_gives_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(encoded(Image.fromarray(picture(24, 40))))


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89VAE\r\n\x1a\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"])
def test_what_is_no_image_is_refused_by_name(tmp_path, content):
    path = tmp_path / "holiday.png"
    path.write_bytes(content)
    with pytest.raises(CodecError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    with pytest.raises(CodecError, match=r"^attachment: "):
        read_image(content, "attachment")


def test_missing_file_and_folder_are_codec_errors(tmp_path):
    with pytest.raises(CodecError, match=r"gone\.png: No such file"):
        read_image(tmp_path / "gone.png")
    with pytest.raises(CodecError, match="Is a directory"):
        read_image(tmp_path)


FORMATS = ["PNG", "JPEG", "WEBP", "AVIF", "TIFF", "GIF", "BMP", "PPM", "JPEG2000"]


@pytest.mark.parametrize("format", FORMATS)
def test_truncated_images_are_refused(format):
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)), format)
    for length in (1, 10, len(data) // 4, len(data) // 2):
        with pytest.raises(CodecError):
            read_image(data[:length])


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_images_give_pixels_or_a_codec_error_and_nothing_else(format):
    rng = np.random.default_rng(7)
    data = encoded(Image.fromarray(picture(24, 40)), format)
    outcomes = set()
    for _ in range(60):
        damaged = np.frombuffer(data, np.uint8).copy()
        # Half of the damage goes to the headers, where the fields are.
        reach = rng.choice([min(64, len(data)), len(data)])
        damaged[rng.integers(0, reach, 3)] = rng.integers(0, 256, 3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pixels, _ = read_image(damaged.tobytes())
                assert pixels.dtype == np.uint8 and pixels.ndim == 3
                outcomes.add("pixels")
            except CodecError as exc:
                assert str(exc).startswith("image: ")
                outcomes.add("error")
    assert "error" in outcomes


def test_decompression_bomb_is_a_limit_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(LimitError, match=r"image: .*exceeds limit"):
        read_image(encoded(Image.fromarray(picture(24, 40))))


def test_the_callers_image_stays_as_it_was():
    image = Image.open(io.BytesIO(encoded(Image.fromarray(picture(24, 40)), exif=exif_bytes(orientation=6))))
    read_image(image)
    assert image.size == (40, 24) and image.getexif()[ORIENTATION] == 6
    image.getpixel((0, 0))  # and is still open


@pytest.mark.parametrize(("name", "format"), [("a.png", "PNG"), ("a.JPG", "JPEG"), ("a", "PNG"), ("b.c/a", "PNG")])
def test_the_suffix_names_the_format(name, format):
    assert format_of(name) == format


@pytest.mark.parametrize("name", ["a.xyz", "a.vae", "a.txt"])
def test_unknown_suffix_is_refused(name):
    with pytest.raises(CodecError, match="suffix"):
        format_of(name)


def test_lossless_formats_give_the_pixels_back(tmp_path):
    for suffix in (".png", ".webp", ".tiff", ".bmp", ".ppm"):
        write_image(picture(24, 40), tmp_path / f"a{suffix}")
        np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}")[0], picture(24, 40))


def test_jpeg_stays_near_the_pixels_in_colour_too(tmp_path):
    # One pixel wide stripes of colour alone, which halved chroma (4:2:0) would average away.
    stripes = np.where(np.arange(16)[:, None] % 2, [200, 100, 60], [60, 152, 200]).astype(np.uint8)
    stripes = np.broadcast_to(stripes, (16, 16, 3))
    write_image(stripes, tmp_path / "a.jpg")
    assert np.abs(read_image(tmp_path / "a.jpg")[0].astype(int) - stripes).max() <= 12


def test_writing_fails_in_one_line(tmp_path):
    with pytest.raises(CodecError, match="No such file"):
        write_image(picture(24, 40), tmp_path / "no" / "a.png")
    with pytest.raises(CodecError, match="cannot be written as JPEG"):
        write_image(picture(24, 40), io.BytesIO(), {"exif": bytes(70_000)}, "JPEG")
    with pytest.raises(CodecError, match="cannot be written as TIFF"):
        write_image(picture(24, 40), io.BytesIO(), {"exif": b"no", "xmp": XMP}, "TIFF")
