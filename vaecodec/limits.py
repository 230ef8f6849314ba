"""Limit the size of an image, as its header gives it, before anything is allocated."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from vaecodec.errors import LimitError

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


DEFAULT = Limits()
NONE = Limits(None, None)

_pillow_lock = threading.RLock()


@contextmanager
def for_pillow(limits: Limits) -> Iterator[None]:
    """Make Pillow, whose own limit is one for the whole process, open what `limits` allow."""
    if limits.pixels == DEFAULT.pixels:
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
