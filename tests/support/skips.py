"""List the skips that CI expects; tests/conftest.py fails every other skip where CI or VAECODEC_STRICT is set.

An unnoticed skip hides a missing check. Each skip is therefore listed with the condition that explains it: a
program, a permission or data that the machine lacks, or a feature of another system.
"""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from support.paths import DATA

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
COMPILERS = ("cc", "gcc", "clang", "cl")


class ExpectedSkip(NamedTuple):
    """A skip that CI accepts in tests whose id contains `test`, if the message matches and the condition holds."""

    test: str
    message: str  # regular expression
    condition: Callable[[], bool]
    reason: str


def lacks(*programs: str) -> bool:
    """Whether none of these programs is on the PATH."""
    return not any(map(shutil.which, programs))


EXPECTED = [
    ExpectedSkip(
        "test_peers.py", "PyAV", lambda: importlib.util.find_spec("av") is None,
        "PyAV is an optional codec of the benchmark and in no extra.",
    ),
    ExpectedSkip(
        "test_peers.py", "could not import 'imageio_ffmpeg'",
        lambda: importlib.util.find_spec("imageio_ffmpeg") is None,
        "FFmpeg with an encoder of VVC is an optional codec of the benchmark and in no extra.",
    ),
    ExpectedSkip(
        "", "could not import 'torch'", lambda: importlib.util.find_spec("torch") is None,
        "PyTorch is large, and in no extra.",
    ),
    ExpectedSkip(
        "test_benchmark_scripts.py", "could not import 'jax'", lambda: importlib.util.find_spec("jax") is None,
        "JAX runs what TensorFlow exported, and is in no extra.",
    ),
    ExpectedSkip(
        "test_bench_report.py", "no Chromium", lambda: lacks(*BROWSERS) or lacks("chromedriver"),
        "The report is opened in a browser, which few CI images have.",
    ),
    ExpectedSkip(
        "test_documentation.py", "mkdocs", lambda: importlib.util.find_spec("mkdocs") is None,
        "The site is built with packages of the extra docs.",
    ),
    ExpectedSkip(
        "", r"(butteraugli|file|update-mime-database|fish|zsh) is not installed", lambda: True,
        "These programs of the system are optional; `needs` looks for them.",
    ),
    ExpectedSkip(
        "", "conformance|MNIST", lambda: not DATA.is_dir(),
        "The data are in no repository; a checkout beside them runs the tests.",
    ),
    ExpectedSkip(
        "test_crash.py", "may not mount", lambda: True,
        "Mounting needs root and a privileged container.",
    ),
    ExpectedSkip(
        "test_folders.py", "root cannot give its rights away", lambda: os.name == "posix" and os.geteuid() == 0,
        "Some containers run as a root that cannot change its user.",
    ),
    ExpectedSkip(
        "", r"could not import '[\w.]*ray'", lambda: importlib.util.find_spec("ray") is None,
        "Ray is in the extra long, with the tests that need it.",
    ),
    ExpectedSkip(
        "", "Ray does not start", lambda: True,
        "Ray waits half a minute for its own processes, which a loaded machine exceeds.",
    ),
    ExpectedSkip("", "native core cannot be built", lambda: lacks(*COMPILERS), "There is no C compiler."),
    ExpectedSkip("test_other_processors.py", "needs ziglang", lambda: True, "Other processors are emulated."),
    ExpectedSkip("", "has a GPU", lambda: True, "The test is of machines without a GPU."),
    ExpectedSkip("", "no (fork|SIGKILL)|Windows|/proc", lambda: sys.platform != "linux", "Features of Linux."),
    ExpectedSkip("", "tomllib|zarr", lambda: sys.version_info < (3, 11), "Zarr 3 and tomllib need Python 3.11."),
    ExpectedSkip("", "qualified names", lambda: sys.version_info < (3, 11), "Code has them from Python 3.11 on."),
]  # fmt: skip


def is_strict() -> bool:
    """Whether unexpected skips fail."""
    return any(os.environ.get(name, "") not in ("", "0", "false") for name in ("CI", "VAECODEC_STRICT"))


def is_expected(test: str, message: str) -> bool:
    """Whether a skip of a test with this id is in the list, and its condition holds."""
    return any(
        skip.test in test and re.search(skip.message, message) is not None and skip.condition() for skip in EXPECTED
    )


def fail_unexpected(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn the report of an unexpected skip into a failure if skips are checked."""
    if report.skipped and not hasattr(report, "wasxfail") and is_strict():
        message = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not is_expected(report.nodeid, message):
            report.outcome = "failed"
            report.longrepr = f"{message}\nThis skip is not in the list of tests/support/skips.py."


def needs_data(path: pathlib.Path, content: str) -> pytest.MarkDecorator:
    """Skip a test if a file or folder of large data is missing."""
    return pytest.mark.skipif(not path.exists(), reason=f"no {content}: expected {path}")
