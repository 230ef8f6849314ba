"""Find model files by name or id: shipped ones, and those that a user has added.  Standard library only.

Shipped models are in vaecodec/model/shipped, each with a card beside it; their names are reserved.  Added models are in
$VAECODEC_MODELS or a folder in the user's data directory.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

from vaecodec.atomic import write_atomic
from vaecodec.errors import ModelError, ModelNotFoundError

T = TypeVar("T")

SHIPPED = os.path.join(os.path.dirname(__file__), "shipped")
SUFFIX = ".vcm"
VARIABLE = "VAECODEC_MODELS"
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
MAX_HEADER = 1 << 20  # bytes of a model file's JSON
SUMMARY = re.compile(r"^\| summary \| (.*?) \|$", re.M)  # a row of a card


def models_folder() -> str:
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


def shipped_models() -> list[str]:
    """Names of the models inside the package."""
    return _model_names(SHIPPED)


def added_models() -> list[str]:
    """Names of the added models, without those of shipped models."""
    reserved = shipped_models()
    return [name for name in _model_names(models_folder()) if name not in reserved]


def path_of_model(name_or_path: str | os.PathLike[str]) -> str:
    """The path of a model; a name that ends in .vcm is a path.  Raises ModelError if no model has the name."""
    path = os.fspath(name_or_path)
    if path.endswith(SUFFIX):
        return path
    for names, place in ((shipped_models, SHIPPED), (added_models, models_folder())):
        if path in names():
            return os.path.join(place, path + SUFFIX)
    names_here = ", ".join(shipped_models() + added_models()) or "none"
    raise ModelError(f"no model is called {path!r} (there are: {names_here}; the path of a file ends in {SUFFIX})")


def add_model(name: str, data: bytes, overwrite: bool = False) -> str:
    """Write the file of a model atomically and return its path.

    Raises ModelError if the name is not valid or belongs to a shipped model, FileExistsError if it is taken.
    """
    if not MODEL_NAME.fullmatch(name) or name.endswith(SUFFIX):
        raise ModelError(f"{name!r} is not a name for a model: letters, digits and . _ + -, at most 64")
    if name in shipped_models():
        raise ModelError(f"{name!r} is the name of a shipped model; --name gives another")
    path = os.path.join(models_folder(), name + SUFFIX)
    os.makedirs(models_folder(), exist_ok=True)
    write_atomic(path, data, overwrite=overwrite)
    return path


def remove_model(name: str) -> str:
    """Delete an added model and return its path.  Raises ModelError if there is none of this name."""
    if name in shipped_models():
        raise ModelError(f"{name!r} is shipped with the package and cannot be removed")
    path = path_of_model(name)
    if path == name:
        raise ModelError(f"{name!r} is a path; models are removed by name")
    os.remove(path)
    return path


def card_of_model(name: str) -> str:
    """The card of a shipped model, in Markdown; "" for others."""
    if name not in shipped_models():
        return ""
    with open(os.path.join(SHIPPED, name + ".md"), encoding="utf-8") as file:
        return file.read()


def summary_of_model(name: str) -> str:
    """What a shipped model is for, in one line; "" for others."""
    row = SUMMARY.search(card_of_model(name))
    return row.group(1) if row else ""


def id_of_model(name_or_path: str) -> str:
    """The id that a model file states, unchecked; raises ModelError if there is no such model, or it is damaged."""
    return of_file(_stated_id, path_of_model(name_or_path))


def name_of_model(model_id: str) -> str | None:
    """The name of the model with this id, shipped or added."""
    for name in shipped_models() + added_models():
        with suppress(ModelError):  # a damaged model does not matter to files of another
            if id_of_model(name) == model_id:
                return name
    return None


def of_file(function: Callable[[str, int, int], T], path: str) -> T:
    """The result of a cached function of (path, time of change, size) for a file; raises ModelError."""
    try:
        state = os.stat(path)
        return function(path, state.st_mtime_ns, state.st_size)
    except FileNotFoundError as exc:
        raise ModelNotFoundError(f"{path}: no such file") from exc
    except OSError as exc:
        raise ModelError(f"{path}: cannot be read ({exc.strerror})") from exc


def _model_names(place: str) -> list[str]:
    try:
        names = os.listdir(place)
    except OSError:  # the folder does not exist or is not readable
        names = []
    return sorted(name[: -len(SUFFIX)] for name in names if name.endswith(SUFFIX))


@lru_cache(maxsize=64)
def _stated_id(path: str, changed: int, size: int) -> str:
    with open(path, "rb") as file:
        header: Any = file.read(8)
        header = file.read(min(int.from_bytes(header, "little"), MAX_HEADER))
    try:
        return str(json.loads(json.loads(header)["__metadata__"]["id"]))
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise ModelError(f"{path}: not a vaecodec model ({type(exc).__name__}: {exc})") from exc
