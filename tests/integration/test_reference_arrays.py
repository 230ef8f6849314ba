"""Test that the reference decoder of docs/reference/array-chunks.md decodes chunks to the same bits."""

import zlib

import numpy as np
import pytest

from reference import reference_arrays
from support.images import synthetic_image
from support.paths import GOLDEN, MODELS
from vaecodec import arrays
from vaecodec.errors import CodecError

TINY = str(GOLDEN / "tiny.vcm")
SMALL = str(MODELS / "small.vcm")


@pytest.fixture(scope="module")
def tiny_model():
    return reference_arrays.read_model(TINY)


def random_walk(*shape, seed=0):
    """Integers that form a random walk along the last axis."""
    return np.cumsum(np.random.default_rng(seed).integers(-9, 10, shape), -1)


def assert_agrees(values, max_error, reference, **options):
    """Encode values, check that both decoders return the same bits, and return the chunk."""
    options = {"model": TINY} | options
    data = arrays.encode(values, max_error, **options)
    expected, decoded = arrays.decode(data, options["model"]), reference_arrays.decode(data, reference)
    assert decoded.shape == expected.shape
    assert decoded.tobytes() == expected.astype(expected.dtype.newbyteorder("<")).tobytes()
    return data


def test_golden_chunks_decode_to_the_stored_values(tiny_model):
    folder = GOLDEN / "arrays"
    for line in (folder / "crc32.txt").read_text().splitlines():
        name, crc = line.split()
        decoded = reference_arrays.decode((folder / name).read_bytes(), tiny_model)
        assert f"{zlib.crc32(decoded.tobytes()):08x}" == crc, name


@pytest.mark.parametrize("mode", ["planes", "vae", "grid", "stored"])
@pytest.mark.parametrize("kind", ["u1", "u4", "u8", "i2", "i4", ">i8", "f4", "f8", ">f4"])
@pytest.mark.parametrize("max_error", [0, 3])
def test_decoders_agree_on_every_mode_and_type(tiny_model, mode, kind, max_error):
    values = (random_walk(30, 44) % 120).astype(kind)
    data = assert_agrees(values, max_error, tiny_model, mode=mode)
    assert arrays.info(data)["mode"] == mode


@pytest.mark.parametrize("mode", ["planes", "vae", "grid"])
@pytest.mark.parametrize(
    "shape",
    [(), (1,), (2,), (50,), (1, 1), (1, 40), (40, 1), (2, 3), (3, 5, 7), (4, 40, 40), (2, 3, 9, 8), (6, 7, 3)]
    + [(2, 9, 10, 4), (33, 17, 2), (2, 1, 1, 1, 5, 5), (1500, 3, 3), (20, 20, 3), (2, 24, 24, 3), (20, 6, 6)],
)
def test_decoders_agree_on_every_shape(tiny_model, mode, shape):
    values = np.add.outer(
        random_walk(int(np.prod(shape[:-1]))), random_walk(*shape[-1:], seed=1) if shape else 5
    ).reshape(shape)
    for channels in {None, len(shape) > 2}:
        assert_agrees(values.astype("i4"), 1, tiny_model, mode=mode, channels=channels)


def test_decoders_agree_on_non_finite_values_and_patches(tiny_model):
    values = (random_walk(60, 50, 3) / 7).astype("f4")
    values[3:20, 10:30] = np.nan
    values[50, 6], values[51, 6] = np.inf, -np.inf
    values[5, 40] = 1e30  # beyond the range of the grid
    for mode in ("planes", "grid", "stored"):
        for max_error in (0, 0.1):
            assert_agrees(values, max_error, tiny_model, mode=mode, channels=True)
    assert_agrees(np.full((40, 40), np.nan, "f4"), 0, tiny_model)
    assert_agrees(np.float32([[1e30, 1, np.nan] * 30] * 40), 0.5, tiny_model, mode="planes")


def test_decoders_agree_on_large_residuals(tiny_model):
    noise = np.random.default_rng(1).integers(0, 2**32, (60, 70), dtype=np.uint32)
    assert_agrees(noise, 0, tiny_model, mode="planes")


@pytest.mark.parametrize("shape", [(1, 150_000), (400, 700), (5000, 3, 4), (64, 30, 31)])
def test_decoders_agree_on_strips_blocks_and_chains(tiny_model, shape):
    assert_agrees((random_walk(*shape) % 251).astype("u1"), 0, tiny_model, mode="planes")


def test_decoders_agree_on_bases_of_the_shipped_model():
    reference = reference_arrays.read_model(SMALL)
    assert_agrees(synthetic_image(100, 130), 20, reference, mode="vae", model="small")
    assert_agrees(random_walk(3, 70, 80).astype("f4"), 30, reference, mode="vae", model="small")


def test_both_decoders_refuse_damage(tiny_model):
    for name in ("vae_9", "grid", "holes", "constant"):
        chunk = (GOLDEN / "arrays" / f"{name}.chunk").read_bytes()
        for position in range(0, len(chunk) - 4, 1 + len(chunk) // 60):
            mutant = bytearray(chunk[:-4])
            mutant[position] ^= 1 << position % 8
            mutant = bytes(mutant) + zlib.crc32(mutant).to_bytes(4, "little")
            try:
                expected = arrays.decode(mutant, TINY)
            except CodecError:
                with pytest.raises(Exception):  # noqa: B017 - a reference decoder may raise any error
                    reference_arrays.decode(mutant, tiny_model)
            else:
                assert reference_arrays.decode(mutant, tiny_model).tobytes() == expected.tobytes()
