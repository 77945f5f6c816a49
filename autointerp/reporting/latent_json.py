"""LatentView or LatentList -> JSON text for programs: what is not known has no key."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autointerp.reporting.latent_list import LatentList
from autointerp.reporting.latent_view import LatentView

__all__ = ["latent_json"]


def latent_json(found: LatentView | LatentList) -> str:
    """One JSON object, two spaces of indent, keys as in the record.

    Characters beyond ASCII are escaped, so that token texts reach a program whole and a terminal harmless.
    """
    return json.dumps(_without_none(asdict(found)), indent=2, allow_nan=False)


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
