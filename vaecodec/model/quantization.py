"""Turn trained float weights into the integer layers that the core computes with.

A layer of the transforms has int16 weights, int32 biases and a right shift for each output.  The scale of an output is
the finest power of two at which its weights fit 16 bits and no sum can leave 32 bits, whatever the inputs are:

    sum(|weight|) * 32767 + |bias| + half a unit < 2**31
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vaecodec.errors import ModelError

ACTIVATION_MAX = 32767
WEIGHT_MAX = 32767
SUM_MAX = 2**31 - 1
SHIFT_MAX = 30
FINEST = 20  # bits after the binary point of a weight: beyond, nothing is gained


class IntegerLayer(NamedTuple):
    """kernel i16[..., inputs, outputs] (depthwise: i16[3, 3, C]), bias i32[outputs], shift u8[outputs]."""

    kernel: np.ndarray
    bias: np.ndarray
    shift: np.ndarray


def integer_layer(kernel: np.ndarray, bias: np.ndarray, input_bits: int, output_bits: int) -> IntegerLayer:
    """Quantise one layer: kernel f[..., outputs] whose leading axes are summed over, bias f[outputs].

    Inputs are integers in units of 2**-input_bits, outputs in units of 2**-output_bits.  Raises ModelError where
    weights are too large for any scale.
    """
    scaled = kernel.astype(np.float64)
    axes = tuple(range(kernel.ndim - 1))
    bias = bias.astype(np.float64)
    bits = np.full(kernel.shape[-1], min(FINEST, SHIFT_MAX + output_bits - input_bits))
    for _ in range(FINEST + 16):
        weights = np.rint(scaled * 2.0**bits)
        biases = np.rint(bias * 2.0 ** (bits + input_bits))
        shift = bits + input_bits - output_bits
        sums = np.abs(weights).sum(axes) * ACTIVATION_MAX + np.abs(biases) + 2.0 ** np.maximum(shift - 1, 0)
        coarse = (sums > SUM_MAX) | (np.abs(weights).max(axes) > WEIGHT_MAX)
        if not coarse.any():
            break
        bits = bits - coarse
    if coarse.any() or shift.min() < 0:
        raise ModelError("a layer's weights are too large for 16-bit integers")
    return IntegerLayer(weights.astype(np.int16), biases.astype(np.int32), shift.astype(np.uint8))
