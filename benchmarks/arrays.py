"""Compare array chunks of vaecodec.arrays with blosc, zfp, SZ3, SPERR and image codecs that bound the error.

python benchmarks/arrays.py [--data ../shared/data] [-o benchmarks/results/arrays/arrays.json]

The arrays come with scikit-image and scikit-learn; MNIST and a photograph are added where --data has them.
"""

from __future__ import annotations

import argparse
import gzip
import io
import pathlib
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator

import imagecodecs
import numpy as np
from common import publish

from vaecodec import arrays

SIDE = 256  # of a chunk
SAFE = 0.9998  # of a step, so rounding to f32 keeps the bound
BOUNDS = (0, 1 / 255, 0.02, 0.05)  # relative to an array's range
Codec = tuple[Callable[[np.ndarray, float], bytes], Callable[[bytes, np.ndarray], np.ndarray]]


def center(values: np.ndarray) -> np.ndarray:
    """The centre [SIDE, SIDE] of an image, or all of a smaller one."""
    top, left = (max(0, side - SIDE) // 2 for side in values.shape[:2])
    return np.ascontiguousarray(values[top : top + SIDE, left : left + SIDE])


def samples(data: pathlib.Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, array) pairs."""
    import skimage
    from PIL import Image
    from skimage.color import rgb2lab
    from sklearn import datasets

    folder = pathlib.Path(skimage.__file__).parent / "data"
    for name in ("camera", "cell", "page", "brick"):
        yield f"{name}, u8", center(np.asarray(Image.open(folder / f"{name}.png").convert("L")))
    yield "astronaut, u8 RGB", center(np.asarray(Image.open(folder / "astronaut.png").convert("RGB")))
    flower = datasets.load_sample_image("flower.jpg")
    yield "flower, lightness, f32", center(rgb2lab(flower)[..., 0].astype(np.float32))
    disparity = np.load(folder / "motorcycle_disp.npz")
    yield "disparity with holes, f32", center(disparity[disparity.files[0]].astype(np.float32))
    yield "faces, 100 x 25 x 25, f64", np.load(folder / "lfw_subset.npy")[:100]
    yield "digits, 500 x 8 x 8, f64", datasets.load_digits().images[:500]
    yield "breast cancer, 569 x 30, f64", datasets.load_breast_cancer().data
    if (data / "mnist").exists():
        content = gzip.decompress((data / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
        yield "MNIST, 80 x 28 x 28, u8", np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28)[:80]
    if (data / "train").exists():
        with tarfile.open(data / "train" / "train_heldout.tar") as tar:
            files = [member for member in tar.getmembers() if member.isfile()]
            pixels = np.asarray(Image.open(io.BytesIO(tar.extractfile(files[7]).read())).convert("RGB"))  # type: ignore[union-attr]
        yield "photograph, u8 RGB", center(pixels)
        pixels = pixels[: len(pixels) // 2 * 2, : pixels.shape[1] // 2 * 2].astype(np.uint16)
        sums = [pixels[a::2, b::2].sum(2, dtype=np.uint16) for a in (0, 1) for b in (0, 1)]
        yield "photograph, sums of 2 x 2 x RGB, u16", center(np.sum(sums, 0, dtype=np.uint16))


def floating(values: np.ndarray, max_error: float) -> tuple[np.ndarray, float]:
    """(values, bound) for a codec of floats; integers are rounded afterwards, so their bound grows by half a unit."""
    if values.dtype.kind == "f":
        return values, max_error
    return values.astype(np.float32), max_error + 0.49


def restored(decoded: np.ndarray, like: np.ndarray) -> np.ndarray:
    if like.dtype.kind == "f":
        return decoded.reshape(like.shape)
    limits = np.iinfo(like.dtype)
    return np.clip(np.rint(decoded.reshape(like.shape)), limits.min, limits.max).astype(like.dtype)


def of_floats(encode: Callable[[np.ndarray, float], bytes], decode: Callable[..., np.ndarray]) -> Codec:
    return (
        lambda values, max_error: encode(*floating(values, max_error)),
        lambda data, like: restored(decode(data, like.shape, floating(like, 0)[0].dtype), like),
    )


def blosc(values: np.ndarray) -> bytes:
    options = {"level": 9, "compressor": "zstd", "typesize": values.itemsize, "numthreads": 1}
    return min(
        (imagecodecs.blosc_encode(values.tobytes(), shuffle=s, **options) for s in ("shuffle", "bitshuffle")), key=len
    )


def quantised(values: np.ndarray, max_error: float) -> bytes:
    """Blosc after rounding to a grid of the bound, the usual lossy use."""
    if not max_error:
        return b"\0" + blosc(values)
    low, step = float(values.min()), 2 * max_error * SAFE if values.dtype.kind == "f" else 2 * max_error + 1
    whole = np.rint((values.astype(np.float64) - low) / step)
    kind = np.min_scalar_type(int(whole.max()))
    return bytes([kind.itemsize]) + np.array([low, step]).tobytes() + blosc(whole.astype(kind))


def from_quantised(data: bytes, like: np.ndarray) -> np.ndarray:
    if not data[0]:
        return np.frombuffer(imagecodecs.blosc_decode(data[1:]), like.dtype).reshape(like.shape)
    low, step = np.frombuffer(data[1:17])
    whole = np.frombuffer(imagecodecs.blosc_decode(data[17:]), f"u{data[0]}").reshape(like.shape)
    return restored(low + step * whole, like) if like.dtype.kind != "f" else (low + step * whole).astype(like.dtype)


CODECS: dict[str, Codec] = {
    "vaecodec": (lambda values, max_error: arrays.encode(values, max_error), lambda data, like: arrays.decode(data)),
    "blosc-zstd": (quantised, from_quantised),
    "zfp": of_floats(
        lambda x, e: imagecodecs.zfp_encode(x, mode="accuracy" if e else "reversible", level=e or None, numthreads=1),
        lambda data, shape, kind: imagecodecs.zfp_decode(data),
    ),
    "SZ3": of_floats(
        lambda x, e: imagecodecs.sz3_encode(x, mode="abs", abs=e) if e else b"",
        imagecodecs.sz3_decode,
    ),
    "SPERR": of_floats(
        lambda x, e: imagecodecs.sperr_encode(np.atleast_2d(x), mode="pwe", level=e, numthreads=1) if e else b"",
        lambda data, shape, kind: imagecodecs.sperr_decode(data),
    ),
    "JPEG-LS": (
        lambda x, e: imagecodecs.jpegls_encode(x, level=int(e)) if x.dtype in (np.uint8, np.uint16) else b"",
        lambda data, like: imagecodecs.jpegls_decode(data),
    ),
    "JPEG XL": (
        lambda x, e: b"" if e or x.dtype.kind != "u" else imagecodecs.jpegxl_encode(x, lossless=True, numthreads=1),
        lambda data, like: imagecodecs.jpegxl_decode(data, numthreads=1),
    ),
}


def layouts(name: str, values: np.ndarray) -> list[list[np.ndarray]]:
    """The layouts that a codec tries: the whole array, its planes, or one tall image; the smallest counts."""
    if name in ("vaecodec", "blosc-zstd") or values.ndim == 2:
        return [[values]]
    colour = values.shape[-1] == 3
    planes = np.ascontiguousarray(np.moveaxis(values, 2, 0)) if colour else values
    if name in ("JPEG-LS", "JPEG XL"):
        return [[values]] if colour else [[planes.reshape(-1, planes.shape[2])]]
    return [[planes], list(planes) if colour else [planes.reshape(-1, planes.shape[2])]]


def measure(name: str, values: np.ndarray, max_error: float) -> tuple[int, float, float, float, bytes] | None:
    """(bytes, CPU seconds to encode, to decode, largest error, data) of the smallest layout; None if unsupported."""
    encode, decode = CODECS[name]
    results = []
    for parts in layouts(name, values):
        started = time.process_time()
        try:
            data = [encode(part, max_error) for part in parts]
        except RuntimeError:  # too small, or of an unsupported type
            continue
        encoded_time = time.process_time()
        if not all(data):
            continue
        decoded = [decode(chunk, part) for chunk, part in zip(data, parts, strict=True)]
        decoded_time = time.process_time()
        errors = []
        for values_back, part in zip(decoded, parts, strict=True):
            with np.errstate(invalid="ignore"):
                gap = np.abs(values_back.astype(np.float64) - part.astype(np.float64))
            errors.append(float(gap[np.isfinite(part)].max()))
        results.append((sum(map(len, data)), encoded_time - started, decoded_time - encoded_time, max(errors), data[0]))
    return min(results, key=lambda result: (result[3] > max_error, result[0]), default=None)


def filled(values: np.ndarray) -> tuple[np.ndarray, int]:
    """(values with the mean in place of those that are not finite, bytes of a deflated mask), for other codecs."""
    finite = np.isfinite(values) if values.dtype.kind == "f" else np.ones(1, bool)
    if finite.all():
        return values, 0
    mean = values[finite].mean(dtype=np.float64)
    return np.where(finite, values, mean).astype(values.dtype), len(zlib.compress(np.packbits(finite), 9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path(__file__).parents[2] / "shared" / "data")
    parser.add_argument("--only", default="", help="arrays whose name has this in it")
    parser.add_argument("--codecs", default=",".join(CODECS), help="of these")
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    arrays.decode(arrays.encode(np.add.outer(np.arange(70), np.arange(70)).astype("u1"), 12, mode="vae"))  # loads all
    rows = []
    for title, values in samples(options.data):
        if options.only not in title:
            continue
        whole, mask = filled(values)
        span = float(whole.max()) - float(whole.min())
        for part in BOUNDS:
            max_error = part * span if values.dtype.kind == "f" else float(int(part * span))
            if part and not max_error:
                continue
            for name in options.codecs.split(","):
                own = name == "vaecodec"
                result = measure(name, values if own else whole, max_error)
                if result is None:
                    continue
                size, encode_s, decode_s, worst, chunk = result
                size += 0 if own else mask
                note = arrays.info(chunk)["mode"] if own else ""
                held = "yes" if worst <= max_error else f"no: {worst:.3g}"
                speeds = [round(values.nbytes / 1e6 / max(s, 1e-6), 2) for s in (encode_s, decode_s)]
                what = [title, f"{100 * part:.2g} %", float(f"{max_error:.4g}"), name]
                rows.append([*what, size, round(values.nbytes / size, 2), *speeds, held, note])
                print(*rows[-1], flush=True)
    columns = ["array", "bound", "max_error", "codec", "bytes", "ratio", "encode, MB/s", "decode, MB/s", "bound kept"]
    about = "Chunks of at most 256 x 256; MB of values per second of CPU time."
    publish(about, [*columns, "mode"], rows, options.output)


if __name__ == "__main__":
    main()
