"""A tiny subject, two dictionaries, some text: what a pass leaves, and dense arrays to check it by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from autointerp.checkpoints.activation_functions import JumpReLU
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.run_store import MemoryStore
from autointerp.sampling.activation_pass import ActivationPass, PassCost, ShardStore, read_tokens
from autointerp.sampling.context_table import ContextTable
from autointerp.sampling.contexts import CorpusChunk
from autointerp.sampling.latents.decoder_neighbours import nearest_latents
from autointerp.sampling.latents.gathering import Dictionary, Gathered, GatherOptions, gather
from autointerp.sampling.latents.sides import SplitShares
from autointerp.sampling.latents.spilled import Spilled, document_sides
from autointerp.sampling.readings import Checkpoint
from autointerp.sampling.spill import SpillPlan
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.planted_autoencoder import planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject
from autointerp.testing.token_chunks import random_chunk, random_documents

SITE = "blocks.1.hook_resid_pre"
LATENTS = 48


def top_k() -> SparseAutoencoder:
    return planted_autoencoder(32, LATENTS, k=4, generator=torch.Generator().manual_seed(5))


def jump_relu() -> SparseAutoencoder:
    made = planted_autoencoder(32, LATENTS, k=4, generator=torch.Generator().manual_seed(6))
    return SparseAutoencoder(
        made.encoder_weight,
        made.encoder_bias,
        made.decoder_weight,
        made.decoder_bias,
        None,
        JumpReLU(torch.full((LATENTS,), 1.5)),
        made.normalization,
    )


def checkpoints() -> list[Checkpoint]:
    return [Checkpoint("top/k 4", top_k(), SITE), Checkpoint("jump", jump_relu(), SITE)]


def subject() -> SubjectModel:
    return tiny_subject("gpt2", seed=2)


def chunked(
    vocabulary_size: int,
    *,
    per_chunk: int = 6,
    rows_per_batch: int | None = 3,
    document_count: int = 24,
    context_length: int = 12,
) -> list[CorpusChunk]:
    """The same documents, however they are dealt into chunks and batches."""
    lengths = [5 + 7 * (index % 6) for index in range(document_count)]
    documents = random_documents(lengths, vocabulary_size=min(vocabulary_size, 40), seed=3)
    names = list(documents)
    return [
        random_chunk(
            {name: documents[name] for name in names[start : start + per_chunk]},
            context_length=context_length,
            rows_per_batch=rows_per_batch,
            index=number,
        )
        for number, start in enumerate(range(0, document_count, per_chunk))
    ]


@dataclass
class Run:
    store: ShardStore
    cost: PassCost
    token_count: int

    def spilled(self, *, seed: int = 0) -> Spilled:
        documents = document_sides(
            self.store, self.cost.chunk_names, shares=SplitShares(), least_similarity=0.9, seed=seed
        )
        return Spilled(self.store, self.cost.chunk_names, documents)

    def gathered(self, checkpoint: Checkpoint, options: GatherOptions) -> Gathered:
        def nearest(latents: np.ndarray) -> pl.DataFrame:
            return nearest_latents(checkpoint.sae, latents.tolist())

        dictionary = Dictionary(checkpoint.name, checkpoint.reads, checkpoint.sae.latent_count, nearest)
        return gather(self.spilled(seed=options.seed), dictionary, options, token_count=self.token_count)


def passed(
    model: SubjectModel,
    chunks: Sequence[CorpusChunk],
    entries: Sequence[Checkpoint],
    *,
    store: ShardStore | None = None,
) -> Run:
    store = MemoryStore() if store is None else store
    plan = SpillPlan({entry.name: np.arange(LATENTS) for entry in entries})
    cost = ActivationPass(model, entries, [], {}, spill=plan).run(chunks, store)
    return Run(store, cost, int(read_tokens(store, cost.chunk_names)["token_count"].sum()))


@dataclass
class Dense:
    """Every scored token of the text with its pre-activations and latents, by brute force."""

    context: np.ndarray
    position: np.ndarray
    order: np.ndarray
    pre: np.ndarray
    z: np.ndarray
    document: np.ndarray


def dense(model: SubjectModel, chunks: Sequence[CorpusChunk], checkpoint: Checkpoint) -> Dense:
    parts: list[list[np.ndarray]] = []
    for chunk in chunks:
        table = ContextTable.of(chunk)
        ids, names = table.frame["context"].to_numpy(), table.frame["document"].to_numpy()
        for batch, numbers in zip(chunk.batches, table.numbers, strict=True):
            x = model.read(batch.tokens, [checkpoint.reads], batch.attention_mask)[checkpoint.reads]
            row, position = batch.is_scored.nonzero(as_tuple=True)
            flat = x[row, position].float()
            number = numbers[row].numpy()
            order = (chunk.index * 1000 + number) * 1000 + position.numpy()
            pre, z = checkpoint.sae.pre_activations(flat).numpy(), checkpoint.sae.encode(flat).numpy()
            parts.append([ids[number], position.numpy(), order, pre, z, names[number]])
    columns = [np.concatenate(part) for part in zip(*parts, strict=True)]
    sort = np.argsort(columns[2], kind="stable")
    return Dense(*(column[sort] for column in columns))
