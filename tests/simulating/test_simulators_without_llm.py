"""Token tables, simulators as judges of passages, the constant judge."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autointerp.explaining.token_table_data import Cell, TokenTable
from autointerp.explanation_records import Judgement, Passage, Refusal, TokenPrediction
from autointerp.simulating.as_passage_judge import SimulatorJudge
from autointerp.simulating.constant import ConstantJudge
from autointerp.simulating.simulator import PassageJudge, TokenSimulator
from autointerp.simulating.token_table import TokenTableSimulator

TABLE = TokenTable(
    scale=4.0,
    prior=Cell(0.01, 1.0, 100),
    tokens={"dog": Cell(0.9, 4.0, 9)},
    pairs={("a", "dog"): Cell(0.2, 2.0, 3)},
)


class Given:
    """A simulator that says what it was told."""

    name, prompt_version, needs = "given", "given-1", frozenset()

    def __init__(self, *values):
        self.values = values

    async def simulate(self, explanation, passages):
        return [
            said if isinstance(said, Refusal) else TokenPrediction(passage.id, np.array(said, dtype=float))
            for passage, said in zip(passages, self.values, strict=True)
        ]


def test_token_table_says_what_its_table_expects(kit):
    explanation = kit.explanation("fires on `dog`", data=TABLE.to_json())
    passages = [Passage("p", ("dog", "a", "dog")), Passage("q", ())]
    simulator = TokenTableSimulator()
    found = kit.run(simulator.simulate(explanation, passages))
    np.testing.assert_allclose(found[0].values, [3.6, 0.01, 0.4])
    assert found[1].values.shape == (0,)
    found = kit.run(TokenTableSimulator(predicts="probability").simulate(explanation, passages))
    np.testing.assert_allclose(found[0].values, [0.9, 0.01, 0.2])
    assert isinstance(simulator, TokenSimulator)


def test_the_empty_null_expects_nothing_and_an_llms_text_has_no_table(kit):
    passages = kit.passages("a b", "c")
    empty = kit.run(TokenTableSimulator().simulate(kit.explanation(""), passages))
    assert [list(found.values) for found in empty] == [[0, 0], [0]]
    told = kit.run(TokenTableSimulator().simulate(kit.explanation("dogs"), passages))
    assert [found.cause for found in told] == ["no_explanation"] * 2
    damaged = kit.run(TokenTableSimulator().simulate(kit.explanation("dogs", data={"kind": "x"}), passages))
    assert [found.cause for found in damaged] == ["unparsable"] * 2


VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.data())
def test_a_simulator_as_judge_equals_its_definition(kit, values, data):
    marked = tuple(sorted(data.draw(st.sets(st.integers(0, len(values) - 1), min_size=1))))
    passage = Passage("p", ("t",) * len(values), marked)

    def judged(asks, is_probability):
        judge = SimulatorJudge(Given(values), asks, is_probability=is_probability)
        assert isinstance(judge, PassageJudge) and judge.is_probability == is_probability
        return kit.run(judge.judge(kit.explanation("x"), [passage]))[0].value

    none_fires = 1.0
    for value in values:
        none_fires *= 1 - value
    assert judged("detection", False) == max(values)
    assert judged("detection", True) == pytest.approx(1 - none_fires)
    mean = sum(values[place] for place in marked) / len(marked)
    assert judged("fuzzing", False) == judged("fuzzing", True) == pytest.approx(mean)


def test_tokens_of_which_nothing_is_said_do_not_count_as_zero(kit):
    nan = float("nan")
    passages = [
        Passage("a", ("x", "y"), (0,)),
        Passage("b", ("x", "y"), (1,)),
        Passage("c", ("x",), (0,)),
        Passage("d", ("x",), (0,)),
    ]
    said = ([nan, 0.5], [nan, 0.5], [nan], Refusal("cut_off"))
    for asks, expected in (
        ("detection", [0.5, 0.5, "unparsable", "cut_off"]),
        ("fuzzing", ["unparsable", 0.5, "unparsable", "cut_off"]),
    ):
        found = kit.run(SimulatorJudge(Given(*said), asks).judge(kit.explanation("x"), passages))
        assert [f.value if isinstance(f, Judgement) else f.cause for f in found] == expected


def test_fuzzing_by_a_simulator_needs_marks_too(kit):
    with pytest.raises(ValueError, match="marked"):
        kit.run(SimulatorJudge(Given([1.0]), "fuzzing").judge(kit.explanation("x"), [Passage("p", ("a",))]))


def test_the_constant_judge_says_the_same_of_everything(kit):
    judge = ConstantJudge()
    assert isinstance(judge, PassageJudge) and judge.is_probability and not judge.needs
    found = kit.run(judge.judge(kit.explanation("dog"), kit.passages("dog", "cat")))
    assert found == [Judgement("id0", 0.0), Judgement("id1", 0.0)]
    assert kit.run(ConstantJudge(0.5).judge(kit.explanation(""), kit.passages("x")))[0].value == 0.5
