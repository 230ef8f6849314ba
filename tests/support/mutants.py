"""Mutants that reach the native core: of files with a model and without, of models, and of sets of images."""

from __future__ import annotations

import itertools
import json
import random
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
from safetensors.numpy import load

import vaecodec
from support.damage import mutate, with_right_crcs
from support.images import synthetic_image
from support.paths import GOLDEN
from vaecodec import entropy, prior
from vaecodec.arguments import Limits
from vaecodec.codec import Codec, exact, modes
from vaecodec.config import QUALITY_INDICES, Config
from vaecodec.container import MAGIC
from vaecodec.container.image_file import Parsed, pack, parse
from vaecodec.entropy import coding
from vaecodec.errors import CodecError, ModelError
from vaecodec.model.file import MALFORMED, Model, build_model, pack_model, parse_model
from vaecodec.transforms import FILTER_CLASSES, FILTER_MAX_SHIFT, FILTER_WEIGHTS

TINY = GOLDEN / "tiny.vcm"
HEAD_BEGIN, SIZE_AT, QUALITY_AT = len(MAGIC) + 8, 18, 26  # of the HEAD chunk, and of fields in it
LARGEST = 1 << 12  # pixels of a golden file that is mutated, so that many are
SMALL_SIZES = ((1, 1), (8, 8), (11, 16), (16, 24))
SIZES = ((33, 17), (5, 64), (66, 9))  # the last has two tiles
RARE, GOLDEN_RARE = 12, 32  # one of so many mutants is of one of SIZES, and of a golden file: they take twice as long
REDUCTIONS = (2, 4, 8, 16)


def tiny_model() -> Model:
    """A model of its own: what it keeps depends on the coder."""
    model = parse_model(TINY.read_bytes(), "tiny")
    assert isinstance(model, Model)
    return model


def change_bytes(data: bytearray, rng: random.Random, begin: int, end: int) -> None:
    """Change a few bytes between begin and end, in place."""
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        place = rng.randrange(begin, end)
        data[place] = rng.choice((0, 255, 127, 128, data[place] ^ (1 << rng.randrange(8)), rng.randrange(256)))


def random_filter(rng: random.Random, channels: int) -> bytes:
    """Bytes of a restoration filter with any weights."""
    kind, data = rng.randrange(len(FILTER_CLASSES)), b""
    for _ in range(FILTER_CLASSES[kind]):
        data += bytes([rng.randrange(FILTER_MAX_SHIFT + 1)]) + rng.randbytes(FILTER_WEIGHTS)
    return bytes([kind]) + data + rng.randbytes(2 * channels if channels > 1 else 0)


class Seed(NamedTuple):
    """A file and the places of its filter and of its payload."""

    data: bytes
    parsed: Parsed
    filter: tuple[int, int]
    payload: tuple[int, int]


def seed_of(data: bytes) -> Seed:
    parsed, end = parse(data), HEAD_BEGIN + int.from_bytes(data[len(MAGIC) : len(MAGIC) + 4], "little")
    last = parsed.tiles[-1]
    payload = parsed.tiles[0].offset, last.offset + last.length
    return Seed(data, parsed, (end - len(parsed.header.filter), end), payload)


class Files:
    """Mutants of the golden files and of small images."""

    def __init__(self) -> None:
        self._codec, rng = Codec(tiny_model(), threads=1), random.Random(0)
        files = [path.read_bytes() for path in sorted(GOLDEN.glob("*.vae"))]

        def encoded(sizes: tuple[tuple[int, int], ...]) -> Iterator[bytes]:
            for size, quality in itertools.product(sizes, (1, 60, 100)):
                data = self._codec.encode(synthetic_image(*size), quality, tile=64)
                parsed = parse(data)
                tiles = [(data[t.offset : t.offset + t.length], t.crc, t.pixels) for t in parsed.tiles]
                yield data
                yield from (pack(parsed.header._replace(filter=random_filter(rng, 3)), tiles) for _ in range(3))

        golden = []
        for data in files:
            try:
                header = parse(data).header
            except CodecError:
                continue
            if header.model == self._codec.model.id and header.height * header.width <= LARGEST:
                golden.append(data)
        self._golden, self._larger, self._small = (
            [seed_of(data) for data in files] for files in (golden, encoded(SIZES), encoded(SMALL_SIZES))
        )

    def attempt(self, rng: random.Random) -> None:
        """Decode one; raises CodecError as decoding does."""
        if rng.randrange(GOLDEN_RARE) == 0:
            seed = rng.choice(self._golden)
        else:
            seed = rng.choice(self._small if rng.randrange(RARE) else self._larger)
        data, kind, payload = bytearray(seed.data), rng.randrange(5), rng.randrange(2)
        if kind == 0:
            struct.pack_into("<H", data, HEAD_BEGIN + QUALITY_AT, rng.randrange(QUALITY_INDICES))
        elif kind == 1 and seed.parsed.header.filter:
            change_bytes(data, rng, *seed.filter)
        elif kind == 2 and len(seed.parsed.tiles) == 1:  # another size under the same payload
            struct.pack_into("<II", data, HEAD_BEGIN + SIZE_AT, rng.randint(1, 40), rng.randint(1, 40))
        else:
            payload = 1
        if payload and seed.payload[0] < seed.payload[1]:
            change_bytes(data, rng, *seed.payload)
        reduce = rng.choice(REDUCTIONS) if rng.randrange(16) == 0 else 1
        with trusting():
            self._codec.decode(with_right_crcs(bytes(data)), reduce=reduce)


@contextmanager
def trusting() -> Iterator[None]:
    """Ignore the CRC of the symbols, and words that are left over: they would end most mutants before the synthesis."""
    checksum, reader, is_empty = prior.tile_checksum, coding.reader, entropy.AnsCoder.is_empty

    def trusting_reader(payload: bytes) -> Any:
        stack = reader(payload)
        return stack if isinstance(stack, entropy.AnsCoder) else Loose(stack)

    prior.tile_checksum, coding.reader = lambda crcs: Anything(), trusting_reader  # type: ignore[assignment,return-value]
    entropy.AnsCoder.is_empty = lambda self: True  # type: ignore[method-assign]
    try:
        yield
    finally:
        prior.tile_checksum, coding.reader = checksum, reader
        entropy.AnsCoder.is_empty = is_empty  # type: ignore[method-assign]


class Loose:
    """A stack of constriction's that is empty whenever it is asked."""

    def __init__(self, stack: Any) -> None:
        self.decode = stack.decode

    def is_empty(self) -> bool:
        return True


class Anything:
    """Equal to everything."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


class Models:
    """Mutants of the golden model; those that load decode files of the golden one, or encode and decode."""

    def __init__(self) -> None:
        data = TINY.read_bytes()
        size = int.from_bytes(data[:8], "little")
        fields = json.loads(data[8 : 8 + size])["__metadata__"]
        self._config, self._arrays = json.loads(fields["config"]), load(data)
        self._pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3)).astype(np.uint8)
        model = tiny_model()
        codec = Codec(model, threads=1)
        self._id, self._files = model.id, [codec.encode(self._pixels[:16, :24], quality) for quality in (1, 60, 100)]

    def attempt(self, rng: random.Random) -> None:
        """Load one and use it; raises CodecError as that does."""
        arrays, values = dict(self._arrays), dict(self._config)
        for name in rng.sample(sorted(arrays), rng.choice((1, 1, 3, 20))):
            arrays[name] = changed_array(arrays[name], rng)
        if rng.randrange(8) == 0:
            values[rng.choice(sorted(values))] = rng.choice((1, 2, 3, 16, 64))
        try:
            config = Config.from_dict(values)
            if rng.randrange(16) == 0:
                model = parse_model(pack_model("mutant", config, arrays, {}), "mutant")
            else:  # what parse_model calls once the file is read
                model = build_model("mutant", self._id, config, arrays, {})
        except MALFORMED as exc:
            raise ModelError(str(exc)) from exc
        assert isinstance(model, Model)
        codec, quality = Codec(model, threads=1), rng.randrange(1, 101)
        if rng.randrange(4) and model.id == self._id:  # what the model of the golden files wrote
            with trusting():
                codec.decode(rng.choice(self._files))
            return
        height, width = rng.choice(((40, 56), (1, 1), (8, 16), (17, 33)))
        pixels = np.resize(self._pixels, (height, width, config.channels))
        if rng.randrange(2):
            data = codec.encode(pixels, quality, effort=rng.choice((1, 1, 2, 3)))
        else:
            data = codec.encode_unfiltered(pixels, quality)
        try:
            codec.decode(data, check=True)
        except CodecError as exc:
            raise AssertionError("a decoder refuses what an encoder wrote") from exc


def changed_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """A copy with fewer rows, or with some other numbers, extreme ones among them."""
    array = array.copy()
    if rng.randrange(4) == 0 and array.ndim:
        return array[: rng.randrange(len(array) + 1)]
    if array.size and array.dtype.kind in "iu":
        least, most = np.iinfo(array.dtype).min, np.iinfo(array.dtype).max
        flat = array.reshape(-1)
        for _ in range(rng.choice((1, 8, min(array.size, 1000)))):
            flat[rng.randrange(array.size)] = rng.choice((least, most, 0, 1, rng.randint(least, most)))
    return array


class Exact:
    """Mutants of files of the adaptive coding; and images that must come back without loss or within a bound."""

    CLASS_LIMITS = Limits(pixels=1 << 14)

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._files = []
        for channels, deep, bound in itertools.product((1, 2, 3, 4), (False, True), (0, 3)):
            for width in (11, 70):
                image = self._image(rng, 6, width, channels, 16 if deep else 8)
                self._files.append(exact.pack(image, bound, tile=64))

    def _image(self, rng: np.random.Generator, height: int, width: int, channels: int, depth: int) -> np.ndarray:
        top = (1 << depth) - 1
        samples = rng.integers(0, top + 1, (height, width, channels)) if rng.integers(2) else np.zeros(1, np.int64)
        ramp = np.add.outer(np.arange(height), np.arange(width))[..., None] * rng.integers(1, 9, channels)
        samples = (samples // (1 << rng.integers(0, depth)) + ramp) % (top + 1)
        return samples.astype(np.uint8 if depth <= 8 else np.uint16)

    def attempt(self, rng: random.Random) -> None:
        """Decode one, or code an image; raises CodecError as decoding does."""
        if rng.randrange(3) == 0:
            generator = np.random.default_rng(rng.randrange(1 << 32))
            largest = (30, 80) if rng.randrange(16) == 0 else (9, 20)
            size = rng.randint(1, largest[0]), rng.randint(1, largest[1]), rng.randint(1, 4)
            image, bound = self._image(generator, *size, rng.randint(1, 16)), rng.choice((0, 0, 1, 16))
            decoded = modes.decode(exact.pack(image, bound, threads=1, tile=64), threads=1)
            if np.abs(decoded.reshape(image.shape).astype(int) - image).max() > bound:
                raise AssertionError("a sample is beyond the bound")
            return
        data = mutate(rng, rng.choice(self._files), self._files)
        with mock.patch("vaecodec.lossless._crc", lambda image: Anything()):
            modes.decode(with_right_crcs(data), limits=self.CLASS_LIMITS, threads=1)


class Sets:
    """Mutants of the golden sets of images."""

    def __init__(self) -> None:
        folder = GOLDEN / "sets"
        self._model = str(folder / "tiny.vcm")
        self._files = [path.read_bytes() for path in sorted(folder.glob("*.vae"))]

    def attempt(self, rng: random.Random) -> None:
        """Decode one; raises CodecError as that does."""
        data = mutate(rng, rng.choice(self._files), self._files)
        vaecodec.decode_set(with_right_crcs(data), model=self._model, limits=Limits(pixels=1 << 16))
