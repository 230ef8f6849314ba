"""`vaecodec.arrays` as a codec of numcodecs (entry point in the group numcodecs.codecs), and so of zarr's format 2.

zarr.create_array(..., zarr_format=2, compressors=VaeCodec(max_error=0.01))
"""

from __future__ import annotations

from typing import Any

import numcodecs
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ensure_ndarray, ndarray_copy

from vaecodec import arrays


class VaeCodec(Codec):
    """Arrays with a bound on the error of every value; the parameters are those of `arrays.encode`.

    Raises ValueError on a bound or a mode that it does not take.
    """

    codec_id = "vaecodec"

    def __init__(
        self, max_error: float = 0, channels: bool | None = None, mode: str = "auto", model: str = "small"
    ) -> None:
        arrays.check_options(max_error, mode)
        self.max_error, self.channels, self.mode, self.model = max_error, channels, mode, model

    def encode(self, buf: Any) -> bytes:
        """An array -> a chunk; raises CodecError on one that it cannot take."""
        return arrays.encode(ensure_ndarray(buf), self.max_error, self.channels, self.mode, self.model)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """A chunk -> the array, in `out` where that is given; raises CodecError on damage."""
        found = arrays.decode(ensure_contiguous_ndarray(buf).view("u1").data, arrays.model_path(self.model))
        return found if out is None else ndarray_copy(found, out)

    def get_config(self) -> dict[str, Any]:
        """What numcodecs.get_codec makes this codec from again, JSON-ready."""
        return {"id": self.codec_id, **arrays.options(self)}


numcodecs.register_codec(VaeCodec)
