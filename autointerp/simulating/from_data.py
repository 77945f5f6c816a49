"""What simulators share that read `Explanation.data` and ask no LLM."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from autointerp.errors import BadInputError
from autointerp.explanation_records import Explanation, Passage, Refusal, TokenPrediction

__all__ = ["predicted_from_data"]

Read = TypeVar("Read")


def predicted_from_data(
    explanation: Explanation,
    passages: Sequence[Passage],
    *,
    what: str,
    read: Callable[[Mapping[str, Any]], Read],
    expect: Callable[[Read, Sequence[Sequence[str]]], Sequence[np.ndarray]],
) -> list[TokenPrediction | Refusal]:
    """One answer for each passage, in their order.

    Args:
        explanation: without text and data (the null `empty`) 0 is expected everywhere; with text and without
            data, as an LLM's, it is refused, and so is one whose data cannot be read.
        passages: their texts alone.
        what: the data are, in words: `token table`.
        read: makes them usable; raises BadInputError.
        expect: from these and the tokens of every passage, the values of every passage.
    """
    if not explanation.data:
        if explanation.text.strip():
            return [Refusal("no_explanation", f"the explanation has no {what}")] * len(passages)
        return [TokenPrediction(each.id, np.zeros(len(each.tokens))) for each in passages]
    try:
        known = read(explanation.data)
    except BadInputError as fault:
        return [Refusal("unparsable", str(fault))] * len(passages)
    values = expect(known, [each.tokens for each in passages])
    return [TokenPrediction(each.id, own) for each, own in zip(passages, values, strict=True)]
