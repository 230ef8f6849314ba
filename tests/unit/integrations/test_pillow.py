"""Pillow opens and saves .vae files as it does its own formats, and imageio through it."""

import io
import pickle
import struct
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, ImageCms, UnidentifiedImageError

import vaecodec
import vaecodec.integrations.pillow
from support.images import synthetic_image
from support.paths import GOLDEN, ROOT
from vaecodec.container import chunks, image_file
from vaecodec.files.compression import compress_file
from vaecodec.images.writing import format_of
from vaecodec.integrations.pillow import VaeImageFile

PARROTS = ROOT / "docs" / "examples" / "parrots.png"


def saved(image, **options):
    """The file that Pillow makes of an image."""
    file = io.BytesIO()
    image.save(file, "VAE", **options)
    return file.getvalue()


def opened(data):
    return Image.open(io.BytesIO(data))


def photograph(mode="RGB"):
    with Image.open(PARROTS) as image:
        return image.convert(mode)


def test_a_photograph_goes_to_a_path_and_back(tmp_path):
    path = tmp_path / "photo.vae"
    image = photograph()
    image.save(path, quality=60)
    assert path.read_bytes() == vaecodec.encode(image, quality=60)
    with Image.open(path) as again:
        assert (again.format, again.mode, again.size) == ("VAE", "RGB", image.size)
        assert again.info == {"coding": "vae", "quality": pytest.approx(60, abs=0.1)}
        assert again.get_format_mimetype() == "image/x-vaecodec"
        np.testing.assert_array_equal(again, vaecodec.decode(path.read_bytes()))
    assert len(path.read_bytes()) < len(vaecodec.encode(image, quality=90))


def test_opening_reads_the_header_alone(tmp_path):
    code = (
        "import sys, vaecodec; vaecodec.register_pillow(); from PIL import Image\n"
        f"image = Image.open({str(GOLDEN / 'photo.vae')!r}); print(*image.size, image.mode)\n"
        "print(*{'numpy', 'constriction', 'tensorflow'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    info = vaecodec.info((GOLDEN / "photo.vae").read_bytes())
    assert out == f"{info['width']} {info['height']} RGB\n\n"

    class Watched(io.BytesIO):
        read_bytes = 0

        def read(self, count=-1):
            data = super().read(count)
            self.read_bytes += len(data)
            return data

    data = saved(photograph("RGBA"), quality=90)
    file = Watched(data)
    assert VaeImageFile(file).mode == "RGBA"  # Image.open lets other formats have a look, too
    assert len(data) > 30_000 and file.read_bytes < 200


@pytest.mark.parametrize(
    ("mode", "back"),
    [
        *((mode, "L") for mode in ("1", "L")),
        *((mode, "LA") for mode in ("LA", "La")),
        *((mode, "RGB") for mode in ("P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")),
        *((mode, "RGBA") for mode in ("PA", "RGBA", "RGBa")),
    ],
)
def test_every_mode_of_8_bits(mode, back):
    image = photograph("L" if mode in ("1", "L", "LA", "La") else "RGB").crop((100, 100, 260, 200))
    alpha = Image.linear_gradient("L").resize(image.size)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode.upper())
        image.putalpha(alpha)
    image = image.convert(mode)
    again = opened(saved(image, quality=90))
    assert (again.mode, again.size) == (back, image.size)
    again.load()
    straight = image.convert("LA" if mode == "La" else back).convert("RGBA")
    found, expected = (np.asarray(one.convert("RGBA"), float) for one in (again, straight))
    np.testing.assert_array_equal(found[..., 3], expected[..., 3])
    assert (np.abs(found - expected)[..., :3] * (expected[..., 3:] > 99)).mean() < 4


def test_16_bits_are_exact_in_grey_and_said_to_be_cut_in_colour():
    samples = (synthetic_image(40, 50).astype(np.uint16) << 8) + np.arange(50, dtype=np.uint16)[:, None]
    grey = opened(saved(Image.fromarray(samples[..., 0])))
    assert grey.mode == "I;16" and grey.info["coding"] == "lossless"
    np.testing.assert_array_equal(np.asarray(grey), samples[..., 0])
    with pytest.warns(UserWarning, match="16 bits per sample are reduced to the upper 8"):
        colour = opened(vaecodec.encode(samples))
    np.testing.assert_array_equal(np.asarray(colour), samples >> 8)


def test_modes_that_cannot_be_kept_are_refused():
    for mode in ("I", "F", "LAB"):
        with pytest.raises(OSError, match=f"cannot write mode {mode} as VAE"):
            saved(Image.new(mode, (9, 9)))
    for quality in (0, 101, float("nan")):
        with pytest.raises(ValueError, match="expected a number in 1..100"):
            saved(Image.new("RGB", (9, 9)), quality=quality)
    with pytest.raises(OSError, match="no model is called"):
        saved(Image.new("RGB", (9, 9)), model="nobody's")


def test_a_failed_save_leaves_no_file(tmp_path):
    with pytest.raises(OSError):
        Image.new("F", (9, 9)).save(tmp_path / "a.vae")
    assert not list(tmp_path.iterdir())


def test_metadata_are_kept_as_other_formats_keep_them():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E], exif[0x8769] = "two parrots", {0x9003: "1999:12:31 23:59:59"}
    given = {"icc_profile": profile, "exif": exif, "xmp": b"<x:xmpmeta/>", "dpi": (300, 150)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = opened(saved(photograph(), **given))
        assert opened(saved(photograph(), exif=exif.tobytes(), xmp="<x/>")).info["xmp"] == b"<x/>"
    assert again.info["icc_profile"] == profile and again.info["xmp"] == b"<x:xmpmeta/>"
    assert again.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    assert again.getexif()[0x010E] == "two parrots"
    assert again.getexif().get_ifd(0x8769)[0x9003] == "1999:12:31 23:59:59"
    # What came with an image is kept, unless something else or nothing is asked for.
    kept, dropped = (opened(saved(again, **more)).info for more in ({}, dict.fromkeys(given)))
    assert {kind: kept[kind] for kind in given} == {kind: again.info[kind] for kind in given}
    assert not dropped.keys() & given.keys()
    # And it goes on to the next format.
    file = io.BytesIO()
    again.save(file, "PNG", exif=again.info["exif"], dpi=again.info["dpi"])
    assert Image.open(file).info["icc_profile"] == profile and Image.open(file).getexif()[0x010E] == "two parrots"


def test_the_picture_is_upright():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "on its side"
    again = opened(saved(photograph(), exif=exif, quality=90))
    assert again.size == photograph().size[::-1] and dict(again.getexif()) == {0x010E: "on its side"}
    turned = photograph().transpose(Image.Transpose.ROTATE_270)
    assert np.abs(np.asarray(again, float) - turned).mean() < 4


def test_what_is_saved_is_what_is_in_memory(tmp_path):
    samples = synthetic_image(40, 50).astype(np.uint16) * 257
    from vaecodec.images.writing import encode_png16

    (tmp_path / "deep.png").write_bytes(encode_png16(samples))
    with Image.open(tmp_path / "deep.png") as image:
        image.paste((255, 0, 0), (0, 0, 40, 50))
        again = opened(saved(image, quality=95))
    assert np.asarray(again)[20, 20, 0] > 230 and np.asarray(again)[20, 20, 1] < 30


def test_thumbnails_decode_a_preview():
    image, data = photograph(), saved(photograph(), quality=80)
    small, whole = opened(data), opened(data)
    small.thumbnail((96, 96))
    assert small.size == (96, 64) and vaecodec.decode(data, reduce=4).shape == (128, 192, 3)
    image.thumbnail((96, 96))
    assert np.abs(np.asarray(small, float) - image).mean() < 3
    assert whole.draft(None, (200, 100)) == ("RGB", (0, 0, 384.0, 256.0)) and whole.size == (384, 256)
    np.testing.assert_array_equal(whole, vaecodec.decode(data, reduce=2))
    assert whole.draft(None, (20, 10)) is None
    odd = opened(saved(Image.fromarray(synthetic_image(61, 33))))
    assert odd.draft("RGB", (4, 4)) == ("RGB", (0, 0, 33 / 8, 61 / 8)) and odd.copy().size == (5, 8)


def test_bombs_are_refused_before_anything_is_decoded(monkeypatch):
    data = saved(photograph().resize((200, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)
    with pytest.warns(Image.DecompressionBombWarning):
        opened(data).load()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)
    with pytest.raises(Image.DecompressionBombError):
        opened(data)
    head = image_file.PICT.pack(1, 0, 3, 8, 1 << 23, 1 << 23)
    huge = chunks.MAGIC + chunks.pack_chunk(b"PICT", head) + chunks.pack_chunk(b"DATA", b"")
    with pytest.raises(Image.DecompressionBombError):
        opened(huge)


def test_a_stored_file_is_refused_by_name(tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    compress_file(tmp_path / "notes.txt", tmp_path / "notes.txt.vae")
    with pytest.raises(UnidentifiedImageError, match=r"notes\.txt\.vae: .*holds a file that is not an image"):
        Image.open(tmp_path / "notes.txt.vae")


def test_truncated_files_are_os_errors():
    data = saved(photograph("RGBA").resize((96, 64)), dpi=(72, 72))
    at = next(offset for tag, offset, _ in chunks.read_chunks(data) if tag == b"DATA")
    for size in (*range(16, len(data), 7), len(data) - 1):
        if size < at:
            with pytest.raises(OSError):
                opened(data[:size]).load()
            continue
        image = opened(data[:size])  # the header is whole
        assert image.size == (96, 64)
        for _ in range(2):
            with pytest.raises(OSError, match="cut off"):
                image.load()
    with pytest.raises(UnidentifiedImageError):
        opened(data[:5])


def test_damage_is_an_os_error():
    data = bytearray(saved(photograph().resize((96, 64)), icc_profile=b"x" * 200))
    for at in range(8, len(data), 11):
        bad = bytes(data[:at]) + bytes([data[at] ^ 16]) + bytes(data[at + 1 :])
        with pytest.raises(OSError):
            opened(bad).load()
        with pytest.raises(OSError):
            opened(bad).verify()
    opened(bytes(data)).verify()


def test_damaged_metadata_are_left_out():
    data = saved(photograph().resize((96, 64)))
    (head, size, _) = next((o, n, t) for t, o, n in chunks.read_chunks(data) if t == b"HEAD")
    end = head + size + 4
    with pytest.warns(UserWarning, match="xmp metadata is damaged"):
        image = opened(data[:end] + chunks.pack_chunk(b"xmp_", b"no stream") + data[end:])
    image.load()
    assert "xmp" not in image.info


def test_a_model_that_is_not_here_is_an_os_error():
    with pytest.raises(OSError, match="model"):
        opened((GOLDEN / "odd.vae").read_bytes()).load()


def test_unknown_chunks_and_versions():
    data = saved(photograph().resize((96, 64)))
    start = len(chunks.MAGIC)
    (length,) = struct.unpack_from("<I", data, start)
    rest = data[start + 12 + length :]
    newer = bytearray(data[start + 8 : start + 8 + length])
    newer[0] = 9
    with pytest.raises(UnidentifiedImageError, match="version 9 is not supported"):
        opened(chunks.MAGIC + chunks.pack_chunk(b"HEAD", bytes(newer)) + rest)
    head = data[: start + 12 + length]
    assert opened(head + chunks.pack_chunk(b"note", b"skip me") + rest).copy().size == (96, 64)
    with pytest.raises(UnidentifiedImageError, match="does not know it"):
        opened(head + chunks.pack_chunk(b"NEED", b"") + rest)
    with pytest.raises(UnidentifiedImageError, match="occurs twice"):
        opened(head + head[start:] + rest)
    with pytest.raises(UnidentifiedImageError, match="must be HEAD or PICT"):
        opened(chunks.MAGIC + rest)


@pytest.mark.parametrize(
    "path", sorted([*GOLDEN.glob("*.vae"), *GOLDEN.glob("kinds/*.vae")]), ids=lambda path: path.stem
)
def test_the_front_says_what_the_whole_file_says(path):
    data = path.read_bytes()
    whole, front = image_file.contents(data), image_file.read_preamble(io.BytesIO(data))
    head = whole.header._replace(filter=b"") if isinstance(whole.header, image_file.Header) else whole.header
    assert (front.header, front.channels) == (head, whole.channels)  # a filter follows the table of tiles
    assert {n: chunks.inflate_metadata(n, v) for n, v in front.metadata.items()} == image_file.metadata(data)
    assert front.depth == image_file.info(data)["depth"]


def test_one_frame_only(tmp_path):
    image = photograph()
    assert saved(image, save_all=True) == saved(image)
    with pytest.raises(OSError, match="cannot write 2 frames as VAE: a .vae file holds one image"):
        saved(image, save_all=True, append_images=[image])
    image.save(tmp_path / "two.gif", save_all=True, append_images=[image.rotate(90)])
    with Image.open(tmp_path / "two.gif") as gif:
        with pytest.raises(OSError, match="2 frames"):
            saved(gif, save_all=True)
        assert opened(saved(gif)).size == gif.size


def test_images_are_pickled_parsed_and_closed(tmp_path):
    data = saved(photograph().resize((96, 64)))
    again = pickle.loads(pickle.dumps(opened(data)))
    np.testing.assert_array_equal(again, vaecodec.decode(data))
    from PIL import ImageFile

    parser = ImageFile.Parser()
    for at in range(0, len(data), 100):
        parser.feed(data[at : at + 100])
    np.testing.assert_array_equal(parser.close(), vaecodec.decode(data))
    (tmp_path / "a.vae").write_bytes(data)
    with Image.open(tmp_path / "a.vae") as image:
        pass
    with pytest.raises(ValueError, match="closed"):
        image.load()


def test_decompression_does_not_write_vae_files():
    with pytest.raises(vaecodec.CodecError, match=r"suffix \.vae"):
        format_of("again.vae")


def test_imageio_reads_and_writes(tmp_path):
    iio = pytest.importorskip("imageio.v3")
    pixels = np.asarray(photograph())
    iio.imwrite(tmp_path / "a.vae", pixels, quality=60)
    data = (tmp_path / "a.vae").read_bytes()
    assert data == vaecodec.encode(pixels, quality=60)
    np.testing.assert_array_equal(iio.imread(tmp_path / "a.vae"), vaecodec.decode(data))
    np.testing.assert_array_equal(iio.imread(data), vaecodec.decode(data))
    properties = iio.improps(tmp_path / "a.vae")
    assert properties.shape == pixels.shape and properties.dtype == np.uint8
    assert iio.immeta(tmp_path / "a.vae")["quality"] == pytest.approx(60, abs=0.1)
    assert iio.imwrite("<bytes>", pixels, extension=".vae", plugin="pillow", quality=60) == data
