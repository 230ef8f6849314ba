"""Codecs of others in a benchmark: from installed packages, and from Python files named on the command line.

A package registers a function `open(options: Options) -> Peer` as an entry point of the group CODECS.  A file defines

    encode(pixels u8[H, W, 3], setting) -> bytes        decode(bytes) -> u8[H, W, 3]

or, for a learned codec with the interface of CompressAI's models,

    model(setting)                                      an object with compress(x) and decompress(strings, shape)

and, if it likes, NAME, VERSION, OPTIONS (texts) and SETTINGS (the sweep, a tuple of numbers in rising quality).
"""

from __future__ import annotations

import importlib.util
import os
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import numpy as np

from vaecodec.bench.peer import Options, Peer, PeerError, Scale
from vaecodec.errors import FormatError
from vaecodec.tensors import to_numpy

CODECS = "vaecodec.bench.codecs"  # group of entry points
SETTINGS = (10, 25, 40, 55, 70, 85, 95)  # of a file that names none
MODEL_SETTINGS = (1, 2, 3, 4, 5, 6)  # of a model: the qualities that all of CompressAI's have
STRIDE = 64  # CompressAI's models take multiples of it

_opened: dict[str, Callable[[Options], Peer]] = {}  # of files, by name


def names() -> list[str]:
    """The names of the codecs that are known here."""
    return [*_opened, *(point.name for point in _points())]


def names_of_files() -> list[str]:
    """The names of the codecs of files."""
    return list(_opened)


def find(name: str) -> Callable[[Options], Peer] | None:
    """The function that opens a codec, None for an unknown name; raises PeerError if its package cannot be imported."""
    if name in _opened:
        return _opened[name]
    for point in _points():
        if point.name == name:
            try:
                opener: Callable[[Options], Peer] = point.load()
            except Exception as exc:  # another package may raise anything
                raise PeerError(f"{point.value} cannot be loaded ({type(exc).__name__}: {exc})") from exc
            return opener
    return None


def _points() -> list[EntryPoint]:
    return list(entry_points(group=CODECS))


def add_file(path: str) -> str:
    """Run a Python file that defines a codec, and return the codec's name; raises PeerError."""
    name = os.path.splitext(os.path.basename(path))[0]
    specification = importlib.util.spec_from_file_location(f"vaecodec_codec_{name}", path)
    if specification is None or specification.loader is None:
        raise PeerError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(specification)
    try:
        specification.loader.exec_module(module)
    except FileNotFoundError as exc:
        if os.path.exists(path):  # another file is missing
            raise PeerError(f"{path}: {exc}") from exc
        raise PeerError(f"{path}: {exc.strerror}") from exc
    except Exception as exc:  # as above
        raise PeerError(f"{path}: {type(exc).__name__}: {exc}") from exc
    name = str(getattr(module, "NAME", name))
    if not (hasattr(module, "model") or (hasattr(module, "encode") and hasattr(module, "decode"))):
        raise PeerError(f"{path}: defines neither encode(pixels, setting) and decode(data) nor model(setting)")
    _opened[name] = lambda options: _peer_of(module, name)
    return name


def _peer_of(module: ModuleType, name: str) -> Peer:
    is_model = not hasattr(module, "encode")
    settings = tuple(getattr(module, "SETTINGS", MODEL_SETTINGS if is_model else SETTINGS))
    if not settings or not all(isinstance(value, (int, float)) for value in settings):
        raise PeerError(f"SETTINGS is {settings!r}, expected numbers")
    scale = Scale("setting", min(settings), max(settings), rising=settings[0] <= settings[-1])
    encode, decode = Learned(module.model).functions if is_model else (module.encode, module.decode)
    version, options = str(getattr(module, "VERSION", "")), str(getattr(module, "OPTIONS", ""))
    return Peer(name, version, options, scale, settings, lambda x, s: bytes(encode(x, s)), decode)


class Learned:
    """Files of a learned codec that has the interface of CompressAI's models.

    compress(x f32[1, 3, H, W]) returns {"strings": lists of bytes, "shape": integers}, and decompress(strings, shape)
    returns {"x_hat": f32[1, 3, H, W]}.  Sides are padded to STRIDE by repeating the edge.  A file has the setting, the
    sides, the shape and the strings, with 4 bytes for the length of each.
    """

    def __init__(self, model: Callable[[float], Any]) -> None:
        self._model = lru_cache(maxsize=2)(model)

    @property
    def functions(self) -> tuple[Callable[[np.ndarray, float], bytes], Callable[[bytes], np.ndarray]]:
        """(encode, decode)."""
        return self._encode, self._decode

    def _encode(self, pixels: np.ndarray, setting: float) -> bytes:
        height, width = pixels.shape[:2]
        padding = [(0, -side % STRIDE) for side in (height, width)]
        x = np.pad(pixels, (*padding, (0, 0)), "edge").transpose(2, 0, 1)[None].astype(np.float32) / 255
        model = self._model(setting)
        coded = model.compress(_tensor(model, x))
        shape = [int(side) for side in coded["shape"]]
        head = struct.pack("<fHHB", setting, height, width, len(shape))
        return head + struct.pack(f"<{len(shape)}I", *shape) + b"".join(_pack(coded["strings"]))

    def _decode(self, data: bytes) -> np.ndarray:
        setting, height, width, axes = struct.unpack_from("<fHHB", data)
        at = struct.calcsize("<fHHB")
        shape = struct.unpack_from(f"<{axes}I", data, at)
        strings, end = _unpack(data, at + 4 * axes)
        if end != len(data):
            raise FormatError("bytes follow the last string")
        x = to_numpy(self._model(setting).decompress(strings, shape)["x_hat"])[0]
        pixels = np.rint(np.clip(x.transpose(1, 2, 0), 0, 1) * 255).astype(np.uint8)
        return np.ascontiguousarray(pixels[:height, :width])


def _tensor(model: Any, x: np.ndarray) -> Any:
    """The input as a model wants it: a tensor of PyTorch on its device for a module of PyTorch, else the array."""
    if not hasattr(model, "parameters"):
        return x
    import torch

    torch.set_grad_enabled(False)
    parameter = next(iter(model.parameters()), None)
    return torch.from_numpy(x).to(parameter.device if parameter is not None else "cpu")


LIST = 1 << 31  # added to the length of a list, which tells it from a string


def _pack(node: Any) -> Iterator[bytes]:
    if isinstance(node, (bytes, bytearray)):
        yield struct.pack("<I", len(node))
        yield bytes(node)
    else:
        yield struct.pack("<I", LIST | len(node))
        for child in node:
            yield from _pack(child)


def _unpack(data: bytes, at: int) -> tuple[Any, int]:
    (length,) = struct.unpack_from("<I", data, at)
    at += 4
    if not length & LIST:
        return data[at : at + length], at + length
    children = []
    for _ in range(length ^ LIST):
        child, at = _unpack(data, at)
        children.append(child)
    return children, at
