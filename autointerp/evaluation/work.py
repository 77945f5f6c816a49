"""What all steps of a run need: the suite, the subject, the text, where results are kept, and a clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from autointerp.config import Suite
from autointerp.evaluation.inputs import context_options
from autointerp.progress import Advance, Progress
from autointerp.run_store import MemoryStore, RunStore
from autointerp.sampling.contexts import CorpusChunk, DocumentSource, Split, corpus_chunks
from autointerp.subject.subject_model import SubjectModel

__all__ = ["Clock", "Work", "told"]


@dataclass
class Clock:
    """Seconds per step, for the report and the run's events."""

    store: RunStore | MemoryStore
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block, and note it."""
        begun = time.perf_counter()
        yield
        self.note(name, time.perf_counter() - begun)

    def note(self, name: str, seconds: float) -> None:
        """Keep a step's seconds for the report, and write them to the run's events."""
        self.seconds[name] = round(seconds, 3)
        self.store.event("step", name=name, seconds=self.seconds[name])


@dataclass(frozen=True, eq=False)
class Work:
    """What all steps need: the subject, the text and where results are kept."""

    suite: Suite
    subject: SubjectModel
    corpus: DocumentSource
    store: RunStore | MemoryStore
    clock: Clock
    progress: Progress

    def chunks(self, split: Split, token_count: int) -> Iterator[CorpusChunk]:
        """The text of one split, lazily, the same every time."""
        runtime, corpus = self.suite.runtime, self.suite.corpus
        return corpus_chunks(
            self.corpus,
            self.subject.tokenizer,
            context_options(corpus),
            batch_tokens=runtime.batch_tokens,
            chunk_tokens=runtime.chunk_tokens,
            max_tokens=token_count,
            split=split,
            calibration_fraction=corpus.calibration_fraction,
        )


def told(chunks: Iterator[CorpusChunk], advance: Advance) -> Iterator[CorpusChunk]:
    """The same chunks; progress hears of each when it is done with."""
    for chunk in chunks:
        yield chunk
        advance(chunk.token_count)
