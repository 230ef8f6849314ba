"""Fuzz the parsers of .vae files, guided by coverage: new inputs are changes of those that reached new code.

    pip install atheris
    python tests/long/fuzz/guided.py -max_total_time=600

Options are those of libFuzzer, and folders for inputs that are found.  An input that raises anything but a CodecError,
or takes 10 s, ends the run and is written to a file.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import atheris

HERE, TESTS = pathlib.Path(__file__).parent, pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]
LARGEST = 2048  # bytes of an input
OPTIONS = (f"-dict={HERE / 'container.dict'}", f"-max_len={LARGEST}", "-timeout=10", "-rss_limit_mb=1024")

with atheris.instrument_imports(include=["vaecodec.container", "vaecodec.errors"]):
    from support.container import take_apart


def fuzz(data: bytes) -> None:
    take_apart(data)


def main() -> None:
    with tempfile.TemporaryDirectory() as found, tempfile.TemporaryDirectory() as golden:
        for number, path in enumerate(sorted((TESTS / "golden").rglob("*.vae"))):
            if path.stat().st_size <= LARGEST:
                pathlib.Path(golden, f"{number}").write_bytes(path.read_bytes())
        atheris.Setup([sys.argv[0], *OPTIONS, *sys.argv[1:], found, golden, str(HERE / "corpus")], fuzz)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
