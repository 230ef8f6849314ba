"""LiteRT flatbuffers that begin or end elsewhere: without a lapped model's filter, or before pixels are rounded.

LiteRT transposes in plain loops, and its fast kernels take no sizes that are computed: a third of a lapped transform's
time went into a twentieth of its arithmetic, which `lapped` does faster.  A picture's own filter comes before rounding.
Only lists of numbers are changed, in place; the rest is as it was.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from vaecodec.errors import ModelError

MOST = 4096  # entries of a list, as in networks
ADD, SPACE_TO_DEPTH, STRIDED_SLICE, MIRROR_PAD = 0, 26, 45, 100  # of tflite.BuiltinOperator


class _Table(NamedTuple):
    """A table of a flatbuffer (flatbuffers.dev, "Internals")."""

    data: bytearray
    at: int

    def _number(self, kind: str, at: int) -> int:
        return struct.unpack_from(f"<{kind}", self.data, at)[0]

    def field(self, number: int) -> int:
        """Where a field lies; raises KeyError where there is none."""
        entries = self.at - self._number("i", self.at)
        place = 4 + 2 * number
        offset = self._number("H", entries + place) if place < self._number("H", entries) else 0
        if not offset:
            raise KeyError(number)
        return self.at + offset

    def number(self, number: int, kind: str) -> int:
        """A number, 0 where there is none."""
        try:
            return self._number(kind, self.field(number))
        except KeyError:
            return 0

    def follow(self, at: int) -> int:
        """Where an offset leads."""
        return at + self._number("I", at)

    def numbers(self, number: int) -> list[int]:
        """Where the entries, 4 bytes each, of a list of numbers or tables lie."""
        start = self.follow(self.field(number))
        if self._number("I", start) > MOST:
            raise IndexError(number)
        return list(range(start + 4, start + 4 + 4 * self._number("I", start), 4))

    def tables(self, number: int) -> list[_Table]:
        return [_Table(self.data, self.follow(at)) for at in self.numbers(number)]

    def text(self, number: int) -> bytes:
        start = self.follow(self.field(number))
        return bytes(self.data[start + 4 : start + 4 + self._number("I", start)])


class _Operation(NamedTuple):
    table: _Table
    code: int
    inputs: list[int]
    outputs: list[int]


def without_filter(content: bytes, name: str) -> bytes:
    """The flatbuffer of "analysis" from the filtered f32[1, H, W, 3] on, of "synthesis" up to what is to be filtered.

    Raises ModelError where no filter is found at that end.
    """
    try:
        return _without_filter(bytearray(content), name)
    except (KeyError, StopIteration, struct.error, IndexError) as exc:
        raise ModelError("the model's network has no lapped filter where it should") from exc


def unrounded(content: bytes) -> bytes:
    """The flatbuffer of "synthesis" up to its last sum: f32 on a scale of 255 and a half more, not clipped.

    Raises ModelError where there is none.
    """
    data = bytearray(content)
    try:
        graph, operations = _operations(data)
        outputs, last = graph.numbers(2), next(one for one in reversed(operations) if one.code == ADD)
        struct.pack_into("<i", data, outputs[0], last.outputs[0])
        _keep(data, graph, needed(operations, {last.outputs[0]}, -1))
    except (KeyError, StopIteration, struct.error, IndexError) as exc:
        raise ModelError("the model's network does not end as it should") from exc
    return bytes(data)


def _operations(data: bytearray) -> tuple[_Table, list[_Operation]]:
    """The graph and all that it does."""
    model = _Table(data, struct.unpack_from("<I", data)[0])
    graph = model.tables(2)[0]
    # Codes up to 127 may stand in the first field alone, as they did before there were more.
    codes = [max(code.number(0, "b"), code.number(3, "i")) for code in model.tables(1)]
    operations = [
        _Operation(one, codes[one.number(0, "I")], *([one._number("i", at) for at in one.numbers(n)] for n in (1, 2)))
        for one in graph.tables(3)
    ]
    return graph, operations


def _without_filter(data: bytearray, name: str) -> bytes:
    graph, operations = _operations(data)
    inputs, outputs = graph.numbers(1), graph.numbers(2)
    if name == "synthesis":
        begin = next(one for one in operations if one.code == MIRROR_PAD)
        struct.pack_into("<i", data, outputs[0], begin.inputs[0])
        stop = -1
    else:
        sliced = {one.outputs[0] for one in operations if one.code == STRIDED_SLICE}
        stop = next(one.inputs[0] for one in operations if one.code == SPACE_TO_DEPTH and one.inputs[0] in sliced)
        tensors = graph.tables(0)
        at = min(inputs, key=lambda at: tensors[graph._number("i", at)].text(3))  # as interpreters.Runner has it
        _rename(data, tensors[stop], tensors[graph._number("i", at)].text(3))
        struct.pack_into("<i", data, at, stop)
    _keep(data, graph, needed(operations, {graph._number("i", at) for at in outputs}, stop))
    return bytes(data)


def needed(operations: list[_Operation], wanted: set[int], stop: int) -> list[_Operation]:
    """The operations, in order, that the wanted tensors are made by, but for what `stop` is made by."""
    found = []
    for one in reversed(operations):
        if wanted.intersection(one.outputs) - {stop}:
            wanted = wanted.union(one.inputs)
            found.append(one)
    return found[::-1]


def _keep(data: bytearray, graph: _Table, operations: list[_Operation]) -> None:
    """Makes these the operations of the graph."""
    at = graph.follow(graph.field(3))
    entries = range(at + 4, at + 4 + 4 * len(operations), 4)
    struct.pack_into("<I", data, at, len(operations))
    for entry, one in zip(entries, operations, strict=True):
        struct.pack_into("<I", data, entry, one.table.at - entry)


def _rename(data: bytearray, tensor: _Table, name: bytes) -> None:
    """Offsets lead forward, and so to the end."""
    data += b"\0" * (-len(data) % 4)
    struct.pack_into("<I", data, tensor.field(3), len(data) - tensor.field(3))
    data += struct.pack("<I", len(name)) + name + b"\0"
