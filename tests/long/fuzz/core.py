"""Damaged files and hostile models against the native core, compiled with sanitizers.

    python tests/long/fuzz/core.py --minutes 10 --seed 1

Compiles the core with AddressSanitizer and UndefinedBehaviorSanitizer into a folder of its own, and runs itself again
with that library.  Of each golden file and of the model it makes mutants whose CRCs, lengths and ids are put right, so
that they reach the decoder behind these checks; every one must decode, or raise a CodecError.  A finding of a sanitizer
ends the process with a report.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).parents[2]
GOLDEN = TESTS / "golden"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g")
LIBRARY = "VAECODEC_CORE_LIBRARY"
LARGEST = 1 << 12  # pixels of a mutant that is decoded, so that many are


def compile_core(folder: str) -> str:
    """The path of a core with sanitizers."""
    from vaecodec.native.build import build, library_name

    path = pathlib.Path(folder, library_name())
    build(path, ["gcc"], flags=SANITIZERS)
    return str(path)


def run_again(path: str) -> int:
    """This program with that core; the sanitizer's runtime must be there before Python's own libraries."""
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    environment = dict(os.environ, LD_PRELOAD=runtime.stdout.strip(), ASAN_OPTIONS="detect_leaks=0", **{LIBRARY: path})
    return subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode


def mutated(data: bytearray, rng: random.Random, begin: int, end: int) -> None:
    """A few bytes between begin and end changed, in place."""
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(begin, end)
        data[place] = rng.choice((0, 255, 127, 128, data[place] ^ (1 << rng.randrange(8)), rng.randrange(256)))


class Files:
    """Mutants of the golden files."""

    def __init__(self) -> None:
        from vaecodec.codec import Codec
        from vaecodec.container.image_file import parse
        from vaecodec.errors import CodecError
        from vaecodec.model.file import load_model

        self._codec, self._files = Codec(load_model(str(GOLDEN / "tiny.vcm")), threads=1), []
        for path in sorted(GOLDEN.glob("*.vae")):
            try:
                header = parse(path.read_bytes()).header
            except CodecError:
                continue
            if header.model == self._codec.model.id and header.height * header.width <= LARGEST:
                self._files.append(path.read_bytes())

    def attempt(self, rng: random.Random) -> None:
        """Decode one; raises CodecError as decoding does."""
        from vaecodec.container.chunks import MAGIC
        from vaecodec.container.image_file import HEAD, parse
        from vaecodec.prior import tile

        data = bytearray(rng.choice(self._files))
        parsed = parse(bytes(data))
        head, kind = len(MAGIC) + 8, rng.randrange(4)
        if kind == 0:  # quality index
            data[head + HEAD.size - 4 : head + HEAD.size - 2] = rng.randrange(897).to_bytes(2, "little")
        elif kind == 1 and parsed.header.filter:
            end = head + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "little")
            mutated(data, rng, end - len(parsed.header.filter), end)
        if kind > 1 or rng.randrange(2):
            last = parsed.tiles[-1]
            if last.offset + last.length > parsed.tiles[0].offset:
                mutated(data, rng, parsed.tiles[0].offset, last.offset + last.length)
        refixed(data)
        # The CRC of the symbols, and words that are left over, would end most mutants before the synthesis.
        checksum, reader = tile.tile_checksum, tile.coding.reader
        tile.tile_checksum, tile.coding.reader = lambda crcs: Any(), lambda payload: Loose(reader(payload))  # type: ignore
        try:
            self._codec.decode(bytes(data))
        finally:
            tile.tile_checksum, tile.coding.reader = checksum, reader


class Loose:
    """A stack that is empty whenever it is asked."""

    def __init__(self, coder: object) -> None:
        self._coder = coder

    def __getattr__(self, name: str) -> object:
        return getattr(self._coder, name)

    def is_empty(self) -> bool:
        return True


class Any:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def refixed(data: bytearray) -> None:
    """The CRCs of all chunks, in place."""
    import zlib

    from vaecodec.container.chunks import MAGIC

    place = len(MAGIC)
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "little")
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(bytes(data[place + 4 : end])).to_bytes(4, "little")
        place = end + 4


class Models:
    """Mutants of the golden model, under the id that their contents have; those that load decode and encode."""

    def __init__(self) -> None:
        import numpy as np
        from safetensors.numpy import load

        data = (GOLDEN / "tiny.vcm").read_bytes()
        size = int.from_bytes(data[:8], "little")
        fields = json.loads(data[8 : 8 + size])["__metadata__"]
        self._config, self._arrays = json.loads(fields["config"]), load(data)
        self._pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)

    def attempt(self, rng: random.Random) -> None:
        """Load one and use it; raises CodecError as that does."""
        import numpy as np

        from vaecodec.codec import Codec
        from vaecodec.config import Config
        from vaecodec.errors import ModelError
        from vaecodec.model.file import pack_model, parse_model

        arrays = dict(self._arrays)
        for name in rng.sample(sorted(arrays), rng.choice((1, 1, 3, 20))):
            array, kind = arrays[name].copy(), rng.randrange(4)
            if kind == 0 and array.ndim:
                array = array[: rng.randrange(len(array) + 1)]
            elif array.size and array.dtype.kind in "iu":
                least, most = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
                flat = array.reshape(-1)
                for _ in range(rng.choice((1, 8, array.size))):
                    flat[rng.randrange(array.size)] = rng.choice((least, most, 0, 1, rng.randint(least, most)))
            arrays[name] = array
        values = dict(self._config)
        if rng.randrange(8) == 0:
            values[rng.choice(sorted(values))] = rng.choice((1, 2, 3, 16, 64))
        try:
            config = Config.from_dict(values)
        except ValueError as exc:
            raise ModelError(str(exc)) from exc
        codec = Codec(parse_model(pack_model("mutant", config, arrays, {}), "mutant"), threads=1)
        codec.decode(codec.encode_unfiltered(self._pixels, rng.randrange(1, 101)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if LIBRARY not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(run_again(compile_core(folder)))
    from vaecodec.errors import CodecError
    from vaecodec.native import library

    files, models, rng = Files(), Models(), random.Random(options.seed)
    counts, end = {"decoded": 0, "refused": 0}, time.monotonic() + 60 * options.minutes
    kinds = library.kinds()[2:] or library.kinds()[1:]  # plain C is slow, and what compilers check best: now and then
    while time.monotonic() < end:
        target = models if rng.randrange(8) == 0 else files
        state = rng.getstate()
        with library.use("plain" if rng.randrange(200) == 0 else rng.choice(kinds)):
            try:
                target.attempt(rng)
                counts["decoded"] += 1
            except CodecError:
                counts["refused"] += 1
            except BaseException:
                print(f"{type(target).__name__}, seed {options.seed}, after {counts}, state {hash(state)}", flush=True)
                raise
    print(f"{counts} on {', '.join(kinds)}: no finding", flush=True)


if __name__ == "__main__":
    main()
