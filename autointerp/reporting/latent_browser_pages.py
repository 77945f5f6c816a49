"""Latents of a run -> pages of what each shows when it is opened, every token and context once a page."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from autointerp.reporting.latent_browser_examples import (
    QUOTAS,
    PageContexts,
    chosen_examples,
    example_entry,
)
from autointerp.reporting.latent_browser_facts import DictionaryFacts
from autointerp.reporting.latent_browser_mistakes import judged_wrong
from autointerp.reporting.latent_browser_packing import TokenCode, shown_text, three_digits
from autointerp.reporting.latent_browser_scores import BrowserScores
from autointerp.reporting.latent_tables import LatentTables

__all__ = ["BrowserDictionary", "browser_dictionary", "browser_page"]

_SAMPLERS = {name: index for index, name in enumerate(QUOTAS)}
_METHODS = ("detection", "fuzzing", "simulation")
"""In reading order, others behind them."""
_JUDGED = ("explainer", "method", "judge", "asked", "wrong")

Rows = Mapping[int, Sequence[Mapping[str, Any]]]


@dataclass(frozen=True, eq=False)
class BrowserDictionary:
    """One dictionary's part of a browser."""

    checkpoint: str
    latents: Sequence[int]
    facts: DictionaryFacts
    examples: Rows
    """By latent, in reading order; empty of a browser without text."""
    mistakes: Rows
    """By latent, the worst first."""
    strata: Mapping[str, int]
    """Ranges of strength by sampler."""

    def windows(self, latents: Iterable[int]) -> Iterator[tuple[int, int, int]]:
        """`context`, `begin`, `end` of all that these latents show."""
        for latent in latents:
            for row in (*self.examples.get(latent, ()), *self.mistakes.get(latent, ())):
                yield row["context"], row["begin"], row["end"]


def browser_dictionary(
    tables: LatentTables, checkpoint: str, rows: pl.DataFrame, *, with_text: bool
) -> BrowserDictionary:
    """Read what is shown of some latents.

    Args:
        tables: of the run.
        checkpoint: the dictionary.
        rows: of `latents.parquet`.
        with_text: without it examples and mistakes are left out.

    Raises:
        BadInputError: a table or a file of predictions is damaged.
    """
    latents = rows["latent"].to_list()
    facts = DictionaryFacts(tables, checkpoint, rows)
    if not with_text:
        return BrowserDictionary(checkpoint, latents, facts, {}, {}, {})
    examples, firings = chosen_examples(tables, checkpoint, latents)
    mistakes = judged_wrong(tables, checkpoint, latents, firings)
    strata = dict(examples.group_by("sampler").agg(pl.col("stratum").max() + 1).iter_rows())
    return BrowserDictionary(checkpoint, latents, facts, _by_latent(examples), _by_latent(mistakes), strata)


def _by_latent(rows: pl.DataFrame) -> Rows:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows.iter_rows(named=True):
        found.setdefault(row["latent"], []).append(row)
    return found


def browser_page(
    tables: LatentTables,
    parts: Sequence[tuple[BrowserDictionary, Sequence[int]]],
    scores: BrowserScores,
    *,
    texts: Mapping[int, str],
    with_text: bool,
) -> dict[str, Any]:
    """A page.

    Args:
        tables: of the run.
        parts: dictionaries, and which of their latents.
        scores: of all latents.
        texts: of tokens.
        with_text: whether anything that a text or a model said is shown.

    Returns:
        `texts` of tokens by the page's number; `contexts`, each a string whose characters stand for such
        numbers (`code_text`); `latents`, in the order of `parts`.
    """
    windows = [window for part, latents in parts for window in part.windows(latents)]
    kinds = {"context": pl.UInt64, "begin": pl.UInt32, "end": pl.UInt32}
    contexts = PageContexts(tables, pl.DataFrame(windows, schema=kinds, orient="row"))
    named = [list(part.facts.tokens(latents)) for part, latents in parts] if with_text else []
    code = TokenCode(TokenCode.counted([*contexts.tokens, *named]), texts)
    entries = [
        _entry(part, latent, (scores, contexts, code), with_text=with_text)
        for part, latents in parts
        for latent in latents
    ]
    return {"texts": code.texts, "contexts": list(map(code.code, contexts.tokens)), "latents": entries}


def _entry(
    part: BrowserDictionary,
    latent: int,
    page: tuple[BrowserScores, PageContexts, TokenCode],
    *,
    with_text: bool,
) -> dict[str, Any]:
    scores, contexts, code = page
    entry: dict[str, Any] = {"firing": part.facts.firing(latent), **part.facts.company(latent)}
    histogram = part.facts.histogram(latent)
    if histogram:
        entry["histogram"] = histogram
    explanations = scores.explanations(part.checkpoint, latent, with_text=with_text)
    if explanations:
        entry["explanations"] = explanations
    if with_text:
        entry |= part.facts.words(latent, code)
        found = {
            "graph": part.facts.graph(latent),
            "groups": _groups(part, latent, contexts),
            "mistakes": _mistakes(part.mistakes.get(latent, ()), contexts, scores),
        }
        entry |= {key: value for key, value in found.items() if value}
    return entry


def _groups(part: BrowserDictionary, latent: int, contexts: PageContexts) -> list[list[Any]]:
    """`[sampler, stratum, strata, kept, population, [example, ...]]` of each group, in reading order."""
    found: dict[tuple[str, int], list[Any]] = {}
    for row in part.examples.get(latent, ()):
        key = (row["sampler"], row["stratum"])
        if key not in found:
            head = [_SAMPLERS[row["sampler"]], row["stratum"], part.strata[row["sampler"]]]
            found[key] = [*head, row["kept"], row["group_population"], []]
        found[key][-1].append(example_entry(row, contexts))
    return list(found.values())


def _mistakes(
    rows: Iterable[Mapping[str, Any]], contexts: PageContexts, scores: BrowserScores
) -> list[dict[str, Any]]:
    """By explainer, method and judge; of each passage `[fires, said, example, predicted]`."""
    rows = sorted(
        rows, key=lambda row: (scores.explainer_rank(row["explainer"]), _method_rank(row["method"]))
    )
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        key = tuple(row[name] for name in _JUDGED)
        head = {name: shown_text(row[name]) for name in _JUDGED[:3]} | {"asked": row["asked"]}
        if row["wrong"] is not None:
            head["wrong"] = row["wrong"]
        group = found.setdefault(key, head | {"passages": []})
        said = None if row["value"] is None else three_digits(row["value"])
        shown = example_entry({**row, "focus": row["begin"], "split": "score"}, contexts)
        passage = [int(row["fires"] or False), said, shown]
        if row["predicted"]:
            length = row["end"] - row["begin"]
            passage.append([_predicted(value) for value in row["predicted"][:length]])
        group["passages"].append(passage)
    return list(found.values())


def _method_rank(method: str) -> int:
    return _METHODS.index(method) if method in _METHODS else len(_METHODS)


def _predicted(value: float | None) -> float | int:
    return 0 if value is None or not math.isfinite(value) else three_digits(value)
