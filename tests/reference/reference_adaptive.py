"""A second decoder of the adaptive coding, written from docs/reference/adaptive-coding.md alone.

Names of one letter, and numbers of sections, are those of the document. It shares no code with the package.
"""

import math
import struct
import zlib
from collections import defaultdict

import numpy as np

ITSELF = [(-1, 0), (-2, 0), (-3, 0), (-1, -1), (1, -1), (0, -2), (2, -1), (-2, -1), (-1, -2), (1, -2), (2, -2)]
ITSELF += [(-2, -2), (0, -3), (3, -1), (-3, -1), (-1, -3), (1, -3), (-4, -1), (4, -1)]
OTHERS = [(0, 0), (-1, 0), (1, 0), (-1, -1), (1, -1), (-2, 0), (2, 0)]
COUNTS = {0: (19,), 1: (12, 7), 2: (8, 6, 5)}


def require(condition, message):
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def clip(x, low, high=None):
    """Clip to low..high, or to +-low."""
    low, high = (-low, low) if high is None else (low, high)
    return min(max(x, low), high)


def log4(n):
    """Section 3."""
    if n == 0:
        return 0
    e = n.bit_length() - 1
    return 4 * e + ((4 * n >> e) % 4) + 1


def nine(d):
    """Section 3."""
    reached = sum(limit <= abs(d) for limit in (2, 6, 14, 32))
    return 4 + reached if d >= 0 else 4 - reached


def reciprocal(n):
    """Section 4."""
    return min(65536 // n, 65535)


SOFTPLUS = [math.floor(256 * math.log1p(math.exp(-x / 256)) + 0.5) for x in range(3072)]
GAP = [math.floor(-256 * math.log(-math.expm1(-max(x, 1) / 256)) + 0.5) for x in range(3072)]
WINDOWS = {0: [(2, 4)], 1: [(2, 4)], 2: [(1, 6), (3, 1)], 3: [(1, 6), (2, 4), (4, 1)]}
WINDOWS |= {3 + count: WINDOWS[count] for count in (1, 2, 3)}


def softplus(x):
    """Section 8."""
    return (SOFTPLUS[abs(x)] if abs(x) < 3072 else 0) - min(x, 0)


def gap(x):
    """Section 8."""
    return x - GAP[x] if x < 3072 else x


def first_deviation(n):
    """Section 8: what the errors of class n are about."""
    return 819 if n == 0 else 819 + (128 * (4 + (n - 1) % 4) << min((n - 1) >> 2, 18))


def shape_input(node, centre, m, step):
    """Section 8: the input of a shape to the decision of a node."""
    inverse = 27962027 // (m + 341)

    def place(d):
        return clip(d * inverse >> 10, 2**20)

    if isinstance(node, tuple):  # section 9
        _, bucket, negative = node
        centre, start, size = -centre if negative else centre, (2 + bucket % 2) << (bucket >> 1), 1 << (bucket >> 1)
        ends = (64 * start, 64 * start + 32 * size, 64 * start + 64 * size)
        i, j, k = (place((end - 96) * step - centre) for end in ends)
        value = j + gap(k - j) - softplus(-k) - (i + gap(j - i) - softplus(-i))
    elif node < 2:
        low, high = place(-32 * step - centre), place(32 * step - centre)
        i, j = softplus(low), softplus(-high)
        value = j - i if node == 1 else gap(high - low) - i - softplus(i - j)
    else:
        bucket, centre = (node - 2) >> 1, -centre if node % 2 else centre
        near, far = (place((64 * ((2 + n % 2) << (n >> 1)) - 96) * step - centre) for n in (bucket, bucket + 1))
        value = softplus(near) - gap(far - near)
    return clip(value, 2047)


def squash_at(x):
    """Section 6, for x in -3072..3071."""
    return clip(math.floor(65536 / (1 + math.exp(-x / 256)) + 0.5), 16, 65520)


def stretch_at(n):
    """Section 6."""
    value = 256 * math.log((2 * n + 1) / (8191 - 2 * n))
    return math.ceil(value) if value > 0 else math.floor(value)


SQUASH = [squash_at(x) for x in range(-3072, 3072)]
STRETCH = [stretch_at(n) for n in range(4096)]


def squash(x):
    """Section 6."""
    return SQUASH[clip(x, -3072, 3071) + 3072]


def mul(a, b):
    """Section 7: products of the lower 32 bits."""
    return a.astype(np.int32).astype(np.int64) * b.astype(np.int32).astype(np.int64)


def bits(values):
    """Section 1, of an array."""
    return np.array([int(value).bit_length() for value in values], np.int64)


def weights_of(a):
    """Section 7: the weights i64[blocks, 19] of least squares problems i64[20, 20, blocks]."""
    shift = 54 - bits(np.max([a[i, i] for i in range(20)], axis=0) + 200)
    ridge, t = 200 << shift, a << shift
    g, half, inverse = np.zeros_like(a), {}, {}
    for j in range(19):
        pivot = np.clip(t[j, j] + ridge, ridge >> 6, 2**54)
        half[j] = (62 - bits(pivot)) >> 1
        v = (pivot << (2 * half[j])) >> 31
        root = 1148903751 - (v * 644245094 >> 31)
        for _ in range(3):
            root = root * (3 * 2**28 - ((root * root >> 30) * v >> 31)) >> 29
        inverse[j] = root
        for i in range(j + 1, 20):
            g[j, i] = mul(t[j, i] >> (28 - half[j]), root) >> 32
        for i in range(j + 1, 19):
            for k in range(i, 20):
                t[i, k] -= mul(g[j, i], g[j, k])
    c = {}
    for j in reversed(range(19)):
        total = g[j, 19] << 16
        for i in range(j + 1, 19):
            total = total - mul(g[j, i], c[i])
        total = np.clip(total >> (20 - half[j]), 1 - 2**31, 2**31 - 1)
        c[j] = np.clip(total * inverse[j] >> 40, -(2**19), 2**19)
    return np.array([c[f] >> 2 for f in range(19)]).T


class Plane:
    """The state of a plane: decoded rows, stream and everything that is learnt."""

    def __init__(self, stream, before, height, width, depth, bound, level):
        """`before` lists the planes that it sees, the nearest one first."""
        self.before, self.width, self.depth, self.bound = before, width, depth, bound
        self.x, self.e = np.zeros((height, width), np.int64), np.zeros((height, width), np.int64)
        self.u, self.estimates = (3 if bound else 0), np.zeros((height, width), np.int64)
        self.stream, self.taken = stream, 4
        self.low, self.high, self.value = 0, 2**32 - 1, int.from_bytes(stream[:4].ljust(4, b"\0"), "big")
        self.means = defaultdict(lambda: [0, 0])
        self.counters = defaultdict(lambda: [2**21, 0])
        self.level, self.windows = level, WINDOWS[level]
        first = [4300] * 7 + [0] + [8000] * (level + 3) if level else [7000] * 7 + [0]
        if level > 3:
            first = [4300] * 7 + [0] + [3500] * (level + 5)
        self.maps = defaultdict(lambda: [squash(clip(128 * n - 2048, 2047)) for n in range(33)])
        self.mixers = defaultdict(first.copy)
        self.f = [np.zeros((height, width), np.int64) for _ in self.windows]
        self.deviations = {}
        self.plain = defaultdict(lambda: 32768)
        self.blocks = -(-width // 8)
        self.s = [np.zeros((20, 20, self.blocks), np.int64) for _ in self.windows]
        self.w = [np.zeros((self.blocks, 19), np.int64) for _ in self.windows]

    def sample(self, y, x):
        """Section 2: S, also beyond the image."""
        if y < 0:
            return self.before[0].sample(0, 0) if self.before else 2 ** (self.depth - 1 + self.u)
        if x < 0:
            return self.sample(y - 1, 0)
        return int(self.estimates[y, min(x, self.width - 1)])

    def estimate(self, value, residual, M, energy):
        """Section 4: S of a sample."""
        if not self.bound:
            return value
        half = 16 * self.bound + 8
        f = 256 * half // (half + energy + 4)
        change = (M - 64 * value) * f >> 11
        if residual:
            change = -(half * f >> 9) if residual > 0 else half * f >> 9
        return clip(8 * value + change, 0, 8 * (2**self.depth - 1))

    def error(self, y, x, errors=None):
        """Section 2: E, also beyond the image; or F of section 8."""
        errors = self.e if errors is None else errors
        if y < 0:
            return 0
        if x < 0:
            return self.error(y - 1, 0, errors)
        return int(errors[y, min(x, self.width - 1)])

    def features(self, y, x):
        """Section 2."""
        values = []
        for plane, offsets, count in zip(
            [self, *self.before], [ITSELF, OTHERS, OTHERS], COUNTS[len(self.before)], strict=False
        ):
            above = plane.sample(y - 1, x)
            values += [plane.sample(y + j, x + i) - above for i, j in offsets[:count]]
        return values

    def code(self, p):
        """Section 5: the range decoder."""
        middle = self.low + ((self.high - self.low) * p >> 16)
        bit = int(self.value <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            byte = self.stream[self.taken] if self.taken < len(self.stream) else 0
            self.taken += 1
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = (self.high << 8 | 255) & 0xFFFFFFFF
            self.value = (self.value << 8 | byte) & 0xFFFFFFFF
        return bit

    def decide(self, node, contexts, energy_log):
        """Sections 6 and 8."""
        counters = [self.counters[n, context, node] for n, context in enumerate(contexts)]
        for counter in counters[1:]:
            if counter[1] == 0:
                counter[0] = counters[0][0]
        inputs = [STRETCH[p >> 10] for p, _ in counters] + [256]
        mixers = [self.mixers[node], self.mixers[node, min(energy_log >> 1, 23)]]
        if self.level:
            for n, (_, k) in enumerate(counters):
                inputs[n] = inputs[n] * (256 * (2 * k + 1) // (2 * k + 4)) >> 8
            inputs += [shape_input(node, centre, m, 2 * self.bound + 1) for centre, (m, _) in self.shapes]
            mixers.append(self.mixers[node, "sides", contexts[2][:2]])
        if self.level > 3:
            mixers.append(self.mixers[node, "height", self.height])
        sums = [sum((u >> 4) * x for u, x in zip(mixer, inputs, strict=True)) >> 12 for mixer in mixers]
        if self.level > 3:
            bit = self.code_mapped(self.maps[node, self.map_sides], sum(sums) >> 2)
        else:
            bit = self.code(squash(sum(sums) * 21846 >> 16 if self.level else sum(sums) >> 1))
        for mixer, total in zip(mixers, sums, strict=True):
            error = (65536 * bit - squash(total)) * 20 >> 10
            for n in range(len(inputs)):
                mixer[n] = clip(mixer[n] + ((inputs[n] * error + 512) >> 10), 2**20)
        for counter in counters:
            p, k = counter
            counter[:] = p + (((2**22 - 1) * bit - p >> 7) * (655360 // (10 * k + 16)) >> 9), min(k + 1, 250)
        return bit

    def code_mapped(self, values, odds):
        """Section 9."""
        n, rest = divmod(clip(odds, 2047) + 2048, 128)
        mapped = (values[n] * (128 - rest) + values[n + 1] * rest) >> 7
        bit = self.code(clip((squash(odds) + mapped) >> 1, 16, 65520))
        n += rest >= 64
        values[n] += (65535 * bit - values[n]) * 12 >> 10
        return bit

    def residual(self, contexts, energy_log):
        """Section 5."""
        if self.decide(0, contexts, energy_log):
            return 0
        negative, bucket = self.decide(1, contexts, energy_log), 0
        while bucket < 2 * (self.depth - 1) and self.decide(2 + 2 * bucket + negative, contexts, energy_log):
            bucket += 1
        rest = 0
        for n in range(bucket >> 1):
            if n == 0 and self.level > 3:
                rest = self.decide(("half", bucket, negative), contexts, energy_log)
                continue
            place = 0 if n == 0 else 1 + rest if n == 1 else n + 1
            entry = bucket, negative, min(energy_log >> 1, 23) % 16, place
            p = self.plain[entry]
            bit = self.code(clip(p, 64, 65472))
            self.plain[entry] = p + ((65535 * bit - p) >> 6)
            rest = 2 * rest + bit
        magnitude = ((2 + bucket % 2) << (bucket >> 1)) + rest - 1
        return -magnitude if negative else magnitude

    def decode_row(self, y):
        """Sections 3 to 7."""
        products = np.zeros((20, 20, self.blocks), np.int64)
        for x in range(self.width):
            feature = self.features(y, x)
            spread = self.decode_sample(y, x, feature)
            z = max(0, self.depth - 12)
            feature.append(self.sample(y, x) - self.sample(y - 1, x))
            scale = 4 * reciprocal(min(4 + (spread >> z), 4095))
            g = np.array([clip((value >> z) * scale >> (12 + self.u), 511) for value in feature])
            products[:, :, x // 8] += np.outer(g, g)
        for n, (radius, decay) in enumerate(self.windows):
            self.s[n] = self.s[n] - decay * (self.s[n] >> 4) + products
            padded = np.pad(self.s[n], ((0, 0), (0, 0), (radius, radius)))
            self.w[n] = weights_of(sum(padded[:, :, k : k + self.blocks] for k in range(2 * radius + 1)))

    def blend(self, y, x, predictions):
        """Section 8: M0 of several fits."""
        if len(predictions) == 1:
            return predictions[0]
        weights = []
        for f in self.f:
            missed = 2 * self.error(y, x - 1, f) + 2 * self.error(y - 1, x, f) + self.error(y - 1, x - 1, f)
            missed += self.error(y - 1, x + 1, f) + self.error(y, x - 2, f) + self.error(y - 2, x, f)
            weights.append(2**34 // ((missed >> (max(0, self.depth - 8) >> 1)) + 4) ** 2 + 1)
        total = sum(weights)
        return (sum(w * m for w, m in zip(weights, predictions, strict=True)) + (total >> 1)) // total

    def place_shapes(self, y, x, predictions, M, P, o1, energy_log, contexts):
        """Section 8: the shapes of a sample, each with its centre and its deviation."""
        self.shapes = []
        for n, f in enumerate(self.f):
            missed = 4 * self.error(y, x - 1, f) + 4 * self.error(y - 1, x, f) + 2 * self.error(y - 1, x - 1, f)
            missed += 3 * self.error(y - 1, x + 1, f) + self.error(y, x - 2, f) + self.error(y - 2, x, f)
            place = min(log4((missed + self.error(y - 1, x + 2, f) + 8 * o1) >> 3), 95)
            deviation = self.deviations.setdefault((n, place), [first_deviation(place), 0])
            self.shapes.append((predictions[n] - 64 * P, deviation))
        place = min(energy_log, 95)
        final = self.deviations.setdefault(("final", place), [first_deviation(place), 0])
        self.shapes.append((M - 64 * P, final))
        for n in (6, 1):
            deviation = self.deviations.setdefault((n, contexts[n]), [0, 0])
            if deviation[1] == 0:
                deviation[0] = final[0]
            self.shapes.append((M - 64 * P, deviation))

    def learn_shapes(self, y, x, predictions, P):
        """Section 8."""
        value = int(self.x[y, x])
        for centre, deviation in self.shapes:
            m, k = deviation
            error = abs(64 * (value - P) - centre)
            deviation[:] = m + ((64 * error - m) * reciprocal(k + 2) >> 16), min(k + 1, 100)
        for f, prediction in zip(self.f, predictions, strict=True):
            f[y, x] = abs(64 * value - prediction) >> 4

    def decode_sample(self, y, x, feature):
        """Sections 3 to 6 and 8; return the spread of section 7, before its shift."""
        known, depth, top = len(self.before), self.depth, 2**self.depth - 1
        other, unit = self.before[0] if known else None, 64 >> self.u
        X, E = self.sample, self.error
        N, W, NW, NE, NN, WW = X(y - 1, x), X(y, x - 1), X(y - 1, x - 1), X(y - 1, x + 1), X(y - 2, x), X(y, x - 2)
        if known:
            O_0, O_W = other.sample(y, x), other.sample(y, x - 1)
            O_N, O_NW = other.sample(y - 1, x), other.sample(y - 1, x - 1)
        if y > 0:
            predictions = []
            for w in self.w:
                weights = w[x // 8].tolist()
                total = sum(w * f for w, f in zip(weights, feature, strict=True)) >> (8 + self.u)
                predictions.append(clip(total + unit * N, 0, 64 * top))
            M0 = self.blend(y, x, predictions)
        else:
            M0 = unit * (clip(W + O_0 - O_W, 0, top << self.u) if known else W)
            predictions = [M0] * len(self.w)
        e_W, e_WW, e_N, e_NW = abs(E(y, x - 1)), abs(E(y, x - 2)), abs(E(y - 1, x)), abs(E(y - 1, x - 1))
        e_NE, e_NEE, e_NN = abs(E(y - 1, x + 1)), abs(E(y - 1, x + 2)), abs(E(y - 2, x))
        e_NNE = abs(E(y - 2, x + 1))
        o1 = abs(other.error(y, x)) if known else 0
        o2 = abs(self.before[1].error(y, x)) if known > 1 else 0
        own = (4 * e_W + 4 * e_N + 2 * e_NW + 3 * e_NE + e_WW + e_NN + e_NEE) >> 2
        energy = (own, (2 * own + 8 * o1) >> 2, (2 * own + 4 * o1 + 4 * o2) >> 2)[known]
        a, energy_log = log4(own >> 1), log4(energy >> 1)
        h, r = min(energy_log >> 1, 15), max(0, depth - 8) >> 1

        t = sum((unit * value > M0) << bit for bit, value in enumerate((W, N, NW, NE, WW, NN)))
        s = other.error(y, x) if known else E(y - 1, x + 1)
        entries = [
            self.means[1, t, min(a >> 2, 15)],
            self.means[2, nine(E(y, x - 1) >> (1 + r)), nine(E(y - 1, x) >> (1 + r)), nine(s >> (1 + r))],
            self.means[3, nine((unit * N - M0) >> (5 + r)), nine((unit * W - M0) >> (5 + r)),
                       nine((unit * NE - M0) >> (5 + r))],
        ]  # fmt: skip
        M = clip(M0 + (sum(m for m, _ in entries) * 21846 >> 22), 0, 64 * top)
        P = (M + 32) >> 6
        q = (M - 64 * P + 32) >> 3

        d_N, d_W = nine((unit * N - M) >> (5 + r)), nine((unit * W - M) >> (5 + r))
        s1 = other.error(y, x) if known else E(y, x - 1)
        s2 = self.before[1].error(y, x) if known > 1 else E(y - 1, x)
        if known:
            i, j = W - O_W, N - O_N
            median = O_0 + sorted((i, j, i + j - (NW - O_NW)))[1]
            second = min(a >> 1, 23), min(log4(o1 >> r) >> 2, 8), min(log4(o2 >> r) >> 2, 8)
        else:
            median = sorted((W, N, W + N - NW))[1]
            activity = abs(W - NW) + abs(N - NW) + abs(N - NE) + abs(W - WW) + abs(N - NN)
            second = min(log4(activity >> (r + self.u)), 40), min(energy_log, 47)
        contexts = (
            (min(energy_log, 63), q),
            second,
            (d_N, d_W, h),
            (clip((s1 + (2 << r)) >> (2 + r), 8), clip((s2 + (4 << r)) >> (3 + r), 3), h),
            (clip((unit * median - M) >> (5 + r), 7), h, q),
            (P >> max(0, depth - 8), min(energy_log >> 2, 7)),
            (clip(log4((e_NW + e_NN + e_NNE) >> r) >> 1, 4, 19), clip(log4((e_W + e_WW) >> r) >> 1, 4, 19),
             clip(log4((e_N + e_NE + e_NEE) >> r) >> 2, 2, 9)),
        )  # fmt: skip
        if self.level:
            self.place_shapes(y, x, predictions, M, P, o1, energy_log, contexts)
        if self.level > 3:
            self.height = P * 32 >> depth
            self.map_sides = nine((unit * WW - M) >> (5 + r)), nine((unit * NE - M) >> (5 + r))
            guesses = [median, 2 * W - WW, 2 * N - NN, W + NE - N, W + N - NW]
            for n, plane in enumerate(self.before):
                guesses[1 + 2 * n] = W + plane.sample(y, x) - plane.sample(y, x - 1)
                guesses[2 + 2 * n] = N + plane.sample(y, x) - plane.sample(y - 1, x)
            place = min(energy_log, 95)
            for n, guess in enumerate(guesses):
                deviation = self.deviations.setdefault(("guess", n, place), [first_deviation(place), 0])
                self.shapes.append((unit * guess - 64 * P, deviation))
        residual = self.residual(contexts, energy_log)
        value = clip(P + residual * (2 * self.bound + 1), 0, top)
        self.x[y, x], self.estimates[y, x] = value, self.estimate(value, residual, M, energy)
        self.e[y, x] = (64 * value - M) >> 4
        if self.level:
            self.learn_shapes(y, x, predictions, P)
        for entry in entries:
            m, k = entry
            entry[:] = m + (((64 * value - M0) * 64 - m) * reciprocal(k + 2) >> 16), min(k + 1, 255)
        return ((e_W + e_N + e_NW + e_NE) >> 2) + (abs(int(self.e[y, x])) >> 1)


def decode(payload):
    """Section 1: decode a payload to u8 or u16 [H, W, C], and return it with D and B."""
    require(len(payload) >= 16, "adaptive: too short")
    crc, kind, channels, depth, bound, height, width = struct.unpack_from("<I4B2I", payload)
    bound, level = bound % 32, bound // 32
    require(kind == 76 and 1 <= channels <= 4 and 1 <= depth <= 16, "adaptive: its header")
    require(bound <= 16 and level <= 6, "adaptive: its bound or level")
    require(1 <= height <= 65535 and 1 <= width <= 65535, "adaptive: its size")
    start = 16 + 4 * channels
    require(len(payload) >= start, "adaptive: too short")
    sizes = struct.unpack_from(f"<{channels}I", payload, 16)
    require(start + sum(sizes) == len(payload), "adaptive: its length")
    planes = []
    for n, size in enumerate(sizes):
        before = planes[::-1] if channels > 2 and n < 3 else []
        planes.append(Plane(payload[start : start + size], before, height, width, depth, bound, level))
        for y in range(height):
            planes[-1].decode_row(y)
        require(planes[-1].taken <= size + 3, "adaptive: a stream is too short")
        start += size
    order = (1, 0, 2, 3) if channels > 2 else (0, 1)
    samples = np.empty((height, width, channels), np.uint8 if depth <= 8 else np.uint16)
    for plane, channel in zip(planes, order, strict=False):
        samples[..., channel] = plane.x
    kind = "<u1" if depth <= 8 else "<u2"
    require(zlib.crc32(samples.astype(kind).tobytes()) == crc, "adaptive: wrong CRC of the samples")
    return samples, depth, bound
