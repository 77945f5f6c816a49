"""Scores of the intruder task and of generated texts."""

import numpy as np
import pytest
from scipy.stats import binomtest

from autointerp.records import Undefined
from autointerp.scoring.generation import generation_scores
from autointerp.scoring.intruder import CHOICES, intruder_accuracy


def test_accuracy_is_the_share_found_with_wilsons_interval() -> None:
    found = intruder_accuracy(np.arange(10) < 7)
    expected = binomtest(7, 10).proportion_ci(0.95, method="wilson")
    assert found.value == pytest.approx(0.7)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_a_guessing_judge_has_chance_within_its_interval() -> None:
    is_found = np.random.default_rng(0).integers(0, CHOICES, size=400) == 0
    found = intruder_accuracy(is_found)
    assert found.low < 1 / CHOICES < found.high < 0.3


def test_no_question_is_undefined() -> None:
    assert intruder_accuracy(np.zeros(0, dtype=bool)) == Undefined("no question was asked")


def test_questions_of_one_document_count_once() -> None:
    is_found = np.arange(12) < 6
    one, other = intruder_accuracy(is_found), intruder_accuracy(is_found, cluster=np.arange(12) // 6)
    assert other.value == one.value
    assert other.high - other.low > one.high - one.low


def test_generated_texts_that_do_as_they_should() -> None:
    should = np.arange(20) < 10
    found = generation_scores(np.where(should, 2.5, 0.0), should)
    assert (found.success.value, found.restraint.value, found.auroc.value) == (1, 1, 1)


def test_a_latent_that_fires_everywhere_has_success_but_nothing_else() -> None:
    should = np.arange(20) < 10
    found = generation_scores(np.ones(20), should)
    assert (found.success.value, found.restraint.value, found.auroc.value) == (1, 0, 0.5)


def test_without_texts_of_one_kind_the_rest_stands() -> None:
    found = generation_scores(np.array([1.0, 0.0]), np.array([True, True]))
    assert found.success.value == 0.5
    assert isinstance(found.restraint, Undefined) and isinstance(found.auroc, Undefined)
    nothing = generation_scores(np.zeros(0), np.zeros(0, dtype=bool))
    assert nothing.success == Undefined("no text was written to fire the latent")
