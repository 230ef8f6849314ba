"""What is written is on the disk before it has its name, and before its source is removed."""

import errno
import os
import stat

import numpy as np
import pytest
from PIL import Image

from vaecodec import atomic, compress_file

pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are synchronised on POSIX alone")


@pytest.fixture
def events(monkeypatch):
    """Record, in order, what is synchronised, named and removed."""
    log = []
    fsync, remove, replace, link = os.fsync, os.remove, os.replace, os.link

    def synchronise(descriptor):
        info = os.fstat(descriptor)
        log.append(("folder" if stat.S_ISDIR(info.st_mode) else "file", info.st_size))
        fsync(descriptor)

    def delete(path, **options):
        log.append(("remove", os.path.basename(path)))
        remove(path, **options)

    def name(function):
        def call(source, target, **options):
            if not atomic.TEMPORARY.fullmatch(os.path.basename(target)):
                log.append(("name", os.path.basename(target)))
            function(source, target, **options)

        return call

    monkeypatch.setattr(os, "fsync", synchronise)
    monkeypatch.setattr(os, "remove", delete)
    monkeypatch.setattr(os, "replace", name(replace))
    monkeypatch.setattr(os, "link", name(link))
    return log


def of(log, *kinds):
    return [(kind, value if kind in ("file", "name", "remove") else None) for kind, value in log if kind in kinds]


@pytest.mark.parametrize("overwrite", [False, True])
def test_all_bytes_and_then_the_name_are_synchronised(tmp_path, events, overwrite):
    target = tmp_path / "target"
    if overwrite:
        target.write_bytes(b"old")
    atomic.write_atomic(target, lambda file: [file.write(b"x" * 1000) for _ in range(50)], overwrite)
    assert target.read_bytes() == b"x" * 50_000
    assert of(events, "file", "name", "folder") == [("file", 50_000), ("name", "target"), ("folder", None)]


def test_mode_and_time_are_set_before_the_bytes_are_synchronised(tmp_path, events, monkeypatch):
    utime = os.utime
    monkeypatch.setattr(os, "utime", lambda *args, **options: (events.append(("time", 0)), utime(*args, **options)))
    atomic.write_atomic(tmp_path / "target", b"abc", attributes=atomic.Attributes(0o600, 1_000_000_000))
    assert [kind for kind, _ in events if kind in ("time", "file")] == ["time", "file"]


def test_a_source_is_removed_after_its_output_is_on_the_disk(tmp_path, events):
    source = tmp_path / "picture.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(source)
    compress_file(source, tmp_path / "picture.vae", remove=True)
    kinds = of(events, "name", "folder", "remove")
    assert kinds[-1] == ("remove", "picture.png")
    assert kinds.index(("name", "picture.vae")) < kinds.index(("folder", None)) < len(kinds) - 1


def test_bytes_that_cannot_be_synchronised_get_no_name(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="target") as error:
        atomic.write_atomic(tmp_path / "target", b"abc")
    assert error.value.errno == errno.EIO and not list(tmp_path.iterdir())


def test_a_source_stays_if_its_output_cannot_be_synchronised(tmp_path, monkeypatch):
    source = tmp_path / "picture.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(source)

    def fail(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError):
        compress_file(source, tmp_path / "picture.vae", remove=True)
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


@pytest.mark.parametrize(("number", "raised"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_folders_that_cannot_be_synchronised(tmp_path, monkeypatch, number, raised):
    """Some network file systems cannot; an error of a disk is one."""
    fsync = os.fsync

    def fail(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    if raised:
        with pytest.raises(OSError) as error:
            atomic.write_atomic(tmp_path / "target", b"abc")
        assert error.value.errno == number
    else:
        atomic.write_atomic(tmp_path / "target", b"abc")
    assert (tmp_path / "target").read_bytes() == b"abc"


def test_a_new_name_is_claimed_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def refuse(source, target, **options):
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(atomic, "_create", lambda folder, name, mode: (os.open(name, os.O_WRONLY | os.O_CREAT), name))
    atomic.write_atomic(tmp_path / "new", b"bytes", overwrite=False)
    assert (tmp_path / "new").read_bytes() == b"bytes"
    with pytest.raises(FileExistsError):
        atomic.write_atomic(tmp_path / "new", b"other", overwrite=False)
    assert [path.name for path in tmp_path.iterdir()] == ["new"] and (tmp_path / "new").read_bytes() == b"bytes"
