"""The sizes that define a model: plain numbers, no arrays, shared by training and deployment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

STRIDE = 16  # pixels per latent cell, each way

ANCHORS = 8  # qualities at which gains are learned; in between they are interpolated
SUBSTEPS = 128  # quality steps from one anchor to the next
STEPS = (ANCHORS - 1) * SUBSTEPS + 1  # quality steps in a file header: 0 .. 896
LEVEL_STEPS = 8  # the prior is conditioned on step // 8, so that its integer tables stay small
LEVELS = (STEPS - 1) // LEVEL_STEPS + 1

LAMBDA_MIN, LAMBDA_MAX = 0.0006, 0.18  # rate-distortion trade-off at the first and the last anchor

# The scale ladder, to sigma = 2200: row r stands for sigma = SCALE_MIN * SCALE_RATIO ** r, in quantisation steps.
SCALES = 96  # rungs of a model that is frozen now; what its tables have rows for counts
MAX_SCALES = 256  # so that a row is a byte
SCALE_MIN, SCALE_RATIO = 0.11, 1.11


WORTH = 0.13  # squared quantisation steps that a bit is worth where wavelet coefficients are rounded

PICTURE_CHANNELS = (1, 3)  # of models whose files are pictures: grey and RGB
MAX_CHANNELS = 16
CELL = STRIDE * STRIDE  # pixels of a cell
FILTER_REACH = 4  # samples that a picture's filter reaches beyond one

LIMITS = {"channels": (1, MAX_CHANNELS)}  # of fields that are not within 1..4096


@dataclass(frozen=True)
class Config:
    """Widths and depths of one model; two models with equal fields have the same architecture."""

    fine: int = 80  # width of the transforms at 1/8
    fine_blocks: int = 2
    coarse: int = 128  # width of the transforms at 1/16
    coarse_blocks: int = 2
    prior: int = 32  # width of the entropy network for the finest octave
    coarser: int = 96  # width of those for the other octaves
    hyper_width: int = 32  # width of the networks for the lowest coefficients
    channels: int = 3  # C, samples of a pixel: 1 grey, 3 RGB, else whatever they are

    def to_dict(self) -> dict[str, int]:
        """The fields as a JSON-ready mapping."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, int]) -> Config:
        """The inverse of to_dict; raises ValueError on a missing or unknown field, or one out of range."""
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(f"config has fields {sorted(values)}, expected {sorted(names)}")
        for name, value in values.items():
            low, high = LIMITS.get(name, (1, 4096))
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"config field {name} is {value!r}, expected an integer in {low}..{high}")
        return cls(**values)

    @property
    def latents(self) -> int:
        """M, channels of y at 1/16: a wavelet coefficient for each sample of a cell."""
        return CELL * self.channels

    def prior_of(self, octave: int) -> int:
        """Width of the network for one of the octaves, which are numbered from the finest."""
        return self.coarser if octave else self.prior

    @property
    def weighty(self) -> int:
        """Channels that lambda's mean is taken over: a sample of more than 3 weighs as much as one of a colour."""
        return min(self.channels, 3)

    def lambda_of_sum(self, step: int) -> float:
        """lambda_at, of the sum of squared errors over the channels of a pixel, not their mean."""
        return lambda_at(step) / self.weighty


def lambda_at(step: int) -> float:
    """Lambda of a quality step: bits a pixel that 255^2 * MSE, the squared error of a sample, is worth."""
    return LAMBDA_MIN * (LAMBDA_MAX / LAMBDA_MIN) ** (step / (STEPS - 1))


PRESETS = {
    "small": Config(),
    "base": Config(prior=80, coarser=128, hyper_width=64),  # the transforms of small: capacity counts in the prior
}


def without_retired_fields(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Config from those of a checkpoint that was written when there were other families of models.

    Such a checkpoint leaves `channels` out where it is 3.  Its fields `latents`, `hyper`, `lapped` and `wavelet` say
    which family it is of, and are dropped for wavelet models.  Raises ValueError on another family.
    """
    if "wavelet" not in values and "latents" not in values:
        return values
    found = {"channels": 3, **values}
    family = [found.pop(name, 0) for name in ("wavelet", "hyper", "lapped", "latents")]
    if family != [1, 0, 0, CELL * found["channels"]]:
        raise ValueError("the checkpoint is not of a wavelet model, and there are no others")
    return found
