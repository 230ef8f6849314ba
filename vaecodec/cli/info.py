"""Commands that only print: headers of .vae files, completion scripts for shells, and file type rules.

Standard library only.  Completion scripts are made from the parser and do not run vaecodec when they complete.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

from vaecodec.cli.parser import make_parser
from vaecodec.container.info import describe_file
from vaecodec.progress import Console

CHANNELS = {1: "grey", 2: "grey + alpha", 3: "RGB", 4: "RGBA"}


def info(args: argparse.Namespace, console: Console) -> int:
    """Print what the headers of .vae files say."""

    def work(name: str) -> tuple[dict[str, Any], str]:
        if name != "-":
            with open(name, "rb") as file:
                record = describe_file(file)
        else:
            check_stdin(args)
            record = describe_file(sys.stdin.buffer)
        return {"input": name, **record}, f"{name}: {_format(record)}"

    for name in args.inputs:
        console.attempt(name, partial(work, name), product=True)
    return int(console.failures > 0)


def check_stdin(args: argparse.Namespace) -> None:
    """End with a usage error if standard input is closed or a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        args.usage("standard input is a terminal; pipe a file into it or name a file")


def _format(record: dict[str, Any]) -> str:
    """Format a record of info as text."""
    if record["kind"] in ("picture", "array"):
        is_latent = record["coding"] == "vae"
        samples = CHANNELS[record["channels"]] if record["kind"] == "picture" else f"{record['channels']} channels"
        text = "{width} x {height}, " + ("quality {quality:g}" if is_latent else "{coding}")
        text += f", {samples}" + (" of 16 bits" if record["depth"] == 16 else "") + ", {bytes} bytes, {bpp:.3f} bpp, "
        text += "{tiles} x {tile} px tiles, model {model}, " * is_latent + "version {version}"
        text += ", with a filter" if record.get("filtered") else ""
        return text.format(**record) + "".join(f", {kind}" for kind in record["metadata"])
    if record["kind"] == "set":
        text = "{count} images of {width} x {height}, {coding}, {bytes} bytes, {bpp:.4f} bpp, model {model}"
        return (text + ", version {version}").format(**record)
    text = "stored file {name}, {size} bytes, {bytes} here, {method}".format(**record)
    if record["mode"] is not None:
        text += f", mode {record['mode']}"
    if record["mtime_ns"] is not None:
        from datetime import datetime, timedelta, timezone

        time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=record["mtime_ns"] // 1000)
        text += f", {time:%Y-%m-%d %H:%M:%S} UTC"
    return f"{text}, version {record['version']}"


def filetype(args: argparse.Namespace, console: Console) -> int:
    """Print a rule by which other programs recognise .vae files."""
    from importlib.resources import files

    print((files("vaecodec") / "share" / f"vaecodec.{args.kind}").read_text(), end="")
    return 0


def completion(args: argparse.Namespace, console: Console) -> int:
    """Print a completion script."""
    print(completion_script(args.shell))
    return 0


class Option(NamedTuple):
    """An option of a command; `values` are its choices."""

    names: list[str]
    help: str
    has_argument: bool
    values: list[str]


class Command(NamedTuple):
    """A command; `values` are the choices of its positional argument, which is a file if there are none."""

    name: str
    help: str
    options: list[Option]
    values: list[str]


def list_commands() -> list[Command]:
    """List the commands and options of the parser."""
    (subparsers,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    commands = []
    for entry in subparsers._choices_actions:
        command = Command(entry.dest, entry.help or "", [], [])
        for action in subparsers.choices[entry.dest]._actions:
            values = [str(choice) for choice in action.choices or ()]
            if action.option_strings:
                text = " ".join((action.help or "").replace("%%", "%").split())
                command.options.append(Option(list(action.option_strings), text, action.nargs != 0, values))
            else:
                command.values.extend(values)
        commands.append(command)
    return commands


def completion_script(shell: str) -> str:
    """Return the completion script of a shell in SHELLS."""
    return "\n".join(SHELLS[shell](list_commands()))


def _bash(commands: list[Command]) -> Iterator[str]:
    yield "_vaecodec() {"
    yield "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    local command=${COMP_WORDS[1]} words="
    yield "    (( COMP_CWORD > 1 )) || command="
    yield "    COMPREPLY=()"
    yield '    case "$command $previous" in'
    for command in commands:
        for option in filter(lambda option: option.has_argument, command.options):
            patterns = " | ".join(shlex.quote(f"{command.name} {name}") for name in option.names)
            values = " ".join(option.values)
            reply = f'COMPREPLY=($(compgen -W "{values}" -- "$current")); ' if values else ""
            yield f"        {patterns}) {reply}return ;;"
    yield "    esac"
    yield '    case "$command" in'
    yield f'        "") words="{" ".join(command.name for command in commands)} --help --version" ;;'
    for command in commands:
        names, choices = " ".join(n for option in command.options for n in option.names), " ".join(command.values)
        yield f'        {command.name}) [[ $current == -* ]] && words="{names}" || words="{choices}" ;;'
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield "}"
    yield "complete -o bashdefault -o default -F _vaecodec vaecodec"


def _zsh(commands: list[Command]) -> Iterator[str]:
    yield "#compdef vaecodec"
    yield "_vaecodec() {"
    yield "    local -a commands=("
    yield from (f"        {shlex.quote(f'{command.name}:{command.help}')}" for command in commands)
    yield "    )"
    yield "    if (( CURRENT == 2 )); then"
    yield "        _describe command commands"
    yield "        compadd -- --help --version"
    yield "        return"
    yield "    fi"
    yield "    shift words; (( CURRENT-- ))"
    yield "    case $words[1] in"
    for command in commands:
        specs = []
        for option in command.options:
            text = "".join(f"\\{c}" if c in "[]:\\" else c for c in option.help)
            values = f":value:({' '.join(option.values)})" if option.values else ":value:_files" * option.has_argument
            specs += [shlex.quote(f"*{name}[{text}]{values}") for name in option.names]
        specs.append(shlex.quote(f"*:value:({' '.join(command.values)})" if command.values else "*:file:_files"))
        yield f"        {command.name}) _arguments {' '.join(specs)} ;;"
    yield "    esac"
    yield "}"
    yield 'if [[ $funcstack[1] == _vaecodec ]]; then _vaecodec "$@"; else compdef _vaecodec vaecodec; fi'


def _fish(commands: list[Command]) -> Iterator[str]:
    def quote(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    yield "complete -c vaecodec -n __fish_use_subcommand -l version -d 'print the version and exit'"
    for command in commands:
        yield f"complete -c vaecodec -n __fish_use_subcommand -f -a {command.name} -d {quote(command.help)}"
        start = f"complete -c vaecodec -n '__fish_seen_subcommand_from {command.name}'"
        if command.values:
            yield f"{start} -f -a {quote(' '.join(command.values))}"
        for option in command.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            values = f" -x -a {quote(' '.join(option.values))}" if option.values else " -r" * option.has_argument
            yield f"{start} {names}{values} -d {quote(option.help)}"


SHELLS = {"bash": _bash, "zsh": _zsh, "fish": _fish}
