"""Turns a data set's row into a labelled text, by a small closed set of rules."""

import base64
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import model_validator

from autointerp.probing.drawing import hash_of
from autointerp.sections.section import Section

__all__ = ["LabelRule", "LabelledText", "RowFaultError", "field_of", "labelled_texts"]

_COLUMN = re.compile(r"\{([A-Za-z_]\w*(?:\.\w+)*)\}")
_CONTEXT_CHARACTERS = 400
"""Text before a phrase that is kept; more than the 24 tokens of the phrases' authors."""
_PER_ROW = 2
"""Occurrences of either kind that one document gives to a phrase task."""

Value = bool | int | float | str
_NEEDED = {
    "equals": ("column", "values"),
    "above": ("column", "threshold"),
    "source": (),
    "choice": ("options", "correct", "correct_is"),
    "order": ("options",),
    "base64": ("column",),
    "phrase": ("column", "phrase"),
}


class RowFaultError(Exception):
    """A row is not as the task says; the message says what is wrong with it."""


@dataclass(frozen=True)
class LabelledText:
    """One labelled text, before a tokenizer saw it."""

    text: str
    label: bool
    group: str
    """All texts of a group lie on one side of the split."""
    is_test: bool | None = None
    """The side that the data give; None where the group's hash decides."""
    span: tuple[int, int] | None = None
    """Characters of what is marked, for the pooling `marked`."""


class LabelRule(Section):
    """How the label of a row is made."""

    rule: Literal["equals", "above", "source", "choice", "order", "base64", "phrase"]
    """`equals`: the column is one of `values`. `above`: it is more than `threshold`. `source`: by where a row
    is from. `choice`: a coin shows the right answer (1) or one of the wrong ones (0) as `{answer}`.
    `order`: of two texts, of which the first column's is right, a coin says which stands as `{first}`; 1
    if the right one. `base64`: a coin encodes the column's text (1) or leaves it (0). `phrase`: the second
    of two words right after the first (1), or either without the other (0)."""
    column: str | None = None
    values: tuple[Value, ...] = ()
    negatives: tuple[Value, ...] = ()
    """Of `equals`: rows with another value are left out; empty: all others are negative."""
    threshold: float | None = None
    options: str | tuple[str, ...] = ()
    """Of `choice`: the column that lists the answers, or one column an answer. Of `order`: two columns."""
    correct: str | None = None
    """Of `choice`: the column that says which answer is right, or (`option`) its name among `options`."""
    correct_is: Literal["index", "index_from_1", "key", "flags", "option", "text"] | None = None
    """What `correct` is: an index, an entry of `keys`, a list with 1 at the right ones, one of `options`."""
    keys: str | None = None
    """Column that lists a key for each answer (A, B, ...)."""
    phrase: tuple[str, str] | None = None
    group: str | None = None
    """Column whose equal values lie on one side of the split; else equal texts do."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "LabelRule":
        for name in _NEEDED[self.rule]:
            if getattr(self, name) in (None, ()):
                raise ValueError(f"the rule {self.rule!r} needs {name!r}")
        if self.correct_is == "key" and self.keys is None:
            raise ValueError("correct_is = 'key' needs 'keys'")
        return self


def field_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, or with dots of a field in it.

    Raises:
        RowFaultError: there is no such column.
    """
    value: Any = row
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            there = ", ".join(sorted(map(str, value))) if isinstance(value, Mapping) else type(value).__name__
            raise RowFaultError(f"there is no column {name!r}; there is: {there or 'nothing'}")
        value = value[part]
    return value


def labelled_texts(
    row: Mapping[str, Any], rule: LabelRule, *, template: str | None, source_label: bool | None, coin: int
) -> Iterator[LabelledText]:
    """The examples that a row gives: mostly one, none if the rule leaves it out, of `phrase` several.

    Args:
        row: columns of the row.
        rule: how its label is made.
        template: how its text is put together.
        source_label: of the rows it is among, for the rule `source`.
        coin: a number that nothing in the row depends on; its last bit is the coin that is thrown.

    Raises:
        RowFaultError: the row is not as the rule says.
    """
    if rule.rule == "phrase":
        yield from _phrases(row, rule)
        return
    made = _RULES[rule.rule](row, rule, source_label, coin)
    if made is None:
        return
    label, further = made
    text = further.get("text") or _rendered(template or "", {**row, **further})
    group = text if rule.group is None else str(field_of(row, rule.group))
    if text.strip():
        yield LabelledText(text, label, group)


def _rendered(template: str, row: Mapping[str, Any]) -> str:
    return _COLUMN.sub(lambda match: _shown(row, match.group(1)), template)


def _shown(row: Mapping[str, Any], column: str) -> str:
    found = field_of(row, column)
    if not isinstance(found, (str, int, float)):
        raise RowFaultError(f"column {column!r} holds {type(found).__name__}, not text")
    return str(found)


_Made = tuple[bool, dict[str, Any]] | None


def _equals(row: Mapping[str, Any], rule: LabelRule, _label: bool | None, _coin: int) -> _Made:
    value = field_of(row, str(rule.column))
    if value in rule.values:
        return True, {}
    if rule.negatives and value not in rule.negatives:
        return None
    return False, {}


def _above(row: Mapping[str, Any], rule: LabelRule, _label: bool | None, _coin: int) -> _Made:
    value = field_of(row, str(rule.column))
    if not isinstance(value, (int, float)):
        raise RowFaultError(f"column {rule.column!r} holds {type(value).__name__}, not a number")
    return value > (rule.threshold or 0.0), {}


def _source(_row: Mapping[str, Any], _rule: LabelRule, label: bool | None, _coin: int) -> _Made:
    if label is None:
        raise RowFaultError("the rule 'source' needs a label for each [[rows]]")
    return label, {}


def _choice(row: Mapping[str, Any], rule: LabelRule, _label: bool | None, coin: int) -> _Made:
    if isinstance(rule.options, str):
        answers = list(field_of(row, rule.options))
    else:
        answers = [field_of(row, name) for name in rule.options]
    right = _right_ones(row, rule, answers)
    label = bool(coin & 1)
    open_ones = [answer for place, answer in enumerate(answers) if (place in right) == label]
    if not open_ones:
        return None
    return label, {"answer": open_ones[(coin >> 1) % len(open_ones)]}


def _right_ones(row: Mapping[str, Any], rule: LabelRule, answers: list[Any]) -> set[int]:
    """Which answers are right, as indices; empty where the row does not say (a hidden test label)."""
    if rule.correct_is == "option":
        return {list(rule.options).index(str(rule.correct))}
    told = field_of(row, str(rule.correct))
    if rule.correct_is == "flags":
        return {place for place, flag in enumerate(told) if flag}
    known: list[Any] = list(range(len(answers)))
    if rule.correct_is == "index_from_1":
        known = list(range(1, len(answers) + 1))
    elif rule.correct_is == "key":
        known = list(field_of(row, str(rule.keys)))
    elif rule.correct_is == "text":
        known = answers
    return {place for place, key in enumerate(known) if str(key).strip() == str(told).strip()}


def _order(row: Mapping[str, Any], rule: LabelRule, _label: bool | None, coin: int) -> _Made:
    right, wrong = (field_of(row, name) for name in rule.options)
    label = bool(coin & 1)
    return label, {"first": right if label else wrong, "second": wrong if label else right}


def _base64(row: Mapping[str, Any], rule: LabelRule, _label: bool | None, coin: int) -> _Made:
    text = str(field_of(row, str(rule.column)))
    label = bool(coin & 1)
    encoded = base64.b64encode(text.encode(errors="replace")).decode()
    return label, {"text": encoded if label else text}


def _phrases(row: Mapping[str, Any], rule: LabelRule) -> Iterator[LabelledText]:
    """Marked words: the second after the first; the second after another; another one after the first."""
    text = field_of(row, str(rule.column))
    if not isinstance(text, str):
        raise RowFaultError(f"column {rule.column!r} holds {type(text).__name__}, not text")
    words = rule.phrase or ("", "")
    lowered = text.lower()
    if not any(word.lower() in lowered for word in words):
        return
    first, second = map(re.escape, words)
    patterns = (
        (True, rf"\b{first}\s+({second})\b"),
        (False, rf"\b(?!{first}\s)\w+\s+({second})\b"),
        (False, rf"\b{first}\s+(?!{second}\b)(\w+)"),
    )
    for label, pattern in patterns:
        for count, match in enumerate(re.finditer(pattern, text, re.IGNORECASE)):
            if count == _PER_ROW:
                break
            start, end = match.span(1)
            cut = max(0, start - _CONTEXT_CHARACTERS)
            yield LabelledText(
                text[cut : end + 1], label, f"{hash_of(text):016x}", span=(start - cut, end - cut)
            )


_RULES = {
    "equals": _equals,
    "above": _above,
    "source": _source,
    "choice": _choice,
    "order": _order,
    "base64": _base64,
}
