"""The codecs of a benchmark, ours among them: each is encode(pixels, setting) -> bytes and decode(bytes) -> pixels.

    open_peer("avif", Options(threads=2))  ->  Peer, or PeerError with the reason why it cannot be had

Bytes are those of a whole file.  Settings are in a codec's own unit, never mapped to another's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from vaecodec.errors import CodecError


class PeerError(CodecError):
    """A codec that cannot take part, and why."""


class Options(NamedTuple):
    """What a benchmark asks of every codec that can follow."""

    threads: int = 1
    device: str = "cpu"


class Scale(NamedTuple):
    """A codec's own scale of quality."""

    unit: str
    low: float
    high: float
    step: float = 1.0
    rising: bool = True  # whether larger settings give larger files


class Peer(NamedTuple):
    """A codec, ready to use; all fields but the two functions are for the table."""

    name: str
    version: str
    options: str  # in words: what is fixed in it
    scale: Scale
    settings: tuple[float, ...]  # the default sweep, about 0.1 to 1.6 bpp on photographs
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    own_process: bool = False  # a program run for each picture: its times include its start
    threads: int = 1  # that it uses, of those it was offered
    device: str = "cpu"


QUALITY = Scale("quality", 1, 100)
QP = Scale("QP", 0, 51, rising=False)
LOSSLESS = Scale("lossless", 0, 0)


SWEEP = (1, 8, 15, 22, 30, 40, 50, 60, 70, 80, 90, 100)


def vaecodec_peer(options: Options, model: str = "", effort: str = "1") -> Peer:
    """This package with a shipped model, or any by name or .vcm file; of more effort every second quality."""
    from vaecodec.codec.codec import Codec
    from vaecodec.model.file import load_model
    from vaecodec.rdo.refinement import check_effort
    from vaecodec.version import __version__

    try:
        check_effort(int(effort))
    except ValueError as exc:
        raise PeerError(f"vaecodec@{effort}: effort is a whole number in 1..9") from exc
    plain = int(effort) == 1
    try:
        codec = Codec(load_model(model or "small"), options.device, options.threads)
    except ImportError as exc:
        raise PeerError(f"--device {options.device} needs TensorFlow: pip install 'vaecodec[train]' ({exc})") from exc
    name = "vaecodec" if plain else f"vaecodec@{int(effort)}"
    return Peer(
        f"{name}:{os.path.basename(model)}" if model else name,
        f"{__version__} {codec.model.name} {codec.model.id}",
        "" if plain else f"effort {int(effort)}",
        Scale("quality", 1, 100, 0.125),
        SWEEP if plain else SWEEP[1::2],
        codec.encode if plain else partial(codec.encode, effort=int(effort)),
        codec.decode,
        threads=options.threads,
        device=options.device,
    )


def jpeg(options: Options) -> Peer:
    """libjpeg-turbo."""
    lib, version = _imagecodecs("JPEG8", "libjpeg_turbo", "libjpeg-turbo")
    return Peer(
        "jpeg",
        version,
        "4:2:0, optimised Huffman codes",
        QUALITY,
        (5, 10, 20, 30, 40, 50, 60, 70, 80, 87, 92, 95),
        lambda x, q: lib.jpeg8_encode(x, level=int(q), subsampling="420", optimize=True),
        lib.jpeg8_decode,
    )


def webp(options: Options) -> Peer:
    """libwebp, lossy."""
    lib, version = _imagecodecs("WEBP", "libwebp", "libwebp")
    return Peer(
        "webp",
        version,
        "4:2:0, method 6",
        QUALITY._replace(low=0),
        (1, 5, 10, 20, 30, 45, 60, 75, 85, 92, 97),
        lambda x, q: lib.webp_encode(x, level=q, method=6, lossless=False),
        lib.webp_decode,
    )


def avif(options: Options) -> Peer:
    """libavif with its own choice of AV1 encoder."""
    lib, version = _imagecodecs("AVIF", "libavif", "libavif")
    threads = options.threads
    return Peer(
        "avif",
        version,
        "4:4:4, speed 6",
        Scale("quality", 1, 99),  # at 100 libavif is lossless
        (12, 20, 28, 36, 44, 52, 60, 68, 76, 84, 90),
        lambda x, q: lib.avif_encode(x, level=int(q), speed=6, pixelformat="444", numthreads=threads),
        lambda data: lib.avif_decode(data, numthreads=threads),
        threads=threads,
    )


def jxl(options: Options) -> Peer:
    """libjxl, VarDCT."""
    lib, version = _imagecodecs("JPEGXL", "libjxl", "libjxl")
    threads = options.threads
    return Peer(
        "jxl",
        version,
        "effort 7",
        Scale("distance", 0.1, 25, 0.01, rising=False),
        (15, 11, 8, 6, 4.5, 3.5, 2.8, 2.2, 1.7, 1.3, 1, 0.7),
        lambda x, d: lib.jpegxl_encode(x, distance=d, effort=7, lossless=False, numthreads=threads),
        lambda data: lib.jpegxl_decode(data, numthreads=threads),
        threads=threads,
    )


def jpeg2000(options: Options) -> Peer:
    """OpenJPEG, 9/7 wavelet."""
    lib, version = _imagecodecs("JPEG2K", "openjpeg", "OpenJPEG")
    threads = options.threads
    return Peer(
        "jpeg2000",
        version,
        "JP2, 9/7 wavelet and YCbCr, one layer",
        Scale("dB", 20, 60),
        (22, 24, 26, 28, 30, 32, 34, 36, 38, 40),
        lambda x, db: lib.jpeg2k_encode(x, level=db, codecformat="JP2", reversible=False, numthreads=threads),
        lambda data: lib.jpeg2k_decode(data, numthreads=threads),
        threads=threads,
    )


def hevc(options: Options) -> Peer:
    """One intra frame of HEVC, x265 through PyAV."""
    from vaecodec.bench import hevc

    try:
        version = hevc.version()
    except ImportError as exc:
        raise PeerError(f"needs PyAV with x265: pip install av ({exc})") from exc
    return Peer(
        "hevc",
        version,
        f"intra frame, 4:4:4, preset {hevc.PRESET}, bare stream",
        QP,
        (44, 41, 38, 35, 32, 29, 26, 23, 20),
        lambda x, qp: hevc.encode(x, int(qp), options.threads),
        lambda data: hevc.decode(data, options.threads),
        threads=options.threads,
    )


def png(options: Options) -> Peer:
    """libpng, at its default level."""
    lib, version = _imagecodecs("PNG", "libpng", "libpng")
    return Peer("png", version, "lossless", LOSSLESS, (0,), lambda x, _: lib.png_encode(x, level=6), lib.png_decode)


def webp_lossless(options: Options) -> Peer:
    """libwebp, lossless."""
    lib, version = _imagecodecs("WEBP", "libwebp", "libwebp")

    def encode(x: np.ndarray, _: float) -> bytes:
        return lib.webp_encode(x, lossless=True, method=4)

    return Peer("webp-lossless", version, "lossless, method 4", LOSSLESS, (0,), encode, lib.webp_decode)


def jxl_lossless(options: Options) -> Peer:
    """libjxl, modular."""
    lib, version = _imagecodecs("JPEGXL", "libjxl", "libjxl")
    threads = options.threads
    return Peer(
        "jxl-lossless",
        version,
        "lossless, effort 7",
        LOSSLESS,
        (0,),
        lambda x, _: lib.jpegxl_encode(x, lossless=True, effort=7, numthreads=threads),
        lambda data: lib.jpegxl_decode(data, numthreads=threads),
        threads=threads,
    )


def external(options: Options, name: str) -> Peer:
    """A codec that is a program: see tools.py."""
    from vaecodec.bench import tools

    tool = tools.find(name)
    if tool is None:
        raise PeerError(f"{' and '.join(tools.PROGRAMS[name])} not found on the PATH")
    return Peer(name, tool.version, tool.options, tool.scale, tool.settings, tool.encode, tool.decode, True)


PEERS: dict[str, Callable[..., Peer]] = {
    "vaecodec": vaecodec_peer,
    "jpeg": jpeg,
    "webp": webp,
    "avif": avif,
    "jxl": jxl,
    "jpeg2000": jpeg2000,
    "hevc": hevc,
    "png": png,
    "webp-lossless": webp_lossless,
    "jxl-lossless": jxl_lossless,
    **{name: lambda options, name=name: external(options, name) for name in ("bpg", "vtm", "cjpegli")},
}
DEFAULT = ("vaecodec", "jpeg", "webp", "avif", "jxl", "jpeg2000", "hevc")


def open_peer(spec: str, options: Options) -> Peer:
    """The codec of `name`, `vaecodec:model`, `vaecodec@effort` or `vaecodec@effort:model`.

    Raises PeerError with the reason where it cannot take part.
    """
    head, _, argument = spec.partition(":")
    name, _, effort = head.partition("@")
    if name not in PEERS:
        raise PeerError(f"no codec is called {name!r} (there are {', '.join(PEERS)})")
    if (argument or effort) and name != "vaecodec":
        raise PeerError(
            f"{name} takes no {argument or effort!r}; only vaecodec:MODEL and vaecodec@EFFORT name variants"
        )
    try:
        return PEERS[name](options, argument, effort or "1") if argument or effort else PEERS[name](options)
    except CodecError as exc:
        raise PeerError(str(exc)) from exc


def check_decoded(pixels: Any, like: np.ndarray) -> np.ndarray:
    """Decoded pixels; raises CodecError unless they are u8 of the shape of `like`."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != like.shape:
        found = f"{pixels.dtype}{list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise CodecError(f"decoded to {found}, expected uint8{list(like.shape)}")
    return pixels


def _imagecodecs(capability: str, key: str, title: str) -> tuple[Any, str]:
    """(imagecodecs, title and version of one of its libraries)."""
    try:
        import imagecodecs
    except ImportError as exc:
        raise PeerError(f"needs imagecodecs: pip install 'vaecodec[bench]' ({exc})") from exc
    if not getattr(imagecodecs, capability).available:
        raise PeerError(f"this imagecodecs was built without {title}")
    return imagecodecs, f"{title} {imagecodecs.version(dict).get(key, '?')}"
