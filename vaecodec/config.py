"""The sizes that define a model: plain numbers, no arrays, shared by training and deployment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

STRIDE = 16  # pixels per latent cell, each way
HYPER_STRIDE = 4  # latent cells per hyper-latent cell, each way

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

# Fields that came after the first models, and what those have.
LATER = {"lapped": 0, "channels": 3, "wavelet": 0, "coarser": 0}
# Of fields, where they are not (1, 4096).
LIMITS = {"lapped": (0, 1), "channels": (1, MAX_CHANNELS), "wavelet": (0, 1), "hyper": (0, 4096), "coarser": (0, 4096)}


@dataclass(frozen=True)
class Config:
    """Widths and depths of one model; two models with equal fields have the same architecture."""

    latents: int = 384  # M, channels of y at 1/16
    hyper: int = 48  # N, channels of z at 1/64
    fine: int = 80  # width of the transforms at 1/8
    fine_blocks: int = 2
    coarse: int = 128  # width of the transforms at 1/16
    coarse_blocks: int = 2
    prior: int = 128  # width of the entropy networks at 1/16, or of that for wavelets' finest octave
    hyper_width: int = 96  # width of the hyper-networks at 1/32, or of the network for wavelets' lowest octave
    lapped: int = 0  # 1: a lapped filter before the analysis and after the synthesis
    channels: int = 3  # C, samples of a pixel: 1 grey, 3 RGB, else whatever they are
    wavelet: int = 0  # 1: latents are 256 C wavelet coefficients, their prior goes from coarse to fine, without a z
    coarser: int = 0  # width of the networks for wavelets' other octaves

    def to_dict(self) -> dict[str, int]:
        """The fields as a JSON-ready mapping, without what LATER says of models from before it: they keep their ids."""
        return {name: value for name, value in asdict(self).items() if value != LATER.get(name)}

    @classmethod
    def from_dict(cls, values: dict[str, int]) -> Config:
        """The inverse of to_dict; raises ValueError on a missing or unknown field, or one out of range."""
        values = {**LATER, **values}
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise ValueError(f"config has fields {sorted(values)}, expected {sorted(names)}")
        for name, value in values.items():
            low, high = LIMITS.get(name, (1, 4096))
            if type(value) is not int or not low <= value <= high:
                raise ValueError(f"config field {name} is {value!r}, expected an integer in {low}..{high}")
        if values["latents"] % 2:
            raise ValueError("config field latents must be even: channels are coded in two halves")
        if values["latents"] > CELL * values["channels"]:
            most = f"{CELL * values['channels']}, the samples of a cell of {values['channels']} channels"
            raise ValueError(f"config field latents is {values['latents']}, expected at most {most}")
        if values["wavelet"] and (values["latents"] < CELL * values["channels"] or values["lapped"]):
            raise ValueError("config field wavelet goes with as many latents as samples, and no lapped filter")
        if (values["hyper"] == 0) != values["wavelet"]:
            raise ValueError("config field hyper is 0 where field wavelet is 1, and nowhere else")
        if (values["coarser"] > 0) != values["wavelet"]:
            raise ValueError("config field coarser goes with field wavelet, and is 0 elsewhere")
        return cls(**values)

    def prior_of(self, octave: int) -> int:
        """Width of the network for one of wavelets' octaves, which are numbered from the finest."""
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
    "small": Config(768, 0, prior=32, hyper_width=32, wavelet=1, coarser=96),
    "lapped": Config(lapped=1),
    "base": Config(768, 0, 160, 4, 256, 4, prior=80, hyper_width=64, wavelet=1, coarser=128),
}
