"""LiteRT flatbuffers of strangers: looked through before LiteRT, which takes much on trust, is given them.

LiteRT verifies that offsets stay within the file and checks shapes as it lays tensors out; it does not expect that
parts are missing, that numbers of tensors are out of range, or that constants are shorter than their shapes.
"""

from __future__ import annotations

import math
from typing import Any

from vaecodec.errors import ModelError
from vaecodec.vetting import require

# Operation: inputs, name of its table of options.
OPERATIONS = {
    "ADD": (2, "AddOptions"),
    "CAST": (1, "NONE"),
    "CONV_2D": (3, "Conv2DOptions"),
    "DEPTHWISE_CONV_2D": (3, "DepthwiseConv2DOptions"),
    "DEPTH_TO_SPACE": (1, "DepthToSpaceOptions"),
    "DEQUANTIZE": (1, "NONE"),
    "FLOOR": (1, "NONE"),
    "MAXIMUM": (2, "NONE"),
    "MINIMUM": (2, "NONE"),
    "MUL": (2, "MulOptions"),
    "RELU": (1, "NONE"),
    "SPACE_TO_DEPTH": (1, "SpaceToDepthOptions"),
    "SUB": (2, "SubOptions"),
}
BYTES = {"FLOAT32": 4, "FLOAT16": 2, "UINT8": 1, "INT32": 4}
MOST = 4096  # tensors, operations, buffers
MAX_BLOCK = 16
Shape = tuple[int, ...]


def check_network(content: bytes, channels: int) -> None:
    """Raises ModelError unless a flatbuffer is a plain feed-forward network of OPERATIONS, at most `channels` wide."""
    from ai_edge_litert import schema_py_generated as schema

    try:
        _Network(schema, schema.Model.GetRootAs(content, 0), channels).check()
    except ModelError as exc:
        raise ModelError(f"the model's network is not one of ours: {exc}") from exc
    except Exception as exc:  # reading a broken flatbuffer raises anything, struct.error to UnicodeDecodeError
        raise ModelError(f"the model's network is damaged ({type(exc).__name__})") from exc


def _names(values: Any) -> dict[int, str]:
    return {value: name for name, value in vars(values).items() if isinstance(value, int)}


class _Network:
    """A flatbuffer being looked through."""

    def __init__(self, schema: Any, model: Any, channels: int) -> None:
        self.schema, self.model, self.channels = schema, model, channels
        require(model.SubgraphsLength() == 1, "it has not one graph")
        self.graph = model.Subgraphs(0)
        for count in (
            model.OperatorCodesLength(),
            model.BuffersLength(),
            self.graph.TensorsLength(),
            self.graph.OperatorsLength(),
        ):
            require(0 < count <= MOST, "it has too many parts or none")
        require(model.MetadataLength() <= 16 and not model.MetadataBufferLength(), "it has too much metadata")
        require(not model.SignatureDefsLength(), "it has signatures")
        self.shapes: list[Shape] = []
        self.known: set[int] = set()

    def check(self) -> None:
        for n in range(self.model.MetadataLength()):
            require(self.model.Metadata(n).Buffer() < self.model.BuffersLength(), "its metadata are out of range")
        sizes = [self._buffer(n) for n in range(self.model.BuffersLength())]
        kinds = _names(self.schema.TensorType)
        for n in range(self.graph.TensorsLength()):
            self._tensor(n, sizes, kinds)
        require(1 <= self.graph.InputsLength() <= 4 and 1 <= self.graph.OutputsLength() <= 3, "it has other ends")
        for n in range(self.graph.InputsLength()):
            self._define(self.graph.Inputs(n))
        codes = [self._code(n) for n in range(self.model.OperatorCodesLength())]
        for n in range(self.graph.OperatorsLength()):
            self._operation(self.graph.Operators(n), codes)
        for n in range(self.graph.OutputsLength()):
            require(self.graph.Outputs(n) in self.known, "an output is not computed")

    def _buffer(self, number: int) -> int:
        buffer = self.model.Buffers(number)
        require(not buffer.Offset() and not buffer.Size(), "it has data elsewhere")
        length = buffer.DataLength()
        if length:
            require(len(buffer.DataAsNumpy()) == length, "its data are cut off")
        return length

    def _tensor(self, number: int, sizes: list[int], kinds: dict[int, str]) -> None:
        tensor = self.graph.Tensors(number)
        rank, kind = tensor.ShapeLength(), kinds.get(tensor.Type(), "")
        require(rank <= 4 and kind in BYTES and not tensor.IsVariable(), "it has tensors of another kind")
        shape = tuple(int(tensor.Shape(n)) for n in range(rank))
        require(all(0 < side <= 1 << 24 for side in shape), "a shape is out of range")
        require(tensor.ShapeSignatureLength() in (0, rank), "a shape is not that of its tensor")
        quantised = tensor.Quantization()
        if quantised is not None:
            parts = (quantised.ScaleLength(), quantised.ZeroPointLength(), quantised.DetailsType())
            require(not any(parts), "it is quantised")
        require(tensor.Sparsity() is None and not tensor.VariantTensorsLength(), "it has tensors of another kind")
        require(tensor.Buffer() < len(sizes), "a tensor's data are out of range")
        size = sizes[tensor.Buffer()]
        if size:
            require(size == math.prod(shape) * BYTES[kind], "a constant is not as long as its shape says")
            self.known.add(number)
        elif rank:
            require(shape[-1] <= self.channels, f"it is {shape[-1]} channels wide, expected at most {self.channels}")
        self.shapes.append(shape)

    def _define(self, number: int) -> None:
        require(0 <= number < len(self.shapes) and number not in self.known, "a tensor is computed twice")
        self.known.add(number)

    def _code(self, number: int) -> str:
        code = self.model.OperatorCodes(number)
        wanted = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        name = _names(self.schema.BuiltinOperator).get(wanted, str(wanted))
        require(name in OPERATIONS and code.CustomCode() is None, f"it uses {name}")
        return name

    def _operation(self, operation: Any, codes: list[str]) -> None:
        require(operation.OpcodeIndex() < len(codes), "an operation is out of range")
        name = codes[operation.OpcodeIndex()]
        count, options = OPERATIONS[name]
        require(operation.InputsLength() == count and operation.OutputsLength() == 1, f"{name} has other operands")
        extra = (operation.CustomOptionsLength(), operation.IntermediatesLength())
        require(not any((*extra, operation.MutatingVariableInputsLength())), f"{name} has more than operands")
        inputs = [int(operation.Inputs(n)) for n in range(count)]
        require(self.known.issuperset(inputs), f"{name} takes what is not computed yet")
        output = int(operation.Outputs(0))
        self._define(output)
        kind = operation.BuiltinOptionsType()
        require(kind == getattr(self.schema.BuiltinOptions, options), f"{name} has options of another")
        found = None
        if options != "NONE":
            table = operation.BuiltinOptions()
            require(table is not None, f"{name} has no options")
            found = getattr(self.schema, options)()
            found.Init(table.Bytes, table.Pos)
        block = 1 if found is None else self._options(name, found)
        out = self.shapes[output]
        require(_fits(name, [self.shapes[n] for n in inputs], out, block), f"{name} has shapes that do not fit")

    def _options(self, name: str, options: Any) -> int:
        """The side of a block, 1 for what has none."""
        if name in ("SPACE_TO_DEPTH", "DEPTH_TO_SPACE"):
            require(1 <= options.BlockSize() <= MAX_BLOCK, f"{name} has blocks of {options.BlockSize()}")
            return options.BlockSize()
        require(0 <= options.FusedActivationFunction() <= 3, f"{name} has another activation")
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            steps = (options.StrideH(), options.StrideW(), options.DilationHFactor(), options.DilationWFactor())
            require(steps == (1, 1, 1, 1) and options.Padding() in (0, 1), f"{name} has strides")
        if name == "DEPTHWISE_CONV_2D":
            require(options.DepthMultiplier() == 1, f"{name} makes more channels")
        return 1


def _fits(name: str, inputs: list[Shape], out: Shape, block: int) -> bool:
    """Whether an operation makes this shape; heights and widths, which are free, count for constants only."""
    x = inputs[0]
    if name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        kernel, bias = inputs[1:]
        if not len(x) == len(kernel) == len(out) == 4:
            return False
        wanted = (out[3], 1, 1, x[3]) if name == "CONV_2D" else (1, 3, 3, x[3])
        return kernel == wanted and bias == out[3:] and (name == "CONV_2D" or x[3] == out[3])
    if name in ("SPACE_TO_DEPTH", "DEPTH_TO_SPACE"):
        narrow, wide = (x, out) if name == "SPACE_TO_DEPTH" else (out, x)
        return len(x) == len(out) == 4 and narrow[3] * block * block == wide[3]
    if len(inputs) == 1:
        return out == x
    shapes = [(1,) * (4 - len(shape)) + shape for shape in (*inputs, out)]
    return all(side in (1, made) and made == max(sides) for *sides, made in zip(*shapes, strict=True) for side in sides)
