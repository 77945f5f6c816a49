"""Downstream losses against full passes with a plain hook, token by token, in float64."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import polars as pl
import pytest
import torch
from scipy import special

from autointerp.metrics.calibration import calibrate
from autointerp.metrics.catalogue import families
from autointerp.metrics.downstream_loss import DOWNSTREAM
from autointerp.sampling.activation_pass import CLEAN_LOSS, SUBJECT, ActivationPass
from autointerp.sampling.contexts import CorpusChunk
from autointerp.sampling.readings import Checkpoint, SiteCalibration
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.planted_autoencoder import planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject
from autointerp.testing.token_chunks import random_chunk, random_documents

LAYER = 1
SITE = f"blocks.{LAYER}.hook_resid_post"


@pytest.fixture(scope="module")
def subject() -> SubjectModel:
    return tiny_subject("llama", seed=3, dtype=torch.float64)


@pytest.fixture(scope="module", params=[True, False], ids=["bos", "no-bos"])
def chunk(request: pytest.FixtureRequest, subject: SubjectModel) -> CorpusChunk:
    documents = random_documents([20, 1, 9, 2, 30], vocabulary_size=subject.vocabulary_size)
    return random_chunk(documents, context_length=12, rows_per_batch=3, prepend_bos=request.param)


@pytest.fixture(scope="module")
def calibration(subject: SubjectModel, chunk: CorpusChunk) -> dict[str, SiteCalibration]:
    return calibrate(subject, [SITE], [chunk])


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    sae = planted_autoencoder(32, 64, k=6, generator=torch.Generator().manual_seed(0), noise=0.02)
    return Checkpoint("planted", sae.to(dtype=torch.float64), SITE)


@contextmanager
def replaced(subject: SubjectModel, change) -> Iterator[None]:
    def hook(_module, _args, output):
        if isinstance(output, torch.Tensor):
            return change(output)
        return (change(output[0]), *output[1:])

    handle = subject.model.model.layers[LAYER].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def plain_log_probabilities(subject: SubjectModel, tokens: list[int], change) -> np.ndarray:
    """One context by itself, without padding, the whole model run."""
    with torch.no_grad(), replaced(subject, change):
        logits = subject.model(input_ids=torch.tensor([tokens]), use_cache=False).logits
    return special.log_softmax(logits[0].numpy(), axis=1)


def oracle(
    subject: SubjectModel, chunk: CorpusChunk, checkpoint: Checkpoint, mean: torch.Tensor
) -> dict[str, dict[tuple[str, int], float]]:
    """Each loss by (document, position), one context and one prediction at a time."""
    changes = {
        "clean": lambda x: x,
        "substituted": lambda x: checkpoint.sae.reconstruct(x[0]).unsqueeze(0),
        "zero": torch.zeros_like,
        "mean": mean.expand_as,
    }
    found: dict[str, dict[tuple[str, int], float]] = {name: {} for name in [*changes, "kl", "place"]}
    for batch in chunk.batches:
        for row in range(len(batch.tokens)):
            length = int(batch.attention_mask[row].sum())
            tokens = batch.tokens[row, :length].tolist()
            logs = {
                name: plain_log_probabilities(subject, tokens, change) for name, change in changes.items()
            }
            for position in range(length - 1):
                document = int(batch.document_index[row, position])
                if document < 0 or not bool(batch.is_scored[row, position + 1]):
                    continue
                key = (chunk.document_ids[document], len(found["kl"]))
                found["place"][key] = position
                for name in changes:
                    found[name][key] = -logs[name][position, tokens[position + 1]]
                clean, other = np.exp(logs["clean"][position]), np.exp(logs["substituted"][position])
                found["kl"][key] = float(special.rel_entr(clean, other).sum())
    return found


def test_all_losses_equal_full_passes_with_a_plain_hook(
    subject: SubjectModel,
    chunk: CorpusChunk,
    calibration: dict[str, SiteCalibration],
    checkpoint: Checkpoint,
) -> None:
    result = ActivationPass(subject, [checkpoint], families(["downstream"]), calibration).measure(chunk)
    found = oracle(subject, chunk, checkpoint, calibration[SITE].mean)
    expected = {
        "downstream.kl_nats": lambda key: (found["kl"][key], 1.0),
        "downstream.delta_ce_nats": lambda key: (found["substituted"][key] - found["clean"][key], 1.0),
        "downstream.compute_equivalent_fraction": lambda key: (
            found["substituted"][key] - found["clean"][key],
            1.0,
        ),
        "downstream.fraction_recovered_zero": lambda key: (
            found["zero"][key] - found["substituted"][key],
            found["zero"][key] - found["clean"][key],
        ),
        "downstream.fraction_recovered_mean": lambda key: (
            found["mean"][key] - found["substituted"][key],
            found["mean"][key] - found["clean"][key],
        ),
        CLEAN_LOSS: lambda key: (found["clean"][key], 1.0),
    }
    rows = result.observations.filter(pl.col("slice") == "{}")
    assert set(rows["metric"]) == set(expected)
    for row in rows.iter_rows(named=True):
        keys = [key for key, place in found["place"].items() if key[0] == row["unit"] and place >= 1]
        sums = np.sum([expected[row["metric"]](key) for key in keys], axis=0)
        np.testing.assert_allclose([row["numerator"], row["denominator"]], sums, rtol=1e-8, atol=1e-9)
        assert row["checkpoint"] == (SUBJECT if row["metric"] == CLEAN_LOSS else "planted")


def test_position_slices_of_the_loss_difference_are_those_of_the_predicting_token(
    subject: SubjectModel,
    chunk: CorpusChunk,
    calibration: dict[str, SiteCalibration],
    checkpoint: Checkpoint,
) -> None:
    result = ActivationPass(subject, [checkpoint], families(["downstream"]), calibration).measure(chunk)
    rows = result.observations.filter(pl.col("metric") == "downstream.delta_ce_nats")
    counts = dict(rows.group_by("slice").agg(pl.col("denominator").sum()).iter_rows())
    places = list(oracle(subject, chunk, checkpoint, calibration[SITE].mean)["place"].values())
    edges = {"0": (0, 0), "1-3": (1, 3), "4-15": (4, 15)}
    expected = {"{}": float(sum(place >= 1 for place in places))}
    for name, (low, high) in edges.items():
        inside = sum(low <= place <= high for place in places)
        expected |= {f'{{"position":"{name}"}}': float(inside)} if inside else {}
    assert counts == expected


def test_metrics_that_need_losses_refuse_a_pass_without_them() -> None:
    from autointerp.checkpoints.sparse_latents import SparseLatents
    from autointerp.sampling.readings import BatchReconstruction, SiteMeans, SiteReading, TokenTable

    empty, none = torch.zeros(0, dtype=torch.long), torch.zeros(0, 4)
    batch = BatchReconstruction(
        "it",
        TokenTable(empty, empty, empty, empty.bool(), empty),
        SiteReading("site", none, SiteMeans(torch.zeros(4), torch.zeros(4))),
        none,
        SparseLatents(empty, torch.zeros(0), torch.zeros(1, dtype=torch.long), 3),
        None,
    )
    with pytest.raises(ValueError, match="need a pass with losses"):
        DOWNSTREAM.start("it", ["a"], frozenset(DOWNSTREAM.metrics)).update(batch)


def test_passes_that_no_metric_wants_are_not_made(
    subject: SubjectModel,
    chunk: CorpusChunk,
    calibration: dict[str, SiteCalibration],
    checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    for name in ("read", "read_with_logits", "logits_from"):
        original = getattr(subject, name)
        monkeypatch.setattr(
            subject,
            name,
            lambda *a, _name=name, _original=original, **k: calls.append(_name) or _original(*a, **k),
        )
    run = ActivationPass(subject, [checkpoint], families(["reconstruction"]), calibration)
    run.measure(chunk)
    assert set(calls) == {"read"}
    calls.clear()
    wanted = ["downstream.kl_nats", "downstream.fraction_recovered_mean"]
    run = ActivationPass(subject, [checkpoint], families(["downstream"]), calibration, metrics=wanted)
    rows = run.measure(chunk).observations
    # The mean is put in once, the reconstruction in every batch.
    first, later = ["read_with_logits", "logits_from", "logits_from"], ["read_with_logits", "logits_from"]
    assert calls == first + later * (len(chunk.batches) - 1)
    assert set(rows["metric"]) == {*wanted, CLEAN_LOSS}
