"""Define what an effort means."""

from __future__ import annotations

from vaecodec.arguments import check_effort
from vaecodec.config import LAST_ANCHOR

__all__ = ["INDEX_OFFSETS", "ITERATIONS", "PRECISE", "check_effort", "coded_index"]

ITERATIONS = (0, 1, 2, 3, 5, 7, 10, 14, 22)  # of refinement, for efforts 1 to 9
PRECISE = 3  # the effort from which on squared errors are met closely, and filters may have several classes

# Refinement lowers squared errors.  From effort 3 on a part of that is given up for larger steps: by how much the
# quality index is lowered in the middle of the scale.  Chosen on held-out images.
INDEX_OFFSETS = (0, 0, 10, 14, 18, 20, 22, 23, 23)


def coded_index(quality_index: int, effort: int) -> int:
    """The quality index to code with: lower than what is asked for if refinement makes up for it."""
    offset = INDEX_OFFSETS[effort - 1] * (1.3 - 0.6 * quality_index / LAST_ANCHOR)
    return max(0, quality_index - round(offset))
