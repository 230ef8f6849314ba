"""Make random layers and octaves for tests of the native core."""

from __future__ import annotations

import numpy as np

from vaecodec.native.networks import Block, Dense, Depthwise
from vaecodec.native.prior import (
    PASSED,
    Before,
    Octave,
    cells_of,
    companding_table,
    first_half,
    load_octave,
    second_half,
)

SIZES = ((1, 1), (1, 9), (7, 1), (2, 3), (5, 8), (3, 21), (11, 4))
WIDTHS = (1, 3, 8, 17, 32, 40, 96)  # channels: fewer than, as many as and more than the lanes of a vector


def random_int16(rng: np.random.Generator, shape: tuple[int, ...], most: int) -> np.ndarray:
    """i16 within +-most of varying magnitude, with both ends among them."""
    reach = rng.choice([1, most // 30 + 1, most], (*shape[:-1], 1))
    numbers = rng.integers(-reach, reach + 1, shape)
    numbers[rng.random(shape) < 0.05] = rng.choice([-most, most])
    return numbers.astype(np.int16)


def random_dense(rng: np.random.Generator, inputs: int, outputs: int, limit: int = 1023, **options: object) -> Dense:
    """A dense layer with weights as large as its sums allow, and shifts that bring most sums into range."""
    most = min(32767, (2**31 - 2**24) // (inputs * 32768))
    kernel = random_int16(rng, (inputs, outputs), most)
    bias = rng.integers(-(2**22), 2**22, outputs)
    shifts = rng.integers(0, 31, outputs) if rng.random() < 0.5 else rng.integers(10, 20, outputs)
    return Dense(kernel, bias, shifts, limit=limit, reach=32768, **options)  # type: ignore[arg-type]


def random_depthwise(rng: np.random.Generator, channels: int, limit: int = 1023) -> Depthwise:
    """A depthwise layer with weights as large as its sums allow."""
    kernel = random_int16(rng, (3, 3, channels), 32767 // 5)
    return Depthwise(kernel, rng.integers(-(2**22), 2**22, channels), rng.integers(0, 31, channels), limit, 32768)


def random_block(rng: np.random.Generator, channels: int, limit: int) -> Block:
    """A residual block whose activations stay mostly within +-limit."""

    def layer(outputs: int, form: str = "linear") -> Dense:
        kernel = rng.integers(-400, 400, (channels, outputs))
        shifts = rng.integers(8, 13, outputs) + (5 if limit > 1023 else 0)
        bias = rng.integers(-99999, 99999, outputs)
        return Dense(kernel, bias, shifts, form=form, limit=limit, gate=int(rng.integers(0, 16)))

    space = Depthwise(rng.integers(-900, 900, (3, 3, channels)), rng.integers(-9999, 9999, channels), 9, limit)
    return Block(layer(channels, "relu"), space, layer(channels), layer(2 * channels, "gate"), layer(channels))


SHAPES = ((1, 1), (1, 7), (6, 1), (2, 2), (3, 4), (8, 5), (13, 22), (5, 40))


def octave_weights(rng: np.random.Generator, octave: int, colours: int, width: int) -> dict[str, np.ndarray]:
    """Weights of an octave's networks: kernels as large as trained ones, biases far larger."""
    inputs = 14 * colours + (PASSED if octave < 4 else 0)
    shapes = {"in": (inputs, width), "known": (12 * colours, width), "pass": (width, 4 * PASSED)}
    shapes |= {name: (width, 12 * colours) for name in ("first", "second")}
    for name in ("block", "after"):
        shapes |= {f"{name}/{part}": (width, width) for part in ("in", "out", "mix")}
        shapes |= {f"{name}/gate": (width, 2 * width), f"{name}/space": (3, 3, width)}
    weights = {}
    for name, shape in shapes.items():
        weights[f"context/{octave}/{name}/kernel"] = rng.integers(-300, 301, shape).astype(np.int16)
        weights[f"context/{octave}/{name}/bias"] = rng.integers(-(2**17), 2**17, shape[-1]).astype(np.int32)
    return weights


def random_octave(rng: np.random.Generator, octave: int, colours: int = 3, width: int = 32) -> Octave:
    """The networks of an octave, with a random companding table and number of scales."""
    steps = np.sort(rng.choice(2**12, int(rng.integers(1, 400)), replace=False)) + 1
    scales = int(rng.integers(2, 257))
    return load_octave(octave_weights(rng, octave, colours, width), octave, companding_table(steps), scales)


def random_int32(rng: np.random.Generator, shape: tuple[int, ...], most: int = 2**16) -> np.ndarray:
    """i32 within +-most, mostly small, with both ends among them."""
    numbers = rng.integers(-most, most + 1, shape) >> rng.integers(0, most.bit_length(), shape)
    numbers[rng.random(shape) < 0.02] = rng.choice([-most, most])
    return numbers.astype(np.int32)


def random_before(rng: np.random.Generator, networks: Octave, shape: tuple[int, int], coarsest: bool) -> Before:
    """The data decoded before an octave: the low-pass image and, except for the coarsest octave, the parents."""
    low = random_int32(rng, (networks.colours, *shape))
    if coarsest:
        return Before(low, None, None)
    cells = [-(-side // 2) + int(rng.integers(0, 2)) for side in cells_of(shape)]
    parents = random_int32(rng, (*cells, 6 * networks.colours)), random_int32(rng, (*cells, 6 * networks.colours))
    return Before(low, parents, rng.integers(-1023, 1024, (*cells, 4 * PASSED)).astype(np.int16))


def run_octave(networks: Octave, vector: np.ndarray, before: Before, first_values: np.ndarray) -> list[np.ndarray]:
    """The outputs of both halves of an octave's networks."""
    first = first_half(networks, vector, before)
    second = second_half(networks, before.low.shape[1:], first.features, first_values)  # type: ignore[arg-type]
    return [array for array in (*first, *second) if array is not None]
