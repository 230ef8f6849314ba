"""What the system knows of .vae files and of the command line: file(1), MIME types, completion, --help."""

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

from support.paths import GOLDEN, ROOT
from vaecodec import cli
from vaecodec.cli import help_texts
from vaecodec.cli.info import SHELLS, completion_script, list_commands

STORED = next((GOLDEN / "stored").glob("*.vae"))


def needs(program: str) -> str:
    return shutil.which(program) or pytest.skip(f"{program} is not installed")


def run(arguments: list[str], **options) -> str:
    return subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=300, **options).stdout


def printed(capsys, *line: str) -> str:
    assert cli.main(list(line)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "kind", "said"),
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
def test_file_knows_vae_files(path, kind, said, tmp_path, capsys):
    file = needs("file")
    (tmp_path / ".magic").write_text(printed(capsys, "filetype", "magic"))  # where the install line puts it
    env = {**os.environ, "HOME": str(tmp_path)}
    assert run([file, "--brief", str(path)], env=env) == f"{said}\n"
    assert run([file, "--brief", "--mime-type", str(path)], env=env) == f"{kind}\n"
    assert run([file, "--brief", "-m", str(tmp_path / ".magic"), str(path)]) == f"{said}\n"
    assert "vaecodec" not in run([file, "--brief", str(ROOT / "README.md")], env=env)


def test_desktops_know_vae_files(tmp_path, capsys):
    update = needs("update-mime-database")
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "vaecodec.xml").write_text(printed(capsys, "filetype", "xml"))
    run([update, str(tmp_path)])
    assert {"50:image/x-vaecodec:*.vae", "40:application/x-vaecodec:*.vae"} <= set(
        (tmp_path / "globs2").read_text().splitlines()
    )
    magic = (tmp_path / "magic").read_bytes()
    assert magic.count(b"\x89VAE\r\n\x1a\n") == 2 and all(tag in magic for tag in (b"HEAD", b"PICT", b"FILE"))


def completed(shell: str, line: str, folder: pathlib.Path) -> set[str]:
    """What a shell offers at the end of a line."""
    text = completion_script(shell)
    if shell == "bash":
        words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
        array = " ".join(map(shlex.quote, words))
        text += f"\nCOMP_WORDS=({array}); COMP_CWORD={len(words) - 1}; _vaecodec; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        return set(run([needs("bash"), "--norc", "-c", text], cwd=folder).split())
    text += f"\ncomplete -C {shlex.quote(line)}"
    lines = run([needs("fish"), "--no-config", "-c", text], cwd=folder, env={**os.environ, "HOME": str(folder)})
    return {one.split("\t")[0] for one in lines.splitlines()}


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_completion_offers_what_fits(shell, tmp_path):
    (tmp_path / "photo.vae").touch()
    names = {command.name for command in list_commands()}
    assert {"compress", "decompress", "info", "verify"} <= names <= completed(shell, "vaecodec ", tmp_path)
    assert completed(shell, "vaecodec deco", tmp_path) == {"decompress"}
    assert completed(shell, "vaecodec decompress --red", tmp_path) == {"--reduce"}
    assert completed(shell, "vaecodec decompress --reduce ", tmp_path) == {"1", "2", "4", "8", "16"}
    assert {"bash", "zsh", "fish"} <= completed(shell, "vaecodec completion ", tmp_path)
    assert not completed(shell, "vaecodec compress --wind", tmp_path)


def test_bash_completes_files(tmp_path):
    assert "complete -o bashdefault -o default" in completion_script("bash")
    assert not completed("bash", "vaecodec compress ph", tmp_path)  # so that bash offers files itself


def test_zsh_takes_its_script(tmp_path):
    zsh = needs("zsh")
    (tmp_path / "_vaecodec").write_text(completion_script("zsh"))
    assert run([zsh, "-f", "-n", str(tmp_path / "_vaecodec")]) == ""
    (tmp_path / "photo.vae").touch()
    pid, terminal = pty.fork()  # the completion system wants a terminal
    if not pid:
        os.chdir(tmp_path)
        os.execve(zsh, ["zsh", "-f", "-i"], {"TERM": "dumb", "HOME": str(tmp_path), "PATH": os.environ["PATH"]})

    def until(word: bytes) -> bytes:
        got, end = b"", time.monotonic() + 120
        while word not in got and time.monotonic() < end:
            if select.select([terminal], [], [], 1)[0]:
                got += os.read(terminal, 4096)
        return got

    os.write(terminal, b"PS1='> '; autoload -U compinit; compinit -u -D; source ./_vaecodec; echo rea''dy\n")
    assert b"ready\r" in until(b"ready\r")
    os.write(terminal, b"vaecodec decompress --red\t8 ph\t--win\t")
    said = until(b"--window")
    os.close(terminal)
    os.waitpid(pid, 0)
    assert b"--reduce" in said and b"photo.vae" in said and b"--window" in said


def test_completion_follows_the_parser():
    commands = {command.name: command for command in list_commands()}
    compress = {name: option for option in commands["compress"].options for name in option.names}
    assert compress["--quality"].has_argument and not compress["--force"].has_argument
    assert compress["-q"].help == "of images (default: 50)"
    assert set(SHELLS) == set(commands["completion"].values)
    for shell in SHELLS:
        text = completion_script(shell)
        assert all(command in text and "only-images" in text for command in commands)


def test_examples_in_the_help_are_commands():
    text = "\n".join([help_texts.PROGRAM, *help_texts.COMMANDS.values()])
    lines = re.findall(r"^  (vaecodec .*?)(?:   .*| [>]+ .*)?$", text, re.M)
    assert len(lines) > 20
    for line in lines:
        arguments = shlex.split(re.split(r" >>? ", line)[0])[1:]
        assert cli.make_parser().parse_args(arguments).command == arguments[0], line


@pytest.mark.parametrize("name", sorted(help_texts.COMMANDS))
def test_help_ends_with_examples_and_exit_status(name, capsys):
    said = printed(capsys, name, "--help")
    assert f"usage: vaecodec {name}" in said and "examples:\n  vaecodec" in said and "exit status: 0" in said
    assert max(map(len, said.splitlines())) <= 120


def test_the_program_says_its_units_and_its_version(capsys):
    said = printed(capsys, "--help")
    assert all(word in said for word in ("units:", "bpp", "VAECODEC_THREADS", "exit status: 0", "examples:"))
    import vaecodec

    assert printed(capsys, "--version") == f"vaecodec {vaecodec.__version__}\n"


def test_completion_loads_nothing_heavy():
    code = (
        "import sys; from vaecodec import cli; cli.main(['completion', 'bash'])\n"
        "print(*{'numpy', 'PIL', 'tensorflow'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "\n" and "complete -o" in done.stdout
