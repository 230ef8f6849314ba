"""Refinement with the native core: its gradients are near those in floats, whatever the kind and the threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from support.rdo import rd_cost
from vaecodec.codec import Codec
from vaecodec.native import library
from vaecodec.prior import PARTS
from vaecodec.rdo import quantizer
from vaecodec.rdo.passes import FloatPasses, IntegerPasses
from vaecodec.threads import ONE_THREAD, Threads
from vaecodec.transforms import Box

QUALITY_INDEX = 300


@pytest.fixture(scope="module")
def crop(request):
    """u8[96, 112, 3] of a photograph."""
    path = request.config.rootpath / "docs" / "examples" / "parrots.png"
    return np.ascontiguousarray(np.asarray(Image.open(path).convert("RGB"))[150:246, 200:312])


def gradients_of(passes, model):
    """The cost of a trial in bits and error, and the gradients of the error and of both."""
    trial = passes.trial(passes.targets(), [quantizer(model.prior, model.models.tables)] * PARTS)
    by_error = passes.error_gradients()
    both = passes.gradients(trial, [part.copy() for part in by_error])
    return trial, by_error, both


@pytest.mark.parametrize(
    "inner, within", [(Box(0, 0, 6, 7), (96, 112)), (Box(1, 2, 6, 6), (96, 112)), (Box(0, 0, 6, 7), (81, 97))]
)
def test_gradients_are_near_those_in_floats(small, crop, kinds, inner, within):
    model = small.model
    [coefficients] = model.transforms.analysis([crop], QUALITY_INDEX)
    arguments = model, crop, within, coefficients, inner, QUALITY_INDEX
    trial, by_error, both = gradients_of(FloatPasses(*arguments), model)
    with ThreadPoolExecutor(2) as pool:
        results = []
        for kind in kinds:
            with library.use(kind):
                for threads in (ONE_THREAD, Threads(3, pool)):
                    results.append(gradients_of(IntegerPasses(*arguments, threads), model))
    for other, other_by_error, other_both in results:
        for ours, theirs in zip(other.symbols, trial.symbols, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert other.bits == pytest.approx(trial.bits, rel=1e-5)
        assert other.squared_error == pytest.approx(trial.squared_error, rel=0.02)  # of a filter of one class
        for ours, theirs in zip(other_both, results[0][2], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for part in range(5, PARTS):
            assert np.corrcoef(other_by_error[part], by_error[part])[0, 1] > 0.97
            # Networks see the sign of a value, and integers round some values to 0.
            by_bits, in_floats = other_both[part] - other_by_error[part], both[part] - by_error[part]
            if part < PARTS - 1:
                assert np.corrcoef(by_bits, in_floats)[0, 1] > 0.7
            else:
                assert not by_bits.any()  # nothing is coded after it


def test_files_cost_as_little_as_in_floats(small, crop, kinds):
    plain = rd_cost(crop, small, small.encode(crop, 40, tune="psnr"), 40)
    costs = [rd_cost(crop, small, small.encode(crop, 40, effort=5, tune="psnr"), 40)]
    with library.use(library.REFERENCE):
        costs.append(rd_cost(crop, small, small.encode(crop, 40, effort=5, tune="psnr"), 40))
    assert costs[0] < 1.01 * costs[1] and max(costs) < 0.995 * plain


def test_files_do_not_depend_on_kinds_and_threads(small, crop, kinds):
    files = []
    for kind in kinds:
        with library.use(kind):
            files += [Codec(small.model, threads=threads).encode(crop, 60, effort=4) for threads in (1, 2)]
    assert len(set(files)) == 1
