"""Explains a latent by the graph that was built of it (Neuron-to-Graph); no LLM."""

from collections.abc import Mapping
from typing import Any

from autointerp.errors import BadInputError
from autointerp.explaining.graph_trie import Graph
from autointerp.explaining.graph_wording import worded
from autointerp.explanation_records import Explanation, LatentEvidence, Refusal
from autointerp.llm.language_model import Capability

__all__ = ["GraphExplainer"]


class GraphExplainer:
    """A sentence of the graph's main paths and, as `data`, the graph itself (`Graph.to_json`).

    Graphs are built before, of all latents together, since they need the subject and share its runs; see
    `neuron_to_graph`. They are of random activations, each as it comes, so the sentence says what makes the
    latent fire at all, weakly too.
    """

    name = "neuron_to_graph"
    prompt_version = ""
    needs: frozenset[Capability] = frozenset()

    def __init__(self, graphs: Mapping[int, Mapping[str, Any]]) -> None:
        """Take the graphs of one dictionary's latents, by latent, as `Graph.to_json` made them."""
        self._graphs = graphs

    async def explain(self, evidence: LatentEvidence) -> Explanation | Refusal:
        """The sentence and the graph; a refusal where there is none, or it is damaged or has no path."""
        data = self._graphs.get(evidence.latent)
        if data is None:
            return Refusal("no_explanation", "no graph was built of it")
        try:
            graph, texts = Graph.from_json(data)
        except BadInputError as fault:
            return Refusal("unparsable", str(fault))
        if not graph.nodes:
            return Refusal("no_explanation", "its graph has no path: all its activations need longer text")
        return Explanation(
            checkpoint=evidence.checkpoint,
            latent=evidence.latent,
            explainer=self.name,
            text=worded(graph, texts),
            data=data,
            details={"paths": sum(1 for _ in graph.paths)},
        )
