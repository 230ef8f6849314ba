"""Many pictures: tf.data from .vae, PNG and JPEG files, and batches beside one call a picture; in one run.

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
from PIL import Image
from table import publish

from vaecodec.codec.codec import Codec
from vaecodec.model.file import load_model
from vaecodec.training.datasets import SUFFIXES


def spent() -> float:
    """Seconds of processor time of this process and those that it has waited for."""
    return sum(os.times()[:4])


def measure(works: dict[tuple[Any, ...], Callable[[], Any]], repeat: int) -> dict[tuple[Any, ...], tuple[float, float]]:
    """(least seconds, least seconds of processor time) of each, which take turns; after a call that is not counted."""
    for work in works.values():
        work()
    found = dict.fromkeys(works, (float("inf"), float("inf")))
    for _ in range(repeat):
        for key, work in works.items():
            began, cpu = time.perf_counter(), spent()
            work()
            took = time.perf_counter() - began, spent() - cpu
            found[key] = min(found[key][0], took[0]), min(found[key][1], took[1])
    return found


def sources(folder: pathlib.Path, workers: int, model: str) -> dict[tuple[Any, ...], Callable[[], Any]]:
    """A pass through a tf.data source of each kind of file."""
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
        ("tf.data", kind, workers): lambda one=one: [None for _ in one.prefetch(2)]  # type: ignore[misc]
        for kind, one in datasets.items()
    }


def batches(codec: Codec, pictures: list[np.ndarray], quality: float) -> dict[tuple[Any, ...], Callable[[], Any]]:
    """All pictures by one call, and by one call each."""
    files = [codec.encode(one, quality) for one in pictures]
    return {
        ("encode", "vae, one by one", codec.threads): lambda: [codec.encode(one, quality) for one in pictures],
        ("encode", "vae, a batch", codec.threads): lambda: codec.encode_batch(pictures, quality),
        ("encode", "png", 1): lambda: [saved(one, "PNG") for one in pictures],
        ("encode", "jpeg", 1): lambda: [saved(one, "JPEG", quality=90) for one in pictures],
        ("decode", "vae, one by one", codec.threads): lambda: [codec.decode(data) for data in files],
        ("decode", "vae, a batch", codec.threads): lambda: codec.decode_batch(files),
    }


def saved(pixels: np.ndarray, format: str, **options: Any) -> bytes:
    """A file of Pillow's."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", help="folder")
    parser.add_argument("--most", type=int, default=24, help="pictures")
    parser.add_argument("--model", default="small")
    parser.add_argument("--quality", type=float, default=50)
    parser.add_argument("--threads", default=f"1,{os.cpu_count()}", help="files at once of tf.data")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    paths = sorted(p for p in pathlib.Path(options.pictures).iterdir() if p.suffix.lower() in SUFFIXES)
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in paths[: options.most]]
    codec = Codec(load_model(options.model))
    megapixels = sum(one.shape[0] * one.shape[1] for one in pictures) / 1e6
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for number, one in enumerate(pictures):
            for suffix, data in (
                ("vae", codec.encode(one, options.quality)),
                ("png", saved(one, "PNG")),
                ("jpg", saved(one, "JPEG", quality=90)),
            ):
                (folder / f"{number:03}.{suffix}").write_bytes(data)
        sizes = {kind: sum(p.stat().st_size for p in folder.glob(f"*{kind}")) for kind in ("vae", "png", "jpg")}
        works = batches(codec, pictures, options.quality)
        for threads in dict.fromkeys(map(int, options.threads.split(","))):
            works |= sources(folder, threads, options.model)
        found = measure(works, options.repeat)
    rows: list[list[Any]] = [[*key, megapixels / seconds, cpu / megapixels] for key, (seconds, cpu) in found.items()]
    bits = ", ".join(f"{kind} {8 * size / megapixels / 1e6:.2f}" for kind, size in sizes.items())
    about = (
        f"{len(pictures)} pictures, {megapixels:.1f} megapixels, warm, the best of {options.repeat} turns; quality "
        f"{options.quality:g}, model {codec.model.name} {codec.model.id}, JPEG quality 90; bits a pixel: {bits}."
    )
    publish(about, ["what", "files", "threads", "MP/s", "processor s/MP"], rows, options.output)


if __name__ == "__main__":
    main()
