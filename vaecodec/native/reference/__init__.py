"""The kernels of the native core in NumPy: short, readable, and normative beside docs/reference/format.md.

This module quantises and dequantises with a trellis, as src/trellis.h does (section "Values").
"""

from __future__ import annotations

import numpy as np

UNIT, SYMBOL_MAX = 64, (1 << 16) - 1
HALF_LEVEL = 45  # half the distance between levels of a quantiser, in units of 2**-6 steps
STRIP = 256  # coded symbols after which the state is 0 again
COSTS = 16  # magnitudes whose costs are stored; they go on as they rise at the end
OUTLIER = 2.5  # residuals of index 0 from which on a symbol is chosen
LARGE = np.float32(1 << 17)  # residual beyond which no symbol is larger
NEXT = np.array([[0, 1], [2, 3], [5, 4], [6, 7], [1, 0], [3, 2], [4, 5], [7, 6]])  # state by state and parity
# State t follows from state t // 2 by these candidates (quantiser 0 even, odd, quantiser 1 even, odd), or from state
# t // 2 + 4 by those.
BEFORE, FROM_LOW, FROM_HIGH = np.arange(8) // 2, np.array([0, 1, 2, 3, 1, 0, 2, 3]), np.array([1, 0, 3, 2, 0, 1, 3, 2])


def states(parities: np.ndarray) -> np.ndarray:
    """The state i64[n] before each of n coded symbols, from their parities."""
    strips = np.pad(parities, (0, -len(parities) % STRIP)).reshape(-1, STRIP)
    out, state = np.empty_like(strips), np.zeros(len(strips), np.int64)
    for i in range(STRIP):
        out[:, i] = state
        state = NEXT[state, strips[:, i]]
    return out.ravel()[: len(parities)]


def levels(magnitudes: np.ndarray, quantisers: np.ndarray, nudges: np.ndarray) -> np.ndarray:
    """Magnitudes i64[n] of values, from those of symbols and the centroids i[n, 4] of their tables."""
    nudge = np.take_along_axis(nudges, (2 * quantisers + (magnitudes > 1))[..., None], -1)[..., 0]
    result: np.ndarray = np.where(magnitudes > 0, HALF_LEVEL * (2 * magnitudes - quantisers) + nudge, 0)
    return result


def symbol_values(
    symbols: np.ndarray, indices: np.ndarray, loc: np.ndarray, centroids: np.ndarray, limit: int
) -> np.ndarray:
    magnitudes, coded = np.minimum(np.abs(symbols.astype(np.int64)), SYMBOL_MAX), np.flatnonzero(indices)
    sizes = UNIT * magnitudes
    quantisers = states(magnitudes[coded] % 2) % 2
    sizes[coded] = levels(magnitudes[coded], quantisers, centroids[indices[coded]].astype(np.int64))
    return np.clip(loc + np.sign(symbols) * sizes, -limit, limit).astype(np.int32)


def quantise(
    target: np.ndarray,
    indices: np.ndarray,
    loc: np.ndarray,
    centroids: np.ndarray,
    costs: np.ndarray,
    prices: np.ndarray | None = None,
) -> np.ndarray:
    residual = loc.astype(np.float32) * np.float32(-1 / UNIT) + target
    sizes = np.abs(residual)
    sizes = np.where(np.isnan(sizes), np.float32(0), np.minimum(sizes, LARGE))
    chosen = np.where(sizes >= OUTLIER, np.minimum(np.rint(sizes), SYMBOL_MAX), 0).astype(np.int32)
    coded = np.flatnonzero(indices)
    whole = len(coded) - len(coded) % STRIP
    for places in (coded[:whole].reshape(-1, STRIP), coded[whole:].reshape(1, -1)):
        if places.size:
            tables = indices[places]
            here = np.ones(places.shape, np.float32) if prices is None else prices[places]
            chosen[places] = trellis(sizes[places], here, centroids[tables].astype(np.int64), costs[tables])
    return np.where(residual < 0, -chosen, chosen)


def trellis(sizes: np.ndarray, prices: np.ndarray, nudges: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Magnitudes i64[strips, m] of least cost (Viterbi 1967), of residuals f32[strips, m] with their tables' rows.

    Costs count `prices` times, f32[strips, m].
    """
    (strips, count), choices = sizes.shape, list[np.ndarray]()
    candidate_costs = []
    for quantiser in (0, 1):
        offset = np.float32(quantiser * HALF_LEVEL / UNIT)
        k = np.minimum(((sizes + offset) * np.float32(UNIT / (2 * HALF_LEVEL))).astype(np.int64), SYMBOL_MAX - 1)
        even, odd = k + k % 2, k + 1 - k % 2
        of_even, of_odd = (_cost(sizes, magnitude, quantiser, nudges, costs, prices) for magnitude in (even, odd))
        of_zero = sizes * sizes + prices * costs[..., 0]
        choices += [np.where(of_zero < of_even, 0, even), odd]
        candidate_costs += [np.minimum(of_zero, of_even), of_odd]
    total = np.full((strips, 8), np.float32(1e30))
    total[:, 0] = 0
    from_high = np.empty((count, strips, 8), bool)
    for i in range(count):
        price = np.stack([column[:, i] for column in candidate_costs], -1)
        low, high = total[:, BEFORE] + price[:, FROM_LOW], total[:, BEFORE + 4] + price[:, FROM_HIGH]
        from_high[i], total = high < low, np.minimum(high, low)
    state, strip, out = total.argmin(1), np.arange(strips), np.empty((strips, count), np.int64)
    for i in range(count - 1, -1, -1):
        high = from_high[i, strip, state]
        candidate = np.where(high, FROM_HIGH[state], FROM_LOW[state])
        out[:, i] = np.stack([column[:, i] for column in choices])[candidate, strip]
        state = state // 2 + 4 * high
    return out


def _cost(
    sizes: np.ndarray, k: np.ndarray, quantiser: int, nudges: np.ndarray, costs: np.ndarray, prices: np.ndarray
) -> np.ndarray:
    """f32: squared error and cost of magnitudes; all operations in the order of the kernel."""
    error = sizes - levels(k, np.full_like(k, quantiser), nudges).astype(np.float32) * np.float32(1 / UNIT)
    last = COSTS - 1
    near = np.take_along_axis(costs, np.minimum(k, last)[..., None], -1)[..., 0]
    rise = costs[..., last] - costs[..., last - 1]
    far = costs[..., last] + (k - last).astype(np.float32) * rise
    return error * error + prices * np.where(k < COSTS, near, far)
