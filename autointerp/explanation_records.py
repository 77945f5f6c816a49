"""What travels between explaining, simulating and scoring: passages, examples, explanations, refusals.

A `Passage` is text alone, and all that a simulator is given; an `Example` is a passage with the truth, which
explainers see of the explain split and scores of the others. Nothing hands an Example to a simulator.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

__all__ = [
    "Example",
    "Explanation",
    "Judgement",
    "LatentEvidence",
    "Passage",
    "Refusal",
    "RefusalCause",
    "TokenPrediction",
]

RefusalCause = Literal[
    "content_filter",  # the provider or the model declined
    "cut_off",  # the reply ended at its token limit
    "empty",  # the reply has no text
    "unparsable",  # the reply does not say what was asked
    "missing_logprobs",  # the reply lacks the log-probabilities that the method reads
    "failed_request",  # no reply: the request failed and cannot heal, or failed too often
    "too_long",  # the request does not fit the model's context
    "no_explanation",  # there was no explanation to test
]


@dataclass(frozen=True)
class Refusal:
    """There is no usable answer, and why; counted and shown, never replaced by a number."""

    cause: RefusalCause
    detail: str = ""
    """One line; holds no key and no more than a little of the reply."""


@dataclass(frozen=True)
class Passage:
    """Text as a simulator or judge sees it."""

    id: str
    """The same in every run; says nothing of whether the latent fires."""
    tokens: tuple[str, ...]
    """Text of each token; joined they are the passage (a token may be a part of a character, as U+FFFD)."""
    marked: tuple[int, ...] = ()
    """Positions shown highlighted (fuzzing), ascending."""

    @property
    def text(self) -> str:
        """The passage as plain text."""
        return "".join(self.tokens)


@dataclass(frozen=True, eq=False)
class Example:
    """A passage with one latent's activations, as the store has it."""

    id: str
    document: str
    """Near-duplicate documents share this id: examples of one are dependent."""
    split: Literal["explain", "validate", "score"]
    sampler: str
    """A name in `sampling.samplers.catalogue.SAMPLER_NAMES`."""
    stratum: int
    """Of sampler `quantiles`: 0 the weakest range of strength; else 0."""
    tokens: tuple[str, ...]
    """Only tokens that are text: BOS, EOS and the like are left out."""
    token_ids: tuple[int, ...]
    activations: tuple[float, ...]
    """One per token, raw; 0 where the latent does not fire."""
    focus: int
    """Index in `tokens` of the token that was drawn."""
    weight: float = 1.0
    """How many of the sampler's population it stands for."""

    @property
    def fires(self) -> bool:
        """Whether the latent fires on any token of it."""
        return any(activation != 0 for activation in self.activations)

    def passage(self, *, marked: tuple[int, ...] = ()) -> Passage:
        """The text alone."""
        return Passage(self.id, self.tokens, marked)


@dataclass(frozen=True, eq=False)
class LatentEvidence:
    """All that an explainer may know of a latent: the explain split, and what its direction does."""

    checkpoint: str
    latent: int
    id: str
    """Of the latent, the same in every run: of the checkpoint's sha256 and the index."""
    density: float
    """Share of the explain split's tokens on which it fires: its firings there, over that split's nominal
    share of the text."""
    maximum: float
    """Largest |activation| among the examples here: the scale of what explainers are shown."""
    examples: Mapping[str, tuple[Example, ...]]
    """By sampler, of split `explain` only; strongest first for `top`, by stratum for `quantiles`."""
    promoted: tuple[tuple[str, float], ...] = ()
    """Tokens whose logit its direction raises, most first, with by how much per unit of activation."""
    demoted: tuple[tuple[str, float], ...] = ()
    ablated: tuple[tuple[str, float], ...] = ()
    """Tokens whose log-probability falls most (nats, mean over explain contexts, negative) when the latent is
    taken away where it fires; empty where this was not measured."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a latent is said to mean: a text, and for programs what the text was made from."""

    checkpoint: str
    latent: int
    explainer: str
    """Name in `explaining.catalogue.EXPLAINER_NAMES`, or of a null: `borrowed`, `empty`."""
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able; of token statistics the table, of a graph its nodes; empty for an LLM's."""
    prompt_version: str = ""
    model: str = ""
    """The model that answered, as it named itself; empty without an LLM."""
    fingerprint: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    """JSON-able: rejected candidates and their scores, counter-examples tried, thoughts."""


@dataclass(frozen=True, eq=False)
class TokenPrediction:
    """What a simulator expects of each token of a passage, in its own scale (0 to 10, a probability)."""

    passage: str
    """`Passage.id`."""
    values: np.ndarray
    """float64 of shape (token,); NaN where the simulator says nothing of a token: such tokens are not
    scored, and their number is shown."""


@dataclass(frozen=True)
class Judgement:
    """What a judge thinks of a passage: the more, the likelier that the latent fires there."""

    passage: str
    value: float
    """A probability if the judge's `is_probability`, else any finite number, for ranking only."""
