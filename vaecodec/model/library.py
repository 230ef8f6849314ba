"""Models by name: those that come with the package, and those that a user has added to a folder.

vaecodec/model/shipped/*.vcm                      shipped; their names are theirs
$VAECODEC_MODELS, or the system's place for data  added; a name stands for a file there
"""

from __future__ import annotations

import os
import re
import sys

from vaecodec.atomic import write_atomic
from vaecodec.errors import ModelError

SHIPPED = os.path.join(os.path.dirname(__file__), "shipped")
SUFFIX = ".vcm"
VARIABLE = "VAECODEC_MODELS"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


def folder() -> str:
    """Where added models are, whether there is such a folder or not."""
    given = os.environ.get(VARIABLE)
    if given:
        return given
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or os.path.expanduser(r"~\AppData\Local")
    elif sys.platform == "darwin":
        base = os.path.expanduser("~/Library/Application Support")
    else:
        base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(base, "vaecodec", "models")


def shipped() -> list[str]:
    """Names of the models inside the package."""
    return _names(SHIPPED)


def added() -> list[str]:
    """Names of the models that were added, without those that shipped ones have by now."""
    taken = shipped()
    return [name for name in _names(folder()) if name not in taken]


def path_of(name_or_path: str | os.PathLike[str]) -> str:
    """The file of a model; what ends in .vcm is a path already.  Raises ModelError on a name that nothing has."""
    path = os.fspath(name_or_path)
    if path.endswith(SUFFIX):
        return path
    for names, place in ((shipped, SHIPPED), (added, folder())):
        if path in names():
            return os.path.join(place, path + SUFFIX)
    raise ModelError(f"no model is called {path!r} (there are: {', '.join(shipped() + added()) or 'none'})")


def add(name: str, data: bytes, overwrite: bool = False) -> str:
    """Keeps a model's file, whole or not at all; its path.

    Raises ModelError on a name that is none or is a shipped model's, FileExistsError on one that is taken.
    """
    if not NAME.fullmatch(name) or name.endswith(SUFFIX):
        raise ModelError(f"{name!r} is no name for a model: letters, digits and . _ + -, at most 64")
    if name in shipped():
        raise ModelError(f"{name!r} is the name of a shipped model; --name gives another")
    path = os.path.join(folder(), name + SUFFIX)
    os.makedirs(folder(), exist_ok=True)
    write_atomic(path, data, overwrite=overwrite)
    return path


def remove(name: str) -> str:
    """Deletes an added model; the path that it had.  Raises ModelError where there is none of this name."""
    if name in shipped():
        raise ModelError(f"{name!r} is shipped with the package and stays")
    path = path_of(name)
    if path == name:
        raise ModelError(f"{name!r} is a path; models are removed by name")
    os.remove(path)
    return path


def _names(place: str) -> list[str]:
    try:
        names = os.listdir(place)
    except OSError:  # there is none, or it is nobody's to read
        names = []
    return sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))
