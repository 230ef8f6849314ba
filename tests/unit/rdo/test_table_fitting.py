"""Tables and centroids fitted to images code them in fewer bits."""

import numpy as np
import pytest

from support.images import synthetic_image
from vaecodec.config import SQUARED_STEPS_PER_BIT
from vaecodec.container.image_file import quality_index_of
from vaecodec.entropy import TOTAL
from vaecodec.model.file import load_model
from vaecodec.native.reference import UNIT, levels, states
from vaecodec.native.symbols import symbol_values
from vaecodec.prior import choose_symbols, information
from vaecodec.rdo import QUALITIES, Statistics, fit_tables, quantizer, targets
from vaecodec.transforms.wavelet import quantisation_targets

IMAGES = [synthetic_image(64, 96, n) for n in range(len(QUALITIES))]


@pytest.fixture(scope="module")
def fitted(tiny):
    return fit_tables(tiny.model, IMAGES)


def cost(model):
    """Bits of the symbols of all images, and the squared error that is worth as much."""
    total = 0.0
    for image, quality in zip(IMAGES, QUALITIES, strict=True):
        index = quality_index_of(quality)
        [coefficients] = model.transforms.analysis([image], index)
        parts = targets(model.prior, quantisation_targets(coefficients, model.gains.scaled(index)), index)
        choose, errors = quantizer(model.prior, model.models.tables), []

        def chosen(part, distributions, parts=parts, choose=choose, errors=errors):
            symbols = choose(parts[part], distributions)
            values = symbol_values(symbols, *distributions, model.prior.centroids)
            errors.append(np.sum((parts[part] - values / np.float32(UNIT)) ** 2))
            return symbols

        coded, _ = choose_symbols(model.prior, coefficients.cells, index, chosen)
        total += information(model.prior, model.models, coded) + sum(errors) / SQUARED_STEPS_PER_BIT
    return total


def test_fitting_lowers_the_cost(tiny, fitted):
    assert cost(fitted) < 0.99 * cost(tiny.model)


def test_fitting_changes_the_id_and_nothing_but_tables_and_centroids(tiny, fitted):
    changed = {name for name in fitted.arrays if not np.array_equal(fitted.arrays[name], tiny.model.arrays[name])}
    assert fitted.id != tiny.model.id
    assert "centroids" in changed and all(name == "centroids" or name.startswith("tables/") for name in changed)


def test_fitted_frequencies_add_up_and_are_symmetric(tiny, fitted):
    tables = fitted.models.tables
    for table in range(fitted.prior.scales):
        row = tables.row(table)
        assert row.sum() == TOTAL and row.min() > 0
        if tables.low[table] == -((len(row) - 2) // 2):
            most = int(np.argmax(row))  # takes what rounding leaves
            others = np.delete(row[:-1].astype(np.int64), sorted({most, len(row) - 2 - most}))
            np.testing.assert_allclose(others, others[::-1], rtol=0.01, atol=1)


def test_escapes_keep_their_frequency(tiny, fitted):
    before, after = tiny.model.models.tables, fitted.models.tables
    for table in range(fitted.prior.scales):
        assert int(after.row(table)[-1]) == pytest.approx(int(before.row(table)[-1]), rel=0.01, abs=4)


def test_centroids_are_means_of_what_lies_beyond_levels():
    model = load_model("small")
    rng, count = np.random.default_rng(5), 40_000
    symbols, indices = rng.integers(-3, 4, count, dtype=np.int32), np.full(count, 40, np.uint8)
    magnitudes = np.abs(symbols)
    quantisers = states(magnitudes.astype(np.int64) % 2) % 2
    without = levels(magnitudes, quantisers, np.zeros((count, 4), np.int64))
    residuals = np.sign(symbols) * (without + 7) / np.float32(UNIT)
    statistics = Statistics(model.models.tables, model.prior.scales)
    statistics.add(residuals.astype(np.float32), symbols, indices)
    np.testing.assert_array_equal(statistics.centroids()[40], [7, 7, 7, 7])
    assert not statistics.centroids()[39].any()
