"""Run commands over read-only, vanishing, shrinking and exchanged files, odd names and very many files."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import numpy as np
from PIL import Image

from support.crash import COMMAND, ENVIRONMENT, contents, leftovers
from support.images import synthetic_image

MIB = 1 << 20
GROWTH = 64 * MIB  # of the memory of a run from 1 % of the files to all


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; no traceback may come from it."""
    line = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True, errors="replace")
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, f"{line}: {done.returncode} {done.stderr}"
    return done


def read_only(folder: pathlib.Path) -> list[object]:
    """A file system that was mounted read-only: one line, and the source stays."""
    room = folder / "mounted"
    room.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", room], capture_output=True).returncode:
        return ["read-only file system", 0, "not run: may not mount here"]
    try:
        (room / "a.txt").write_bytes(b"text" * 999)
        subprocess.run(["mount", "-o", "remount,ro", room], check=True)
        for line in (
            ["compress", room / "a.txt"],
            ["compress", "--rm", room / "a.txt"],
            ["compress", "-r", "--rm", room],
        ):
            done = run(*line)
            assert done.returncode == 1 and "Read-only file system" in done.stderr, done.stderr
        assert [path.name for path in room.iterdir()] == ["a.txt"]
    finally:
        subprocess.run(["umount", room], check=True)
    return ["read-only file system", 3, "refused in one line a file; sources kept"]


def full(folder: pathlib.Path) -> list[object]:
    """A file system that is full after 4 to 40 KiB: the target is whole or absent, and a source without it stays."""
    room, source, outcomes = folder / "small", folder / "full.bin", {0: 0, 1: 0}
    room.mkdir()
    source.write_bytes(np.random.default_rng(1).bytes(20_000))
    for size in range(4, 44, 4):
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", room]
        if subprocess.run(mount, capture_output=True).returncode:
            return ["full disk", 0, "not run: may not mount here"]
        try:
            done = run("compress", "--rm", source, "-o", room / "out.vae")
            outcomes[done.returncode] += 1
            if done.returncode:
                assert "No space left" in done.stderr and source.exists() and not list(room.iterdir()), done.stderr
            else:
                assert not source.exists()
                run("decompress", room / "out.vae", "-o", source)
                assert source.stat().st_size == 20_000
        finally:
            subprocess.run(["umount", room], check=True)
    assert outcomes[0] and outcomes[1]
    return ["full disk, of 4 to 40 KiB", 10, f"done {outcomes[0]}, refused {outcomes[1]}; nothing lost, no half file"]


@contextmanager
def meanwhile(work: object) -> Iterator[None]:
    """Call a function again and again in a thread."""
    end = threading.Event()

    def loop() -> None:
        while not end.is_set():
            work()  # type: ignore[operator]

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def changing(folder: pathlib.Path, rounds: int = 6) -> list[object]:
    """Sources that shrink, grow or are replaced during the work."""
    room, rng, tally = folder / "changing", random.Random(0), {"done": 0, "refused": 0}
    room.mkdir()
    photo = room / "photo.ppm"
    Image.fromarray(synthetic_image(700, 900)).save(photo)
    whole, noise = photo.read_bytes(), np.random.default_rng(0).bytes(6 * MIB)
    for number in range(rounds):
        source = photo if number % 2 else room / "noise.bin"
        data = whole if number % 2 else noise
        source.write_bytes(data)

        def change(source: pathlib.Path = source, data: bytes = data) -> None:
            time.sleep(rng.uniform(0, 0.05))
            if source.exists():
                kind = rng.randrange(3)
                if kind == 0:
                    os.truncate(source, rng.randrange(len(data)))
                elif kind == 1:
                    with open(source, "ab") as file:
                        file.write(b"more")
                else:
                    copy = source.with_suffix(".new")
                    copy.write_bytes(data[: rng.randrange(len(data))])
                    os.replace(copy, source)

        with meanwhile(change):
            done = run("compress", "-f", source, "-o", room / "out.vae")
        tally["refused" if done.returncode else "done"] += 1
        if not done.returncode:
            run("decompress", "-f", room / "out.vae", "-o", room / "back")
        assert not leftovers(room)
    return ["source that shrinks, grows or is replaced", rounds, f"{_text(tally)}; no signal, no traceback"]


def exchanged(folder: pathlib.Path, rounds: int = 6) -> list[object]:
    """A target that becomes a link to a victim during the work: without -f it is refused, the victim never changes."""
    room, rng, tally = folder / "links", random.Random(1), {"done": 0, "refused": 0}
    room.mkdir()
    victim, target, source = room / "victim", room / "out.vae", room / "a.bin"
    victim.write_bytes(b"victim")
    source.write_bytes(np.random.default_rng(0).bytes(MIB))

    def plant() -> None:
        time.sleep(rng.uniform(0, 0.1))
        with suppress(FileExistsError):
            os.symlink(victim, target)

    for _ in range(rounds):
        target.unlink(missing_ok=True)
        with meanwhile(plant):
            done = run("compress", source, "-o", target)
        tally["refused" if done.returncode else "done"] += 1
        assert victim.read_bytes() == b"victim"
    return ["target that becomes a link to another file", rounds, f"{_text(tally)}; the other file never changed"]


def two_runs(folder: pathlib.Path, rounds: int = 3) -> list[object]:
    """Two runs over one folder at once: every file is done by one of them, or found done."""
    for number in range(rounds):
        room = folder / f"two{number}"
        (room / "in").mkdir(parents=True)
        for n in range(40):
            (room / "in" / f"{n}.txt").write_bytes(b"%d" % n * 5000)
        line = [*COMMAND, "compress", "-r", "--rm", str(room / "in"), "--output-dir", str(room / "out"), "--jobs", "1"]
        started = [
            subprocess.Popen(line, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, start_new_session=True)
            for _ in range(2)
        ]
        for process in started:
            text = process.communicate()[1]
            assert process.returncode in (0, 1) and "Traceback" not in text, text
        outputs, inputs = contents(room / "out"), contents(room / "in")
        done = {pathlib.Path(name).name.removesuffix(".vae") for name in outputs}
        assert done | {pathlib.Path(name).name for name in inputs} == {f"{n}.txt" for n in range(40)}
        run("compress", "-r", "--rm", room / "in", "--output-dir", room / "out", "--jobs", "1")
        run("decompress", "-r", room / "out", "--output-dir", room / "back", "--jobs", "1")
        back = {pathlib.Path(name).name: data for name, data in contents(room / "back").items()}
        assert back == {f"{n}.txt": b"%d" % n * 5000 for n in range(40)}, "a file is lost"
    return ["two runs over one folder with --rm", rounds, "nothing lost; a third run finds all done"]


NAMES = {
    "255 bytes": b"n" * 255,
    "251 bytes": b"m" * 251,
    "not UTF-8": b"n\xff\xfe.txt",
    "terminal escapes": b"a\x1b[31mred\x1b]0;title\x07.txt",
    "C1 control": "\x9b31m.txt".encode(),
    "line breaks": b"line\nbreak\r.txt",
    "right to left": "\u202egpj.txt".encode(),
    "a leading dash": b"-rf.txt",
    "spaces": b"  .txt ",
}
SAFE = set(range(32, 127)) | {10}


def names(folder: pathlib.Path) -> list[object]:
    """Odd names, over a folder and back: bytes and names are the same, and the terminal gets no control character."""
    room = folder / "names"
    (room / "in").mkdir(parents=True)
    for data, name in enumerate(NAMES.values()):
        with open(os.fsencode(room / "in") + b"/" + name, "wb") as file:
            file.write(b"%d" % data * 3000)

    def printed(*arguments: object) -> None:
        line = [*COMMAND, *map(str, arguments)]
        done = subprocess.run(line, env=ENVIRONMENT | {"LC_ALL": "C.UTF-8"}, capture_output=True)
        assert b"Traceback" not in done.stderr, done.stderr
        text = (done.stdout + done.stderr).decode("utf-8", "replace")
        assert not any((c < " " and c != "\n") or "\x7f" <= c < "\xa0" or c == "\u202e" for c in text), repr(text)

    printed("compress", "-r", room / "in", "--output-dir", room / "out")
    printed(
        "info", *(room / "out" / "in").iterdir() if (room / "out" / "in").exists() else (room / "out").glob("*.vae")
    )
    printed("verify", "-r", room / "out")
    printed("decompress", "-r", room / "out", "--output-dir", room / "back")

    def by_name(path: pathlib.Path) -> dict[bytes, bytes]:
        return {os.fsencode(p.name): p.read_bytes() for p in path.rglob("*") if p.is_file() and p.suffix != ".jsonl"}

    back, given = by_name(room / "back"), by_name(room / "in")
    kept = {name: data for name, data in given.items() if len(name) + len(".vae") <= 255}
    assert back == kept, back.keys() ^ kept.keys()
    return ["odd names", len(NAMES), f"{len(kept)} came back; of 255 bytes: named and left alone; no control character"]


def many(folder: pathlib.Path, count: int) -> list[object]:
    """Very many small files in one folder: memory must not grow with them."""
    peaks = []
    for part in (count // 100, count):
        room = folder / f"many{part}"
        for n in range(part):
            if n % 1000 == 0:
                (room / f"{n // 1000}").mkdir(parents=True)
            (room / f"{n // 1000}" / f"{n}.txt").write_bytes(b"file %d " % n * 20)
        began = time.monotonic()
        line = [*COMMAND, "compress", "-r", "-q", "50", str(room), "--output-dir", str(folder / "out"), "--jobs", "2"]
        child = os.posix_spawn(line[0], line, ENVIRONMENT, file_actions=[(os.POSIX_SPAWN_OPEN, 2, "/dev/null", 1, 0)])
        _, status, usage = os.wait4(child, 0)
        seconds = time.monotonic() - began
        assert status == 0
        done = sum(len(files) for _, _, files in os.walk(folder / "out")) - 1  # less the manifest
        assert done == part, f"{done} of {part} files"
        peaks.append(usage.ru_maxrss * 1024)
        shutil.rmtree(folder / "out")
        shutil.rmtree(room)
    assert peaks[1] - peaks[0] <= GROWTH, (
        f"{peaks[0] / MIB:.0f} MiB for {count // 100} files, {peaks[1] / MIB:.0f} for all"
    )
    memory = f"{peaks[0] / MIB:.0f} MiB for 1 % of them, {peaks[1] / MIB:.0f} for all"
    text = f"{seconds / count * 1000:.1f} s a thousand; {memory}"
    return ["small files in one folder", count, text]


def _text(tally: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in tally.items())


def rows(folder: pathlib.Path, count: int) -> Iterator[list[object]]:
    """A row for each fault."""
    for fault in (read_only, full, changing, exchanged, two_runs, names):
        yield fault(folder)
    yield many(folder, count)
