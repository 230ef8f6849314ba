"""Models with a lapped filter, frozen from the weights that training begins with and loaded as a stranger's."""

import random
from contextlib import suppress

import numpy as np
import pytest
from conftest import picture
from mutants import mutate

pytest.importorskip("tensorflow")

import reference_decoder

from vaecodec import lapping, planes, training
from vaecodec.codec import Codec
from vaecodec.config import Config
from vaecodec.errors import ModelError
from vaecodec.freezing import freeze
from vaecodec.graphs import without_filter
from vaecodec.lapped import filtered, pixels
from vaecodec.networks import check_network
from vaecodec.tiling import Box
from vaecodec.transforms import LiteRT
from vaecodec.vae import initial_weights
from vaecodec.weights import load_model

CONFIG = Config(48, 8, 16, 1, 24, 1, 16, 16, lapped=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    weights = initial_weights(CONFIG)
    # A filter that does not leave mirrored samples, or a flat picture, as they are: as training may make it.
    mixed = np.eye(16) * 0.6 + np.random.default_rng(0).normal(0, 0.02, (16, 16))
    weights["analysis/lapped/kernel"] = mixed @ weights["analysis/lapped/kernel"]
    weights["synthesis/lapped/kernel"] = weights["synthesis/lapped/kernel"] @ np.linalg.inv(mixed)
    training.save_checkpoint(str(run), CONFIG, training.Options(), training.initial_state(CONFIG, 0, weights), {})
    freeze(str(run), str(run / "lapped.vcm"))
    return str(run / "lapped.vcm")


@pytest.fixture(scope="module")
def lapped(path):
    model = load_model(path)
    assert not model.shipped and model.config == CONFIG  # so that its networks are looked through
    return Codec(model)


@pytest.fixture(scope="module")
def coded(lapped):
    return lapped.encode(picture(200, 333), 80, tile=64)


def psnr(x, y):
    return 10 * np.log10(255**2 / np.square(x.astype(np.float64) - y).mean())


def test_pictures_survive_it(lapped, coded):
    assert psnr(lapped.decode(coded), picture(200, 333)) > 22  # of a sixteenth of the coefficients


@pytest.mark.parametrize("window", [(0, 0, 1, 1), (60, 60, 10, 10), (77, 130, 90, 131), (136, 200, 64, 133)])
def test_windows_are_those_of_the_whole(lapped, coded, window):
    top, left, height, width = window
    whole = lapped.decode(coded)[top : top + height, left : left + width].astype(int)
    assert np.abs(lapped.decode(coded, window) - whole).max() <= 1


@pytest.mark.parametrize("reduce", [2, 4, 8, 16])
def test_previews_are_filtered_too(lapped, coded, reduce):
    whole = planes.reduce(lapped.decode(coded), Box(0, 0, 200, 333), reduce)
    preview = lapped.decode(coded, reduce=reduce)
    assert preview.shape == whole.shape
    assert psnr(preview[:-1, :-1], whole[:-1, :-1]) > 30
    top, left, height, width = 64 // reduce, 112 // reduce, 80 // reduce, 144 // reduce
    part = lapped.decode(coded, (64, 112, 80, 144), reduce)
    np.testing.assert_array_equal(part, preview[top : top + height, left : left + width])


def test_the_reference_decoder_agrees(path, lapped, coded):
    whole = reference_decoder.decode(coded, reference_decoder.read_model(path))
    assert np.abs(lapped.decode(coded) - whole.astype(int)).max() <= 1


def test_tensorflow_agrees(path, lapped, coded):
    assert np.abs(lapped.decode(coded).astype(int) - Codec(load_model(path), "tensorflow").decode(coded)).max() <= 1


SIDES = {"analysis": 16, "synthesis": 1}


@pytest.mark.parametrize("name", SIDES)
def test_the_filter_of_a_stranger_is_the_one_of_ours(lapped, name):
    """Whatever integer of it is changed: sizes, constants that make them, and where things begin and end."""
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(lapped.model.transform(name))
    check_network(bytes(content), 4096, SIDES[name])
    with pytest.raises(ModelError, match="lapped"):  # there is less than half a block to be mirrored
        check_network(bytes(content), 4096, SIDES[name] // 2 if name == "analysis" else 3)
    model = schema.Model.GetRootAs(content, 0)
    graph, codes = model.Subgraphs(0), vars(schema.BuiltinOperator)
    ours = {codes[operation] for operation in lapping.OPERATIONS} | {codes["ADD"], codes["MUL"]}
    used: set[int] = set()
    for n in range(graph.OperatorsLength()):
        operation = graph.Operators(n)
        if model.OperatorCodes(operation.OpcodeIndex()).BuiltinCode() in ours:
            if graph.Tensors(operation.Inputs(0)).ShapeLength() == 4 and operation.InputsLength() == 4:
                if graph.Tensors(operation.Inputs(0)).Shape(2) > 1:
                    continue  # the kernel, which is taken whole: its ends do not matter
            used.update(map(int, operation.InputsAsNumpy()))
    tried = 0
    for number in used:
        tensor = graph.Tensors(number)
        buffer = model.Buffers(tensor.Buffer())
        if tensor.Type() != schema.TensorType.INT32 or not buffer.DataLength():
            continue
        values = buffer.DataAsNumpy()
        for at in range(0, len(values), 4):
            for change in (1, 255):
                kept = values[at]
                values[at] = (int(kept) + change) % 256
                with pytest.raises(ModelError, match="lapped|constant|TRANSPOSE|shapes"):
                    check_network(bytes(content), 4096, SIDES[name])
                values[at] = kept
                tried += 1
    check_network(bytes(content), 4096, SIDES[name])
    assert tried > 50


def test_mutants_of_lapped_networks_are_run_or_refused(lapped):
    rng, outcomes = random.Random(7), set()
    networks = [lapped.model.transform(name) for name in SIDES]
    for number in range(120):
        name = list(SIDES)[number % 2]
        content = mutate(rng, lapped.model.transform(name), networks)
        try:
            check_network(content, 4096, SIDES[name])
            outcomes.add("passed")
        except ModelError:
            outcomes.add("refused")
    assert outcomes == {"passed", "refused"}


def test_a_network_that_makes_another_size_is_refused_when_run(lapped):
    arrays = dict(lapped.model.arrays)
    arrays["litert/analysis"], arrays["litert/synthesis"] = arrays["litert/synthesis"], arrays["litert/analysis"]
    swapped = LiteRT(lapped.model._replace(arrays=arrays), 1)
    with pytest.raises(ModelError):
        swapped.analysis(picture(32, 32)[None], np.ones(CONFIG.fine, np.float32))


@pytest.mark.parametrize("name", SIDES)
def test_a_network_without_its_filter_is_a_part_of_what_it_was(lapped, name):
    content = lapped.model.transform(name)
    cut = without_filter(content, name)
    check_network(cut, 4096, SIDES[name])
    assert without_filter(content, name) == cut and len(cut) - len(content) < 100
    with pytest.raises(ModelError, match="filter"):
        without_filter(cut, name)


@pytest.mark.parametrize("name", SIDES)
def test_a_damaged_list_is_a_model_error(lapped, name):
    rng, content = random.Random(0), lapped.model.transform(name)
    for _ in range(100):
        damaged = bytearray(content)
        for _ in range(20):
            damaged[rng.randrange(2000)] = rng.randrange(256)
        with suppress(ModelError):
            without_filter(bytes(damaged), name)


@pytest.mark.parametrize("shape", [(16, 16, 3), (48, 32, 3), (32, 560, 3), (208, 2560, 1)])
def test_strips_are_the_filter_of_the_whole(shape):
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(0, 0.2, shape).astype(np.float32), rng.normal(0, 0.3, (16, 16)).astype(np.float32)

    def down(x):
        padded = np.pad(x, ((8, 8), (0, 0), (0, 0)), "symmetric")
        return (kernel @ padded.reshape(-1, 16, padded.shape[1] * padded.shape[2])).reshape(padded.shape)[8:-8]

    wanted = down(down(x).swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(filtered(x, kernel), wanted, atol=1e-5)
    wanted = np.clip(np.floor(wanted * 255 + 128), 0, 255)
    assert np.abs(pixels(x, kernel) - wanted).max() <= 1
    codes = rng.integers(0, 256, shape).astype(np.uint8)
    np.testing.assert_allclose(
        filtered(codes, kernel), filtered(codes / np.float32(255) - np.float32(0.5), kernel), atol=1e-5
    )
