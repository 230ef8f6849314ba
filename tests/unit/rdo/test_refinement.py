"""Test effort: refinement lowers the cost of images, and every decoder reads the files."""

import json

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.images import synthetic_image
from support.rdo import check_gradients, rd_cost
from vaecodec.cli import main
from vaecodec.codec import Codec, modes
from vaecodec.container.image_file import quality_index_of
from vaecodec.model.file import load_model
from vaecodec.rdo.float_decoder import Synthesis, shuffle, unshuffle
from vaecodec.rdo.prices import EYE_ITERATIONS
from vaecodec.rdo.prior_gradients import SymbolBits
from vaecodec.threads import single_threaded_blas
from vaecodec.transforms.latents import latents_of_values
from vaecodec.transforms.wavelet import dequantise, quantisation_targets


@pytest.fixture(scope="module")
def crop(request):
    """u8[128, 160, 3] of a photograph."""
    path = request.config.rootpath / "docs" / "examples" / "parrots.png"
    return np.asarray(Image.open(path).convert("RGB"))[150:278, 200:360]


@pytest.mark.parametrize("quality", [5, 60, 100])
@pytest.mark.parametrize("shape", [(32, 48), (80, 64)])
def test_the_synthesis_in_floats_is_close_to_the_decoders(small, crop, shape, quality):
    """For equal coefficients, floats and integers differ only by rounding."""
    quality_index, gains = quality_index_of(quality), small.model.gains.scaled(quality_index_of(quality))
    [coefficients] = small.transforms.analysis([np.ascontiguousarray(crop[: shape[0], : shape[1]])], quality_index)
    targets = quantisation_targets(coefficients, gains)
    halves = [(np.rint(64 * a).astype(np.int32), np.rint(64 * b).astype(np.int32)) for a, b in targets.halves]
    values = targets._replace(halves=halves, low=np.rint(64 * targets.low).astype(np.int32))
    pixels, _ = Synthesis(small.model, quality_index).forward(latents_of_values(values) * np.float32(1 / 64))
    [levels] = small.transforms.levels([dequantise(values, gains)], quality_index)
    assert np.abs(pixels - (levels / 64 + 127.5)).max() < 0.7  # of 255


def test_gradients_are_differences(tiny):
    check_gradients(tiny.model)


def test_unshuffle_undoes_shuffle():
    x = np.arange(2 * 3 * 16).reshape(2, 3, 16)
    assert (unshuffle(shuffle(x, 2), 2) == x).all()


def test_costs_are_those_of_the_tables(tiny):
    tables = tiny.model.models.tables
    indices = np.arange(1, 60, dtype=np.uint8)
    symbols = (np.arange(59) % 3 - 1).astype(np.int32)
    assert SymbolBits(tables)(symbols, indices).sum() == pytest.approx(tables.bits(symbols, indices), rel=1e-5)
    assert SymbolBits(tables)(np.zeros(1, np.int32), np.zeros(1, np.uint8)) == 0


@pytest.mark.parametrize("quality", [20, 70])
def test_more_effort_costs_less(small, crop, quality):
    files = [small.encode(crop, quality, effort=effort, tune="psnr") for effort in (1, 3, 5)]
    costs = [rd_cost(crop, small, data, quality) for data in files]
    assert costs[1] < 0.998 * costs[0] and costs[2] < costs[1]
    assert files[0] == small.encode(crop, quality, tune="psnr")


@pytest.mark.parametrize("quality", [35, 55, 80])
def test_more_effort_is_smaller_at_the_same_error(small, crop, quality):
    plain = small.encode(crop, quality, tune="psnr")
    errors = np.square(small.decode(plain).astype(float) - crop).sum()
    sizes = [len(plain)]
    for effort in (3, 6):
        data = small.encode(crop, quality, effort=effort, tune="psnr")
        sizes.append(len(data))
        assert np.square(small.decode(data).astype(float) - crop).sum() < 1.005 * errors
    assert sizes[2] < sizes[0] and sizes[2] < 1.02 * sizes[1]  # of 600 bytes a few may go either way
    assert sizes[1] < sizes[0] + 17  # the bytes that a filter of more classes takes


def test_what_refinement_makes_larger_is_coded_as_effort_1(small, crop, monkeypatch):
    images, metadata = [crop, crop[:100, :90]], [{"exif": b"1"}, None]

    def files(effort):
        return small.encode_batch(images, 70, metadata, effort=effort)

    assert len(files(3)[0]) < len(files(1)[0])
    monkeypatch.setattr("vaecodec.rdo.refinement.share_of_error", lambda *_: 0.5)  # of the error is allowed
    assert files(3) == files(1)


def test_tiles_keep_their_errors(small, crop):
    plain, refined = (small.encode(crop, 60, tile=64, effort=effort, tune="psnr") for effort in (1, 5))
    errors = [np.square(small.decode(data).astype(float) - crop).sum() for data in (plain, refined)]
    assert len(refined) < 1.01 * len(plain)  # a filter of more classes takes 17 bytes, a seventieth of the file
    assert errors[1] < 1.01 * errors[0]


def test_files_do_not_depend_on_threads(crop, monkeypatch):
    monkeypatch.setattr("vaecodec.codec.tiles.OWN_TILE_PIXELS", 1000)
    model = load_model("small")
    files = [Codec(model, threads=threads).encode(crop, 40, tile=64, effort=2) for threads in (1, 3, 4)]
    assert files[0] == files[1] == files[2]


def test_beyond_the_edges_nothing_is_paid_for(small, crop):
    for height, width in ((17, 33), (1, 1), (100, 15)):
        part = crop[:height, :width]
        data = small.encode(part, 60, effort=2, tune="psnr")
        assert small.decode(data).shape == part.shape
        assert (
            rd_cost(part, small, data, 60)
            <= rd_cost(part, small, small.encode(part, 60, tune="psnr"), 60) + 8 * 8 / part[..., 0].size
        )


def test_what_does_not_help_is_not_taken(tiny):
    """An untrained model codes noise."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    unrefined, refined = tiny.encode(noise, 80, tune="psnr"), tiny.encode(noise, 80, effort=2, tune="psnr")
    assert rd_cost(noise, tiny, refined, 80) <= rd_cost(noise, tiny, unrefined, 80) * 1.01


def test_progress_counts_iterations(small, crop):
    reports = []
    small.encode(crop[:128, :128], 60, tile=64, effort=4, progress=lambda *numbers: reports.append(numbers))
    total = 4 * EYE_ITERATIONS[3]
    assert total > 4 and reports == [(n, total) for n in range(total + 1)]
    del reports[:]
    small.encode(crop[:128, :128], 30, tile=64, effort=2, progress=lambda *numbers: reports.append(numbers))
    assert reports == [(n, 4) for n in range(5)]  # without refinement progress counts tiles


@pytest.mark.parametrize("effort", [0, 10, 1.5])
def test_effort_is_one_of_nine(small, crop, effort):
    with pytest.raises((ValueError, TypeError), match=r"effort is .*, expected a whole number in 1\.\.9"):
        small.encode(crop, effort=effort)
    with pytest.raises((ValueError, TypeError), match="effort"):
        vaecodec.encode(crop, effort=effort)


def test_pictures_of_every_kind_take_effort(small, crop):
    for samples in (crop[..., 0], np.dstack([crop, crop[..., :1]]), crop.astype(np.uint16) * 257):
        assert modes.decode(modes.encode(small, samples, 40, effort=2)).shape == samples.shape
    flat = np.zeros((96, 96, 3), np.uint8)
    assert len(modes.encode(small, flat, 40, effort=9)) <= len(modes.encode(small, flat, 40))


def test_targets_are_met_with_effort(crop):
    size = 2500
    data = vaecodec.encode(crop, target_size=size, effort=2, tune="psnr")
    assert 0.985 * size <= len(data) <= size  # in words of 4 bytes, with 897 quality indices
    unrefined = vaecodec.encode(crop, target_size=size, tune="psnr")
    assert vaecodec.info(data)["quality"] >= vaecodec.info(unrefined)["quality"]


def test_the_command_line_takes_effort(small, crop, tmp_path, capsys):
    source = str(tmp_path / "a.png")
    Image.fromarray(crop).save(source)
    costs = []
    for effort in ("1", "3"):
        assert main(["compress", source, "--effort", effort, "--json", "-f"]) == 0
        data = (tmp_path / "a.vae").read_bytes()
        assert json.loads(capsys.readouterr().out)["bytes"] == len(data)
        costs.append(rd_cost(crop, vaecodec.load(), data, 50))
    assert costs[1] < costs[0]
    assert main(["compress", source, "--effort", "10"]) == 2


def test_one_thread_is_left_behind(small):
    small.encode(synthetic_image(32, 32), effort=2)
    assert single_threaded_blas._users == 0
