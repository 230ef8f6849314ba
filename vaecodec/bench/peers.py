"""Open the codecs of a benchmark, this one among them: each encodes pixels at a setting and decodes the file.

    open_peer("avif", Options(threads=2))  ->  Peer, or PeerError with the reason why it cannot take part

BPG, VTM and jpegli are programs on the PATH, which run in temporary folders.  Bytes are those of a whole file.
Settings are in a codec's own unit and are not mapped to another's.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vaecodec.arguments import DEFAULT_MODEL
from vaecodec.errors import CodecError
from vaecodec.images.reading import read_rgb


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

SWEEP = (1, 8, 15, 22, 30, 40, 50, 60, 70, 80, 90, 100)


def _open_vaecodec(options: Options, model: str = "", effort: str = "1") -> Peer:
    """This package with a model by name or path; above effort 1 the sweep has half of the settings."""
    from vaecodec.codec import Codec
    from vaecodec.model.file import load_model
    from vaecodec.rdo.effort import check_effort
    from vaecodec.version import __version__

    try:
        check_effort(int(effort))
    except ValueError as exc:
        raise PeerError(f"vaecodec@{effort}: effort is a whole number in 1..9") from exc
    is_default = int(effort) == 1
    try:
        codec = Codec(load_model(model or DEFAULT_MODEL), options.device, options.threads)
    except ImportError as exc:
        raise PeerError(f"--device {options.device} needs TensorFlow: pip install 'vaecodec[train]' ({exc})") from exc
    name = "vaecodec" if is_default else f"vaecodec@{int(effort)}"
    return Peer(
        f"{name}:{os.path.basename(model)}" if model else name,
        f"{__version__} {codec.model.name} {codec.model.id}",
        "" if is_default else f"effort {int(effort)}",
        Scale("quality", 1, 100, 0.125),
        SWEEP if is_default else SWEEP[1::2],
        codec.encode if is_default else partial(codec.encode, effort=int(effort)),
        codec.decode,
        threads=options.threads,
        device=options.device,
    )


class Format(NamedTuple):
    """A format of imagecodecs: the prefix of its functions, its library, and how it is called."""

    prefix: str
    library: str
    options: str
    scale: Scale
    settings: tuple[float, ...]
    fixed: Mapping[str, Any]  # keyword arguments of every call
    keyword: str = "level"  # the argument that takes the setting
    number: type[int] | type[float] = float
    threaded: bool = False


FORMATS = {
    "jpeg": Format(
        "jpeg8", "libjpeg-turbo", "4:2:0, optimised Huffman codes", QUALITY,
        (5, 10, 20, 30, 40, 50, 60, 70, 80, 87, 92, 95), {"subsampling": "420", "optimize": True}, number=int,
    ),
    "webp": Format(
        "webp", "libwebp", "4:2:0, method 6", QUALITY._replace(low=0),
        (1, 5, 10, 20, 30, 45, 60, 75, 85, 92, 97), {"method": 6, "lossless": False},
    ),
    "avif": Format(  # quality 100 is lossless in libavif; pixel format 1 is 4:4:4, whose name differs between versions
        "avif", "libavif", "4:4:4, speed 6", QUALITY._replace(high=99),
        (12, 20, 28, 36, 44, 52, 60, 68, 76, 84, 90), {"speed": 6, "pixelformat": 1}, number=int, threaded=True,
    ),
    "jxl": Format(
        "jpegxl", "libjxl", "effort 7", Scale("distance", 0.1, 25, 0.01, rising=False),
        (15, 11, 8, 6, 4.5, 3.5, 2.8, 2.2, 1.7, 1.3, 1, 0.7), {"effort": 7, "lossless": False}, "distance",
        threaded=True,
    ),
    "jpeg2000": Format(
        "jpeg2k", "OpenJPEG", "JP2, 9/7 wavelet and YCbCr, one layer", Scale("dB", 20, 60),
        (22, 24, 26, 28, 30, 32, 34, 36, 38, 40), {"codecformat": "JP2", "reversible": False}, threaded=True,
    ),
    "png": Format("png", "libpng", "lossless", LOSSLESS, (0,), {"level": 6}),
    "webp-lossless": Format(
        "webp", "libwebp", "lossless, method 4", LOSSLESS, (0,), {"lossless": True, "method": 4}
    ),
    "jxl-lossless": Format(
        "jpegxl", "libjxl", "lossless, effort 7", LOSSLESS, (0,), {"lossless": True, "effort": 7}, threaded=True
    ),
}  # fmt: skip


def _open_imagecodecs(options: Options, name: str) -> Peer:
    """A format of imagecodecs."""
    format = FORMATS[name]
    try:
        import imagecodecs
    except ImportError as exc:
        raise PeerError(f"needs imagecodecs: pip install 'vaecodec[bench]' ({exc})") from exc
    if not getattr(imagecodecs, format.prefix.upper()).available:
        raise PeerError(f"this imagecodecs was built without {format.library}")
    number = imagecodecs.version(dict).get(format.library.lower().replace("-", "_"), "?")
    threads = {"numthreads": options.threads} if format.threaded else {}
    encoder = partial(getattr(imagecodecs, f"{format.prefix}_encode"), **format.fixed, **threads)

    def encode(pixels: np.ndarray, setting: float) -> bytes:
        level = {} if format.scale == LOSSLESS else {format.keyword: format.number(setting)}
        return bytes(encoder(pixels, **level))

    return Peer(
        name,
        f"{format.library} {number}",
        format.options,
        format.scale,
        format.settings,
        encode,
        partial(getattr(imagecodecs, f"{format.prefix}_decode"), **threads),
        threads=options.threads if format.threaded else 1,
    )


HEVC_PRESET = "slow"
# Full-range BT.601, as in BPG: libswscale's conversion costs up to 0.5 dB at high rates.
YCBCR_TO_RGB = np.array([[1, 0, 1.402], [1, -0.114 * 1.772 / 0.587, -0.299 * 1.402 / 0.587], [1, 1.772, 0]])
RGB_TO_YCBCR = np.linalg.inv(YCBCR_TO_RGB)
YCBCR_OFFSET = np.array([0, 128, 128])


def rgb_to_ycbcr(pixels: np.ndarray) -> np.ndarray:
    """u8[H, W, 3] RGB as u8[H, W, 3] YCbCr."""
    ycbcr: np.ndarray = np.clip(np.rint(pixels @ RGB_TO_YCBCR.T + YCBCR_OFFSET), 0, 255)
    return ycbcr.astype(np.uint8)


def ycbcr_to_rgb(pixels: np.ndarray) -> np.ndarray:
    """u8[H, W, 3] YCbCr as u8[H, W, 3] RGB; the inverse of rgb_to_ycbcr, up to rounding."""
    rgb: np.ndarray = np.clip(np.rint((pixels - YCBCR_OFFSET) @ YCBCR_TO_RGB.T), 0, 255)
    return rgb.astype(np.uint8)


def _open_hevc(options: Options) -> Peer:
    """One intra frame of HEVC: x265 through PyAV."""
    try:
        import av

        if "libx265" not in av.codecs_available:
            raise ImportError("this PyAV was built without libx265")
    except ImportError as exc:
        raise PeerError(f"needs PyAV with x265: pip install av ({exc})") from exc
    return Peer(
        "hevc",
        f"x265 in PyAV {av.__version__}",
        f"intra frame, 4:4:4, preset {HEVC_PRESET}, bare stream",
        QP,
        (44, 41, 38, 35, 32, 29, 26, 23, 20),
        partial(_encode_hevc, threads=options.threads),
        partial(_decode_hevc, threads=options.threads),
        threads=options.threads,
    )


def _encode_hevc(pixels: np.ndarray, qp: float, threads: int) -> bytes:
    """Encode u8[H, W, 3] as a bare HEVC stream of one 4:4:4 frame; raise CodecError where a side is below 16."""
    import av

    height, width = pixels.shape[:2]
    if min(height, width) < 16:
        raise CodecError(f"{width} x {height} pixels, expected sides of at least 16 for x265")
    context = av.CodecContext.create("libx265", "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv444p"
    context.time_base = Fraction(1, 25)
    parameters = f"qp={int(qp)}:keyint=1:aq-mode=0:info=0:repeat-headers=1:log-level=none:range=full:pools={threads}"
    context.options = {"preset": HEVC_PRESET, "tune": "psnr", "x265-params": parameters}
    frame = av.VideoFrame(width, height, "yuv444p")
    ycbcr = rgb_to_ycbcr(pixels)
    for index, plane in enumerate(frame.planes):
        rows = np.zeros((height, plane.line_size), np.uint8)
        rows[:, :width] = ycbcr[..., index]
        plane.update(rows.tobytes())
    return b"".join(bytes(packet) for packet in [*context.encode(frame), *context.encode(None)])


def _decode_hevc(data: bytes, threads: int) -> np.ndarray:
    """Decode the frame of _encode_hevc."""
    import av

    context = av.CodecContext.create("hevc", "r")
    context.thread_count = threads
    frames = [*context.decode(av.Packet(data)), *context.decode(None)]
    if len(frames) != 1 or frames[0].format.name not in ("yuv444p", "yuvj444p"):
        raise CodecError(f"{len(frames)} frames, expected one of 8-bit 4:4:4")
    frame = frames[0]
    rows = [np.frombuffer(bytes(plane), np.uint8).reshape(frame.height, plane.line_size) for plane in frame.planes]
    return ycbcr_to_rgb(np.stack([plane[:, : frame.width] for plane in rows], -1))


def _open_program(options: Options, name: str) -> Peer:

    return open_program(name)


PEERS: dict[str, Callable[..., Peer]] = {
    "vaecodec": _open_vaecodec,
    "hevc": _open_hevc,
    **{name: partial(_open_imagecodecs, name=name) for name in FORMATS},
    **{name: partial(_open_program, name=name) for name in ("bpg", "vtm", "cjpegli")},
}
DEFAULT = ("vaecodec", "jpeg", "webp", "avif", "jxl", "jpeg2000", "hevc")


def open_peer(spec: str, options: Options) -> Peer:
    """The codec called `name`, `vaecodec:model`, `vaecodec@effort` or `vaecodec@effort:model`.

    Raises:
        PeerError: it cannot take part; the message says why.
    """
    head, _, model = spec.partition(":")
    name, _, effort = head.partition("@")
    if name not in PEERS:
        raise PeerError(f"no codec is called {name!r} (there are {', '.join(PEERS)})")
    if (model or effort) and name != "vaecodec":
        raise PeerError(f"{name} takes no {model or effort!r}; only vaecodec:MODEL and vaecodec@EFFORT name variants")
    try:
        return PEERS[name](options, model, effort or "1") if model or effort else PEERS[name](options)
    except CodecError as exc:
        raise PeerError(str(exc)) from exc


def check_decoded(pixels: Any, original: np.ndarray) -> np.ndarray:
    """Return decoded pixels; raise CodecError unless they are u8 of the original's shape."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != original.shape:
        kind = f"{pixels.dtype}{list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise CodecError(f"decoded to {kind}, expected uint8{list(original.shape)}")
    return pixels


PROGRAMS = {
    "bpg": ("bpgenc", "bpgdec"),
    "vtm": ("EncoderAppStatic", "DecoderAppStatic"),
    "cjpegli": ("cjpegli", "djpegli"),
}
TIMEOUT = 3600  # seconds per image: VTM takes minutes


def open_program(name: str) -> Peer:
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
