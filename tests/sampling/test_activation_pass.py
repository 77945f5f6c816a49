"""The pass itself: how often it computes what, what it holds, what happens when something goes wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.errors import CheckpointError, RunStoreError, SubjectError
from autointerp.metrics.calibration import calibrate
from autointerp.metrics.catalogue import FAMILIES, definitions, families
from autointerp.run_store import MemoryStore
from autointerp.sampling.activation_pass import (
    CLEAN_LOSS,
    SUBJECT,
    ActivationPass,
    read_firing_totals,
    read_observations,
    read_tokens,
)
from autointerp.sampling.contexts import CorpusChunk
from autointerp.sampling.latent_firing import FIRING_SCHEMA, total_firing
from autointerp.sampling.readings import Checkpoint, SiteCalibration
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.planted_autoencoder import perfect_autoencoder, planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject
from autointerp.testing.token_chunks import random_chunk, random_documents

LOW, HIGH = "blocks.0.hook_resid_post", "blocks.2.hook_resid_pre"
Made = Callable[..., ActivationPass]


@pytest.fixture(scope="module")
def subject() -> SubjectModel:
    return tiny_subject("gpt2", seed=2)


@pytest.fixture(scope="module")
def chunks(subject: SubjectModel) -> list[CorpusChunk]:
    lengths = [[20, 1, 9], [30, 14], [2, 5, 40, 3]]
    return [
        random_chunk(
            random_documents(some, vocabulary_size=subject.vocabulary_size, seed=index),
            index=index,
            rows_per_batch=2,
        )
        for index, some in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def calibration(subject: SubjectModel, chunks: list[CorpusChunk]) -> dict[str, SiteCalibration]:
    return calibrate(subject, [LOW, HIGH], chunks)


def dictionary(seed: int, **options: Any) -> SparseAutoencoder:
    return planted_autoencoder(32, 64, k=5, generator=torch.Generator().manual_seed(seed), **options)


@pytest.fixture
def made(subject: SubjectModel, calibration: dict[str, SiteCalibration]) -> Made:
    def make(*checkpoints: Checkpoint, **options: Any) -> ActivationPass:
        chosen = checkpoints or (
            Checkpoint("low", dictionary(0), LOW),
            Checkpoint("high", dictionary(1), HIGH),
            Checkpoint("high raw", dictionary(2, normalization="none"), HIGH),
        )
        return ActivationPass(subject, chosen, families(FAMILIES), calibration, **options)

    return make


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, *names: str) -> dict[str, int]:
    calls = dict.fromkeys(names, 0)

    def count(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*args: Any, **kwargs: Any) -> Any:
            calls[name] += 1
            return original(*args, **kwargs)

        return counting

    for name in names:
        monkeypatch.setattr(owner, name, count(name, getattr(owner, name)))
    return calls


def test_a_batch_costs_one_clean_pass_and_a_dictionary_one_reconstruction_and_one_substitution(
    subject: SubjectModel, chunks: list[CorpusChunk], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = counted(monkeypatch, subject, "read", "read_with_logits", "logits_from")
    dictionaries = counted(monkeypatch, SparseAutoencoder, "reconstruct_sparse", "encode_sparse", "encode")
    made().measure(chunks[0])
    batches = len(chunks[0].batches)
    # Zeros and the mean at two sites between blocks, once for all batches.
    assert passes == {"read": 0, "read_with_logits": batches, "logits_from": batches * 3 + 2 * 2}
    assert dictionaries == {"reconstruct_sparse": batches * 3, "encode_sparse": 0, "encode": 0}


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor) and value.is_contiguous():
                self.elements = max(self.elements, value.untyped_storage().nbytes() // value.element_size())
        return result


def test_nothing_dense_over_tokens_and_latents_is_made(
    subject: SubjectModel, calibration: dict[str, SiteCalibration], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A block of the encoder as narrow as it gets, so that only what is kept across blocks can be large.
    for limit in ("_BLOCK_BYTES", "_EFFICIENT_BLOCK"):
        monkeypatch.setattr(f"autointerp.checkpoints.sharded_products.{limit}", 8)
    latent_count = 4096
    sae = planted_autoencoder(32, latent_count, k=5, generator=torch.Generator().manual_seed(0))
    run = ActivationPass(subject, [Checkpoint("wide", sae, LOW)], families(FAMILIES), calibration)
    documents = random_documents([15] * 20, vocabulary_size=subject.vocabulary_size)
    chunk = random_chunk(documents, rows_per_batch=None)
    with LargestTensor() as watched:
        run.measure(chunk)
    tokens = chunk.batches[0].tokens.numel()
    # The dictionary's own weights have 4096 x 32 elements, the logits tokens x 293.
    assert watched.elements <= max(latent_count * 32, tokens * subject.vocabulary_size)
    assert watched.elements < tokens * latent_count / 4


def test_what_is_held_does_not_grow_with_the_number_of_chunks(chunks: list[CorpusChunk], made: Made) -> None:
    """Chunks are asked for one at a time, each only after the one before was written."""
    store, asked = MemoryStore(), []

    def lazily():
        for chunk in chunks:
            asked.append(len(store.keys("observations/")))
            yield chunk

    made().run(lazily(), store)
    assert asked == [0, 1, 2]


def all_frames(store: MemoryStore, chunk_names: list[str] | None = None) -> list[pl.DataFrame]:
    names = chunk_names or [key.removeprefix("observations/") for key in store.keys("observations/")]
    return [reader(store, names) for reader in (read_observations, read_firing_totals, read_tokens)]


class StoppedError(Exception):
    """Stands for the user's interruption."""


def test_a_resumed_run_computes_only_what_is_missing_and_ends_the_same(
    subject: SubjectModel, chunks: list[CorpusChunk], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = MemoryStore(), MemoryStore()
    made().run(chunks, whole)

    def stop_after_two(chunk: CorpusChunk, cost: object) -> None:
        if chunk.index == 1:
            raise StoppedError

    with pytest.raises(StoppedError):
        made().run(chunks, broken, progress=stop_after_two)
    calls = counted(monkeypatch, subject, "read_with_logits")
    cost = made().run(chunks, broken)
    assert calls["read_with_logits"] == len(chunks[2].batches)
    assert (cost.chunk_count, cost.resumed_chunk_count) == (3, 2)
    assert cost.token_count == sum(chunk.token_count for chunk in chunks)
    for one, other in zip(all_frames(whole), all_frames(broken), strict=True):
        assert one.equals(other)


def test_a_chunk_whose_last_shard_is_missing_is_computed_again(chunks: list[CorpusChunk], made: Made) -> None:
    store = MemoryStore()
    made().run(chunks[:1], store)
    whole = all_frames(store)
    (key,) = store.keys("firing/")
    partial = MemoryStore()
    for other in [*store.keys("observations/"), *store.keys("documents/")]:
        if other != key:
            partial.write(other, store.read(other))
    assert made().run(chunks[:1], partial).resumed_chunk_count == 0
    for one, other in zip(whole, all_frames(partial), strict=True):
        assert one.equals(other)


def test_shards_that_another_text_left_are_not_read(chunks: list[CorpusChunk], made: Made) -> None:
    """A run killed on other text of the same name leaves chunks in the directory; they are not this run's."""
    alone, mixed = MemoryStore(), MemoryStore()
    made().run([replace(chunks[0], sha256="f" * 64), chunks[1]], mixed)
    names = made().run(chunks[:1], alone).chunk_names
    assert made().run(chunks[:1], mixed).chunk_names == names
    for one, other in zip(all_frames(alone, names), all_frames(mixed, names), strict=True):
        assert one.equals(other)


def test_a_shard_that_is_gone_is_never_left_out_in_silence(chunks: list[CorpusChunk], made: Made) -> None:
    names = made().run(chunks[:1], MemoryStore()).chunk_names
    for reader in (read_observations, read_firing_totals, read_tokens):
        with pytest.raises(RunStoreError, match="missing or damaged"):
            reader(MemoryStore(), names)


def test_firing_is_added_up_shard_by_shard(
    chunks: list[CorpusChunk], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, heights = MemoryStore(), []
    names = made().run(chunks, store).chunk_names
    shards = [store.read(f"firing/{name}") for name in names]
    whole = total_firing(pl.concat(shards))

    def watched(frame: pl.DataFrame) -> pl.DataFrame:
        heights.append(frame.height)
        return total_firing(frame)

    monkeypatch.setattr("autointerp.sampling.activation_pass.total_firing", watched)
    assert read_firing_totals(store, names).equals(whole)
    assert max(heights) <= whole.height + max(shard.height for shard in shards)
    assert read_firing_totals(store, []).schema == pl.Schema(FIRING_SCHEMA)


def test_a_chunk_with_a_failed_row_is_measured_again(
    chunks: list[CorpusChunk], made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong may have been the machine: out of memory is a RuntimeError of torch."""
    original, store = SparseAutoencoder.reconstruct_sparse, MemoryStore()

    def full(*args: Any) -> Any:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(SparseAutoencoder, "reconstruct_sparse", full)
    names = made().run(chunks[:2], store).chunk_names
    assert (read_observations(store, names)["status"] == "failed").any()
    monkeypatch.setattr(SparseAutoencoder, "reconstruct_sparse", original)
    assert made().run(chunks[:2], store).resumed_chunk_count == 0
    assert not (read_observations(store, names)["status"] == "failed").any()
    assert made().run(chunks[:2], store).resumed_chunk_count == 2


def test_another_texts_chunk_is_never_taken_for_this_one(chunks: list[CorpusChunk], made: Made) -> None:
    store = MemoryStore()
    made().run(chunks[:1], store)
    assert made().run([replace(chunks[0], sha256="f" * 64)], store).resumed_chunk_count == 0


def test_firing_counts_equal_those_of_dense_latents(
    subject: SubjectModel, chunks: list[CorpusChunk], made: Made
) -> None:
    sae, store = dictionary(0), MemoryStore()
    cost = made(Checkpoint("low", sae, LOW)).run(chunks, store)
    tokens_fired = np.zeros(64, dtype=int)
    documents: list[set[str]] = [set() for _ in range(64)]
    for chunk in chunks:
        for batch in chunk.batches:
            x = subject.read(batch.tokens, [LOW], batch.attention_mask)[LOW]
            for row, column in batch.is_scored.nonzero().tolist():
                fired = sae.encode(x[row, column][None])[0].nonzero().squeeze(1).tolist()
                tokens_fired[fired] += 1
                for latent in fired:
                    documents[latent].add(chunk.document_ids[int(batch.document_index[row, column])])
    found = read_firing_totals(store, cost.chunk_names)
    assert found["latent"].to_list() == np.flatnonzero(tokens_fired).tolist()
    assert found["tokens_fired"].to_list() == tokens_fired[tokens_fired > 0].tolist()
    assert found["documents_fired"].to_list() == [len(some) for some in documents if some]
    only = [next(iter(some)) if len(some) == 1 else "" for some in documents if some]
    assert found["only_document"].to_list() == only


def test_all_documents_with_a_scored_token_are_listed_with_their_tokens(
    chunks: list[CorpusChunk], made: Made
) -> None:
    store = MemoryStore()
    cost = made().run(chunks, store)
    found = dict(read_tokens(store, cost.chunk_names).iter_rows())
    assert sorted(found.values()) == sorted([20, 1, 9, 30, 14, 2, 5, 40, 3])


def failed(frame: pl.DataFrame, checkpoint: str) -> dict[str, str]:
    rows = frame.filter((pl.col("checkpoint") == checkpoint) & (pl.col("status") == "failed"))
    return dict(rows.select("metric", "reason").iter_rows())


def own_metrics() -> set[str]:
    return {metric.name for metric in definitions(FAMILIES)} - {CLEAN_LOSS}


def test_a_dictionary_of_the_wrong_width_fails_alone(chunks: list[CorpusChunk], made: Made) -> None:
    good = Checkpoint("good", dictionary(0), LOW)
    narrow = Checkpoint("narrow", perfect_autoencoder(16), LOW)
    result = made(good, narrow).measure(chunks[0])
    reasons = failed(result.observations, "narrow")
    assert set(reasons) == own_metrics()
    assert set(reasons.values()) == {"chunk 0: d_model is 16, the site's width 32"}
    assert set(result.observations.filter(pl.col("checkpoint") == "narrow")["status"]) == {"failed"}
    alone = made(good).measure(chunks[0])
    others = result.observations.filter(pl.col("checkpoint") != "narrow")
    assert others.equals(alone.observations)
    assert result.firing.equals(alone.firing)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_dictionary_that_answers_with_no_number_fails_alone(
    chunks: list[CorpusChunk], made: Made, value: float
) -> None:
    sae = dictionary(0)
    bias = sae.decoder_bias.clone()
    bias[3] = value
    bad = Checkpoint("bad", replace(sae, decoder_bias=bias), LOW)
    result = made(Checkpoint("good", sae, LOW), bad).measure(chunks[0])
    assert set(failed(result.observations, "bad")) == own_metrics()
    assert "reconstruction is not finite" in failed(result.observations, "bad")["reconstruction.l0"]
    assert not failed(result.observations, "good")


def test_a_failing_metric_leaves_the_other_families_alone(
    subject: SubjectModel, chunks: list[CorpusChunk], calibration: dict[str, SiteCalibration]
) -> None:
    class Grumpy:
        metrics = {"grumpy.metric": frozenset()}  # noqa: RUF012

        def start(self, checkpoint: str, documents: Any, wanted: Any) -> Any:
            return self

        def update(self, batch: Any) -> None:
            raise ValueError("not today")

        def observations(self) -> pl.DataFrame:
            return read_observations(MemoryStore(), [])

    run = ActivationPass(
        subject, [Checkpoint("it", dictionary(0), LOW)], [Grumpy(), *families(FAMILIES)], calibration
    )
    frame = run.measure(chunks[0]).observations
    assert failed(frame, "it") == {"grumpy.metric": "chunk 0: not today"}
    after_the_pass = {"reconstruction.dead_fraction", "reconstruction.mean_density_of_densest"}
    assert own_metrics() - after_the_pass <= set(frame["metric"])


def test_activations_that_are_not_finite_stop_the_run_with_site_and_batch(
    chunks: list[CorpusChunk], calibration: dict[str, SiteCalibration]
) -> None:
    broken = tiny_subject("gpt2", seed=2)
    with torch.no_grad():
        broken.model.transformer.h[1].mlp.c_proj.bias[0] = torch.nan
    for names in (["reconstruction"], ["downstream"]):
        run = ActivationPass(broken, [Checkpoint("it", dictionary(0), HIGH)], families(names), calibration)
        with pytest.raises(SubjectError, match=r"not finite") as caught:
            run.measure(chunks[0])
        assert "chunk 0, batch 0" in str(caught.value)
        assert "reconstruction" not in names or f"site {HIGH}" in str(caught.value)


def test_names_must_differ_and_the_subjects_is_taken(made: Made) -> None:
    one = Checkpoint("one", dictionary(0), LOW)
    with pytest.raises(CheckpointError, match="two dictionaries"):
        made(one, one)
    with pytest.raises(CheckpointError, match="cannot be called 'subject'"):
        made(replace(one, name=SUBJECT))


def test_time_is_accounted_by_step(chunks: list[CorpusChunk], made: Made) -> None:
    cost = made().run(chunks, MemoryStore())
    assert set(cost.seconds) == {
        "clean_pass",
        "ablated_passes",
        "reconstruction",
        "substituted_passes",
        "metrics",
    }
    assert all(seconds > 0 for seconds in cost.seconds.values())
