"""Reads `task.toml`: what a probe task asks, how its labels are made, and from what."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from autointerp.errors import SuiteError
from autointerp.probe_records import ProbeTask
from autointerp.probing.label_rules import LabelRule
from autointerp.probing.source_features import FACTS, FEATURES, UNIT_KINDS
from autointerp.sections.section import Section

__all__ = ["ContextLabels", "MarkLabels", "RowSource", "TaskFile", "read_task_file"]

_LARGEST_BYTES = 2**20


class MarkLabels(Section):
    """Marked tokens in Python source: which units are asked about, and which of them are positive."""

    kinds: tuple[str, ...] = Field(min_length=1)
    """Kinds of units (`UNIT_KINDS`) that are asked about."""
    positive: str
    """Feature that makes a unit positive; all others are negative."""
    within: str | None = None
    """Only units that have this feature, too."""
    without: str | None = None
    """Only units that do not have this one."""
    corpus: Literal["library", "both"] = "library"
    """`both`: the library's own tests, too, where they are installed."""
    seek: str | None = None
    """Text that rare positives come with; modules that have it are looked at beyond the first ones."""

    @model_validator(mode="after")
    def _names_are_known(self) -> "MarkLabels":
        _refuse_unknown(self.kinds, UNIT_KINDS, "kind")
        named = (self.positive, self.within, self.without)
        _refuse_unknown([name for name in named if name is not None], FEATURES, "feature")
        return self


class ContextLabels(Section):
    """Whole contexts of Python source; exactly one of `holds` and `file_is`."""

    holds: str | None = None
    """Positive if a unit with this feature lies in the context: what is visible decides."""
    file_is: str | None = None
    """Positive if this is true of the whole file (`FACTS`), whether or not the context shows it."""
    corpus: Literal["library", "both"] = "library"
    """As in `MarkLabels`."""
    seek: str | None = None
    """As in `MarkLabels`."""

    @model_validator(mode="after")
    def _one_rule(self) -> "ContextLabels":
        if (self.holds is None) == (self.file_is is None):
            raise ValueError("give either `holds` or `file_is`")
        _refuse_unknown([self.holds] if self.holds else [], FEATURES, "feature")
        _refuse_unknown([self.file_is] if self.file_is else [], FACTS, "fact")
        return self


class RowSource(Section):
    """Rows of a data set that `datasets` loads."""

    dataset: str = Field(min_length=1)
    """Name on the hub, or a loader (`json`, `csv`) for `data_files`."""
    config: str | None = None
    split: str = "train"
    data_files: str | None = None
    """A file: its address outside the hub, or a pattern of files in the data set."""
    revision: str | None = None
    """Commit, or a branch: its newest commit is pinned when the task is used. None: the main branch."""
    limit: int = Field(default=20_000, ge=1, le=10_000_000)
    """So many rows are read, the first ones."""
    text: str | None = None
    """Template of these rows alone."""
    label: bool | None = None
    """Of all these rows, for the rule `source`."""


class TaskFile(Section):
    """A whole `task.toml`.

    `marks`, `contexts` or `rows` say where examples are from; else they lie in `examples.jsonl` beside it.
    """

    question: str = Field(min_length=1)
    label_rule: str = Field(min_length=1)
    source: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    split_rule: str = Field(min_length=1)
    pooling: Literal["last", "mean", "max", "marked"]
    choices: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    seen_in: tuple[str, ...] = ()
    """Where columns, splits and rules were read."""
    marks: MarkLabels | None = None
    contexts: ContextLabels | None = None
    rows: tuple[RowSource, ...] = ()
    text: str | None = None
    """Template of a row's text: `{column}`, `{column.field}`, and `{answer}` of the rules that draw one."""
    label: LabelRule | None = None
    """How a row's label is made."""

    @model_validator(mode="after")
    def _one_origin(self) -> "TaskFile":
        if sum([self.marks is not None, self.contexts is not None, bool(self.rows)]) > 1:
            raise ValueError("give one of [marks], [contexts] and [[rows]]")
        if bool(self.rows) != (self.label is not None):
            raise ValueError("[[rows]] and [label] belong together")
        if self.marks is not None and self.pooling != "marked":
            raise ValueError('with [marks], pooling is "marked"')
        if self.contexts is not None and self.pooling == "marked":
            raise ValueError('with [contexts], pooling is "last", "mean" or "max"')
        return self

    def task(self, name: str) -> ProbeTask:
        """The task as the report shows it, before anything is measured."""
        return ProbeTask(
            name=name,
            question=self.question,
            label_rule=self.label_rule,
            source=self.source,
            licence=self.licence,
            split_rule=self.split_rule,
            pooling=self.pooling,
            choices=self.choices,
            unverified=self.unverified,
        )


def read_task_file(path: Path) -> TaskFile:
    """The task in a TOML file.

    Raises:
        SuiteError: unreadable, no TOML, or no task; one line says which key and what to do.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise SuiteError("is larger than 1 MiB", where=path, remedy="is it the right file?")
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"cannot be read ({error.strerror})", where=path) from None
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, too deep
        raise SuiteError(f"is no TOML: {error}", where=path) from None
    try:
        return TaskFile.model_validate(content)
    except ValidationError as error:
        raise SuiteError(_first_fault(error), where=path, remedy="see docs/probes.md") from None


def _first_fault(error: ValidationError) -> str:
    fault: Any = error.errors()[0]
    place = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), TaskFile.model_fields, n=2)
        message = f"unknown key{' (' + ' or '.join(near) + '?)' if near else ''}"
    return f"{place}: {message}" if place else message


def _refuse_unknown(names: Any, known: tuple[str, ...], what: str) -> None:
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3) or sorted(known)
            raise ValueError(f"unknown {what} {name!r}; there are: {', '.join(near)}")
