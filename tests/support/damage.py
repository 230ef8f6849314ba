"""Damage files from seeds, and repair their CRCs, so that the damage passes the checksums."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator

WORDS = (0, 1, 2, 15, 16, 255, 256, 65535, 65536, 2**24 - 1, 2**24, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1)


def mutate(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """A copy with one to four edits: other bits, bytes and words, runs cut, repeated or copied from `others`."""
    out = bytearray(data)
    # More of the damage passes the header where lengths stay as they are.
    kinds = (0, 1, 2, 6, 8) if rng.random() < 0.7 else range(9)
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind, at = rng.choice(kinds), rng.randrange(len(out) + 1)
        # Headers are short and payloads long, so half of the edits are among the first bytes.
        at = min(at, rng.randrange(96)) if rng.random() < 0.5 else at
        size = rng.choice((1, 2, 4, 8, 16, 64))
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(out):
            out[at] = rng.randrange(256)
        elif kind == 2:
            out[at : at + 4] = struct.pack("<I", rng.choice(WORDS))
        elif kind == 3:
            del out[at : at + size]
        elif kind == 4:
            out[at:at] = out[at : at + size]
        elif kind == 5:
            out[at:at] = rng.randbytes(size)
        elif kind == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            out[at : at + size] = other[start : start + size]
        elif kind == 7:
            del out[at:]
        else:
            out[at : at + size] = bytes(size)
    return bytes(out)


def with_right_crcs(data: bytes) -> bytes:
    """A .vae file with the right CRC in each chunk, as far as its chunks can be followed."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        (length,) = struct.unpack_from("<I", out, at)
        end = at + 8 + length
        if end + 4 > len(out):
            break
        struct.pack_into("<I", out, end, zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def with_right_crc(data: bytes) -> bytes:
    """An array chunk with the right CRC."""
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


def mutants(seed: int, count: int, files: list[bytes]) -> Iterator[bytes]:
    """`count` mutants of the files; every second one has right CRCs."""
    rng = random.Random(seed)
    for number in range(count):
        mutant = mutate(rng, rng.choice(files), files)
        yield with_right_crcs(mutant) if number % 2 else mutant


def truncations(data: bytes) -> Iterator[bytes]:
    """A file truncated at every byte."""
    for end in range(len(data)):
        yield data[:end]


def flipped(data: bytes, bits: Iterator[int] | range | list[int]) -> Iterator[bytes]:
    """Copies of a file with one bit flipped, one copy for each of `bits`."""
    for bit in bits:
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)
