"""Test that oversized AV1 frames and TIFF tiles are refused before decoding."""

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from vaecodec import images
from vaecodec.codec import fallback
from vaecodec.container import image_file
from vaecodec.errors import CodecError, FormatError
from vaecodec.images.reading import read_image

AvifImagePlugin = pytest.importorskip("PIL.AvifImagePlugin")
pytestmark = pytest.mark.skipif(not fallback.has_avif(), reason="this Pillow has no AVIF")


def encoded(width, height, mode="RGB", **options):
    file = io.BytesIO()
    image = Image.fromarray(synthetic_image(height, width)).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(synthetic_image(height, width, 1)[..., 0]))
    image.save(file, "AVIF", speed=10, max_threads=1, **options)
    return file.getvalue()


def claiming(data, width, height):
    """Change the size that the container states, but not the frame."""
    out = bytearray(data)
    struct.pack_into(">II", out, out.index(b"ispe") + 8, width, height)
    return bytes(out)


def in_vae(data, width, height):
    header = image_file.FallbackHeader("avif", height, width, 3, 8)
    return image_file.pack_fallback(header, data)


@pytest.fixture
def no_decoder(monkeypatch):
    """Fail the test if Pillow's decoder starts."""

    def refuse(*_, **__):
        pytest.fail("a decoder was started")

    monkeypatch.setattr(AvifImagePlugin.AvifImageFile, "load", refuse)


@pytest.mark.parametrize("size", [(512, 64), (64, 512), (65, 64)])
def test_frames_larger_than_the_header_are_refused_before_decoding(size, no_decoder):
    data = in_vae(claiming(encoded(*size), 64, 64), 64, 64)
    with pytest.raises(FormatError, match="AVIF part holds a frame that is not of the size"):
        vaecodec.decode(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_image_files_with_oversized_frames_are_refused_before_decoding(mode, no_decoder):
    with pytest.raises(CodecError, match="image: the AVIF has a frame of 512 x 80 pixels in an image of 64 x 64"):
        read_image(claiming(encoded(512, 80, mode), 64, 64))


@pytest.mark.parametrize(
    "options", [{}, {"subsampling": "4:2:0"}, {"subsampling": "4:0:0"}, {"icc_profile": b"x" * 99}]
)
@pytest.mark.parametrize("size", [(1, 1), (64, 48), (333, 77)])
def test_the_size_of_frames_is_parsed(size, options):
    data = encoded(*size, **options)
    images.check_still_avif(data, *size)
    images.check_avif(data, *size)
    for less in ((size[0] - 1, size[1]), (size[0], size[1] - 1)):
        with pytest.raises(FormatError, match="not of the size"):
            images.check_still_avif(data, *less)


def test_frames_of_alpha_are_checked(monkeypatch):
    data = encoded(512, 80, "RGBA")
    items = images._items(data)
    assert len(items.needed()) == 2
    images.check_avif(data, 512, 80)
    (alpha,) = items.needed() - {items.primary}
    large = items._replace(data=items.data | {alpha: images._items(encoded(512, 96)).data[1]})
    with monkeypatch.context() as patch:
        patch.setattr(images, "_items", lambda _: large)
        with pytest.raises(FormatError, match="a frame of 512 x 96 pixels in an image of 512 x 80"):
            images.check_avif(data, 512, 80)
    with pytest.raises(FormatError, match="other things than one image"):
        images.check_still_avif(data, 512, 80)


def test_the_first_image_of_a_sequence_is_checked():
    frames = [Image.fromarray(synthetic_image(48, 64, seed)) for seed in range(3)]
    file = io.BytesIO()
    frames[0].save(file, "AVIF", save_all=True, append_images=frames[1:], speed=10)
    images.check_avif(file.getvalue(), 64, 48)
    with pytest.raises(FormatError, match="a frame of 64 x 48 pixels in an image of 63 x 48"):
        images.check_avif(file.getvalue(), 63, 48)
    with pytest.raises(FormatError, match="other things than one image"):
        images.check_still_avif(file.getvalue(), 64, 48)


class Bits:
    """Write the fields of a header."""

    def __init__(self):
        self.text = ""

    def write(self, *fields):
        for value, count in fields:
            self.text += f"{value:0{count}b}" if count else ""
        return self

    def obu(self, kind):
        text = self.text + "1"
        data = int(text.ljust(-(-len(text) // 8) * 8, "0"), 2).to_bytes(-(-len(text) // 8), "big")
        return bytes([kind << 3 | 2, len(data)]) + data


def sequence_header(width, height, bits, timing=False, ids=False):
    """A sequence header without reduced_still_picture_header (AV1, 5.5.1)."""
    header = Bits().write((0, 3), (0, 1), (0, 1), (int(timing), 1))
    if timing:  # with a decoder model, of 7 bits for the time
        header.write((1, 32), (30, 32), (0, 1), (1, 1), (4, 5), (9, 32), (5, 5), (6, 5))
    header.write((1, 1), (1, 5))  # display delays; two operating points, one of them with a tier
    for level in (5, 9):
        header.write((0, 12), (level, 5))
        header.write(*[(1, 1)] * (level > 7))
        if timing:
            header.write((1, 1), (3, 5), (4, 5), (0, 1))
        header.write((1, 1), (7, 4))
    header.write((bits - 1, 4), (bits - 1, 4), (width - 1, bits), (height - 1, bits), (int(ids), 1))
    if ids:
        header.write((2, 4), (1, 3))  # 6 bits
    header.write((0, 3), (0, 4), (1, 1), (0, 2), (1, 1), (1, 1), (5, 3), (0, 3), (0, 1))
    return header.obu(images.SEQUENCE_HEADER)


def frame_header(override, timing=False, ids=False):
    header = Bits().write((0, 1), (images.KEY_FRAME, 2), (1, 1))
    header.write(*[(99, 7)] * timing).write((0, 1), (1, 1), (0, 1)).write(*[(33, 6)] * ids)
    return header.write((int(override), 1)).obu(images.FRAME)


@pytest.mark.parametrize("timing", [False, True])
@pytest.mark.parametrize("ids", [False, True])
def test_frames_that_override_their_size_count_as_the_largest_possible(timing, ids):
    sequence = sequence_header(64, 48, 16, timing, ids)
    frames = [*images._frames(sequence + frame_header(False, timing, ids))]
    assert frames == [(64, 48, False)] * 2
    *_, overriding = images._frames(sequence + frame_header(True, timing, ids))
    assert overriding == (1 << 16, 1 << 16, False)


def test_damage_raises_only_format_errors():
    data, rng = encoded(64, 48), np.random.default_rng(0)
    for n in range(1500):
        damaged = bytearray(data[: rng.integers(1, len(data))] if n % 3 == 0 else data)
        for position in rng.integers(0, len(damaged), rng.integers(0, 4)):
            damaged[position] = rng.integers(256)
        for check in (images.check_still_avif, images.check_avif):
            with contextlib.suppress(FormatError):
                check(bytes(damaged), 64, 48)


def test_tiff_tiles_larger_than_the_image_are_refused():
    side = 1 << 14
    tags = {256: 64, 257: 64, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 0, 325: 0}
    tiff = b"II*\0" + struct.pack("<IH", 8, len(tags))
    tile = zlib.compress(bytes(side))
    tags |= {324: 14 + 12 * len(tags), 325: len(tile)}
    tiff += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()) + bytes(4) + tile
    with pytest.raises(CodecError, match="a tile of 268435456 pixels in an image of 64 x 64"):
        read_image(tiff)
