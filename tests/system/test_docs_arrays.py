"""What docs/arrays.md shows works as shown."""

import re

import pytest

from support.paths import ROOT

TEXT = (ROOT / "docs" / "arrays.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_there_are_blocks():
    assert len(BLOCKS) == 3


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_run(block):
    if "zarr" in block:
        pytest.importorskip("zarr", minversion="3")
    exec(compile(block, "docs/arrays.md", "exec"), {})
