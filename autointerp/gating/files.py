"""Where a policy is found, and where a verdict is written."""

import json
import os
from pathlib import Path

from autointerp.atomic_files import reported, write_atomically
from autointerp.bundled import bundled_path
from autointerp.gating.badge import badge_svg
from autointerp.gating.github import annotations
from autointerp.gating.junit import junit_xml
from autointerp.gating.verdict import Verdict, verdict_json
from autointerp.gating.words import markdown

__all__ = ["policy_path", "write_verdict"]


def policy_path(name: str) -> Path:
    """A file, or a shipped policy by its bare name.

    Raises:
        BadInputError: a bare name, and no such policy is shipped.
    """
    if "/" in name or "\\" in name or name.endswith(".toml") or Path(name).is_file():
        return Path(name)
    return bundled_path("policies", f"{name}.toml")


def write_verdict(verdict: Verdict, out: Path | None) -> list[str]:
    """Write the verdict's files, and what GitHub Actions reads if this runs there.

    Args:
        verdict: of a run.
        out: folder for verdict.json, junit.xml, verdict.md and badge.svg; None: none of them.

    Returns:
        Lines for standard output: workflow commands within GitHub Actions, else none.
    """
    if out is not None:
        with reported(out):
            out.mkdir(parents=True, exist_ok=True)
            for name, text in {
                "verdict.json": json.dumps(verdict_json(verdict), indent=2) + "\n",
                "junit.xml": junit_xml(verdict),
                "verdict.md": markdown(verdict),
                "badge.svg": badge_svg(verdict),
            }.items():
                write_atomically(out / name, text.encode())
    if os.environ.get("GITHUB_ACTIONS") != "true":
        return []
    summary = os.environ.get("GITHUB_STEP_SUMMARY")
    if summary:
        with reported(Path(summary)), Path(summary).open("a", encoding="utf-8") as file:
            file.write(markdown(verdict))
    return annotations(verdict)
