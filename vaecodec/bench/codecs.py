"""Open the other codecs of a benchmark: libraries and programs.

Libraries are those of imagecodecs, AVIF through Pillow, jpegli, and HEVC through PyAV.  Programs run in temporary
folders: BPG, VTM, jpegli, and VVenC in FFmpeg.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vaecodec.bench.peer import LOSSLESS, QP, QUALITY, Options, Peer, PeerError, Scale
from vaecodec.errors import CodecError
from vaecodec.images.reading import read_rgb


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
    "jxl-e3": Format(
        "jpegxl", "libjxl", "effort 3", Scale("distance", 0.1, 25, 0.01, rising=False),
        (15, 11, 8, 6, 4.5, 3.5, 2.8, 2.2, 1.7, 1.3, 1, 0.7), {"effort": 3, "lossless": False}, "distance",
        threaded=True,
    ),
    "jxl-e9": Format(
        "jpegxl", "libjxl", "effort 9", Scale("distance", 0.1, 25, 0.01, rising=False),
        (15, 8, 4.5, 2.8, 1.7, 1), {"effort": 9, "lossless": False}, "distance", threaded=True,
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


def open_imagecodecs(options: Options, name: str) -> Peer:
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


TUNES = ("psnr", "iq", "ssimulacra2")  # of libaom for still images; libavif's default is iq


def open_avif(options: Options, tune: str) -> Peer:
    """AVIF by Pillow's libavif and libaom, which can be told what to tune for."""
    from PIL import features

    number = features.version("avif") if features.check("avif") else None
    if number is None:
        raise PeerError("this Pillow was built without AVIF")
    fixed = {"codec": "aom", "subsampling": "4:4:4", "speed": 6, "advanced": {"tune": tune}}

    def encode(pixels: np.ndarray, setting: float) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "AVIF", quality=int(setting), max_threads=options.threads, **fixed)
        return file.getvalue()

    try:
        encode(np.zeros((16, 16, 3), np.uint8), 50)
    except (OSError, ValueError) as exc:
        raise PeerError(f"this Pillow's libaom does not know tune={tune} ({exc})") from exc
    return Peer(
        f"avif-{tune}",
        f"libavif {number} in Pillow",
        f"4:4:4, speed 6, tune={tune}",
        FORMATS["avif"].scale,
        FORMATS["avif"].settings,
        encode,
        decode_by_pillow,
        threads=options.threads,
    )


def decode_by_pillow(data: bytes) -> np.ndarray:
    """u8[H, W, 3] of a file that Pillow reads."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


def open_jpegli(_: Options) -> Peer:
    """Jpegli through the package pyjpegli, in process."""
    try:
        import pyjpegli
    except ImportError as exc:
        raise PeerError(f"needs jpegli: pip install pyjpegli ({exc})") from exc
    from importlib.metadata import version

    def encode(pixels: np.ndarray, setting: float) -> bytes:
        height, width = pixels.shape[:2]
        return bytes(pyjpegli.encode(np.ascontiguousarray(pixels), width, height, int(setting)))

    def decode(data: bytes) -> np.ndarray:
        rgb, width, height = pyjpegli.decode(data)
        return np.frombuffer(rgb, np.uint8).reshape(height, width, 3)

    number, settings = version("pyjpegli"), (5, 10, 20, 30, 40, 50, 60, 70, 80, 87, 92, 95)
    return Peer("jpegli", f"pyjpegli {number}", "its defaults", QUALITY, settings, encode, decode)


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


def open_hevc(options: Options) -> Peer:
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
