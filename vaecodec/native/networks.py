"""Compute layers of integer networks: dense, depthwise, and the residual block, on int16 activations.

    layer = Dense(kernel, bias, shifts, form="relu", limit=1023)
    y = dense(layer, x)                                     # i16[..., inputs] -> i16[..., channels]
    block(layers, x, out, (top, bottom))                    # a strip of rows of i16[h, w, C]

Sums are int32, so a layer refuses weights whose sums could reach 2**31.  docs/reference/format.md has the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from vaecodec.native import library
from vaecodec.native.reference import prior as reference

FORMS = ("linear", "relu", "gate", "sums")  # as enum VC_LINEAR and so on in networks.h
SUM_BOUND = 2**31
SUMS_ROUNDING = 2**11  # what a caller may add to unrounded sums
MULTIPLIER_MAX, SHIFT_MAX, LIMIT_MAX = 32767, 30, 32767


@dataclass(frozen=True, eq=False)
class Dense:
    """A dense layer: i16[inputs, outputs] weights, i32[outputs] biases, and a right shift of each output's sum.

    Raises ValueError where a sum could reach 2**31 on inputs within +-reach, or a parameter is out of range.
    """

    kernel: np.ndarray
    bias: np.ndarray
    shifts: np.ndarray
    form: str = "linear"  # or relu; gate, which makes half as many channels; sums, unrounded int32
    limit: int = 1023  # of the outputs
    gate: int = 6  # shift of the product of a gate
    reach: int | None = None  # of the inputs, where that is not `limit`
    _packed: library.Packed = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kernel, outputs = np.ascontiguousarray(self.kernel, np.int16), self.kernel.shape[-1]
        _store(self, kernel=kernel, bias=_vector(self.bias, outputs), shifts=_vector(self.shifts, outputs))
        if self.form not in FORMS or kernel.ndim != 2 or not kernel.size or not 0 <= self.gate <= SHIFT_MAX:
            raise ValueError(f"not a dense layer: kernel {kernel.shape}, form {self.form!r}, gate {self.gate}")
        if self.form == "gate" and outputs % 2:
            raise ValueError(f"a gate has an even number of outputs, not {outputs}")
        rounding = SUMS_ROUNDING if self.form == "sums" else 0
        _check(kernel, self.bias, self.shifts, self.limit, self.limit if self.reach is None else self.reach, rounding)
        sizes = (*kernel.shape, FORMS.index(self.form))
        _store(self, _packed=library.Packed("dense", sizes, (self.limit, self.gate), (kernel, self.bias, self.shifts)))

    @cached_property
    def channels(self) -> int:
        """Of the result."""
        return int(self.kernel.shape[1] // 2 if self.form == "gate" else self.kernel.shape[1])

    @property
    def packed(self) -> int:
        """Address of the packed layer for the kind in use, which is not "numpy"."""
        return self._packed.pointer()


@dataclass(frozen=True, eq=False)
class Depthwise:
    """A 3x3 depthwise layer: i16[3, 3, C] taps, i32[C] biases and shifts; zero padding.  Raises as Dense does."""

    kernel: np.ndarray
    bias: np.ndarray
    shifts: np.ndarray
    limit: int = 1023
    reach: int | None = None
    _packed: library.Packed = field(init=False, repr=False)

    def __post_init__(self) -> None:
        kernel, channels = np.ascontiguousarray(self.kernel, np.int16), self.kernel.shape[-1]
        _store(self, kernel=kernel, bias=_vector(self.bias, channels), shifts=_vector(self.shifts, channels))
        if kernel.shape[:-1] != (3, 3) or not channels:
            raise ValueError(f"depthwise taps are [3, 3, C], not {list(kernel.shape)}")
        flat = kernel.reshape(9, channels)
        _check(flat, self.bias, self.shifts, self.limit, self.limit if self.reach is None else self.reach, 0)
        arrays = (kernel, self.bias, self.shifts)
        _store(self, _packed=library.Packed("depthwise", (channels,), (self.limit,), arrays))

    @property
    def channels(self) -> int:
        return int(self.kernel.shape[2])

    @property
    def packed(self) -> int:
        """Address of the packed layer for the kind in use, which is not "numpy"."""
        return self._packed.pointer()


class Block(NamedTuple):
    """A depthwise-separable residual block, then a gated pointwise one."""

    enter: Dense  # relu
    space: Depthwise
    out: Dense
    gate: Dense
    mix: Dense

    @property
    def channels(self) -> int:
        return self.space.channels


def addresses(*layers: Dense | Depthwise | None) -> np.ndarray:
    """A C array of the addresses of packed layers, 0 for none, for the kind in use, which is not "numpy"."""
    return library.addresses([layer._packed.pointer() if layer else 0 for layer in layers])


def dense(
    layer: Dense,
    x: np.ndarray,
    vector: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    multiplier: np.ndarray | None = None,
) -> np.ndarray:
    """i16[..., inputs] -> i16[..., channels], or i32 of the form "sums".

    Args:
        vector: i32[channels] to add.
        residual: i16[..., channels] to add, instead of a vector.
        multiplier: i32[channels], 0 to 32767, unit 2**-12, of what comes after a residual.
    """
    inputs, channels = layer.kernel.shape[0], layer.channels
    if x.dtype != np.int16 or x.shape[-1] != inputs:
        raise ValueError(f"expected i16[..., {inputs}], not {x.dtype}{list(x.shape)}")
    if (vector is not None and residual is not None) or (multiplier is not None and residual is None):
        raise ValueError("a dense layer adds a vector, or a residual and then perhaps multiplies")
    if layer.form in ("gate", "sums") and (vector is not None or residual is not None):
        raise ValueError(f"nothing is added to a layer of the form {layer.form}")
    vector, multiplier = _optional(vector, channels), _optional(multiplier, channels)
    if multiplier is not None:
        _in_range("multiplier", multiplier, 0, MULTIPLIER_MAX)
    shape = (*x.shape[:-1], channels)
    if residual is not None and (residual.dtype != np.int16 or residual.shape != shape):
        raise ValueError(f"expected a residual i16{list(shape)}, not {residual.dtype}{list(residual.shape)}")
    if library.in_numpy():
        return reference.dense(layer, x, vector, residual, multiplier)
    x = np.ascontiguousarray(x)
    residual = None if residual is None else np.ascontiguousarray(residual)
    out = np.empty(shape, np.int32 if layer.form == "sums" else np.int16)
    scratch = library.memory(library.size("dense_scratch", inputs, channels))
    cells = x.size // inputs
    library.call("dense", "pipppppp", layer.packed, cells, x, vector, residual, multiplier, out, scratch)
    return out


def depthwise(layer: Depthwise, x: np.ndarray) -> np.ndarray:
    """i16[h, w, C] -> the same."""
    if x.dtype != np.int16 or x.ndim != 3 or x.shape[2] != layer.channels:
        raise ValueError(f"expected i16[h, w, {layer.channels}], not {x.dtype}{list(x.shape)}")
    if library.in_numpy():
        return reference.depthwise(layer, x)
    x = np.ascontiguousarray(x)
    out = np.empty_like(x)
    scratch = library.memory(library.size("block_scratch", x.shape[1], layer.channels))
    library.call("depthwise", "piippp", layer.packed, *x.shape[:2], x, out, scratch)
    return out


def block(
    layers: Block,
    x: np.ndarray,
    out: np.ndarray | None = None,
    strip: tuple[int, int] | None = None,
    multiplier: np.ndarray | None = None,
    tape: np.ndarray | None = None,
) -> np.ndarray:
    """The block of i16[h, w, C] into `out`, another array, or a new one; of a strip of rows, or all.

    Strips may be computed at once, by several threads.  `multiplier` i32[C] is that of `dense`, of the last layer;
    `tape` is memory of `tape_lines` that keeps what gradients need (gradients.block_back), not of the kind "numpy".
    """
    channels = layers.channels
    if x.dtype != np.int16 or x.ndim != 3 or x.shape[2] != channels or not x.flags.c_contiguous:
        raise ValueError(f"expected contiguous i16[h, w, {channels}], not {x.dtype}{list(x.shape)}")
    out = np.empty_like(x) if out is None else out
    if out.dtype != np.int16 or out.shape != x.shape or not out.flags.c_contiguous or out is x:
        raise ValueError(f"expected another contiguous i16{list(x.shape)}, not {out.dtype}{list(out.shape)}")
    top, bottom = (0, x.shape[0]) if strip is None else strip
    if not 0 <= top <= bottom <= x.shape[0]:
        raise ValueError(f"rows {top} to {bottom} of {x.shape[0]}")
    multiplier = _optional(multiplier, channels)
    if multiplier is not None:
        _in_range("multiplier", multiplier, 0, MULTIPLIER_MAX)
    check_tape(tape, x.shape)
    if library.in_numpy():
        out[top:bottom] = reference.block(layers, x, (top, bottom), multiplier)
        return out
    packed = addresses(*layers)
    scratch = library.memory(library.size("block_scratch", x.shape[1], channels))
    library.call("block", "piiiippppp", packed, *x.shape[:2], top, bottom, x, multiplier, tape, out, scratch)
    return out


def tape_lines(shape: tuple[int, ...]) -> int:
    """Lines of memory (library.memory) for the tape of a block of i16[h, w, C]."""
    return library.size("tape_size", *shape)


def check_tape(tape: np.ndarray | None, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless a tape, if there is one, is large enough for a block of this shape."""
    if tape is not None and (tape.dtype != np.uint8 or tape.ndim != 1 or len(tape) < 64 * tape_lines(shape)):
        raise ValueError(f"a tape of {tape.nbytes} bytes is too small for {list(shape)}")


def _check(flat: np.ndarray, bias: np.ndarray, shifts: np.ndarray, limit: int, reach: int, rounding: int) -> None:
    """Raises ValueError where parameters are out of range, or a sum over [inputs, outputs] could reach 2**31."""
    _in_range("limit", limit, 1, LIMIT_MAX)
    _in_range("reach", reach, 0, 32768)
    _in_range("shift", shifts, 0, SHIFT_MAX)
    sums = np.abs(flat.astype(np.int64)).sum(0) * reach + np.abs(bias.astype(np.int64))
    most = int((sums + np.maximum((np.int64(1) << shifts) >> 1, rounding)).max())
    if most >= SUM_BOUND:
        raise ValueError(f"a layer's sums can reach {most}, beyond 2**31")


def _in_range(name: str, values: np.ndarray | int, least: int, most: int) -> None:
    low, high = (values, values) if isinstance(values, int) else (values.min(), values.max())
    if low < least or high > most:
        raise ValueError(f"{name} must be {least} to {most}")


def _vector(values: np.ndarray | int, count: int) -> np.ndarray:
    """i32[count], of as many values or of one number; raises ValueError on other shapes."""
    if np.shape(values) not in ((), (count,)):
        raise ValueError(f"there are {list(np.shape(values))} values for {count} outputs")
    return np.ascontiguousarray(np.broadcast_to(np.asarray(values, np.int32), (count,)))


def _optional(values: np.ndarray | None, count: int) -> np.ndarray | None:
    return None if values is None else _vector(values, count)


def _store(layer: object, **fields: object) -> None:
    for name, value in fields.items():
        object.__setattr__(layer, name, value)
