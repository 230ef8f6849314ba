"""Share a tiny model, the shipped model and the native core among all tests, and fail unexpected skips in CI."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Generator, Iterator

import pytest

from support.paths import GOLDEN
from support.skips import fail_unexpected
from vaecodec.codec import Codec
from vaecodec.model.file import load_model
from vaecodec.native import build, library

# A shell's background jobs ignore SIGINT, and so would the commands that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


# As commands that train have it: TensorFlow starts in 3.4 s instead of 4.9.
if importlib.util.find_spec("tf_keras"):
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fail_unexpected(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    fail_unexpected(report)
    return report


@pytest.fixture(scope="session")
def tiny() -> Codec:
    """The codec of the golden files, with a model of a few thousand weights."""
    return Codec(load_model(str(GOLDEN / "tiny.vcm")))


@pytest.fixture(scope="session")
def small() -> Codec:
    """The shipped codec."""
    return Codec(load_model("small"))


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, ...]]:
    """The kinds of the native core on this machine, without "numpy"; build a core if none exists."""
    if library.kinds() != (library.REFERENCE,):
        yield library.kinds()[1:]
        return
    path = tmp_path_factory.mktemp("core") / build.library_name()
    try:
        build.build(path)
    except RuntimeError as exc:
        pytest.skip(f"the native core cannot be built: {exc}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAECODEC_CORE_LIBRARY", str(path))
        library.forget()
        yield library.kinds()[1:]
    library.forget()
