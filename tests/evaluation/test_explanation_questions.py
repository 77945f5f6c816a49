"""Which passages test a latent, and how they are marked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.evaluation.explanations.questions import (
    HARD_SAMPLERS,
    detection_questions,
    fuzzing_questions,
    simulation_questions,
)
from autointerp.explanation_records import Example
from autointerp.sampling.latents.evidence import TestExamples


def example(number, sampler, *, fired=(), stratum=0, length=8):
    return Example(
        id=f"{number:016x}:0-{length}", document=f"d{number}", split="score", sampler=sampler,
        stratum=stratum,
        tokens=tuple(f"t{i}" for i in range(length)), token_ids=tuple(range(length)),
        activations=tuple(1.0 + i if i in fired else 0.0 for i in range(length)), focus=length // 2,
    )  # fmt: skip


@pytest.fixture
def tested():
    found = {
        "quantiles": [example(i, "quantiles", fired={i % 8, 3}, stratum=i % 5) for i in range(25)],
        "uniform": [example(20 + i, "uniform", fired={2}) for i in range(20)],
        "top": [example(24 - i, "top", fired={1, 2}) for i in range(6)],
        "silent": [example(100 + i, "silent") for i in range(20)],
    }
    found |= {
        name: [example(200 + 10 * k + i, name) for i in range(9)] for k, name in enumerate(HARD_SAMPLERS)
    }
    return TestExamples({name: tuple(rows) for name, rows in found.items()})


def test_active_passages_come_from_all_strata_alike(tested):
    active = [q for q in detection_questions(tested, count=10) if q.fires]
    assert sorted(q.example.stratum for q in active) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_as_many_silent_and_as_many_hard_ones(tested):
    found = detection_questions(tested, count=10)
    silent = [q for q in found if q.example.sampler == "silent"]
    hard = [q for q in found if q.example.sampler in HARD_SAMPLERS]
    assert (len(silent), len(hard)) == (10, 10)
    assert {q.example.sampler for q in hard} == set(HARD_SAMPLERS)
    assert not any(q.fires for q in silent + hard)


def test_no_passage_is_asked_twice():
    twice = example(1, "silent")
    tested = TestExamples({"silent": (twice,), HARD_SAMPLERS[0]: (example(1, HARD_SAMPLERS[0]),)})
    (only,) = detection_questions(tested, count=5)
    assert only.example.sampler == "silent"


def test_what_is_asked_does_not_tell_the_truth(tested):
    for question in detection_questions(tested, count=10):
        assert question.passage.marked == ()
        assert question.passage.tokens == question.example.tokens


def test_fuzzing_marks_rightly_or_where_it_does_not_fire(tested):
    found = fuzzing_questions(tested, count=10, seed=0)
    for question in found:
        fired = {i for i, a in enumerate(question.example.activations) if a}
        marked = set(question.passage.marked)
        assert marked
        assert marked == fired if question.fires else not marked & fired
    assert {q.fires for q in found} == {True, False}
    ids = [q.passage.id for q in found]
    assert len(ids) == len(set(ids)), "no passage is seen marked in both ways"


def test_wrong_marks_are_as_many_as_those_of_some_right_passage(tested):
    found = fuzzing_questions(tested, count=10, seed=0)
    right = {len(q.passage.marked) for q in found if q.fires}
    wrong = {len(q.passage.marked) for q in found if not q.fires}
    assert wrong == right == {1, 2}


def test_marks_depend_on_the_seed_alone(tested):
    first, again, other = (fuzzing_questions(tested, count=20, seed=seed) for seed in (0, 0, 1))
    marks = [[q.passage.marked for q in found] for found in (first, again, other)]
    assert marks[0] == marks[1] != marks[2]


def test_simulation_takes_the_strongest_and_random_ones(tested):
    found = simulation_questions(tested, count=4)
    assert {q.example.sampler for q in found} == {"top", "uniform", "silent"}


def test_nothing_to_ask_about():
    empty = TestExamples({})
    assert detection_questions(empty, count=3) == []
    assert fuzzing_questions(empty, count=3, seed=0) == []
    assert simulation_questions(empty, count=3) == []


def test_a_passage_that_fires_everywhere_cannot_be_marked_wrongly():
    all_on = example(50, "uniform", fired=set(range(8)))
    tested = TestExamples({"quantiles": (example(1, "quantiles", fired={1}),), "uniform": (all_on,)})
    assert [q.fires for q in fuzzing_questions(tested, count=3, seed=0)] == [True]


@given(st.integers(1, 30))
def test_never_more_than_asked_for(count):
    rows = tuple(example(i, "silent") for i in range(12))
    assert len(detection_questions(TestExamples({"silent": rows}), count=count)) == min(count, 12)
