"""What a codec of a benchmark is: functions that encode pixels at a setting and decode the file, and their description.

Bytes are those of a whole file.  Settings are in a codec's own unit and are not mapped to another's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vaecodec.errors import CodecError


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

    def bisect(self, is_below: Callable[[float], bool], tries: int = 64) -> tuple[float | None, float | None]:
        """Search for a quality by bisection, in `tries` at most.

        Returns:
            The best setting for which `is_below` was true and the worst for which it was false, or None: neighbours,
            unless the tries ended before.
        """
        last = round((self.high - self.low) / self.step)
        below, above = -1, last + 1
        while above - below > 1 and tries:
            # Rates grow about exponentially with settings, so most targets lie in the lower half.
            middle, tries = (below + above) // 2, tries - 1
            below, above = (middle, above) if is_below(self._setting(middle, last)) else (below, middle)
        return (
            self._setting(below, last) if below >= 0 else None,
            self._setting(above, last) if above <= last else None,
        )

    def _setting(self, place: int, last: int) -> float:
        """The setting at a place in 0..last, from the worst quality to the best."""
        return self.low + self.step * (place if self.rising else last - place)


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


def check_decoded(pixels: Any, original: np.ndarray) -> np.ndarray:
    """Return decoded pixels; raise CodecError unless they are u8 of the original's shape."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != original.shape:
        kind = f"{pixels.dtype}{list(pixels.shape)}" if isinstance(pixels, np.ndarray) else type(pixels).__name__
        raise CodecError(f"decoded to {kind}, expected uint8{list(original.shape)}")
    return pixels
