"""Name the paths of the files that tests read."""

from __future__ import annotations

import pathlib

TESTS = pathlib.Path(__file__).parent.parent
GOLDEN = TESTS / "golden"
ROOT = TESTS.parent
DATA = ROOT.parent / "shared" / "data"  # large data beside the checkout, in no repository
MODELS = ROOT / "vaecodec" / "model" / "shipped"
PARROTS = ROOT / "docs" / "examples" / "parrots.png"
