"""What the pass keeps for the latents: every firing, whole contexts with lasting ids, near misses."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import spilled_runs
import torch
from spilled_runs import SITE, checkpoints, chunked, dense, passed

from autointerp.checkpoints.activation_functions import Gated, Identity, JumpReLU, ReLU
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.topk_functions import AbsTopK, TopK
from autointerp.run_store import MemoryStore, RunStore
from autointerp.sampling.activation_pass import ActivationPass, read_observations
from autointerp.sampling.context_cutting import ContextOptions
from autointerp.sampling.context_table import ContextTable
from autointerp.sampling.contexts import corpus_chunks
from autointerp.sampling.corpus import Document
from autointerp.sampling.near_misses import has_margins, margins
from autointerp.sampling.readings import Checkpoint
from autointerp.sampling.recorder import FIRINGS
from autointerp.sampling.spill import SpillPlan, firing_key, near_miss_key, slug
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.planted_autoencoder import planted_autoencoder
from autointerp.testing.tiny_subject import tiny_tokenizer


@pytest.fixture(scope="module")
def subject() -> SubjectModel:
    return spilled_runs.subject()


def firings(run: spilled_runs.Run, name: str) -> pl.DataFrame:
    """All firings with the contexts' ids."""
    parts = []
    for chunk in run.cost.chunk_names:
        contexts = run.store.read(f"contexts/{chunk}")["context"]
        frame = run.store.read(firing_key(name, chunk))
        parts.append(frame.with_columns(context=contexts.gather(frame["row"])).drop("row"))
    return pl.concat(parts).sort("latent", "context", "position")


def test_every_firing_is_kept_and_nothing_else(subject: SubjectModel) -> None:
    chunks = chunked(subject.vocabulary_size)
    run = passed(subject, chunks, checkpoints())
    for checkpoint in checkpoints():
        truth = dense(subject, chunks, checkpoint)
        token, latent = truth.z.nonzero()
        expected = pl.DataFrame(
            {
                "latent": latent.astype(np.uint32),
                "context": truth.context[token],
                "position": truth.position[token].astype(np.uint32),
                "truth": truth.z[token, latent],
            }
        ).sort("latent", "context", "position")
        found = firings(run, checkpoint.name)
        assert found.height > 100
        assert found.select("latent", "context", "position").equals(
            expected.select("latent", "context", "position")
        )
        np.testing.assert_allclose(found["value"], expected["truth"], rtol=1e-4, atol=1e-5)


def test_shards_are_sorted_by_latent_context_and_position(subject: SubjectModel) -> None:
    run = passed(subject, chunked(subject.vocabulary_size), checkpoints())
    for chunk in run.cost.chunk_names:
        frame = run.store.read(firing_key("jump", chunk))
        assert frame.equals(frame.sort("latent", "row", "position"))


@pytest.mark.parametrize("arrangement", [{"per_chunk": 4}, {"per_chunk": 24}, {"rows_per_batch": 1}])
def test_firings_do_not_depend_on_chunks_and_batches(
    subject: SubjectModel, arrangement: dict[str, int]
) -> None:
    usual = passed(subject, chunked(subject.vocabulary_size), checkpoints())
    other = passed(subject, chunked(subject.vocabulary_size, **arrangement), checkpoints())
    for name in ("top/k 4", "jump"):
        mine, theirs = firings(usual, name), firings(other, name)
        assert mine.drop("value").equals(theirs.drop("value"))
        np.testing.assert_allclose(mine["value"], theirs["value"], rtol=1e-4, atol=1e-5)


def test_contexts_stand_in_the_corpus_order_with_all_their_tokens(subject: SubjectModel) -> None:
    (chunk,) = chunked(subject.vocabulary_size, per_chunk=24)
    frame = ContextTable.of(chunk).frame
    names = [chunk.document_ids.index(name) for name in frame["document"]]
    assert names == sorted(names)
    starts = frame.group_by("document", maintain_order=True).agg("start")["start"].to_list()
    assert all(each == list(range(0, 11 * len(each), 11)) for each in starts)
    assert (frame["first_scored"] == 1).all()
    assert sum(map(len, frame["tokens"])) == chunk.token_count
    assert frame["context"].n_unique() == frame.height


def test_the_numbers_of_a_batch_lead_to_its_contexts(subject: SubjectModel) -> None:
    (chunk,) = chunked(subject.vocabulary_size, per_chunk=24, rows_per_batch=5)
    table = ContextTable.of(chunk)
    tokens = table.frame["tokens"].to_list()
    for batch, numbers in zip(chunk.batches, table.numbers, strict=True):
        for row, number in enumerate(numbers.tolist()):
            assert batch.tokens[row][batch.attention_mask[row]].tolist() == tokens[number]


class Texts:
    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def documents(self):
        for index, text in enumerate(self.texts):
            yield Document(f"{index:064x}", text, f"text {index}")


def test_packed_contexts_name_all_their_documents() -> None:
    texts = Texts(*("one two three " * (3 + index) for index in range(6)))
    options = ContextOptions(context_length=16, packing="packed")
    (chunk,) = corpus_chunks(texts, tiny_tokenizer(), options, batch_tokens=64, chunk_tokens=10_000)
    frame = ContextTable.of(chunk).frame
    assert frame["documents"].list.len().max() > 1
    assert frame["context"].n_unique() == frame.height
    assert set(frame["documents"].explode()) == set(chunk.document_ids)
    for row in frame.iter_rows(named=True):
        behind = enumerate(row["tokens"][row["first_scored"] :], start=row["first_scored"])
        assert row["unscored"] == [place for place, token in behind if token == tiny_tokenizer().eos_token_id]
    assert frame["unscored"].list.len().sum() > 0


def test_two_documents_of_equal_content_have_contexts_of_equal_id() -> None:
    document = Document("a" * 64, "one two three", "a")

    class Twice:
        def documents(self):
            yield from (document, document)

    options = ContextOptions(context_length=16)
    (chunk,) = corpus_chunks(Twice(), tiny_tokenizer(), options, batch_tokens=64, chunk_tokens=10_000)
    frame = ContextTable.of(chunk).frame
    assert frame.height == 2 and frame["context"].n_unique() == 1


# ---- near misses ----------------------------------------------------------------------------------------


def test_near_misses_are_the_silent_contexts_that_come_closest(subject: SubjectModel) -> None:
    chunks = chunked(subject.vocabulary_size)
    run = passed(subject, chunks, checkpoints())
    for checkpoint in checkpoints():
        truth = dense(subject, chunks, checkpoint)
        margin = _dense_margins(checkpoint.sae, truth)
        for index, chunk in enumerate(run.cost.chunk_names):
            here = truth.order // 1_000_000 == index
            contexts = run.store.read(f"contexts/{chunk}")
            ids = contexts["context"]
            frame = run.store.read(near_miss_key(checkpoint.name, chunk))
            for latent in (0, 7, 30):
                best = {}
                for context in np.unique(truth.context[here]):
                    rows = here & (truth.context == context)
                    if not truth.z[rows, latent].any():
                        document = truth.document[rows][0]
                        best[document] = min(margin[rows, latent].min(), best.get(document, np.inf))
                mine = frame.filter(pl.col("latent") == latent)
                names = contexts["document"].gather(mine["row"]).to_list()
                found = dict(zip(names, mine["margin"], strict=True))
                assert found == pytest.approx(best, rel=1e-3, abs=1e-5)
                for row in mine.iter_rows(named=True):
                    place = (truth.context == ids[row["row"]]) & (truth.position == row["position"])
                    assert margin[place, latent].item() == pytest.approx(row["margin"], rel=1e-3, abs=1e-5)


def _dense_margins(sae: SparseAutoencoder, truth: spilled_runs.Dense) -> np.ndarray:
    if isinstance(sae.activation, JumpReLU):
        return sae.activation.threshold.numpy() - truth.pre
    kth = np.sort(truth.pre, axis=1)[:, -sae.activation.k]
    return np.maximum(kth, 0)[:, None] - truth.pre


ACTIVATIONS = {
    "topk": TopK(3),
    "topk weighted": TopK(3, weight=torch.linspace(0.5, 2, 10)),
    "abstopk": AbsTopK(3),
    "relu": ReLU(),
    "jumprelu": JumpReLU(torch.linspace(-0.5, 1, 10)),
    "gated": Gated(torch.linspace(-1, 1, 10), torch.ones(10), torch.full((10,), 9.0)),
    "gated, small": Gated(torch.linspace(-1, 1, 10), torch.linspace(0.5, 2, 10), torch.linspace(1, -1, 10)),
}


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_a_margin_is_positive_just_where_a_latent_is_silent(name: str) -> None:
    activation = ACTIVATIONS[name]
    sae = replace(planted_autoencoder(6, 10, k=3, generator=torch.Generator().manual_seed(1)))
    sae = replace(sae, activation=activation)
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(2))
    latents = torch.tensor([0, 4, 9])
    pre = sae.pre_activations_of(x, latents)
    torch.testing.assert_close(pre, sae.pre_activations(x)[:, latents])
    found = margins(activation, pre, latents, sae.encode_sparse(x))
    fires = sae.encode(x)[:, latents] != 0
    assert fires.any() and (~fires).any()
    assert torch.equal(found > 1e-5, ~fires)


def test_a_latent_whose_gate_is_open_and_whose_magnitude_is_not_has_near_misses(
    subject: SubjectModel,
) -> None:
    made = spilled_runs.jump_relu()
    count = made.latent_count
    gated = Gated(torch.full((count,), 9.0), torch.full((count,), 2.0), torch.full((count,), -3.0))
    entry = Checkpoint("gated", replace(made, activation=gated), SITE)
    _every_silence_has_a_near_miss(subject, entry)


def test_a_tie_that_is_lost_is_a_near_miss(subject: SubjectModel) -> None:
    made = spilled_runs.top_k()
    twice = torch.cat([torch.arange(24), torch.arange(24)])  # so each latent of the second half loses ties
    encoder = {"encoder_weight": made.encoder_weight[twice], "encoder_bias": made.encoder_bias[twice]}
    _every_silence_has_a_near_miss(
        subject, Checkpoint("ties", replace(made, activation=TopK(3), **encoder), SITE)
    )


def _every_silence_has_a_near_miss(subject: SubjectModel, entry: Checkpoint) -> None:
    """Each latent and document in which some context is silent has one, and it is silent."""
    run = passed(subject, chunked(subject.vocabulary_size, context_length=64), [entry])
    for chunk in run.cost.chunk_names:
        contexts = run.store.read(f"contexts/{chunk}").with_row_index("row").select("row", "document")
        pairs = contexts.join(
            pl.DataFrame({"latent": np.arange(entry.sae.latent_count, dtype=np.uint32)}), how="cross"
        )
        fired = run.store.read(firing_key(entry.name, chunk))
        silent = pairs.join(fired, on=["latent", "row"], how="anti")
        misses = run.store.read(near_miss_key(entry.name, chunk))
        assert misses.join(fired, on=["latent", "row"], how="semi").is_empty()
        assert (misses["margin"] >= 0).all()
        found = misses.join(contexts, on="row").select("latent", "document").sort("latent", "document")
        assert found.equals(silent.select("latent", "document").unique().sort("latent", "document"))


def test_what_never_is_silent_has_no_margins() -> None:
    assert not has_margins(Identity())


# ---- resuming, failing ----------------------------------------------------------------------------------


def test_a_killed_pass_loses_one_chunk_and_ends_with_the_same_bytes(
    subject: SubjectModel, tmp_path: Path
) -> None:
    chunks = chunked(subject.vocabulary_size)
    with RunStore.open(tmp_path / "whole", suite_toml="", identity={}) as store:
        passed(subject, chunks, checkpoints(), store=store)

    class Killed(BaseException):
        pass

    class Dying(RunStore):
        written = 0

        def write(self, key: str, frame: pl.DataFrame) -> None:
            Dying.written += 1
            if Dying.written == 15:
                raise Killed
            super().write(key, frame)

    with Dying.open(tmp_path / "killed", suite_toml="", identity={}) as store, pytest.raises(Killed):
        passed(subject, chunks, checkpoints(), store=store)
    with RunStore.open(tmp_path / "killed", suite_toml="", identity={}) as store:
        run = passed(subject, chunks, checkpoints(), store=store)
    assert 0 < run.cost.resumed_chunk_count < len(chunks)
    whole, killed = (sorted((tmp_path / name / "chunks").iterdir()) for name in ("whole", "killed"))
    assert [file.name for file in whole] == [file.name for file in killed]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(whole, killed, strict=True))


def test_workers_that_share_the_chunks_leave_what_one_leaves(subject: SubjectModel) -> None:
    chunks = chunked(subject.vocabulary_size)
    alone, shared = MemoryStore(), MemoryStore()
    passed(subject, chunks, checkpoints(), store=alone)
    for part in (chunks[2:], chunks[:2]):
        passed(subject, part, checkpoints(), store=shared)
    assert alone.keys() == shared.keys()
    assert all(alone.read(key).equals(shared.read(key)) for key in list(alone.keys()))


def test_a_dictionary_that_cannot_run_leaves_a_row_and_no_firings(subject: SubjectModel) -> None:
    wrong = planted_autoencoder(8, 16, k=2, generator=torch.Generator().manual_seed(0))
    entries = [Checkpoint("wrong", wrong, SITE), *checkpoints()]
    run = passed(subject, chunked(subject.vocabulary_size), entries)
    rows = read_observations(run.store, run.cost.chunk_names)
    assert set(rows["checkpoint"]) == {"wrong"}
    assert set(rows["metric"]) == {FIRINGS} and set(rows["status"]) == {"failed"}
    assert "d_model is 8" in rows["reason"][0]
    assert not run.store.keys(f"firings/{slug('wrong')}")
    assert firings(run, "jump").height > 0


def test_latents_that_are_no_numbers_fail(subject: SubjectModel) -> None:
    broken = spilled_runs.top_k()
    broken = replace(broken, encoder_bias=broken.encoder_bias + torch.inf)
    run = passed(subject, chunked(subject.vocabulary_size), [Checkpoint("broken", broken, SITE)])
    rows = read_observations(run.store, run.cost.chunk_names)
    assert set(rows["status"]) == {"failed"}


def test_without_metrics_the_subject_stops_at_the_site(
    subject: SubjectModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise AssertionError("logits were asked for")

    monkeypatch.setattr(SubjectModel, "read_with_logits", refuse)
    monkeypatch.setattr(SparseAutoencoder, "reconstruct_sparse", refuse)
    run = passed(subject, chunked(subject.vocabulary_size), checkpoints())
    assert firings(run, "jump").height > 0


def test_a_slug_is_short_and_tells_names_apart() -> None:
    names = ["a/b", "a-b", "a b", "x" * 300, "x" * 301, "..", "~", "ü"]
    slugs = {slug(name) for name in names}
    assert len(slugs) == len(names)
    assert all(len(each) <= 89 and "/" not in each and "~" not in each for each in slugs)


def test_a_plan_without_followed_latents_keeps_no_near_misses(subject: SubjectModel) -> None:
    store = MemoryStore()
    chunks = chunked(subject.vocabulary_size)
    cost = ActivationPass(subject, checkpoints(), [], {}, spill=SpillPlan()).run(chunks, store)
    frames = [store.read(near_miss_key("jump", chunk)) for chunk in cost.chunk_names]
    assert all(frame.is_empty() for frame in frames)
