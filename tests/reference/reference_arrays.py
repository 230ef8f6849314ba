"""A second decoder of chunks of arrays, written from docs/reference/array-chunks.md and docs/reference/format.md alone.

It shows that the documents are complete, prefers simplicity to speed, and shares no code with the package. Names of
one letter are those of the document.

    python tests/reference_arrays.py CHUNK OUT.npy [MODEL.vcm]
"""

import struct
import sys
import zlib
from functools import cache

import numpy as np

from reference.reference_decoder import UNIT, Stack, decode_levels, inflated, read_model, require

TYPES = "u1 u2 u4 i1 i2 i4 f4 f8 u8 i8".split()
PARTS = {0: 1, 1: 2, 2: 5, 3: 6, 4: 4}
SPECIAL = {"f4": (0x7FC00000, 0x7F800000, 0xFF800000), "f8": (0x7FF8 << 48, 0x7FF0 << 48, 0xFFF0 << 48)}
AROUND = {
    "A": [(1, 1), (1, 3), (3, 1)],
    "B": [(0, 1), (1, 0), (1, 2), (2, 1), (0, 3), (3, 0)],
    "C": [(0, 1), (1, 0), (1, 1), (1, 2), (2, 1), (0, 3), (3, 0)],
}
FIRST = {"A": (1, 1), "B": (0, 1), "C": (1, 0)}  # row and column of a stage's first point, in units of h
SQUARE = [(row, column) for row in (-1, 0, 1) for column in (-1, 0, 1)]
CENTRE = 87
MOST = 1 << 22  # values: damaged files can claim any number, and a value takes some hundred bytes here


def decode(data, model=None):
    """Decode a chunk (bytes) to an array; mode vae needs the result of read_model as `model`."""
    require(data[:4] == b"\x89VAA" and len(data) >= 17, "no chunk of an array")
    version, mode, kind, layout, axes = data[4:9]
    require(version == 1 and mode <= 4 and kind <= 9 and layout <= 15 and axes <= 32, "the header")
    require(zlib.crc32(data[:-4]) == struct.unpack("<I", data[-4:])[0], "wrong CRC of the chunk")
    *shape, crc = struct.unpack_from(f"<{axes + 1}I", data, 9)
    channels, dtype = bool(layout & 1), np.dtype("<" + TYPES[kind])
    count = int(np.prod(shape, dtype=object))
    require(count < 2**32 and (axes > 2 or not channels), "the shape")
    require(count <= MOST, "more values than this decoder is for")
    parts = list(read_parts(data[13 + 4 * axes : -4]))
    require(len(parts) == PARTS[mode], "the number of parts")
    if mode == 0:
        values = read_values(parts[0], dtype, count)
    elif mode == 1:
        require(len(parts[0]) == dtype.itemsize, "the one value")
        values = np.repeat(np.frombuffer(parts[0], dtype), count)
        values = mark(values, read_mask(parts[1], dtype, count))
    else:
        coding = Coding(parts[0], dtype)
        mask = read_mask(parts[1], dtype, count)
        if mode == 4:
            require(coding.chain == 1, "the chain")
            top = -(-coding.top // coding.step)
            word_type = next(t for t in ("<u1", "<u2", "<u4", "<u8") if top <= np.iinfo(t).max)
            q = read_values(parts[3], np.dtype(word_type), count).astype(object)
            integers = np.minimum(q * coding.step, coding.top).reshape(planes_of(mask.reshape(shape), channels).shape)
        else:
            base = base_levels(parts[5], model) if mode == 3 else None
            integers = Planes(coding, planes_of(mask.reshape(shape), channels), base, *parts[3:5]).decode()
        integers = array_of(integers, shape, channels).reshape(-1)
        values = patch(mark(coding.values(integers, dtype), mask), parts[2])
    require(zlib.crc32(values.tobytes()) == crc, "wrong CRC of the values")
    if layout & 8:
        require(dtype == np.uint8 and values.max(initial=0) <= 1, "booleans")
        values = values.view(bool)
    return values.reshape(shape)


def read_parts(data):
    """Yield the bytes of each part."""
    while data:
        (length,) = struct.unpack_from("<I", data)
        require(4 + length <= len(data), "a part is cut off")
        yield data[4 : 4 + length]
        data = data[4 + length :]


def inflate(stream):
    """Decompress a zlib stream, and check that no bytes follow it."""
    decompressor = zlib.decompressobj()
    content = decompressor.decompress(stream)
    require(decompressor.eof and not decompressor.unused_data, "a zlib stream")
    return content


def read_values(part, dtype, count):
    """Decode a part to `count` values of a type."""
    require(part[:1] in (b"\0", b"\1", b"\2"), "values: an unknown way")
    content = np.frombuffer(inflated(part[1:]), np.uint8)
    if part[0] == 2:
        bit_planes = np.unpackbits(content.reshape(8 * dtype.itemsize, -1), axis=1)
        require(bit_planes.shape[1] == 8 * -(-count // 8), "values: their number")
        content = np.packbits(bit_planes[:, :count].reshape(dtype.itemsize, 8, count), axis=1)[:, 0]
    if part[0]:
        content = content.reshape(dtype.itemsize, -1).T
    values = np.frombuffer(content.tobytes(), dtype)
    require(len(values) == count, "values: their number")
    return values


def read_mask(part, dtype, count):
    """Decode a mask to u8[count]."""
    if not part:
        return np.zeros(count, np.uint8)
    mask = np.frombuffer(inflate(part), np.uint8)
    require(len(mask) == count and mask.max(initial=0) <= 3 and dtype.kind == "f", "the mask")
    return mask


def mark(values, mask):
    """Set the values that are not finite."""
    bits = values.view(f"<u{values.itemsize}").copy()
    for code, special in enumerate(SPECIAL.get(values.dtype.str[1:], ()), 1):
        bits[mask == code] = special
    return bits.view(values.dtype)


def patch(values, part):
    """Replace the values that have patches."""
    if part:
        content = inflate(part)
        count, remainder = divmod(len(content), 4 + values.itemsize)
        positions = np.frombuffer(content, "<u4", count)
        require(
            not remainder and (np.diff(positions.astype(np.int64)) > 0).all() and positions[-1] < len(values),
            "the patches",
        )
        values[positions] = np.frombuffer(content, values.dtype, count, 4 * count)
    return values


def planes_of(values, channels):
    """Arrange [...] as planes [L, H, W]."""
    values = np.moveaxis(values, -1, -3) if channels else values
    height, width = ((1, 1) + values.shape)[-2:]
    planes = int(np.prod(values.shape[:-2]))
    return values.reshape(planes, height, width)


def array_of(planes, shape, channels):
    """The inverse of planes_of."""
    if channels:
        planes = np.moveaxis(planes.reshape(*shape[:-3], shape[-1], shape[-3], shape[-2]), -3, -1)
    return planes.reshape(shape)


class Coding:
    """The mapping of integers to values."""

    def __init__(self, part, dtype):
        self.kind, self.low, self.unit, self.top, self.step, self.chain = struct.unpack("<BddQQI", part)
        require(self.kind <= 3 and (self.kind == 0) == (dtype.kind != "f"), "the kind of a coding")
        require(self.kind != 3 or dtype == np.float32, "the kind of a coding")
        require(np.isfinite([self.low, self.unit]).all() and self.unit > 0 and self.top < 2**33, "the coding")
        if self.kind in (0, 3):
            limits = np.iinfo(np.int32 if self.kind else dtype)
            is_whole = self.low == int(self.low)
            require(is_whole and limits.min <= int(self.low) <= int(limits.max) - self.top, "the coding's range")
        require(self.step % 2 == 1 and self.step <= 2 * self.top + 1 and self.chain > 0, "the step or the chain")

    def values(self, integers, dtype):
        """Map integers [n] to values of a type."""
        if self.kind == 3:
            ordered = int(self.low) + integers.astype(np.int64)
            return np.where(ordered >= 0, ordered, -(2**31) - 1 - ordered).astype("<i4").view(dtype)
        if self.kind == 0:
            return np.array([int(self.low) + int(n) for n in integers], dtype)
        n, low, unit = integers.astype(np.float64), np.float64(self.low), np.float64(self.unit)
        with np.errstate(over="ignore"):
            return ((low + n) / unit if self.kind == 1 else low + n * unit).astype(dtype)


def take_block(stack, contexts, counts):
    """Decode the residuals (list of int) of a block with these contexts; adapt counts {context: list}."""
    residuals, order = [0] * len(contexts), sorted(range(len(contexts)), key=contexts.__getitem__)
    order = [position for position in order if contexts[position]]
    tables = {context: cumulative(counts[context]) for context in set(contexts) - {0}}
    low, tokens = {}, {}
    for position in order:
        token = tokens[position] = stack.take(tables[contexts[position]])
        k = abs(token - CENTRE)
        residuals[position] = least(k)
        if k >= 16:
            low.setdefault((k - 16) // 2 + 3, []).append(position)
    for bits, positions in sorted(low.items()):
        for shift, width in ((0, min(bits, 16)), (16, bits - 16)):
            for position in positions if width > 0 else ():
                residuals[position] += stack.take(equal(width)) << shift
    for position in order:
        residuals[position] *= 1 if tokens[position] >= CENTRE else -1
        counts[contexts[position]][tokens[position]] += 256
    for context in tables:
        if sum(counts[context]) > 2**20:
            counts[context] = [count // 2 for count in counts[context]]
    return residuals


@cache
def equal(bits):
    """Return the bounds of a table of 2^bits equal entries."""
    return range(0, UNIT + 1, UNIT >> bits)


def least(k):
    """Return the least magnitude of the token at distance k from the token of 0."""
    return k if k < 16 else (2 + k % 2) << ((k - 16) // 2 + 3)


def initial_counts(context):
    """Return the initial counts of a context."""
    octave, half = divmod(context - 1, 2)
    e = max(1, (2 + half) * 2**octave - 2)
    masses = []
    for token in range(2 * CENTRE + 1):
        k = abs(token - CENTRE)
        width = 1 if k < 16 else 1 << ((k - 16) // 2 + 3)
        q = 16 * least(k) + 8 * (width - 1)
        masses.append(width * 2**400 // (e**2 + 8 + q**2) ** 2)
    return [mass * 10240 // sum(masses) for mass in masses]


def cumulative(counts):
    """Return the bounds of the table of these counts."""
    total = sum(counts)
    freq = [count * (UNIT - len(counts)) // total + 1 for count in counts]
    freq[freq.index(max(freq))] += UNIT - sum(freq)
    return [0, *np.cumsum(freq).tolist()]


def context_of(expectation):
    """Map expectations i64[n] to contexts [n]."""
    bits = np.frexp(np.asarray(expectation + 1, np.float64))[1].astype(np.int64)  # below 2^53, so exact
    next_bit = np.where(bits > 1, (expectation + 1) >> np.maximum(bits - 2, 0) & 1, 0)
    return np.minimum(2 * (bits - 1) + 1 + next_bit, 64)


def signed(pairs):
    """Return these offsets with all signs, as a list of (row, column)."""
    return [(r, c) for row, column in pairs for r in sorted({-row, row}) for c in sorted({-column, column})]


def mirrored(positions, count):
    """Mirror positions [n] beyond 0..count-1 at the first and the last position."""
    period = max(1, 2 * (count - 1))
    return np.minimum(positions % period, period - positions % period) if count > 1 else 0 * positions


class Planes:
    """Decode the planes of modes planes and vae."""

    def __init__(self, coding, mask, base, weights, words):
        self.coding, self.mask, self.stack = coding, mask, Stack(words)
        self.length, self.height, self.width = mask.shape
        self.base = None if base is None else self.base_values(base)
        self.values, self.errors = np.zeros(mask.shape, np.int64), np.zeros(mask.shape, np.int64)
        self.counts = {context: initial_counts(context) for context in range(1, 65)}
        self.before = 0  # residuals so far
        self.ways = inflate(weights)
        self.last = {}  # the last weights by kind of stage, level, number of guides and presence of a base

    def base_values(self, level):
        """Convert levels i64[rows, W, 3] of the base to its integers [L, H, W]."""
        values = np.clip(((level + 8160) * self.coding.top + 8160) // 16320, 0, self.coding.top)
        if level.shape[:2] == (self.length * self.height, self.width):
            return values[..., 1].reshape(self.mask.shape)
        require(level.shape[:2] == (self.length // 3 * self.height, self.width), "the base is not of the array's size")
        return values.reshape(-1, self.height, self.width, 3).transpose(0, 3, 1, 2).reshape(self.mask.shape)

    def decode(self):
        """Decode all planes to i64[L, H, W]."""
        chain, area = self.coding.chain, self.height * self.width
        require(self.length % chain == 0 and (chain <= 16 or area >= 1024), "the chain")
        if self.values.size:
            chains = self.length // chain
            group = max(1, min(2**20 // area, chains))
            stages = [(level, kind) for level in self.levels() for kind in "ABC" if self.points(level, kind)]
            self.own = -(-chains // group) * chain * len(stages)  # the offset of the weights that stages define
            self.ways, self.own = iter(self.ways[: self.own]), self.ways[self.own :]
            for start in range(0, chains, group):
                heads = np.arange(start, min(start + group, chains)) * chain
                for position in range(chain):
                    self.traverse(heads + position, min(position, 2), stages)
            require(not self.own, "weights are left")
        require(self.stack.state == 0 and not self.stack.words, "the stack is not empty at the end")
        return self.values

    def levels(self):
        """Return the levels from coarse to fine."""
        return range((max(self.height, self.width) - 1).bit_length() - 1, -1, -1)

    def points(self, level, kind):
        """Return the numbers of rows and columns of a stage's points, or None if it has no points."""
        counts = [
            ((side - 1 >> level) + 2 - first) // 2 for side, first in zip(self.mask.shape[1:], FIRST[kind], strict=True)
        ]
        return counts if all(counts) else None

    def traverse(self, planes, past, stages):
        """Decode the planes of a group at one position of their chains; the `past` previous planes are the guides."""
        guides = [(self.values[planes - n], self.errors[planes - n]) for n in range(past, 0, -1)]
        guides += [] if self.base is None else [(self.base[planes], None)]
        values, errors, mask = self.values[planes], self.errors[planes], self.mask[planes]
        first = guides[-1][0][:, 0, 0] if guides else np.full(len(planes), self.coding.top // 2)
        contexts = np.full(len(planes), context_of(np.array(self.coding.top // self.coding.step)))
        values[:, 0, 0] = self.take(first, np.where(mask[:, 0, 0], 0, contexts))
        for level, kind in stages:
            h = 1 << level
            views = [array[:, ::h, ::h] for array in (values, errors, mask)]
            self.stage(
                kind, level, *views, [(v[:, ::h, ::h], None if e is None else e[:, ::h, ::h]) for v, e in guides]
            )
        self.values[planes], self.errors[planes] = values, errors

    def stage(self, kind, level, values, errors, mask, guides):
        """Decode the points of a stage in place; all arrays are [planes, rows, columns] of the level."""
        fill(kind, values)
        with_base = self.base is not None
        predict, expect = self.weights_of(kind, level, len(guides) - with_base, with_base)
        height, width = self.points(level, kind)
        strip_rows = max(1, 2**16 // width)
        planes = max(1, strip_rows // height)
        for plane in range(0, len(values), planes):
            part = slice(plane, plane + planes)
            for top in range(0, height, strip_rows):
                row = FIRST[kind][0] + 2 * np.arange(top, min(top + strip_rows, height))[:, None]
                column = FIRST[kind][1] + 2 * np.arange(width)
                guide_parts = [(v[part], None if e is None else e[part]) for v, e in guides]
                self.decode_strip(
                    kind, values[part], errors[part], mask[part], guide_parts, row, column, predict, expect
                )

    def decode_strip(self, kind, values, errors, mask, guides, row, column, predict, expect):
        """Decode the points of a strip, which lie at `row` [n, 1] and `column` [m] of some planes."""

        def values_around(array, offsets):
            height, width = array.shape[1:]
            return [
                array[:, mirrored(row + down, height), mirrored(column + across, width)] for down, across in offsets
            ]

        offsets, step, top = signed(AROUND[kind]), self.coding.step, self.coding.top
        neighbours = values_around(values, offsets)
        m = sum(neighbours[:4])
        differences = [4 * v - m for v in neighbours]
        neighbour_errors = values_around(errors, offsets[:8])
        magnitudes = [np.full_like(m, min(step, 16 * top))]
        magnitudes += [sum(map(abs, differences[a : a + 4])) for a in (0, 4)]
        magnitudes += [4 * sum(neighbour_errors[a : a + 4]) for a in (0, 4)]
        for guide, guide_errors in guides:
            guide_neighbours = values_around(guide, offsets[:4])
            g = sum(guide_neighbours)
            guide_square = [4 * v - g for v in values_around(guide, SQUARE)]
            differences += guide_square
            magnitudes += [4 * abs(guide_square[4]), sum(abs(4 * v - g) for v in guide_neighbours)]
            if guide_errors is None:
                differences.append(4 * values_around(guide, [(0, 0)])[0] - m)
                magnitudes.append(4 * abs(differences[-1]))
            else:
                magnitudes += [
                    16 * values_around(guide_errors, [(0, 0)])[0],
                    4 * sum(values_around(guide_errors, offsets[:4])),
                ]
        terms = sum(w * d for w, d in zip(predict, differences, strict=True))
        prediction = np.clip((2**10 * m + 2**11 + terms) >> 12, 0, top)
        expectation = sum(w * d for w, d in zip(expect, magnitudes, strict=True)) // (512 * step)
        contexts = np.where(mask[:, row, column], 0, context_of(expectation))
        decoded = self.take(prediction.ravel(), contexts.ravel()).reshape(m.shape)
        values[:, row, column], errors[:, row, column] = decoded, abs(decoded - prediction)

    def take(self, prediction, contexts):
        """Decode the values [n] of a strip."""
        residuals, contexts = [], contexts.tolist()
        while len(residuals) < len(contexts):
            size = max(512, min(2**15, self.before // 4))
            block = contexts[len(residuals) : len(residuals) + size]
            residuals += take_block(self.stack, block, self.counts)
            self.before += len(block)
        return np.clip(prediction + self.coding.step * np.array(residuals, np.int64), 0, self.coding.top)

    def weights_of(self, kind, level, past, with_base):
        """Return the weights of prediction and expectation of the next stage, as lists of int."""
        neighbour_count, guides = len(signed(AROUND[kind])), past + with_base
        lengths = neighbour_count + 9 * guides + with_base, 5 + 4 * past + 3 * with_base
        kind_of_stage = (kind, past, with_base)
        method = next(self.ways, None)
        require(method in (0, 1, 2, 3, 4) and (method != 1 or guides), "the weights")
        if method >= 3:
            key = kind_of_stage if method == 3 else (level, *kind_of_stage)
            require(key in self.last, "weights of a stage before the first")
            weights = self.last[key]
        elif method == 2:
            require(len(self.own) >= 2 * sum(lengths), "the weights are cut off")
            weight_values = np.frombuffer(self.own, "<i2", sum(lengths)).tolist()
            weights, self.own = (weight_values[: lengths[0]], weight_values[lengths[0] :]), self.own[2 * sum(lengths) :]
            require(sum(map(abs, weights[0])) <= 2**13 and sum(weights[1]) <= 2**12, "weights too large")
            require(min(weights[1]) >= 0, "an expectation below 0")
        else:
            weights = [0] * lengths[0], ([400, 30, 0, 70, 30] + [0] * lengths[1])[: lengths[1]]
            if method == 1:
                weights[0][neighbour_count + 9 * (guides - 1) + 4] = 2**10
            else:
                for neighbour in range(4 if kind == "A" else neighbour_count - 4, neighbour_count):
                    weights[0][neighbour] = -32
        self.last[kind_of_stage] = self.last[(level, *kind_of_stage)] = weights
        return weights


def fill(kind, values):
    """Fill the new points of a level [planes, rows, columns] of a single row or column, in place."""
    line = values[:, 0] if values.shape[1] == 1 else values[:, :, 0] if values.shape[2] == 1 else None
    if line is not None:
        even_points, new_points = line[:, 0::2], line[:, 1::2]
        next_even_points = np.concatenate([even_points[:, 1:], even_points[:, -1:]], 1)
        new_points[...] = (even_points[:, : new_points.shape[1]] + next_even_points[:, : new_points.shape[1]]) >> 1


def base_levels(data, model):
    """Decode a .vae file to the levels of the base, i64[height, width, 3]."""
    require(model is not None and data[12:16] == b"HEAD", "mode vae needs a model, and a base that begins with HEAD")
    header, level = decode_levels(data, model)
    require(header.channels == 3, "the base has not 3 channels")
    return level[: header.height, : header.width]


def main(arguments):
    """Decode a chunk from the command line."""
    if len(arguments) not in (2, 3):
        sys.exit(__doc__)
    with open(arguments[0], "rb") as file:
        np.save(arguments[1], decode(file.read(), read_model(arguments[2]) if len(arguments) == 3 else None))


if __name__ == "__main__":
    main(sys.argv[1:])
