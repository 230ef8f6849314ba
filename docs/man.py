"""Write manual pages of the command line, one for each command, with argparse-manpage (extra docs).

python docs/man.py ~/.local/share/man     # then: man vaecodec, man vaecodec-compress
"""

from __future__ import annotations

import argparse
import pathlib
import re

from argparse_manpage.manpage import Manpage

from vaecodec.cli.parser import make_parser
from vaecodec.errors import __version__

NO_MACRO = re.compile(r"^(?=\.(?!(?:TH|SH|SS|TP|PP|RS|RE|B|I|nf|fi|br|sp)\b))", re.M)
VERBATIM = ".nf\n{}\n.fi"  # lines stay as they are


def sections_of(epilog: str) -> list[dict[str, str]]:
    """Divide the text below the options into sections of a manual page."""
    sections = {"notes": "", "units": "", "examples": "", "environment": "", "exit status": ""}
    for paragraph in epilog.split("\n\n"):
        heading, _, text = paragraph.partition(":")
        if heading == "examples":
            sections["examples"] = VERBATIM.format(roff(text.strip("\n")))
        elif heading in sections:
            sections[heading] = roff(text.strip())
        else:
            sections["notes"] += roff(paragraph) + "\n.PP\n"
    return [{"heading": heading, "content": text.removesuffix("\n.PP\n")} for heading, text in sections.items() if text]


def roff(text: str) -> str:
    """Escape what troff would take for its own."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").splitlines()
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)


def page_of(parser: argparse.ArgumentParser, summary: str) -> str:
    """Format the manual page of a parser."""
    parser._manpage = sections_of(parser.epilog or "")  # type: ignore[attr-defined]
    parser.epilog = None
    about = {"version": __version__, "manual_title": "vaecodec", "description": summary, "project_name": "vaecodec"}
    page = re.sub(NO_MACRO, r"\\&", str(Manpage(parser, about)))  # argparse-manpage leaves ".vae file" as it is
    return page.rstrip() + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("folder", type=pathlib.Path, help="folder of manual pages: OUT/man1/vaecodec.1 and so on")
    folder = options.parse_args().folder / "man1"
    folder.mkdir(parents=True, exist_ok=True)
    parser = make_parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for entry in commands._choices_actions:
        command = commands.choices[entry.dest]
        command.prog = f"vaecodec-{entry.dest}"
        command.usage = command.format_usage().replace(command.prog, f"vaecodec {entry.dest}").split(" ", 1)[1].strip()
        page = page_of(command, (entry.help or "").rstrip("."))
        (folder / f"vaecodec-{entry.dest}.1").write_text(page)
    # Each command has a page of its own.
    listing = "".join(
        f".TP\n.B vaecodec\\-{roff(entry.dest)}(1)\n{roff(entry.help or '')}\n" for entry in commands._choices_actions
    )
    parser._actions.remove(commands)
    parser._subparsers._group_actions.clear()  # type: ignore[union-attr]
    parser.usage = "vaecodec [-h] [--version] COMMAND ..."
    page = page_of(parser, "compress images with a learned codec")
    (folder / "vaecodec.1").write_text(f"{page}.SH COMMANDS\n{listing}")


if __name__ == "__main__":
    main()
