"""Test atomic writing of files, and that compression and decompression lose no source."""

import contextlib
import errno
import io
import os
import struct
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import vaecodec
from support.images import synthetic_image
from vaecodec.atomic import Attributes, write_atomic
from vaecodec.codec import Codec, fallback, modes
from vaecodec.container import image_file
from vaecodec.errors import CodecError, FormatError
from vaecodec.files import compression
from vaecodec.files.compression import compress_file, decompress_file
from vaecodec.files.outputs import compressed_name, decompressed_name
from vaecodec.images import strips
from vaecodec.images.reading import read_image

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(vaecodec.__file__))}


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    exif = Image.Exif()
    exif[0x010F] = "Acme"
    Image.fromarray(synthetic_image(50, 70)).save(path, exif=exif)
    return path


def file_names(folder):
    return sorted(os.listdir(folder))


# write_atomic


@pytest.fixture(params=[True, False], ids=["nameless", "named"])
def temporary(request, monkeypatch):
    """Use temporary files without a name, or named files as on systems without O_TMPFILE."""
    if not request.param:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


def test_bytes_or_the_output_of_a_callable_are_written(tmp_path, temporary):
    write_atomic(tmp_path / "a", b"bytes")
    write_atomic(tmp_path / "b", lambda file: file.write(b"called"))
    assert (tmp_path / "a").read_bytes() == b"bytes" and (tmp_path / "b").read_bytes() == b"called"
    assert file_names(tmp_path) == ["a", "b"]


def test_an_existing_file_is_replaced_only_on_request(tmp_path, temporary):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError) as caught:
        write_atomic(path, b"new")
    assert caught.value.filename == str(path) and path.read_bytes() == b"old"
    write_atomic(path, b"new", overwrite=True)
    assert path.read_bytes() == b"new" and file_names(tmp_path) == ["a"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_failed_write_changes_no_file(tmp_path, overwrite, temporary):
    (tmp_path / "a").write_bytes(b"old")

    def fails(file):
        file.write(b"half")
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError):
        write_atomic(tmp_path / ("a" if overwrite else "b"), fails, overwrite)
    assert file_names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


@pytest.mark.parametrize("mask", [0o022, 0o077])
@pytest.mark.parametrize("overwrite", [False, True])
def test_permissions_follow_the_umask(tmp_path, mask, overwrite, temporary):
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "a", b"", overwrite)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask


def test_links_are_followed_and_kept(tmp_path, temporary):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/target")
    write_atomic(tmp_path / "link", b"1")
    write_atomic(tmp_path / "link", b"2", overwrite=True)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "there/target").read_bytes() == b"2"


def test_devices_are_written_and_not_replaced():
    write_atomic(os.devnull, b"gone", overwrite=True)
    assert not os.path.isfile(os.devnull)


def test_folders_are_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    for overwrite in (False, True):
        with pytest.raises(OSError):
            write_atomic(tmp_path / "a", b"", overwrite)
    assert file_names(tmp_path) == ["a"] and (tmp_path / "a").is_dir()


def test_attributes_are_set_before_the_file_appears(tmp_path, temporary):
    attributes = Attributes(0o604, 1_600_000_000_000_000_001)
    write_atomic(tmp_path / "a", b"", attributes=attributes)
    status = (tmp_path / "a").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == attributes
    modes = []
    write_atomic(
        tmp_path / "b", lambda file: modes.append(os.fstat(file.fileno()).st_mode & 0o77), False, False, attributes
    )
    assert modes == [0]


def test_a_file_with_the_same_contents_is_adopted(tmp_path, temporary):
    write_atomic(tmp_path / "a", b"same")

    def state():
        status = (tmp_path / "a").stat()
        return status.st_ino, status.st_mtime_ns, status.st_mode, status.st_size  # without the time of the last access

    before = state()
    write_atomic(tmp_path / "a", b"same", adopt=True)
    assert state() == before and file_names(tmp_path) == ["a"]
    with pytest.raises(FileExistsError):
        write_atomic(tmp_path / "a", b"other", adopt=True)
    assert (tmp_path / "a").read_bytes() == b"same" and file_names(tmp_path) == ["a"]


def without_hard_links(*_, **__):
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_one_of_many_writers_succeeds(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)
        monkeypatch.setattr(os, "link", without_hard_links)
    results, start = [], threading.Barrier(8)

    def write(number):
        start.wait()
        try:
            write_atomic(tmp_path / "a", bytes([number]) * 100_000)
            results.append(number)
        except FileExistsError:
            results.append(None)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = (number for number in results if number is not None)
    assert len(results) == 8 and (tmp_path / "a").read_bytes() == bytes([winner]) * 100_000
    assert file_names(tmp_path) == ["a"]


def test_concurrent_overwriting_leaves_a_complete_file(tmp_path, temporary):
    def write(number):
        for _ in range(10):
            write_atomic(tmp_path / "a", bytes([number]) * 100_000, overwrite=True)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    content = (tmp_path / "a").read_bytes()
    assert len(content) == 100_000 and len(set(content)) == 1 and file_names(tmp_path) == ["a"]


# Write 64 KiB with a limit of 4 KiB for files, which has the effect of a full disk.
FULL = """
import resource, signal, sys
from vaecodec import atomic
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    atomic.write_atomic(sys.argv[1], bytes(65536), overwrite=True)
except OSError as exc:
    assert exc.filename == sys.argv[1], exc.filename
    sys.exit(3)
"""


def test_a_full_disk_keeps_the_old_file(tmp_path):
    (tmp_path / "a").write_bytes(b"old")
    command = [sys.executable, "-c", FULL, tmp_path / "a"]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert process.returncode == 3, process.stderr
    assert file_names(tmp_path) == ["a"] and (tmp_path / "a").read_bytes() == b"old"


KILLED = """
import sys
from vaecodec import atomic
print("ready", flush=True)
while True:
    for byte in (b"a", b"b"):
        atomic.write_atomic(sys.argv[1], byte * 300_000, overwrite=True)
"""


def test_kills_leave_a_complete_file(tmp_path):
    path = tmp_path / "a"
    for wait in (0.01, 0.03, 0.05):
        path.write_bytes(b"0" * 300_000)
        child = subprocess.Popen([sys.executable, "-c", KILLED, path], env=ENVIRONMENT, stdout=subprocess.PIPE)
        child.stdout.readline()
        threading.Event().wait(wait)
        child.kill()
        child.communicate()
        content = path.read_bytes()
        assert len(content) == 300_000 and len(set(content)) == 1


# compress_file and decompress_file


def test_default_names_exchange_the_suffix():
    assert compressed_name("a/photo.jpg") == "a/photo.vae" and compressed_name("photo") == "photo.vae"
    assert decompressed_name("a/photo.vae") == "a/photo.png" and decompressed_name("photo.VAE") == "photo.png"
    assert decompressed_name("photo.bin") == "photo.bin.png"


def test_compress_and_decompress_round_trip(photo):
    compressed = compress_file(photo)
    vae = photo.with_suffix(".vae")
    assert compressed["output"] == str(vae) and (compressed["width"], compressed["height"]) == (70, 50)
    assert compressed["bytes"] == vae.stat().st_size and compressed["image_bytes"] == photo.stat().st_size
    assert compressed["bpp"] == 8 * compressed["bytes"] / (50 * 70) and compressed["seconds"] > 0

    decompressed = decompress_file(vae, photo.with_name("back.png"))
    pixels, metadata = read_image(photo.with_name("back.png"))
    codec = vaecodec.load()
    np.testing.assert_array_equal(pixels, codec.decode(codec.encode(synthetic_image(50, 70))))
    assert metadata == read_image(photo)[1] and "exif" in metadata
    assert {key: decompressed[key] for key in ("bytes", "bpp", "width", "height")} == {
        key: compressed[key] for key in ("bytes", "bpp", "width", "height")
    }
    assert file_names(photo.parent) == ["back.png", "photo.png", "photo.vae"]


def test_strip_drops_metadata(photo):
    compress_file(photo, photo.with_name("a.vae"), strip=True)
    assert image_file.metadata(photo.with_name("a.vae").read_bytes()) == {}


def test_quality_is_applied(photo):
    compress_file(photo, photo.with_name("a.vae"), quality=90)
    assert abs(image_file.info(photo.with_name("a.vae").read_bytes())["quality"] - 90) < 0.1


def test_sources_and_outputs_may_be_streams(photo):
    vae, image = io.BytesIO(), io.BytesIO()
    assert compress_file(io.BytesIO(photo.read_bytes()), vae)["output"] == "-"
    decompress_file(io.BytesIO(vae.getvalue()), image)
    assert image.getvalue().startswith(b"\x89PNG")
    assert file_names(photo.parent) == ["photo.png"]


def test_window_crops_the_image(photo):
    compress_file(photo)
    vae = photo.with_suffix(".vae")
    decompress_file(vae, photo.with_name("all.png"))
    decompress_file(vae, photo.with_name("part.png"), window=(10, 20, 30, 40))
    image, part = (read_image(photo.with_name(name))[0] for name in ("all.png", "part.png"))
    np.testing.assert_array_equal(part, image[10:40, 20:60])


def test_the_suffix_determines_the_output_format(photo):
    compress_file(photo)
    for suffix, magic in ((".jpg", b"\xff\xd8\xff"), (".webp", b"RIFF")):
        decompress_file(photo.with_suffix(".vae"), photo.with_suffix(suffix))
        assert photo.with_suffix(suffix).read_bytes().startswith(magic)
    with pytest.raises(CodecError, match="suffix"):
        decompress_file(photo.with_suffix(".vae"), photo.with_suffix(".xyz"))


@pytest.mark.parametrize("kind", ["name", "symbolic", "hard"])
def test_input_and_output_are_never_the_same_file(photo, kind):
    other_name = photo.with_name("other.vae")
    if kind == "symbolic":
        other_name.symlink_to(photo)
    elif kind == "hard":
        os.link(photo, other_name)
    before = photo.read_bytes()
    for convert in (compress_file, decompress_file):
        with pytest.raises(CodecError, match="same file"):
            convert(photo, photo if kind == "name" else other_name, overwrite=True)
    assert photo.read_bytes() == before


def test_existing_outputs_are_detected_before_encoding(photo, monkeypatch):
    photo.with_suffix(".vae").write_bytes(b"old")
    monkeypatch.setattr(Codec, "encode", None)
    with pytest.raises(FileExistsError):
        compress_file(photo)
    with pytest.raises(FileNotFoundError, match="No such folder"):
        compress_file(photo, photo.parent / "no" / "a.vae")
    assert photo.with_suffix(".vae").read_bytes() == b"old"


def test_damage_leaves_no_output(photo):
    compress_file(photo)
    vae = photo.with_suffix(".vae")
    data = bytearray(vae.read_bytes())
    data[-10] ^= 1
    vae.write_bytes(data)
    with pytest.raises(FormatError):
        decompress_file(vae, photo.with_name("back.png"))
    assert file_names(photo.parent) == ["photo.png", "photo.vae"]


def test_remove_deletes_the_source_at_the_end(photo):
    compress_file(photo, remove=True)
    assert file_names(photo.parent) == ["photo.vae"]
    decompress_file(photo.with_suffix(".vae"), remove=True)
    assert file_names(photo.parent) == ["photo.png"]


def test_remove_keeps_sources_whose_output_does_not_verify(photo, monkeypatch):
    def fails(self, data, *_):
        raise FormatError("tile 0 is damaged")

    monkeypatch.setattr(Codec, "verify", fails)
    with pytest.raises(FormatError):
        compress_file(photo, remove=True)
    assert photo.exists()


def test_remove_keeps_sources_whose_output_is_not_on_the_disk(photo, monkeypatch):
    with pytest.raises(CodecError, match="not removed"):
        compress_file(photo, os.devnull, remove=True)
    compress_file(photo)
    monkeypatch.setattr(compression, "write_atomic", lambda path, data, *_: open(path, "wb").close())
    with pytest.raises(CodecError, match="not removed"):
        decompress_file(photo.with_suffix(".vae"), photo.with_name("back.png"), remove=True)
    assert photo.exists() and photo.with_suffix(".vae").exists()


@pytest.mark.parametrize("size", [0, 100])
def test_a_source_that_shrinks_during_reading_is_an_error(photo, monkeypatch, size):
    encode_rows = modes.encode_rows

    def shrink(*arguments, **options):
        data = encode_rows(*arguments, **options)
        os.truncate(photo, size)
        return data

    monkeypatch.setattr(strips, "LARGE", 1)
    monkeypatch.setattr(modes, "encode_rows", shrink)
    with pytest.raises(CodecError, match="became smaller while it was read"):
        compress_file(photo)
    assert file_names(photo.parent) == ["photo.png"]


def photos_with_extra_bytes(folder, count):
    """Write JPEG files with extra bytes after the image, which .vae files do not contain."""
    file = io.BytesIO()
    Image.fromarray(synthetic_image(32, 32)).save(file, "JPEG")
    paths = [folder / f"{n}.jpg" for n in range(count)]
    for path in paths:
        path.write_bytes(file.getvalue() + b"A FILM BEHIND THE PICTURE" * 50)
    return paths


@contextlib.contextmanager
def silenced_warnings(monkeypatch):
    """Silence the warnings of the process, as another thread could, and forbid reading them."""

    def refuse(*_, **__):
        raise AssertionError("a decision must not depend on the filters of the process")

    with monkeypatch.context() as patch:
        patch.setattr(warnings, "catch_warnings", refuse)
        patch.setattr(warnings, "warn", lambda *_, **__: None)
        patch.setattr(warnings, "warn_explicit", lambda *_, **__: None)
        yield


def test_incomplete_outputs_keep_the_source_under_any_warning_filter(tmp_path, monkeypatch):
    (film,) = photos_with_extra_bytes(tmp_path, 1)
    tiff = tmp_path / "scan.tif"  # Pillow skips its tag that lies beyond the end
    Image.fromarray(synthetic_image(32, 32)).save(tiff, tiffinfo={270: "x" * 100})
    data = bytearray(tiff.read_bytes())
    at = data.index(struct.pack("<HHI", 270, 2, 101))
    data[at + 4 : at + 8] = struct.pack("<I", 1 << 20)
    tiff.write_bytes(data)
    profile = tmp_path / "profile.vae"
    samples = synthetic_image(32, 32)
    profile.write_bytes(fallback.pack_lossless(samples, {"xmp": b"<x/>"}))
    sources = [film]
    with contextlib.suppress(
        UnidentifiedImageError
    ):  # of Pillow before 13: then the file is stored, and nothing is left out
        Image.open(tiff).close()
        sources.append(tiff)
    with silenced_warnings(monkeypatch):
        for source in sources:
            with pytest.raises(CodecError, match="not removed, because .* does not hold all of it"):
                compress_file(source, f"{source}.vae", remove=True)
        with pytest.raises(CodecError, match="not removed, because .* does not hold all of it"):
            decompress_file(profile, tmp_path / "profile.bmp", remove=True)
    assert all(path.exists() for path in (*sources, profile))


def test_complete_outputs_remove_the_source_under_any_warning_filter(photo, tmp_path, monkeypatch):
    stored = tmp_path / "cut.png"
    stored.write_bytes(photo.read_bytes()[:200])  # a damaged image is stored unchanged, so nothing is left out
    with silenced_warnings(monkeypatch):
        for source in (photo, stored):
            compress_file(source, f"{source}.vae", remove=True)
            assert not source.exists()


def test_concurrent_threads_keep_sources_of_incomplete_outputs(tmp_path):
    paths, errors, stop = photos_with_extra_bytes(tmp_path, 32), [], threading.Event()

    def work(own_paths):
        for path in own_paths:
            try:
                compress_file(path, f"{path}.vae", remove=True, threads=1)
            except CodecError as exc:
                errors.append(str(exc))

    def meddle():  # other libraries change the filters too
        while not stop.is_set():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stop.wait(0.001)

    threads = [threading.Thread(target=work, args=(paths[n::8],)) for n in range(8)]
    meddler = threading.Thread(target=meddle)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for thread in (meddler, *threads):
            thread.start()
        for thread in threads:
            thread.join()
        stop.set()
        meddler.join()
    assert all(path.exists() for path in paths)
    assert len(errors) == len(paths) and all("not removed" in error for error in errors)
