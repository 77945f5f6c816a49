"""Tables of latents -> the few examples of each that a report's page shows, and the text they lie in."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from autointerp.reporting.example_groups import require_windows
from autointerp.reporting.latent_browser_packing import three_digits
from autointerp.reporting.latent_tables import LatentTables
from autointerp.sampling.samplers.sampler import SPLITS

__all__ = ["QUOTAS", "WINDOW_TOKENS", "PageContexts", "chosen_examples", "example_entry", "with_window"]

WINDOW_TOKENS = 128
"""Of a longer example, what stands around its focus."""
QUOTAS: dict[str, int] = {
    "uniform": 5,
    "quantiles": 1,
    "top": 4,
    "silent": 2,
    "same_token": 1,
    "neighbours": 1,
    "similar": 1,
    "near_misses": 1,
}
"""Examples a latent by sampler, in reading order: what is random first, the strongest after it, silent text
last. Of `quantiles` as many from each range of strength: with five ranges, 20 examples and a near miss."""
_BEFORE = 3 * WINDOW_TOKENS // 4
_SPLITS = {name: index for index, name in enumerate(SPLITS)}
_GROUP = ("latent", "sampler", "stratum")
_KEY = (*_GROUP, "split", "rank")


def chosen_examples(
    tables: LatentTables, checkpoint: str, latents: Sequence[int]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The examples of one dictionary's latents that are shown, by latent and in reading order.

    Of each group the first ones, dealt in turn to the splits; of `top` the strongest. So they are those that
    `autointerp show` lists first.

    Returns:
        The examples: columns of `EXAMPLES`, the window at most `WINDOW_TOKENS` wide, and `kept`, how many
        the run holds of the group, with `group_population`, what these were drawn from, over all splits. And
        of each context that any example lies in `latent`, `context`, `fired`, `activations`.

    Raises:
        LatentTableError: the table is damaged.
    """
    own = (pl.col("checkpoint") == checkpoint) & pl.col("sampler").is_in(list(QUOTAS))
    wanted = pl.Series(latents, dtype=pl.UInt32)
    rows = tables.query("examples", own, pl.col("latent").is_in(wanted.implode()))
    require_windows(tables, rows)
    is_top = pl.col("sampler") == "top"
    order = {name: index for index, name in enumerate(QUOTAS)}
    light = rows.select(
        *_KEY,
        "population",
        strength=pl.when(is_top).then(-pl.col("value").abs()).otherwise(0.0),
        side=pl.col("split").replace_strict(_SPLITS, return_dtype=pl.UInt8),
        group=pl.col("sampler").replace_strict(order, return_dtype=pl.UInt8),
    )
    most = pl.col("sampler").replace_strict(QUOTAS, return_dtype=pl.UInt32)
    chosen = (
        light.sort("latent", "group", pl.col("stratum"), "strength", "rank", "side")
        .with_columns(turn=pl.int_range(pl.len()).over(_GROUP))
        .filter(pl.col("turn") < most)
        .join(_sizes(light), on=_GROUP, how="left", maintain_order="left")
        .select(*_KEY, "kept", "group_population")
    )
    shown = with_window(chosen.join(rows, on=_KEY, how="left", maintain_order="left"))
    firings = rows.select("latent", "context", "fired", "activations")
    return shown, firings.unique(["latent", "context"], keep="any")


def _sizes(rows: pl.DataFrame) -> pl.DataFrame:
    """`kept` and `group_population` of each group; a population is told on each row of a split."""
    by_split = rows.group_by(*_GROUP, "split").agg(
        kept=pl.len(), group_population=pl.col("population").cast(pl.UInt64).max()
    )
    return by_split.group_by(_GROUP).agg(pl.col("kept", "group_population").sum())


def with_window(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows with `begin` and `end` drawn in around `focus` where they are too far apart."""
    begin, end, focus = (pl.col(name).cast(pl.Int64) for name in ("begin", "end", "focus"))
    first = pl.max_horizontal(pl.min_horizontal(focus - _BEFORE, end - WINDOW_TOKENS), begin)
    drawn_in = rows.with_columns(begin=first.cast(pl.UInt32))
    last = pl.min_horizontal(pl.col("begin").cast(pl.Int64) + WINDOW_TOKENS, end)
    return drawn_in.with_columns(end=last.cast(pl.UInt32))


class PageContexts:
    """The contexts of one page, each once, as far as an example reaches."""

    def __init__(self, tables: LatentTables, windows: pl.DataFrame) -> None:
        """Read them.

        Args:
            tables: of the run.
            windows: `context`, `begin`, `end` of everything that the page shows.

        Raises:
            LatentTableError: a context is missing or too short.
        """
        spans = windows.group_by("context").agg(pl.col("begin").min(), pl.col("end").max()).sort("context")
        texts = tables.rows(
            "contexts", pl.col("context").is_in(spans["context"].implode()), columns=["context", "tokens"]
        )
        joined = spans.join(texts, on="context", how="left", maintain_order="left")
        length = pl.col("tokens").list.len()
        if not joined.select((pl.col("end") <= length).fill_null(value=False).all()).item():
            raise tables.damaged("contexts", "the context of an example is missing or too short")
        cut = pl.col("tokens").list.slice("begin", pl.col("end") - pl.col("begin"))
        self.tokens: list[list[int]] = joined.select(cut).to_series().to_list()
        """Of each context, in the order of the page."""
        places = joined.select("context", "begin").iter_rows()
        self._places = {context: (index, begin) for index, (context, begin) in enumerate(places)}

    def window(self, context: int, begin: int, end: int) -> list[int]:
        """`[number of the context, first, last + 1]`, counted from where the page's text of it begins."""
        number, start = self._places[context]
        return [number, begin - start, end - start]


def example_entry(row: Mapping[str, Any], contexts: PageContexts) -> list[Any]:
    """An example as the page has it: `[context, begin, end, focus, split, [place, ...], [value, ...]]`.

    Places are counted from `begin`; values have three digits, and the page colours them by 255 steps of
    their share of the latent's maximum. The last two are left out where the latent fires nowhere.
    """
    begin, end = row["begin"], row["end"]
    fired = [
        (place - begin, three_digits(value))
        for place, value in zip(row["fired"] or (), row["activations"] or (), strict=True)
        if begin <= place < end
    ]
    entry: list[Any] = [*contexts.window(row["context"], begin, end), row["focus"] - begin]
    entry.append(_SPLITS[row["split"]])
    return [*entry, [place for place, _ in fired], [value for _, value in fired]] if fired else entry
