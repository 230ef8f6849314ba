"""Test refinement: gradients of the prior and the synthesis, and lower costs with more effort."""

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
from vaecodec import rdo
from vaecodec.codec import Codec
from vaecodec.container.image_file import parse, quality_index_of
from vaecodec.model.file import load_model
from vaecodec.model.network import INDEX_GAIN, LOC_GAIN
from vaecodec.native.prior import lowest_neighbours, lowest_places
from vaecodec.native.reference.prior import details as details_exactly
from vaecodec.native.symbols import symbol_values
from vaecodec.native.wavelet import octave_halves
from vaecodec.prior import LOWEST_PARTS, PARTS, choose_symbols, encode_tile
from vaecodec.rdo import prior_gradients
from vaecodec.rdo.prices import ITERATIONS
from vaecodec.rdo.prior_gradients import (
    BitSlopes,
    PriorGradients,
    PriorReverse,
    SymbolBits,
    details,
    details_adjoint,
    from_cells,
)
from vaecodec.rdo.refinement import Refiner, curvatures_of
from vaecodec.training import layers, vae
from vaecodec.transforms import Box, latents, wavelet
from vaecodec.transforms.latents import values_of_latents


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """A codec whose prior predicts similar scales everywhere; random weights would predict noise."""
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
    low, subbands, fine = rng.normal(size=(3, 5, 4)), rng.normal(size=(9, 5, 4)), rng.normal(size=(3, 10, 8))
    low_adjoint, subbands_adjoint = wavelet.float_inverse_dwt_adjoint(fine)
    expected = float((inverse_dwt(low, subbands) * fine).sum())
    assert float((low_adjoint * low).sum() + (subbands_adjoint * subbands).sum()) == pytest.approx(expected)
    y, x = rng.normal(size=(3, 2, 768)), rng.normal(size=(48, 32, 3))
    assert float((latents.inverse_dwt_adjoint(x) * y).sum()) == pytest.approx(float((latents.inverse_dwt(y) * x).sum()))
    # A further octave of a tile with odd sides; samples that are cut off have no effect.
    low, gradient = rng.normal(size=(3, 5, 7)), rng.normal(size=(3, 5, 7))
    lowest, subbands = latents.tile_octave(low)
    restored = inverse_dwt(lowest, subbands)[:, :5, :7]
    assert np.abs(restored - low).max() < 1e-5
    expected = float((restored * gradient).sum())
    lowest_adjoint, subbands_adjoint = latents.tile_octave_adjoint(gradient)
    assert float((lowest_adjoint * lowest).sum() + (subbands_adjoint * subbands).sum()) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (2, 3), (5, 7), (6, 2)])
def test_details_and_their_adjoint(shape):
    rng = np.random.default_rng(0)
    low, gradient = rng.integers(-5000, 5000, (3, *shape)), rng.normal(size=(3, *shape))
    exact = details_exactly(low.astype(np.int32), slice(0, shape[0]))
    assert np.abs(exact - details(low.astype(np.float64))).max() <= 0.5
    expected = float((details(low.astype(np.float64)) * gradient).sum())
    assert float((details_adjoint(gradient) * low).sum()) == pytest.approx(expected)
    assert (from_cells(latents.to_squares(low), shape) == low).all()


def test_slopes_of_bits_are_differences(codec):
    tables, scales = codec.model.models.tables, codec.model.prior.scales
    indices, symbols = (part.ravel() for part in np.meshgrid(np.arange(2, scales - 1), [-1, 0, 1]))
    costs = SymbolBits(tables)
    by_symbol, by_index = BitSlopes(tables, scales).slopes(symbols, indices)
    steps = 2 * 2 * 45 / 64  # between the levels of two symbols of a quantiser
    assert by_symbol == pytest.approx((costs(symbols + 1, indices) - costs(symbols - 1, indices)) / steps)
    assert by_index == pytest.approx((costs(symbols, indices + 1) - costs(symbols, indices - 1)) / 2)
    # The bits of zeros that are not coded grow slightly with the table index.
    by_symbol, by_index = BitSlopes(tables, scales).slopes(np.zeros(1, int), np.zeros(1, int))
    assert by_symbol == 0 < by_index
    assert prior_gradients.COMPANDED == layers.COMPANDED


def code_random_symbols(model, cells, quality_index, rng):
    """Code random symbols; return symbols i32, table indices u8, means f64, values f64 [n, C or 6 C] of each part."""
    parts, channels = [], model.config.channels

    def choose(part, distributions):
        indices, loc = distributions
        symbols = rng.integers(-1, 2, indices.shape).astype(np.int32) * (indices != 0)
        values = symbol_values(symbols, indices, loc, model.prior.centroids)
        floats = (array.astype(np.float64) / rdo.UNIT for array in (loc, values))
        width = channels if part < LOWEST_PARTS else 6 * channels
        parts.append([array.reshape(-1, width) for array in (symbols, indices, *floats)])
        return symbols

    choose_symbols(model.prior, cells, quality_index, choose)
    return zip(*parts, strict=True)


class RecordingReverse(PriorReverse):
    """Record means and scale indices, [2, n], of each part except the first."""

    recorded: ClassVar[list[np.ndarray]] = []

    def distribution(self, name, x, count):
        both = np.split(self._product(name, x.value).reshape(-1, 2 * count), 2, -1)
        self.recorded.append(np.stack([LOC_GAIN * both[0], INDEX_GAIN * both[1]]))
        return super().distribution(name, x, count)


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setattr(prior_gradients, "PriorReverse", RecordingReverse)
    monkeypatch.setattr(RecordingReverse, "recorded", [])
    return RecordingReverse


def inside_of(cells, parts):
    """1 for coded coefficients of each part, and 0 beyond odd sides."""
    shapes = [(-(-cells[0] // 2), -(-cells[1] // 2)), *((cells[0] << n, cells[1] << n) for n in range(4))]
    halves = [half for shape in shapes for half in octave_halves(np.ones((9, *shape), np.float32))]
    return [np.ones_like(part) for part in parts[:5]] + [half.reshape(-1, half.shape[2]) for half in halves]


@pytest.mark.parametrize("cells", [(3, 5), (1, 2)])
def test_networks_in_floats_are_those_in_integers(codec, recording, cells):
    prior, quality_index = codec.model.prior, 400
    _, indices, means, values = map(
        list, code_random_symbols(codec.model, cells, quality_index, np.random.default_rng(0))
    )
    PriorGradients(codec.model, quality_index, cells).forward([value.astype(np.float32) for value in values])
    assert len(recording.recorded) == PARTS - 1
    inside = inside_of(cells, values)
    for part, (loc, scale_indices) in enumerate(recording.recorded, 1):
        if not indices[part].size:
            continue
        if part < LOWEST_PARTS:  # means of neighbours are added to these
            loc = means[part]
        assert np.abs(loc - means[part])[inside[part] > 0].max() < 0.5
        expected = np.clip(scale_indices, 0, prior.scales - 1)
        assert np.abs(expected - indices[part])[inside[part] > 0].max() < 1.5


@pytest.mark.parametrize("cells", [(9, 10)])
def test_prior_gradients_are_differences(codec, recording, cells, monkeypatch):
    """Compare the gradients of a sum of products with differences, in float64 and with odd sides.

    Values move with the distribution of their part, and with its mean if their symbol is 0.
    """
    doubles = {name: array.astype(np.float64) for name, array in codec.model.prior_weights.items()}
    monkeypatch.setitem(vars(codec.model), "prior_weights", doubles)
    rng = np.random.default_rng(1)
    symbols, _, _, values = map(list, code_random_symbols(codec.model, cells, 400, rng))
    values = [value + rng.normal(0, 0.1, value.shape) for value in values]  # avoids kinks
    inside, idle = inside_of(cells, values), [part == 0 for part in symbols]
    bits = [rng.normal(size=(2, *value.shape)) * within for value, within in zip(values, inside, strict=True)]
    slopes = [rng.normal(size=value.shape) * within for value, within in zip(values, inside, strict=True)]
    gradients = PriorGradients(codec.model, 400, cells)

    def parameters(values, part):
        recording.recorded.clear()
        gradients.forward(values)
        loc, scale_indices = recording.recorded[part - 1]
        if part < LOWEST_PARTS:
            size = [-(-side // 2) for side in cells]
            lowest_values = np.concatenate(values[:5])[np.argsort(np.concatenate(lowest_places(*size)))]
            loc = loc + lowest_values[lowest_neighbours(*size)[part - 1]].mean(0)
        return loc * inside[part], scale_indices

    base = [None, *(parameters(values, part)[0] for part in range(1, PARTS))]

    def total(moves):
        moved, total = [value + move for value, move in zip(values, moves, strict=True)], 0.0
        for part in range(1, PARTS):
            loc, scale_indices = parameters(moved, part)
            moved[part] += idle[part] * (loc - base[part])
            total += float((bits[part][1] * scale_indices - bits[part][0] * loc).sum())
        return total + sum(float((slope * value).sum()) for slope, value in zip(slopes, moved, strict=True))

    exact = gradients.back(*gradients.forward(values), bits, idle, slopes)
    for group in (slice(0, LOWEST_PARTS), slice(LOWEST_PARTS, PARTS)):
        direction = [np.zeros_like(value) for value in values]
        direction[group] = [
            rng.normal(size=array.shape) * within for array, within in zip(direction[group], inside[group], strict=True)
        ]
        expected = (total([1e-6 * array for array in direction]) - total([-1e-6 * array for array in direction])) / 2e-6
        slope = sum(
            float((array * direction_of_part).sum()) for array, direction_of_part in zip(exact, direction, strict=True)
        )
        assert slope == pytest.approx(expected, rel=1e-5)


def test_gradients_are_differences(codec):
    check_gradients(codec.model)


def test_slopes_of_parts_are_differences(codec):
    """The slopes of parts predict the change of pixels, also with odd sides."""
    prior, quality_index, rng = codec.model.prior, 300, np.random.default_rng(2)
    y, gradient = (rng.normal(0, 1, (5, 3, CONFIG.latents)).astype(np.float32) for _ in range(2))
    direction = rng.normal(0, 1, y.shape).astype(np.float32)
    parts, moves = (
        rdo.targets(prior, values_of_latents(latent_values), quality_index) for latent_values in (y, direction)
    )
    assert len(parts) == PARTS
    slopes = rdo.part_gradients(prior, values_of_latents(gradient), quality_index)
    expected = sum(float((slope * move).sum()) for slope, move in zip(slopes, moves, strict=True))
    assert expected == pytest.approx(float((gradient * direction).sum()), rel=1e-3)


def test_curvature_is_found():
    rng = np.random.default_rng(0)
    differences = [rng.normal(size=(20, 3)) for _ in range(PARTS)]
    octave = np.repeat(range(6), (5, 2, 2, 2, 2, 2))
    slopes = [(0.5 + n) * difference for n, difference in zip(octave, differences, strict=True)]
    zeros = [np.zeros_like(difference) for difference in differences]
    assert curvatures_of(differences, zeros, slopes) == pytest.approx(np.array([0.5, 1.5, 2.5, 3.5, 4, 4])[octave])


@pytest.mark.parametrize("quality", [70])
def test_more_effort_costs_less(codec, crop, quality):
    files = [codec.encode(crop, quality, effort=effort, tune="psnr") for effort in (1, 2, 5, 9)]
    costs = [rd_cost(crop, codec, data, quality) for data in files]
    assert costs[1] <= costs[0] and costs[2] < costs[1] and costs[3] < costs[2] * 1.002
    assert costs[3] < 0.998 * costs[0]
    assert files[2] == codec.encode(crop, quality, effort=5, tune="psnr")
    assert files[0] == codec.encode(crop, quality, tune="psnr")


@pytest.mark.parametrize("shape", [(1, 1), (17, 33), (100, 15)])
def test_never_dearer_than_effort_1(codec, shape):
    for image in (synthetic_image(*shape), np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)):
        unrefined, refined = (codec.encode(image, 60, effort=effort, tune="psnr") for effort in (1, 9))
        assert codec.decode(refined).shape == image.shape
        # Files consist of whole words, and decoders round pixels.
        assert (
            rd_cost(image, codec, refined, 60)
            <= rd_cost(image, codec, unrefined, 60) * 1.002 + 8 * 8 / image[..., 0].size
        )


def test_the_start_is_what_effort_1_codes(codec, crop):
    quality_index, image = quality_index_of(40), np.ascontiguousarray(crop[:112, :144])
    [[latents]] = codec.analyse_batch([image], 40, tune="psnr")
    refiner = Refiner(codec.model, image, (112, 144), latents, Box(0, 0, *latents.cells), quality_index)
    symbols = refiner(0).symbols
    model = codec.model
    rest = latents.cells, quality_index, lambda part, _: symbols[part]
    coded = encode_tile(model.prior, model.models, *rest, by_band=True)
    [tile] = parse(codec.encode(image, 40, tune="psnr")).tiles
    assert (coded.crc, len(coded.payload)) == (tile.crc, tile.length)


def test_progress_counts_iterations(codec, crop):
    reports = []
    codec.encode(crop, 30, tile=64, effort=3, progress=lambda *numbers: reports.append(numbers), tune="psnr")
    assert reports == [(n, 6 * ITERATIONS[2]) for n in range(6 * ITERATIONS[2] + 1)]
    assert list(ITERATIONS) == sorted(ITERATIONS) and len(ITERATIONS) == 9


def test_files_do_not_depend_on_threads(codec, crop, monkeypatch):
    monkeypatch.setattr("vaecodec.codec.tiles.OWN_TILE_PIXELS", 1000)
    files = [Codec(codec.model, threads=threads).encode(crop, 40, tile=64, effort=4) for threads in (1, 3, 4)]
    assert files[0] == files[1] == files[2]
