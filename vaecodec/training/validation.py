"""Validation of a run: its weights, frozen, code images that it is not trained on, as real files.

The BD-rate is against the model that the run started from, over the PSNR that both reach, or for the eye SSIMULACRA2.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from vaecodec.atomic import write_atomic
from vaecodec.codec import Codec
from vaecodec.config import Config
from vaecodec.errors import CodecError
from vaecodec.images.channels import read_training_image
from vaecodec.images.metrics import linear_rate, rising, ssimulacra2
from vaecodec.model.file import Model, identify, load_model
from vaecodec.training import Encoded, Weights
from vaecodec.training.freezing import photograph_arrays

SHARE = 10  # one image in ten is held out
MOST_IMAGES = 24
MOST_SIDE, LEAST_SIDE = 256, 64  # of the middle of an image that is coded
QUALITIES = (15.0, 30.0, 45.0, 60.0, 75.0, 90.0)
SHOWN = 3  # images in TensorBoard
SHOWN_QUALITY = 30.0
FILE = "validation.json"

# (bpp, PSNR in dB or score of SSIMULACRA2): means over the images, a pair for each of QUALITIES.
Points = list[tuple[float, float]]
METRIC_OF_TUNE = {"psnr": "psnr", "eye": "ssimulacra2"}


def hold_out(images: Sequence[Encoded]) -> tuple[list[Encoded], list[Encoded]]:
    """Split images into those to train on and a tenth, MOST_IMAGES at most; none is held out of fewer than ten.

    The choice depends on the contents of the files alone, so a resumed run holds out the same ones.
    """
    count = min(len(images) // SHARE, MOST_IMAGES)
    order = sorted(range(len(images)), key=lambda n: (zlib.crc32(_bytes(images[n])), n))
    held = set(order[:count])
    return [image for n, image in enumerate(images) if n not in held], [images[n] for n in sorted(held)]


def _bytes(image: Encoded) -> bytes:
    return image if isinstance(image, bytes) else image.tobytes()


def middles(images: Sequence[Encoded], channels: int) -> list[np.ndarray]:
    """u8[H, W, C]: the middles of the images that can be read and are large enough, at most MOST_IMAGES."""
    crops = []
    for image in images[:: max(1, len(images) // MOST_IMAGES)][:MOST_IMAGES]:
        try:
            pixels = read_training_image(image, channels)
        except (OSError, SyntaxError, ValueError, EOFError):
            continue
        if min(pixels.shape[:2]) >= LEAST_SIDE:
            top, left = (max(0, (side - MOST_SIDE) // 2) for side in pixels.shape[:2])
            crops.append(np.ascontiguousarray(pixels[top : top + MOST_SIDE, left : left + MOST_SIDE]))
    return crops


def bd_rate(reference: Points, points: Points) -> float:
    """Percent of bits that `points` need more than `reference` at equal fidelity; nan if they share none."""
    bpp, fidelity = (np.array([reference, points], np.float64)).transpose(2, 0, 1)
    anchor, curve = (rising(np.log(rate), quality) for rate, quality in zip(bpp, fidelity, strict=True))
    return linear_rate(anchor, curve)


class Result(NamedTuple):
    """A validation: rate and distortion, and the decoded images at SHOWN_QUALITY."""

    points: Points
    bd_rate: float  # percent, nan without a reference
    decoded: list[np.ndarray]
    metric: str  # of METRIC_OF_TUNE

    @property
    def text(self) -> str:
        """The numbers as words, without the name of the reference."""
        bpp, fidelity = self.points[QUALITIES.index(SHOWN_QUALITY)]
        return f"bpp {bpp:.4f} {self.metric} {fidelity:.2f} at quality {SHOWN_QUALITY:g}"


class Validator:
    """Code validation images with a run's weights, and compare with the model that the run started from.

    The record of all validations is RUN/validation.json, from which a resumed run has its reference.

    Args:
        run: the folder of the run.
        images: image files and arrays, of which the middles are coded.
        config: the architecture.
        start: weights that the run starts from; without, and for RGB, the reference is the model `small`.
        name: the name of these weights.
        tune: what the run is tuned for.

    Raises:
        CodecError: no image can be used.
    """

    def __init__(
        self,
        run: str,
        images: Sequence[Encoded],
        config: Config,
        start: Weights | None = None,
        name: str = "",
        tune: str = "psnr",
    ) -> None:
        self._tune = tune
        self.crops, self._config, self._path = middles(images, config.channels), config, os.path.join(run, FILE)
        if not self.crops:
            least = f"{LEAST_SIDE} x {LEAST_SIDE}"
            raise CodecError(f"none of the {len(images)} validation images is readable and of at least {least}")
        digest = zlib.crc32(b"".join(crop.tobytes() for crop in self.crops), zlib.crc32(repr(QUALITIES).encode()))
        self._record: dict[str, Any] = {"images": f"{digest:08x}", "against": "", "reference": [], "results": []}
        try:
            with open(self._path, encoding="utf-8") as file:
                record = json.load(file)
            if record["images"] == self._record["images"]:
                self._record.update(record)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        if not self._record["reference"]:
            model = None
            if start is not None:
                model = frozen(config, start)
            elif config.channels == 3 and not self._record["results"]:
                model, name = load_model("small"), "small"
            if model is not None:
                self._record.update(against=name or "the start", reference=self._measure(model)[0])

    @property
    def against(self) -> str:
        """The name of the reference, "" without one."""
        return str(self._record["against"])

    def _measure(self, model: Model) -> tuple[Points, list[np.ndarray]]:
        codec, points, shown = Codec(model), [], []
        for quality in QUALITIES:
            files = codec.encode_batch(self.crops, quality, tune=self._tune)
            decoded = codec.decode_batch(files)
            pairs = list(zip(self.crops, decoded, strict=True))
            bpp = np.mean(
                [8 * len(data) / math.prod(crop.shape[:2]) for data, crop in zip(files, self.crops, strict=True)]
            )
            points.append((float(bpp), float(np.mean([self._fidelity(*pair) for pair in pairs]))))
            if quality == SHOWN_QUALITY:
                shown = decoded[:SHOWN]
        return points, shown

    def _fidelity(self, a: np.ndarray, b: np.ndarray) -> float:
        """PSNR in dB, or the score of SSIMULACRA2."""
        if self._tune == "eye":
            return ssimulacra2(a, b)
        # An exact image has no PSNR in dB; its error counts as that of a tenth of a level.
        return 10 * math.log10(255**2 / max(float(np.mean((a.astype(np.float32) - b) ** 2)), 0.01))

    def __call__(self, weights: Weights, step: int) -> Result:
        """Validate weights, and record the result; raises CodecError if they exceed fixed point."""
        points, decoded = self._measure(frozen(self._config, weights))
        reference = self._record["reference"]
        rate = bd_rate(reference, points) if reference else math.nan
        result = Result(points, rate, decoded, METRIC_OF_TUNE[self._tune])
        rounded = round(rate, 3) if math.isfinite(rate) else None
        self._record["results"].append({"step": step, "bd_rate": rounded, "points": points})
        write_atomic(self._path, json.dumps(self._record, indent=1).encode(), overwrite=True)
        return result

    def summarise(self, writer: tf.summary.SummaryWriter, result: Result, step: int) -> None:
        """Write scalars and, of grey and RGB, images beside their originals to TensorBoard."""
        with writer.as_default(step=step):
            bpp, fidelity = result.points[QUALITIES.index(SHOWN_QUALITY)]
            for name, value in (("bpp", bpp), (result.metric, fidelity), ("bd_rate", result.bd_rate)):
                if math.isfinite(value):
                    tf.summary.scalar(f"validation/{name}", value)
            if self._config.channels in (1, 3):
                for n, (crop, decoded) in enumerate(zip(self.crops, result.decoded, strict=False)):
                    tf.summary.image(f"validation/{n}, original and decoded", np.concatenate([crop, decoded], 1)[None])


def frozen(config: Config, weights: Weights) -> Model:
    """The model that freezing makes of weights; raises CodecError for weights beyond fixed point."""
    arrays, config = photograph_arrays(config, weights), config.of_decoders
    return Model("run", identify(config.to_dict(), arrays), config, arrays, {})
