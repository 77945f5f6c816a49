"""Trains several autoencoders at once from one stream of activations; can be killed and started again.

The subject runs once per token, up to the site, whatever the number of autoencoders. Every two minutes,
between two blocks of activations, everything that changes is saved in one move; a run that starts in the
same folder goes on from there and ends with the same weights, bit for bit.
"""

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.errors import BadInputError
from autointerp.training.activations import (
    ActivationBlock,
    ActivationSource,
    ReadableSubject,
    StreamPosition,
    TokenChunk,
)
from autointerp.training.learner import Learner
from autointerp.training.options import TrainingOptions
from autointerp.training.quality import sample_quality
from autointerp.training.state_file import load_state, save_state

__all__ = ["RunSettings", "TrainedAutoencoder", "TrainingProgress", "train_autoencoders"]

STATE_FILE = "training_state.pt"
_START_TOKENS = 32_768  # the paper's sample for the geometric median


@dataclass(frozen=True)
class RunSettings:
    """What a run's autoencoders share. All defaults can stay."""

    context_length: int | None = None
    """Tokens per context, for the checkpoint's metadata: the chunks decide how long they are."""
    prepend_bos: bool | None = None
    """Whether contexts begin with a beginning-of-text token; metadata too."""
    held_out_chunks: int = 1
    """First chunks of the text, never trained on: the record's figures come from them."""
    held_out_tokens: int = 16_384
    block_tokens: int = 131_072
    """Tokens whose activations are held and shuffled at once."""
    save_seconds: float = 120.0
    workers: int = 1
    """Threads that train different autoencoders side by side while the next block is read; the weights do not
    depend on it. On a busy machine two of them, with one torch thread each, are several times as fast as one
    with two torch threads."""
    seed: int = 0
    """Of the shuffling; each autoencoder has its own for its first weights."""
    text_identity: str = ""
    """Whatever tells this run's chunks from others (the text's hash, how it is cut): saved work is gone on
    with only where it is the same. Empty: the caller answers for that."""


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands."""

    tokens: int
    token_budget: int
    seconds: float
    """Since the run began, interruptions left out."""
    tokens_per_second: float
    """Since this process began."""
    losses: dict[str, dict[str, float]]
    """By autoencoder: means of its loss terms since the last report."""


@dataclass(frozen=True, eq=False)
class TrainedAutoencoder:
    """A finished autoencoder, float32, reading raw activations."""

    name: str
    sae: SparseAutoencoder
    options: TrainingOptions
    record: dict[str, Any]
    """JSON-able: options, tokens, held-out figures, seconds, versions."""


@dataclass
class _Run:
    """What changes while a run goes on."""

    learners: list[Learner]
    position: StreamPosition
    seconds: float

    @property
    def step(self) -> int:
        return self.learners[0].step


def train_autoencoders(
    subject: ReadableSubject,
    site: str,
    chunks: Callable[[], Iterable[TokenChunk]],
    options: Sequence[TrainingOptions],
    out_folder: Path,
    *,
    settings: RunSettings | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> list[TrainedAutoencoder]:
    """Train autoencoders on a subject's site, all on the same batches.

    Args:
        subject: a `SubjectModel`, or anything with its `read`, `name` and `sha256`.
        site: where the activations are read.
        chunks: starts the text (`CorpusChunk`s) from its beginning, the same each time it is called.
        options: one per autoencoder; batch and budget must be the same for all, names must differ.
        out_folder: gets `training_state.pt`, which a later call goes on from. It may be deleted afterwards.
        settings: what the autoencoders share.
        progress: called after every block of activations.

    Returns:
        The averaged weights of each, in the order of `options`, with a record of how they came about.

    Raises:
        BadInputError: the options do not fit together, or the folder holds the state of another run.
        CorpusError: there is too little text.
    """
    settings = settings or RunSettings()
    _check_together(options)
    source = ActivationSource(
        subject,
        site,
        chunks,
        held_out_chunks=settings.held_out_chunks,
        block_tokens=settings.block_tokens,
        least_tokens=options[0].batch_tokens,
        seed=settings.seed,
    )
    identity = _identity(subject, site, options, settings)
    state = out_folder / STATE_FILE
    run = _resumed(state, identity, options) or _begun(source, options)
    with ThreadPoolExecutor(settings.workers) as pool:
        for _ in _trained_blocks(run, source, pool, progress):
            if run.step == options[0].steps or _is_due(state, settings.save_seconds):
                save_state(state, identity, _contents(run))
    metadata = CheckpointMetadata(
        site=site,
        subject=subject.name,
        context_length=settings.context_length,
        prepend_bos=settings.prepend_bos,
    )
    held_out = source.held_out(settings.held_out_tokens)
    return [_finished(learner, run, metadata, held_out) for learner in run.learners]


def _check_together(options: Sequence[TrainingOptions]) -> None:
    where = "training options"
    if not options:
        raise BadInputError(
            "there is nothing to train", where=where, remedy="give options for one autoencoder"
        )
    if len({(each.batch_tokens, each.token_budget) for each in options}) > 1:
        raise BadInputError("batch_tokens and token_budget must be the same for all", where=where)
    names = [each.name for each in options]
    if len(set(names)) < len(names):
        raise BadInputError(f"two autoencoders have the same name: {', '.join(names)}", where=where)


def _identity(
    subject: ReadableSubject, site: str, options: Sequence[TrainingOptions], settings: RunSettings
) -> str:
    """Hash of everything that the weights depend on; of the text, what the settings say of it."""
    shared = asdict(replace(settings, save_seconds=0.0, workers=1))
    if not settings.text_identity:
        del shared["text_identity"]  # states saved without it stay valid
    described = {
        "subject": subject.sha256,
        "site": site,
        "options": [asdict(each) for each in options],
        "settings": shared,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _begun(source: ActivationSource, options: Sequence[TrainingOptions]) -> _Run:
    start = StreamPosition(0, 0)
    sample = next(replace(source, block_tokens=_START_TOKENS).blocks(start)).activations[:_START_TOKENS]
    return _Run([Learner.new(each, sample, sample.device) for each in options], start, 0.0)


def _resumed(path: Path, identity: str, options: Sequence[TrainingOptions]) -> _Run | None:
    state = load_state(path, identity)
    if state is None:
        return None
    learners = [Learner.from_state(each, kept) for each, kept in zip(options, state["learners"], strict=True)]
    return _Run(learners, StreamPosition(*state["position"]), state["seconds"])


def _contents(run: _Run) -> dict[str, Any]:
    return {
        "learners": [learner.state() for learner in run.learners],
        "position": list(run.position),
        "seconds": run.seconds,
    }


def _is_due(path: Path, save_seconds: float) -> bool:
    return not path.exists() or time.time() - path.stat().st_mtime >= save_seconds


def _trained_blocks(
    run: _Run,
    source: ActivationSource,
    pool: ThreadPoolExecutor,
    progress: Callable[[TrainingProgress], None] | None,
) -> Iterator[None]:
    """Train block by block, a pause after each: the only places where the state is whole."""
    shared = run.learners[0].options
    if run.step >= shared.steps:
        return
    begun, first_step, before = time.monotonic(), run.step, run.seconds
    blocks = _read_ahead(
        source.blocks(run.position),
        pool,
        steps_left=shared.steps - run.step,
        batch_tokens=shared.batch_tokens,
    )
    for block in blocks:
        losses = _learn_block(run.learners, block.activations, pool)
        run.position = block.after
        elapsed = time.monotonic() - begun
        run.seconds = before + elapsed
        yield
        if progress is not None:
            speed = (run.step - first_step) * shared.batch_tokens / elapsed
            tokens = run.step * shared.batch_tokens
            progress(TrainingProgress(tokens, shared.token_budget, run.seconds, speed, losses))


def _learn_block(
    learners: list[Learner], activations: Float[Tensor, "token d_model"], pool: ThreadPoolExecutor
) -> dict[str, dict[str, float]]:
    """One step of every autoencoder per whole batch of the block; what is left over is dropped."""
    losses = pool.map(lambda learner: _learn_batches(learner, activations), learners)
    return {learner.options.name: terms for learner, terms in zip(learners, losses, strict=True)}


def _learn_batches(learner: Learner, activations: Float[Tensor, "token d_model"]) -> dict[str, float]:
    options = learner.options
    batch_count = min(activations.shape[0] // options.batch_tokens, options.steps - learner.step)
    means: dict[str, float] = {}
    for batch in activations.split(options.batch_tokens)[:batch_count]:
        for term, value in learner.learn(batch).items():
            means[term] = means.get(term, 0.0) + value / batch_count
    return means


def _read_ahead(
    blocks: Iterator[ActivationBlock], pool: ThreadPoolExecutor, *, steps_left: int, batch_tokens: int
) -> Iterator[ActivationBlock]:
    """As many blocks as the steps left need, each read while the one before it is in use: two in memory."""
    coming = pool.submit(next, blocks)
    while steps_left > 0:
        block = coming.result()
        steps_left -= block.activations.shape[0] // batch_tokens
        if steps_left > 0:
            coming = pool.submit(next, blocks)
        yield block


def _finished(
    learner: Learner, run: _Run, metadata: CheckpointMetadata, held_out: Float[Tensor, "token d_model"]
) -> TrainedAutoencoder:
    options, sae = learner.options, learner.autoencoder(metadata)
    tokens = learner.step * options.batch_tokens
    dead = learner.silence.dead(options.dead_threshold)
    record = {
        "name": options.name,
        "site": metadata.site,
        "subject": metadata.subject,
        "context_length": metadata.context_length,
        "prepend_bos": metadata.prepend_bos,
        "options": asdict(options),
        "levels": [asdict(level) for level in options.levels],
        "aux_k": options.aux_count(sae.d_model) if options.k is not None else 0,
        "learning_rate": options.peak_learning_rate,
        "ema_decay": options.average_decay,
        "dead_after_tokens": options.dead_threshold,
        "tokens": tokens,
        "epochs": run.position.epoch,
        "dead_fraction_in_training": float(dead.double().mean()),
        "held_out": sample_quality(sae, held_out)._asdict(),
        "run_seconds": round(run.seconds, 1),
        "run_tokens_per_second": round(tokens / run.seconds, 1),
        "trained_together": len(run.learners),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__)},
    }
    return TrainedAutoencoder(options.name, sae, options, record)
