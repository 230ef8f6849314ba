"""Test what a run over folders says: selection, plans, progress, other settings, how to resume, and its records."""

import json
import os
import signal
import subprocess
import time

import pytest
from PIL import Image

import vaecodec
from support.commands import COMMAND, ENVIRONMENT, digests, files_below, run, write
from support.images import synthetic_image
from support.paths import ROOT
from support.schema import check, matches
from vaecodec import cli
from vaecodec.files.planning import Selection, Workload
from vaecodec.files.runs import differing_settings
from vaecodec.progress import format_bytes, format_seconds

SCHEMA = json.loads((ROOT / "vaecodec" / "share" / "records.schema.json").read_text())


@pytest.fixture(autouse=True)
def tree(tmp_path, monkeypatch):
    """The working folder, with images and other files below `in`."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("in/sub/thumbs")
    for number, name in enumerate(("a.png", "b.jpg", "sub/c.jpg", "sub/thumbs/d.jpg")):
        Image.fromarray(synthetic_image(40, 50, number)).save(f"in/{name}")
    write("in/notes.txt", b"notes" * 99)
    return tmp_path


@pytest.mark.parametrize(
    ("globs", "names"),
    [
        ("--include *.jpg", ["b.vae", "sub/c.vae", "sub/thumbs/d.vae"]),
        ("--include *.jpg --exclude thumbs", ["b.vae", "sub/c.vae"]),
        ("--include sub/*", ["sub/c.vae", "sub/thumbs/d.vae"]),
        ("--exclude *.jpg --exclude notes.*", ["a.vae"]),
        ("--exclude sub/thumbs/", ["a.vae", "b.vae", "notes.txt.vae", "sub/c.vae"]),
        ("--include *.png --include *.txt", ["a.vae", "notes.txt.vae"]),
    ],
)
def test_globs_select_files_and_folders(globs, names, capsys):
    assert run(f"compress -r in --output-dir out {globs}", capsys)[0] == 0
    assert files_below("out/in") == names
    assert cli.main(["compress", *globs.split(), "in/a.png"]) == 2  # need -r


def test_a_dry_run_names_outputs_and_writes_nothing(capsys):
    status, lines = run("compress -r in --output-dir out/deep --dry-run --include *.jpg", capsys)
    planned = {"in/b.jpg": "b.vae", "in/sub/c.jpg": "sub/c.vae", "in/sub/thumbs/d.jpg": "sub/thumbs/d.vae"}
    assert status == 0 and sorted(lines) == [f"{source} -> out/deep/in/{name}" for source, name in planned.items()]
    assert not os.path.exists("out")
    assert run("compress -r in --output-dir out", capsys)[0] == 0
    before = digests(".")
    Image.fromarray(synthetic_image(40, 50)).save("in/new.png")
    assert run("compress -r in --output-dir out --dry-run", capsys) == (0, ["in/new.png -> out/in/new.vae"])
    os.remove("in/new.png")
    status, lines = run("decompress -r out/in --output-dir back --dry-run", capsys)
    assert status == 0 and "out/in/notes.txt.vae -> back/in/notes.txt" in lines and len(lines) == 5
    assert digests(".") == before


@pytest.mark.parametrize("command", ["compress", "decompress", "verify"])
def test_missing_inputs_of_a_run_are_failures(command, capsys):
    status, lines = run(f"{command} -r gone in/notes.txt", capsys)
    assert status == 1 and lines[-1] == "vaecodec: gone: No such file or directory"


def test_other_settings_are_named_with_a_way_out(capsys):
    assert run("compress -r in --output-dir out -q 50", capsys)[0] == 0
    before = digests("out")
    status, lines = run("compress -r in --output-dir out -q 20 --effort 2", capsys)
    expected = "out/in/a.vae exists, made with quality 50, not quality 20, effort 2 (-f makes it anew)"
    assert status == 1 and f"vaecodec: in/a.png: {expected}" in lines and digests("out") == before
    assert "1 done, 4 failed:" in lines  # what is stored does not depend on the quality
    assert run("compress -r in --output-dir out -q 20 --effort 2 -f", capsys)[0] == 0
    assert vaecodec.info("out/in/a.vae").quality == 20
    model = vaecodec.load("small").model.id
    text = differing_settings(f"compress {model}, quality 50, strip", f"compress {'0' * 32}, quality 50")
    assert text == f"model small, strip, not model {'0' * 32}"


def test_everything_has_a_record(capsys):
    line = "compress -r in gone --output-dir out --json --only-images --jobs 1"
    statuses = []
    for options in ("--dry-run", "", "", "-q 20"):
        cli.main([*line.split(), *options.split()])
        records = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
        for record in records:
            check(record, SCHEMA)
        statuses.append(sorted(record["status"] for record in records))
    files = 4 * ["X"]
    assert statuses == [
        sorted([*("planned" for _ in files), "failed", "skipped"]),
        sorted([*("done" for _ in files), "failed", "skipped", "summary"]),
        sorted([*("unchanged" for _ in files), "failed", "skipped", "summary"]),
        sorted([*("failed" for _ in files), "failed", "skipped", "summary"]),
    ]
    cli.main("verify -r out --json -j 1".split())
    cli.main("info --json out/in/a.vae gone.vae".split())
    cli.main("models --json".split())
    cli.main("filetype magic --json".split())
    cli.main("score in -m small --json".split())
    for text in capsys.readouterr().out.splitlines():
        check(json.loads(text), SCHEMA)
    wrong = {"schema": 1, "command": "compress", "status": "failed", "input": "a"}
    assert not matches(wrong, SCHEMA) and matches({**wrong, "error": "no"}, SCHEMA)


def test_warnings_are_in_the_records(capsys):
    with open("in/a.png", "ab") as file:
        file.write(b"film")
    for line in ("compress in/a.png --json", "compress -r in/a.png --json -f -j 1"):
        assert cli.main(line.split()) == 0
        record = json.loads(capsys.readouterr().out.splitlines()[0])
        assert record["warnings"] == ["4 bytes after the end of the image are left out"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_resume(number, status):
    for copy in range(150):
        Image.fromarray(synthetic_image(300, 300, copy)).save(f"in/{copy}.png")
    arguments = ["compress", "-r", "in", "--output-dir", "my out", "--effort", "4", "-j", "1"]
    child = subprocess.Popen([*COMMAND, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    while not os.path.exists("my out/.vaecodec-manifest.jsonl"):
        time.sleep(0.01)
    child.send_signal(number)
    lines = child.communicate()[1].splitlines()
    assert child.returncode == status
    assert lines[-1].startswith("interrupted with ")
    assert lines[-1].endswith("; to resume: vaecodec compress -r in --output-dir 'my out' --effort 4 -j 1")


def test_the_rest_of_a_run_is_estimated(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    load = Workload(["in"], Selection(("*.jpg",), ("thumbs",)), lambda name: not name.endswith(".vae"))
    while not load.is_complete:
        time.sleep(0.001)
    sizes = [os.path.getsize(f"in/{name}") for name in ("b.jpg", "sub/c.jpg")]
    assert (load.total, load.total_bytes) == (2, sum(sizes))
    clock[0] += 10
    load.advance(sizes[0])
    left = format_seconds(round(10 * sizes[1] / sizes[0]))
    total = format_bytes(sum(sizes))
    text = f"1 of 2 files, {format_bytes(sizes[0])} of {total}, {format_bytes(sizes[0] / 10)}/s, {left} left"
    assert load.text() == text


def test_sizes_and_durations_are_short():
    sizes = {0: "0 bytes", 1: "1 byte", 999: "999 bytes", 1000: "1.0 kB", 999_960: "1.0 MB", 24_418: "24.4 kB"}
    assert {size: format_bytes(size) for size in sizes} == sizes and format_bytes(3e13) == "30.0 TB"
    seconds = {0.123: "0.12 s", 8: "8 s", 31: "31 s", 125: "2:05 min", 3725: "1:02:05 h"}
    assert {value: format_seconds(value) for value in seconds} == seconds
