"""Use `vaecodec.arrays` as a codec of zarr format 3 (entry point group zarr.codecs), in place of `bytes`.

zarr.create_array(..., serializer=VaeCodec(max_error=0.01), compressors=None)
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.common import parse_named_configuration
from zarr.registry import register_codec

from vaecodec import arrays
from vaecodec.arrays.chunks import check_array

NAME = "vaecodec"


class _Described(type(ArrayBytesCodec)):  # type: ignore[misc]
    """Says in the class's name how to pass a codec: zarr's errors on `compressors=` show that name and nothing else."""

    def __repr__(cls) -> str:
        hint = "pass serializer=VaeCodec(...), compressors=None; for format 2, vaecodec.integrations.numcodecs.VaeCodec"
        return f"<class '{cls.__module__}.{cls.__qualname__}'> ({hint})"


@dataclass(frozen=True)
class VaeCodec(ArrayBytesCodec, metaclass=_Described):
    """Codec for chunks with a bound on the error of every value; the parameters are those of `arrays.encode`.

    Raises ValueError on an invalid bound or mode.
    """

    is_fixed_size = False

    max_error: float = 0
    channels: bool | None = None
    mode: str = "auto"
    model: str = "small"

    def __post_init__(self) -> None:
        arrays.check_options(self.max_error, self.mode)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> VaeCodec:
        """Make the codec that an array's metadata describe."""
        _, configuration = parse_named_configuration(data, NAME, require_configuration=False)
        return cls(**(configuration or {}))  # type: ignore[arg-type]

    def to_dict(self) -> dict[str, Any]:
        """Describe the codec for an array's metadata."""
        return {"name": NAME, "configuration": arrays.options(self)}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Raise CodecError on an array whose dtype or axes are not supported."""
        check_array(np.empty((0,) * len(shape), dtype.to_native_dtype()), bool(self.channels))

    def _encode_sync(self, chunk_data: Any, chunk_spec: Any) -> Any:
        values = chunk_data.as_numpy_array()
        data = arrays.encode(values, self.max_error, self.channels, self.mode, self.model)
        return chunk_spec.prototype.buffer.from_bytes(data)

    def _decode_sync(self, chunk_data: Any, chunk_spec: Any) -> Any:
        expected = tuple(chunk_spec.shape), chunk_spec.dtype.to_native_dtype()
        values = arrays.decode(chunk_data.to_bytes(), arrays.model_path(self.model), expected=expected)
        return chunk_spec.prototype.nd_buffer.from_numpy_array(values)

    async def _encode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._encode_sync, chunk_data, chunk_spec)

    async def _decode_single(self, chunk_data: Any, chunk_spec: Any) -> Any:
        return await asyncio.to_thread(self._decode_sync, chunk_data, chunk_spec)

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:
        """Raise NotImplementedError: the size is not known before encoding."""
        raise NotImplementedError


register_codec(NAME, VaeCodec)
