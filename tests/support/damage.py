"""Damage files from seeds, and repair their CRCs, so that the damage passes the checksums."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

WORDS = (0, 1, 2, 15, 16, 255, 256, 65535, 65536, 2**24 - 1, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1)


def mutate(rng: random.Random, data: bytes, donors: list[bytes]) -> bytes:
    """Return a copy with one to four edits: changed bits, bytes and words; runs removed, repeated or copied in."""
    out = bytearray(data)
    # Edits that keep the length pass the header more often.
    kinds = (0, 1, 2, 6, 8) if rng.random() < 0.7 else range(9)
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind, position = rng.choice(kinds), rng.randrange(len(out) + 1)
        # Headers are short and payloads long, so half of the edits are among the first bytes.
        position = min(position, rng.randrange(96)) if rng.random() < 0.5 else position
        size = rng.choice((1, 2, 4, 8, 16, 64))
        if kind == 0 and position < len(out):
            out[position] ^= 1 << rng.randrange(8)
        elif kind == 1 and position < len(out):
            out[position] = rng.randrange(256)
        elif kind == 2:
            out[position : position + 4] = struct.pack("<I", rng.choice(WORDS))
        elif kind == 3:
            del out[position : position + size]
        elif kind == 4:
            out[position:position] = out[position : position + size]
        elif kind == 5:
            out[position:position] = rng.randbytes(size)
        elif kind == 6:
            donor = rng.choice(donors)
            start = rng.randrange(len(donor))
            out[position : position + size] = donor[start : start + size]
        elif kind == 7:
            del out[position:]
        else:
            out[position : position + size] = bytes(size)
    return bytes(out)


def with_right_crcs(data: bytes) -> bytes:
    """Return a .vae file with the right CRC in each chunk, as far as its chunks can be parsed."""
    out, position = bytearray(data), 8
    while position + 12 <= len(out):
        (length,) = struct.unpack_from("<I", out, position)
        end = position + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into("<I", out, end, zlib.crc32(out[position + 4 : end]))
        position = end + 4
    return bytes(out)


def with_right_crc(data: bytes) -> bytes:
    """Return an array chunk with the right CRC; what is too short for one stays as it is."""
    return data if len(data) <= 4 else data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def mutants(seed: int, count: int, files: list[bytes]) -> Iterator[bytes]:
    """Yield `count` mutants of the files; every second mutant has right CRCs."""
    rng = random.Random(seed)
    for number in range(count):
        mutant = mutate(rng, rng.choice(files), files)
        yield with_right_crcs(mutant) if number % 2 else mutant


def truncations(data: bytes) -> Iterator[bytes]:
    """Yield a file truncated at every byte."""
    for end in range(len(data)):
        yield data[:end]


def flipped(data: bytes, bits: Iterator[int] | range | list[int]) -> Iterator[bytes]:
    """Yield copies of a file with a single bit flipped, for each of `bits`."""
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)
