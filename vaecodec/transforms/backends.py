"""Choose where the transforms of a model run: in the native core, an image at a time, or in TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np

from vaecodec.config import Config
from vaecodec.errors import ModelError
from vaecodec.native.transforms import FilterWeights
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms.networks import Analysis, Arrays, Synthesis
from vaecodec.transforms.wavelet import Coefficients

EYE = "eye/"  # before the names of tensors of an analysis for the eye


class Transforms(Protocol):
    """Both transforms of a model, for images of one size at one quality index; all give the same integers."""

    batch: int  # images that are best transformed at once

    def analysis(
        self, images: Sequence[np.ndarray], quality_index: int, threads: Threads = ONE_THREAD, tune: str = "psnr"
    ) -> list[Coefficients]:
        """u8[16h, 16w, C] each -> coefficients of each, unit 2**-14, for a tune ("eye" or "psnr")."""

    def levels(
        self, coefficients: Sequence[Coefficients], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[np.ndarray]:
        """i16[16h, 16w, C] each, unit 2**-6 of a level of 0..255, 0 in the middle of that range."""

    def pixels(
        self,
        coefficients: Sequence[Coefficients],
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> list[np.ndarray]:
        """u8[16h, 16w, C] each, through a restoration filter if there is one."""


def arrays_for_the_eye(arrays: Arrays) -> dict[str, np.ndarray]:
    """The tensors of an analysis for the eye, named as those of the other one; none if a model has no such analysis."""
    return {name.removeprefix(EYE): array for name, array in arrays.items() if name.startswith(EYE)}


def load_analysis(config: Config, arrays: Arrays, name: str, tune: str = "psnr") -> Analysis:
    """The analysis transform of a model; raises ModelError if it has none, or its tensors do not fit.

    A model may have another one for the tune "eye".
    """
    if tune == "eye" and f"{EYE}analysis/latents/kernel" in arrays:
        return Analysis(config, arrays_for_the_eye(arrays))
    if "analysis/latents/kernel" not in arrays:
        raise ModelError(f"model {name} has no analysis transform: it decodes, but does not encode")
    return Analysis(config, arrays)


class NativeTransforms:
    """Transforms in the native core, or its NumPy reference.  Implements Transforms."""

    batch = 1

    def __init__(self, config: Config, arrays: Arrays, name: str = "") -> None:
        self._arrays = arrays
        self.synthesis = Synthesis(config, arrays)
        self._analysis = lru_cache(maxsize=None)(lambda tune: load_analysis(config, arrays, name, tune))

    def check(self) -> None:
        """Raise ModelError if there is an analysis transform whose tensors do not fit."""
        for tune, prefix in (("psnr", ""), ("eye", EYE)):
            if any(name.startswith(f"{prefix}analysis/") for name in self._arrays):
                self._analysis(tune)

    def analysis(
        self, images: Sequence[np.ndarray], quality_index: int, threads: Threads = ONE_THREAD, tune: str = "psnr"
    ) -> list[Coefficients]:
        analysis = self._analysis(tune)
        return [analysis(image, quality_index, threads) for image in images]

    def levels(
        self, coefficients: Sequence[Coefficients], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[np.ndarray]:
        return [self.synthesis.levels(image, quality_index, threads) for image in coefficients]

    def pixels(
        self,
        coefficients: Sequence[Coefficients],
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> list[np.ndarray]:
        return [self.synthesis.pixels(image, quality_index, weights, threads) for image in coefficients]


def load_transforms(config: Config, arrays: Arrays, name: str = "", device: str = "cpu") -> Transforms:
    """Both transforms of a model.

    Args:
        config: sizes of the model.
        arrays: tensors of the model.
        name: name of the model, for messages.
        device: "cpu" for the native core; "gpu", or "tensorflow" for any device that TensorFlow finds.

    Raises:
        CodecError: `device` is "gpu" and TensorFlow finds none.
        ModelError: tensors are missing or do not fit.
        ValueError: `device` is unknown.
    """
    if device == "cpu":
        return NativeTransforms(config, arrays, name)
    if device in ("gpu", "tensorflow"):
        from vaecodec.transforms.tensorflow import TensorFlowTransforms  # takes seconds to import

        return TensorFlowTransforms(config, arrays, name, device)
    raise ValueError(f"device is {device!r}, expected 'cpu', 'gpu' or 'tensorflow'")
