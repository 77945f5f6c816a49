"""From the predictions table to scores by latent: which answers make which slice, what becomes of gaps."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from predicted_passages import coin, deaf, half_right, judged, oracle, refused, simulated

from autointerp.records import Failed, Skipped, Undefined, slice_key
from autointerp.scoring.auroc import auroc
from autointerp.scoring.latent_scores import LatentScore, ScoringOptions, latent_scores
from autointerp.scoring.nulls import constant_judge
from autointerp.scoring.predictions import PREDICTIONS, ScoredPassage, prediction_frame
from autointerp.scoring.score import Score


def scored(rows: list[ScoredPassage], **options) -> dict[tuple[str, str, int], LatentScore]:
    """By metric, slice and latent."""
    found = latent_scores(prediction_frame(rows), ScoringOptions(**options))
    by_place = {(s.metric.removeprefix("explanation."), slice_key(s.slice), s.latent): s for s in found}
    assert len(by_place) == len(found), "two scores have the same place"
    return by_place


def value(
    found: dict[tuple[str, str, int], LatentScore], metric: str, settings=None, latent: int = 0
) -> float:
    outcome = found[metric, slice_key(settings or {}), latent].outcome
    assert isinstance(outcome, Score), outcome
    return outcome.value


def slices(found: dict[tuple[str, str, int], LatentScore], metric: str) -> set[str]:
    return {place[1] for place in found if place[0] == metric}


def kept(rows: list[ScoredPassage], *samplers: str, latent: int = 0) -> list[ScoredPassage]:
    return [row for row in rows if row.sampler in samplers and row.latent == latent]


def auroc_of(rows: list[ScoredPassage]) -> float:
    fires = np.array([row.fires for row in rows])
    weight = np.array([row.weight for row in rows])
    for side in (fires, ~fires):
        weight[side] /= weight[side].mean()
    return auroc(np.array([row.value for row in rows]), fires, weight=weight).value


def test_the_headline_is_strata_against_random_silence() -> None:
    rows = judged(half_right)
    found = scored(rows)
    for latent in range(3):
        expected = auroc_of(kept(rows, "quantiles", "silent", latent=latent))
        assert value(found, "detection_auroc", latent=latent) == pytest.approx(expected, abs=1e-12)
    score = found["detection_auroc", "{}", 0]
    assert (score.explainer, score.method, score.judge, score.asked_count) == (
        "highlighted",
        "detection",
        "judge",
        20,
    )


def test_each_slice_has_its_passages() -> None:
    rows = judged(half_right)
    found = scored(rows)
    assert slices(found, "detection_auroc") == {
        "{}",
        '{"negatives":"hard"}',
        '{"negatives":"near_misses"}',
        '{"negatives":"same_token"}',
        *(f'{{"quantile":{n}}}' for n in range(5)),
    }
    pooled = kept(rows, "quantiles", "same_token", "near_misses")
    assert value(found, "detection_auroc", {"negatives": "hard"}) == pytest.approx(auroc_of(pooled))
    near = kept(rows, "quantiles", "near_misses")
    assert value(found, "detection_auroc", {"negatives": "near_misses"}) == pytest.approx(auroc_of(near))
    third = [row for row in kept(rows, "quantiles", "silent") if not row.fires or row.stratum == 3]
    assert value(found, "detection_auroc", {"quantile": 3}) == pytest.approx(auroc_of(third))
    assert '{"negatives":"hard"}' not in slices(found, "detection_sensitivity")
    assert '{"quantile":0}' not in slices(found, "detection_precision")


def test_pooled_hard_negatives_count_alike_whatever_their_samplers_populations() -> None:
    rows = [replace(row, weight=1e6) if row.sampler == "near_misses" else row for row in judged(half_right)]
    expected = value(scored(judged(half_right)), "detection_auroc", {"negatives": "hard"})
    assert value(scored(rows), "detection_auroc", {"negatives": "hard"}) == pytest.approx(expected)


def test_a_passage_that_two_samplers_gave_counts_once() -> None:
    rows = judged(half_right)
    again = [replace(row, sampler="similar") for row in kept(rows, "near_misses")]
    settings = {"negatives": "hard"}
    expected = scored(rows)["detection_auroc", slice_key(settings), 0].outcome
    found = scored([*rows, *again])
    assert found["detection_auroc", slice_key(settings), 0].outcome.n == expected.n
    alone = value(found, "detection_auroc", {"negatives": "similar"})
    assert alone == value(found, "detection_auroc", {"negatives": "near_misses"})


def test_the_order_of_rows_does_not_matter() -> None:
    rows = [*refused(judged(half_right), 4), *simulated(noise=1.0), *judged(coin, explanation="borrowed")]
    shuffled = random.Random(0).sample(rows, len(rows))
    assert scored(shuffled) == scored(rows)


def test_further_explainers_methods_judges_and_nulls_are_named() -> None:
    rows = [
        *judged(oracle),
        *judged(coin, explainer="statistics"),
        *judged(coin, judge="second"),
        *judged(coin, explanation="borrowed"),
        *judged(coin, explanation="empty", explainer="statistics"),
        *simulated(),
        *simulated(method="token_table", judge="table", explainer="statistics"),
    ]
    found = scored(rows, explainers=("highlighted", "statistics"), judges=("judge", "second"))
    plain = {s for s in slices(found, "detection_sensitivity") if "quantile" not in s}
    assert plain == {
        "{}",
        '{"explainer":"statistics"}',
        '{"judge":"second"}',
        '{"explanation":"borrowed"}',
        '{"explainer":"statistics","explanation":"empty"}',
    }
    assert {s for s in slices(found, "simulation_rsquared") if "negatives" not in s} == {
        "{}",
        '{"sequences":"random"}',
        '{"explainer":"statistics","method":"token_table"}',
        '{"explainer":"statistics","method":"token_table","sequences":"random"}',
    }
    turned = scored(rows, explainers=("statistics",), judges=("second",))
    assert value(turned, "detection_auroc") == value(found, "detection_auroc", {"explainer": "statistics"})
    assert value(turned, "simulation_correlation") == value(
        found, "simulation_correlation", {"explainer": "statistics", "method": "token_table"}
    )


def test_an_explainer_that_was_not_tested_this_way_leaves_the_headline_empty() -> None:
    found = scored(judged(explainer="statistics"), explainers=("highlighted", "statistics"))
    assert "{}" not in slices(found, "detection_auroc")
    assert '{"explainer":"statistics"}' in slices(found, "detection_auroc")


def test_the_constant_judge_has_exactly_one_half() -> None:
    frame = prediction_frame([*refused(judged(half_right), 3), *judged(coin, method="embedding")])
    found = latent_scores(pl.concat([frame, constant_judge(frame)]))
    names = ("detection_auroc", "detection_balanced_accuracy", "embedding_auroc")
    for name in names:
        values = [
            s.outcome.value
            for s in found
            if s.metric == f"explanation.{name}" and s.slice == {"judge": "constant"}
        ]
        assert values == [0.5] * 3


def test_simulations_are_of_all_random_or_hard_sequences() -> None:
    rows = simulated(noise=2.0)
    found = scored(rows)

    def correlation(*samplers: str) -> float:
        chosen = kept(rows, *samplers)
        return float(
            np.corrcoef(
                np.concatenate([row.truth for row in chosen]),
                np.concatenate([row.predicted for row in chosen]),
            )[0, 1]
        )

    name = "simulation_correlation"
    assert value(found, name) == pytest.approx(correlation("top", "quantiles", "silent"))
    assert value(found, name, {"sequences": "random"}) == pytest.approx(correlation("quantiles", "silent"))
    hard = correlation("quantiles", "same_token", "near_misses")
    assert value(found, name, {"negatives": "hard"}) == pytest.approx(hard)


def test_calibration_is_for_the_scale_only() -> None:
    rows = [
        replace(row, predicted=tuple(10 * x for x in row.predicted), calibrated=row.predicted)
        for row in simulated()
    ]
    found, plain = scored(rows), scored(simulated())
    for name in ("simulation_correlation", "simulation_rsquared", "simulation_absolute_deviation"):
        assert value(found, name) == pytest.approx(value(plain, name))


def test_refusals_do_not_enter_but_are_counted_with_their_causes() -> None:
    rows = judged(half_right)
    gaps = [
        replace(row, status="refused", cause=("cut_off", "empty")[n % 2], value=None)
        if n in (0, 2, 13)
        else row
        for n, row in enumerate(rows)
    ]
    found = scored(gaps)
    score = found["detection_auroc", "{}", 0]
    answered = [row for row in kept(gaps, "quantiles", "silent") if row.status == "measured"]
    assert value(found, "detection_auroc") == pytest.approx(auroc_of(answered))
    assert (score.refused, score.asked_count) == ({"cut_off": 2, "empty": 1}, 20)
    assert score.outcome.method.endswith("; 3 of 20 questions refused")
    share = found["refusal_fraction", "{}", 0]
    assert share.outcome.value == pytest.approx(3 / 28)
    assert (share.refused, share.asked_count) == ({"cut_off": 2, "empty": 1}, 28)


def test_bounds_hold_the_score_and_whatever_the_answers_would_have_given() -> None:
    complete = judged(half_right, seed=5)
    found = scored(refused(complete, 5))
    truth = scored(complete)
    for name in ("auroc", "balanced_accuracy", "sensitivity", "precision"):
        for latent in range(3):
            ends = [
                value(found, f"detection_{name}", {"refusals": side}, latent) for side in ("worst", "best")
            ]
            for scores in (found, truth):
                assert ends[0] <= value(scores, f"detection_{name}", latent=latent) <= ends[1]
            assert ends[0] < ends[1]


def test_bounds_of_simulations_hold_what_the_answers_would_have_given() -> None:
    complete = simulated(noise=2.0)
    found, truth = scored(refused(complete, 5)), scored(complete)
    for latent in range(3):
        ends = [
            value(found, "simulation_correlation", {"refusals": side}, latent) for side in ("worst", "best")
        ]
        assert ends[0] <= value(truth, "simulation_correlation", latent=latent) <= ends[1]
    assert slices(found, "simulation_rsquared").isdisjoint({'{"refusals":"worst"}', '{"refusals":"best"}'})


def test_without_gaps_there_are_no_bounds() -> None:
    assert not any("refusals" in place[1] for place in scored([*judged(), *simulated()]))


def test_a_prediction_that_never_varies_is_undefined_and_zero_in_the_bounds() -> None:
    rows = [*simulated(latents=[0]), *simulated(0.0, noise=0.0, latents=[1])]
    found = scored(rows)
    reason = Undefined("the prediction is the same on every scored token")
    assert found["simulation_correlation", "{}", 1].outcome == reason
    for side in ("worst", "best"):
        assert value(found, "simulation_correlation", {"refusals": side}, 1) == 0
        exact = value(found, "simulation_correlation", {"refusals": side}, 0)
        assert exact == pytest.approx(value(found, "simulation_correlation"))


def test_a_latent_without_an_explanation_is_refused_and_lies_anywhere() -> None:
    nothing = replace(
        judged()[0], latent=9, latent_id="sae:9", passage="", sampler="", fires=None, value=None,
        status="refused", cause="no_explanation",
    )  # fmt: skip
    found = scored(
        [*judged(), nothing, replace(nothing, method="simulation", judge="simulator"), *simulated()]
    )
    outcome = found["detection_auroc", "{}", 9].outcome
    assert outcome == Undefined("all 1 questions refused: no_explanation")
    assert found["simulation_correlation", "{}", 9].outcome == outcome
    assert value(found, "detection_auroc", {"refusals": "worst"}, 9) == 0
    assert value(found, "detection_auroc", {"refusals": "best"}, 9) == 1
    assert value(found, "simulation_correlation", {"refusals": "worst"}, 9) == -1
    assert value(found, "detection_auroc", {"refusals": "worst"}, 0) == value(found, "detection_auroc")
    assert value(found, "refusal_fraction", latent=9) == 1


def test_questions_not_asked_are_no_refusals() -> None:
    rows = [replace(row, status="skipped", cause="budget", value=None) for row in judged(latents=[0])]
    found = scored([*rows, *judged(latents=[1])])
    assert found["detection_auroc", "{}", 0].outcome == Skipped("budget")
    assert found["refusal_fraction", "{}", 0].outcome == Skipped("budget")
    assert value(found, "refusal_fraction", latent=1) == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"value": float("nan")}, "judge gave an answer that is not a finite number"),
        ({"value": float("inf")}, "judge gave an answer that is not a finite number"),
        ({"value": None}, "judge gave an answer that is not a finite number"),
        ({"status": "failed", "cause": "it broke"}, "it broke"),
        ({"weight": float("nan")}, "a passage's weight is not a finite number of at least 0"),
        ({"weight": -1.0}, "a passage's weight is not a finite number of at least 0"),
    ],
)
def test_what_is_wrong_fails_that_latent_alone(change: dict, reason: str) -> None:
    rows = judged()
    rows[0] = replace(rows[0], **change)
    found = scored(rows)
    assert found["detection_auroc", "{}", 0].outcome == Failed(reason)
    assert value(found, "detection_auroc", latent=1) == 1


@pytest.mark.parametrize("predicted", [None, (1.0,), (float("inf"),) * 8, (1e200,) * 8])
def test_bad_sequences_fail_that_latent_alone(predicted) -> None:
    rows = simulated()
    rows[0] = replace(rows[0], predicted=predicted)
    found = scored(rows)
    assert isinstance(found["simulation_correlation", "{}", 0].outcome, Failed)
    assert value(found, "simulation_correlation", latent=1) > 0.9


def test_a_judge_without_probabilities_ranks_but_says_no_yes() -> None:
    found = scored(judged(oracle, is_probability=False))
    assert value(found, "detection_auroc") == 1
    outcome = found["detection_balanced_accuracy", "{}", 0].outcome
    assert outcome == Undefined("the judge gives no probabilities")


def test_the_lift_is_the_difference_on_the_passages_that_both_answered() -> None:
    own, other = judged(half_right), refused(judged(coin, explanation="borrowed", seed=3), 3)
    found = scored([*own, *other])
    for latent in range(3):
        lent = [row for row in kept(other, "quantiles", "silent", latent=latent) if row.status == "measured"]
        names = {row.passage for row in lent}
        mine = [row for row in kept(own, "quantiles", "silent", latent=latent) if row.passage in names]
        expected = auroc_of(mine) - auroc_of(lent)
        assert value(found, "detection_over_borrowed", latent=latent) == pytest.approx(expected)
    lift = found["detection_over_borrowed", "{}", 0].outcome
    assert lift.low < lift.value < lift.high


def test_the_lift_of_a_simulation_over_one_that_predicts_nothing_is_its_correlation() -> None:
    found = scored([*simulated(), *simulated(0.0, noise=0.0, explanation="borrowed")])
    lift = value(found, "simulation_over_borrowed")
    assert lift == pytest.approx(value(found, "simulation_correlation"))
    both = scored([*simulated(0, noise=0), *simulated(0, noise=0, explanation="borrowed")])
    outcome = both["simulation_over_borrowed", "{}", 0].outcome
    assert outcome.value == 0 and outcome.low < 0 < outcome.high


def test_only_latents_with_both_have_a_lift() -> None:
    found = scored([*judged(), *judged(coin, explanation="borrowed", latents=[0, 2])])
    assert {place[2] for place in found if place[0] == "detection_over_borrowed"} == {0, 2}


def test_fuzzing_tells_right_from_wrong_marks_in_the_same_passages() -> None:
    right = [row for row in judged(half_right, method="fuzzing") if row.sampler == "quantiles"]
    wrong = [replace(row, fires=False, value=1 - row.value) for row in right]
    found = scored([*right, *wrong])
    score = found["fuzzing_auroc", "{}", 0].outcome
    assert (score.n_positive, score.n_negative) == (10, 10)


def test_intruder_questions_have_no_explanation() -> None:
    rows = [
        replace(row, method="intruder", fires=None, value=float(n % 4 != 0), sampler="", document="")
        for n, row in enumerate(judged(latents=[0]))
    ]
    again = [replace(row, explainer="statistics") for row in rows]
    found = scored([*rows, *again], explainers=("statistics", "highlighted"))
    assert slices(found, "intruder_accuracy") == {"{}"}
    assert value(found, "intruder_accuracy") == pytest.approx(0.75)
    gaps = scored(refused(rows, 4))
    assert value(gaps, "intruder_accuracy") == 1
    assert value(gaps, "intruder_accuracy", {"refusals": "worst"}) == pytest.approx(0.75)
    assert value(gaps, "intruder_accuracy", {"refusals": "best"}) == 1


def test_generated_texts_and_steering_are_scored_whole() -> None:
    texts = [
        replace(row, method="generation", judge="writer", sampler="generated", value=2.0 * bool(row.fires))
        for row in judged(latents=[0])
    ]
    found = scored([*texts, *judged(half_right, method="steering", latents=[0])])
    assert value(found, "generation_auroc") == value(found, "generation_success_fraction") == 1
    assert found["generation_auroc", "{}", 0].outcome.n == len(texts)
    assert 0.5 < value(found, "steering_auroc") < 1
    gaps = scored(refused(texts, 2))
    assert value(gaps, "generation_success_fraction", {"refusals": "worst"}) == pytest.approx(0.5)


def test_nothing_gives_nothing() -> None:
    assert latent_scores(prediction_frame([])) == []
    found = scored(judged(latents=[0], fires=False))
    outcome = found["detection_auroc", "{}", 0].outcome
    assert outcome == Undefined("no passage in which the latent fires")


def test_bad_tables_are_refused() -> None:
    frame = prediction_frame(judged())
    with pytest.raises(ValueError, match="missing columns"):
        latent_scores(frame.drop("judge"))
    with pytest.raises(ValueError, match="unknown status"):
        latent_scores(frame.with_columns(status=pl.lit("lost")))
    with pytest.raises(ValueError, match="no method 'magic'"):
        latent_scores(frame.with_columns(method=pl.lit("magic")))


def test_every_row_of_the_table_has_the_columns() -> None:
    frame = prediction_frame(judged())
    assert dict(frame.schema) == {
        name: kind if not isinstance(kind, type) else kind() for name, kind in PREDICTIONS.items()
    }
    assert Counter(frame["sampler"])["silent"] == 30


def test_a_deaf_judge_and_an_oracle_are_the_ends_and_half_right_lies_between() -> None:
    means = []
    for answer in (deaf, half_right, oracle):
        found = scored(judged(answer, latents=range(5)))
        means.append(np.mean([value(found, "detection_auroc", latent=n) for n in range(5)]))
    assert means[0] == 0.5 < means[1] - 0.1 and means[1] < 0.95 and means[2] == 1
