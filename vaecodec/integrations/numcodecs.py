"""Use `vaecodec.arrays` as a codec of numcodecs (entry point group numcodecs.codecs) and so of zarr format 2.

zarr.create_array(..., zarr_format=2, compressors=VaeCodec(max_error=0.01))
"""

from __future__ import annotations

from typing import Any

import numcodecs
from numcodecs.abc import Codec
from numcodecs.compat import ensure_contiguous_ndarray, ensure_ndarray, ndarray_copy

from vaecodec import arrays


class VaeCodec(Codec):
    """Codec for arrays with a bound on the error of every value; the parameters are those of `arrays.encode`.

    Raises ValueError on an invalid bound or mode.
    """

    codec_id = "vaecodec"

    def __init__(
        self, max_error: float = 0, channels: bool | None = None, mode: str = "auto", model: str = "small"
    ) -> None:
        arrays.check_options(max_error, mode)
        self.max_error, self.channels, self.mode, self.model = max_error, channels, mode, model

    def encode(self, buf: Any) -> bytes:
        """Encode an array; raises CodecError on an array that is not supported."""
        return arrays.encode(ensure_ndarray(buf), self.max_error, self.channels, self.mode, self.model)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk, into `out` if given; raises CodecError on damage."""
        values = arrays.decode(ensure_contiguous_ndarray(buf).view("u1").data, arrays.model_path(self.model))
        return values if out is None else ndarray_copy(values, out)

    def get_config(self) -> dict[str, Any]:
        """Return the configuration for numcodecs.get_codec, JSON-ready."""
        return {"id": self.codec_id, **arrays.options(self)}


numcodecs.register_codec(VaeCodec)
