"""explanations.jsonl and scores.jsonl: a line each latent and explainer, whole or not there."""

import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

import jsonlines

from autointerp.explanation_records import Explanation, Refusal
from autointerp.metrics.explanation_metrics import score_line
from autointerp.scoring.latent_scores import LatentScore

__all__ = ["explanation_row", "lines", "score_rows", "undefined_row"]

_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029]")
"""What JSON allows in a string, and some readers take for a line's end."""
_ABOUT = ("checkpoint", "latent", "id", "sampling_weight", "explainer", "explanation")


def explanation_row(
    checkpoint: str, latent: int, explainer: str, found: Explanation | Refusal
) -> dict[str, Any]:
    """One line of explanations.jsonl: the explanation, or why there is none."""
    about = {"checkpoint": checkpoint, "latent": latent, "explainer": explainer}
    if isinstance(found, Refusal):
        return about | {"status": "refused", "cause": found.cause, "detail": found.detail}
    return about | {"status": "explained"} | {each.name: getattr(found, each.name) for each in fields(found)}


def undefined_row(checkpoint: str, latent: int, explainer: str, reason: str) -> dict[str, Any]:
    """The line of a sampled latent that was not explained, since it fires in too few documents."""
    about = {"checkpoint": checkpoint, "latent": latent, "explainer": explainer}
    return about | {"status": "undefined", "reason": reason}


def lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """JSON Lines that every reader splits alike; half surrogate pairs become U+FFFD.

    Raises:
        ValueError: a number is not finite.
    """
    text = io.StringIO()
    with jsonlines.Writer(text, dumps=_dumps) as writer:
        writer.write_all(dict(row) for row in rows)
    return text.getvalue()


def _dumps(row: Any) -> str:
    text = json.dumps(row, allow_nan=False, ensure_ascii=False, sort_keys=True)
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def score_rows(scores: Iterable[LatentScore]) -> list[dict[str, Any]]:
    """Lines of scores.jsonl: one each latent, explainer and kind of explanation, all its scores in it."""
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    levels: dict[str, float] = {}
    for score in scores:
        line = score_line(score)
        about = tuple(line.pop(name) for name in _ABOUT)
        if "ci_level" in line:
            levels["ci_level"] = line.pop("ci_level")  # the same for all of a run
        grouped.setdefault(about, []).append(line)
    return [
        dict(zip(_ABOUT, about, strict=True)) | levels | {"scores": own} for about, own in grouped.items()
    ]
