"""Which answers make the headline, and which each further slice."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from autointerp.scoring.answers import HARD_NEGATIVES, AnswerKey, Answers
from autointerp.scoring.method_scores import MethodFamily

__all__ = ["CONSTANT_JUDGE", "FamilyPlan", "View", "plan_of", "views_of"]

CONSTANT_JUDGE = "constant"
"""Name of the null that always says no."""

_RANKED = frozenset({"detection", "fuzzing", "embedding", "surprisal"})  # asked about passages of samplers
_OF_QUANTILES = ("auroc", "balanced_accuracy", "sensitivity")
_OF_NEGATIVES = ("auroc", "balanced_accuracy", "precision")


@dataclass(frozen=True)
class FamilyPlan:
    """What is the headline of a family of methods, and what slices were asked for."""

    explainer: str
    method: str
    judges: Mapping[str, str]
    """The first judge of each method."""
    positives: str | None
    """Sampler of the headline's positives; None: all that fire."""
    hard_samplers: tuple[str, ...]
    strata: tuple[int, ...]
    has_top: bool
    """Whether there are sequences from the top, so that leaving them out makes another number."""

    def base_slice(self, key: AnswerKey, family: MethodFamily) -> dict[str, Any]:
        """Where the answers of a key stand: {} for the headline, else what differs from it."""
        settings: dict[str, Any] = {}
        if key.explainer != self.explainer and not family.is_of_latents:
            settings["explainer"] = key.explainer
        if key.method != self.method:
            settings["method"] = key.method
        if key.judge != self.judges.get(key.method, key.judge):
            settings["judge"] = key.judge
        if key.explanation != "own":
            settings["explanation"] = key.explanation
        return settings


@dataclass(frozen=True, eq=False)
class View:
    """Some of a key's answers, and what they are called."""

    slice: Mapping[str, Any]
    """What it adds to the base slice."""
    answers: Answers
    metrics: tuple[str, ...]


def plan_of(
    family: MethodFamily, groups: Sequence[Answers], *, explainers: Sequence[str], judges: Sequence[str]
) -> FamilyPlan:
    """The plan of a family from all of its answers; those named in the orders come first, others by name."""
    own = [group for group in groups if group.key.explanation == "own" and group.key.judge != CONSTANT_JUDGE]
    own = own or list(groups)
    explainer = _first(explainers, {group.key.explainer for group in own}) if family.is_of_latents else ""
    explainer = explainer or (explainers[0] if explainers else _first((), {g.key.explainer for g in own}))
    mine = [group for group in own if group.key.explainer == explainer] or own
    method = _first(family.methods, {group.key.method for group in mine})
    first_judges = {
        name: _first(
            judges, {g.key.judge for g in mine if g.key.method == name} or {g.key.judge for g in asked}
        )
        for name in family.methods
        if (asked := [g for g in own if g.key.method == name])
    }
    positives = {name for group in own for name in group.sampler[group.fires].tolist()}
    samplers = {name for group in own for name in group.sampler.tolist()}
    strata = {
        int(stratum)
        for group in own
        for stratum in np.unique(group.stratum[group.fires & (group.sampler == "quantiles")])
    }
    return FamilyPlan(
        explainer=explainer,
        method=method,
        judges=first_judges,
        positives=next((name for name in ("quantiles", "uniform") if name in positives), None),
        hard_samplers=tuple(name for name in HARD_NEGATIVES if name in samplers),
        strata=tuple(sorted(strata)),
        has_top="top" in samplers,
    )


def _first(order: Sequence[str], present: set[str]) -> str:
    return min(present, key=lambda name: (order.index(name) if name in order else len(order), name))


def views_of(family: MethodFamily, plan: FamilyPlan, answers: Answers) -> Iterator[View]:
    """The headline view first; further ones of own explanations only, and not of the constant judge."""
    is_known = answers.passage != ""
    is_plain = answers.key.explanation == "own" and answers.key.judge != CONSTANT_JUDGE
    if family.is_simulation:
        yield from _views_of_tokens(family, plan, answers, is_plain=is_plain)
        return
    if family.name not in _RANKED:
        yield _view(family, {}, answers, np.ones(len(answers), dtype=bool))
        return
    positive = answers.fires & (answers.sampler == plan.positives if plan.positives else True)
    negative = answers.has_truth & ~answers.fires
    random = negative & ~answers.is_hard
    yield _view(family, {}, answers, positive | random | ~is_known)
    if not is_plain:
        return
    for stratum in plan.strata if plan.positives == "quantiles" else ():
        chosen = (positive & (answers.stratum == stratum)) | random | ~is_known
        yield _view(family, {"quantile": stratum}, answers, chosen, _OF_QUANTILES)
    if plan.hard_samplers:
        chosen = positive | (negative & answers.is_hard) | ~is_known
        yield _view(family, {"negatives": "hard"}, answers, chosen, _OF_NEGATIVES)
    for sampler in plan.hard_samplers:
        chosen = positive | (negative & (answers.sampler == sampler)) | ~is_known
        yield _view(family, {"negatives": sampler}, answers, chosen, _OF_NEGATIVES)


def _views_of_tokens(
    family: MethodFamily, plan: FamilyPlan, answers: Answers, *, is_plain: bool
) -> Iterator[View]:
    """Sequences from the top and random ones together, random ones alone, active and hard ones."""
    is_hard = answers.is_hard
    is_random = ~is_hard & (answers.sampler != "top")
    yield _view(family, {}, answers, ~is_hard)
    if not is_plain:
        return
    if plan.has_top:
        yield _view(family, {"sequences": "random"}, answers, is_random)
    if plan.hard_samplers:
        chosen = is_hard | (is_random & _is_active(answers)) | (answers.passage == "")
        yield _view(family, {"negatives": "hard"}, answers, chosen)


def _is_active(answers: Answers) -> Bool[np.ndarray, " example"]:
    """By the activations themselves, since a simulated row need not say whether the latent fires."""
    return np.array([truth is not None and truth.any() for truth in answers.truth], dtype=bool)


def _view(
    family: MethodFamily,
    settings: Mapping[str, Any],
    answers: Answers,
    chosen: Bool[np.ndarray, " example"],
    parts: tuple[str, ...] | None = None,
) -> View:
    metrics = tuple(
        name for name in family.metrics if parts is None or name.removeprefix(f"{family.name}_") in parts
    )
    return View(settings, answers.distinct(chosen.astype(bool)), metrics)
