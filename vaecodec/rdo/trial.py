"""Define what an iteration of refinement yields, and what evaluates it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from vaecodec.entropy.coding import Part
from vaecodec.rdo.filter import Equations
from vaecodec.rdo.quantization import Parts, Quantizer
from vaecodec.transforms.wavelet import Values


class Trial(NamedTuple):
    """Quantised targets: symbols i32[n], table indices u8[n] and values i32[n], unit 2**-6 steps, of each part."""

    symbols: Parts
    indices: Parts
    values: Parts
    bits: float
    squared_error: float  # after the restoration filter that fits best
    equations: Callable[[bool], Equations]  # of the filter; of one class, or of several
    decoded: Values
    levels: np.ndarray | None  # i16[H, W, C] of the tile and its halo, where decoders compute these

    @property
    def parts(self) -> list[Part]:
        """Symbols and table indices of each part."""
        return list(zip(self.symbols, self.indices, strict=True))


class Passes(Protocol):
    """Forward and backward passes for one tile; gradients are those of the last trial."""

    def targets(self) -> Parts: ...

    def trial(self, targets: Parts, quantizers: list[Quantizer]) -> Trial: ...

    def error_gradients(self) -> Parts: ...

    def gradients(self, trial: Trial, error_gradients: Parts) -> Parts: ...

    def descend(
        self,
        targets: Parts,
        first: Parts,
        trial: Trial,
        gradients: Parts,
        steps: list[float],
        rate: float,
        reach: float,
    ) -> Parts: ...
