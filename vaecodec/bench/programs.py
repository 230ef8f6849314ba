"""Codecs of a benchmark that are programs on the PATH, and run in temporary folders: BPG, VTM and jpegli."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile

import numpy as np
from PIL import Image

from vaecodec.bench.libraries import rgb_to_ycbcr, ycbcr_to_rgb
from vaecodec.bench.peer import QP, QUALITY, Options, Peer, PeerError
from vaecodec.errors import CodecError
from vaecodec.images.reading import read_rgb

PROGRAMS = {
    "bpg": ("bpgenc", "bpgdec"),
    "vtm": ("EncoderAppStatic", "DecoderAppStatic"),
    "cjpegli": ("cjpegli", "djpegli"),
}
TIMEOUT = 3600  # seconds per image: VTM takes minutes


def open_program(_: Options, name: str) -> Peer:
    """The codec called `name`; raise PeerError where its programs or what they need is missing."""
    paths = [shutil.which(program) for program in PROGRAMS[name]]
    if None in paths:
        raise PeerError(f"{' and '.join(PROGRAMS[name])} not found on the PATH")
    encoder, decoder = map(str, paths)
    if name == "vtm":
        return _open_vtm(encoder, decoder)
    if name == "bpg":
        version, options, scale = _version(encoder, "-h"), "4:4:4, x265, -m 8", QP
        settings: tuple[float, ...] = (44, 41, 38, 35, 32, 29, 26, 23, 20)
        encode_command = [encoder, "-m", "8", "-f", "444", "-q", "{}", "-o", "out", "in.png"]
        decode_command, extension = [decoder, "-o", "out.png", "in.bpg"], "bpg"
    else:
        version, options, scale = _version(encoder, "--version"), "4:2:0", QUALITY
        settings = (5, 10, 20, 30, 40, 50, 60, 70, 80, 87, 92, 95)
        encode_command = [encoder, "in.png", "out", "-q", "{}", "--chroma_subsampling=420"]
        decode_command, extension = [decoder, "in.jpg", "out.png"], "jpg"

    def encode(pixels: np.ndarray, setting: float) -> bytes:
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, "PNG", compress_level=1)
        command = [f"{setting:g}" if argument == "{}" else argument for argument in encode_command]
        return _run(command, png.getvalue(), "in.png", "out")

    def decode(data: bytes) -> np.ndarray:
        return read_rgb(_run(decode_command, data, f"in.{extension}", "out.png"))

    return Peer(name, version, options, scale, settings, encode, decode, is_program=True)


def _open_vtm(encoder: str, decoder: str) -> Peer:
    config = os.environ.get("VTM_INTRA_CFG", "")
    if not os.path.isfile(config):
        raise PeerError("VTM_INTRA_CFG must name VTM's encoder_intra_vtm.cfg")

    def encode(pixels: np.ndarray, qp: float) -> bytes:
        height, width = pixels.shape[:2]
        size = [f"--SourceWidth={width}", f"--SourceHeight={height}", "--InputChromaFormat=444"]
        format = ["--FrameRate=1", "--FramesToBeEncoded=1", "--InputBitDepth=8", "--ConformanceWindowMode=1"]
        files = ["-i", "in.yuv", "-b", "out", "-o", os.devnull]
        planes = rgb_to_ycbcr(pixels).transpose(2, 0, 1).tobytes()
        stream = _run([encoder, "-c", config, *files, "-q", f"{qp:g}", *size, *format], planes, "in.yuv", "out")
        # Only a parser of VVC finds the size in the stream, so 8 bytes precede it; they count as part of the file.
        return np.array((height, width), "<u4").tobytes() + stream

    def decode(data: bytes) -> np.ndarray:
        height, width = np.frombuffer(data[:8], "<u4")
        planes = _run([decoder, "-b", "in.vvc", "-o", "out.yuv", "-d", "8"], data[8:], "in.vvc", "out.yuv")
        return ycbcr_to_rgb(np.frombuffer(planes, np.uint8).reshape(3, height, width).transpose(1, 2, 0))

    options, settings = "all intra, 4:4:4, bare stream and 8 bytes", (47, 42, 37, 32, 27, 22)
    return Peer("vtm", _version(encoder, "--help"), options, QP, settings, encode, decode, is_program=True)


def _run(command: list[str], data: bytes, source: str, target: str) -> bytes:
    """Run a program in a folder where the file `source` holds `data`; return the bytes of its file `target`."""
    program = os.path.basename(command[0])
    with tempfile.TemporaryDirectory(prefix="vaecodec-") as folder:
        with open(os.path.join(folder, source), "wb") as file:
            file.write(data)
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise CodecError(f"{program}: {exc}") from exc
        if done.returncode or not os.path.exists(os.path.join(folder, target)):
            lines = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
            raise CodecError(f"{program} failed with code {done.returncode}: {lines[-1] if lines else 'no message'}")
        with open(os.path.join(folder, target), "rb") as file:
            return file.read()


def _version(program: str, option: str) -> str:
    """The first line with a digit that a program prints, which holds its version in some form."""
    try:
        done = subprocess.run([program, option], capture_output=True, timeout=20, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise PeerError(f"{os.path.basename(program)} cannot be run ({exc})") from exc
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    return next((line.strip()[:60] for line in lines if any(c.isdigit() for c in line)), os.path.basename(program))
