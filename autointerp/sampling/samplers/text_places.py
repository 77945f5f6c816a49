"""Contexts as a table -> where their text stands, in one flat array.

Not all that follows the first token of text is text: between packed documents stands an EOS token, around and
between documents what a chat template puts there. Latents are looked at on text only, so nothing else may be
a focus, a token of theirs, or part of a passage that two contexts share.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Int64

__all__ = ["TextPlaces"]


@dataclass(frozen=True, eq=False)
class TextPlaces:
    """The places of text of some contexts, one context after another. Memory: 16 bytes per token."""

    position: Int64[np.ndarray, " place"]
    """In its context; ascends within one."""
    begin: Int64[np.ndarray, " context"]
    """Where the context's places begin."""
    count: Int64[np.ndarray, " context"]
    """Tokens of text in each context."""
    token: Int64[np.ndarray, " place"]
    """Number of the token, where all tokens of all contexts are counted through."""

    @classmethod
    def of(cls, contexts: pl.DataFrame) -> "TextPlaces":
        """Of contexts with `tokens`, `first_scored` and, where some behind it are no text, `unscored`."""
        length = contexts["tokens"].list.len().to_numpy().astype(np.int64)
        start = np.cumsum(length) - length
        owner = np.repeat(np.arange(len(length)), length)
        position = np.arange(len(owner)) - start[owner]
        is_text = position >= contexts["first_scored"].to_numpy().astype(np.int64)[owner]
        if "unscored" in contexts.columns:
            unscored = contexts["unscored"]
            holder = np.repeat(start, unscored.list.len().to_numpy())
            places = unscored.explode(empty_as_null=False, keep_nulls=False).to_numpy()
            is_text[holder + places.astype(np.int64)] = False
        count = np.bincount(owner[is_text], minlength=len(length))
        return cls(position[is_text], np.cumsum(count) - count, count, np.flatnonzero(is_text))

    def before(
        self, context: Int64[np.ndarray, " row"], position: Int64[np.ndarray, " row"]
    ) -> Int64[np.ndarray, " row"]:
        """How many tokens of text stand before a position of each row's context: its place in the text."""
        width = int(max(self.position.max(initial=0), position.max(initial=0))) + 1
        owner = np.repeat(np.arange(len(self.count)), self.count)
        found = np.searchsorted(owner * width + self.position, context * width + position)
        return found - self.begin[context]
