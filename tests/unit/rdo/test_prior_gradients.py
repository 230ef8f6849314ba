"""Effort with wavelet models: symbols refined for one picture, which cost less and which any decoder takes."""

from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from support.images import synthetic_image

pytest.importorskip("tensorflow")

from support.models import SMALL_CONFIG as CONFIG
from support.models import freeze_weights
from support.rdo import check_gradients, rd_cost
from support.wavelets import inverse_dwt
from vaecodec.codec import Codec
from vaecodec.container.image_file import parse, quality_index_of
from vaecodec.model.exact import INDEX_GAIN, LOC_GAIN
from vaecodec.model.file import load_model
from vaecodec.native.prior import lowest_neighbours, lowest_places
from vaecodec.native.reference.prior import details as details_exactly
from vaecodec.native.symbols import symbol_values
from vaecodec.native.wavelet import octave_halves
from vaecodec.prior.context_model import LOWEST_PARTS, PARTS, choose_symbols, encode_tile
from vaecodec.rdo import prior_gradients, quantization
from vaecodec.rdo.prior_gradients import (
    BitSlopes,
    PriorGradients,
    PriorReverse,
    SymbolBits,
    details,
    details_adjoint,
    from_cells,
)
from vaecodec.rdo.refinement import ITERATIONS, Refiner, curvatures_of
from vaecodec.training import layers, vae
from vaecodec.transforms import float_wavelet, latents
from vaecodec.transforms.latents import values_of_latents
from vaecodec.transforms.tiling import Box


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """Of a model whose prior expects about as much everywhere; with random weights it is noise."""
    weights = vae.initial_weights(CONFIG, 0)
    for name in (name for name in weights if name.endswith(("/first/bias", "/second/bias"))):
        weights[name][len(weights[name]) // 2 :] += 2.5
    return Codec(load_model(freeze_weights(tmp_path_factory.mktemp("run"), CONFIG, weights)))


@pytest.fixture(scope="module")
def crop(request):
    """u8[112, 150, 3] of a photograph."""
    path = request.config.rootpath / "docs" / "examples" / "parrots.png"
    return np.asarray(Image.open(path).convert("RGB"))[150:262, 200:350]


def test_adjoints_are_those_of_inner_products():
    rng = np.random.default_rng(0)
    low, bands, fine = rng.normal(size=(3, 5, 4)), rng.normal(size=(9, 5, 4)), rng.normal(size=(3, 10, 8))
    low_of, bands_of = float_wavelet.inverse_dwt_adjoint(fine)
    there = float((inverse_dwt(low, bands) * fine).sum())
    assert float((low_of * low).sum() + (bands_of * bands).sum()) == pytest.approx(there)
    y, x = rng.normal(size=(3, 2, 768)), rng.normal(size=(48, 32, 3))
    assert float((latents.inverse_dwt_adjoint(x) * y).sum()) == pytest.approx(float((latents.inverse_dwt(y) * x).sum()))
    # One octave more, of a tile whose sides are odd: what is cut off has no part in it.
    low, gradient = rng.normal(size=(3, 5, 7)), rng.normal(size=(3, 5, 7))
    lowest, bands = latents.tile_octave(low)
    restored = inverse_dwt(lowest, bands)[:, :5, :7]
    assert np.abs(restored - low).max() < 1e-5
    there = float((restored * gradient).sum())
    lowest_of, bands_of = latents.tile_octave_adjoint(gradient)
    assert float((lowest_of * lowest).sum() + (bands_of * bands).sum()) == pytest.approx(there)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 3), (5, 7), (6, 2)])
def test_details_and_their_adjoint(shape):
    rng = np.random.default_rng(0)
    low, gradient = rng.integers(-5000, 5000, (3, *shape)), rng.normal(size=(3, *shape))
    exact = details_exactly(low.astype(np.int32), slice(0, shape[0]))
    assert np.abs(exact - details(low.astype(np.float64))).max() <= 0.5
    there = float((details(low.astype(np.float64)) * gradient).sum())
    assert float((details_adjoint(gradient) * low).sum()) == pytest.approx(there)
    assert (from_cells(latents.to_squares(low), shape) == low).all()


def test_slopes_of_bits_are_differences(codec):
    tables, scales = codec.model.models.tables, codec.model.prior.scales
    rows, symbols = (part.ravel() for part in np.meshgrid(np.arange(2, scales - 1), [-1, 0, 1]))
    costs = SymbolBits(tables)
    by_symbol, by_row = BitSlopes(tables, scales).slopes(symbols, rows)
    assert by_symbol == pytest.approx((costs(symbols + 1, rows) - costs(symbols - 1, rows)) / 2)
    assert by_row == pytest.approx((costs(symbols, rows + 1) - costs(symbols, rows - 1)) / 2)
    # Of 0s that are not coded bits grow with the row, too, however little.
    by_symbol, by_row = BitSlopes(tables, scales).slopes(np.zeros(1, int), np.zeros(1, int))
    assert by_symbol == 0 < by_row
    assert prior_gradients.COMPANDED == layers.COMPANDED


def walked(model, cells, step, rng):
    """(symbols i32, rows u8, means f64, values f64) [n, C or 6 C] of each part, in steps, of random symbols."""
    found, channels = [], model.config.channels

    def choose(part, distributions):
        rows, loc = distributions
        symbols = rng.integers(-1, 2, rows.shape).astype(np.int32) * (rows != 0)
        values = symbol_values(symbols, rows, loc, model.prior.centroids)
        floats = (one.astype(np.float64) / quantization.UNIT for one in (loc, values))
        width = channels if part < LOWEST_PARTS else 6 * channels
        found.append([one.reshape(-1, width) for one in (symbols, rows, *floats)])
        return symbols

    choose_symbols(model.prior, cells, step, choose)
    return zip(*found, strict=True)


class Whole(PriorReverse):
    """With means and rungs, [2, n], of each part but the first, as they are made."""

    made: ClassVar[list[np.ndarray]] = []

    def distribution(self, name, x, count):
        both = np.split(self._product(name, x.value).reshape(-1, 2 * count), 2, -1)
        self.made.append(np.stack([LOC_GAIN * both[0], INDEX_GAIN * both[1]]))
        return super().distribution(name, x, count)


@pytest.fixture
def whole(monkeypatch):
    monkeypatch.setattr(prior_gradients, "PriorReverse", Whole)
    monkeypatch.setattr(Whole, "made", [])
    return Whole


def inside_of(cells, parts):
    """1 for what is coded of each part, and 0 beyond odd sides."""
    shapes = [(-(-cells[0] // 2), -(-cells[1] // 2)), *((cells[0] << n, cells[1] << n) for n in range(4))]
    halves = [half for shape in shapes for half in octave_halves(np.ones((9, *shape), np.float32))]
    return [np.ones_like(part) for part in parts[:5]] + [half.reshape(-1, half.shape[2]) for half in halves]


@pytest.mark.parametrize("cells", [(3, 5), (1, 2)])
def test_networks_in_floats_are_those_in_integers(codec, whole, cells):
    prior, step = codec.model.prior, 400
    _, rows, means, values = map(list, walked(codec.model, cells, step, np.random.default_rng(0)))
    PriorGradients(codec.model, step, cells).forward([value.astype(np.float32) for value in values])
    assert len(whole.made) == PARTS - 1
    inside = inside_of(cells, values)
    for part, (loc, rungs) in enumerate(whole.made, 1):
        if not rows[part].size:
            continue
        if part < LOWEST_PARTS:  # means of neighbours are added to these
            loc = means[part]
        assert np.abs(loc - means[part])[inside[part] > 0].max() < 0.5
        expected = np.clip(rungs, 0, prior.scales - 1)
        assert np.abs(expected - rows[part])[inside[part] > 0].max() < 1.5


@pytest.mark.parametrize("cells", [(9, 10)])
def test_prior_gradients_are_differences(codec, whole, cells, monkeypatch):
    """Of slopes times values, means and rungs, as a function of values, in float64, with sides that are odd.

    What is said of a part moves it, and its mean does where its symbol is 0.
    """
    doubles = {name: one.astype(np.float64) for name, one in codec.model.prior_weights.items()}
    monkeypatch.setitem(vars(codec.model), "prior_weights", doubles)
    rng = np.random.default_rng(1)
    symbols, _, _, values = map(list, walked(codec.model, cells, 400, rng))
    values = [value + rng.normal(0, 0.1, value.shape) for value in values]  # no kink is where they are
    inside, idle = inside_of(cells, values), [part == 0 for part in symbols]
    bits = [rng.normal(size=(2, *value.shape)) * within for value, within in zip(values, inside, strict=True)]
    slopes = [rng.normal(size=value.shape) * within for value, within in zip(values, inside, strict=True)]
    gradients = PriorGradients(codec.model, 400, cells)

    def parameters(values, part):
        whole.made.clear()
        gradients.forward(values)
        loc, rungs = whole.made[part - 1]
        if part < LOWEST_PARTS:
            size = [-(-side // 2) for side in cells]
            known = np.concatenate(values[:5])[np.argsort(np.concatenate(lowest_places(*size)))]
            loc = loc + known[lowest_neighbours(*size)[part - 1]].mean(0)
        return loc * inside[part], rungs

    base = [None, *(parameters(values, part)[0] for part in range(1, PARTS))]

    def total(moves):
        found, total = [value + move for value, move in zip(values, moves, strict=True)], 0.0
        for part in range(1, PARTS):
            loc, rungs = parameters(found, part)
            found[part] += idle[part] * (loc - base[part])
            total += float((bits[part][1] * rungs - bits[part][0] * loc).sum())
        return total + sum(float((slope * value).sum()) for slope, value in zip(slopes, found, strict=True))

    exact = gradients.back(*gradients.forward(values), bits, idle, slopes)
    for alike in (slice(0, LOWEST_PARTS), slice(LOWEST_PARTS, PARTS)):
        along = [np.zeros_like(value) for value in values]
        along[alike] = [
            rng.normal(size=one.shape) * within for one, within in zip(along[alike], inside[alike], strict=True)
        ]
        there = (total([1e-6 * one for one in along]) - total([-1e-6 * one for one in along])) / 2e-6
        slope = sum(float((one * two).sum()) for one, two in zip(exact, along, strict=True))
        assert slope == pytest.approx(there, rel=1e-5)


def test_gradients_are_differences(codec):
    check_gradients(codec.model)


def test_slopes_of_parts_are_differences(codec):
    """A small change of any part changes the pixels as its slopes say, with sides that are odd, too."""
    prior, step, rng = codec.model.prior, 300, np.random.default_rng(2)
    y, gradient = (rng.normal(0, 1, (5, 3, CONFIG.latents)).astype(np.float32) for _ in range(2))
    along = rng.normal(0, 1, y.shape).astype(np.float32)
    parts, moves = (quantization.targets(prior, values_of_latents(one), step) for one in (y, along))
    assert len(parts) == PARTS
    slopes = quantization.part_gradients(prior, values_of_latents(gradient), step)
    there = sum(float((slope * move).sum()) for slope, move in zip(slopes, moves, strict=True))
    assert there == pytest.approx(float((gradient * along).sum()), rel=1e-3)


def test_curvature_is_found():
    rng = np.random.default_rng(0)
    away = [rng.normal(size=(20, 3)) for _ in range(PARTS)]
    octave = np.repeat(range(6), (5, 2, 2, 2, 2, 2))
    slopes = [(0.5 + n) * one for n, one in zip(octave, away, strict=True)]
    zeros = [np.zeros_like(one) for one in away]
    assert curvatures_of(away, zeros, slopes) == pytest.approx(np.array([0.5, 1.5, 2.5, 3.5, 4, 4])[octave])


@pytest.mark.parametrize("quality", [70])
def test_more_effort_costs_less(codec, crop, quality):
    files = [codec.encode(crop, quality, effort=effort) for effort in (1, 2, 5, 9)]
    costs = [rd_cost(crop, codec, data, quality) for data in files]
    assert costs[1] < costs[0] and costs[2] < costs[1] and costs[3] < costs[2] * 1.001
    assert costs[3] < 0.998 * costs[0]
    assert files[2] == codec.encode(crop, quality, effort=5)
    assert files[0] == codec.encode(crop, quality)


@pytest.mark.parametrize("shape", [(1, 1), (17, 33), (100, 15)])
def test_never_dearer_than_effort_1(codec, shape):
    for x in (synthetic_image(*shape), np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)):
        plain, refined = (codec.encode(x, 60, effort=effort) for effort in (1, 9))
        assert codec.decode(refined).shape == x.shape
        # Files are of whole words, and decoders round pixels.
        assert rd_cost(x, codec, refined, 60) <= rd_cost(x, codec, plain, 60) * 1.002 + 8 * 8 / x[..., 0].size


def test_the_start_is_what_effort_1_codes(codec, crop):
    step, x = quality_index_of(40), np.ascontiguousarray(crop[:112, :144])
    [[latents]] = codec.analyse_batch([x], 40)
    refiner = Refiner(codec.model, x, (112, 144), latents, Box(0, 0, *latents.cells), step)
    symbols = refiner(0)
    model = codec.model
    coded = encode_tile(model.prior, model.models, latents.cells, step, lambda part, _: symbols[part])
    [tile] = parse(codec.encode(x, 40)).tiles
    assert (coded.crc, len(coded.payload)) == (tile.crc, tile.length)


def test_progress_counts_iterations(codec, crop):
    said = []
    codec.encode(crop, 30, tile=64, effort=3, progress=lambda *numbers: said.append(numbers))
    assert said == [(n, 6 * ITERATIONS[2]) for n in range(6 * ITERATIONS[2] + 1)]
    assert list(ITERATIONS) == sorted(ITERATIONS) and len(ITERATIONS) == 9


def test_files_do_not_depend_on_threads(codec, crop, monkeypatch):
    monkeypatch.setattr("vaecodec.codec.tiles.OWN_TILE_PIXELS", 1000)
    files = [Codec(codec.model, threads=threads).encode(crop, 40, tile=64, effort=4) for threads in (1, 3, 4)]
    assert files[0] == files[1] == files[2]
