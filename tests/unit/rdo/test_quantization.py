"""Quantisation chooses the same symbols whatever threads share it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from vaecodec import rdo
from vaecodec.model.file import load_model
from vaecodec.prior import Distributions
from vaecodec.threads import Threads


@pytest.mark.parametrize("coded", [0, 255, 256, 257, 512 * 60, 70_000])
def test_threads_share_the_strips_of_a_trellis(coded):
    model = load_model("small")
    rng, count = np.random.default_rng(coded), 70_000
    indices = np.zeros(count, np.uint8)
    indices[rng.permutation(count)[:coded]] = rng.integers(1, 60, coded)
    distributions = Distributions(indices, rng.integers(-99, 99, count, dtype=np.int32))
    target = rng.laplace(0, 2, count).astype(np.float32)
    quantize = rdo.quantizer(model.prior, model.models.tables)
    alone = quantize(target, distributions)
    with ThreadPoolExecutor(3) as pool:
        np.testing.assert_array_equal(quantize(target, distributions, Threads(3, pool)), alone)
