"""A VAE to sample from: its sizes and its architecture, written once over an arithmetic (as `network` is).

    x --encoder--> posterior Normal(mean, scale)      z ~ Normal(0, 1)
    z --decoder--> features --likelihood, four phases--> x

Pixels are coded in four phases, the corners of each 2x2 square: a phase sees the latent and the phases before it, so
that the latent is left with what a picture is of, and neighbours with what lies between them.

Letters: S side of a picture in pixels; L latents; C width; F width at S/2; K numbers that choose a density.
Arrays are [B, h, w, channels]; `ops` is grids.Quantised in training, grids.Exact in use, grids.Shapes for neither.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

from vaecodec.config import Config

Array = Any

PHASES = 4
ORDER = (0, 3, 1, 2)  # of the corners, which unshuffle numbers by rows: top left first, then bottom right
LATENT_BITS = 8  # latents enter the decoder in units of 2**-8: an activation unit, four times enlarged
VALUES = 255  # of a pixel that is not 0


@dataclass(frozen=True)
class Generative:
    """Widths and depths of one model; two models with equal fields have the same architecture."""

    kind: ClassVar[str] = "generative"  # in what to_dict makes, and in no other architecture's

    side: int = 28  # S, a multiple of 4
    latents: int = 32  # L
    width: int = 56  # C, at S/4
    blocks: int = 2
    squeezed: int = 8  # channels at S/4 on the way to the latents
    expanded: int = 12  # and from them
    fine: int = 32  # F, at S/2
    natural: int = 6  # K

    def to_dict(self) -> dict[str, Any]:
        """The kind and the fields as a JSON-ready mapping."""
        return {"kind": self.kind, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Generative:
        """The inverse of to_dict; raises ValueError on a missing, unknown or non-positive field."""
        names = {field.name for field in fields(cls)}
        if set(values) != names | {"kind"} or values["kind"] != cls.kind:
            raise ValueError(f"config has fields {sorted(values)}, expected kind {cls.kind} and {sorted(names)}")
        values = {name: value for name, value in values.items() if name != "kind"}
        for name, value in values.items():
            if type(value) is not int or not 1 <= value <= 1024:
                raise ValueError(f"config field {name} is {value!r}, expected an integer in 1..1024")
        if values["side"] % 4 or values["side"] > 64:
            raise ValueError(f"config field side is {values['side']}, expected a multiple of 4 up to 64")
        return cls(**values)

    @property
    def cells(self) -> int:
        """S/4."""
        return self.side // 4


GENERATIVE = {"digits": Generative()}


def residual(ops: Any, name: str, x: Array, everywhere: bool) -> Array:
    """[B, h, w, C] -> the same: what a cell adds to itself from its 3x3 neighbours, or from `everywhere`.

    The latter is one linear layer from cells to cells, the same for all channels (Tolstikhin et al. 2021, section 2):
    a single latent moves a whole figure.
    """
    channels = ops.channels(x)
    t = ops.dense(f"{name}/in", x, channels, relu=True)
    t = ops.mix(f"{name}/cells", t) if everywhere else ops.depthwise(f"{name}/space", t)
    return ops.add(x, ops.dense(f"{name}/out", t, channels, small=True))


def encoder(ops: Any, config: Generative, x: Array) -> Array:
    """x [B, S, S, 1] in units of 2**-6 -> [B, 1, 1, 2L]: means of z, then logarithms of its scales."""
    t = ops.dense("encoder/in", ops.unshuffle(x, 4), config.width)
    for n in range(config.blocks):
        t = residual(ops, f"encoder/block{n}", t, n % 2 == 1)
    t = ops.dense("encoder/squeeze", t, config.squeezed, relu=True)
    return ops.dense("encoder/out", ops.flatten(t), 2 * config.latents, small=True)


def decoder(ops: Any, config: Generative, z: Array) -> Array:
    """z [B, 1, 1, L] -> features [B, S/2, S/2, F]."""
    t = ops.dense("decoder/in", z, config.expanded * config.cells**2)
    t = ops.dense("decoder/expand", ops.unflatten(t, config.cells), config.width)
    for n in range(config.blocks):
        t = residual(ops, f"decoder/block{n}", t, n % 2 == 0)
    return ops.shuffle(ops.dense("decoder/out", t, 4 * config.fine), 2)


def phase(ops: Any, config: Generative, number: int, features: Array, before: Array | None) -> Array:
    """Parameters [B, S/2, S/2, 1 + K] of the pixels of a phase.

    `before` [B, S/2, S/2, n] are the pixels of the phases before it, in units of 2**-6.
    """
    name, t = f"phase{number}", features
    if before is not None:
        t = ops.concat(t, ops.neighbours(before))
    t = ops.dense(f"{name}/in", t, config.fine, relu=True)
    t = ops.dense(f"{name}/middle", t, config.fine, relu=True)
    return ops.dense(f"{name}/out", t, 1 + config.natural, small=True)


def read_config(values: dict[str, Any]) -> Config | Generative:
    """An architecture of either kind from its fields; raises ValueError."""
    return Generative.from_dict(values) if values.get("kind") == Generative.kind else Config.from_dict(values)
