"""Laws that hold for every metric of explanations; one that stands in none of the sets below fails.

From made-up predictions, through scores by latent and observations, to the estimate of a dictionary.
"""

import random
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import polars as pl
import pytest
from predicted_passages import coin, deaf, half_right, judged, oracle, refused, simulated

from autointerp.estimates import FUNCTIONALS, estimate
from autointerp.metrics.catalogue import METRICS, definition, definitions
from autointerp.metrics.explanation_metrics import observations_of
from autointerp.records import Estimate, Measured, Outcome, Undefined, slice_key
from autointerp.scoring.predictions import ScoredPassage, prediction_frame

NAMES = [metric.name for metric in METRICS if metric.name.startswith("explanation.")]
LATENTS = 7  # two fewer still have an interval

PERFECT: Mapping[str, float] = {
    "simulation_correlation": 1.0,
    "simulation_rsquared": 1.0,
    "simulation_absolute_deviation": 1.0,
    "simulation_over_borrowed": 1.0,
    "detection_auroc": 1.0,
    "detection_balanced_accuracy": 1.0,
    "detection_sensitivity": 1.0,
    "detection_precision": 1.0,
    "detection_over_borrowed": 0.5,
    "fuzzing_auroc": 1.0,
    "fuzzing_balanced_accuracy": 1.0,
    "fuzzing_sensitivity": 1.0,
    "fuzzing_precision": 1.0,
    "fuzzing_over_borrowed": 0.5,
    "intruder_accuracy": 1.0,
    "embedding_auroc": 1.0,
    "surprisal_auroc": 1.0,
    "generation_auroc": 1.0,
    "generation_success_fraction": 1.0,
    "steering_auroc": 1.0,
    "refusal_fraction": 0.0,
}
"""What right answers to all questions score, beside borrowed explanations of which always no is said."""

ALWAYS_NO: Mapping[str, float | None] = {
    "simulation_correlation": None,
    "simulation_rsquared": 0.0,
    "simulation_absolute_deviation": 0.0,
    "simulation_over_borrowed": 0.0,
    "detection_auroc": 0.5,
    "detection_balanced_accuracy": 0.5,
    "detection_sensitivity": 0.0,
    "detection_precision": None,
    "detection_over_borrowed": 0.0,
    "fuzzing_auroc": 0.5,
    "fuzzing_balanced_accuracy": 0.5,
    "fuzzing_sensitivity": 0.0,
    "fuzzing_precision": None,
    "fuzzing_over_borrowed": 0.0,
    "intruder_accuracy": 0.0,
    "embedding_auroc": 0.5,
    "surprisal_auroc": 0.5,
    "generation_auroc": 0.5,
    "generation_success_fraction": 0.0,
    "steering_auroc": 0.5,
    "refusal_fraction": 0.0,
}
"""The same if no is said of own explanations, too; None: undefined."""

WORSE_WITH_WORSE_ANSWERS = [name for name in PERFECT if name != "refusal_fraction"]
WORSE_WITH_REFUSALS = ["refusal_fraction"]


def answered(
    kind: str, *, checkpoint: str = "sae", methods: tuple[str, ...] | None = None
) -> list[ScoredPassage]:
    """All methods' answers of one quality: right, half, coin or no."""
    answer = {"right": oracle, "half": half_right, "coin": coin, "no": deaf}[kind]
    noise = {"right": 0.0, "half": 0.5, "coin": 2.0, "no": 0.0}[kind]
    latents = range(LATENTS)
    given = {"latents": latents, "checkpoint": checkpoint}
    rows = []
    for method in ("detection", "fuzzing", "embedding", "surprisal", "steering"):
        rows += judged(answer, method=method, **given)
        if method in ("detection", "fuzzing"):
            rows += judged(deaf, method=method, explanation="borrowed", **given)
    rows += simulated(float(kind != "no"), noise=noise, **given)
    rows += simulated(0.0, noise=0.0, explanation="borrowed", **given)
    rows += [
        replace(row, value=float(row.value > 0.5)) for row in judged(answer, method="generation", **given)
    ]
    rows += [
        replace(row, value=float((row.value >= 0.5) == row.fires) * (kind != "no"), fires=None)
        for row in judged(answer, method="intruder", **given)
    ]
    return [row for row in rows if methods is None or row.method in methods]


def measure(rows: list[ScoredPassage], name: str, settings: Mapping[str, object] | None = None) -> Outcome:
    return outcome_of(observations_of(prediction_frame(rows)), name, settings)


def outcome_of(frame: pl.DataFrame, name: str, settings: Mapping[str, object] | None = None) -> Outcome:
    wanted = (pl.col("metric") == f"explanation.{name}") & (pl.col("slice") == slice_key(settings or {}))
    return estimate(frame.filter(wanted), definition(f"explanation.{name}"), resamples=200)


@cache
def observations(kind: str) -> pl.DataFrame:
    return observations_of(prediction_frame(answered(kind)))


def value(outcome: Outcome) -> Estimate:
    assert isinstance(outcome, Measured), outcome
    return outcome.estimate


def test_every_metric_stands_in_every_table() -> None:
    names = [name.removeprefix("explanation.") for name in NAMES]
    assert sorted(PERFECT) == sorted(ALWAYS_NO) == sorted(names)
    assert sorted([*WORSE_WITH_WORSE_ANSWERS, *WORSE_WITH_REFUSALS]) == sorted(names)


def test_the_family_is_theirs() -> None:
    assert [metric.name for metric in definitions(["explanation"])] == NAMES
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_its_definition_is_whole(name: str) -> None:
    metric = definition(name)
    assert metric.functional in FUNCTIONALS
    assert metric.title and metric.meaning.endswith(".") and metric.unit
    assert (metric.sampled, metric.pairing) == ("latent", "independent")
    assert metric.better == ("lower" if name.endswith("refusal_fraction") else "higher")


def test_few_of_them_stand_in_the_summary() -> None:
    assert sum(definition(name).in_summary for name in NAMES) <= 4


@pytest.mark.parametrize("name", PERFECT)
def test_right_answers_score_the_best(name: str) -> None:
    found = value(outcome_of(observations("right"), name))
    assert found.value == pytest.approx(PERFECT[name], abs=1e-12)
    assert found.n == LATENTS
    assert found.low < found.high


@pytest.mark.parametrize("name", ALWAYS_NO)
def test_always_no_scores_what_it_must(name: str) -> None:
    outcome = outcome_of(observations("no"), name)
    if ALWAYS_NO[name] is None:
        assert isinstance(outcome, Undefined)
    else:
        assert value(outcome).value == ALWAYS_NO[name]


@pytest.mark.parametrize("name", PERFECT)
def test_it_lies_in_its_range(name: str) -> None:
    metric = definition(f"explanation.{name}")
    for kind in ("right", "half", "coin"):
        found = value(outcome_of(observations(kind), name))
        assert metric.lowest is None or metric.lowest <= found.low
        assert metric.highest is None or found.high <= metric.highest
        assert found.low <= found.value <= found.high


@pytest.mark.parametrize("name", WORSE_WITH_WORSE_ANSWERS)
def test_worse_answers_get_a_worse_number(name: str) -> None:
    values = [value(outcome_of(observations(kind), name)).value for kind in ("right", "half", "coin")]
    assert values[0] > values[1] > values[2]


def test_more_refusals_get_a_worse_number() -> None:
    rows = answered("half", methods=("detection",))
    values = [value(measure(refused(rows, every), "refusal_fraction")).value for every in (10_000, 5, 2)]
    assert values == sorted(values)
    assert len(set(values)) == 3


@pytest.mark.parametrize("name", ["detection_auroc", "detection_balanced_accuracy", "fuzzing_auroc"])
def test_a_coin_has_one_half_within_its_interval(name: str) -> None:
    found = value(outcome_of(observations("coin"), name))
    assert found.low < 0.5 < found.high


def test_the_order_of_questions_and_of_rows_does_not_matter() -> None:
    rows = answered("half", methods=("detection", "generation", "intruder", "simulation"))
    again = random.Random(1).sample(rows, len(rows))
    one, other = (observations_of(prediction_frame(each)) for each in (rows, again))
    assert one.equals(other)


@pytest.mark.parametrize("name", PERFECT)
def test_nothing_to_measure_is_undefined(name: str) -> None:
    assert isinstance(measure([], name), Undefined)


@pytest.mark.parametrize("name", ["detection_auroc", "embedding_auroc", "surprisal_auroc", "steering_auroc"])
def test_a_monotone_transform_of_the_answers_does_not_matter(name: str) -> None:
    method = name.removesuffix("_auroc")
    rows = answered("coin", methods=(method,))
    moved = [replace(row, value=7 * row.value**3 - 2, is_probability=False) for row in rows]
    assert value(measure(moved, name)) == value(measure(rows, name))


def test_latents_count_by_their_sampling_weight() -> None:
    rows = [
        *judged(oracle, latents=range(6), sampling_weight=3.0),
        *judged(deaf, latents=range(6, 12), sampling_weight=1.0),
    ]
    assert value(measure(rows, "detection_auroc")).value == pytest.approx((3 * 1.0 + 0.5) / 4)


def test_latents_without_a_score_are_counted_in_the_method() -> None:
    rows = answered("half", methods=("detection",))
    gone = [
        replace(row, status="refused", cause="cut_off", value=None) if row.latent < 2 else row for row in rows
    ]
    found = value(measure(gone, "detection_auroc"))
    assert found.n == LATENTS - 2
    assert found.method.endswith(f"2 of {LATENTS} units undefined")
    ends = [value(measure(gone, "detection_auroc", {"refusals": side})) for side in ("worst", "best")]
    assert ends[0].value < found.value < ends[1].value
    assert ends[0].n == ends[1].n == LATENTS
