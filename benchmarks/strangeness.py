"""Measure how well a score finds out-of-distribution images: AUROC of the negative ELBO and its corrected form.

    python benchmarks/strangeness.py ../shared/data --without 4 without4.vcm -o benchmarks/results/digits/auroc.json

An AUROC is the probability that an out-of-distribution image scores higher than another: 1 always, 0.5 by chance.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import tarfile

import numpy as np
from PIL import Image, ImageFilter

from vaecodec import generative
from vaecodec.generative import Score
from vaecodec.generative.image_sets import read_set

CROP = 256  # side of photographs
Sets = dict[str, np.ndarray]


def auroc(usual: np.ndarray, strange: np.ndarray) -> float:
    """Return Mann-Whitney's U divided by the number of pairs; ties count one half."""
    order = np.sort(usual)
    smaller, not_larger = np.searchsorted(order, strange, "left"), np.searchsorted(order, strange, "right")
    return float((smaller + not_larger).mean() / 2 / len(usual))


def table(usual: list[Score], strange: dict[str, list[Score]]) -> dict[str, dict[str, float]]:
    """Return AUROCs and mean scores by set; `complexity` is the size of a PNG file."""
    out = {}
    for name, scores in strange.items():
        fields = ("bpd", "corrected", "complexity")
        values = {
            field: [np.array([getattr(s, field) for s in group]) for group in (usual, scores)] for field in fields
        }
        out[name] = {field: round(auroc(*groups), 4) for field, groups in values.items()}
        out[name] |= {f"mean_{field}": round(float(groups[1].mean()), 4) for field, groups in values.items()}
    return out


def strange_digits(digits: np.ndarray, photographs: list[np.ndarray], rng: np.random.Generator) -> Sets:
    """Return out-of-distribution sets with the number and size of the digits."""
    count, side = len(digits), digits.shape[1]
    patches = []
    while len(patches) < count:
        grey = np.asarray(Image.fromarray(photographs[rng.integers(len(photographs))]).convert("L"))
        top, left = (int(rng.integers(extent - side + 1)) for extent in grey.shape)
        patches.append(grey[top : top + side, left : left + side])
    shuffled = rng.permuted(digits.reshape(count, -1), axis=1).reshape(digits.shape)
    return {
        "photograph patches": np.stack(patches),
        "rotated by 90 degrees": np.rot90(digits, 1, (1, 2)),
        "upside down": digits[:, ::-1],
        "inverted": 255 - digits,
        "shuffled pixels": shuffled,
        "blank": np.zeros_like(digits),
        "uniform noise": rng.integers(0, 256, digits.shape, np.uint8),
        "shifted by 4 pixels": np.roll(digits, 4, 2),
    }


def corruptions(pixels: np.ndarray, rng: np.random.Generator) -> Sets:
    """Return a photograph with each kind of corruption."""
    image = Image.fromarray(pixels)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=10)
    salt = np.where(
        rng.random(pixels.shape[:2])[..., None] < 0.05, rng.choice([0, 255], (*pixels.shape[:2], 1)), pixels
    )
    return {
        "Gaussian noise, deviation 20": np.clip(pixels + rng.normal(0, 20, pixels.shape), 0, 255).astype(np.uint8),
        "salt and pepper, 5 %": salt.astype(np.uint8),
        "Gaussian blur, 3 pixels": np.asarray(image.filter(ImageFilter.GaussianBlur(3))),
        "JPEG, quality 10": np.asarray(Image.open(jpeg)),
        "a third of the contrast": (pixels // 3 + 85).astype(np.uint8),
        "inverted": 255 - pixels,
        "shuffled 16x16 blocks": shuffled_blocks(pixels, 16, rng),
    }


def shuffled_blocks(pixels: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Return the image with its blocks in random order."""
    height, width = (extent // side for extent in pixels.shape[:2])
    blocks = pixels.reshape(height, side, width, side, 3).transpose(0, 2, 1, 3, 4).reshape(-1, side, side, 3)
    blocks = rng.permutation(blocks).reshape(height, width, side, side, 3)
    return blocks.transpose(0, 2, 1, 3, 4).reshape(pixels.shape)


def held_out(path: str, most: int) -> list[np.ndarray]:
    """Return centre crops u8[CROP, CROP, 3] of the images in a .tar file."""
    out = []
    with tarfile.open(path) as tar:
        for member in tar:
            if not member.isfile() or len(out) == most:
                continue
            with Image.open(io.BytesIO(tar.extractfile(member).read())) as image:  # type: ignore[union-attr]
                if min(image.size) >= CROP:
                    left, top = ((extent - CROP) // 2 for extent in image.size)
                    out.append(np.asarray(image.convert("RGB").crop((left, top, left + CROP, top + CROP))))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("-m", "--model", default="digits")
    parser.add_argument("--without", nargs=2, metavar=("DIGIT", "MODEL"), help="trained without that digit")
    parser.add_argument("--most", type=int, default=1000, help="digits of each kind")
    parser.add_argument("--photographs", type=int, default=100)
    parser.add_argument("--parts", default="digits,photographs", help="what to measure; the rest of OUTPUT is kept")
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    rng, result = np.random.default_rng(0), {}
    if os.path.exists(args.output):
        with open(args.output) as file:
            result = json.load(file)
    mnist = os.path.join(args.data, "mnist")
    images = read_set(os.path.join(mnist, "t10k-images-idx3-ubyte.gz"))[0]
    photographs = held_out(os.path.join(args.data, "train", "train_heldout.tar"), args.photographs)
    most = args.most
    if "digits" in args.parts:
        model = generative.load(args.model)
        usual = generative.score_images(model, images[:most])
        sets = {"other test digits": images[-most:], **strange_digits(images[most : 2 * most], photographs, rng)}
        scores = {
            name: generative.score_images(model, np.ascontiguousarray(set_images)) for name, set_images in sets.items()
        }
        result["digits"] = table(usual, scores)
    if args.without:
        digit, model = int(args.without[0]), generative.load(args.without[1])
        with gzip.open(os.path.join(mnist, "t10k-labels-idx1-ubyte.gz")) as file:
            labels = np.frombuffer(file.read(), np.uint8, offset=8)
        omitted = generative.score_images(model, images[labels == digit][:most])
        usual = generative.score_images(model, images[labels != digit][:most])
        result[f"digit {digit} left out"] = table(usual, {f"digit {digit}": omitted})
    if "photographs" in args.parts:
        codec = generative.load("small")
        clean = generative.score_images(codec, photographs)
        states = [corruptions(photo, rng) for photo in photographs]
        scores = {name: generative.score_images(codec, [state[name] for state in states]) for name in states[0]}
        result["photographs"] = table(clean, scores)
    with open(args.output, "w") as file:
        json.dump(result, file, indent=1)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
