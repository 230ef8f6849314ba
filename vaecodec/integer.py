"""Exact integer networks: what chooses a probability is computed here, and has one right answer everywhere.

Numbers are integers carried in floats.  A matrix product of integers is exact in any order of summation, on
any library and with any number of threads, while no partial sum can reach 2**24 (float32) or 2**53 (float64);
the bound follows from the weights, is checked when they are loaded, and picks the type.

    activations   11 bits and sign, unit 2**-6
    weights       unit 2**-9
    products      unit 2**-15, rounded back to 2**-6 with halves up
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from vaecodec.config import SCALES
from vaecodec.errors import ModelError

ACTIVATION_BITS = 6
ACTIVATION_MAX = 1023
WEIGHT_BITS = 9
LOC_GAIN = 4.0  # means reach further than activations: +-64 from the network, +-1024 with the predictor
LOC_MAX = 1024.0
INDEX_GAIN = 8.0  # an activation of 1 is 8 rungs of the scale ladder
INDEX_BITS = 4  # scale indices carry 4 fractional bits until the gain's rungs are added
GAIN_BITS = 10  # gains are integers in units of 2**-10
VALUE_MAX = 2**22  # bound on decoded latents in units of 2**-6: 65536 quantisation steps

EXACT32, EXACT64 = 2**24, 2**53


class Conditions(NamedTuple):
    """The integer side of one prior level, from the tables of a frozen model (N, M: channels of z and y)."""

    bias: np.ndarray  # [prior], unit 2**-6, added to the features
    gain: np.ndarray  # [M], unit 2**-10
    inverse_gain: np.ndarray  # [M], unit 2**-10
    index: np.ndarray  # [M], rungs in units of 2**-4, the gain on the scale ladder
    hyper_inverse_gain: np.ndarray  # [N], unit 2**-10


class Dense(NamedTuple):
    """A pointwise layer ready to run: kernel [C, K] and bias [K] in the type that keeps its sums exact."""

    kernel: np.ndarray
    bias: np.ndarray


def prepare(weights: Mapping[str, np.ndarray]) -> dict[str, Dense]:
    """Integer kernels and biases by name -> layers, each in the cheapest exact type.

    Raises ModelError when even float64 could round.
    """
    layers = {}
    for key in weights:
        if not key.endswith("/kernel"):
            continue
        name = key[: -len("/kernel")]
        kernel, bias = weights[key].astype(np.int64), weights[f"{name}/bias"].astype(np.int64)
        axes = tuple(range(kernel.ndim - 1))
        # Half a unit is folded into the bias, so that rounding is a floor.
        bias = bias + (1 << (WEIGHT_BITS - 1)) * (not name.endswith("/out") or name.startswith("hyper"))
        bound = int((np.abs(kernel).sum(axes) * ACTIVATION_MAX + np.abs(bias)).max())
        if bound >= EXACT64:
            raise ModelError(f"integer layer {name} can reach {bound}, beyond exact float64")
        dtype = np.float32 if bound < EXACT32 else np.float64
        layers[name] = Dense(np.ascontiguousarray(kernel, dtype), bias.astype(dtype))
    return layers
