"""Conditions under which a latent fires -> a sentence of at most 160 characters that a person understands."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from autointerp.explaining.highlighting import shown
from autointerp.explaining.token_counts import TokenCounts
from autointerp.explaining.token_patterns import Pattern, after, reading
from autointerp.explaining.token_table_data import token_class

__all__ = ["LONGEST_WORDING", "worded"]

LONGEST_WORDING = 160
"""Characters."""

_MOSTLY = 0.6  # share of the firings from which on `mostly` is said
_DIFFUSE = 0.3  # share of the firings below which the named conditions are examples, and not more
_SMALL = 0.25  # a pattern with less than this part of the first one's share is left out
_TOKEN = 24  # characters of a token that are shown
_BLANKS = {"\n": "line breaks", "\n\n": "blank lines", "\n ": "indentation", " ": "blanks"}
_AFTER_BLANKS = {"\n": "a line break", " ": "blanks"}
_CLASSES = {
    "a line break": "line breaks",
    "spaces": "blanks",
    "a number": "numbers",
    "a bracket": "brackets",
    "a mixed token": "tokens of letters and signs",
    "a word's beginning": "words in small letters",
    "a word's part": "parts of words",
    "a word's beginning with a capital": "words with a capital",
    "a word's part with a capital": "parts with a capital",
    "a word's beginning in capitals": "words in capitals",
    "a word's part in capitals": "parts in capitals",
}


def worded(patterns: Sequence[Pattern], counts: TokenCounts) -> str:
    """The sentence, of as many of the patterns as fit, those with most firings first.

    Percentages are shares of the latent's firings. `…` stands before what does not begin a word. At the end
    stands on how many of such places in text it fires. Where the patterns cover little, they are called
    examples.
    """
    forms = _forms(counts)
    kept = sorted(patterns, key=lambda pattern: -pattern.share)
    kept = [pattern for pattern in kept if pattern.share >= _SMALL * kept[0].share]
    for number in range(len(kept), 0, -1):
        for examples in (3, 1, 0):
            text = _sentence(kept[:number], counts, forms, examples)
            if len(text) <= LONGEST_WORDING:
                return text
    return _examples(counts, forms)


def _sentence(
    patterns: Sequence[Pattern], counts: TokenCounts, forms: Mapping[str, str], examples: int
) -> str:
    """Of classes so many examples are named."""
    covered = sum(pattern.share for pattern in patterns)
    parts = []
    for pattern in patterns:
        unit = " of its firings" if not parts and pattern.share < 0.995 else ""
        part = _part(pattern, counts, forms)
        if pattern.kind == "class" and examples:
            part += _such_as(pattern, patterns, counts, forms, examples)
        parts.append(f"{part} ({round(100 * pattern.share)} %{unit})")
    lead = "Fires on many tokens, among them " if covered < _DIFFUSE else "Fires on "
    tail = _mostly_after(counts) if all(pattern.before is None for pattern in patterns) else ""
    tail = tail or (_mostly_class(patterns, counts) if covered < _MOSTLY else "")
    places = sum(pattern.share / pattern.probability for pattern in patterns)
    return f"{lead}{', '.join(parts)}{tail}{_how_often(covered / places)}"


def _part(pattern: Pattern, counts: TokenCounts, forms: Mapping[str, str]) -> str:
    if pattern.kind == "class":
        return _CLASSES.get(pattern.token or "", pattern.token or "")
    if pattern.kind == "before":
        return f"what follows {_named_before(pattern.before or '')}"
    named = _named(pattern.token or "", forms)
    return named if pattern.before is None else f"{named} after {_context(pattern, counts)}"


def _such_as(
    pattern: Pattern,
    patterns: Sequence[Pattern],
    counts: TokenCounts,
    forms: Mapping[str, str],
    most: int,
) -> str:
    """The most common tokens of a class that no other pattern names."""
    if pattern.token in ("a line break", "spaces"):
        return ""
    others = {other.token for other in patterns if other.kind in ("token", "pair")}
    merged: Counter[str] = Counter()
    for (token,), weight in sorted(counts.tokens.fired.items()):
        if token_class(token) == pattern.token and reading(token) not in others:
            merged[reading(token)] += weight
    found = sorted(merged, key=lambda token: (-merged[token], token))[:most]
    return f" such as {', '.join(_named(token, forms) for token in found)}" if found else ""


def _context(pattern: Pattern, counts: TokenCounts) -> str:
    """The token before and, where four of five of these firings share it, the one before that."""
    earlier: Counter[str] = Counter()
    for (second, first, token), weight in sorted(counts.triples.fired.items()):
        if reading(token) == pattern.token and after(first) == pattern.before and not first.isspace():
            earlier[second.split("\n")[-1].lstrip() + first] += weight
    text, weight = max(earlier.items(), key=lambda item: (item[1], item[0]), default=("", 0.0))
    whole = sum(
        weight
        for (first, token), weight in counts.pairs.fired.items()
        if reading(token) == pattern.token and after(first) == pattern.before
    )
    if text.strip() and weight >= 0.8 * whole:
        return _ticked(text.strip())
    return _named_before(pattern.before or "")


def _mostly_after(counts: TokenCounts) -> str:
    """`, mostly after X` where one token before stands for most firings and for far fewer places."""
    fired: Counter[str] = Counter()
    silent: Counter[str] = Counter()
    for (token,), weight in sorted(counts.before.fired.items()):
        fired[after(token)] += weight
    for (token,), weight in sorted(counts.before.silent.items()):
        silent[after(token)] += weight
    found, share = _largest(fired)
    if found is None or share < _MOSTLY or share < 2 * silent[found] / max(silent.total(), 1e-9):
        return ""
    return f", {'nearly always' if share > 0.9 else 'mostly'} after {_named_before(found)}"


def _mostly_class(patterns: Sequence[Pattern], counts: TokenCounts) -> str:
    if any(pattern.kind == "class" for pattern in patterns):
        return ""
    fired: Counter[str] = Counter()
    silent: Counter[str] = Counter()
    for (token,), weight in sorted(counts.tokens.fired.items()):
        fired[token_class(token)] += weight
    for (token,), weight in sorted(counts.tokens.silent.items()):
        silent[token_class(token)] += weight
    found, share = _largest(fired)
    if found is None or share < _MOSTLY or share < 1.5 * silent[found] / max(silent.total(), 1e-9):
        return ""
    return f"; mostly {_CLASSES.get(found, found)}"


def _how_often(probability: float) -> str:
    if probability >= 0.8:
        return "; on nearly all of these"
    if probability >= 0.4:
        return "; on most of these" if probability >= 0.6 else "; on about half of these"
    return f"; on about 1 in {round(1 / probability)} of these"


def _examples(counts: TokenCounts, forms: Mapping[str, str]) -> str:
    """What is said where no condition accounts for the firings, or none fits."""
    merged: Counter[str] = Counter()
    for (token,), weight in sorted(counts.tokens.fired.items()):
        merged[reading(token)] += weight
    ranked = sorted(merged, key=lambda token: (-merged[token], token))[:4]
    named = [_named(token, forms) for token in ranked]
    for number in range(len(named), 0, -1):
        text = f"Fires on many tokens that have little in common, such as {', '.join(named[:number])}"
        if len(text) <= LONGEST_WORDING:
            return text
    return "Fires on many tokens that have little in common"


def _forms(counts: TokenCounts) -> dict[str, str]:
    """By `reading`: the commonest spelling, with `…` before it where it mostly does not begin a word."""
    spellings: dict[str, Counter[str]] = defaultdict(Counter)
    for (token,), weight in sorted(counts.tokens.fired.items()):
        spellings[reading(token)][token.strip()] += weight
    inside: Counter[str] = Counter()
    for (before, token), weight in counts.pairs.fired.items():
        if before[-1:].isalnum() and token[:1].isalnum():
            inside[reading(token)] += weight
    forms = {}
    for token, found in spellings.items():
        spelling = max(found, key=lambda key: (found[key], key))
        forms[token] = f"…{spelling}" if inside[token] > 0.5 * found.total() else spelling
    return forms


def _largest(weights: Counter) -> tuple[str | None, float]:
    found = max(weights, key=lambda key: (weights[key], key), default=None)
    return (None, 0.0) if found is None else (found, weights[found] / weights.total())


def _named(token: str, forms: Mapping[str, str]) -> str:
    return _BLANKS.get(token) or _ticked(forms.get(token, token))


def _named_before(token: str) -> str:
    return _AFTER_BLANKS.get(token) or _ticked(token)


def _ticked(text: str) -> str:
    seen = shown(text).replace("\t", "⇥")
    if len(seen) > _TOKEN:
        seen = f"{seen[: _TOKEN - 1]}…"
    return f'"{seen}"' if "`" in seen else f"`{seen}`"
