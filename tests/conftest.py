"""What tests share: a tiny frozen model."""

from __future__ import annotations

import os
import signal

import pytest

from support.paths import GOLDEN
from vaecodec.codec.codec import Codec
from vaecodec.model.file import load_model
from vaecodec.native import build, library

# A shell's background jobs ignore it, and so would the commands that tests begin and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def tiny() -> Codec:
    """A codec of a few thousand weights: the one that the golden files were made with."""
    return Codec(load_model(str(GOLDEN / "tiny.vcm")))


@pytest.fixture(scope="session")
def small() -> Codec:
    """The shipped codec."""
    return Codec(load_model("small"))


@pytest.fixture(scope="session")
def core_kinds(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """The kinds of the native core that this machine runs, but "numpy"; the core is built where it was not."""
    if library.kinds() == (library.REFERENCE,):
        path = tmp_path_factory.mktemp("core") / build.library_name()
        build.build(path)
        os.environ["VAECODEC_CORE_LIBRARY"] = str(path)
        library.forget()
    return library.kinds()[1:]
