"""Fuzz parsers and decoders, guided by coverage: new inputs are changes of those that reached new code.

    pip install atheris
    python tests/long/fuzz/guided.py container -max_total_time=600     # and: the other keys of TARGETS
    python tests/long/fuzz/guided.py container -runs=10000000 found    # new inputs are kept in the folder found
    python tests/long/fuzz/guided.py container --minimise found        # adds the few that reach new code to the corpus
    python tests/long/fuzz/guided.py container --coverage              # per cent of lines that the corpus reaches
    python tests/long/fuzz/guided.py container --blind 10000000 found  # changes of what was found, 10 times as fast

Options with one hyphen are those of libFuzzer.  An input that raises anything but what the target promises, or takes
10 s, ends the run and is written to a file.
"""

from __future__ import annotations

import os
import pathlib
import random
import sys
import tempfile
import time

HERE, TESTS = pathlib.Path(__file__).parent, pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from support.fuzz_targets import TARGETS, corpus

SECONDS = 10  # of one input, at most
OPTIONS = (f"-dict={HERE / 'container.dict'}", f"-timeout={SECONDS}", "-rss_limit_mb=2048")
REPORTED = 100_000  # inputs from one line of progress to the next


def fuzz(name: str, arguments: list[str]) -> None:
    """Run libFuzzer on a target."""
    import atheris

    target = TARGETS[name]
    with atheris.instrument_imports(include=[*target.packages, "vaecodec.errors"]):
        for package in target.packages:
            __import__(package)
        with tempfile.TemporaryDirectory() as seeds, tempfile.TemporaryDirectory() as new_inputs:
            for number, data in enumerate(target.seeds()):
                pathlib.Path(seeds, f"{number}").write_bytes(data)
                target.run(data)  # imports what is missing
            minimise = "--minimise" in arguments
            own = [argument for argument in arguments if argument != "--minimise"]
            folders = [argument for argument in own if not argument.startswith("-")]
            corpus(name).mkdir(exist_ok=True)
            if minimise:
                line = ["-merge=1", *own, str(corpus(name)), seeds]
                line.sort(
                    key=lambda text: (text[0] != "-", text != str(corpus(name)))
                )  # results go to the first folder
            else:
                line = [*own, *([] if folders else [new_inputs]), seeds, str(corpus(name))]
            atheris.Setup([sys.argv[0], *OPTIONS, f"-max_len={target.largest}", *line], target.run)
            atheris.Fuzz()


def run_blind(name: str, count: int, seed: int, folders: list[str]) -> None:
    """Run a target on random changes of all inputs that are kept, without watching what they reach."""
    from support.damage import mutate

    target, rng, began = TARGETS[name], random.Random(seed), time.process_time()
    paths = [path for folder in (corpus(name), *map(pathlib.Path, folders)) for path in sorted(folder.glob("*"))]
    inputs = [*target.seeds(), *(path.read_bytes() for path in paths)]
    slowest = 0.0
    for number in range(count):
        data = mutate(rng, rng.choice(inputs), inputs)[: target.largest]
        start = time.process_time()
        try:
            target.run(data)
        except BaseException:
            pathlib.Path(f"{name}-{seed}-{number}").write_bytes(data)
            raise
        slowest = max(slowest, time.process_time() - start)
        if slowest > SECONDS:
            pathlib.Path(f"{name}-{seed}-{number}").write_bytes(data)
            sys.exit(f"{name}: an input takes {slowest:.0f} s")
        if (number + 1) % REPORTED == 0 or number + 1 == count:
            seconds = time.process_time() - began
            print(f"{name}: {number + 1} inputs, {seconds:.0f} s of CPU, slowest {slowest:.2f} s", flush=True)


def measure(name: str) -> None:
    """Print the lines of the target's packages that its corpus and its seeds reach."""
    import coverage

    target, measured = TARGETS[name], coverage.Coverage(source_pkgs=list(TARGETS[name].packages), data_file=None)
    measured.start()
    inputs = [*target.seeds(), *(path.read_bytes() for path in sorted(corpus(name).glob("*")))]
    for data in inputs:
        target.run(data)
    measured.stop()
    print(f"{name}: {len(inputs)} inputs")
    measured.report(skip_empty=True, precision=0)


def main() -> None:
    # A copy that is called fuzz_NAME.py has its target in its name, as OSS-Fuzz wants it.
    names = [pathlib.Path(sys.argv[0]).stem.removeprefix("fuzz_"), *sys.argv[1:]]
    name, *arguments = names if names[0] in TARGETS else names[1:] or [""]
    if name not in TARGETS:
        sys.exit(f"expected a target: {', '.join(TARGETS)}")
    if "--coverage" in arguments:
        measure(name)
    elif "--blind" in arguments:
        place = arguments.index("--blind")
        seeds = [int(text.removeprefix("-seed=")) for text in arguments if text.startswith("-seed=")]
        folders = [text for text in arguments[place + 2 :] if not text.startswith("-")]
        run_blind(name, int(arguments[place + 1]), *(seeds or [0]), folders)
    else:
        fuzz(name, arguments)


if __name__ == "__main__":
    main()
