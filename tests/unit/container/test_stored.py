"""Test stored files: contents, name, permissions and time are restored, and damaged or hostile files are refused."""

import io
import os
import random
import tracemalloc
import zlib
from contextlib import suppress

import pytest

import vaecodec
from reference import reference_decoder
from support.paths import GOLDEN
from vaecodec.atomic import Attributes
from vaecodec.container import MAGIC, pack_chunk, stored, zstandard
from vaecodec.container.stored import Stored
from vaecodec.errors import CodecError, FormatError
from vaecodec.files.compression import decompress_file

zstd = zstandard()

METADATA = Stored(b"notes.txt", Attributes(0o640, 1_700_000_000_123_456_789))


def store(contents, metadata=METADATA):
    file = io.BytesIO()
    stored.write(io.BytesIO(contents), file, metadata)
    return file.getvalue()


def restore(data):
    file = io.BytesIO()
    metadata, content = stored.read(io.BytesIO(data), file)
    assert content == (len(file.getvalue()), zlib.crc32(file.getvalue()), len(data))
    return metadata, file.getvalue()


CONTENTS = {
    "nothing": b"",
    "a byte": b"x",
    "text": b"The quick brown fox. " * 5000,
    "noise": random.Random(0).randbytes(3_000_000),
    "zeros": bytes(5_000_000),
}


@pytest.mark.parametrize("contents", CONTENTS.values(), ids=CONTENTS)
def test_read_inverts_write(contents):
    data = store(contents)
    assert restore(data) == (METADATA, contents)
    assert reference_decoder.read_stored(data) == (METADATA.name, *METADATA.attributes, contents)
    assert len(data) <= len(contents) * 1.001 + 128
    info = stored.info(io.BytesIO(data))
    assert (info["size"], info["bytes"], info["name"]) == (len(contents), len(data), "notes.txt")
    assert (info["mode"], info["mtime_ns"]) == ("640", METADATA.attributes.mtime_ns)
    assert stored.info(io.BytesIO(data[16:]), data[:16]) == info == vaecodec.info(data)


@pytest.mark.parametrize("name", [b"", b"n\xff\xfe", b"a" * 255, "\u00e9t\u00e9\n".encode(), b".hidden", b"a\\b"])
@pytest.mark.parametrize("attributes", [Attributes(), Attributes(0, 0), Attributes(0o777, -1), Attributes(None, 5)])
def test_names_and_attributes_are_restored(name, attributes):
    metadata = Stored(name, attributes)
    data = store(b"contents", metadata)
    assert restore(data) == (metadata, b"contents")
    assert reference_decoder.read_stored(data) == (name, *attributes, b"contents")


def test_times_out_of_range_are_not_stored():
    metadata, _ = restore(store(b"", Stored(b"n", Attributes(0o600, 1 << 70))))
    assert metadata.attributes == (0o600, None)


@pytest.mark.parametrize("name", [b"../a", b"/etc/passwd", b"..", b".", b"a/b", b"a\0b", b"a" * 256])
def test_hostile_names_are_refused(name):
    with pytest.raises(FormatError, match="name"):
        store(b"", Stored(name))
    with pytest.raises(FormatError, match="name"):
        restore(with_head(name=name))
    with pytest.raises(ValueError, match="name"):
        reference_decoder.read_stored(with_head(name=name))


def with_head(name=b"n", **changes):
    """A stored file with a valid FILE except for `changes`, and with right CRCs."""
    fields = dict(zip(("version", "flags", "method", "reserved", "mode", "time"), (1, 3, 1, 0, 0o644, 1), strict=True))
    header = stored.FILE.pack(*(fields | changes).values()) + name
    data = store(b"contents", Stored())
    return MAGIC + pack_chunk(b"FILE", header) + data[8 + 12 + stored.FILE.size :]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version 2"),
        ({"flags": 4}, "flags"),
        ({"reserved": 1}, "flags"),
        ({"method": 2}, "method 2"),
        ({"mode": 0o4755}, "permissions"),
        ({"flags": 2}, "permissions"),
        ({"flags": 1}, "time"),
    ],
)
def test_fields_out_of_range_are_named(changes, message):
    assert restore(with_head())[1] == b"contents"
    with pytest.raises(FormatError, match=message):
        restore(with_head(**changes))
    with pytest.raises(ValueError, match="FILE|version|method"):
        reference_decoder.read_stored(with_head(**changes))


def test_truncations_and_flipped_bits_are_detected():
    data = store(b"some contents" * 20)
    for end in range(len(data)):
        with pytest.raises(FormatError):
            restore(data[:end])
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FormatError):
            restore(bytes(damaged))
        with pytest.raises(FormatError):
            stored.info(io.BytesIO(damaged))
    with pytest.raises(FormatError, match="follow the end"):
        restore(data + b"\0")


def parts(*payloads, contents=b"contents"):
    """A stored file of these PARTs, with right CRCs."""
    header = pack_chunk(b"FILE", stored.FILE.pack(1, 0, 1, 0, 0, 0))
    done = pack_chunk(b"DONE", stored.DONE.pack(len(contents), zlib.crc32(contents)))
    return MAGIC + header + b"".join(pack_chunk(b"PART", payload) for payload in payloads) + done


def test_frames_may_be_split_anywhere_and_concatenated():
    first, second = zstd.compress(b"cont"), zstd.compress(b"ents")
    data = parts(first[:3], b"", first[3:] + second[:5], second[5:])
    assert restore(data)[1] == reference_decoder.read_stored(data)[3] == b"contents"


def test_invalid_zstandard_payloads_are_refused():
    frame = zstd.compress(b"contents")
    assert restore(parts(frame))[1] == b"contents"
    rng = random.Random(1)
    for _ in range(2000):
        damaged = bytearray(frame)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        with suppress(FormatError):
            assert restore(parts(bytes(damaged)))[1] == b"contents"  # some flags have no effect
    for payloads in ((), (frame[:-2],), (frame, b"tail"), (frame, frame)):
        with pytest.raises(FormatError, match="damaged"):
            restore(parts(*payloads))


def test_windows_beyond_the_limit_are_refused():
    contents = random.Random(2).randbytes(1000) * 20000
    for log, valid in ((23, True), (24, False)):
        writer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
        frame = writer.compress(contents) + writer.flush()  # two calls avoid a single-segment frame
        if valid:
            assert restore(parts(frame, contents=contents))[1] == contents
        else:
            with pytest.raises(FormatError, match="memory|window"):
                restore(parts(frame, contents=contents))


def test_decompression_bombs_need_little_memory():
    class Counts:
        size = 0

        def write(self, data):
            self.size += len(data)

    class Zeros:
        left = 1 << 28

        def read(self, count):
            count = min(count, self.left)
            self.left -= count
            return bytes(count)

    bomb, counts = io.BytesIO(), Counts()
    stored.write(Zeros(), bomb, METADATA)
    assert len(bomb.getvalue()) < 50_000
    tracemalloc.start()
    stored.read(io.BytesIO(bomb.getvalue()), counts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.size == 1 << 28 and peak < 8 << 20


def test_the_size_of_chunks_is_checked_before_reading():
    claim = MAGIC + (2**32 - 1).to_bytes(4, "little") + b"FILE" + bytes(40)
    with pytest.raises(FormatError, match="claims 4294967295 bytes"):
        restore(claim)
    long = store(b"")[:-24] + pack_chunk(b"PART", bytes(stored.MAX_CHUNK + 1)) + store(b"")[-24:]
    with pytest.raises(FormatError, match="claims"):
        restore(long)
    with pytest.raises(ValueError, match="longer"):
        reference_decoder.read_stored(long)


def test_misplaced_chunks_are_refused():
    data = store(b"contents")
    end = len(data) - 24
    assert restore(data[:end] + pack_chunk(b"note", b"hello") + data[end:])[1] == b"contents"
    for tag in (b"NOTE", b"HEAD", b"DATA", b"FILE"):
        with pytest.raises(FormatError):
            restore(data[:end] + pack_chunk(tag, b"hello") + data[end:])
    with pytest.raises(FormatError, match="FILE"):
        restore(data[:8] + data[end:])
    photo = (GOLDEN / "photo.vae").read_bytes()
    with pytest.raises(FormatError, match="FILE"):
        restore(photo)
    for read in (vaecodec.decode, vaecodec.container.image_file.info):
        with pytest.raises(FormatError, match="not an image"):
            read(data)


def test_the_golden_stored_file_is_restored():
    metadata, contents = restore((GOLDEN / "stored" / "notes.txt.vae").read_bytes())
    assert metadata == Stored("n\u00f6tes.txt".encode(), Attributes(0o604, 1_234_567_890_987_654_321))
    assert contents == (GOLDEN / "stored" / "notes.txt").read_bytes()
    assert reference_decoder.read_stored((GOLDEN / "stored" / "notes.txt.vae").read_bytes())[3] == contents


def test_unreadable_sources_raise_a_codec_error():
    class Broken:
        def read(self, count):
            raise OSError(5, "Input/output error")

    with pytest.raises(CodecError, match="cannot be read"):
        stored.write(Broken(), io.BytesIO(), METADATA)


def test_names_of_this_system_are_restored(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (b"n\xff.txt", b"two\nlines", "\u00e9t\u00e9".encode(), b"-rf", b" "):
        with open(name, "wb") as file:
            file.write(name)
        os.utime(name, ns=(1, 1_600_000_000_000_000_001))
        os.chmod(name, 0o604)
        text = os.fsdecode(name)
        assert vaecodec.compress_file(text, None, remove=True)["kind"] == "file"
        assert vaecodec.decompress_file(text + ".vae", None, remove=True)["output"] == text
        status = os.stat(name)
        assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o604, 1_600_000_000_000_000_001)
        assert os.listdir(b".") == [name]
        os.remove(name)


@pytest.mark.parametrize(
    "name",
    [b".vaecodec-manifest.jsonl", b".vaecodec-0123456789abcdef.tmp", b".VAECODEC-manifest.jsonl", b".bash_profile"],
)
def test_harmful_names_are_restored_only_on_request(name, tmp_path):
    source = tmp_path / "notes.vae"
    source.write_bytes(store(b"contents", Stored(name)))
    with pytest.raises(CodecError, match="may be harmful here; choose another with -o"):
        decompress_file(source)
    assert os.listdir(tmp_path) == ["notes.vae"]
    decompress_file(source, tmp_path / "notes")
    assert (tmp_path / "notes").read_bytes() == b"contents"


def test_the_names_of_hidden_files_are_restored(tmp_path):
    source = tmp_path / ".profile.vae"
    source.write_bytes(store(b"contents", Stored(b".profile")))
    decompress_file(source)
    assert (tmp_path / ".profile").read_bytes() == b"contents"


def test_skipped_chunks_are_bounded():
    data = store(b"contents", METADATA)
    end = len(data) - len(pack_chunk(b"DONE", bytes(12)))
    assert restore(data[:end] + pack_chunk(b"note", b"") * 1024 + data[end:])[1] == b"contents"
    with pytest.raises(FormatError, match="more than 1024 chunks"):
        restore(data[:end] + pack_chunk(b"note", b"") * 1025 + data[end:])
