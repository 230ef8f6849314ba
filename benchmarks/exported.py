"""Measure throughput on a machine that has JAX but no TensorFlow, through functions exported as StableHLO.

    python benchmarks/exported.py export BUNDLE [--model my.vcm] [--sizes 768x512] [--batches 1,16]   # with TensorFlow
    python benchmarks/exported.py run BUNDLE [--model my.vcm] [-o OUT/exported.json]                  # with JAX
    python benchmarks/exported.py step STEP_BUNDLE [-o OUT/step.json]                                 # with JAX

`export` writes the transforms for each shape that coding these images needs.  `run` measures what batches.py does, with
these functions on the device that JAX finds, and checks that they give the integers of the native core.  `step`
measures a training step that `vaecodec train --export-step` wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from batches import images_of, rows_of
from common import publish

from vaecodec.arguments import TUNES
from vaecodec.codec import Codec
from vaecodec.codec.decoder import Decoder
from vaecodec.codec.encoder import Encoder
from vaecodec.config import QUALITY_INDICES
from vaecodec.errors import CodecError
from vaecodec.model.file import Model, load_model
from vaecodec.native.transforms import FilterWeights
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import NativeTransforms, load_analysis
from vaecodec.transforms.networks import Synthesis, restored
from vaecodec.transforms.wavelet import Coefficients

BATCH = 16  # tiles at once, as transforms.tensorflow
SPEC = "spec.json"
Arrays = list[np.ndarray]


def key_of(kind: str, count: int, height: int, width: int) -> str:
    """The name of a function: "analysis-psnr", "analysis-eye", "levels" or "pixels", and its images."""
    return f"{kind}-{count}x{height}x{width}"


def coefficient_size(coefficients: Sequence[Coefficients]) -> tuple[int, int, int]:
    """(B, H, W) of the images of coefficients."""
    height, width = coefficients[0].subbands[0].shape[1:]
    return len(coefficients), 2 * height, 2 * width


class Recorder:
    """The native transforms, which note the functions that a device would have to run.  Implements Transforms."""

    batch = BATCH

    def __init__(self, native: NativeTransforms) -> None:
        self._native, self.functions = native, set[tuple[str, int, int, int]]()

    def analysis(self, images: Any, quality_index: int, threads: Threads = ONE_THREAD, tune: str = "psnr") -> Any:
        self.functions.add((f"analysis-{tune}", len(images), *images[0].shape[:2]))
        return self._native.analysis(images, quality_index, threads, tune)

    def levels(self, coefficients: Any, quality_index: int, threads: Threads = ONE_THREAD) -> Any:
        self.functions.add(("levels", *coefficient_size(coefficients)))
        return self._native.levels(coefficients, quality_index, threads)

    def pixels(
        self, coefficients: Any, quality_index: int, weights: Any = None, threads: Threads = ONE_THREAD
    ) -> list[np.ndarray]:
        self.functions.add(("pixels" if weights is None else "levels", *coefficient_size(coefficients)))
        return self._native.pixels(coefficients, quality_index, weights, threads)


class Program:
    """A StableHLO file on the first device of JAX: arrays in, arrays out, which stay on the device."""

    def __init__(self, path: pathlib.Path) -> None:
        import jax

        self.device = jax.devices()[0]
        started = time.perf_counter()
        self._executable = self.device.client.compile_and_load(path.read_text(), [self.device])
        self.compile_seconds = time.perf_counter() - started

    def put(self, array: np.ndarray) -> Any:
        """The array on the device."""
        import jax

        return jax.device_put(array, self.device)

    def __call__(self, arguments: Sequence[Any]) -> list[Any]:
        results = self._executable.execute_sharded([self.put(x) for x in arguments])
        return [parts[0] for parts in results.disassemble_into_single_device_arrays()]


class ExportedTransforms:
    """The transforms of a bundle.  Implements Transforms, for the shapes in the bundle."""

    batch = BATCH

    def __init__(self, bundle: pathlib.Path, model: Model) -> None:
        self._bundle, self._lock, self._programs = bundle, threading.Lock(), dict[str, Program]()
        self._synthesis = Synthesis(model.config, model.arrays).multipliers
        self._analysis = {
            tune: load_analysis(model.config, model.arrays, model.name, tune).multipliers for tune in TUNES
        }

    def _run(self, kind: str, size: tuple[int, int, int], arguments: Arrays) -> Arrays:
        key = key_of(kind, *size)
        with self._lock:
            if key not in self._programs:
                path = self._bundle / f"{key}.mlir"
                if not path.exists():
                    raise CodecError(f"{self._bundle} has no {key}: export it with the same sizes and batches")
                self._programs[key] = Program(path)
        return [np.asarray(array) for array in self._programs[key](arguments)]

    def analysis(
        self, images: Sequence[np.ndarray], quality_index: int, threads: Threads = ONE_THREAD, tune: str = "psnr"
    ) -> list[Coefficients]:
        multipliers = [self._analysis[tune].at(place, quality_index) for place in ("fine", "out")]
        planes = self._run(f"analysis-{tune}", (len(images), *images[0].shape[:2]), [np.stack(images), *multipliers])
        return [Coefficients(list(subbands), low) for *subbands, low in zip(*planes, strict=True)]

    def _of_coefficients(self, kind: str, coefficients: Sequence[Coefficients], quality_index: int) -> np.ndarray:
        planes = [np.stack(parts) for parts in zip(*(image.planes() for image in coefficients), strict=True)]
        multipliers = [self._synthesis.at(place, quality_index) for place in ("fine", "out")]
        return self._run(kind, coefficient_size(coefficients), [*planes, *multipliers])[0]

    def levels(
        self, coefficients: Sequence[Coefficients], quality_index: int, threads: Threads = ONE_THREAD
    ) -> list[np.ndarray]:
        return list(self._of_coefficients("levels", coefficients, quality_index))

    def pixels(
        self,
        coefficients: Sequence[Coefficients],
        quality_index: int,
        weights: FilterWeights | None = None,
        threads: Threads = ONE_THREAD,
    ) -> list[np.ndarray]:
        if weights is None:
            return list(self._of_coefficients("pixels", coefficients, quality_index))
        return [restored(levels, weights, threads) for levels in self.levels(coefficients, quality_index)]


def codec_with(model: Model, transforms: Any, threads: int) -> Codec:
    """A codec whose transforms are these."""
    codec = Codec(model, threads=threads)
    codec.transforms = transforms
    codec.decoder = Decoder(model, transforms, threads)
    codec.encoder = Encoder(model, transforms, codec.decoder, threads)
    return codec


def export(options: argparse.Namespace) -> None:
    """Write spec.json, and a function KIND-BxHxW.mlir for each shape that is transformed."""
    import tensorflow as tf

    from vaecodec.transforms.tensorflow import TensorFlowTransforms, bytes_product, float64_product

    model, bundle = load_model(options.model), pathlib.Path(options.bundle)
    recorder = Recorder(model.transforms)
    codec = codec_with(model, recorder, options.threads)
    sizes = [tuple(map(int, text.split("x"))) for text in options.sizes.split(",")]
    cases = [[*size, batch] for size in sizes for batch in map(int, options.batches.split(","))]
    for width, height, batch in cases:
        images = images_of((width, height), batch)
        recorder.pixels(recorder.analysis(images, QUALITY_INDICES // 2), QUALITY_INDICES // 2)
        codec.decode_batch(codec.encode_batch(images, options.quality))
    product = {"float64": float64_product, "bytes": bytes_product}[options.product]
    transforms = TensorFlowTransforms(model.config, model.arrays, model.name, product=product)
    bundle.mkdir(parents=True, exist_ok=True)
    for kind, count, height, width in sorted(recorder.functions):
        function, arguments = _function(transforms, model, kind, (count, height, width))
        compiled = tf.function(function, jit_compile=True, autograph=False)
        text = compiled.experimental_get_compiler_ir(*map(tf.constant, arguments))(stage="stablehlo")
        (bundle / f"{key_of(kind, count, height, width)}.mlir").write_text(text)
    spec = {"model": model.id, "quality": options.quality, "product": options.product, "cases": cases}
    (bundle / SPEC).write_text(json.dumps(spec, indent=1))
    print(f"{bundle}: {len(recorder.functions)} functions")


def _function(
    transforms: Any, model: Model, kind: str, size: tuple[int, int, int]
) -> tuple[Callable[..., Any], Arrays]:
    """A function of tensors, and arguments of its shapes, which are 0."""
    count, height, width = size
    fine, coarse = (np.zeros(n, np.int32) for n in (model.config.fine, model.config.coarse))
    images = np.zeros((count, height, width, model.config.channels), np.uint8)
    if kind.startswith("analysis-"):
        return transforms.analysis_function(kind.removeprefix("analysis-")).python_function, [images, fine, coarse]

    def levels(*arguments: Any) -> Any:
        *planes, fine, out = arguments
        levels = transforms.level_function.python_function(planes, fine, out)
        return levels if kind == "levels" else transforms.pixel_function.python_function(levels)

    [coefficients] = model.transforms.analysis([images[0]], 0)
    planes = [np.zeros((count, *plane.shape), np.int32) for plane in coefficients.planes()]
    return levels, [*planes, fine, fine]


def run(options: argparse.Namespace) -> None:
    """Measure what batches.py does, for the images of a bundle."""
    import jax

    model, bundle = load_model(options.model), pathlib.Path(options.bundle)
    spec = json.loads((bundle / SPEC).read_text())
    if spec["model"] != model.id:
        raise CodecError(f"{bundle} is of the model {spec['model']}, not of {model.name} {model.id}")
    transforms, native = ExportedTransforms(bundle, model), Codec(model, threads=options.threads)
    codec, rows, options.quality = codec_with(model, transforms, options.threads), list[list[Any]](), spec["quality"]
    device = jax.devices()[0].device_kind
    for width, height, batch in spec["cases"]:
        images = images_of((width, height), batch)
        files = codec.encode_batch(images, options.quality)
        if files != native.encode_batch(images, options.quality):
            raise CodecError(f"{device} does not give the bytes of the native core for {width} x {height}")
        rows.append(rows_of(codec, device, (width, height), batch, options))
    about = (
        f"Transforms alone and the whole codec through StableHLO, JAX {jax.__version__}; model {model.name}, "
        f"products in {spec['product']}, {options.threads} threads of the CPU; bytes equal those of the native core."
    )
    speeds = ["analysis, MP/s", "synthesis, MP/s", "encode, MP/s", "decode, MP/s"]
    publish(about, ["device", "image, pixels", "batch", *speeds], rows, options.output)


def step(options: argparse.Namespace) -> None:
    """Measure a training step on random crops; the state stays on the device."""
    import jax

    bundle = pathlib.Path(options.bundle)
    spec, program = json.loads((bundle / SPEC).read_text()), Program(bundle / "step.mlir")
    pieces: dict[str, np.ndarray] = {}
    for path in sorted(bundle.glob("state*.npz")):
        with np.load(path, allow_pickle=False) as arrays:
            pieces.update(arrays)
    state = [program.put(pieces[name]) for name in sorted(pieces)]
    batch, crop, channels = spec["batch"], spec["crop"], spec["config"]["channels"]
    rng, seconds = np.random.default_rng(0), []
    for number in range(options.repeat + 1):
        images = rng.integers(0, 256, (batch, crop, crop, channels), np.uint8)
        started = time.perf_counter()
        *state, metrics = program([*state, images, np.float32(1e-5), np.array([0, number], np.int32)])
        if not np.isfinite(np.asarray(metrics)).all():
            raise CodecError(f"the loss is not finite at step {number}")
        seconds.append(time.perf_counter() - started)
    least = min(seconds[1:])
    device = program.device.device_kind
    row = [device, f"{crop} x {crop}", batch, program.compile_seconds, 1 / least, batch * crop**2 / least / 1e6]
    about = f"The training step through StableHLO, JAX {jax.__version__}; the fastest of {options.repeat}."
    publish(about, ["device", "crop, pixels", "batch", "compilation, s", "steps/s", "MP/s"], [row], options.output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    for work in (export, run, step):
        command = commands.add_parser(work.__name__, help=work.__doc__.split("\n")[0])
        command.set_defaults(work=work)
        command.add_argument("bundle", help="folder")
        if work is not step:
            command.add_argument("--model", default="small")
            command.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of what runs on the CPU")
        if work is not export:
            command.add_argument("--repeat", type=int, default=3)
            command.add_argument("-o", "--output", help="JSON file")
        else:
            command.add_argument("--sizes", default="256x256,768x512,2048x1536", help="multiples of 16")
            command.add_argument("--batches", default="1,16")
            command.add_argument("--quality", type=float, default=75)
            command.add_argument("--product", default="float64", choices=("float64", "bytes"), help="of dense layers")
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
