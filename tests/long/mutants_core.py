"""Break the C core in one place at a time, and count the mutants that its tests notice.

    python tests/long/mutants_core.py [NUMBER ...]

A mutant is killed where one of the TESTS of its file fails, or runs for longer than MINUTES.  Survivors are listed.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from support.plain_core import compile_plain

TESTS = {  # of each file
    "trellis.h": ("tests/unit/native/test_native_symbols.py",),
    "symbols.h": ("tests/unit/entropy/test_entropy_ans.py", "tests/unit/native/test_native_symbols.py"),
    "wavelet.h": ("tests/unit/native/test_native_wavelet.py",),
    "prior.h": ("tests/unit/native/test_native_prior.py",),
    "restoration.h": ("tests/unit/native/test_native_restoration.py",),
    "lossless.h": ("tests/unit/native/test_native_lossless.py",),
    "lossless_bits.h": ("tests/unit/native/test_native_lossless.py",),
}
MINUTES = 20
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
    ("symbols.h", "shifted = shifted < 1 ? 1 : shifted;", "", "a shifted index is below 1"),
    ("symbols.h", "(i - row >= period) row", "(i - row > period) row", "a period is one place longer"),
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
        "lossless_bits.h",
        "next = b->coder.position < b->size",
        "next = b->coder.position <= b->size",
        "a byte beyond the end is read",
    ),
    ("lossless_bits.h", "map += rest >= 64;", "map += rest > 64;", "another point of a map learns"),
    ("lossless_bits.h", "b->halves + 2 * bucket + negative", "b->halves + 2 * bucket", "halves of both signs are one"),
    ("lossless_bits.h", "(count < LL_COUNT_MAX)", "(count <= LL_COUNT_MAX)", "a counter exceeds its bound"),
    (
        "lossless.h",
        "vc_clip(prediction + residual * step, 0, maximum)",
        "prediction + residual * step",
        "samples leave",
    ),
)


def compile_core(clone: pathlib.Path) -> None:
    """Compile the core of a clone."""
    native = clone / "vaecodec" / "native"
    compile_plain(native / "core.so", native / "src")


def tests_fail(name: str, clone: pathlib.Path) -> bool:
    """Whether a test of a file fails, crashes or does not end."""
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(clone), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, "-m", "pytest", "-q", "-x", "-n", "0", "-p", "no:cacheprovider", *TESTS[name]]
    try:
        done = subprocess.run(line, cwd=clone, env=environment, capture_output=True, timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        return True
    if done.returncode > 1:  # pytest itself failed, not a test
        sys.exit(f"pytest ended with status {done.returncode}: {done.stdout[-2000:].decode()}")
    return done.returncode != 0


def killed(mutant: tuple[str, str, str, str], clone: pathlib.Path) -> bool:
    """Whether the tests fail; raises ValueError where the source does not say what the mutant changes."""
    name, before, after, _ = mutant
    source = clone / "vaecodec" / "native" / "src" / name
    text = source.read_text()
    if text.count(before) != 1:
        raise ValueError(f"{name} says {before!r} {text.count(before)} times")
    source.write_text(text.replace(before, after))
    try:
        compile_core(clone)
        return tests_fail(name, clone)
    finally:
        source.write_text(text)


def main(numbers: list[str]) -> None:
    chosen = [MUTANTS[int(number)] for number in numbers] or list(MUTANTS)
    survivors = []
    with tempfile.TemporaryDirectory() as folder:
        clone = pathlib.Path(folder, "clone")
        ignored = shutil.ignore_patterns(
            ".git", ".venv", "core.so", "core.d*", "__pycache__", ".*_cache", ".hypothesis"
        )
        shutil.copytree(ROOT, clone, ignore=ignored)
        compile_core(clone)
        for name in {mutant[0] for mutant in chosen}:
            if tests_fail(name, clone):
                sys.exit(f"a test of {name} fails without a mutant")
        for mutant in chosen:
            dead = killed(mutant, clone)
            print("killed  " if dead else "SURVIVED", mutant[0], mutant[-1], flush=True)
            if not dead:
                survivors.append(mutant)
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} killed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main(sys.argv[1:])
