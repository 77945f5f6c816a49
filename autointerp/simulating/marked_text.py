"""A passage with its marked tokens between « and », on one line, for judges of marked tokens."""

from autointerp.explaining.highlighting import shown
from autointerp.explanation_records import Passage

__all__ = ["marked_line"]


def marked_line(passage: Passage) -> str:
    """The passage on one line; adjacent marked tokens share a pair of markers.

    « and » of the text itself are shown as ‹ and › (`explaining.highlighting.shown`).

    Raises:
        ValueError: nothing is marked, or marks are no positions of tokens.
    """
    marked = frozenset(passage.marked)
    if not marked or not marked <= frozenset(range(len(passage.tokens))):
        raise ValueError(f"passage {passage.id} has {len(passage.tokens)} tokens and marks {passage.marked}")
    parts = []
    for place, token in enumerate(passage.tokens):
        begins = place in marked and place - 1 not in marked
        ends = place in marked and place + 1 not in marked
        parts.append(f"{'«' if begins else ''}{shown(token)}{'»' if ends else ''}")
    return "".join(parts)
