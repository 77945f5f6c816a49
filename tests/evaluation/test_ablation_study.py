"""Ablation sparsity on tiny subjects: against a plain loop, resumed, failing, rebatched, in both variants."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK
from autointerp.config import suite_from_mapping
from autointerp.errors import SubjectError
from autointerp.estimates import estimate
from autointerp.evaluation.inputs import in_memory, placed_all
from autointerp.evaluation.steps import measure
from autointerp.evaluation.studies import ablation
from autointerp.evaluation.studies.ablation import ABLATION
from autointerp.evaluation.studies.ablation_effects import Ablator
from autointerp.evaluation.work import Clock, Work
from autointerp.metrics.catalogue import definition
from autointerp.progress import SILENT
from autointerp.records import Failed, Measured, Undefined, slice_key
from autointerp.run_store import MemoryStore
from autointerp.sampling.context_table import ContextTable
from autointerp.sampling.corpus import document_of
from autointerp.subject.continued_pass import Starts
from autointerp.testing.planted_autoencoder import constant_autoencoder
from autointerp.testing.tiny_subject import tiny_subject

SITE = "blocks.1.hook_resid_post"
NAMES = [metric.name for metric in ABLATION.metrics]
T = 5


class Texts:
    """Some short documents."""

    def documents(self):
        words = ("the", "reading", "of", "stations", "is", "an", "order", "and", "it", "rests", "on", "a")
        for place in range(16):
            chosen = [words[(place * 5 + 3 * i + i * i) % len(words)] for i in range(5 + place)]
            yield document_of(" ".join(chosen), name=f"document-{place:02d}")


def dictionary(activation, *, seed, normalization="none", scaled=False, site=None, output_site=None):
    generator = torch.Generator().manual_seed(seed)
    reads = torch.nn.functional.normalize(torch.randn(60, 32, generator=generator), dim=1)
    writes = torch.randn(60, 32, generator=generator) * 0.5
    return SparseAutoencoder(
        encoder_weight=reads,
        encoder_bias=torch.full((60,), -0.2),
        decoder_weight=writes,
        decoder_bias=torch.randn(32, generator=generator),
        pre_bias=None,
        activation=activation,
        normalization=InputNormalization(normalization),
        latent_scale=0.5 + torch.rand(60, generator=generator) if scaled else None,
        metadata=CheckpointMetadata(site=site, output_site=output_site),
    )


@cache
def subject(family="llama"):
    return tiny_subject(family, seed=5)


@cache
def dictionaries():
    return {
        "topk": dictionary(TopK(6), seed=1, normalization="layer_norm"),
        "relu": dictionary(ReLU(), seed=2, scaled=True),
        "silent": constant_autoencoder(torch.zeros(32)),
    }


@cache
def calibrated(family, sites):
    """The shards that a run has of its sites, as its first step made them."""
    work, entries = begun(
        family=family, given={site: dictionary(TopK(3), seed=9, site=site) for site in sites}
    )
    measure(work, entries)
    return work.store.read_all("calibration/")


def begun(*, family="llama", given=None, batch_tokens=128, chunk_tokens=200, context_length=16, **settings):
    """A run before its study, and its dictionaries."""
    suite = suite_from_mapping(
        {
            "name": "ablation",
            "site": SITE,
            "subject": {"model": "tiny"},
            "corpus": {
                "context_length": context_length,
                "evaluation_tokens": 10_000,
                "calibration_tokens": 100,
            },
            "metrics": {"families": ["ablation"]},
            "nulls": {"random_dictionaries": 0},
            "checks": {"largest_normalized_mse": 1e9},
            "sampling": {"enabled": False},
            "ablation": {"samples": 30, "horizon": T, **settings},
            "runtime": {"batch_tokens": batch_tokens, "chunk_tokens": chunk_tokens},
        },
        folder=Path(),
        where="here",
    )
    found = dictionaries() if given is None else given
    entries = placed_all([in_memory(name, sae, suite) for name, sae in found.items()], subject(family), suite)
    store = MemoryStore()
    return Work(suite, subject(family), Texts(), store, Clock(store), SILENT), entries


def studied(**given):
    """The store, the observations and the facts of a whole study."""
    work, entries = begun(**given)
    sites = tuple(sorted({site for entry in entries for site in entry.checkpoint.sites}))
    for key, frame in calibrated(given.get("family", "llama"), sites).items():
        work.store.write(key, frame)
    found = ABLATION.observe(work, entries)
    return work, entries, found


@cache
def usual():
    return studied()


def readings(work):
    return pl.concat(work.store.read_all("ablation/").values())


def outcome(frame, name, checkpoint, **settings):
    rows = frame.filter(
        (pl.col("metric") == f"ablation.{name}")
        & (pl.col("checkpoint") == checkpoint)
        & (pl.col("slice") == slice_key(settings))
    )
    return estimate(rows, definition(f"ablation.{name}"), resamples=100)


# ---- the plain loop -----------------------------------------------------------------------------------


def contexts(work):
    """Tokens of every context by id, as hexadecimal digits."""
    return {
        f"{row['context']:016x}": torch.tensor(row["tokens"])[None]
        for chunk in work.chunks("evaluation", 10_000)
        for row in ContextTable.of(chunk).frame.iter_rows(named=True)
    }


def contribution(sae, x, latent):
    """What the latent adds to the reconstruction of one token: with it, less without."""
    z = sae.encode(x[None])
    without = z.clone()
    without[0, latent] = 0.0
    statistics = sae.normalization.apply(x[None])[1]
    undo = sae.normalization.undo
    return z[0], (undo(sae.decode(z), statistics) - undo(sae.decode(without), statistics))[0]


def plain_numbers(before, after):
    """sparsity, at T = 1, concentration and KL out of logits [T V], in float64."""
    v = (after - before).double()
    u = v - v.median(dim=1, keepdim=True).values
    sigma = u.norm(dim=1)
    p, q = before.double().log_softmax(1), after.double().log_softmax(1)
    return {
        "sparsity": float((u.abs().sum() / u.norm()) ** 2 / u.numel()),
        "first": float((u[0].abs().sum() / u[0].norm()) ** 2 / u.shape[1]),
        "token_concentration": float(sigma.sum() ** 2 / (len(sigma) * sigma.square().sum())),
        "effect_kl_nats": float((p.exp() * (p - q)).sum()),
    }


def direct_share(subject, residual, moved, v):
    """Through the final norm and the unembedding alone, by hand."""
    model = subject.model
    head = model.get_output_embeddings()

    def logits(x):
        with torch.no_grad():
            return head(model.model.norm(x)).double()

    d = logits(moved) - logits(residual)
    m = v.double().clone()
    m[0] -= d
    size = [float((x - x.median(-1, keepdim=True).values).square().sum()) for x in (d, m)]
    return size[0] / sum(size)


def plain(work, entry, row, *, from_reconstruction=False):
    """One ablation by two whole passes."""
    subject, place = work.subject, entry.checkpoint
    context, position = row["unit"].split("/")
    tokens, position = contexts(work)[context], int(position)
    sites = [place.site, place.reads, "blocks.2.hook_resid_post"]
    clean = subject.read_with_logits(tokens, sites)
    stands = clean.activations[place.site].clone()
    if from_reconstruction:
        stands = place.sae.reconstruct(clean.activations[place.reads][0])[None]
    z, c = contribution(place.sae, clean.activations[place.reads][0, position], row["index"])
    moved = stands.clone()
    moved[0, position] -= c
    span = slice(position, position + T)
    before = subject.logits_from(place.site, stands, clean)[0, span]
    after = subject.logits_from(place.site, moved, clean)[0, span]
    found = plain_numbers(before, after)
    if not from_reconstruction:
        last = clean.activations["blocks.2.hook_resid_post"][0, position]
        found["direct_share"] = direct_share(subject, last, last - c, after - before)
    return found, z


def observed(found, checkpoint, unit, name, **settings):
    [row] = found.observations.filter(
        (pl.col("metric") == f"ablation.{name}")
        & (pl.col("checkpoint") == checkpoint)
        & (pl.col("unit") == unit)
        & (pl.col("slice") == slice_key(settings))
    ).iter_rows(named=True)
    assert row["status"] == "measured"
    return row["numerator"] / row["denominator"]


def assert_equals_the_loop(run, checkpoint, *, count=6, **variant):
    work, entries, found = run
    entry = next(entry for entry in entries if entry.summary.name == checkpoint)
    rows = readings(work).filter((pl.col("checkpoint") == checkpoint) & (pl.col("kind") == "latent"))
    for row in rows.sort("unit").head(count).iter_rows(named=True):
        expected, z = plain(work, entry, row, **variant)
        assert row["weight"] == int((z != 0).sum())
        assert z[row["index"]] != 0
        first = expected.pop("first")
        assert observed(found, checkpoint, row["unit"], "sparsity", horizon=1) == pytest.approx(
            first, rel=1e-4
        )
        for name, value in expected.items():
            assert observed(found, checkpoint, row["unit"], name) == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("checkpoint", ["topk", "relu"])
def test_every_number_is_that_of_two_whole_passes(checkpoint):
    assert usual()[2].facts["whole_contexts"] == {}
    assert_equals_the_loop(usual(), checkpoint)


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "gpt_neox", "bloom"])
def test_other_families_too(family):
    run = studied(family=family, given={"topk": dictionaries()["topk"]})
    work, entries, found = run
    rows = readings(work).filter(pl.col("kind") == "latent").sort("unit").head(4)
    for row in rows.iter_rows(named=True):
        # The final norm is not called the same everywhere, so the direct share is left to other tests.
        place, tokens = entries[0].checkpoint, contexts(work)[row["unit"].split("/")[0]]
        position = int(row["unit"].split("/")[1])
        clean = work.subject.read_with_logits(tokens, [place.site])
        moved = clean.activations[place.site].clone()
        moved[0, position] -= contribution(place.sae, moved[0, position], row["index"])[1]
        span = slice(position, position + T)
        after = work.subject.logits_from(place.site, moved, clean)[0, span]
        expected = plain_numbers(clean.logits[0, span], after)
        assert observed(found, "topk", row["unit"], "sparsity") == pytest.approx(
            expected["sparsity"], rel=1e-4
        )


def test_a_transcoder_is_ablated_where_it_writes():
    sae = dictionary(TopK(4), seed=4, site="blocks.1.mlp.hook_in", output_site="blocks.1.hook_mlp_out")
    assert_equals_the_loop(studied(given={"transcoder": sae}), "transcoder", count=4)


def test_ablation_in_the_reconstruction_is_against_the_reconstruction():
    run = studied(subtract_from="reconstruction", given={"topk": dictionaries()["topk"]})
    assert_equals_the_loop(run, "topk", from_reconstruction=True)
    assert run[2].facts["subtract_from"] == "reconstruction"


def test_channels_are_set_to_their_calibration_mean():
    work, _, found = usual()
    rows = readings(work).filter((pl.col("checkpoint") == "topk") & (pl.col("kind") == "channel"))
    mean = work.store.read(f"calibration/{SITE}")["mean"].item()
    for row in rows.sort("unit").head(4).iter_rows(named=True):
        context, position = row["unit"].split("/")
        clean = work.subject.read_with_logits(contexts(work)[context], [SITE])
        moved = clean.activations[SITE].clone()
        moved[0, int(position), row["index"]] = mean[row["index"]]
        span = slice(int(position), int(position) + T)
        after = work.subject.logits_from(SITE, moved, clean)[0, span]
        expected = plain_numbers(clean.logits[0, span], after)["sparsity"]
        for name in ("topk", "relu", "silent"):  # the same beside every dictionary
            got = observed(found, name, row["unit"], "sparsity", null="channels")
            assert got == pytest.approx(expected, rel=1e-4)


def test_random_directions_are_as_long_as_what_they_stand_beside(monkeypatch):
    seen = []
    effects = Ablator.effects

    def spying(self, kept, site, starts, vectors):
        seen.append(vectors)
        return effects(self, kept, site, starts, vectors)

    monkeypatch.setattr(Ablator, "effects", spying)
    studied(given={"topk": dictionaries()["topk"]})
    vectors = torch.cat(seen).unflatten(0, (-1, 3))  # latent, random, channel at every place
    torch.testing.assert_close(vectors[:, 1].norm(dim=1), vectors[:, 0].norm(dim=1))
    cosine = torch.cosine_similarity(vectors[:, 0], vectors[:, 1])
    assert abs(float(cosine.mean())) < 0.15
    assert ((vectors[:, 2] != 0).sum(dim=1) == 1).all()


def test_a_latent_that_touches_one_logit_scores_one_over_v_t():
    """Behind the last block, without a final norm, along an axis that one row of the unembedding reads."""
    alone = tiny_subject("llama", seed=3, tie_word_embeddings=False)
    alone.model.model.norm = torch.nn.Identity()
    with torch.no_grad():
        alone.model.lm_head.weight[:, 7] = 0.0
        alone.model.lm_head.weight[41, 7] = 1.5
    site = "blocks.2.hook_resid_post"
    ablator = Ablator(alone, [site], horizon=T)
    kept = ablator.passes.keep(torch.arange(3, 15)[None])
    starts = Starts(torch.tensor([0, 0]), torch.tensor([2, 6]))
    found = ablator.effects(kept, site, starts, 2.0 * torch.eye(32)[[7, 7]])
    size = alone.vocabulary_size * T
    score = found.total.absolute.sum(axis=1) ** 2 / found.total.squared.sum(axis=1) / size
    np.testing.assert_allclose(score, 1 / size, rtol=1e-5)
    np.testing.assert_allclose(found.direct.squared, found.total.squared[:, :1])
    assert (found.mediated.squared == 0).all()
    assert (found.total.squared[:, 1:] == 0).all()


# ---- laws ---------------------------------------------------------------------------------------------


def same_numbers(one, other, checkpoint="topk", tolerance=1e-4):
    keys = ["metric", "slice", "unit"]
    frames = [
        found.observations.filter(pl.col("checkpoint") == checkpoint).sort(keys) for found in (one, other)
    ]
    assert frames[0].select(keys).equals(frames[1].select(keys))
    for column in ("numerator", "denominator", "sampling_weight"):
        a, b = (frame[column].fill_null(-1.0).to_numpy() for frame in frames)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=1e-9)


def test_numbers_do_not_depend_on_batches_chunks_or_the_company():
    reference = usual()[2]
    same_numbers(studied(batch_tokens=32, chunk_tokens=40)[2], reference)
    same_numbers(studied(given={"topk": dictionaries()["topk"]})[2], reference)
    backwards = dict(reversed(dictionaries().items()))
    same_numbers(studied(given=backwards)[2], reference)


def test_few_logits_at_a_time_give_the_same(monkeypatch):
    monkeypatch.setattr("autointerp.evaluation.studies.ablation_effects._LOGITS", 4000)
    same_numbers(studied()[2], usual()[2])


def test_whole_contexts_give_the_same_and_are_told(monkeypatch):
    monkeypatch.setattr(
        "autointerp.subject.continued_pass.ContinuedPass._continued", lambda *_: torch.zeros(1, 1, 1)
    )
    found = studied()[2]
    assert list(found.facts["whole_contexts"]) == [SITE]
    same_numbers(found, usual()[2])


def test_twice_as_strong_a_latent_has_a_larger_effect():
    topk = dictionaries()["topk"]
    run = studied(given={"topk": topk, "doubled": replace(topk, decoder_weight=2 * topk.decoder_weight)})
    values = {
        name: outcome(run[2].observations, "effect_kl_nats", name).estimate.value
        for name in ("topk", "doubled")
    }
    assert values["doubled"] > 1.5 * values["topk"]


def test_every_checkpoint_of_a_site_is_ablated_at_the_same_tokens():
    frame = usual()[2].observations.filter(pl.col("slice") == "{}")
    units = {
        name: set(frame.filter(pl.col("checkpoint") == name)["unit"]) for name in ("topk", "relu", "silent")
    }
    assert units["topk"] == units["relu"] == units["silent"]
    assert len(units["topk"]) == 30


# ---- what has no number -------------------------------------------------------------------------------


def test_a_dictionary_that_never_fires_is_undefined_beside_measured_ones():
    frame = usual()[2].observations
    for name in ("sparsity", "sparsity_over_random", "effect_kl_nats", "direct_share"):
        found = outcome(frame, name, "silent")
        assert isinstance(found, Undefined)
        assert "no latent is active" in found.reason
        assert isinstance(outcome(frame, name, "topk"), Measured)
    assert isinstance(outcome(frame, "sparsity", "silent", null="channels"), Measured)


def test_a_direction_of_length_zero_is_undefined_with_its_reason():
    topk = dictionaries()["topk"]
    run = studied(given={"flat": replace(topk, decoder_weight=0 * topk.decoder_weight)})
    found = outcome(run[2].observations, "sparsity", "flat")
    assert isinstance(found, Undefined)
    assert "what would be taken away is zero" in found.reason


def test_short_contexts_are_undefined_and_say_so():
    run = studied(context_length=4)
    frame = run[2].observations
    assert set(frame["metric"]) == set(NAMES)
    found = outcome(frame, "sparsity", "topk")
    assert isinstance(found, Undefined)
    assert "has a token with 4 after it" in found.reason
    assert run[2].facts == {}


def test_numbers_that_are_not_finite_fail_that_dictionary_alone():
    topk = dictionaries()["topk"]
    broken = replace(topk, decoder_weight=topk.decoder_weight.clone().fill_(float("nan")))
    frame = studied(given={"broken": broken, "topk": topk})[2].observations
    found = outcome(frame, "sparsity", "broken")
    assert isinstance(found, Failed)
    assert "not finite" in found.reason
    assert isinstance(outcome(frame, "sparsity", "topk"), Measured)


@pytest.mark.parametrize("subtract_from", ["activation", "reconstruction"])
def test_a_dictionary_that_raises_fails_and_the_others_go_on(monkeypatch, subtract_from):
    own = ablation.latent_subtractions

    def raising(checkpoint, *args, **kwargs):
        if checkpoint.name == "relu":
            raise RuntimeError("out of luck\nsecond line")
        return own(checkpoint, *args, **kwargs)

    monkeypatch.setattr(ablation, "latent_subtractions", raising)
    frame = studied(subtract_from=subtract_from)[2].observations
    for name in ("sparsity", "sparsity_over_random", "token_concentration", "effect_kl_nats", "direct_share"):
        found = outcome(frame, name, "relu")
        assert isinstance(found, Failed)
        assert found.reason.startswith("RuntimeError: out of luck")
        assert "second line" not in found.reason
        assert isinstance(outcome(frame, name, "topk"), Measured)


def test_a_fault_of_the_run_itself_is_no_row(monkeypatch):
    def refusing(*_args, **_kwargs):
        raise SubjectError("gone")

    monkeypatch.setattr(ablation, "latent_subtractions", refusing)
    with pytest.raises(SubjectError):
        studied()


def test_no_dictionary_no_observations():
    work, _ = begun()
    assert ABLATION.observe(work, []).observations.height == 0


# ---- going on -----------------------------------------------------------------------------------------


def many_groups(monkeypatch):
    monkeypatch.setattr("autointerp.evaluation.studies.ablation_places._GROUP_TOKENS", 40)


def test_a_killed_study_goes_on_where_it_was(monkeypatch):
    many_groups(monkeypatch)
    whole = studied()
    measured = ablation._Run._measured
    calls = []

    def dying(self, group):
        calls.append(group)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measured(self, group)

    work, entries = begun()
    for key, frame in whole[0].store.read_all("calibration/").items():
        work.store.write(key, frame)
    monkeypatch.setattr(ablation._Run, "_measured", dying)
    with pytest.raises(KeyboardInterrupt):
        ABLATION.observe(work, entries)
    assert len(work.store.keys("ablation/")) == 3
    found = ABLATION.observe(work, entries)
    group_count = len(work.store.keys("ablation/"))
    assert len(calls) == 3 + 1 + (group_count - 3)
    assert found.observations.equals(whole[2].observations)
    assert found.facts == whole[2].facts


def test_what_failed_is_tried_again_and_nothing_else(monkeypatch):
    many_groups(monkeypatch)
    work, entries, _ = studied()
    keys = work.store.keys("ablation/")
    failing = work.store.read(keys[1]).with_columns(status=pl.lit("failed"))
    work.store.write(keys[1], failing)
    measured, calls = ablation._Run._measured, []
    monkeypatch.setattr(
        ablation._Run, "_measured", lambda self, group: calls.append(group) or measured(self, group)
    )
    found = ABLATION.observe(work, entries)
    assert len(calls) == 1
    assert isinstance(outcome(found.observations, "sparsity", "topk"), Measured)


def test_a_dictionary_that_was_lost_and_comes_back_is_ablated_too():
    work, entries = begun()
    for key, frame in usual()[0].store.read_all("calibration/").items():
        work.store.write(key, frame)
    ABLATION.observe(work, entries[1:])
    found = ABLATION.observe(work, entries)
    names = {entry.summary.name for entry in entries}
    assert set(found.observations["checkpoint"]) == names
    fewer = ABLATION.observe(work, entries[1:])
    assert set(fewer.observations["checkpoint"]) == names - {entries[0].summary.name}


def test_two_sites_share_the_tokens():
    low, high = "blocks.0.hook_resid_post", "blocks.2.hook_resid_post"
    given = {
        "low": dictionary(TopK(4), seed=1, site=low),
        "high": dictionary(TopK(4), seed=1, site=high),
        "inner": dictionary(TopK(4), seed=1, site="blocks.1.attn.hook_z"),
    }
    frame = studied(given=given)[2].observations
    assert isinstance(outcome(frame, "sparsity", "low"), Measured)
    share = outcome(frame, "direct_share", "high")
    assert share.estimate.value == 1.0
    assert isinstance(outcome(frame, "sparsity", "high", path="mediated"), Undefined)
    concentration = outcome(frame, "token_concentration", "high")
    assert concentration.estimate.value == pytest.approx(1 / T)
    without = outcome(frame, "direct_share", "inner")
    assert isinstance(without, Undefined)
    assert "not added to the residual stream" in without.reason


# ---- precision ----------------------------------------------------------------------------------------


def test_a_dictionary_in_double_precision_gives_the_same():
    topk = dictionaries()["topk"]
    double = studied(given={"topk": topk.to(dtype=torch.float64)})[2]
    same_numbers(double, usual()[2])


def test_a_subject_in_half_precision_is_measured_and_told():
    half = tiny_subject("llama", seed=5, dtype=torch.bfloat16)
    ablator = Ablator(half, [SITE], horizon=T)
    kept = ablator.passes.keep(torch.arange(3, 19)[None])
    starts = Starts(torch.tensor([0, 0]), torch.tensor([2, 6]))
    vectors = 3.0 * torch.nn.functional.normalize(torch.ones(2, 32), dim=1)
    found = ablator.effects(kept, SITE, starts, vectors)
    whole = Ablator(tiny_subject("llama", seed=5), [SITE], horizon=T)
    expected = whole.effects(whole.passes.keep(torch.arange(3, 19)[None]), SITE, starts, vectors)
    np.testing.assert_allclose(found.kl.sum(axis=1), expected.kl.sum(axis=1), rtol=0.1)
    assert ablator.passes.why_whole[SITE] == ""
