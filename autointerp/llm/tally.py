"""What the questions of one sitting took and who answered them, whenever that was: each question once."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from autointerp.llm.language_model import ModelIdentity
from autointerp.llm.outcomes import Outcome

__all__ = ["Tally"]

_NAMES = ("role", "endpoint", "model", "answered_by", "fingerprint")


@dataclass(eq=False)
class Tally:
    """Of a sitting's questions alone: the file of answers may hold those of other models and settings."""

    calls: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = 0.0
    """None where a model has no price."""
    _paid: set[bytes] = field(default_factory=set)
    _told: set[tuple[str, bytes]] = field(default_factory=set)
    _answerers: Counter[tuple[str, ...]] = field(default_factory=Counter)

    def add(self, key: str, who: ModelIdentity, outcome: Outcome, *, usd: float | None) -> None:
        """Count an answer, unless it was counted before.

        Args:
            key: of the question.
            who: was asked.
            outcome: the answer.
            usd: what it costs; None without a price.
        """
        name = bytes.fromhex(key)
        if (who.role, name) not in self._told:
            self._told.add((who.role, name))
            if outcome.is_final:
                self._answerers[who.role, who.endpoint, who.model, outcome.model, outcome.fingerprint] += 1
        if name in self._paid:
            return
        self._paid.add(name)
        self.calls += 1
        self.prompt_tokens += outcome.usage.prompt_tokens
        self.cached_tokens += outcome.usage.cached_tokens
        self.completion_tokens += outcome.usage.completion_tokens
        self.usd = None if self.usd is None or usd is None else self.usd + usd

    def totals(self) -> dict[str, Any]:
        """`calls`, tokens and `usd`, JSON-able."""
        names = ("calls", "prompt_tokens", "cached_tokens", "completion_tokens", "usd")
        return {name: getattr(self, name) for name in names}

    def answerers(self) -> list[dict[str, Any]]:
        """A row per (role, endpoint, model, answered_by, fingerprint), with `calls`."""
        return [
            {**dict(zip(_NAMES, names, strict=True)), "calls": calls}
            for names, calls in sorted(self._answerers.items())
        ]
