"""Crashes, full disks, concurrent writers and closed pipes: a target is absent, old or complete, no source is lost.

tests/support/crash.py kills more often.
"""

import os
import subprocess
import sys

import pytest
from PIL import Image

from support import crash
from support.commands import COMMAND, ENVIRONMENT
from support.images import synthetic_image
from vaecodec.container import stored


@pytest.mark.parametrize(("kind", "rounds"), [("compress", 4), ("decompress", 3), ("folder", 2), ("train", 1)])
def test_killed_at_random_moments(kind, rounds):
    if kind == "train":
        pytest.importorskip("tensorflow")
    assert crash.kills(kind, rounds, seed=1)["kills"] == rounds


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A picture and noise, of more than 4 KiB each as .vae files, in the working folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(synthetic_image(300, 400)).save("photo.png")
    with open("noise", "wb") as file:
        file.write(os.urandom(200_000))
    return tmp_path


# Runs the rest of its arguments where a file may have 2 KiB.
LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
sys.argv = ["vaecodec", *sys.argv[1:]]
runpy.run_module("vaecodec", run_name="__main__")
"""


@pytest.mark.parametrize(("name", "old"), [("photo.png", True), ("noise", False)])
def test_a_full_disk_is_one_line_and_loses_nothing(sources, name, old):
    target = name.replace(".png", "") + ".vae"
    before = (sources / name).read_bytes()
    if old:
        (sources / target).write_bytes(b"old")
    arguments = ["compress", "-q", "90", "-f", "--rm", name]
    done = subprocess.run([sys.executable, "-c", LIMITED, *arguments], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "File too large" in done.stderr
    assert (sources / name).read_bytes() == before
    assert sorted(os.listdir()) == sorted(["noise", "photo.png", *[target] * old])
    assert not old or (sources / target).read_bytes() == b"old"
    # And back: the .vae file stays, and no half of the file in it appears.
    assert subprocess.run([*COMMAND, "compress", "-q", "90", "-f", "--rm", name], env=ENVIRONMENT).returncode == 0
    packed = (sources / target).read_bytes()
    arguments = ["decompress", "--rm", target]
    done = subprocess.run([sys.executable, "-c", LIMITED, *arguments], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "File too large" in done.stderr
    assert (sources / target).read_bytes() == packed and len(os.listdir()) == 2


@pytest.mark.parametrize("name", ["photo.png", "noise"])
def test_a_full_device_is_one_line(sources, name):
    for arguments in (["-o", "/dev/full"], ["-c"]):
        with open("/dev/full", "wb") as full:
            command = [*COMMAND, "compress", *arguments, name]
            done = subprocess.run(command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and "No space left on device" in done.stderr and done.stderr.count("\n") == 1
    assert sorted(os.listdir()) == ["noise", "photo.png"]


@pytest.fixture
def megabyte(tmp_path):
    """A file system of 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_file_system_that_fills_up_keeps_the_sources_of_what_it_has_no_room_for(sources, megabyte):
    (sources / "in").mkdir()
    for number in range(12):
        (sources / "in" / f"{number:02}").write_bytes(os.urandom(150_000))
    before = {path.name: path.read_bytes() for path in (sources / "in").iterdir()}
    command = [*COMMAND, "compress", "-r", "in", "--rm", "--output-dir", str(megabyte), "--jobs", "2"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and "No space left on device" in done.stderr
    left = {path.name: path.read_bytes() for path in (sources / "in").iterdir()}
    written = {path.name.removesuffix(".vae") for path in (megabyte / "in").iterdir()}
    assert 5 <= len(written) <= 6 and written | left.keys() == before.keys()
    assert all(before[name] == data for name, data in left.items())
    for name in written:
        with open(megabyte / "in" / f"{name}.vae", "rb") as file:
            assert stored.read(file, None)[1].size == 150_000
    done = subprocess.run(
        [*COMMAND, "verify", "-r", str(megabyte), "--jobs", "2"], env=ENVIRONMENT, capture_output=True
    )
    assert done.returncode == 0


WRITER = """
import sys
from vaecodec.atomic import write_atomic
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    write_atomic("shared", bytes([int(sys.argv[1])]) * 200_000, overwrite=True)
"""


def test_of_sixteen_writers_of_one_output_each_leaves_a_whole_one(sources):
    command = [sys.executable, "-c", WRITER]
    writers = [
        subprocess.Popen([*command, str(number), "100"], env=ENVIRONMENT, stdin=subprocess.PIPE) for number in range(16)
    ]
    for writer in writers:
        writer.stdin.close()
    looked = 0
    while any(writer.poll() is None for writer in writers):
        if os.path.exists("shared"):
            with open("shared", "rb") as file:
                content = file.read()
            assert len(content) == 200_000 and len(set(content)) == 1
            looked += 1
    assert looked and [writer.wait() for writer in writers] == [0] * 16
    assert sorted(os.listdir()) == ["noise", "photo.png", "shared"]


def test_of_sixteen_commands_with_one_output_exactly_one_succeeds(sources):
    for number in range(16):
        (sources / f"{number}.txt").write_bytes(b"%d" % number * 100_000)
    command = [*COMMAND, "compress", "--rm", "-o", "shared.vae"]
    runs = [
        subprocess.Popen([*command, f"{number}.txt"], env=ENVIRONMENT, stderr=subprocess.PIPE) for number in range(16)
    ]
    said = [run.communicate()[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0] + [1] * 15
    assert sum(b"exists already" in line for line in said) == 15
    with open("shared.vae", "rb") as file:
        about, _ = stored.read(file, None)
    assert sorted(os.listdir()) == sorted(
        ["noise", "photo.png", "shared.vae", *(f"{n}.txt" for n in range(16) if f"{n}.txt" != about.text)]
    )


def test_a_reader_that_leaves_ends_it_quietly(sources):
    assert subprocess.run([*COMMAND, "compress", "photo.png"], env=ENVIRONMENT).returncode == 0
    names = " ".join(["photo.vae"] * 1500)  # more lines than a pipe holds
    line = f"set -o pipefail; {' '.join(COMMAND)} info {names} | head -1"
    done = subprocess.run(["bash", "-c", line], env=ENVIRONMENT, capture_output=True)
    assert (done.returncode, done.stderr) == (1, b"") and done.stdout.count(b"\n") == 1
    for command in ("compress noise -c", "compress -r . --json --output-dir out"):
        line = f"{' '.join(COMMAND)} {command} --quiet | head -c 0"
        done = subprocess.run(["bash", "-c", line], env=ENVIRONMENT, capture_output=True)
        assert done.stderr == b""


def test_names_that_are_not_utf_8_are_shown_and_kept(sources):
    name = b"n\xff\xfe.txt"
    with open(name, "wb") as file:
        file.write(b"contents")
    ascii_only = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments in (["compress", "--rm"], ["info"], ["info", "--json"], ["decompress", "--rm", "--json"]):
        given = name if arguments[0] == "compress" else name + b".vae"
        done = subprocess.run([*COMMAND, *arguments, given], env=ascii_only, capture_output=True)
        assert done.returncode == 0 and b"Traceback" not in done.stderr, done.stderr
        assert rb"\udcff\udcfe.txt" in done.stdout + done.stderr
    assert name in os.listdir(b".")
