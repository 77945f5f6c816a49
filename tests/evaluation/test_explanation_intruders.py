"""Intruder questions: four passages marked where the latent fires, one where it does not."""

import asyncio

import pytest
from explaining_a_dictionary import OracleModel, planted_cases, right

from autointerp.evaluation.explanations import judging
from autointerp.evaluation.explanations.intruders import intruders
from autointerp.evaluation.explanations.questions import detection_questions, fuzzing_questions
from autointerp.explanation_records import Refusal
from autointerp.simulating.asking import AskOptions
from autointerp.simulating.intruder import IntruderAnswer, IntruderJudge


class Finder:
    """Notes the questions; finds the intruder by a function of its passages."""

    name = "intruder"

    def __init__(self, find):
        self.find_in, self.trials = find, []

    async def find(self, trials):
        self.trials += trials
        return [self.find_in(trial) for trial in trials]


def without_seven(trial):
    marked = ["".join(p.tokens[place] for place in p.marked) for p in trial.passages]
    odd = [float("seven" not in text) for text in marked]
    return IntruderAnswer(trial.id, tuple(each / sum(odd) for each in odd))


def first(trial):
    return IntruderAnswer(trial.id, (1.0, *[0.0] * (len(trial.passages) - 1)))


@pytest.fixture(scope="module")
def case():
    return planted_cases([3], each=16)[3]


def asked(case, judge, *, trials=5, count=16, seed=0):
    tested = judging.Tested(case, "highlighted", "own", right(3))
    fuzzing = fuzzing_questions(case.score, count=count, seed=0)
    detection = detection_questions(case.score, count=count)
    return asyncio.run(intruders(tested, judge, fuzzing, detection, trials=trials, seed=seed))


def test_who_knows_the_word_finds_every_intruder(case):
    judge = Finder(without_seven)
    rows = asked(case, judge)
    assert len(rows) == len(judge.trials) == 4, "16 firing passages are enough for four questions"
    assert [row.value for row in rows] == [1.0] * 4
    assert {row.fires for row in rows} == {None}


def test_who_always_says_the_same_is_right_where_the_intruder_stands(case):
    judge = Finder(first)
    rows = asked(case, judge)
    truth = [float("seven" not in "".join(t.passages[0].tokens[p] for p in t.passages[0].marked))
             for t in judge.trials]  # fmt: skip
    assert [row.value for row in rows] == truth
    assert len(set(truth)) == 2 or truth == [0.0] * 4, "it does not always stand first"


def test_a_question_has_four_firing_passages_and_one_silent_one_none_twice(case):
    judge = Finder(first)
    asked(case, judge)
    seen = [passage.id for trial in judge.trials for passage in trial.passages]
    assert len(seen) == len(set(seen)) == 20
    for trial in judge.trials:
        fires = ["seven" in passage.text for passage in trial.passages]
        assert sum(fires) == 4
        sizes = [len(passage.marked) for passage in trial.passages]
        (odd,) = [size for size, is_firing in zip(sizes, fires, strict=True) if not is_firing]
        assert odd == max(1, round((sum(sizes) - odd) / 4)), "the number of marks does not tell"


def test_the_explanation_is_not_shown(case):
    model = OracleModel(answer=lambda request: "3")
    rows = asked(case, IntruderJudge(model, AskOptions()))
    assert {row.status for row in rows} == {"measured"}
    for request in model.requests:
        text = "\n".join(message.text for message in request.messages)
        assert right(3).text not in text and "Explanation" not in text


def test_the_same_seed_asks_the_same(case):
    marks = []
    for seed in (0, 0, 1):
        judge = Finder(first)
        asked(case, judge, seed=seed)
        marks.append([passage.marked for trial in judge.trials for passage in trial.passages])
    assert marks[0] == marks[1] != marks[2]


def test_a_refusal_is_a_row_with_its_cause(case):
    rows = asked(case, Finder(lambda trial: Refusal("content_filter", "declined")))
    assert {(row.status, row.cause, row.value) for row in rows} == {("refused", "content_filter", None)}
    assert len({row.passage for row in rows}) == 4


@pytest.mark.parametrize("trials", [1, 3])
def test_never_more_questions_than_asked_for(case, trials):
    assert len(asked(case, Finder(first), trials=trials)) == trials


def test_too_few_passages_are_undefined_and_nobody_is_asked(case):
    judge = Finder(first)
    (row,) = asked(case, judge, count=3)
    assert (row.status, row.cause, row.value) == ("undefined", "too few passages", None)
    assert judge.trials == []
