"""Compare lossless and near-lossless coding of images with other codecs, by whole files.

python benchmarks/lossless.py kodak=FOLDER held-out=PACK.tar screenshots=FOLDER deep=FOLDER -o OUT.json [--step N]

`kodak` is also coded within 1 and 2 of every sample.  `deep` takes images of more than 8 bits, and from `kodak` a half
of each side, averaged in linear light, with 16 bits.  Of every folder or tar, one image of N is taken.  Rates are in
bits per sample, alpha included; a rate is the mean over the images, as published ones are.
"""

from __future__ import annotations

import argparse
import json
import tarfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import vaecodec
from vaecodec import arrays
from vaecodec.codec import exact, fallback
from vaecodec.errors import CodecError
from vaecodec.images.reading import read_image

Encode = Callable[[np.ndarray], bytes]


def other_codecs() -> dict[str, Encode]:
    """Lossless encoders of u8 and u16 images."""
    import imagecodecs

    return {
        "PNG": lambda image: imagecodecs.png_encode(image, level=9),
        "WebP": fallback.encode_lossless,
        "JPEG-LS": _jpegls(0),
        "JPEG XL, effort 7": lambda image: imagecodecs.jpegxl_encode(image, lossless=True, effort=7, numthreads=2),
    }


def _jpegls(bound: int) -> Encode:
    import imagecodecs

    return lambda image: imagecodecs.jpegls_encode(image, level=bound)


def linear_half(image: np.ndarray) -> np.ndarray:
    """u16 of half the sides: means of squares of u8 sRGB samples, in linear light (IEC 61966-2-1)."""
    value = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2] / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    means = light.reshape(light.shape[0] // 2, 2, light.shape[1] // 2, 2, -1).mean((1, 3))
    return np.rint(means * 65535).astype(np.uint16)


def read_images(path: Path, step: int) -> Iterator[np.ndarray]:
    """Yield the images of a folder or a tar."""
    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            for member in [entry for entry in archive.getmembers() if entry.name.endswith((".webp", ".png"))][::step]:
                yield read_image(archive.extractfile(member).read())[0]  # type: ignore[union-attr]
        return
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file())[::step]:
        try:
            yield read_image(file, left_out=[])[0]
        except (CodecError, OSError):
            continue


def rate(images: list[np.ndarray], encode: Encode) -> float | None:
    """Mean bits per sample; None where the codec takes not all of the images."""
    try:
        return float(np.mean([8 * len(encode(image)) / image.size for image in images]))
    except Exception:  # codecs differ in what they raise on images that they do not take
        return None


def exact_rate(images: list[np.ndarray], bound: int = 0, effort: int = 1) -> float:
    """Mean bits per sample of this package; raises AssertionError where a sample is beyond the bound."""
    rates = []
    for image in images:
        data = exact.encode(image, bound, effort=effort)
        assert np.abs(vaecodec.decode(data).astype(int) - image).max() <= bound
        rates.append(8 * len(data) / image.size)
    return float(np.mean(rates))


def speeds(images: list[np.ndarray]) -> dict[str, Any]:
    """Megapixels per second of this package by threads: the median over images."""
    speeds_of_threads = {}
    for threads in (1, 2):
        encoding, decoding = [], []
        for image in images:
            start = time.perf_counter()
            data = exact.encode(image, threads=threads)
            middle = time.perf_counter()
            vaecodec.decode(data, threads=threads)
            pixels = image.shape[0] * image.shape[1] / 1e6
            encoding.append(pixels / (middle - start))
            decoding.append(pixels / (time.perf_counter() - middle))
        speeds_of_threads[threads] = {"encode": float(np.median(encoding)), "decode": float(np.median(decoding))}
    return speeds_of_threads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", metavar="NAME=PATH")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--speed", action="store_true", help="measure speed alone, on the images of the first set")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    report = json.loads(options.output.read_text()) if options.output.exists() else {"rates": {}, "near": {}}
    paths = {name: Path(path) for name, _, path in (text.partition("=") for text in options.sets)}
    if options.speed:
        report["speed"] = speeds(list(read_images(next(iter(paths.values())), options.step)))
    for name, path in paths.items() if not options.speed else ():
        images = list(read_images(path, options.step))
        if name == "deep":
            images = [image for image in images if image.dtype == np.uint16 and min(image.shape[:2]) >= 32]
            if "kodak" in paths:
                images += [linear_half(image) for image in read_images(paths["kodak"], options.step)]
        rates: dict[str, Any] = {"images": len(images), "vaecodec": exact_rate(images)}
        if name in ("kodak", "held-out"):
            rates["vaecodec, effort 9"] = exact_rate(images, effort=9)
        for codec, encode in other_codecs().items():
            rates[codec] = rate(images, encode)
        report["rates"][name] = rates
        for bound in (1, 2) if name == "kodak" else ():
            report["near"][bound] = {
                "vaecodec": exact_rate(images, bound),
                "vaecodec, effort 9": exact_rate(images, bound, 9),
                "vaecodec.arrays": rate(images, lambda image, bound=bound: arrays.encode(image, bound)),  # type: ignore[misc]
                "JPEG-LS": rate(images, _jpegls(bound)),
            }
        print(name, json.dumps(rates), json.dumps(report["near"]), flush=True)
        options.output.write_text(json.dumps(report, indent=1) + "\n")
    options.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
