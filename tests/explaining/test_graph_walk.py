"""The walk of many graphs at once against the plain one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autointerp.explaining import graph_walk
from autointerp.explaining.graph_trie import ANY, Path, graph_of
from autointerp.explaining.graph_walk import GraphText, MergedGraphs

TOKENS = st.integers(0, 3)
PATHS = st.lists(
    st.builds(
        Path,
        st.lists(st.one_of(TOKENS, st.just(ANY)), min_size=1, max_size=4).map(tuple),
        st.booleans(),
        st.floats(0.1, 9),
    ),
    max_size=6,
)
GRAPHS = st.dictionaries(st.integers(0, 50), PATHS, max_size=5)
TEXTS = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=4)


def text_of(texts):
    lengths = np.array([len(text) for text in texts])
    starts = np.cumsum(lengths) - lengths
    return GraphText(np.concatenate([np.array(text) for text in texts]), np.repeat(starts, lengths))


def found(graphs, texts):
    values = {}
    for hits in MergedGraphs(graphs).hits(text_of(texts)):
        for place, latent, value in zip(*(part.tolist() for part in hits), strict=True):
            assert (latent, place) not in values, "a place and latent come once"
            values[latent, place] = value
    return values


def plain(graphs, texts):
    values, offset = {}, 0
    for text in texts:
        for latent, graph in graphs.items():
            expected = enumerate(graph.predict(text))
            values |= {(latent, offset + place): value for place, value in expected if value}
        offset += len(text)
    return values


@settings(max_examples=200)
@given(GRAPHS, TEXTS, st.sampled_from(["first", "longest"]))
def test_all_graphs_together_are_each_graph_alone(paths, texts, match):
    graphs = {latent: graph_of(own, match=match) for latent, own in paths.items()}
    assert found(graphs, texts) == plain(graphs, texts)


@given(GRAPHS, TEXTS)
def test_the_size_of_blocks_does_not_matter(paths, texts):
    graphs = {latent: graph_of(own) for latent, own in paths.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_walk, "_BLOCK", 3)
        assert found(graphs, texts) == plain(graphs, texts)


def test_graphs_of_different_match_are_not_walked_together():
    with pytest.raises(ValueError, match="match"):
        MergedGraphs({0: graph_of([]), 1: graph_of([], match="longest")})


def test_a_token_that_no_graph_knows_is_not_taken_for_another_ones():
    graphs = {0: graph_of([Path((0, 1), False, 1.0)]), 1: graph_of([Path((1, 0), False, 2.0)])}
    texts = [[7, 0], [9, 1], [2, 2], [1, 0]]
    assert found(graphs, texts) == plain(graphs, texts) == {(0, 7): 1.0}


@given(GRAPHS, TEXTS)
def test_many_wildcards_make_smaller_blocks_and_the_same_hits(paths, texts):
    graphs = {latent: graph_of([*own, Path((ANY,), False, 0.5)]) for latent, own in paths.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph_walk, "_LOOSE_PAIRS", 2)
        assert found(graphs, texts) == plain(graphs, texts)
