"""Test scale offsets: their choice, their cost and their coding."""

import numpy as np
import pytest

from support.images import synthetic_image
from vaecodec.codec import Codec
from vaecodec.container.image_file import parse
from vaecodec.entropy import coding
from vaecodec.errors import FormatError
from vaecodec.model.file import load_model
from vaecodec.prior import PARTS, PARTS_BY_OCTAVE, code_coefficients, decode_tile


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
    return coding.pop(coder, coding.shift_tables(indices, offset, model.prior.scales).astype(np.uint8), model.models)


@pytest.mark.parametrize("offset", [-8, -3, 0, 4, 7])
def test_the_offset_of_the_drawn_symbols_is_chosen(model, tables, scales, offset):
    indices = np.random.default_rng(1).integers(12, 50, 4000).astype(np.uint8)
    symbols = drawn_symbols(model, indices, offset)
    offsets = coding.choose_scale_offsets([(symbols, indices)] * 3, tables, scales)
    offsets = (
        [0] * 3 if offsets is None else offsets
    )  # drawn from a sample, so the neighbouring offsets cost about the same
    assert np.abs(np.array(offsets) - offset).max() <= 1 and len(set(offsets)) == 1


def test_costs_of_offsets_equal_those_of_the_tables(model, tables, scales):
    rng = np.random.default_rng(3)
    indices = rng.integers(0, 40, 3000).astype(np.uint8)
    symbols = (drawn_symbols(model, indices, 3) * (indices != 0)).astype(np.int32)
    symbols[::200] = 300  # beyond the counted range; escapes in some tables
    symbols[indices == 0] = rng.integers(-1, 2, (indices == 0).sum())  # outliers, which offsets do not shift
    small, tables_of_small = np.meshgrid(np.arange(-coding.SMALL, coding.SMALL + 1), np.arange(scales))
    costs = coding.scale_offset_costs(symbols, indices, tables.bits_of_each(small, tables_of_small), tables)
    shifted = [
        coding.shift_tables(indices, offset, scales) for offset in range(coding.MIN_OFFSET, coding.MAX_OFFSET + 1)
    ]
    np.testing.assert_allclose(costs, [tables.bits(symbols, shifted_indices) for shifted_indices in shifted], rtol=1e-9)


def test_parts_with_few_symbols_have_no_offset(model, tables, scales):
    indices = np.full(3, 20, np.uint8)
    parts = [(np.zeros(3, np.int32), indices), (np.zeros(0, np.int32), indices[:0])] * 7
    assert coding.choose_scale_offsets(parts, tables, scales) is None
    many_indices = np.full(4000, 30, np.uint8)
    offsets = coding.choose_scale_offsets(
        [(drawn_symbols(model, many_indices, 5), many_indices), *parts], tables, scales
    )
    assert offsets[0] in (4, 5, 6) and set(offsets[2::2]) == {0}


def test_shifted_indices_are_clamped_and_zero_is_kept(scales):
    indices = np.array([0, 1, 5, scales - 1], np.uint8)
    assert coding.shift_tables(indices, 0, scales) is indices
    assert coding.shift_tables(indices, -3, scales).tolist() == [0, 1, 2, scales - 4]
    assert coding.shift_tables(indices, 7, scales).tolist() == [0, 8, 12, scales - 1]


@pytest.mark.parametrize("offsets", [None, [0] * 15, list(range(-8, 7)), [7] * 15])
def test_popping_inverts_pushing(offsets):
    coder = coding.writer()
    coding.push_scale_offsets(coder, offsets)
    reader = coding.reader(coding.words(coder))
    assert coding.pop_scale_offsets(reader, 15) == (offsets or [0] * 15) and reader.is_empty()


def test_offsets_shrink_files_and_keep_pixels(monkeypatch):
    """An enlarged image without grain is smoother than the photographs of training."""
    codec, x = Codec(load_model("small")), np.kron(synthetic_image(40, 56), np.ones((8, 8, 1), np.uint8))
    x = ((x.astype(int) + np.roll(x, 3, 0) + np.roll(x, 3, 1) + np.roll(x, 5, 0)) // 4).astype(np.uint8)
    data = codec.encode(x, 60, tune="psnr")
    [tile] = parse(data).tiles
    assert 8 * tile.length == pytest.approx(codec.information(x, 60), abs=96)
    monkeypatch.setattr(coding, "choose_scale_offsets", lambda *arguments: None)
    unshifted = codec.encode(x, 60, tune="psnr")
    assert len(data) < 0.995 * len(unshifted)
    assert np.array_equal(codec.decode(unshifted), codec.decode(data))
    assert parse(unshifted).tiles[0].crc == tile.crc  # symbols are the same


def test_offsets_without_symbols_are_refused(model):
    coder = coding.writer()
    coding.push_scale_offsets(coder, [7] * PARTS)
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
