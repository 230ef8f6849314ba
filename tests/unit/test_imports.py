"""Test that packages import only from lower packages, and heavy libraries only in the allowed modules."""

import ast
import graphlib
import pathlib
import re
import subprocess
import sys

import pytest

from support.paths import GOLDEN, ROOT, TESTS

PACKAGE = ROOT / "vaecodec"

# Lowest first.  The facade, vaecodec/__init__.py, imports all of them, and none imports the facade.
ORDER = """
errors arguments config progress atomic threads
container native entropy transforms prior model rdo images lossless codec arrays generative files
training integrations bench cli
""".split()

ALLOWED = {
    "constriction": ("entropy.coding",),
    "ctypes": ("native.library",),
    "threadpoolctl": ("threads",),
    "safetensors": ("model.file", "training"),
    "tensorflow_probability": ("training.densities",),
    "tensorflow": ("training", "transforms.tensorflow", "integrations.tfdata"),
    "imagecodecs": ("bench.codecs",),
    "av": ("bench.codecs",),
    "pyjpegli": ("bench.codecs",),
    "ssimulacra2": ("images.metrics", "training.operations"),
    "scipy": ("images.metrics", "bench.curves"),
    "bjontegaard": ("bench.curves",),
    "matplotlib": ("bench.report",),
    "tqdm": ("cli.benchmark",),
    "shtab": ("cli.inspection",),
    "backports": ("container",),
    "fsspec": ("arguments",),
    "numcodecs": ("integrations.numcodecs",),
    "zarr": ("integrations.zarr",),
    "pyarrow": ("integrations.ray_tasks",),
    "ray": ("integrations.ray",),
    "torch": ("integrations.torch", "bench.peer", "bench.measure"),
    "piq": ("bench.measure",),
    "imageio_ffmpeg": ("bench.codecs",),
}


def name_of(path: pathlib.Path) -> str:
    """The name of a module or package below vaecodec: "codec.encoder", or "codec" for codec/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
BELOW_FACADE = sorted(set(MODULES) - {"", "__main__"})


def imports(path: pathlib.Path) -> list[tuple[str, bool]]:
    """Return name and whether it is at the top level for each import; a name may end in an object of a module."""
    tree = ast.parse(path.read_text())
    top = set(map(id, tree.body))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            names += [(f"{node.module}.{alias.name}", id(node) in top) for alias in node.names]
    return names


def module_of(name: str) -> str:
    """The module that "vaecodec.codec.encoder.Encoder" is imported from: "codec.encoder"."""
    inside = name.removeprefix("vaecodec").removeprefix(".")
    return inside if inside in MODULES else inside.rpartition(".")[0]


def test_the_order_contains_every_package():
    assert {name.split(".")[0] for name in BELOW_FACADE} == set(ORDER)


@pytest.mark.parametrize("module", BELOW_FACADE)
def test_packages_import_only_lower_packages(module):
    for name, _ in imports(MODULES[module]):
        if name.split(".")[0] == "vaecodec":
            imported = module_of(name).split(".")[0]
            assert imported, f"{module} imports the facade"
            assert ORDER.index(imported) <= ORDER.index(module.split(".")[0]), name
        for library, modules in ALLOWED.items():
            if name.split(".")[0] == library:
                assert any(f"{module}.".startswith(f"{allowed}.") for allowed in modules), f"{module} imports {library}"


def test_imports_have_no_cycles():
    graph = {
        module: {module_of(name) for name, top in imports(path) if top and name.split(".")[0] == "vaecodec"} - {module}
        for module, path in MODULES.items()
    }
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


TEST_FILES = sorted(path for path in TESTS.rglob("*.py") if path.parent.name not in ("support", "reference"))


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_test_imports_another(path):
    modules = {path.stem for path in TEST_FILES}
    for name, _ in imports(path):
        first = name.split(".")[0]
        assert first not in {"tests", "unit", "integration", "system", "long", "conftest"}, name
        assert not first.startswith("test_") and first not in modules, name


def test_wheels_contain_every_package():
    listed = re.search(r"^packages = \[(.*?)\]", (ROOT / "pyproject.toml").read_text(), re.S | re.M).group(1)
    folders = {path.parent.relative_to(ROOT) for path in PACKAGE.rglob("__init__.py")}
    assert set(re.findall(r'"([\w.]+)"', listed)) == {".".join(folder.parts) for folder in folders}


def test_no_file_is_long():
    long = {name: lines for name, path in MODULES.items() if (lines := len(path.read_text().splitlines())) > 400}
    assert not long


VAGUE = frozenset("one found each made seen wanted sure some".split())
SOURCES = sorted(
    path
    for folder in ("vaecodec", "benchmarks", "build_backend", "docs", "tests")
    for path in (ROOT / folder).rglob("*.py")
)


def names_in(path: pathlib.Path) -> set[str]:
    """The names that a file gives to variables, arguments, attributes, functions and classes."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    return {name.strip("_") for name in names}


def test_names_say_what_they_hold():
    assert len(SOURCES) > 250
    assert {str(path.relative_to(ROOT)): vague for path in SOURCES if (vague := names_in(path) & VAGUE)} == {}


def loaded_after(code: str) -> set[str]:
    command = [sys.executable, "-c", code + "\nimport sys; print(*{m.split('.')[0] for m in sys.modules})"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


def test_reading_a_header_loads_no_heavy_library():
    golden = GOLDEN / "photo.vae"
    loaded = loaded_after(f"import vaecodec; vaecodec.info(open({str(golden)!r}, 'rb').read())")
    assert "vaecodec" in loaded
    assert not loaded & {"numpy", "PIL", "tensorflow", "constriction", "safetensors", "backports"}


def test_coding_loads_no_tensorflow():
    golden = GOLDEN
    model, file = str(golden / "tiny.vcm"), str(golden / "odd.vae")
    loaded = loaded_after(f"import vaecodec; vaecodec.load({model!r}).decode(open({file!r}, 'rb').read())")
    assert "constriction" in loaded
    assert not loaded & {"tensorflow", "tensorflow_probability", "tf_keras", "jax"}


def test_sampling_and_scoring_load_no_tensorflow():
    code = "x = vaecodec.sample(1); vaecodec.score(x[0]); vaecodec.decode_set(vaecodec.encode_set(x))"
    loaded = loaded_after(f"import vaecodec; {code}")
    assert "constriction" in loaded
    assert not loaded & {"tensorflow", "tensorflow_probability", "tf_keras", "jax"}
