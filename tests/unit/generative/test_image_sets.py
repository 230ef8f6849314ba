"""Test sets of small images: lossless coding at the negative ELBO, and errors for damage."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.damage import mutants, with_right_crcs
from support.models import with_entry
from support.paths import DATA, GOLDEN, MODELS
from support.skips import needs_data
from vaecodec import cli
from vaecodec import generative as generation
from vaecodec.container.info import SET_HEADER
from vaecodec.entropy import TOTAL, coding
from vaecodec.errors import CodecError, FormatError, LimitError, ModelError
from vaecodec.generative import image_sets
from vaecodec.model import generative
from vaecodec.model.file import load_any, load_generator, pack_model, parse_model
from vaecodec.model.generative import Generator

TEST_SET = DATA / "mnist" / "t10k-images-idx3-ubyte.gz"
needs_mnist = needs_data(TEST_SET, "MNIST")


@pytest.fixture(scope="module")
def digits() -> Generator:
    """The shipped model."""
    return load_generator("digits")


def images_of(count: int, kind: str) -> np.ndarray:
    """u8[count, 28, 28] of a kind: noise, blank or white."""
    rng = np.random.default_rng(count)
    if kind == "noise":
        return rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
    return np.full((count, 28, 28), {"blank": 0, "white": 255}[kind], np.uint8)


@pytest.mark.parametrize("count", [1, 2, 3, 70])
@pytest.mark.parametrize("kind", ["noise", "blank", "white"])
def test_sets_round_trip(count, kind):
    x = images_of(count, kind)
    data = vaecodec.encode_set(x)
    assert np.array_equal(vaecodec.decode_set(data), x)
    info = vaecodec.info(data)
    assert (info["kind"], info["count"], info["width"], info["bytes"]) == ("set", count, 28, len(data))


def test_samples_cost_the_negative_elbo(digits):
    x = vaecodec.sample(150, noisy=True)
    bits = generation.negative_elbo(digits, x).sum()
    data, consumed = image_sets.encode_words(digits, x)
    assert 8 * len(data) - 32 * consumed == pytest.approx(bits, rel=0.01)
    assert np.array_equal(image_sets.decode_words(digits, data, consumed, len(x)), x)


@needs_mnist
def test_digits_cost_their_negative_elbo(digits):
    x, names = image_sets.read_set(str(TEST_SET))
    assert x.shape == (10000, 28, 28) and names[7].endswith("[7]")
    x = x[:600]
    data = vaecodec.encode_set(x)
    bpd, elbo = 8 * len(data) / x.size, generation.negative_elbo(digits, x).mean() / 784
    assert np.array_equal(vaecodec.decode_set(data), x)
    assert bpd < 1.41 and bpd == pytest.approx(elbo, rel=0.01)  # BB-ANS: Townsend et al. 2019, table 2


def test_families_of_models_equal_separate_models():
    """A family of entropy models codes exactly like separate models, down to frequencies of 1."""
    rng = np.random.default_rng(0)
    for size in (2, 255, 1024):
        weights = rng.random((40, size)) ** 8
        freq = np.floor(weights * ((TOTAL - size) / weights.sum(1, keepdims=True))).astype(np.int64) + 1
        freq[np.arange(40), freq.argmax(1)] += TOTAL - freq.sum(1)
        symbols = rng.integers(0, size, 40).astype(np.int32)
        together, single = coding.writer(), coding.writer()
        coding.push_each(together, symbols, freq)
        for symbol, row in zip(symbols[::-1], freq[::-1], strict=True):
            single.encode_reverse(np.array([symbol]), coding.categorical(row.astype(np.uint32)))
        assert coding.words(together) == coding.words(single)
        assert np.array_equal(coding.pop_each(together, freq), symbols)


def test_the_golden_file_is_reproduced_and_decoded():
    """These images must always be coded to the bytes of the golden file."""
    model, x = str(GOLDEN / "sets" / "tiny.vcm"), np.load(GOLDEN / "sets" / "tiny.npy")
    data = (GOLDEN / "sets" / "tiny.vae").read_bytes()
    assert vaecodec.encode_set(x, model) == data
    assert np.array_equal(vaecodec.decode_set(data, model), x)


def test_the_reference_decoder_agrees():
    """tests/reference/reference_sets.py, written from docs/reference/sets.md."""
    from reference import reference_sets

    x, data = np.load(GOLDEN / "sets" / "tiny.npy"), (GOLDEN / "sets" / "tiny.vae").read_bytes()
    model = reference_sets.Model(GOLDEN / "sets" / "tiny.vcm")
    assert np.array_equal(reference_sets.decode(data, model), x)
    digits = reference_sets.Model(MODELS / "digits.vcm")
    x = vaecodec.sample(4, noisy=True)
    assert np.array_equal(reference_sets.decode(vaecodec.encode_set(x), digits), x)
    damaged = bytearray(data)
    damaged[-20] ^= 1
    with pytest.raises(ValueError):
        reference_sets.decode(with_right_crcs(bytes(damaged)), model)


def test_batches_double_up_to_the_largest():
    assert list(image_sets.batch_sizes(1)) == [1] and list(image_sets.batch_sizes(8)) == [1, 2, 4, 1]
    assert list(image_sets.batch_sizes(300)) == [1, 2, 4, 8, 16, 32, 64, 64, 64, 45]
    assert np.array_equal(
        image_sets.initial_words(50)[-10:], image_sets.initial_words(10)
    )  # further words are added below


@pytest.mark.parametrize("fixed", [False, True])
def test_damage_gives_an_error_or_the_same_images(fixed):
    """The final stack and the CRC of the pixels detect damage, even if the CRCs of chunks are right."""
    model = str(GOLDEN / "sets" / "tiny.vcm")
    data, x = (GOLDEN / "sets" / "tiny.vae").read_bytes(), np.load(GOLDEN / "sets" / "tiny.npy")
    for mutant in mutants(int(fixed), 100, [data]):
        mutant = with_right_crcs(mutant) if fixed else mutant
        try:
            assert np.array_equal(vaecodec.decode_set(mutant, model), x)
        except CodecError as exc:
            assert "\n" not in str(exc)


def with_fields(data: bytes, **fields: int) -> bytes:
    """Replace values of PSET, and repair the CRCs."""
    names = ("version", "reserved", "model", "count", "side", "consumed", "crc")
    values = dict(zip(names, SET_HEADER.unpack_from(data, 16), strict=True)) | fields
    out = bytearray(data)
    SET_HEADER.pack_into(out, 16, *values.values())
    return with_right_crcs(bytes(out))


def test_wrong_headers_are_refused():
    data = vaecodec.encode_set(images_of(3, "noise"))
    cases = {"version 2": {"version": 2}, "flags": {"reserved": 1}, "0 images": {"count": 0}, "side 0": {"side": 0}}
    cases |= {"more than": {"count": 2**32 - 1}, "words": {"consumed": 2**31}, "side 32": {"side": 32}}
    cases |= {"CRC": {"crc": 5}, "does not end": {"consumed": 3}}
    for message, fields in cases.items():
        with pytest.raises(FormatError, match=message):
            vaecodec.decode_set(with_fields(data, **fields))
    with pytest.raises(ModelError, match="0{16}"):
        vaecodec.decode_set(with_fields(data, model=bytes(8)))
    with pytest.raises(LimitError, match="2352 pixels"):
        vaecodec.decode_set(data, limits=vaecodec.Limits(pixels=2000))
    with pytest.raises(FormatError, match="unpack"):
        vaecodec.decode(data)
    with pytest.raises(FormatError, match="set of images"):
        vaecodec.decode_set((GOLDEN / "photo.vae").read_bytes())


def test_unsuitable_images_and_models_are_refused():
    for invalid in (np.zeros((0, 28, 28), np.uint8), np.zeros((2, 28, 27), np.uint8), np.zeros((2, 28, 28), np.uint16)):
        with pytest.raises(CodecError, match="expected uint8"):
            vaecodec.encode_set(invalid)
    with pytest.raises(ModelError, match="photographs"):
        vaecodec.encode_set(images_of(1, "blank"), "small")
    with pytest.raises(ModelError, match="sets of small images"):
        vaecodec.encode(images_of(1, "blank")[0], model="digits")


CASES = {
    "a kernel of floats": ("integer/decoder/in/kernel", lambda a: a.astype(np.float32), "type"),
    "a kernel that would broadcast": ("integer/phase1/in/kernel", lambda a: a[:, :1], "shape"),
    "a mixing layer of another size": ("integer/decoder/block0/cells/kernel", lambda a: a[:-1], "shape|not a vaecodec"),
    "no statistics": ("integer/values/kernel", lambda a: None, "values"),
    "statistics of too few values": ("integer/values/kernel", lambda a: a[:, :-1], "shape|not a vaecodec"),
    "edges that fall": ("discrete/edges", lambda a: with_entry(a, 0), "falls"),
    "edges out of range": ("discrete/edges", lambda a: with_entry(a, 2**30, -1), "range"),
    "a cumulative that ends early": ("discrete/cumulative", lambda a: with_entry(a, 2**24 - 1, -1), "end in 1|falls"),
    "a scale of 0": ("discrete/inverse", lambda a: with_entry(a, 0), "range"),
    "certain ink": ("discrete/ink", lambda a: with_entry(a, 2**24, -1), "range"),
    "no mass": ("discrete/exp", lambda a: np.zeros_like(a), "range"),
    "a table of another type": ("discrete/exp", lambda a: a.astype(np.int64), "type"),
    "calibration that falls": ("calibration/bpd", lambda a: np.array([2, 1], np.float32), "rise"),
    "calibration that is no number": ("calibration/bpd", lambda a: np.array([1, np.nan], np.float32), "rise"),
}


@pytest.mark.parametrize("case", CASES)
def test_invalid_models_are_refused(digits, case):
    name, change, message = CASES[case]
    arrays = {**digits.arrays, name: change(digits.arrays.get(name, np.zeros(2)))}
    data = pack_model("bad", digits.config, {k: v for k, v in arrays.items() if v is not None}, {})
    with pytest.raises(ModelError, match=message):
        parse_model(data, "bad.vcm")


def test_the_shipped_model_is_small_and_keeps_its_id(digits):
    path = MODELS / "digits.vcm"
    assert path.stat().st_size <= 300_000 and digits.name == "digits"
    without = {name: array for name, array in digits.arrays.items() if not name.startswith("calibration/")}
    assert parse_model(pack_model("digits", digits.config, without, {}), "it").id == digits.id
    assert load_any("small").name == "small"


def test_sets_are_read_from_all_formats(tmp_path):
    x = images_of(3, "noise")
    idx = struct.pack(">4BIII", 0, 0, 8, 3, 3, 28, 28) + x.tobytes()
    (tmp_path / "idx").write_bytes(idx)
    (tmp_path / "idx.gz").write_bytes(gzip.compress(idx))
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "folder").mkdir()
    for n, image in enumerate(x):
        Image.fromarray(image).save(tmp_path / "folder" / f"{n}.png")
    for name in ("idx", "idx.gz", "x.npy", "folder"):
        assert np.array_equal(image_sets.read_set(str(tmp_path / name))[0], x)
    (tmp_path / "cut").write_bytes(idx[:-1])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(idx)[:-20])
    (tmp_path / "bad.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:60])
    (tmp_path / "header.npy").write_bytes(b"\x93NUMPY\1\0\x10\0{'descr': nothing")  # NumPy: TokenError
    Image.fromarray(x[0, :5]).save(tmp_path / "folder" / "other.png")
    for name in ("cut", "cut.gz", "bad.npy", "header.npy", "folder"):
        with pytest.raises(CodecError):
            image_sets.read_set(str(tmp_path / name))


def test_pack_and_unpack_round_trip(tmp_path, capsys):
    x = vaecodec.sample(12)
    np.save(tmp_path / "x.npy", x)
    packed, back = str(tmp_path / "x.vae"), str(tmp_path / "back.npy")
    assert cli.main(["pack", str(tmp_path / "x.npy"), "-o", packed]) == 0
    assert "12 images" in capsys.readouterr().err
    assert cli.main(["pack", str(tmp_path / "x.npy"), "-o", packed]) == 1
    assert "exists already" in capsys.readouterr().err
    assert cli.main(["info", packed]) == 0 and "12 images of 28 x 28" in capsys.readouterr().out
    assert cli.main(["verify", packed]) == 0 and "ok" in capsys.readouterr().err
    assert cli.main(["unpack", packed, "-o", back]) == 0 and np.array_equal(np.load(back), x)
    assert cli.main(["unpack", packed, "-o", str(tmp_path / "folder")]) == 0
    assert np.array_equal(image_sets.read_set(str(tmp_path / "folder"))[0], x)
    (tmp_path / "bad.vae").write_bytes((tmp_path / "x.vae").read_bytes()[:-9])
    assert cli.main(["unpack", str(tmp_path / "bad.vae"), "-o", str(tmp_path / "none.npy")]) == 1
    assert "cut off" in capsys.readouterr().err and not (tmp_path / "none.npy").exists()


def test_bins_have_equal_mass(digits):
    assert (image_sets.prior(digits, 3) * generative.COUNT == TOTAL).all()
    assert (np.diff(digits.tables.edges) > 0).all()
