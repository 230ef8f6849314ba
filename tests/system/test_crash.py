"""Test crashes, full disks, concurrent writers and closed pipes.

A target is absent, old or complete, and no source is lost. tests/support/crash.py runs more kills.
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
def test_kills_at_random_moments_lose_no_data(kind, rounds):
    if kind == "train":
        pytest.importorskip("tensorflow")
    assert crash.kills(kind, rounds, seed=1)["kills"] == rounds


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """The working folder, with an image and noise; both take more than 4 KiB as .vae files."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(synthetic_image(300, 400)).save("photo.png")
    with open("noise", "wb") as file:
        file.write(os.urandom(200_000))
    return tmp_path


# Run the remaining arguments with a limit of 2 KiB for files.
LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))
sys.argv = ["vaecodec", *sys.argv[1:]]
runpy.run_module("vaecodec", run_name="__main__")
"""


@pytest.mark.parametrize(("name", "old"), [("photo.png", True), ("noise", False)])
def test_a_full_disk_gives_one_line_and_loses_no_data(sources, name, old):
    target = name.replace(".png", "") + ".vae"
    before = (sources / name).read_bytes()
    if old:
        (sources / target).write_bytes(b"old")
    arguments = ["compress", "-q", "90", "-f", "--rm", name]
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert process.returncode == 1 and process.stderr.count("\n") == 1 and "File too large" in process.stderr
    assert (sources / name).read_bytes() == before
    assert sorted(os.listdir()) == sorted(["noise", "photo.png", *[target] * old])
    assert not old or (sources / target).read_bytes() == b"old"
    # A failed decompression keeps the .vae file and leaves no partial output.
    assert subprocess.run([*COMMAND, "compress", "-q", "90", "-f", "--rm", name], env=ENVIRONMENT).returncode == 0
    packed = (sources / target).read_bytes()
    arguments = ["decompress", "--rm", target]
    process = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments], env=ENVIRONMENT, capture_output=True, text=True
    )
    assert process.returncode == 1 and process.stderr.count("\n") == 1 and "File too large" in process.stderr
    assert (sources / target).read_bytes() == packed and len(os.listdir()) == 2


@pytest.mark.parametrize("name", ["photo.png", "noise"])
def test_a_full_device_gives_one_line(sources, name):
    for arguments in (["-o", "/dev/full"], ["-c"]):
        with open("/dev/full", "wb") as full:
            command = [*COMMAND, "compress", *arguments, name]
            process = subprocess.run(command, env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE, text=True)
        assert (
            process.returncode == 1 and "No space left on device" in process.stderr and process.stderr.count("\n") == 1
        )
    assert sorted(os.listdir()) == ["noise", "photo.png"]


@pytest.fixture
def small_file_system(tmp_path):
    """A file system of 1 MiB."""
    mount_point = tmp_path / "small"
    mount_point.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount_point)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("may not mount a file system here")
    yield mount_point
    subprocess.run(["umount", str(mount_point)], check=True)


def test_a_full_file_system_keeps_the_sources_without_output(sources, small_file_system):
    (sources / "in").mkdir()
    for number in range(12):
        (sources / "in" / f"{number:02}").write_bytes(os.urandom(150_000))
    before = {path.name: path.read_bytes() for path in (sources / "in").iterdir()}
    command = [*COMMAND, "compress", "-r", "in", "--rm", "--output-dir", str(small_file_system), "--jobs", "2"]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert process.returncode == 1 and "No space left on device" in process.stderr
    remaining = {path.name: path.read_bytes() for path in (sources / "in").iterdir()}
    written = {path.name.removesuffix(".vae") for path in (small_file_system / "in").iterdir()}
    assert 5 <= len(written) <= 6 and written | remaining.keys() == before.keys()
    assert all(before[name] == data for name, data in remaining.items())
    for name in written:
        with open(small_file_system / "in" / f"{name}.vae", "rb") as file:
            assert stored.read(file, None)[1].size == 150_000
    process = subprocess.run(
        [*COMMAND, "verify", "-r", str(small_file_system), "--jobs", "2"], env=ENVIRONMENT, capture_output=True
    )
    assert process.returncode == 0


WRITER = """
import sys
from vaecodec.atomic import write_atomic
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    write_atomic("shared", bytes([int(sys.argv[1])]) * 200_000, overwrite=True)
"""


def test_concurrent_writers_leave_complete_files(sources):
    command = [sys.executable, "-c", WRITER]
    writers = [
        subprocess.Popen([*command, str(number), "100"], env=ENVIRONMENT, stdin=subprocess.PIPE) for number in range(16)
    ]
    for writer in writers:
        writer.stdin.close()
    reads = 0
    while any(writer.poll() is None for writer in writers):
        if os.path.exists("shared"):
            with open("shared", "rb") as file:
                content = file.read()
            assert len(content) == 200_000 and len(set(content)) == 1
            reads += 1
    assert reads and [writer.wait() for writer in writers] == [0] * 16
    assert sorted(os.listdir()) == ["noise", "photo.png", "shared"]


def test_one_of_sixteen_commands_with_the_same_output_succeeds(sources):
    for number in range(16):
        (sources / f"{number}.txt").write_bytes(b"%d" % number * 100_000)
    command = [*COMMAND, "compress", "--rm", "-o", "shared.vae"]
    runs = [
        subprocess.Popen([*command, f"{number}.txt"], env=ENVIRONMENT, stderr=subprocess.PIPE) for number in range(16)
    ]
    errors = [run.communicate()[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0] + [1] * 15
    assert sum(b"exists already" in line for line in errors) == 15
    with open("shared.vae", "rb") as file:
        metadata, _ = stored.read(file, None)
    assert sorted(os.listdir()) == sorted(
        ["noise", "photo.png", "shared.vae", *(f"{n}.txt" for n in range(16) if f"{n}.txt" != metadata.text)]
    )


def test_a_closed_pipe_causes_no_message(sources):
    assert subprocess.run([*COMMAND, "compress", "photo.png"], env=ENVIRONMENT).returncode == 0
    names = " ".join(["photo.vae"] * 1500)  # more lines than a pipe holds
    line = f"set -o pipefail; {' '.join(COMMAND)} info {names} | head -1"
    process = subprocess.run(["bash", "-c", line], env=ENVIRONMENT, capture_output=True)
    assert (process.returncode, process.stderr) == (1, b"") and process.stdout.count(b"\n") == 1
    for command in ("compress noise -c", "compress -r . --json --output-dir out"):
        line = f"{' '.join(COMMAND)} {command} --quiet | head -c 0"
        process = subprocess.run(["bash", "-c", line], env=ENVIRONMENT, capture_output=True)
        assert process.stderr == b""


def test_names_outside_utf_8_are_shown_and_kept(sources):
    name = b"n\xff\xfe.txt"
    with open(name, "wb") as file:
        file.write(b"contents")
    ascii_only = {**ENVIRONMENT, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments in (["compress", "--rm"], ["info"], ["info", "--json"], ["decompress", "--rm", "--json"]):
        source = name if arguments[0] == "compress" else name + b".vae"
        process = subprocess.run([*COMMAND, *arguments, source], env=ascii_only, capture_output=True)
        assert process.returncode == 0 and b"Traceback" not in process.stderr, process.stderr
        assert rb"\udcff\udcfe.txt" in process.stdout + process.stderr
    assert name in os.listdir(b".")
