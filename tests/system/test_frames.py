"""Test that no page and no frame is lost: files of several images are stored, or coded one by one."""

import os

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.commands import files_below, read, write
from support.images import synthetic_image
from vaecodec import cli
from vaecodec.errors import CodecError
from vaecodec.files.compression import compress_file, decompress_file
from vaecodec.images.channels import count_frames, describe_frames

FRAMES = [synthetic_image(32, 48, seed) for seed in range(3)]
LOSSLESS = {"tif": {}, "webp": {"lossless": True}, "png": {}, "gif": {}, "avif": {"quality": 100}}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save(path, frames=FRAMES):
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], **LOSSLESS[path[-4:].strip(".")])


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_several_frames_are_stored_without_loss_and_with_a_word(suffix, capsys):
    name = f"moving.{suffix}"
    save(name)
    assert cli.main(["compress", name]) == 0
    warning, _ = capsys.readouterr().err.splitlines()
    word = "pages" if suffix == "tif" else "frames"
    assert warning.startswith(f"{name}: warning: holds 3 {word}; stored unchanged (--frame 1 or --all-frames encodes)")
    assert decompress_file(f"{name}.vae", "back")["kind"] == "file" and read("back") == read(name)
    assert cli.main(["compress", "--rm", "-f", name]) == 0 and not os.path.exists(name)


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_all_frames_are_coded_one_by_one(suffix):
    name = f"moving.{suffix}"
    save(name)
    assert cli.main(["compress", "--all-frames", "-q", "90", name]) == 0
    assert files_below(".") == ["moving-0001.vae", "moving-0002.vae", "moving-0003.vae", name]
    with Image.open(name) as image:
        for number in range(3):
            image.seek(number)
            expected = np.asarray(image.convert("RGB")).astype(float)
            decoded = vaecodec.decode(f"moving-000{number + 1}.vae")[..., :3]
            assert np.abs(decoded - expected).mean() < 4
    assert cli.main(["compress", "--frame", "2", "-q", "90", name, "-o", "second.vae"]) == 0
    assert read("second.vae") == read("moving-0002.vae")


def test_pages_of_16_bits_are_exact():
    pages = [np.arange(600, dtype=np.uint16).reshape(20, 30) * 50 + n for n in range(3)]
    save("deep.tif", pages)
    for number, page in enumerate(pages, 1):
        compress_file("deep.tif", f"{number}.vae", frame=number, lossless=True)
        np.testing.assert_array_equal(vaecodec.decode(f"{number}.vae"), page)


def test_a_file_with_one_image_has_no_number():
    Image.fromarray(FRAMES[0]).save("one.png")
    assert cli.main(["compress", "--all-frames", "one.png"]) == 0
    assert files_below(".") == ["one.png", "one.vae"]


def test_frames_that_do_not_exist_are_errors(capsys):
    save("moving.gif")
    assert cli.main(["compress", "--frame", "4", "moving.gif"]) == 1
    assert capsys.readouterr().err == "vaecodec: moving.gif: has 3 images, and no number 4\n"
    assert cli.main(["compress", "--only-images", "moving.gif"]) == 1
    assert "holds 3 frames" in capsys.readouterr().err and files_below(".") == ["moving.gif"]
    with pytest.raises(CodecError, match="no number 4"):
        compress_file("moving.gif", frame=4)


@pytest.mark.parametrize(
    "line",
    [
        "--frame 1 --all-frames moving.gif",
        "--frame 0 moving.gif",
        "--frame 1 -r .",
        "--all-frames -r .",
        "--all-frames moving.gif -o out.vae",
        "--all-frames - ",
        "--frame 1 --rm moving.gif",
        "--all-frames --rm moving.gif",
    ],
)
def test_contradictions_are_usage_errors(line):
    save("moving.gif")
    assert cli.main(["compress", *line.split()]) == 2
    with pytest.raises(ValueError, match="frame and remove"):
        compress_file("moving.gif", frame=1, remove=True)
    assert files_below(".") == ["moving.gif"]


def test_damaged_animations_are_stored():
    save("moving.png")
    data = read("moving.png")
    at = data.index(b"acTL") - 4
    write("moving.png", data[:at] + data[at + 20 :])  # frames without the chunk that announces them
    with open("moving.png", "rb") as file:
        assert describe_frames(file) == "an animation that is damaged"
    with pytest.warns(UserWarning, match="stored unchanged"):
        assert compress_file("moving.png")["kind"] == "file"


def test_previews_in_photographs_do_not_count():
    images = [Image.fromarray(frame) for frame in FRAMES]
    images[0].save("photo.jpg", "MPO", save_all=True, append_images=images[1:])
    with open("photo.jpg", "rb") as file:
        assert count_frames(file) == 1 and describe_frames(file) == ""
    with pytest.warns(UserWarning, match="more than one frame"):
        assert compress_file("photo.jpg")["kind"] == "picture"
