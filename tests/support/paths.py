"""Where the tests find files of the repository."""

from __future__ import annotations

import pathlib

TESTS = pathlib.Path(__file__).parent.parent
GOLDEN = TESTS / "golden"
ROOT = TESTS.parent
SHARED = ROOT.parent / "shared"  # large data that tests use where it is there
MODELS = ROOT / "vaecodec" / "model" / "shipped"
