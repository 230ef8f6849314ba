"""Run long fuzzing of the container parser, decoding and model files; README.md in this folder has the commands.

python tests/long/fuzz/fuzz.py parser --count 10000000
python tests/long/fuzz/fuzz.py decode --model other.vcm
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import pathlib
import random
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

TESTS = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(TESTS))

import vaecodec
from support.damage import mutants, mutate, with_right_crc
from support.images import synthetic_image
from vaecodec import arrays
from vaecodec.arguments import Limits
from vaecodec.codec import Codec, modes
from vaecodec.container import image_file
from vaecodec.container.image_file import Header
from vaecodec.errors import CodecError
from vaecodec.model.file import load_model, pack_model, parse_model

MODEL = TESTS / "golden" / "tiny.vcm"
LIMITS = Limits(pixels=1 << 21)  # two megapixels, the limit of libjxl's fuzzer
SECONDS, BYTES, BYTES_A_PIXEL = 2.0, 256 << 20, 8


def golden(model: pathlib.Path = MODEL) -> list[bytes]:
    """Return the golden files, or files of another model, and a file with all kinds of chunks."""
    files = [path.read_bytes() for path in sorted((TESTS / "golden").glob("*.vae"))]
    if model != MODEL:
        codec = Codec(load_model(str(model)), threads=1)
        shapes, channels = ((1, 1), (33, 48), (7, 200), (130, 90)), codec.model.config.channels
        images = [np.resize(synthetic_image(*shape), (*shape, channels)) for shape in shapes]
        files = [codec.encode(pixels, quality, tile=64) for pixels in images for quality in (1, 50, 100)]
    meta = {"icc": b"profile" * 40, "exif": b"II*\0" + bytes(40), "xmp": b"<x/>"}
    header = Header("0123456789abcdef" * 2, 100, 200, 448, 128)
    return [*files, image_file.pack(header, [(b"abcd", 1, 3), (b"", 2, 4)], meta)]


def peak() -> int:
    """Return the peak memory of this process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


class Tally:
    """Count the outcomes of mutants; at the first violation, write the mutant to a file and end the run."""

    def __init__(self, target: str, every: int, model: pathlib.Path = MODEL) -> None:
        self.target, self.every, self.model, self.began = target, every, model, time.time()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.slowest, self.base = 0.0, peak()

    def run(self, mutant: bytes, work: Callable[[bytes], object]) -> None:
        start, outcome = time.process_time(), "accepted"
        try:
            work(mutant)
        except CodecError as exc:
            outcome = type(exc).__name__ + (" in a tile" if str(exc).startswith("tile ") else "")
        except BaseException as exc:  # constriction's PanicException is no Exception
            self.fail(mutant, f"{type(exc).__name__}: {exc}")
        self.slowest = max(self.slowest, time.process_time() - start)
        self.outcomes[outcome] += 1
        if self.slowest > SECONDS:
            self.fail(mutant, f"{self.slowest:.1f} s")
        if self.outcomes.total() % self.every == 0:
            self.report()

    def fail(self, mutant: bytes, reason: str) -> None:
        path = f"{self.target}-{self.outcomes.total()}.bin"
        pathlib.Path(path).write_bytes(mutant)
        self.report()
        sys.exit(f"{self.target}: {reason}; see {path}")

    def report(self) -> None:
        grown = (peak() - self.base) / 2**20
        print(
            f"{self.target}: {self.outcomes.total()} mutants, {dict(self.outcomes)}, slowest {self.slowest:.3f} s, "
            f"memory +{grown:.0f} MiB, {time.time() - self.began:.0f} s",
            flush=True,
        )


def fuzz_parser(tally: Tally, seed: int, count: int) -> None:
    """Fuzz metadata(), which parses a file and inflates its metadata, and info()."""

    def work(data: bytes) -> None:
        image_file.metadata(data)
        image_file.info(data)

    for mutant in mutants(seed, count, golden()):
        tally.run(mutant, work)


def fuzz_decode(tally: Tally, seed: int, count: int) -> None:
    """Fuzz decoding, and check the memory against the size in the header."""
    codec, files = Codec(load_model(str(tally.model)), threads=1), golden(tally.model)
    for data in files[:-1]:
        codec.decode(data)
    tally.base = peak()
    for mutant in mutants(seed, count, files):
        before = peak()
        tally.run(mutant, lambda data: codec.decode(data, limits=LIMITS))
        if peak() > before:
            header = image_file.parse(mutant, check_data=False).header
            pixels = min(header.height * header.width, LIMITS.pixels)
            if peak() - tally.base > BYTES + BYTES_A_PIXEL * pixels:
                tally.fail(mutant, f"{(peak() - tally.base) / 2**20:.0f} MiB for {pixels} pixels")


def fuzz_exact(tally: Tally, seed: int, count: int) -> None:
    """Fuzz files without latents: of the adaptive coding and others."""
    files = [path.read_bytes() for path in sorted((TESTS / "golden" / "kinds").glob("*.vae"))]
    files = [data for data in files if data[12:16] == b"PICT"]
    for mutant in mutants(seed, count, files):
        tally.run(mutant, lambda data: modes.decode(data, limits=LIMITS, threads=1))


def fuzz_sets(tally: Tally, seed: int, count: int) -> None:
    """Fuzz sets of images, which are coded by bits back."""
    folder = TESTS / "golden" / "sets"
    model, files = str(folder / "tiny.vcm"), [path.read_bytes() for path in sorted(folder.glob("*.vae"))]
    for mutant in mutants(seed, count, files):
        tally.run(mutant, lambda data: vaecodec.decode_set(data, model=model, limits=LIMITS))


def fuzz_arrays(tally: Tally, seed: int, count: int) -> None:
    """Fuzz array chunks of every mode; three quarters of the mutants have a right CRC."""
    rng, files = (
        random.Random(seed),
        [path.read_bytes() for path in sorted((TESTS / "golden" / "arrays").glob("*.chunk"))],
    )
    for number in range(count):
        mutant = mutate(rng, rng.choice(files), files)
        mutant = with_right_crc(mutant) if number % 4 else mutant
        tally.run(mutant, lambda data: arrays.decode(data, str(MODEL), LIMITS))


def fuzz_model(tally: Tally, seed: int, count: int) -> None:
    """Fuzz model files with damage, or with wrong arrays and a right id; valid models code an image."""
    rng, data = random.Random(seed), tally.model.read_bytes()
    model = parse_model(data, "model")
    pixels = np.resize(synthetic_image(40, 50), (40, 50, model.config.channels))

    def work(data: bytes) -> None:
        codec = Codec(parse_model(data, "model"), threads=1)
        codec.verify(codec.encode(pixels, 60))

    for number in range(count):
        if number % 2:
            tally.run(mutate(rng, data, [data]), work)
            continue
        changed_arrays, generator = dict(model.arrays), np.random.default_rng(rng.randrange(2**32))
        for _ in range(rng.choice((1, 1, 3))):
            name = rng.choice(sorted(changed_arrays))
            array = changed_arrays[name]
            kind = rng.randrange(6)
            if kind == 0:
                del changed_arrays[name]
            elif kind == 1:
                changed_arrays[name] = array[: len(array) // 2]
            elif kind == 2:
                with np.errstate(all="ignore"):
                    changed_arrays[name] = array.astype(rng.choice(("<i8", "<f4", "<f2", "|u1", "<i2", "<u4")))
            elif kind == 3:
                changed_arrays[name] = array.reshape(-1)
            elif kind == 4:
                values = array.copy().reshape(-1)
                values[rng.randrange(len(values))] = rng.choice((0, 1, 127, *((np.nan,) * (array.dtype.kind == "f"))))
                changed_arrays[name] = values.reshape(array.shape)
            else:
                changed_arrays[name] = np.frombuffer(generator.bytes(array.nbytes), array.dtype).reshape(array.shape)
            if not changed_arrays:
                break
        with np.errstate(all="ignore"):
            tally.run(pack_model("mutant", model.config, changed_arrays, {}), work)


def main() -> None:
    targets = {
        "parser": fuzz_parser,
        "decode": fuzz_decode,
        "exact": fuzz_exact,
        "sets": fuzz_sets,
        "arrays": fuzz_arrays,
        "model": fuzz_model,
    }
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", choices=targets)
    parser.add_argument("--model", type=pathlib.Path, default=MODEL, help="for decode and model")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=100_000, help="mutants from one line of progress to the next")
    options = parser.parse_args()
    faulthandler.enable()
    tally = Tally(options.target, options.every, options.model)
    targets[options.target](tally, options.seed, options.count)
    tally.report()


if __name__ == "__main__":
    main()
