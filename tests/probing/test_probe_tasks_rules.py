import base64

import pytest
from pydantic import ValidationError

from autointerp.probing.label_rules import LabelRule, RowFaultError, field_of, labelled_texts


def made(row, rule, *, template="{text}", source_label=None, coin=0):
    return list(
        labelled_texts(row, LabelRule(**rule), template=template, source_label=source_label, coin=coin)
    )


def only(row, rule, **options):
    (one,) = made(row, rule, **options)
    return one.text, one.label


def test_equals_takes_values_of_any_kind_and_leaves_out_what_is_neither():
    rule = {"rule": "equals", "column": "label", "values": [1, "yes"], "negatives": [0]}
    assert only({"text": "a", "label": 1}, rule) == ("a", True)
    assert only({"text": "a", "label": "yes"}, rule) == ("a", True)
    assert only({"text": "a", "label": 0}, rule) == ("a", False)
    assert made({"text": "a", "label": -1}, rule) == []
    assert only({"text": "a", "label": -1}, rule | {"negatives": []}) == ("a", False)


def test_above_compares_with_the_threshold():
    rule = {"rule": "above", "column": "score", "threshold": 3}
    assert [only({"text": "a", "score": score}, rule)[1] for score in (2, 3, 3.5)] == [False, False, True]
    with pytest.raises(RowFaultError, match="not a number"):
        made({"text": "a", "score": "high"}, rule)


def test_source_says_the_label_of_all_its_rows():
    assert only({"text": "a"}, {"rule": "source"}, source_label=True) == ("a", True)
    with pytest.raises(RowFaultError, match="needs a label"):
        made({"text": "a"}, {"rule": "source"})


CHOICES = [
    ({"options": ["x", "y"], "correct": "k", "correct_is": "index"}, {"x": "A", "y": "B", "k": 1}, {"B"}),
    (
        {"options": ["x", "y"], "correct": "k", "correct_is": "index_from_1"},
        {"x": "A", "y": "B", "k": "1"},
        {"A"},
    ),
    (
        {"options": "c.text", "correct": "k", "correct_is": "key", "keys": "c.label"},
        {"c": {"text": ["A", "B", "C"], "label": ["1", "2", "3"]}, "k": " 3"},
        {"C"},
    ),
    (
        {"options": "c.text", "correct": "c.flags", "correct_is": "flags"},
        {"c": {"text": ["A", "B", "C"], "flags": [1, 0, 1]}},
        {"A", "C"},
    ),
    ({"options": ["x", "y"], "correct": "y", "correct_is": "option"}, {"x": "A", "y": "B"}, {"B"}),
    ({"options": "c", "correct": "k", "correct_is": "text"}, {"c": ["A", "B"], "k": "B"}, {"B"}),
]


@pytest.mark.parametrize(("rule", "row", "right"), CHOICES)
def test_a_coin_shows_a_right_or_a_wrong_answer_and_the_label_says_which(rule, row, right):
    seen = {only(row, {"rule": "choice", **rule}, template="{answer}", coin=coin) for coin in range(16)}
    assert {text for text, label in seen if label} == right
    assert all(text not in right for text, label in seen if not label)
    assert {label for _text, label in seen} == {True, False}


def test_a_hidden_answer_gives_no_right_one():
    rule = {"rule": "choice", "options": ["x", "y"], "correct": "k", "correct_is": "index"}
    row = {"x": "A", "y": "B", "k": -1}
    assert made(row, rule, template="{answer}", coin=1) == []


def test_the_order_of_two_texts_is_thrown_by_the_coin():
    rule = {"rule": "order", "options": ["better", "worse"]}
    row = {"better": "sun", "worse": "rain"}
    assert only(row, rule, template="{first} > {second}", coin=1) == ("sun > rain", True)
    assert only(row, rule, template="{first} > {second}", coin=0) == ("rain > sun", False)


def test_base64_decodes_to_the_text():
    text, label = only({"text": "naïve"}, {"rule": "base64", "column": "text"}, coin=1)
    assert label
    assert base64.b64decode(text).decode() == "naïve"
    assert only({"text": "naïve"}, {"rule": "base64", "column": "text"}, coin=0) == ("naïve", False)


def phrases(text):
    rule = {"rule": "phrase", "column": "text", "phrase": ["side", "effects"]}
    return [
        (one.text[one.span[0] : one.span[1]], one.label, one.text[: one.span[1]].split()[-2:])
        for one in made({"text": text}, rule)
    ]


def test_a_phrase_is_its_second_word_after_its_first():
    assert phrases("Known Side  effects are few") == [("effects", True, ["Side", "effects"])]
    assert phrases("the effects of it") == [("effects", False, ["the", "effects"])]
    assert phrases("a side door") == [("door", False, ["side", "door"])]
    assert phrases("outside effects") == [("effects", False, ["outside", "effects"])]
    assert phrases("sideeffects and asides") == []


def test_one_document_gives_few_places_of_a_phrase():
    found = phrases("side effects, " * 9 + "no effects, " * 9 + "side door, " * 9)
    assert [label for _word, label, _words in found] == [True, True, False, False, False, False]


def test_equal_groups_are_equal_values_of_the_group_column():
    rule = {"rule": "equals", "column": "label", "values": [1], "group": "of"}
    groups = [made({"text": text, "label": 1, "of": 7}, rule)[0].group for text in ("a", "b")]
    assert groups == ["7", "7"]


def test_a_missing_column_is_named_with_those_there_are():
    with pytest.raises(RowFaultError, match=r"no column 'c.text'; there is: label"):
        field_of({"c": {"label": 1}}, "c.text")
    with pytest.raises(RowFaultError, match="there is: nothing"):
        field_of({}, "c")


def test_a_template_takes_columns_and_nothing_else():
    rule = {"rule": "equals", "column": "label", "values": [1]}
    row = {"text": "{label} {0} {text.__class__}", "label": 1}
    assert only(row, rule, template="{text} {} {text!r}") == (
        "{label} {0} {text.__class__} {} {text!r}",
        True,
    )
    with pytest.raises(RowFaultError, match="no column"):
        made(row, rule, template="{text.__class__}")
    with pytest.raises(RowFaultError, match="holds list"):
        made({"text": ["a"], "label": 1}, rule)


def test_an_empty_text_is_no_example():
    assert made({"text": " ", "label": 1}, {"rule": "equals", "column": "label", "values": [1]}) == []


@pytest.mark.parametrize(
    "rule",
    [
        {"rule": "equals", "column": "label"},
        {"rule": "choice", "options": ["a"], "correct": "b", "correct_is": "key"},
        {"rule": "phrase", "column": "text"},
        {"rule": "guess"},
    ],
)
def test_a_rule_that_lacks_something_is_refused(rule):
    with pytest.raises(ValidationError):
        LabelRule(**rule)
