"""Make the golden files: a tiny model, and a file of every kind that it or another coding decodes.

    python tests/golden/make.py

Run it when the format or the model changes, and review the differences with git diff. All inputs come from seeds, so a
second run on the same machine and libraries writes the same bytes. Another version of TensorFlow, Pillow or libavif may
write different bytes that are also valid. The script writes the file of `sets`, but neither its model nor its images.
"""

from __future__ import annotations

import io
import os
import pathlib
import shutil
import sys
import tempfile
import zlib
from typing import Any
from unittest import mock

import numpy as np

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from support.images import synthetic_image
from vaecodec import arrays, lossless
from vaecodec.arrays import chunks
from vaecodec.atomic import Attributes
from vaecodec.codec import Codec, exact, fallback, modes
from vaecodec.codec.fallback import split
from vaecodec.config import MAX_TILT, Config
from vaecodec.container import ALPHA, GREY, image_file, insert_chunks, stored
from vaecodec.container.image_file import Header, parse, quality_of, with_pixel_crcs
from vaecodec.entropy.coding import SYMBOL_MAX, ZERO_TABLE, push_outliers
from vaecodec.entropy.scale_offsets import push_scale_offsets
from vaecodec.generative import image_sets
from vaecodec.images.channels import clear_transparent
from vaecodec.images.colours import split_alpha
from vaecodec.model.file import load_model
from vaecodec.prior import Distributions, encode_tile

MODEL = HERE / "tiny.vcm"
CONFIG = Config(8, 1, 12, 1, prior=8, coarser=12, hyper_width=10)  # no two widths are equal by accident

SCALES = 72  # fewer than other models have, because the tables are most of the file

# Activations added to the scale indices of each octave, finest first: symbols of all magnitudes occur, and many of the
# finest octave have table index 0, whose symbols are not coded.
INDEX_OFFSETS = (-0.8, 0.8, 1.8, 2.2, 2.7)


def random_weights() -> dict[str, np.ndarray]:
    """Initial weights with seeded noise, so that the output of every network depends on its input."""
    from vaecodec.training import vae

    rng = np.random.default_rng(0)
    weights = vae.initial_weights(CONFIG, 0)
    for name in vae.specification(CONFIG)["prior"].weights:
        weights[name] += rng.normal(0, 0.05, weights[name].shape).astype(np.float32)
    for octave, offset in enumerate(INDEX_OFFSETS):
        for half in ("first", "second"):
            bias = weights[f"context/{octave}/{half}/bias"]
            bias[len(bias) // 2 :] += offset
    for name in ("analysis/latents/kernel", "synthesis/fine/kernel"):
        weights[name] += rng.normal(0, 0.002, weights[name].shape).astype(np.float32)
    weights["band_gain"] += rng.normal(0, 0.1, weights["band_gain"].shape).astype(np.float32)
    weights["centroid"][:] = (0.08, -0.05)
    for name in weights:
        if name.startswith(("context/", "lowest/")) and name.endswith("/condition"):
            weights[name] += rng.normal(0, 0.2, weights[name].shape).astype(np.float32)
    return weights


def make_model() -> None:
    """Freeze the tiny model."""
    from vaecodec.training import save_compact
    from vaecodec.training.freezing import freeze

    fewer = mock.patch("vaecodec.training.freezing.SCALES", SCALES)
    with tempfile.TemporaryDirectory() as folder, fewer:
        checkpoint, out = (os.path.join(folder, name) for name in ("tiny.safetensors", "tiny.vcm"))
        save_compact(checkpoint, CONFIG, random_weights(), {})
        freeze(checkpoint, out, "tiny", {"purpose": "tests and golden files; not for pictures"})
        # The order of metadata in safetensors is random, so a model with the same id is not replaced.
        if not MODEL.exists() or stated_id(MODEL) != stated_id(out):
            shutil.copyfile(out, MODEL)


def stated_id(path: str | pathlib.Path) -> str:
    """The id in a model file, which may be of an older format."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return file.metadata()["id"]


def checkerboard(height: int, width: int) -> np.ndarray:
    """u8[height, width, 3]: squares of 4 x 4 pixels, black and white."""
    y, x = np.mgrid[:height, :width] // 4
    return np.repeat((255 * ((y + x) % 2))[..., None], 3, 2).astype(np.uint8)


def ramp(height: int, width: int) -> np.ndarray:
    """u8[height, width, 3]: colours that rise to the right, fall, and rise downwards."""
    y, x = np.mgrid[:height, :width]
    rightwards, downwards = x * 255 // (width - 1), y * 255 // (height - 1)
    return np.stack([rightwards, 255 - rightwards, downwards], -1).astype(np.uint8)


def flat(height: int, width: int, value: int) -> np.ndarray:
    """u8[height, width, 3] of one value."""
    return np.full((height, width, 3), value, np.uint8)


def spots(height: int, width: int, distance: int) -> np.ndarray:
    """u8[height, width, 3]: white pixels on a dark ground, which become outliers."""
    pixels = flat(height, width, 60)
    pixels[distance // 2 :: distance, distance // 2 :: distance] = 255
    return pixels


def noise(height: int, width: int) -> np.ndarray:
    """u8[height, width, 3]: independent samples."""
    return np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8)


METADATA = {"icc": b"not a profile, but kept as it is" * 4, "exif": b"II*\0\x08\0\0\0\0\0", "xmp": b"<x:xmpmeta/>"}

# Name: image, quality index, tile side in pixels.
IMAGES = {
    "beyond": (synthetic_image(70, 90, 14), 1100, 64),
    "cell": (synthetic_image(16, 16, 1), 443, 64),
    "checks": (checkerboard(40, 56), 760, 256),
    "column": (synthetic_image(65, 1, 2), 443, 64),
    "dots": (spots(45, 52, 9), 534, 64),
    "extreme": (np.repeat(np.repeat(checkerboard(16, 16), 6, 0), 6, 1), 896, 64),
    "finest": (checkerboard(33, 47), 1232, 1024),
    "flat": (flat(64, 64, 128), 262, 1024),
    "high": (synthetic_image(64, 64, 3), 896, 1024),
    "highest": (ramp(33, 47), 896, 128),
    "low": (synthetic_image(96, 80, 4), 0, 1024),
    "lowest": (synthetic_image(60, 90, 5), 0, 64),
    "many": (synthetic_image(130, 140, 6), 262, 64),
    "metadata": (synthetic_image(30, 40, 7), 624, 1024),
    "noise": (noise(21, 30), 896, 1024),
    "odd": (synthetic_image(43, 70, 8), 330, 1024),
    "one": (synthetic_image(1, 1, 9), 443, 1024),
    "outliers": (spots(75, 91, 13), 896, 64),
    "photo": (synthetic_image(112, 130, 10), 534, 1024),
    "ramp": (ramp(40, 56), 489, 4096),
    "row": (synthetic_image(1, 90, 11), 715, 1024),
    "tiles": (synthetic_image(140, 200, 12), 217, 64),
    "white": (flat(50, 50, 255), 353, 512),
}


def make_images(codec: Codec) -> None:
    """Write the files of the images, with and without a filter, and one whose symbols are random."""
    names = ["bands", "escapes", "filtered", "steepest", "tilted", *IMAGES]
    for name, (pixels, quality_index, tile) in IMAGES.items():
        metadata = METADATA if name in ("metadata", "photo") else None
        data = codec.encode(pixels, quality_of(quality_index), metadata, tile, tune="psnr")
        write(HERE / f"{name}.vae", data, codec.decode(data))
    data = codec.encode(synthetic_image(90, 110, 13), quality_of(398), tile=64, effort=3, tune="psnr")
    assert parse(data).header.filter, "filtered.vae is to have a filter"
    write(HERE / "filtered.vae", data, codec.decode(data))
    data = codec.encode(synthetic_image(80, 130, 15), quality_of(500), tile=64, tune="eye")
    assert parse(data).header.tilt, "tilted.vae is to have a tilt"
    write(HERE / "tilted.vae", data, codec.decode(data))
    make_bands(codec)
    for name, quality_index, tilt in (("escapes", 700, 0), ("steepest", 1232, MAX_TILT)):
        data = random_symbols(codec, 40, 77, quality_index, tilt)
        write(HERE / f"{name}.vae", data, codec.decode(data))
    counts = count_outliers(codec, "outliers")
    assert min(counts) == 0 < max(counts), "outliers.vae is to have parts with and without outliers"
    (HERE / "LIST").write_text("\n".join(f"{name}.vae" for name in sorted(names)) + "\n")


def make_bands(codec: Codec) -> None:
    """Write the file of an image, parts of which have scale offsets by band."""
    with mock.patch("vaecodec.entropy.scale_offsets.push_scale_offsets", wraps=push_scale_offsets) as push:
        data = codec.encode(synthetic_image(48, 70, 16), quality_of(520), tile=64)
    by_band = [any(of_part.bands for of_part in call.args[1] or ()) for call in push.call_args_list]
    assert parse(data).header.by_band and any(by_band), "bands.vae is to have scale offsets by band"
    write(HERE / "bands.vae", data, codec.decode(data))


def random_symbols(codec: Codec, height: int, width: int, quality_index: int, tilt: int) -> bytes:
    """A file of symbols with long tails, many of them escapes and outliers."""
    rng, cells = np.random.default_rng(0), (-(-height // 16), -(-width // 16))

    def choose(part: int, distributions: Distributions) -> np.ndarray:
        symbols = np.rint(rng.standard_cauchy(distributions.indices.shape) * 0.3)
        return np.clip(symbols, -SYMBOL_MAX, SYMBOL_MAX).astype(np.int32)

    model = codec.model.tilted(tilt)
    coded = encode_tile(model.prior, model.models, cells, quality_index, choose)
    header = Header(model.id, height, width, quality_index, 1024, tilt=tilt)
    data = image_file.pack(header, [(coded.payload, coded.crc, 0)])
    return with_pixel_crcs(data, codec.decoder.pixel_crcs(data))


def count_outliers(codec: Codec, name: str) -> list[int]:
    """The number of outliers in each part of each tile of an image."""
    counts = []

    def push(coder: Any, symbols: np.ndarray, indices: np.ndarray, models: Any) -> np.ndarray:
        counts.append(int(np.count_nonzero(symbols[indices == ZERO_TABLE])))
        return push_outliers(coder, symbols, indices, models)

    pixels, quality_index, tile = IMAGES[name]
    with mock.patch("vaecodec.entropy.coding.push_outliers", push):
        codec.encode(pixels, quality_of(quality_index), tile=tile, tune="psnr")
    return counts


def sample(channels: int, height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    """An image of 1 to 4 channels; alpha has a hole, a soft edge and an opaque part."""
    colour = synthetic_image(height, width, 20 + channels)[..., : 1 if channels < 3 else 3]
    if channels in (2, 4):
        alpha = np.clip(8 * (np.arange(width) - width // 3), 0, 255)
        colour = np.dstack([colour, np.broadcast_to(alpha, (height, width)).astype(np.uint8)])
    colour = colour.astype(dtype) * (257 if dtype == np.uint16 else 1)
    return clear_transparent(colour[..., 0] if channels == 1 else colour)


def make_kinds(codec: Codec) -> None:
    """Write a file of every coding and number of channels."""
    metadata = {"dpi": np.array([2835, 2835], "<u4").tobytes()}
    for channels, kind in enumerate(("grey", "grey-alpha", "rgb", "rgba"), 1):
        samples = sample(channels, 45, 60)
        rgb = np.ascontiguousarray(split_alpha(samples)[0])
        alpha = split_alpha(samples)[1]
        alpha_chunks = [] if alpha is None else [(ALPHA, fallback.encode_lossless(alpha))]
        grey = [(GREY, b"")] if channels < 3 else []
        avif_header = image_file.FallbackHeader("avif", 45, 60, channels, 8)
        coded = fallback.encode_avif(rgb[..., 0] if channels < 3 else rgb, 60)
        deep_samples = sample(channels, 20, 30, np.uint16)
        files = {
            f"vae-{kind}": insert_chunks(
                codec.encode(rgb, quality_of(624), metadata, tune="psnr"), grey + alpha_chunks
            ),
            f"avif-{kind}": insert_chunks(image_file.pack_fallback(avif_header, coded, metadata), alpha_chunks),
            f"lossless-{kind}": fallback.pack_lossless(samples, metadata),
            f"lossless16-{kind}": fallback.pack_lossless(deep_samples, metadata),
        }
        for name, data in files.items():
            write(HERE / "kinds" / f"{name}.vae", data, modes.decode(data, model=str(MODEL)))
    for channels, kind in enumerate(("grey", "grey-alpha", "rgb", "rgba"), 1):
        bits = (9, 12, 16, 16)[channels - 1]
        deep = sample(channels, 45, 60, np.uint16)
        colours = deep if channels % 2 else deep[..., :-1]
        colours >>= 16 - bits
        _, colours, chunks = split(deep, 3)
        data = codec.encode(colours, quality_of(398), metadata, effort=3 if channels == 4 else 1, tune="psnr")
        assert channels < 4 or parse(data).header.filter, "vae16-rgba.vae is to have a filter"
        data = insert_chunks(data, chunks)
        write(HERE / "kinds" / f"vae16-{kind}.vae", data, modes.decode(data, model=str(MODEL)))
    wide = (np.arange(16384) // 64 % 256).astype(np.uint8)[None]  # wider than the limit of WebP
    write(HERE / "kinds" / "lossless-png.vae", fallback.pack_lossless(wide), wide)


def make_adaptive(codec: Codec) -> None:
    """Write files of the adaptive coding: kinds, depths, bounds, expansions, and an alpha beside latents."""
    files, metadata = {}, {"dpi": np.array([2835, 2835], "<u4").tobytes()}
    for channels, kind in enumerate(("grey", "grey-alpha", "rgb", "rgba"), 1):
        deep = sample(channels, 8, 20, np.uint16) // 3 * 2 + 1
        files[f"adaptive-{kind}"] = exact.pack(sample(channels, 9, 70), 0, metadata, tile=64)
        files[f"adaptive16-{kind}"] = exact.pack(deep, 0)
        files[f"near-{kind}"] = exact.pack(sample(channels, 8, 66), channels, tile=64)
    deep = sample(2, 8, 20, np.uint16) // 3 * 2 + 1
    for effort in (2, 4, 5, 7, 9):
        files[f"adaptive-effort{effort}"] = exact.pack(sample(3, 9, 70), 0, metadata, tile=64, effort=effort)
    for effort in (5, 9):
        files[f"near16-effort{effort}"] = exact.pack(deep, 5, effort=effort)
    with mock.patch("vaecodec.lossless.LEVELS", (3,)):  # which is read, but no longer written
        files["adaptive-level3"] = exact.pack(sample(3, 9, 70), 0, metadata, tile=64, effort=1)
        files["near16-level3"] = exact.pack(deep, 5, effort=1)
    grey = sample(1, 8, 20, np.uint16)
    files["adaptive12-grey"] = exact.pack(grey >> 4)
    files["adaptive-shifted"] = exact.pack(grey & 0xFFC0)
    files["adaptive-scaled"] = exact.pack(grey)
    soft = synthetic_image(16, 24, 40)
    alpha = [(ALPHA, lossless.encode(np.ascontiguousarray(soft[..., 1])))]
    files["vae-adaptive-alpha"] = insert_chunks(codec.encode(soft, 70, tune="psnr"), alpha)
    for name, data in files.items():
        write(HERE / "kinds" / f"{name}.vae", data, modes.decode(data, model=str(MODEL)))


def make_arrays() -> None:
    """Write an array chunk of every mode, and the CRC of the values in each."""
    random_walk = 100 + np.cumsum(np.random.default_rng(0).integers(-4, 5, (2, 48, 40)), -1)
    grey, model = np.clip(random_walk[0], 0, 255).astype("u1"), str(MODEL)
    holes = random_walk[0].astype("f4") + 0.7
    holes[10:20, 5:9] = np.nan
    holes[30, 30] = np.inf
    encoded = {
        "grey": arrays.encode(grey, mode="planes"),
        "rgb_3": arrays.encode(synthetic_image(30, 40, 30), 3, mode="planes"),
        "vae_9": arrays.encode(synthetic_image(40, 50, 31), 9, mode="vae", model=model),
        "vae_lossless_volume": arrays.encode((9 * random_walk).astype("u2"), mode="vae", model=model),
        "holes": arrays.encode(holes, 0.5, mode="planes"),
        "ordered": arrays.encode((random_walk[0] * np.pi).astype("f4"), mode="planes"),
        "quotients": arrays.encode(random_walk[0] / 100.0, mode="planes"),
        "wide": arrays.encode((random_walk[0] * 49999).astype("i4"), 5000, mode="planes"),
        "stored": arrays.encode(random_walk[0][:9] * np.pi, mode="stored"),
        "constant": arrays.encode(np.full((9, 8), -2.5)),
        "grid": arrays.encode(random_walk[0].astype("f4"), 2, mode="grid"),
        "nanoseconds": arrays.encode(1_700_000_000_000_000_123 + 10_000 * random_walk[0], 20_000, mode="planes"),
        "booleans": arrays.encode(random_walk[0] > 100, mode="planes"),
        "line": arrays.encode(random_walk.ravel()[:500].astype("u1"), mode="planes"),
    }
    lines = []
    for name, data in encoded.items():
        (HERE / "arrays" / f"{name}.chunk").write_bytes(data)
        lines.append(f"{name}.chunk {zlib.crc32(arrays.decode(data, model).tobytes()):08x}")
    assert {chunks.parse(data).mode for data in encoded.values()} == set(range(len(chunks.MODES)))
    (HERE / "arrays" / "crc32.txt").write_text("\n".join(lines) + "\n")


def make_stored() -> None:
    """Write a stored file with a name that is not ASCII, permissions and a time."""
    file, metadata = (
        io.BytesIO(),
        stored.Stored("n\u00f6tes.txt".encode(), Attributes(0o604, 1_234_567_890_987_654_321)),
    )
    stored.write(io.BytesIO((HERE / "stored" / "notes.txt").read_bytes()), file, metadata)
    (HERE / "stored" / "notes.txt.vae").write_bytes(file.getvalue())


def make_set() -> None:
    """Write the set of small images."""
    images = np.load(HERE / "sets" / "tiny.npy")
    (HERE / "sets" / "tiny.vae").write_bytes(image_sets.encode(images, str(HERE / "sets" / "tiny.vcm")))


def write(path: pathlib.Path, data: bytes, pixels: np.ndarray | None = None) -> None:
    """Write a file, and the pixels it decodes to beside it."""
    path.write_bytes(data)
    if pixels is not None:
        np.save(path.with_suffix(".npy"), pixels)


if __name__ == "__main__":
    make_model()
    tiny = Codec(load_model(str(MODEL)), threads=1)
    make_images(tiny)
    make_kinds(tiny)
    make_adaptive(tiny)
    make_arrays()
    make_stored()
    make_set()
