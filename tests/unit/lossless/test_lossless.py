"""Test lossless payloads: round trips on one and several threads, damage, and limits."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from support.images import synthetic_channels, synthetic_image
from vaecodec.arguments import Limits
from vaecodec.errors import CodecError, FormatError, LimitError
from vaecodec.lossless import HEADER, PlaneSchedule, decode, encode, read_header, size_at
from vaecodec.native import library
from vaecodec.threads import Threads


@pytest.fixture(scope="module")
def pool():
    with ThreadPoolExecutor(4) as executor:
        yield executor


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (37, 50), (37, 50, 2), (64, 33, 3), (31, 70, 4), (3, 200, 1)])
@pytest.mark.parametrize("max_error", [0, 1, 16])
def test_round_trips(shape, max_error):
    channels = shape[2] if len(shape) > 2 else 1
    samples = synthetic_channels(*shape[:2], channels).reshape(shape)
    decoded = decode(encode(samples, max_error))
    assert decoded.dtype == np.uint8
    assert decoded.shape == (shape if channels > 1 else shape[:2])
    assert np.abs(decoded.reshape(shape).astype(int) - samples).max() <= max_error


@pytest.mark.parametrize("depth", [1, 5, 8, 9, 10, 12, 16])
def test_depths(depth):
    samples = (synthetic_image(30, 40).astype(np.uint32) * 257 >> (16 - depth)).astype(np.uint16)
    samples = samples.astype(np.uint8) if depth <= 8 else samples
    payload = encode(samples, depth=depth)
    assert read_header(payload).depth == depth
    np.testing.assert_array_equal(decode(payload), samples)


@pytest.mark.parametrize(("effort", "level"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 4), (6, 4), (7, 5), (8, 6), (9, 6)])
def test_effort_chooses_the_level(effort, level):
    samples = synthetic_image(40, 50)
    payload = encode(samples, 1, effort=effort)
    assert read_header(payload)[3:5] == (1, level)
    assert np.abs(decode(payload).astype(int) - samples).max() <= 1


def test_an_unknown_level_is_refused():
    payload = bytearray(encode(synthetic_image(8, 9)))
    payload[7] |= 7 << 5
    with pytest.raises(FormatError, match="level 7"):
        decode(bytes(payload))


def test_encoding_with_an_error_leaves_the_samples():
    samples = synthetic_image(20, 20)
    copy = samples.copy()
    encode(samples, 4)
    np.testing.assert_array_equal(samples, copy)
    samples.flags.writeable = False
    assert decode(encode(samples[::-1, ::2])).shape == (20, 10, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("count", [2, 3, 8])
def test_threads_change_no_byte(pool, channels, count):
    samples = synthetic_channels(101, 90, channels)
    payload = encode(samples)
    assert encode(samples, threads=Threads(count, pool)) == payload
    decoded = decode(payload, Threads(count, pool))
    np.testing.assert_array_equal(decoded.reshape(samples.shape), samples)


def test_an_exception_ends_all_threads(pool):
    def work(plane, rows):
        if plane == 1 and rows[0] == 8:
            raise FormatError("no")

    for threads in (Threads(), Threads(3, pool)):
        with pytest.raises(FormatError, match="no"):
            PlaneSchedule(100, 3, work).run(threads)


def test_the_reference_writes_the_same_payload(kinds):
    samples = synthetic_image(9, 14)
    with library.use("numpy"):
        expected = encode(samples, 1)
        np.testing.assert_array_equal(decode(expected), decode(expected))
    for kind in kinds:
        with library.use(kind):
            assert encode(samples, 1) == expected


def test_every_damaged_byte_is_noticed(pool):
    samples = synthetic_image(12, 16)
    payload = encode(samples)
    for position in range(len(payload)):
        damaged = bytearray(payload)
        damaged[position] ^= 1 << position % 8
        with pytest.raises(CodecError):
            decode(bytes(damaged), Threads(1 + position % 3, pool), limits=Limits(pixels=1 << 16))


def test_truncated_payloads_are_refused():
    payload = encode(synthetic_image(12, 16))
    for size in range(len(payload)):
        with pytest.raises(FormatError):
            decode(payload[:size])
    with pytest.raises(FormatError):
        decode(payload + b"\0")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_payloads_that_follow_each_other_have_their_size_in_front(channels):
    payload = encode(synthetic_channels(5, 9, channels))
    assert size_at(b"ab" + payload + b"more", 2) == len(payload)
    for size in range(HEADER.size + 4 * channels):
        with pytest.raises(FormatError, match="its header is cut off"):
            size_at(b"ab" + payload[:size], 2)


def test_short_streams_of_large_images_end_at_once():
    header = HEADER.pack(0, 76, 1, 8, 0, 9_000, 9_000)
    with pytest.raises(FormatError, match="ends too early"):
        decode(header + (4).to_bytes(4, "little") + b"\x12\x34\x56\x78")


def test_limits_are_checked_before_memory_is_taken():
    with pytest.raises(LimitError):
        decode(HEADER.pack(0, 76, 1, 8, 0, 65_535, 65_535) + bytes(4))
    with pytest.raises(LimitError):
        decode(encode(synthetic_image(9, 9)), limits=Limits(pixels=80))


@pytest.mark.parametrize(
    ("samples", "max_error", "depth"),
    [
        (np.zeros((4, 4, 3), np.int32), 0, None),
        (np.zeros((4, 4, 5), np.uint8), 0, None),
        (np.zeros((4, 0, 3), np.uint8), 0, None),
        (np.zeros(4, np.uint8), 0, None),
        (np.zeros((4, 4), np.uint8), 17, None),
        (np.zeros((4, 4), np.uint8), -1, None),
        (np.zeros((4, 4), np.uint8), 0, 9),
        (np.zeros((4, 4), np.uint16), 0, 8),
        (np.full((4, 4), 16, np.uint8), 0, 4),
        (np.zeros((1, 65_536), np.uint8), 0, None),
    ],
)
def test_wrong_arguments_are_refused(samples, max_error, depth):
    with pytest.raises(CodecError):
        encode(samples, max_error, depth)
