"""Test the parts that compare what was written with what should be there."""

import io

import pytest

from vaecodec.errors import CodecError
from vaecodec.files import ByteCounter, Comparison


@pytest.mark.parametrize(
    ("written", "equal"), [(b"some bytes", True), (b"some", False), (b"some bytes more", False), (b"some BYTES", False)]
)
def test_a_comparison_notices_other_shorter_and_longer_files(written, equal):
    def compare():
        with Comparison(io.BytesIO(b"some bytes"), "they differ") as comparison:
            for begin in range(0, len(written), 4):
                assert comparison.write(written[begin : begin + 4]) == len(written[begin : begin + 4])

    if equal:
        compare()
    else:
        with pytest.raises(CodecError, match="they differ"):
            compare()


def test_a_comparison_keeps_the_exception_that_ended_it():
    with pytest.raises(ZeroDivisionError), Comparison(io.BytesIO(b"some bytes"), "they differ"):
        raise ZeroDivisionError


def test_counted_bytes_are_passed_on():
    file = io.BytesIO()
    counter = ByteCounter(file)
    assert counter.write(b"abc") == 3 and counter.write(b"de") == 2
    assert counter.bytes == 5 and file.getvalue() == b"abcde"
