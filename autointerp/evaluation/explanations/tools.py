"""A plan and the models that were opened -> explainers, simulators and judges, ready to be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autointerp.config import ExplanationSection, LlmSection
from autointerp.evaluation.explanations.judging import Tested, judged, simulated
from autointerp.evaluation.explanations.plan import Plan
from autointerp.evaluation.explanations.questions import (
    Question,
    detection_questions,
    fuzzing_questions,
    simulation_questions,
)
from autointerp.llm.language_model import LanguageModel
from autointerp.sampling.latents.evidence import TestExamples
from autointerp.scoring.predictions import ScoredPassage
from autointerp.simulating.asking import AskOptions
from autointerp.simulating.calibration import Calibration, fit_calibration
from autointerp.simulating.catalogue import make_judge, make_simulator, simulator_for
from autointerp.simulating.simulator import PassageJudge, TokenSimulator

__all__ = ["Questions", "Testers", "testers_of"]

_OF_PASSAGES = ("detection", "embedding", "surprisal")
_JUDGES = (*_OF_PASSAGES, "fuzzing")


@dataclass(frozen=True, eq=False)
class Questions:
    """What one split asks about a latent."""

    detection: list[Question]
    fuzzing: list[Question]
    simulation: list[Question]

    @classmethod
    def of(cls, tested: TestExamples, section: ExplanationSection, *, seed: int) -> "Questions":
        """Those of a split."""
        count = section.judged_examples
        return cls(
            detection_questions(tested, count=count),
            fuzzing_questions(tested, count=count, seed=seed),
            simulation_questions(tested, count=count),
        )


@dataclass(frozen=True, eq=False)
class Testers:
    """Whoever predicts from an explanation."""

    judges: Mapping[str, PassageJudge]
    """By method."""
    simulator: TokenSimulator | None
    """Of method `simulation`."""
    table: TokenSimulator
    table_judges: Mapping[str, PassageJudge]
    calibration: str
    """none, linear or percentile."""

    async def test(
        self,
        tested: Tested,
        methods: Sequence[str],
        questions: Questions,
        *,
        validation: Questions | None,
    ) -> list[ScoredPassage]:
        """Every prediction that some methods make about one explanation.

        Args:
            tested: the explanation and its latent.
            methods: names of `MethodName`; those without a tester here are passed over.
            questions: of the split that is scored.
            validation: of the validate split, for calibration.
        """
        rows: list[ScoredPassage] = []
        for method in methods:
            if method in self.judges:
                asked = questions.fuzzing if method == "fuzzing" else questions.detection
                rows += await judged(tested, self.judges[method], method, asked)
            elif method == "token_table":
                rows += await simulated(tested, self.table, method, questions.simulation)
                rows += await judged(tested, self.table_judges["detection"], "detection", questions.detection)
                rows += await judged(tested, self.table_judges["fuzzing"], "fuzzing", questions.fuzzing)
            elif method == "simulation" and self.simulator is not None:
                rows += await self._simulation(tested, questions, validation)
        return rows

    async def _simulation(
        self, tested: Tested, questions: Questions, validation: Questions | None
    ) -> list[ScoredPassage]:
        assert self.simulator is not None
        rows = await simulated(tested, self.simulator, "simulation", questions.simulation)
        if self.calibration == "none" or validation is None:
            return rows
        known = await simulated(tested, self.simulator, "simulation", validation.simulation)
        predicted = [value for row in known for value in row.predicted or ()]
        truth = [value for row in known if row.predicted for value in row.truth or ()]
        fitted = fit_calibration(self.calibration, predicted, truth)  # type: ignore[arg-type]
        return rows if fitted is None else [_calibrated(row, fitted) for row in rows]


def _calibrated(row: ScoredPassage, fitted: Calibration) -> ScoredPassage:
    if row.predicted is None:
        return row
    return replace(row, calibrated=tuple(fitted.apply(row.predicted).tolist()))


def testers_of(
    plan: Plan, section: ExplanationSection, llm: LlmSection, models: Mapping[str, LanguageModel]
) -> Testers:
    """The testers that a plan needs.

    Raises:
        EndpointError: a model was measured not to do what a method needs; nothing was spent on it.
        SuiteError: a method needs a package that is not installed.
    """
    options = AskOptions(passages_per_prompt=section.passages_per_prompt, attempts=llm.unreadable_attempts)
    judges = {
        method: make_judge(method, models.get("judge"), options)
        for method in plan.methods
        if method in _JUDGES
    }
    simulator = None
    if "simulation" in plan.methods:
        model = models["simulator"]
        simulator = make_simulator(simulator_for(section.simulation, model.capabilities), model, options)
    return Testers(
        judges=judges,
        simulator=simulator,
        table=make_simulator("token_table"),
        table_judges={asks: make_judge(f"token_table/{asks}") for asks in ("detection", "fuzzing")},
        calibration=section.calibration,
    )
