"""Damaged files and hostile models against the native core, compiled with sanitizers.

    python tests/long/fuzz/core.py --minutes 10 --seed 1

Compiles the core with AddressSanitizer and UndefinedBehaviorSanitizer, and runs itself again with that library.  It
makes mutants of the golden files, of small images, and of the golden models.  Their CRCs, lengths and ids are put
right, so that they reach the decoder behind these checks; every one must decode, or raise a CodecError.  A finding of a
sanitizer ends the process with a report and the number of the mutant: `--first NUMBER --count 1` repeats it.
"""

from __future__ import annotations

import argparse
import collections
import gc
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

TESTS = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(TESTS))

HERE, NATIVE = pathlib.Path(__file__).parent, TESTS.parent / "vaecodec" / "native"
# With -g instead of -g1 it compiles for minutes.
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1", "-g1")
# Python's allocations are many: no stack of each (a mutant can be repeated with one), and less memory that waits before
# it is used again.
ASAN = "detect_leaks=0:malloc_context_size={}:quarantine_size_mb=4"
LIBRARY, NUMBER = "VAECODEC_CORE_LIBRARY", "VAECODEC_FUZZ_NUMBER"
ENOUGH = 20_000  # mutants that call every kernel
NOT_REACHED = {"depthwise"}  # by no encoder or decoder: blocks contain it
SLOW_KIND = 200  # plain C is slow, and what compilers check best: one mutant of so many
KEPT, KEPT_LINES = 64, 1 << 14  # arrays of a megabyte and more
UNUSED = 3  # references: the list, the loop, the call
BLOCK = 64  # mutants from one coder to the next
CORE_CODER = 8  # one block of so many has the core's coder
SHARES = (26, 2, 12, 1)  # of files, models, exact files, and sets, as their mutants take 4, 12, 3 and 40 ms


def compile_core(path: pathlib.Path) -> None:
    """A core with sanitizers, unless there is one that is newer than its sources."""
    from vaecodec.native.build import build

    sources = [NATIVE / "build.py", *(NATIVE / "src").iterdir()]
    if not path.exists() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        build(path, ["gcc"], flags=SANITIZERS)


def run_again(core: pathlib.Path, folder: str) -> int:
    """This program with that core; the sanitizer's runtime must be there before Python's own libraries."""
    runtime = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    number = pathlib.Path(folder, "number")
    asan = ASAN.format(30 if "--count" in sys.argv else 0)
    environment = dict(os.environ, LD_PRELOAD=runtime.stdout.strip(), ASAN_OPTIONS=asan)
    environment |= {LIBRARY: str(core.resolve()), NUMBER: str(number), "UBSAN_OPTIONS": "print_stacktrace=1"}
    status = subprocess.run([sys.executable, *sys.argv], env=environment, check=False).returncode
    if status and number.exists():
        print(f"ended with status {status} at mutant {int.from_bytes(number.read_bytes(), 'little')}", flush=True)
    return status


def kernels() -> set[str]:
    """All kernels that the binding calls."""
    import re

    return set(re.findall(r'library\.(?:call|size)\(\s*"(\w+)"', "".join(p.read_text() for p in NATIVE.glob("*.py"))))


def count_calls() -> collections.Counter[str]:
    """Calls by kernel, from now on."""
    from vaecodec.native import library

    counts: collections.Counter[str] = collections.Counter()
    call, size = library.call, library.size

    def counted_call(name: str, signature: str, *arguments: object) -> int:
        counts[name] += 1
        return call(name, signature, *arguments)

    def counted_size(name: str, *numbers: int) -> int:
        counts[name] += 1
        return size(name, *numbers)

    library.call, library.size = counted_call, counted_size
    return counts


def keep_planes() -> None:
    """Start planes of the adaptive coding by a copy, in memory that is kept: both take longer than to decode."""
    from vaecodec.native import library

    call, started = library.call, dict[tuple[Any, ...], Any]()
    memory, kept = library.memory, collections.defaultdict[int, list[Any]](list)

    def kept_memory(lines: int) -> Any:
        if lines < KEPT_LINES:
            return memory(lines)
        unused = (array for array in kept[lines] if sys.getrefcount(array) == UNUSED)
        array = next(unused, None)
        if array is None:
            array = memory(lines)
            if sum(map(len, kept.values())) == KEPT:
                kept.clear()
            kept[lines].append(array)
        return array

    def call_once(name: str, signature: str, *arguments: Any) -> int:
        if name != "lossless_start":
            return call(name, signature, *arguments)
        plane, *numbers = arguments
        key = library.kind(), *numbers
        if key in started:
            plane[:] = started[key]
            return 0
        status = call(name, signature, *arguments)
        if len(started) == KEPT:
            started.clear()
        started[key] = plane.copy()
        return status

    library.call, library.memory = call_once, kept_memory


@contextmanager
def coder(name: str) -> Iterator[None]:
    """Code with constriction, or with the coder of the core."""
    from vaecodec.entropy import coding

    constriction, caches = coding._constriction, (coding.uniform, coding._family)
    if name == "core":
        coding._constriction = lambda: None  # type: ignore[assignment]
        for cache in caches:
            cache.cache_clear()
    try:
        yield
    finally:
        if name == "core":
            coding._constriction = constriction
            for cache in caches:
                cache.cache_clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=1 << 62, help="mutants, if that is less than the minutes allow")
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--core", type=pathlib.Path, help="where the core with sanitizers is, or is to be kept")
    options = parser.parse_args()
    if NUMBER not in os.environ:
        with tempfile.TemporaryDirectory() as folder:
            core = options.core or pathlib.Path(folder, "core.so")
            compile_core(core)
            sys.exit(run_again(core, folder))
    number = os.open(os.environ[NUMBER], os.O_CREAT | os.O_WRONLY)
    run(options, lambda n: os.pwrite(number, n.to_bytes(8, "little"), 0))


def run(options: argparse.Namespace, note: Callable[[int], object]) -> None:
    from support.mutants import Exact, Files, Models, Sets
    from vaecodec.errors import CodecError
    from vaecodec.native import library

    library.REUSED_BYTES = -1  # each array has an allocation of its own, whose end is checked
    calls, kinds = count_calls(), library.kinds()[2:] or library.kinds()[1:]
    keep_planes()
    warnings.simplefilter("ignore")
    targets: dict[str, list[Exact | Files | Models | Sets]] = {}
    for name in ("constriction", "core"):
        with coder(name):  # models keep what they made for one coder
            targets[name] = [Files(), Models(), Exact(), *([Sets()] if name == "core" else [])]
    gc.freeze()
    outcomes: collections.Counter[str] = collections.Counter()
    began = reported = time.monotonic()
    first, end = options.first, options.first + options.count
    while first < end and time.monotonic() < began + 60 * options.minutes:
        name = "constriction" if first // BLOCK % CORE_CODER else "core"
        with coder(name):
            for n in range(first, min(end, (first // BLOCK + 1) * BLOCK)):
                note(n)
                rng = random.Random(f"{options.seed} {n}")
                kind = "plain" if rng.randrange(SLOW_KIND) == 0 else rng.choice(kinds)
                target = targets[name][rng.choices((0, 1, 2, -1), SHARES)[0]]
                try:
                    with library.use(kind):
                        target.attempt(rng)
                    outcomes[f"{type(target).__name__} decoded"] += 1
                except CodecError:
                    outcomes[f"{type(target).__name__} refused"] += 1
                except BaseException:
                    print(f"seed {options.seed}, mutant {n}, {type(target).__name__} on {kind}", flush=True)
                    raise
        first = n + 1
        if time.monotonic() > reported + 60:
            reported = time.monotonic()
            print(f"{outcomes.total()} in {reported - began:.0f} s: {dict(outcomes)}", flush=True)
    print(f"calls: {dict(sorted(calls.items()))}")
    missed = kernels() - set(calls) - NOT_REACHED
    print(f"{outcomes.total()} mutants, {dict(outcomes)} on {', '.join(kinds)}: no finding; not called: {missed or 0}")
    sys.exit(bool(missed) and outcomes.total() >= ENOUGH)


if __name__ == "__main__":
    main()
