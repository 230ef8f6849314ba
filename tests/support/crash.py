"""Kill the command line at random moments, and check that each target is absent, old or complete.

    python tests/support/crash.py [compress=215] [decompress=210] [folder=63] [train=12] [--seed 0]

The script kills each named kind of command the given number of times, or all kinds as often as shown, and prints a
tally. It stops at the first failed check. tests/system/test_crash.py runs a few kills of each kind. It needs POSIX.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))

import numpy as np
from PIL import Image

from support.images import synthetic_image
from support.paths import ROOT
from vaecodec.files.folders import MANIFEST_NAME

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
COMMAND = [sys.executable, "-m", "vaecodec"]
OLD = b"the old target"


def run(*arguments: str) -> subprocess.CompletedProcess:
    """Run a command to its end."""
    return subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, text=True)


def kill(command: list[str], seconds: float) -> bool:
    """Start a command and kill its process group `after` seconds; return whether it was still running."""
    child = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        return True
    return False


class Pace:
    """An estimate of a command's duration that follows the load of the machine, so that kills come before its end."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def kill(self, command: list[str], part: float) -> bool:
        """Kill a command after a part of its duration; return whether it was still running."""
        began = time.monotonic()
        killed = kill(command, part * self.seconds)
        self.seconds = self.seconds * 1.01 if killed else min(self.seconds, time.monotonic() - began)
        return killed


def leftovers(folder: pathlib.Path) -> list[pathlib.Path]:
    """Temporary files of killed writers, which are not outputs."""
    return [path for path in folder.rglob("*") if path.name.startswith(".vaecodec-") and path.name.endswith(".tmp")]


def samples(folder: pathlib.Path) -> list[pathlib.Path]:
    """Write an image, a text and noise, a few megabytes in total."""
    folder.mkdir(exist_ok=True)
    paths = [folder / "photo.png", folder / "text.txt", folder / "noise.bin"]
    Image.fromarray(synthetic_image(200, 300)).save(paths[0])
    paths[1].write_bytes(b"".join(b"line %d of a long text\n" % number for number in range(150_000)))
    paths[2].write_bytes(np.random.default_rng(0).bytes(8 << 20))
    return paths


def conversions(command: str, rounds: int, rng: random.Random, folder: pathlib.Path) -> Counter[str]:
    """Kill `vaecodec compress` or `decompress`; half of the targets exist, and half of the commands use --rm."""
    cases, tally = [], Counter()
    for path in samples(folder / "samples"):
        assert run("compress", str(path)).returncode == 0
        packed = path.with_suffix(".vae") if path.suffix == ".png" else path.with_name(path.name + ".vae")
        restored = folder / "back" / path.name
        restored.parent.mkdir(exist_ok=True)
        assert run("decompress", str(packed), "-o", str(restored.parent)).returncode == 0
        source, target = (path, packed) if command == "compress" else (packed, restored)
        start = time.monotonic()
        trial = folder / f"whole{target.suffix}"
        assert run(command, "-f", str(source), "-o", str(trial)).returncode == 0
        cases.append((source, target.name, target.read_bytes(), Pace(time.monotonic() - start)))
    number = -1
    while tally["kills"] < rounds:
        number += 1
        source, name, complete, pace = cases[number % len(cases)]
        round_folder = folder / f"round{number}"
        round_folder.mkdir()
        copy, target = round_folder / source.name, round_folder / name
        shutil.copy2(source, copy)
        before = copy.read_bytes()
        exists = rng.random() < 0.5
        if exists:
            target.write_bytes(OLD)
        remove = rng.random() < 0.5
        # The first write is near the end, so half of the kills come in the last third.
        fraction = rng.uniform(0.66, 1.1) if rng.random() < 0.5 else rng.uniform(0, 1.1)
        killed = pace.kill([*COMMAND, command, "-f", str(copy), "-o", str(target), *["--rm"] * remove], fraction)
        content = target.read_bytes() if target.exists() else None
        assert content in ((OLD, complete) if exists else (None, complete)), f"{target}: is neither old nor complete"
        if copy.exists():
            assert copy.read_bytes() == before, f"{copy}: has changed"
        else:
            assert remove and content == complete, f"{copy}: is lost"
        state = "complete" if content == complete else "old" if exists else "absent"
        tally["kills"] += killed
        tally[f"killed, {state}" if killed else "not in time"] += 1
        tally["leftovers"] += len(leftovers(round_folder))
        shutil.rmtree(round_folder)
    return tally


def folders(rounds: int, rng: random.Random, folder: pathlib.Path) -> Counter[str]:
    """Kill `vaecodec compress -r` and `decompress -r`, and resume them."""
    tally, processes = Counter(), 2
    source = folder / "in"
    samples(source)
    for number in range(12):
        (source / f"sub{number % 3}").mkdir(exist_ok=True)
        Image.fromarray(synthetic_image(40 + number, 60, number)).save(source / f"sub{number % 3}" / f"{number}.png")
        (source / f"sub{number % 3}" / f"{number}.txt").write_bytes(b"text %d" % number * 1000)
    runs = []
    for command, argument in (("compress", source), ("decompress", folder / "compress" / "in")):
        start, out = time.monotonic(), folder / command
        assert run(command, "-r", str(argument), "--output-dir", str(out), "--jobs", str(processes)).returncode == 0
        runs.append((command, argument, contents(out), Pace(time.monotonic() - start)))
    number = -1
    while tally["kills"] < rounds:
        number += 1
        command, argument, complete, pace = runs[number % 2]
        round_folder, out = folder / f"round{number}", folder / f"round{number}" / "out"
        shutil.copytree(argument, round_folder / argument.name)
        inputs = contents(round_folder / argument.name)
        remove = number % 4 > 1
        line = [command, "-r", str(round_folder / argument.name), "--output-dir", str(out), "--jobs", str(processes)]
        line += ["--rm"] * remove
        killed = pace.kill([*COMMAND, *line], rng.uniform(0.2, 1.1))
        outputs = contents(out)
        for path, data in outputs.items():
            assert data == complete[path], f"{out / path}: is not complete"
        remaining = contents(round_folder / argument.name)
        assert all(inputs[path] == data for path, data in remaining.items()), "an input has changed"
        assert len(inputs) - len(remaining) <= len(outputs) if remove else remaining == inputs, "an input is lost"
        resumed = run(*line)
        assert resumed.returncode == 0, resumed.stderr
        assert contents(out) == complete, "the run that resumed is not complete"
        if not remove:
            processed = int(resumed.stderr.splitlines()[-1].split()[0])
            twice = processed - (len(complete) - len(outputs))
            assert 0 <= twice <= processes, f"{twice} files were processed twice"
            tally[f"processed twice: {twice}"] += 1
        assert run("verify", "-r", str(out)).returncode == 0 or command == "decompress"
        tally["kills" if killed else "not in time"] += 1
        tally[f"outputs at the kill: {len(outputs) * 4 // len(complete) * 25} %"] += 1
        shutil.rmtree(round_folder)
    return tally


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    """The files below a folder, without manifests and temporary files."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST_NAME and path not in leftovers(folder)
    }


# Eager, since a trace takes longer than all the steps that are needed.
TRAINING = """
import sys
import tensorflow as tf
from vaecodec.training import loop
from vaecodec.config import Config
tiny = Config(prior=8, coarser=8, hyper_width=8, coarse=8, coarse_blocks=1, fine=8, fine_blocks=1)
loop.REPORT_EVERY = 1.0
tf.config.run_functions_eagerly(True)
options = loop.Options(batch=1, crop=64, minutes=600)
loop.train([sys.argv[1]], sys.argv[2], tiny, options, save_every=0)
"""


def training(rounds: int, rng: random.Random, folder: pathlib.Path) -> Counter[str]:
    """Kill a training run that saves at every report; each start resumes the last."""
    from vaecodec.training import load_checkpoint

    tally, last, steps = Counter(), 0, 0
    Image.fromarray(synthetic_image(100, 100)).save(folder / "one.png")
    run_folder = folder / "run"
    for _ in range(rounds):
        command = [sys.executable, "-c", TRAINING, str(folder / "one.png"), str(run_folder)]
        child = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
        reports = [last, last]
        for line in child.stderr:
            if line.startswith("step "):
                reports.append(int(line.split()[1]))
                if len(reports) == 5:
                    break
        assert len(reports) > 2, "training did not begin"
        time.sleep(rng.uniform(0, 1.5))
        child.kill()
        for line in child.communicate()[1].splitlines():
            if line.startswith("step "):
                reports.append(int(line.split()[1]))
        if (run_folder / "checkpoint.safetensors").exists():
            _, _, state, progress = load_checkpoint(str(run_folder))
            assert all(np.isfinite(array).all() for array in state)
            steps = int(progress["steps"])
        assert steps >= reports[-2] and steps >= last, f"{reports} steps were reported, and {steps} are saved"
        tally["kills"] += 1
        tally["saved at the last report" if steps >= reports[-1] else "saved at the report before"] += 1
        last = steps
    return tally


KINDS = {
    "compress": lambda *arguments: conversions("compress", *arguments),
    "decompress": lambda *arguments: conversions("decompress", *arguments),
    "folder": folders,
    "train": training,
}


def kills(kind: str, rounds: int, seed: int = 0) -> Counter[str]:
    """Kill a kind of command `rounds` times; raise AssertionError at the first failed check."""
    with tempfile.TemporaryDirectory() as folder:
        return KINDS[kind](rounds, random.Random(f"{kind} {seed}"), pathlib.Path(folder))


def main(arguments: list[str]) -> None:
    """Run the command line."""
    seed = int(arguments.pop(arguments.index("--seed") + 1)) if "--seed" in arguments else 0
    for argument in [text for text in arguments if text != "--seed"] or (
        "compress=215",
        "decompress=210",
        "folder=63",
        "train=12",
    ):
        kind, _, rounds = argument.partition("=")
        began = time.monotonic()
        tally = kills(kind, int(rounds), seed)
        text = ", ".join(f"{name} {count}" for name, count in sorted(tally.items()))
        print(f"{kind}: {rounds} kills in {time.monotonic() - began:.0f} s: {text}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
