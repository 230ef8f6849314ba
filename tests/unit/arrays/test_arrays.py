"""Test that arrays decode within their error bound, and to the same bits on every machine."""

import hashlib
import os
import subprocess
import sys
import zlib

import numpy as np
import pytest

from support.images import synthetic_image
from support.paths import GOLDEN
from vaecodec import arrays
from vaecodec.arguments import Limits
from vaecodec.arrays import chunks, prediction
from vaecodec.errors import CodecError, FormatError, LimitError, ModelError

TINY = str(GOLDEN / "tiny.vcm")
RNG = np.random.default_rng(5)


def scene(kind: str = "u1", height: int = 70, width: int = 90) -> np.ndarray:
    """A grey image in values of a type."""
    pixels = synthetic_image(height, width)[..., 0]
    return pixels.astype(kind) if np.dtype(kind).kind == "u" else (pixels.astype(kind) - 100) * np.dtype(kind).type(3)


def assert_bound(values: np.ndarray, max_error: float, **options) -> bytes:
    """Encode and decode an array, check every value, and return the chunk."""
    data = arrays.encode(values, max_error, **options)
    decoded = arrays.decode(data)
    assert decoded.shape == values.shape and decoded.dtype == values.dtype
    if max_error == 0:
        assert decoded.tobytes() == values.tobytes()
    elif values.dtype.kind == "f":
        finite = np.isfinite(values)
        assert np.array_equal(decoded[~finite], values[~finite], equal_nan=True)
        assert (np.abs(decoded[finite].astype("f8") - values[finite].astype("f8")) <= max_error).all()
    else:
        assert (np.abs(decoded.astype("i8") - values.astype("i8")) <= max_error).all()
    return data


@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "i1", "i2", "i4", "f4", "f8", ">u2", ">f4"])
@pytest.mark.parametrize("max_error", [0, 0.4, 1, 2.5, 40])
def test_every_value_is_within_the_bound(kind, max_error):
    values = scene("u1").astype(kind) if kind == "i1" else scene(kind)
    data = assert_bound(values, max_error)
    assert len(data) < 0.9 * values.nbytes


@pytest.mark.parametrize("mode", ["planes", "vae", "grid", "stored"])
@pytest.mark.parametrize("max_error", [0, 0.01, 3, 30])
def test_every_mode_keeps_the_bound(mode, max_error):
    for values in (scene("u1"), scene("f4") * np.float32(1.1), synthetic_image(64, 48)):
        data = assert_bound(values, max_error, mode=mode)
        assert arrays.info(data)["mode"] == mode


@pytest.mark.parametrize(
    "shape",
    [(), (0,), (1,), (2,), (3,), (50,), (1, 1), (1, 40), (40, 1), (2, 3), (5, 0, 3), (3, 5, 7), (4, 40, 40)]
    + [(2, 3, 9, 8), (6, 7, 3), (2, 9, 10, 4), (33, 17, 2), (2, 1, 1, 1, 5, 5), (1500, 3, 3), (4, 5, 20)],
)
def test_arrays_of_every_shape_round_trip(shape):
    values = np.cumsum(RNG.integers(-3, 4, shape).astype("i2"), axis=-1 if shape else None).reshape(shape)
    for kind, max_error in (("i2", 0), ("i2", 2), ("f4", 0.25)):
        assert_bound(values.astype(kind), max_error)


def test_values_that_are_not_finite_are_kept():
    values = scene("f4") / np.float32(7)
    values[3:20, 10:40] = np.nan
    values[50, 60], values[51, 60] = np.inf, -np.inf
    for max_error in (0, 0.1, 20):
        for mode in ("auto", "planes", "vae", "grid"):
            assert_bound(values, max_error, mode=mode)
    finite_values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
    assert len(arrays.encode(values, 0.5)) < 1.1 * len(arrays.encode(finite_values, 0.5))
    for special in (np.nan, np.inf, -np.inf):
        assert len(assert_bound(np.full((40, 40), special, "f4"), 0)) < 80


def test_the_bits_of_special_floats_are_kept():
    bits = scene("u4").astype("u4") * np.uint32(9_999_991)
    bits[:10, :9] = [0x7FC00001, 0xFFC12345, 0x80000000, 1, 0x7F800000, 0xFF800000, 0, 0x7FFFFFFF, 0x807FFFFF]
    assert_bound(bits.view("f4"), 0)
    assert_bound(bits.view("f4"), 0, mode="planes")
    negative_zero = np.where(scene("u1") > 128, np.float32(-0.0), scene("f4"))
    assert_bound(negative_zero, 0)


@pytest.mark.parametrize("kind", ["f4", "f8"])
@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1, 1e7, 1e30])
@pytest.mark.parametrize("relative", [1e-12, 1e-7, 1e-4, 0.03, 0.7])
def test_bounds_of_every_magnitude_are_kept(kind, scale, relative):
    smooth = np.cumsum(np.cumsum(RNG.normal(0, 1, (40, 60)), 0), 1)
    values = ((smooth + 1000) * scale).astype(kind)
    assert_bound(values, float(np.ptp(values)) * relative)


def test_extreme_values_keep_the_bound():
    top = np.finfo("f8").max
    values = np.array([[top, -top, 0, 5e-324]] * 9)
    for max_error in (0, 1e-300, 1.0, 1e300):
        assert_bound(values, max_error)
    extremes = RNG.integers(-(2**31), 2**31, (30, 40)).astype("i4")
    for max_error in (0, 1, 1000.5, 2**31, 1e300):
        assert_bound(extremes, max_error)


def test_constant_chunks_are_tiny():
    for values in (np.full((512, 512), 7, "u2"), np.full((512, 512), 1 / 3, "f8"), np.full((3, 3), -0.0, "f4")):
        for max_error in (0, 0.1):
            info = arrays.info(assert_bound(values, max_error))
            assert info["mode"] == "constant" and info["shape"] == list(values.shape) and info["bytes"] < 50
    nearly = 5 + RNG.uniform(-0.1, 0.1, (64, 64))
    assert arrays.info(assert_bound(nearly, 0.1))["mode"] == "constant"
    assert len(assert_bound(nearly, 0.1)) < 60


def test_floats_with_integer_numerators_cost_as_much_as_integers():
    counts = scene("u1")
    size = len(arrays.encode(counts, 0))
    single = counts.astype("f4")
    for values in (counts / 255, single / np.float32(255), counts / 10, counts - 1000.0, single / 8):
        assert len(assert_bound(values, 0)) <= size + 8, values[0, 0]


def test_larger_bounds_are_used_for_smaller_chunks():
    values = scene("f4") + RNG.normal(0, 30, (70, 90)).astype("f4")
    data = arrays.encode(values, 5.0)
    largest_error = np.abs(arrays.decode(data) - values).max()
    assert 4.8 < largest_error <= 5.0
    assert len(data) < 0.85 * len(arrays.encode(values, 2.5))


def test_correlated_channels_shrink_the_chunk():
    grey = scene("u1")
    rgb = np.stack([grey, 255 - grey, grey // 2 + 9], -1)
    assert len(arrays.encode(rgb, 0)) < 0.7 * len(arrays.encode(np.moveaxis(rgb, 2, 0).reshape(210, 90), 0))
    assert arrays.info(arrays.encode(rgb))["channels"]
    assert not arrays.info(arrays.encode(rgb, channels=False))["channels"]
    assert_bound(rgb, 0, channels=False)
    assert_bound(np.repeat(rgb, 3, 2), 1, channels=True)
    slices = np.stack([scene("u2") + n for n in range(8)])
    assert len(assert_bound(slices, 0)) < 0.4 * 8 * len(arrays.encode(slices[0], 0))


def test_memory_order_and_byte_order_are_kept():
    for values in (np.asfortranarray(scene("f4")), scene(">i2"), np.asfortranarray(scene(">u2"))):
        decoded = arrays.decode(arrays.encode(values, 1))
        assert decoded.dtype == values.dtype and decoded.flags.f_contiguous == values.flags.f_contiguous
    strided = scene("u1")[::2, ::-3]
    assert_bound(strided, 0)


def test_no_chunk_is_larger_than_a_stored_chunk():
    noise = RNG.integers(0, 256, (64, 64)).astype("u1")
    tiles = np.tile(RNG.integers(0, 256, (8, 8)).astype("u1"), (20, 20))
    for values in (noise, tiles, scene("f8") * np.pi):
        assert len(arrays.encode(values)) <= len(arrays.encode(values, mode="stored"))
    assert len(arrays.encode(noise)) < noise.nbytes + 60


def test_the_smallest_mode_is_chosen(small):
    photo = synthetic_image(192, 192)[..., 0]
    for max_error in (10, 24):
        sizes = {mode: len(assert_bound(photo, max_error, mode=mode)) for mode in ("auto", "planes", "vae", "stored")}
        assert sizes["auto"] == min(sizes.values())
    assert arrays.info(arrays.encode(photo, 10, mode="vae"))["model"] == small.model.id


def test_the_bytes_and_the_values_do_not_depend_on_threads_or_kernels(tmp_path):
    """Other processes, whose libraries sum in another order, decode to the same bits."""
    values = scene("f4") / np.float32(7)
    np.save(tmp_path / "values.npy", values)
    script = (
        "import sys, numpy as np, hashlib; from vaecodec import arrays; v = np.load(sys.argv[1]);"
        "d = [arrays.encode(v, e, mode=m, model=sys.argv[2]) for e, m in ((0, 'planes'), (4, 'planes'), (9, 'vae'))];"
        "print(*(hashlib.sha256(arrays.decode(x, sys.argv[2]).tobytes()).hexdigest() for x in d));"
        "open(sys.argv[3], 'wb').write(b'|||'.join(d))"
    )
    hashes = set()
    environments = (
        {},
        {"OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3", "VAECODEC_THREADS": "1"},
    )
    for n, environment in enumerate(environments):
        args = [sys.executable, "-c", script, str(tmp_path / "values.npy"), TINY, str(tmp_path / f"{n}.bin")]
        process = subprocess.run(args, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
        # This process decodes the chunks of the other process.
        hashes.add(process.stdout.strip())
        arrays_decoded = [arrays.decode(part, TINY) for part in (tmp_path / f"{n}.bin").read_bytes().split(b"|||")]
        hashes.add(" ".join(hashlib.sha256(part.tobytes()).hexdigest() for part in arrays_decoded))
    assert len(hashes) == 1


def test_golden_chunks_decode_to_their_checksums():
    folder = GOLDEN / "arrays"
    listed = dict(line.split() for line in (folder / "crc32.txt").read_text().splitlines())
    assert {path.name for path in folder.glob("*.chunk")} == set(listed) and len(listed) >= 8
    for name, crc in listed.items():
        decoded = arrays.decode((folder / name).read_bytes(), TINY)
        assert f"{zlib.crc32(decoded.tobytes()):08x}" == crc, name


def test_invalid_arguments_are_refused():
    for values in (np.zeros((4, 4), complex), np.zeros((4, 4), "f2"), np.array(["a"]), "text"):
        with pytest.raises(CodecError):
            arrays.encode(values)
    for options in ({"max_error": -1}, {"max_error": np.nan}, {"max_error": np.inf}, {"mode": "best"}):
        with pytest.raises(ValueError):
            arrays.encode(scene(), **options)
    with pytest.raises(CodecError):
        arrays.encode(scene(), channels=True)
    with pytest.raises(ModelError):
        arrays.encode(scene(), 9, mode="vae", model="none such")


def test_limits_and_expectations_are_checked_before_anything_is_allocated():
    import tracemalloc

    data = arrays.encode(np.zeros((4000, 4000), "u1"))
    unexpected = ((4000, 4001), np.dtype("u1")), ((4000, 4000), np.dtype("u2"))
    for options in ({"limits": Limits(pixels=10**6)}, *({"expected": pair} for pair in unexpected)):
        tracemalloc.start()
        with pytest.raises((LimitError, FormatError)):
            arrays.decode(data, **options)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
    assert arrays.decode(data, limits=None, expected=((4000, 4000), np.dtype("u1"))).shape == (4000, 4000)


def test_a_missing_model_is_named():
    data = arrays.encode(scene(), 12, mode="vae", model=TINY)
    with pytest.raises(ModelError, match=arrays.info(data)["model"]):
        arrays.decode(data)
    assert np.abs(arrays.decode(data, TINY).astype(int) - scene()).max() <= 12


def test_scales_depend_on_the_values():
    assert prediction.choose_scale(np.array([1.0, 2.5, 7.25]), 0)[0].unit == 4
    assert prediction.choose_scale(np.array([np.pi, 1.0]), 0) is None
    scale, bound = prediction.choose_scale(np.array([np.pi, 1.0, 2.0]), 0.1)
    assert scale.kind == prediction.AFFINE and bound == 127
    assert chunks.TYPES.index(np.dtype("<f4")) == 6
