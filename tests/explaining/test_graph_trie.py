"""A graph: what it predicts on hand-made tries, its JSON form, and what is refused when read back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autointerp.errors import BadInputError
from autointerp.explaining.graph_trie import ANY, START, Graph, Path, graph_of
from autointerp.explaining.graph_wording import drawn, worded

A, B, C, D = range(4)
TEXTS = {A: "a", B: " b", C: "\n", D: "d"}
PATHS = st.lists(
    st.builds(
        Path,
        st.lists(st.sampled_from([ANY, A, B, C]), min_size=1, max_size=4).map(tuple),
        st.booleans(),
        st.integers(1, 99).map(float),
    ),
    max_size=8,
)


def path(*tokens, value=1.0, needs_start=False):
    return Path(tokens, needs_start, value)


def test_b_behind_a_with_any_token_between():
    graph = graph_of([path(B, ANY, A, value=2.0)])
    assert graph.predict([A, C, B, A, A, B, B]) == [0, 0, 2.0, 0, 0, 2.0, 2.0]
    assert graph.predict([A, B]) == [0, 0], "nothing stands between"


def test_an_exact_token_goes_before_a_wildcard_and_there_is_no_second_try():
    graph = graph_of([path(B, A, C, value=1.0), path(B, ANY, ANY, value=2.0)])
    assert graph.predict([C, A, B]) == [0, 0, 1.0]
    assert graph.predict([D, D, B]) == [0, 0, 2.0]
    assert graph.predict([D, A, B]) == [0, 0, 0], "it went by the exact a, and does not come back"


def test_the_first_or_the_longest_path_that_ends():
    paths = [path(B, value=1.0), path(B, A, C, value=3.0)]
    assert graph_of(paths).predict([C, A, B]) == [0, 0, 1.0]
    longest = graph_of(paths, match="longest")
    assert longest.predict([C, A, B]) == [0, 0, 3.0]
    assert longest.predict([D, A, B]) == [0, 0, 1.0], "the longer one breaks off, the shorter one stays"


def test_a_start_mark_matches_where_the_text_begins_and_nowhere_else():
    graph = graph_of([path(B, A, value=4.0, needs_start=True)])
    assert graph.predict([A, B]) == [0, 4.0]
    assert graph.predict([C, A, B]) == [0, 0, 0]
    assert graph.predict([B]) == [0]


def test_of_equal_paths_the_last_value_stays_and_all_are_counted():
    graph = graph_of([path(A, value=1.0), path(A, value=7.0), path(A, value=3.0)])
    assert list(graph.paths) == [(path(A, value=3.0), 3)]
    assert graph.predict([A]) == [3.0]


def test_a_graph_without_paths_expects_nothing():
    assert graph_of([]).predict([A, B]) == [0, 0]
    assert list(graph_of([]).paths) == []


@given(PATHS, st.sampled_from(["first", "longest"]), st.lists(st.integers(0, 4), max_size=7))
def test_the_way_through_json_changes_nothing(paths, match, text):
    graph = graph_of(paths, match=match)
    data = json.loads(json.dumps(graph.to_json(TEXTS)))
    again, texts = Graph.from_json(data)
    assert again == graph
    assert texts.items() <= TEXTS.items()
    assert again.predict(text) == graph.predict(text)


@given(PATHS)
def test_ids_can_be_renamed_and_equal_paths_become_one(paths):
    graph = graph_of(paths)
    shifted = graph.relabelled({A: 10, B: 11, C: 12})
    assert shifted.relabelled({10: A, 11: B, 12: C}).predict([A, B, C, A]) == graph.predict([A, B, C, A])
    assert sum(count for _, count in shifted.paths) == len(paths)


GOOD = graph_of([path(B, A), path(B, ANY, needs_start=True)]).to_json(TEXTS)


def broken(**changes):
    return GOOD | changes


@pytest.mark.parametrize(
    "data",
    [
        {},
        broken(kind="token_table"),
        broken(version=2),
        broken(match="best"),
        broken(match=None),
        broken(nodes=None),
        broken(nodes=[[-1, A, 1.0]]),
        broken(nodes=[[0, A, 1.0, 1]]),  # its own parent
        broken(nodes=[[-2, A, 1.0, 1]]),
        broken(nodes=[[-1, -3, 1.0, 1]]),
        broken(nodes=[[-1, 2**40, 1.0, 1]]),
        broken(nodes=[[-1, A, float("nan"), 1]]),
        broken(nodes=[[-1, A, float("inf"), 1]]),
        broken(nodes=[[-1, A, -1.0, 1]]),
        broken(nodes=[[-1, A, "1", 1]]),
        broken(nodes=[[-1, A, True, 1]]),
        broken(nodes=[[-1, True, 1.0, 1]]),
        broken(nodes=[[-1, A, 1.0, -1]]),
        broken(nodes=[[-1, A, 1.0, 1], [-1, A, 2.0, 1]]),  # the same child twice
        broken(nodes=[[-1, START, 1.0, 1], [0, A, 1.0, 1]]),  # something before the beginning
        broken(nodes=[[-1, START, None, 0]]),
        broken(nodes=[[-1, D, 1.0, 1]]),  # a token without a text
        broken(nodes=[[-1, A, None, 0]] * 100_001),
        broken(nodes="x" * 10),
        broken(texts=None),
        broken(texts=[[A, 1]]),
        broken(texts=[["0", "a"]]),
        broken(texts=[[A]]),
    ],
)
def test_what_is_no_graph_is_refused_in_one_line(data):
    with pytest.raises(BadInputError) as caught:
        Graph.from_json(data)
    assert "\n" not in str(caught.value)
    assert "graph" in str(caught.value)


def test_a_sentence_names_the_most_common_paths_in_reading_order():
    graph = graph_of([path(B, ANY, A), path(B, ANY, A), path(C), path(B, A, needs_start=True)])
    assert worded(graph, TEXTS) == (
        'Fires on " b" after "a" * (2 of 4); "\\n" (1 of 4); " b" after ^ "a" (1 of 4).'
    )


def test_a_drawing_has_a_line_for_each_branch_and_ends_somewhere():
    graph = graph_of([path(B, A, value=2.5), path(B, ANY, value=1.0), path(C, D, A, value=3.0)])
    assert drawn(graph, TEXTS) == (
        '" b"',
        '    "a"  [2.5]',
        "    *  [1]",
        '"\\n" < "d" < "a"  [3]',
    )
    many = graph_of([Path((token,), False, 1.0) for token in range(100)])
    lines = drawn(many, {token: str(token) for token in range(100)}, lines=5)
    assert len(lines) == 6 and lines[-1] == "…"


def test_a_long_path_is_drawn_and_worded_without_recursion():
    long = graph_of([Path(tuple([A] * 3000), False, 1.0)])
    assert len(drawn(long, TEXTS)) == 1
    assert len(worded(long, TEXTS)) < 200
