"""Test the command line: files, messages, refusals and exit status."""

import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import vaecodec
from support.commands import COMMAND, ENVIRONMENT
from support.images import synthetic_image
from vaecodec import cli
from vaecodec.cli.parser import make_parser
from vaecodec.codec import Codec
from vaecodec.config import PRESETS
from vaecodec.container import image_file
from vaecodec.errors import FormatError
from vaecodec.progress import format_bytes
from vaecodec.threads import available_cores


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, which contains photo.png."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(synthetic_image(50, 70)).save("photo.png")
    return tmp_path


@pytest.fixture
def vae_bytes(folder):
    """photo.vae beside photo.png, as bytes."""
    assert cli.main(["compress", "--quiet", "photo.png"]) == 0
    return (folder / "photo.vae").read_bytes()


def file_names():
    return sorted(os.listdir("."))


def set_stdin(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def run(*arguments, **options):
    return subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, capture_output=True, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("-q good", "-q/--quality: good is not in 1..100"),
        ("-q 0", "-q/--quality: 0 is not in 1..100"),
        ("--target-bpp nan", "--target-bpp: nan is not a number above 0"),
        ("--target-size 20kk", "--target-size: 20kk is not a size such as 20000, 20k or 64Ki"),
        ("--effort 2.5", "--effort: 2.5 is not a whole number in 1..9"),
        ("--max-error 17", "--max-error: 17 is not a whole number in 1..16"),
        ("--threads two", "--threads: two is not a whole number of 1 or more"),
    ],
)
def test_wrong_values_are_named_with_what_is_expected(folder, options, message, capsys):
    assert cli.main(["compress", "photo.png", *options.split()]) == 2
    assert capsys.readouterr().err.endswith(f"vaecodec compress: error: argument {message}\n")
    assert file_names() == ["photo.png"]


# Files


def test_compress_and_decompress_round_trip(folder, capsys):
    assert cli.main(["compress", "photo.png"]) == 0
    output = capsys.readouterr()
    size = os.path.getsize("photo.vae")
    line = rf"photo\.png: {format_bytes(os.path.getsize('photo.png'))} -> photo\.vae, {format_bytes(size)}"
    line += rf" \({8 * size / 3500:.3f} bits per pixel\), \d+\.\d\d s\n"
    assert re.fullmatch(line, output.err) and output.out == ""
    assert cli.main(["decompress", "photo.vae", "-o", "back.ppm"]) == 0
    with Image.open("back.ppm") as image:
        assert image.format == "PPM"
        codec = vaecodec.load()
        np.testing.assert_array_equal(np.asarray(image), codec.decode(codec.encode(synthetic_image(50, 70))))
    assert file_names() == ["back.ppm", "photo.png", "photo.vae"]


def test_quiet_suppresses_all_output(folder, capfd):
    assert cli.main(["compress", "--quiet", "photo.png"]) == 0
    assert capfd.readouterr() == ("", "")


def test_quality_and_strip_are_applied(folder):
    exif = Image.Exif()
    exif[0x010F] = "Acme"
    Image.fromarray(synthetic_image(50, 70)).save("photo.png", exif=exif)
    assert cli.main(["compress", "-q", "12.5", "photo.png"]) == 0
    info = image_file.info((folder / "photo.vae").read_bytes())
    assert abs(info["quality"] - 12.5) < 0.1 and info["metadata"] == ["exif"]
    assert cli.main(["compress", "-f", "--strip", "photo.png"]) == 0
    assert image_file.info((folder / "photo.vae").read_bytes())["metadata"] == []


def test_window_crops_the_image(vae_bytes):
    assert cli.main(["decompress", "photo.vae", "-o", "whole.png"]) == 0
    assert cli.main(["decompress", "photo.vae", "-o", "part.png", "--window", "10,20,30,40"]) == 0
    image, part = (np.asarray(Image.open(name)) for name in ("whole.png", "part.png"))
    np.testing.assert_array_equal(part, image[10:40, 20:60])


def test_windows_outside_the_image_are_refused(vae_bytes, capsys):
    assert cli.main(["decompress", "photo.vae", "-o", "part.png", "--window", "40,0,11,1"]) == 1
    assert re.fullmatch(r"vaecodec: photo\.vae: window .*\n", capsys.readouterr().err)
    assert file_names() == ["photo.png", "photo.vae"]


def test_existing_output_needs_force(vae_bytes, folder, capsys):
    (folder / "photo.vae").write_bytes(b"old")
    assert cli.main(["compress", "photo.png"]) == 1
    assert capsys.readouterr().err == "vaecodec: photo.png: photo.vae exists already (-f overwrites it)\n"
    assert (folder / "photo.vae").read_bytes() == b"old"
    assert cli.main(["compress", "-f", "photo.png"]) == 0
    assert (folder / "photo.vae").read_bytes() == vae_bytes


def test_input_is_never_the_output(folder, capsys):
    before = (folder / "photo.png").read_bytes()
    os.rename("photo.png", "photo")
    assert cli.main(["compress", "-f", "photo", "-o", "./photo"]) == 1
    os.rename("photo", "photo.png")
    assert "same file" in capsys.readouterr().err and (folder / "photo.png").read_bytes() == before


def test_failed_inputs_do_not_stop_the_others(folder, capsys):
    (folder / "notes.png").write_bytes(b"not an image")
    Image.fromarray(synthetic_image(50, 70)[:20]).save("other.jpg")
    (folder / "out").mkdir()
    assert cli.main(["compress", "photo.png", "notes.png", "gone.png", "other.jpg", "-o", "out"]) == 1
    lines = capsys.readouterr().err.splitlines()
    summary = lines.pop()
    assert re.match(r"3 done, 1 failed; .* -> .* \(\d+ %\), \d+\.\d\d s$", summary)
    assert [line.split(": ")[0] for line in lines] == ["photo.png", "notes.png", "vaecodec", "other.jpg"]
    assert lines[2] == "vaecodec: gone.png: No such file or directory"
    assert sorted(os.listdir("out")) == ["notes.png.vae", "other.vae", "photo.vae"]


def test_output_may_be_a_folder(vae_bytes, folder):
    (folder / "out").mkdir()
    assert cli.main(["decompress", "photo.vae", "-o", "out"]) == 0
    assert os.listdir("out") == ["photo.png"]


def test_two_inputs_never_share_an_output(folder, capsys):
    os.mkdir("other")
    Image.fromarray(synthetic_image(50, 70)[:20]).save("other/photo.jpg")
    os.mkdir("out")
    assert cli.main(["compress", "-f", "--rm", "photo.png", "other/photo.jpg", "-o", "out"]) == 0
    assert sorted(os.listdir("out")) == ["photo.jpg.vae", "photo.png.vae"] and file_names() == ["other", "out"]
    os.rename("out/photo.jpg.vae", "other/photo.png.vae")
    assert cli.main(["decompress", "-f", "--rm", "out/photo.png.vae", "other/photo.png.vae", "-o", "."]) == 1
    assert "photo.png is the output of out/photo.png.vae already" in capsys.readouterr().err
    assert file_names() == ["other", "out", "photo.png"] and os.listdir("other") == ["photo.png.vae"]


def test_inputs_of_one_stem_get_names_of_their_own(folder):
    Image.fromarray(synthetic_image(50, 70)[:20]).save("photo.jpg")
    (folder / "notes.txt").write_text("notes")
    assert cli.main(["compress", "photo.png", "photo.jpg", "notes.txt"]) == 0
    names = ["notes.txt.vae", "photo.jpg.vae", "photo.png.vae"]
    assert [name for name in file_names() if name.endswith(".vae")] == names
    assert vaecodec.info("photo.jpg.vae").height == 20
    os.mkdir("folder")
    os.mkdir("tree")
    for name in ("photo.png", "photo.jpg", "notes.txt"):
        os.rename(name, f"tree/{name}")
    assert cli.main(["compress", "-r", "tree", "--output-dir", "folder", "-j", "1"]) == 0
    assert [name for name in sorted(os.listdir("folder/tree")) if not name.startswith(".")] == names


def test_the_output_may_follow_the_input(vae_bytes, folder):
    assert cli.main(["compress", "photo.png", "out.vae"]) == 0
    assert (folder / "out.vae").read_bytes() == vae_bytes
    assert cli.main(["compress", "photo.png", "out.vae"]) == 1  # exists already
    assert cli.main(["compress", "-f", "-q", "20", "photo.png", "out.vae"]) == 0
    assert (folder / "out.vae").read_bytes() != vae_bytes
    assert cli.main(["decompress", "photo.vae", "back.webp"]) == 0
    with Image.open("back.webp") as image:
        assert image.format == "WEBP"
    assert cli.main(["decompress", "photo.vae", "out.vae", "-f"]) == 0  # two inputs
    assert file_names() == ["back.webp", "out.png", "out.vae", "photo.png", "photo.vae"]


@pytest.mark.parametrize("name", ["out.jxl", "out.jpg", "OUT.PNG", "sub/out.avif"])
def test_outputs_of_compress_have_no_suffix_of_another_format(folder, capsys, name):
    assert cli.main(["compress", "photo.png", "-o", name]) == 2
    hint = f"name the output {os.path.splitext(name)[0]}.vae instead of {name}"
    assert hint in capsys.readouterr().err and file_names() == ["photo.png"]


def test_a_second_name_with_the_suffix_of_another_format_is_no_input(folder, capsys):
    assert cli.main(["compress", "photo.png", "out.jxl"]) == 2
    error = "out.jxl does not exist, and compress writes .vae files; name an output out.vae\n"
    assert capsys.readouterr().err.endswith(error) and file_names() == ["photo.png"]
    assert cli.main(["compress", "photo.png", "gone.png"]) == 1  # an input that is missing
    assert file_names() == ["photo.png", "photo.vae"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("20000", 20000), ("20k", 20000), ("20kB", 20000), ("1.5M", 1500000), ("2Ki", 2048), ("9 KiB", 9216)],
)
def test_sizes_have_units(text, size):
    assert make_parser().parse_args(["compress", "a.png", "--target-size", text]).target_size == size


@pytest.mark.parametrize("text", ["20x", "k", "-5", "0", "1e3", "2 0", ""])
def test_other_sizes_are_usage_errors(folder, capsys, text):
    assert cli.main(["compress", "photo.png", f"--target-size={text}"]) == 2
    assert "--target-size" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(vae_bytes, folder, capsys):
    (folder / "notes.txt").write_text("notes")
    os.mkdir("out")
    before = file_names()
    assert cli.main(["compress", "--dry-run", "photo.png", "notes.txt", "gone.png", "-o", "out"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["photo.png -> out/photo.vae", "notes.txt -> out/notes.txt.vae"]
    assert lines[2:] == ["vaecodec: gone.png: No such file or directory"]
    assert cli.main(["compress", "--dry-run", "photo.png"]) == 1
    assert capsys.readouterr().err == "vaecodec: photo.png: photo.vae exists already (-f overwrites it)\n"
    assert cli.main(["decompress", "--dry-run", "--json", "photo.vae", "back.webp"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["status"], record["output"]) == ("planned", "back.webp")
    assert file_names() == before and not os.listdir("out")


@pytest.mark.parametrize("value", ["abc", "0", "-1", "1.5"])
def test_a_wrong_number_of_threads_in_the_environment_is_an_error(folder, monkeypatch, capsys, value):
    monkeypatch.setenv("VAECODEC_THREADS", value)
    assert cli.main(["compress", "photo.png"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"VAECODEC_THREADS is {value!r}, expected a whole number of 1 or more" in error
    with pytest.raises(vaecodec.CodecError, match="VAECODEC_THREADS"):
        available_cores()
    monkeypatch.setenv("VAECODEC_THREADS", "3")
    assert available_cores() == 3


def test_rm_removes_inputs_and_keep_overrides_it(folder):
    assert cli.main(["compress", "--rm", "photo.png"]) == 0
    assert file_names() == ["photo.vae"]
    assert cli.main(["decompress", "--rm", "-k", "photo.vae"]) == 0
    assert file_names() == ["photo.png", "photo.vae"]


def test_rm_keeps_inputs_whose_output_does_not_verify(folder, monkeypatch, capsys):
    def fails(self, data, *_):
        raise FormatError("tile 0 is damaged")

    monkeypatch.setattr(Codec, "verify", fails)
    assert cli.main(["compress", "--rm", "photo.png"]) == 1
    assert capsys.readouterr().err == "vaecodec: photo.png: tile 0 is damaged\n" and "photo.png" in file_names()


def test_warnings_take_one_line_and_name_the_file(folder, capsys):
    with open("photo.png", "ab") as file:
        file.write(b"film")
    assert cli.main(["compress", "photo.png"]) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first == "photo.png: warning: 4 bytes after the end of the image are left out"
    assert second.startswith("photo.png: ")


def test_control_characters_in_names_are_escaped(folder, capsys):
    name = "a\nvaecodec: \x1b[2Jb\udcff.png"
    assert cli.main(["compress", name]) == 1
    assert capsys.readouterr().err == "vaecodec: a\\nvaecodec: \\x1b[2Jb\\udcff.png: No such file or directory\n"


def test_names_outside_the_encoding_are_escaped(vae_bytes, folder):
    (folder / "\u00e9t\u00e9.vae").write_bytes(vae_bytes)
    process = subprocess.run(
        [*COMMAND, "info", "\u00e9t\u00e9.vae"], env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"}, capture_output=True
    )
    assert process.returncode == 0 and process.stdout.startswith(b"\\xe9t\\xe9.vae: ")


# Streams


def test_standard_streams_carry_images(folder, vae_bytes):
    compressed = run("compress", "-", input=(folder / "photo.png").read_bytes())
    assert (compressed.returncode, compressed.stdout) == (0, vae_bytes)
    decompressed = run("decompress", "--quiet", "-c", "photo.vae")
    assert (decompressed.returncode, decompressed.stderr) == (0, b"")
    pixels = np.asarray(Image.open(io.BytesIO(decompressed.stdout)))
    np.testing.assert_array_equal(pixels, vaecodec.load().decode(vae_bytes))
    assert file_names() == ["photo.png", "photo.vae"]


def test_stdin_can_be_compressed_to_a_file(folder, vae_bytes, monkeypatch):
    set_stdin(monkeypatch, (folder / "photo.png").read_bytes())
    assert cli.main(["compress", "-", "-o", "other.vae"]) == 0
    assert (folder / "other.vae").read_bytes() == vae_bytes


def test_stderr_has_one_line_and_none_from_libraries(folder):
    process = run("compress", "photo.png")
    assert process.returncode == 0 and process.stderr.count(b"\n") == 1 and process.stderr.startswith(b"photo.png: ")
    assert (
        run("verify", "photo.vae").stderr.decode() == f"photo.vae: ok, {format_bytes(os.path.getsize('photo.vae'))}\n"
    )


def status_without_streams(*arguments, close="2>&-"):
    words = shlex.join([*COMMAND, *arguments])
    return subprocess.run(["sh", "-c", f"exec {words} {close}"], env=ENVIRONMENT, stdout=subprocess.PIPE).returncode


@pytest.mark.parametrize("close", ["2>&-", "0<&- 2>&-", "0<&- 1>&- 2>&-"])
def test_commands_work_without_standard_streams(folder, close):
    assert status_without_streams("compress", "photo.png", close=close) == 0
    assert status_without_streams("verify", "photo.vae", close=close) == 0
    assert status_without_streams("info", "photo.vae", close=close) == 0
    assert status_without_streams("decompress", "photo.vae", "-o", "back.png", close=close) == 0
    assert status_without_streams("compress", "photo.png", close=close) == 1  # the output exists
    assert status_without_streams("compress", close=close) == 2
    os.mkdir("folder")
    os.rename("photo.png", "folder/photo.png")
    assert status_without_streams("compress", "-r", "-j", "2", "folder", close=close) == 0
    with open("photo.vae", "rb") as file, open("folder/photo.vae", "rb") as file_from_folder:
        assert file.read() == file_from_folder.read()
    with Image.open("back.png") as image:
        np.testing.assert_array_equal(np.asarray(image), vaecodec.decode((folder / "photo.vae").read_bytes()))


def test_a_library_works_without_standard_error(folder, vae_bytes):
    code = "import os, sys; os.close(2); sys.stderr = None; import vaecodec;"
    code += "from vaecodec.files.compression import compress_file;"
    code += "compress_file('photo.png', 'again.vae', threads=1); vaecodec.decode(open('again.vae', 'rb').read())"
    assert subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT).returncode == 0
    assert (folder / "again.vae").read_bytes() == vae_bytes


@pytest.mark.parametrize("arguments", [["info", "photo.vae"], ["compress", "-c", "photo.png"]])
def test_a_full_disk_is_reported_in_one_line(vae_bytes, arguments):
    with open("/dev/full", "wb") as full:
        process = subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, stdout=full, stderr=subprocess.PIPE)
    assert process.returncode == 1
    assert process.stderr.count(b"\n") == 1 and b"No space left on device" in process.stderr


@pytest.mark.parametrize("arguments", [["info", "photo.vae"], ["--help"], ["decompress", "-c", "photo.vae"]])
def test_a_closed_pipe_causes_no_message(vae_bytes, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (process.returncode, process.stderr) == (1, b"")


def on_terminal(arguments, *streams):
    """Run a command with the named streams on a terminal; return exit status, terminal output and standard error."""
    import pty  # not on Windows

    controller, terminal = pty.openpty()
    ends = {name: terminal if name in streams else subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    child = subprocess.Popen([*COMMAND, *arguments], env=ENVIRONMENT, **ends)
    outputs = child.communicate()
    os.close(terminal)
    screen = b""
    try:
        while block := os.read(controller, 65536):
            screen += block
    except OSError:  # Linux raises this at the end of a terminal
        pass
    os.close(controller)
    return child.returncode, screen, outputs[1] or b""


@pytest.mark.parametrize("arguments", [["compress", "-"], ["decompress", "-", "-o", "a.png"], ["info", "-"]])
def test_images_are_not_read_from_a_terminal(folder, arguments):
    code, _, error = on_terminal(arguments, "stdin")
    assert code == 2 and b"standard input is a terminal" in error


def test_images_are_written_to_a_terminal_only_with_force(vae_bytes):
    code, screen, error = on_terminal(["compress", "-c", "photo.png"], "stdout")
    assert (code, screen) == (2, b"") and b"standard output is a terminal" in error
    code, screen, error = on_terminal(["compress", "-c", "-f", "photo.png"], "stdout")
    assert code == 0 and b"HEAD" in screen


def test_progress_is_shown_only_on_terminals(folder):
    code, screen, _ = on_terminal(["compress", "photo.png"], "stderr")
    assert code == 0 and screen.startswith(b"\r\x1b[Kphoto.png\r\x1b[K")
    code, screen, _ = on_terminal(["compress", "-f", "--quiet", "photo.png"], "stderr")
    assert (code, screen) == (0, b"")
    assert b"\r" not in run("compress", "-f", "photo.png").stderr


# Signals


@pytest.fixture
def blocked_child(folder):
    """A child that blocks while it reads a.fifo, because the other end is open."""
    os.mkfifo("a.fifo")
    child = subprocess.Popen([*COMMAND, "info", "a.fifo"], env=ENVIRONMENT, stderr=subprocess.PIPE)
    with open("a.fifo", "wb"):  # returns when the child opens it
        yield child
    child.wait()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_commands_without_a_traceback(blocked_child, number, code):
    blocked_child.send_signal(number)
    assert blocked_child.communicate() == (None, b"") and blocked_child.returncode == code


@pytest.mark.parametrize("exception", [KeyboardInterrupt, SystemExit])
def test_interrupted_commands_leave_no_files(folder, monkeypatch, exception):
    before = signal.getsignal(signal.SIGTERM)

    def interrupted(descriptor):
        raise exception(143)

    monkeypatch.setattr(os, "fsync", interrupted)
    assert cli.main(["compress", "photo.png"]) == {KeyboardInterrupt: 130, SystemExit: 143}[exception]
    assert file_names() == ["photo.png"] and signal.getsignal(signal.SIGTERM) is before


# JSON


def test_json_has_one_line_per_input(folder, capsys):
    assert cli.main(["compress", "--json", "gone.png", "photo.png"]) == 1
    output = capsys.readouterr()
    failure, success, summary = map(json.loads, output.out.splitlines())
    about = {"schema": 1, "command": "compress"}
    error = {"input": "gone.png", "error": "No such file or directory"}
    assert failure == {**about, "status": "failed", **error}
    assert output.err == "vaecodec: gone.png: No such file or directory\n"
    assert summary["status"] == "summary" and (summary["done"], summary["failed"]) == (1, 1)
    size = os.path.getsize("photo.vae")
    assert success.pop("seconds") > 0
    assert success == {
        **about,
        "status": "done",
        "input": "photo.png",
        "output": "photo.vae",
        "kind": "picture",
        "width": 70,
        "height": 50,
        "bytes": size,
        "image_bytes": os.path.getsize("photo.png"),
        "bpp": 8 * size / 3500,
    }


def test_info_verify_and_models_print_json(vae_bytes, capsys):
    model = vaecodec.load().model.id
    assert cli.main(["info", "--json", "photo.vae"]) == 0
    about = {"schema": 1, "command": "info", "status": "done", "input": "photo.vae", "model_name": "base"}
    assert json.loads(capsys.readouterr().out) == {**about, **image_file.info(vae_bytes)}
    assert cli.main(["verify", "--json", "photo.vae"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "schema": 1,
        "command": "verify",
        "status": "done",
        "input": "photo.vae",
        "ok": True,
        "kind": "picture",
        "bytes": len(vae_bytes),
    }
    assert cli.main(["models", "--json"]) == 0
    [base] = [record for line in capsys.readouterr().out.splitlines() if (record := json.loads(line))["name"] == "base"]
    assert (base["model"], base["from"]) == (model, "shipped") and "photographs" in base["summary"]


# info, verify, models


def test_info_prints_one_line(vae_bytes, capsys, monkeypatch):
    assert cli.main(["info", "photo.vae"]) == 0
    output = capsys.readouterr()
    size = f"{format_bytes(len(vae_bytes))} ({8 * len(vae_bytes) / 3500:.3f} bits per pixel)"
    assert output == (f"photo.vae: 70 x 50 pixels, RGB, quality 75, {size}, model base\n", "")
    assert cli.main(["info", "-v", "photo.vae"]) == 0
    assert f"model id {vaecodec.load().model.id}" in capsys.readouterr().out
    set_stdin(monkeypatch, vae_bytes)
    assert cli.main(["info", "-"]) == 0
    assert capsys.readouterr().out == "-" + output.out.removeprefix("photo.vae")


def test_info_names_the_kind_of_image(folder, capsys):
    alpha = np.zeros((50, 70), np.uint8)
    alpha[:, 9:] = 255
    Image.fromarray(np.dstack([synthetic_image(50, 70), alpha])).save("alpha.png")
    Image.fromarray(synthetic_image(50, 70)[..., 0].astype(np.uint16)).save("deep.png", dpi=(72, 72))
    assert cli.main(["compress", "--quiet", "alpha.png"]) == 0
    assert cli.main(["compress", "--quiet", "--lossless", "deep.png"]) == 0
    assert cli.main(["info", "alpha.vae", "deep.vae"]) == 0
    alpha, deep = capsys.readouterr().out.splitlines()
    assert re.match(r"alpha.vae: 70 x 50 pixels, RGBA, quality 75, \d+ bytes \(.* pixel\), model base$", alpha)
    assert re.match(r"deep.vae: 70 x 50 pixels, grey of 9 bits, lossless, .* \(.*\), resolution$", deep)
    assert cli.main(["verify", "alpha.vae", "deep.vae"]) == 0
    assert cli.main(["decompress", "-f", "alpha.vae", "deep.vae"]) == 0
    assert Image.open("alpha.png").mode == "RGBA" and Image.open("deep.png").mode == "I;16"
    assert cli.main(["decompress", "-f", "alpha.vae", "-o", "alpha.jpg"]) == 1
    assert "cannot hold transparency" in capsys.readouterr().err and not os.path.exists("alpha.jpg")


def test_verify_detects_damage_of_any_byte(vae_bytes, folder, capsys):
    assert cli.main(["verify", "photo.vae"]) == 0
    assert capsys.readouterr().err == f"photo.vae: ok, {format_bytes(len(vae_bytes))}\n"
    for position in range(0, len(vae_bytes), 11):
        damaged = bytearray(vae_bytes)
        damaged[position] ^= 0x10
        (folder / "bad.vae").write_bytes(damaged)
        assert cli.main(["verify", "bad.vae"]) == 1
        assert re.fullmatch(r"vaecodec: bad\.vae: [^\n]+\n", capsys.readouterr().err)


def test_missing_models_are_reported_once(vae_bytes, folder, capsys):
    assert cli.main(["compress", "-m", "nobody", "photo.png", "gone.png"]) == 1
    assert re.fullmatch(r"vaecodec: nobody: [^\n]+\n", capsys.readouterr().err)
    foreign = bytearray(vae_bytes)
    header = image_file.parse(vae_bytes).header
    foreign = vae_bytes.replace(bytes.fromhex(header.model), bytes(16))
    start = vae_bytes.index(b"HEAD")
    length = int.from_bytes(vae_bytes[start - 4 : start], "little")
    crc = zlib.crc32(foreign[start : start + 4 + length]).to_bytes(4, "little")
    (folder / "foreign.vae").write_bytes(foreign[: start + 4 + length] + crc + foreign[start + 8 + length :])
    assert cli.main(["decompress", "foreign.vae"]) == 1
    assert "0" * 32 in capsys.readouterr().err


def test_models_lists_the_shipped_models(capsys):
    assert cli.main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"base        {vaecodec.load().model.id}  for photographs: the default" in lines
    assert all(len(line.split("  ", 2)[-1]) > 20 for line in lines)
    assert cli.main(["models", "show", "small"]) == 0
    assert "What it is not for" in capsys.readouterr().out


# Usage


@pytest.mark.parametrize(
    "line",
    [
        "",
        "shrink photo.png",
        "compress",
        "compress -q 0 photo.png",
        "compress -q 100.5 photo.png",
        "compress -q nan photo.png",
        "compress -q best photo.png",
        "compress a.png b.png -o c.vae",
        "compress a.png b.png -c",
        "compress a.png - ",
        "compress photo.png -o nowhere/",
        "compress - -o .",
        "compress -c -o a.vae photo.png",
        "compress --rm -c photo.png",
        "compress --rm - -o a.vae",
        "compress --json -c photo.png",
        "compress --qual 50 photo.png",
        "decompress --window 1,2,3 photo.vae",
        "decompress --window=-1,0,3,3 photo.vae",
        "decompress --window 0,0,0,3 photo.vae",
        "decompress --window a,0,0,3 photo.vae",
        "decompress --rm --window 0,0,8,8 photo.vae",
        "info",
        "train --out run",
        "train photos",
        "train photos --out run --export-step step",
        "train --out run --export-step a --import-state b",
        "train --out run --import-state a --from other",
        "train a --out run --hard",
        "train photos --out run --batch 0",
        "freeze run",
    ],
)
def test_usage_errors_exit_with_2_and_change_no_file(folder, monkeypatch, capsys, line):
    set_stdin(monkeypatch, b"")
    assert cli.main(line.split()) == 2
    output = capsys.readouterr()
    assert output.err.startswith("usage: vaecodec") and output.out == ""
    assert file_names() == ["photo.png"]


def test_help_and_version_are_printed(capsys):
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert "exit status" in text and all(re.search(rf"^ +{command}\b", text, re.M) for command in cli.MODULES)
    for name in ("compress", "decompress", "info", "verify", "models", "train", "freeze"):
        assert name in text
        assert cli.main([name, "--help"]) == 0
    capsys.readouterr()
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"vaecodec {vaecodec.__version__}\n"


HEAVY = """
import sys
import zlib
from vaecodec import cli
code = cli.main(sys.argv[1:])
imported = {"numpy", "PIL", "tensorflow", "safetensors", "backports", "shtab"} & set(sys.modules)
sys.exit(f"imported {sorted(imported)}" if imported else code)
"""


@pytest.mark.parametrize("line", ["--help", "compress --help", "--version", "info photo.vae", "models", "filetype xml"])
def test_commands_without_pixels_import_no_libraries(vae_bytes, line):
    process = subprocess.run([sys.executable, "-c", HEAVY, *line.split()], env=ENVIRONMENT, capture_output=True)
    assert (process.returncode, process.stderr) == (0, b"") and process.stdout


# Training


def test_training_without_tensorflow_names_the_extra(folder, monkeypatch, capsys):
    for module in [name for name in sys.modules if name.startswith("vaecodec.training")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delattr(vaecodec, "training", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    for line in ("train photo.png --out run", "freeze run -o a.vcm"):
        assert cli.main(line.split()) == 1
        assert re.fullmatch(
            r"vaecodec: \w+: needs more packages: pip install 'vaecodec\[train\]' [^\n]+\n", capsys.readouterr().err
        )
    assert file_names() == ["photo.png"]


@pytest.fixture
def train_calls(monkeypatch):
    """Replace training, and return the list of its calls."""
    from vaecodec.training import loop

    calls = []

    def train(paths, run, config, options, start=None, devices=1, start_name="", validate=None, say=None):
        assert devices == 1
        calls.append((paths, run, config, options, start))
        return loop.Outcome({"bpp": 0.5, "psnr": float("nan")}, 7, True)

    monkeypatch.setattr(loop, "train", train)
    return calls


def test_train_passes_its_options_on(folder, train_calls, capsys):
    from vaecodec.training.loop import Options

    line = "train a b.tar --out run --minutes 2.5 --steps 7 --batch 3 --crop 64 --rate 0.01 --seed 5 --json"
    assert cli.main(line.split()) == 0
    options = Options(minutes=2.5, steps=7, batch=3, crop=64, rate=0.01, seed=5)
    assert train_calls == [(["a", "b.tar"], "run", PRESETS["small"], options, None)]
    record = json.loads(capsys.readouterr().out)
    assert (record["run"], record["bpp"], "psnr" in record) == ("run", 0.5, False)
    assert (record["steps"], record["complete"]) == (7, True)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"]


def test_a_run_goes_on_with_its_own_options(folder, train_calls, capsys):
    from vaecodec import training
    from vaecodec.training import loop

    own = loop.Options(minutes=90.0, batch=2, seed=5)
    checkpoints_of_run = PRESETS["small"], own, training.initial_state(PRESETS["small"]), {"steps": 3, "seconds": 1.0}
    os.makedirs("run")
    training.save_checkpoint("run", *checkpoints_of_run, "other.vcm")
    assert cli.main(["train", "a", "--out", "run"]) == 0
    assert cli.main(["train", "a", "--out", "run", "--minutes", "90", "--from", "other.vcm"]) == 0
    assert [call[2:4] for call in train_calls] == [(PRESETS["small"], train_calls[0][3])] * 2
    assert (train_calls[0][3].minutes, train_calls[0][3].batch, train_calls[0][3].seed) == (90.0, 2, 5)
    capsys.readouterr()
    for change, message in (
        (["--minutes", "60"], "begun with minutes 90.0 (not 60.0); add --override"),
        (["--preset", "base"], "contains a run of another architecture, small"),
        (["--from", "small"], "started from other.vcm, not small"),
    ):
        assert cli.main(["train", "a", "--out", "run", *change]) == 1
        assert message in capsys.readouterr().err
    assert cli.main(["train", "a", "--out", "run", "--minutes", "60", "--override"]) == 0
    assert len(train_calls) == 3 and train_calls[2][3].minutes == 60 and train_calls[2][3].batch == 2
    assert "Next: vaecodec freeze run -o run.vcm" in capsys.readouterr().err


def test_train_from_uses_the_architecture_of_the_checkpoint(folder, train_calls, monkeypatch, capsys):
    from vaecodec import training
    from vaecodec.config import Config

    config, weights = Config(fine=32), {"w": np.zeros(1)}
    monkeypatch.setattr(training, "averaged_weights", lambda path: (config, weights))
    assert cli.main(["train", "a", "--out", "run", "--from", "other"]) == 0
    assert train_calls[0][2] == config and train_calls[0][4] is weights
    assert cli.main(["train", "a", "--out", "run", "--from", "other", "--preset", "small"]) == 1
    assert cli.main(["train", "a", "--out", "run", "--preset", "huge"]) == 1
    error = capsys.readouterr().err
    assert "unknown preset 'huge' (known: small, base, digits)" in error and len(train_calls) == 1


def test_train_from_a_colour_model_in_grey(folder, train_calls, capsys):
    pytest.importorskip("tensorflow")
    for source in ("small", "base"):
        assert cli.main(["train", "a", "--out", f"{source}.run", "--from", source, "--channels", "1"]) == 0
        config, weights = train_calls[-1][2], train_calls[-1][4]
        assert config == replace(PRESETS[source], channels=1) and weights["start"].shape == (8, 2)
    assert cli.main(["train", "a", "--out", "run", "--from", "small", "--channels", "5"]) == 1
    assert cli.main(["train", "a", "--out", "run", "--from", "small", "--preset", "base", "--channels", "1"]) == 1
    error = capsys.readouterr().err
    assert "small does not have the architecture small with channels 5" in error
    assert "small does not have the architecture base with channels 1" in error and len(train_calls) == 2


def test_train_exports_the_step_and_imports_its_state(folder, train_calls, monkeypatch):
    from vaecodec import training
    from vaecodec.training import train_step
    from vaecodec.training.train_step import Options

    calls = []
    monkeypatch.setattr(training, "resume", lambda run, *_: (run, {}))
    monkeypatch.setattr(train_step, "export_step", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(training, "import_state", lambda *arguments: calls.append(arguments))
    assert cli.main(["train", "--out", "run", "--export-step", "step", "--batch", "2"]) == 0
    assert cli.main(["train", "--out", "run", "--import-state", "step"]) == 0
    small = PRESETS["small"]
    out = (small, Options(batch=2), "step", "run", False)
    assert calls == [out, ("step", "run", small, Options())] and not train_calls


def test_help_of_train_shows_the_actual_defaults(capsys):
    from vaecodec.training.loop import Options

    assert cli.main(["train", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in ("minutes", "batch", "crop", "rate", "seed"):
        default = re.search(rf"--{name} {name.upper()} [^-]*?default: ([\d.]+)", text).group(1)
        assert float(default) == getattr(Options(), name)


def test_freeze_overwrites_only_with_force(folder, monkeypatch, capsys):
    from vaecodec.training import freezing

    calls = []
    monkeypatch.setattr(freezing, "freeze", lambda run, out, name=None: calls.append((run, out, name)) or "0" * 16)
    assert cli.main(["freeze", "run", "-o", "photo.vcm", "--name", "shots"]) == 0
    (folder / "photo.vcm").write_bytes(b"old")
    assert cli.main(["freeze", "run", "-o", "photo.vcm"]) == 1
    assert "exists already" in capsys.readouterr().err and calls == [("run", "photo.vcm", "shots")]
    assert cli.main(["freeze", "run", "-o", "photo.vcm", "-f"]) == 0 and len(calls) == 2
