"""Which of the questions that wait are answered together: those that begin alike and are about as long."""

from collections.abc import Sequence

import numpy as np

from autointerp.llm.local_drafts import Job
from autointerp.llm.local_prefixes import shared_length

__all__ = ["next_batch"]

_LEAST_SHARED = 16
_PADDING_SHARE, _PADDING_TOKENS = 0.5, 256
"""Padding that is put up with: of the tokens that count, and in any case."""


def next_batch(jobs: Sequence[Job], *, max_tokens: int, most_rows: int | None = None) -> list[int]:
    """Places of the jobs to answer next, the first of all among them.

    Args:
        jobs: in the order they came; at least one.
        max_tokens: rows times tokens of the longest (question and reply), at most; a single job may have
            more.
        most_rows: of them at most.
    """
    first = jobs[0]
    fitting = [place for place, job in enumerate(jobs) if job.request.echo == first.request.echo]
    shared = np.array([shared_length(first.prompt.ids, jobs[place].prompt.ids) for place in fitting])
    room = max(1, max_tokens // max(1, first.length))
    least = _best_cut(shared, room)
    chosen = [place for place, length in zip(fitting, shared, strict=True) if length >= least]
    chosen.sort(key=lambda place: (place != 0, abs(jobs[place].length - first.length), place))
    batch: list[int] = []
    longest = total = 0
    for place in chosen[:most_rows]:
        own = jobs[place].length
        rows = len(batch) + 1
        width = max(longest, own)
        waste = rows * (width - least) - (total + own - least)
        if batch and (rows * width > max_tokens or waste > _PADDING_TOKENS + _PADDING_SHARE * (total + own)):
            break
        batch.append(place)
        longest, total = width, total + own - least
    return sorted(batch)


def _best_cut(shared: np.ndarray, room: int) -> int:
    """The shared length that saves most tokens, with as many rows as there is room for."""
    best, saved = 0, 0
    for rank, length in enumerate(sorted(shared.tolist(), reverse=True)):
        gain = min(rank, room - 1) * length
        if length >= _LEAST_SHARED and gain > saved:
            best, saved = length, gain
    return best
