"""Effort with wavelet models: symbols refined for one picture, which cost less and which any decoder takes."""

import numpy as np
import pytest
from conftest import picture
from PIL import Image

pytest.importorskip("tensorflow")

import test_wavelet
from test_effort import check_gradients, cost
from test_wavelet import CONFIG, frozen

from vaecodec import lifting, octaves, parallel, pyramid, rounding, tiles, wavelet_vae
from vaecodec.codec import Codec
from vaecodec.container import step_of
from vaecodec.tiling import Box
from vaecodec.wavelet_refinement import ITERATIONS, WaveletRefiner, curvatures_of
from vaecodec.weights import load_model


@pytest.fixture(scope="module")
def codec(tmp_path_factory):
    """Of a model whose prior expects about as much everywhere; with random weights it is noise."""

    def calm(config, seed):
        weights = wavelet_vae.initial_weights(config, seed)
        for name in (name for name in weights if name.endswith(("/first/bias", "/second/bias"))):
            weights[name][len(weights[name]) // 2 :] += 2.5
        return weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(test_wavelet, "trained", calm)
        return Codec(load_model(frozen(tmp_path_factory.mktemp("run"))[0]))


@pytest.fixture(scope="module")
def crop(request):
    """u8[112, 150, 3] of a photograph."""
    path = request.config.rootpath / "docs" / "examples" / "parrots.png"
    return np.asarray(Image.open(path).convert("RGB"))[150:262, 200:350]


def test_adjoints_are_those_of_inner_products():
    rng = np.random.default_rng(0)
    low, bands, fine = rng.normal(size=(3, 5, 4)), rng.normal(size=(9, 5, 4)), rng.normal(size=(3, 10, 8))
    low_of, bands_of = lifting.inverse_adjoint(fine, lifting.REAL)
    there = float((lifting.inverse(low, bands, lifting.REAL) * fine).sum())
    assert float((low_of * low).sum() + (bands_of * bands).sum()) == pytest.approx(there)
    y, x = rng.normal(size=(3, 2, 768)), rng.normal(size=(48, 32, 3))
    assert float((pyramid.samples_adjoint(x) * y).sum()) == pytest.approx(float((pyramid.samples(y) * x).sum()))
    # One octave more, of a tile whose sides are odd: what is cut off has no part in it.
    low, gradient = rng.normal(size=(3, 5, 7)), rng.normal(size=(3, 5, 7))
    lowest, bands = pyramid.fifth(low)
    restored = lifting.inverse(lowest, bands, lifting.REAL)[:, :5, :7]
    assert np.abs(restored - low).max() < 1e-5
    there = float((restored * gradient).sum())
    lowest_of, bands_of = pyramid.fifth_adjoint(gradient)
    assert float((lowest_of * lowest).sum() + (bands_of * bands).sum()) == pytest.approx(there)


def test_gradients_are_differences(codec):
    check_gradients(codec.model)


def test_slopes_of_parts_are_differences(codec):
    """A small change of any part changes the pixels as its slopes say, with sides that are odd, too."""
    prior, step, rng = codec.model.prior, 300, np.random.default_rng(2)
    y, gradient = (rng.normal(0, 1, (5, 3, CONFIG.latents)).astype(np.float32) for _ in range(2))
    along = rng.normal(0, 1, y.shape).astype(np.float32)
    parts, moves = rounding.targets(prior, y, step), rounding.targets(prior, along, step)
    assert len(parts) == octaves.PARTS
    slopes = rounding.slopes(prior, gradient, step)
    there = sum(float((slope * move).sum()) for slope, move in zip(slopes, moves, strict=True))
    assert there == pytest.approx(float((gradient * along).sum()), rel=1e-3)


def test_curvature_is_found():
    rng = np.random.default_rng(0)
    away = [rng.normal(size=(20, 3)) for _ in range(octaves.PARTS)]
    octave = np.repeat(range(6), (5, 2, 2, 2, 2, 2))
    slopes = [(0.5 + n) * one for n, one in zip(octave, away, strict=True)]
    zeros = [np.zeros_like(one) for one in away]
    assert curvatures_of(away, zeros, slopes) == pytest.approx(np.array([0.5, 1.5, 2.5, 3.5, 4, 4])[octave])


@pytest.mark.parametrize("quality", [70])
def test_more_effort_costs_less(codec, crop, quality):
    files = [codec.encode(crop, quality, effort=effort) for effort in (1, 2, 5, 9)]
    costs = [cost(crop, codec, data, quality) for data in files]
    assert costs[1] < costs[0] and costs[2] < costs[1] and costs[3] < costs[2] * 1.001
    assert costs[3] < 0.998 * costs[0]
    assert files[2] == codec.encode(crop, quality, effort=5)
    assert files[0] == codec.encode(crop, quality)


@pytest.mark.parametrize("shape", [(1, 1), (17, 33), (100, 15)])
def test_never_dearer_than_effort_1(codec, shape):
    for x in (picture(*shape), np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)):
        plain, refined = (codec.encode(x, 60, effort=effort) for effort in (1, 9))
        assert codec.decode(refined).shape == x.shape
        # Files are of whole words, and decoders round pixels.
        assert cost(x, codec, refined, 60) <= cost(x, codec, plain, 60) * 1.002 + 8 * 8 / x[..., 0].size


def test_the_start_is_what_effort_1_codes(codec, crop):
    step = step_of(40)
    y, z = codec.analyse_batch([crop[:112, :144]], 40)[0][0]
    refiner = WaveletRefiner(codec.model, crop[:112, :144], (112, 144), y, z, Box(0, 0, *y.shape[:2]), step)
    symbols = refiner(0)
    plain, given = tiles.encode(codec.model.prior, y, z, step), tiles.encode(codec.model.prior, y, symbols, step)
    assert plain == given


def test_progress_counts_iterations(codec, crop):
    said = []
    codec.encode(crop, 30, tile=64, effort=3, progress=lambda *numbers: said.append(numbers))
    assert said == [(n, 6 * ITERATIONS[2]) for n in range(6 * ITERATIONS[2] + 1)]
    assert list(ITERATIONS) == sorted(ITERATIONS) and len(ITERATIONS) == 9


def test_files_do_not_depend_on_threads(codec, crop, monkeypatch):
    monkeypatch.setattr(parallel, "PIXELS_EACH", 1000)
    files = [Codec(codec.model, threads=threads).encode(crop, 40, tile=64, effort=4) for threads in (1, 3)]
    assert files[0] == files[1]
