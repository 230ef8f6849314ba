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

from vaecodec.cli.checks import check_stdin
from vaecodec.cli.parser import make_parser
from vaecodec.container.info import describe_file
from vaecodec.model.library import name_of_model
from vaecodec.progress import Console, format_bytes

CHANNELS = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGBA"}
CODINGS = {"vae": "quality", "lossless": "lossless", "near-lossless": "within {max_error}", "avif": "as AVIF"}
METADATA = {"icc": "ICC profile", "exif": "EXIF", "xmp": "XMP", "dpi": "resolution"}


def info(args: argparse.Namespace, console: Console) -> int:
    """Print what the headers of .vae files say."""

    def work(name: str) -> tuple[dict[str, Any], str]:
        if name != "-":
            with open(name, "rb") as file:
                record = describe_file(file)
        else:
            check_stdin(args)
            record = describe_file(sys.stdin.buffer)
        if "model" in record:
            record["model_name"] = name_of_model(record["model"])
        return {"input": name, **record}, f"{name}: {_format(record, args.verbose)}"

    for name in args.inputs:
        console.attempt(name, partial(work, name), product=True)
    return int(console.failures > 0)


def _format(record: dict[str, Any], verbose: bool = False) -> str:
    """Format a record of info as a sentence; `verbose` adds what only experts ask for."""
    if record["kind"] in ("picture", "array"):
        text = _format_image(record)
    elif record["kind"] == "set":
        text = "{count} images of {width} x {height} pixels, without loss".format(**record)
    else:
        text = _format_stored(record)
    text += f", {format_bytes(record['bytes'])}"
    if "bpp" in record:
        text += f" ({record['bpp']:.3f} bits per pixel)"
    if "model" in record:
        text += f", model {record['model_name'] or record['model'] + ' (not installed)'}"
    for kind in record.get("metadata", ()):
        text += f", {METADATA[kind]}"
    if verbose:
        text += f", {record['bytes']} bytes, format version {record['version']}"
        text += f", model id {record['model']}" if "model" in record else ""
        text += ", restoration filter" if record.get("filtered") else ""
    return text


def _format_image(record: dict[str, Any]) -> str:
    """Format the size, the samples and the coding of an image."""
    text = "{width} x {height} pixels, ".format(**record)
    text += CHANNELS[record["channels"]] if record["kind"] == "picture" else f"{record['channels']} channels"
    text += f" of {record['depth']} bits" if record["depth"] > 8 else ""
    text += ", " + CODINGS.get(record["coding"], record["coding"]).format(**record)
    text += f" {record['quality']:g}" if "quality" in record else ""
    if record.get("tiles", 1) > 1:
        text += ", {tiles} tiles of {tile} x {tile} pixels".format(**record)
    return text


def _format_stored(record: dict[str, Any]) -> str:
    """Format what is known of a stored file."""
    text = f"stored file {record['name']} of {format_bytes(record['size'])}"
    if record["mode"] is not None:
        text += f", permissions {record['mode']}"
    if record["mtime_ns"] is not None:
        from datetime import datetime, timedelta, timezone

        time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=record["mtime_ns"] // 1000)
        text += f", of {time:%Y-%m-%d %H:%M:%S} UTC"
    return f"{text}, compressed without loss"


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
