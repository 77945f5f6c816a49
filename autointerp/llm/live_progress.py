"""How far the LLM calls are, for the terminal: answers, spend and time left on one bar."""

import contextlib
from collections.abc import Callable, Iterator

from autointerp.llm.kept_answers import Standing
from autointerp.progress import Progress

__all__ = ["shown", "told"]


@contextlib.contextmanager
def shown(
    progress: Progress, name: str, *, expected: int | None = None
) -> Iterator[Callable[[Standing], None]]:
    """A listener for `open_models(listen=...)` that moves a bar with each answer and tells the spend.

    Args:
        progress: draws it.
        name: of the step.
        expected: how many answers there will be; None: unknown.
    """
    before = 0
    with progress.step(name, total=expected, unit="answers") as advance:
        note = getattr(advance, "note", None)  # a library call's steps have none

        def listen(standing: Standing) -> None:
            nonlocal before
            advance(float(standing.answered - before))
            before = standing.answered
            if note is not None:
                note(told(standing, expected=expected))

        yield listen


def told(standing: Standing, *, expected: int | None = None) -> str:
    """One line: `120/400 answers (30 kept), 2 refused, 51,200 tokens, 0.08 USD, 40 s left`."""
    of_all = "" if expected is None else f"/{expected:,}"
    parts = [f"{standing.answered:,}{of_all} answers ({standing.from_cache:,} kept)"]
    if standing.refused:
        parts.append(f"{standing.refused:,} refused")
    parts.append(f"{standing.spent_tokens:,} tokens")
    if standing.spent_usd:
        parts.append(f"{standing.spent_usd:.2f} USD")
    left = None if expected is None else standing.seconds_left(expected)
    if left is not None:
        parts.append(f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left")
    return ", ".join(parts)
