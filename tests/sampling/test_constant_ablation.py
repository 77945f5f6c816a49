"""One distribution for all ablated passes: right where it is used, and not used where it would be wrong."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from autointerp.errors import SubjectError
from autointerp.metrics.calibration import calibrate
from autointerp.metrics.catalogue import families
from autointerp.sampling.activation_pass import ActivationPass
from autointerp.sampling.batch_passes import Ablated, BatchPasses, PassCost
from autointerp.sampling.constant_ablation import TOLERANCE_NATS, ConstantAblations
from autointerp.sampling.contexts import CorpusChunk, TokenBatch
from autointerp.sampling.readings import Checkpoint, PredictionTable, SiteCalibration, TokenTable
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.planted_autoencoder import planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject
from autointerp.testing.token_chunks import random_chunk, random_documents

LOW, HIGH, INNER = "blocks.0.hook_resid_post", "blocks.2.hook_resid_pre", "blocks.1.hook_mlp_out"
LAYERS = {LOW: 0, HIGH: 1}
"""The block whose output each site is."""


def chunk_of(subject: SubjectModel, *lengths: int, seed: int = 0) -> CorpusChunk:
    """Two contexts a batch, the shorter ones padded."""
    documents = random_documents(lengths, vocabulary_size=subject.vocabulary_size, seed=seed)
    return random_chunk(documents, index=seed, rows_per_batch=2)


def ablated(
    subject: SubjectModel,
    batch: TokenBatch,
    site: str,
    calibration: dict[str, SiteCalibration],
    constants: ConstantAblations,
) -> Ablated:
    work = BatchPasses(
        subject,
        batch,
        (TokenTable.of(batch), PredictionTable.of(batch)),
        needs=frozenset({"zero", "mean"}),
        calibration=calibration,
        constants=constants,
        name="batch 0",
        cost=PassCost(),
    )
    work.run_clean([site])
    return work.ablated(work.reading(site))


def full_pass_losses(subject: SubjectModel, batch: TokenBatch, layer: int, vector: Tensor) -> Tensor:
    """The whole model with a plain hook on a block that puts the vector at every real token."""

    def put_in(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output if isinstance(output, Tensor) else output[0]
        new = torch.where(batch.attention_mask.unsqueeze(2), vector.to(hidden.dtype), hidden)
        return new if isinstance(output, Tensor) else (new, *output[1:])

    handle = subject.blocks.modules[layer].register_forward_hook(put_in, prepend=True)
    with torch.no_grad(), ExitStack() as stack:
        stack.callback(handle.remove)
        mask = batch.attention_mask.long()
        logits = subject.model(input_ids=batch.tokens, attention_mask=mask, use_cache=False).logits
    rows = PredictionTable.of(batch)
    return functional.cross_entropy(logits.flatten(0, 1)[rows.flat_index], rows.target, reduction="none")


def assert_equals_full_passes(
    found: Ablated, subject: SubjectModel, batch: TokenBatch, layer: int, mean: Tensor
) -> None:
    for losses, vector in ((found.zero, torch.zeros_like(mean)), (found.mean, mean)):
        assert losses is not None
        expected = full_pass_losses(subject, batch, layer, vector)
        torch.testing.assert_close(losses, expected, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "bloom"])
def test_one_distribution_gives_the_losses_of_full_ablated_passes(family: str) -> None:
    subject = tiny_subject(family, seed=4)
    chunk = chunk_of(subject, 15, 6, 2, 11)
    calibration = calibrate(subject, list(LAYERS), [chunk])
    constants = ConstantAblations(subject)
    for site, layer in LAYERS.items():
        for batch in chunk.batches:
            assert not bool(batch.attention_mask.all())
            found = ablated(subject, batch, site, calibration, constants)
            assert_equals_full_passes(found, subject, batch, layer, calibration[site].mean)
    assert set(constants.found) == {(site, name) for site in LAYERS for name in ("zero", "mean")}
    for one in constants.found.values():
        assert one.is_constant
        assert one.spread_nats is not None and one.spread_nats <= TOLERANCE_NATS / 10


def count_entries(subject: SubjectModel, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each call of `logits_from` ran from now on."""
    calls: list[int] = []
    original = subject.logits_from

    def counting(site: str, activations: Tensor, *args: Any) -> Tensor:
        calls.append(activations[..., 0].numel())
        return original(site, activations, *args)

    monkeypatch.setattr(subject, "logits_from", counting)
    return calls


@pytest.mark.parametrize("site", [LOW, "model.layers.0"], ids=["by kind", "by path of the block"])
def test_between_blocks_the_subject_is_entered_once_per_vector_and_not_per_batch(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = tiny_subject("llama", seed=4)
    chunk = chunk_of(subject, 15, 6, 2, 11)
    calibration, constants = calibrate(subject, [site], [chunk]), ConstantAblations(subject)
    calls = count_entries(subject, monkeypatch)
    for batch in chunk.batches:
        ablated(subject, batch, site, calibration, constants)
    assert calls == [64, 64]


def test_a_place_inside_a_block_is_run_on_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny_subject("llama", seed=4)
    chunk = chunk_of(subject, 15, 6, 2, 11)
    calibration, constants = calibrate(subject, [INNER], [chunk]), ConstantAblations(subject)
    calls = count_entries(subject, monkeypatch)
    for batch in chunk.batches:
        ablated(subject, batch, INNER, calibration, constants)
    assert calls == [batch.tokens.numel() for batch in chunk.batches for _ in range(2)]
    assert {one.is_constant for one in constants.found.values()} == {False}
    assert {one.spread_nats for one in constants.found.values()} == {None}


def adds_positions(_subject: SubjectModel) -> Callable[[Tensor], Tensor]:
    return lambda hidden: hidden + torch.outer(torch.arange(hidden.shape[1]), torch.arange(32)).sin()


def adds_embeddings(subject: SubjectModel) -> Callable[[Tensor], Tensor]:
    embedded: list[Tensor] = []
    table = subject.model.get_input_embeddings()
    table.register_forward_hook(lambda _module, _args, output: embedded.append(output))
    return lambda hidden: hidden + embedded[-1]


@pytest.mark.parametrize("breaking", [adds_positions, adds_embeddings])
def test_a_subject_whose_upper_blocks_let_positions_or_tokens_in_is_run_on_every_batch(
    breaking: Callable[[SubjectModel], Callable[[Tensor], Tensor]],
) -> None:
    subject = tiny_subject("llama", seed=4)
    change = breaking(subject)
    subject.blocks.modules[2].register_forward_hook(lambda _module, _args, output: change(output))
    (batch,) = chunk_of(subject, 15, 6).batches
    calibration = calibrate(subject, [LOW], [chunk_of(subject, 15, 6)])
    constants = ConstantAblations(subject)
    found = ablated(subject, batch, LOW, calibration, constants)
    assert_equals_full_passes(found, subject, batch, 0, calibration[LOW].mean)
    for one in constants.found.values():
        assert not one.is_constant
        assert one.spread_nats is not None and one.spread_nats > 100 * TOLERANCE_NATS


def test_a_token_that_is_ruled_out_everywhere_does_not_stand_in_the_way() -> None:
    subject = tiny_subject("llama", seed=4)
    ruled_out = torch.zeros(subject.vocabulary_size).index_fill(0, torch.tensor([1]), -torch.inf)
    subject.model.get_output_embeddings().register_forward_hook(lambda _m, _args, output: output + ruled_out)
    chunk = chunk_of(subject, 15, 6)
    calibration, constants = calibrate(subject, [HIGH], [chunk]), ConstantAblations(subject)
    batch = chunk.batches[0]
    assert 1 not in PredictionTable.of(batch).target
    found = ablated(subject, batch, HIGH, calibration, constants)
    assert_equals_full_passes(found, subject, batch, LAYERS[HIGH], calibration[HIGH].mean)
    assert {one.is_constant for one in constants.found.values()} == {True}


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_losses_that_are_not_finite_stop_the_run_with_site_and_batch(value: float) -> None:
    """The subject breaks only where zeros stand at the site."""
    subject = tiny_subject("llama", seed=4)

    def break_zeros(_module: Any, args: Any, output: Tensor) -> Tensor:
        return output if bool(args[0].any()) else output + value

    subject.blocks.modules[2].register_forward_hook(break_zeros)
    # One context without padding, so that the batch's pass too has zeros at all positions.
    chunk = chunk_of(subject, 15)
    calibration = calibrate(subject, [HIGH], [chunk])
    with pytest.raises(SubjectError, match="site ablated is not finite") as caught:
        ablated(subject, chunk.batches[0], HIGH, calibration, ConstantAblations(subject))
    assert HIGH in str(caught.value)
    assert "batch 0" in str(caught.value)


def test_a_resumed_run_decides_the_same_and_gives_the_same_numbers() -> None:
    subject = tiny_subject("gemma2", seed=4)
    chunks = [chunk_of(subject, 15, 6, 30), chunk_of(subject, 9, 2, 11, seed=1)]
    sae = planted_autoencoder(32, 64, k=5, generator=torch.Generator().manual_seed(0))
    checkpoints = [Checkpoint("low", sae, LOW), Checkpoint("inner", sae, INNER)]
    calibration = calibrate(subject, [LOW, INNER], chunks)

    def fresh() -> ActivationPass:
        return ActivationPass(subject, checkpoints, families(["downstream"]), calibration)

    whole, resumed = fresh(), fresh()
    results = [whole.measure(chunk) for chunk in chunks]
    assert resumed.measure(chunks[1]).observations.equals(results[1].observations)
    one, other = whole.constant_ablations.found, resumed.constant_ablations.found
    assert one.keys() == other.keys() == {(site, name) for site in (LOW, INNER) for name in ("zero", "mean")}
    for key, ablation in one.items():
        assert ablation.is_constant == other[key].is_constant == (key[0] == LOW)
        assert ablation.spread_nats == other[key].spread_nats
        if ablation.log_probabilities is not None:
            assert torch.equal(ablation.log_probabilities, other[key].log_probabilities)
