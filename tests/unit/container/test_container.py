"""Test the container: parsing inverts packing, and damage is detected."""

import io
import struct
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

import vaecodec.integrations.pillow  # noqa: F401  (makes .vae a format of Pillow)
from vaecodec import container
from vaecodec.codec import modes
from vaecodec.config import QUALITY_INDICES
from vaecodec.container import ALPHA, GREY, image_file, insert_chunks, pack_chunk
from vaecodec.container.image_file import (
    FallbackHeader,
    Header,
    contents,
    info,
    metadata,
    pack,
    pack_fallback,
    parse,
    with_pixel_crcs,
)
from vaecodec.errors import FormatError, LimitError
from vaecodec.files import compression

MODEL = "0123456789abcdef" * 2
HEADER = Header(MODEL, 100, 200, 448, 128)
TILES = [(b"abcd", 1, 3), (b"", 2, 4)]
META = {"icc": b"profile" * 100, "exif": b"Exif\0\0..", "xmp": b"<x/>", "dpi": bytes(8)}
DEEP = FallbackHeader("lossless", 100, 200, 4, 16)
AVIF = FallbackHeader("avif", 100, 200, 4, 8)
ADAPTIVE = FallbackHeader("adaptive", 100, 200, 3, 12, max_error=0, tile=64)


def test_parse_inverts_pack():
    data = pack(HEADER, TILES, META)
    parsed = parse(data)
    assert parsed.header == HEADER
    assert [(data[t.offset : t.offset + t.length], t.crc, t.pixels) for t in parsed.tiles] == TILES
    assert metadata(data) == META
    assert info(data) == {
        "kind": "picture",
        "version": 1,
        "coding": "vae",
        "model": MODEL,
        "height": 100,
        "width": 200,
        "quality": 43.9,
        "step": 448,
        "tile": 128,
        "tiles": 2,
        "filtered": False,
        "channels": 3,
        "depth": 8,
        "metadata": ["dpi", "exif", "icc", "xmp"],
        "bytes": len(data),
        "bpp": 8 * len(data) / 20000,
    }


def test_overhead_of_a_one_tile_file_is_74_bytes():
    assert len(pack(Header("00" * 16, 8, 8, 0, 1024), [(b"", 0, 0)])) == 74


def test_crcs_of_pixels_may_follow_later():
    data = pack(HEADER._replace(filter=b"a filter"), TILES, META)
    later = with_pixel_crcs(pack(HEADER._replace(filter=b"a filter"), [(*tile[:2], 0) for tile in TILES], META), [3, 4])
    assert later == data and parse(later).header.filter == b"a filter"


def test_pict_files_have_the_size_in_their_header():
    data = pack_fallback(DEEP, b"a PNG", META)
    parsed = contents(data)
    assert parsed.header == DEEP and bytes(parsed.data.of(data)) == b"a PNG" and parsed.channels == 4
    assert metadata(data) == META
    file_info = info(data)
    assert file_info == {
        "kind": "picture",
        "version": 1,
        "coding": "lossless",
        "height": 100,
        "width": 200,
        "channels": 4,
        "depth": 16,
        "max_error": 0,
        "metadata": ["dpi", "exif", "icc", "xmp"],
        "bytes": len(data),
        "bpp": 8 * len(data) / 20000,
    }
    with pytest.raises(FormatError, match="lossless"):
        parse(data)
    assert len(pack_fallback(DEEP, b"")) == 44


def test_grey_and_alpha_are_separate_chunks():
    rgb = pack(HEADER, TILES, META)
    assert insert_chunks(rgb, []) == rgb
    for extra, channels in (([], 3), ([(GREY, b"")], 1), ([(ALPHA, b"x")], 4), ([(GREY, b""), (ALPHA, b"x")], 2)):
        data = insert_chunks(rgb, extra)
        parsed = contents(data)
        assert parsed.channels == channels == info(data)["channels"]
        assert parse(data).header == HEADER and metadata(data) == META
        assert (parsed.alpha is not None and bytes(parsed.alpha.of(data))) == (channels in (2, 4) and b"x")
    for extra in ([(GREY, b"x")], [(GREY, b"")] * 2, [(ALPHA, b"x")] * 2):
        with pytest.raises(FormatError, match="grey|ALPH"):
            contents(insert_chunks(rgb, extra))
    for tag in (GREY, ALPHA):
        with pytest.raises(FormatError, match="does not go with"):
            contents(insert_chunks(pack_fallback(DEEP, b""), [(tag, b"")]))
    assert contents(insert_chunks(pack_fallback(AVIF, b""), [(ALPHA, b"x")])).channels == 4
    with pytest.raises(FormatError, match="ALPH"):
        contents(pack_fallback(AVIF, b""))


@pytest.mark.parametrize(
    ("channels", "tag", "fits"), [(1, ALPHA, True), (1, GREY, False), (2, ALPHA, False), (2, GREY, False)]
)
def test_beside_a_model_of_other_channels_is_alpha_alone(channels, tag, fits):
    """A grey model's file may have alpha; what is no image has nothing beside it."""
    data = insert_chunks(pack(HEADER._replace(channels=channels), TILES), [(tag, b"x" if tag == ALPHA else b"")])
    if fits:
        assert contents(data).channels == channels + 1
    else:
        with pytest.raises(FormatError, match=f"does not go with {channels} channels"):
            contents(data)


@pytest.mark.parametrize(
    "data",
    [
        pack(HEADER, TILES, META),
        insert_chunks(pack(HEADER, TILES), [(GREY, b""), (ALPHA, b"x")]),
        pack_fallback(DEEP, b"x", META),
    ],
)
def test_truncations_and_flipped_bits_are_detected(data):
    for end in range(len(data)):
        with pytest.raises(FormatError):
            contents(data[:end])
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            metadata(bytes(damaged))
    with pytest.raises(FormatError, match="follow the end"):
        contents(data + b"\0")


def with_head(**changes):
    """A file with a valid HEAD except for `changes`, and with right CRCs."""
    names = ("version", "flags", "model", "height", "width", "quality_index", "size", "channels")
    values = dict(zip(names, (1, 0, b"0123456789abcdef", 100, 200, 0, 7, 0), strict=True)) | changes
    header = image_file.HEAD.pack(*values.values()) + bytes(24)
    return container.MAGIC + pack_chunk(b"HEAD", header) + pack_chunk(b"DATA", b"")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"flags": 32}, "flags"),
        ({"flags": 128 + 2}, "flags"),
        ({"flags": 1}, "there is a filter"),
        ({"flags": 15}, "there is a filter"),
        ({"channels": 3}, "3 are written as 0"),
        ({"channels": 17}, "at most 16"),
        ({"height": 0}, "200 x 0"),
        ({"width": 2**32 - 1}, "sides"),
        ({"quality_index": 1233}, "quality index 1233"),
        ({"size": 5}, "tiles of"),
        ({"size": 13}, "tiles of"),
        ({"height": 2**24, "width": 2**24}, "expected 17179869184"),
    ],
)
def test_fields_of_head_out_of_range_are_named(changes, message):
    assert parse(with_head()).header.height == 100
    with pytest.raises(FormatError, match=message):
        parse(with_head(**changes))


def with_pict(**changes):
    """A file with a valid PICT except for `changes`, and with right CRCs."""
    names = ("version", "coding", "channels", "depth", "height", "width")
    values = dict(zip(names, (1, 0, 3, 8, 100, 200), strict=True)) | changes
    return container.MAGIC + pack_chunk(b"PICT", container.PICT.pack(*values.values())) + pack_chunk(b"DATA", b"")


def with_adaptive_pict(depth=8, max_error=0, tile=10, expansion=0, tail=b""):
    payload = container.PICT.pack(1, 2, 3, depth, 100, 200) + container.ADAPTIVE.pack(max_error, tile, expansion) + tail
    return container.MAGIC + pack_chunk(b"PICT", payload) + pack_chunk(b"DATA", b"")


def test_fields_of_the_adaptive_coding_are_kept_and_checked():
    for header in (ADAPTIVE, ADAPTIVE._replace(max_error=16, depth=16, expansion=2)):
        data = pack_fallback(header, b"", META)
        assert contents(data).header == header == image_file.read_preamble(io.BytesIO(data)).header
        assert info(data)["max_error"] == header.max_error
        assert info(data)["coding"] == ("near-lossless" if header.max_error else "lossless")
    for fields in (
        {"depth": 7},
        {"depth": 17},
        {"max_error": 17},
        {"tile": 5},
        {"tile": 13},
        {"depth": 15, "expansion": 1},
        {"depth": 16, "expansion": 3},
        {"tail": b"x"},
    ):
        with pytest.raises(FormatError):
            contents(with_adaptive_pict(**fields))
    assert contents(with_adaptive_pict(depth=16, max_error=16, tile=12, expansion=2)).header.tile == 4096


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"channels": 0}, "0 channels"),
        ({"channels": 5}, "5 channels"),
        ({"depth": 12}, "12 bits"),
        ({"coding": 3}, "coding 3"),
        ({"coding": 1, "depth": 16}, "16 bits"),
        ({"coding": 1, "channels": 4}, "ALPH"),
        ({"width": 0}, "0 x 100"),
        ({"height": 0}, "200 x 0"),
        ({"width": 2**24 + 1}, "sides"),
    ],
)
def test_fields_of_pict_out_of_range_are_named(changes, message):
    assert contents(with_pict()).header.height == 100
    with pytest.raises(FormatError, match=message):
        contents(with_pict(**changes))
    with pytest.raises(FormatError, match="long"):
        contents(container.MAGIC + pack_chunk(b"PICT", b"\1") + pack_chunk(b"DATA", b""))


def test_unknown_chunks_are_skipped_or_refused_by_their_first_letter():
    data = pack(HEADER, TILES)
    at = data.index(b"DATA") - 4
    for tag in (b"aote", b"note", b"zote"):
        assert parse(data[:at] + pack_chunk(tag, b"hello") + data[at:]).header == HEADER
    for tag in (b"`ote", b"{ote", b"AOTE", b"NOTE", b"ZOTE"):
        with pytest.raises(FormatError, match=tag.decode()):
            parse(data[:at] + pack_chunk(tag, b"hello") + data[at:])
    with pytest.raises(FormatError, match="HEAD"):
        parse(data[:at] + pack_chunk(b"HEAD", b"hello") + data[at:])
    with pytest.raises(FormatError, match="HEAD"):
        parse(data[:8] + data[at:])


def test_metadata_that_inflate_beyond_the_limit_are_refused():
    import zlib

    data = pack(HEADER, TILES)
    at = data.index(b"DATA") - 4
    bomb = zlib.compress(bytes(container.MAX_METADATA + 1), 9)
    with pytest.raises(FormatError, match="larger"):
        metadata(data[:at] + pack_chunk(b"iccp", bomb) + data[at:])


@pytest.mark.parametrize("payload", [b"", b"no deflate stream", b"\x78\x9c\x03", b"\x78\x9c\x03\0\0\0\0\1more"])
def test_metadata_that_are_no_deflate_stream_are_refused(payload):
    data = pack(HEADER, TILES)
    at = data.index(b"DATA") - 4
    reason = r"exif metadata is damaged \(Error" if payload[:1] == b"n" else "exif metadata is damaged or larger"
    with pytest.raises(FormatError, match=reason):
        metadata(data[:at] + pack_chunk(b"exif", payload) + data[at:])


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n" + bytes(40), bytes(100)])
def test_other_data_are_refused(data):
    with pytest.raises(FormatError, match="not a .vae file"):
        parse(data)


def test_tiles_must_fill_data():
    data = pack(HEADER, TILES)
    at = data.index(b"DATA") - 4
    with pytest.raises(FormatError, match="fill"):
        parse(data[:at] + pack_chunk(b"DATA", b"abcdefgh"))


def test_quality_and_quality_index_are_inverse():
    for quality_index in range(QUALITY_INDICES):
        assert image_file.quality_index_of(image_file.quality_of(quality_index)) == quality_index
    assert image_file.quality_index_of(1) == 0 and image_file.quality_index_of(100) == 1232
    for quality in (0.99, 100.1, float("nan"), -3):
        with pytest.raises(ValueError, match="quality"):
            image_file.quality_index_of(quality)


def test_lengths_beyond_the_file_are_refused_before_reading():
    data = container.MAGIC + struct.pack("<I", 2**32 - 1) + b"HEAD" + bytes(40)
    with pytest.raises(FormatError, match="cut off"):
        parse(data)


TILES_OF_LARGEST = 1 << 24


@pytest.fixture(scope="module")
def many_tiles():
    """A file of 2**24 x 2**24 pixels with empty tiles; its table of tiles has 192 MiB."""
    header = image_file.HEAD.pack(1, 0, bytes(16), 1 << 24, 1 << 24, 448, 12, 0)
    table = struct.pack("<II", 0, 0x12345678) * TILES_OF_LARGEST + struct.pack("<I", 7) * TILES_OF_LARGEST
    return b"".join([container.MAGIC, pack_chunk(b"HEAD", header + table), pack_chunk(b"DATA", b"")])


def run_with_limits(work):
    """Call `work`, check that it needs little memory and processor time, and return its result."""
    began = time.process_time()
    tracemalloc.start()
    try:
        result = work()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 20  # 0.3 s; a list of all tiles takes minutes
    return result


def test_millions_of_tiles_need_little_memory_and_time(many_tiles):
    assert run_with_limits(lambda: info(many_tiles))["tiles"] == TILES_OF_LARGEST
    tiles = run_with_limits(lambda: contents(many_tiles)).tiles
    assert tiles[-1] == tiles[TILES_OF_LARGEST - 1] == (len(many_tiles) - 4, 0, 0x12345678, 7)


def test_limits_are_checked_before_tiles_are_read(many_tiles, tmp_path):
    path = tmp_path / "many.vae"
    path.write_bytes(many_tiles)

    def open_with_pillow():
        with Image.open(path):
            pass

    calls = {
        "decode": lambda: modes.decode(many_tiles),
        "decode_batch": lambda: modes.decode_batch([many_tiles]),
        "verify": lambda: modes.verify(many_tiles),
        "verify_file": lambda: compression.verify_file(path),
        "decompress_file": lambda: compression.decompress_file(path, tmp_path / "out.png"),
    }
    for work in calls.values():
        with pytest.raises(LimitError, match="16777216 x 16777216 pixels: a side exceeds the limit"):
            run_with_limits(work)
    with pytest.raises(Image.DecompressionBombError):
        run_with_limits(open_with_pillow)


def test_the_table_of_tiles_is_a_sequence():
    rng = np.random.default_rng(0)
    lengths, crcs, pixels = (rng.integers(0, 1 << 32, 3 * image_file.TILES_AT_ONCE - 5) for _ in range(3))
    table = np.stack([lengths, crcs], 1).astype("<u4").tobytes() + pixels.astype("<u4").tobytes()
    tiles = image_file.TileTable(table, 77)
    starts = (77 + np.cumsum([0, *lengths])).tolist()
    assert list(tiles) == list(zip(starts[:-1], lengths.tolist(), crcs.tolist(), pixels.tolist(), strict=True))
    assert tiles.end == starts[-1] and tiles[-1] == tiles[len(tiles) - 1]
    assert tiles[5000:2:-1999] == [tiles[5000], tiles[3001], tiles[1002]]
    with pytest.raises(IndexError):
        tiles[len(tiles)]
    assert not len(image_file.TileTable()) and image_file.TileTable(b"", 5).end == 5


def test_skipped_chunks_are_bounded(tmp_path):
    data = pack(HEADER, TILES)
    at = data.index(b"DATA") - 4
    most = pack_chunk(b"note", b"") * container.MAX_UNKNOWN
    assert info(data[:at] + most + data[at:])["tiles"] == 2
    flooded = data[:at] + most + pack_chunk(b"note", b"") + data[at:]
    for read_file in (info, lambda data: image_file.read_preamble(io.BytesIO(data))):
        with pytest.raises(FormatError, match="more than 1024 chunks that this version does not know"):
            read_file(flooded)
