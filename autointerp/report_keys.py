"""How reports, comparisons and gates spell a slice and tell one judge from another; imports nothing heavy."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["judges_of", "slice_key"]

_SPELLING = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
"""Made once: a gate spells every row's slice."""


def slice_key(settings: Mapping[str, Any]) -> str:
    """The one spelling of a slice: JSON with sorted keys, `{}` for the headline slice."""
    return _SPELLING.encode(dict(settings)) if settings else "{}"


def judges_of(explanations: Mapping[str, Any]) -> dict[str, Any]:
    """What decides whether two runs' explanation scores mean the same.

    Args:
        explanations: `EvaluationReport.explanations`, or report.json's key of that name.
    """
    return {key: explanations.get(key) for key in ("methods", "models", "prompts")}
