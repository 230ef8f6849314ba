"""Run unit and integration tests under other versions of Python, with the package installed from a clone.

    python tests/long/versions.py python3.14                  # the newest release of each dependency
    python tests/long/versions.py python3.10 --lowest         # exactly the lower bound of each

Encoders must write the bytes of the golden files.  TensorFlow is not installed: its tests are skipped.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

import tomllib

ROOT = pathlib.Path(__file__).parents[2]
TEST_PACKAGES = ("pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6")
# With -I, Python finds the installed package and not that of the clone.
GOLDEN = """
import sys

sys.path[:0] = ["tests", "tests/golden"]
import make
from vaecodec.codec import Codec
from vaecodec.model.file import load_model
from vaecodec.native import library

print(sys.version, library.__file__, *library.kinds())
make.make_images(Codec(load_model(str(make.MODEL)), threads=1))
make.make_arrays()
make.make_stored()
make.make_set()
"""


def lower_bounds() -> list[str]:
    """Each dependency of the package, at exactly its lower bound."""
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [re.sub(r">=([\d.]+)[^;]*", r"==\1 ", dependency) for dependency in dependencies]


def check(python: str, lowest: bool, tests: list[str]) -> None:
    """Install and test; raises CalledProcessError where a step fails."""
    with tempfile.TemporaryDirectory() as folder:
        clone, environment = pathlib.Path(folder, "clone"), pathlib.Path(folder, "environment")
        programs = environment / ("Scripts" if sys.platform == "win32" else "bin")

        def run(*command: object) -> None:
            print("$", *(str(part).partition("\n")[0] for part in command), flush=True)
            subprocess.run([str(part) for part in command], cwd=clone, check=True)

        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        run(python, "-m", "venv", environment)
        run(programs / "pip", "install", "-q", ".", *(lower_bounds() if lowest else ()), *TEST_PACKAGES)
        run(programs / "pip", "list")
        run(programs / "python", "-I", "-c", GOLDEN)
        # That one is refined: better encoders write another file.
        run("git", "diff", "--exit-code", "--stat", "--", "tests/golden", ":!tests/golden/filtered.*")
        run(programs / "pytest", "-q", "-rs", *(tests or ("tests/unit", "tests/integration")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("python", help="the interpreter to test with")
    parser.add_argument("--lowest", action="store_true", help="install the lower bound of each dependency")
    parser.add_argument("tests", nargs="*", help="folders or files; without, all unit and integration tests")
    options = parser.parse_intermixed_args()  # tests may follow --lowest
    try:
        check(options.python, options.lowest, options.tests)
    except subprocess.CalledProcessError as exc:
        sys.exit(f"failed with status {exc.returncode}")


if __name__ == "__main__":
    main()
