"""Whole runs on planted activations: recovery, repeatability, resuming, folding, refusals."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from autointerp.checkpoints.load import load_checkpoint
from autointerp.errors import BadInputError, CorpusError
from autointerp.training import trainer
from autointerp.training.activations import ActivationSource, StreamPosition
from autointerp.training.export import write_record, write_trained
from autointerp.training.initialisation import Parameters, random_unit_rows
from autointerp.training.learner import Learner, fold_scale
from autointerp.training.options import Level, TrainingOptions
from autointerp.training.trainer import RunSettings, train_autoencoders

SITE = "blocks.0.hook_resid_post"


class Batch(NamedTuple):
    tokens: Tensor
    attention_mask: Tensor


class Chunk(NamedTuple):
    batches: tuple[Batch, ...]


class PlantedSubject:
    """Token v stands for `scale * (a positive sum of `active` random planted directions + 0.3)`."""

    name = "planted"
    sha256 = "0" * 64

    def __init__(self, *, width=16, directions=32, active=2, vocabulary=4096, scale=1.0, seed=0):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(directions, width, generator=generator)
        self.directions = torch.nn.functional.normalize(drawn, dim=1)
        weights = torch.zeros(vocabulary, directions)
        order = torch.rand(vocabulary, directions, generator=generator).argsort(dim=1)[:, :active]
        weights.scatter_(1, order, 1 + torch.rand(vocabulary, active, generator=generator))
        self.table = scale * (weights @ self.directions + 0.3)
        self.passes = 0

    def read(self, tokens, sites, attention_mask=None):
        self.passes += 1
        return dict.fromkeys(sites, self.table[tokens])


def text(*, chunk_count=8, chunk_tokens=256, vocabulary=4096, seed=0, padding=0):
    """Starts a text of random tokens, contexts of 16; the last `padding` positions of each are padding."""

    def chunks() -> Iterator[Chunk]:
        generator = torch.Generator().manual_seed(seed)
        for _ in range(chunk_count):
            tokens = torch.randint(0, vocabulary, (chunk_tokens // 16, 16), generator=generator)
            mask = torch.ones_like(tokens, dtype=torch.bool)
            mask[:, 16 - padding :] = False
            yield Chunk(tuple(Batch(*pair) for pair in zip(tokens.split(4), mask.split(4), strict=True)))

    return chunks


TOPK = TrainingOptions(
    48, k=2, batch_tokens=64, token_budget=64 * 12, learning_rate=2e-2, product_dtype="float32"
)
MULTI = replace(TOPK, architecture="multi_topk", normalization="none")
RELU = replace(TOPK, architecture="relu", k=None, l1_coefficient=0.05, normalization="none")
SETTINGS = RunSettings(block_tokens=256, save_seconds=0.0, held_out_tokens=256)


def run(folder, options=(TOPK, MULTI, RELU), settings=SETTINGS, chunks=None, progress=None, subject=None):
    subject = subject or PlantedSubject()
    return train_autoencoders(
        subject, SITE, chunks or text(), list(options), folder, settings=settings, progress=progress
    )


def weights(trained):
    names = ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias")
    return [torch.cat([getattr(each.sae, name).flatten() for name in names]) for each in trained]


def assert_equal_weights(one, other):
    assert all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


@pytest.mark.parametrize(
    "options",
    [
        replace(TOPK, token_budget=64 * 300, aux_k=8),
        replace(MULTI, token_budget=64 * 300, further_levels=(Level(4, 1 / 8),), aux_k=8),
        replace(RELU, token_budget=64 * 300, l1_coefficient=0.15),
    ],
    ids=lambda options: options.architecture,
)
def test_planted_directions_are_found(tmp_path, options):
    subject = PlantedSubject()
    settings = replace(SETTINGS, block_tokens=4096, save_seconds=1e9)
    sae = run(tmp_path, [options], settings, text(chunk_count=40, chunk_tokens=1024), subject=subject)[0].sae
    planted = subject.directions - (
        subject.directions.mean(1, keepdim=True) if options.normalization == "layer_norm" else 0
    )
    planted = torch.nn.functional.normalize(planted, dim=1)
    best = (planted @ sae.decoder_weight.T).max(dim=1).values
    assert float(best.mean()) > 0.9


def test_a_run_is_the_same_bit_for_bit_by_its_seed(tmp_path):
    assert_equal_weights(run(tmp_path / "a"), run(tmp_path / "b"))
    other = run(tmp_path / "c", [replace(TOPK, seed=1)])
    assert not torch.equal(weights(other)[0], weights(run(tmp_path / "d", [TOPK]))[0])


def test_training_together_changes_nobody(tmp_path):
    together = run(tmp_path / "together", settings=replace(SETTINGS, workers=2))
    alone = [run(tmp_path / each.name, [each])[0] for each in (TOPK, MULTI, RELU)]
    assert_equal_weights(together, alone)


def test_an_interrupted_run_goes_on_to_the_same_weights(tmp_path):
    def interrupt(progress):
        if progress.tokens >= 512:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "a", progress=interrupt)
    assert_equal_weights(run(tmp_path / "a"), run(tmp_path / "b"))


def test_a_killed_process_goes_on_to_the_same_weights(tmp_path):
    script = (
        "import os, signal, sys; sys.path[:0] = sys.argv[2:]; import pathlib, test_trainer as t\n"
        "def kill(progress):\n    progress.tokens >= 512 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "t.run(pathlib.Path(sys.argv[1]), progress=kill)"
    )
    here = Path(__file__).parent
    call = [sys.executable, "-c", script, str(tmp_path / "a"), str(here), str(here.parents[1])]
    ended = subprocess.run(call, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=120)
    assert ended.returncode == -signal.SIGKILL
    steps = []
    resumed = run(tmp_path / "a", progress=lambda progress: steps.append(progress.tokens))
    assert steps[0] > 512
    assert_equal_weights(resumed, run(tmp_path / "b"))


def test_a_finished_run_does_not_train_again(tmp_path):
    first = run(tmp_path)
    subject = PlantedSubject()
    assert_equal_weights(first, run(tmp_path, subject=subject))
    assert subject.passes <= 4  # the held-out chunk


def test_the_state_of_another_run_or_a_damaged_one_is_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(BadInputError, match="another subject, site, text or options"):
        run(tmp_path, [TOPK])
    (tmp_path / "training_state.pt").write_bytes(b"half a fi")
    with pytest.raises(BadInputError, match="cannot be read"):
        run(tmp_path)


def test_the_state_of_a_run_on_another_text_is_refused(tmp_path):
    run(tmp_path, settings=replace(SETTINGS, text_identity="a"))
    run(tmp_path, settings=replace(SETTINGS, text_identity="a"))
    with pytest.raises(BadInputError, match="another subject, site, text or options"):
        run(tmp_path, settings=replace(SETTINGS, text_identity="b"))
    with pytest.raises(BadInputError, match="another subject, site, text or options"):
        run(tmp_path)


def test_states_from_before_there_was_a_text_identity_stay_valid():
    """The hash was taken with the code of that time; a new setting must not be part of it by default."""
    settings = RunSettings(context_length=128, prepend_bos=True, workers=2)
    options = TrainingOptions(48, k=2, batch_tokens=64, token_budget=768)
    identity = trainer._identity(PlantedSubject(), SITE, [options], settings)
    assert identity == "c87ef8c7c19a5f21eb7085056eb2483c1c85dc3e8b9974947bb45585a96b02a9"


def test_decoder_rows_have_unit_norm_throughout(tmp_path):
    x = PlantedSubject().table
    learner = Learner.new(TOPK, x)
    for batch in x.split(64)[:5]:
        learner.learn(batch)
        norms = learner.parameters.decoder_weight.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
    for trained in run(tmp_path):
        norms = trained.sae.decoder_weight.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))


def test_gradients_do_not_add_up_over_steps():
    """One step from a state must not depend on what was learnt before the state was taken."""
    x = PlantedSubject().table
    learner = Learner.new(TOPK, x)
    learner.learn(x[:64])
    twin = Learner.from_state(TOPK, torch.load(_stored(learner.state()), weights_only=True))
    learner.learn(x[64:128])
    twin.learn(x[64:128])
    assert all(torch.equal(a, b) for a, b in zip(learner.parameters, twin.parameters, strict=True))


def _stored(state):
    import io

    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    return buffer


def test_auxk_revives_dead_latents_and_does_not_count_as_firing():
    x = PlantedSubject().table
    options = replace(TOPK, dead_after_tokens=64, aux_k=8, token_budget=64 * 400)
    learner = Learner.new(options, x)
    with torch.no_grad():
        learner.parameters.encoder_bias[:40] = -0.5  # below those that compete, not below zero
    learner.silence.tokens_since_fired[:] = 1000
    result = learner.learn(x[:64])
    assert 0 < result["dead"] < 48
    assert result["aux"] > 0
    assert learner.silence.tokens_since_fired.max() == 1064


@pytest.mark.parametrize("options", [MULTI, RELU], ids=lambda options: options.architecture)
def test_the_raw_scale_is_folded_exactly(options):
    """A power of two commutes with rounding: then equal to the last bit."""
    generator = torch.Generator().manual_seed(0)
    inside = Parameters(
        random_unit_rows(20, 8, generator=generator),
        torch.randn(20, generator=generator),
        random_unit_rows(20, 8, generator=generator),
        torch.randn(8, generator=generator),
    )
    x = torch.randn(50, 8, generator=generator)
    act = _activation(options)
    for factor, tolerance in ((0.25, 0.0), (0.013, 1e-4)):
        raw = fold_scale(inside, factor)
        z = act((factor * x - inside.bias) @ inside.encoder_weight.T + inside.encoder_bias)
        z_raw = act((x - raw.bias) @ raw.encoder_weight.T + raw.encoder_bias)
        torch.testing.assert_close(z_raw * factor, z, atol=tolerance, rtol=tolerance)
        expected = (z @ inside.decoder_weight + inside.bias) / factor
        torch.testing.assert_close(
            z_raw @ raw.decoder_weight + raw.bias, expected, atol=tolerance, rtol=tolerance
        )


def _activation(options):
    if options.k is None:
        return torch.relu
    return lambda pre: torch.zeros_like(pre).scatter(
        1, (top := pre.topk(options.k)).indices, top.values.relu()
    )


def test_the_unit_of_raw_activations_does_not_matter(tmp_path):
    small, large = (
        run(tmp_path / str(scale), [MULTI], subject=PlantedSubject(scale=scale))[0] for scale in (1.0, 1024.0)
    )
    torch.testing.assert_close(small.sae.decoder_weight, large.sae.decoder_weight)
    torch.testing.assert_close(small.sae.decoder_bias * 1024, large.sae.decoder_bias)


@pytest.mark.parametrize(
    ("options", "format"),
    [(TOPK, "openai"), (TOPK, "saelens"), (MULTI, "sparsify"), (RELU, "dictionary_learning")],
    ids=["openai", "saelens", "sparsify", "dictionary_learning"],
)
def test_each_architecture_survives_its_format(tmp_path, options, format):
    trained = run(tmp_path, [options], replace(SETTINGS, context_length=16, prepend_bos=True))[0]
    path = tmp_path / ("sae.pt" if format == "openai" else "sae")
    write_trained(trained, path, format=format)
    x = PlantedSubject().table[:100]
    torch.testing.assert_close(load_checkpoint(path).reconstruct(x), trained.sae.reconstruct(x))
    assert trained.sae.metadata.site == SITE
    assert (trained.sae.metadata.context_length, trained.sae.metadata.prepend_bos) == (16, True)
    write_record(trained, tmp_path / "training.json")
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["tokens"] == 768
    assert record["held_out"]["token_count"] == 256


def test_padding_is_never_read_and_held_out_chunks_never_trained_on():
    subject = PlantedSubject(vocabulary=4096)
    chunks = text(chunk_count=5, padding=6)
    source = ActivationSource(subject, SITE, chunks, held_out_chunks=2, block_tokens=10**6)
    block = next(source.blocks(StreamPosition(0, 0)))
    used = [batch for chunk in list(chunks())[2:] for batch in chunk.batches]
    expected = torch.cat([subject.table[batch.tokens[:, :10]].flatten(0, 1) for batch in used])
    assert torch.equal(_sorted_rows(block.activations), _sorted_rows(expected))
    assert not torch.equal(block.activations, expected)
    held_out = torch.cat([b.tokens[:, :10].flatten() for c in list(chunks())[:2] for b in c.batches])
    assert torch.equal(source.held_out(10**6), subject.table[held_out])
    assert torch.equal(source.held_out(7), subject.table[held_out[:7]])


def _sorted_rows(x):
    return torch.tensor(sorted(x.tolist()))


def test_the_text_is_begun_again_and_a_position_leads_to_the_same_blocks():
    source = ActivationSource(PlantedSubject(), SITE, text(chunk_count=4), block_tokens=512, least_tokens=64)
    stream = source.blocks(StreamPosition(0, 0))
    blocks = [next(stream) for _ in range(5)]
    assert [block.after for block in blocks] == [(0, 3), (1, 0), (1, 3), (2, 0), (2, 3)]
    again = source.blocks(blocks[1].after)
    assert torch.equal(next(again).activations, blocks[2].activations)
    assert not torch.equal(blocks[0].activations, blocks[2].activations)


@pytest.mark.parametrize("chunk_count", [0, 1])
def test_too_little_text_is_refused(tmp_path, chunk_count):
    with pytest.raises(CorpusError, match="training corpus"):
        run(tmp_path, chunks=text(chunk_count=chunk_count))


def test_activations_that_never_vary_are_refused(tmp_path):
    subject = PlantedSubject()
    subject.table[:] = 1.0
    with pytest.raises(BadInputError, match="do not vary"):
        run(tmp_path, [MULTI], subject=subject)


def test_options_that_cannot_be_trained_together_are_refused(tmp_path):
    with pytest.raises(BadInputError, match="same name"):
        run(tmp_path, [TOPK, TOPK])
    with pytest.raises(BadInputError, match="same for all"):
        run(tmp_path, [TOPK, replace(MULTI, token_budget=64)])
    with pytest.raises(BadInputError, match="nothing to train"):
        run(tmp_path, [])
