"""Model files are not trusted: whatever is in one, it is loaded as a model of ours or refused with a ModelError."""

import json
import random

import numpy as np
import pytest
from conftest import GOLDEN, picture
from mutants import mutate

import vaecodec
from vaecodec import networks
from vaecodec.codec import Codec, cached_codec
from vaecodec.errors import ModelError
from vaecodec.networks import check_network
from vaecodec.transforms import LiteRT
from vaecodec.model.file import MAX_HEADER, load_model, pack_model, parse_model


@pytest.fixture(scope="module")
def data():
    return (GOLDEN / "tiny.vcm").read_bytes()


def with_arrays(model, **changes):
    """The bytes of a model with other arrays, and the id that goes with them; None drops one."""
    arrays = dict(model.arrays)
    for name, array in changes.items():
        arrays[name] = array
    return pack_model("bad", model.config, {name: array for name, array in arrays.items() if array is not None}, {})


def changed(array, value, index=0):
    out = array.copy()
    out.reshape(-1)[index] = value
    return out


CASES = {
    "a kernel of floats": ("integer/lowest/0/middle/kernel", lambda a: a.astype(np.float32), "type"),
    "a kernel of 32 bits": ("integer/lowest/0/middle/kernel", lambda a: a.astype(np.int32), "type"),
    "a kernel of another shape": ("integer/context/1/first/kernel", lambda a: a[:, :-1], "first|not a"),
    "a kernel that would broadcast": ("integer/context/0/block/space/kernel", lambda a: a[..., :1], "shape"),
    "a bias that would broadcast": ("integer/context/2/after/in/bias", lambda a: a[:1], "shape"),
    "no kernel": ("integer/context/2/known/kernel", lambda a: None, "context/2/known"),
    "a gain beyond exact arithmetic": ("levels/inverse_gain", lambda a: changed(a, 2**30), "inverse_gain"),
    "the lowest integer as an index": ("levels/start", lambda a: changed(a, -(2**31)), "levels/start"),
    "levels of another shape": ("levels/bias", lambda a: a[:5], "levels/bias"),
    "an anchor that is no number": ("anchors/inverse_gain", lambda a: changed(a, np.nan), "anchors/inverse_gain"),
    "an anchor that overflows": ("anchors/synthesis/fine", lambda a: changed(a, 1e30), "anchors/synthesis/fine"),
    "an anchor for encoders that is infinite": ("anchors/gain", lambda a: changed(a, -np.inf), "anchors/gain"),
    "weights that are no numbers": ("weights/synthesis/fine/bias", lambda a: changed(a, np.nan), "finite"),
    "weights in double precision": ("weights/synthesis/fine/bias", lambda a: a.astype(np.float64), "float64"),
    "flatbuffers that are no bytes": ("litert/synthesis", lambda a: a.astype(np.int32), "bytes"),
    "a frequency of 0": ("tables/freq", lambda a: changed(changed(a, 0), a[0] + a[1], 1), "sum"),
    "frequencies that do not sum": ("tables/freq", lambda a: changed(a, a[0] + 1), "sum"),
    "a row that begins before the last one ends": ("tables/start", lambda a: changed(a, 2**40, 1), "add up"),
    "starts that are floats": ("tables/start", lambda a: a.astype(np.float64), "type"),
    "a symbol out of range": ("tables/low", lambda a: changed(a, 65536, 3), "65535|range"),
    "a byte row that does not begin at 0": ("tables/low", lambda a: changed(a, 1, -1), "bytes"),
    "too many tables": ("tables/low", lambda a: np.append(a, a[-1:]), "type or shape"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_that_no_training_makes_is_refused(tiny, case):
    assert_refused(tiny.model, *CASES[case])


def assert_refused(model, name, change, message):
    """A model with a changed array ends in a ModelError of this message, one line that names the file."""
    bad = with_arrays(model, **{name: change(model.arrays[name])})
    with np.errstate(all="ignore"), pytest.raises(ModelError, match=message) as caught:
        parse_model(bad, "bad.vcm")
    assert str(caught.value).startswith("bad.vcm: ") and "\n" not in str(caught.value)


def test_the_model_itself_passes(tiny):
    assert parse_model(with_arrays(tiny.model), "good.vcm").id == tiny.model.id


def with_metadata(data, **fields):
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"].update(fields)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "2"}, "format 2"),
        ({"id": '"0000000000000000"'}, "id"),
        ({"config": '{"fine": 1000000000}'}, "config"),
        ({"config": "[]"}, "not a vaecodec model"),
        ({"name": "7"}, "name"),
        ({"notes": "7"}, "notes"),
        ({"notes": "[" * 100_000}, "not a vaecodec model"),
        ({"notes": "{"}, "not a vaecodec model"),
    ],
)
def test_metadata_out_of_range_is_refused(data, fields, message):
    with pytest.raises(ModelError, match=message):
        parse_model(with_metadata(data, **fields), "bad.vcm")


@pytest.mark.parametrize("bad", [b"", b"1234567", (2**62).to_bytes(8, "little") + b"{}", bytes(9) + b"{}"])
def test_no_model_at_all_is_refused(bad):
    with pytest.raises(ModelError):
        parse_model(bad, "bad.vcm")


def test_a_header_beyond_reason_is_not_parsed():
    with pytest.raises(ModelError, match="header"):
        parse_model((MAX_HEADER + 1).to_bytes(8, "little") + b"[" * (MAX_HEADER + 1), "bad.vcm")


def test_any_other_byte_is_refused_or_does_not_matter(data, tiny):
    """An encoder's part has no place in the id, but none in what decodes either."""
    rng = random.Random(3)
    for _ in range(60):
        with np.errstate(all="ignore"):
            try:
                model = parse_model(mutate(rng, data, [data]), "mutant.vcm")
            except ModelError:
                continue
        assert model.id == tiny.model.id


def test_networks_that_are_not_ours_are_refused_when_they_are_first_run(tiny):
    model = tiny.model
    swapped = dict(model.arrays)
    swapped["litert/synthesis"], swapped["litert/analysis"] = model.arrays["litert/analysis"], np.zeros(40, np.uint8)
    other = Codec(model._replace(arrays=swapped), threads=1)
    with pytest.raises(ModelError, match="network"):
        other.decode((GOLDEN / "photo.vae").read_bytes())
    with pytest.raises(ModelError, match="network"):
        other.encode(picture(32, 32))
    with pytest.raises(ModelError, match="no litert/analysis"):
        del swapped["litert/analysis"]
        other.encode(picture(32, 32))


def test_a_network_of_another_size_is_refused_before_it_runs(tiny, small):
    arrays, condition = dict(tiny.model.arrays), tiny.model.condition("analysis", 300)
    arrays["litert/analysis"] = small.model.arrays["litert/synthesis"]
    with pytest.raises(ModelError, match="wide|cannot be run"):
        LiteRT(tiny.model._replace(arrays=arrays), 1).analysis(picture(32, 32)[None], condition)


def test_a_network_with_foreign_operations_is_refused(tiny, monkeypatch):
    monkeypatch.delitem(networks.OPERATIONS, "CONV_2D")
    with pytest.raises(ModelError, match="CONV_2D"):
        LiteRT(tiny.model, 1).analysis(picture(32, 32)[None], tiny.model.condition("analysis", 300))


def test_models_of_one_id_have_codecs_of_their_own(tmp_path, tiny):
    """What only encoders use is not in the id: two such files decode alike and encode differently."""
    model = tiny.model
    louder = with_arrays(model, **{"anchors/gain": model.arrays["anchors/gain"] + np.float32(0.5)})
    (tmp_path / "louder.vcm").write_bytes(louder)
    codec, other = vaecodec.load(str(GOLDEN / "tiny.vcm")), vaecodec.load(str(tmp_path / "louder.vcm"))
    assert codec.model.id == other.model.id and codec is not other
    pixels = picture(48, 64)
    assert codec.encode(pixels) != other.encode(pixels)
    assert vaecodec.load(str(GOLDEN / "tiny.vcm")) is codec
    assert cached_codec(load_model(str(tmp_path / "louder.vcm"))) is other


def test_mutants_of_networks_are_looked_through_or_refused(tiny):
    rng, outcomes = random.Random(5), set()
    networks_ = [tiny.model.transform(name) for name in ("analysis", "first/1", "synthesis")]
    for number in range(150):
        try:
            check_network(mutate(rng, networks_[number % 3], networks_), 4096)
            outcomes.add("passed")  # a weight, most of the time
        except ModelError:
            outcomes.add("refused")
    assert outcomes == {"passed", "refused"}


def test_a_constant_shorter_than_its_shape_is_refused(tiny):
    """LiteRT reads beyond its end: weights are half floats that an operation of their own widens."""
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(tiny.model.transform("synthesis"))
    model = schema.Model.GetRootAs(content, 0)
    graph, tried = model.Subgraphs(0), 0
    for n in range(graph.OperatorsLength()):
        operation = graph.Operators(n)
        if model.OperatorCodes(operation.OpcodeIndex()).BuiltinCode() == schema.BuiltinOperator.DEQUANTIZE:
            tensor = graph.Tensors(operation.Outputs(0))
            if not tensor.ShapeLength():
                continue
            shape = tensor.ShapeAsNumpy()
            shape[-1] += 1
            with pytest.raises(ModelError, match="shapes|wide"):
                check_network(bytes(content), 4096)
            shape[-1] -= 1
            tried += 1
    check_network(bytes(content), 4096)
    assert tried >= 20
