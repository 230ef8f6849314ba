"""What outputs are called: photo.jpg <-> photo.vae, notes.txt <-> notes.txt.vae."""

from __future__ import annotations

import os

from vaecodec.atomic import Path
from vaecodec.container.chunks import SUFFIX
from vaecodec.container.stored import Stored
from vaecodec.errors import CodecError

OWN = ".vaecodec-"  # what the names of manifests and temporary files begin with


def compressed_name(src: Path, picture: bool = True) -> str:
    """photo.jpg -> photo.vae, and what is not coded as a picture, notes.txt -> notes.txt.vae"""
    src = os.fspath(src)
    return (os.path.splitext(src)[0] if picture else src) + SUFFIX


def decompressed_name(src: Path) -> str:
    """photo.vae -> photo.png; another suffix stays, so that the name says where it came from."""
    stem, suffix = os.path.splitext(os.fspath(src))
    if suffix.lower() != SUFFIX:
        return stem + suffix + ".png"
    return stem if stem.lower().endswith(".png") else stem + ".png"


def bare_name(src: Path) -> str:
    """notes.txt.vae -> notes.txt, and notes -> notes.out"""
    stem, suffix = os.path.splitext(os.fspath(src))
    return stem if suffix.lower() == SUFFIX else stem + suffix + ".out"


def restored_name(src: Path, about: Stored) -> str:
    """The base name of a stored file, or where it has none that of `src` without its suffix.

    Raises CodecError where this system would take the name for a place elsewhere, where it is one of this library's
    files, which a later run would trust, and where it is hidden and the name of `src` does not say so.
    """
    bare = os.path.basename(bare_name(src))
    name = about.text or bare
    if name.casefold().startswith(OWN) or (name.startswith(".") and name != bare):
        raise CodecError(f"{os.fspath(src)}: its file is called {name}, which may be harmful here; -o gives another")
    if os.path.basename(name) != name or os.path.splitdrive(name)[0]:
        raise CodecError(f"{os.fspath(src)}: its file is called {name}, which is no name here; -o gives another")
    return name
