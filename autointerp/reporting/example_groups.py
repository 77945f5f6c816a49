"""The examples of one latent -> groups by sampler, each with the texts and activations of its window."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from autointerp.reporting.latent_tables import LatentTableError, LatentTables, nearest_name_remedy
from autointerp.sampling.samplers.catalogue import SAMPLER_NAMES
from autointerp.sampling.samplers.sampler import SPLITS

__all__ = ["Example", "ExampleChoice", "ExampleGroup", "example_groups", "require_windows"]

_READING_ORDER = ("uniform", "quantiles", "top", "importance")
"""First what is random, then what was chosen for its strength; silent text follows."""
_SPLITS = {name: index for index, name in enumerate(SPLITS)}
_GROUP = ["sampler", "stratum"]


@dataclass(frozen=True)
class ExampleChoice:
    """Which of a latent's examples are wanted."""

    samplers: tuple[str, ...] = ()
    """Empty: all."""
    split: str | None = None
    """None: all three."""
    count: int | None = 5
    """Of each group, at most: dealt in turn to the splits, in each from its first rank on; of `top` the
    strongest. None: all."""


@dataclass(frozen=True)
class Example:
    """A window of a context around the firing, or the silent place, that was drawn."""

    split: str
    rank: int
    context: int
    document: str
    position: int
    """Of the window's first token in its document, in tokens."""
    focus: int
    """Index in `tokens` of the drawn place."""
    value: float | None
    """Activation there; None in silent text."""
    weight: float | None
    """Rows of the population that this one stands for; None where the sampler is no probability sample."""
    tokens: tuple[str, ...]
    activations: tuple[float, ...]
    """One per token, 0 where the latent does not fire."""


@dataclass(frozen=True)
class ExampleGroup:
    """The examples of one sampler, or of one stratum of it."""

    sampler: str
    meaning: str
    """One sentence; empty for a sampler that this version does not know."""
    is_silent: bool
    stratum: int
    """0 the weakest."""
    stratum_count: int
    """1 where the sampler has no strata."""
    is_in_run: bool
    """Whether the run has examples of this sampler for any latent of the dictionary."""
    split: str | None
    """The one that was asked for; None: all three."""
    kept: int
    """Examples that the run holds, of the splits asked for."""
    population: int
    """Firings or contexts that these were drawn from."""
    examples: tuple[Example, ...]
    """Those that were asked for: by split and rank, of `top` the strongest first."""


def example_groups(
    tables: LatentTables, checkpoint: str, latent: int, choice: ExampleChoice
) -> tuple[ExampleGroup, ...]:
    """The groups in reading order, those of a sampler with strata from the strongest on.

    A sampler of the catalogue without examples is a group without any, unless others were asked for.

    Raises:
        LatentTableError: a sampler that neither the catalogue nor the run knows; a damaged table.
    """
    strata = _strata(tables, checkpoint)
    names = _names(strata, choice)
    own = (pl.col("checkpoint") == checkpoint) & (pl.col("latent") == latent)
    in_split = [] if choice.split is None else [pl.col("split") == choice.split]
    rows = tables.query("examples", own, pl.col("sampler").is_in(names), *in_split)
    require_windows(tables, rows)
    sizes = {(row["sampler"], row["stratum"]): row for row in _sizes(rows).iter_rows(named=True)}
    shown = _examples(tables, _chosen(rows, choice.count))
    groups = []
    for name in names:
        found = sorted((stratum for sampler, stratum in sizes if sampler == name), reverse=True)
        for stratum in found or [0]:
            size: Mapping[str, int] = sizes.get((name, stratum), {"kept": 0, "population": 0})
            entry = SAMPLER_NAMES.get(name)
            examples = shown.get((name, stratum), ())
            groups.append(
                ExampleGroup(
                    sampler=name,
                    meaning=entry.meaning if entry else "",
                    is_silent=entry.is_silent if entry else all(item.value is None for item in examples),
                    stratum=stratum,
                    stratum_count=strata.get(name, 0) + 1,
                    is_in_run=name in strata,
                    split=choice.split,
                    kept=size["kept"],
                    population=size["population"],
                    examples=examples,
                )
            )
    return tuple(groups)


def _strata(tables: LatentTables, checkpoint: str) -> dict[str, int]:
    """The highest stratum of each sampler that has examples for some latent of the dictionary."""
    rows = tables.rows("examples", pl.col("checkpoint") == checkpoint, columns=_GROUP)
    return dict(rows.group_by("sampler").agg(pl.col("stratum").max()).iter_rows())


def _names(strata: Mapping[str, int], choice: ExampleChoice) -> list[str]:
    known = list(dict.fromkeys([*_READING_ORDER, *SAMPLER_NAMES, *sorted(strata)]))
    unknown = [name for name in choice.samplers if name not in known]
    if unknown:
        raise LatentTableError(
            f"there is no sampler {unknown[0]!r}", remedy=nearest_name_remedy(unknown[0], known)
        )
    return [name for name in known if not choice.samplers or name in choice.samplers]


def require_windows(tables: LatentTables, rows: pl.DataFrame) -> None:
    """Refuse examples of which a position lies outside of its window, or a number is not finite.

    Raises:
        LatentTableError: there is one.
    """
    fired = pl.col("fired").list
    is_sound = pl.all_horizontal(
        pl.col("begin") <= pl.col("focus"),
        pl.col("focus") < pl.col("end"),
        fired.len() == pl.col("activations").list.len(),
        fired.min().fill_null(pl.col("begin")) >= pl.col("begin"),
        fired.max().fill_null(pl.col("begin")) < pl.col("end"),
        pl.col("activations").list.eval(pl.element().is_finite()).list.all(),
        pl.col("split").is_in(list(_SPLITS)),
    )
    if not rows.select(is_sound.fill_null(value=False).all()).item():
        raise tables.damaged("examples", "an example does not fit its window")


def _sizes(rows: pl.DataFrame) -> pl.DataFrame:
    """`kept` and `population` of each group; a population is told on each row of a split."""
    by_split = rows.group_by(*_GROUP, "split").agg(
        kept=pl.len(), population=pl.col("population").cast(pl.UInt64).max()
    )
    return by_split.group_by(_GROUP).agg(pl.col("kept", "population").sum())


def _chosen(rows: pl.DataFrame, count: int | None) -> pl.DataFrame:
    """The first of each group, in the order in which they are read."""
    is_top = pl.col("sampler") == "top"
    strength = pl.when(is_top).then(-pl.col("value").abs()).otherwise(0.0)
    side = pl.col("split").replace_strict(_SPLITS, return_dtype=pl.UInt8)
    turns = rows.with_columns(strength=strength, side=side).sort(*_GROUP, "strength", "rank", "side")
    first = turns if count is None else turns.group_by(_GROUP, maintain_order=True).head(count)
    return first.sort(*_GROUP, "strength", "side", "rank")


def _examples(tables: LatentTables, rows: pl.DataFrame) -> dict[tuple[str, int], tuple[Example, ...]]:
    found: dict[tuple[str, int], list[Example]] = {}
    for row in _with_texts(tables, rows).iter_rows(named=True):
        found.setdefault((row["sampler"], row["stratum"]), []).append(_example(row))
    return {group: tuple(examples) for group, examples in found.items()}


def _example(row: Mapping[str, Any]) -> Example:
    activations = [0.0] * len(row["texts"])
    for position, value in zip(row["fired"], row["activations"], strict=True):
        activations[position - row["begin"]] = value
    return Example(
        split=row["split"],
        rank=row["rank"],
        context=row["context"],
        document=row["document"],
        position=row["position"],
        focus=row["focus"] - row["begin"],
        value=row["value"],
        weight=row["weight"],
        tokens=tuple(row["texts"]),
        activations=tuple(activations),
    )


def _with_texts(tables: LatentTables, rows: pl.DataFrame) -> pl.DataFrame:
    """With `document`, `position` and `texts`, one for each token of the window."""
    columns = ["context", "document", "start", "first_scored", "tokens"]
    contexts = tables.rows(
        "contexts", pl.col("context").is_in(rows["context"].unique().implode()), columns=columns
    )
    joined = rows.with_row_index("example").join(contexts, on="context", how="left", maintain_order="left")
    length = pl.col("tokens").list.len()
    if not joined.select((pl.col("end") <= length).fill_null(value=False).all()).item():
        raise tables.damaged("contexts", "the context of an example is missing or too short")
    window = pl.col("tokens").list.slice("begin", pl.col("end") - pl.col("begin"))
    flat = joined.select("example", token=window).explode("token")
    texts = tables.rows("vocabulary", pl.col("token").is_in(flat["token"].unique().implode()))
    lists = (
        flat.join(texts, on="token", how="left", maintain_order="left")
        .with_columns(pl.col("text").fill_null(pl.format("[{}]", "token")))
        .group_by("example", maintain_order=True)
        .agg(texts=pl.col("text"))
    )
    # A context's `start` is where its text begins: behind BOS, if there is one.
    place = pl.col("start").cast(pl.Int64) + pl.col("begin") - pl.col("first_scored")
    return joined.join(lists, on="example", how="left", maintain_order="left").with_columns(position=place)
