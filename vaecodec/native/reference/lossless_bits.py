"""Define the decisions of the lossless coder: context mixing, and a binary range coder.

All arithmetic is of integers; `>>` rounds towards minus infinity.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import lru_cache

import numpy as np

RATE, COUNT_MAX, WEIGHT_MAX = 20, 250, 1 << 20
FIRST_WEIGHT, CLASSES, SIDES = 7000, 24, 81
SHAPES = 0, 4, 5, 6, 9, 10, 11  # by level
DEEP_WEIGHTS = 4300, 8000, 3500  # of counters at levels above 0, of shapes, and of shapes at levels above 3
HALVES = 64  # first of the nodes for the halves of buckets, at levels above 3
MAP_POINTS, MAP_RATE = 33, 12
DECAY = 4593706758521714574  # exp(-1/256) * 2^62


@lru_cache(maxsize=1)
def tables() -> np.ndarray:
    """u16[20992]: squash, stretch (i16), rates of counters, reciprocals, softplus, gaps, and trust in counters.

    squash: 65536 / (1 + exp(-x / 256)) for x = -3072..3071, within 16..65520.  stretch: 256 ln(p / (1 - p)) of
    p = (n + 1/2) / 4096, rounded up in magnitude.  rates: 65536 / (n + 1.6), n < 256.  reciprocals: 65536 / n,
    n < 4096, at most 65535.  softplus: 256 ln(1 + exp(-x / 256)), x < 3072, rounded.  gaps: -256 ln(1 - exp(-x / 256)),
    x < 3072, rounded; at 0 as at 1.  trust: 256 (2 n + 1) / (2 n + 4), n < 256.
    """
    unit = 1 << 62
    powers = [unit]  # exp(-n / 256)
    while len(powers) <= 3072:
        powers.append(powers[-1] * DECAY >> 62)
    upper = [((65536 * unit * 2) // (unit + power) + 1) >> 1 for power in powers]
    squash = [65536 - upper[-x] if x < 0 else upper[x] for x in range(-3072, 3072)]
    falling = -np.array(powers)
    odds = [-((8191 - 2 * n) * unit // (2 * n + 1)) for n in range(2048, 4096)]
    half = np.searchsorted(falling, odds)  # the number of powers above
    stretch = np.concatenate((-half[::-1], half)).astype(np.int16).view(np.uint16)
    rates = [655360 // (10 * n + 16) for n in range(256)]
    reciprocals = [65535, 65535, *(65536 // n for n in range(2, 4096))]
    # None of these is closer than 10^-5 to where its rounding changes, so that double precision does.
    softplus = [round(256 * math.log1p(math.exp(-x / 256))) for x in range(3072)]
    gaps = [round(-256 * math.log(-math.expm1(-max(x, 1) / 256))) for x in range(3072)]
    trust = [256 * (2 * n + 1) // (2 * n + 4) for n in range(256)]
    parts = (np.clip(squash, 16, 65520), stretch, rates, reciprocals, softplus, gaps, trust)
    return np.concatenate(parts).astype(np.uint16)


def clip(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


class Tables:
    """The parts of `tables` as lists."""

    def __init__(self) -> None:
        parts = np.split(tables(), (6144, 10240, 10496, 14592, 17664, 20736))
        self.stretch = parts.pop(1).view(np.int16).tolist()
        self.squash, self.rates, self.reciprocals, self.softplus, self.gaps, self.trust = (p.tolist() for p in parts)


class Shape:
    """A logistic distribution around a prediction, which gives the odds of decisions."""

    def __init__(self, tables: Tables, centre: int, deviation: list[int], step: int) -> None:
        self._tables, self._centre, self._step = tables, centre, step  # centre in 1/64, relative to the prediction
        self._inverse = 27962027 // (deviation[0] + 341)

    def _place(self, distance: int) -> int:
        return clip(distance * self._inverse >> 10, -1 << 20, 1 << 20)

    def _softplus(self, x: int) -> int:
        return (self._tables.softplus[abs(x)] if abs(x) < 3072 else 0) - min(x, 0)

    def _gap(self, x: int) -> int:
        return x - self._tables.gaps[x] if x < 3072 else x

    def odds(self, node: int) -> int:
        """The logarithm of the odds of a decision, in 1/256, within 2047."""
        if node >= HALVES:
            bucket, centre = (node - HALVES) >> 1, -self._centre if node & 1 else self._centre
            start, size = (2 + (bucket & 1)) << (bucket >> 1), 1 << (bucket >> 1)
            points = (64 * start, 64 * start + 32 * size, 64 * (start + size))
            near, middle, far = (self._place((point - 96) * self._step - centre) for point in points)
            upper = middle + self._gap(far - middle) - self._softplus(-far)
            odds = upper - near - self._gap(middle - near) + self._softplus(-near)
        elif node < 2:
            low, high = (self._place(side * self._step - self._centre) for side in (-32, 32))
            upper, lower = self._softplus(low), self._softplus(-high)
            odds = lower - upper if node else self._gap(high - low) - upper - self._softplus(upper - lower)
        else:
            bucket, centre = (node - 2) >> 1, -self._centre if node & 1 else self._centre
            starts = [(2 + (n & 1)) << (n >> 1) for n in (bucket, bucket + 1)]
            near, far = (self._place((64 * start - 96) * self._step - centre) for start in starts)
            odds = self._softplus(near) - self._gap(far - near)
        return clip(odds, -2047, 2047)


class Bits:
    """A binary range coder of 32 bits, with adaptive mixing of probabilities; it decodes where there is `data`."""

    def __init__(self, level: int) -> None:
        weights = [FIRST_WEIGHT] * 7 + [0]
        if level:
            weights = [DEEP_WEIGHTS[0]] * 7 + [0] + [DEEP_WEIGHTS[1 + (level > 3)]] * SHAPES[level]
        self.shapes: list[Shape] = []
        self.sides: int | None = None  # the class of the third mixer, at levels above 0
        self.height: int | None = None  # the class of the fourth mixer, at levels above 3
        self.map_sides = 0  # the class of the maps, at levels above 3
        self.low, self.high, self.code, self.position = 0, 0xFFFFFFFF, 0, 0
        self.data: bytes | None = None
        self.out = bytearray()
        self.counters: dict[tuple[int, int], int] = defaultdict(lambda: 1 << 31)  # 22 bits of probability, 10 of count
        self.mixers: dict[tuple[int, int], list[int]] = defaultdict(weights.copy)
        self.raw: dict[tuple[int, int, int], int] = defaultdict(lambda: 32768)
        self.maps: dict[tuple[int, int], list[int]] = defaultdict(
            lambda: [self.squash(clip(128 * n - 2048, -2047, 2047)) for n in range(MAP_POINTS)]
        )
        self.contexts: list[int] = []
        self.error_class = 0
        self.tables = Tables()

    def read(self) -> int:
        """The next byte; zeros follow the stream."""
        assert self.data is not None
        self.position += 1
        return self.data[self.position - 1] if self.position <= len(self.data) else 0

    def code_bit(self, bit: bool, probability: int) -> bool:
        """Code a decision that is true with a probability in 1/65536."""
        middle = self.low + ((self.high - self.low) * probability >> 16)
        if self.data is not None:
            bit = self.code <= middle
        self.low, self.high = (self.low, middle) if bit else (middle + 1, self.high)
        while (self.low ^ self.high) >> 24 == 0:
            if self.data is None:
                self.out.append(self.high >> 24)
            else:
                self.code = (self.code << 8 | self.read()) & 0xFFFFFFFF
            self.low, self.high = self.low << 8 & 0xFFFFFFFF, (self.high << 8 | 255) & 0xFFFFFFFF
        return bit

    def squash(self, x: int) -> int:
        return int(self.tables.squash[clip(x, -3072, 3071) + 3072])

    def decide(self, node: int, bit: bool) -> bool:
        """Code a decision with the probability mixed from the contexts' counters, and learn from it."""
        places = [(context, node) for context in self.contexts]
        counters = [self.counters[place] for place in places]
        counters = [counter if counter & 1023 else counters[0] & ~1023 for counter in counters]  # new: as the first
        inputs = [self.tables.stretch[counter >> 20] for counter in counters] + [256]
        mixers = [self.mixers[-1, node], self.mixers[self.error_class, node]]
        if self.sides is not None:
            for n, counter in enumerate(counters):
                inputs[n] = inputs[n] * self.tables.trust[counter & 1023] >> 8
            inputs += [shape.odds(node) for shape in self.shapes]
            mixers.append(self.mixers[CLASSES + self.sides, node])
        if self.height is not None:
            mixers.append(self.mixers[CLASSES + SIDES + self.height, node])
        sums = [sum((w >> 4) * x for w, x in zip(mixer, inputs, strict=True)) >> 12 for mixer in mixers]
        if len(sums) == 4:
            bit = self.code_mapped(node, bit, sum(sums) >> 2)
        else:
            bit = self.code_bit(bit, self.squash(sum(sums) * 21846 >> 16 if len(sums) == 3 else sum(sums) >> 1))
        for mixer, total in zip(mixers, sums, strict=True):
            error = ((bit << 16) - self.squash(total)) * RATE >> 10
            mixer[:] = [
                clip(w + ((x * error + 512) >> 10), -WEIGHT_MAX, WEIGHT_MAX) for w, x in zip(mixer, inputs, strict=True)
            ]
        target = (1 << 22) - 1 if bit else 0
        for place, counter in zip(places, counters, strict=True):
            count, p = counter & 1023, counter >> 10
            p += ((target - p) >> 7) * self.tables.rates[count] >> 9
            self.counters[place] = p << 10 | (count + (count < COUNT_MAX))
        return bit

    def code_mapped(self, node: int, bit: bool, odds: int) -> bool:
        """Code a decision with the mean of the probability of `odds` and of what a map has learned for them."""
        values, place = self.maps[self.map_sides, node], clip(odds, -2047, 2047) + 2048
        n, rest = place >> 7, place & 127
        mapped = (values[n] * (128 - rest) + values[n + 1] * rest) >> 7
        bit = self.code_bit(bit, clip((self.squash(odds) + mapped) >> 1, 16, 65520))
        n += rest >= 64
        values[n] += ((65535 if bit else 0) - values[n]) * MAP_RATE >> 10
        return bit

    def residual(self, depth: int, residual: int) -> int:
        """Code a residual: zero or not, the sign, the bucket in unary, and the bits within it.

        Bucket n holds magnitudes from ((2 + n % 2) << n // 2) - 1.  Above level 3 the first of its
        bits is a decision.
        """
        if self.decide(0, residual == 0):
            return 0
        negative = self.decide(1, residual < 0)
        magnitude, bucket = abs(residual) + 1, 0
        starts = [(2 + (n & 1)) << (n >> 1) for n in range(2 * depth)]
        while bucket < 2 * (depth - 1) and self.decide(2 + 2 * bucket + negative, magnitude >= starts[bucket + 1]):
            bucket += 1
        bits, rest = bucket >> 1, 0
        for n in range(bits):
            bit = bool((magnitude - starts[bucket]) >> (bits - 1 - n) & 1)
            if self.height is not None and not n:
                bit = self.decide(HALVES + 2 * bucket + negative, bit)
            else:
                place = 2 * bucket + negative, self.error_class & 15, (0, 1 + rest)[n] if n < 2 else n + 1
                p = self.raw[place]
                bit = self.code_bit(bit, clip(p, 64, 65472))
                self.raw[place] = p + ((65535 * bit - p) >> 6)
            rest = 2 * rest + bit
        return 1 - starts[bucket] - rest if negative else starts[bucket] + rest - 1
