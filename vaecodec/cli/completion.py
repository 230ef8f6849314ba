"""The command completion: print a script that completes this command line in a shell, made by shtab (extra completion).

The scripts complete options, choices, files and the names of models, which they ask `vaecodec models names` for.
"""

from __future__ import annotations

import argparse

import shtab

from vaecodec.cli.parser import make_parser
from vaecodec.progress import Console

MODELS = "vaecodec models names"
# What arguments take, by their name in the parser.
FILES = frozenset("inputs input paths first last run output sheet config published start".split())
FOLDERS = frozenset("output_dir out export_step import_state".split())
MODEL_NAMES = frozenset("model names".split())


def completion(args: argparse.Namespace, console: Console) -> int:
    """Print a completion script."""
    console.say_text(completion_script(args.shell))
    return 0


def completion_script(shell: str) -> str:
    """Return the completion script for a shell."""
    parser = make_parser()
    _describe(parser)
    return shtab.complete(parser, shell)


def _describe(parser: argparse.ArgumentParser) -> None:
    """Tell shtab what the arguments of a parser and of its commands take."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _describe(command)
        elif action.dest in MODEL_NAMES and not parser.prog.endswith(" add"):
            action.complete = shtab.cmd(MODELS)  # type: ignore[attr-defined]
        elif action.dest in FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif action.dest in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
