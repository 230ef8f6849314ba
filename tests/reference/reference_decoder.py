"""A second decoder of the vaecodec format, written from docs/reference/format.md alone.

It shows that the document is complete, and reveals where the package differs from it. It prefers simplicity to speed,
shares no code with the package, and needs only NumPy, Pillow for WebP and AVIF payloads, and Zstandard for stored
files. Section numbers and names of one letter are those of the document. All arithmetic is in 64-bit integers, reduced
modulo 2^32 where the document requires it. Matrix products use float64, which is exact because no sum reaches 2^53.

    python tests/reference_decoder.py model.vcm in.vae [out.pam]

This prints the CRCs of each tile's symbols and pixels and writes the image as a Netpbm PAM. For a stored file, it
prints the name and writes the contents.
"""

import hashlib
import io
import json
import struct
import sys
import zlib
from bisect import bisect_right
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC = b"\x89VAE\r\n\x1a\n"
TYPES = {"I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "|u1", "U32": "<u4", "F32": "<f4"}
ENCODER_ONLY = ("analysis/", "gains/analysis/", "eye/analysis/", "eye/gains/analysis/", "calibration/", "start/")
PREFIXES = ("prior/", "levels/", "tables/", "synthesis/", "gains/", *ENCODER_ONLY)
FIELDS = ("channels", "coarse", "coarse_blocks", "coarser", "fine", "fine_blocks", "hyper_width", "prior")
UNIT = 2**24
LEVELS, ANCHORS = 113, 8
BESIDE = b"deep", b"ALPH"
SKIPPED = 1024  # the largest number of unknown chunks


def require(condition, message):
    """Raise ValueError with `message` unless `condition` holds."""
    if not condition:
        raise ValueError(message)


def read_tensors(path):
    """Section 6: read a model file and check its id; return `tensors` {name: array}, `config` and `id` (16 bytes)."""
    data = Path(path).read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    require(8 <= start <= min(len(data), 8 + 2**20) and len(data) <= 2**27, "model: its header or it is too long")
    entries, tensors = json.loads(data[8:start]), {}
    metadata = {key: json.loads(text) for key, text in entries.pop("__metadata__", {}).items()}
    require(metadata.get("format") == 1, f"model: format {metadata.get('format')} is not 1")
    for name, entry in entries.items():
        require(entry["dtype"] in TYPES, f"model: {name} has the unknown type {entry['dtype']}")
        part = data[start + entry["data_offsets"][0] : start + entry["data_offsets"][1]]
        tensors[name] = np.frombuffer(part, TYPES[entry["dtype"]]).reshape(entry["shape"])
    digest = hashlib.sha256(json.dumps([1, metadata["config"]], sort_keys=True).encode())
    for name, array in sorted(tensors.items()):
        if not name.startswith(ENCODER_ONLY):
            digest.update(json.dumps([name, array.dtype.str, list(array.shape)]).encode() + array.tobytes())
    model = {"tensors": tensors, "config": metadata["config"], "id": digest.digest()[:16]}
    require(metadata["id"] == model["id"].hex(), f"model: its id {metadata['id']} is not that of its contents")
    return model


def read_model(path):
    """Section 6: read and check a model of images; add `scales` (K) and `bounds`."""
    model = read_tensors(path)
    config, tensors = model["config"], model["tensors"]
    require(sorted(config) == list(FIELDS), "model: its config has other fields")
    require(all(type(config[name]) is int and 1 <= config[name] <= 4096 for name in FIELDS), "model: its config")
    require(config["channels"] <= 16, "model: its channels")
    unprefixed = ("companding", "centroids")
    require(
        all(name in unprefixed or name.startswith(PREFIXES) for name in tensors), "model: a tensor of an unknown name"
    )
    tensor = checked_tensor(tensors)
    channels, count = config["channels"], len(tensors["tables/low"])
    require(3 <= count <= 257, f"model: {count} tables")
    model["scales"] = count - 1
    model["bounds"] = table_bounds(tensor, count)

    tensor("levels/bias", "<i4", (LEVELS, config["prior"] + 4 * config["coarser"]), -(2**20), 2**20)
    tensor("levels/lowest", "<i4", (LEVELS, 4 * config["hyper_width"]), -(2**20), 2**20)
    tensor("levels/start", "<i4", (LEVELS, 2 * channels), -(2**16), 2**16)
    tensor("levels/inverse_gain", "<i4", (LEVELS, 15 * channels), 1, 2**13)
    tensor("centroids", "|i1", (count - 1, 4))
    steps = tensor("companding", "<i4", tensors["companding"].shape, 1, 2**16)
    require(steps.ndim == 1 and 1 <= len(steps) <= 1023 and (np.diff(steps) > 0).all(), "model: companding")
    tensor("gains/coefficients", "<i4", (ANCHORS, 13 * channels), -(20 * 2**12), 6 * 2**12 - 1)
    for position in ("fine", "out"):
        tensor(f"gains/synthesis/{position}", "<i4", (ANCHORS, config["fine"]), -(20 * 2**12), 20 * 2**12)
    for name, shape, unrounded in layers_of(config):
        check_layer(tensor, name, shape, unrounded)
    return model


def checked_tensor(tensors):
    """Return a function that checks the type, shape and range of a named tensor and returns it."""

    def tensor(name, kind, shape, least=None, most=None):
        require(name in tensors, f"model: there is no {name}")
        array = tensors[name]
        require(array.dtype.str == kind and array.shape == shape, f"model: {name} is {array.dtype.str} {array.shape}")
        if least is not None:
            require(least <= array.min() and array.max() <= most, f"model: {name} is out of range")
        return array

    return tensor


def layers_of(config):
    """Section 6: yield name, shape of the kernel, and whether sums are used unrounded, for every layer of a decoder."""
    channels, hidden, fine, coarse = (config[name] for name in ("channels", "hyper_width", "fine", "coarse"))
    for i in range(4):
        yield f"prior/lowest/{i}/in", (10 * channels, hidden), False
        yield f"prior/lowest/{i}/middle", (hidden, hidden), False
        yield f"prior/lowest/{i}/out", (hidden, 2 * channels), True
    for o in range(5):
        name, width = f"prior/context/{o}", config["coarser" if o else "prior"]
        yield f"{name}/in", (14 * channels + (8 if o < 4 else 0), width), False
        yield from block_layers(f"{name}/block", width)
        yield f"{name}/first", (width, 12 * channels), True
        yield f"{name}/known", (12 * channels, width), False
        yield from block_layers(f"{name}/after", width)
        yield f"{name}/second", (width, 12 * channels), True
        if o:
            yield f"{name}/pass", (width, 32), False
    yield "synthesis/latents", (256 * channels, coarse), False
    for i in range(config["coarse_blocks"]):
        yield from block_layers(f"synthesis/coarse{i}", coarse)
    yield "synthesis/coarse", (coarse, 4 * fine), False
    yield "synthesis/skip", (64 * channels, fine), False
    for i in range(config["fine_blocks"]):
        yield from block_layers(f"synthesis/fine{i}", fine)
    yield "synthesis/fine", (fine, 64 * channels), False


def block_layers(name, width):
    """Section 5.1: yield the layers of a block, as layers_of does."""
    yield f"{name}/in", (width, width), False
    yield f"{name}/space", (3, 3, width), False
    yield f"{name}/out", (width, width), False
    yield f"{name}/gate", (width, 2 * width), False
    yield f"{name}/mix", (width, width), False


def check_layer(tensor, name, shape, unrounded):
    """Section 6: check types and shapes of a layer, and that none of its sums can reach 2^31."""
    outputs = shape[-1:]
    kernel, bias = tensor(f"{name}/kernel", "<i2", shape), tensor(f"{name}/bias", "<i4", outputs)
    shift, limit = np.full(outputs, 9), 1023
    if name.startswith("synthesis/"):
        shift, limit = tensor(f"{name}/shift", "|u1", outputs, 0, 30).astype(np.int64), 32767
    sums = np.abs(kernel.astype(np.int64)).reshape(-1, *outputs).sum(0) * limit + np.abs(bias.astype(np.int64))
    rounding = 2**11 if unrounded else 1 << shift >> 1
    require((sums + rounding).max() < 2**31, f"model: sums of {name} can reach 2^31")


def table_bounds(tensor, count):
    """Section 4: return the sums of the first 0, 1, ... frequencies of each of `count` tables, as lists of int."""
    start = tensor("tables/start", "<i8", (count + 1,))
    low = tensor("tables/low", "<i4", (count,), -65535, 65535).astype(np.int64)
    require(start[0] == 0 and np.diff(start).min() >= 2 and np.diff(start).max() <= 2**16, "model: starts of tables")
    freq = tensor("tables/freq", "<u4", (int(start[-1]),), 1, UNIT).astype(np.int64)
    bounds = [[0, *np.cumsum(freq[a:b]).tolist()] for a, b in pairwise(start)]
    require(all(table[-1] == UNIT for table in bounds), "model: the frequencies of a table do not sum to 2^24")
    require(bounds[-1] == list(range(0, UNIT + 1, UNIT // 256)) and low[-1] == 0, "model: the last table")
    require((low + np.diff(start) - 2).max() <= 65535, "model: a table reaches beyond 65535")
    return bounds


class Header(NamedTuple):
    """The fields of HEAD: `side` is the side of a tile in cells; `tiles` lists length, symbol CRC and pixel CRC.

    `filter` holds the bytes of the filter of section 7.6, or is empty.
    """

    height: int
    width: int
    quality_index: int
    side: int
    tiles: list
    channels: int
    filter: bytes
    tilt: int
    by_band: bool


def read_chunks(data, last=b"DATA"):
    """Section 2: yield tag and payload of each chunk up to `last`, after which the file must end."""
    require(data[:8] == MAGIC, "not a vaecodec file: wrong magic")
    start, tag = 8, None
    while tag != last:
        # Check the room for length, tag and CRC first, because the reads below must stay within the file.
        end = start + 8 + int.from_bytes(data[start : start + 4], "little")
        require(start + 12 <= len(data) and end + 4 <= len(data), f"the file is cut off in the chunk at byte {start}")
        tag, payload = data[start + 4 : start + 8], data[start + 8 : end]
        crc = int.from_bytes(data[end : end + 4], "little")
        require(zlib.crc32(data[start + 4 : end]) == crc, f"chunk {tag!r}: wrong CRC")
        yield tag, payload
        start = end + 4
    require(start == len(data), f"bytes after {last!r}")


def read_header(payload, model):
    """Section 2.2: parse and check the payload of HEAD."""
    # A later version may have another layout, so the version is checked before the length.
    version = payload[0] if payload else None
    require(version == 1, f"version {version} of the format is not supported")
    require(len(payload) >= 30, "HEAD: too short")
    _, flags, name, height, width, index, tile, channels = struct.unpack_from("<BB16sIIHBB", payload)
    require(flags < 32 and channels <= 16 and channels != 3, f"HEAD: flags {flags} or channels {channels}")
    channels = channels or 3
    require(name == model["id"], f"the file needs the model {name.hex()}, not {model['id'].hex()}")
    expected = model["config"]["channels"]
    require(channels == expected, f"HEAD: {channels} channels, and the model has {expected}")
    require(1 <= height <= UNIT and 1 <= width <= UNIT, f"HEAD: {height} by {width} pixels")
    require(index <= 1232 and 6 <= tile <= 12, f"HEAD: quality index {index} or tile {tile} is out of range")
    count = -(-height >> tile) * -(-width >> tile)
    filter_bytes = payload[30 + 12 * count :]
    require(len(payload) >= 30 + 12 * count, f"HEAD: not of the length that {count} tiles need")
    if flags & 1:
        require(filter_bytes and filter_bytes[0] < 3, "HEAD: no filter, or one of unknown classes")
        classes = 1 << filter_bytes[0]
        require(
            len(filter_bytes) == 1 + 10 * classes + (2 * channels if channels > 1 else 0), "HEAD: the filter's length"
        )
        require(max(filter_bytes[1 + 10 * k] for k in range(classes)) < 16, "HEAD: a shift of the filter is above 15")
    else:
        require(not filter_bytes, f"HEAD: not of the length that {count} tiles need")
    entries = struct.iter_unpack("<II", payload[30 : 30 + 8 * count])
    pixels = struct.unpack_from(f"<{count}I", payload, 30 + 8 * count)
    tiles = [(length, crc, pixel_crc) for (length, crc), pixel_crc in zip(entries, pixels, strict=True)]
    return Header(height, width, index, 1 << (tile - 4), tiles, channels, filter_bytes, flags >> 1 & 7, flags > 15)


def read_file(data, model):
    """Section 2: return the Header of a file and the payload (bytes) of each tile."""
    chunks, previous = read_chunks(data), []
    tag, payload = next(chunks)
    require(tag == b"HEAD", f"the first chunk is {tag!r}, not HEAD")
    header = read_header(payload, model)
    for tag, payload in chunks:
        check_tag(tag, payload, previous, {3: (b"grey", *BESIDE), 1: BESIDE}.get(header.channels, ()))
    ends = np.cumsum([0] + [length for length, _, _ in header.tiles]).tolist()
    require(ends[-1] == len(payload), f"DATA has {len(payload)} bytes, its tiles {ends[-1]}")
    return header, [payload[a:b] for a, b in pairwise(ends)]


def check_tag(tag, payload, previous, allowed):
    """Section 2.1: check a chunk after the first, and append its tag to `previous`; tags in `allowed` are valid too."""
    is_known = tag in (b"iccp", b"exif", b"xmp_", b"phys", b"DATA", *allowed)
    unknown = b"a" <= tag[:1] <= b"z" and tag not in (b"grey", b"deep")
    require(is_known or unknown, f"chunk {tag!r} is unknown or not in its place")
    require(not (is_known and tag in previous), f"chunk {tag!r} occurs twice")
    require(tag != b"grey" or not payload, "chunk grey is not empty")
    require(tag != b"deep" or (len(payload) == 1 and 9 <= payload[0] <= 16), "chunk deep gives no depth of 9 to 16")
    previous.append(tag if is_known else None)
    require(previous.count(None) <= SKIPPED, "too many unknown chunks")


def read_pict(data):
    """Section 2.3: decode a file that begins with PICT to samples, u8 or u16 [height, width, channels]."""
    chunks, previous, payloads = read_chunks(data), [], {}
    tag, payload = next(chunks)
    require(tag == b"PICT", f"the first chunk is {tag!r}, not PICT")
    version = payload[0] if payload else None
    require(version == 1, f"version {version} of the format is not supported")
    coding = payload[1] if len(payload) > 1 else None
    require(coding in (0, 1, 2), f"PICT: coding {coding} is unknown")
    require(len(payload) == (15 if coding == 2 else 12), "PICT: wrong length")
    _, _, channels, depth, height, width = struct.unpack_from("<BBBBII", payload)
    depths = ((8, 16), (8,), range(8, 17))[coding]
    require(1 <= channels <= 4 and depth in depths, "PICT: channels or depth out of range")
    require(1 <= height <= UNIT and 1 <= width <= UNIT, f"PICT: {height} by {width} pixels")
    tail = payload[12:]
    for tag, payload in chunks:
        check_tag(tag, payload, previous, (b"ALPH",))
        payloads[tag] = payload
    require((b"ALPH" in payloads) == (coding > 0 and channels in (2, 4)), "ALPH is missing or not in its place")
    if coding == 0:
        return read_samples(payloads[b"DATA"], height, width, channels, depth)
    if coding == 2:
        colours = read_adaptive_tiles(payloads[b"DATA"], height, width, 1 if channels < 3 else 3, depth, *tail)
        if channels in (1, 3):
            return colours
        alpha = read_samples(payloads[b"ALPH"], height, width, 1, 8 if depth == 8 else 16)
        return np.concatenate([colours, alpha], 2)
    from PIL import Image

    image = Image.open(io.BytesIO(payloads[b"DATA"]), formats=["AVIF"])
    require(image.size == (width, height), "the AVIF is not of the image's size")
    return assemble_samples(np.asarray(image.convert("RGB")), channels < 3, payloads.get(b"ALPH"))


def read_adaptive_tiles(data, height, width, channels, depth, bound, tile, expansion):
    """Section 2.8: decode the tiles of coding 2 to u8 or u16 [height, width, channels]."""
    require(bound <= 16 and 6 <= tile <= 12, f"PICT: bound {bound} or tile {tile} is out of range")
    require(expansion <= (2 if depth == 16 else 0), f"PICT: expansion {expansion} to {depth} bits")
    from reference import reference_adaptive

    image = np.empty((height, width, channels), np.uint8 if depth == 8 else np.uint16)
    start, side = 0, 1 << tile
    for top in range(0, height, side):
        for left in range(0, width, side):
            place = image[top : top + side, left : left + side]
            sizes = np.frombuffer(data[start + 16 : start + 16 + 4 * channels], "<u4")
            end = start + 16 + 4 * channels + int(sizes.sum())
            size = struct.unpack_from("<II", data, start + 8) if len(data) >= start + 16 else ()
            require(
                (*size, *data[start + 5 : start + 6]) == place.shape, "a tile of another size or number of channels"
            )
            samples, coded_depth, tile_bound = reference_adaptive.decode(data[start:end])
            require(tile_bound == bound, "a tile of another bound")
            require(coded_depth < 16 if expansion else coded_depth == depth, "a tile of another depth")
            samples, most = samples.astype(np.int64), 2**coded_depth - 1
            place[...] = (
                samples,
                samples << (16 - coded_depth),
                (65535 * samples + most // 2) // most,
            )[expansion]
            start = end
    require(start == len(data), "bytes follow the last tile")
    return image


def read_samples(payload, height, width, channels, depth):
    """Section 2.9: decode a lossless payload to u8 or u16 [height, width, channels]."""
    from PIL import Image

    file = payload[4:]
    if file.startswith(b"\x89PNG"):
        require(file[16:24] == struct.pack(">II", width, height), "the PNG is not of the image's size")
        colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
        require((file[24], file[25]) == (depth, colour_type), "the PNG is not of the channels and depth of the header")
        samples = read_png(file, height, width, channels, depth)
    elif file.startswith(b"\x4c"):
        from reference import reference_adaptive

        require(struct.unpack_from("<II", payload, 8) == (height, width), "the payload is not of the image's size")
        samples, coded_depth, bound = reference_adaptive.decode(payload)
        require((samples.shape[2], bound) == (channels, 0), "the payload has other channels, or a bound")
        require((coded_depth > 8) == (depth > 8), "the payload is not of the image's depth")
    else:
        require(depth == 8, "samples of 16 bits are a PNG")
        image = Image.open(io.BytesIO(file), formats=["WEBP"])
        require(image.size == (width, height), "the WebP is not of the image's size")
        rgba = np.asarray(image.convert("RGBA"))
        samples = rgba[..., {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]]
    crc = zlib.crc32(samples.astype(f"<u{depth // 8}").tobytes())
    require(crc == int.from_bytes(payload[:4], "little"), "wrong CRC of the samples")
    return samples


def read_png(file, height, width, channels, depth):
    """ISO/IEC 15948, clauses 7 to 10: decode a PNG without interlacing to u8 or u16 [height, width, channels]."""
    start, compressed = 8, b""
    while start < len(file):
        length = int.from_bytes(file[start : start + 4], "big")
        tag = file[start + 4 : start + 8]
        require(tag != b"IHDR" or file[start + 20] == 0, "this reference reads no interlaced PNG")
        compressed += file[start + 8 : start + 8 + length] if tag == b"IDAT" else b""
        start += 12 + length
    pixel_bytes = channels * depth // 8
    lines = np.frombuffer(zlib.decompress(compressed), np.uint8).reshape(height, 1 + width * pixel_bytes)
    previous_row, image_rows = [0] * (pixel_bytes + width * pixel_bytes), []
    for line in lines.tolist():
        row = [0] * pixel_bytes
        for position, value in enumerate(line[1:]):
            a, b, c = row[position], previous_row[pixel_bytes + position], previous_row[position]
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            row.append(value + (0, a, b, (a + b) // 2, paeth)[line[0]] & 255)
        previous_row = row
        image_rows.append(row[pixel_bytes:])
    return np.array(image_rows, np.uint8).reshape(height, -1).view(f">u{depth // 8}").reshape(height, width, channels)


class Stack:
    """Section 4: the state, below 2^64, and the words below it, as Python ints."""

    def __init__(self, payload):
        """Start from a tile's payload (bytes)."""
        require(len(payload) % 4 == 0, "a payload is not a whole number of words")
        self.words = [word for (word,) in struct.iter_unpack("<I", payload)]
        require(not self.words or self.words[-1] != 0, "the last word of a payload is 0")
        self.state = 0
        for _ in range(min(2, len(self.words))):
            self.state = self.state << 32 | self.words.pop()

    def take(self, bounds):
        """Pop one entry (int) of the table with these `bounds`."""
        q = self.state & (UNIT - 1)
        entry = bisect_right(bounds, q) - 1
        lower_bound = bounds[entry]
        self.state = (self.state >> 24) * (bounds[entry + 1] - lower_bound) + q - lower_bound
        if self.state < 2**32 and self.words:
            self.state = self.state << 32 | self.words.pop()
        return entry


def take_number(stack, model):
    """Section 3.3: pop the 4 bytes of an i32, and return it as int."""
    return int.from_bytes(bytes(stack.take(model["bounds"][-1]) for _ in range(4)), "little", signed=True)


def take_coded(stack, indices, model, offset=0):
    """Section 3.3: pop the symbols of a part, given their table indices (i64[n]).

    Return the symbols (i64[n]), and the positions of the coded symbols in the order of coding.
    """
    bounds, low = model["bounds"], model["tensors"]["tables/low"].tolist()
    symbols, escapes = np.zeros(indices.size, np.int64), []
    order = np.argsort(indices, kind="stable")  # stable: symbols of the same table stay in the order of the part
    order = order[np.count_nonzero(indices == 0) :]
    for position, table in zip(order.tolist(), indices[order].tolist(), strict=True):
        table = min(max(table + offset, 1), model["scales"] - 1) if offset else table
        entry = stack.take(bounds[table])
        if entry == len(bounds[table]) - 2:
            escapes.append(position)
        symbols[position] = low[table] + entry
    for position in escapes:
        symbols[position] = take_number(stack, model)
        require(abs(symbols[position]) <= 65535, "a symbol is beyond +-65535")
    return symbols, order


def take_outliers(stack, indices, model):
    """Section 3.4: pop the outliers of a part as pairs of position and symbol."""
    flag = take_coded(stack, np.array([1]), model)[0][0]
    require(flag in (0, 1), "the outlier flag is neither 0 nor 1")
    outliers, previous = [], -1
    if flag:
        count = take_number(stack, model)
        require(1 <= count <= np.count_nonzero(indices == 0), f"{count} outliers are none, or too many")
        for _ in range(count):
            position, symbol = take_number(stack, model), take_number(stack, model)
            require(previous < position < indices.size and indices[position] == 0, "an outlier has no such place")
            require(symbol != 0 and abs(symbol) <= 65535, "an outlier is 0 or beyond +-65535")
            outliers.append((position, symbol))
            previous = position
    return outliers


def rounded(x, bits):
    """round(x, bits) of integers."""
    return (x + (1 << bits >> 1)) >> bits


def wrapped(x):
    """Integers modulo 2^32, in -2^31..2^31 - 1."""
    return ((x + 2**31) & (2**32 - 1)) - 2**31


def clip(x, limit):
    """Clip integers to +-limit."""
    return np.clip(x, -limit, limit)


def shuffle(x, n):
    """Section 5.1: [h, w, n * n * C] -> [n * h, n * w, C]."""
    h, w, c = x.shape
    return x.reshape(h, w, n, n, c // n**2).transpose(0, 2, 1, 3, 4).reshape(n * h, n * w, c // n**2)


def unshuffle(x, n):
    """Section 5.1: the inverse of shuffle."""
    h, w, c = x.shape[0] // n, x.shape[1] // n, x.shape[2]
    return x.reshape(h, n, w, n, c).transpose(0, 2, 1, 3, 4).reshape(h, w, n * n * c)


class Layers:
    """Section 5.1: the layers whose tensors begin with `prefix`, on cells i64[h, w, channels]."""

    def __init__(self, model, prefix, limit=1023, gate_bits=6):
        """Clip activations to +-limit; without shifts in the model, all shifts are 9."""
        self.tensors = {k.removeprefix(prefix): v for k, v in model["tensors"].items() if k.startswith(prefix)}
        self.limit, self.gate_bits = limit, gate_bits

    def finish(self, name, sums, relu=False):
        """Round and clip the sums of a layer."""
        shift = self.tensors.get(f"{name}/shift", np.array(9)).astype(np.int64)
        return np.clip(rounded(sums, shift), 0 if relu else -self.limit, self.limit)

    def dense_sums(self, name, x):
        """Return the sums of a dense layer at each cell, before rounding."""
        sums = x.astype(np.float64) @ self.tensors[f"{name}/kernel"].astype(np.float64)
        return sums.astype(np.int64) + self.tensors[f"{name}/bias"]

    def dense(self, name, x, relu=False):
        """[h, w, in] -> [h, w, out]."""
        return self.finish(name, self.dense_sums(name, x), relu)

    def depthwise(self, name, x):
        """[h, w, C] -> [h, w, C]."""
        (h, w, _), kernel = x.shape, self.tensors[f"{name}/kernel"].astype(np.int64)
        x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        sums = sum(x[i : i + h, j : j + w] * kernel[i, j] for i in range(3) for j in range(3))
        return self.finish(name, sums + self.tensors[f"{name}/bias"])

    def add(self, x, y):
        """The clipped sum."""
        return clip(x + y, self.limit)

    def scale(self, x, multiplier):
        """The clipped product with a vector in units of 2^-12."""
        return clip(rounded(x * multiplier, 12), self.limit)

    def gate(self, x):
        """[h, w, 2C] -> [h, w, C]."""
        a, b = np.split(x, 2, axis=-1)
        return clip(rounded(np.maximum(a, 0) * b, self.gate_bits), self.limit)

    def block(self, name, x):
        """[h, w, C] -> [h, w, C]."""
        t = self.dense(f"{name}/in", x, relu=True)
        t = self.depthwise(f"{name}/space", t)
        x = self.add(x, self.dense(f"{name}/out", t))
        t = self.gate(self.dense(f"{name}/gate", x))
        return self.add(x, self.dense(f"{name}/mix", t))


class Tile(NamedTuple):
    """The CRC of a tile's symbols (section 3.5), and the values of its octaves 0 to 3 and its low-pass image."""

    crc: int
    octaves: list
    low: np.ndarray


def decode_tile(payload, h, w, quality_index, model, tilt=0, by_band=False):
    """Sections 3 to 5: decode a Tile of h by w cells."""
    return TileDecoder(Stack(payload), quality_index, model, tilt, by_band).decode(h, w)


NEXT_STATE = (0, 2, 5, 6, 1, 3, 4, 7), (1, 3, 4, 7, 0, 2, 5, 6)  # after an even and an odd symbol


class TileDecoder:
    """Sections 3 and 5: decode the symbols and values of a tile."""

    def __init__(self, stack, quality_index, model, tilt=0, by_band=False):
        """Read the scale offsets."""
        self.net, self.stack, self.model = Layers(model, "prior/"), stack, model
        levels = {k[7:]: v for k, v in model["tensors"].items() if k.startswith("levels/")}
        self.level = {name: array[min(quality_index, 896) >> 3].astype(np.int64) for name, array in levels.items()}
        self.channels, self.scales = model["config"]["channels"], model["scales"]
        even = range(0, UNIT + 1, UNIT // 16)
        tilts = np.repeat(tilt_logarithms(tilt), 3 * self.channels)
        gain = rounded(self.level["inverse_gain"] * mantissas(tilts), 13 - (tilts >> 12))
        self.level["inverse_gain"] = np.clip(gain, 1, 2**13)
        signalled = stack.take(even[::8])
        self.offsets, colours = [], min(2, self.channels)
        for part in range(15):
            offset, bands = stack.take(even) - 8 if signalled else 0, []
            if signalled and by_band and part >= 5 and stack.take(even[::8]):
                bands = [stack.take(even[::2]) - 4 + offset for _ in range(3 * colours)]
            self.offsets.append((offset, bands))
        self.crcs = []

    def shifted(self, flat, bands):
        """3.2: table indices i64[n] of half an octave, shifted by the offsets of bands."""
        coefficients = [
            (i + j + b + c, b * min(2, self.channels) + (c > 0))
            for i, j, b, c in product(range(2), range(2), range(3), range(self.channels))
        ]
        half = 1 - len(self.crcs) % 2  # parts 6, 8, ... are first halves
        offsets = [bands[band] for parity, band in coefficients if parity % 2 == half]
        shifted = np.clip(flat + np.resize(offsets, flat.size), 1, self.scales - 1)
        return np.where(flat == 0, 0, shifted)

    def take(self, loc, indices):
        """3.3 to 3.5 and 5.2: decode the next part to values, i64 of the shape of `loc` and `indices`."""
        flat, (offset, bands) = indices.ravel(), self.offsets[len(self.crcs)]
        if bands:
            symbols, order = take_coded(self.stack, self.shifted(flat, bands), self.model)
        else:
            symbols, order = take_coded(self.stack, flat, self.model, offset)
        outliers = take_outliers(self.stack, flat, self.model)
        crc = zlib.crc32(symbols[order].astype("<i4").tobytes())
        for place, symbol in outliers:
            symbols[place] = symbol
            crc = zlib.crc32(struct.pack("<ii", place, symbol), crc)
        limit = 2**17 if len(self.crcs) < 7 else 2**16
        self.crcs.append(crc)
        magnitudes, state, count = 64 * np.abs(symbols), 0, 0
        centroids = self.model["tensors"]["centroids"].tolist()
        for place, (size, index) in enumerate(zip(np.abs(symbols).tolist(), flat.tolist(), strict=True)):
            if not index:
                continue
            if count % 256 == 0:
                state = 0
            quantiser = state % 2
            if size:
                magnitudes[place] = 45 * (2 * size - quantiser) + centroids[index][2 * quantiser + (size > 1)]
            state, count = NEXT_STATE[size % 2][state], count + 1
        return clip((np.sign(symbols) * magnitudes).reshape(indices.shape) + loc, limit)

    def compand(self, v):
        """5.2: values -> activations."""
        return np.sign(v) * np.searchsorted(self.model["tensors"]["companding"], np.abs(v), "right")

    def distribution(self, name, x):
        """5.2: [h, w, in] -> loc and table index, i64[h, w, out / 2]."""
        mean, index = np.split(self.net.dense_sums(name, x), 2, axis=-1)
        return rounded(mean, 7), np.clip(rounded(index, 12), 0, self.scales - 1)

    def lowest(self, h, w):
        """5.3: decode the lowest coefficients, i64[h, w, C]."""
        r, s = np.indices((h, w))
        loc, index = np.split(self.level["start"], 2)
        g = np.zeros((h, w, self.channels), np.int64)
        mask = (r % 4 == 0) & (s % 4 == 0)
        ones = np.ones((np.count_nonzero(mask), 1), np.int64)
        g[mask] = self.take(ones * loc, ones * np.clip(index, 0, self.scales - 1))
        for part, d in enumerate((2, 2, 1, 1)):
            if part % 2 == 0:
                mask, offsets = (r % (2 * d) == d) & (s % (2 * d) == d), [(-d, -d), (-d, d), (d, -d), (d, d)]
            else:
                mask = (r % d == 0) & (s % d == 0) & ((r // d + s // d) % 2 == 1)
                vertical, horizontal = [(-d, 0), (d, 0)], [(0, -d), (0, d)]
                offsets = (vertical if h > d else horizontal) + (horizontal if w > d else vertical)
            positions = np.argwhere(mask)
            neighbours = []
            for offset in offsets:
                neighbour_positions = positions + offset
                neighbour_positions = np.where(
                    (neighbour_positions < 0) | (neighbour_positions >= (h, w)), positions - offset, neighbour_positions
                )
                neighbours.append(g[neighbour_positions[:, 0], neighbour_positions[:, 1]])
            neighbours = np.stack(neighbours, axis=1)
            b = rounded(neighbours.sum(axis=1), 2)
            x = np.concatenate([(neighbours - b[:, None]).reshape(len(positions), 4 * self.channels), b], axis=-1)
            x = self.net.dense(f"lowest/{part}/in", magnitudes(self.compand(x))[None])
            x = np.maximum(self.net.add(x, np.split(self.level["lowest"], 4)[part]), 0)
            x = self.net.dense(f"lowest/{part}/middle", x, relu=True)
            loc, indices = (array[0] for array in self.distribution(f"lowest/{part}/out", x))
            g[mask] = self.take(loc + b, indices)
        return g

    def octave(self, o, low, p, passed):
        """5.4: decode octave o to values i64[H, W, 3C], given the low-pass image i64[H, W, C] and the parents p.

        Return the values, and the features that the network passes to the next octave. `passed`, [.., .., 8], are
        those of the previous octave.
        """
        height, width, net = *low.shape[:2], self.net
        half_height, half_width = -(-height // 2), -(-width // 2)
        padding = ((0, 2 * half_height - height), (0, 2 * half_width - width), (0, 0))

        padded = mirrored(low)
        neighbour_sum = sum(padded[i : i + height, j : j + width] for i in range(3) for j in range(3)) - low
        d = unshuffle(np.pad(self.compand(low - rounded(neighbour_sum, 3)), padding), 2)
        x = np.concatenate([d, self.compand(p[:half_height, :half_width])], axis=-1)
        x = np.concatenate([x, passed[:half_height, :half_width], np.abs(x)], axis=-1)
        x = net.dense(f"context/{o}/in", x)
        width_of_net = x.shape[-1]
        start = self.model["config"]["prior"] + (o - 1) * width_of_net if o else 0
        x = net.block(f"context/{o}/block", net.add(x, self.level["bias"][start : start + width_of_net]))

        i, j, b, c = np.indices((2, 2, 3, self.channels)).reshape(4, -1)
        inside = unshuffle(np.pad(np.ones((height, width, 3 * self.channels), np.int64), padding), 2)
        v = np.zeros((half_height, half_width, 12 * self.channels), np.int64)

        def take_half(name, x, half):
            """Pop the symbols of a half (bool[12C]) of each square, and store their values in v."""
            loc, indices = self.distribution(name, x)
            v[..., half] = self.take(loc * inside[..., half], indices * inside[..., half])

        first = (i + j + b + c) % 2 == 0
        take_half(f"context/{o}/first", x, first)
        x = net.add(x, net.dense(f"context/{o}/known", magnitudes(self.compand(v[..., first]))))
        x = net.block(f"context/{o}/after", x)
        take_half(f"context/{o}/second", x, ~first)
        passed = shuffle(net.dense(f"context/{o}/pass", x), 2) if o else None
        return shuffle(v, 2)[:height, :width], passed

    def decode(self, h, w):
        """Decode a Tile of h by w cells; its stack must be empty at the end."""
        low = self.lowest(-(-h // 2), -(-w // 2))
        v, octaves = np.zeros((*low.shape[:2], 3 * self.channels), np.int64), []
        passed = v[..., :0]
        for o in (4, 3, 2, 1, 0):
            v, passed = self.octave(o, low, v, passed)
            octaves.insert(0, v)
            if o > 0:
                u = clip(rounded(v * np.split(self.level["inverse_gain"], 5)[o], 10), 2**17)
                low = clip(inverse_octave(rounded(low * 12397, 14), u), 2**17)
            if o == 4:
                coarse = low = low[:h, :w]
        require(self.stack.state == 0 and not self.stack.words, "a tile's stack is not empty at the end")
        return Tile(zlib.crc32(struct.pack("<15I", *self.crcs)), octaves[:4], coarse)


def mirrored(x):
    """5.2: extend [h, w, C] by a mirrored row or column at each side."""
    rows, columns = ([min(1, n - 1), *range(n), max(n - 2, 0)] for n in x.shape[:2])
    return x[rows][:, columns]


def magnitudes(x):
    """5.2: append the magnitudes of x along the channels."""
    return np.concatenate([x, np.abs(x)], axis=-1)


LIFTING = (7266, 14, -1), (7233, 13, -1), (3472, 16, 1), (6497, 12, 1)


def merge(e, f):
    """7.2: merge even and odd coefficients along the first axis to samples."""
    for number, (factor, bits, sign) in enumerate(LIFTING):
        if number % 2 == 0:
            sums = np.concatenate([f[:1], f[:-1]]) + f
            e = wrapped(e + sign * (wrapped(factor * sums + 2 ** (bits - 1)) >> bits))
        else:
            sums = e + np.concatenate([e[1:], e[-1:]])
            f = wrapped(f + sign * (wrapped(factor * sums + 2 ** (bits - 1)) >> bits))
    return np.stack([e, f], axis=1).reshape(2 * len(e), *e.shape[1:])


def inverse_octave(low, u):
    """7.2: merge a low-pass image [H, W, C] and its details [H, W, 3C] to [2H, 2W, C]."""
    across, down, both = np.split(u, 3, axis=-1)
    low_columns, high_columns = merge(low, down), merge(across, both)
    return merge(low_columns.swapaxes(0, 1), high_columns.swapaxes(0, 1)).swapaxes(0, 1)


def logarithms(anchors, quality_index):
    """6.3: interpolate i32[8, n] at the anchors to i64[n] at a quality index."""
    i = min(quality_index, 896)
    k = min(i // 128, 6)
    t, anchors = i - 128 * k, anchors.astype(np.int64)
    return rounded((128 - t) * anchors[k] + t * anchors[k + 1], 7)


def tilt_logarithms(tilt):
    """6.3: what a tilt adds to the logarithms of octaves 0 to 4."""
    return 256 * tilt * np.array([2, 1, 0, -1, -2])


def step_logarithms(model, quality_index, tilt=0):
    """6.3: the logarithms of coefficients."""
    result = logarithms(model["tensors"]["gains/coefficients"], quality_index) - 19 * max(quality_index - 896, 0)
    n = 3 * model["config"]["channels"]
    result[: 4 * n] = np.minimum(result[: 4 * n] + np.repeat(tilt_logarithms(tilt)[:4], n), 6 * 2**12 - 1)
    return result


def mantissas(logarithm):
    """6.3: mantissas i64[n] of logarithms i64[n], or of a single logarithm."""
    return np.rint(2.0 ** (13 + np.asarray(logarithm) % 4096 / 4096)).astype(np.int64)


def multipliers(logarithm):
    """6.3: multipliers i64[n] in units of 2^-12 of logarithms i64[n]."""
    shift = 1 - (logarithm >> 12)
    product = rounded(mantissas(logarithm) << np.maximum(-shift, 0), np.maximum(shift, 0))
    return np.minimum(product, 32767)


def rotation_of(channels):
    """7.3: T, i64[C, C]."""
    if channels == 3:
        return np.array([[9459, 9459, 9459], [11585, 0, -11585], [-6689, 13377, -6689]])
    k, c = np.indices((channels, channels))
    rotation = np.sqrt(2 / channels) * np.cos(np.pi * (2 * c + 1) * k / (2 * channels))
    rotation[0] /= np.sqrt(2)
    return np.rint(2**14 * rotation).astype(np.int64)


def levels(octaves, low, quality_index, model, tilt=0):
    """7.1 to 7.5: synthesise the values of an image to levels i64[16 h, 16 w, C]."""
    config, tensors = model["config"], model["tensors"]
    channels = config["channels"]
    gains = step_logarithms(model, quality_index, tilt)
    mantissa, shift = mantissas(gains), 5 - (gains >> 12)
    planes = [*octaves, low]
    for o, plane in enumerate(planes):
        place = slice(3 * channels * o, 3 * channels * o + plane.shape[2])
        planes[o] = rounded(plane * mantissa[place], shift[place])

    linear = planes[4]
    for o in (3, 2, 1, 0):
        linear = inverse_octave(linear, planes[o])
    samples = clip(wrapped(linear @ rotation_of(channels) + 2**13) >> 14, 32767)

    net = Layers(model, "synthesis/", 32767, 11)
    (h, w), cells = low.shape[:2], []
    for plane in planes:
        n = plane.shape[0] // h
        cells.append(plane.reshape(h, n, w, n, -1).transpose(0, 2, 4, 1, 3).reshape(h, w, -1))
    t = net.dense("latents", clip(wrapped(np.concatenate(cells, axis=-1) + 4) >> 3, 32767))
    for i in range(config["coarse_blocks"]):
        t = net.block(f"coarse{i}", t)
    t = net.add(shuffle(net.dense("coarse", t), 2), net.dense("skip", unshuffle(samples, 8)))
    t = net.scale(t, multipliers(logarithms(tensors["gains/synthesis/fine"], quality_index)))
    for i in range(config["fine_blocks"]):
        t = net.block(f"fine{i}", t)
    t = net.scale(t, multipliers(logarithms(tensors["gains/synthesis/out"], quality_index)))
    return clip(rounded(255 * (samples + shuffle(net.dense("fine", t), 8)), 8), 32767)


def shifted(plane, rows, columns):
    """7.6: shift [H, W] by numbers of rows and columns, mirrored at the borders."""
    indices = []
    for side, distance in zip(plane.shape, (rows, columns), strict=True):
        shifted_index = np.abs(np.arange(side) + distance)
        indices.append(np.minimum(shifted_index, 2 * side - 2 - shifted_index))
    return plane[np.ix_(*indices)]


def neighbour_differences(plane, distance):
    """7.6: h, v and d of each sample of [H, W] at a distance, as [3, H, W]."""
    groups = (
        [(0, distance), (0, -distance)],
        [(distance, 0), (-distance, 0)],
        [(i, j) for i in (distance, -distance) for j in (distance, -distance)],
    )
    return np.stack([sum(shifted(plane, *offset) - plane for offset in group) for group in groups])


def smoothed(plane, distance):
    """7.6: m of [H, W] with e = distance."""
    for offset in ((distance, 0), (0, distance)):
        plane = shifted(plane, *offset) + 2 * plane + shifted(plane, -offset[0], -offset[1])
    return plane


RAMPS = {1: (), 2: (2696,), 4: (8088, 2696, 851)}


def restored(level, weights, logarithm):
    """7.6: filter levels i64[H, W, C]; `logarithm` is that of the gain of the low-pass image."""
    channels, classes = level.shape[2], 1 << weights[0]
    rotation = rotation_of(channels)
    a = np.moveaxis(clip(wrapped(level @ rotation.T + 2**16) >> 17, 4095), -1, 0)
    weight_values = np.frombuffer(weights, np.int8, offset=1).astype(np.int64)
    first, others = weight_values[: 10 * classes].reshape(classes, 10), weight_values[10 * classes :].reshape(-1, 2)
    sums = np.concatenate([neighbour_differences(a[0], distance) for distance in (1, 2, 3)])

    weighted = []
    for shift, *row in first.tolist():
        f = sum(weight * plane for weight, plane in zip(row, sums, strict=True))
        weighted.append(rounded(f, shift - 7) if shift > 7 else wrapped(f << (7 - shift)))
    activity = smoothed(smoothed(np.abs(16 * a[0] - smoothed(a[0], 1)), 1), 2)
    scaled_activity = np.minimum(activity >> 8, 32767)
    total = wrapped((weighted[0] << 8) + 128)
    for ramp, (lower, upper) in zip(RAMPS[classes], pairwise(weighted), strict=True):
        shift = 17 - (-logarithm >> 12)
        product = ramp * int(mantissas(-logarithm))
        slope = min(product >> shift if shift > 0 else product << -shift, 65535)
        share = np.clip((scaled_activity * slope >> 12) - 256, 0, 256)
        total = wrapped(total + share * (upper - lower))

    corrections = [clip(total >> 8, 32767)]
    for k in range(1, channels):
        h, v, d = neighbour_differences(a[k], 1)
        f = others[0, 0] * (h + v) + others[0, 1] * d + others[k, 0] * (sums[0] + sums[1]) + others[k, 1] * sums[2]
        corrections.append(clip(rounded(f, 2), 32767))
    return clip(level + (wrapped(np.stack(corrections, -1) @ rotation + 2**17) >> 18), 32767)


def decode_levels(data, model):
    """Sections 3 to 7.5: return the Header of a file and its levels i64[16 h, 16 w, C]; check the symbols."""
    header, payloads = read_file(data, model)
    h, w, side, channels = -(-header.height // 16), -(-header.width // 16), header.side, header.channels
    octaves = [np.zeros((8 * h >> o, 8 * w >> o, 3 * channels), np.int64) for o in range(4)]
    low = np.zeros((h, w, channels), np.int64)
    corners = [(r, c) for r in range(0, h, side) for c in range(0, w, side)]
    for number, ((r, c), payload, (_, crc, _)) in enumerate(zip(corners, payloads, header.tiles, strict=True)):
        size, rest = (min(side, h - r), min(side, w - c)), (header.quality_index, model, header.tilt, header.by_band)
        tile = decode_tile(payload, *size, *rest)
        require(tile.crc == crc, f"tile {number}: wrong CRC of its symbols")
        for target, source in zip((*octaves, low), (*tile.octaves, tile.low), strict=True):
            n = target.shape[0] // h
            target[n * r : n * r + source.shape[0], n * c : n * c + source.shape[1]] = source
    return header, levels(octaves, low, header.quality_index, model, header.tilt)


def decode_colours(data, model):
    """Sections 3 to 7: the Header of a file, pixels u8[height, width, C] and `fine` i64; check symbols and pixels."""
    header, level = decode_levels(data, model)
    if header.filter:
        gains = step_logarithms(model, header.quality_index)
        level = restored(level, header.filter, int(gains[12 * header.channels]))
    level = level[: header.height, : header.width]
    pixels = np.clip((level + 8192) >> 6, 0, 255).astype(np.uint8)
    side = 16 * header.side
    corners = [(y, x) for y in range(0, header.height, side) for x in range(0, header.width, side)]
    for number, ((y, x), (_, _, crc)) in enumerate(zip(corners, header.tiles, strict=True)):
        tile = pixels[y : y + side, x : x + side]
        require(zlib.crc32(tile.tobytes()) == crc, f"tile {number}: wrong CRC of its pixels")
    return header, pixels, np.clip(level + 8160, 0, 16320)


def symbol_crcs(data, model):
    """Check the symbols of a file, and return the CRC-32 of each tile's symbols."""
    return [crc for _, crc, _ in decode_levels(data, model)[0].tiles]


def decode(data, model):
    """Decode a file to u8 or u16 [height, width, channels]: 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA.

    If the model has other channels than 1 or 3, the samples have the channels of the model.
    """
    if data[12:16] == b"PICT":
        return read_pict(data)
    _, pixels, fine = decode_colours(data, model)
    chunks = dict(read_chunks(data))
    depth = chunks[b"deep"][0] if b"deep" in chunks else 8
    return assemble_samples(pixels if depth == 8 else fine, b"grey" in chunks, chunks.get(b"ALPH"), depth)


def assemble_samples(colours, grey, alpha, depth=8):
    """Sections 2.5 to 2.7: convert [height, width, C] to grey and to a depth if required, and append ALPH."""
    height, width = colours.shape[:2]
    if grey and colours.shape[2] == 3:
        colours = (colours.astype(np.int64).sum(2, keepdims=True) + 1) // 3
    if depth > 8:
        colours = (colours * (2**depth - 1) + 8160) // 16320
    if alpha is not None:
        alpha = read_samples(alpha, height, width, 1, 8 if depth == 8 else 16)
        colours = np.concatenate([np.where(alpha == 0, 0, colours), alpha], 2)
    return colours.astype(np.uint8 if depth == 8 else np.uint16)


def read_stored(data):
    """Section 9: return the name (bytes), permissions and time (int or None) and contents of a stored file."""
    header, parts, done, unknown = None, [], None, 0
    for tag, payload in read_chunks(data, last=b"DONE"):
        require(len(payload) <= 2**20, f"chunk {tag!r} is longer than 2^20 bytes")
        require((tag == b"FILE") == (header is None), "FILE is not the first chunk, or not the only one")
        if tag == b"FILE":
            # As in HEAD, the version is checked before the length.
            version = payload[0] if payload else None
            require(version == 1, f"version {version} of the format is not supported")
            require(len(payload) >= 14, "FILE: too short")
            _, flags, method, reserved, mode, time = header = struct.unpack_from("<BBBBHq", payload)
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
            unknown += 1
            require(b"a" <= tag[:1] <= b"z" and unknown <= SKIPPED, f"chunk {tag!r} is unknown or not in its place")
    contents = inflated(b"".join(parts), 23)
    require(done == (len(contents), zlib.crc32(contents)), "the size or the CRC of the file does not match")
    return name, mode if flags & 1 else None, time if flags & 2 else None, contents


def inflated(frames, window=27):
    """Decompress consecutive Zstandard frames, none of which may need a window of more than 2^window bytes."""
    try:
        from compression import zstd
    except ImportError:  # before Python 3.14
        from backports import zstd
    return zstd.decompress(frames, options={zstd.DecompressionParameter.window_log_max: window}) if frames else b""


def main(arguments):
    """Decode a file from the command line."""
    if len(arguments) not in (2, 3):
        sys.exit(__doc__)
    sys.path.insert(0, str(Path(__file__).parents[1]))  # of reference_adaptive
    data = Path(arguments[1]).read_bytes()
    if data[12:16] == b"FILE":
        name, _, _, contents = read_stored(data)
        print(name)
        if len(arguments) == 3:
            Path(arguments[2]).write_bytes(contents)
        return
    model = read_model(arguments[0])
    if data[12:16] != b"PICT":
        for _, symbols, pixels in decode_colours(data, model)[0].tiles:
            print(f"{symbols:08x} {pixels:08x}")
    if len(arguments) == 3:
        image = decode(data, model)
        height, width, channels = image.shape
        kinds = dict(enumerate(("GRAYSCALE", "GRAYSCALE_ALPHA", "RGB", "RGB_ALPHA"), 1))
        kind = kinds.get(channels, "CHANNELS")
        pam_header = f"P7\nWIDTH {width}\nHEIGHT {height}\nDEPTH {channels}\nMAXVAL {256**image.itemsize - 1}\n"
        samples = image.astype(f">u{image.itemsize}").tobytes()
        Path(arguments[2]).write_bytes(f"{pam_header}TUPLTYPE {kind}\nENDHDR\n".encode() + samples)


if __name__ == "__main__":
    main(sys.argv[1:])
