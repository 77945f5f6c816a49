"""Explanations and passages become rows: every question answered, refused with its cause, or undefined."""

import asyncio

import numpy as np
import pytest
from explaining_a_dictionary import planted_cases, right

from autointerp.evaluation.explanations import judging
from autointerp.evaluation.explanations.judging import judged, refused, simulated
from autointerp.evaluation.explanations.questions import detection_questions, simulation_questions
from autointerp.explanation_records import Judgement, Refusal, TokenPrediction
from autointerp.scoring.predictions import prediction_frame

COUNT = 4


class Judge:
    """Says by a function of the passage what it thinks."""

    name, prompt_version, needs = "judge", "", frozenset()

    def __init__(self, says, *, is_probability=True):
        self.says, self.is_probability, self.asked = says, is_probability, []

    async def judge(self, explanation, passages):
        self.asked.append((explanation, passages))
        return [self.says(passage) for passage in passages]

    simulate = judge


@pytest.fixture(scope="module")
def case():
    return planted_cases([3])[3]


@pytest.fixture
def questions(case):
    return detection_questions(case.score, count=COUNT)


def about(case, explanation=None, kind="own"):
    return judging.Tested(case, "highlighted", kind, right(3) if explanation is None else explanation)


def firing(passage):
    return Judgement(passage.id, 0.9 if " seven" in passage.text or passage.text[:5] == "seven" else 0.2)


@pytest.mark.parametrize("is_probability", [True, False])
def test_a_row_is_an_answer_beside_the_truth(case, questions, is_probability):
    judge = Judge(firing, is_probability=is_probability)
    rows = asyncio.run(judged(about(case), judge, "detection", questions))
    assert [row.passage for row in rows] == [question.passage.id for question in questions]
    for row, question in zip(rows, questions, strict=True):
        assert row.fires == question.example.fires == (row.value == 0.9)
        assert (row.sampler, row.document) == (question.example.sampler, question.example.document)
        assert (row.latent, row.latent_id, row.sampling_weight) == (3, "hash:3", 4.0)
        assert (row.method, row.judge, row.explanation, row.status) == (
            "detection",
            "judge",
            "own",
            "measured",
        )
        assert row.is_probability == is_probability
    assert prediction_frame(rows).height == len(rows)


def test_a_judge_sees_passages_and_no_truth(case, questions):
    judge = Judge(firing)
    asyncio.run(judged(about(case), judge, "detection", questions))
    ((explanation, passages),) = judge.asked
    assert explanation.text == 'The word "seven"'
    assert {type(passage).__name__ for passage in passages} == {"Passage"}


def test_a_refused_question_keeps_its_truth_and_has_no_value(case, questions):
    judge = Judge(lambda passage: Refusal("cut_off", "at its limit"))
    rows = asyncio.run(judged(about(case), judge, "detection", questions))
    assert {(row.status, row.cause, row.value) for row in rows} == {("refused", "cut_off", None)}
    assert {row.fires for row in rows} == {True, False}


@pytest.mark.parametrize(("ask", "method"), [(judged, "detection"), (simulated, "simulation")])
def test_without_an_explanation_every_question_is_refused_and_nobody_is_asked(case, questions, ask, method):
    judge = Judge(firing)
    lacking = about(case, Refusal("content_filter", "declined"))
    rows = asyncio.run(ask(lacking, judge, method, questions))
    assert judge.asked == []
    assert [row.passage for row in rows] == [question.passage.id for question in questions]
    assert {(row.status, row.cause, row.value) for row in rows} == {("refused", "no_explanation", None)}
    assert [row.truth for row in rows] == [question.example.activations for question in questions]


def test_without_explanation_and_passages_there_is_one_row(case):
    (row,) = refused(about(case, Refusal("empty")), "steering", "judge", ())
    assert (row.passage, row.status, row.cause, row.fires) == ("", "refused", "no_explanation", None)


@pytest.mark.parametrize(("ask", "method"), [(judged, "detection"), (simulated, "simulation")])
def test_without_passages_the_latent_is_undefined(case, ask, method):
    judge = Judge(firing)
    (row,) = asyncio.run(ask(about(case), judge, method, []))
    assert row.status == "undefined" and row.cause.startswith("no passages")
    assert judge.asked == []


def test_a_simulation_is_numbers_beside_activations(case):
    def expects(passage):
        return TokenPrediction(passage.id, np.arange(len(passage.tokens), dtype=np.float64))

    asked = simulation_questions(case.score, count=COUNT)
    rows = asyncio.run(simulated(about(case), Judge(expects), "simulation", asked))
    for row, question in zip(rows, asked, strict=True):
        assert row.truth == question.example.activations
        assert row.predicted == tuple(float(place) for place in range(len(row.truth)))
        assert row.value is None


def test_tokens_of_which_nothing_is_said_stay_unknown(case):
    def says_nothing(passage):
        return TokenPrediction(passage.id, np.full(len(passage.tokens), np.nan))

    asked = simulation_questions(case.score, count=COUNT)
    rows = asyncio.run(simulated(about(case), Judge(says_nothing), "simulation", asked))
    assert all(np.isnan(row.predicted).all() for row in rows)


def test_a_refused_simulation_keeps_its_truth(case):
    asked = simulation_questions(case.score, count=COUNT)
    judge = Judge(lambda passage: Refusal("unparsable"))
    rows = asyncio.run(simulated(about(case), judge, "simulation", asked))
    assert {(row.status, row.cause, row.predicted) for row in rows} == {("refused", "unparsable", None)}
    assert all(row.truth == question.example.activations for row, question in zip(rows, asked, strict=True))


def test_nulls_are_rows_of_their_kind(case, questions):
    rows = asyncio.run(judged(about(case, kind="borrowed"), Judge(firing), "detection", questions))
    assert {row.explanation for row in rows} == {"borrowed"}
