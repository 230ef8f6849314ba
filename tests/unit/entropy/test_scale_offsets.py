"""Parts of a tile whose scales are moved as a whole: what is chosen, and that it comes back."""

import numpy as np
import pytest

from support.images import synthetic_image
from vaecodec.codec import Codec
from vaecodec.container.image_file import parse
from vaecodec.entropy import coding
from vaecodec.errors import FormatError
from vaecodec.model.file import load_model
from vaecodec.prior.context_model import PARTS, PARTS_BY_OCTAVE, code_coefficients, decode_tile


@pytest.fixture(scope="module")
def model():
    return load_model("small")


@pytest.fixture(scope="module")
def tables(model):
    return model.models.tables


@pytest.fixture(scope="module")
def scales(model):
    return model.prior.scales


def drawn(model, rows, rungs, seed=0):
    """Symbols of these rows as they are where all is so many rungs wider."""
    coder, words = coding.writer(), np.random.default_rng(seed).integers(1, 2**32, 4 * len(rows), dtype=np.uint32)
    coder = coding.reader(words.astype("<u4").tobytes())
    return coding.pop(coder, coding.shift_tables(rows, rungs, model.prior.scales).astype(np.uint8), model.models)


@pytest.mark.parametrize("rungs", [-8, -3, 0, 4, 7])
def test_what_was_drawn_wider_is_found_to_be(model, tables, scales, rungs):
    rows = np.random.default_rng(1).integers(12, 50, 4000).astype(np.uint8)
    symbols = drawn(model, rows, rungs)
    found = coding.choose_scale_offsets([(symbols, rows)] * 3, tables, scales)
    found = [0] * 3 if found is None else found  # by a sample, next to which a rung more or less is as good
    assert np.abs(np.array(found) - rungs).max() <= 1 and len(set(found)) == 1


def test_what_rungs_cost_is_what_tables_say(model, tables, scales):
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 40, 3000).astype(np.uint8)
    symbols = (drawn(model, rows, 3) * (rows != 0)).astype(np.int32)
    symbols[::200] = 300  # beyond what is counted, and of some rows escapes
    symbols[rows == 0] = rng.integers(-1, 2, (rows == 0).sum())  # outliers, which offsets do not move
    small, kinds = np.meshgrid(np.arange(-coding.SMALL, coding.SMALL + 1), np.arange(scales))
    found = coding.scale_offset_costs(symbols, rows, tables.bits_of_each(small, kinds), tables)
    moved = [coding.shift_tables(rows, rungs, scales) for rungs in range(coding.MIN_OFFSET, coding.MAX_OFFSET + 1)]
    np.testing.assert_allclose(found, [tables.bits(symbols, one) for one in moved], rtol=1e-9)


def test_few_symbols_are_not_worth_a_choice(model, tables, scales):
    rows = np.full(3, 20, np.uint8)
    parts = [(np.zeros(3, np.int32), rows), (np.zeros(0, np.int32), rows[:0])] * 7
    assert coding.choose_scale_offsets(parts, tables, scales) is None
    many = np.full(4000, 30, np.uint8)
    some = coding.choose_scale_offsets([(drawn(model, many, 5), many), *parts], tables, scales)
    assert some[0] in (4, 5, 6) and set(some[2::2]) == {0}


def test_rows_stay_on_the_ladder_and_what_is_not_coded_is_not(scales):
    rows = np.array([0, 1, 5, scales - 1], np.uint8)
    assert coding.shift_tables(rows, 0, scales) is rows
    assert coding.shift_tables(rows, -3, scales).tolist() == [0, 1, 2, scales - 4]
    assert coding.shift_tables(rows, 7, scales).tolist() == [0, 8, 12, scales - 1]


@pytest.mark.parametrize("rungs", [None, [0] * 15, list(range(-8, 7)), [7] * 15])
def test_rungs_come_back(rungs):
    coder = coding.writer()
    coding.push_scale_offsets(coder, rungs)
    reading = coding.reader(coding.words(coder))
    assert coding.pop_scale_offsets(reading, 15) == (rungs or [0] * 15) and reading.is_empty()


def test_files_are_smaller_by_it_and_decode_alike(monkeypatch):
    """A picture without grain, many times enlarged, is smoother than any photograph that the prior has seen."""
    codec, x = Codec(load_model("small")), np.kron(synthetic_image(40, 56), np.ones((8, 8, 1), np.uint8))
    x = ((x.astype(int) + np.roll(x, 3, 0) + np.roll(x, 3, 1) + np.roll(x, 5, 0)) // 4).astype(np.uint8)
    data = codec.encode(x, 60)
    [tile] = parse(data).tiles
    assert 8 * tile.length == pytest.approx(codec.information(x, 60), abs=96)
    monkeypatch.setattr(coding, "choose_scale_offsets", lambda *given: None)
    plain = codec.encode(x, 60)
    assert len(data) < 0.995 * len(plain)
    assert np.array_equal(codec.decode(plain), codec.decode(data))
    assert parse(plain).tiles[0].crc == tile.crc  # symbols are the same


def test_rungs_beyond_the_stack_are_damage(model):
    coder = coding.writer()
    coding.push_scale_offsets(coder, [7] * PARTS)
    with pytest.raises(FormatError):
        decode_tile(model.prior, model.models, (3, 3), 300, coding.words(coder), 0)


def test_distributions_come_in_the_order_of_octaves(model):
    walk, counts = code_coefficients(model.prior, (5, 7), 300), []
    distributions = next(walk)
    with pytest.raises(StopIteration) as end:
        while True:
            assert distributions.indices.dtype == np.uint8 and distributions.loc.dtype == np.int32
            counts.append(len(distributions.indices))
            distributions = walk.send(np.zeros(counts[-1], np.int32))
    sizes = [sum(counts[some]) for some in PARTS_BY_OCTAVE]
    assert sizes[0] == 3 * 4 * 3 and len(counts) == PARTS
    assert sizes[1:] == [36 * n for n in (2 * 2, 3 * 4, 5 * 7, 10 * 14, 20 * 28)]
    assert end.value.value.low.shape == (3, 5, 7)
