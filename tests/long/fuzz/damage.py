"""Check that damage to golden files is detected: truncations, bits before the payload, and bits of payloads.

python tests/long/fuzz/damage.py [--payload-bits 10000]
"""

from __future__ import annotations

import argparse
import pathlib
import random
import sys

TESTS = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(TESTS))

from support.damage import flipped, truncations
from vaecodec.codec import Codec
from vaecodec.container.image_file import parse
from vaecodec.errors import CodecError
from vaecodec.model.file import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--payload-bits", type=int, default=10_000)
    options = parser.parse_args()
    codec = Codec(load_model(str(TESTS / "golden" / "tiny.vcm")), threads=1)
    files = [path.read_bytes() for path in sorted((TESTS / "golden").glob("*.vae"))]
    files = [data for data in files if parse(data).header.model == codec.model.id]
    starts = [parse(data).tiles[0].offset for data in files]
    ends = [parse(data).tiles[-1].offset + parse(data).tiles[-1].length for data in files]
    trials, passed = dict.fromkeys(("truncations", "header bits", "payload bits"), 0), 0

    def attempt(kind: str, data: bytes, window: tuple[int, int, int, int] | None = None) -> None:
        nonlocal passed
        trials[kind] += 1
        try:
            codec.decode(data, window)
        except CodecError:
            return
        passed += 1
        print(f"not noticed: {kind}, {data[:80].hex()}...")

    for data, start in zip(files, starts, strict=True):
        for damaged in truncations(data):
            attempt("truncations", damaged)
        for damaged in flipped(data, range(8 * start)):
            attempt("header bits", damaged)
    rng, positions = random.Random(0), []
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        positions += [(number, bit) for bit in range(8 * start, 8 * end)]
    for number, bit in rng.sample(positions, min(options.payload_bits, len(positions))):
        (damaged,) = flipped(files[number], [bit])
        header = parse(files[number]).header
        # A window skips the CRC of DATA, so the checksum of the tile must detect the damage.
        attempt("payload bits", damaged, (0, 0, header.height, header.width))
    print(f"{len(files)} files: {trials}; not noticed: {passed}")
    sys.exit(passed > 0)


if __name__ == "__main__":
    main()
