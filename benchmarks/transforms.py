"""Speed of the transforms in TensorFlow, in batches, on whatever device it uses, beside the arithmetic floor.

    python benchmarks/transforms.py [--model my.vcm] [-o OUT/transforms.json]
    python benchmarks/transforms.py --export DIR      # StableHLO of both, to time where TensorFlow is not

In the exported functions the weights are arguments after the first: to time them, any values do.
The floor is twice the multiply-accumulates over the largest rate of a matrix product measured on the same device.
"""

from __future__ import annotations

import argparse
import pathlib
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from table import publish

from vaecodec.config import STEPS, STRIDE, Config
from vaecodec.float_transforms import analysis, synthesis
from vaecodec.layers import Float
from vaecodec.vae import specification
from vaecodec.model.file import Model, conditions, load_model

Call = tuple[Callable[[tf.Tensor], tf.Tensor], tf.Tensor]


def calls(model: Model, batch: int, height: int, width: int) -> dict[str, Call]:
    """Name -> (function, argument) of both transforms at the middle quality; pixels u8, latents f32."""
    weights = {
        name.removeprefix("weights/"): tf.constant(array.astype(np.float32))
        for name, array in model.arrays.items()
        if name.startswith("weights/")
    }
    rng = np.random.default_rng(0)
    pixels = tf.constant(rng.integers(0, 256, (batch, height, width, 3), np.uint8))
    y = tf.constant(rng.normal(size=(batch, height // STRIDE, width // STRIDE, model.config.latents)), tf.float32)

    def bound(name: str, function: Callable[[Float, Config, tf.Tensor], tf.Tensor]) -> Callable[[tf.Tensor], tf.Tensor]:
        told = {one: tf.constant(model.vector(one, STEPS // 2)) for one in conditions(model.config, name)}
        ops = Float(weights, told)
        return tf.function(lambda x: function(ops, model.config, x), jit_compile=True, autograph=False)

    return {"analysis": (bound("analysis", analysis), pixels), "synthesis": (bound("synthesis", synthesis), y)}


def seconds_of(function: Callable[[tf.Tensor], tf.Tensor], argument: tf.Tensor, repeat: int) -> float:
    """Least seconds of a call, its result waited for, after one that compiles."""
    found = []
    for _ in range(repeat + 1):
        began = time.perf_counter()
        np.asarray(tf.reduce_sum(tf.cast(function(argument), tf.float32)))
        found.append(time.perf_counter() - began)
    return min(found[1:])


def peak(repeat: int, side: int) -> float:
    """FLOP/s of the largest matrix product, f32."""
    matrix = tf.random.stateless_normal((side, side), (0, 0))
    product = tf.function(lambda x: tf.matmul(x, x), jit_compile=True, autograph=False)
    return 2 * side**3 / seconds_of(product, matrix, repeat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="small")
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--size", default="768x512", help="width x height in pixels, multiples of 16")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--peak-side", type=int, default=2048, help="of the matrices that the peak is measured with")
    parser.add_argument("--export", type=pathlib.Path, metavar="DIR", help="write NAME-BATCH.mlir instead of measuring")
    parser.add_argument("-o", "--output", help="JSON file")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    model, batches = load_model(options.model), list(map(int, options.batches.split(",")))
    if options.export:
        options.export.mkdir(parents=True, exist_ok=True)
        for batch in batches:
            for name, (function, argument) in calls(model, batch, height, width).items():
                text = function.experimental_get_compiler_ir(argument)(stage="stablehlo")
                (options.export / f"{name}-{batch}.mlir").write_text(text)
        return
    networks = specification(model.config, 512)
    macs = {name: sum(networks[name].macs.values()) / 512**2 for name in ("analysis", "synthesis")}
    rate = peak(options.repeat, options.peak_side)
    rows = []
    for batch in batches:
        for name, (function, argument) in calls(model, batch, height, width).items():
            seconds = seconds_of(function, argument, options.repeat)
            megapixels = batch * height * width / 1e6
            floor = 2 * macs[name] * megapixels * 1e6 / rate
            rows.append(
                [name, f"{width} x {height}", batch, megapixels / seconds, megapixels / floor, 100 * floor / seconds]
            )
    devices = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("CPU")
    details = tf.config.experimental.get_device_details(devices[0]).get("device_name", devices[0].device_type)
    about = (
        f"Transforms alone, XLA, f32, on {details}; the fastest of {options.repeat}; peak {rate / 1e12:.3g} TFLOP/s."
    )
    head = ["transform", "picture, pixels", "batch", "MP/s", "MP/s at the floor", "% of the peak"]
    publish(about, head, rows, options.output)


if __name__ == "__main__":
    main()
