"""A plan and the models that were opened -> explainers, simulators and judges, ready to be asked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from autointerp.config import ExplanationSection, LlmSection
from autointerp.evaluation.explanations.intruders import intruders
from autointerp.evaluation.explanations.judging import Tested, judged, simulated
from autointerp.evaluation.explanations.plan import Plan
from autointerp.evaluation.explanations.questions import (
    Question,
    detection_questions,
    fuzzing_questions,
    simulation_questions,
)
from autointerp.evaluation.explanations.running import (
    RunningLatents,
    generated,
    needs_effects,
    steered,
)
from autointerp.llm.language_model import LanguageModel
from autointerp.sampling.latents.evidence import TestExamples
from autointerp.scoring.predictions import ScoredPassage
from autointerp.simulating.asking import AskOptions
from autointerp.simulating.calibration import Calibration, fit_calibration
from autointerp.simulating.catalogue import (
    JUDGE_NAMES,
    SIMULATOR_NAMES,
    make_intruder_judge,
    make_judge,
    make_simulator,
    simulator_for,
)
from autointerp.simulating.generation import TextGenerator
from autointerp.simulating.intruder import IntruderJudge
from autointerp.simulating.simulator import PassageJudge, TokenSimulator
from autointerp.simulating.steering import SteeringJudge

__all__ = ["Questions", "Testers", "needs_running", "prompt_versions", "testers_of"]

_OF_PASSAGES = ("detection", "embedding", "surprisal")
_JUDGES = (*_OF_PASSAGES, "fuzzing")
_OWN_DATA = ("token_table", "graph")


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
    own: Mapping[str, TokenSimulator]
    """By method, those that read the data of an explanation: its table, its graph."""
    own_judges: Mapping[tuple[str, str], PassageJudge]
    """The same as judges, by method and question."""
    section: ExplanationSection
    seed: int
    intruder: IntruderJudge | None = None
    generator: TextGenerator | None = None
    steering: SteeringJudge | None = None
    running: RunningLatents | None = None
    """Of the dictionary whose latents are tested; steering needs it."""

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
            elif method in self.own:
                rows += await simulated(tested, self.own[method], method, questions.simulation)
                for asks, asked in (("detection", questions.detection), ("fuzzing", questions.fuzzing)):
                    rows += await judged(tested, self.own_judges[method, asks], asks, asked)
            elif method == "simulation" and self.simulator is not None:
                rows += await self._simulation(tested, questions, validation)
            else:
                rows += await self._of_latent(tested, method, questions)
        return rows

    async def _of_latent(self, tested: Tested, method: str, questions: Questions) -> list[ScoredPassage]:
        """Tests that need more than passages, or no explanation at all."""
        section = self.section
        if method == "generation" and self.generator is not None:
            return await generated(tested, self.generator)
        if method == "steering" and self.steering is not None and self.running is not None:
            examples, prompts = tested.case.score, section.steering_prompts
            strength = section.steering_strength
            return await steered(
                tested, self.steering, self.running, examples, prompts=prompts, strength=strength
            )
        if method == "intruder" and self.intruder is not None and tested.kind == "own":
            trials = section.intruder_trials
            asked = (questions.fuzzing, questions.detection)
            return await intruders(tested, self.intruder, *asked, trials=trials, seed=self.seed)
        return []

    async def _simulation(
        self, tested: Tested, questions: Questions, validation: Questions | None
    ) -> list[ScoredPassage]:
        assert self.simulator is not None
        rows = await simulated(tested, self.simulator, "simulation", questions.simulation)
        if self.section.calibration == "none" or validation is None:
            return rows
        known = await simulated(tested, self.simulator, "simulation", validation.simulation)
        predicted = [value for row in known for value in row.predicted or ()]
        truth = [value for row in known if row.predicted for value in row.truth or ()]
        fitted = fit_calibration(self.section.calibration, predicted, truth)
        return rows if fitted is None else [_calibrated(row, fitted) for row in rows]


def _calibrated(row: ScoredPassage, fitted: Calibration) -> ScoredPassage:
    if row.predicted is None:
        return row
    return replace(row, calibrated=tuple(fitted.apply(row.predicted).tolist()))


def testers_of(
    plan: Plan,
    section: ExplanationSection,
    llm: LlmSection,
    models: Mapping[str, LanguageModel],
    *,
    seed: int,
    running: RunningLatents | None,
) -> Testers:
    """The testers that a plan needs, for one dictionary.

    Args:
        plan: which.
        section: how many passages, texts and trials.
        llm: how models are asked.
        models: by role.
        seed: of what is drawn.
        running: runs the dictionary's latents; needed where `needs_running` says so.

    Raises:
        EndpointError: a model was measured not to do what a method needs; nothing was spent on it.
        SuiteError: a method needs a package that is not installed.
    """
    options = AskOptions(passages_per_prompt=section.passages_per_prompt, attempts=llm.unreadable_attempts)
    judge = models.get("judge")
    judges = {method: make_judge(method, judge, options) for method in plan.methods if method in _JUDGES}
    simulator = None
    if "simulation" in plan.methods:
        model = models["simulator"]
        simulator = make_simulator(simulator_for(section.simulation, model.capabilities), model, options)
    return Testers(
        judges=judges,
        simulator=simulator,
        own={method: make_simulator(method) for method in _OWN_DATA},
        own_judges={
            (method, asks): make_judge(f"{method}/{asks}")
            for method in _OWN_DATA
            for asks in ("detection", "fuzzing")
        },
        section=section,
        seed=seed,
        intruder=make_intruder_judge(judge, options) if judge and "intruder" in plan.methods else None,
        generator=_generator(plan, section, models, options, running),
        steering=SteeringJudge(judge, options) if judge and "steering" in plan.methods else None,
        running=running,
    )


def needs_running(plan: Plan, section: ExplanationSection) -> bool:
    """Whether anything of a plan runs the subject on new texts, or without a latent."""
    is_tested = any(method in plan.methods for method in ("generation", "steering"))
    return is_tested or section.revisions > 0 or needs_effects(plan.explainers)


def prompt_versions(plan: Plan, section: ExplanationSection) -> dict[str, str]:
    """Of every test that asks an LLM; of `simulation` those of all that it may mean, where that is open."""
    simulators = ["all_at_once", "structured"] if section.simulation == "auto" else [section.simulation]
    found = {
        "generation": TextGenerator.prompt_version,
        "steering": SteeringJudge.prompt_version,
        "simulation": " or ".join(SIMULATOR_NAMES[name].prompt_version for name in simulators),
        **{name: entry.prompt_version for name, entry in JUDGE_NAMES.items() if entry.prompt_version},
    }
    return {method: found[method] for method in plan.methods if method in found}


def _generator(
    plan: Plan,
    section: ExplanationSection,
    models: Mapping[str, LanguageModel],
    options: AskOptions,
    running: RunningLatents | None,
) -> TextGenerator | None:
    if "generation" not in plan.methods or running is None:
        return None
    return TextGenerator(models["explainer"], running.strengths, options, texts=section.written_texts)
