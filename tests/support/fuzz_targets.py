"""What coverage-guided fuzzing calls, and the files that it begins with: tests/long/fuzz/guided.py.

A target takes any bytes and raises nothing but what it promises, which `run` catches.  Checksums that would end most
inputs are put right or ignored, so that what is behind them is reached.
"""

from __future__ import annotations

import io
import pathlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from typing import Any, NamedTuple
from unittest import mock

from support.damage import with_right_crc, with_right_crcs
from support.paths import GOLDEN

PIXELS = 1 << 14  # that one input may have: larger ones take longer and reach no more


class Target(NamedTuple):
    """A function of bytes, its first inputs, the packages whose coverage counts, and the largest input in bytes."""

    call: Callable[[bytes], object]
    seeds: Callable[[], Iterator[bytes]]
    packages: tuple[str, ...]
    largest: int

    def run(self, data: bytes) -> None:
        """Call it; raises what it must not raise."""
        from vaecodec.errors import CodecError

        with suppress(CodecError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.call(data)


def files(pattern: str, largest: int) -> Iterator[bytes]:
    """Golden files up to a size."""
    for path in sorted(GOLDEN.rglob(pattern)):
        if path.stat().st_size <= largest:
            yield path.read_bytes()


def limits() -> Any:
    from vaecodec.arguments import Limits

    return Limits(pixels=PIXELS, side=1 << 12)


def take_apart(data: bytes) -> None:
    """All parsers of .vae files."""
    from support.container import take_apart

    take_apart(data)


@lru_cache(maxsize=1)
def codec() -> Any:
    from vaecodec.codec import Codec
    from vaecodec.model.file import load_model

    return Codec(load_model(str(GOLDEN / "tiny.vcm")), threads=1)


def decode(data: bytes) -> None:
    """A whole file: with a model, exact, or of another format."""
    from support.mutants import trusting
    from vaecodec.codec import modes

    with trusting():
        data = with_right_crcs(data)
        if data[12:16] == b"HEAD":
            codec().decode(data, limits=limits())
        else:
            modes.decode(data, limits=limits(), threads=1)


def lossless(data: bytes) -> None:
    """The payload of samples without a model."""
    from support.mutants import Anything
    from vaecodec import lossless

    with mock.patch("vaecodec.lossless._crc", lambda image: Anything()):
        lossless.decode(data, limits=limits())


def lossless_payloads() -> Iterator[bytes]:
    import numpy as np

    from support.images import synthetic_channels
    from vaecodec import lossless

    for channels in (1, 2, 3, 4):
        image = synthetic_channels(5, 9, channels)
        yield lossless.encode(image)
        yield lossless.encode(image, 2)
        yield lossless.encode(image, effort=9)
        yield lossless.encode(image.astype(np.uint16) * 200)


def array(data: bytes) -> None:
    """A chunk of numbers."""
    from vaecodec import arrays

    arrays.decode(with_right_crc(data), str(GOLDEN / "tiny.vcm"), limits())


def chunk(data: bytes) -> None:
    """What is read of a chunk of numbers before it is decoded, and its description."""
    from vaecodec import arrays

    arrays.info(with_right_crc(data))


def image_set(data: bytes) -> None:
    """A set of small images."""
    import vaecodec

    model = str(GOLDEN / "sets" / "tiny.vcm")
    vaecodec.decode_set(with_right_crcs(data), model=model, limits=limits())


def set_files() -> Iterator[bytes]:
    for path in sorted((GOLDEN / "sets").glob("*.vae")):
        yield path.read_bytes()


def model(data: bytes) -> None:
    """A model file; its tensors are drawn from the input where the header survives."""
    from vaecodec.model.file import parse_model

    parse_model(data, "model")


def models() -> Iterator[bytes]:
    yield (GOLDEN / "sets" / "tiny.vcm").read_bytes()
    yield (GOLDEN / "tiny.vcm").read_bytes()


def pillow(data: bytes) -> None:
    """A .vae file in Pillow, which promises OSErrors."""
    from PIL import Image

    import vaecodec.integrations.pillow  # noqa: F401

    file = io.BytesIO(with_right_crcs(data))
    with suppress(OSError, Image.DecompressionBombError), Image.open(file, formats=["VAE"]) as image:
        if image.width * image.height <= PIXELS:
            image.load()


def image_file(data: bytes) -> None:
    """The headers of AVIF, PNG and JPEG files that are read before Pillow reads them."""
    from vaecodec import images

    images.check_avif(data, 64, 48)
    images.trailing_bytes(io.BytesIO(data))


def image_files() -> Iterator[bytes]:
    from PIL import Image

    from support.images import synthetic_image

    for form in ("AVIF", "PNG", "JPEG"):
        with suppress(OSError, KeyError):
            file = io.BytesIO()
            Image.fromarray(synthetic_image(48, 64)).save(file, form)
            yield file.getvalue()


SMALL, MEDIUM, LARGE = 1 << 11, 1 << 13, 1 << 19
TARGETS = {
    "container": Target(take_apart, lambda: files("*.vae", SMALL), ("vaecodec.container",), SMALL),
    "decode": Target(decode, lambda: files("*.vae", SMALL), ("vaecodec.codec", "vaecodec.entropy"), SMALL),
    "lossless": Target(lossless, lossless_payloads, ("vaecodec.lossless",), SMALL),
    "arrays": Target(array, lambda: files("*.chunk", MEDIUM), ("vaecodec.arrays",), MEDIUM),
    "chunks": Target(chunk, lambda: files("*.chunk", MEDIUM), ("vaecodec.arrays.chunks",), MEDIUM),
    "sets": Target(image_set, set_files, ("vaecodec.generative", "vaecodec.container.info"), MEDIUM),
    "models": Target(model, models, ("vaecodec.model",), LARGE),
    "pillow": Target(pillow, lambda: files("*.vae", SMALL), ("vaecodec.integrations.pillow",), SMALL),
    "images": Target(image_file, image_files, ("vaecodec.images",), MEDIUM),
}


def corpus(name: str) -> pathlib.Path:
    """The folder of inputs that are kept for a target."""
    folder = pathlib.Path(__file__).parents[1] / "long" / "fuzz" / "corpus"
    return folder if name == "container" else folder.with_name(f"corpus_{name}")
