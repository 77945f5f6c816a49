"""The predictions table -> a score of every latent by every metric at every slice, or why there is none."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from autointerp.records import Failed, Skipped, Undefined
from autointerp.scoring.answers import AnswerKey, Answers, read_answers
from autointerp.scoring.method_scores import FAMILIES, MethodFamily, bounded_scores, scores
from autointerp.scoring.over_borrowed import Tested, over_borrowed
from autointerp.scoring.refusal_bounds import Side
from autointerp.scoring.score import Score, share_score
from autointerp.scoring.views import CONSTANT_JUDGE, FamilyPlan, View, plan_of, views_of

__all__ = ["LatentScore", "ScoringOptions", "latent_scores"]

LIFTED = {"detection": "auroc", "fuzzing": "auroc", "simulation": "correlation"}
"""Families that are set against a borrowed explanation, by which of their metrics."""
REFUSALS = "refusal_fraction"
_LARGEST = 1e100  # whose square is still a number
_SIDES: tuple[Side, ...] = ("worst", "best")

Scored = Score | Undefined | Failed | Skipped


@dataclass(frozen=True)
class ScoringOptions:
    """What is the headline, and how intervals are made."""

    explainers: tuple[str, ...] = ()
    """In order: scores of the first one's explanations are the headline; if empty, the first by name."""
    judges: tuple[str, ...] = ()
    """In order, likewise, within each family of methods."""
    level: float = 0.95
    """Coverage of the intervals."""
    seed: int = 0
    """Of the bootstrap over a latent's documents."""


@dataclass(frozen=True)
class LatentScore:
    """One metric of one latent at one slice."""

    checkpoint: str
    latent: int
    latent_id: str
    sampling_weight: float
    metric: str
    """With `explanation.` in front."""
    slice: Mapping[str, Any]
    explainer: str
    explanation: str
    method: str
    """Empty where several enter (refusals)."""
    judge: str
    outcome: Scored
    refused: Mapping[str, int] = field(default_factory=dict)
    """How many questions were refused, by cause."""
    asked_count: int = 0
    """Questions asked, refused ones included."""


def latent_scores(predictions: pl.DataFrame, options: ScoringOptions | None = None) -> list[LatentScore]:
    """Every score of every latent that was asked about; the order of the rows does not matter.

    Slices: {} is the first explainer, tested by its family's first method and judge on random negatives, and
    what differs from that is named: {"explainer"}, {"method"}, {"judge"}, {"explanation": "borrowed" or
    "empty"}, {"negatives": "hard" or a sampler}, {"quantile": n}, {"sequences": "random"}, {"refusals":
    "worst" or "best"}.

    Raises:
        ValueError: columns are missing, a status or a method is unknown.
    """
    options = options or ScoringOptions()
    groups = read_answers(predictions)
    by_family: dict[str, list[Answers]] = defaultdict(list)
    for group in groups:
        by_family[_family_of(group.key.method)].append(group)
    found = []
    for name, family in FAMILIES.items():
        if by_family[name]:
            found += _family_scores(family, by_family[name], options)
    return [*found, *_refusals(groups, options)]


def _family_of(method: str) -> str:
    for family in FAMILIES.values():
        if method in family.methods:
            return family.name
    raise ValueError(
        f"predictions: no method {method!r} in {[m for f in FAMILIES.values() for m in f.methods]}"
    )


def _family_scores(
    family: MethodFamily, groups: Sequence[Answers], options: ScoringOptions
) -> Iterator[LatentScore]:
    plan = plan_of(family, groups, explainers=options.explainers, judges=options.judges)
    found = [
        (answers, view, outcomes)
        for answers in groups
        if answers.key.explainer == plan.explainer or not family.is_of_latents
        for view in views_of(family, plan, answers)
        for outcomes in [_outcomes(family, view, options)]
    ]
    for answers, view, outcomes in found:
        base = plan.base_slice(answers.key, family)
        yield from _scores(answers, base | dict(view.slice), outcomes, view.answers)
    yield from _bounds(family, plan, found, options)
    if family.name in LIFTED:
        yield from _lifts(family, plan, found, options)


def _outcomes(family: MethodFamily, view: View, options: ScoringOptions) -> dict[str, Scored]:
    """Scores of a view, or why it has none."""
    lack = _lack(family, view.answers)
    if lack is not None:
        return dict.fromkeys(view.metrics, lack)
    found = scores(family, view.answers, level=options.level, seed=options.seed)
    return {metric: found[metric] for metric in view.metrics}


def _lack(family: MethodFamily, answers: Answers) -> Scored | None:
    """What forbids a score before any is computed."""
    failed = answers.status == "failed"
    if failed.any():
        return Failed(_most_common(answers.cause[failed]))
    is_measured = answers.is_measured
    if not is_measured.any():
        return _nothing_measured(answers)
    measured = answers.only(is_measured)
    return _bad_sequences(measured) if family.is_simulation else _bad_answers(family, measured)


def _bad_answers(family: MethodFamily, answers: Answers) -> Failed | None:
    if not (np.isfinite(answers.weight) & (answers.weight >= 0)).all():
        return Failed("a passage's weight is not a finite number of at least 0")
    if not np.isfinite(answers.value).all():
        return Failed(f"{answers.key.judge} gave an answer that is not a finite number")
    if family.name != "intruder" and not answers.has_truth.all():
        return Failed("a passage does not say whether the latent fires in it")
    return None


def _nothing_measured(answers: Answers) -> Undefined | Skipped:
    for status in ("refused", "undefined"):
        rows = answers.status == status
        if rows.any():
            count = (
                f"all {len(answers)} questions" if rows.all() else f"{rows.sum()} of {len(answers)} questions"
            )
            return Undefined(f"{count} {status}: {_most_common(answers.cause[rows])}")
    if len(answers):
        return Skipped(_most_common(answers.cause))
    return Undefined("no passage to ask about")


def _bad_sequences(answers: Answers) -> Failed | None:
    truth, predicted = answers.truth.tolist(), answers.predicted.tolist()
    pairs = list(zip(truth, predicted, strict=True))
    if any(t is None or p is None or len(t) != len(p) for t, p in pairs):
        return Failed(f"{answers.key.judge} did not give one prediction for each token")
    if not np.isfinite(np.concatenate(truth)).all() or (np.abs(np.concatenate(predicted)) > _LARGEST).any():
        return Failed(f"{answers.key.judge} gave a prediction that is not a finite number")
    return None


def _most_common(causes: np.ndarray) -> str:
    counts = Counter(cause or "no cause was given" for cause in causes.tolist())
    return min(counts, key=lambda cause: (-counts[cause], cause))


def _scores(
    answers: Answers, settings: Mapping[str, Any], outcomes: Mapping[str, Scored], view: Answers
) -> Iterator[LatentScore]:
    """Outcomes by metric as scores of the latent; the questions are those of a view."""
    key = answers.key
    causes = Counter(view.cause[view.is_refused].tolist())
    refused = dict(sorted(causes.items()))
    asked_count = int(np.count_nonzero(view.is_measured | view.is_refused))
    for metric, outcome in outcomes.items():
        yield LatentScore(
            checkpoint=key.checkpoint,
            latent=key.latent,
            latent_id=answers.latent_id,
            sampling_weight=answers.sampling_weight,
            metric=f"explanation.{metric}",
            slice=settings,
            explainer=key.explainer,
            explanation=key.explanation,
            method=key.method,
            judge=key.judge,
            outcome=outcome,
            refused=refused,
            asked_count=asked_count,
        )


Found = Sequence[tuple[Answers, View, Mapping[str, Scored]]]


def _bounds(
    family: MethodFamily, plan: FamilyPlan, found: Found, options: ScoringOptions
) -> Iterator[LatentScore]:
    """Of each headline view, if any latent of the same checkpoint, explainer and judge has a gap to fill."""
    by_source: dict[tuple[Any, ...], list[tuple[Answers, View]]] = defaultdict(list)
    with_gap = set()
    for answers, view, outcomes in found:
        if view.slice or answers.key.explanation != "own" or answers.key.judge == CONSTANT_JUDGE:
            continue
        source = answers.key._replace(latent=0)
        by_source[source].append((answers, view))
        if view.answers.is_refused.any() or (family.is_simulation and _is_undefined(outcomes)):
            with_gap.add(source)
    for source in sorted(with_gap):
        for answers, view in by_source[source]:
            for side in _SIDES:
                settings = plan.base_slice(answers.key, family) | {"refusals": side}
                bounds = _bounds_of(family, view, side, options)
                yield from _scores(answers, settings, bounds, view.answers)


def _is_undefined(outcomes: Mapping[str, Scored]) -> bool:
    return any(isinstance(outcome, Undefined) for outcome in outcomes.values())


def _bounds_of(family: MethodFamily, view: View, side: Side, options: ScoringOptions) -> dict[str, Scored]:
    lack = _lack(family, view.answers)
    if lack is not None and not view.answers.is_refused.any():
        return dict.fromkeys(view.metrics, lack)
    if isinstance(lack, Failed):
        return dict.fromkeys(view.metrics, lack)
    return dict(bounded_scores(family, view.answers, side, level=options.level, seed=options.seed))


def _lifts(
    family: MethodFamily, plan: FamilyPlan, found: Found, options: ScoringOptions
) -> Iterator[LatentScore]:
    """Own minus borrowed explanation of each latent that was tested with both."""
    headline = {each[0].key: each for each in found if not each[1].slice}
    metric = f"{family.name}_{LIFTED[family.name]}"
    for key, (answers, view, _) in headline.items():
        other = headline.get(key._replace(explanation="borrowed"))
        if key.explanation != "own" or key.judge == CONSTANT_JUDGE or other is None:
            continue
        sides = [Tested(each.answers, scored[metric]) for _, each, scored in (headline[key], other)]
        outcome = _lack(family, view.answers) or _lack(family, other[1].answers)
        outcome = outcome or over_borrowed(family, metric, *sides, level=options.level, seed=options.seed)
        lift = {f"{family.name}_over_borrowed": outcome}
        yield from _scores(answers, plan.base_slice(key, family), lift, view.answers)


def _refusals(groups: Sequence[Answers], options: ScoringOptions) -> Iterator[LatentScore]:
    """Share of a latent's questions that have no usable answer: over all methods, and by method."""
    own = [group for group in groups if group.key.explanation == "own" and group.key.judge != CONSTANT_JUDGE]
    if not own:
        return
    headline = options.explainers[0] if options.explainers else min(group.key.explainer for group in own)
    by_latent: dict[AnswerKey, list[Answers]] = defaultdict(list)
    for group in own:
        for method in ("", group.key.method):
            by_latent[group.key._replace(method=method, judge="")].append(group)
    for key in sorted(by_latent):
        settings = {"explainer": key.explainer} if key.explainer != headline else {}
        settings |= {"method": key.method} if key.method else {}
        yield _refusal_score(key, by_latent[key], settings, options)


def _refusal_score(
    key: AnswerKey, groups: Sequence[Answers], settings: Mapping[str, Any], options: ScoringOptions
) -> LatentScore:
    status = np.concatenate([group.status for group in groups])
    cause = np.concatenate([group.cause for group in groups])
    asked = np.concatenate([group.is_measured | group.is_refused for group in groups])
    outcome = share_score(
        REFUSALS, status[asked] == "refused", level=options.level, lacking="nothing was asked"
    )
    if isinstance(outcome, Undefined) and (status == "skipped").any():
        outcome = Skipped(_most_common(cause[status == "skipped"]))
    causes = Counter(cause[status == "refused"].tolist())
    (blank,) = _scores(groups[0], settings, {REFUSALS: outcome}, groups[0])
    return replace(
        blank,
        method=key.method,
        judge="",
        refused=dict(sorted(causes.items())),
        asked_count=int(asked.sum()),
    )
