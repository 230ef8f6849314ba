"""Open the codecs of a benchmark by name, this one among them.

    open_peer("avif", Options(threads=2))  ->  Peer, or PeerError with the reason why it cannot take part

Installed packages add codecs through entry points of the group CODECS, and the command line through Python files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from vaecodec import arguments
from vaecodec.arguments import DEFAULT_MODEL, DEFAULT_TUNE
from vaecodec.bench import peer
from vaecodec.bench.codecs import (
    FORMATS,
    PROGRAMS,
    TUNES,
    open_avif,
    open_hevc,
    open_imagecodecs,
    open_jpegli,
    open_program,
    open_vvc,
)
from vaecodec.bench.peer import Options, Peer, PeerError, Scale
from vaecodec.errors import CodecError

SWEEP = (1, 7, 13, 19, 26, 35, 43, 52, 61, 70, 77, 82)


def _open_vaecodec(options: Options, model: str = "", variant: str = "", is_bare: bool = False) -> Peer:
    """This package as `compress` writes files, or bare: the model alone, without the decision between codings.

    `model` is a name or a path, and `variant` an effort, a tune or both, as in 9-psnr.  Above effort 1 the sweep has
    half of the settings.
    """
    from vaecodec.codec import Codec, modes
    from vaecodec.errors import __version__
    from vaecodec.model.file import load_model

    name = "vaecodec-model" if is_bare else "vaecodec"
    effort, tune = _read_variant(name, variant)
    is_default = effort == 1
    try:
        codec = Codec(load_model(model or DEFAULT_MODEL), options.device, options.threads)
    except ImportError as exc:
        raise PeerError(f"--device {options.device} needs TensorFlow: pip install 'vaecodec[train]' ({exc})") from exc
    name = _with_variant(name, variant)
    encode: Callable[..., bytes] = codec.encode if is_bare else partial(modes.encode, codec)
    decode: Callable[..., np.ndarray] = codec.decode if is_bare else partial(modes.decode, codec=codec)
    if codec.model.config.channels == 1:
        encode, decode = _grey(encode, is_bare), _in_colours(decode)
    return Peer(
        f"{name}:{os.path.basename(model)}" if model else name,
        f"{__version__} {codec.model.name} {codec.model.id}",
        ", ".join(filter(None, ("" if is_default else f"effort {effort}", "tune eye" * (tune == "eye")))),
        Scale("quality", 1, 100, 0.125),
        SWEEP if is_default else SWEEP[1::2],
        partial(encode, effort=effort, tune=tune),
        decode,
        threads=options.threads,
        device=options.device,
    )


def _read_variant(name: str, variant: str) -> tuple[int, str]:
    """The effort and the tune of a variant; raises PeerError."""
    effort, tune = 1, DEFAULT_TUNE
    for part in filter(None, variant.split("-")):
        try:
            if part in arguments.TUNES:
                tune = part
            else:
                effort = arguments.check_effort(int(part))
        except ValueError as exc:
            text = f"{name}@{variant}: expected an effort, a whole number in 1..9, eye or psnr, or both: 9-psnr"
            raise PeerError(text) from exc
    return effort, tune


def _with_variant(name: str, variant: str) -> str:
    """A name with what differs from the defaults."""
    parts = [part for part in variant.split("-") if part not in ("", "1", DEFAULT_TUNE)]
    return f"{name}@{'-'.join(parts)}" if parts else name


def _grey(encode: Callable[..., bytes], keeps_axis: bool) -> Callable[..., bytes]:
    """Pass the grey of u8[H, W, 3] to an encoder, as u8[H, W, 1] or u8[H, W]; raises CodecError on colours."""

    def encode_grey(pixels: np.ndarray, *args: Any, **options: Any) -> bytes:
        if (pixels != pixels[..., :1]).any():
            raise CodecError("the image is in colour, and the model is for grey ones")
        grey = pixels[..., :1] if keeps_axis else pixels[..., 0]
        return encode(np.ascontiguousarray(grey), *args, **options)

    return encode_grey


def _in_colours(decode: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
    """Repeat the grey that a decoder returns in three channels."""

    def decode_grey(data: bytes) -> np.ndarray:
        pixels = decode(data)
        return np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)

    return decode_grey


OURS = ("vaecodec", "vaecodec-model")
PEERS: dict[str, Callable[..., Peer]] = {
    "vaecodec": _open_vaecodec,
    "vaecodec-model": partial(_open_vaecodec, is_bare=True),
    "hevc": open_hevc,
    "jpegli": open_jpegli,
    "vvc": open_vvc,
    **{name: partial(open_imagecodecs, name=name) for name in FORMATS},
    **{f"avif-{tune}": partial(open_avif, tune=tune) for tune in TUNES},
    **{name: partial(open_program, name=name) for name in PROGRAMS},
}
DEFAULT = ("vaecodec", "jpeg", "webp", "avif", "avif-psnr", "avif-ssimulacra2", "jxl", "jpeg2000", "hevc")


def open_peer(spec: str, options: Options) -> Peer:
    """The codec called `name`, or of this package `vaecodec:model`, `vaecodec@variant` or `vaecodec@variant:model`.

    Raises:
        PeerError: it cannot take part; the message says why.
    """
    head, _, model = spec.partition(":")
    name, _, variant = head.partition("@")
    opener = PEERS.get(name) or peer.find(name)
    if opener is None:
        raise PeerError(f"no codec is called {name!r} (there are {', '.join([*PEERS, *peer.names()])})")
    if (model or variant) and name not in OURS:
        raise PeerError(f"{name} takes no {model or variant!r}; only vaecodec:MODEL and vaecodec@EFFORT name variants")
    try:
        return PEERS[name](options, model, variant) if model or variant else opener(options)
    except CodecError as exc:
        raise PeerError(str(exc)) from exc


def name_of(spec: str) -> str:
    """The name in results of the codec that `open_peer` opens."""
    head, _, model = spec.partition(":")
    head = _with_variant(*head.partition("@")[::2])
    return f"{head}:{os.path.basename(model)}" if model else head
