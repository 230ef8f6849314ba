"""A second decoder of sets of small images, written from docs/reference/sets.md alone to show that it is complete.

python tests/reference/reference_sets.py SET.vae MODEL.vcm OUT.npy
"""

import hashlib
import struct
import sys
import zlib

import numpy as np

from reference.reference_decoder import MAGIC, UNIT, Layers, Stack, read_tensors, require


class ReversibleStack(Stack):
    """The stack of format.md, section 4, with the inverse of `take`."""

    def push(self, bounds, entry):
        """Push one entry of the table with these `bounds`."""
        lower_bound = bounds[entry]
        freq = bounds[entry + 1] - lower_bound
        if self.state >> 40 >= freq:
            self.words.append(self.state & (2**32 - 1))
            self.state >>= 32
        self.state = (self.state // freq << 24) + lower_bound + self.state % freq

    def contents(self):
        """Return all words, including those of the state."""
        words, state = list(self.words), self.state
        top = []
        while state:
            top.append(state & (2**32 - 1))
            state >>= 32
        return words + top


def initial_words(count):
    """Return words 0, 1, 2, ... of the stack before coding."""
    return struct.unpack(f"<{count}I", hashlib.shake_256(b"vaecodec bits back").digest(4 * count))


def unshuffle(x, r):
    h, w, c = x.shape
    return x.reshape(h // r, r, w // r, r, c).transpose(0, 2, 1, 3, 4).reshape(h // r, w // r, r * r * c)


def shuffle(x, r):
    h, w, c = x.shape
    return x.reshape(h, w, r, r, c // r**2).transpose(0, 2, 1, 3, 4).reshape(h * r, w * r, c // r**2)


def neighbours(x):
    h, w, _ = x.shape
    x = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    return np.concatenate([x[i : i + h, j : j + w] for i in range(3) for j in range(3)], -1)


class Model:
    """The networks and frequencies of a model, for one image at a time."""

    def __init__(self, path):
        tensors = read_tensors(path)
        self.id, self.config = tensors["id"], tensors["config"]
        self.net = Layers(tensors, "integer/")
        self.table = {k[9:]: v.astype(np.int64) for k, v in tensors["tensors"].items() if k.startswith("discrete/")}

    def residual(self, name, x, mixing):
        t = self.net.dense(f"{name}/in", x, relu=True)
        if mixing:
            t = self.net.dense(f"{name}/cells", t.reshape(-1, t.shape[-1]).T).T.reshape(t.shape)
        else:
            t = self.net.depthwise(f"{name}/space", t)
        return self.net.add(x, self.net.dense(f"{name}/out", t))

    def posterior(self, image):
        """Return the bounds of q(z | x) for each latent."""
        t = self.net.dense("encoder/in", unshuffle(image[..., None].astype(np.int64), 4))
        for n in range(self.config["blocks"]):
            t = self.residual(f"encoder/block{n}", t, n % 2 == 1)
        t = self.net.dense("encoder/squeeze", t, relu=True)
        t = self.net.dense("encoder/out", t.reshape(1, -1))[0]
        count = self.config["latents"]
        return [self.bins(int(m), int(s)) for m, s in zip(t[:count], t[count:], strict=True)]

    def bins(self, m, s):
        e, cumulative = int(self.table["inverse"][min(max(s + 320, 0), 448)]), self.table["cumulative"].tolist()
        bounds = [0]
        for i, edge in enumerate(self.table["edges"].tolist(), 1):
            p = min(max((edge - m * 2**8) * e >> 10, -6 * 2**16), 6 * 2**16 - 1) + 6 * 2**16
            k = p >> 10
            c = cumulative[k] + ((cumulative[k + 1] - cumulative[k]) * (p - k * 2**10) >> 10)
            bounds.append((c * (2**24 - 2**10) >> 24) + i)
        return [*bounds, UNIT]

    def features(self, bins):
        side = self.config["side"] // 4
        t = self.net.dense("decoder/in", self.table["centres"][bins][None]).reshape(side, side, -1)
        t = self.net.dense("decoder/expand", t)
        for n in range(self.config["blocks"]):
            t = self.residual(f"decoder/block{n}", t, n % 2 == 0)
        return shuffle(self.net.dense("decoder/out", t), 2)

    def phase(self, n, features, before):
        t = features if n == 0 else np.concatenate([features, neighbours(np.stack(before, -1))], -1)
        for layer in ("in", "middle"):
            t = self.net.dense(f"phase{n}/{layer}", t, relu=True)
        t = self.net.dense(f"phase{n}/out", t)
        return t.reshape(-1, t.shape[-1])

    def values(self, natural):
        logits = self.net.dense_sums("values", natural[None])[0]
        d = np.minimum(logits.max() - logits, 3072 * 2**8)
        w = self.table["exp"][(d + 128) >> 8].astype(np.float64)
        freq = np.floor(w * ((2**24 - 255) / w.sum())).astype(np.int64) + 1
        freq[np.argmax(freq)] += 2**24 - freq.sum()
        return [0, *np.cumsum(freq).tolist()]


def decode(data, model):
    """Decode a set to u8[N, S, S]."""
    require(data[:8] == MAGIC, "no .vae file")
    payloads, position = [], 8
    for tag in (b"PSET", b"DATA"):
        (length,) = struct.unpack_from("<I", data, position)
        body = data[position + 4 : position + 8 + length]
        require(
            body[:4] == tag and struct.unpack_from("<I", data, position + 8 + length)[0] == zlib.crc32(body), "a chunk"
        )
        payloads.append(body[4:])
        position += length + 12
    version, reserved, name, count, side, consumed, crc = struct.unpack("<BB16sIHII", payloads[0])
    require((version, reserved, name, side) == (1, 0, model.id, model.config["side"]), "the header")
    words = initial_words(consumed + 8)
    stack = ReversibleStack(struct.pack("<8I", *words[: consumed - 1 : -1] if consumed else words[::-1]) + payloads[1])
    images, end, sizes = np.zeros((count, side, side), np.uint8), count, []
    while sum(sizes) < count:
        sizes.append(min(2 ** len(sizes), 64, count - sum(sizes)))
    uniform = [n << 14 for n in range(2**10 + 1)]
    for size in reversed(sizes):
        bins = [[stack.take(uniform) for _ in range(model.config["latents"])] for _ in range(size)]
        features, earlier = [model.features(latent) for latent in bins], [[] for _ in range(size)]
        for n in range(4):
            outputs = [model.phase(n, *inputs) for inputs in zip(features, earlier, strict=True)]
            inked = [int(model.table["ink"][odds + 1023]) for t in outputs for odds in t[:, 0]]
            nonzero = np.array([stack.take([0, UNIT - frequency, UNIT]) for frequency in inked])
            natural = np.concatenate(outputs)[:, 1:]
            values = np.zeros(len(nonzero), np.int64)
            for pixel in np.flatnonzero(nonzero):
                values[pixel] = stack.take(model.values(natural[pixel])) + 1
            for image, corner in zip(earlier, values.reshape(size, side // 2, side // 2), strict=True):
                image.append(corner)
        start = end - size
        for n, corners in enumerate(earlier):
            for (i, j), corner in zip(((0, 0), (1, 1), (0, 1), (1, 0)), corners, strict=True):
                images[start + n, i::2, j::2] = corner
        bounds = [table_bounds for image in images[start:end] for table_bounds in model.posterior(image)]
        for table_bounds, entry in reversed(list(zip(bounds, np.ravel(bins).tolist(), strict=True))):
            stack.push(table_bounds, entry)
        end = start
    require(stack.contents() == list(words[::-1]), "the stack does not end as it began")
    require(zlib.crc32(images.tobytes()) == crc, "the CRC of the pixels")
    return images


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        np.save(sys.argv[3], decode(file.read(), Model(sys.argv[2])))
