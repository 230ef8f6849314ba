"""Test scale offsets: their choice, their cost and their coding."""

import numpy as np
import pytest

from support.images import synthetic_image
from vaecodec.codec import Codec
from vaecodec.container.image_file import parse
from vaecodec.entropy import coding, scale_offsets
from vaecodec.entropy.scale_offsets import MAX_OFFSET, MIN_OFFSET, Offsets
from vaecodec.errors import FormatError
from vaecodec.model.file import load_model
from vaecodec.native.reference.prior import octave_order
from vaecodec.native.symbols import ALL_ALIKE
from vaecodec.prior import PARTS, PARTS_BY_OCTAVE, band_patterns, code_coefficients, decode_tile
from vaecodec.transforms.wavelet import SUBBANDS


@pytest.fixture(scope="module")
def model():
    return load_model("small")


@pytest.fixture(scope="module")
def tables(model):
    return model.models.tables


@pytest.fixture(scope="module")
def scales(model):
    return model.prior.scales


def drawn_symbols(model, indices, offset, seed=0):
    """Draw symbols for these table indices, shifted by `offset`."""
    coder, words = coding.writer(), np.random.default_rng(seed).integers(1, 2**32, 4 * len(indices), dtype=np.uint32)
    coder = coding.reader(words.astype("<u4").tobytes())
    return coding.pop(
        coder, scale_offsets.shift_tables(indices, offset, model.prior.scales).astype(np.uint8), model.models
    )


@pytest.mark.parametrize("offset", [-8, -3, 0, 4, 7])
def test_the_offset_of_the_drawn_symbols_is_chosen(model, tables, scales, offset):
    indices = np.random.default_rng(1).integers(12, 50, 4000).astype(np.uint8)
    symbols = drawn_symbols(model, indices, offset)
    offsets = scale_offsets.choose_scale_offsets([(symbols, indices)] * 3, [ALL_ALIKE] * 3, tables, scales)
    # Drawn from a sample, so the neighbouring offsets cost about the same.
    chosen = {of_part.part for of_part in offsets or [Offsets()]}
    assert len(chosen) == 1 and abs(chosen.pop() - offset) <= 1


def test_costs_of_offsets_equal_those_of_the_tables(model, tables, scales, monkeypatch):
    rng = np.random.default_rng(3)
    indices = rng.integers(0, 40, 3000).astype(np.uint8)
    symbols = (drawn_symbols(model, indices, 3) * (indices != 0)).astype(np.int32)
    symbols[::200] = 300  # beyond the counted range; escapes in some tables
    symbols[indices == 0] = rng.integers(-1, 2, (indices == 0).sum())  # outliers, which offsets do not shift
    shifted, pattern = scale_offsets.shifted_scales(scales), np.array([0, 1, 0, 2, 1], np.uint8)
    bits_of_small = scale_offsets.bits_of_small_symbols(tables, shifted)
    monkeypatch.setattr(scale_offsets, "SAMPLE", 3000)
    costs = scale_offsets.scale_offset_costs(symbols, indices, pattern, bits_of_small, tables, shifted)
    bands = np.resize(pattern, len(symbols))
    for band, of_band in enumerate(costs):
        here = symbols[bands == band], indices[bands == band]
        for cost, offset in zip(of_band, range(MIN_OFFSET, MAX_OFFSET + 1), strict=True):
            shifted_indices = scale_offsets.shift_tables(here[1], offset, scales)
            np.testing.assert_allclose(cost, tables.bits(here[0], shifted_indices), rtol=1e-9)


def test_parts_with_few_symbols_have_no_offset(model, tables, scales):
    indices = np.full(3, 20, np.uint8)
    parts = [(np.zeros(3, np.int32), indices), (np.zeros(0, np.int32), indices[:0])] * 7
    patterns = [np.array([0, 1], np.uint8)] * 15
    assert scale_offsets.choose_scale_offsets(parts, patterns[1:], tables, scales) is None
    many_indices = np.full(4000, 30, np.uint8)
    parts = [(drawn_symbols(model, many_indices, 5), many_indices), *parts]
    offsets = scale_offsets.choose_scale_offsets(parts, patterns, tables, scales)
    assert offsets[0].part in (4, 5, 6) and set(offsets[2::2]) == {Offsets()}


@pytest.mark.parametrize("of_bands", [(3, -1, 0), (-2, 4, 1), (-8, -7, -5), (7, 6, 2)])
def test_bands_get_offsets_of_their_own(model, tables, scales, of_bands):
    pattern = np.array([0, 1, 0, 2, 1], np.uint8)
    indices = np.random.default_rng(1).integers(12, 50, 20000).astype(np.uint8)
    symbols, bands = np.zeros(len(indices), np.int32), np.resize(pattern, len(indices))
    for band, offset in enumerate(of_bands):
        symbols[bands == band] = drawn_symbols(model, indices[bands == band], offset)
    [offsets] = scale_offsets.choose_scale_offsets([(symbols, indices)], [pattern], tables, scales)
    assert np.abs(np.subtract(offsets.bands, of_bands)).max() <= 1
    [together] = scale_offsets.choose_scale_offsets([(symbols, indices)], [ALL_ALIKE], tables, scales) or [Offsets()]
    assert not together.bands
    [(apart, table_of)] = scale_offsets.shifted_indices([indices], [offsets], [pattern], scales)
    [(_, table_of_all)] = scale_offsets.shifted_indices([indices], [together], [pattern], scales)
    assert tables.bits(symbols, table_of[apart]) < 0.996 * tables.bits(symbols, table_of_all[indices])


def test_bands_that_are_alike_have_no_offsets_of_their_own(model, tables, scales):
    indices = np.random.default_rng(1).integers(12, 50, 4000).astype(np.uint8)
    parts, pattern = [(drawn_symbols(model, indices, 3), indices)], np.array([0, 1, 2], np.uint8)
    [offsets] = scale_offsets.choose_scale_offsets(parts, [pattern], tables, scales)
    assert offsets.bands == () and abs(offsets.part - 3) <= 1


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_bands_are_the_subbands_of_the_first_channel_and_of_the_others(channels):
    patterns, shape = band_patterns(channels, True), (2, 2, SUBBANDS, channels)
    assert [len(pattern) for pattern in patterns] == [1] * 5 + [6 * channels] * 10
    bands = np.empty(12 * channels, int)
    for pattern, numbers in zip(patterns[5:7], octave_order(channels), strict=True):
        bands[numbers] = pattern
    for (_, _, subband, channel), band in zip(np.ndindex(shape), bands, strict=True):
        assert band == (subband if channels == 1 else 2 * subband + (channel > 0))
    assert {len(pattern) for pattern in band_patterns(channels, False)} == {1}


def test_shifted_indices_are_clamped_and_zero_is_kept(scales):
    indices = np.array([0, 1, 5, scales - 1], np.uint8)
    assert scale_offsets.shift_tables(indices, 0, scales) is indices
    assert scale_offsets.shift_tables(indices, -3, scales).tolist() == [0, 1, 2, scales - 4]
    assert scale_offsets.shift_tables(indices, 7, scales).tolist() == [0, 8, 12, scales - 1]


PARTS_AND_BANDS = [
    *map(Offsets, range(-8, -3)),
    Offsets(-8, (-12, -5, -8, -9, -8, -6)),
    Offsets(7, (3, 10, 7, 7, 8, 6)),
]


@pytest.mark.parametrize("by_band", [False, True])
@pytest.mark.parametrize("numbers", [None, [0] * 15, list(range(-8, 7)), [7] * 15])
def test_popping_inverts_pushing(numbers, by_band):
    patterns, offsets = band_patterns(3, by_band), None if numbers is None else [Offsets(number) for number in numbers]
    assert popped(offsets, patterns) == (offsets or [Offsets()] * 15)


def test_popping_inverts_pushing_of_bands():
    offsets = [*PARTS_AND_BANDS, *[Offsets(1)] * 8]
    assert popped(offsets, band_patterns(3, True)) == offsets


def popped(offsets, patterns):
    """What is taken off a stack of these offsets alone, whose words have the expected bits."""
    coder = coding.writer()
    scale_offsets.push_scale_offsets(coder, offsets, patterns)
    reader = coding.reader(coding.words(coder))
    bits = scale_offsets.scale_offset_bits(offsets, patterns)
    assert 8 * len(coding.words(coder)) == pytest.approx(bits, abs=64)
    result = scale_offsets.pop_scale_offsets(reader, patterns)
    assert reader.is_empty()
    return result


def test_offsets_shrink_files_and_keep_pixels(monkeypatch):
    """An enlarged image without grain is smoother than the photographs of training."""
    codec, x = Codec(load_model("small")), np.kron(synthetic_image(40, 56), np.ones((8, 8, 1), np.uint8))
    x = ((x.astype(int) + np.roll(x, 3, 0) + np.roll(x, 3, 1) + np.roll(x, 5, 0)) // 4).astype(np.uint8)
    data = codec.encode(x, 60, tune="psnr")
    [tile] = parse(data).tiles
    assert 8 * tile.length == pytest.approx(codec.information(x, 60), abs=96)
    monkeypatch.setattr(scale_offsets, "choose_scale_offsets", lambda *arguments: None)
    unshifted = codec.encode(x, 60, tune="psnr")
    assert len(data) < 0.995 * len(unshifted)
    assert np.array_equal(codec.decode(unshifted), codec.decode(data))
    for symbols, others in zip(symbols_of(codec, data), symbols_of(codec, unshifted), strict=True):
        assert np.array_equal(symbols, others)


def symbols_of(codec, data):
    """The symbols of each part of a file of one tile."""
    (header, [tile], _), parts = parse(data), []
    payload, cells = data[tile.offset : tile.offset + tile.length], (-(-header.height // 16), -(-header.width // 16))
    how = {"observe": parts.append, "by_band": header.by_band}
    decode_tile(codec.model.prior, codec.model.models, cells, header.quality_index, payload, tile.crc, **how)
    return parts


def test_offsets_without_symbols_are_refused(model):
    coder = coding.writer()
    scale_offsets.push_scale_offsets(coder, [Offsets(7)] * PARTS, band_patterns(3, False))
    with pytest.raises(FormatError):
        decode_tile(model.prior, model.models, (3, 3), 300, coding.words(coder), 0)


def test_distributions_follow_the_order_of_octaves(model):
    coding_steps, counts = code_coefficients(model.prior, (5, 7), 300), []
    distributions = next(coding_steps)
    with pytest.raises(StopIteration) as end:
        while True:
            assert distributions.indices.dtype == np.uint8 and distributions.loc.dtype == np.int32
            counts.append(len(distributions.indices))
            distributions = coding_steps.send(np.zeros(counts[-1], np.int32))
    sizes = [sum(counts[parts]) for parts in PARTS_BY_OCTAVE]
    assert sizes[0] == 3 * 4 * 3 and len(counts) == PARTS
    assert sizes[1:] == [36 * n for n in (2 * 2, 3 * 4, 5 * 7, 10 * 14, 20 * 28)]
    assert end.value.value.low.shape == (3, 5, 7)
