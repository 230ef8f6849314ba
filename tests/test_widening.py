"""Parts of a tile whose scales are moved as a whole: what is chosen, and that it comes back."""

import numpy as np
import pytest
from conftest import picture

from vaecodec import coding, octaves, pyramid, tiles, widening
from vaecodec.codec import Codec
from vaecodec.errors import FormatError
from vaecodec.model.file import load_model


@pytest.fixture(scope="module")
def prior():
    return load_model("small").prior


def drawn(prior, rows, rungs, seed=0):
    """Symbols of these rows as they are where all is so many rungs wider."""
    coder, words = coding.writer(), np.random.default_rng(seed).integers(1, 2**32, 4 * len(rows), dtype=np.uint32)
    coder = coding.reader(words.astype("<u4").tobytes())
    return coding.pop(coder, widening.moved(rows, rungs, prior.scales).astype(np.uint8), prior.models)


@pytest.mark.parametrize("rungs", [-8, -3, 0, 4, 7])
def test_what_was_drawn_wider_is_found_to_be(prior, rungs):
    rows = np.random.default_rng(1).integers(12, 50, 4000).astype(np.uint8)
    symbols = drawn(prior, rows, rungs)
    found = widening.chosen([(symbols, rows)] * 3, prior.models.tables, prior.scales)
    found = [0] * 3 if found is None else found  # by a sample, next to which a rung more or less is as good
    assert np.abs(np.array(found) - rungs).max() <= 1 and len(set(found)) == 1


def test_what_rungs_cost_is_what_tables_say(prior):
    rng, tables, scales = np.random.default_rng(3), prior.models.tables, prior.scales
    rows = rng.integers(0, 40, 3000).astype(np.uint8)
    symbols = (drawn(prior, rows, 3) * (rows != 0)).astype(np.int32)
    symbols[::200] = 300  # beyond what is counted, and of some rows escapes
    symbols[rows == 0] = rng.integers(-1, 2, (rows == 0).sum())  # strays, which rungs have nothing to do with
    small, kinds = np.meshgrid(np.arange(-widening.SMALL, widening.SMALL + 1), np.arange(scales))
    found = widening._costs(symbols, rows, tables.bits_of_each(small, kinds), tables)
    moved = [widening.moved(rows, rungs, scales) for rungs in range(widening.LEAST, widening.MOST + 1)]
    np.testing.assert_allclose(found, [tables.bits(symbols, one) for one in moved], rtol=1e-9)


class Narrow(np.ndarray):
    """u8 whose products and sums with scalars stay u8, as those of NumPy 1 do."""

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        narrow = all(np.ndim(value) == 0 or value.dtype == np.uint8 for value in inputs)
        inputs = [value.view(np.ndarray) if isinstance(value, Narrow) else value for value in inputs]
        result = getattr(ufunc, method)(*inputs, **options)
        return result.astype(np.uint8).view(Narrow) if narrow and ufunc in (np.multiply, np.add) else result


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_costs_do_not_depend_on_the_type_of_the_rows(prior, dtype):
    rng, tables, scales = np.random.default_rng(4), prior.models.tables, prior.scales
    rows = rng.integers(0, scales, 3000)
    symbols = np.where(rows == 0, 0, rng.integers(-30, 31, 3000)).astype(np.int32)
    kinds, small = np.meshgrid(np.arange(scales), np.arange(-widening.SMALL, widening.SMALL + 1), indexing="ij")
    costs = tables.bits_of_each(small, kinds)
    expected = [
        tables.bits(symbols, widening.moved(rows, rungs, scales)) for rungs in range(widening.LEAST, widening.MOST + 1)
    ]
    given = rows.astype(dtype)
    given = given.view(Narrow) if dtype == np.uint8 else given
    np.testing.assert_allclose(widening._costs(symbols, given, costs, tables), expected, rtol=1e-9)


def test_few_symbols_are_not_worth_a_choice(prior):
    rows = np.full(3, 20, np.uint8)
    parts = [(np.zeros(3, np.int32), rows), (np.zeros(0, np.int32), rows[:0])] * 7
    assert widening.chosen(parts, prior.models.tables, prior.scales) is None
    many = np.full(4000, 30, np.uint8)
    some = widening.chosen([(drawn(prior, many, 5), many), *parts], prior.models.tables, prior.scales)
    assert some[0] in (4, 5, 6) and set(some[2::2]) == {0}


def test_rows_stay_on_the_ladder_and_what_is_not_coded_is_not(prior):
    rows = np.array([0, 1, 5, prior.scales - 1], np.uint8)
    assert widening.moved(rows, 0, prior.scales) is rows
    assert widening.moved(rows, -3, prior.scales).tolist() == [0, 1, 2, prior.scales - 4]
    assert widening.moved(rows, 7, prior.scales).tolist() == [0, 8, 12, prior.scales - 1]


@pytest.mark.parametrize("rungs", [None, [0] * 15, list(range(-8, 7)), [7] * 15])
def test_rungs_come_back(rungs):
    coder = coding.writer()
    widening.push_rungs(coder, rungs)
    reading = coding.reader(coding.words(coder))
    assert widening.pop_rungs(reading, 15) == (rungs or [0] * 15) and reading.is_empty()


def test_files_are_smaller_by_it_and_decode_alike(prior, monkeypatch):
    """A picture without grain, many times enlarged, is smoother than any photograph that the prior has seen."""
    codec, x = Codec(load_model("small")), np.kron(picture(40, 56), np.ones((8, 8, 1), np.uint8))
    x = ((x.astype(int) + np.roll(x, 3, 0) + np.roll(x, 3, 1) + np.roll(x, 5, 0)) // 4).astype(np.uint8)
    data = codec.encode(x, 60)
    y = codec.analyse_batch([x], 60)[0][0]
    stated = tiles.bits(prior, y, 528)
    coded = tiles.code(prior, y, 528)
    assert 8 * len(coded.data) == pytest.approx(stated, abs=96)
    monkeypatch.setattr(widening, "chosen", lambda *given: None)
    plain = codec.encode(x, 60)
    assert len(data) < 0.995 * len(plain)
    assert np.array_equal(codec.decode(plain), codec.decode(data))


def test_rungs_beyond_the_stack_are_damage(prior):
    coder = coding.writer()
    widening.push_rungs(coder, [7] * octaves.PARTS)
    with pytest.raises(FormatError):
        tiles.decode(prior, (3, 3), 300, coding.words(coder), 0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2), (2, 9), (3, 3), (5, 4), (6, 1), (9, 10)])
def test_the_lowest_are_all_in_one_part_and_lie_between_those_before(shape):
    places = pyramid.lowest_places(*shape)
    assert sorted(np.concatenate(places).tolist()) == list(range(shape[0] * shape[1]))
    known = set(places[0].tolist())
    for here, around in zip(places[1:], pyramid.neighbours(*shape), strict=True):
        assert around.shape == (4, len(here)) and set(around.ravel().tolist()) <= known
        known |= set(here.tolist())


@pytest.mark.parametrize("shape", [(2, 2), (3, 9), (6, 6), (9, 2)])
def test_neighbours_of_the_lowest_are_those_of_training(shape):
    tf = pytest.importorskip("tensorflow")
    from vaecodec import wavelet_layers

    values = np.random.default_rng(0).normal(size=(*shape, 2))
    masks = wavelet_layers.lowest_masks(*map(tf.constant, shape))
    for mask, here in zip(masks, pyramid.lowest_places(*shape), strict=True):
        assert np.array_equal(np.flatnonzero(mask), here)
    parts = zip(pyramid.LOWEST, pyramid.lowest_places(*shape)[1:], pyramid.neighbours(*shape), strict=True)
    for (distance, corners), here, around in parts:
        theirs = wavelet_layers.around(tf.constant(values[None]), distance, corners)
        for one, places in zip(theirs, around, strict=True):
            assert np.array_equal(one[0].numpy().reshape(-1, 2)[here], values.reshape(-1, 2)[places])


def test_a_walk_asks_in_the_order_of_octaves(prior):
    steps, counts = octaves.walk(prior, (5, 7), 300), []
    question = next(steps)
    with pytest.raises(StopIteration):
        while True:
            counts.append(question[0].shape)
            question = steps.send(np.zeros(question[0].shape, np.int32))
    sizes = [sum(n * c for n, c in counts[some]) for some in octaves.BY_OCTAVE]
    assert sizes[0] == 3 * 4 * 3 and len(counts) == octaves.PARTS
    assert sizes[1:] == [36 * n for n in (2 * 2, 3 * 4, 5 * 7, 10 * 14, 20 * 28)]
