"""A run directory -> what one latent is said to mean, and how well each explanation predicts."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autointerp.errors import BadInputError, RunStoreError
from autointerp.explaining.graph_trie import Graph
from autointerp.explaining.graph_wording import drawn

__all__ = ["LatentExplanation", "LatentScore", "explanations_of"]

_SHOWN = {
    "explanation.detection_auroc": "detection AUROC",
    "explanation.fuzzing_auroc": "fuzzing AUROC",
    "explanation.simulation_correlation": "simulation correlation",
}
"""Scores that a latent is shown with, in reading order."""
_GRAPH_LINES = 12
_SOURCE = frozenset({"explainer", "explanation", "method", "judge"})


@dataclass(frozen=True)
class LatentScore:
    """How well one explanation did in one test, and how well another latent's did for this one."""

    title: str
    judge: str
    value: float
    low: float
    high: float
    borrowed: float | None
    """None where no other explanation was tried, or it has no score."""


@dataclass(frozen=True)
class LatentExplanation:
    """One explainer's explanation."""

    explainer: str
    text: str | None
    """None where there is none; then `refusal` says why."""
    refusal: str | None
    scores: tuple[LatentScore, ...]
    graph: tuple[str, ...] = ()
    """Lines of a drawing, where the explanation is a graph."""


def explanations_of(run: Path, *, checkpoint: str, latent: int) -> tuple[LatentExplanation, ...]:
    """In the order of the run's explainers; none where the run explained nothing, or not this latent.

    Raises:
        RunStoreError: explanations.jsonl or scores.jsonl is damaged.
    """
    rows = list(_lines(run / "explanations.jsonl", checkpoint, latent, ("explainer", "status")))
    scores: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    if rows:
        for line in _lines(run / "scores.jsonl", checkpoint, latent, ("explainer", "explanation", "scores")):
            scores.setdefault((line["explainer"], line["explanation"]), []).extend(line["scores"])
    return tuple(
        LatentExplanation(
            explainer=row["explainer"],
            text=row["text"] if row["status"] == "explained" else None,
            refusal=None if row["status"] == "explained" else row.get("cause") or row.get("reason"),
            scores=_scores(row["explainer"], scores),
            graph=_drawing(row.get("data")),
        )
        for row in rows
    )


def _drawing(data: Any) -> tuple[str, ...]:
    """Of a graph; nothing of other data, and of a damaged one."""
    if not isinstance(data, Mapping) or data.get("kind") != "neuron_graph":
        return ()
    try:
        graph, texts = Graph.from_json(data)
    except BadInputError:
        return ()
    return drawn(graph, texts, lines=_GRAPH_LINES)


def _scores(
    explainer: str, found: Mapping[tuple[str, str], list[Mapping[str, Any]]]
) -> tuple[LatentScore, ...]:
    own, borrowed = (found.get((explainer, kind), []) for kind in ("own", "borrowed"))
    shown = []
    for score in own:
        if score["metric"] in _SHOWN and "value" in score and not _narrows(score):
            others = [
                other["value"]
                for other in borrowed
                if "value" in other
                and not _narrows(other)
                and (other["metric"], other["judge"]) == (score["metric"], score["judge"])
            ]
            numbers = (score["value"], score["ci_low"], score["ci_high"])
            title = _SHOWN[score["metric"]]
            shown.append(LatentScore(title, score["judge"], *numbers, others[0] if others else None))
    order = list(_SHOWN.values())
    return tuple(sorted(shown, key=lambda score: order.index(score.title)))


def _narrows(score: Mapping[str, Any]) -> bool:
    """Whether it is of some passages only, or of a judge that knows nothing."""
    return bool(score.get("slice", {}).keys() - _SOURCE) or score["judge"] == "constant"


def _lines(file: Path, checkpoint: str, latent: int, needed: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    if not file.is_file():
        return
    wanted = f'"latent": {latent},'
    try:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if wanted in line:  # most lines need not be parsed
                    row = json.loads(line)
                    if (row["checkpoint"], row["latent"]) == (checkpoint, latent):
                        yield {name: row[name] for name in needed} | row
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunStoreError("cannot be read", where=file, remedy=f"run the suite again ({error})") from None
