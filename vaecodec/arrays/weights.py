"""Which weights each stage of a lattice has <-> bytes.

For every stage a byte says which; those of its own follow all of these bytes, as i16, and the whole is deflated.
"""

from __future__ import annotations

import zlib

import numpy as np

from vaecodec.arrays.lattice import EXPECT_MAX, PREDICT_MAX, Scene, Weights, default
from vaecodec.errors import FormatError

DEFAULT, FOLLOW, OWN, AGAIN, BEFORE = range(5)


class Memory:
    """The weights that a stage may use again."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, tuple[int, int]], Weights] = {}
        self._before: dict[tuple[int, int, tuple[int, int]], Weights] = {}

    def options(self, scene: Scene) -> dict[int, Weights]:
        """By choice: interpolation; the last guide; the last stage of this kind; this stage of the planes before."""
        found = {DEFAULT: default(scene.kind, scene.guides, False)}
        if scene.guides:
            found[FOLLOW] = default(scene.kind, scene.guides, True)
        if (scene.kind, scene.sizes) in self._last:
            found[AGAIN] = self._last[scene.kind, scene.sizes]
        if (scene.level, scene.kind, scene.sizes) in self._before:
            found[BEFORE] = self._before[scene.level, scene.kind, scene.sizes]
        return found

    def keep(self, scene: Scene, weights: Weights) -> Weights:
        """Remembers what a stage used, and returns it."""
        self._last[scene.kind, scene.sizes] = weights
        self._before[scene.level, scene.kind, scene.sizes] = weights
        return weights


class Given:
    """Answers walks with the weights that an encoder chose."""

    def __init__(self, data: bytes | memoryview, count: int, most: int) -> None:
        """`count` stages, with at most `most` weights in each; raises FormatError on other bytes."""
        inflated = inflate(data, count * (1 + 2 * most))
        if len(inflated) < count:
            raise FormatError("the weights are cut off")
        self._choices, self._own = iter(inflated[:count]), memoryview(inflated)[count:]
        self._memory = Memory()

    def __call__(self, scene: Scene) -> Weights:
        choice = next(self._choices)
        options = self._memory.options(scene)
        if choice == OWN:
            options[OWN] = self._take(*scene.sizes)
        if choice not in options:
            raise FormatError(f"a stage has weights of kind {choice}, which there are not")
        return self._memory.keep(scene, options[choice])

    def _take(self, predict: int, expect: int) -> Weights:
        size = 2 * (predict + expect)
        if len(self._own) < size:
            raise FormatError("the weights are cut off")
        found, self._own = np.frombuffer(self._own[:size], "<i2"), self._own[size:]
        sums = np.abs(found[:predict].astype(np.int64)).sum(), np.abs(found[predict:].astype(np.int64)).sum()
        if sums[0] > PREDICT_MAX or sums[1] > EXPECT_MAX or found[predict:].min() < 0:
            raise FormatError("the weights of a stage are out of range")
        return Weights(found[:predict], found[predict:])

    def finish(self) -> None:
        """Raises FormatError where bytes are left."""
        if len(self._own):
            raise FormatError("weights are left over after the last stage")


def pack(choices: list[tuple[int, Weights | None]]) -> bytes:
    """The bytes that Given reads."""
    own = [part.astype("<i2").tobytes() for _, weights in choices if weights for part in weights]
    return zlib.compress(bytes(choice for choice, _ in choices) + b"".join(own), 9)


def inflate(data: bytes | memoryview, most: int) -> bytes:
    """A zlib stream's content, of at most `most` bytes; raises FormatError on another, or a broken one."""
    stream = zlib.decompressobj()
    try:
        content = stream.decompress(data, most + 1)
    except zlib.error as exc:
        raise FormatError(f"a deflated part is damaged ({exc})") from exc
    if len(content) > most or not stream.eof or stream.unused_data:
        raise FormatError("a deflated part has another size than it should have")
    return content
