"""A second decoder of the vaecodec format, written from docs/format.md alone.

It exists to show that the document suffices and to disagree with the package where the package strays from it. It is
therefore plain before it is fast, shares no code with the package, and needs nothing but NumPy, Pillow where there is a
WebP or AVIF within, and Zstandard for stored files. Sections, and names of one letter, are those of the document.

    python tests/reference_decoder.py model.vcm in.vae [out.pam]

prints the CRC of each tile's symbols and writes the picture as a Netpbm PAM; of a stored file, its name, and writes
the file.
"""

import hashlib
import io
import json
import struct
import sys
import zlib
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = b"\x89VAE\r\n\x1a\n"
TYPES = {"I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "|u1", "U32": "<u4", "F16": "<f2", "F32": "<f4"}
ENCODER_ONLY = ("weights/analysis/", "litert/analysis", "anchors/gain", "anchors/analysis", "calibration/", "start/")
FIELDS = ("fine", "fine_blocks", "coarse", "coarse_blocks", "prior", "coarser", "hyper_width")
UNIT = 2**24


def require(condition, message):
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def read_tensors(path):
    """Section 6: a model file whose id is right as a dict of `tensors` {name: array}, `config` and `id` (8 bytes)."""
    data = Path(path).read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    require(8 <= begin <= len(data), "model: the header is cut off")
    entries, tensors = json.loads(data[8:begin]), {}
    metadata = {key: json.loads(text) for key, text in entries.pop("__metadata__", {}).items()}
    require(metadata.get("format") == 1, f"model: format {metadata.get('format')} is not 1")
    for name, entry in entries.items():
        require(entry["dtype"] in TYPES, f"model: {name} has the unknown type {entry['dtype']}")
        part = data[begin + entry["data_offsets"][0] : begin + entry["data_offsets"][1]]
        tensors[name] = np.frombuffer(part, TYPES[entry["dtype"]]).reshape(entry["shape"])
    digest = hashlib.sha256(json.dumps([1, metadata["config"]], sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        if not name.startswith(ENCODER_ONLY):
            digest.update(json.dumps([name, array.dtype.str, list(array.shape)]).encode() + array.tobytes())
    model = {"tensors": tensors, "config": metadata["config"], "id": digest.digest()[:8]}
    require(metadata["id"] == model["id"].hex(), f"model: its id {metadata['id']} is not that of its contents")
    return model


def read_model(path):
    """Section 6: a checked model of photographs, with `scales` (K), `latents` (M) and `bounds` too."""
    model = read_tensors(path)
    config, tensors = model["config"], model["tensors"]
    require(set(config) == {*FIELDS, "channels"}, "model: its config has other fields")
    require(all(type(config[name]) is int and 1 <= config[name] <= 4096 for name in FIELDS), "model: its config")
    require(type(config["channels"]) is int and 1 <= config["channels"] <= 16, "model: its channels")
    channels, count = config["channels"], len(tensors["tables/low"])
    model["scales"], model["latents"] = count - 1, 256 * channels
    require(2 <= model["scales"] <= 256, f"model: {count} rows")
    model["bounds"] = row_bounds(tensors, count)
    widths = {"bias": config["prior"] + 4 * config["coarser"], "lowest": 4 * config["hyper_width"]}
    widths |= {"start": 2 * channels, "inverse_gain": 15 * channels}
    for name, most in {"bias": 2**20, "lowest": 2**20, "start": 2**16, "inverse_gain": 2**27}.items():
        level = tensors[f"levels/{name}"]
        require(level.shape == (113, widths[name]), f"model: levels/{name} is of another shape")
        require(np.abs(level.astype(np.int64)).max() <= most, f"model: levels/{name} exceed {most}")
    require(tensors["levels/inverse_gain"].min() >= 1, "model: levels/inverse_gain is not above 0")
    edges = [0, *tensors["companding"].tolist()]
    require(2 <= len(edges) <= 1024 and edges[-1] <= 65536, "model: companding is out of range")
    require(all(a < b for a, b in pairwise(edges)), "model: companding does not rise")
    require(tensors["centroids"].shape == (model["scales"], 2), "model: centroids is of another shape")
    return model


def row_bounds(tensors, count):
    """Section 4: for each of `count` rows the sums of its first 0, 1, ... frequencies, as a list of int."""
    freq, start = tensors["tables/freq"].astype(np.int64), tensors["tables/start"]
    require(len(start) == count + 1 and len(tensors["tables/low"]) == count, "model: wrong number of rows")
    require(start[0] == 0 and start[-1] == len(freq) and (np.diff(start) > 0).all(), "model: wrong starts of rows")
    require(freq.min() >= 1, "model: a frequency is 0")
    bounds = [[0, *np.cumsum(freq[a:b]).tolist()] for a, b in pairwise(start)]
    require(all(row[-1] == UNIT for row in bounds), "model: the frequencies of a row do not sum to 2^24")
    low = tensors["tables/low"].astype(np.int64)
    require(bounds[-1] == list(range(0, UNIT + 1, UNIT // 256)) and low[-1] == 0, "model: the last row is not of bytes")
    require(low.min() >= -65535 and (low + np.diff(start) - 2).max() <= 65535, "model: a row reaches beyond +-65535")
    return bounds


class Header(NamedTuple):
    """What HEAD says: `side` is a tile's in cells, `tiles` has a (length, crc) for each, `channels` is 1 to 16.

    `filter` is that of section 7.1 (bytes), or empty.
    """

    height: int
    width: int
    step: int
    side: int
    tiles: list
    channels: int
    filter: bytes


def read_chunks(data, last=b"DATA"):
    """Section 1: yield the (tag, payload) of each chunk up to the `last`, after which the file must end."""
    require(data[:8] == MAGIC, "not a vaecodec file: wrong magic")
    begin, tag = 8, None
    while tag != last:
        # Room for length, tag and CRC comes first: what is read below may not lie beyond the end.
        end = begin + 8 + int.from_bytes(data[begin : begin + 4], "little")
        require(begin + 12 <= len(data) and end + 4 <= len(data), f"the file is cut off in the chunk at byte {begin}")
        tag, payload = data[begin + 4 : begin + 8], data[begin + 8 : end]
        crc = int.from_bytes(data[end : end + 4], "little")
        require(zlib.crc32(data[begin + 4 : end]) == crc, f"chunk {tag!r}: wrong CRC")
        yield tag, payload
        begin = end + 4
    require(begin == len(data), f"bytes after {last!r}")


def read_header(payload, model):
    """Section 1: the checked Header in the payload of HEAD."""
    # A later version may lay out the rest in another way, so the version comes before the length.
    version = payload[0] if payload else None
    require(version == 1, f"version {version} of the format is not supported")
    require(len(payload) >= 22, "HEAD: too short")
    _, flags, name, height, width, step, tile, channels = struct.unpack_from("<BB8sIIHBB", payload)
    require(flags < 2 and channels <= 16 and channels != 3, f"HEAD: flags {flags} or channels {channels}")
    channels = channels or 3
    wanted = model["config"]["channels"]
    require(channels == wanted, f"HEAD: {channels} channels, and the model has {wanted}")
    require(name == model["id"], f"the file needs the model {name.hex()}, not {model['id'].hex()}")
    require(1 <= height <= UNIT and 1 <= width <= UNIT, f"HEAD: {height} by {width} pixels")
    require(step <= 896 and 6 <= tile <= 12, f"HEAD: step {step} or tile {tile} is out of range")
    count = -(-height >> tile) * -(-width >> tile)
    rest = payload[22 + 8 * count :]
    require(len(payload) >= 22 + 8 * count, f"HEAD: not of the length that {count} tiles need")
    if flags:
        require(rest and rest[0] < 3, "HEAD: no filter, or one of unknown classes")
        classes = 1 << rest[0]
        require(len(rest) == 1 + 10 * classes + (2 * channels if channels > 1 else 0), "HEAD: the filter's length")
        require(max(rest[1 + 10 * k] for k in range(classes)) < 16, "HEAD: a shift of the filter is above 15")
    else:
        require(not rest, f"HEAD: not of the length that {count} tiles need")
    tiles = list(struct.iter_unpack("<II", payload[22 : 22 + 8 * count]))
    return Header(height, width, step, 1 << (tile - 4), tiles, channels, rest)


def read_file(data, model):
    """Section 1: the Header of a file (bytes) and the payload (bytes) of each tile."""
    chunks, seen = read_chunks(data), frozenset()
    tag, payload = next(chunks)
    require(tag == b"HEAD", f"the first chunk is {tag!r}, not HEAD")
    header = read_header(payload, model)
    for tag, payload in chunks:
        seen = check_tag(tag, payload, seen, {3: (b"grey", b"ALPH"), 1: (b"ALPH",)}.get(header.channels, ()))
    ends = np.cumsum([0] + [length for length, _ in header.tiles]).tolist()
    require(ends[-1] == len(payload), f"DATA has {len(payload)} bytes, its tiles {ends[-1]}")
    return header, [payload[a:b] for a, b in pairwise(ends)]


def check_tag(tag, payload, seen, beside):
    """Section 1: `seen` (a set of tags) with the tag of a chunk after the first, where `beside` may be."""
    known = tag in (b"iccp", b"exif", b"xmp_", b"phys", b"DATA", *beside)
    skipped = b"a" <= tag[:1] <= b"z" and tag != b"grey"
    require(known or skipped, f"chunk {tag!r} is unknown or not in its place")
    require(not (known and tag in seen), f"chunk {tag!r} occurs twice")
    require(tag != b"grey" or not payload, "chunk grey is not empty")
    return seen | {tag}


def read_pict(data):
    """Section 1: the samples, u8 or u16 [height, width, channels], of a file (bytes) that begins with PICT."""
    chunks, seen, found = read_chunks(data), frozenset(), {}
    tag, payload = next(chunks)
    require(tag == b"PICT", f"the first chunk is {tag!r}, not PICT")
    version = payload[0] if payload else None
    require(version == 1, f"version {version} of the format is not supported")
    require(len(payload) == 12, "PICT: wrong length")
    _, coding, channels, depth, height, width = struct.unpack("<BBBBII", payload)
    require(coding in (0, 1), f"PICT: coding {coding} is unknown")
    require(1 <= channels <= 4 and depth in ((8,) if coding else (8, 16)), "PICT: channels or depth out of range")
    require(1 <= height <= UNIT and 1 <= width <= UNIT, f"PICT: {height} by {width} pixels")
    for tag, payload in chunks:
        seen, found[tag] = check_tag(tag, payload, seen, (b"ALPH",)), payload
    require((b"ALPH" in found) == (coding == 1 and channels in (2, 4)), "ALPH is missing or not in its place")
    if coding == 0:
        return read_samples(found[b"DATA"], height, width, channels, depth)
    from PIL import Image

    image = Image.open(io.BytesIO(found[b"DATA"]), formats=["AVIF"])
    require(image.size == (width, height), "the AVIF is not of the picture's size")
    return beside(np.asarray(image.convert("RGB")), channels < 3, found.get(b"ALPH"))


def read_samples(payload, height, width, channels, depth):
    """Section 1, Samples: u8 or u16 [height, width, channels]."""
    from PIL import Image

    file = payload[4:]
    if file.startswith(b"\x89PNG"):
        require(file[16:24] == struct.pack(">II", width, height), "the PNG is not of the picture's size")
        colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        require((file[24], file[25]) == (depth, colour_type), "the PNG is not of the channels and depth of the header")
        samples = read_png(file, height, width, channels, depth)
    else:
        require(depth == 8, "samples of 16 bits are a PNG")
        image = Image.open(io.BytesIO(file), formats=["WEBP"])
        require(image.size == (width, height), "the WebP is not of the picture's size")
        rgba = np.asarray(image.convert("RGBA"))
        samples = rgba[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]]
    crc = zlib.crc32(samples.astype(f"<u{depth // 8}").tobytes())
    require(crc == int.from_bytes(payload[:4], "little"), "wrong CRC of the samples")
    return samples


def read_png(file, height, width, channels, depth):
    """ISO/IEC 15948, clauses 7 to 10: u8 or u16 [height, width, channels] of a PNG without interlacing."""
    begin, packed = 8, b""
    while begin < len(file):
        length = int.from_bytes(file[begin : begin + 4], "big")
        tag = file[begin + 4 : begin + 8]
        require(tag != b"IHDR" or file[begin + 20] == 0, "this reference reads no interlaced PNG")
        packed += file[begin + 8 : begin + 8 + length] if tag == b"IDAT" else b""
        begin += 12 + length
    step = channels * depth // 8
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * step)
    above, rows = [0] * (step + width * step), []
    for line in lines.tolist():
        row = [0] * step
        for place, value in enumerate(line[1:]):
            a, b, c = row[place], above[step + place], above[place]
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row.append(value + (0, a, b, (a + b) // 2, paeth)[line[0]] & 255)
        above = row
        rows.append(row[step:])
    return np.array(rows, np.uint8).reshape(height, -1).view(f">u{depth // 8}").reshape(height, width, channels)


class Stack:
    """Section 4: the state, below 2^64, and the words under it, as Python ints."""

    def __init__(self, payload):
        """Start from a tile's payload (bytes)."""
        require(len(payload) % 4 == 0, "a payload is not a whole number of words")
        self.words = [word for (word,) in struct.iter_unpack("<I", payload)]
        require(not self.words or self.words[-1] != 0, "the last word of a payload is 0")
        self.state = 0
        for _ in range(min(2, len(self.words))):
            self.state = self.state << 32 | self.words.pop()

    def take(self, bounds):
        """Take off one entry (int) of the row with these `bounds`."""
        q = self.state & (UNIT - 1)
        entry = bisect_right(bounds, q) - 1
        below = bounds[entry]
        self.state = (self.state >> 24) * (bounds[entry + 1] - below) + q - below
        if self.state < 2**32 and self.words:
            self.state = self.state << 32 | self.words.pop()
        return entry


def take_number(stack, model):
    """Section 3: take 4 bytes that are an i32 off the stack, as int."""
    return int.from_bytes(bytes(stack.take(model["bounds"][-1]) for _ in range(4)), "little", signed=True)


def take_part(stack, rows, model, rungs=0):
    """Section 3: take the symbols (i64[n], in coding order) of a part off the stack, given their rows (i64[n]).

    In place of each row the one so many `rungs` above it is used, from row 1 to the last of the scales.
    """
    bounds, low = model["bounds"], model["tensors"]["tables/low"].tolist()
    symbols, escapes = np.zeros(rows.size, np.int64), []
    order = np.argsort(rows, kind="stable")  # stable: symbols of the same row stay in coding order
    order = order[np.count_nonzero(rows == 0) :]
    for place, row in zip(order.tolist(), rows[order].tolist(), strict=True):
        if rungs:
            row = min(max(row + rungs, 1), model["scales"] - 1)
        entry = stack.take(bounds[row])
        if entry == len(bounds[row]) - 2:
            escapes.append(place)
        symbols[place] = low[row] + entry
    for place in escapes:
        symbols[place] = take_number(stack, model)
    require(symbols.size == 0 or np.abs(symbols).max() <= 65535, "a symbol is beyond +-65535")
    return symbols


def rounded(x, bits):
    """Divide integers by 2^bits, to nearest, halves up."""
    return (x + (1 << bits >> 1)) >> bits


def clip(x, limit):
    """Clip integers to +-limit."""
    return np.clip(x, -limit, limit)


def shuffle(x, n=2):
    """[h, w, n * n * C] -> [n * h, n * w, C]."""
    h, w, c = x.shape
    return x.reshape(h, w, n, n, c // n**2).transpose(0, 2, 1, 3, 4).reshape(n * h, n * w, c // n**2)


def depthwise_sums(x, kernel):
    """Each channel of x [h, w, C] with its own kernel [3, 3, C], cells beyond the border 0, in x's dtype."""
    h, w, _ = x.shape
    x, kernel = np.pad(x, ((1, 1), (1, 1), (0, 0))), kernel.astype(x.dtype)
    return sum(x[i : i + h, j : j + w] * kernel[i, j] for i in range(3) for j in range(3))


class Layers:
    """The layers of 5.1, cells [h, w, channels]: on i64, or on f32 as section 7 says."""

    def __init__(self, model, prefix, exact):
        """Use the tensors `prefix/...`, in integers if `exact`."""
        self.tensors = {k.removeprefix(prefix): v for k, v in model["tensors"].items() if k.startswith(prefix)}
        self.exact = exact

    def finish(self, x, bits, relu=False):
        """Round and clip sums; in floating point only the ReLU remains."""
        if self.exact:
            return np.clip(rounded(x, bits), 0 if relu else -1023, 1023)
        return np.maximum(x, 0) if relu else x

    def dense_sums(self, name, x):
        """The sums of dense at each cell, before rounding."""
        # Inputs are at most 2^10 and kernels 2^15, so that below 2^27 inputs all sums stay below 2^53: float64 rounds
        # nothing, in whatever order BLAS adds, and is much faster than NumPy's integer product.
        work, result = (np.float64, np.int64) if self.exact else (np.float32, np.float32)
        sums = x.astype(work) @ self.tensors[f"{name}/kernel"].astype(work) + self.tensors[f"{name}/bias"].astype(work)
        return sums.astype(result)

    def dense(self, name, x, relu=False):
        """[h, w, in] -> [h, w, out]."""
        return self.finish(self.dense_sums(name, x), 9, relu)

    def depthwise(self, name, x):
        """[h, w, C] -> [h, w, C]."""
        sums = depthwise_sums(x, self.tensors[f"{name}/kernel"])
        return self.finish(sums + self.tensors[f"{name}/bias"].astype(x.dtype), 9)

    def add(self, x, y):
        """The clipped sum."""
        return self.finish(x + y, 0)

    def gate(self, x):
        """[h, w, 2C] -> [h, w, C]."""
        a, b = np.split(x, 2, axis=-1)
        return self.finish(np.maximum(a, 0) * b, 6)

    def block(self, name, x):
        """[h, w, C] -> [h, w, C]."""
        t = self.dense(f"{name}/in", x, relu=True)
        t = self.depthwise(f"{name}/space", t)
        x = self.add(x, self.dense(f"{name}/out", t))
        t = self.gate(self.dense(f"{name}/gate", x))
        return self.add(x, self.dense(f"{name}/mix", t))


def decode_tile(payload, h, w, step, model):
    """Sections 3 to 5: all symbols (i32[n], in coding order) and the values v (i64[h, w, 256C]) of a tile."""
    net, stack = Layers(model, "integer/", exact=True), Stack(payload)
    level = {k[7:]: v[step >> 3].astype(np.int64) for k, v in model["tensors"].items() if k.startswith("levels/")}
    symbols, v = Octaves(net, stack, level, model).decode(h, w)
    require(stack.state == 0 and not stack.words, "a tile's stack is not empty at the end")
    return symbols, v


FACTORS = (1 / 1.149604398860241, 1.149604398860241, -0.443506852043971, -0.882911075530934, 0.052980118572961,
           1.586134342059924)  # fmt: skip
TAPS = (51674, 27400, -2667, -4230, 0), (55882, -24733, -7250, 1563, 2479)


class Octaves:
    """Sections 3 and 5: the symbols and values of a tile."""

    def __init__(self, net, stack, level, model):
        """Decode with Layers, from a Stack, at a level: a dict of i64[n]."""
        self.net, self.stack, self.level, self.model = net, stack, level, model
        self.channels, self.scales = model["config"]["channels"], model["scales"]
        self.symbols = []
        even = range(0, UNIT + 1, UNIT // 16)
        moved = stack.take(even[::8])
        self.rungs = [stack.take(even) - 8 if moved else 0 for _ in range(15)]

    def take(self, loc, rows):
        """3 and 5.2: the values (i64, of the shape of `loc` and `rows`) of a part, whose symbols are kept."""
        flat = rows.ravel()
        symbols = take_part(self.stack, flat, self.model, self.rungs[len(self.symbols)])
        flag = take_part(self.stack, np.array([1]), self.model)[0]
        require(flag in (0, 1), "the symbol before strays is neither 0 nor 1")
        if flag:
            number, last = take_number(self.stack, self.model), -1
            require(1 <= number <= np.count_nonzero(flat == 0), f"{number} strays are none, or too many")
            for _ in range(number):
                place, symbol = take_number(self.stack, self.model), take_number(self.stack, self.model)
                require(last < place < flat.size and flat[place] == 0, "a stray has no such place")
                require(symbol != 0 and abs(symbol) <= 65535, "a stray is 0 or beyond +-65535")
                symbols[place] = symbol
                last = place
        self.symbols.append(symbols)
        s = symbols.reshape(rows.shape)
        centroid = self.model["tensors"]["centroids"].astype(np.int64)[rows, (np.abs(s) != 1).astype(int)]
        return clip(64 * s + np.sign(s) * centroid + loc, 2**16)

    def compand(self, v):
        """5.2: values -> activations."""
        return np.sign(v) * np.searchsorted(self.model["tensors"]["companding"], np.abs(v), "right")

    def distribution(self, name, x):
        """5.2: [h, w, in] -> loc and row, i64[h, w, out / 2]."""
        mean, index = np.split(self.net.dense_sums(name, x), 2, axis=-1)
        return rounded(4 * mean, 9), np.clip(rounded(index, 12), 0, self.scales - 1)

    def lowest(self, h, w):
        """5.3: the lowest coefficients, i64[h, w, C]."""
        r, s = np.indices((h, w))
        loc, row = np.split(self.level["start"], 2)
        g = np.zeros((h, w, self.channels), np.int64)
        here = (r % 4 == 0) & (s % 4 == 0)
        ones = np.ones((np.count_nonzero(here), 1), np.int64)
        g[here] = self.take(ones * loc, ones * np.clip(row, 0, self.scales - 1))
        for part, d in enumerate((2, 2, 1, 1)):
            if part % 2 == 0:
                here, ways = (r % (2 * d) == d) & (s % (2 * d) == d), [(-d, -d), (-d, d), (d, -d), (d, d)]
            else:
                here = (r % d == 0) & (s % d == 0) & ((r // d + s // d) % 2 == 1)
                down, along = [(-d, 0), (d, 0)], [(0, -d), (0, d)]
                ways = (down if h > d else along) + (along if w > d else down)
            at = np.argwhere(here)
            near = []
            for way in ways:
                there = at + way
                across = at - way
                there = np.where((there < 0) | (there >= (h, w)), across, there)
                near.append(g[there[:, 0], there[:, 1]])
            near = np.stack(near, axis=1)
            b = rounded(near.sum(axis=1), 2)
            x = np.concatenate([(near - b[:, None]).reshape(len(at), 4 * self.channels), b], axis=-1)
            x = self.net.dense(f"lowest/{part}/in", magnitudes(self.compand(x))[None])
            x = np.maximum(self.net.add(x, np.split(self.level["lowest"], 4)[part]), 0)
            x = self.net.dense(f"lowest/{part}/middle", x, relu=True)
            loc, rows = (found[0] for found in self.distribution(f"lowest/{part}/out", x))
            g[here] = self.take(loc + b, rows)
        return g

    def octave(self, o, low, p, passed):
        """5.4: the values of octave o, i64[H, W, 3C], with the low-pass picture i64[H, W, C] and the parents p.

        And what its network passes on, of which `passed`, [.., .., 8], is that of the octave before.
        """
        height, width, net = *low.shape[:2], self.net
        down, along = -(-height // 2), -(-width // 2)
        beyond = ((0, 2 * down - height), (0, 2 * along - width), (0, 0))

        wide = mirrored(low)
        around = sum(wide[i : i + height, j : j + width] for i in range(3) for j in range(3)) - low
        d = unshuffle(np.pad(self.compand(low - rounded(around, 3)), beyond), 2)
        x = np.concatenate([d, self.compand(p[:down, :along])], axis=-1)
        x = np.concatenate([x, passed[:down, :along], np.abs(x)], axis=-1)
        x = net.dense(f"context/{o}/in", x)
        wide = x.shape[-1]
        begin = self.model["config"]["prior"] + (o - 1) * wide if o else 0
        x = net.block(f"context/{o}/block", net.add(x, self.level["bias"][begin : begin + wide]))

        i, j, b, c = np.indices((2, 2, 3, self.channels)).reshape(4, -1)
        within = unshuffle(np.pad(np.ones((height, width, 3 * self.channels), np.int64), beyond), 2)
        v = np.zeros((down, along, 12 * self.channels), np.int64)

        def take_half(name, x, half):
            """Take the symbols of a half (bool[12C]) of each square off the stack and put their values into v."""
            loc, rows = self.distribution(name, x)
            v[..., half] = self.take(loc * within[..., half], rows * within[..., half])

        first = (i + j + b + c) % 2 == 0
        take_half(f"context/{o}/first", x, first)
        x = net.add(x, net.dense(f"context/{o}/known", magnitudes(self.compand(v[..., first]))))
        x = net.block(f"context/{o}/after", x)
        take_half(f"context/{o}/second", x, ~first)
        return shuffle(v)[:height, :width], shuffle(net.dense(f"context/{o}/pass", x)) if o else None

    def decode(self, h, w):
        """All symbols (i32[n], in coding order) and the values v (i64[h, w, 256C]) of a tile of h by w cells."""
        low = self.lowest(-(-h // 2), -(-w // 2))
        v, found = np.zeros((*low.shape[:2], 3 * self.channels), np.int64), []
        passed = v[..., :0]
        for o in (4, 3, 2, 1, 0):
            v, passed = self.octave(o, low, v, passed)
            found.append(v)
            if o > 0:
                u = clip(rounded(v * np.split(self.level["inverse_gain"], 5)[o], 10), 2**16)
                low = clip(rounded(filtered(filtered(by_turns(low, u)).swapaxes(0, 1)).swapaxes(0, 1), 32), 2**16)
            if o == 4:
                coarse = low = low[:h, :w]
        # 7: all octaves by turns, and a cell's 16 by 16 places of each colour are the innermost of its channels.
        for octave in found[1:]:
            coarse = by_turns(coarse, octave)
        cells = coarse.reshape(h, 16, w, 16, self.channels).transpose(0, 2, 4, 1, 3)
        return np.concatenate(self.symbols).astype("<i4"), cells.reshape(h, w, -1)


def mirrored(x):
    """5.2: [h, w, C] with a row above and below it and a column on either side."""
    rows, columns = ([min(1, n - 1), *range(n), max(n - 2, 0)] for n in x.shape[:2])
    return x[rows][:, columns]


def magnitudes(x):
    """5.2: x, then its magnitudes, along the channels."""
    return np.concatenate([x, np.abs(x)], axis=-1)


def unshuffle(x, n):
    """Undo shuffle: [n * h, n * w, C] -> [h, w, n * n * C]."""
    h, w, c = x.shape[0] // n, x.shape[1] // n, x.shape[2]
    return x.reshape(h, n, w, n, c).transpose(0, 2, 1, 3, 4).reshape(h, w, n * n * c)


def by_turns(low, u):
    """5.4: a low-pass picture [H, W, C] and an octave [H, W, 3C] -> [2H, 2W, C]."""
    return shuffle(np.concatenate([low, u], axis=-1), 2)


def filtered(z):
    """5.4: each column of z [n, ...], i64, filtered with TAPS."""
    n = len(z)
    out = np.zeros_like(z)
    for m in range(n):
        for j in range(-4, 5):
            other = abs(m + j) % (2 * n - 2)
            other = min(other, 2 * n - 2 - other)
            out[m] += TAPS[other % 2][abs(j)] * z[other]
    return out


def joined(z):
    """7: each column of z [n, ...], f32, of even and odd coefficients by turns, to samples."""
    e, f = np.float32(FACTORS[0]) * z[::2], np.float32(FACTORS[1]) * z[1::2]
    e = e + np.float32(FACTORS[2]) * (np.concatenate([f[:1], f[:-1]]) + f)
    f = f + np.float32(FACTORS[3]) * (e + np.concatenate([e[1:], e[-1:]]))
    e = e + np.float32(FACTORS[4]) * (np.concatenate([f[:1], f[:-1]]) + f)
    f = f + np.float32(FACTORS[5]) * (e + np.concatenate([e[1:], e[-1:]]))
    return np.stack([e, f], axis=1).reshape(z.shape)


def wavelet_samples(x, channels):
    """7: p, f32[16 h, 16 w, C], of x, f32[h, w, 256 C]."""
    h, w, _ = x.shape
    low = x.reshape(h, w, channels, 16, 16).transpose(0, 3, 1, 4, 2).copy().reshape(16 * h, 16 * w, channels)
    for n in (8, 4, 2, 1):
        low[::n, ::n] = joined(joined(low[::n, ::n].swapaxes(0, 1)).swapaxes(0, 1))
    return low @ turn_of(channels)


def turn_of(channels):
    """7: T, f32[C, C]."""
    if channels == 3:
        turn = np.array([[1, 1, 1], [1, 0, -1], [-1, 2, -1]]) / np.sqrt([[3], [2], [6]])
    else:
        k, c = np.indices((channels, channels))
        turn = np.sqrt(2 / channels) * np.cos(np.pi * (2 * c + 1) * k / (2 * channels))
        turn[0] /= np.sqrt(2)
    return turn.astype(np.float32)


def apart(plane, down, along):
    """7.1: f32[H, W] so many rows and columns further, mirrored at the borders."""
    places = []
    for side, far in zip(plane.shape, (down, along), strict=True):
        at = np.abs(np.arange(side) + far) % (2 * side - 2)
        places.append(np.minimum(at, 2 * side - 2 - at))
    return plane[np.ix_(*places)]


def around(plane, far):
    """7.1: h, v and d of each sample of f32[H, W], at a distance: f32[3, H, W]."""
    ways = [(0, far), (0, -far)], [(far, 0), (-far, 0)], [(i, j) for i in (far, -far) for j in (far, -far)]
    return np.stack([sum(apart(plane, *one) - plane for one in way) for way in ways])


def smoothed(plane, far):
    """7.1: m of f32[H, W], with e = far."""
    for axis in (0, 1):
        way = (far, 0) if axis == 0 else (0, far)
        plane = (apart(plane, *way) + 2 * plane + apart(plane, -way[0], -way[1])) / 4
    return plane


def restored(q, weights, s):
    """7.1: f32[16 h, 16 w, C] of q, likewise, with the filter's bytes; s is a quantisation step on the scale of q."""
    channels, classes = q.shape[2], 1 << weights[0]
    turn = turn_of(channels)
    a = np.moveaxis(q @ turn.T, -1, 0)
    numbers = np.frombuffer(weights, np.int8, offset=1).astype(np.float32)
    first, others = numbers[: 10 * classes].reshape(classes, 10), numbers[10 * classes :].reshape(-1, 2) / 512
    sums = np.concatenate([around(a[0], far) for far in (1, 2, 3)])
    made = [np.tensordot(one[1:] / 2 ** one[0], sums, 1) for one in first]
    activity = smoothed(smoothed(np.abs(a[0] - smoothed(a[0], 1)), 1), 2)
    b = np.zeros_like(a)
    b[0] = made[0]
    for limit, (low, high) in zip({1: (), 2: (6,), 4: (2, 6, 19)}[classes], pairwise(made), strict=True):
        b[0] += np.clip(1.5 * activity / (limit * s / 64) - 1, 0, 1) * (high - low)
    for k in range(1, channels):
        for weight, plane in ((others[0], a[k]), (others[k], a[0])):
            h, v, d = around(plane, 1)
            b[k] += weight[0] * (h + v) + weight[1] * d
    return q + np.moveaxis(b, 0, -1) @ turn


def decode_latents(data, model):
    """Decode and check all tiles of a file: the Header, symbols (a list of i32[n]) and v (i64[h, w, 256C])."""
    header, payloads = read_file(data, model)
    h, w, side = -(-header.height // 16), -(-header.width // 16), header.side
    corners = [(r, c) for r in range(0, h, side) for c in range(0, w, side)]
    values, symbols = np.zeros((h, w, model["latents"]), np.int64), []
    for number, ((r, c), payload, (_, crc)) in enumerate(zip(corners, payloads, header.tiles, strict=True)):
        tile, v = decode_tile(payload, min(side, h - r), min(side, w - c), header.step, model)
        require(zlib.crc32(tile.tobytes()) == crc, f"tile {number}: wrong CRC of its symbols")
        values[r : r + side, c : c + side] = v
        symbols.append(tile)
    return header, symbols, values


def decode_symbols(data, model):
    """The symbols of each tile of a file (bytes), in coding order: a list of i32[n]."""
    return decode_latents(data, model)[1]


def synthesis(values, header, model):
    """Section 7: turn v (i64[h, w, 256C]) into u8[height, width, C] in f32, the whole picture at once."""
    net, config = Layers(model, "weights/synthesis/", exact=False), model["config"]
    k = min(header.step // 128, 6)
    part = np.float32(header.step / 128 - k)

    def vector(name):
        anchors = model["tensors"][f"anchors/{name}"]
        return np.exp((1 - part) * anchors[k] + part * anchors[k + 1])

    x = values.astype(np.float32) / 64 * vector("inverse_gain")
    p = wavelet_samples(x, config["channels"])
    t = net.dense("latents", x)
    for i in range(config["coarse_blocks"]):
        t = net.block(f"coarse{i}", t)
    t = (shuffle(net.dense("coarse", t)) + net.dense("skip", unshuffle(p, 8))) * vector("synthesis/fine")
    for i in range(config["fine_blocks"]):
        t = net.block(f"fine{i}", t)
    p = p + shuffle(net.dense("fine", t * vector("synthesis/out")), 8)
    return pixels(p, header, vector("inverse_gain")[0] if header.filter else None)


def pixels(p, header, gain=None):
    """Section 7: u8[height, width, C] of p, f32[16 h, 16 w, C]; 7.1 with the gain of channel 0."""
    q = 255 * p if gain is None else restored(255 * p, header.filter, 255 * gain)
    return np.clip(np.floor(q + 128), 0, 255).astype(np.uint8)[: header.height, : header.width]


def decode(data, model):
    """The picture in a file (bytes): u8 or u16 [height, width, channels], 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA.

    Of a model of other channels than 1 or 3, these.
    """
    if data[12:16] == b"PICT":
        return read_pict(data)
    header, _, values = decode_latents(data, model)
    chunks = dict(read_chunks(data))
    return beside(synthesis(values, header, model), b"grey" in chunks, chunks.get(b"ALPH"))


def beside(colours, grey, alpha):
    """Section 1: u8[height, width, 1 to 4] of colours u8[height, width, 3], grey or not, and the payload of ALPH."""
    height, width = colours.shape[:2]
    if grey and colours.shape[2] == 3:
        colours = (colours.astype(np.int64).sum(2, keepdims=True) + 1) // 3
    if alpha is not None:
        alpha = read_samples(alpha, height, width, 1, 8)
        colours = np.concatenate([np.where(alpha == 0, 0, colours), alpha], 2)
    return colours.astype(np.uint8)


def read_stored(data):
    """Section 9: the name (bytes), permissions and time (int or None) and contents (bytes) of a stored file."""
    head, parts, done = None, [], None
    for tag, payload in read_chunks(data, last=b"DONE"):
        require(len(payload) <= 2**20, f"chunk {tag!r} is longer than 2^20 bytes")
        require((tag == b"FILE") == (head is None), "FILE is not the first chunk, or not the only one")
        if tag == b"FILE":
            # As with HEAD, the version comes before the length.
            version = payload[0] if payload else None
            require(version == 1, f"version {version} of the format is not supported")
            require(len(payload) >= 14, "FILE: too short")
            _, flags, method, reserved, mode, time = head = struct.unpack_from("<BBBBHq", payload)
            name = payload[14:]
            require(flags <= 3 and reserved == 0, "FILE: unknown flags, or the reserved byte is not 0")
            require(method == 1, f"method {method} of storing is not known")
            require(mode <= 0o777 and (flags & 1 or not mode) and (flags & 2 or not time), "FILE: permissions or time")
            legal = len(name) <= 255 and name not in (b".", b"..") and b"/" not in name and b"\0" not in name
            require(legal, f"FILE: the name {name!r} is none")
        elif tag == b"PART":
            parts.append(payload)
        elif tag == b"DONE":
            require(len(payload) == 12, "DONE: not of 12 bytes")
            done = struct.unpack("<QI", payload)
        else:
            require(b"a" <= tag[:1] <= b"z", f"chunk {tag!r} is unknown or not in its place")
    contents = inflated(b"".join(parts), 23)
    require(done == (len(contents), zlib.crc32(contents)), "the size or the CRC of the file does not match")
    return name, mode if flags & 1 else None, time if flags & 2 else None, contents


def inflated(frames, window=27):
    """What Zstandard frames (bytes), end to end, hold; none may need a window of more than 2^window bytes."""
    try:
        from compression import zstd
    except ImportError:  # before Python 3.14
        from backports import zstd
    return zstd.decompress(frames, options={zstd.DecompressionParameter.window_log_max: window}) if frames else b""


def main(arguments):
    """Decode a file from the command line."""
    if len(arguments) not in (2, 3):
        sys.exit(__doc__)
    data = Path(arguments[1]).read_bytes()
    if data[12:16] == b"FILE":
        name, _, _, contents = read_stored(data)
        print(name)
        if len(arguments) == 3:
            Path(arguments[2]).write_bytes(contents)
        return
    model = read_model(arguments[0])
    if data[12:16] != b"PICT":
        for tile in decode_symbols(data, model):
            print(f"{zlib.crc32(tile.tobytes()):08x}")
    if len(arguments) == 3:
        picture = decode(data, model)
        height, width, channels = picture.shape
        kinds = dict(enumerate(("GRAYSCALE", "GRAYSCALE_ALPHA", "RGB", "RGB_ALPHA"), 1))
        kind = kinds.get(channels, "CHANNELS")
        head = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL {256**picture.itemsize - 1}\n"
        samples = picture.astype(f">u{picture.itemsize}").tobytes()
        Path(arguments[2]).write_bytes(f"{head}TUPLTYPE {kind}\nENDHDR\n".encode() + samples)


if __name__ == "__main__":
    main(sys.argv[1:])
