"""Whether the log-probabilities of an echoed prompt stand at the tokens that they are of."""

from collections.abc import Sequence

from autointerp.llm.requests import TokenLogprob

__all__ = ["echo_problem"]

_TIE = 0.1
"""Nats by which two ways of computing the same may differ, as of half precision."""


def echo_problem(written: str, echoed: Sequence[TokenLogprob]) -> str | None:
    """What is wrong with an echo of a text whose end the same model wrote at temperature 0.

    Where the model chose by itself, each token is the likeliest of its alternatives. Some servers (llama-cpp-
    python 0.3.36) give at each token the distribution *behind* it: there the likeliest is the next token,
    and the token's own number is of another place. Simulators would read every strength one token off.

    A token that is followed by itself proves nothing and is passed over, unless it is the last.

    Args:
        written: the end of the echoed text that the model wrote.
        echoed: tokens of the echo; those of a reply behind it may follow.

    Returns:
        None where more than half of the tokens are the likeliest at their places; an empty text where no
        token can tell.
    """
    own = _written(written, echoed)
    seen = right = shifted = 0
    for place, entry in own:
        best = max((logprob for _, logprob in entry.top), default=None)
        behind = echoed[place + 1] if place + 1 < len(echoed) else None
        if best is None or entry.logprob is None or (behind is not None and behind.token == entry.token):
            continue
        seen += 1
        right += entry.logprob >= best - _TIE
        shifted += behind is not None and any(
            token == behind.token and logprob >= best - _TIE for token, logprob in entry.top
        )
    if not seen:
        return ""
    if 2 * right > seen:
        return None
    if shifted and 2 * (shifted + 1) > seen:  # what follows the last token may be unknown
        return f"shifted: at {shifted} of {seen} tokens the likeliest is the next one"
    return f"only {right} of {seen} tokens that the model chose are the likeliest at their places"


def _written(written: str, echoed: Sequence[TokenLogprob]) -> list[tuple[int, TokenLogprob]]:
    """The tokens within what the model wrote, and their places among the echoed."""
    joined = "".join(entry.token for entry in echoed)
    first = joined.rfind(written) if written else -1
    found, begin = [], 0
    for place, entry in enumerate(echoed):
        end = begin + len(entry.token)
        if first >= 0 and entry.token and first <= begin and end <= first + len(written):
            found.append((place, entry))
        begin = end
    return found
