"""Run the tests with exactly the packages of tests/requirements-ci.lock, which names a hash of every file.

    python tests/long/locked.py                # a new environment, the locked packages, all tests
    python tests/long/locked.py tests/unit     # some of them
    python tests/long/locked.py --update       # write the lock anew: the newest release of every package; needs uv

The lock is for the nightly run: a package that was replaced on its way is refused, and a failure is no other's release.
The test command of README.md takes the newest releases, and needs no lock.
"""

from __future__ import annotations

import argparse
import pathlib
import subprocess
import sys
import tempfile

import tomllib

ROOT = pathlib.Path(__file__).parents[2]
LOCK = ROOT / "tests" / "requirements-ci.lock"
OLDEST = "3.11"  # the lock is for this version of Python and later ones, on every system
NOTE = "# The packages of vaecodec[train,test] and its build, by: python tests/long/locked.py --update\n"


def update() -> None:
    """Write the lock; raises CalledProcessError where there is no solution."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    with tempfile.TemporaryDirectory() as folder:
        requirements, output = pathlib.Path(folder, "build.in"), pathlib.Path(folder, "lock")
        requirements.write_text("\n".join(build))
        options = ("--generate-hashes", "--universal", "--python-version", OLDEST, "--no-header", "--no-annotate", "-q")
        extras = ("--extra", "train", "--extra", "test")
        line = ["uv", "pip", "compile", *options, *extras, "pyproject.toml", str(requirements), "-o", str(output)]
        subprocess.run(line, cwd=ROOT, check=True)
        LOCK.write_text(NOTE + output.read_text())


def check(tests: list[str]) -> None:
    """Install what the lock says and run tests; raises CalledProcessError where a step fails."""
    with tempfile.TemporaryDirectory() as folder:
        programs = pathlib.Path(folder, "Scripts" if sys.platform == "win32" else "bin")

        def run(*command: object) -> None:
            print("$", *command, flush=True)
            subprocess.run([str(part) for part in command], cwd=ROOT, check=True)

        run(sys.executable, "-m", "venv", folder)
        run(programs / "pip", "install", "-q", "--require-hashes", "-r", LOCK)
        run(programs / "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", ".")
        run(programs / "pip", "check")
        run(programs / "python", "-m", "pytest", *tests)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tests", nargs="*", help="folders or files; without, all tests")
    parser.add_argument("--update", action="store_true", help="write the lock anew")
    options = parser.parse_args()
    try:
        update() if options.update else check(options.tests)
    except subprocess.CalledProcessError as exc:
        sys.exit(f"failed with status {exc.returncode}")


if __name__ == "__main__":
    main()
