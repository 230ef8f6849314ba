"""Damaged bytes give a CodecError and no picture; the long runs are in tests/fuzz."""

import random
import warnings

import numpy as np
import pytest

from support.damage import flipped, mutants, truncations
from support.paths import GOLDEN
from vaecodec.container import chunks, image_file
from vaecodec.container.image_file import Header, pack, parse
from vaecodec.errors import CodecError, FormatError
from vaecodec.limits import Limits

META = {"icc": b"profile" * 40, "exif": b"II*\0" + bytes(40), "xmp": b"<x/>"}


@pytest.fixture(scope="module")
def files(tiny):
    found = [path.read_bytes() for path in sorted(GOLDEN.glob("*.vae"))]
    return [data for data in found if image_file.info(data).get("model") == tiny.model.id]


def test_there_are_twenty_golden_files(files):
    assert len(files) >= 20


def test_every_truncation_is_noticed(tiny, files):
    for data in files:
        for damaged in truncations(data):
            with pytest.raises(FormatError):
                tiny.decode(damaged)


def test_every_bit_before_the_payload_is_noticed(tiny, files):
    for data in files:
        for damaged in flipped(data, range(8 * parse(data).tiles[0].offset)):
            with pytest.raises(CodecError):
                tiny.decode(damaged)


def test_bits_of_payloads_are_noticed_by_the_tiles_themselves(tiny, files):
    """Or change nothing: a scale offset of a part has no effect where the part has no such symbols."""
    rng, tried, harmless = random.Random(1), 0, 0
    for data in files:
        parsed = parse(data)
        begin, end = parsed.tiles[0].offset, parsed.tiles[-1].offset + parsed.tiles[-1].length
        bits = rng.sample(range(8 * begin, 8 * end), min(20, 8 * (end - begin)))
        for damaged in flipped(data, bits):
            tried += 1
            try:  # a window leaves out the CRC of DATA
                found = tiny.decode(damaged, (0, 0, parsed.header.height, parsed.header.width))
            except FormatError:
                continue
            assert np.array_equal(found, tiny.decode(data))
            harmless += 1
    assert harmless < 0.05 * tried


def test_mutants_of_files_are_parsed_or_refused(files):
    header = Header("0123456789abcdef" * 2, 100, 200, 448, 128)
    everything = [*files, pack(header, [(b"abcd", 1, 3), (b"", 2, 4)], META)]
    outcomes = set()
    for mutant in mutants(1, 20_000, everything):
        try:
            image_file.metadata(mutant)
            outcomes.add(str)
        except FormatError as exc:
            outcomes.add(type(exc))
    assert outcomes == {str, FormatError}


def test_mutants_of_files_are_decoded_or_refused(tiny, files):
    outcomes = set()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for mutant in mutants(2, 600, files):
            try:
                tiny.decode(mutant, limits=Limits(pixels=1 << 18))
                outcomes.add(str)
            except CodecError as exc:
                outcomes.add(type(exc))
    assert str in outcomes and FormatError in outcomes


def test_a_tiny_file_that_claims_to_be_huge_is_refused_without_memory(tiny):
    import tracemalloc

    def claim(height, width, size=12):
        head = image_file.HEAD.pack(1, 0, bytes.fromhex(tiny.model.id), height, width, 0, size, 0)
        return chunks.MAGIC + chunks.pack_chunk(b"HEAD", head) + chunks.pack_chunk(b"DATA", b"")

    honest = pack(Header(tiny.model.id, 2**24, 8, 0, 4096), [(b"", 0, 0)] * 4096)
    for data in (claim(2**31, 2**31), claim(2**24, 2**24), honest):
        tracemalloc.start()
        with pytest.raises(CodecError):
            tiny.decode(data)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert used < 1 << 20 or data is honest
    assert len(claim(2**31, 2**31)) <= 72


@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 33, 48, 63, 64, 65])
def test_sizes_go_there_and_back(tiny, height):
    import numpy as np

    from support.images import synthetic_image

    whole = synthetic_image(65, 65)
    for width in (1, 3, 15, 16, 17, 31, 32, 47, 49, 64, 65):
        pixels = whole[:height, :width]
        again = tiny.decode(tiny.encode(pixels, 80))
        assert again.shape == pixels.shape
        assert np.sqrt(np.mean((again.astype(float) - pixels) ** 2)) < 16
