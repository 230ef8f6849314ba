"""Break the C core in one place at a time, and count the mutants that its tests notice.

    python tests/long/mutants_core.py [NUMBER ...]

A mutant is killed where the tests of tests/unit/native and tests/unit/lossless fail.  Survivors are listed.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
TESTS = ("tests/unit/native", "tests/unit/lossless")
BUILD = """
from pathlib import Path

from vaecodec.native import build

build.build(Path("vaecodec/native", build.library_name()), flags=("-O1",))
"""
# File, what it says, what the mutant says, and what that breaks.
MUTANTS = (
    ("trellis.h", "{5, 4}, {6, 7}", "{4, 5}, {6, 7}", "the trellis has another state after a symbol"),
    ("trellis.h", "if (!--left) state = 0, left = VC_STRIP;", "if (!--left) left = VC_STRIP;", "strips go on"),
    (
        "trellis.h",
        "for (count %= 6; count; count--)",
        "for (count %= 8; count; count--)",
        "zeros circle in eight states",
    ),
    ("trellis.h", "if (size >= VC_OUTLIER)", "if (size > VC_OUTLIER)", "an outlier at the bound is missed"),
    ("trellis.h", "from_high ? vc_from_high", "from_high ? vc_from_low", "the path back takes another candidate"),
    (
        "symbols.h",
        "position >= (uint32_t)escape",
        "position > (uint32_t)escape",
        "the last place of a table is the escape",
    ),
    ("symbols.h", "found += positions[k] == escape;", "found += positions[k] >= escape - 1;", "a symbol is an escape"),
    ("symbols.h", ">= size) {", "> size) {", "the coder keeps a word too long"),
    (
        "symbols.h",
        "if (entry < 0 || entry >= length) return 1;",
        "if (entry < 0) return 1;",
        "a position is not checked",
    ),
    ("symbols.h", "if (state >> 32 == 0 && stack->count > 0)", "if (state >> 32 == 0)", "an empty stack is read"),
    ("wavelet.h", "VC_STEP_3 = 3472", "VC_STEP_3 = 3471", "a lifting step differs in its last bit"),
    ("wavelet.h", "1 << (bits - 1)) >> bits", "0) >> bits", "lifting truncates"),
    ("prior.h", "return index < 0 ? 1 :", "return index < 0 ? 0 :", "edges are repeated, not mirrored"),
    ("prior.h", "vc_add(around, 4) >> 3", "around >> 3", "a mean of neighbours truncates"),
    (
        "restoration.h",
        "in[3 * x + 2] + 65536) >> 17, -COLOR_MAX",
        "in[3 * x + 2] + 65536) >> 17, -COLOR_MAX - 1",
        "a colour exceeds its bound",
    ),
    ("restoration.h", "2 * count - 2 - place", "2 * count - 1 - place", "the other edge is repeated"),
    (
        "lossless.h",
        "next = b->coder.position < b->size",
        "next = b->coder.position <= b->size",
        "a byte beyond the end is read",
    ),
    ("lossless.h", "(count < LL_COUNT_MAX)", "(count <= LL_COUNT_MAX)", "a counter exceeds its bound"),
    (
        "lossless.h",
        "vc_clip(prediction + residual * step, 0, maximum)",
        "prediction + residual * step",
        "samples leave",
    ),
)


def killed(mutant: tuple[str, str, str, str]) -> bool:
    """Whether the tests fail; raises ValueError where the source does not say what the mutant changes."""
    name, before, after, _ = mutant
    with tempfile.TemporaryDirectory() as folder:
        clone = pathlib.Path(folder, "clone")
        ignored = shutil.ignore_patterns(
            ".git", ".venv", "core.so", "core.d*", "__pycache__", ".*_cache", ".hypothesis"
        )
        shutil.copytree(ROOT, clone, ignore=ignored)
        source = clone / "vaecodec" / "native" / "src" / name
        text = source.read_text()
        if text.count(before) != 1:
            raise ValueError(f"{name} says {before!r} {text.count(before)} times")
        source.write_text(text.replace(before, after))
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(clone)}
        subprocess.run([sys.executable, "-c", BUILD], cwd=clone, env=environment, check=True)
        line = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *TESTS]
        return subprocess.run(line, cwd=clone, env=environment, capture_output=True).returncode == 1


def main(numbers: list[str]) -> None:
    chosen = [MUTANTS[int(number)] for number in numbers] or list(MUTANTS)
    survivors = []
    for mutant in chosen:
        dead = killed(mutant)
        print("killed  " if dead else "SURVIVED", mutant[0], mutant[-1], flush=True)
        if not dead:
            survivors.append(mutant)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main(sys.argv[1:])
