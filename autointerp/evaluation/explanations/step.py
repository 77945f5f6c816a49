"""A run's sampled latents -> explanations.jsonl, predictions, scores.jsonl, observations."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, TypeVar

import polars as pl

from autointerp.evaluation.explanations.files import explanation_row, lines, score_rows
from autointerp.evaluation.explanations.judging import Tested
from autointerp.evaluation.explanations.plan import Plan, plan_of, refuse_lacking, roles_of
from autointerp.evaluation.explanations.running import RunningLatents, needs_effects, with_effects
from autointerp.evaluation.explanations.tools import Questions, needs_running, testers_of
from autointerp.evaluation.inputs import Measurable, context_options
from autointerp.evaluation.work import Work
from autointerp.explaining.catalogue import make_explainers
from autointerp.explaining.explainer import Explainer
from autointerp.explanation_records import Explanation, Refusal
from autointerp.llm.cost_report import scaled_cost
from autointerp.llm.open_models import OpenModels, open_models
from autointerp.metrics.explanation_metrics import score_observations
from autointerp.progress import Advance
from autointerp.records import OBSERVATION_SCHEMA
from autointerp.run_store import RunStore
from autointerp.sampling.latent_meter import LatentMeter
from autointerp.sampling.latents.evidence import ContextTexts, LatentCase, LatentExamples
from autointerp.scoring.auroc import auroc
from autointerp.scoring.latent_scores import LatentScore, ScoringOptions, latent_scores
from autointerp.scoring.nulls import borrowed, constant_judge, empty
from autointerp.scoring.predictions import ScoredPassage, prediction_frame
from autointerp.scoring.score import Score

__all__ = ["Explained", "explain_latents"]

_TABLES = ("examples", "contexts", "vocabulary", "latents", "promoted")
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
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
    return asyncio.run(_Step(work, plan).run(entries))


class _Step:
    """The step of one run: what all its parts share."""

    def __init__(self, work: Work, plan: Plan) -> None:
        assert isinstance(work.store, RunStore)
        self._work, self._plan, self._store = work, plan, work.store
        self._section, self._seed = work.suite.explanations, work.suite.seed
        folder = work.store.path / "latents"
        self._tables = {name: pl.read_parquet(folder / f"{name}.parquet") for name in _TABLES}
        self._contexts = ContextTexts(self._tables)

    async def run(self, entries: Sequence[Measurable]) -> Explained:
        """All dictionaries, one after another."""
        async with AsyncExitStack() as stack:
            models: OpenModels | Mapping[str, Any] = {}
            if self._plan.asks_llm:
                models = await stack.enter_async_context(
                    open_models(
                        self._work.suite.llm,
                        self._store.path / "llm_replies.sqlite",
                        roles=roles_of(self._plan),
                        device=self._work.suite.subject.device,
                    )
                )
            parts = await self._dictionaries(entries, models)
            found = self._found(parts, models)
        self._store.write_text("explanations.jsonl", lines(found.rows))
        self._store.write_text("scores.jsonl", lines(found.scores))
        return found

    async def _dictionaries(self, entries: Sequence[Measurable], models: Mapping[str, Any]) -> list["_Part"]:
        by_name = {entry.summary.name: entry for entry in entries}
        readers = {
            entry.summary.name: LatentExamples(
                self._tables,
                self._contexts,
                checkpoint=entry.summary.name,
                sha256=entry.summary.sha256,
                passage_tokens=self._section.passage_tokens,
            )
            for entry in entries
        }
        total = sum(len(reader.live) for reader in readers.values())
        parts = []
        with self._work.progress.step("explaining latents", total=2 * total, unit="latent") as advance:
            for place, (name, reader) in enumerate(readers.items()):
                part = await _Dictionary(self, by_name[name], reader, models, advance).run()
                if part.predictions.height:
                    self._store.write_table(f"predictions/{place:03d}.parquet", part.predictions)
                parts.append(part)
        return parts

    def running(self, entry: Measurable) -> RunningLatents | None:
        """A dictionary's latents, to be run on new texts, where anything needs that."""
        if not needs_running(self._plan, self._section):
            return None
        options = context_options(self._work.suite.corpus)
        batch_tokens = self._work.suite.runtime.batch_tokens
        meter = LatentMeter(self._work.subject, entry.checkpoint, options, batch_tokens=batch_tokens)
        return RunningLatents(meter)

    def _found(self, parts: Sequence["_Part"], models: Mapping[str, Any]) -> Explained:
        rows = [row for part in parts for row in part.rows]
        scores = [score for part in parts for score in part.scores]
        facts: dict[str, Any] = {
            "explainers": list(self._plan.explainers),
            "methods": list(self._plan.methods),
        }
        cost: Mapping[str, Any] = {}
        if isinstance(models, OpenModels):
            facts["models"] = models.judges()
            spent = models.cost_report()
            explained = {(row["checkpoint"], row["latent"]) for row in rows}
            cost = spent | (
                {"per_million_latents": scaled_cost(spent, latents=len(explained))} if explained else {}
            )
        observations = score_observations(scores) if scores else pl.DataFrame(schema=OBSERVATION_SCHEMA)
        return Explained(observations, facts, cost, rows, score_rows(scores))


@dataclass(frozen=True, eq=False)
class _Part:
    """What one dictionary gave."""

    rows: list[dict[str, Any]]
    predictions: pl.DataFrame
    scores: list[LatentScore]


class _Dictionary:
    """One dictionary: explain all latents, lend the explanations, test."""

    def __init__(
        self,
        step: _Step,
        entry: Measurable,
        reader: LatentExamples,
        models: Mapping[str, Any],
        advance: Advance,
    ) -> None:
        self._plan, self._section, self._seed = step._plan, step._section, step._seed
        self._llm = step._work.suite.llm
        self._level = step._work.suite.estimates.level
        self._name, self._models, self._advance = entry.summary.name, models, advance
        self._running = step.running(entry)
        self._testers = testers_of(
            self._plan, self._section, self._llm, models, seed=self._seed, running=self._running
        )
        self._cases = {case.evidence.latent: case for case in reader.cases()}
        if self._running is not None and needs_effects(self._plan.explainers):
            self._cases = with_effects(self._cases, self._running)
        self._undefined = reader.undefined

    async def run(self) -> _Part:
        """Explanations, predictions and scores."""
        measure = self._running.examples if self._running else None
        explainers = make_explainers(
            self._section, self._models, llm=self._llm, score=self._validate, measure=measure
        )
        refuse_lacking(explainers, self._models.get("explainer"))
        explained = await _all(self._explained(explainers, case) for case in self._cases.values())
        rows = [
            explanation_row(self._name, case.evidence.latent, explainer, found)
            for case, by_explainer in zip(self._cases.values(), explained, strict=True)
            for explainer, found in by_explainer.items()
        ]
        lent = self._lent(explained)
        tested = await _all(
            self._tested(case, own, lent) for case, own in zip(self._cases.values(), explained, strict=True)
        )
        predictions = prediction_frame(row for part in tested for row in part)
        predictions = pl.concat([predictions, constant_judge(predictions)])
        options = ScoringOptions(self._plan.explainers, self._judge_order(), self._level, self._seed)
        return _Part(rows, predictions, latent_scores(predictions, options) if predictions.height else [])

    def _judge_order(self) -> tuple[str, ...]:
        """LLM judges before the table, so that they make the headline."""
        asked = [judge.name for judge in self._testers.judges.values()]
        asked += [self._testers.simulator.name] if self._testers.simulator else []
        return (*asked, self._testers.table.name)

    async def _explained(
        self, explainers: Sequence[Explainer], case: LatentCase
    ) -> dict[str, Explanation | Refusal]:
        found = {explainer.name: await explainer.explain(case.evidence) for explainer in explainers}
        self._advance(1)
        return found

    async def _validate(self, explanation: Explanation) -> float | None:
        """AUROC of an explanation on its latent's validate split, by the headline's own test."""
        case = self._cases[explanation.latent]
        tested = Tested(case, explanation.explainer, "own", explanation)
        methods = [name for name in self._plan.methods if name in ("detection", "fuzzing", "token_table")][:1]
        questions = Questions.of(case.validate, self._section, seed=self._seed)
        rows = await self._testers.test(tested, methods, questions, validation=None)
        known = [row for row in rows if row.method == "detection" and row.value is not None]
        if not known:
            return None
        score = auroc(
            pl.Series([row.value for row in known]).to_numpy(),
            pl.Series([bool(row.fires) for row in known]).to_numpy(),
            name="validation",
        )
        return score.value if isinstance(score, Score) else None

    def _lent(
        self, explained: Sequence[Mapping[str, Explanation | Refusal]]
    ) -> dict[tuple[str, str, int], Explanation]:
        """The nulls by (kind, explainer, latent)."""
        found: dict[tuple[str, str, int], Explanation] = {}
        for explainer in self._plan.explainers:
            own = [each[explainer] for each in explained]
            texts = [each for each in own if isinstance(each, Explanation)]
            made = {"borrowed": borrowed(texts, self._seed), "empty": empty(texts)}
            for kind in self._section.nulls:
                found |= {(kind, explainer, each.latent): each for each in made[kind]}
        return found

    async def _tested(
        self,
        case: LatentCase,
        own: Mapping[str, Explanation | Refusal],
        lent: Mapping[tuple[str, str, int], Explanation],
    ) -> list[ScoredPassage]:
        questions = Questions.of(case.score, self._section, seed=self._seed)
        validation = Questions.of(case.validate, self._section, seed=self._seed)
        latent = case.evidence.latent
        has_llm_null = latent in self._null_latents()
        pending = []
        for explainer, explanation in own.items():
            methods = self._plan.tests(explainer)
            tested = Tested(case, explainer, "own", explanation)
            pending.append(self._testers.test(tested, methods, questions, validation=validation))
            free = tuple(name for name in methods if name not in self._plan.llm_methods)
            for kind in self._section.nulls:
                null = lent.get((kind, explainer, latent))
                if null is not None:
                    tested = Tested(case, explainer, kind, null)
                    asked = methods if has_llm_null else free
                    pending.append(self._testers.test(tested, asked, questions, validation=validation))
        rows = [row for part in await _all(pending) for row in part]
        self._advance(1)
        return rows

    def _null_latents(self) -> frozenset[int]:
        """The latents whose nulls are judged by an LLM too: the first ones, as they were drawn at random."""
        return frozenset(sorted(self._cases)[: self._section.null_latents])


async def _all(questions: Iterable[Awaitable[T]]) -> list[T]:
    """All answers in order; at the first exception the others are stopped, and it is raised."""
    tasks = [asyncio.ensure_future(question) for question in questions]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
