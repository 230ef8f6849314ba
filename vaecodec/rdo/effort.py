"""Define what an effort means."""

from __future__ import annotations

ITERATIONS = (0, 0, 1, 2, 4, 6, 9, 14, 22)  # of refinement, for efforts 1 to 9; effort 2 has a larger filter alone


def check_effort(effort: int) -> None:
    """Raise ValueError unless `effort` is one of 1..9."""
    if effort not in range(1, len(ITERATIONS) + 1):
        raise ValueError(f"effort is {effort!r}, expected a whole number in 1..{len(ITERATIONS)}")
