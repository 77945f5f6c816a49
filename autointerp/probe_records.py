"""What travels from probe tasks to probes: tasks, texts as token ids, and labelled examples in them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Int

__all__ = ["ProbeData", "ProbeTask", "ProbeText", "SkippedTask", "TaskExamples"]


@dataclass(frozen=True)
class ProbeTask:
    """One binary question, as the report shows it."""

    name: str
    """`stdlib/in_docstring`: the set, and the folder in it."""
    question: str
    label_rule: str
    """How a label is made, exactly enough to make it again."""
    source: str
    licence: str
    split_rule: str
    """What goes to train and what to test, and what is kept on one side."""
    pooling: Literal["last", "mean", "max", "marked"]
    """What stands for an example: the pre-activations of the text's last token, their mean or maximum over
    its tokens, or those of the marked token."""
    single_token_auroc: float | None = None
    """The best that the identity of one token can do on the test part; None where not measured."""
    is_lexical: bool = False
    """Whether one token tells too much (AUROC above .8): left out of the headline mean."""
    choices: tuple[str, ...] = ()
    """What the task's source does not state, and we chose."""
    unverified: tuple[str, ...] = ()
    """Columns, splits or rules that were not read in a source."""
    revision: str = ""
    """Commit of the hub's data set that the examples come from; empty where none is known."""
    notes: tuple[str, ...] = ()
    """What was counted when the examples were made here: documents, positives without a match, ..."""


@dataclass(frozen=True)
class ProbeText:
    """One text as the subject reads it; several tasks may ask about the same one."""

    id: str
    """The same in every run: a hash of its content."""
    tokens: tuple[int, ...]
    """Ids, BOS included if there is one; no padding."""
    group: str
    """All texts of a group lie on one side of every split: the document they come from."""


@dataclass(frozen=True, eq=False)
class TaskExamples:
    """A task's labelled examples."""

    task: ProbeTask
    text: Int[np.ndarray, " probe_example"]
    """Indices into `ProbeData.texts`."""
    position: Int[np.ndarray, " probe_example"]
    """Index of the marked token in its text (of a longer name, its last token); -1 where pooling is not
    `marked`."""
    label: Bool[np.ndarray, " probe_example"]
    is_test: Bool[np.ndarray, " probe_example"]


@dataclass(frozen=True)
class SkippedTask:
    """A task that was asked for and cannot be had here, and why."""

    task: ProbeTask
    reason: str


@dataclass(frozen=True, eq=False)
class ProbeData:
    """All that is probed in a run."""

    texts: tuple[ProbeText, ...]
    tasks: tuple[TaskExamples, ...]
    skipped: tuple[SkippedTask, ...] = ()
    """Tasks whose data set is not here; shown, never left out in silence."""
    first_scored: int = 1
    """Tokens before this one in every text (BOS) are not pooled over."""
