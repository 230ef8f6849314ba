"""The transforms that a codec calls: in the native core, an image at a time, or in TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from vaecodec.config import Config
from vaecodec.errors import ModelError
from vaecodec.native.restoration import FilterWeights
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.analysis import Analysis
from vaecodec.transforms.coefficients import Coefficients
from vaecodec.transforms.synthesis import Synthesis


class Transforms(Protocol):
    """Both transforms of one model, for images of one size at one quality index; all give the same integers."""

    batch: int  # images that are best taken at once

    def analysis(
        self, images: Sequence[np.ndarray], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[Coefficients]:
        """u8[16h, 16w, C] each -> coefficients of each, unit 2**-14."""

    def levels(
        self, coefficients: Sequence[Coefficients], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[np.ndarray]:
        """i16[16h, 16w, C] each, unit 2**-6 of a level, 0 in the middle of the range."""

    def pixels(
        self,
        coefficients: Sequence[Coefficients],
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> list[np.ndarray]:
        """u8[16h, 16w, C] each, through a restoration filter where there is one."""


def analysis_of(config: Config, arrays: Mapping[str, np.ndarray], name: str) -> Analysis:
    """The analysis transform of a model; raises ModelError where it has none, or its tensors do not fit."""
    if "analysis/latents/kernel" not in arrays:
        raise ModelError(f"model {name} has no analysis transform: it decodes, but does not encode")
    return Analysis(config, arrays)


class NativeTransforms:
    """Transforms in the native core, or its NumPy reference."""

    batch = 1

    def __init__(self, config: Config, arrays: Mapping[str, np.ndarray], name: str = "") -> None:
        self._config, self._arrays, self._name = config, arrays, name
        self.synthesis = Synthesis(config, arrays)

    @cached_property
    def _analysis(self) -> Analysis:
        return analysis_of(self._config, self._arrays, self._name)

    def check(self) -> None:
        """Raises ModelError where there is an analysis transform and its tensors do not fit."""
        if any(name.startswith("analysis/") for name in self._arrays):
            _ = self._analysis

    def analysis(
        self, images: Sequence[np.ndarray], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[Coefficients]:
        return [self._analysis(image, quality_index, threads) for image in images]

    def levels(
        self, coefficients: Sequence[Coefficients], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[np.ndarray]:
        return [self.synthesis.levels(each, quality_index, threads) for each in coefficients]

    def pixels(
        self,
        coefficients: Sequence[Coefficients],
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> list[np.ndarray]:
        return [self.synthesis.pixels(each, quality_index, weights, threads) for each in coefficients]


def transforms_for(config: Config, arrays: Mapping[str, np.ndarray], name: str = "", device: str = "cpu") -> Transforms:
    """Both transforms of a model, on a device.

    Args:
        config: the sizes of the model.
        arrays: its tensors.
        name: its name, for messages.
        device: "cpu" for the native core; TensorFlow for "tensorflow" (wherever it runs) and "gpu".

    Raises:
        CodecError: device is "gpu", and TensorFlow sees none.
        ModelError: tensors are missing or do not fit.
        ValueError: there is no such device.
    """
    if device == "cpu":
        return NativeTransforms(config, arrays, name)
    if device in ("gpu", "tensorflow"):
        from vaecodec.transforms.tensorflow import TensorFlowTransforms  # seconds to import

        return TensorFlowTransforms(config, arrays, name, device)
    raise ValueError(f"device is {device!r}, expected 'cpu', 'gpu' or 'tensorflow'")
