"""Test the bounds of the header of sets of images, which are checked before anything is decoded."""

import pytest

from vaecodec.container.info import MAX_CONSUMED, SetHeader, pack_set, parse_set
from vaecodec.errors import FormatError

HEADER = SetHeader("0123456789abcdef" * 2, images=4096, side=28, consumed=0, crc=7)
WORDS = bytes(4)  # with the state, 64 bits: of 1/64 bit an image


def test_the_largest_numbers_are_accepted():
    for header in (HEADER, HEADER._replace(images=4096 + 2048 * MAX_CONSUMED, consumed=MAX_CONSUMED)):
        assert parse_set(pack_set(header, WORDS)) == (header, WORDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 4097}, "4097 images, more than 4 bytes can hold"),
        ({"images": 0}, "0 images"),
        ({"side": 0}, "side 0"),
        ({"consumed": MAX_CONSUMED + 1}, "1048577 initial words"),
    ],
)
def test_larger_numbers_are_refused(change, message):
    with pytest.raises(FormatError, match=message):
        parse_set(pack_set(HEADER._replace(**change), WORDS))
