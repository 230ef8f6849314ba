"""Run the command line, in this process or another, and look at the files it leaves."""

from __future__ import annotations

import hashlib
import os
import sys

import vaecodec
from vaecodec import cli
from vaecodec.files import manifest

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(vaecodec.__file__))}
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)  # a pipe then fails where it is flushed, as it does for most people
COMMAND = [sys.executable, "-m", "vaecodec"]


def read(path):
    with open(path, "rb") as file:
        return file.read()


def write(path, data):
    with open(path, "wb") as file:
        file.write(data)


def found(folder):
    """Relative paths of the files below a folder, the manifest aside."""
    paths = [os.path.relpath(os.path.join(at, name), folder) for at, _, names in os.walk(folder) for name in names]
    return sorted(path for path in paths if os.path.basename(path) != manifest.NAME)


def digests(folder):
    return {path: hashlib.sha256(read(os.path.join(folder, path))).hexdigest() for path in found(folder)}


def run(line, capsys):
    """(exit code, lines on stderr)"""
    code = cli.main([*line.split(), "--jobs", "2"])
    return code, capsys.readouterr().err.splitlines()
