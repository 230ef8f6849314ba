"""What tests of native kernels share: a library to test, and the kinds of processor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vaecodec.native import build, library

LIBRARY = "VAECODEC_CORE_LIBRARY"


def _forget() -> None:
    for cached in (library._library, library.kinds, library._bound):
        cached.cache_clear()


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The kinds beside "numpy", of a library that is compiled where none was; without a compiler tests are skipped."""
    with pytest.MonkeyPatch.context() as patch:
        if library.kinds() == (library.REFERENCE,):
            patch.setenv(LIBRARY, str(_compiled(tmp_path_factory.getbasetemp())))
            _forget()
        yield library.kinds()[1:]
    _forget()


def _compiled(folder: Path) -> Path:
    path = folder / build.library_name()
    try:
        if not path.exists():  # made for another module
            build.build(path)
    except RuntimeError as exc:
        pytest.skip(str(exc))
    return path
