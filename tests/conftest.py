"""What tests share: a tiny frozen model, and pictures."""

from __future__ import annotations

import os
import pathlib
import signal

import numpy as np
import pytest

from vaecodec.codec import Codec
from vaecodec.model.file import load_model
from vaecodec.native import build, library

GOLDEN = pathlib.Path(__file__).parent / "golden"

# A shell's background jobs ignore it, and so would the commands that tests begin and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """u8[height, width, 3]: smooth shapes, an edge and a little noise; no two seeds alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 32.0
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-2, 2, (3, 3))]
    pixels = 128 + 70 * np.stack(waves, -1) + 40 * (x > y)[..., None] + rng.normal(0, 3, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def tiny() -> Codec:
    """A codec of a few thousand weights: the one that the golden files were made with."""
    return Codec(load_model(str(GOLDEN / "tiny.vcm")))


@pytest.fixture(scope="session")
def small() -> Codec:
    """The shipped codec."""
    return Codec(load_model("small"))


@pytest.fixture(scope="session")
def core_kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The kinds of the native core that this machine runs, but "numpy"; the core is built where it was not."""
    if library.kinds() == (library.REFERENCE,):
        path = tmp_path_factory.mktemp("core") / build.library_name()
        build.build(path)
        os.environ["VAECODEC_CORE_LIBRARY"] = str(path)
        library.forget()
    return library.kinds()[1:]
