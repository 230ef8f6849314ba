"""The floors of the house: a file imports only from those above it, and heavy libraries stay where they belong."""

import ast
import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / "vaecodec"

FLOORS = """
errors config limits notices avif progress container targets network generative npy atomic library zstd stored names
manifest sources interpreters memory descriptors
pool sets sheets integer tables coding cells sharing bases lifting banded pyramid engines strays octaves widening
context rounding
vetting grids discrete generator bitsback drawing tiles tiling weights wiener filtering
picture_sets
gradients prior_gradients context_gradients refinement networks
graphs transforms preview fixed parallel plans encoder codec
adaptive lattice weighing fitting scaling chunks chains masks modes_of_arrays arrays numcodecs zarr
photo_drawing scoring
metadata deep planes png images bands classical content modes fronts pillow recognition strips outputs files
metrics similarity
layers grid_layers wavelet_layers quantization densities vae generative_vae float_transforms datasets
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
    "float_transforms",
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
}
ALLOWED = {
    "constriction": {"coding"},
    "tensorflow_probability": {"densities"},
    "tensorflow": TENSORFLOW,
    "ai_edge_litert": {"interpreters", "networks"},
    "safetensors": {"weights", "training"},
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


def imports(path: pathlib.Path) -> list[tuple[str, bool]]:
    """(module, whether at the top level of the file) of each import, relative to the package."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"vaecodec.{a.name}" for a in node.names] if node.module == "vaecodec" else [node.module or ""]
        found += [(name, id(node) in top) for name in names]
    return found


def modules() -> list[pathlib.Path]:
    return sorted(p for p in PACKAGE.glob("*.py") if p.stem not in ("__init__", "__main__"))


def test_every_file_has_its_floor():
    assert sorted(p.stem for p in modules()) == sorted(FLOORS)


@pytest.mark.parametrize("path", modules(), ids=lambda p: p.stem)
def test_imports_point_up(path):
    for name, top in imports(path):
        if name.startswith("vaecodec.") and top:
            assert FLOORS.index(name.split(".")[1]) < FLOORS.index(path.stem), name
        for library, places in ALLOWED.items():
            if name.split(".")[0] == library:
                assert path.stem in places, f"{path.stem} imports {library}"


def loaded_after(code: str) -> set[str]:
    run = [sys.executable, "-c", code + "\nimport sys; print(*{m.split('.')[0] for m in sys.modules})"]
    return set(subprocess.run(run, capture_output=True, text=True, check=True).stdout.split())


def test_reading_a_header_loads_nothing_heavy():
    golden = pathlib.Path(__file__).parent / "golden" / "photo.vae"
    loaded = loaded_after(f"import vaecodec; vaecodec.info(open({str(golden)!r}, 'rb').read())")
    assert "vaecodec" in loaded
    assert not loaded & {"numpy", "PIL", "ai_edge_litert", "tensorflow", "constriction", "safetensors", "backports"}


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
    assert not loaded & {"tensorflow", "tensorflow_probability", "tf_keras", "jax", "ai_edge_litert"}
