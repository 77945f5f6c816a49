"""explanations.jsonl and scores.jsonl: a line each latent and explainer, whole or not there."""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import jsonlines

from autointerp.explanation_records import Explanation, Refusal
from autointerp.metrics.explanation_metrics import score_line
from autointerp.scoring.latent_scores import LatentScore

__all__ = ["explanation_row", "lines", "score_rows"]

_ABOUT = ("checkpoint", "latent", "id", "sampling_weight", "explainer", "explanation")


def explanation_row(
    checkpoint: str, latent: int, explainer: str, found: Explanation | Refusal
) -> dict[str, Any]:
    """One line of explanations.jsonl: the explanation, or why there is none."""
    about = {"checkpoint": checkpoint, "latent": latent, "explainer": explainer}
    if isinstance(found, Refusal):
        return about | {"status": "refused", "cause": found.cause, "detail": found.detail}
    return about | {"status": "explained"} | asdict(found)


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """JSON Lines; a number that is not finite is an error."""
    text = io.StringIO()
    with jsonlines.Writer(text, dumps=_dumps) as writer:
        writer.write_all(dict(row) for row in rows)
    return text.getvalue()


def _dumps(row: Any) -> str:
    return json.dumps(row, allow_nan=False, ensure_ascii=False, sort_keys=True)


def score_rows(scores: Iterable[LatentScore]) -> list[dict[str, Any]]:
    """Lines of scores.jsonl: one each latent, explainer and kind of explanation, all its scores in it."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for score in scores:
        line = score_line(score)
        about = tuple(line.pop(name) for name in _ABOUT)
        grouped.setdefault(about, []).append(line)
    return [dict(zip(_ABOUT, about, strict=True)) | {"scores": own} for about, own in grouped.items()]
