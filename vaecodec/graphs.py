"""LiteRT flatbuffers that end elsewhere: before pixels are rounded, which a picture's own filter comes before.

Only lists of numbers are changed, in place; the rest is as it was.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from vaecodec.errors import ModelError

MOST = 4096  # entries of a list, as in networks
ADD = 0  # of tflite.BuiltinOperator


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


class _Operation(NamedTuple):
    table: _Table
    code: int
    inputs: list[int]
    outputs: list[int]


def unrounded(content: bytes) -> bytes:
    """The flatbuffer of "synthesis" up to its last sum: f32 on a scale of 255 and a half more, not clipped.

    Raises ModelError where there is none.
    """
    data = bytearray(content)
    try:
        graph, operations = _operations(data)
        outputs, last = graph.numbers(2), next(one for one in reversed(operations) if one.code == ADD)
        struct.pack_into("<i", data, outputs[0], last.outputs[0])
        _keep(data, graph, needed(operations, {last.outputs[0]}))
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


def needed(operations: list[_Operation], wanted: set[int]) -> list[_Operation]:
    """The operations, in order, that the wanted tensors are made by."""
    found = []
    for one in reversed(operations):
        if wanted.intersection(one.outputs):
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
