"""Generative VAE -> frozen model: its networks as integers, and what is not a power of two as tables."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from vaecodec.entropy.tables import PRECISION, TOTAL
from vaecodec.model.discrete import (
    COUNT,
    EDGE_BITS,
    EXP_BITS,
    EXP_ENTRIES,
    INVERSE_BITS,
    KNOT_BITS,
    ODDS_MAX,
    REACH,
    RUNGS,
    SHAPES,
    Tables,
)
from vaecodec.model.generative import LATENT_BITS, Generative
from vaecodec.model.generator import KINDS
from vaecodec.training.densities import tfd
from vaecodec.training.freezing import Arrays, fixed_point
from vaecodec.transforms.integer import ACTIVATION_BITS, ACTIVATION_MAX


def discrete_tables() -> Tables:
    """The tables of `discrete`, which are the same for all models."""
    normal = tfd.Normal(tf.zeros([], tf.float64), tf.ones([], tf.float64))
    edges = normal.quantile(np.arange(1, COUNT) / COUNT).numpy() * 2**EDGE_BITS
    centres = normal.quantile((np.arange(COUNT) + 0.5) / COUNT).numpy() * 2**LATENT_BITS
    knots = np.arange(-REACH * 2**KNOT_BITS, REACH * 2**KNOT_BITS + 1) / 2**KNOT_BITS
    cumulative = normal.cdf(knots).numpy() * TOTAL
    cumulative[[0, -1]] = 0, TOTAL
    inverse = 2.0 ** (INVERSE_BITS + 6 - np.arange(RUNGS) / 2**ACTIVATION_BITS)
    odds = 2.0 ** (np.arange(-ODDS_MAX, ODDS_MAX + 1) / 2**ACTIVATION_BITS)
    ink = np.clip(np.rint(TOTAL * odds / (1 + odds)), 1, TOTAL - 1)
    exp = 2.0 ** (PRECISION - np.arange(EXP_ENTRIES) / 2**EXP_BITS)
    found = (edges, np.clip(centres, -ACTIVATION_MAX, ACTIVATION_MAX), cumulative, inverse, ink, exp)
    return Tables(*(np.rint(one).astype(kind).reshape(s) for one, kind, s in zip(found, KINDS, SHAPES, strict=True)))


def arrays(config: Generative, weights: Arrays) -> Arrays:
    """The tensors of a model file; raises CodecError on a weight beyond fixed point."""
    out = {f"integer/{name}": fixed_point(name, value) for name, value in weights.items()}
    return {**out, **{f"discrete/{name}": table for name, table in discrete_tables()._asdict().items()}}
