"""Open the image in a .vae file without decoding it: size and metadata now, pixels as they are asked for."""

from __future__ import annotations

import io
import os
from functools import cached_property
from typing import Any

import numpy as np

from vaecodec.arguments import REDUCTIONS, Readable, check_reduction, check_window, to_bytes
from vaecodec.codec import modes
from vaecodec.container import image_file
from vaecodec.container.info import Info
from vaecodec.images.strips import Window
from vaecodec.images.writing import write_image
from vaecodec.limits import DEFAULT, Limits

SHOWN_SIDE = 1024  # pixels, of what a notebook shows
KINDS = {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGBA"}


class OpenedImage:
    """The image in a .vae file; every method that returns pixels decodes only what it needs, each time.

    NumPy, Pillow and others take it as an array.  Its arguments and errors are those of vaecodec.decode.
    """

    def __init__(
        self,
        source: Readable,
        model: str | None = None,
        limits: Limits | None = DEFAULT,
        threads: int | None = None,
    ) -> None:
        self._data = to_bytes(source, "source")
        self._options: dict[str, Any] = {"model": model, "limits": limits, "threads": threads}
        self._name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else ""
        self._contents = image_file.contents(self._data)

    @cached_property
    def info(self) -> Info:
        """What the header says, as vaecodec.info returns it."""
        return Info.from_record(image_file.info(self._data))

    @cached_property
    def metadata(self) -> dict[str, bytes]:
        """Metadata by name: "icc", "exif", "xmp", and "dpi" (two u32: pixels per metre)."""
        return image_file.metadata(self._data)

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels, as in Pillow."""
        return self._contents.header.width, self._contents.header.height

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array: (height, width), or (height, width, channels)."""
        channels = self._contents.channels
        return (*self.size[::-1], channels)[: 2 + (channels > 1)]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the samples: u8, or u16 for images of more than 8 bits."""
        return np.dtype(np.uint16 if self._contents.depth > 8 else np.uint8)

    def decode(self, window: Window | None = None, reduce: int = 1) -> np.ndarray:
        """Decode the image, a window of it, or a preview."""
        return modes.decode(self._data, check_window(window), check_reduction(reduce), **self._options)

    def crop(self, window: Window) -> np.ndarray:
        """Decode a window, (top, left, height, width) in pixels; only the tiles it needs are decoded."""
        return self.decode(window)

    def preview(self, reduce: int) -> np.ndarray:
        """Decode at 1/2, 1/4, 1/8 or 1/16 of the sides."""
        return self.decode(None, reduce)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("copy is False, and an image in a .vae file is decoded to a new array")
        pixels = self.decode()
        return pixels if dtype is None else pixels.astype(dtype, copy=False)

    def __repr__(self) -> str:
        about = self.info
        kind = KINDS.get(about.channels or 0, "") if about.kind == "picture" else f"{about.channels} channels"
        coding = about.coding if about.quality is None else f"quality {about.quality:g}"
        name = f" {self._name!r}" * bool(self._name)
        return f"<vaecodec.OpenedImage{name}: {about.width} x {about.height}, {kind}, {coding}, {about.bytes} bytes>"

    def _repr_png_(self) -> bytes | None:
        """Return a PNG of at most 1024 pixels a side, for notebooks; None for arrays that are no images."""
        if self.info.kind != "picture":
            return None
        longest = max(self.size)
        reduce = next((factor for factor in REDUCTIONS if longest <= factor * SHOWN_SIDE), REDUCTIONS[-1])
        file = io.BytesIO()
        write_image(self.preview(reduce), file, {}, "PNG")
        return file.getvalue()
