"""Makes the examples of tasks on data sets; each data set is read once for all tasks on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from autointerp.errors import CorpusError
from autointerp.probe_records import ProbeTask, SkippedTask
from autointerp.probing.drawing import hash_of
from autointerp.probing.hub_rows import HubReader
from autointerp.probing.label_rules import LabelledText, RowFaultError, labelled_texts
from autointerp.probing.labelled_tasks import labelled_task
from autointerp.probing.task_examples import DrawnTask
from autointerp.probing.task_files import RowSource, TaskFile
from autointerp.probing.text_encoder import TextEncoder
from autointerp.sampling.corpora.local_files import refuse_huge

__all__ = ["row_tasks"]

_ROWS_BETWEEN_LOOKS = 256
_SPARE = 4
"""Reading ends when a task has so many times the examples that it needs, of either label."""


@dataclass
class _Gathering:
    """What was read for one task so far."""

    name: str
    file: TaskFile
    task: ProbeTask
    wanted: int
    """Texts of either label that are enough."""
    texts: list[LabelledText] = field(default_factory=list)
    fault: str = ""
    revisions: list[str] = field(default_factory=list)
    row_count: int = 0

    def is_done(self, source: RowSource, had: int) -> bool:
        """Whether it needs no further row of this source, having had so many texts before it."""
        if self.fault:
            return True
        fresh = self.texts[had:]
        counts = [sum(text.label == label for text in fresh) for label in (True, False)]
        return sum(counts) >= self.wanted if source.label is not None else min(counts) >= self.wanted


def row_tasks(
    tasks: Mapping[str, TaskFile], encoder: TextEncoder, reader: HubReader, *, examples: int, seed: int
) -> tuple[list[DrawnTask], list[SkippedTask]]:
    """The examples of tasks whose `task.toml` names rows of data sets.

    Args:
        tasks: name -> file.
        encoder: how texts become tokens.
        reader: what reads the data sets.
        examples: of a task, at most.
        seed: of the draw and of the coins.
    """
    gathering = [
        _Gathering(name, file, file.task(name), wanted=max(_SPARE * examples // 2, 1))
        for name, file in tasks.items()
    ]
    pinned = _Pinned(reader)
    for source in dict.fromkeys(_read_as_one(source) for one in gathering for source in one.file.rows):
        _gather(source, gathering, pinned, seed=seed)
    drawn: list[DrawnTask] = []
    skipped: list[SkippedTask] = []
    for one in gathering:
        task = replace(
            one.task,
            revision=", ".join(dict.fromkeys(filter(None, one.revisions))),
            notes=(f"{one.row_count} rows read",),
        )
        made = (
            SkippedTask(task, one.fault)
            if one.fault
            else labelled_task(task, one.texts, encoder, examples=examples, seed=seed)
        )
        (skipped if isinstance(made, SkippedTask) else drawn).append(made)  # type: ignore[arg-type]
    return drawn, skipped


def _read_as_one(source: RowSource) -> RowSource:
    """What is read: the same rows for tasks that make different texts and labels of them."""
    return source.model_copy(update={"text": None, "label": None})


@dataclass(frozen=True)
class _User:
    """A task that reads a source, and what it had before."""

    gathering: _Gathering
    own: RowSource
    had: int

    def is_done(self) -> bool:
        return self.gathering.is_done(self.own, self.had)


@dataclass
class _Pinned:
    """A reader that asks for the commit of a data set once, and not again where it got no answer."""

    reader: HubReader
    revisions: dict[tuple[str, str | None], str | CorpusError] = field(default_factory=dict)

    def revision(self, source: RowSource) -> str:
        key = (source.dataset, source.revision)
        if key not in self.revisions:
            try:
                self.revisions[key] = self.reader.revision(source)
            except CorpusError as error:
                self.revisions[key] = error
        known = self.revisions[key]
        if isinstance(known, CorpusError):
            raise known
        return known


def _gather(source: RowSource, gathering: Sequence[_Gathering], pinned: _Pinned, *, seed: int) -> None:
    """Read one source for all tasks that have it; what is wrong with it is their fault, not an exception."""
    users = [
        _User(one, own, len(one.texts))
        for one in gathering
        for own in one.file.rows
        if _read_as_one(own) == source and not one.fault
    ]
    waiting = users
    try:
        revision = pinned.revision(source)
        for number, row in enumerate(pinned.reader.rows(source, revision)):
            if not number % _ROWS_BETWEEN_LOOKS:
                waiting = [user for user in waiting if not user.is_done()]
            if not waiting or number >= source.limit:
                break
            for user in waiting:
                name = user.gathering.name
                coin = hash_of("coin", seed, name, source.dataset, source.config, source.split, number)
                _add(user, row, coin)
    except CorpusError as error:
        for user in users:
            user.gathering.fault = user.gathering.fault or str(error)
        return
    for user in users:
        user.gathering.revisions.append(revision)


def _add(user: _User, row: Mapping[str, Any], coin: int) -> None:
    one, own = user.gathering, user.own
    if one.fault or one.file.label is None:
        return
    one.row_count += 1
    template = own.text or one.file.text
    try:
        for text in labelled_texts(row, one.file.label, template=template, source_label=own.label, coin=coin):
            refuse_huge(text.text, where=one.name)
            one.texts.append(text)
    except RowFaultError as fault:
        one.fault = f"{own.dataset}: {fault}; the data set is not as the task's definition says"
