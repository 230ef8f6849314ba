"""The lapped filter in a LiteRT network of strangers (layers.Float.lapped): shapes there are computed as it runs.

LiteRT takes a shape that was computed on trust, or nearly so, and mirrors more than there is of a picture without a
look.  So each computation must be the one of ours, on sizes that are multiples of 16 pixels: H and W below.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from vaecodec.config import STRIDE
from vaecodec.vetting import require

HALF = STRIDE // 2

# Operation: inputs (0: any number), name of its table of options.
OPERATIONS = {
    "FLOOR_DIV": (2, "NONE"),
    "MIRROR_PAD": (2, "MirrorPadOptions"),
    "PACK": (0, "PackOptions"),
    "RESHAPE": (2, "NONE"),
    "SHAPE": (1, "ShapeOptions"),
    "STRIDED_SLICE": (4, "StridedSliceOptions"),
    "TRANSPOSE": (2, "NONE"),
}

PADS = (0, 0, HALF, HALF, HALF, HALF, 0, 0)
Steps = dict[tuple[Any, ...], Any]


@lru_cache
def steps(channels: int) -> Steps:
    """What a tensor is -> what it becomes; constants count by their values, the rest of STRIDED_SLICE are its masks."""
    wide = STRIDE * channels
    line = "line" if channels > 1 else "W + 16"  # a product with 1 is left out
    found: Steps = {
        ("MIRROR_PAD", "pixels", PADS): "padded",  # [1, H + 16, W + 16, C]
        ("SHAPE", "pixels"): "shape",
        ("STRIDED_SLICE", "shape", (1,), (2,), (1,), (0, 0, 0, 0, 1)): "H",
        ("STRIDED_SLICE", "shape", (2,), (3,), (1,), (0, 0, 0, 0, 1)): "W",
        ("ADD", "H", (16,)): "H + 16",
        ("ADD", "W", (16,)): "W + 16",
        ("FLOOR_DIV", "H", (16,)): "H / 16",
        ("FLOOR_DIV", "W", (16,)): "W / 16",
        ("ADD", "H / 16", (1,)): "H / 16 + 1",
        ("ADD", "W / 16", (1,)): "W / 16 + 1",
        ("MUL", "W + 16", (channels,)): line,
        ("PACK", (-1,), (16,), line): "of lines",
        ("PACK", (-1,), line, (16,)): "of columns",
        ("PACK", (-1,), "H / 16 + 1", line, (16,)): "of high blocks",
        ("PACK", (-1,), "H + 16", "W / 16 + 1", (wide,)): "of wide blocks",
        ("PACK", (-1,), "H + 16", "W + 16", (channels,)): "of padded",
        ("RESHAPE", "padded", "of lines"): "lines",  # [H / 16 + 1, 16, C (W + 16)]
        ("TRANSPOSE", "lines", (0, 2, 1)): "columns",  # [H / 16 + 1, C (W + 16), 16]
        ("RESHAPE", "columns", "of high blocks"): "high blocks",  # [1, H / 16 + 1, C (W + 16), 16]
        ("CONV_2D", "high blocks", "kernel of 16", "bias of 16"): "high blocks",
        ("RESHAPE", "high blocks", "of columns"): "columns",
        ("TRANSPOSE", "columns", (0, 2, 1)): "lines",
        ("RESHAPE", "lines", "of wide blocks"): "wide blocks",  # [1, H + 16, W / 16 + 1, 16 C]
        ("CONV_2D", "wide blocks", f"kernel of {wide}", f"bias of {wide}"): "wide blocks",
        ("RESHAPE", "wide blocks", "of padded"): "padded",
    }
    cut = ("STRIDED_SLICE", "padded", (0, HALF, HALF, 0), (0, -HALF, -HALF, channels), (1, 1, 1, 1))
    for begin in (0b0000, 0b0001, 0b1000, 0b1001):  # masks: axes, the first lowest, that are not cut there
        for end in (0b0001, 0b1001):
            found[cut + ((begin, end, 0, 0, 0),)] = "pixels"
    return found


def parameters(name: str, options: Any) -> tuple[tuple[int, ...], ...]:
    """What of an operation's options matters to `steps`; raises ModelError where they are not those of ours."""
    if name == "STRIDED_SLICE":
        masks = (options.BeginMask(), options.EndMask(), options.EllipsisMask(), options.NewAxisMask())
        return ((*masks, options.ShrinkAxisMask()),)
    if name == "PACK":
        require(options.Axis() == 0, "PACK has another axis")
    if name == "SHAPE":
        require(options.OutType() == 2, "SHAPE has another type")  # INT32
    if name in ("ADD", "MUL"):
        require(options.FusedActivationFunction() == 0, f"{name} of sizes has an activation")
    return ()


def become(steps: Steps, name: str, *operands: Any) -> Any:
    """What comes of an operation on operands of these meanings; raises ModelError on what the filter does not do."""
    step = (name, *operands)
    require(step in steps, f"{name} is not part of a lapped filter")
    return steps[step]


def rearranged(name: str, shape: Sequence[int], numbers: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The shape of a constant after TRANSPOSE or a STRIDED_SLICE that takes it whole; raises ModelError on others."""
    if name == "TRANSPOSE":
        require(sorted(numbers[0]) == list(range(len(shape))), "TRANSPOSE is out of range")
        return tuple(shape[axis] for axis in numbers[0])
    zeros, ones = (0,) * len(shape), (1,) * len(shape)
    whole = name == "STRIDED_SLICE" and numbers[0] == zeros and numbers[2] == ones and len(numbers[1]) == len(shape)
    require(whole and not any(numbers[3][2:]), f"{name} of a constant is not one of ours")
    ends = zip(shape, numbers[1], range(len(shape)), strict=True)
    require(all(end == side or numbers[3][1] >> axis & 1 for side, end, axis in ends), "a constant is cut")
    return tuple(shape)
