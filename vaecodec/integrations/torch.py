"""A map-style dataset of .vae files for PyTorch's DataLoader.

    loader = DataLoader(VaeFiles("album", crop=256), batch_size=16, num_workers=8)

Files are decoded in the workers, with one thread each; a crop decodes the symbols of the tiles that it touches, and no
others.  Images of one channel are [1, H, W].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from vaecodec.arguments import DEFAULT_LIMITS, Limits
from vaecodec.codec import modes
from vaecodec.container.info import info
from vaecodec.errors import CodecError

SUFFIX = ".vae"


class VaeFiles(Dataset[Any]):
    """Images of .vae files as tensors u8[C, H, W], or u16 for images of 16 bits.

    Args:
        paths: a folder, which is searched for .vae files at all depths, or the paths of files.
        crop: the side of a square crop at a random place, or (height, width); without, whole images.
        reduce: 1, 2, 4, 8 or 16: previews at this fraction of the sides.
        transform: is applied to each tensor.
        model: a .vcm file or a name; without, the installed model that a file names.
        limits: limits on the size of images; None for none.

    Raises:
        CodecError: there are no files.
        ValueError: crops of previews are asked for.

    An item raises what `vaecodec.decode` raises, and CodecError for images smaller than the crop.
    """

    def __init__(
        self,
        paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        crop: int | tuple[int, int] | None = None,
        reduce: int = 1,
        transform: Callable[[torch.Tensor], Any] | None = None,
        model: str | os.PathLike[str] | None = None,
        limits: Limits | None = DEFAULT_LIMITS,
    ) -> None:
        if crop is not None and reduce != 1:
            raise ValueError("crop does not go with reduce")
        self.paths = _find(paths) if isinstance(paths, (str, os.PathLike)) else [os.fspath(path) for path in paths]
        if not self.paths:
            raise CodecError(f"{paths}: no {SUFFIX} files")
        self.crop = (crop, crop) if isinstance(crop, int) else crop
        self.reduce, self.transform, self.limits = reduce, transform, limits
        self.model = None if model is None else os.fspath(model)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        path = self.paths[index]
        with open(path, "rb") as file:
            data = file.read()
        window = None if self.crop is None else self._window(path, data, self.crop)
        threads = 1 if get_worker_info() is not None else None
        pixels = modes.decode(data, window, self.reduce, self.model, self.limits, threads)
        pixels = pixels[..., None] if pixels.ndim == 2 else pixels
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        return tensor if self.transform is None else self.transform(tensor)

    def _window(self, path: str, data: bytes, crop: tuple[int, int]) -> tuple[int, int, int, int]:
        header = info(data)
        room = [header[side] - length for side, length in zip(("height", "width"), crop, strict=True)]
        if min(room) < 0:
            size = f"{header['width']} x {header['height']}"
            raise CodecError(f"{path}: {size} pixels, expected at least {crop[1]} x {crop[0]}")
        # PyTorch seeds its own generator in each worker, so workers draw different places.
        top, left = (int(torch.randint(length + 1, ())) for length in room)
        return top, left, crop[0], crop[1]


def _find(path: str | os.PathLike[str]) -> list[str]:
    """The .vae files below a folder, sorted, or the file itself."""
    if not os.path.isdir(path):
        return [os.fspath(path)]
    paths = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return sorted(name for name in paths if name.endswith(SUFFIX))
