"""What scores of explanations say of a whole dictionary: metrics whose unit is the latent."""

from collections.abc import Iterable
from typing import Any

import polars as pl

from autointerp.records import OBSERVATION_SCHEMA, MetricDefinition, slice_key
from autointerp.scoring.latent_scores import LatentScore, ScoringOptions, latent_scores
from autointerp.scoring.score import Score

__all__ = ["METRICS", "observations_of", "score_line", "score_observations"]

_BILLS = "Bills et al. 2023, Language models can explain neurons in language models"
_PAULO = "Paulo et al. 2024 (arXiv 2410.13928)"
_MEAN = (
    "Mean over the latents that were explained, weighted to stand for all live ones; the interval resamples "
    "latents, and what is uncertain in each latent's own score is a part of the spread between them."
)


def _metric(name: str, title: str, meaning: str, **options: Any) -> MetricDefinition:
    settings: dict[str, Any] = {
        "unit": "fraction",
        "better": "higher",
        "functional": "ratio",
        "sampled": "latent",
        "lowest": 0.0,
        "highest": 1.0,
        "in_summary": False,
        "pairing": "independent",
    }
    return MetricDefinition(f"explanation.{name}", title, f"{meaning} {_MEAN}", **settings | options)


def _judged(method: str, title: str, task: str, *, in_summary: bool) -> tuple[MetricDefinition, ...]:
    return (
        _metric(
            f"{method}_auroc",
            f"{title}, AUROC",
            f"How well a judge that reads the explanation tells {task}: the chance that one of the first "
            "gets a higher probability than one of the second, ties counting half. Active passages are dealt "
            "over strata of strength and weighted back to how often they occur; silent ones are random, or "
            f"hard where the slice says so. 0.5 is chance. Method: {_PAULO}.",
            unit="AUROC",
            in_summary=in_summary,
        ),
        _metric(
            f"{method}_balanced_accuracy",
            f"{title}, balanced accuracy",
            "Mean of sensitivity and specificity of the judge's yes, a probability of at least 0.5. A judge "
            "that always says the same scores 0.5, however many passages of either kind there are.",
        ),
        _metric(
            f"{method}_sensitivity",
            f"{title}, sensitivity",
            "Share of the passages to be called active that get a yes (recall). Read it beside precision: a "
            "judge that always says yes has 1.",
        ),
        _metric(
            f"{method}_precision",
            f"{title}, precision",
            "Share of the judge's yeses that are right if half of the passages are active: sensitivity / "
            "(sensitivity + 1 - specificity). Undefined for a latent of which the judge never says yes.",
        ),
    )


def _over_borrowed(method: str, title: str, score: str, **options: Any) -> MetricDefinition:
    return _metric(
        f"{method}_over_borrowed",
        f"{title}, over a borrowed explanation",
        f"{score} with a latent's own explanation minus that with another latent's, for the same passages "
        "and judge. 0: the explanation says nothing of this latent in particular.",
        unit="difference",
        **{"lowest": -1.0} | options,
    )


METRICS: tuple[MetricDefinition, ...] = (
    _metric(
        "simulation_correlation",
        "Simulation, correlation",
        "Pearson correlation, over all tokens of a latent's scored passages put together, of its activations "
        "and those that a simulator expects from the explanation; passages are its strongest, random active "
        "and random silent ones (slice sequences=random: without the strongest). 0 is chance. Undefined for "
        "a latent where either side is constant; slices refusals=worst and best count a constant prediction "
        f"as 0. {_BILLS}.",
        unit="correlation",
        lowest=-1.0,
        in_summary=True,
    ),
    _metric(
        "simulation_rsquared",
        "Simulation, R^2",
        "1 - mean((t - p)^2) / mean(t^2) over the same tokens, t the activations and p the predictions as "
        "calibrated: not about the mean, so 0 is as good as predicting 0 everywhere. Far below 0 if the "
        f"predictions are in another scale. {_BILLS}.",
        lowest=None,
    ),
    _metric(
        "simulation_absolute_deviation",
        "Simulation, absolute deviation",
        f"1 - mean|t - p| / mean|t| over the same tokens; 0 is as good as predicting 0 everywhere. {_BILLS}.",
        lowest=None,
    ),
    _over_borrowed(
        "simulation",
        "Simulation",
        "Correlation (a constant prediction counting as 0)",
        lowest=-2.0,
        highest=2.0,
    ),
    *_judged(
        "detection", "Detection", "passages in which the latent fires from silent ones", in_summary=True
    ),
    _over_borrowed("detection", "Detection", "AUROC", in_summary=True),
    *_judged(
        "fuzzing",
        "Fuzzing",
        "passages whose highlighted tokens are those at which the latent fires from passages with others "
        "highlighted",
        in_summary=False,
    ),
    _over_borrowed("fuzzing", "Fuzzing", "AUROC"),
    _metric(
        "intruder_accuracy",
        "Intruder, accuracy",
        "How often a judge without any explanation finds, among five passages, the one in which the latent "
        "does not fire. 0.2 is chance. It tells whether the contexts have something in common, not whether "
        "an explanation names it. Paulo and Belrose 2025 (arXiv 2507.08473).",
    ),
    _metric(
        "embedding_auroc",
        "Embedding, AUROC",
        "AUROC of the similarity between the explanation and a passage, by a sentence encoder. 0.5 is "
        f"chance. {_PAULO}.",
        unit="AUROC",
    ),
    _metric(
        "surprisal_auroc",
        "Surprisal, AUROC",
        "AUROC of how much having read the explanation lowers a language model's surprise at a passage. 0.5 "
        f"is chance. {_PAULO}.",
        unit="AUROC",
    ),
    _metric(
        "generation_auroc",
        "Generation, AUROC",
        "AUROC of the latent's largest activation, between texts that an LLM wrote from the explanation to "
        "fire the latent and such as it wrote not to. 0.5 is chance.",
        unit="AUROC",
    ),
    _metric(
        "generation_success_fraction",
        "Generation, success",
        "Share of the texts written from the explanation to fire the latent that do. A latent that fires "
        f"nearly everywhere has 1 for any explanation. {_PAULO}.",
    ),
    _metric(
        "steering_auroc",
        "Steering, AUROC",
        "How well a judge that reads the explanation tells texts that the subject wrote with the latent "
        "raised from those without. 0.5 is chance.",
        unit="AUROC",
    ),
    _metric(
        "refusal_fraction",
        "Questions without an answer",
        "Share of what was asked of the LLM about a latent's own explanation that has no usable answer: "
        "declined, cut off, unreadable, failed, or there was no explanation to ask about. Such questions "
        "enter no other number; slices refusals=worst and best say what they could change.",
        better="lower",
    ),
)
"""All metrics of explanations, in the order of the report."""


def observations_of(predictions: pl.DataFrame, options: ScoringOptions | None = None) -> pl.DataFrame:
    """Observations of every metric at every slice, one row a latent, from a table of `PREDICTIONS`.

    The unit that was sampled is the latent, and it is its own cluster. A latent without a score is a row with
    its status and reason.

    Raises:
        ValueError: columns are missing, a status or a method is unknown.
    """
    return score_observations(latent_scores(predictions, options))


def score_observations(scores: Iterable[LatentScore]) -> pl.DataFrame:
    """The same from scores that are already there."""
    rows = [_row(score) for score in scores]
    columns = {name: [row[name] for row in rows] for name in OBSERVATION_SCHEMA}
    return pl.DataFrame(columns, schema=OBSERVATION_SCHEMA)


def _row(score: LatentScore) -> dict[str, Any]:
    is_measured = isinstance(score.outcome, Score)
    return {
        "checkpoint": score.checkpoint,
        "metric": score.metric,
        "slice": slice_key(score.slice),
        "group": "",
        "group_weight": 1.0,
        "unit": score.latent_id,
        "cluster": score.latent_id,
        "stratum": "",
        "numerator": score.outcome.value if isinstance(score.outcome, Score) else None,
        "denominator": 1.0,
        "label": None,
        "sampling_weight": score.sampling_weight,
        "replicate": 0,
        "status": "measured" if is_measured else score.outcome.status,
        "reason": "" if isinstance(score.outcome, Score) else score.outcome.reason,
    }


def score_line(score: LatentScore) -> dict[str, Any]:
    """A score of `scores.jsonl` and whose it is: JSON-able; what is not known, empty or implied is left out.

    Implied are status `measured`, a `method` that the metric's name begins with, an `asked` of `n`, an
    explainer or kind of explanation in the slice, and `n_negative` = n - `n_positive`. Numbers have seven
    significant digits.
    """
    settings = {key: value for key, value in score.slice.items() if key not in ("explainer", "explanation")}
    line: dict[str, Any] = {
        "checkpoint": score.checkpoint,
        "latent": score.latent,
        "id": score.latent_id,
        "sampling_weight": score.sampling_weight,
        "explainer": score.explainer,
        "explanation": score.explanation,
        "metric": score.metric,
        "judge": score.judge,
    }
    found = score.outcome
    if isinstance(found, Score):
        line |= {
            "value": _rounded(found.value),
            "ci_low": _rounded(found.low),
            "ci_high": _rounded(found.high),
            "ci_level": found.level,
            "ci_method": found.method,
            "n": found.n,
        }
        line |= {} if found.n_positive is None else {"n_positive": found.n_positive}
    else:
        line |= {"status": found.status, "reason": found.reason}
    is_named = score.method and score.metric.startswith(f"explanation.{score.method}")
    is_all = isinstance(found, Score) and found.n == score.asked_count
    further = {
        "slice": settings,
        "method": "" if is_named else score.method,
        "asked": None if is_all else score.asked_count,
        "refused": dict(score.refused),
    }
    return line | {name: value for name, value in further.items() if value not in (None, "", {})}


def _rounded(number: float) -> float:
    return float(f"{number:.7g}")
