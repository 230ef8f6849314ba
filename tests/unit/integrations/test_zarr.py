"""Test zarr stores of both formats: other processes find the codec by its entry point and read them."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from support.images import synthetic_image
from support.paths import ROOT

numcodecs = pytest.importorskip("numcodecs")
zarr = pytest.importorskip("zarr", minversion="3")

from vaecodec import arrays
from vaecodec.errors import CodecError, FormatError
from vaecodec.integrations.numcodecs import VaeCodec as NumcodecsCodec
from vaecodec.integrations.zarr import VaeCodec


def values(kind: str = "f4") -> np.ndarray:
    """[2, 120, 150]: two slices; floats have NaN in a corner."""
    slices = synthetic_image(120, 150)[..., :2].transpose(2, 0, 1).astype(kind)
    if slices.dtype.kind == "f":
        slices[:, :11, :30] = np.nan
        slices /= slices.dtype.type(7)
    return slices


@pytest.fixture
def environment_with_entry_points(tmp_path) -> dict[str, str]:
    """An environment with the entry points of pyproject.toml, as pip installs them."""
    tomllib = pytest.importorskip("tomllib")
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    folder = tmp_path / "site" / "vaecodec-0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vaecodec\nVersion: 0\n")
    text = "".join(
        f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in entries.items()) for group, entries in points.items()
    )
    (folder / "entry_points.txt").write_text(text)
    return dict(os.environ, PYTHONPATH=os.pathsep.join([str(folder.parent), str(ROOT)]))


READ = """
import sys, numpy as np, zarr
part = zarr.open_array(sys.argv[1], mode="r")[1, 30:100, 20:77]
assert "vaecodec" in sys.modules
np.save(sys.argv[2], part)
"""


def read_in_process(store: pathlib.Path, environment: dict[str, str]) -> np.ndarray:
    """Read part of an array in a process that has not imported vaecodec."""
    out = store.parent / "part.npy"
    subprocess.run([sys.executable, "-c", READ, str(store), str(out)], env=environment, check=True, timeout=300)
    return np.load(out)


@pytest.mark.parametrize("kind, max_error", [("f4", 0.5), ("u1", 0), ("u2", 2)])
def test_other_processes_read_stores_of_format_3(tmp_path, environment_with_entry_points, kind, max_error):
    exact, store = values(kind), tmp_path / "a.zarr"
    options = {"shape": exact.shape, "chunks": (1, 64, 64), "dtype": kind, "compressors": None}
    zarr.create_array(store, serializer=VaeCodec(max_error=max_error), **options)[:] = exact
    part, expected = read_in_process(store, environment_with_entry_points), exact[1, 30:100, 20:77]
    assert np.array_equal(np.isnan(part), np.isnan(expected))
    error = np.nanmax(np.abs(part.astype("f8") - expected.astype("f8")))
    assert error <= max_error and (error > 0) == (max_error > 0)
    files = [path for path in (store / "c").rglob("*") if path.is_file()]
    assert len(files) == 2 * 2 * 3 and sum(path.stat().st_size for path in files) < 0.7 * exact.nbytes
    assert all(path.read_bytes().startswith(b"\x89VAA") for path in files)


@pytest.mark.parametrize("kind", ["<f4", ">i2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_other_processes_read_stores_of_format_2(tmp_path, environment_with_entry_points, kind, order):
    exact, store = np.nan_to_num(values("f4")).astype(kind), tmp_path / "a.zarr"
    options = {"shape": exact.shape, "chunks": (2, 64, 64), "dtype": kind, "order": order, "zarr_format": 2}
    zarr.create_array(store, compressors=NumcodecsCodec(max_error=1), **options)[:] = exact
    part = read_in_process(store, environment_with_entry_points)
    assert 0 < np.abs(part.astype("f8") - exact[1, 30:100, 20:77].astype("f8")).max() <= 1


def test_sharded_stores_are_read(tmp_path):
    exact = values("u1")
    options = {"shape": exact.shape, "shards": (2, 128, 128), "chunks": (1, 64, 64), "dtype": "u1", "compressors": None}
    zarr.create_array(tmp_path / "a.zarr", serializer=VaeCodec(), **options)[:] = exact
    store = zarr.open_array(tmp_path / "a.zarr", mode="r")
    assert np.array_equal(store[:, 60:70], exact[:, 60:70])


def test_configurations_round_trip():
    codec = VaeCodec(max_error=0.25, channels=True, mode="planes")
    assert VaeCodec.from_dict(json.loads(json.dumps(codec.to_dict()))) == codec
    assert VaeCodec.from_dict({"name": "vaecodec"}) == VaeCodec()
    numcodecs_codec = NumcodecsCodec(max_error=3, channels=False, mode="stored", model="my.vcm")
    parsed = numcodecs.get_codec(json.loads(json.dumps(numcodecs_codec.get_config())))
    assert parsed == numcodecs_codec and parsed.get_config() == numcodecs_codec.get_config()
    for options in ({"max_error": -1}, {"mode": "best"}):
        for kind in (VaeCodec, NumcodecsCodec):
            with pytest.raises(ValueError):
                kind(**options)
    with pytest.raises((TypeError, ValueError)):
        VaeCodec.from_dict({"name": "vaecodec", "configuration": {"quality": 5}})


def test_numcodecs_finds_the_codec_by_its_entry_point(environment_with_entry_points):
    script = "import numcodecs; print(type(numcodecs.get_codec({'id': 'vaecodec', 'max_error': 2})).__module__)"
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment_with_entry_points, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "vaecodec.integrations.numcodecs"


def test_numcodecs_decodes_into_arrays_and_accepts_buffers():
    codec, exact = NumcodecsCodec(), values("u1")
    data, out = codec.encode(exact), np.zeros_like(exact)
    codec.decode(bytearray(data), out=out)
    assert np.array_equal(out, exact)
    assert codec.decode(codec.encode(b"any bytes")).tobytes() == b"any bytes"


def test_damaged_chunks_raise_an_error(tmp_path):
    options = {"shape": (64, 64), "chunks": (64, 64), "dtype": "u1", "compressors": None}
    zarr.create_array(tmp_path / "a.zarr", serializer=VaeCodec(), **options)[:] = values("u1")[0, :64, :64]
    path = tmp_path / "a.zarr" / "c" / "0" / "0"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError):
        zarr.open_array(tmp_path / "a.zarr", mode="r")[:]
    path.write_bytes(arrays.encode(np.zeros((1 << 15, 1 << 14), "u1")))  # a shape that differs from the array's
    with pytest.raises(FormatError):
        zarr.open_array(tmp_path / "a.zarr", mode="r")[:]


@pytest.mark.parametrize("kind", ["i8", "u8", "bool"])
def test_64_bit_integers_and_booleans_are_kept(tmp_path, kind):
    exact = (values("u1") > 100) if kind == "bool" else values("u1").astype(kind) + (1 << 62)
    options = {"shape": exact.shape, "chunks": (1, 64, 64), "dtype": kind, "compressors": None}
    zarr.create_array(tmp_path / "a.zarr", serializer=VaeCodec(), **options)[:] = exact
    store = zarr.open_array(tmp_path / "a.zarr", mode="r")
    assert store.dtype == exact.dtype and np.array_equal(store[:], exact)


def test_errors_of_other_arguments_name_the_serializer():
    options = {"shape": (9, 9), "chunks": (9, 9), "dtype": "u1"}
    for codec in (VaeCodec(), [VaeCodec()]):
        with pytest.raises(TypeError, match="serializer=VaeCodec"):
            zarr.create_array({}, compressors=codec, **options)
    with pytest.raises(ValueError, match=r"vaecodec\.integrations\.numcodecs"):
        zarr.create_array({}, compressors=VaeCodec(), zarr_format=2, **options)


def test_unsupported_types_are_refused_at_creation(tmp_path):
    for kind in ("f2", "c8"):
        with pytest.raises(CodecError):
            options = {"shape": (9, 9), "chunks": (9, 9), "dtype": kind, "compressors": None}
            zarr.create_array(tmp_path / kind, serializer=VaeCodec(), **options)
