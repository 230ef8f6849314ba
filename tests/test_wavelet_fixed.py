"""The synthesis of wavelet models in fixed point: what docs/arrays.md says, close to that in floating point."""

import numpy as np
import pytest
import reference_arrays
from conftest import picture
from reference_decoder import read_tensors

pytest.importorskip("tensorflow")

from test_wavelet import CONFIG, frozen

from vaecodec import arrays, context, fixed, lifting, tiles
from vaecodec.codec import Codec
from vaecodec.config import Config
from vaecodec.container import step_of
from vaecodec.gradients import Distortion
from vaecodec.model.file import load_model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return frozen(tmp_path_factory.mktemp("run"))[0]


@pytest.fixture(scope="module")
def codec(made):
    return Codec(load_model(made))


def latents(codec, pixels, quality):
    """(f32[h, w, M] as decoded, unit 2**-6, step)."""
    y = codec.analyse_batch([pixels], quality)[0][0]
    step = step_of(quality)
    coded = tiles.code(codec.model.prior, y, step)
    return context.decode(codec.model.prior, y.shape[:2], step, coded.data, lambda symbols: None), step


@pytest.mark.parametrize("quality", [5, 60, 100])
def test_pixels_are_those_of_floating_point_but_for_a_hair(codec, quality):
    x = picture(90, 130)
    y, step = latents(codec, x, quality)
    exact = fixed.Synthesis(codec.model)(y, step)
    unrounded = Distortion(codec.model, step).forward(y / np.float32(64))[0]
    assert np.abs((exact / 2**fixed.BITS + 0.5) * 255 - unrounded).max() < 0.2  # of 255
    decoded = codec.decode_exact(codec.encode(x, quality)) * 255.0 / (1 << fixed.BITS)
    assert np.abs(np.clip(decoded, 0, 255) - codec.decode(codec.encode(x, quality))).max() < 0.7


def test_the_second_implementation_makes_the_same(made, codec):
    reference = read_tensors(made)
    for shape, quality in (((90, 130), 60), ((1, 1), 100), ((16, 40), 3)):
        y, step = latents(codec, picture(*shape), quality)
        wanted = reference_arrays.synthesis(y.astype(np.int64), step, reference)
        assert np.array_equal(fixed.Synthesis(codec.model)(y, step), wanted)


def test_the_second_implementation_clips_alike(made, codec):
    """Latents far beyond those of any picture, in a model that adds next to nothing to what wavelets make of them."""
    reference, rng = read_tensors(made), np.random.default_rng(0)
    y = rng.choice([-(2.0**22), 2.0**22, 0, 300], (3, 2, CONFIG.latents))
    made_of_it = fixed.Synthesis(codec.model)(y, 0)
    assert np.abs(made_of_it).max() == fixed.MOST
    assert np.array_equal(made_of_it, reference_arrays.synthesis(y.astype(np.int64), 0, reference))


def test_other_channels(tmp_path):
    path = frozen(tmp_path, Config(16, 1, 16, 1, prior=16, coarser=20, hyper_width=8, channels=1))[0]
    codec = Codec(load_model(path))
    y, step = latents(codec, picture(50, 70)[..., :1].copy(), 70)
    wanted = reference_arrays.synthesis(y.astype(np.int64), step, read_tensors(path))
    assert np.array_equal(fixed.Synthesis(codec.model)(y, step), wanted)


def test_sums_of_lifting_stay_exact():
    """From the largest samples there are, of either sign, in the worst arrangement that was found: far below 2**53."""
    most, rng = 0.0, np.random.default_rng(1)

    class Watched(fixed.Lifted):
        def times(self, samples, factor):
            nonlocal most
            most = max(most, np.abs(samples).max() * abs(np.rint(factor * 2**16)))
            return super().times(samples, factor)

    for _ in range(50):
        low, high = (rng.choice([-fixed.MOST, fixed.MOST], (1, 8, 8)) for _ in range(2))
        lifting.join(low, high, 2, Watched())
    # Each step adds at most 2 * |multiplier| times what the others can be.
    bound = [fixed.MOST / lifting.NORM, fixed.MOST * lifting.NORM]
    for n in (3, 2, 1, 0):
        bound[n % 2 == 0] += 2 * abs(lifting.STEPS[n]) * bound[n % 2]
    assert most <= 2 * max(bound) * 2**18 < 2**53


def test_arrays_have_bases_of_wavelet_models(made):
    values = np.add.outer(np.arange(60), np.arange(80)).astype(np.int32)
    data = arrays.encode(values, 9, mode="vae", model=made)
    assert arrays.info(data)["mode"] == "vae"
    assert np.abs(arrays.decode(data, made) - values).max() <= 9
