"""Completion of the command line for bash, zsh and fish: scripts that are printed once, out of the grammar itself.

A script asks nothing of vaecodec when it completes, so that it costs nothing when the command starts.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple


class Option(NamedTuple):
    """One option of a command; `values` are those that it takes, where they can be listed."""

    names: list[str]
    help: str
    argument: bool
    values: list[str]


class Command(NamedTuple):
    """One command; a positional argument is a file unless `values` lists it."""

    name: str
    help: str
    options: list[Option]
    values: list[str]


def grammar(parser: argparse.ArgumentParser) -> list[Command]:
    """What there is to complete."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    helps = {action.dest: action.help or "" for action in commands._choices_actions}
    return [Command(name, helps[name], *_arguments(one)) for name, one in commands.choices.items()]


def _arguments(parser: argparse.ArgumentParser) -> tuple[list[Option], list[str]]:
    """(options, values of positional arguments that can be listed)."""
    options, values = [], []
    for action in parser._actions:
        choices = list(map(str, action.choices or ()))
        if action.option_strings:
            options.append(Option(list(action.option_strings), _plain(action), action.nargs != 0, choices))
        else:
            values += choices
    return options, values


def _plain(action: argparse.Action) -> str:
    return " ".join((action.help or "").replace("%%", "%").split())


def bash(commands: list[Command]) -> Iterator[str]:
    """Lines of a script to source."""
    yield "_vaecodec() {"
    yield "    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}"
    yield "    local command=${COMP_WORDS[1]} words="
    yield "    (( COMP_CWORD > 1 )) || command="
    yield "    COMPREPLY=()"
    yield '    case "$command $previous" in'
    for command in commands:
        for option in command.options:
            if option.argument:
                patterns = " | ".join(shlex.quote(f"{command.name} {name}") for name in option.names)
                words = (
                    f'COMPREPLY=($(compgen -W "{" ".join(option.values)}" -- "$current")); ' if option.values else ""
                )
                yield f"        {patterns}) {words}return ;;"
    yield "    esac"
    yield '    case "$command" in'
    yield f'        "") words="{" ".join(command.name for command in commands)} --help --version" ;;'
    for command in commands:
        options = " ".join(name for option in command.options for name in option.names)
        values = " ".join(command.values)
        yield f'        {command.name}) [[ $current == -* ]] && words="{options}" || words="{values}" ;;'
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$current"))'
    yield "}"
    yield "complete -o bashdefault -o default -F _vaecodec vaecodec"


def zsh(commands: list[Command]) -> Iterator[str]:
    """Lines of a script to source once compinit has run, or to keep as _vaecodec on the fpath."""
    yield "#compdef vaecodec"
    yield "_vaecodec() {"
    yield "    local -a commands=("
    for command in commands:
        yield f"        {shlex.quote(f'{command.name}:{command.help}')}"
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
            values = f":value:({' '.join(option.values)})" if option.values else ":value:_files" * option.argument
            specs += [shlex.quote(f"*{name}[{text}]{values}") for name in option.names]
        specs.append(shlex.quote(f"*:value:({' '.join(command.values)})" if command.values else "*:file:_files"))
        yield f"        {command.name}) _arguments {' '.join(specs)} ;;"
    yield "    esac"
    yield "}"
    yield 'if [[ $funcstack[1] == _vaecodec ]]; then _vaecodec "$@"; else compdef _vaecodec vaecodec; fi'


def fish(commands: list[Command]) -> Iterator[str]:
    """Lines of a script to source, or to keep in fish's folder completions."""
    quoted: Callable[[str], str] = lambda text: "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"  # noqa: E731
    yield "complete -c vaecodec -n __fish_use_subcommand -l version -d 'print the version and exit'"
    for command in commands:
        yield f"complete -c vaecodec -n __fish_use_subcommand -f -a {command.name} -d {quoted(command.help)}"
        within = f"complete -c vaecodec -n '__fish_seen_subcommand_from {command.name}'"
        if command.values:
            yield f"{within} -f -a {quoted(' '.join(command.values))}"
        for option in command.options:
            names = " ".join(f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names)
            values = f" -x -a {quoted(' '.join(option.values))}" if option.values else " -r" * option.argument
            yield f"{within} {names}{values} -d {quoted(option.help)}"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The script for a shell, one of SHELLS."""
    return "\n".join(SHELLS[shell](grammar(parser)))
