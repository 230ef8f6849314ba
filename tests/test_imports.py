"""The floors of the house: a file imports only from those above it, and heavy libraries stay where they belong."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "vaecodec"

FLOORS = """
errors config limits notices avif progress container network generative npy atomic library zstd stored names targets
manifest sources descriptors pool sets sheets integer bases lifting banded cells threads blas tiling
native native.arrays native.build native.library native.reference
native.reference.networks native.reference.restoration native.reference.symbols native.reference.wavelet
native.reference.prior native.reference.transforms
native.networks native.restoration native.symbols native.wavelet native.prior native.transforms native.lowest
pyramid tables entropy entropy.ans coding
model model.checks model.gains model.quantization model.transforms model.floats
grids discrete generator bitsback drawing picture_sets
transforms transforms.coefficients transforms.dequantization transforms.wavelet transforms.networks
transforms.restoration transforms.synthesis transforms.analysis transforms.core transforms.tensorflow
prior prior.model prior.coefficients
strays widening entropy.tile
model.file
plans wiener filtering rounding gradients prior_gradients context_gradients refinement preview
codec.schedule codec.decoder codec.encoder codec
adaptive lattice weighing fitting scaling chunks chains masks modes_of_arrays arrays numcodecs zarr
photo_drawing scoring
metadata deep planes png images bands classical content modes fronts pillow recognition strips outputs files
metrics similarity
layers grid_layers wavelet_layers quantization densities vae generative_vae datasets
tfdata optimization
training mirrored generative_training recipes exporting wavelet_freezing freezing generative_freezing unfreezing
generation
console peers hevc tools curves evaluate gallery summary plots report
folders runs streams conversions operators ray generation_commands model_commands
manual completion commands lab bench arguments grammar cli
""".split()

TENSORFLOW = {
    "layers",
    "quantization",
    "similarity",
    "densities",
    "vae",
    "datasets",
    "tfdata",
    "optimization",
    "training",
    "mirrored",
    "exporting",
    "freezing",
    "grid_layers",
    "generative_vae",
    "wavelet_layers",
    "wavelet_freezing",
    "generative_training",
    "generative_freezing",
    "unfreezing",
    "transforms.tensorflow",
}
ALLOWED = {
    "constriction": {"coding"},
    "tensorflow_probability": {"densities"},
    "tensorflow": TENSORFLOW,
    "ctypes": {"native.library"},
    "threadpoolctl": {"blas"},
    "safetensors": {"model.file", "training"},
    "imagecodecs": {"peers"},
    "av": {"hevc"},
    "ssimulacra2": {"metrics"},
    "scipy": {"metrics", "curves"},
    "bjontegaard": {"curves"},
    "matplotlib": {"plots"},
    "tqdm": {"bench"},
    "backports": {"zstd"},
    "numcodecs": {"numcodecs"},
    "zarr": {"zarr"},
    "pyarrow": {"operators"},
    "ray": {"ray"},
}


def name_of(path: pathlib.Path) -> str:
    """Of a module or package, relative to the package: "codec.encoder", or "codec" of codec/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: pathlib.Path) -> list[tuple[str, bool]]:
    """(module, whether at the top level of the file) of each import; those of this package may end in a name."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        found += [(name, id(node) in top) for name in names]
    return found


def floor_of(name: str) -> str:
    """The module that "vaecodec.codec.encoder.Encoder" is imported from."""
    inside = name.removeprefix("vaecodec.")
    return inside if inside in FLOORS else inside.rpartition(".")[0]


def modules() -> list[pathlib.Path]:
    return sorted(p for p in PACKAGE.rglob("*.py") if name_of(p) not in ("", "__main__"))


def test_every_file_has_its_floor():
    assert sorted(map(name_of, modules())) == sorted(FLOORS)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_imports_point_up(path):
    here = name_of(path)
    for name, top in imports(path):
        if name.startswith("vaecodec.") and top and floor_of(name):
            assert FLOORS.index(floor_of(name)) < FLOORS.index(here), name
        for library, places in ALLOWED.items():
            if name.split(".")[0] == library:
                assert here in places, f"{here} imports {library}"


def loaded_after(code: str) -> set[str]:
    run = [sys.executable, "-c", code + "\nimport sys; print(*{m.split('.')[0] for m in sys.modules})"]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())


def test_reading_a_header_loads_nothing_heavy():
    golden = pathlib.Path(__file__).parent / "golden" / "photo.vae"
    loaded = loaded_after(f"import vaecodec; vaecodec.info(open({str(golden)!r}, 'rb').read())")
    assert "vaecodec" in loaded
    assert not loaded & {"numpy", "PIL", "tensorflow", "constriction", "safetensors", "backports"}


def test_coding_loads_no_tensorflow():
    golden = pathlib.Path(__file__).parent / "golden"
    model, file = str(golden / "tiny.vcm"), str(golden / "odd.vae")
    loaded = loaded_after(f"import vaecodec; vaecodec.load({model!r}).decode(open({file!r}, 'rb').read())")
    assert "constriction" in loaded
    assert not loaded & {"tensorflow", "tensorflow_probability", "tf_keras", "jax"}


def test_drawing_and_scoring_load_no_tensorflow():
    code = "x = vaecodec.sample(1); vaecodec.score(x[0]); vaecodec.decode_set(vaecodec.encode_set(x))"
    loaded = loaded_after(f"import vaecodec; {code}")
    assert "constriction" in loaded
    assert not loaded & {"tensorflow", "tensorflow_probability", "tf_keras", "jax"}
