"""Describe any .vae file by its header, without NumPy."""

from __future__ import annotations

import io
from typing import Any

from vaecodec.container import image_file, image_set, stored


def info(data: bytes) -> dict[str, Any]:
    """Describe the image, stored file or set of images in a .vae file; raises FormatError."""
    if image_set.is_image_set(data[:16]):
        return image_set.info(data)
    return stored.info(io.BytesIO(data)) if stored.is_stored(data[:16]) else image_file.info(data)
