"""Options that several verbs of the command line share."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "BaselineOption",
    "CheckpointOption",
    "DeviceOption",
    "DollarOption",
    "OfflineOption",
    "OtherJudgeOption",
    "OutOption",
    "SetOption",
    "TokenOption",
]

BaselineOption = Annotated[
    Path | None, typer.Option("--baseline", help="A finished run to compare with: the last release's.")
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Run directory; running again on it resumes.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1 ...; default: the suite's.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override: section.key=value (e.g. corpus.evaluation_tokens=50000)."),
]
CheckpointOption = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        help="A further checkpoint, beside the suite's: a file, a folder, a pattern ('sweep/**' finds all "
        "below), hf:owner/name/path@revision, or your own package.module:factory. Repeatable.",
    ),
]

OfflineOption = Annotated[
    bool,
    typer.Option("--offline", help="Take LLM answers from the run's own llm_replies.sqlite, and ask nobody."),
]
DollarOption = Annotated[
    float | None,
    typer.Option(
        "--budget-usd",
        help="Stop, resumably, before LLM calls of the whole run cost more; needs llm.prices in the suite.",
    ),
]
OtherJudgeOption = Annotated[
    bool,
    typer.Option("--allow-other-judge", help="Compare explanation scores of different judges all the same."),
]
TokenOption = Annotated[
    int | None,
    typer.Option("--budget-tokens", help="The same in tokens, prompt and reply together."),
]
