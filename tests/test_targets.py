"""The search for a size or a fidelity."""

import math

import pytest

from vaecodec.config import STEPS
from vaecodec.targets import Target, search


def rate(step):
    """Bytes of a picture whose rate grows a little unevenly with the step."""
    return round(4000 * math.exp(3.4 * step / STEPS + 0.05 * math.sin(step / 40)))


def psnr(step):
    return 26 + 14 * (step / STEPS) ** 0.9


def counting(function):
    trials = []

    def trial(step):
        trials.append(step)
        return function(step), step

    return trial, trials


@pytest.mark.parametrize("size", [4100, 5000, 12345, 50000, 110000])
def test_sizes_are_met_from_below_in_few_trials(size):
    trial, trials = counting(rate)
    found, step = search(Target("size", size), trial)
    assert 0.99 * size <= found <= size and found == rate(step)
    assert len(trials) == len(set(trials)) <= 6


@pytest.mark.parametrize("wanted", [26.5, 30.0, 33.3, 39.5])
def test_fidelities_are_met_from_above_in_few_trials(wanted):
    trial, trials = counting(psnr)
    found, _ = search(Target("psnr", wanted), trial)
    assert wanted <= found <= wanted + 0.05
    assert len(trials) == len(set(trials)) <= 6


@pytest.mark.parametrize(
    ("target", "function", "end"),
    [
        (Target("size", 100), rate, 0),
        (Target("size", 10**9), rate, STEPS - 1),
        (Target("psnr", 10.0), psnr, 0),
        (Target("psnr", 90.0), psnr, STEPS - 1),
    ],
)
def test_what_cannot_be_met_ends_at_an_end(target, function, end):
    trial, _ = counting(function)
    assert search(target, trial)[1] == end


def test_a_coarse_scale_gives_the_best_step_on_the_right_side():
    def steps(step):
        return 1000 * (1 + step // 100)

    found, step = search(Target("size", 4500), lambda step: (steps(step), step))
    assert found == 4000 and steps(step + 1) > 4500
