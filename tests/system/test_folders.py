"""Test folders: every file is processed or reported, none is lost, and finished files are not processed again."""

import contextlib
import ctypes
import io
import json
import os
import signal
import stat
import subprocess
import time

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.commands import COMMAND, ENVIRONMENT, digests, files_below, read, run, write
from support.images import synthetic_image
from vaecodec import cli
from vaecodec.files import folders, runs
from vaecodec.files.compression import compress_file, decompress_file
from vaecodec.images import trailing_bytes


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """The working folder, with a tree of images and other files below `in`."""
    monkeypatch.chdir(tmp_path)
    os.makedirs("in/sub/deeper")
    os.makedirs("in/empty", mode=0o750)
    Image.fromarray(synthetic_image(40, 50)).save("in/photo.png")
    Image.fromarray(synthetic_image(30, 20, 1)).save("in/sub/deeper/one.jpg")
    files = {"in/notes.txt": b"notes" * 99, "in/sub/nothing": b"", "in/sub/n\udcff.bin": bytes(range(256))}
    for name, contents in files.items():
        write(name, contents)
        os.utime(name, ns=(1, 1_500_000_000_000_000_007))
    os.chmod("in/notes.txt", 0o600)
    return tmp_path


def test_a_tree_of_files_round_trips(tree, capsys):
    code, lines = run("compress -r in --output-dir out", capsys)
    assert code == 0 and lines[-1] == "5 done, 0 failed" and len(lines) == 6
    stored = ["notes.txt.vae", "sub/n\udcff.bin.vae", "sub/nothing.vae"]
    assert files_below("out/in") == sorted(["photo.vae", "sub/deeper/one.vae", *stored])
    assert stat.S_IMODE(os.stat("out/in/empty").st_mode) == 0o750
    assert stat.S_IMODE(os.stat("out/in/notes.txt.vae").st_mode) == 0o600  # permissions are kept
    code, lines = run("decompress -r out/in --output-dir back", capsys)
    assert code == 0 and lines[-1] == "5 done, 0 failed"
    assert files_below("back/in") == sorted(
        ["notes.txt", "photo.png", "sub/deeper/one.png", "sub/n\udcff.bin", "sub/nothing"]
    )
    for name in ("notes.txt", "sub/n\udcff.bin", "sub/nothing"):
        source, restored = (os.stat(f"{root}/{name}") for root in ("in", "back/in"))
        assert read(f"in/{name}") == read(f"back/in/{name}")
        assert (source.st_mode, source.st_mtime_ns) == (restored.st_mode, restored.st_mtime_ns)
    codec = vaecodec.load()
    np.testing.assert_array_equal(Image.open("back/in/photo.png"), codec.decode(codec.encode(synthetic_image(40, 50))))


def test_files_do_not_depend_on_folders_or_processes(tree, capsys):
    assert run("compress -r in --output-dir a -q 70", capsys)[0] == 0
    assert cli.main("compress -r in --output-dir b -q 70 --jobs 3".split()) == 0
    assert digests("a") == digests("b")
    compress_file("in/photo.png", "one.vae", quality=70)
    compress_file("in/notes.txt", "two.vae")
    for single, from_folder in (("one.vae", "a/in/photo.vae"), ("two.vae", "a/in/notes.txt.vae")):
        assert read(single) == read(from_folder)


def test_outputs_beside_inputs_are_not_compressed_again(tree, capsys):
    before = digests("in")
    assert run("compress -r in", capsys)[1][-1] == "5 done, 0 failed"
    assert run("compress -r in", capsys)[1] == ["0 done, 5 unchanged, 0 failed"]
    assert len(files_below("in")) == 10 and before.items() <= digests("in").items()
    assert run("compress -r in --rm", capsys)[1][-1] == "5 done, 0 failed"
    assert all(path.endswith(".vae") for path in files_below("in"))
    assert run("decompress -r in --rm", capsys)[0] == 0
    assert digests("in").keys() == {path.replace("one.jpg", "one.png") for path in before}
    assert run("verify -r in", capsys) == (0, ["0 done, 0 failed"])


def test_a_second_run_processes_only_changed_files(tree, capsys):
    assert run("compress -r in --output-dir out", capsys)[0] == 0
    expected = digests("out")
    assert run("compress -r in --output-dir out", capsys) == (0, ["0 done, 5 unchanged, 0 failed"])
    os.remove("out/in/photo.vae")
    os.utime("out/in/notes.txt.vae")
    code, lines = run("compress -r in --output-dir out", capsys)
    assert code == 0 and lines[-1] == "2 done, 3 unchanged, 0 failed" and digests("out") == expected
    with open("in/notes.txt", "ab") as file:
        file.write(b"more")
    code, lines = run("compress -r in --output-dir out", capsys)
    assert code == 1 and lines[-1].endswith("out/in/notes.txt.vae exists already (-f overwrites it)")
    assert digests("out") == expected
    assert run("compress -r in --output-dir out -f", capsys)[0] == 0
    assert digests("out") != expected and run("verify -r out", capsys)[0] == 0
    assert run("compress -r in --output-dir out -q 20", capsys)[0] == 1  # other settings require other outputs


def test_foreign_files_are_not_overwritten(tree, capsys):
    os.makedirs("out/in")
    write("out/in/photo.vae", b"mine")
    code, lines = run("compress -r in --output-dir out", capsys)
    assert code == 1 and lines[-2] == "4 done, 1 failed:" and "photo.vae exists already" in lines[-1]
    assert read("out/in/photo.vae") == b"mine"


def test_failures_are_listed_at_the_end_and_other_files_are_processed(tree, capsys, monkeypatch):
    for name in ("in/long" + "g" * 249, "in/sub/" + "h" * 255):  # no room for .vae
        open(name, "wb").close()
    code, lines = run("compress -r in gone.txt --output-dir out", capsys)
    assert code == 1 and "5 done, 3 failed:" in lines
    end = lines[lines.index("5 done, 3 failed:") + 1 :]
    assert len(end) == 3 and sum("File name too long" in line for line in end) == 2
    assert "vaecodec: gone.txt: No such file or directory" in end
    assert len(files_below("out")) == 5


def test_json_has_one_object_per_file(tree, capsys):
    assert cli.main("compress -r in gone --output-dir out --json --only-images --jobs 1".split()) == 1
    *lines, summary = map(json.loads, capsys.readouterr().out.splitlines())
    records = {record["input"]: record for record in lines}
    assert len(records) == 6 and records["in/photo.png"]["output"] == "out/in/photo.vae"
    assert records["in/notes.txt"]["reason"] == "not an image" and "error" in records["gone"]
    counts = {"done": 2, "unchanged": 0, "skipped": 3, "failed": 1, "warnings": 0}
    assert {name: summary[name] for name in counts} == counts
    assert files_below("out") == ["in/photo.vae", "in/sub/deeper/one.vae"]


def test_colliding_names_are_distinguished(tree, capsys):
    Image.fromarray(synthetic_image(40, 50, 2)).save("in/photo.jpg")
    Image.fromarray(synthetic_image(40, 50, 3)).save("in/a.b.png")
    for name in ("in/a.b", "in/PHOTO.txt"):
        write(name, name.encode())
    code, _ = run("compress -r in --output-dir out -f --rm", capsys)
    assert code == 0 and files_below("in") == []
    names = ["PHOTO.txt.vae", "a.b.png.vae", "a.b.vae", "notes.txt.vae", "photo.jpg.vae", "photo.png.vae"]
    assert [path for path in files_below("out/in") if "/" not in path] == sorted(names)
    code, _ = run("decompress -r out --output-dir back -f --rm", capsys)
    assert code == 0 and files_below("out") == []
    names = ["PHOTO.txt", "a.b", "a.b.png", "notes.txt", "photo.jpg.png", "photo.png"]
    assert [path for path in files_below("back/out/in") if "/" not in path] == sorted(names)
    assert read("back/out/in/a.b") == b"in/a.b"


def test_a_resumed_run_chooses_the_names_of_an_uninterrupted_run(tree, capsys):
    os.makedirs("in/more")
    for folder in ("in", "in/more"):
        Image.fromarray(synthetic_image(20, 20)).save(f"{folder}/photo.png")
        write(f"{folder}/photo.txt", b"text")
    assert run("compress -r in --output-dir whole", capsys)[0] == 0
    settings = next(iter(folders.Manifest("whole").entries.values())).how
    os.makedirs("out/in/more")
    for source in ("in/photo.txt", "in/more/photo.txt"):
        os.link(f"whole/{source}.vae", f"out/{source}.vae")
        folders.append_entry("out", folders.entry_of("out", source, os.stat(source), settings, f"out/{source}.vae", 0))
        os.remove(source)
    assert run("compress -r --rm in --output-dir out", capsys)[0] == 0
    assert files_below("out") == files_below("whole")


def test_colliding_outputs_of_decompression_are_not_overwritten(tree, capsys):
    os.mkdir("vae")
    compress_file("in/photo.png", "vae/x.vae")
    compress_file("in/notes.txt", "vae/other.vae")
    for name in ("vae/x.png", "vae/y"):
        write(name, name.encode())
        compress_file(name, remove=True)
    os.rename("vae/y.vae", "vae/z.vae")
    code, lines = run("decompress -r vae --output-dir back -f --rm", capsys)
    assert code == 1 and lines[-2] == "3 done, 1 failed:"
    assert files_below("back/vae") == ["notes.txt", "x.png", "y"] and len(files_below("vae")) == 1


def test_two_folders_never_share_an_output(tree, capsys):
    for parent in ("a", "b"):
        os.makedirs(f"{parent}/same")
        write(f"{parent}/same/file", parent.encode())
    code, lines = run("compress -r a/same b/same a/same/. --output-dir out -f --rm", capsys)
    assert code == 1 and lines[-1] == "vaecodec: b/same: out/same already holds the outputs of a/same"
    assert files_below("b") == ["same/file"] and files_below("a") == [] and files_below("out") == ["same/file.vae"]
    for name in ("a/same/twice", "b/same/twice"):
        write(name, name.encode())
    code, lines = run("compress -r a/same/twice b/same/twice --output-dir named -f --rm", capsys)
    assert code == 1 and len(files_below("named")) == 1 and len(files_below("a")) + len(files_below("b")) == 2


def test_links_and_pipes_are_skipped(tree, capsys):
    os.symlink("..", "in/sub/loop")
    os.symlink("notes.txt", "in/link.txt")
    os.symlink("nowhere", "in/dangling")
    os.mkfifo("in/pipe")
    code, lines = run("compress -r in --output-dir in/out --rm", capsys)
    assert code == 0 and lines[-1] == "5 done, 4 warnings, 0 failed"
    assert sum("symbolic link, skipped" in line for line in lines) == 3
    assert sum("neither a file nor a folder" in line for line in lines) == 1
    assert len(files_below("in/out/in")) == 5 and os.path.islink("in/link.txt") and os.path.islink("in/dangling")
    code, lines = run("compress -r in --output-dir in/out", capsys)  # the outputs are below the inputs
    assert lines[-1] == "0 done, 4 warnings, 0 failed" and len(files_below("in/out")) == 5
    os.symlink("in", "named")
    code, lines = run("verify -r named", capsys)  # a link named on the command line is followed
    assert code == 0 and lines[-1] == "5 done, 4 warnings, 0 failed", lines


def test_folders_need_the_recursive_option(tree, capsys):
    assert run("compress in in/notes.txt", capsys)[0] == 1
    assert "in/notes.txt.vae" in map("in/{}".format, files_below("in"))
    with pytest.raises(IsADirectoryError):
        compress_file("in")


def test_verify_detects_damaged_missing_and_exchanged_files(tree, capsys):
    assert run("compress -r in --output-dir out", capsys)[0] == 0
    code, lines = run("verify -r out", capsys)
    assert code == 0 and lines[-1] == "5 done, 0 failed"
    with open("out/in/notes.txt.vae", "r+b") as file:
        file.seek(-20, 2)
        file.write(b"\0")
    os.remove("out/in/photo.vae")
    compress_file("in/notes.txt", "out/in/sub/nothing.vae", overwrite=True)
    code, lines = run("verify -r out", capsys)
    assert code == 1 and lines[-4] == "2 done, 3 failed:"
    assert "damaged" in "".join(lines[-3:]) or "does not match" in "".join(lines[-3:])
    assert "vaecodec: out/in/photo.vae: is missing" in lines[-3:]
    assert "vaecodec: out/in/sub/nothing.vae: is undamaged, but is not the file that was written there" in lines[-3:]


def without_root():
    """Drop capabilities 1 and 2 in a child before it runs, so that permissions apply to root too."""
    if os.geteuid() == 0:
        for capability in (1, 2):
            if ctypes.CDLL(None).prctl(24, capability, 0, 0, 0):  # PR_CAPBSET_DROP
                os._exit(99)


def test_files_without_permission_are_reported_and_others_processed(tree):
    os.makedirs("out/in/sub")
    restricted = {"in/empty": 0o300, "in/notes.txt": 0o200, "out/in/sub": 0o500}
    for name, mode in restricted.items():
        os.chmod(name, mode)
    command = [*COMMAND, "compress", "-r", "in", "--output-dir", "out", "--rm", "--jobs", "2"]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=without_root)
    for name in restricted:
        os.chmod(name, 0o700)
    if process.returncode == 99:
        pytest.skip("root cannot give its rights away here")
    assert process.returncode == 1
    failed = {line.split(": ")[1] for line in process.stderr.splitlines() if line.startswith("vaecodec: ")}
    assert failed == {"in/empty", "in/notes.txt", "in/sub/deeper", "in/sub/n\\udcff.bin", "in/sub/nothing"}
    assert files_below("out") == ["in/photo.vae"]
    assert files_below("in") == ["notes.txt", "sub/deeper/one.jpg", "sub/nothing", "sub/n\udcff.bin"]
    os.chmod("in", 0o500)  # no file can be created or removed beside the sources
    command = [*COMMAND, "compress", "-r", "in", "--rm", "--jobs", "2"]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=without_root)
    os.chmod("in", 0o700)
    assert process.returncode == 1 and "in/notes.txt" in process.stderr and os.path.exists("in/notes.txt")
    assert files_below("in/sub") == ["deeper/one.vae", "nothing.vae", "n\udcff.bin.vae"]
    compress_file("in/notes.txt")
    os.chmod("in/notes.txt.vae", 0o400)  # a file that is read-only may be replaced on request, as with mv -f
    assert compress_file("in/notes.txt", overwrite=True)["kind"] == "file"


def test_rm_keeps_sources_that_the_output_does_not_contain_completely(tree, capsys):
    Image.fromarray(synthetic_image(20, 20)).save("in/moving.jpg")
    write("in/moving.jpg", read("in/moving.jpg") + b"film")
    code, lines = run("compress -r in --output-dir out --rm", capsys)
    assert code == 1 and files_below("in") == ["moving.jpg"]
    assert lines[-1] == "vaecodec: in/moving.jpg: not removed, because out/in/moving.vae does not hold all of it"


def test_videos_appended_to_photographs_are_detected(tree, capsys):
    film = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 9
    for name, options in (
        ("a.jpg", {}),
        ("b.jpg", {"progressive": True}),
        ("c.jpg", {"restart_marker_blocks": 1}),
        ("d.png", {}),
    ):
        Image.fromarray(synthetic_image(40, 50)).save(name, **options)
        assert trailing_bytes(io.BytesIO(read(name))) == trailing_bytes(io.BytesIO(read(name) + bytes(9))) == 0
        write(name, read(name) + film)
        assert trailing_bytes(io.BytesIO(read(name))) == len(film) - 3
        code = cli.main(["compress", "--rm", name])
        lines = capsys.readouterr().err.splitlines()
        assert code == 1 and len(lines) == 2 and "after the end of the image are left out" in lines[0]
        assert lines[1] == f"vaecodec: {name}: not removed, because {name[0]}.vae does not hold all of it"
        assert read(name).endswith(film)


def test_damaged_images_are_stored_unchanged(tree, capsys):
    data = read("in/photo.png")
    write("in/photo.png", data[: len(data) // 2])
    code, lines = run("compress -r in --output-dir out --rm", capsys)
    assert code == 0 and sum("stored unchanged" in line for line in lines) == 1
    assert run("decompress -r out/in --output-dir back", capsys)[0] == 0
    assert read("back/in/photo.png") == data[: len(data) // 2]
    write("cut.png", data[:-30])
    assert cli.main("compress --only-images cut.png".split()) == 1 and not os.path.exists("cut.vae")


def test_images_of_every_kind_keep_their_kind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    rgb, drawing = synthetic_image(90, 80), np.zeros((70, 90, 3), np.uint8)
    drawing[::7], drawing[:, ::11] = (255, 200, 0), (0, 0, 255)
    alpha = np.tile(np.arange(80, dtype=np.uint8), (90, 1))
    Image.fromarray(rgb[..., 0]).save("in/grey.png")
    Image.fromarray(np.dstack([rgb, alpha])).save("in/alpha.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257 + 3).save("in/deep.png")
    Image.fromarray(drawing).save("in/drawing.png")
    code, errors = run("compress -r in --output-dir out --rm", capsys)
    assert code == 0, errors
    assert files_below("in") == []
    infos = {name: vaecodec.info(read(f"out/in/{name}")) for name in files_below("out/in")}
    assert {info["kind"] for info in infos.values()} == {"picture"}
    assert {name: (info["channels"], info["depth"]) for name, info in infos.items()} == {
        "alpha.vae": (4, 8),
        "deep.vae": (1, 16),
        "drawing.vae": (3, 8),
        "grey.vae": (1, 8),
    }
    assert (infos["deep.vae"]["coding"], infos["drawing.vae"]["coding"]) == ("vae", "lossless")
    assert run("verify -r out", capsys)[0] == 0
    assert run("decompress -r out/in --output-dir back", capsys)[0] == 0
    with Image.open("back/in/alpha.png") as image:
        assert image.mode == "RGBA" and np.array_equal(np.asarray(image)[..., 3], alpha)
    with Image.open("back/in/deep.png") as image:
        assert image.mode == "I;16" and np.abs(np.asarray(image) / 257 - rgb[..., 0]).mean() < 4
    with Image.open("back/in/drawing.png") as image:
        assert np.array_equal(np.asarray(image), drawing)
    with Image.open("back/in/grey.png") as image:
        assert image.mode == "L"


def test_raw_files_of_cameras_are_stored_unchanged(tree):
    Image.fromarray(synthetic_image(40, 50)).save("a.tif", tiffinfo={254: 1})
    Image.fromarray(synthetic_image(40, 50)).save("b.dng", format="TIFF", tiffinfo={50706: b"\1\4\0\0"})
    Image.fromarray(synthetic_image(40, 50)).save("c.tif")
    kinds = {name: compress_file(name)["kind"] for name in ("a.tif", "b.dng", "c.tif")}
    assert kinds == {"a.tif": "file", "b.dng": "file", "c.tif": "picture"}


def test_stored_names_never_replace_a_file(tree):
    compress_file("in/notes.txt", "cat.vae")
    write("notes.txt", b"mine")
    with pytest.raises(FileExistsError):
        decompress_file("cat.vae", overwrite=True)
    assert read("notes.txt") == b"mine"
    os.rename("cat.vae", "notes.txt.vae")
    assert decompress_file("notes.txt.vae", overwrite=True)["output"] == "notes.txt"
    assert read("notes.txt") != b"mine"


# The manifest


def test_a_damaged_manifest_loses_no_output(tree, capsys):
    assert run("compress -r in --output-dir out", capsys)[0] == 0
    expected, path = digests("out"), os.path.join("out", folders.MANIFEST_NAME)
    lines = read(path)
    for damaged in (
        lines[:-7],
        lines[:200],
        b"",
        b"\0" * 500,
        b"[1]\n{}\nnull\n" + lines[-300:],
        lines.replace(b'"', b""),
    ):
        write(path, damaged)
        code, _ = run("compress -r in --output-dir out", capsys)
        assert code == 0 and digests("out") == expected
        assert run("compress -r in --output-dir out", capsys)[1][-1] == "0 done, 5 unchanged, 0 failed"


def test_concurrent_runs_share_a_manifest(tree):
    command = [*COMMAND, "compress", "-r", "in", "--output-dir", "out", "--jobs", "1"]
    runs = [subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate()[1] and process.returncode for process in runs] == [0, 0, 0]
    assert len(files_below("out")) == 5
    assert len(folders.Manifest("out").entries) == 5


# The pool


def double(number):
    if number == 13 or (number == 7 and not os.path.exists("seven")):
        open("seven", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def test_a_killed_worker_loses_only_its_own_item(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    results = dict(runs.map_unordered(double, range(30), 3))
    assert results == {number: None if number == 13 else 2 * number for number in range(30)}


def test_items_are_taken_lazily():
    taken = []

    def numbers():
        for number in range(1000):
            taken.append(number)
            yield number

    with contextlib.closing(runs.map_unordered(abs, numbers(), 2)) as results:
        next(results)
    assert len(taken) < 20


def children(pid):
    """Return the child processes of a process."""
    out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True).stdout
    return [int(child) for child in out.split()]


def test_interrupting_starting_workers_prints_no_traceback(tree):
    command = [*COMMAND, "compress", "-r", "in", "--output-dir", "out", "--jobs", "2"]
    child = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
    interrupted = set()
    while not files_below("out") and child.poll() is None:  # Ctrl-C on a terminal, but only for the workers
        for pid in children(child.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
                interrupted.add(pid)
        time.sleep(0.01)
    assert b"Traceback" not in child.communicate()[1] and child.returncode == 0
    assert len(interrupted) >= 2 and len(files_below("out")) == 5


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_interrupted_runs_leave_no_process_and_no_partial_file(tree, number, code):
    with open("in/large", "wb") as file:
        for seed in range(60):
            file.write(np.random.default_rng(seed).bytes(1 << 20))
    command = [*COMMAND, "compress", "-r", "in", "--output-dir", "out", "--jobs", "2"]
    child = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE)
    while not files_below("out"):  # until some files are complete and the large one is in progress
        time.sleep(0.01)
    workers = children(child.pid)
    child.send_signal(number)
    assert b"Traceback" not in child.communicate()[1] and child.returncode == code
    for _ in range(1000):
        if not any(os.path.exists(f"/proc/{pid}/fd/0") for pid in workers):
            break
        time.sleep(0.01)
    else:
        pytest.fail("a process is left")
    assert not [path for path in files_below("out") if path.endswith(".tmp")]
    process = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert process.returncode == 0 and len(files_below("out")) == 6
