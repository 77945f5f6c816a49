"""Simulator of graphs: what the explanation's own graph expects of each token; no LLM."""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from autointerp.explaining.graph_trie import Graph
from autointerp.explaining.graph_walk import GraphText, MergedGraphs
from autointerp.explanation_records import Explanation, Passage, Refusal, TokenPrediction
from autointerp.llm.language_model import Capability
from autointerp.simulating.from_data import predicted_from_data

__all__ = ["GraphSimulator"]


class GraphSimulator:
    """Predicts from the graph in `Explanation.data`, token by token, by the tokens' texts.

    A passage is a window of a text, and its beginning counts as the text's, as in the paper's code: paths
    that reach further back than the window find nothing. Tokens of equal text (parts of characters) are one.
    An explanation without text and data (the null `empty`) is a graph without paths: it expects 0 everywhere.
    One with text and without a graph, as an LLM's, is refused.
    """

    name = "graph"
    prompt_version = ""
    needs: frozenset[Capability] = frozenset()

    def __init__(self, *, predicts: Literal["activation", "share"] = "activation") -> None:
        """A simulator.

        Args:
            predicts: the expected |activation|, raw, or a number from 0 to 1 that is at least .5 where the
                graph fires: (1 + v / the graph's largest value) / 2.
        """
        self.predicts = predicts

    async def simulate(
        self, explanation: Explanation, passages: Sequence[Passage]
    ) -> list[TokenPrediction | Refusal]:
        """One answer for each passage, in their order."""
        return predicted_from_data(
            explanation, passages, what="graph", read=Graph.from_json, expect=self._expect
        )

    def _expect(
        self, known: tuple[Graph, dict[int, str]], passages: Sequence[Sequence[str]]
    ) -> list[np.ndarray]:
        graph, texts = known
        values = _expected(graph, texts, passages)
        if self.predicts == "share":
            largest = max((path.value for path, _ in graph.paths), default=1.0)
            values = np.where(values > 0, (1 + values / largest) / 2, 0.0)
        ends = np.cumsum([len(tokens) for tokens in passages])[:-1]
        return np.split(values, ends) if passages else []


def _expected(graph: Graph, texts: dict[int, str], passages: Sequence[Sequence[str]]) -> np.ndarray:
    """What the graph expects on every token of all passages, one after another."""
    ids: dict[str, int] = {}
    for token in sorted(texts):
        ids.setdefault(texts[token], token)
    merged = MergedGraphs({0: graph.relabelled({token: ids[text] for token, text in texts.items()})})
    unknown = max(texts, default=0) + 1
    lengths = np.array([len(tokens) for tokens in passages], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    found = np.zeros(int(lengths.sum()))
    tokens = np.array([ids.get(token, unknown) for own in passages for token in own], dtype=np.int64)
    for hits in merged.hits(GraphText(tokens, np.repeat(starts, lengths))):
        found[hits.place] = hits.value
    return found
