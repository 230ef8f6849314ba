"""Define the sizes of models: plain numbers, no arrays, shared by training and deployment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

STRIDE = 16  # pixels per latent cell, each way

ANCHORS = 8  # qualities at which gains are learned; in between they are interpolated
INDICES_PER_ANCHOR = 128  # quality indices from one anchor to the next
LAST_ANCHOR = (ANCHORS - 1) * INDICES_PER_ANCHOR  # quality index of the last anchor
QUALITY_INDICES = LAST_ANCHOR + 337  # in a file header: 0..1232; beyond the last anchor only steps become smaller
FINER = 19  # base-2 logarithm, unit 2**-12, by which a step becomes smaller with each of these indices
MAX_TILT = 7  # of steps by octave, in a file header
TILT = 256  # base-2 logarithm, unit 2**-12, by which a unit of tilt changes the step of octave o, times (2 - o)
INDICES_PER_LEVEL = 8  # the prior is conditioned on index // 8, so that its integer tables stay small
LEVELS = LAST_ANCHOR // INDICES_PER_LEVEL + 1

# Quality, and its quality index; linear in between.  SSIMULACRA2 on held-out images: about 60 at quality 50, 80 at 75,
# 90 (invisible) at 90.
QUALITY_SCALE = ((1, 0), (50, 512), (75, 776), (90, 1048), (100, QUALITY_INDICES - 1))
# With a tilt a quality has a higher index, by tilt * (first + second * index), fitted on training images.
TILTED_SCALE = (8 / 3, 0.01)

LAMBDA_MIN, LAMBDA_MAX = 0.0006, 0.18  # rate-distortion trade-off at the first and the last anchor

# The scale ladder, to sigma = 2200: scale index r is sigma = SCALE_MIN * SCALE_RATIO ** r, in quantisation steps.
SCALES = 96  # scale indices of a model frozen by this version; a model file has its own number
MAX_SCALES = 256  # so that a scale index is a byte
SCALE_MIN, SCALE_RATIO = 0.11, 1.11


SQUARED_STEPS_PER_BIT = 0.13  # price of a bit where wavelet coefficients are rounded, in squared quantisation steps

IMAGE_CHANNELS = (1, 3)  # of models for images: grey and RGB
MAX_CHANNELS = 16
FINE_MAX = 255 << 6  # white in 1/64 of a step of 8 bits, of which decoders make samples of more than 8 bits
CELL = STRIDE * STRIDE  # pixels of a cell
FILTER_REACH = 4  # samples that the restoration filter reaches to each side

LIMITS = {"channels": (1, MAX_CHANNELS), "analysis_blocks": (0, 64)}  # of fields that are not within 1..4096


@dataclass(frozen=True)
class Config:
    """Widths and depths of one model: models with equal fields have the same architecture."""

    fine: int = 80  # width of the transforms at 1/8
    fine_blocks: int = 2
    coarse: int = 128  # width of the transforms at 1/16
    coarse_blocks: int = 2
    prior: int = 32  # width of the entropy network for the finest octave
    coarser: int = 96  # width of those for the other octaves
    hyper_width: int = 32  # width of the networks for the lowest coefficients
    channels: int = 3  # C, samples of a pixel: 1 grey, 3 RGB, 2 and 4 to 16 any
    # Blocks of the analysis at either resolution, where it has more than the synthesis.  Training needs the number; a
    # model file leaves it out, since its tensors say so and decoders need no analysis.
    analysis_blocks: int = 0

    def to_dict(self) -> dict[str, int]:
        """The fields as a JSON-ready mapping; without `analysis_blocks` where it is 0."""
        values = asdict(self)
        if not self.analysis_blocks:
            del values["analysis_blocks"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, int]) -> Config:
        """The inverse of to_dict; raises ValueError on a missing or unknown field, or one out of range."""
        names = {field.name for field in fields(cls)}
        if set(values) | {"analysis_blocks"} != names:
            raise ValueError(f"config has fields {sorted(values)}, expected {sorted(names)}")
        for name, value in values.items():
            low, high = LIMITS.get(name, (1, 4096))
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"config field {name} is {value!r}, expected an integer in {low}..{high}")
        return cls(**values)

    @property
    def of_decoders(self) -> Config:
        """The fields that decoders know."""
        return replace(self, analysis_blocks=0)

    @property
    def of_analysis(self) -> Config:
        """The sizes of the analysis: its numbers of blocks may be larger than those of the synthesis."""
        fine, coarse = (max(blocks, self.analysis_blocks) for blocks in (self.fine_blocks, self.coarse_blocks))
        return replace(self, fine_blocks=fine, coarse_blocks=coarse)

    @property
    def latents(self) -> int:
        """M, the number of latents of a cell: a wavelet coefficient for each of its samples."""
        return CELL * self.channels

    def prior_of(self, octave: int) -> int:
        """Width of the entropy network of an octave; 0 is the finest."""
        return self.coarser if octave else self.prior

    @property
    def lambda_channels(self) -> int:
        """Channels that lambda averages over: a sample of more than 3 channels weighs as much as one of a colour."""
        return min(self.channels, 3)

    def lambda_of_sum(self, quality_index: int) -> float:
        """lambda_at for the sum of squared errors over the channels of a pixel, not their mean."""
        return lambda_at(quality_index) / self.lambda_channels


def lambda_at(quality_index: int) -> float:
    """Lambda, in bits a pixel: the rate-distortion trade-off against 255^2 * MSE, the squared error of a sample."""
    return float(LAMBDA_MIN * (LAMBDA_MAX / LAMBDA_MIN) ** (quality_index / LAST_ANCHOR))


PRESETS = {
    "small": Config(),
    "base": Config(prior=80, coarser=128, hyper_width=64),  # transforms of small: capacity pays in the prior
}


def without_retired_fields(values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Config from those of a checkpoint of the first format, which had several families of models.

    Such a checkpoint leaves `channels` out where it is 3.  Its fields `latents`, `hyper`, `lapped` and `wavelet` name
    the family, and are dropped for wavelet models.  Raises ValueError on another family.
    """
    if "wavelet" not in values and "latents" not in values:
        return values
    kept = {"channels": 3, **values}
    family = [kept.pop(name, 0) for name in ("wavelet", "hyper", "lapped", "latents")]
    if family != [1, 0, 0, CELL * kept["channels"]]:
        raise ValueError("the checkpoint is not of a wavelet model, the only family that is supported")
    return kept
