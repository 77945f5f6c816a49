"""An LLM's reply -> the one line it was asked for, or why it cannot be used. Replies are hostile."""

import re
import unicodedata

from autointerp.explanation_records import Refusal

__all__ = ["LONGEST_EXPLANATION", "one_line", "read_explanation", "thoughts_and_rest"]

LONGEST_EXPLANATION = 600
"""Characters. A longer one is refused, not cut: a part of it is not what the model said."""

_LONGEST_REPLY = 100_000  # characters; no model that was bounded in tokens says so much
_KEPT_FORMATS = "\u200c\u200d"  # joiners that spelling needs
_UNSEEN = ("Cc", "Cf", "Cs", "Co")  # control, format, lone surrogates, private use
_LABEL = re.compile(r"^[\s*_#>`-]*explanation[\s*_`]*[:：][\s*_]*(.*)$", re.IGNORECASE)
_THINKING = re.compile(r"\A\s*<(think|thinking|reasoning)>(.*?)</\1>", re.IGNORECASE | re.DOTALL)
_DECLINED = re.compile(
    r"\A(i'?m sorry|i am sorry|sorry,|i can'?t |i cannot |i can not |i'm unable|i am unable|as an ai\b)",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("'", "'"), ("“", "”"), ("`", "`"))


def one_line(text: str) -> str:
    """The text on one line: control and direction characters gone, blanks and line breaks single blanks."""
    seen = (
        letter
        for letter in text
        if letter.isspace() or letter in _KEPT_FORMATS or unicodedata.category(letter) not in _UNSEEN
    )
    return " ".join("".join(seen).split())


def thoughts_and_rest(text: str) -> tuple[str, str]:
    """A reasoning model's block of thoughts at the beginning (or nothing), and what follows it."""
    found = _THINKING.match(text)
    return (one_line(found.group(2)), text[found.end() :]) if found else ("", text)


def read_explanation(text: str, *, prompt: str, needs_label: bool = False) -> tuple[str, str] | Refusal:
    """The explanation and the thoughts before it.

    The last line that begins with `Explanation:` counts. A reply of a single line may lack the label.

    Args:
        text: the reply.
        prompt: all that the request said; an explanation that is a part of it says nothing of the latent.
        needs_label: whether a single line without label will not do (thoughts were asked for).
    """
    if len(text) > _LONGEST_REPLY:
        return Refusal("unparsable", f"a reply of {len(text)} characters")
    thoughts, rest = thoughts_and_rest(text)
    lines = [line for line in rest.splitlines() if one_line(line)]
    if not lines:
        return Refusal("empty", "the reply has no text")
    labelled = [(place, found.group(1)) for place, line in enumerate(lines) if (found := _LABEL.match(line))]
    if labelled:
        place, said = labelled[-1]
        before = lines[:place]
        if not one_line(said) and place + 1 < len(lines):
            said = lines[place + 1]
    elif len(lines) == 1 and not needs_label:
        said, before = lines[0], []
    else:
        return Refusal("unparsable", "no line begins with `Explanation:`")
    explanation = _unquoted(one_line(said).strip("*_ "))
    fault = _fault(explanation, prompt)
    return fault or (explanation, one_line(" ".join([thoughts, *before])))


def _fault(explanation: str, prompt: str) -> Refusal | None:
    if not any(letter.isalnum() for letter in explanation):
        return Refusal("empty", "the explanation has no words")
    if _DECLINED.match(explanation):
        return Refusal("content_filter", "the model declined")
    if len(explanation) > LONGEST_EXPLANATION:
        return Refusal(
            "unparsable", f"{len(explanation)} characters, at most {LONGEST_EXPLANATION} are an explanation"
        )
    if len(explanation) >= 20 and _bare(explanation) in _bare(prompt):
        return Refusal("unparsable", "the explanation repeats the prompt")
    return None


def _unquoted(text: str) -> str:
    for begin, end in _QUOTES:
        if len(text) > 2 and text[0] == begin and text[-1] == end and begin not in text[1:-1]:
            return text[1:-1].strip()
    return text


def _bare(text: str) -> str:
    return "".join(letter for letter in text.lower() if letter.isalnum())
