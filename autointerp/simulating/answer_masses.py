"""Alternatives at one token, with log-probabilities -> the mass of each answer, and expectations."""

from collections.abc import Iterable, Mapping, Sequence
from math import exp

from autointerp.llm.requests import TokenLogprob

__all__ = ["STRENGTHS", "answer_masses", "expected_strength", "normalised", "token_at"]

STRENGTHS: tuple[str, ...] = tuple(str(value) for value in range(11))
"""What a strength may be written as."""

_SLACK = 1e-6  # a log-probability may be positive by as much as rounding makes it


def answer_masses(entry: TokenLogprob, answers: Iterable[str], *, prefix: str = "") -> dict[str, float]:
    r"""Probability that each answer is given at a token: of those that are among its alternatives.

    Alternatives that are the same answer with other blanks around it (`7`, ` 7`, `7\n`) are added up; the
    token itself counts among its alternatives, once. All else (`07`, `7.5`, `seven`) is no answer. A
    tokenizer that writes 10 as two tokens offers `1` for both: prompts that read a single token ask for 0 to
    9.

    Args:
        entry: the token.
        answers: what the answers are.
        prefix: text before the answer that the token covers as well, as the tab in a token `\t7`. An
            alternative that lacks it is an answer only if the prefix is blank.

    Returns:
        By answer, in the order of `answers`, not normalised; without those that are not among the
        alternatives or whose mass is 0; empty where no answer is known.
    """
    best: dict[str, float] = {}
    for text, logprob in ((entry.token, entry.logprob), *entry.top):
        if logprob is not None and logprob <= _SLACK:  # neither NaN nor above 0
            best[text] = max(logprob, best.get(text, logprob))
    wanted = dict.fromkeys(answers, 0.0)
    for text, logprob in best.items():
        if prefix.strip() and not text.startswith(prefix):
            continue
        answer = text.removeprefix(prefix).strip()
        if answer in wanted:
            wanted[answer] += exp(min(logprob, 0.0))
    return {answer: mass for answer, mass in wanted.items() if mass > 0}


def normalised(masses: Mapping[str, float]) -> dict[str, float]:
    """The masses over their sum; empty where there is none."""
    total = sum(masses.values())
    return {answer: mass / total for answer, mass in masses.items()}


def expected_strength(entry: TokenLogprob, *, prefix: str = "") -> float | None:
    """sum(v p_v) / sum(p_v) over the strengths v among the alternatives at a token (Bills et al. 2023).

    Returns:
        From 0 to 10; None where no strength is among the alternatives: it is not known, and not 0.
    """
    masses = normalised(answer_masses(entry, STRENGTHS, prefix=prefix))
    return sum(int(value) * mass for value, mass in masses.items()) if masses else None


def token_at(entries: Sequence[TokenLogprob], place: int) -> tuple[TokenLogprob, str] | None:
    """The token that covers a place of the joined tokens, and what it covers before it (mostly nothing).

    Args:
        entries: tokens of a reply.
        place: in characters.
    """
    begin = 0
    for entry in entries:
        if begin <= place < begin + len(entry.token):
            return entry, entry.token[: place - begin]
        begin += len(entry.token)
    return None
