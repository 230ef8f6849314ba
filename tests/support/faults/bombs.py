"""Give `vaecodec compress` small image files that ask for much, and measure their memory and time.

Memory is bounded by 256 MiB and 8 bytes for each pixel that a file declares, as far as the limits allow so many; a
file that declares more is refused before it is decoded.
"""

from __future__ import annotations

import io
import pathlib
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from support.crash import ENVIRONMENT
from support.images import synthetic_image
from vaecodec.arguments import DEFAULT_LIMITS
from vaecodec.images.writing import encode_png16

MIB = 1 << 20
BASE, BYTES_A_PIXEL = 256 * MIB, 8
SECONDS = 120.0  # of CPU
SIDE, LARGE_SIDE, HUGE_SIDE = 2048, 4000, 7000  # of bombs that are decoded: 4, 16 and 49 megapixels


class Bomb(NamedTuple):
    """A file; the pixels that it declares, of which none count above the limits."""

    name: str
    data: bytes
    pixels: int
    suffix: str


def saved(image: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def png_chunk(tag: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + tag + payload + struct.pack(">I", zlib.crc32(tag + payload))


def png(width: int, height: int, rows: int, *extra: bytes) -> bytes:
    """A grey PNG of zeros that has so many rows of data, whatever its header says."""
    pixels = zlib.compress(bytes((width + 1) * rows), 1)
    header = png_chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def pattern(side: int) -> Image.Image:
    """Noise of 100 x 100 RGB pixels, again and again: a graphic that is no photograph."""
    tile = np.random.default_rng(0).integers(0, 2, (100, 100, 3)).astype(np.uint8) * 200
    return Image.fromarray(np.tile(tile, (side // 100, side // 100, 1)))


def pngs() -> Iterator[Bomb]:
    yield Bomb("PNG, 4 megapixels of one colour", png(SIDE, SIDE, SIDE), SIDE * SIDE, ".png")
    large = Image.new("RGBA", (LARGE_SIDE, LARGE_SIDE), (10, 200, 30, 40))
    yield Bomb("PNG, 16 megapixels of one colour with alpha", saved(large, "PNG"), LARGE_SIDE**2, ".png")
    yield Bomb("PNG, 4 megapixels of a repeated pattern", saved(pattern(2000), "PNG"), 2000**2, ".png")
    huge = Image.new("RGBA", (HUGE_SIDE, HUGE_SIDE), (10, 200, 30, 0))
    huge.paste((90, 90, 0, 77), (0, 0, HUGE_SIDE // 2, HUGE_SIDE))
    yield Bomb("PNG, 49 megapixels, half of them transparent", saved(huge, "PNG"), HUGE_SIDE**2, ".png")
    deep = encode_png16(np.full((LARGE_SIDE // 2, LARGE_SIDE // 2, 4), 777, np.uint16))
    yield Bomb("PNG, 4 megapixels of 16 bits with alpha", deep, LARGE_SIDE**2 // 4, ".png")
    yield Bomb("PNG, header of 4294 megapixels", png(65535, 65535, 64), 65535**2, ".png")
    yield Bomb("PNG, data of 320 MiB behind a header of 64 x 64", png(64, 64, 5 << 20), 64 * 64, ".png")
    text = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(320 * MIB), 1))
    yield Bomb("PNG, text of 320 MiB", png(64, 64, 64, text), 64 * 64, ".png")
    profile = png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(320 * MIB), 1))
    yield Bomb("PNG, colour profile of 320 MiB", png(64, 64, 64, profile), 64 * 64, ".png")


def gifs() -> Iterator[Bomb]:
    flat = Image.new("P", (SIDE, SIDE))
    yield Bomb("GIF, 4 megapixels of one colour", saved(flat, "GIF"), SIDE * SIDE, ".gif")
    for width, height in ((65535, 65535), (1, 1)):
        data = bytearray(saved(Image.new("P", (64, 64)), "GIF"))
        struct.pack_into("<2H", data, 6, width, height)
        if width == 1:
            place = data.index(b"\x2c", 13)
            struct.pack_into("<2H", data, place + 5, 65535, 65535)
        what = "screen of 4294 megapixels" if width > 1 else "frame of 4294 megapixels on a screen of 1 x 1"
        yield Bomb(f"GIF, {what}", bytes(data), 65535**2, ".gif")
    frames = [Image.fromarray(np.full((64, 64), n % 2, np.uint8)) for n in range(2000)]
    animation = saved(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=1)
    yield Bomb("GIF, 2000 frames", animation, 2000 * 64 * 64, ".gif")


def tiffs() -> Iterator[Bomb]:
    flat = Image.new("L", (SIDE, SIDE))
    yield Bomb(
        "TIFF, 4 megapixels of one colour", saved(flat, "TIFF", compression="tiff_adobe_deflate"), SIDE**2, ".tif"
    )
    small = saved(Image.new("L", (64, 64)), "TIFF", compression="tiff_adobe_deflate")

    def with_tags(**tags: int) -> bytes:
        """The small one with other values of LONG or SHORT tags."""
        data = bytearray(small)
        (place,) = struct.unpack_from("<I", data, 4)
        (count,) = struct.unpack_from("<H", data, place)
        for n in range(count):
            entry = place + 2 + 12 * n
            tag = f"t{struct.unpack_from('<H', data, entry)[0]}"
            if tag in tags:
                struct.pack_into("<HII", data, entry + 2, 4, 1, tags[tag])
        return bytes(data)

    yield Bomb("TIFF, header of 4294 megapixels", with_tags(t256=65535, t257=65535, t278=65535), 65535**2, ".tif")
    yield Bomb("TIFF, a strip of 4 billion rows", with_tags(t278=2**32 - 1), 64 * 64, ".tif")
    loop = bytearray(small)
    (place,) = struct.unpack_from("<I", loop, 4)
    (count,) = struct.unpack_from("<H", loop, place)
    struct.pack_into("<I", loop, place + 2 + 12 * count, place)
    yield Bomb("TIFF, a directory that follows itself", bytes(loop), 64 * 64, ".tif")


def webps() -> Iterator[Bomb]:
    flat = Image.new("RGB", (SIDE, SIDE))
    yield Bomb("WebP, 4 megapixels of one colour", saved(flat, "WEBP", lossless=True), SIDE * SIDE, ".webp")
    data = bytearray(saved(Image.new("RGB", (64, 64)), "WEBP", lossless=True))
    place = data.index(b"VP8L") + 9
    (bits,) = struct.unpack_from("<I", data, place)
    struct.pack_into("<I", data, place, bits | (1 << 28) - 1)
    yield Bomb("WebP, header of 268 megapixels", bytes(data), 16384**2, ".webp")
    frames = [Image.fromarray(np.full((64, 64), 40 * (n % 2), np.uint8)) for n in range(1000)]
    animation = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], duration=10)
    canvas = bytearray(animation)
    canvas[canvas.index(b"VP8X") + 12 : canvas.index(b"VP8X") + 18] = b"\xff\x3f\0\xff\x3f\0"
    yield Bomb("WebP, 1000 frames", animation, 1000 * 64 * 64, ".webp")
    yield Bomb("WebP, canvas of 268 megapixels around small frames", bytes(canvas), 16384**2, ".webp")


def avifs() -> Iterator[Bomb]:
    flat = saved(Image.new("RGB", (SIDE, SIDE)), "AVIF", speed=10)
    yield Bomb("AVIF, 4 megapixels of one colour", flat, SIDE * SIDE, ".avif")
    large = bytearray(saved(Image.new("RGB", (8192, 8192)), "AVIF", speed=10))
    struct.pack_into(">2I", large, large.index(b"ispe") + 8, 64, 64)
    yield Bomb("AVIF, frame of 67 megapixels in a container of 64 x 64", bytes(large), 64 * 64, ".avif")
    small = bytearray(saved(Image.new("RGB", (64, 64)), "AVIF", speed=10))
    struct.pack_into(">2I", small, small.index(b"ispe") + 8, 65535, 65535)
    yield Bomb("AVIF, container of 4294 megapixels", bytes(small), 65535**2, ".avif")


def jpegs() -> Iterator[Bomb]:
    flat = Image.new("L", (SIDE, SIDE))
    yield Bomb("JPEG, 4 megapixels of one colour", saved(flat, "JPEG"), SIDE * SIDE, ".jpg")
    small = bytearray(saved(Image.new("L", (64, 64)), "JPEG"))
    struct.pack_into(">2H", small, small.index(b"\xff\xc0") + 5, 65500, 65500)
    yield Bomb("JPEG, header of 4290 megapixels", bytes(small), 65500**2, ".jpg")
    data = saved(Image.fromarray(synthetic_image(512, 512, 1)[..., 0]), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scans = data[:last] + data[last:-2] * 400 + data[-2:]
    yield Bomb("JPEG, 400 scans of 512 x 512", scans, 512 * 512, ".jpg")


# Run the command in sys.argv; at the end write its peak memory, in kB.  The rusage of a child would count what its
# parent had when it was started.
MEASURED = """
import atexit, os, re, runpy, sys
peak = lambda: re.search("VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
atexit.register(lambda: open(os.environ["PEAK"], "w").write(peak()))
sys.argv[0] = "vaecodec"
runpy.run_module("vaecodec", run_name="__main__")
"""


def measured(bomb: Bomb, folder: pathlib.Path) -> tuple[int, str, float, int]:
    """(status, message, seconds of CPU, peak memory in bytes) of the command that reads it."""
    path, peak = folder / f"bomb{bomb.suffix}", folder / "peak"
    path.write_bytes(bomb.data)
    line = [sys.executable, "-c", MEASURED, "compress", "-f", str(path), "-o", str(folder / "out")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**ENVIRONMENT, "VAECODEC_THREADS": "1", "PEAK": str(peak)}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, errors="replace")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, " ".join((done.stdout + done.stderr).split()), seconds, int(peak.read_text()) * 1024


def rows(folder: pathlib.Path) -> Iterator[list[object]]:
    """A row for each bomb."""
    for bombs in (pngs, tiffs, gifs, webps, avifs, jpegs):
        for bomb in bombs():
            status, text, seconds, memory = measured(bomb, folder)
            allowed = BASE + BYTES_A_PIXEL * min(bomb.pixels, DEFAULT_LIMITS.pixels or 0)
            assert status in (0, 1) and "Traceback" not in text, f"{bomb.name}: {status}, {text}"
            assert memory <= allowed, f"{bomb.name}: {memory / MIB:.0f} MiB, at most {allowed / MIB:.0f}: {text}"
            assert seconds <= SECONDS, f"{bomb.name}: {seconds:.1f} s: {text}"
            what = "done" if status == 0 else "refused"
            yield [bomb.name, 1, f"{what}; {len(bomb.data):,} bytes took {memory / MIB:.0f} MiB, {seconds:.1f} s"]
