"""New pictures from a generative model: drawn from its prior, near a picture, or between two.

Everything goes through the exact networks, so a seed gives the same picture on every machine.
"""

from __future__ import annotations

import numpy as np

from vaecodec.entropy.tables import TOTAL
from vaecodec.generative import bitsback
from vaecodec.model import discrete
from vaecodec.model.generator import Generator
from vaecodec.transforms.integer import ACTIVATION_MAX

BATCH = 256
UNIT = 2.0**8  # latents are activations in units of 2**-8


def drawn(rng: np.random.Generator) -> bitsback.Draw:
    """Symbols at random, each from its own frequencies."""

    def draw(freq: np.ndarray) -> np.ndarray:
        place = rng.integers(TOTAL, size=(len(freq), 1))
        return (np.cumsum(freq, 1) <= place).sum(1).astype(np.int32)

    return draw


def likely(freq: np.ndarray) -> np.ndarray:
    """The median of each: at least half of the mass lies on either side."""
    return (np.cumsum(freq, 1) < TOTAL // 2).sum(1).astype(np.int32)


def render(model: Generator, z: np.ndarray, seed: int | None = None) -> np.ndarray:
    """z f[N, L] (N(0, 1) is the prior) -> u8[N, S, S]: pixels at their medians, or drawn where there is a seed."""
    codes = np.clip(np.rint(z * UNIT), -ACTIVATION_MAX, ACTIVATION_MAX).astype(np.float32)
    answer = likely if seed is None else drawn(np.random.default_rng([seed, 1]))
    parts = [codes[at : at + BATCH] for at in range(0, len(codes), BATCH)]
    return np.concatenate([bitsback.drive(bitsback.walk(model, part), answer) for part in parts])


def means(model: Generator, pictures: np.ndarray) -> np.ndarray:
    """z f64[N, L]: the middle of q(z | x) for u8[N, S, S]; raises CodecError on another shape."""
    bitsback.check(model, pictures)
    return bitsback.encoded(model, pictures)[0] / UNIT


def sample(model: Generator, n: int, seed: int = 0, noisy: bool = False) -> np.ndarray:
    """u8[n, S, S] with z drawn from the prior; `noisy` draws pixels too, where else they are at their medians."""
    z = np.random.default_rng(seed).standard_normal((n, model.config.latents))
    return render(model, z, seed if noisy else None)


def vary(model: Generator, picture: np.ndarray, strength: float, n: int, seed: int = 0) -> np.ndarray:
    """u8[n, S, S] around u8[S, S]: z goes sqrt(1 - s^2) of its way and s of a random one, so s = 1 draws anew."""
    z = means(model, picture[None])
    noise = np.random.default_rng(seed).standard_normal((n, model.config.latents))
    return render(model, np.sqrt(1 - strength**2) * z + strength * noise)


def interpolate(model: Generator, first: np.ndarray, last: np.ndarray, n: int) -> np.ndarray:
    """u8[n, S, S] from u8[S, S] to u8[S, S], along the arc between their z (White 2016, section 2.1)."""
    a, b = means(model, np.stack([first, last]))
    cosine = np.clip(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12), -1, 1)
    angle = np.arccos(cosine)
    t = np.linspace(0, 1, n)[:, None]
    if np.sin(angle) < 1e-6:
        return render(model, (1 - t) * a + t * b)
    return render(model, (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle))


def bits(model: Generator, pictures: np.ndarray, draws: int = 4, seed: int = 0) -> np.ndarray:
    """f64[N]: bits of -ELBO for u8[N, S, S], over `draws` latents of q(z | x) each; what bits-back coding costs."""
    bitsback.check(model, pictures)
    out = []
    for at in range(0, len(pictures), BATCH // 4):
        batch = pictures[at : at + BATCH // 4]
        rng = np.random.default_rng([seed, at])
        out.append(np.mean([_bits(model, batch, drawn(rng)) for _ in range(draws)], 0))
    return np.concatenate(out)


def _bits(model: Generator, pictures: np.ndarray, draw: bitsback.Draw) -> np.ndarray:
    freq = bitsback.posterior(model, pictures)
    bins = draw(freq)
    count = len(pictures)
    total = discrete.BINS * model.config.latents - _information(bins, freq).reshape(count, -1).sum(1)
    parts = bitsback.likelihoods(model, pictures, bitsback.latents(model, bins))
    for (inked, ink), (values, freq) in zip(parts[::2], parts[1::2], strict=True):
        total += _information(inked, ink).reshape(count, -1).sum(1)
        owner = np.flatnonzero(inked) // (len(inked) // count)
        total += np.bincount(owner, _information(values, freq), count)
    return total


def _information(symbols: np.ndarray, freq: np.ndarray) -> np.ndarray:
    """f64[n]: bits that each symbol is worth."""
    return np.log2(TOTAL) - np.log2(freq[np.arange(len(freq)), symbols])
