"""Precision, recall, F1 and correlation of graphs (Neuron-to-Graph), and what latents made of them lose."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from autointerp.records import OBSERVATION_SCHEMA, MetricDefinition, observation_frame

__all__ = ["KL", "METRICS", "RECONSTRUCTION", "SCORES", "GraphScore", "ScoredLatent", "graph_observations"]

_GAO = "Gao et al. 2024 (arXiv 2406.04093), section 4.3"
_MEAN = (
    "Mean over random live latents, weighted to stand for all; graphs are made from other documents. The "
    "slice null=borrowed judges every latent with another latent's graph."
)
RECONSTRUCTION = "n2g.reconstruction_delta_ce_nats"
KL = "n2g.reconstruction_kl_nats"


def _metric(name: str, title: str, meaning: str, **options: Any) -> MetricDefinition:
    settings: dict[str, Any] = {
        "unit": "fraction",
        "better": "higher",
        "functional": "ratio",
        "sampled": "latent",
        "lowest": 0.0,
        "highest": 1.0,
        "in_summary": False,
        "pairing": "independent",
    }
    return MetricDefinition(f"n2g.{name}", title, meaning, **settings | options)


def _lost(name: str, title: str, what: str) -> MetricDefinition:
    return _metric(
        name,
        title,
        f"{what} when every latent's activation is what its graph expects, times E[s a]/E[s^2] of text that "
        "graphs are made from, at every token of text (what is no text stays as it is). Slices give the same "
        "for the true activations, for the decoder's bias alone, for zeros, and for a unigram and a bigram "
        "model of the text in the subject's place. Gao et al. 2024 (arXiv 2406.04093), section 4.4.",
        unit="nats",
        better="lower",
        sampled="document",
        lowest=None,
        highest=None,
        pairing="units",
    )


METRICS: tuple[MetricDefinition, ...] = (
    _metric(
        "precision",
        "Graph precision",
        "P(the latent fires | its graph does), over places of scored text where the graph expects anything. "
        f"Undefined for a latent whose graph fires nowhere there. {_MEAN} {_GAO}.",
    ),
    _metric(
        "recall",
        "Graph recall",
        "P(the graph fires | its latent does), over random activations in scored text, so that weak ones "
        f"count as often as they occur. Dense latents are recalled by almost any graph. {_MEAN} {_GAO}.",
    ),
    _metric(
        "f1",
        "Graph F1",
        "Harmonic mean of a latent's precision and recall; 0 where its graph fires nowhere in scored text. "
        f"{_MEAN} {_GAO}.",
        in_summary=True,
    ),
    _metric(
        "correlation",
        "Graph correlation",
        "Pearson correlation, over all tokens of scored text, of a latent's |activation| with what its graph "
        "expects there: the graded version, which fires everywhere for nothing. Undefined for a latent whose "
        f"graph expects the same everywhere. {_MEAN}",
        unit="correlation",
        lowest=-1.0,
    ),
    _lost("reconstruction_delta_ce_nats", "Graph loss", "Rise of the subject's next-token loss"),
    _lost("reconstruction_kl_nats", "Graph KL", "KL(clean || substituted) of the next-token predictions"),
)
"""All metrics of graphs, in the order of the report."""

SCORES = tuple(f"n2g.{name}" for name in ("precision", "recall", "f1", "correlation"))
"""Those whose unit is the latent."""


class ScoredLatent(NamedTuple):
    """Whose a score is."""

    checkpoint: str
    id: str
    """The same in every run."""
    sampling_weight: float


class GraphScore(NamedTuple):
    """One latent's graph on scored text; None where there is no number, and why."""

    precision: float | None
    recall: float | None
    f1: float | None
    correlation: float | None
    reasons: Mapping[str, str] = {}
    """By the name of what is None."""

    @staticmethod
    def of(*, precision: float | None, recall: float | None, correlation: float | None) -> "GraphScore":
        """With F1 and the reasons.

        Args:
            precision: None: the graph fires nowhere.
            recall: None: the latent fires nowhere.
            correlation: None: either is the same everywhere.
        """
        reasons = {"correlation": "its activation or what is expected of it is the same everywhere"}
        reasons["precision"] = "its graph fires nowhere in the scored text"
        reasons["recall"] = reasons["f1"] = "it fires nowhere in the scored text"
        f1 = None
        if recall is not None:
            total = (precision or 0.0) + recall
            f1 = 2 * (precision or 0.0) * recall / total if total else 0.0
        numbers = {"precision": precision, "recall": recall, "f1": f1, "correlation": correlation}
        return GraphScore(
            **numbers, reasons={name: reasons[name] for name in numbers if numbers[name] is None}
        )

    @staticmethod
    def without_graph(reason: str) -> "GraphScore":
        """Of a latent of which there is no graph."""
        names = ("precision", "recall", "f1", "correlation")
        return GraphScore(None, None, None, None, dict.fromkeys(names, reason))


def graph_observations(
    scores: Sequence[tuple[ScoredLatent, GraphScore]], *, null: str | None = None
) -> pl.DataFrame:
    """A row per metric and latent; one without a number is `undefined`.

    Args:
        scores: of latents.
        null: name of the null that they are of; else they are of the latents' own graphs.
    """
    rows: dict[str, list[Any]] = {name: [] for name in ("checkpoint", "metric", "unit", "numerator")}
    rows |= {name: [] for name in ("sampling_weight", "status", "reason")}
    for latent, score in scores:
        for name in ("precision", "recall", "f1", "correlation"):
            value = getattr(score, name)
            found = (latent.checkpoint, f"n2g.{name}", latent.id, value, latent.sampling_weight)
            found += ("measured", "") if value is not None else ("undefined", score.reasons[name])
            for column, part in zip(rows.values(), found, strict=True):
                column.append(part)
    if not scores:
        return pl.DataFrame(schema=OBSERVATION_SCHEMA)
    return observation_frame(**rows, cluster=rows["unit"], slice={} if null is None else {"null": null})
