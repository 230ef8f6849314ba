"""Test that skips missing in tests/support/skips.py fail if CI or VAECODEC_STRICT is set."""

from types import SimpleNamespace

import pytest

from support import skips


def report(message: str, test: str = "tests/unit/test_x.py::test_x") -> SimpleNamespace:
    return SimpleNamespace(skipped=True, outcome="skipped", nodeid=test, longrepr=("test_x.py", 1, message))


@pytest.fixture
def strict(monkeypatch):
    monkeypatch.setenv("VAECODEC_STRICT", "1")


def test_an_unexpected_skip_fails(strict):
    skip = report("Skipped: could not import 'tensorflow'")
    skips.fail_unexpected(skip)
    assert skip.outcome == "failed" and "tensorflow" in skip.longrepr and "skips.py" in skip.longrepr


def test_an_expected_skip_remains_a_skip(strict):
    skip = report("Skipped: fish is not installed")
    skips.fail_unexpected(skip)
    assert skip.outcome == "skipped"


def test_a_listed_skip_without_its_condition_fails(strict, monkeypatch, tmp_path):
    monkeypatch.setattr(skips, "DATA", tmp_path)
    skip = report("Skipped: no MNIST: expected ../shared/data/mnist")
    skips.fail_unexpected(skip)
    assert skip.outcome == "failed"


def test_skips_are_not_checked_by_default(monkeypatch):
    for name in ("CI", "VAECODEC_STRICT"):
        monkeypatch.delenv(name, raising=False)
    skip = report("Skipped: could not import 'tensorflow'")
    skips.fail_unexpected(skip)
    assert skip.outcome == "skipped"
