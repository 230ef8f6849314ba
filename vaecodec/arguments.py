"""Check the arguments of public functions, limit the size of images, and read what names a file.

Every check returns the argument in its plain type.  It raises TypeError where the type is wrong and ValueError where
the value is; the message names the argument, shows its value and says what is expected.  Limits apply to the size that
the header of an image gives, before anything is allocated.  Files at URLs, such as https://, s3:// and memory://, are
read and written through fsspec (extra `fsspec`).  Standard library only.
"""

from __future__ import annotations

import errno
import math
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, NoReturn, Protocol

from vaecodec.errors import CodecError, LimitError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    class SupportsArray(Protocol):
        """A tensor or another object that NumPy converts to an array."""

        def __array__(self, *args: Any, **options: Any) -> np.ndarray: ...


URL = re.compile(r"[a-z][a-z0-9+.-]+(::[a-z][a-z0-9+.-]+)*://")


def is_url(file: object) -> bool:
    """Whether a file is named by a URL.  A scheme has two letters or more, so a drive of Windows is none."""
    return isinstance(file, str) and URL.match(file) is not None


def read_url(url: str) -> bytes:
    """Read a file; raises FileNotFoundError if it is missing, CodecError for another failure."""
    with _opened(url) as (files, path):
        data: bytes = files.cat_file(path)
        return data


def write_url(url: str, data: bytes) -> None:
    """Write a file, or replace it; raises CodecError if that fails."""
    with _opened(url) as (files, path):
        files.pipe_file(path, data)


def check_url_target(url: str, overwrite: bool) -> None:
    """Raise FileExistsError if a file exists that may not be replaced."""
    with _opened(url) as (files, path):
        if not overwrite and files.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), url)


@contextmanager
def _opened(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL, and the path in it; errors of its library become CodecError."""
    try:
        from fsspec.core import url_to_fs
    except ImportError as exc:
        raise CodecError(f"{url}: URLs need another package: pip install 'vaecodec[fsspec]' ({exc})") from exc
    try:
        yield url_to_fs(url)
    except FileNotFoundError as exc:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from exc
    except (FileExistsError, CodecError):
        raise
    except Exception as exc:  # the library of a scheme may raise anything
        raise CodecError(f"{url}: {exc or type(exc).__name__}") from exc


PILLOW_WARNING_PIXELS = 89_478_485  # pixels from which Pillow warns: 256 MiB of RGB


class Limits(NamedTuple):
    """The largest image that a decoder accepts; None lifts a limit.  Of a window, its own size counts."""

    pixels: int | None = 2 * PILLOW_WARNING_PIXELS  # above half of it a RuntimeWarning, as in Pillow
    side: int | None = 65_535  # pixels, as in JPEG

    def refuse(self, width: int, height: int) -> None:
        """Raise LimitError on an image that is too large."""
        if self.side is not None and max(width, height) > self.side:
            raise LimitError(f"{width} x {height} pixels: a side exceeds the limit of {self.side}")
        if self.pixels is not None and width * height > self.pixels:
            raise LimitError(f"{width} x {height} pixels exceed the limit of {self.pixels}")

    def check(self, width: int, height: int) -> None:
        """Raise LimitError on an image that is too large; warn of one above half of the limit."""
        self.refuse(width, height)
        if self.pixels is not None and 2 * width * height > self.pixels:
            warnings.warn(f"{width} x {height} pixels are more than half of the limit", RuntimeWarning, stacklevel=3)


DEFAULT_LIMITS = Limits()
NO_LIMITS = Limits(None, None)

_pillow_lock = threading.RLock()


@contextmanager
def pillow_limits(limits: Limits) -> Iterator[None]:
    """Make Pillow, whose own limit is one for the whole process, open what `limits` allow."""
    if limits.pixels == DEFAULT_LIMITS.pixels:
        yield
        return
    from PIL import Image

    with _pillow_lock:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None if limits.pixels is None else max(1, limits.pixels // 2)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


StrPath = str | os.PathLike[str]
Buffer = bytes | bytearray | memoryview
Readable = StrPath | Buffer | BinaryIO  # what names or holds a file
if TYPE_CHECKING:
    ImageLike = Readable | np.ndarray | Image.Image | SupportsArray

DEFAULT_QUALITY = 75.0
DEFAULT_MODEL = "base"  # of images; arrays, and what a VAE makes of no image, take "small"
EFFORTS = range(1, 10)
TUNES = ("eye", "psnr")
DEFAULT_TUNE = "eye"
REDUCTIONS = (1, 2, 4, 8, 16)
MAX_ERROR = 16
TARGETS = ("target_size", "target_bpp", "target_psnr")


def wrong_type(name: str, value: object, expected: str) -> NoReturn:
    """Raise TypeError on an argument."""
    shown = repr(value)
    about = f"{shown} ({type(value).__name__})" if len(shown) <= 40 else f"of type {type(value).__name__}"
    raise TypeError(f"{name} is {about}, expected {expected}")


def wrong_value(name: str, value: object, expected: str) -> NoReturn:
    """Raise ValueError on an argument."""
    raise ValueError(f"{name} is {value!r}, expected {expected}")


def check_number(name: str, value: Any, low: float, high: float = math.inf, expected: str = "") -> float:
    """Check a number in low..high; the ends of an infinite range are excluded, and so is NaN."""
    expected = expected or f"a number in {low:g}..{high:g}"
    if isinstance(value, bool) or not isinstance(value, Real):
        wrong_type(name, value, expected)
    try:
        number = float(value)
    except OverflowError:  # a whole number beyond all floats
        number = math.inf
    if not (low <= number <= high and math.isfinite(number)):
        wrong_value(name, value, expected)
    return number


def check_positive(name: str, value: Any) -> float:
    """Check a finite number above 0."""
    number = check_number(name, value, 0, expected="a number above 0")
    return number if number > 0 else wrong_value(name, value, "a number above 0")


def check_integer(name: str, value: Any, low: int = 1, high: int | None = None) -> int:
    """Check a whole number in low..high, or of at least `low`."""
    expected = f"a whole number of {low} or more" if high is None else f"a whole number in {low}..{high}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        wrong_type(name, value, expected)
    number = int(value)
    if number < low or (high is not None and number > high):
        wrong_value(name, value, expected)
    return number


def check_flag(name: str, value: Any) -> bool:
    """Check True or False; NumPy's are taken, too."""
    if type(value).__name__ not in ("bool", "bool_"):
        wrong_type(name, value, "True or False")
    return bool(value)


def check_quality(value: Any, name: str = "quality") -> float:
    """Check a quality."""
    return check_number(name, value, 1, 100)


def quality_or_default(value: Any) -> float:
    """Check a quality; None is the default."""
    return DEFAULT_QUALITY if value is None else check_quality(value)


def check_effort(value: Any) -> int:
    """Check an effort."""
    return check_integer("effort", value, EFFORTS[0], EFFORTS[-1])


def check_tune(value: Any, psnr: Any = None) -> str:
    """Check what to tune for; None is the default, and PSNR with a target PSNR."""
    if value is None:
        return DEFAULT_TUNE if psnr is None else "psnr"
    if not isinstance(value, str):
        wrong_type("tune", value, f"one of {', '.join(map(repr, TUNES))}")
    return value if value in TUNES else wrong_value("tune", value, f"one of {', '.join(map(repr, TUNES))}")


def check_threads(value: Any) -> int | None:
    """Check a number of threads, or None for all."""
    return None if value is None else check_integer("threads", value)


def check_targets(quality: Any, size: Any, bpp: Any, psnr: Any, lossless: Any = False, max_error: Any = None) -> None:
    """Check a quality and what may take its place: at most one is neither None nor False."""
    given = {"quality": quality, **dict(zip(TARGETS, (size, bpp, psnr), strict=True))}
    given |= {"lossless": check_flag("lossless", lossless) or None, "max_error": max_error}
    given = {name: value for name, value in given.items() if value is not None}
    for name, value in given.items():
        if name == "quality":
            check_quality(value)
        elif name == "target_size":
            check_integer(name, value)
        elif name == "max_error":
            check_integer(name, value, 1, MAX_ERROR)
        elif name != "lossless":
            check_positive(name, value)
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} exclude each other")


def check_numbers(name: str, value: Any, parts: tuple[str, ...], low: tuple[int, ...]) -> tuple[int, ...]:
    """Check a tuple of whole numbers with these names and least values; lists and arrays are taken, too."""
    expected = f"({', '.join(parts)})"
    if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__"):
        wrong_type(name, value, expected)
    values = tuple(value)
    if len(values) != len(parts):
        wrong_value(name, values, f"{len(parts)} numbers, {expected}")
    checked = zip(parts, values, low, strict=True)
    return tuple(check_integer(f"{part} of {name}", number, least) for part, number, least in checked)


def check_window(value: Any) -> tuple[int, int, int, int] | None:
    """Check a window, or None for the whole image; whether it lies in the image is checked with the image."""
    if value is None:
        return None
    top, left, height, width = check_numbers("window", value, ("top", "left", "height", "width"), (0, 0, 1, 1))
    return top, left, height, width


def check_reduction(value: Any) -> int:
    """Check the factor of a preview."""
    expected = f"one of {', '.join(map(str, REDUCTIONS))}"
    if isinstance(value, bool) or not isinstance(value, Integral):
        wrong_type("reduce", value, expected)
    return int(value) if value in REDUCTIONS else wrong_value("reduce", value, expected)


def check_path(name: str, value: Any, expected: str = "a path") -> str:
    """Check a path, and return it as text."""
    if not isinstance(value, (str, os.PathLike)):
        wrong_type(name, value, expected)
    path = os.fspath(value)
    return path if isinstance(path, str) else os.fsdecode(path)


def check_model(value: Any) -> str:
    """Check a model's name or path."""
    return check_path("model", value, "the name of a model, or the path of a .vcm file") or wrong_value(
        "model", value, "the name of a model, or the path of a .vcm file"
    )


def check_optional_model(value: Any) -> str | None:
    """Check a model's name or path, or None."""
    return None if value is None else check_model(value)


def check_limits(value: Any) -> None:
    """Check limits, or None for none."""
    if value is not None and not all(hasattr(value, name) for name in ("pixels", "side", "refuse")):
        wrong_type("limits", value, "vaecodec.Limits or None")


def check_decoding(
    window: Any, reduce: Any, model: Any, limits: Any, threads: Any
) -> tuple[tuple[int, int, int, int] | None, int, str | None, Any, int | None]:
    """Check what the functions that decode have in common; return it in the order of modes.decode."""
    check_limits(limits)
    return check_window(window), check_reduction(reduce), check_optional_model(model), limits, check_threads(threads)


def check_callable(name: str, value: Any) -> None:
    """Check a function, or None."""
    if value is not None and not callable(value):
        wrong_type(name, value, "a function or None")


def check_sequence(name: str, value: Any, of: str) -> list[Any]:
    """Check several things in order, and return a list of them; a single path, buffer or image is none."""
    shape: tuple[int, ...] = getattr(value, "shape", ())
    is_image = len(shape) == 2 or (len(shape) == 3 and shape[-1] <= 4)  # its rows would pass for images
    is_single = is_image or isinstance(value, (str, bytes, bytearray, memoryview, os.PathLike))
    if is_single or not hasattr(value, "__iter__"):
        wrong_type(name, value, f"a sequence of {of}")
    return list(value)


def check_array(name: str, value: Any, expected: str) -> Any:
    """Check an array, or what NumPy converts to one, and return the array."""
    if not hasattr(value, "__array__"):
        wrong_type(name, value, expected)
    import numpy as np

    return np.asarray(value)


def to_bytes(data: Readable, name: str = "data", expected: str = "a path, bytes or a binary file") -> bytes:
    """Read a file, by path, by URL or from a binary file object, or return the bytes of a buffer.

    Raises OSError where a file cannot be read, FileNotFoundError where it is missing.
    """
    if isinstance(data, bytes):
        return data
    if is_url(data):
        return read_url(str(data))
    if isinstance(data, (str, os.PathLike)):
        with open(data, "rb") as file:
            return file.read()
    if callable(getattr(data, "read", None)):
        contents: Any = data.read()  # type: ignore[union-attr]
        if isinstance(contents, str):
            wrong_type(name, data, f"{expected}; open it in mode 'rb'")
        return bytes(contents)
    try:
        return memoryview(data).tobytes()  # type: ignore[arg-type]
    except TypeError:
        wrong_type(name, data, expected)
