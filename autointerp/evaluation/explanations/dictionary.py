"""One dictionary's latents: explain all, lend the explanations to others, test, score."""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import polars as pl

from autointerp.config import Suite
from autointerp.evaluation.explanations.files import explanation_row
from autointerp.evaluation.explanations.judging import Tested
from autointerp.evaluation.explanations.plan import Plan, refuse_lacking
from autointerp.evaluation.explanations.running import RunningLatents
from autointerp.evaluation.explanations.tools import Questions, Testers, testers_of
from autointerp.explaining.catalogue import make_explainers
from autointerp.explaining.explainer import Explainer
from autointerp.explanation_records import Explanation, Refusal
from autointerp.llm.language_model import LanguageModel
from autointerp.progress import Advance
from autointerp.sampling.latents.evidence import LatentCase
from autointerp.scoring.auroc import auroc
from autointerp.scoring.latent_scores import LatentScore, ScoringOptions, latent_scores
from autointerp.scoring.nulls import borrowed, constant_judge, empty
from autointerp.scoring.predictions import ScoredPassage, prediction_frame
from autointerp.scoring.score import Score

__all__ = ["DictionaryPart", "ExplainedDictionary"]

_VALIDATING = ("detection", "token_table")
"""What chooses among candidates, the first that the suite has."""

Found = Mapping[str, Explanation | Refusal]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class DictionaryPart:
    """What one dictionary gave."""

    rows: list[dict[str, Any]]
    """Lines of explanations.jsonl."""
    predictions: pl.DataFrame
    scores: list[LatentScore]


class ExplainedDictionary:
    """One dictionary of a run."""

    def __init__(
        self,
        suite: Suite,
        plan: Plan,
        cases: Mapping[int, LatentCase],
        models: Mapping[str, LanguageModel],
        *,
        running: RunningLatents | None,
        null_latents: frozenset[int],
        advance: Advance,
        graphs: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Nothing is asked yet.

        Args:
            suite: how.
            plan: which explainers and tests.
            cases: by latent.
            models: by role.
            running: runs its latents on new texts, where that is needed.
            null_latents: those whose nulls an LLM judges too.
            advance: told of each latent that is explained, and again when it is tested.
            graphs: of latents that have one, for explainer `neuron_to_graph`; None: none were built.
        """
        self._graphs = graphs
        self._suite, self._plan, self._cases, self._models = suite, plan, cases, models
        self._section, self._seed = suite.explanations, suite.seed
        self._running, self._null_latents, self._advance = running, null_latents, advance
        self._testers: Testers = testers_of(
            plan, suite.explanations, suite.llm, models, seed=suite.seed, running=running
        )

    async def run(self, name: str) -> DictionaryPart:
        """Explanations, predictions and scores.

        Args:
            name: of the dictionary.
        """
        explained, rows = await self.ask()
        lines = [
            explanation_row(name, latent, explainer, found)
            for latent, by_explainer in zip(self._cases, explained, strict=True)
            for explainer, found in by_explainer.items()
        ]
        predictions = prediction_frame(rows)
        predictions = pl.concat([predictions, constant_judge(predictions)])
        options = ScoringOptions(
            self._plan.explainers, self._judge_order(), self._suite.estimates.level, self._seed
        )
        return DictionaryPart(
            lines, predictions, latent_scores(predictions, options) if predictions.height else []
        )

    async def ask(self) -> tuple[list[Found], list[ScoredPassage]]:
        """Explanations of every latent by explainer, and what is predicted from them and from their nulls."""
        measure = self._running.examples if self._running else None
        validates = any(map(self._validating, self._plan.llm_explainers))
        explainers = make_explainers(
            self._section,
            self._models,
            llm=self._suite.llm,
            score=self._validate if validates else None,
            measure=measure,
            graphs=self._graphs,
        )
        refuse_lacking(explainers, self._models.get("explainer"))
        cases = list(self._cases.values())
        explained: list[Found] = await _all(self._explained(explainers, case) for case in cases)
        lent = self._lent(explained)
        tested = await _all(self._tested(case, own, lent) for case, own in zip(cases, explained, strict=True))
        return explained, [row for part in tested for row in part]

    def _judge_order(self) -> tuple[str, ...]:
        """LLM judges before the table, so that they make the headline."""
        asked = [judge.name for judge in self._testers.judges.values()]
        asked += [self._testers.simulator.name] if self._testers.simulator else []
        return (*asked, *(simulator.name for simulator in self._testers.own.values()))

    async def _explained(self, explainers: Sequence[Explainer], case: LatentCase) -> Found:
        has_graph = case.evidence.latent in (self._graphs or {})
        found = {
            explainer.name: await explainer.explain(case.evidence)
            for explainer in explainers
            if has_graph or explainer.name != "neuron_to_graph"  # graphs are of some latents, and costly
        }
        self._advance(1)
        return found

    async def _validate(self, explanation: Explanation) -> float | None:
        """AUROC of an explanation on its latent's validate split; None where it has none."""
        case = self._cases[explanation.latent]
        tested = Tested(case, explanation.explainer, "own", explanation)
        methods = self._validating(explanation.explainer)
        questions = Questions.of(case.validate, self._section, seed=self._seed)
        rows = await self._testers.test(tested, methods, questions, validation=None)
        known = [row for row in rows if row.method == "detection" and row.value is not None]
        score = auroc(
            np.array([row.value for row in known], dtype=np.float64),
            np.array([bool(row.fires) for row in known], dtype=bool),
        )
        return score.value if isinstance(score, Score) else None

    def _validating(self, explainer: str) -> list[str]:
        """The test that chooses among an explainer's candidates; none where the suite has no such."""
        return [name for name in _VALIDATING if name in self._plan.tests(explainer)][:1]

    def _lent(self, explained: Sequence[Found]) -> dict[tuple[str, str, int], Explanation]:
        """The nulls by (kind, explainer, latent)."""
        found: dict[tuple[str, str, int], Explanation] = {}
        for explainer in self._plan.explainers:
            own = [each[explainer] for each in explained if explainer in each]
            texts = [each for each in own if isinstance(each, Explanation)]
            made = {"borrowed": borrowed(texts, self._seed), "empty": empty(texts)}
            for kind in self._section.nulls:
                found |= {(kind, explainer, each.latent): each for each in made[kind]}
        return found

    async def _tested(
        self, case: LatentCase, own: Found, lent: Mapping[tuple[str, str, int], Explanation]
    ) -> list[ScoredPassage]:
        questions = Questions.of(case.score, self._section, seed=self._seed)
        calibrates = self._section.calibration != "none"
        validation = Questions.of(case.validate, self._section, seed=self._seed) if calibrates else None
        latent = case.evidence.latent
        pending = []
        for explainer, explanation in own.items():
            methods = self._plan.tests(explainer)
            tested = Tested(case, explainer, "own", explanation)
            pending.append(self._testers.test(tested, methods, questions, validation=validation))
            free = tuple(name for name in methods if name not in self._plan.llm_methods)
            for kind in self._section.nulls:
                null = lent.get((kind, explainer, latent))
                if null is not None:
                    asked = methods if latent in self._null_latents else free
                    tested = Tested(case, explainer, kind, null)
                    pending.append(self._testers.test(tested, asked, questions, validation=validation))
        rows = [row for part in await _all(pending) for row in part]
        self._advance(1)
        return rows


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
