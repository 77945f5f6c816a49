"""The spill of one dictionary -> its latents' totals, statistics and examples.

Four readings of the firings, chunk by chunk, since each needs what the one before found:

    1  totals of all latents                       -> which are sampled
    2  histograms, tokens, co-firing, and samplers that need nothing else
    3  strata of peaks, hard negatives              (need histograms, tokens, neighbours)
    4  activations within the examples' windows     (need the examples)

Memory: 100 bytes per latent of the dictionary; per sampled latent its histogram (16 bytes a bin), and
`examples` + 1 rows of 32 bytes per sampler, split and stratum; counts of co-firing latents and of tokens at
each place, 8 million of each for all sampled latents together (at most 4096 and 2048, at least 256 for each
latent); one chunk, and what two samplers at a time make of it. None of it grows with the number of tokens
once these are full.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, UInt32

from autointerp.sampling.latents.choice import Choice, choose, coverage_row, judged
from autointerp.sampling.latents.co_firing import CoFiring
from autointerp.sampling.latents.context_queries import ContextQueries
from autointerp.sampling.latents.distribution import Histograms, quantiles, strata_edges
from autointerp.sampling.latents.examples import WindowOptions, activations_of, contexts_of, windowed
from autointerp.sampling.latents.shared_ngrams import leaks
from autointerp.sampling.latents.spilled import ChunkContexts, Firings, Spilled
from autointerp.sampling.latents.token_counts import TokenCounts
from autointerp.sampling.latents.totals import LatentTotals
from autointerp.sampling.samplers.importance import ImportanceSampler
from autointerp.sampling.samplers.near_misses import NearMissSampler
from autointerp.sampling.samplers.neighbours import NeighbourSampler
from autointerp.sampling.samplers.quantiles import QuantileSampler
from autointerp.sampling.samplers.same_token import SameTokenSampler
from autointerp.sampling.samplers.sampler import SAMPLE_SCHEMA, ChunkView, Sampler
from autointerp.sampling.samplers.silent import SilentSampler
from autointerp.sampling.samplers.similar import SimilarSampler
from autointerp.sampling.samplers.sorting import order_of, run_starts
from autointerp.sampling.samplers.top import TopSampler
from autointerp.sampling.samplers.uniform import UniformSampler

__all__ = ["Dictionary", "GatherOptions", "Gathered", "gather"]

_LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
_COUNTED = 2**23
"""Counts of co-firing latents, or of tokens at one place, that are held for all sampled latents together."""
_PEAK_TOKENS = 3
"""Tokens at a latent's peaks for which silent occurrences are looked for."""
_AT_A_TIME = 2
"""Samplers that look at a chunk side by side; each needs memory of its own."""
_NEIGHBOURS = 5
"""Nearest by decoder, and as many by co-firing, whose firings are looked at where the latent is silent."""


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A dictionary whose firings were kept."""

    name: str
    site: str
    """What it reads."""
    latent_count: int
    nearest: Callable[[UInt32[np.ndarray, " latent"]], pl.DataFrame]
    """Of some latents `latent`, `rank`, `other`, `value`: those of most similar direction."""


@dataclass(frozen=True)
class GatherOptions:
    """How many examples of what."""

    choice: Choice = field(default_factory=Choice)
    examples: int = 20
    """At most, of each latent, split and sampler."""
    strata: int = 5
    """Of peaks by strength; the examples of sampler `quantiles` are dealt out evenly among them."""
    window: WindowOptions = field(default_factory=WindowOptions)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Gathered:
    """What is known of a dictionary's latents; the frames are those of `tables`, less `checkpoint`."""

    latents: pl.DataFrame
    """`tables.LATENTS` less the columns about documents, which the pass counts."""
    histograms: pl.DataFrame
    tokens: pl.DataFrame
    neighbours: pl.DataFrame
    examples: pl.DataFrame
    contexts: pl.DataFrame
    coverage: dict[str, object]


def gather(
    spilled: Spilled,
    dictionary: Dictionary,
    options: GatherOptions,
    *,
    token_count: int,
    advance: Callable[[float], None] = lambda _: None,
) -> Gathered:
    """Everything about the latents of one dictionary.

    Args:
        spilled: what the pass left.
        dictionary: whose firings to read.
        options: how much of what.
        token_count: scored tokens of the text.
        advance: told of every quarter of a chunk that is read.

    Raises:
        RunStoreError: a shard is missing.
    """
    reading = _Reading(spilled, dictionary, advance)
    totals = judged(reading.totals(), options.choice, token_count=token_count)
    chosen = choose(totals, options.choice, seed=options.seed)
    latents = chosen["latent"].to_numpy()
    reading.choose(latents)
    first = _First.of(reading, latents, options)
    fired = totals["tokens_fired"].to_numpy()
    neighbours = _neighbours(dictionary.nearest(latents), first.co_firing.frame(fired, token_count))
    second = _second(reading, latents, options, first, neighbours)
    drawn = _scorable(pl.concat([*first.drawn, *second]), totals)
    examples, contexts, dropped = _separated(drawn, spilled, options)
    statistics = quantiles(first.firings.frame(), _LEVELS)
    return Gathered(
        latents=_sampled(totals, chosen, statistics),
        histograms=_histograms(first),
        tokens=first.tokens.frame(),
        neighbours=neighbours,
        examples=activations_of(examples, spilled, dictionary.name, reading.chosen, advance=advance),
        contexts=contexts,
        coverage=coverage_row(totals, chosen) | {"dropped_for_leaks": dropped},
    )


class _Reading:
    """One dictionary's spill, gone over several times."""

    def __init__(self, spilled: Spilled, dictionary: Dictionary, advance: Callable[[float], None]) -> None:
        self._spilled, self._dictionary, self._advance = spilled, dictionary, advance
        self.chosen: Bool[np.ndarray, " dictionary"] = np.zeros(dictionary.latent_count, dtype=bool)
        self.latent_count = dictionary.latent_count

    def choose(self, latents: UInt32[np.ndarray, " latent"]) -> None:
        """From now on these are the sampled ones."""
        self.chosen[latents] = True

    def chunks(self) -> Iterator[tuple[str, ChunkContexts, Firings]]:
        """Every chunk with all its firings."""
        for chunk in self._spilled.chunk_names:
            yield chunk, self._spilled.contexts(chunk), self._spilled.firings(self._dictionary.name, chunk)
            self._advance(1)

    def totals(self) -> pl.DataFrame:
        """Of all latents."""
        totals = LatentTotals(self.latent_count)
        for number, (_, contexts, firings) in enumerate(self.chunks()):
            totals.add(
                firings.latent,
                firings.row,
                firings.position,
                firings.value,
                chunk_index=number,
                contexts=contexts.rows,
            )
        return totals.frame()

    def draw(
        self,
        samplers: list[Sampler],
        *,
        watched: Bool[np.ndarray, " dictionary"] | None = None,
        look: "_First | None" = None,
    ) -> list[pl.DataFrame]:
        """Show every chunk to the samplers; their rows, each with the sampler's name."""
        for chunk, contexts, firings in self.chunks():
            view = self._spilled.view(
                self._dictionary.name,
                chunk,
                site=self._dictionary.site,
                firings=firings,
                contexts=contexts,
                chosen=self.chosen,
                watched=self.chosen if watched is None else watched,
            )
            looks = [] if look is None else look.tasks(view, firings)
            _side_by_side([*looks, *(partial(sampler.add, view) for sampler in samplers)])
        return [sampler.sample().with_columns(sampler=pl.lit(sampler.name)) for sampler in samplers]


class _First:
    """What the second reading finds."""

    def __init__(self, latents: UInt32[np.ndarray, " latent"], latent_count: int) -> None:
        self.firings, self.peaks = Histograms(), Histograms()
        tokens, others = (_room(len(latents), most) for most in (2048, 4096))
        self.tokens = TokenCounts(latents, keep=tokens // 4, cap=tokens)
        self.co_firing = CoFiring(latents, latent_count, keep=others // 4, cap=others)
        self.queries = ContextQueries(latents)
        self.drawn: list[pl.DataFrame] = []

    @classmethod
    def of(
        cls, reading: _Reading, latents: UInt32[np.ndarray, " latent"], options: GatherOptions
    ) -> "_First":
        found = cls(latents, reading.latent_count)
        arguments = {"latents": latents, "count": options.examples, "seed": options.seed}
        samplers: list[Sampler] = [
            UniformSampler(**arguments),
            TopSampler(**arguments),
            ImportanceSampler(**arguments),
            SilentSampler(**arguments),
            NearMissSampler(**arguments),
        ]
        found.drawn = reading.draw(samplers, look=found)
        return found

    def tasks(self, view: ChunkView, firings: Firings) -> list[Callable[[], None]]:
        """What counts what a chunk has, each on its own, the longest first."""
        return [
            partial(self._count_co_firing, firings),
            partial(self.tokens.add, view.peaks, view.contexts),
            partial(self._add_values, view),
            partial(self.queries.add, view),
        ]

    def _count_co_firing(self, firings: Firings) -> None:
        longest = int(firings.position.max(initial=0)) + 1
        self.co_firing.add(firings.latent, firings.row.astype(np.int64) * longest + firings.position)

    def _add_values(self, view: ChunkView) -> None:
        self.firings.add(view.firings["latent"].to_numpy(), view.firings["value"].to_numpy())
        self.peaks.add(view.peaks["latent"].to_numpy(), view.peaks["value"].to_numpy())


def _side_by_side(tasks: list[Callable[[], None]]) -> None:
    """Do what shares no state, so that it is no matter what comes first; two at a time where threads are."""
    with ThreadPoolExecutor(min(_AT_A_TIME, torch.get_num_threads())) as pool:
        for done in [pool.submit(task) for task in tasks]:
            done.result()


def _room(latent_count: int, most: int) -> int:
    """Items that are counted exactly for each sampled latent: fewer where very many latents are sampled."""
    return int(np.clip(_COUNTED // max(latent_count, 1), 256, most))


def _second(
    reading: _Reading,
    latents: UInt32[np.ndarray, " latent"],
    options: GatherOptions,
    first: _First,
    neighbours: pl.DataFrame,
) -> list[pl.DataFrame]:
    arguments = {"latents": latents, "count": options.examples, "seed": options.seed}
    # No more than `examples` in all, hence no more strata.
    strata = min(options.strata, options.examples)
    edges = strata_edges(first.peaks.frame(), strata=strata)
    per_stratum = options.examples // strata
    at_peak = first.tokens.frame().filter(pl.col("place") == "at", pl.col("rank") < _PEAK_TOKENS)
    near = (
        neighbours.filter(pl.col("rank") < _NEIGHBOURS).select("latent", "other").unique(maintain_order=True)
    )
    samplers: list[Sampler] = [
        QuantileSampler(**(arguments | {"count": per_stratum}), edges=edges),
        SameTokenSampler(**arguments, tokens=at_peak.select("latent", "token")),
        NeighbourSampler(**arguments, neighbours=near),
        SimilarSampler(**arguments, queries=first.queries.queries(), centre=first.queries.centre()),
    ]
    watched = reading.chosen.copy()
    watched[near["other"].to_numpy()] = True
    return reading.draw(samplers, watched=watched)


def _neighbours(nearest: pl.DataFrame, co_firing: pl.DataFrame) -> pl.DataFrame:
    columns = ("latent", "kind", "rank", "other", "value", "lift")
    by_decoder = nearest.with_columns(
        kind=pl.lit("decoder_cosine"), lift=pl.lit(None, dtype=pl.Float64)
    ).select(columns)
    return pl.concat([by_decoder, co_firing.with_columns(kind=pl.lit("co_firing")).select(columns)])


def _scorable(drawn: pl.DataFrame, totals: pl.DataFrame) -> pl.DataFrame:
    """Without latents that fire in too few documents, of which nothing can be scored."""
    live = totals.filter(pl.col("status") == "live").select("latent")
    return drawn.join(live, on="latent", how="semi", maintain_order="left")


def _separated(
    drawn: pl.DataFrame, spilled: Spilled, options: GatherOptions
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Windows of what is drawn, its contexts, and how many examples went since they gave a score away."""
    contexts = contexts_of(spilled, drawn["context"])
    found = leaks(drawn.rename({"position": "focus"}), contexts)
    kept = _without(found, drawn)
    examples = windowed(kept, contexts, options.window, seed=options.seed)
    used = contexts.filter(pl.col("context").is_in(kept["context"].unique().implode()))
    return examples, used, drawn.height - kept.height


def _without(leaks_found: pl.DataFrame, drawn: pl.DataFrame) -> pl.DataFrame:
    """The other rows, by sampler, latent, split, stratum and rank.

    What is left stands for what went, too, and takes its ranks.
    """
    names = pl.Enum(drawn["sampler"].unique().sort())
    group = drawn["sampler"].cast(names).to_physical().to_numpy().astype(np.uint64)
    for name, bits in (("latent", 32), ("split", 8), ("stratum", 16)):
        group = group << np.uint64(bits) | drawn[name].to_numpy().astype(np.uint64)
    order = order_of(group, drawn["rank"].to_numpy().astype(np.uint64))
    rows, starts = drawn[order], run_starts(group[order])
    if not len(starts):
        return rows.select(*SAMPLE_SCHEMA, "sampler")
    leaking = rows.select("latent", "split", "context").with_row_index()
    leaking = leaking.join(leaks_found, on=["latent", "split", "context"], how="semi")
    stays = np.ones(rows.height, bool)
    stays[leaking["index"].to_numpy()] = False
    before = np.diff(starts, append=rows.height)
    after = np.add.reduceat(stays, starts, dtype=np.int64)
    place = np.cumsum(stays) - stays
    columns = {
        "before": np.repeat(before, before),
        "after": np.repeat(after, before),
        "rank": (place - np.repeat(place[starts], before)).astype(np.uint32),
    }
    weight = pl.col("weight") * pl.col("before") / pl.col("after")
    return (
        rows.with_columns(**{name: pl.Series(numbers) for name, numbers in columns.items()})
        .filter(pl.Series(stays))
        .with_columns(weight=weight)
        .select(*SAMPLE_SCHEMA, "sampler")
    )


def _sampled(totals: pl.DataFrame, chosen: pl.DataFrame, statistics: pl.DataFrame) -> pl.DataFrame:
    return (
        totals.join(chosen.with_columns(is_sampled=pl.lit(value=True)), on="latent", how="left")
        .join(statistics, on="latent", how="left")
        .with_columns(pl.col("is_sampled").fill_null(value=False), pl.col("stratum").fill_null(""))
        .sort("latent")
    )


def _histograms(first: _First) -> pl.DataFrame:
    parts = {"firing": first.firings, "peak": first.peaks}
    return pl.concat(
        [
            part.frame().with_columns(unit=pl.lit(unit)).select("latent", "unit", "bin", "count")
            for unit, part in parts.items()
        ]
    )
