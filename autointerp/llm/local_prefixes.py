"""Keys and values of how earlier prompts began, for those that begin alike; bounded memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from autointerp.llm.local_network import KeyValues

__all__ = ["EchoTable", "Prefix", "PrefixCache", "shared_length"]


@dataclass(frozen=True, eq=False)
class EchoTable:
    """What the model expected where each token of a prompt stands, the first left out."""

    logprob: Float64[np.ndarray, " target"]
    """Of the token that stands there."""
    top_ids: Int64[np.ndarray, "target alternative"]
    top_logprobs: Float64[np.ndarray, "target alternative"]
    """Falling."""

    def first(self, count: int) -> "EchoTable":
        """Of the first tokens only."""
        return EchoTable(self.logprob[:count], self.top_ids[:count], self.top_logprobs[:count])

    @classmethod
    def joined(cls, tables: Sequence["EchoTable"]) -> "EchoTable":
        """One behind the other; at least one is given."""
        return cls(
            np.concatenate([table.logprob for table in tables]),
            np.concatenate([table.top_ids for table in tables]),
            np.concatenate([table.top_logprobs for table in tables]),
        )


@dataclass(frozen=True, eq=False)
class Prefix:
    """How a prompt began."""

    ids: Int64[np.ndarray, " token"]
    keys_and_values: KeyValues
    """Of one row, as many positions as there are ids."""
    echo: EchoTable | None = None
    """One target less than there are ids; None where nobody asked for it."""

    @property
    def byte_count(self) -> int:
        """What it holds."""
        return sum(part.numel() * part.element_size() for layer in self.keys_and_values for part in layer)


class PrefixCache:
    """The prefixes that were used last, as many as fit. For one thread.

    A prefix serves every prompt that shares its first tokens, also if only some: keys and values of a token
    depend on those before it alone.
    """

    def __init__(self, byte_limit: int) -> None:
        """It is empty."""
        self._byte_limit = byte_limit
        self._kept: list[Prefix] = []

    @property
    def byte_count(self) -> int:
        """What all of them hold."""
        return sum(prefix.byte_count for prefix in self._kept)

    def best(self, ids: Int64[np.ndarray, " token"], *, echo: bool) -> tuple[Prefix | None, int]:
        """The prefix that shares most tokens with `ids`, and how many; `echo`: of those with a table."""
        found, length = None, 0
        for prefix in reversed(self._kept):
            if echo and prefix.echo is None:
                continue
            shared = shared_length(prefix.ids, ids)
            if shared > length:
                found, length = prefix, shared
        if found is not None:
            self._kept = [prefix for prefix in self._kept if prefix is not found] + [found]
        return found, length

    def add(self, prefix: Prefix) -> None:
        """Keep it, in the place of those that it makes needless; the longest unused go first."""
        if prefix.byte_count > self._byte_limit:
            return
        self._kept = [kept for kept in self._kept if not _covers(prefix, kept)]
        self._kept.append(prefix)
        while self.byte_count > self._byte_limit:
            del self._kept[0]


def _covers(new: Prefix, old: Prefix) -> bool:
    is_whole = shared_length(new.ids, old.ids) == len(old.ids)
    return is_whole and (new.echo is not None or old.echo is None)


def shared_length(one: Int64[np.ndarray, " _"], other: Int64[np.ndarray, " _"]) -> int:
    """How many first tokens are the same."""
    size = min(len(one), len(other))
    differs = np.flatnonzero(one[:size] != other[:size])
    return int(differs[0]) if len(differs) else size
