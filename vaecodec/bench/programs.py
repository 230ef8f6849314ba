"""Codecs of a benchmark that are programs, and run in temporary folders: BPG, VTM, jpegli, and VVenC in FFmpeg."""

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
VVC_PRESET = "slow"
VVC_MULTIPLE = 8  # VVenC codes sides that are multiples of this
COLOURS = "flags=accurate_rnd+full_chroma_int+full_chroma_inp+lanczos"


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


def open_vvc(options: Options) -> Peer:
    """One intra frame of VVC: VVenC in the FFmpeg of the package imageio-ffmpeg, which has 4:2:0 alone."""
    try:
        import imageio_ffmpeg

        ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as exc:
        raise PeerError(f"needs FFmpeg with VVenC: pip install imageio-ffmpeg ({exc})") from exc
    encoders = subprocess.run([ffmpeg, "-v", "error", "-encoders"], capture_output=True, text=True, check=False).stdout
    if "libvvenc" not in encoders:
        raise PeerError("this FFmpeg was built without VVenC: pip install 'imageio-ffmpeg>=0.8'")
    base = [ffmpeg, "-v", "error", "-y"]

    def encode(pixels: np.ndarray, qp: float) -> bytes:
        height, width = pixels.shape[:2]
        wide = np.pad(pixels, [(0, -height % VVC_MULTIPLE), (0, -width % VVC_MULTIPLE), (0, 0)], "edge")
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{wide.shape[1]}x{wide.shape[0]}", "-i", "in.rgb"]
        planes = ["-vf", f"scale=out_color_matrix=bt601:out_range=full:{COLOURS},format=yuv420p10le"]
        codec = ["-c:v", "libvvenc", "-preset", VVC_PRESET, "-qp", f"{qp:g}", "-qpa", "0"]
        codec += ["-vvenc-params", f"intraperiod=1:verbosity=0:threads={options.threads}", "-f", "vvc", "out"]
        stream = _run([*base, *source, "-frames:v", "1", *planes, *codec], wide.tobytes(), "in.rgb", "out")
        return np.array((height, width), "<u4").tobytes() + stream  # 8 bytes for the size, as for VTM

    def decode(data: bytes) -> np.ndarray:
        height, width = np.frombuffer(data[:8], "<u4").tolist()
        pixels = ["-vf", f"scale=in_color_matrix=bt601:in_range=full:out_range=full:{COLOURS},format=rgb24"]
        command = [*base, "-f", "vvc", "-i", "in.vvc", "-frames:v", "1", *pixels, "-f", "rawvideo", "out"]
        wide = np.frombuffer(_run(command, data[8:], "in.vvc", "out"), np.uint8)
        return wide.reshape(height + -height % VVC_MULTIPLE, -1, 3)[:height, :width]

    text = f"intra frame, 4:2:0, 10 bits, preset {VVC_PRESET}, bare stream and 8 bytes"
    version = f"VVenC in {_version(ffmpeg, '-version').split(' Copyright')[0]}"
    settings = (50, 46, 42, 38, 34, 30, 26, 22)
    return Peer("vvc", version, text, QP, settings, encode, decode, threads=options.threads, is_program=True)


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
