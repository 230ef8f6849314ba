"""Test that unusual and damaged files of other projects' test suites give the right samples or a clear error.

conformance.tsv has a line for each file: name, outcome, check. The outcome is the dtype and shape of the samples, or
"error" and the start of its message. The check is the CRC-32 of the samples as little-endian bytes. For lossy formats,
whose decoders differ slightly, it is the mean of each channel. The PNGs agree with libpng, except for alpha that a
palette declares and no pixel has. The files are not in this repository, but in ../shared/data/conformance.

    python tests/integration/test_conformance.py     writes the table again, for review with git diff
"""

from __future__ import annotations

import pathlib
import warnings
import zlib

import numpy as np
import pytest

from support.paths import DATA
from support.skips import needs_data
from vaecodec.codec import fallback, modes
from vaecodec.container.image_file import info
from vaecodec.errors import CodecError
from vaecodec.images.channels import alpha_channel, clear_transparent, count_channels
from vaecodec.images.reading import read_image

TABLE = pathlib.Path(__file__).parent / "conformance.tsv"
FILES = DATA / "conformance"
LOSSY = (b"\xff\xd8\xff", b"RIFF", b"\0\0\0")  # first bytes of JPEG, WebP, AVIF

needs_files = needs_data(FILES, "conformance files")


def outcome(path: pathlib.Path) -> tuple[str, str]:
    """Return outcome and check of a file; any exception but CodecError is a failure."""
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            samples, _ = read_image(data, "it")
        except CodecError as exc:
            message = str(exc)
            assert message.startswith("it: ") and "\n" not in message
            return "error", " ".join(message[4:].split("(")[0].split()[:4])
    assert samples.flags.c_contiguous
    shape = " ".join(map(str, samples.shape))
    if data.startswith(LOSSY):
        means = samples.reshape(-1, count_channels(samples)).mean(axis=0)
        return f"{samples.dtype} {shape}", " ".join(f"{mean:.1f}" for mean in means)
    return f"{samples.dtype} {shape}", f"{zlib.crc32(samples.astype(samples.dtype.newbyteorder('<')).tobytes()):08x}"


def read_table() -> list[list[str]]:
    return [line.split("\t") for line in TABLE.read_text().splitlines()]


def test_the_table_covers_every_kind_of_samples():
    names = [name for name, _, _ in read_table()]
    assert len(names) == len(set(names)) == 596
    shapes = [kind.split() for _, kind, _ in read_table() if kind != "error"]
    for dtype in ("uint8", "uint16"):
        assert {tuple(shape[2:]) for kind, *shape in shapes if kind == dtype} == {(), ("2",), ("3",), ("4",)}


@needs_files
@pytest.mark.parametrize("suite", ["fuzzed", "image-rs", "pillow", "pngsuite"])
def test_files_give_the_expected_samples_or_error(suite):
    expected = {name: (kind, check) for name, kind, check in read_table() if name.startswith(suite)}
    for name, (kind, check) in expected.items():
        result, measured = outcome(FILES / name)
        if kind == "error":  # the message comes from Pillow and may change
            assert result == "error", name
        elif "." in check:
            assert result == kind, name
            np.testing.assert_allclose(
                [*map(float, measured.split())], [*map(float, check.split())], atol=1, err_msg=name
            )
        else:
            assert (result, measured) == (kind, check), name


@needs_files
def test_images_are_no_larger_than_their_lossless_version(small):
    counts = {"vae": 0, "lossless": 0, "avif": 0}
    for name, kind, _ in read_table():
        if kind == "error":
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            samples, metadata = read_image((FILES / name).read_bytes(), name)
        data = modes.encode(small, samples, 75, metadata)
        file_info = info(data)
        counts[file_info["coding"]] += 1
        assert (file_info["height"], file_info["width"], file_info["channels"]) == (
            *samples.shape[:2],
            count_channels(samples),
        ), name
        assert (file_info["depth"] > 8) == (samples.itemsize == 2)
        if file_info["coding"] == "lossless" or len(samples.tobytes()) < 20_000:
            lossless = fallback.pack_lossless(clear_transparent(samples), metadata)
            assert len(data) <= len(lossless), name
        decoded = modes.decode(data)
        assert decoded.shape == samples.shape and decoded.dtype == samples.dtype, name
        if file_info["coding"] == "lossless":
            np.testing.assert_array_equal(decoded, clear_transparent(samples), err_msg=name)
        elif (alpha := alpha_channel(samples)) is not None:
            np.testing.assert_array_equal(alpha_channel(decoded), alpha, err_msg=name)
    assert min(counts.values()) > 5 and sum(counts.values()) > 300


def make_table() -> None:
    """Write the table again."""
    files = sorted(path for path in FILES.glob("*/*") if path.name not in ("LICENSE", "README"))
    lines = ["\t".join((str(path.relative_to(FILES)), *outcome(path))) for path in files]
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    make_table()
