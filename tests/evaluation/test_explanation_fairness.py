"""What is asked does not give its truth away, and what is asked in part stands for the whole."""

import asyncio
from collections import Counter

import numpy as np
import pytest
from explaining_a_dictionary import models, planted_cases, suite_of
from hypothesis import given
from hypothesis import strategies as st

from autointerp.errors import SuiteError
from autointerp.evaluation.explanations import judging
from autointerp.evaluation.explanations.dictionary import ExplainedDictionary
from autointerp.evaluation.explanations.plan import plan_of
from autointerp.evaluation.explanations.questions import (
    Question,
    detection_questions,
    fuzzing_questions,
    wrong_marks,
)
from autointerp.explanation_records import Example, Explanation, LatentEvidence, TokenPrediction
from autointerp.sampling.latents.evidence import LatentCase, TestExamples

LENGTH = 32


def example(context, sampler="uniform", *, fired=(), stratum=0, weight=1.0, focus=LENGTH // 2):
    return Example(
        id=f"{context * 0x9E3779B97F4A7C15 % 2**64:016x}:0-{LENGTH}", document=f"d{context}", split="score",
        sampler=sampler, stratum=stratum, tokens=tuple(f"t{i}" for i in range(LENGTH)),
        token_ids=tuple(range(LENGTH)),
        activations=tuple(1.0 if i in fired else 0.0 for i in range(LENGTH)), focus=focus, weight=weight,
    )  # fmt: skip


@given(
    st.sets(st.integers(0, LENGTH - 1), max_size=LENGTH - 1),
    st.lists(st.sets(st.integers(0, LENGTH - 1), min_size=1, max_size=5), min_size=1, max_size=5),
    st.integers(0, 2**32),
)
def test_wrong_marks_are_never_where_it_fires_and_as_many_as_there_is_room_for(fired, right, context):
    patterns = [tuple(sorted(marks)) for marks in right]
    marked = wrong_marks(example(context, fired=fired), patterns, seed=0)
    assert not fired & set(marked)
    assert list(marked) == sorted(set(marked))
    sizes = {min(len(marks), LENGTH - len(fired)) for marks in patterns}
    assert len(marked) in sizes


def test_where_nothing_fires_wrong_marks_stand_exactly_where_right_ones_do():
    right = [(16,), (15, 16), (16, 17), (9, 16), (16, 30)]
    seen = Counter(wrong_marks(example(context), right, seed=0) for context in range(400))
    assert set(seen) == set(right)
    assert min(seen.values()) > 50, "each about as often"


def test_the_place_of_a_mark_does_not_tell_whether_it_is_right():
    """Passages as they are cut: right ones around a firing, wrong ones with their firing anywhere."""
    generator = np.random.default_rng(0)
    right = [example(i, "quantiles", fired={16}) for i in range(150)]
    places = generator.integers(0, LENGTH, 150).tolist()
    others = [example(1000 + i, fired={place}, focus=place) for i, place in enumerate(places)]
    tested = TestExamples({"quantiles": tuple(right), "uniform": tuple(others)})
    found = fuzzing_questions(tested, count=150, seed=0)
    distance = {
        fires: [abs(q.passage.marked[0] - 16) for q in found if q.fires == fires] for fires in (True, False)
    }
    assert len(distance[False]) == 150
    assert distance[True] == [0] * 150
    assert np.mean(np.array(distance[False]) == 0) > 0.9, "a mark in the middle is right or wrong alike"


def test_contexts_that_are_marked_rightly_serve_again_only_where_there_are_no_others():
    right = tuple(example(i, "quantiles", fired={16}) for i in range(3))
    same = tuple(example(i, fired={16}) for i in range(3))
    fresh = tuple(example(10 + i, fired={16}) for i in range(2))
    for uniform, wrong in ((same, same), (same + fresh, fresh)):
        tested = TestExamples({"quantiles": right, "uniform": uniform})
        found = fuzzing_questions(tested, count=9, seed=0)
        assert [q.example for q in found if not q.fires] == list(wrong)


@pytest.mark.parametrize("count", [1, 3, 7, 8, 20, 99])
def test_a_part_of_a_stratum_stands_for_all_of_it(count):
    """4, 4, 2 passages of strata whose populations are 40, 12 and 2."""
    rows = [
        example(10 * stratum + i, "quantiles", fired={16}, stratum=stratum, weight=population / kept)
        for stratum, (kept, population) in enumerate([(4, 40), (4, 12), (2, 2)])
        for i in range(kept)
    ]
    asked = detection_questions(TestExamples({"quantiles": tuple(rows)}), count=count)
    weights: dict[int, float] = {}
    for question in asked:
        stratum = question.example.stratum
        weights[stratum] = weights.get(stratum, 0.0) + question.example.weight
    assert weights == pytest.approx(dict(list({0: 40.0, 1: 12.0, 2: 2.0}.items())[: min(count, 3)]))


class Exact:
    """Expects exactly the strength on each token."""

    name = "exact"
    prompt_version = ""
    needs = frozenset()

    async def simulate(self, explanation, passages):
        return [TokenPrediction(p.id, np.array([0.0, 4.0, 0.0, 2.0])) for p in passages]


def test_a_latent_with_negative_activations_is_predicted_by_their_strength():
    negative = Example(
        id="0:0-4", document="d", split="score", sampler="top", stratum=0, tokens=("a", "b", "c", "d"),
        token_ids=(1, 2, 3, 4), activations=(0.0, -4.0, 0.0, -2.0), focus=1,
    )  # fmt: skip
    evidence = LatentEvidence(checkpoint="c", latent=1, id="x:1", density=0.1, maximum=4.0, examples={})
    case = LatentCase(evidence, TestExamples({}), TestExamples({"top": (negative,)}), 1.0)
    explained = judging.Tested(case, "e", "own", Explanation("c", 1, "e", "text"))
    question = Question(negative.passage(), negative, negative.fires)
    (row,) = asyncio.run(judging.simulated(explained, Exact(), "simulation", [question]))
    assert row.truth == row.predicted == (0.0, 4.0, 0.0, 2.0)
    (refused,) = judging.refused(explained, "simulation", "exact", [question])
    assert refused.truth == row.truth


@pytest.mark.parametrize("methods", [["fuzzing"], ["token_table", "fuzzing"]])
def test_candidates_are_not_paid_for_where_nothing_chooses_among_them(methods):
    suite = suite_of(
        {"explainers": ["highlighted"], "methods": methods, "best_of": 3},
        {"model": "m", "base_url": "http://localhost/v1"},
    )
    asked = models()
    part = ExplainedDictionary(
        suite, plan_of(suite), planted_cases(), asked, running=None, null_latents=frozenset(),
        advance=lambda _: None,
    )  # fmt: skip
    with pytest.raises(SuiteError, match="best_of"):
        asyncio.run(part.ask())
    assert not any(model.requests for model in asked.values())
