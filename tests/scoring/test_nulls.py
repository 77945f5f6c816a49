"""Explanations that should fail: borrowed ones are another latent's, whatever the order they come in."""

import random
from collections import Counter
from dataclasses import replace

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from predicted_passages import judged, refused, simulated

from autointerp.explanation_records import Explanation
from autointerp.scoring.nulls import borrowed, constant_judge, empty
from autointerp.scoring.predictions import prediction_frame


def explained(
    texts: list[str], *, checkpoint: str = "sae", explainer: str = "highlighted"
) -> list[Explanation]:
    return [
        Explanation(checkpoint, latent, explainer, text, data={"of": latent}, model="m")
        for latent, text in enumerate(texts)
    ]


@given(st.lists(st.sampled_from("abcd"), min_size=2, max_size=12), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_everybody_gets_somebody_elses_and_another_text_where_possible(texts: list[str], seed: int) -> None:
    own = {explanation.latent: explanation for explanation in explained(texts)}
    lent = {explanation.latent: explanation for explanation in borrowed(own.values(), seed)}
    assert lent.keys() == own.keys()
    assert sorted(e.details["lent_by_latent"] for e in lent.values()) == sorted(own)
    assert all(e.details["lent_by_latent"] != e.latent for e in lent.values())
    same = sum(lent[latent].text == own[latent].text for latent in own)
    commonest = max(Counter(texts).values())
    assert same == max(0, 2 * commonest - len(texts))  # no arrangement leaves fewer


def test_the_lender_comes_whole_and_is_named() -> None:
    own = explained(["cats", "dogs"])
    lent = borrowed(own, 0)
    assert [(e.latent, e.text, e.data["of"], e.explainer) for e in lent] == [
        (0, "dogs", 1, "borrowed"),
        (1, "cats", 0, "borrowed"),
    ]
    assert lent[0].details == {"lent_by_latent": 1, "explainer": "highlighted"}


def test_order_does_not_matter_and_the_seed_does() -> None:
    own = explained([f"text {n}" for n in range(30)])
    shuffled = random.Random(0).sample(own, len(own))

    def lenders(explanations: list[Explanation], seed: int) -> list[int]:
        return [e.details["lent_by_latent"] for e in borrowed(explanations, seed)]

    assert lenders(shuffled, 1) == lenders(own, 1)
    assert lenders(own, 2) != lenders(own, 1)


def test_a_digit_that_is_rounded_otherwise_changes_no_lender() -> None:
    texts = [f"fires on 1 in {n}" for n in range(20)]
    lenders = [
        [e.details["lent_by_latent"] for e in borrowed(explained(written), 0)]
        for written in (texts, [*texts[:7], "fires on 1 in 99", *texts[8:]])
    ]
    assert lenders[0] == lenders[1]


def test_checkpoints_and_explainers_keep_to_themselves() -> None:
    own = [
        *explained(["a", "b", "c"]),
        *explained(["x", "y"], checkpoint="other"),
        *explained(["s", "t"], explainer="token_statistics"),
    ]
    texts = {(e.checkpoint, e.details["explainer"]): set() for e in borrowed(own, 0)}
    for e in borrowed(own, 0):
        texts[e.checkpoint, e.details["explainer"]].add(e.text)
    assert texts == {
        ("sae", "highlighted"): {"a", "b", "c"},
        ("other", "highlighted"): {"x", "y"},
        ("sae", "token_statistics"): {"s", "t"},
    }


def test_an_only_latent_has_nobody_to_borrow_from() -> None:
    assert borrowed(explained(["alone"]), 0) == []
    assert borrowed([], 0) == []


def test_a_hostile_text_is_no_trouble() -> None:
    assert len(borrowed(explained(["\ud800 lone", "\x00"]), 0)) == 2


def test_an_empty_explanation_says_nothing() -> None:
    made = empty(explained(["cats"]))[0]
    assert (made.text, made.data, made.explainer, made.latent) == ("", {}, "empty", 0)


def test_the_constant_judge_answers_every_question_once_and_always_no() -> None:
    rows = [*judged(), *refused(judged(judge="another"), 3), *judged(explanation="borrowed")]
    constant = constant_judge(prediction_frame(rows))
    assert constant.height == len(judged())
    assert constant.select("value", "judge", "status", "explanation").unique().rows() == [
        (0.0, "constant", "measured", "own")
    ]
    assert constant["is_probability"].all()


def test_the_constant_judge_predicts_zeros_for_tokens() -> None:
    constant = constant_judge(prediction_frame(simulated()))
    assert constant["value"].null_count() == constant.height
    assert constant["predicted"].list.eval(pl.element() != 0).list.any().sum() == 0
    assert constant["predicted"].list.len().to_list() == constant["truth"].list.len().to_list()


def test_the_constant_judge_answers_questions_that_were_refused_with_their_truth_beside_them() -> None:
    rows = [replace(row, truth=(0.0, 1.0)) for row in refused(judged(), 1)]
    constant = constant_judge(prediction_frame(rows))
    assert constant["value"].to_list() == [0.0] * len(rows)
    assert constant["predicted"].null_count() == len(rows)


@pytest.mark.parametrize("method", ["intruder", "generation"])
def test_the_constant_judge_is_not_asked_where_no_passage_is_judged(method: str) -> None:
    assert constant_judge(prediction_frame(judged(method=method))).is_empty()
