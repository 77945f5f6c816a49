"""A run's explanations -> lines in the shape of Neuronpedia's explanation export, with their scores."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.records import CheckpointSummary, EvaluationReport

__all__ = ["neuronpedia_lines"]


def neuronpedia_lines(report: EvaluationReport, explained: Sequence[Mapping[str, Any]]) -> str:
    """One JSON object a line: `modelId`, `layer` (the source), `index`, `description`, `typeName`, `scores`.

    `layer` is `<layer>-<checkpoint>`, as Neuronpedia names a source; where the site has no layer number, the
    checkpoint's name. Latents that could not be explained are left out of a file of explanations; how many
    they are stands in the report. Scores carry their interval in `jsonDetails`, which Neuronpedia shows as
    it is.

    Args:
        report: the run's.
        explained: as from `explanation_rows.explained_rows`.
    """
    checkpoints = {each.name: each for each in report.checkpoints}
    lines = []
    for row in explained:
        checkpoint = checkpoints.get(row["checkpoint"])
        if row.get("status") != "explained" or checkpoint is None or checkpoint.role == "null":
            continue
        lines.append(json.dumps(_line(report, checkpoint, row), allow_nan=False, sort_keys=True))
    return "".join(f"{line}\n" for line in lines)


def _line(report: EvaluationReport, checkpoint: CheckpointSummary, row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "modelId": str(report.subject.get("name", "")),
        "layer": _source(checkpoint),
        "index": str(row["latent"]),
        "description": row.get("text") or "",
        "typeName": f"autointerp_{row['explainer']}",
        "explanationModelName": row.get("model") or "",
        "scores": [_score(score) for score in row.get("scores", ()) if _is_headline(score)],
    }


def _source(checkpoint: CheckpointSummary) -> str:
    numbers = [part for part in checkpoint.site.split(".") if part.isdigit()]
    return f"{numbers[0]}-{checkpoint.name}" if numbers else checkpoint.name


def _is_headline(score: Mapping[str, Any]) -> bool:
    """Of the latent's own explanation, over everything: nulls and slices stay in the run's scores.jsonl."""
    return score.get("value") is not None and score.get("explanation") == "own" and not score.get("slice")


def _score(score: Mapping[str, Any]) -> dict[str, Any]:
    details = {key: score[key] for key in ("ci_low", "ci_high", "ci_method", "n") if key in score}
    return {
        "value": score["value"],
        "explanationScoreTypeName": score["metric"],
        "explanationScoreModelName": score.get("judge", ""),
        "jsonDetails": json.dumps(details, sort_keys=True),
    }
