"""A run's sampled latents -> explanations.jsonl, predictions, scores.jsonl, observations."""

import asyncio
import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from autointerp.evaluation.explanations.dictionary import DictionaryPart, ExplainedDictionary
from autointerp.evaluation.explanations.estimating import CountingModel, cost_words, planned_calls
from autointerp.evaluation.explanations.files import lines, score_rows, undefined_row
from autointerp.evaluation.explanations.plan import Plan, plan_of, roles_of
from autointerp.evaluation.explanations.running import RunningLatents, needs_effects, with_effects
from autointerp.evaluation.explanations.tools import needs_running, prompt_versions
from autointerp.evaluation.inputs import Measurable, context_options
from autointerp.evaluation.work import Work
from autointerp.llm.cost_plan import CostRange, PlannedCalls, planned_cost
from autointerp.llm.cost_report import scaled_cost
from autointerp.llm.kept_answers import Standing
from autointerp.llm.live_progress import shown
from autointerp.llm.open_models import OpenModels, open_models
from autointerp.metrics.explanation_metrics import score_observations
from autointerp.progress import Advance
from autointerp.records import OBSERVATION_SCHEMA
from autointerp.run_store import RunStore
from autointerp.sampling.latent_meter import LatentMeter
from autointerp.sampling.latents.evidence import ContextTexts, LatentExamples
from autointerp.sampling.samplers.hashing import hashed

__all__ = ["Explained", "explain_latents"]

_TABLES = ("examples", "contexts", "vocabulary", "latents", "promoted")
_COUNTED_LATENTS = 4
"""Of each dictionary, with nulls and without, for the estimate of what the LLM costs."""


class _Listener:
    """Passes on how far the calls are, once there is something that shows it."""

    def __init__(self) -> None:
        self.tell: Callable[[Standing], None] | None = None

    def __call__(self, standing: Standing) -> None:
        if self.tell is not None:
            self.tell(standing)


@dataclass(frozen=True, eq=False, repr=False)  # asyncio.run asks for the result's repr, of all rows
class Explained:
    """What the step found; its files are written."""

    observations: pl.DataFrame
    facts: Mapping[str, Any]
    """For `EvaluationReport.explanations`."""
    cost: Mapping[str, Any]
    """Of the LLM; empty without one."""
    rows: Sequence[Mapping[str, Any]]
    """As in explanations.jsonl."""
    scores: Sequence[Mapping[str, Any]]
    """As in scores.jsonl."""


def explain_latents(work: Work, entries: Sequence[Measurable]) -> Explained:
    """Explain every sampled latent of every dictionary, test the explanations and their nulls.

    Answers of an LLM are kept as they come, so running it again asks only what was not answered. Memory: the
    examples and predictions of one dictionary's sampled latents, about 1 MB a latent.

    Raises:
        SuiteError, EndpointError: an LLM is needed and not named, or cannot do what is needed.
        BudgetReachedError: the next call could cost more than is left.
    """
    plan = plan_of(work.suite)
    step = _Step(work, plan, entries)
    if plan.asks_llm:
        return asyncio.run(step.run())
    with _without_collector():
        return asyncio.run(step.run())


@contextmanager
def _without_collector() -> Iterator[None]:
    """Millions of records that live to the end are looked through again and again, a fifth of the time.

    Only where nothing is asked over a network: there are no cycles to speak of then.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Step:
    """The step of one run: what all its parts share."""

    def __init__(self, work: Work, plan: Plan, entries: Sequence[Measurable]) -> None:
        assert isinstance(work.store, RunStore)
        self._work, self._plan, self._store, self._entries = work, plan, work.store, entries
        folder = work.store.path / "latents"
        self._tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in _TABLES}
        contexts = ContextTexts(self._tables)
        self._readers = {
            entry.summary.name: LatentExamples(
                self._tables,
                contexts,
                checkpoint=entry.summary.name,
                sha256=entry.summary.sha256,
                passage_tokens=work.suite.explanations.passage_tokens,
                explain_fraction=work.suite.sampling.explain_fraction,
            )
            for entry in entries
        }
        self._graphs = _graphs(work.store) if "neuron_to_graph" in plan.explainers else None
        count = work.suite.explanations.latent_count
        self._chosen = {
            name: drawn(reader.live, count, seed=work.suite.seed) for name, reader in self._readers.items()
        }

    async def run(self) -> Explained:
        """All dictionaries, one after another."""
        async with AsyncExitStack() as stack:
            models: OpenModels | Mapping[str, Any] = {}
            estimate: CostRange | None = None
            if self._plan.asks_llm:
                listen = _Listener()
                opening = open_models(
                    self._work.suite.llm,
                    self._store.path / "llm_replies.sqlite",
                    roles=roles_of(self._plan),
                    device=self._work.suite.subject.device,
                    listen=listen,
                )
                models = await stack.enter_async_context(opening)
                estimate = await self._estimate(models)
                bar = shown(self._work.progress, "language model", expected=estimate.calls)
                listen.tell = stack.enter_context(bar)
            parts = await self._parts(models, estimate)
            found = self._found(parts, models, estimate)
        self._store.write_text("explanations.jsonl", lines(found.rows))
        self._store.write_text("scores.jsonl", lines(found.scores))
        return found

    async def _parts(self, models: Mapping[str, Any], estimate: CostRange | None) -> list[DictionaryPart]:
        total = 2 * sum(len(chosen) for chosen in self._chosen.values())
        name = f"explaining latents{cost_words(estimate)}"
        parts = []
        with self._work.progress.step(name, total=total, unit="latent") as advance:
            for place, entry in enumerate(self._entries):
                dictionary = self._dictionary(entry, models, advance)
                part = await dictionary.run(entry.summary.name)
                if part.predictions.height:
                    self._store.write_table(f"predictions/{place:03d}.parquet", part.predictions)
                parts.append(part)
        return parts

    def _dictionary(
        self, entry: Measurable, models: Mapping[str, Any], advance: Advance
    ) -> ExplainedDictionary:
        reader, running = self._readers[entry.summary.name], self._running(entry)
        chosen = self._chosen[entry.summary.name]
        cases = {case.evidence.latent: case for case in reader.cases(chosen)}
        if running is not None and needs_effects(self._plan.explainers):
            cases = with_effects(cases, running)
        nulls = frozenset(chosen[: self._work.suite.explanations.null_latents])
        return ExplainedDictionary(
            self._work.suite,
            self._plan,
            cases,
            models,
            running=running,
            null_latents=nulls,
            advance=advance,
            graphs=None if self._graphs is None else self._graphs.get(entry.summary.name, {}),
        )

    def _running(self, entry: Measurable) -> RunningLatents | None:
        """A dictionary's latents, to be run on new texts, where anything needs that."""
        suite = self._work.suite
        if not needs_running(self._plan, suite.explanations):
            return None
        options, batch_tokens = context_options(suite.corpus), suite.runtime.batch_tokens
        meter = LatentMeter(self._work.subject, entry.checkpoint, options, batch_tokens=batch_tokens)
        return RunningLatents(meter)

    async def _estimate(self, models: Mapping[str, Any]) -> CostRange:
        """What the LLM will cost, from the questions about a few latents; what is kept counts as well.

        Texts that are written or steered, and revisions, depend on answers and are not counted.
        """
        suite = self._work.suite
        planned: list[PlannedCalls] = []
        count = suite.explanations.null_latents
        for entry in self._entries:
            chosen = self._chosen[entry.summary.name]
            planned += await self._planned(entry, chosen[:count], models, has_nulls=True)
            planned += await self._planned(entry, chosen[count:], models, has_nulls=False)
        found = planned_cost(planned, suite.llm.prices, is_batch=suite.llm.batch)
        self._store.event("llm estimate", **found.to_json())
        return found

    async def _planned(
        self, entry: Measurable, latents: Sequence[int], models: Mapping[str, Any], *, has_nulls: bool
    ) -> Sequence[PlannedCalls]:
        """The calls about some latents of a dictionary, from those about the first of them."""
        suite, few = self._work.suite, latents[:_COUNTED_LATENTS]
        if not few:
            return []
        counting = {role: CountingModel(model) for role, model in models.items()}
        explanations = suite.explanations.model_copy(update={"revisions": 0})
        asked = ExplainedDictionary(
            suite.model_copy(update={"explanations": explanations}),
            self._plan,
            {case.evidence.latent: case for case in self._readers[entry.summary.name].cases(few)},
            counting,
            running=None,
            null_latents=frozenset(few if has_nulls else ()),
            advance=lambda _: None,
        )
        await asked.ask()
        return planned_calls(counting, factor=len(latents) / len(few))

    def _undefined(self) -> list[dict[str, Any]]:
        """Sampled latents that cannot be explained on some text and scored on other."""
        return [
            undefined_row(name, latent, explainer, reason)
            for name, reader in self._readers.items()
            for latent, _, reason in reader.undefined
            for explainer in self._plan.explainers
        ]

    def _found(
        self, parts: Sequence[DictionaryPart], models: Mapping[str, Any], estimate: CostRange | None
    ) -> Explained:
        rows = [row for part in parts for row in part.rows] + self._undefined()
        scores = [score for part in parts for score in part.scores]
        facts: dict[str, Any] = {
            "explainers": list(self._plan.explainers),
            "methods": list(self._plan.methods),
            "prompts": _prompts(rows) | prompt_versions(self._plan, self._work.suite.explanations),
        }
        cost: dict[str, Any] = {}
        if isinstance(models, OpenModels):
            facts["models"] = models.judges()
            cost = models.cost_report()
            if estimate is not None:
                cost["estimate"] = estimate.to_json()
            explained = {(row["checkpoint"], row["latent"]) for row in rows if row["status"] != "undefined"}
            if explained:
                cost["per_million_latents"] = scaled_cost(cost, latents=len(explained))
        observations = score_observations(scores) if scores else pl.DataFrame(schema=OBSERVATION_SCHEMA)
        return Explained(observations, facts, cost, rows, score_rows(scores))


def _graphs(store: RunStore) -> dict[str, dict[int, Mapping[str, Any]]]:
    """By dictionary and latent, the graphs that the study of family n2g left."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    file = store.path / "latents" / "graphs.parquet"
    if file.is_file():
        rows = pl.read_parquet(file).filter(status="built").select("checkpoint", "latent", "data")
        for name, latent, data in rows.iter_rows():
            found.setdefault(name, {})[latent] = json.loads(data)
    return found


def drawn(latents: Sequence[int], count: int | None, *, seed: int) -> list[int]:
    """Some latents in an order at random: `count` of them, or all; more are those before and others."""
    keys = hashed(seed, "explained", np.array(latents, dtype=np.uint64))
    return [latents[place] for place in np.argsort(keys, kind="stable")][:count]


def _prompts(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Version of the prompts of every explainer that asks an LLM."""
    return {row["explainer"]: row["prompt_version"] for row in rows if row.get("prompt_version")}
