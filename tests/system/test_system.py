"""Test the integration with the system: file(1), MIME types, completion and --help."""

import configparser
import os
import pathlib
import pty
import re
import select
import shlex
import shutil
import subprocess
import sys
import time

import pytest
from PIL import Image

from support.paths import GOLDEN, ROOT
from vaecodec import cli
from vaecodec.cli.inspection import completion_script
from vaecodec.cli.options import HELP_OF_COMMANDS, HELP_OF_PROGRAM

STORED = next((GOLDEN / "stored").glob("*.vae"))


def needs(program: str) -> str:
    return shutil.which(program) or pytest.skip(f"{program} is not installed")


def run(arguments: list[str], **options) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=300, **options).stdout


def output_of(capsys, *line: str) -> str:
    assert cli.main(list(line)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "kind", "description"),
    [
        (GOLDEN / "photo.vae", "image/x-vaecodec", "vaecodec image data, 130 x 112, version 1"),
        (
            GOLDEN / "kinds" / "avif-rgba.vae",
            "image/x-vaecodec",
            "vaecodec image data, 60 x 45, RGBA of 8 bits, AVIF, version 1",
        ),
        (STORED, "application/x-vaecodec", "vaecodec stored file, version 1"),
    ],
    ids=["latents", "classical", "stored"],
)
def test_file_identifies_vae_files(path, kind, description, tmp_path, capsys):
    file = needs("file")
    (tmp_path / ".magic").write_text(output_of(capsys, "filetype", "magic"))  # the path of the documented command
    env = {**os.environ, "HOME": str(tmp_path)}
    assert run([file, "--brief", str(path)], env=env) == f"{description}\n"
    assert run([file, "--brief", "--mime-type", str(path)], env=env) == f"{kind}\n"
    assert run([file, "--brief", "-m", str(tmp_path / ".magic"), str(path)]) == f"{description}\n"
    assert "vaecodec" not in run([file, "--brief", str(ROOT / "README.md")], env=env)


def test_the_mime_database_contains_vae_files(tmp_path, capsys):
    update = needs("update-mime-database")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "vaecodec.xml").write_text(output_of(capsys, "filetype", "xml"))
    run([update, str(tmp_path)])
    assert {"50:image/x-vaecodec:*.vae", "40:application/x-vaecodec:*.vae"} <= set(
        (tmp_path / "globs2").read_text().splitlines()
    )
    magic = (tmp_path / "magic").read_bytes()
    assert magic.count(b"\x89VAE\r\n\x1a\n") == 2 and all(tag in magic for tag in (b"HEAD", b"PICT", b"FILE"))


@pytest.mark.skipif(os.name != "posix", reason="desktops of Linux have thumbnailers")
def test_file_managers_get_thumbnails(tmp_path, capsys):
    """The command of the thumbnailer, with the arguments that a file manager gives: an output without a suffix."""
    entry = configparser.ConfigParser(interpolation=None)
    entry.read_string(output_of(capsys, "filetype", "thumbnailer"))
    section = entry["Thumbnailer Entry"]
    assert section["MimeType"] == "image/x-vaecodec;" and section["TryExec"] == "vaecodec"
    program = tmp_path / "vaecodec"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vaecodec "$@"\n')
    program.chmod(0o755)
    paths = {"%i": str(GOLDEN / "photo.vae"), "%o": str(tmp_path / "a thumbnail.XJ3K")}
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment["VAECODEC_MODELS"] = str(GOLDEN)
    run([paths.get(word, word) for word in shlex.split(section["exec"])], env=environment)
    with Image.open(paths["%o"]) as image:
        assert image.format == "PNG" and image.size == (33, 28)  # a quarter of 130 x 112


def completions_of(shell: str, line: str, folder: pathlib.Path) -> set[str]:
    """Return the completions that a shell offers at the end of a line."""
    text = completion_script(shell)
    environment = {**os.environ, "HOME": str(folder), "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    command = folder / "vaecodec"  # which the scripts ask for the names of models
    command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m vaecodec "$@"\n')
    command.chmod(0o755)
    if shell == "bash":
        words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
        array = " ".join(map(shlex.quote, words))
        text += f"\nCOMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)}"
        text += '\ncompopt() { :; }; _shtab_vaecodec; printf "%s\\n" "${COMPREPLY[@]}"'
        return set(run([needs("bash"), "--norc", "-c", text], cwd=folder, env=environment).split())
    text += f"\ncomplete -C {shlex.quote(line)}"
    lines = run([needs("fish"), "--no-config", "-c", text], cwd=folder, env=environment)
    return {offer.split("\t")[0] for offer in lines.splitlines()}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_completion_offers_matching_words(shell, tmp_path):
    (tmp_path / "photo.vae").touch()
    assert {"compress", "decompress", "info", "verify"} <= set(cli.MODULES)
    assert set(cli.MODULES) <= completions_of(shell, "vaecodec ", tmp_path)
    assert completions_of(shell, "vaecodec deco", tmp_path) == {"decompress"}
    assert completions_of(shell, "vaecodec decompress --red", tmp_path) == {"--reduce"}
    assert completions_of(shell, "vaecodec decompress --reduce ", tmp_path) == {"1", "2", "4", "8", "16"}
    assert {"bash", "zsh", "fish"} <= completions_of(shell, "vaecodec completion ", tmp_path)
    assert not completions_of(shell, "vaecodec compress --wind", tmp_path)


def test_completion_offers_what_an_argument_takes(tmp_path):
    for name in ("photo.png", "photo.vae"):
        (tmp_path / name).touch()
    assert completions_of("bash", "vaecodec compress ph", tmp_path) == {"photo.png", "photo.vae"}
    assert completions_of("bash", "vaecodec compress photo.png -o ph", tmp_path) == {"photo.png", "photo.vae"}
    for line in ("compress -m ", "score --model ", "models show "):
        assert {"small", "base", "digits"} <= completions_of("bash", f"vaecodec {line}", tmp_path)
    assert completions_of("bash", "vaecodec compress -m sm", tmp_path) == {"small"}
    for option in ("-q", "-j", "--target-size"):
        assert not completions_of("bash", f"vaecodec compress {option} ", tmp_path)


def test_completion_without_its_package_names_the_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 1
    assert "pip install 'vaecodec[completion]'" in capsys.readouterr().err


def test_zsh_completes_with_its_script(tmp_path):
    zsh = needs("zsh")
    (tmp_path / "_vaecodec").write_text(completion_script("zsh"))
    assert run([zsh, "-f", "-n", str(tmp_path / "_vaecodec")]) == ""
    (tmp_path / "photo.vae").touch()
    pid, terminal = pty.fork()  # the completion system needs a terminal
    if not pid:
        os.chdir(tmp_path)
        os.execve(zsh, ["zsh", "-f", "-i"], {"TERM": "dumb", "HOME": str(tmp_path), "PATH": os.environ["PATH"]})

    def read_until(word: bytes) -> bytes:
        output, end = b"", time.monotonic() + 120
        while word not in output and time.monotonic() < end:
            if select.select([terminal], [], [], 1)[0]:
                output += os.read(terminal, 4096)
        return output

    os.write(terminal, b"PS1='> '; autoload -U compinit; compinit -u -D; source ./_vaecodec; echo rea''dy\n")
    assert b"ready\r" in read_until(b"ready\r")
    os.write(terminal, b"vaecodec decompress --red\t8 ph\t--win\t")
    screen = read_until(b"--window")
    os.close(terminal)
    os.waitpid(pid, 0)
    assert b"--reduce" in screen and b"photo.vae" in screen and b"--window" in screen


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh", "powershell"])
def test_completion_follows_the_parser(shell):
    text = completion_script(shell)
    assert all(command in text and "only-images" in text for command in cli.MODULES)


def test_examples_in_the_help_are_valid_commands():
    text = "\n".join([HELP_OF_PROGRAM, *HELP_OF_COMMANDS.values()])
    lines = re.findall(r"^  (vaecodec .*?)(?:   .*| [>]+ .*)?$", text, re.M)
    assert len(lines) > 20
    for line in lines:
        arguments = shlex.split(re.split(r" >>? ", line)[0])[1:]
        assert cli.make_parser().parse_args(arguments).command == arguments[0], line


@pytest.mark.parametrize("name", sorted(HELP_OF_COMMANDS))
def test_help_ends_with_examples_and_exit_status(name, capsys):
    text = output_of(capsys, name, "--help")
    assert f"usage: vaecodec {name}" in text and "examples:\n  vaecodec" in text and "exit status: 0" in text
    assert max(map(len, text.splitlines())) <= 120


def test_help_explains_units_and_version_is_printed(capsys):
    text = output_of(capsys, "--help")
    assert all(word in text for word in ("units:", "bpp", "VAECODEC_THREADS", "exit status: 0", "examples:"))
    import vaecodec

    assert output_of(capsys, "--version") == f"vaecodec {vaecodec.__version__}\n"


def test_completion_imports_no_heavy_packages():
    code = (
        "import sys; from vaecodec import cli; cli.main(['completion', 'bash'])\n"
        "print(*{'numpy', 'PIL', 'tensorflow'} & set(sys.modules), file=sys.stderr)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stderr == "\n" and "complete " in process.stdout


def test_manual_pages_describe_every_command(tmp_path):
    pytest.importorskip("argparse_manpage")
    run([sys.executable, str(ROOT / "docs" / "man.py"), str(tmp_path)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    pages = {path.stem: path for path in (tmp_path / "man1").iterdir()}
    assert set(pages) == {"vaecodec", *(f"vaecodec-{command}" for command in cli.MODULES)}
    contents = pages["vaecodec-compress"].read_text()
    for words in ("NAME", "SYNOPSIS", "EXAMPLES", "EXIT STATUS", "target\\-size", "\\-r album \\-\\-rm"):
        assert words in contents
    if groff := shutil.which("groff"):
        for path in pages.values():
            process = subprocess.run([groff, "-man", "-Tutf8", "-ww", "-z", str(path)], capture_output=True, text=True)
            assert (process.returncode, process.stderr) == (0, ""), path
