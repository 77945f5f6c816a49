"""Chooses the next token of each row: the likeliest, or one drawn with a seed of the row's own."""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from autointerp.llm.requests import Request

__all__ = ["MOST_ALTERNATIVES", "Sampler", "drawn"]

MOST_ALTERNATIVES = 20
"""Alternatives at a token, at most."""


@dataclass(eq=False)
class Sampler:
    """Draws the tokens of one reply; the draws depend on the request's seed and replicate alone.

    Without a seed it is 0: the same question has the same answer in every run.
    """

    temperature: float
    top_p: float | None
    random: np.random.Generator = field(repr=False)

    @classmethod
    def of(cls, request: Request) -> "Sampler":
        """As the request says."""
        digest = hashlib.sha256(f"{request.seed or 0} {request.replicate}".encode()).digest()
        random = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        return cls(max(request.temperature or 0.0, request.least_temperature), request.top_p, random)

    def choose(self, logits: Float[Tensor, " vocabulary"]) -> int:
        """The next token; the likeliest at temperature 0."""
        if self.temperature <= 0:
            return int(logits.argmax())
        probabilities = torch.softmax(logits.double().cpu() / self.temperature, dim=0).numpy()
        return drawn(probabilities, float(self.random.random()), top_p=self.top_p)


def drawn(probabilities: Float64[np.ndarray, " vocabulary"], uniform: float, *, top_p: float | None) -> int:
    """The token in whose share of [0, 1) the number lies, likeliest tokens first.

    Args:
        probabilities: they sum up to 1.
        uniform: in [0, 1).
        top_p: only the likeliest tokens that reach this probability together are drawn from.
    """
    order = np.argsort(-probabilities, kind="stable")
    reached = np.cumsum(probabilities[order])
    if top_p is not None and top_p < 1:
        count = int(np.searchsorted(reached, top_p)) + 1
        order, reached = order[:count], reached[:count]
    place = int(np.searchsorted(reached, uniform * reached[-1], side="right"))
    return int(order[min(place, len(order) - 1)])
