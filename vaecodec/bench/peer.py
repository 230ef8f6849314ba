"""Define what a codec of a benchmark is, and make codecs of installed packages and of Python files.

A codec has functions that encode pixels at a setting and decode the file.  Bytes are those of a whole file.  Settings
are in a codec's own unit and are not mapped to another's.

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
from typing import Any, NamedTuple

import numpy as np

from vaecodec.errors import CodecError, FormatError
from vaecodec.images.channels import to_numpy


class PeerError(CodecError):
    """A codec cannot take part in a benchmark."""


class Options(NamedTuple):
    """What every codec is asked to use, if it can."""

    threads: int = 1
    device: str = "cpu"


class Scale(NamedTuple):
    """A codec's own scale of quality."""

    unit: str
    low: float
    high: float
    step: float = 1.0
    rising: bool = True  # larger settings give larger files

    def bisect(self, is_below: Callable[[float], bool], tries: int = 64) -> tuple[float | None, float | None]:
        """Search for a quality by bisection, in `tries` at most.

        Returns:
            The best setting for which `is_below` was true and the worst for which it was false, or None: neighbours,
            unless the tries ended before.
        """
        last = round((self.high - self.low) / self.step)
        below, above = -1, last + 1
        while above - below > 1 and tries:
            # Rates grow about exponentially with settings, so most targets lie in the lower half.
            middle, tries = (below + above) // 2, tries - 1
            below, above = (middle, above) if is_below(self._setting(middle, last)) else (below, middle)
        return (
            self._setting(below, last) if below >= 0 else None,
            self._setting(above, last) if above <= last else None,
        )

    def _setting(self, place: int, last: int) -> float:
        """The setting at a place in 0..last, from the worst quality to the best."""
        return self.low + self.step * (place if self.rising else last - place)


class Peer(NamedTuple):
    """A codec that is ready to use; all fields but the two functions go into the results."""

    name: str
    version: str
    options: str  # its fixed options, in words
    scale: Scale
    settings: tuple[float, ...]  # the default sweep, about 0.1 to 1.6 bpp on photographs
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    is_program: bool = False  # runs a program for each image, so its times include the start
    threads: int = 1  # that it uses
    device: str = "cpu"


QUALITY = Scale("quality", 1, 100)
QP = Scale("QP", 0, 51, rising=False)
LOSSLESS = Scale("lossless", 0, 0)


def check_decoded(pixels: Any, original: np.ndarray) -> np.ndarray:
    """Return decoded pixels; raise CodecError unless they are u8 of the original's shape."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != original.shape:
        kind = f"{pixels.dtype}{list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise CodecError(f"decoded to {kind}, expected uint8{list(original.shape)}")
    return pixels


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
