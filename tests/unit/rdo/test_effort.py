"""The price of bits brings the squared error to its limit."""

import pytest

from vaecodec.arguments import TUNES
from vaecodec.config import QUALITY_INDICES
from vaecodec.rdo.prices import (
    EYE_ITERATIONS,
    EYE_LEAST_INDEX,
    MAX_PRICE,
    MIN_PRICE,
    NARROW,
    POWER,
    WIDE,
    Price,
    plan_of,
    share_of_error,
)


@pytest.mark.parametrize("power", [0.15, 0.3, 0.6])
@pytest.mark.parametrize("start", [60, 100, 160])
def test_corrections_reach_the_limit(power, start):
    price, limit = Price(100), 100
    for _ in range(4):
        if price.meets_limit(start * price.value**power):
            break
        price.correct(start * price.value**power)
    error = start * price.value**power / limit
    assert NARROW.lowest <= error <= NARROW.highest or price.value in (MIN_PRICE, MAX_PRICE)


@pytest.mark.parametrize("power", [0.15, 0.3, 0.6])
def test_the_price_follows_squared_errors_that_decrease(power):
    price, error = Price(100), 110.0
    for n in range(20):
        error = 110 - 30 * (1 - 0.8**n)
        price.follow(error * price.value**power)
    assert error * price.value**power == pytest.approx(100, rel=0.01)


def test_the_first_squared_error_is_the_limit_where_none_is_given():
    price = Price(None)
    assert not price.exceeds_limit(50) and price.exceeds_limit(50.3) and price.meets_limit(49.9)
    assert not price.meets_limit(49) and not price.meets_limit(51)


def test_the_first_price_aims_at_the_tolerance():
    for tolerance in (NARROW, WIDE):
        price = Price(100, tolerance)
        price.start(80)
        assert 80 * price.value**POWER == pytest.approx(100 * tolerance.aim)
    wide = Price(100, WIDE)
    assert wide.meets_limit(96) and not wide.meets_limit(94) and wide.exceeds_limit(102)


def test_an_error_of_nothing_has_a_price():
    price = Price(0)
    assert price.meets_limit(0)
    price.follow(0)
    price.correct(1e9)
    assert price.value == MIN_PRICE


def test_efforts_lower_the_quality_index_less_at_its_upper_end():
    for tune in TUNES:
        for effort in range(1, 10):
            indices = [plan_of(effort, index, tune).quality_index for index in range(QUALITY_INDICES)]
            refined = indices[EYE_LEAST_INDEX if tune == "eye" else 0 :]
            assert indices[0] == 0 and refined == sorted(refined)
            assert indices[-1] - indices[448] >= QUALITY_INDICES - 1 - 448
            assert (indices == list(range(QUALITY_INDICES))) == (effort < 2 + (tune == "psnr"))


def test_each_effort_refines_more_often():
    for tune in TUNES:
        plans = [plan_of(effort, 750, tune) for effort in range(1, 10)]
        iterations = [plan.iterations for plan in plans]
        assert iterations == sorted(set(iterations)) and iterations[0] == 0 and not plans[0].is_precise


def test_nothing_is_refined_for_the_eye_at_low_quality():
    for effort in range(1, 10):
        assert plan_of(effort, EYE_LEAST_INDEX - 1, "eye") == plan_of(1, EYE_LEAST_INDEX - 1, "eye")
    assert plan_of(2, EYE_LEAST_INDEX, "eye").iterations > 0 and plan_of(2, 0, "psnr").iterations > 0


def test_the_share_of_the_error_rises_with_quality():
    shares = [share_of_error(index, 5) for index in range(QUALITY_INDICES)]
    assert shares == sorted(shares) and 0.9 < shares[0] < shares[-1] < 1


def test_the_share_of_the_error_falls_with_iterations():
    shares = [share_of_error(740, plan_of(effort, 740, "eye").iterations) for effort in range(2, 10)]
    assert shares == sorted(shares, reverse=True) and shares[0] == shares[3] > shares[4] and shares[-1] > 0.97
    shares = [share_of_error(500, plan_of(effort, 500, "eye").iterations) for effort in range(2, 10)]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) == 3 and shares[-1] > 0.92
    shares = [share_of_error(500, iterations) for iterations in EYE_ITERATIONS[1:]]
    assert shares == sorted(set(shares), reverse=True)


def test_the_largest_effort_for_the_eye_rises_with_quality():
    largest = [plan_of(9, index, "eye").iterations for index in range(EYE_LEAST_INDEX, 800)]
    assert largest == sorted(largest)
    assert largest[0] == plan_of(4, EYE_LEAST_INDEX, "eye").iterations and largest[-1] == max(EYE_ITERATIONS)
