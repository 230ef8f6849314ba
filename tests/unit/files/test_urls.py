"""Test files at URLs: the functions and commands that read and write paths take URLs of fsspec."""

import sys

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from vaecodec.arguments import is_url
from vaecodec.cli import main
from vaecodec.errors import CodecError

fsspec = pytest.importorskip("fsspec")
IMAGE = synthetic_image(40, 50)


@pytest.fixture
def memory():
    """An empty file system in memory, with an image and notes."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    with files.open("/in/photo.png", "wb") as file:
        Image.fromarray(IMAGE).save(file, "PNG")
    files.pipe_file("/in/notes.txt", b"some notes")
    yield files
    files.store.clear()


def test_functions_take_urls(memory):
    data = vaecodec.encode("memory://in/photo.png")
    assert data == vaecodec.encode(IMAGE)
    memory.pipe_file("/photo.vae", data)
    assert np.array_equal(vaecodec.decode("memory://photo.vae"), vaecodec.decode(data))
    assert vaecodec.info("memory://photo.vae").width == 50 and vaecodec.open("memory://photo.vae").size == (50, 40)
    with pytest.raises(FileNotFoundError, match="memory://none.vae"):
        vaecodec.decode("memory://none.vae")
    with pytest.raises(CodecError, match="nonsense://photo.vae: "):
        vaecodec.decode("nonsense://photo.vae")


@pytest.mark.parametrize("name", ["photo.png", "notes.txt"])
def test_files_are_converted_between_urls(memory, tmp_path, name):
    target = "memory://out/" if name == "notes.txt" else "memory://out/photo.vae"
    report = vaecodec.compress_file(f"memory://in/{name}", target)
    assert report["output"] == f"memory://out/{'notes.txt.vae' if name == 'notes.txt' else 'photo.vae'}"
    with pytest.raises(FileExistsError, match=report["output"]):
        vaecodec.compress_file(f"memory://in/{name}", target)
    vaecodec.compress_file(f"memory://in/{name}", target, overwrite=True)
    vaecodec.decompress_file(report["output"], str(tmp_path))  # under its own name
    if name == "notes.txt":
        assert (tmp_path / name).read_bytes() == b"some notes"
    else:
        with Image.open(tmp_path / name) as image:
            assert image.size == (50, 40)
        vaecodec.decompress_file(report["output"], "memory://back.webp")
        assert memory.cat_file("/back.webp")[:4] == b"RIFF"


def test_commands_take_urls(memory, tmp_path, capsys):
    assert main(["compress", "memory://in/photo.png", "-o", str(tmp_path / "a.vae")]) == 0
    assert main(["compress", "memory://in/photo.png", "memory://in/notes.txt", "-o", "memory://out/"]) == 0
    assert sorted(memory.ls("/out", detail=False)) == ["/out/notes.txt.vae", "/out/photo.vae"]
    assert memory.cat_file("/out/photo.vae") == (tmp_path / "a.vae").read_bytes()
    assert main(["info", "memory://out/photo.vae"]) == main(["verify", "memory://out/photo.vae"]) == 0
    capsys.readouterr()
    assert main(["compress", "memory://in/photo.png"]) == 1
    assert "the output of a URL needs a name" in capsys.readouterr().err
    assert main(["compress", "memory://in/photo.png", "-o", "memory://out/photo.vae"]) == 1
    assert "memory://out/photo.vae exists already (-f overwrites it)" in capsys.readouterr().err
    assert main(["compress", "--rm", "-f", "memory://in/photo.png", "-o", "memory://out/photo.vae"]) == 1
    assert "removed only between local files" in capsys.readouterr().err and memory.exists("/in/photo.png")


def test_without_fsspec_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(CodecError, match=r"pip install 'vaecodec\[fsspec\]'"):
        vaecodec.decode("https://localhost/photo.vae")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://host/a.vae", True),
        ("s3://bucket/a.vae", True),
        ("simplecache::s3://bucket/a.vae", True),
        ("C:\\a.vae", False),
        ("c://a.vae", False),
        ("a/b.vae", False),
        (b"https://host", False),
    ],
)
def test_urls_have_a_scheme(text, expected):
    assert is_url(text) == expected
