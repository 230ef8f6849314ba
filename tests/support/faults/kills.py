"""End commands by signals at random moments, and check that no file is lost or half written.

A command runs in a fork of this process, which has imported the package: so that kills come during its work and not
while Python starts.  tests/support/crash.py kills whole processes, fewer of them.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image

from support.crash import OLD, contents, leftovers
from support.images import synthetic_image
from vaecodec import cli

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
TIME = 10**18  # of all sources, in nanoseconds
STARTED, PATIENCE = 60.0, 120.0  # seconds until a command must have ended by itself, or after its signal


class Outcome(NamedTuple):
    """How a command ended: by `signal` while it ran, or before; `status` as a shell has it; what it printed."""

    hit: bool
    status: int
    printed: str
    seconds: float


def run(arguments: list[str], log: pathlib.Path, number: int = 0, seconds: float = STARTED) -> Outcome:
    """Run `vaecodec arguments` in a fork, and send its process group a signal after so many seconds."""
    sys.stdout.flush()
    ready, tell = os.pipe()
    child = os.fork()
    if not child:
        _become(arguments, log, tell)
    os.close(tell)
    os.read(ready, 1)  # its signal handlers are in place
    os.close(ready)
    began = time.monotonic()
    status, hit = _wait(child, began + seconds), False
    if status is None:
        hit = True
        # A command that ended meanwhile is a zombie, which takes signals.
        os.killpg(child, number or signal.SIGKILL)
        status = _wait(child, time.monotonic() + PATIENCE)
        if status is None:
            os.killpg(child, signal.SIGKILL)
            raise AssertionError(f"{arguments} goes on after signal {number}")
    ended = os.waitstatus_to_exitcode(status)
    return Outcome(hit, ended, log.read_text(errors="replace"), time.monotonic() - began)


def _become(arguments: list[str], log: pathlib.Path, tell: int) -> None:
    code = 99
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(descriptor, 1), os.dup2(descriptor, 2)
        os.close(tell)
        code = cli.main(arguments)
        sys.stdout.flush(), sys.stderr.flush()
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _wait(child: int, until: float) -> int | None:
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.0005)
    return None


def check(outcome: Outcome, number: int, what: object) -> str:
    """Check the status and the output of a command; return how it ended."""
    assert "Traceback" not in outcome.printed, f"{what}: {outcome.printed}"
    if not outcome.hit or outcome.status == 0:
        assert outcome.status == 0, f"{what}: status {outcome.status}, {outcome.printed}"
        return "completed"
    assert outcome.status == (-signal.SIGKILL if number == signal.SIGKILL else STATUS[signal.Signals(number)]) or (
        # Before the command has its handler, the default action ends it.
        outcome.status == -number
    ), f"{what}: status {outcome.status} after signal {number}, {outcome.printed}"
    return "ended"


class Pace:
    """The moments of signals: at random, within a duration that follows the load of the machine."""

    def __init__(self, seconds: float, rng: random.Random) -> None:
        self._seconds, self._rng = seconds, rng

    def moment(self) -> float:
        # The first write is near the end, so half of the signals come in the last third.
        return self._seconds * (self._rng.uniform(0.66, 1.1) if self._rng.random() < 0.5 else self._rng.uniform(0, 1.1))

    def learn(self, outcome: Outcome) -> None:
        self._seconds = self._seconds * 1.01 if outcome.hit else 0.5 * (self._seconds + outcome.seconds)


def sources(folder: pathlib.Path) -> dict[str, bytes]:
    """An image, a text and noise, some ten kilobytes each."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(synthetic_image(64, 96)).save(folder / "photo.png")
    (folder / "text.txt").write_bytes(b"".join(b"line %d of a long text\n" % number for number in range(20_000)))
    (folder / "noise.bin").write_bytes(np.random.default_rng(0).bytes(1 << 19))
    for path in folder.iterdir():
        os.utime(path, ns=(TIME, TIME))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def conversions(command: str, number: int, rounds: int, rng: random.Random, folder: pathlib.Path) -> Counter[str]:
    """Signals to `compress` or `decompress`; half of the targets exist, and half of the commands use --rm."""
    log, cases, tally = folder / "log", [], Counter[str]()
    originals = folder / "in"
    for name, data in sources(originals).items():
        packed = folder / (pathlib.Path(name).stem + ".vae" if name.endswith(".png") else name + ".vae")
        check(run(["compress", str(originals / name), "-o", str(packed)], log), 0, name)
        restored = folder / f"back-{name}"
        check(run(["decompress", str(packed), "-o", str(restored)], log), 0, name)
        given, target = (data, packed) if command == "compress" else (packed.read_bytes(), restored)
        outcome = run(
            [command, "-f", str(originals / name if command == "compress" else packed), "-o", str(target)], log
        )
        names = (name, packed.name) if command == "compress" else (packed.name, name)
        cases.append((given, names, target.read_bytes(), Pace(outcome.seconds, rng)))
    while tally["signals"] < rounds:
        given, names, complete, pace = cases[tally.total() % len(cases)]
        room = folder / "room"
        room.mkdir()
        source, target = room / names[0], room / names[1]
        source.write_bytes(given)
        os.utime(source, ns=(TIME, TIME))  # which a .vae file may hold
        exists, remove = rng.random() < 0.5, rng.random() < 0.5
        if exists:
            target.write_bytes(OLD)
        outcome = run([command, "-f", str(source), "-o", str(target), *["--rm"] * remove], log, number, pace.moment())
        pace.learn(outcome)
        ended = check(outcome, number, command)
        content = target.read_bytes() if target.exists() else None
        assert content in ((OLD, complete) if exists else (None, complete)), f"{command}: neither old nor complete"
        if source.exists():
            assert source.read_bytes() == given, f"{command}: the source has changed"
        else:
            assert remove and content == complete, f"{command}: the source is lost"
        if ended == "completed":
            assert content == complete and source.exists() != remove, f"{command}: not done"
        rest = leftovers(room)
        assert number == signal.SIGKILL or not rest, f"{command}: {rest} after signal {number}"
        tally["signals"] += outcome.hit
        tally["leftovers"] += len(rest)
        tally["complete" if content == complete else "old" if exists else "absent"] += 1
        shutil.rmtree(room)
    return tally


def folders(number: int, rounds: int, rng: random.Random, folder: pathlib.Path) -> Counter[str]:
    """Signals to `compress -r --rm` of 12 files, each time until a run completes what is left."""
    log, tally, pace = folder / "log", Counter[str](), None
    given = folder / "given"
    for part in range(4):
        data = sources(given / f"part{part}")
        assert len(data) == 3
    expected: dict[str, bytes] = {}
    while tally["signals"] < rounds:
        room = folder / "room"
        shutil.copytree(given, room / "in")
        inputs = contents(room / "in")
        line = ["compress", "-r", str(room / "in"), "--rm", "--output-dir", str(room / "out"), "--jobs", "1"]
        if pace is None:
            pace = Pace(run(line, log).seconds, rng)
            expected = contents(room / "out")
            assert len(expected) == len(inputs) and not contents(room / "in")
            shutil.rmtree(room)
            continue
        attempts = 0
        while True:
            attempts += 1
            outcome = run(line, log, number, pace.moment() if attempts < 4 else STARTED)
            pace.learn(outcome)
            ended = check(outcome, number, "folder")
            tally["signals"] += outcome.hit
            outputs, left = contents(room / "out") if (room / "out").exists() else {}, contents(room / "in")
            assert all(expected[name] == data for name, data in outputs.items()), "an output is not complete"
            assert all(inputs[name] == data for name, data in left.items()), "an input has changed"
            assert len(left) + len(outputs) >= len(inputs), "an input is lost"
            rest = leftovers(room)
            assert number == signal.SIGKILL or not rest, f"folder: {rest} after signal {number}"
            tally["leftovers"] += len(rest)
            if ended == "completed":
                break
        assert outputs == expected and not left, "the run that resumed is not complete"
        tally["resumed to the end"] += 1
        shutil.rmtree(room)
    return tally


def bench(number: int, rounds: int, rng: random.Random, folder: pathlib.Path) -> Counter[str]:
    """Signals to `bench`; each start resumes the last, and no row that was written is measured again or lost."""
    log, tally, images = folder / "log", Counter[str](), folder / "images"
    images.mkdir()
    for seed in range(3):
        Image.fromarray(synthetic_image(64, 64, seed)).save(images / f"{seed}.png")

    def line(out: pathlib.Path) -> list[str]:
        chosen = ["--codecs", "jpeg,webp", "--metrics", "psnr"]
        return ["bench", str(images), "-o", str(out), *chosen]

    outcome = run(line(folder / "whole"), log)
    check(outcome, 0, "bench")
    total, pace = len(_rows(folder / "whole")), Pace(outcome.seconds, rng)
    while tally["signals"] < rounds:
        out, before, attempts = folder / "out", list[str](), 0
        while True:
            attempts += 1
            outcome = run(line(out), log, number, pace.moment() if attempts < 6 else STARTED)
            pace.learn(outcome)
            tally["signals"] += outcome.hit
            ended, rows = check(outcome, number, "bench"), _rows(out)
            assert rows[: len(before)] == before, "a row is lost or changed"
            before = rows
            rest = leftovers(out) if out.exists() else []
            assert number == signal.SIGKILL or not rest, f"bench: {rest} after signal {number}"
            tally["leftovers"] += len(rest)
            if ended == "completed":
                break
        assert len(rows) == total, f"bench: {len(rows)} rows, expected {total}"
        tally["resumed to the end"] += 1
        shutil.rmtree(out)
    return tally


def _rows(out: pathlib.Path) -> list[str]:
    """The whole lines of results.csv."""
    path = out / "results.csv"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [text for text in lines if text.endswith("\n")]


KINDS: dict[str, Callable[[int, int, random.Random, pathlib.Path], Counter[str]]] = {
    "compress": lambda *arguments: conversions("compress", *arguments),
    "decompress": lambda *arguments: conversions("decompress", *arguments),
    "compress -r --rm": folders,
    "bench": bench,
}


@contextmanager
def _imported() -> Iterator[None]:
    """Import what the commands import, so that forks have it."""
    import scipy.ndimage  # noqa: F401

    import vaecodec.bench.report
    import vaecodec.cli.benchmark
    import vaecodec.cli.compression
    import vaecodec.files.compression
    import vaecodec.files.folders  # noqa: F401
    from vaecodec.model.file import load_model

    load_model("small")
    Image.init()
    yield


def kills(kind: str, number: int, rounds: int, seed: int, folder: pathlib.Path) -> Counter[str]:
    """Send a signal to so many commands of a kind; raise AssertionError at the first failed check."""
    folder.mkdir(parents=True)
    with _imported():
        return KINDS[kind](number, rounds, random.Random(f"{kind} {number} {seed}"), folder)
