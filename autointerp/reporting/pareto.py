"""Points of two numbers -> those that no other point beats."""

from collections.abc import Sequence
from typing import Literal

__all__ = ["on_front"]


def on_front(points: Sequence[tuple[float, float]], *, better: Literal["lower", "higher"]) -> list[bool]:
    """Of each (cost, value): whether it is on the Pareto front.

    A point is beaten by another that costs no more and is no worse, and is ahead in at least one of the two.
    Equal points do not beat each other. A smaller cost is better; `better` says which value is.
    """
    sign = 1.0 if better == "lower" else -1.0
    keys = [(cost, sign * value) for cost, value in points]
    best = float("inf")
    front = set()
    for cost, value in sorted(set(keys)):  # of one cost the best value comes first
        if value < best:
            front.add((cost, value))
            best = value
    return [key in front for key in keys]
