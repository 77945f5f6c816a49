"""Events of a run: what one of them holds, and the reading of run.jsonl."""

import contextlib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["new_event", "read_events"]

_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL")


def read_events(path: Path) -> list[dict[str, Any]]:
    """Events of a run.jsonl; lines that are no JSON object are passed over, no file means no events."""
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                events.append(event)
    return events


def new_event(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """`{"time", "event": kind, **fields}`, with secrets of the environment blotted out of texts."""
    if fields.keys() & {"time", "event"}:
        raise ValueError(f"an event's own fields cannot be called time or event, got {sorted(fields)}")
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return {"time": now, "event": kind} | {name: _without_secrets(value) for name, value in fields.items()}


def _without_secrets(value: Any) -> Any:
    """Error texts of servers sometimes quote the key that they refused."""
    if isinstance(value, Mapping):
        return {name: _without_secrets(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(part) for part in value]
    if isinstance(value, str):
        for name, secret in os.environ.items():
            is_secret = any(word in name.upper() for word in _SECRET_WORDS)
            if is_secret and len(secret) >= 8 and secret in value:
                value = value.replace(secret, "[secret]")
    return value
