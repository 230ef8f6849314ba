"""Find models by name: those shipped with the package, and those that a user has added to a folder.

vaecodec/model/shipped/*.vcm                                 shipped; their names are reserved
$VAECODEC_MODELS, or a folder in the user's data directory   added
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
    """The folder of added models, which may not exist."""
    if from_environment := os.environ.get(VARIABLE):
        return from_environment
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
    """Names of the added models, without those of shipped models."""
    reserved = shipped()
    return [name for name in _names(folder()) if name not in reserved]


def path_of(name_or_path: str | os.PathLike[str]) -> str:
    """The path of a model; a name that ends in .vcm is a path.  Raises ModelError if no model has the name."""
    path = os.fspath(name_or_path)
    if path.endswith(SUFFIX):
        return path
    for names, place in ((shipped, SHIPPED), (added, folder())):
        if path in names():
            return os.path.join(place, path + SUFFIX)
    raise ModelError(f"no model is called {path!r} (there are: {', '.join(shipped() + added()) or 'none'})")


def add(name: str, data: bytes, overwrite: bool = False) -> str:
    """Write the file of a model atomically and return its path.

    Raises ModelError if the name is not valid or belongs to a shipped model, FileExistsError if it is taken.
    """
    if not NAME.fullmatch(name) or name.endswith(SUFFIX):
        raise ModelError(f"{name!r} is not a name for a model: letters, digits and . _ + -, at most 64")
    if name in shipped():
        raise ModelError(f"{name!r} is the name of a shipped model; --name gives another")
    path = os.path.join(folder(), name + SUFFIX)
    os.makedirs(folder(), exist_ok=True)
    write_atomic(path, data, overwrite=overwrite)
    return path


def remove(name: str) -> str:
    """Delete an added model and return its path.  Raises ModelError if there is none of this name."""
    if name in shipped():
        raise ModelError(f"{name!r} is shipped with the package and cannot be removed")
    path = path_of(name)
    if path == name:
        raise ModelError(f"{name!r} is a path; models are removed by name")
    os.remove(path)
    return path


def _names(place: str) -> list[str]:
    try:
        names = os.listdir(place)
    except OSError:  # the folder does not exist or is not readable
        names = []
    return sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))
