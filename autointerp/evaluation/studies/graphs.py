"""Neuron-to-Graph in a run: graphs from explain text, scored on score text, put into the subject."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from autointerp.errors import SuiteError
from autointerp.evaluation.explanations.step import drawn
from autointerp.evaluation.inputs import Measurable
from autointerp.evaluation.studies.graph_building import GraphSetting, built, graph_setting, graphs_of
from autointerp.evaluation.studies.graph_reconstruction import BASELINES, reconstruction
from autointerp.evaluation.studies.graph_text import expected, fired, open_spill, side_text
from autointerp.evaluation.studies.study import Studied, guarded
from autointerp.evaluation.work import Work
from autointerp.explaining.graph_trie import Graph
from autointerp.explaining.graph_walk import MergedGraphs
from autointerp.explaining.neuron_to_graph import GraphExample
from autointerp.metrics.n2g import (
    KL,
    METRICS,
    RECONSTRUCTION,
    SCORES,
    GraphScore,
    ScoredLatent,
    graph_observations,
)
from autointerp.metrics.n2g_tallies import GraphTallies, borrowers
from autointerp.records import OBSERVATION_SCHEMA, MetricDefinition
from autointerp.run_store import RunStore
from autointerp.sampling.document_sums import failed_observations
from autointerp.sampling.latents.evidence import latent_id
from autointerp.sampling.latents.spilled import Spilled
from autointerp.sampling.spill import slug

__all__ = ["GRAPHS_STUDY", "GraphStudy"]

_NO_SAMPLES = "graphs are made of sampled latents, and [sampling] is off"


@dataclass(frozen=True, eq=False)
class _Chosen:
    """One dictionary's latents whose graphs are scored."""

    entry: Measurable
    latents: Sequence[int]
    """In the order in which they were drawn."""
    weights: Mapping[int, float]

    def scored(self, latent: int) -> ScoredLatent:
        summary = self.entry.summary
        return ScoredLatent(summary.name, latent_id(summary.sha256, latent), self.weights[latent])


class GraphStudy:
    """Neuron-to-Graph of all dictionaries of a run."""

    family = "n2g"
    title = "neuron to graph"

    @property
    def metrics(self) -> Sequence[MetricDefinition]:
        """All of `metrics.n2g`."""
        return METRICS

    def observe(self, work: Work, entries: Sequence[Measurable]) -> Studied:
        """Build, score, reconstruct. What is done is kept: waves of graphs, a dictionary's scores."""
        if not isinstance(work.store, RunStore) or not work.suite.sampling.enabled:
            names = [metric.name for metric in METRICS]
            frames = [_all_skipped(entry.summary.name, names, _NO_SAMPLES) for entry in entries]
            return Studied(_joined(frames))
        _refuse_absent(work.suite.graphs.reconstruction, entries)
        spilled = open_spill(work)
        setting = graph_setting(work, spilled)
        tables = {
            name: pl.read_parquet(work.store.path / "latents" / f"{name}.parquet")
            for name in ("latents", "examples", "contexts")
        }
        chosen = [_chosen(work, tables["latents"], entry) for entry in entries]
        examples: dict[tuple[str, int], Sequence[GraphExample]] = {}
        for own in chosen:
            examples |= _examples(tables, own, work.suite.graphs.graph_examples)
        graphs = built(work, entries, examples, setting, key="n2g/graphs")
        work.store.write_table("latents/graphs.parquet", graphs)
        frames = [
            guarded(own.entry.summary.name, SCORES, partial(_scored, work, spilled, own, graphs))
            for own in chosen
        ]
        simulated: dict[str, Any] = {}
        for entry in entries:
            observe = partial(_reconstructed, work, spilled, entry, entries, setting, simulated)
            frames.append(guarded(entry.summary.name, (RECONSTRUCTION, KL), observe))
        return Studied(_joined(frames), _facts(work, setting, graphs, simulated))


GRAPHS_STUDY = GraphStudy()


def _joined(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames) if frames else pl.DataFrame(schema=OBSERVATION_SCHEMA)


def _all_skipped(checkpoint: str, names: Sequence[str], reason: str) -> pl.DataFrame:
    return failed_observations(checkpoint, names, unit="all", reason=reason, status="skipped")


def _refuse_absent(choice: str | Sequence[str], entries: Sequence[Measurable]) -> None:
    """A misspelt name must not pass for a dictionary that is not to be simulated."""
    absent = [] if isinstance(choice, str) else sorted(set(choice) - {each.summary.name for each in entries})
    if absent:
        raise SuiteError(
            f"graphs.reconstruction names {absent[0]!r}, which is no dictionary of the run",
            where="suite",
            remedy=f"there are {', '.join(entry.summary.name for entry in entries)}",
        )


def _chosen(work: Work, latents: pl.DataFrame, entry: Measurable) -> _Chosen:
    """The latents of a dictionary, the same that are explained."""
    own = latents.filter(checkpoint=entry.summary.name, is_sampled=True, status="live").sort("latent")
    weights = dict(own.select("latent", pl.col("sampling_weight").fill_null(1.0)).iter_rows())
    order = drawn(list(weights), work.suite.graphs.latent_count, seed=work.suite.seed)
    return _Chosen(entry, order, weights)


def _examples(
    tables: Mapping[str, pl.DataFrame], own: _Chosen, count: int
) -> Iterator[tuple[tuple[str, int], Sequence[GraphExample]]]:
    """Random firings of each latent in explain text, with the text before; those without are left out."""
    name = own.entry.summary.name
    wanted = pl.col("latent").is_in(pl.Series(own.latents, dtype=pl.UInt32).implode())
    rows = (
        tables["examples"]
        .filter(wanted, checkpoint=name, sampler="uniform", split="explain")
        .sort("latent", "rank")
        .group_by("latent", maintain_order=True)
        .head(count)
        .join(tables["contexts"], on="context", how="left", maintain_order="left")
    )
    columns = ("latent", "tokens", "first_scored", "focus", "value")
    found: dict[int, list[GraphExample]] = {latent: [] for latent in own.latents}
    for latent, tokens, first, focus, value in rows.select(columns).iter_rows():
        found[latent].append(GraphExample(name, latent, tuple(tokens[first : focus + 1]), value))
    return (((name, latent), each) for latent, each in found.items() if each)


def _scored(work: Work, spilled: Spilled, own: _Chosen, graphs: pl.DataFrame) -> pl.DataFrame:
    shard = f"n2g/scores/{slug(own.entry.summary.name)}"
    if not work.store.has(shard):
        work.store.write(shard, _scores(work, spilled, own, graphs))
    return work.store.read(shard)


def _scores(work: Work, spilled: Spilled, own: _Chosen, graphs: pl.DataFrame) -> pl.DataFrame:
    """A row per metric and latent, of its own graph and of another latent's."""
    name = own.entry.summary.name
    if not own.latents:
        reason = "none of its sampled latents is live"
        return failed_observations(name, SCORES, unit="all", reason=reason, status="undefined")
    made = graphs_of(graphs, name)
    lent = borrowers(list(made), seed=work.suite.seed)
    tallies = {null: _tallies(work, latents) for null, latents in ((None, made), ("borrowed", lent))}
    renamed = pl.DataFrame(
        {"latent": list(lent), "to": list(lent.values())}, schema={"latent": pl.UInt32, "to": pl.UInt32}
    )
    merged = MergedGraphs(made)
    for side in side_text(spilled, "score"):
        firings = fired(side, spilled, name, list(made))
        parts = list(expected(side, merged))
        hits = pl.concat(parts).drop("place")
        tallies[None].add(hits, firings, side.token_count)
        others = hits.join(renamed, on="latent").with_columns(latent="to").drop("to")
        tallies["borrowed"].add(others, firings, side.token_count)
    frames = [
        graph_observations(
            [(own.scored(latent), score) for latent, score in each.scores().items()], null=null
        )
        for null, each in tallies.items()
    ]
    return _joined([*frames, _without_graph(own, graphs)])


def _reconstructed(
    work: Work,
    spilled: Spilled,
    entry: Measurable,
    entries: Sequence[Measurable],
    setting: GraphSetting,
    simulated: dict[str, Any],
) -> pl.DataFrame:
    """Of the dictionaries that the suite names; others are skipped. `simulated` is told of what was done."""
    name, choice = entry.summary.name, work.suite.graphs.reconstruction
    first = next((each for each in entries if each.summary.role == "checkpoint"), None)
    is_named = name in choice if isinstance(choice, tuple) else choice == "all"
    if is_named or (choice == "first" and entry is first):
        observations, simulated[name] = reconstruction(work, spilled, entry, setting)
        return observations
    words = f"those of {', '.join(choice)}" if isinstance(choice, tuple) else repr(choice)
    reason = f"all of its latents would have to be simulated; graphs.reconstruction is {words}"
    return _all_skipped(name, (RECONSTRUCTION, KL), reason)


def _tallies(work: Work, latents: Mapping[int, Graph | int]) -> GraphTallies:
    section = work.suite.graphs
    return GraphTallies(
        sorted(latents),
        recall_sequences=section.recall_sequences,
        precision_sequences=section.precision_sequences,
        fire_threshold=section.fire_threshold,
        seed=work.suite.seed,
    )


def _without_graph(own: _Chosen, graphs: pl.DataFrame) -> pl.DataFrame:
    """Rows of latents that have none, with the reason."""
    rows = graphs.filter(checkpoint=own.entry.summary.name)
    failed = rows.filter(status="failed")
    if failed.height:
        raise RuntimeError(failed["reason"][0])
    lacking = sorted(set(own.latents) - set(rows["latent"].to_list()))
    score = GraphScore.without_graph("no activation in explain text to make a graph from")
    return graph_observations([(own.scored(latent), score) for latent in lacking])


def _facts(
    work: Work, setting: GraphSetting, graphs: pl.DataFrame, simulated: Mapping[str, Any]
) -> dict[str, Any]:
    section = work.suite.graphs
    counts = graphs.group_by("checkpoint", maintain_order=True).agg(
        graphs=(pl.col("status") == "built").sum(),
        examples=pl.col("examples").sum(),
        unreached=pl.col("unreached").sum(),
    )
    return {
        "setting": {
            **setting.describe(work.subject.tokenizer),
            "graph_examples": section.graph_examples,
            "recall_sequences": section.recall_sequences,
            **(
                {}
                if section.precision_sequences is None
                else {"precision_sequences": section.precision_sequences}
            ),
            "fire_threshold": section.fire_threshold,
        },
        "checkpoints": counts.to_dicts(),
        "reconstruction": {"baselines": BASELINES, "checkpoints": dict(simulated)},
    }
