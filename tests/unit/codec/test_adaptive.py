"""Test files of the adaptive coding: tiles, windows, previews, depths, expansions, alpha, damage and limits."""

import itertools
import zlib

import numpy as np
import pytest

import vaecodec
from reference import reference_decoder
from support.damage import mutants, with_right_crcs
from support.images import synthetic_channels, synthetic_image
from support.paths import GOLDEN
from vaecodec import container, lossless
from vaecodec.arguments import Limits
from vaecodec.codec import exact, fallback, modes
from vaecodec.container import image_file
from vaecodec.errors import CodecError, FormatError, LimitError
from vaecodec.images.channels import downscale
from vaecodec.images.reading import read_image
from vaecodec.transforms import Box


def sample(channels, height, width, dtype=np.uint8):
    """An image of 1 to 4 channels; samples of 16 bits use all bits."""
    values = synthetic_channels(height, width, channels).astype(dtype)
    if dtype == np.uint16:
        noise = np.random.default_rng(channels).integers(0, 256, values.shape).astype(np.uint16)
        values = values * np.uint16(256) | noise | np.uint16(1)
    return values[..., 0] if channels == 1 else values


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("max_error", [0, 3])
def test_tiles_windows_and_previews(channels, dtype, max_error):
    samples = sample(channels, 130, 150, dtype)
    data = exact.pack(samples, max_error, threads=1, tile=64)
    assert exact.pack(samples, max_error, threads=3, tile=64) == data
    decoded = modes.decode(data, threads=1)
    assert decoded.dtype == dtype and decoded.shape == samples.shape
    errors = np.abs(decoded.astype(int) - samples)
    assert errors.max() == max_error
    assert channels in (1, 3) or not errors[..., -1].any()
    np.testing.assert_array_equal(modes.decode(data, threads=3), decoded)
    for window in ((0, 0, 1, 1), (63, 63, 2, 2), (10, 70, 60, 80), (129, 0, 1, 150)):
        top, left, height, width = window
        box = Box(top, left, top + height, left + width)
        np.testing.assert_array_equal(modes.decode(data, window), decoded[box.slices()])
        for factor in (2, 16):
            expected = downscale(decoded, box, factor)
            np.testing.assert_array_equal(modes.decode(data, window, factor), expected)
    modes.verify(data)
    assert image_file.info(data)["coding"] == ("near-lossless" if max_error else "lossless")


@pytest.mark.parametrize("height", range(1, 17))
def test_all_small_sizes(height):
    for width in range(1, 17):
        for channels, dtype in itertools.product((1, 4), (np.uint8, np.uint16)):
            samples = sample(channels, height, width, dtype)
            np.testing.assert_array_equal(modes.decode(exact.encode(samples, threads=1)), samples)
            near = modes.decode(exact.pack(samples, width, threads=1))
            assert np.abs(near.astype(int) - samples).max() <= width


@pytest.mark.long
@pytest.mark.parametrize("height", range(1, 66))
def test_all_sizes_up_to_65(height):
    rng = np.random.default_rng(height)
    for width in range(1, 66):
        for pattern in ("noise", "flat", "checkerboard", "image"):
            channels, depth, max_error = rng.integers(1, 5), rng.integers(1, 17), rng.choice((0, 0, 1, 5, 16))
            top = (1 << depth) - 1
            samples = {
                "noise": lambda shape: rng.integers(0, top + 1, shape),  # noqa: B023
                "flat": lambda shape: np.full(shape, top // 3),  # noqa: B023
                "checkerboard": lambda shape: np.indices(shape).sum(0) % 2 * top,  # noqa: B023
                "image": lambda shape: synthetic_channels(*shape).astype(int) * top // 255,  # noqa: B023
            }[pattern]((height, width, channels))
            samples = samples.astype(np.uint8 if depth <= 8 else np.uint16)
            samples = samples[..., 0] if channels == 1 else samples
            decoded = modes.decode(exact.encode(samples, int(max_error), threads=1))
            assert decoded.dtype == samples.dtype
            assert np.abs(decoded.astype(int) - samples).max() <= max_error


@pytest.mark.parametrize("bits", [9, 10, 12, 15])
def test_samples_of_few_bits_are_coded_as_such(bits):
    samples = sample(3, 20, 30, np.uint16) >> (16 - bits)
    data = exact.pack(samples)
    assert image_file.info(data)["depth"] == bits
    np.testing.assert_array_equal(modes.decode(data), samples)


@pytest.mark.parametrize("bits", range(1, 16))
def test_samples_that_were_expanded_to_16_bits_are_coded_with_fewer(bits):
    rng = np.random.default_rng(bits)
    coded = rng.integers(0, 1 << bits, (20, 30, 3)).astype(np.uint16)
    coded[0, 0] = (1 << bits) - 1
    top = (1 << bits) - 1
    shifted = coded << (16 - bits)
    scaled = ((coded.astype(np.uint32) * 65535 + top // 2) // top).astype(np.uint16)
    for samples, max_error in itertools.product((shifted, scaled), (0, 9)):
        data = exact.pack(samples, max_error)
        assert len(data) < 300 + 1.2 * coded.size * bits / 8
        about = image_file.info(data)
        assert (about["depth"], about["max_error"]) == (16, 0)
        np.testing.assert_array_equal(modes.decode(data), samples)


def test_colours_under_transparent_alpha_are_kept():
    samples = sample(4, 40, 50)
    samples[:20, :, 3] = 0
    for data in (exact.pack(samples), exact.encode(samples)):
        np.testing.assert_array_equal(modes.decode(data), samples)


def test_photographs_and_screenshots_choose_their_coding():
    photograph = np.tile(synthetic_image(200, 330), (2, 1, 1))
    photograph = np.clip(photograph + np.random.default_rng(0).normal(0, 6, photograph.shape), 0, 255).astype(np.uint8)
    stripes = np.repeat(np.repeat(synthetic_image(9, 12), 40, 0), 40, 1)
    for samples, coding in ((photograph, "adaptive"), (stripes, "lossless")):
        for max_error in (0, 2):
            data = exact.encode(samples, max_error)
            assert image_file.contents(data).header.coding == coding
            assert np.abs(modes.decode(data).astype(int) - samples).max() <= max_error
    palette = np.random.default_rng(0).integers(0, 256, (16, 3)).astype(np.uint8)
    dithered = palette[np.random.default_rng(1).integers(0, 16, (260, 260))]
    assert len(exact.encode(dithered)) <= len(fallback.pack_lossless(dithered))


def test_the_shorter_coding_of_an_alpha_plane_is_kept():
    soft, mask = synthetic_image(120, 150)[..., 1].copy(), np.zeros((120, 150), np.uint8)
    mask[30:70, 20:90] = 255
    assert fallback.encode_plane(soft)[4] == lossless.TAG and fallback.encode_plane(mask)[4:8] == b"RIFF"
    for plane in (soft, mask, soft.astype(np.uint16) * 3):
        coded = fallback.encode_plane(plane)
        np.testing.assert_array_equal(fallback.decode_lossless(coded, (120, 150), 1, 8 * plane.itemsize), plane)
    for shape, channels, depth in (((120, 149), 1, 8), ((120, 150), 2, 8), ((120, 150), 1, 16)):
        with pytest.raises(FormatError, match="size and depth"):
            fallback.decode_lossless(fallback.encode_plane(soft), shape, channels, depth)
    with pytest.raises(FormatError, match="size and depth"):
        fallback.decode_lossless(lossless.encode(soft, 1), (120, 150), 1, 8)


def altered(data, **fields):
    """A file of which PICT has other fields."""
    contents = image_file.contents(data, check_data=False)
    return image_file.pack_fallback(contents.header._replace(**fields), bytes(contents.data.of(data)))


def test_tiles_that_contradict_the_header_are_refused():
    data = exact.pack(sample(3, 70, 100), tile=64)
    deep = exact.pack(sample(3, 20, 30, np.uint16))
    wrong = [
        altered(data, height=71),
        altered(data, width=64),
        altered(data, channels=1),
        altered(data, depth=9),
        altered(data, max_error=1),
        altered(data, tile=128),
        altered(deep, depth=15),
        altered(deep, expansion=1),
    ]
    contents = image_file.contents(data)
    body = bytes(contents.data.of(data))
    wrong += [image_file.pack_fallback(contents.header, part) for part in (b"", body[:20], body[:-1], body + b"x")]
    for damaged in wrong:
        for call in (modes.decode, modes.verify):
            with pytest.raises(FormatError):
                call(damaged)


def test_windows_notice_damage_in_their_tiles_only():
    data = bytearray(exact.pack(sample(1, 64, 200), tile=64))
    size = lossless.size_at(bytes(data), image_file.contents(bytes(data)).data.offset)
    data[image_file.contents(bytes(data), check_data=False).data.offset + size - 9] ^= 1
    with pytest.raises(FormatError, match="tile 0 is damaged"):
        modes.decode(bytes(data), (0, 0, 64, 64))
    assert modes.decode(bytes(data), (0, 64, 64, 64)).shape == (64, 64)
    with pytest.raises(FormatError, match="CRC"):
        modes.decode(bytes(data))


def test_limits_are_those_of_the_window():
    data = exact.pack(sample(3, 130, 150), tile=64)
    with pytest.raises(LimitError):
        modes.decode(data, limits=Limits(pixels=130 * 150 - 1))
    assert modes.decode(data, (0, 0, 20, 20), limits=Limits(pixels=800)).shape == (20, 20, 3)
    header = image_file.contents(data).header
    huge = image_file.pack_fallback(header._replace(height=1 << 24, width=1 << 24, tile=4096), bytes(40))
    with pytest.raises(LimitError):
        modes.decode(huge)
    with pytest.raises(LimitError):
        modes.verify(huge)
    with pytest.raises(FormatError):
        modes.decode(huge, ((1 << 24) - 5, (1 << 24) - 5, 5, 5))


def test_mutants_are_refused_or_decode():
    files = [exact.pack(sample(channels, 9, 70, dtype), channels % 2, tile=64)
             for channels in (1, 2, 3, 4) for dtype in (np.uint8, np.uint16)]  # fmt: skip
    for mutant in mutants(5, 400, files):
        try:
            modes.decode(mutant, limits=Limits(pixels=1 << 14))
        except CodecError:
            continue


def test_the_second_decoder_agrees():
    model = reference_decoder.read_model(str(GOLDEN / "tiny.vcm"))
    rng = np.random.default_rng(3)
    files = [exact.pack(sample(1, 5, 70), tile=64)]
    for channels, dtype in itertools.product((1, 2, 3, 4), (np.uint8, np.uint16)):
        height, width = rng.integers(1, 9), rng.integers(1, 14)
        files.append(exact.pack(sample(channels, height, width, dtype), int(rng.choice((0, 1, 16)))))
    files += [exact.pack(sample(3, 6, 7).astype(np.uint16) * factor) for factor in (257, 256, 9)]
    for data in files:
        expected = modes.decode(data)
        decoded = reference_decoder.decode(data, model)
        assert decoded.dtype.itemsize == expected.itemsize
        np.testing.assert_array_equal(decoded.reshape(expected.shape), expected)
        damaged = bytearray(data)
        damaged[image_file.contents(data).data.offset] ^= 4
        for decode in (modes.decode, lambda data: reference_decoder.decode(data, model)):
            with pytest.raises((FormatError, ValueError)):
                decode(with_right_crcs(bytes(damaged)))


def test_an_alpha_chunk_belongs_to_two_and_four_channels():
    plane = [(container.ALPHA, fallback.encode_plane(sample(1, 20, 30)))]
    with pytest.raises(FormatError, match="ALPH"):
        modes.decode(container.insert_chunks(exact.pack(sample(3, 20, 30)), plane))
    for channels in (2, 4):
        with pytest.raises(FormatError, match="ALPH"):
            modes.decode(altered(exact.pack(sample(channels, 20, 30))))


def test_a_payload_begins_with_the_crc_of_its_samples():
    samples = sample(3, 20, 30)
    assert lossless.encode(samples)[:4] == zlib.crc32(samples.tobytes()).to_bytes(4, "little")


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_netpbm_files_of_few_bits_are_coded_with_these(bits):
    samples = np.random.default_rng(bits).integers(0, 1 << bits, (20, 30, 3))
    file = b"P6\n30 20\n%d\n" % ((1 << bits) - 1) + samples.astype(">u2").tobytes()
    data = vaecodec.encode(file, lossless=True)
    assert len(data) < 200 + 1.1 * samples.size * bits / 8
    np.testing.assert_array_equal(vaecodec.decode(data), read_image(file)[0])
