"""Probe data -> tasks that can be probed, in blocks that fit into memory, and why others cannot."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from autointerp.errors import SuiteError
from autointerp.metrics.probe_pooling import ItemTable, item_table
from autointerp.metrics.probe_search import ProbedTask
from autointerp.probe_records import ProbeData, TaskExamples

__all__ = ["TaskBlock", "checked", "data_hash", "example_table", "lack_of", "task_blocks"]

_VECTOR_VALUES = 1 << 27
"""Of one block's token vectors, all sites together: 512 MB in float32. A single task may exceed it."""


@dataclass(frozen=True, eq=False)
class TaskBlock:
    """Tasks for which the subject is run together."""

    table: ItemTable
    tasks: tuple[ProbedTask, ...]
    groups: tuple[tuple[str, ...], ...]
    """For each task, of every example the text's group."""

    @property
    def key(self) -> str:
        """Another one where it holds other tasks."""
        names = "\0".join(task.name for task in self.tasks)
        return hashlib.sha256(names.encode()).hexdigest()[:12]


def checked(data: ProbeData) -> ProbeData:
    """The same data.

    Raises:
        SuiteError: a task has arrays of different length, names a text that is not there, or has texts of one
            group on both sides of its split.
    """
    for task in data.tasks:
        lengths = {len(task.text), len(task.position), len(task.label), len(task.is_test)}
        if len(lengths) > 1:
            raise SuiteError("examples have columns of different length", where=task.task.name)
        if len(task.text) and not 0 <= task.text.min() <= task.text.max() < len(data.texts):
            raise SuiteError("an example names a text that is not there", where=task.task.name)
        sides = [{data.texts[text].group for text in task.text[side]} for side in _sides(task)]
        if common := sides[0] & sides[1]:
            raise SuiteError(
                f"{len(common)} groups have texts both in train and in test ({min(common)!r}, for one)",
                where=task.task.name,
                remedy="keep all texts of a group on one side",
            )
    return data


def _sides(task: TaskExamples) -> tuple[np.ndarray, np.ndarray]:
    return ~task.is_test, task.is_test


def lack_of(task: TaskExamples) -> str:
    """Why a task cannot be probed; empty if it can."""
    for side, is_side in zip(("train", "test"), _sides(task), strict=True):
        positive = int(task.label[is_side].sum())
        if not 0 < positive < int(is_side.sum()):
            return (
                f"{int(is_side.sum())} {side} examples, {positive} of them positive: both labels are needed"
            )
    return ""


def task_blocks(data: ProbeData, tasks: Sequence[TaskExamples], *, width: int) -> Iterator[TaskBlock]:
    """Blocks of tasks, in order.

    Args:
        data: the texts.
        tasks: those that can be probed.
        width: numbers that are kept of a token, all sites together.
    """
    block: list[TaskExamples] = []
    texts: set[int] = set()
    for task in tasks:
        grown = texts | set(task.text.tolist())
        room = sum(len(data.texts[text].tokens) for text in grown) * width
        if block and room > _VECTOR_VALUES:
            yield _block(data, block)
            block, grown = [], set(task.text.tolist())
        block.append(task)
        texts = grown
    if block:
        yield _block(data, block)


def _block(data: ProbeData, tasks: Sequence[TaskExamples]) -> TaskBlock:
    table = item_table(data, tasks)
    probed = tuple(
        ProbedTask(task.task.name, item, task.label, task.is_test)
        for task, item in zip(tasks, table.of_task, strict=True)
    )
    groups = tuple(tuple(data.texts[text].group for text in task.text.tolist()) for task in tasks)
    return TaskBlock(table, probed, groups)


def data_hash(data: ProbeData, settings: object) -> str:
    """What shards are named after: another hash where texts, labels, splits or settings are others."""
    digest = hashlib.sha256(repr(settings).encode())
    for text in data.texts:
        digest.update(f"{text.id}\0{text.group}\0".encode())
        digest.update(np.array(text.tokens, dtype=np.int64).tobytes())
    for task in data.tasks:
        digest.update(f"{task.task.name}\0{task.task.pooling}\0".encode())
        for column in (task.text, task.position, task.label, task.is_test):
            digest.update(np.ascontiguousarray(column, dtype=np.int64).tobytes())
    return digest.hexdigest()[:16]


def example_table(data: ProbeData) -> pl.DataFrame:
    """Every test example: `task`, `example` (its number in the task), `unit`, `cluster`, `is_lexical`."""
    frames = []
    for task in data.tasks:
        examples = np.flatnonzero(task.is_test)
        texts = [data.texts[text] for text in task.text[examples].tolist()]
        places = zip(texts, task.position[examples].tolist(), examples.tolist(), strict=True)
        frames.append(
            pl.DataFrame(
                {
                    "task": pl.Series([task.task.name] * len(examples), dtype=pl.String),
                    "example": examples,
                    "unit": pl.Series(
                        [
                            _unit(task.task.name, text.id, position, number)
                            for text, position, number in places
                        ],
                        dtype=pl.String,
                    ),
                    "cluster": pl.Series([text.group for text in texts], dtype=pl.String),
                    "is_lexical": pl.Series([task.task.is_lexical] * len(examples), dtype=pl.Boolean),
                }
            )
        )
    return pl.concat(frames) if frames else pl.DataFrame()


def _unit(task: str, text: str, position: int, number: int) -> str:
    """Of content alone, and another one for each example of a task."""
    place = position if position >= 0 else number
    return hashlib.blake2b(f"{task}\0{text}\0{place}".encode(), digest_size=8).hexdigest()
