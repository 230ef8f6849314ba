"""Inputs that coverage-guided fuzzing found, one for each piece of code that it reached: tests/long/fuzz/guided.py."""

from contextlib import suppress

import pytest

from support.container import read_preamble, take_apart
from support.fuzz_targets import TARGETS, corpus
from support.paths import GOLDEN, TESTS
from vaecodec.container import image_file
from vaecodec.errors import FormatError

CORPUS = TESTS / "long" / "fuzz" / "corpus"


def test_each_input_is_parsed_or_refused():
    inputs = [path.read_bytes() for path in CORPUS.iterdir()]
    assert len(inputs) > 30
    accepted = [take_apart(data) for data in inputs]
    assert max(accepted) > 0 == min(accepted)


def test_golden_files_are_parsed():
    for path in GOLDEN.rglob("*.vae"):
        assert take_apart(path.read_bytes()) >= 4


def test_the_preambles_of_golden_files_say_what_their_whole_files_do():
    images = 0
    for path in GOLDEN.rglob("*.vae"):
        data = path.read_bytes()
        with suppress(FormatError):  # stored files and sets hold no image
            whole, preamble = image_file.contents(data), read_preamble(data)
            if whole.header.is_image:
                assert (preamble.channels, preamble.depth) == (whole.channels, whole.depth)
                images += 1
    assert images > 30


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {"container"}))
def test_inputs_of_other_targets_raise_what_they_promise(name):
    """At least the first input of each target is accepted: a target that refuses everything tests nothing."""
    target = TARGETS[name]
    for data in (*target.seeds(), *(path.read_bytes() for path in sorted(corpus(name).glob("*")))):
        target.run(data)
    target.call(next(target.seeds()))
