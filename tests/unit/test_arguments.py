"""Test that the public functions take what names a file, and refuse every wrong argument by its name."""

import io
import math
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from support.paths import GOLDEN, ROOT
from vaecodec.errors import CodecError, FormatError, ModelError

MODEL, FILE = str(GOLDEN / "tiny.vcm"), str(GOLDEN / "odd.vae")
PIXELS = synthetic_image(40, 50)
BATCH, DIGIT = [PIXELS], np.zeros((28, 28), np.uint8)


def encode(*arguments, **options):
    return vaecodec.encode(*arguments, **{"model": MODEL, **options})


def encode_batch(*arguments, **options):
    return vaecodec.encode_batch(*arguments, **{"model": MODEL, **options})


def decode(*arguments, **options):
    return vaecodec.decode(*arguments, **{"model": MODEL, **options})


def decode_batch(*arguments, **options):
    return vaecodec.decode_batch(*arguments, **{"model": MODEL, **options})


def opened(**options):
    return vaecodec.open(FILE, **options)


def compress(**options):
    return vaecodec.compress_file("photo.png", "out.vae", **{"model": MODEL, **options})


def decompress(**options):
    return vaecodec.decompress_file(FILE, "out.png", **{"model": MODEL, **options})


def sample(**options):
    return vaecodec.sample(**{"n": 1, **options})


def vary(**options):
    return vaecodec.vary(DIGIT, **{"strength": 0.5, **options})


def interpolate(**options):
    return vaecodec.interpolate(DIGIT, DIGIT, **{"n": 2, **options})


QUALITIES = {
    TypeError: ("50", b"50", True, [50], object(), 1j),
    ValueError: (0, 0.99, 100.01, -5, math.nan, math.inf, 10**400),
}
EFFORTS = {TypeError: ("5", 5.0, True, None, [1]), ValueError: (0, 10, -1)}
TUNES = {TypeError: (1, True, ["eye"], b"eye"), ValueError: ("ear", "", "PSNR")}
THREADS = {TypeError: ("2", 2.0, True, [2]), ValueError: (0, -1)}
SIZES = {TypeError: ("900", 900.5, True, [900]), ValueError: (0, -900)}
RATES = {TypeError: ("0.5", True, [0.5]), ValueError: (0, -0.5, math.nan, math.inf)}
ERRORS = {TypeError: ("2", 2.0, True, [1]), ValueError: (0, -1, 17)}
MODELS = {TypeError: (5, b"small", True, ["small"], object()), ValueError: ("",)}
LIMITS = {TypeError: (5, "none", True, (100, 100))}
FLAGS = {TypeError: ("yes", 1, None, [])}
WINDOWS = {
    TypeError: (5, "0,0,8,8", (0, 0, 8, 8.5), ("0", 0, 8, 8), (True, 0, 8, 8)),
    ValueError: ((0, 0, 8), (), (0, 0, 8, 8, 8), (-1, 0, 8, 8), (0, 0, 0, 8), (0, 0, 8, -8), (0, 0, 999, 8)),
}
REDUCTIONS = {TypeError: ("2", 2.0, True, None), ValueError: (0, 3, 32, -2)}
NUMBERS = {TypeError: ("2", 2.0, True, None), ValueError: (0, -1)}
IMAGES = {TypeError: (5, None, True, [[1, 2]], object(), {})}
FILES = {TypeError: (5, None, True, object(), {}, io.StringIO("text"))}

WRONG = [
    (encode, "image", IMAGES),
    (decode, "data", FILES),
    (vaecodec.info, "data", FILES),
    (vaecodec.open, "source", FILES),
    (vaecodec.decode_set, "data", FILES),
    (vaecodec.encode_set, "images", {TypeError: (5, None, "a.npy", b"", [DIGIT])}),
    (encode_batch, "images", {TypeError: (5, "a.png", b"", None, PIXELS, PIXELS[..., 0])}),
    (lambda value: encode_batch([value]), "image", IMAGES),
    (decode_batch, "files", {TypeError: (5, FILE, b"", None)}),
    (lambda value: decode_batch([FILE, value]), "file 1", FILES),
    (lambda value: encode(PIXELS, quality=value), "quality", QUALITIES),
    (lambda value: encode_batch(BATCH, quality=value), "quality", QUALITIES),
    (lambda value: compress(quality=value), "quality", QUALITIES),
    (lambda value: sample(quality=value), "quality", QUALITIES),
    (lambda value: vary(quality=value), "quality", QUALITIES),
    (lambda value: interpolate(quality=value), "quality", QUALITIES),
    (lambda value: encode(PIXELS, effort=value), "effort", EFFORTS),
    (lambda value: encode_batch(BATCH, effort=value), "effort", EFFORTS),
    (lambda value: compress(effort=value), "effort", EFFORTS),
    (lambda value: encode(PIXELS, tune=value), "tune", TUNES),
    (lambda value: encode_batch(BATCH, tune=value), "tune", TUNES),
    (lambda value: compress(tune=value), "tune", TUNES),
    (lambda value: encode(PIXELS, threads=value), "threads", THREADS),
    (lambda value: encode_batch(BATCH, threads=value), "threads", THREADS),
    (lambda value: decode(FILE, threads=value), "threads", THREADS),
    (lambda value: decode_batch([FILE], threads=value), "threads", THREADS),
    (lambda value: opened(threads=value), "threads", THREADS),
    (lambda value: compress(threads=value), "threads", THREADS),
    (lambda value: decompress(threads=value), "threads", THREADS),
    (lambda value: vaecodec.load(MODEL, threads=value), "threads", THREADS),
    (lambda value: encode(PIXELS, target_size=value), "target_size", SIZES),
    (lambda value: compress(target_size=value), "target_size", SIZES),
    (lambda value: encode(PIXELS, target_bpp=value), "target_bpp", RATES),
    (lambda value: encode(PIXELS, target_psnr=value), "target_psnr", RATES),
    (lambda value: encode(PIXELS, lossless=value), "lossless", FLAGS),
    (lambda value: compress(lossless=value), "lossless", FLAGS),
    (lambda value: encode(PIXELS, max_error=value), "max_error", ERRORS),
    (lambda value: compress(max_error=value), "max_error", ERRORS),
    (lambda value: encode(PIXELS, roi=value), "roi", {TypeError: (5, True, [[1, 2]]), ValueError: (b"no image",)}),
    (lambda value: vaecodec.arrays.encode(PIXELS, value), "max_error", {TypeError: ("2", True, [1], None)}),
    (lambda value: vaecodec.arrays.encode(PIXELS, value), "max_error", {ValueError: (-1, math.nan, math.inf)}),
    (lambda value: encode(PIXELS, model=value), "model", MODELS),
    (lambda value: decode(FILE, model=value), "model", MODELS),
    (lambda value: compress(model=value), "model", MODELS),
    (lambda value: decompress(model=value), "model", MODELS),
    (lambda value: vaecodec.load(value), "model", MODELS),
    (lambda value: sample(model=value), "model", MODELS),
    (lambda value: vaecodec.score(DIGIT, model=value), "model", MODELS),
    (lambda value: encode(PIXELS, limits=value), "limits", LIMITS),
    (lambda value: decode(FILE, limits=value), "limits", LIMITS),
    (lambda value: compress(limits=value), "limits", LIMITS),
    (lambda value: decode(FILE, window=value), "window", WINDOWS),
    (lambda value: decode_batch([FILE], window=value), "window", WINDOWS),
    (lambda value: opened().crop(value), "window", WINDOWS),
    (lambda value: decompress(window=value), "window", WINDOWS),
    (lambda value: decode(FILE, reduce=value), "reduce", REDUCTIONS),
    (lambda value: opened().preview(value), "reduce", REDUCTIONS),
    (lambda value: decompress(reduce=value), "reduce", REDUCTIONS),
    (lambda value: decode(FILE, check=value), "check", FLAGS),
    (lambda value: compress(overwrite=value), "overwrite", FLAGS),
    (lambda value: compress(remove=value), "remove", FLAGS),
    (lambda value: compress(strip=value), "strip", FLAGS),
    (lambda value: compress(only_images=value), "only_images", FLAGS),
    (lambda value: compress(progress=value), "progress", {TypeError: (5, "bar")}),
    (lambda value: vaecodec.compress_file(value, "out.vae"), "src", {TypeError: (5, None, b"")}),
    (lambda value: vaecodec.compress_file("photo.png", value), "dst", {TypeError: (5, b"")}),
    (lambda value: vaecodec.load(MODEL, device=value), "device", {TypeError: (5, None), ValueError: ("tpu", "")}),
    (lambda value: sample(n=value), "n", NUMBERS),
    (lambda value: vary(n=value), "n", NUMBERS),
    (lambda value: interpolate(n=value), "n", {**NUMBERS, ValueError: (1, 0, -1)}),
    (lambda value: sample(seed=value), "seed", {TypeError: ("2", 2.0, True, None), ValueError: (-1,)}),
    (lambda value: sample(size=value), "size", {TypeError: (5, "8x8", (8, 8.0)), ValueError: ((8,), (0, 8))}),
    (lambda value: sample(noisy=value), "noisy", FLAGS),
    (lambda value: vary(strength=value), "strength", {TypeError: ("1", True), ValueError: (-0.1, 1.1, math.nan)}),
]
CASES = [
    # Without addresses: all processes must give a test the same name.
    pytest.param(call, name, error, value, id=f"{row}-{name}-{value!r}".partition(" object at ")[0][:60])
    for row, (call, name, errors) in enumerate(WRONG)
    for error, values in errors.items()
    for value in values
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PIXELS).save("photo.png")
    Image.fromarray(PIXELS).save("photo.jpg")
    return tmp_path


@pytest.mark.parametrize(("call", "name", "error", "value"), CASES)
def test_every_wrong_argument_is_refused_by_its_name(folder, call, name, error, value):
    with pytest.raises(error, match=rf"\b{name}\b") as caught:
        call(value)
    assert type(caught.value) is error and sorted(path.name for path in folder.iterdir()) == ["photo.jpg", "photo.png"]


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 50, "target_size": 900},
        {"quality": 50, "target_bpp": 1.5},
        {"target_size": 900, "target_psnr": 30},
        {"target_bpp": 1.0, "target_psnr": 30.0},
        {"quality": 50, "lossless": True},
        {"quality": 100, "max_error": 1},
        {"target_size": 900, "lossless": True},
        {"target_psnr": 30.0, "max_error": 2},
        {"lossless": True, "max_error": 2},
    ],
)
def test_conflicting_targets_are_refused(folder, options):
    for call in (lambda: encode(PIXELS, **options), lambda: compress(**options)):
        with pytest.raises(ValueError, match=f"{' and '.join(options)} exclude each other"):
            call()


@pytest.mark.parametrize("call", [encode, decode, encode_batch, vaecodec.info, compress, decompress])
def test_unknown_options_are_refused(call):
    arguments = {encode: [PIXELS], decode: [FILE], encode_batch: [BATCH], vaecodec.info: [FILE]}.get(call, [])
    with pytest.raises(TypeError, match="qualty"):
        call(*arguments, qualty=3)


def test_numbers_of_numpy_are_taken():
    data = encode(PIXELS, quality=np.float32(60), effort=np.int64(1), threads=np.uint8(1))
    assert data == encode(PIXELS, 60)
    window = np.array([0, 0, 16, 16])
    np.testing.assert_array_equal(decode(data, window=window, reduce=np.int32(2)), decode(data, (0, 0, 16, 16), 2))


def test_files_are_named_by_paths_objects_or_bytes(folder):
    expected = encode(Image.open("photo.png"))
    contents = pathlib.Path("photo.png").read_bytes()
    with open("photo.png", "rb") as file:
        sources = ["photo.png", pathlib.Path("photo.png"), file, io.BytesIO(contents)]
        sources += [contents, bytearray(contents), memoryview(contents), PIXELS]
        assert {encode(source) for source in sources} == {expected}
    pathlib.Path("photo.vae").write_bytes(expected)
    pixels, about = decode(expected), vaecodec.info(expected)
    with open("photo.vae", "rb") as file, open("photo.vae", "rb") as second:
        files = ["photo.vae", pathlib.Path("photo.vae"), file, bytearray(expected), memoryview(expected)]
        for source in files:
            np.testing.assert_array_equal(decode(source), pixels)
        assert vaecodec.info(second) == about
    for source in ("photo.vae", pathlib.Path("photo.vae"), io.BytesIO(expected), bytearray(expected)):
        assert vaecodec.info(source) == about
    for back in decode_batch(["photo.vae", io.BytesIO(expected), expected]):
        np.testing.assert_array_equal(back, pixels)


def test_what_numpy_converts_is_an_image():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return PIXELS

    assert encode(Tensor()) == encode(PIXELS)


def test_missing_files_are_file_not_found_errors(folder):
    calls = [
        *(lambda f=f: f("nope.jpg") for f in (encode, decode, vaecodec.info, vaecodec.open, vaecodec.score)),
        lambda: encode(pathlib.Path("nope.jpg")),
        lambda: encode_batch([PIXELS, "nope.jpg"]),
        lambda: decode_batch([FILE, "nope.vae"]),
        lambda: vaecodec.compress_file("nope.jpg", "out.vae"),
        lambda: vaecodec.decompress_file("nope.vae", "out.png"),
        lambda: vaecodec.decode_set("nope.vae"),
        lambda: vaecodec.load("nope.vcm"),
        lambda: encode(PIXELS, model="nope.vcm"),
        lambda: decode(FILE, model="nope.vcm"),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError, match="nope"):
            call()
    with pytest.raises(ModelError, match="nope"):
        vaecodec.load("nope")
    with pytest.raises(IsADirectoryError):
        encode(".")


def test_files_that_cannot_be_coded_are_codec_errors(folder):
    (folder / "notes.txt").write_text("notes")
    for call in (lambda: encode("notes.txt"), lambda: decode("notes.txt"), lambda: vaecodec.info("notes.txt")):
        with pytest.raises(CodecError):
            call()
    vaecodec.compress_file("notes.txt")
    assert vaecodec.info("notes.txt.vae").name == "notes.txt"
    for call in (lambda: decode("notes.txt.vae"), lambda: vaecodec.open("notes.txt.vae")):
        with pytest.raises(FormatError, match="holds a file"):
            call()


def test_files_are_closed(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for name in ("photo.jpg", "photo.png"):
            encode(name)
            vaecodec.compress_file(name, "out.vae", model=MODEL, overwrite=True)
        assert vaecodec.open("out.vae").size == (50, 40)
        decode("out.vae")


CHECKED = """
import io
from pathlib import Path
import numpy as np
from PIL import Image
import vaecodec

pixels: np.ndarray = vaecodec.decode(Path("a.vae"))
data: bytes = vaecodec.encode(Path("a.png"), quality=50.5, effort=3, target_size=None)
for source in ("a.vae", data, bytearray(data), memoryview(data)):
    vaecodec.decode(source)
    vaecodec.info(source).quality
vaecodec.encode(io.BytesIO(data))
vaecodec.encode(Image.open("a.png"))
vaecodec.encode(vaecodec.open("a.vae"))
vaecodec.encode_batch([pixels, pixels])
vaecodec.compress_file(Path("a.png"), None, quality=3, overwrite=True)
vaecodec.compress_file(io.BytesIO(data), io.BytesIO())
"""
REFUSED = [
    "vaecodec.encode(object())",
    "vaecodec.encode(pixels, qualty=3)",
    "vaecodec.encode(pixels, '50')",
    "vaecodec.decode(5)",
    "vaecodec.decode(data, window=(0, 0, 8))",
    "vaecodec.info(None)",
    "vaecodec.compress_file('a', 'b', overwrit=True)",
    "vaecodec.compress_file('a', 'b', effort='9')",
    "vaecodec.decompress_file('a', 'b', quality=3)",
]


def test_the_signatures_are_typed(tmp_path):
    pytest.importorskip("mypy")
    script = tmp_path / "script.py"
    script.write_text(CHECKED + "\n".join(REFUSED))
    first = len(CHECKED.splitlines()) + 1
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--no-error-summary", str(script)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout
    lines = [line for line in output.splitlines() if ": error:" in line]
    assert {int(line.split(":")[1]) for line in lines} == set(range(first, first + len(REFUSED))), output
