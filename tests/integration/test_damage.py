"""Test that damaged files raise a CodecError and give no image; tests/long/fuzz has longer runs."""

import random
import warnings

import numpy as np
import pytest

from support.damage import flipped, mutants, truncations
from support.paths import GOLDEN
from vaecodec import container
from vaecodec.arguments import Limits
from vaecodec.container import image_file
from vaecodec.container.image_file import Header, pack, parse
from vaecodec.errors import CodecError, FormatError

META = {"icc": b"profile" * 40, "exif": b"II*\0" + bytes(40), "xmp": b"<x/>"}


@pytest.fixture(scope="module")
def files(tiny):
    golden_files = [path.read_bytes() for path in sorted(GOLDEN.glob("*.vae"))]
    return [data for data in golden_files if image_file.info(data).get("model") == tiny.model.id]


def test_at_least_twenty_golden_files_exist(files):
    assert len(files) >= 20


def test_truncations_are_detected(tiny, files):
    for data in files:
        for damaged in truncations(data):
            with pytest.raises(FormatError):
                tiny.decode(damaged)


def test_flipped_bits_before_the_payload_are_detected(tiny, files):
    for data in files:
        for damaged in flipped(data, range(8 * parse(data).tiles[0].offset)):
            with pytest.raises(CodecError):
                tiny.decode(damaged)


def test_tiles_detect_flipped_bits_of_payloads(tiny, files):
    """Damage is detected or harmless: the scale offset of a part without symbols has no effect."""
    rng, trials, harmless = random.Random(1), 0, 0
    for data in files:
        parsed = parse(data)
        start, end = parsed.tiles[0].offset, parsed.tiles[-1].offset + parsed.tiles[-1].length
        bits = rng.sample(range(8 * start, 8 * end), min(20, 8 * (end - start)))
        for damaged in flipped(data, bits):
            trials += 1
            try:  # a window skips the CRC of DATA
                decoded = tiny.decode(damaged, (0, 0, parsed.header.height, parsed.header.width))
            except FormatError:
                continue
            assert np.array_equal(decoded, tiny.decode(data))
            harmless += 1
    assert harmless < 0.05 * trials


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


def test_claimed_sizes_allocate_no_memory(tiny):
    import tracemalloc

    def claim(height, width, size=12):
        head = image_file.HEAD.pack(1, 0, bytes.fromhex(tiny.model.id), height, width, 0, size, 0)
        return container.MAGIC + container.pack_chunk(b"HEAD", head) + container.pack_chunk(b"DATA", b"")

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
def test_images_of_any_size_round_trip(tiny, height):
    import numpy as np

    from support.images import synthetic_image

    image = synthetic_image(65, 65)
    for width in (1, 3, 15, 16, 17, 31, 32, 47, 49, 64, 65):
        pixels = image[:height, :width]
        decoded = tiny.decode(tiny.encode(pixels, 80))
        assert decoded.shape == pixels.shape
        assert np.sqrt(np.mean((decoded.astype(float) - pixels) ** 2)) < 16
