"""Finishes a task: enough examples or a reason why not, and how much one token gives away."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from autointerp.probe_records import ProbeData, ProbeTask, ProbeText, SkippedTask, TaskExamples
from autointerp.probing.matching import Candidates
from autointerp.probing.token_baseline import LEXICAL_AUROC, identity_auroc, presence_auroc

__all__ = ["DrawnTask", "finished_task", "joined"]

_FEWEST = 100
"""Examples of either label; with fewer, the best of thousands of latents is the best by luck."""
_FEWEST_ON_A_SIDE = 20


@dataclass(frozen=True, eq=False)
class DrawnTask:
    """A task with examples, each with a text of its own."""

    task: ProbeTask
    examples: Candidates
    texts: tuple[ProbeText, ...]
    """Of each example."""


def finished_task(
    task: ProbeTask, drawn: Candidates, texts: Sequence[ProbeText | None], *, examples: int
) -> DrawnTask | SkippedTask:
    """The task with its single-token AUROC, or why it cannot be probed here.

    Args:
        task: the task.
        drawn: its examples.
        texts: of each example.
        examples: how many were asked for; of a small number half are enough.
    """
    fewest = min(_FEWEST, examples // 2)
    on_a_side = min(_FEWEST_ON_A_SIDE, examples // 10)
    counts = [
        int(((drawn.label == label) & (drawn.is_test == side)).sum())
        for side in (False, True)
        for label in (False, True)
    ]
    each = min(counts[0] + counts[2], counts[1] + counts[3])
    if each < fewest or min(counts) < max(on_a_side, 1):
        return SkippedTask(
            task,
            f"too few examples here: {each} of a label (train {min(counts[:2])}, test {min(counts[2:])}); "
            f"{fewest} are needed, {max(on_a_side, 1)} on each side",
        )
    read = tuple(text for text in texts if text is not None)
    tokens = [text.tokens for text in read]
    if task.pooling == "marked":
        area = identity_auroc(tokens, drawn.position, drawn.label, drawn.is_test)
    else:
        last = np.array([len(text) - 1 for text in tokens], dtype=np.int64)
        areas = [presence_auroc(tokens, drawn.label, drawn.is_test)]
        if task.pooling == "last":
            areas.append(identity_auroc(tokens, last, drawn.label, drawn.is_test))
        area = max((one for one in areas if one is not None), default=None)
    documents = len({text.group for text in read})
    task = replace(
        task,
        single_token_auroc=area,
        is_lexical=area is not None and area > LEXICAL_AUROC,
        notes=(*task.notes, f"{len(read)} examples from {documents} groups"),
    )
    return DrawnTask(task, drawn, read)


def joined(drawn: Iterable[DrawnTask], skipped: Sequence[SkippedTask], *, first_scored: int) -> ProbeData:
    """All tasks over one list of texts, each text once, in the order of their ids."""
    tasks = tuple(drawn)
    by_id = {text.id: text for task in tasks for text in task.texts}
    texts = tuple(by_id[name] for name in sorted(by_id))
    index = {text.id: place for place, text in enumerate(texts)}
    return ProbeData(
        texts=texts,
        tasks=tuple(
            TaskExamples(
                task=one.task,
                text=np.array([index[text.id] for text in one.texts], dtype=np.int64),
                position=one.examples.position,
                label=one.examples.label,
                is_test=one.examples.is_test,
            )
            for one in tasks
        ),
        skipped=tuple(skipped),
        first_scored=first_scored,
    )
