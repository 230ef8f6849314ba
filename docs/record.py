"""Record the terminal sessions of a page: run the commands in its console blocks, and write what they print below them.

python docs/record.py docs/tutorial/ten-tasks.md            # after a change of the command line
python docs/record.py docs/tutorial/ten-tasks.md --check    # compares, but for numbers and the order of lines

All commands of a page run in one folder, which contains photo.jpg, album, scan.tif (three pages) and notes.txt.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```console\n(.*?)^```", re.S | re.M)
NUMBER = re.compile(r"\d+(\.\d+)?( (bytes?|kB|MB)\b)?")


def prepare(folder: pathlib.Path) -> None:
    """Write the files that a session begins with, and a command `vaecodec`."""
    (folder / "album").mkdir()
    (folder / "bin").mkdir()
    image = Image.open(ROOT / "docs" / "examples" / "parrots.png").convert("RGB")
    exif = Image.Exif()
    exif[0x010F] = "Acme"  # make of the camera
    image.save(folder / "photo.jpg", quality=92, exif=exif)
    for number, name in enumerate(("beach.jpg", "garden.jpg")):
        image.crop((128 * number, 0, 128 * number + 384, 384)).save(folder / "album" / name, quality=92)
    pages = [image.convert("L").crop((0, 96 * n, 256, 96 * n + 128)) for n in range(3)]
    pages[0].save(folder / "scan.tif", save_all=True, append_images=pages[1:])
    for name in ("notes.txt", "album/notes.txt"):
        (folder / name).write_text("Remember the lens cap.\n" * 40)
    for name, module in (("vaecodec", "-m vaecodec"), ("python", "")):
        command = folder / "bin" / name
        command.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {module} "$@"\n')
        command.chmod(0o755)


def run(block: str, folder: pathlib.Path) -> str:
    """Run the commands of a block and return it with what they print."""
    environment = {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "HOME": str(folder), "PYTHONPATH": str(ROOT)}
    lines = []
    for line in block.splitlines():
        if line.startswith("$ "):
            process = subprocess.run(
                ["bash", "-c", line[2:]],
                cwd=folder,
                env={**os.environ, **environment, "VAECODEC_MODELS": str(folder / "models")},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            lines += [line, *process.stdout.splitlines()]
    return "".join(f"{line}\n" for line in lines)


def normal(block: str) -> list[str]:
    """The lines of a block without numbers, in an order that does not depend on processes."""
    return sorted(NUMBER.sub("N", line) for line in block.splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    options = parser.parse_args()
    text, failed = options.page.read_text(), False
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name).resolve()
        prepare(folder)

        def replace(match: re.Match[str]) -> str:
            nonlocal failed
            block = run(match.group(1), folder)
            if options.check and normal(block) != normal(match.group(1)):
                print(f"recorded:\n{match.group(1)}\nnow:\n{block}", file=sys.stderr)
                failed = True
            return f"```console\n{block}```"

        recorded = BLOCK.sub(replace, text)
    if not options.check:
        options.page.write_text(recorded)
    sys.exit(failed)


if __name__ == "__main__":
    main()
