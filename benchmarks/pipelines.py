"""Measure tf.data from .vae, PNG and JPEG files, and batches beside one call per image, in one run.

python benchmarks/pipelines.py PICTURES [--model my.vcm] [-o benchmarks/results/pipelines.json]
"""

from __future__ import annotations

import argparse
import io
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from common import publish
from PIL import Image

from vaecodec.codec import Codec
from vaecodec.model.file import load_model
from vaecodec.training import SUFFIXES


def cpu_seconds() -> float:
    """CPU seconds of this process and the children it has waited for."""
    return sum(os.times()[:4])


def measure(works: dict[tuple[Any, ...], Callable[[], Any]], repeat: int) -> dict[tuple[Any, ...], tuple[float, float]]:
    """(least seconds, least CPU seconds) of each call; the calls alternate, after one each that is not counted."""
    for work in works.values():
        work()
    least = dict.fromkeys(works, (float("inf"), float("inf")))
    for _ in range(repeat):
        for key, work in works.items():
            started, cpu = time.perf_counter(), cpu_seconds()
            work()
            took = time.perf_counter() - started, cpu_seconds() - cpu
            least[key] = min(least[key][0], took[0]), min(least[key][1], took[1])
    return least


def sources(folder: pathlib.Path, workers: int, model: str) -> dict[tuple[Any, ...], Callable[[], Any]]:
    """One pass through a tf.data source of each kind of file, as functions to call."""
    import tensorflow as tf

    from vaecodec.integrations import tfdata

    def of(decode: Callable[..., Any], suffix: str) -> Any:
        paths = sorted(map(str, folder.glob(f"*{suffix}")))
        files = tf.data.Dataset.from_tensor_slices(paths)
        return files.map(lambda path: decode(tf.io.read_file(path), channels=3), num_parallel_calls=workers)

    vae = tfdata.dataset(sorted(folder.glob("*.vae")), workers=workers, model=model)
    crop = tfdata.dataset(sorted(folder.glob("*.vae")), crop=(128, 128), workers=workers, model=model)
    datasets = {
        "vae": vae,
        "vae, crops of 128 x 128": crop,
        "png": of(tf.io.decode_png, ".png"),
        "jpeg": of(tf.io.decode_jpeg, ".jpg"),
    }
    return {
        ("tf.data", kind, workers): lambda data=data: [None for _ in data.prefetch(2)]  # type: ignore[misc]
        for kind, data in datasets.items()
    }


def batches(codec: Codec, images: list[np.ndarray], quality: float) -> dict[tuple[Any, ...], Callable[[], Any]]:
    """All images by one call, and by one call each, as functions to call."""
    files = [codec.encode(image, quality) for image in images]
    return {
        ("encode", "vae, one by one", codec.threads): lambda: [codec.encode(image, quality) for image in images],
        ("encode", "vae, a batch", codec.threads): lambda: codec.encode_batch(images, quality),
        ("encode", "png", 1): lambda: [saved(image, "PNG") for image in images],
        ("encode", "jpeg", 1): lambda: [saved(image, "JPEG", quality=90) for image in images],
        ("decode", "vae, one by one", codec.threads): lambda: [codec.decode(data) for data in files],
        ("decode", "vae, a batch", codec.threads): lambda: codec.decode_batch(files),
    }


def saved(pixels: np.ndarray, format: str, **options: Any) -> bytes:
    """An image file written by Pillow."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("images", help="folder")
    parser.add_argument("--most", type=int, default=24, help="images")
    parser.add_argument("--model", default="small")
    parser.add_argument("--quality", type=float, default=50)
    parser.add_argument("--threads", default=f"1,{os.cpu_count()}", help="files at once of tf.data")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    paths = sorted(p for p in pathlib.Path(options.images).iterdir() if p.suffix.lower() in SUFFIXES)
    images = [np.asarray(Image.open(path).convert("RGB")) for path in paths[: options.most]]
    codec = Codec(load_model(options.model))
    megapixels = sum(image.shape[0] * image.shape[1] for image in images) / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for number, image in enumerate(images):
            for suffix, data in (
                ("vae", codec.encode(image, options.quality)),
                ("png", saved(image, "PNG")),
                ("jpg", saved(image, "JPEG", quality=90)),
            ):
                (folder / f"{number:03}.{suffix}").write_bytes(data)
        sizes = {kind: sum(p.stat().st_size for p in folder.glob(f"*{kind}")) for kind in ("vae", "png", "jpg")}
        works = batches(codec, images, options.quality)
        for threads in dict.fromkeys(map(int, options.threads.split(","))):
            works |= sources(folder, threads, options.model)
        times = measure(works, options.repeat)
    rows: list[list[Any]] = [[*key, megapixels / seconds, cpu / megapixels] for key, (seconds, cpu) in times.items()]
    bits = ", ".join(f"{kind} {8 * size / megapixels / 1e6:.2f}" for kind, size in sizes.items())
    about = (
        f"{len(images)} images, {megapixels:.1f} megapixels, warm, the best of {options.repeat} turns; quality "
        f"{options.quality:g}, model {codec.model.name} {codec.model.id}, JPEG quality 90; bits a pixel: {bits}."
    )
    publish(about, ["what", "files", "threads", "MP/s", "processor s/MP"], rows, options.output)


if __name__ == "__main__":
    main()
