"""Test that Pillow, and imageio through Pillow, open and save .vae files."""

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
from vaecodec import container
from vaecodec.container import image_file
from vaecodec.files.compression import compress_file
from vaecodec.images.writing import format_of
from vaecodec.integrations.pillow import VaeImageFile

PARROTS = ROOT / "docs" / "examples" / "parrots.png"


def save_vae(image, **options):
    """Save an image with Pillow and return the bytes."""
    file = io.BytesIO()
    image.save(file, "VAE", **options)
    return file.getvalue()


def open_vae(data):
    return Image.open(io.BytesIO(data))


def photograph(mode="RGB"):
    with Image.open(PARROTS) as image:
        return image.convert(mode)


def test_photographs_are_saved_and_opened(tmp_path):
    path = tmp_path / "photo.vae"
    image = photograph()
    image.save(path, quality=60)
    assert path.read_bytes() == vaecodec.encode(image, quality=60)
    with Image.open(path) as opened_image:
        assert (opened_image.format, opened_image.mode, opened_image.size) == ("VAE", "RGB", image.size)
        assert opened_image.info == {"coding": "vae", "quality": pytest.approx(60, abs=0.1)}
        assert opened_image.get_format_mimetype() == "image/x-vaecodec"
        np.testing.assert_array_equal(opened_image, vaecodec.decode(path.read_bytes()))
    assert len(path.read_bytes()) < len(vaecodec.encode(image, quality=90))


def test_opening_reads_only_the_header(tmp_path):
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

    data = save_vae(photograph("RGBA"), quality=90)
    file = Watched(data)
    assert VaeImageFile(file).mode == "RGBA"  # Image.open would let other formats read too
    assert len(data) > 30_000 and file.read_bytes < 200


@pytest.mark.parametrize(
    ("mode", "opened_mode"),
    [
        *((mode, "L") for mode in ("1", "L")),
        *((mode, "LA") for mode in ("LA", "La")),
        *((mode, "RGB") for mode in ("P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")),
        *((mode, "RGBA") for mode in ("PA", "RGBA", "RGBa")),
    ],
)
def test_modes_of_8_bits_are_saved_and_opened(mode, opened_mode):
    image = photograph("L" if mode in ("1", "L", "LA", "La") else "RGB").crop((100, 100, 260, 200))
    alpha = Image.linear_gradient("L").resize(image.size)
    if mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        image = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode.upper())
        image.putalpha(alpha)
    image = image.convert(mode)
    opened_image = open_vae(save_vae(image, quality=90))
    assert (opened_image.mode, opened_image.size) == (opened_mode, image.size)
    opened_image.load()
    converted = image.convert("LA" if mode == "La" else opened_mode).convert("RGBA")
    actual, expected = (
        np.asarray(converted_image.convert("RGBA"), float) for converted_image in (opened_image, converted)
    )
    np.testing.assert_array_equal(actual[..., 3], expected[..., 3])
    assert (np.abs(actual - expected)[..., :3] * (expected[..., 3:] > 99)).mean() < 4


def test_16_bits_are_exact_in_grey_and_reduced_with_a_warning_in_colour():
    samples = (synthetic_image(40, 50).astype(np.uint16) << 8) + np.arange(50, dtype=np.uint16)[:, None]
    grey = open_vae(save_vae(Image.fromarray(samples[..., 0]), lossless=True))
    assert grey.mode == "I;16" and grey.info["coding"] == "lossless"
    np.testing.assert_array_equal(np.asarray(grey), samples[..., 0])
    with pytest.warns(UserWarning, match="16 bits per sample are reduced to the upper 8"):
        colour = open_vae(vaecodec.encode(samples, lossless=True))
    np.testing.assert_array_equal(np.asarray(colour), samples >> 8)


def test_16_bits_at_a_quality_keep_their_depth():
    samples = synthetic_image(140, 150)[..., 0].astype(np.uint16) * 257
    grey = open_vae(save_vae(Image.fromarray(samples), quality=90))
    assert (grey.mode, grey.info["coding"], grey.info["quality"]) == ("I;16", "vae", 90)
    assert np.abs(np.asarray(grey).astype(int) - samples).mean() < 4 * 257


def test_every_option_has_an_effect_or_is_an_error(tmp_path):
    image = photograph().crop((0, 0, 160, 120))
    assert save_vae(image, effort=4) == vaecodec.encode(image, effort=4) != save_vae(image)
    assert save_vae(image, tune="eye") == vaecodec.encode(image, tune="eye") != save_vae(image, tune="psnr")
    assert save_vae(image, target_size=2000) == vaecodec.encode(image, target_size=2000)
    assert save_vae(image, target_psnr=32.0) == vaecodec.encode(image, target_psnr=32.0)
    assert save_vae(image, threads=1) == save_vae(image)
    for options in ({"lossles": True}, {"speed": 5}, {"quality": 50, "subsampling": 0}, {"optimize": True}):
        with pytest.raises(TypeError, match=f"option {list(options)[-1]}"):
            image.save(tmp_path / "photo.vae", **options)
    wrong = [
        {"quality": "50"},
        {"effort": "9"},
        {"tune": 1},
        {"target_size": 9.5},
        {"model": 3},
        {"threads": True},
        {"exif": 5},
    ]
    for options in (*wrong, {"icc_profile": "sRGB"}):
        with pytest.raises(TypeError, match=next(iter(options))):
            image.save(tmp_path / "photo.vae", **options)
    for options in (
        {"effort": 10},
        {"tune": "ear"},
        {"threads": 0},
        {"target_size": -1},
        {"quality": 50, "target_size": 900},
    ):
        with pytest.raises(ValueError, match=list(options)[-1]):
            image.save(tmp_path / "photo.vae", **options)
    assert not list(tmp_path.iterdir())


def test_draft_chooses_a_preview(tmp_path):
    path = tmp_path / "photo.vae"
    image = photograph()
    image.save(path)
    with Image.open(path) as opened:
        opened.draft("RGB", (100, 60))
        assert opened.size == (-(-image.width // 4), -(-image.height // 4))
        np.testing.assert_array_equal(opened, vaecodec.decode(path, reduce=4))


def test_unsupported_modes_are_refused():
    for mode in ("I", "F", "LAB"):
        with pytest.raises(OSError, match=f"cannot write mode {mode} as VAE"):
            save_vae(Image.new(mode, (9, 9)))
    for quality in (0, 101, float("nan")):
        with pytest.raises(ValueError, match="expected a number in 1..100"):
            save_vae(Image.new("RGB", (9, 9)), quality=quality)
    with pytest.raises(OSError, match="no model is called"):
        save_vae(Image.new("RGB", (9, 9)), model="nobody's")


def test_a_failed_save_leaves_no_file(tmp_path):
    with pytest.raises(OSError):
        Image.new("F", (9, 9)).save(tmp_path / "a.vae")
    assert not list(tmp_path.iterdir())


def test_metadata_are_kept():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010E], exif[0x8769] = "two parrots", {0x9003: "1999:12:31 23:59:59"}
    metadata = {"icc_profile": profile, "exif": exif, "xmp": b"<x:xmpmeta/>", "dpi": (300, 150)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened_image = open_vae(save_vae(photograph(), **metadata))
        assert open_vae(save_vae(photograph(), exif=exif.tobytes(), xmp="<x/>")).info["xmp"] == b"<x/>"
    assert opened_image.info["icc_profile"] == profile and opened_image.info["xmp"] == b"<x:xmpmeta/>"
    assert opened_image.info["dpi"] == pytest.approx((300, 150), abs=0.02)
    assert opened_image.getexif()[0x010E] == "two parrots"
    assert opened_image.getexif().get_ifd(0x8769)[0x9003] == "1999:12:31 23:59:59"
    # Metadata of an opened image are kept, unless other values or None are given.
    kept, dropped = (open_vae(save_vae(opened_image, **options)).info for options in ({}, dict.fromkeys(metadata)))
    assert {kind: kept[kind] for kind in metadata} == {kind: opened_image.info[kind] for kind in metadata}
    assert not dropped.keys() & metadata.keys()
    # Other formats receive the metadata too.
    file = io.BytesIO()
    opened_image.save(file, "PNG", exif=opened_image.info["exif"], dpi=opened_image.info["dpi"])
    assert Image.open(file).info["icc_profile"] == profile and Image.open(file).getexif()[0x010E] == "two parrots"


def test_images_are_saved_upright():
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "on its side"
    opened_image = open_vae(save_vae(photograph(), exif=exif, quality=90))
    assert opened_image.size == photograph().size[::-1] and dict(opened_image.getexif()) == {0x010E: "on its side"}
    turned = photograph().transpose(Image.Transpose.ROTATE_270)
    assert np.abs(np.asarray(opened_image, float) - turned).mean() < 4


def test_modified_images_are_saved_as_modified(tmp_path):
    samples = synthetic_image(40, 50).astype(np.uint16) * 257
    from vaecodec.images.writing import encode_png16

    (tmp_path / "deep.png").write_bytes(encode_png16(samples))
    with Image.open(tmp_path / "deep.png") as image:
        image.paste((255, 0, 0), (0, 0, 40, 50))
        opened_image = open_vae(save_vae(image, quality=95))
    assert np.asarray(opened_image)[20, 20, 0] > 230 and np.asarray(opened_image)[20, 20, 1] < 30


def test_thumbnails_decode_a_preview():
    image, data = photograph(), save_vae(photograph(), quality=80)
    thumbnail, full = open_vae(data), open_vae(data)
    thumbnail.thumbnail((96, 96))
    assert thumbnail.size == (96, 64) and vaecodec.decode(data, reduce=4).shape == (128, 192, 3)
    image.thumbnail((96, 96))
    assert np.abs(np.asarray(thumbnail, float) - image).mean() < 3
    assert full.draft(None, (200, 100)) == ("RGB", (0, 0, 384.0, 256.0)) and full.size == (384, 256)
    np.testing.assert_array_equal(full, vaecodec.decode(data, reduce=2))
    assert full.draft(None, (20, 10)) is None
    odd_sided = open_vae(save_vae(Image.fromarray(synthetic_image(61, 33))))
    assert odd_sided.draft("RGB", (4, 4)) == ("RGB", (0, 0, 33 / 8, 61 / 8)) and odd_sided.copy().size == (5, 8)


def test_decompression_bombs_are_refused_before_decoding(monkeypatch):
    data = save_vae(photograph().resize((200, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)
    with pytest.warns(Image.DecompressionBombWarning):
        open_vae(data).load()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_000)
    with pytest.raises(Image.DecompressionBombError):
        open_vae(data)
    header = container.PICT.pack(1, 0, 3, 8, 1 << 23, 1 << 23)
    huge = container.MAGIC + container.pack_chunk(b"PICT", header) + container.pack_chunk(b"DATA", b"")
    with pytest.raises(Image.DecompressionBombError):
        open_vae(huge)


def test_stored_files_are_refused_with_their_name(tmp_path):
    (tmp_path / "notes.txt").write_text("notes")
    compress_file(tmp_path / "notes.txt", tmp_path / "notes.txt.vae")
    with pytest.raises(UnidentifiedImageError, match=r"notes\.txt\.vae: .*holds a file that is not an image"):
        Image.open(tmp_path / "notes.txt.vae")


def test_truncated_files_raise_os_errors():
    data = save_vae(photograph("RGBA").resize((96, 64)), dpi=(72, 72))
    data_offset = next(offset for tag, offset, _ in container.read_chunks(data) if tag == b"DATA")
    for size in (*range(16, len(data), 7), len(data) - 1):
        if size < data_offset:
            with pytest.raises(OSError):
                open_vae(data[:size]).load()
            continue
        image = open_vae(data[:size])  # the header is whole
        assert image.size == (96, 64)
        for _ in range(2):
            with pytest.raises(OSError, match="cut off"):
                image.load()
    with pytest.raises(UnidentifiedImageError):
        open_vae(data[:5])


def test_damage_raises_os_errors():
    data = bytearray(save_vae(photograph().resize((96, 64)), icc_profile=b"x" * 200))
    for position in range(8, len(data), 11):
        damaged = bytes(data[:position]) + bytes([data[position] ^ 16]) + bytes(data[position + 1 :])
        with pytest.raises(OSError):
            open_vae(damaged).load()
        with pytest.raises(OSError):
            open_vae(damaged).verify()
    open_vae(bytes(data)).verify()


def test_damaged_metadata_are_dropped():
    data = save_vae(photograph().resize((96, 64)))
    (header_offset, size, _) = next((o, n, t) for t, o, n in container.read_chunks(data) if t == b"HEAD")
    end = header_offset + size + 4
    with pytest.warns(UserWarning, match="xmp metadata is damaged"):
        image = open_vae(data[:end] + container.pack_chunk(b"xmp_", b"no stream") + data[end:])
    image.load()
    assert "xmp" not in image.info


def test_a_missing_model_raises_an_os_error():
    with pytest.raises(OSError, match="model"):
        open_vae((GOLDEN / "odd.vae").read_bytes()).load()


def test_unknown_versions_and_chunks_are_refused_or_skipped():
    data = save_vae(photograph().resize((96, 64)))
    start = len(container.MAGIC)
    (length,) = struct.unpack_from("<I", data, start)
    rest = data[start + 12 + length :]
    newer = bytearray(data[start + 8 : start + 8 + length])
    newer[0] = 9
    with pytest.raises(UnidentifiedImageError, match="version 9 is not supported"):
        open_vae(container.MAGIC + container.pack_chunk(b"HEAD", bytes(newer)) + rest)
    header_bytes = data[: start + 12 + length]
    assert open_vae(header_bytes + container.pack_chunk(b"note", b"skip me") + rest).copy().size == (96, 64)
    with pytest.raises(UnidentifiedImageError, match="does not know it"):
        open_vae(header_bytes + container.pack_chunk(b"NEED", b"") + rest)
    with pytest.raises(UnidentifiedImageError, match="occurs twice"):
        open_vae(header_bytes + header_bytes[start:] + rest)
    with pytest.raises(UnidentifiedImageError, match="must be HEAD or PICT"):
        open_vae(container.MAGIC + rest)


@pytest.mark.parametrize(
    "path", sorted([*GOLDEN.glob("*.vae"), *GOLDEN.glob("kinds/*.vae")]), ids=lambda path: path.stem
)
def test_the_preamble_agrees_with_the_whole_file(path):
    data = path.read_bytes()
    contents, preamble = image_file.contents(data), image_file.read_preamble(io.BytesIO(data))
    header = contents.header._replace(filter=b"") if isinstance(contents.header, image_file.Header) else contents.header
    assert (preamble.header, preamble.channels) == (
        header,
        contents.channels,
    )  # the preamble does not include a filter, which follows the table of tiles
    assert {n: container.inflate_metadata(n, v) for n, v in preamble.metadata.items()} == image_file.metadata(data)
    assert preamble.depth == image_file.info(data)["depth"]


def test_only_one_frame_is_saved(tmp_path):
    image = photograph()
    assert save_vae(image, save_all=True) == save_vae(image)
    with pytest.raises(OSError, match="cannot write 2 frames as VAE: a .vae file holds one image"):
        save_vae(image, save_all=True, append_images=[image])
    image.save(tmp_path / "two.gif", save_all=True, append_images=[image.rotate(90)])
    with Image.open(tmp_path / "two.gif") as gif:
        with pytest.raises(OSError, match="2 frames"):
            save_vae(gif, save_all=True)
        assert open_vae(save_vae(gif)).size == gif.size


def test_images_are_pickled_parsed_and_closed(tmp_path):
    data = save_vae(photograph().resize((96, 64)))
    unpickled = pickle.loads(pickle.dumps(open_vae(data)))
    np.testing.assert_array_equal(unpickled, vaecodec.decode(data))
    from PIL import ImageFile

    parser = ImageFile.Parser()
    for position in range(0, len(data), 100):
        parser.feed(data[position : position + 100])
    np.testing.assert_array_equal(parser.close(), vaecodec.decode(data))
    (tmp_path / "a.vae").write_bytes(data)
    with Image.open(tmp_path / "a.vae") as image:
        pass
    with pytest.raises(ValueError, match="closed"):
        image.load()


def test_vae_is_no_output_format_of_decompression():
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
    exact = iio.imwrite("<bytes>", pixels, extension=".vae", plugin="pillow", lossless=True)
    np.testing.assert_array_equal(iio.imread(exact), pixels)


def test_images_are_saved_without_loss_or_with_a_bound():
    pixels = np.asarray(photograph())
    exact, near = save_vae(photograph(), lossless=True), save_vae(photograph(), max_error=3)
    assert exact == vaecodec.encode(pixels, lossless=True) and near == vaecodec.encode(pixels, max_error=3)
    for data, coding, bound in ((exact, "lossless", 0), (near, "near-lossless", 3)):
        image = Image.open(io.BytesIO(data))
        assert image.info["coding"] == coding and "quality" not in image.info
        assert np.abs(np.asarray(image).astype(int) - pixels).max() == bound
    for options in ({"lossless": True, "quality": 50}, {"lossless": True, "max_error": 1}, {"max_error": 0}):
        with pytest.raises(ValueError, match=r"max_error|lossless"):
            save_vae(photograph(), **options)
