"""Turns labelled texts into a task's examples: drawn, cut to one context, the marked token found."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autointerp.probe_records import ProbeTask, ProbeText, SkippedTask
from autointerp.probing.drawing import hash_of, is_test_group
from autointerp.probing.label_rules import LabelledText
from autointerp.probing.matching import Candidates, draw_examples
from autointerp.probing.task_examples import DrawnTask, finished_task
from autointerp.probing.text_encoder import TextEncoder, byte_offsets
from autointerp.sampling.corpus import document_of

__all__ = ["labelled_task"]

_CHARACTERS_A_TOKEN = 32
"""More characters than a token has on average, whatever the text: what is beyond is not tokenised."""
_AFTER_THE_MARK = 32
"""Characters behind a marked span that are tokenised with it, so that it is cut as in running text."""


def labelled_task(
    task: ProbeTask, labelled: Sequence[LabelledText], encoder: TextEncoder, *, examples: int, seed: int
) -> DrawnTask | SkippedTask:
    """The task with at most `examples` of the texts, half of them positive.

    A text that is too long loses its beginning where its last token or a marked one stands for it, since the
    subject reads what comes before, else its end. Of a marked text, what follows the mark is not read.
    """
    distinct = list(dict.fromkeys(labelled))
    candidates = _candidates(distinct, seed=seed)
    drawn = draw_examples(candidates, examples=examples).examples
    texts: list[ProbeText] = []
    positions: list[int] = []
    kept: list[int] = []
    for place, index in enumerate(drawn.text.tolist()):
        found = _read(distinct[index], encoder, keep_end=task.pooling == "last")
        if found is not None:
            text, position = found
            kept.append(place)
            texts.append(text)
            positions.append(position)
    chosen = drawn.take(np.asarray(kept, dtype=np.int64))
    notes = [f"{len(labelled)} labelled texts read, {len(labelled) - len(distinct)} of them repeated"]
    if len(kept) < len(drawn.text):
        notes.append(
            f"{len(drawn.text) - len(kept)} texts left out: empty, or their tokens' places are unclear"
        )
    return finished_task(
        replace(task, notes=(*task.notes, *notes)),
        replace(chosen, position=np.asarray(positions, dtype=np.int64)),
        texts,
        examples=examples,
    )


def _candidates(labelled: Sequence[LabelledText], *, seed: int) -> Candidates:
    count = len(labelled)
    sides = [is_test_group(one.group) if one.is_test is None else one.is_test for one in labelled]
    return Candidates(
        np.arange(count),
        np.full(count, -1),
        np.zeros(count, dtype=np.int64),
        np.array([one.label for one in labelled], dtype=bool),
        np.array(sides, dtype=bool),
        np.array([hash_of(seed, one.text, one.span) for one in labelled], dtype=np.int64),
    )


def _read(labelled: LabelledText, encoder: TextEncoder, *, keep_end: bool) -> tuple[ProbeText, int] | None:
    """The text as the subject reads it, and the marked position in it or -1."""
    room = encoder.cutter.room
    reach = _CHARACTERS_A_TOKEN * room
    text, span = labelled.text, labelled.span
    if span is not None:
        begin = max(0, span[1] - reach)
        text = text[begin : span[1] + _AFTER_THE_MARK]
        span = (max(span[0] - begin, 0), span[1] - begin)
    else:
        text = text[-reach:] if keep_end else text[:reach]
    document = document_of(text)
    encoded = encoder.encode(document)
    ends = np.cumsum(encoded.byte_count)
    if span is not None:
        # The first token that reaches the span's end; it may reach further.
        stop = int(np.searchsorted(ends, byte_offsets(document.text, np.array([span[1]]))[0])) + 1
        begin, end = max(0, stop - room), stop
    elif keep_end:
        begin, end = max(0, len(ends) - room), len(ends)
    else:
        begin, end = 0, min(room, len(ends))
    ids = encoded.ids[begin:end]
    if not len(ids):
        return None
    probe_text = encoder.text(ids, labelled.group)
    if span is None:
        return probe_text, -1
    start = int(ends[begin - 1]) if begin else 0
    if not encoder.offsets_hold(ids, ends[begin:end], start, document.text.encode()):
        return None
    return probe_text, len(probe_text.tokens) - 1
