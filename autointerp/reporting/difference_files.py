"""A comparison of two runs -> a file to be looked at: a page, JSON or Markdown, as its name's end says."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autointerp.atomic_files import reported, write_atomically
from autointerp.errors import RunStoreError
from autointerp.reporting.difference_document import difference_document
from autointerp.reporting.difference_tasks import task_lines
from autointerp.reporting.html_file import document_html
from autointerp.reporting.run_differences import RunDifferences, differences_json, differences_markdown

__all__ = ["differences_text", "require_known_suffix", "write_differences"]

_SUFFIXES = (".html", ".json", ".md")


def require_known_suffix(target: Path) -> None:
    """Before anything is computed.

    Raises:
        RunStoreError: the file's name does not say what to write.
    """
    if target.suffix.lower() not in _SUFFIXES:
        raise RunStoreError(
            "does not say what to write", where=f"--out {target}", remedy="end it in .html, .json or .md"
        )


def differences_text(
    found: RunDifferences,
    matched: Sequence[Mapping[str, Any]] | None = None,
    lines: Sequence[str] = (),
    *,
    suffix: str,
) -> str:
    """The content of such a file.

    Args:
        found: the differences.
        matched: latents of both, as `matching_json` gives them; None where they were not asked for.
        lines: the same in words, for Markdown.
        suffix: `.html`, `.json` or `.md`.
    """
    content = differences_json(found) | ({} if matched is None else {"latents": list(matched)})
    as_json = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if suffix == ".json":
        return as_json
    if suffix == ".md":
        return differences_markdown(found, (*task_lines(found), *lines))
    return document_html(difference_document(found, matched), report_text=as_json)


def write_differences(
    found: RunDifferences,
    target: Path,
    matched: Sequence[Mapping[str, Any]] | None = None,
    lines: Sequence[str] = (),
) -> None:
    """Write the file, wholly or not at all.

    Raises:
        RunStoreError: it cannot be written, or its name does not say what to write.
    """
    require_known_suffix(target)
    content = differences_text(found, matched, lines, suffix=target.suffix.lower()).encode()
    with reported(target):
        if target.exists() and not target.is_file():
            target.write_bytes(content)
        else:
            write_atomically(target.resolve(), content)
