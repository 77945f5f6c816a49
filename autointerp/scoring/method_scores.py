"""Answers of one judge about one explanation -> the scores that the method has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from autointerp.estimates.bootstrap import unseen_share
from autointerp.records import Undefined
from autointerp.scoring.answers import Answers
from autointerp.scoring.auroc import auroc
from autointerp.scoring.balanced_accuracy import yes_no_scores
from autointerp.scoring.correlation import TokenSequences, simulation_scores
from autointerp.scoring.generation import generation_scores
from autointerp.scoring.intruder import intruder_accuracy
from autointerp.scoring.refusal_bounds import Side, correlation_bound, with_refusals
from autointerp.scoring.score import Score

__all__ = ["FAMILIES", "MethodFamily", "bounded_scores", "scores"]

Scored = Score | Undefined
Scorer = Callable[[Answers, float, int], dict[str, Scored]]


@dataclass(frozen=True)
class MethodFamily:
    """Methods whose answers are scored alike, so that they share their metrics."""

    name: str
    methods: tuple[str, ...]
    """The first that the headline explainer was tested by makes the headline."""
    metrics: tuple[str, ...]
    """Without the `explanation.` in front, in reading order."""
    scorer: Scorer
    is_of_latents: bool = False
    """Whether it asks about the latent itself and no explanation enters."""

    @property
    def is_simulation(self) -> bool:
        """Whether predictions are per token."""
        return self.name == "simulation"


def scores(family: MethodFamily, answers: Answers, *, level: float, seed: int) -> dict[str, Scored]:
    """Every metric of the family on the answered rows; each says how many rows have no answer."""
    answered = answers.only(answers.is_measured)
    found = family.scorer(answered, level, seed)
    note = _note(answers)
    if not note:
        return found
    return {
        name: replace(score, method=f"{score.method}{note}")
        if isinstance(score, Score)
        else replace(score, reason=f"{score.reason}{note}")
        for name, score in found.items()
    }


def _note(answers: Answers) -> str:
    if answers.is_measured.all():
        return ""
    counts = {
        status: int(np.count_nonzero(answers.status == status))
        for status in ("refused", "undefined", "skipped")
    }
    return "".join(
        f"; {count} of {len(answers)} questions {status}" for status, count in counts.items() if count
    )


def bounded_scores(
    family: MethodFamily, answers: Answers, side: Side, *, level: float, seed: int
) -> dict[str, Scored]:
    """The same with every refused row at its worst or best; a metric without such a bound is left out.

    Where nothing at all is known of what would have been asked, the value is the end of the metric's range.
    """
    asked = answers.only(answers.is_measured | answers.is_refused)
    if not (asked.passage != "").any():
        ends = {name: _range_of(name) for name in family.metrics}
        bounds = {name: ends[name][side == "best"] for name in ends if ends[name]}
        return {name: _bound(name, bound, 0, level) for name, bound in bounds.items()}
    if family.is_simulation:
        return _simulation_bounds(asked, side, level)
    is_asked_to = np.ones(len(asked), dtype=bool) if family.name == "intruder" else asked.fires
    value = with_refusals(asked.value, is_asked_to, asked.is_refused, side)
    known = replace(asked, value=value, is_probability=asked.is_probability | asked.is_refused)
    return family.scorer(known, level, seed)


def _range_of(name: str) -> tuple[float, float] | None:
    if name.endswith(("rsquared", "absolute_deviation")):
        return None
    return (-1.0, 1.0) if name.endswith("correlation") else (0.0, 1.0)


def _bound(name: str, value: float, documents: int, level: float) -> Score:
    lowest, highest = _range_of(name) or (-np.inf, np.inf)
    reach = unseen_share(documents, level=level)
    low, high = max(lowest, value - reach), min(highest, value + reach)
    return Score(name, value, low, high, level, f"bound; width as {documents} documents leave open", 0)


def _simulation_bounds(asked: Answers, side: Side, level: float) -> dict[str, Scored]:
    name = "simulation_correlation"
    answered, refused = asked.only(asked.is_measured), asked.only(asked.is_refused)
    tokens = _tokens(answered, answered.predicted)
    free = [np.array(each, dtype=np.float64) for each in refused.truth if each is not None]
    known = np.concatenate([tokens.truth, *free])
    if not len(known):
        return {name: _bound(name, -1.0 if side == "worst" else 1.0, 0, level)}
    if np.ptp(known) == 0:
        return {name: Undefined("the activation is the same on every token that was asked about")}
    value = correlation_bound(tokens.truth, tokens.predicted, free, side)
    return {name: _bound(name, value, len(np.unique(asked.document)), level)}


def _tokens(answers: Answers, predicted: np.ndarray) -> TokenSequences:
    documents = answers.document_ids[answers.document].tolist()
    return TokenSequences.of(answers.truth.tolist(), predicted.tolist(), documents)


def _simulation(answers: Answers, level: float, seed: int) -> dict[str, Scored]:
    """The correlation is of the predictions as they came, the others of calibrated ones, if there are any."""
    raw = scaled = _tokens(answers, answers.predicted)
    is_calibrated = np.array([own is not None for own in answers.calibrated], dtype=bool)
    if is_calibrated.any():
        scaled = _tokens(answers, np.where(is_calibrated, answers.calibrated, answers.predicted))
    return simulation_scores(raw, scaled, level=level, seed=seed)


def _ranking(answers: Answers, name: str, level: float, weight: np.ndarray) -> Scored:
    return auroc(
        answers.value,
        answers.fires,
        weight=weight,
        cluster=answers.document,
        level=level,
        name=f"{name}_auroc",
    )


def _ranking_scorer(name: str) -> Scorer:
    def scorer(answers: Answers, level: float, seed: int) -> dict[str, Scored]:  # noqa: ARG001
        return {f"{name}_auroc": _ranking(answers, name, level, answers.balanced_weight)}

    return scorer


def _judge_scorer(name: str) -> Scorer:
    def scorer(answers: Answers, level: float, seed: int) -> dict[str, Scored]:  # noqa: ARG001
        weight = answers.balanced_weight
        found: dict[str, Scored] = {f"{name}_auroc": _ranking(answers, name, level, weight)}
        parts = ("balanced_accuracy", "sensitivity", "precision")
        if not answers.is_probability.all():
            lack = Undefined("the judge gives no probabilities")
            return found | {f"{name}_{part}": lack for part in parts}
        yes_no = yes_no_scores(
            answers.value, answers.fires, weight=weight, cluster=answers.document, level=level
        )
        for part in parts:
            score = getattr(yes_no, part)
            found[f"{name}_{part}"] = (
                replace(score, name=f"{name}_{part}") if isinstance(score, Score) else score
            )
        return found

    return scorer


def _intruder(answers: Answers, level: float, seed: int) -> dict[str, Scored]:  # noqa: ARG001
    found = intruder_accuracy(answers.value > 0, cluster=answers.document, level=level)
    return {"intruder_accuracy": found}


def _generation(answers: Answers, level: float, seed: int) -> dict[str, Scored]:  # noqa: ARG001
    found = generation_scores(answers.value, answers.fires, level=level)
    return {"generation_auroc": found.auroc, "generation_success_fraction": found.success}


def _yes_no_metrics(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{part}" for part in ("auroc", "balanced_accuracy", "sensitivity", "precision"))


FAMILIES: Mapping[str, MethodFamily] = {
    family.name: family
    for family in (
        MethodFamily(
            "simulation",
            ("simulation", "token_table", "graph"),
            ("simulation_correlation", "simulation_rsquared", "simulation_absolute_deviation"),
            _simulation,
        ),
        MethodFamily("detection", ("detection",), _yes_no_metrics("detection"), _judge_scorer("detection")),
        MethodFamily("fuzzing", ("fuzzing",), _yes_no_metrics("fuzzing"), _judge_scorer("fuzzing")),
        MethodFamily("intruder", ("intruder",), ("intruder_accuracy",), _intruder, is_of_latents=True),
        MethodFamily("embedding", ("embedding",), ("embedding_auroc",), _ranking_scorer("embedding")),
        MethodFamily("surprisal", ("surprisal",), ("surprisal_auroc",), _ranking_scorer("surprisal")),
        MethodFamily(
            "generation", ("generation",), ("generation_auroc", "generation_success_fraction"), _generation
        ),
        MethodFamily("steering", ("steering",), ("steering_auroc",), _ranking_scorer("steering")),
    )
}
"""By name, in reading order."""
