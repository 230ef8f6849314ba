"""Test that damaged array chunks raise a CodecError."""

import random
import struct
import zlib

import numpy as np
import pytest

from support.damage import flipped, mutate, truncations, with_right_crc
from support.images import synthetic_image
from support.paths import GOLDEN
from vaecodec import arrays
from vaecodec.arguments import Limits
from vaecodec.arrays import chunks, planes, prediction
from vaecodec.arrays.prediction import AFFINE, INTEGERS, ORDERED, QUOTIENTS, Scale
from vaecodec.errors import CodecError, FormatError

TINY = str(GOLDEN / "tiny.vcm")


def with_part(data: bytes, index: int, part: bytes) -> bytes:
    """Replace a part of a chunk and update its CRC."""
    chunk = chunks.parse(data)
    return chunks.pack(chunk._replace(parts=[part if n == index else old for n, old in enumerate(chunk.parts)]))


@pytest.fixture(scope="module")
def valid_chunks() -> list[bytes]:
    grey = synthetic_image(40, 36)[..., 0]
    holes = np.where(grey > 200, np.nan, grey / 3).astype("f4")
    return [
        arrays.encode(grey, 0, mode="planes"),
        arrays.encode(synthetic_image(18, 20), 6, mode="vae", model=TINY),
        arrays.encode(holes, 0.2),
        arrays.encode(grey.astype("f8") * np.pi, 0),
        arrays.encode(np.where(grey > 99, np.float32(2), np.float32(np.inf)), 0),
        arrays.encode(grey.astype("f4") * np.float32(np.pi), 0, mode="planes"),
        arrays.encode(holes, 3, mode="grid"),
        arrays.encode(np.stack([grey, grey]).astype(">u2"), 1, mode="planes"),
    ]


def test_truncations_and_flipped_bits_are_detected(valid_chunks):
    for data in valid_chunks:
        for damaged in truncations(data):
            with pytest.raises(FormatError):
                arrays.decode(damaged, TINY)
        with pytest.raises(FormatError):
            arrays.decode(data + b"\0", TINY)
        for damaged in flipped(data, range(0, 8 * len(data), 23)):
            with pytest.raises(FormatError):
                arrays.decode(damaged, TINY)


def test_flipped_bits_are_detected_without_the_crc_of_the_chunk(valid_chunks):
    """The checks of each part and the CRC of the values detect the damage."""
    rng = random.Random(3)
    for data in valid_chunks:
        expected = arrays.decode(data, TINY)
        for damaged in flipped(data, rng.sample(range(8 * (len(data) - 4)), 40)):
            try:
                decoded = arrays.decode(with_right_crc(damaged), TINY)
            except CodecError:
                continue
            # The bit does not affect the values, as in the padding of a stream.
            assert (
                decoded.tobytes() == expected.tobytes()
                or decoded.shape != expected.shape
                or decoded.dtype != expected.dtype
            )


def test_mutants_are_decoded_or_refused(valid_chunks):
    rng, outcomes = random.Random(4), set()
    for number in range(1000):
        mutant = mutate(rng, rng.choice(valid_chunks), valid_chunks)
        mutant = with_right_crc(mutant) if number % 4 else mutant
        try:
            arrays.info(mutant)
            arrays.decode(mutant, TINY, Limits(pixels=1 << 14))
            outcomes.add(str)
        except CodecError as exc:
            outcomes.add(type(exc))
    assert outcomes >= {str, FormatError}


def test_mutants_of_parts_are_decoded_or_refused(valid_chunks):
    """All headers are valid here; few mutants of complete chunks have a valid header."""
    rng, outcomes = random.Random(5), []
    for _ in range(500):
        data = rng.choice(valid_chunks)
        parts = chunks.parse(data).parts
        index = rng.randrange(len(parts))
        part = parts[index]
        if part[:1] == b"\x78" and rng.random() < 0.8:  # deflated
            part = zlib.compress(mutate(rng, zlib.decompress(part), [data]))
        else:
            part = mutate(rng, part or b"\0", [data])
        try:
            arrays.decode(with_part(data, index, part), TINY)
            outcomes.append(str)
        except CodecError as exc:
            outcomes.append(str(exc).partition(" (")[0])
    assert len(set(outcomes)) > 12  # many different checks


def test_claimed_sizes_allocate_no_memory():
    import tracemalloc

    def claim(mode: int, kind: str, shape: tuple[int, ...], *parts: bytes) -> bytes:
        return chunks.pack(chunks.Chunk(mode, np.dtype(kind), shape, 0, 0, list(parts)))

    coding = chunks.pack_coding(chunks.Coding(Scale(INTEGERS, 0, 1, 255), 1, 1))
    long = chunks.pack_coding(chunks.Coding(Scale(INTEGERS, 0, 1, 255), 1, 1 << 27))
    zeros = zlib.compress(bytes(1 << 24), 9)
    hostile = [
        claim(chunks.STORED, "u1", (1 << 16, 1 << 12), b""),
        claim(chunks.STORED, "<f8", (1 << 29, 3), b"\0(\xb5/\xfd"),
        claim(chunks.GRID, "<u2", (9, 9), coding, b"", b"", b"\2(\xb5/\xfd\xa0\0\0\0\x40"),
        claim(chunks.CONSTANT, "u1", (1 << 31, 1), b"\0", b""),
        claim(chunks.PLANES, "u1", (9, 9), coding, zeros, b"", b"", b""),
        claim(chunks.PLANES, "<f4", (9, 9), coding, zeros, b"", b"", b""),
        claim(chunks.PLANES, "u1", (9, 9), coding, b"", zeros, zeros, b""),
        claim(chunks.PLANES, "u1", (9, 9), coding, b"", b"", zeros, b""),
        claim(chunks.PLANES, "u1", (1 << 27, 1, 1), long, b"", b"", b"", b""),
        claim(chunks.PLANES, "u1", (0, 9), coding, b"", b"", b"", b""),
    ]
    for data in hostile:
        tracemalloc.start()
        with pytest.raises(CodecError):
            arrays.decode(data)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 1 << 20


@pytest.mark.parametrize(
    "kind, scale, step_size, chain",
    [
        ("u1", Scale(INTEGERS, 0, 1, 256), 1, 1),
        ("u1", Scale(INTEGERS, -1, 1, 9), 1, 1),
        ("u1", Scale(INTEGERS, 0.5, 1, 9), 1, 1),
        ("u1", Scale(AFFINE, 0, 1, 9), 1, 1),
        ("u1", Scale(INTEGERS, 0, 1, 9), 2, 1),
        ("u1", Scale(INTEGERS, 0, 1, 9), 21, 1),
        ("u1", Scale(INTEGERS, 0, 1, 9), 1, 0),
        ("u1", Scale(INTEGERS, 0, 1, 9), 1, 4),
        ("u1", Scale(INTEGERS, 0, 1, 9), 1, 12),
        ("<f4", Scale(AFFINE, np.nan, 1, 9), 1, 1),
        ("<f4", Scale(AFFINE, 0, 0, 9), 1, 1),
        ("<f4", Scale(QUOTIENTS, 0, -1, 9), 1, 1),
        ("<f4", Scale(QUOTIENTS, 0, 1, prediction.TOP_MAX + 1), 1, 1),
        ("<f4", Scale(ORDERED, -(2**31) - 1, 1, 9), 1, 1),
        ("<f8", Scale(ORDERED, 0, 1, 9), 1, 1),
        ("<f8", Scale(4, 0, 1, 9), 1, 1),
    ],
)
def test_invalid_scales_are_refused(kind, scale, step_size, chain):
    with pytest.raises(FormatError):
        chunks.parse_coding(chunks.pack_coding(chunks.Coding(scale, step_size, chain)), np.dtype(kind), (6, 5, 5))


def test_weights_beyond_exact_arithmetic_are_refused(valid_chunks):
    def refused(weights: bytes) -> None:
        with pytest.raises(FormatError):
            arrays.decode(with_part(valid_chunks[0], 3, zlib.compress(weights)))

    stages = len(list(prediction.stages((1, 40, 36))))
    (predict, expect), own = prediction.weight_counts(0, []), bytes([planes.OWN])
    too_large = [prediction.PREDICT_MAX + 1] + [0] * (predict + expect - 1)
    negative = [0] * predict + [-1] + [0] * (expect - 1)
    too_large_expectation = [0] * predict + [prediction.EXPECT_MAX + 1] + [0] * (expect - 1)
    for values in (too_large, negative, too_large_expectation):
        refused(own + bytes(stages - 1) + np.array(values, "<i2").tobytes())
    refused(own + bytes(stages - 1))
    refused(bytes(stages - 1))
    refused(bytes(stages) + b"\0\0")
    refused(bytes([9]) + bytes(stages - 1))
    refused(bytes([planes.FOLLOW]) + bytes(stages - 1))


def test_invalid_patches_and_masks_are_refused():
    values = np.arange(9, dtype="<f4")
    positions = np.array([2, 5])
    patched = np.zeros(9, "<f4")
    chunks.apply_patches(patched, chunks.pack_patches(values, positions))
    assert np.array_equal(np.flatnonzero(patched), positions) and (patched[positions] == positions).all()
    twice, beyond = struct.pack("<IIff", 5, 5, 0, 0), struct.pack("<If", 9, 0)
    for invalid in (b"x", zlib.compress(beyond), zlib.compress(b"abc"), zlib.compress(twice)):
        with pytest.raises(FormatError):
            chunks.apply_patches(patched, invalid)
    for invalid in (bytes(8), bytes(10), b"\4" + bytes(8)):
        with pytest.raises(FormatError):
            chunks.parse_mask(zlib.compress(invalid), np.dtype("<f4"), 9)


@pytest.mark.parametrize("shape", [(0, 2**32 - 1, 2**32 - 1), (2**32 - 1, 0, 2)])
def test_the_sides_of_empty_arrays_are_bounded(shape):
    data = chunks.pack(chunks.Chunk(chunks.STORED, np.dtype("u1"), shape, 0, 0, [chunks.store(np.zeros(0, np.uint8))]))
    with pytest.raises(FormatError, match="claims the shape"):
        arrays.decode(data)
    with pytest.raises(CodecError, match="beyond what a chunk can hold"):
        arrays.encode(np.empty((2**16, 0, 2**17), np.uint8))
