"""Planes of integers <-> weights and words: walks over a lattice, one for each plane of a chain.

planes [L, H, W]   L / n chains of n planes, each of which sees the two planes before it in its chain;
                   chains go together in groups: the first planes of all in the group, then the second ones
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vaecodec.arrays import weights as weighing
from vaecodec.arrays.chunks import Coding
from vaecodec.arrays.fitting import Chooser
from vaecodec.arrays.lattice import SMALL_TOP, Choose, Guide, Question, sizes, stages, walk
from vaecodec.entropy import adaptive
from vaecodec.entropy.coding import reader, words, writer
from vaecodec.errors import FormatError
from vaecodec.threads import single_threaded_blas

GROUP = 1 << 20  # values of planes that are walked over together, but for a plane that is larger
GUIDES = 2

Part = tuple[slice, int]  # of the chains, of the planes in a chain
Planes = np.ndarray  # [L, H, W]


def encode(numbers: Planes, valid: Planes | None, coding: Coding, base: Planes | None) -> tuple[bytes, bytes, Planes]:
    """(weights, words, what decode gives) of i64[L, H, W] in 0..top, each within (step - 1) / 2 of what it was.

    What is not `valid` costs nothing and comes back as anything; `base` is a picture of the planes, in 0..top.
    """
    chooser, out = Chooser(), adaptive.Encoder()
    exact, usable = _chained(numbers, coding), None if valid is None else _chained(valid, coding)

    def begin(part: Part) -> None:
        chooser.begin(exact[part], None if usable is None else usable[part])

    def residuals(part: Part, question: Question, rows: np.ndarray) -> np.ndarray:
        errors = exact[part][question.where] - question.predicted.astype(np.int64)
        found = ((errors + coding.step // 2) // coding.step).ravel()
        found *= rows > 0
        out.put(found, rows)
        return found

    with single_threaded_blas:  # least squares are small products
        found = _walk_over(numbers.shape, valid, coding, base, chooser, begin, residuals)
    coder = writer()
    out.push(coder)
    return weighing.pack(chooser.choices), words(coder), found


def decode(
    weights: bytes, data: bytes, shape: tuple[int, ...], valid: Planes | None, coding: Coding, base: Planes | None
) -> Planes:
    """float[L, H, W] of what encode made of planes of this shape; raises FormatError on damage it can see."""
    coder = reader(data)
    symbols, given = adaptive.Decoder(coder), _given(weights, shape, coding, base is not None)

    def residuals(part: Part, question: Question, rows: np.ndarray) -> np.ndarray:
        return symbols.get(rows)

    found = _walk_over(shape, valid, coding, base, given, lambda part: None, residuals)
    given.finish()
    if not coder.is_empty():
        raise FormatError("words are left over after the last residual")
    return found


def _walk_over(
    shape: tuple[int, ...],
    valid: Planes | None,
    coding: Coding,
    base: Planes | None,
    choose: Choose,
    begin: Callable[[Part], None],
    residuals: Callable[[Part, Question, np.ndarray], np.ndarray],
) -> Planes:
    """The planes that come of the residuals, which answer a part, a Question and its contexts."""
    top = coding.scale.top
    found = _chained(np.empty(shape, np.float32 if top <= SMALL_TOP else np.float64), coding)
    usable, below = (None if x is None else _chained(x, coding) for x in (valid, base))
    together = _together(shape, coding)
    for first in range(0, len(found), together):
        guides: list[Guide] = []
        for place in range(coding.chain):
            part = (slice(first, first + together), place)
            begin(part)
            seen = guides[-GUIDES:] + ([] if below is None else [Guide(below[part])])
            steps = walk(found[part].shape, top, coding.step, seen, choose)
            try:
                question = next(steps)
                while True:
                    rows = question.rows
                    if usable is not None:
                        rows = rows * usable[part][question.where].ravel()
                    question = steps.send(residuals(part, question, rows))
            except StopIteration as end:
                guides.append(end.value)
            found[part] = guides[-1].values
    return found.reshape(shape)


def _chained(planes: Planes, coding: Coding) -> np.ndarray:
    """[L / n, n, H, W]."""
    return planes.reshape(-1, coding.chain, *planes.shape[1:])


def _together(shape: tuple[int, ...], coding: Coding) -> int:
    """How many chains a group has, the last one perhaps fewer."""
    return max(1, min(GROUP // (shape[1] * shape[2]), shape[0] // coding.chain))


def _given(weights: bytes, shape: tuple[int, ...], coding: Coding, based: bool) -> weighing.Given:
    """The weights of all walks."""
    chains = shape[0] // coding.chain
    walks = coding.chain * -(-chains // _together(shape, coding))
    count = walks * sum(1 for _ in stages((1, *shape[1:])))
    none = np.empty(0)
    guides = [Guide(none, none)] * GUIDES + [Guide(none)] * based
    return weighing.Given(weights, count, max(sum(sizes(kind, guides)) for kind in range(3)))
