"""The table of token statistics: what it predicts, and its way through JSON."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.errors import BadInputError
from autointerp.explaining.token_table_data import Cell, TokenTable, joined, token_class
from autointerp.explaining.token_table_lookup import expected_activations, firing_probabilities

CELLS = st.builds(
    Cell,
    st.floats(0, 1).map(lambda value: float(f"{value:.6g}")),
    st.integers(0, 99).map(float),
    st.integers(0, 99).map(float),
)
TOKENS = st.sampled_from(["a", " b", "\n", "\ufffd", "7", ")", "«"])


def table(**parts):
    return TokenTable(**({"scale": 10.0, "prior": Cell(0.01, 4.0, 1000.0)} | parts))


def test_the_most_specific_condition_decides():
    full = table(
        tokens={"b": Cell(0.5, 2.0, 1)},
        before={"a": Cell(0.02, 1.0, 1)},
        pairs={("a", "b"): Cell(0.7, 3.0, 1)},
        triples={("c", "a", "b"): Cell(0.9, 5.0, 1)},
    )
    expected, short = expected_activations(full, [["c", "a", "b", "b", "z"], ["a", "b"]])
    assert expected[2] == pytest.approx(4.5)
    assert short[1] == pytest.approx(2.1)
    assert expected[3] == pytest.approx(1.0)
    assert expected[0] == expected[4] == pytest.approx(0.04)


def test_a_class_stands_in_for_a_token_that_was_not_seen():
    some = table(classes={"a number": Cell(0.5, 2.0, 1)}, tokens={"7": Cell(0.1, 2.0, 1)})
    assert firing_probabilities(some, [["8", "7", "x"]])[0].tolist() == [0.5, 0.1, 0.01]


def test_token_and_token_before_join_as_odds():
    prior, own, earlier = Cell(0.1, 1, 1), Cell(0.3, 2, 1), Cell(0.1, 9, 1)
    assert joined(own, earlier, prior).probability == pytest.approx(0.3), "a token before that tells nothing"
    assert joined(own, earlier, prior).magnitude == 2
    likelier = joined(own, Cell(0.5, 9, 1), prior)
    assert likelier.probability > 0.3
    odds = (0.3 / 0.7) * ((0.5 / 0.5) / (0.1 / 0.9)) ** 0.7
    assert likelier.probability == pytest.approx(odds / (1 + odds))
    assert 0 <= joined(Cell(0, 1, 1), Cell(1, 1, 1), Cell(0, 1, 1)).probability <= 1


def cell_by_cell(made, passage, place):
    """The most specific cell, looked up as the table's docstring says."""
    token = passage[place]
    for earlier, cells in ((2, made.triples), (1, made.pairs)):
        key = tuple(passage[place - earlier : place + 1])
        if place >= earlier and key in cells:
            return cells[key]
    own = made.tokens.get(token) or made.classes.get(token_class(token)) or made.prior
    before = made.before.get(passage[place - 1]) if place > 0 else None
    return own if before is None else joined(own, before, made.prior)


@given(
    classes=st.dictionaries(TOKENS.map(token_class), CELLS),
    tokens=st.dictionaries(TOKENS, CELLS),
    before=st.dictionaries(TOKENS, CELLS),
    pairs=st.dictionaries(st.tuples(TOKENS, TOKENS), CELLS),
    triples=st.dictionaries(st.tuples(TOKENS, TOKENS, TOKENS), CELLS),
    passages=st.lists(st.lists(TOKENS, max_size=8), max_size=4),
)
def test_all_passages_at_once_are_as_cell_by_cell_and_as_after_json(
    classes, tokens, before, pairs, triples, passages
):
    made = table(classes=classes, tokens=tokens, before=before, pairs=pairs, triples=triples)
    read = TokenTable.from_json(json.loads(json.dumps(made.to_json())))
    assert read.to_json() == made.to_json()
    cells = [[cell_by_cell(made, passage, place) for place in range(len(passage))] for passage in passages]
    for looked_up, part in ((expected_activations, "expected"), (firing_probabilities, "probability")):
        values = looked_up(made, passages)
        assert [each.tolist() for each in looked_up(read, passages)] == [each.tolist() for each in values]
        assert [each.tolist() for each in values] == [[getattr(cell, part) for cell in row] for row in cells]
        assert all(each.dtype == np.float64 for each in values)


@pytest.mark.parametrize(
    "damage",
    [
        {"version": 2},
        {"kind": "graph"},
        {"prior": [0.5, 1.0]},
        {"prior": [1.5, 1.0, 1.0]},
        {"prior": [0.5, float("nan"), 1.0]},
        {"prior": [10**400, 1.0, 1.0]},
        {"prior": [[0.5, 1.0, 1.0]]},
        {"prior": [0.5, -1.0, 1.0]},
        {"scale": "much"},
        {"scale": float("inf")},
        {"tokens": [[3, 0.1, 1.0, 1.0]]},
        {"tokens": [["a"]]},
        {"pairs": [["a", 0.1, 1.0, 1.0]]},
        {"triples": 5},
        {"before": None},
    ],
)
def test_damage_is_one_line(damage):
    data = table().to_json() | damage
    with pytest.raises(BadInputError) as caught:
        TokenTable.from_json(data)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInputError):
        TokenTable.from_json({})


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("\n    ", "a line break"),
        ("  ", "spaces"),
        ("", "spaces"),
        (" 12", "a number"),
        (")(", "a bracket"),
        (" ->", "punctuation"),
        (" the", "a word's beginning"),
        ("ing", "a word's part"),
        (" The", "a word's beginning with a capital"),
        (" NASA", "a word's beginning in capitals"),
        ("x_1", "a mixed token"),
        ("\ufffd", "punctuation"),
    ],
)
def test_classes(token, name):
    assert token_class(token) == name
