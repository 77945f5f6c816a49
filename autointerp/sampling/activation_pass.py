"""Chunks of a corpus -> observations and firings, for all dictionaries on all sites, in one pass.

Per batch the subject runs clean once. Per dictionary there is one sparse reconstruction, which all metrics
read, and (where a metric wants it) one substituted pass that re-enters the subject at the site. Zeros and
the calibration mean are substituted once per site, whatever the number of dictionaries: on a residual
stream between two blocks once per run (see `constant_ablation`), elsewhere once per batch. Without metrics
the subject stops at the deepest site, and dictionaries only encode.

Cost per batch of T tokens, with b blocks above a site: one clean pass, then per dictionary its encoder (about
2 T d_model latent_count flops) and one pass of b blocks and the unembedding; two such passes more at a site
whose ablations are not constant.

Memory, in numbers held, whatever the length of the corpus: at most three times T x vocabulary (clean
log-probabilities, the logits of the pass that is running and the copy that it hands out), T x d_model per
site and three times for the dictionary at work, what `SparseAutoencoder.encode_sparse` holds, one chunk's
tokens, the sums of `document_sums` and `latent_firing`, and twice the vocabulary per site. Where firings are
kept (`spill`), those of one chunk and all dictionaries too, 16 bytes each. Nothing of shape (token, latent)
is made.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from autointerp.errors import CheckpointError, RunStoreError
from autointerp.records import OBSERVATION_SCHEMA
from autointerp.sampling.batch_passes import BatchPasses, PassCost
from autointerp.sampling.constant_ablation import ConstantAblations
from autointerp.sampling.context_table import ContextTable
from autointerp.sampling.contexts import CorpusChunk, TokenBatch
from autointerp.sampling.document_sums import DocumentSums, Terms
from autointerp.sampling.latent_firing import FIRING_SCHEMA, LatentFiring, total_firing
from autointerp.sampling.readings import (
    Checkpoint,
    MetricFamily,
    Need,
    PredictionTable,
    SiteCalibration,
    TokenTable,
)
from autointerp.sampling.recorder import Recorder
from autointerp.sampling.spill import (
    ChunkSpill,
    DictionarySpill,
    SpillPlan,
    context_key,
    embedding_key,
    firing_key,
    near_miss_key,
    signature_key,
)
from autointerp.subject.subject_model import SubjectModel

__all__ = [
    "CLEAN_LOSS",
    "DOCUMENT_SCHEMA",
    "SUBJECT",
    "ActivationPass",
    "ChunkResult",
    "PassCost",
    "ShardStore",
    "read_firing_totals",
    "read_observations",
    "read_shard",
    "read_tokens",
]

SUBJECT = "subject"
"""What stands in the column `checkpoint` for rows of the subject itself."""
CLEAN_LOSS = "downstream.clean_ce_nats"
"""The subject's own loss, the one metric that belongs to no dictionary."""

DOCUMENT_SCHEMA = {"document": pl.String, "token_count": pl.Int64}
"""One row per document that has a scored token, with the number of them."""

_OBSERVATIONS, _FIRING, _DOCUMENTS = "observations", "firing", "documents"


@runtime_checkable
class ShardStore(Protocol):
    """Where results of chunks are kept; `run_store.RunStore` and `MemoryStore` are two."""

    def has(self, key: str) -> bool:
        """Whether a whole frame lies there."""
        ...

    def write(self, key: str, frame: pl.DataFrame) -> None:
        """Keep a frame, all or nothing."""
        ...

    def read(self, key: str) -> pl.DataFrame:
        """The frame that lies there; KeyError if there is none."""
        ...


class ChunkResult(NamedTuple):
    """What one chunk gave; the same whatever ran before it."""

    observations: pl.DataFrame
    firing: pl.DataFrame
    documents: pl.DataFrame
    spill: Mapping[str, pl.DataFrame]
    """By key, what is kept for the latents; see `spill`."""


class ActivationPass:
    """One subject, some dictionaries, some families of metrics. Cost and memory: see the module.

    Args:
        subject: the language model.
        checkpoints: the dictionaries, nulls among them, each with its site; names are unique.
        families: from `metrics.catalogue.FAMILIES`.
        calibration: averages per site, from `metrics.calibration.calibrate`.
        metrics: names to be observed; None: all that the families know.
        spill: keep every firing, and what goes with them; None: keep none.

    Raises:
        CheckpointError: two dictionaries of one name, or one called `subject`.
    """

    def __init__(
        self,
        subject: SubjectModel,
        checkpoints: Sequence[Checkpoint],
        families: Sequence[MetricFamily],
        calibration: Mapping[str, SiteCalibration],
        *,
        metrics: Iterable[str] | None = None,
        spill: SpillPlan | None = None,
    ) -> None:
        """Check what is handed in; nothing is computed yet."""
        _refuse_names([checkpoint.name for checkpoint in checkpoints])
        self._subject = subject
        self._checkpoints = tuple(checkpoints)
        self._sites = tuple(dict.fromkeys(checkpoint.site for checkpoint in checkpoints))
        """Where dictionaries are judged; what they read comes on top."""
        self._input_sites = tuple(dict.fromkeys(checkpoint.reads for checkpoint in checkpoints))
        judged = self._sites if families else ()
        self._read_sites = tuple(dict.fromkeys([*judged, *self._input_sites]))
        self._calibration = calibration
        self._spill = spill
        self.constant_ablations = ConstantAblations(subject)
        """Says, once a batch was measured, at which sites one distribution stood for the ablated passes."""
        known = frozenset(name for family in families for name in family.metrics)
        self._wanted = known if metrics is None else known.intersection(metrics)
        self._families = tuple(family for family in families if self._wanted.intersection(family.metrics))
        self._needs: frozenset[Need] = frozenset().union(
            *(needs for family in families for name, needs in family.metrics.items() if name in self._wanted)
        )

    @torch.no_grad()
    def run(
        self,
        chunks: Iterable[CorpusChunk],
        store: ShardStore,
        *,
        before_keeping: Callable[[], None] | None = None,
        progress: Callable[[CorpusChunk, PassCost], None] | None = None,
    ) -> PassCost:
        """Measure every chunk that the store does not hold yet, and keep each when it is done.

        Args:
            chunks: lazily made; only one is held at a time.
            store: gets three frames a chunk, and those of the spill; a chunk counts as done when all are
                there and no row of its observations says that a measurement failed.
            before_keeping: called when a chunk was measured; what it raises keeps the chunk out of the store.
            progress: called after every chunk, also after one that was found done.

        Returns:
            What it took, and in `chunk_names` which chunks it went over: with these, and with no others that
            an earlier run over other text may have left in the store, the results are read back.

        Raises:
            SubjectError: activations or logits that are not finite (one line says where).
        """
        cost = PassCost()
        for chunk in chunks:
            name = _chunk_name(chunk)
            if self._is_done(store, name):
                cost.resumed_chunk_count += 1
            else:
                result = self.measure(chunk, cost)
                if before_keeping is not None:
                    before_keeping()
                _keep(store, name, result)
            cost.chunk_names.append(name)
            cost.chunk_count += 1
            cost.token_count += chunk.token_count
            if progress is not None:
                progress(chunk, cost)
        return cost

    @torch.no_grad()
    def measure(self, chunk: CorpusChunk, cost: PassCost | None = None) -> ChunkResult:
        """All metrics of all dictionaries on one chunk, without a store."""
        cost = PassCost() if cost is None else cost
        name = f"chunk {chunk.index}"
        spill = self._chunk_spill(chunk)
        recorders = [self._recorder(checkpoint, chunk, name, spill) for checkpoint in self._checkpoints]
        clean_sums = DocumentSums(chunk.document_ids, [CLEAN_LOSS])
        document_tokens = torch.zeros(len(chunk.document_ids), dtype=torch.long)
        for index, batch in enumerate(chunk.batches):
            numbers = None if spill is None else spill.table.numbers[index]
            work = self._begin(batch, f"{name}, batch {index}", cost, numbers)
            document_tokens += torch.bincount(
                work.tokens.document[work.tokens.is_scored], minlength=len(document_tokens)
            ).cpu()
            if work.clean is not None:
                rows = work.predictions
                clean_sums.add(rows.document, rows.position, {CLEAN_LOSS: Terms(work.clean.cross_entropy)})
            self._feed(work, recorders, spill)
            # Its clean log-probabilities, the largest thing there is, go before the next batch's are made.
            del work
        frames = [clean_sums.observations(SUBJECT), *(recorder.observations() for recorder in recorders)]
        return ChunkResult(
            pl.concat(frames),
            pl.concat([pl.DataFrame(schema=FIRING_SCHEMA), *(recorder.firing() for recorder in recorders)]),
            _document_frame(chunk.document_ids, document_tokens),
            self._kept(chunk, spill, recorders),
        )

    def _chunk_spill(self, chunk: CorpusChunk) -> ChunkSpill | None:
        if self._spill is None:
            return None
        return ChunkSpill(ContextTable.of(chunk), chunk.document_ids, self._input_sites)

    def _kept(
        self, chunk: CorpusChunk, spill: ChunkSpill | None, recorders: Sequence[Recorder]
    ) -> dict[str, pl.DataFrame]:
        name = _chunk_name(chunk)
        kept = {} if spill is None else spill.shards(name)
        for recorder in recorders:
            kept |= recorder.shards(name)
        return kept

    def _is_done(self, store: ShardStore, name: str) -> bool:
        """Whether all is there and nothing failed: that may have been the machine's fault, its memory say."""
        keys = [_key(kind, name) for kind in (_OBSERVATIONS, _FIRING, _DOCUMENTS)]
        if self._spill is not None:
            keys += [context_key(name), signature_key(name), embedding_key(name)]
            for checkpoint in self._checkpoints:
                keys += [firing_key(checkpoint.name, name), near_miss_key(checkpoint.name, name)]
        if not all(store.has(key) for key in keys):
            return False
        return not (store.read(_key(_OBSERVATIONS, name))["status"] == "failed").any()

    def _begin(
        self, batch: TokenBatch, name: str, cost: PassCost, numbers: Int[Tensor, " batch"] | None
    ) -> BatchPasses:
        batch = batch.to(self._subject.device)
        work = BatchPasses(
            self._subject,
            batch,
            (TokenTable.of(batch), PredictionTable.of(batch)),
            needs=self._needs,
            calibration=self._calibration,
            constants=self.constant_ablations,
            name=name,
            cost=cost,
        )
        work.context_numbers = numbers
        work.run_clean(self._read_sites)
        return work

    def _recorder(
        self, checkpoint: Checkpoint, chunk: CorpusChunk, name: str, spill: ChunkSpill | None
    ) -> Recorder:
        documents = chunk.document_ids
        metrics = [
            (family, family.start(checkpoint.name, documents, self._wanted.intersection(family.metrics)))
            for family in self._families
        ]
        firing = LatentFiring(checkpoint.sae.latent_count, documents)
        firings = None
        if spill is not None and self._spill is not None:
            firings = DictionarySpill(checkpoint, self._spill, spill.table)
        return Recorder(checkpoint, self._wanted, metrics, firing, name, spill=firings)

    def _feed(self, work: BatchPasses, recorders: Sequence[Recorder], spill: ChunkSpill | None) -> None:
        """Hand a batch to every dictionary, by judged site: the shared work of one is alive at a time."""
        if spill is not None and work.context_numbers is not None:
            with work.cost.step("firings"):
                for site in self._input_sites:
                    spill.update(site, work.activations(site), work.tokens, work.context_numbers)
        for site in self._sites:
            reading = work.reading(site) if self._families else None
            ablated = None if reading is None else work.ablated(reading)
            for recorder in recorders:
                if recorder.checkpoint.site == site and not recorder.has_failed:
                    recorder.update(work, reading, ablated)


def read_observations(store: ShardStore, chunk_names: Iterable[str]) -> pl.DataFrame:
    """Observations of these chunks, in the corpus's order.

    Args:
        store: what the pass wrote to; shards of other chunks, left by another run, are passed over.
        chunk_names: `PassCost.chunk_names` of the run that is read.

    Raises:
        RunStoreError: a chunk is not there, or is damaged.
    """
    return _read_chunks(store, _OBSERVATIONS, chunk_names, OBSERVATION_SCHEMA)


def read_firing_totals(store: ShardStore, chunk_names: Iterable[str]) -> pl.DataFrame:
    """One row per dictionary and latent that fired in these chunks; arguments as of `read_observations`.

    One shard is read at a time and added, so that two frames of a row per latent are held, however many
    chunks there are.
    """
    total = pl.DataFrame(schema=FIRING_SCHEMA)
    for frame in _chunk_frames(store, _FIRING, chunk_names):
        total = total_firing(pl.concat([total, frame]))
    return total


def read_tokens(store: ShardStore, chunk_names: Iterable[str]) -> pl.DataFrame:
    """Documents of these chunks and their numbers of scored tokens; arguments as of `read_observations`."""
    return _read_chunks(store, _DOCUMENTS, chunk_names, DOCUMENT_SCHEMA)


def _read_chunks(
    store: ShardStore, kind: str, chunk_names: Iterable[str], schema: Mapping[str, Any]
) -> pl.DataFrame:
    return pl.concat([pl.DataFrame(schema=schema), *_chunk_frames(store, kind, chunk_names)])


def _chunk_frames(store: ShardStore, kind: str, chunk_names: Iterable[str]) -> Iterator[pl.DataFrame]:
    return (read_shard(store, _key(kind, name)) for name in chunk_names)


def read_shard(store: ShardStore, key: str) -> pl.DataFrame:
    """A shard of the pass.

    Raises:
        RunStoreError: it is not there, or is damaged.
    """
    try:
        return store.read(key)
    except KeyError:
        raise RunStoreError(
            f"the shard {key} is missing or damaged",
            remedy="run the same command again, which computes it anew",
        ) from None


def _keep(store: ShardStore, name: str, result: ChunkResult) -> None:
    store.write(_key(_FIRING, name), result.firing)
    store.write(_key(_DOCUMENTS, name), result.documents)
    for key, frame in result.spill.items():
        store.write(key, frame)
    store.write(_key(_OBSERVATIONS, name), result.observations)


def _chunk_name(chunk: CorpusChunk) -> str:
    """Holds the documents' hash, so that another text's chunk is never taken for this one."""
    return f"{chunk.index:06d}-{chunk.sha256[:12]}"


def _key(kind: str, chunk_name: str) -> str:
    return f"{kind}/{chunk_name}"


def _document_frame(documents: Sequence[str], token_counts: Int[Tensor, " document"]) -> pl.DataFrame:
    frame = pl.DataFrame(
        {"document": list(documents), "token_count": token_counts.tolist()}, schema=DOCUMENT_SCHEMA
    )
    return frame.filter(pl.col("token_count") > 0)


def _refuse_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise CheckpointError(
            "two dictionaries have this name", where=twice[0], remedy="give one another name"
        )
    if SUBJECT in names:
        raise CheckpointError(f"a dictionary cannot be called {SUBJECT!r}", remedy="give it another name")
