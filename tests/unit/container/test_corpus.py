"""Inputs that coverage-guided fuzzing found, one for each piece of code that it reached: tests/long/fuzz/guided.py."""

import pytest

from support.container import take_apart
from support.fuzz_targets import TARGETS, corpus
from support.paths import GOLDEN, TESTS

CORPUS = TESTS / "long" / "fuzz" / "corpus"


def test_each_input_is_parsed_or_refused():
    inputs = [path.read_bytes() for path in CORPUS.iterdir()]
    assert len(inputs) > 30
    accepted = [take_apart(data) for data in inputs]
    assert max(accepted) > 0 == min(accepted)


def test_golden_files_are_parsed():
    for path in GOLDEN.rglob("*.vae"):
        assert take_apart(path.read_bytes()) >= 4


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {"container"}))
def test_inputs_of_other_targets_raise_what_they_promise(name):
    """At least the first input of each target is accepted: a target that refuses everything tests nothing."""
    target = TARGETS[name]
    for data in (*target.seeds(), *(path.read_bytes() for path in sorted(corpus(name).glob("*")))):
        target.run(data)
    target.call(next(target.seeds()))
