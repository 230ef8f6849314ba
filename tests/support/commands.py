"""Run the command line, in this process or another, and read the files it writes."""

from __future__ import annotations

import hashlib
import os
import re
import sys

import vaecodec
from vaecodec import cli
from vaecodec.files import folders

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(vaecodec.__file__))}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)  # buffered, as for most users: a closed pipe fails at the flush
COMMAND = [sys.executable, "-m", "vaecodec"]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def files_below(folder):
    """Sorted relative paths of the files below a folder, without manifests."""
    paths = [os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names]
    return sorted(path for path in paths if os.path.basename(path) != folders.MANIFEST_NAME)


def digests(folder):
    """SHA-256 of each file below a folder, by relative path."""
    return {path: hashlib.sha256(read(os.path.join(folder, path))).hexdigest() for path in files_below(folder)}


def without_sizes(line):
    """The counts of a summary, without bytes and seconds."""
    return re.sub(r"^(\d+ done.*, \d+ failed); .*?(:?)$", r"\1\2", line)


def run(line, capsys):
    """(exit status, lines on standard error, summaries without bytes and seconds) of a command line with two jobs."""
    status = cli.main([*line.split(), "--jobs", "2"])
    return status, [without_sizes(line) for line in capsys.readouterr().err.splitlines()]
