"""Makes the examples of tasks on Python source: one pool of contexts, in which each task marks places."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from autointerp.probe_records import ProbeTask, ProbeText, SkippedTask
from autointerp.probing.drawing import hash_of, mixed, ranks_within
from autointerp.probing.matching import PER_TEXT, Candidates, draw_examples
from autointerp.probing.source_features import FACTS, FEATURES
from autointerp.probing.source_files import LibraryFiles, library_files
from autointerp.probing.source_table import SourceTable, source_table
from autointerp.probing.task_examples import DrawnTask, finished_task
from autointerp.probing.task_files import ContextLabels, MarkLabels, TaskFile
from autointerp.probing.text_encoder import TextEncoder

__all__ = ["source_tasks"]

_POOL_TOKENS = 131_072
"""What the subject reads for all tasks on source together: 2048 contexts of 64 tokens, 1024 of 128."""
_BY_NEED = 0.75
"""Share of the pool that is chosen by what tasks lack; the rest by hash alone."""
_FROM_TESTS = 1 / 8
"""Share that comes from the library's own tests, which only tasks about tests use."""
_ENOUGH = 160
"""Pairs that every task should have before any gets more."""
_SPARE = 1.5
"""A task looks for so many times the pairs that it wants: not every one finds its partner in the pool."""
_PER_DOCUMENT = 16


@dataclass(frozen=True, eq=False)
class _Asked:
    """A task, with everything that could be an example of it."""

    name: str
    task: ProbeTask
    candidates: Candidates


def source_tasks(
    wanted: Sequence[str], every: Mapping[str, TaskFile], encoder: TextEncoder, *, examples: int, seed: int
) -> tuple[list[DrawnTask], list[SkippedTask]]:
    """The examples of the wanted tasks.

    The pool is the same whichever tasks are wanted, so that a task's examples do not depend on the others.

    Args:
        wanted: names of tasks.
        every: name -> file of all tasks on source that share the pool.
        encoder: how contexts are cut.
        examples: of a task, at most.
        seed: of the draw.

    Raises:
        CorpusError: the library is not here as source, or the tokenizer cannot be used.
    """
    labels = {name: file.marks or file.contexts for name, file in every.items()}
    sought = sorted({label.seek for label in labels.values() if label is not None and label.seek})
    files = library_files(sought)
    table = source_table(files.library, files.tests, encoder)
    asked = [
        _Asked(name, every[name].task(name), _candidates(table, label, seed))
        for name, label in labels.items()
        if label is not None
    ]
    pool = _pool(table, [one.candidates for one in asked], examples=examples, seed=seed)
    texts = {int(context): table.text(int(context)) for context in np.flatnonzero(pool)}
    readable = np.array([texts.get(context) is not None for context in range(len(pool))], dtype=bool)
    notes = _notes(files, table, int(pool.sum()), int(pool.sum() - readable.sum()))
    drawn: list[DrawnTask] = []
    skipped: list[SkippedTask] = []
    for one in asked:
        if one.name in wanted:
            made = _drawn(one, readable, texts, examples=examples, notes=notes)
            if isinstance(made, SkippedTask):
                reason = f"{made.reason}; {files.no_tests}" if files.no_tests else made.reason
                skipped.append(replace(made, reason=reason))
            else:
                drawn.append(made)
    return drawn, skipped


def _candidates(table: SourceTable, labels: MarkLabels | ContextLabels, seed: int) -> Candidates:
    return _marked(table, labels, seed) if isinstance(labels, MarkLabels) else _whole(table, labels, seed)


def _feature(table: SourceTable, name: str) -> Bool[np.ndarray, " mark"]:
    return table.features[:, FEATURES.index(name)]


def _marked(table: SourceTable, labels: MarkLabels, seed: int) -> Candidates:
    asked = table.features[:, [FEATURES.index(kind) for kind in labels.kinds]].any(axis=1)
    if labels.within is not None:
        asked &= _feature(table, labels.within)
    if labels.without is not None:
        asked &= ~_feature(table, labels.without)
    if labels.corpus == "library":
        asked &= ~table.from_tests[table.context]
    places = np.flatnonzero(asked)
    context, position = table.context[places], table.position[places]
    return Candidates(
        context,
        position,
        table.token[places],
        _feature(table, labels.positive)[places],
        table.is_test[context],
        mixed(table.key[context] ^ hash_of("mark", seed), position),
    )


def _whole(table: SourceTable, labels: ContextLabels, seed: int) -> Candidates:
    if labels.holds is not None:
        count = np.bincount(table.context[_feature(table, labels.holds)], minlength=len(table.key))
        label = count > 0
    else:
        label = table.facts[:, FACTS.index(str(labels.file_is))]
    asked = np.ones(len(label), dtype=bool) if labels.corpus == "both" else ~table.from_tests
    context = np.flatnonzero(asked)
    return Candidates(
        context,
        np.full(len(context), -1),
        np.zeros(len(context), dtype=np.int64),
        label[context],
        table.is_test[context],
        mixed(table.key[context] ^ hash_of("context", seed), np.zeros(len(context), dtype=np.int64)),
    )


def _pool(
    table: SourceTable, candidates: Sequence[Candidates], *, examples: int, seed: int
) -> Bool[np.ndarray, " context"]:
    """Contexts for all tasks: most by what the tasks still need, the others by hash alone."""
    count = len(table.key)
    limit = min(_POOL_TOKENS // table.encoder.options.context_length, count)
    order = np.argsort(mixed(table.key ^ hash_of("pool", seed), np.zeros(count, dtype=np.int64)))
    useful = np.stack([_useful_counts(each, count) for each in candidates], axis=1)[order]
    useful = useful.astype(np.float32)
    from_tests = table.from_tests[order]
    wanted = min(examples / 2, _ENOUGH) * _SPARE
    missing = np.full(len(candidates), wanted, dtype=np.float32)
    chosen = np.zeros(count, dtype=bool)
    reserved = min(round(limit * _FROM_TESTS), int(from_tests.sum()))
    for turn in range(round(limit * _BY_NEED)):
        # What one more example is worth falls as a task's need is met, so that no task is starved.
        worth = useful @ (np.maximum(missing, 0) / wanted) ** 3
        worth[chosen | (from_tests != (turn < reserved))] = -1.0
        best = int(np.argmax(worth))
        chosen[best] = True
        missing -= useful[best]
    others = np.flatnonzero(~chosen & ~from_tests)
    chosen[others[: limit - int(chosen.sum())]] = True
    pool = np.zeros(count, dtype=bool)
    pool[order[chosen]] = True
    return pool


def _useful_counts(candidates: Candidates, contexts: int) -> Int[np.ndarray, " context"]:
    """What every context gives to the pairs of a task: candidates whose token lacks their label more.

    A pair is a positive and a negative with one token; the scarcer of the two has to be looked for.
    """
    key = candidates.token * 2 + candidates.is_test
    size = int(key.max()) + 1 if len(key) else 1
    positives = np.bincount(key[candidates.label], minlength=size)
    negatives = np.bincount(key[~candidates.label], minlength=size)
    scarce = (positives <= negatives)[key] == candidates.label
    paired = np.minimum(positives, negatives)[key] > 0
    return np.minimum(np.bincount(candidates.text[scarce & paired], minlength=contexts), PER_TEXT)


def _drawn(
    asked: _Asked,
    readable: Bool[np.ndarray, " context"],
    texts: Mapping[int, ProbeText | None],
    *,
    examples: int,
    notes: tuple[str, ...],
) -> DrawnTask | SkippedTask:
    inside = asked.candidates.take(readable[asked.candidates.text])
    if asked.task.pooling != "marked":
        inside = _few_of_a_document(inside, texts)
    drawn = draw_examples(inside, examples=examples)
    dropped = drawn.positive_count - drawn.matched_count
    if asked.task.pooling == "marked":
        told = f"of {drawn.positive_count} positives {dropped} had no negative with the same token"
        notes = (*notes, told)
    return finished_task(
        replace(asked.task, notes=notes),
        drawn.examples,
        [texts[context] for context in drawn.examples.text.tolist()],
        examples=examples,
    )


def _few_of_a_document(candidates: Candidates, texts: Mapping[int, ProbeText | None]) -> Candidates:
    """Where contexts are the examples, no document gives many of either label."""
    groups = [text.group if text is not None else "" for text in map(texts.get, candidates.text.tolist())]
    _, index = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
    return candidates.take(ranks_within((candidates.label, index), candidates.order) < _PER_DOCUMENT)


def _notes(files: LibraryFiles, table: SourceTable, pooled: int, unverified: int) -> tuple[str, ...]:
    read = f"{len(files.library)} modules and {len(files.tests)} tests of the library read"
    unparsed = f"{table.skipped_count} of them cannot be parsed"
    return (
        f"{read}, {unparsed}; {pooled} contexts drawn for all tasks on source",
        f"{unverified} contexts left out because their tokens' places cannot be verified",
    )
