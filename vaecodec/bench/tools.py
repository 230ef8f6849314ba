"""Codecs that are programs on the PATH: BPG, VTM and jpegli, each a pair of command lines in a scratch folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vaecodec.bench.peers import QP, QUALITY, PeerError, Scale
from vaecodec.errors import CodecError

PROGRAMS = {
    "bpg": ("bpgenc", "bpgdec"),
    "vtm": ("EncoderAppStatic", "DecoderAppStatic"),
    "cjpegli": ("cjpegli", "djpegli"),
}
TIMEOUT = 3600  # seconds a picture: VTM takes minutes


class Tool(NamedTuple):
    """What a program brings to a Peer."""

    version: str
    options: str
    scale: Scale
    settings: tuple[float, ...]
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]


def find(name: str) -> Tool | None:
    """The codec called `name`, None where its programs are missing; raises PeerError on what else it lacks."""
    paths = [shutil.which(program) for program in PROGRAMS[name]]
    if None in paths:
        return None
    return {"bpg": _bpg, "vtm": _vtm, "cjpegli": _jpegli}[name](*map(str, paths))


def _bpg(encoder: str, decoder: str) -> Tool:
    return Tool(
        _said(encoder, "-h"),
        "4:4:4, x265, -m 8",
        QP,
        (44, 41, 38, 35, 32, 29, 26, 23, 20),
        lambda x, qp: _through(x, "in.png", [encoder, "-m", "8", "-f", "444", "-q", f"{qp:g}", "-o", "out", "in.png"]),
        lambda data: _back(data, "in.bpg", [decoder, "-o", "out.png", "in.bpg"]),
    )


def _jpegli(encoder: str, decoder: str) -> Tool:
    return Tool(
        _said(encoder, "--version"),
        "4:2:0",
        QUALITY,
        (5, 10, 20, 30, 40, 50, 60, 70, 80, 87, 92, 95),
        lambda x, q: _through(x, "in.png", [encoder, "in.png", "out", "-q", f"{q:g}", "--chroma_subsampling=420"]),
        lambda data: _back(data, "in.jpg", [decoder, "in.jpg", "out.png"]),
    )


def _vtm(encoder: str, decoder: str) -> Tool:
    from vaecodec.bench.hevc import from_planes, to_planes

    settings = os.environ.get("VTM_INTRA_CFG", "")
    if not os.path.isfile(settings):
        raise PeerError("VTM_INTRA_CFG must name VTM's encoder_intra_vtm.cfg")

    def encode(x: np.ndarray, qp: float) -> bytes:
        size = [f"--SourceWidth={x.shape[1]}", f"--SourceHeight={x.shape[0]}", "--InputChromaFormat=444"]
        count = ["--FrameRate=1", "--FramesToBeEncoded=1", "--InputBitDepth=8", "--ConformanceWindowMode=1"]
        files = ["-i", "in.yuv", "-b", "out", "-o", os.devnull]
        stream = _run([encoder, "-c", settings, *files, "-q", f"{qp:g}", *size, *count], to_planes(x), "in.yuv", "out")
        # A bare stream tells its size only to a parser of VVC, so 8 bytes of it go in front, and are not hidden.
        return np.array(x.shape[:2], "<u4").tobytes() + stream

    def decode(data: bytes) -> np.ndarray:
        height, width = np.frombuffer(data[:8], "<u4")
        raw = _run([decoder, "-b", "in.vvc", "-o", "out.yuv", "-d", "8"], data[8:], "in.vvc", "out.yuv")
        return from_planes(np.frombuffer(raw, np.uint8).reshape(3, height, width).transpose(1, 2, 0))

    levels = (47, 42, 37, 32, 27, 22)
    return Tool(_said(encoder, "--help"), "all intra, 4:4:4, bare stream and 8 bytes", QP, levels, encode, decode)


def _through(pixels: np.ndarray, name: str, command: list[str]) -> bytes:
    """Pixels, as PNG, through a program to a file called out."""
    from PIL import Image

    return _run(command, lambda path: Image.fromarray(pixels).save(path, "PNG", compress_level=1), name, "out")


def _back(data: bytes, name: str, command: list[str]) -> np.ndarray:
    """A file through a program to out.png, as pixels; the inverse of _through."""
    from vaecodec.images.reading import read_rgb

    return read_rgb(_run(command, data, name, "out.png"))


def _run(command: list[str], source: bytes | np.ndarray | Callable[[str], None], name: str, target: str) -> bytes:
    """Runs a program in a folder that holds `source` as `name`; the bytes of the `target` it leaves there."""
    with tempfile.TemporaryDirectory(prefix="vaecodec-") as folder:
        path = os.path.join(folder, name)
        if callable(source):
            source(path)
        else:
            with open(path, "wb") as file:
                file.write(source if isinstance(source, bytes) else source.transpose(2, 0, 1).tobytes())
        program = os.path.basename(command[0])
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise CodecError(f"{program}: {exc}") from exc
        if done.returncode or not os.path.exists(os.path.join(folder, target)):
            words = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise CodecError(f"{program} failed with code {done.returncode}: {words[-1] if words else 'no message'}")
        with open(os.path.join(folder, target), "rb") as file:
            return file.read()


def _said(program: str, option: str) -> str:
    """The first line with a digit that a program says of itself: its version, in whatever form."""
    try:
        done = subprocess.run([program, option], capture_output=True, timeout=20, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PeerError(f"{os.path.basename(program)} cannot be run ({exc})") from exc
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    return next((line.strip()[:60] for line in lines if any(c.isdigit() for c in line)), os.path.basename(program))
