"""A latent on new texts: the pass's own numbers; steering and ablation against plain loops over hooks."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from autointerp.checkpoints.activation_functions import JumpReLU
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.errors import CorpusError
from autointerp.run_store import MemoryStore
from autointerp.sampling.activation_pass import ActivationPass
from autointerp.sampling.contexts import ContextOptions, corpus_chunks
from autointerp.sampling.corpus import document_of
from autointerp.sampling.latent_meter import LatentMeter, SteeringOptions
from autointerp.sampling.readings import Checkpoint
from autointerp.sampling.spill import SpillPlan, firing_key
from autointerp.testing.planted_autoencoder import planted_autoencoder
from autointerp.testing.tiny_subject import tiny_subject

SITE = "blocks.1.hook_resid_post"
TEXTS = (
    "the ring is here",
    "another inner thing, then the end of it " * 4,
    "é😀 and",
    "x",
    "<|endoftext|>the",
)


def _dictionary(kind: str, normalization: str = "layer_norm") -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(3)
    made = planted_autoencoder(32, 48, k=6, generator=generator, normalization=normalization)
    if kind == "top_k":
        return made
    bias = 0.1 * torch.randn(48, generator=generator)
    scale = 0.5 + torch.rand(48, generator=generator)
    activation = JumpReLU(torch.full((48,), 0.5))
    return replace(
        made, encoder_bias=bias, latent_scale=scale, activation=activation, decoder_bias=torch.ones(32)
    )


def _meter(kind: str = "jump", options: ContextOptions | None = None, **changes) -> LatentMeter:
    subject = tiny_subject("llama")
    sae = _dictionary(kind, changes.pop("normalization", "layer_norm"))
    return LatentMeter(subject, Checkpoint("d", sae, SITE), options, **changes)


class _Corpus:
    def documents(self):
        return (document_of(text) for text in TEXTS)


@pytest.mark.parametrize("kind", ["top_k", "jump"])
@pytest.mark.parametrize("prepend_bos", [True, False])
def test_activations_are_those_of_the_pass(kind: str, prepend_bos: bool) -> None:
    options = ContextOptions(context_length=24, prepend_bos=prepend_bos, max_contexts_per_document=1)
    meter = _meter(kind, options)
    subject, place = meter.subject, meter.checkpoint
    chunks = list(corpus_chunks(_Corpus(), subject.tokenizer, options, batch_tokens=4096, chunk_tokens=10**6))
    store = MemoryStore()
    run = ActivationPass(subject, [place], [], {}, spill=SpillPlan())
    names = run.run(chunks, store).chunk_names
    contexts = store.read(f"contexts/{names[0]}")
    firings = store.read(firing_key("d", names[0]))
    latents = list(range(48))
    found = meter.activations(latents, TEXTS)
    in_pass = {row["document"]: (number, row) for number, row in enumerate(contexts.to_dicts())}
    compared = 0
    for column, latent in enumerate(latents):
        own = firings.filter(firings["latent"] == latent)
        for text, example in zip(TEXTS, found[column], strict=True):
            if document_of(text).id not in in_pass:
                continue
            number, row = in_pass[document_of(text).id]
            first = row["first_scored"]
            expected = np.zeros(len(row["tokens"]) - first)
            here = own.filter(own["row"] == number)
            expected[here["position"].to_numpy() - first] = here["value"].to_numpy()
            assert list(example.token_ids) == row["tokens"][first:]
            np.testing.assert_allclose(example.activations, expected, rtol=1e-5, atol=1e-6)
            assert (np.array(example.activations) != 0).tolist() == (expected != 0).tolist()
            compared += int((expected != 0).sum())
    assert compared > 100
    strongest = max(found[0], key=lambda example: max(example.activations))
    assert strongest.activations[strongest.focus] == max(strongest.activations)
    assert "".join(found[0][0].tokens) == TEXTS[0]


def test_texts_are_cut_repeated_and_empty_as_they_come() -> None:
    meter = _meter("top_k", ContextOptions(context_length=8), batch_tokens=10)
    texts = ["the end of the thing and the ring", "", "the end", "the end"]
    (examples,) = meter.activations([5], texts)
    assert [len(example.tokens) for example in examples] == [
        7,
        0,
        len(examples[2].tokens),
        len(examples[2].tokens),
    ]
    assert examples[1].activations == () and not examples[1].fires
    assert examples[2].activations == examples[3].activations
    assert examples[2].id == examples[3].id != examples[0].id
    alone = meter.activations([5], texts[:1])[0][0]
    np.testing.assert_allclose(alone.activations, examples[0].activations, atol=1e-6)


def test_bos_that_the_tokenizer_lacks_is_said() -> None:
    subject = tiny_subject("llama")
    subject.tokenizer.bos_token = subject.tokenizer.eos_token = None
    with pytest.raises(CorpusError, match="neither a BOS nor an EOS"):
        LatentMeter(subject, Checkpoint("d", _dictionary("top_k"), SITE))


def _hooked_logits(meter: LatentMeter, ids: list[int], change) -> torch.Tensor:
    """One context, with the output of block 1 changed by a plain hook."""

    def hook(_module, _args, output):
        is_tensor = isinstance(output, torch.Tensor)
        new = change(output if is_tensor else output[0])
        return new if is_tensor else (new, *output[1:])

    handle = meter.subject.model.model.layers[1].register_forward_hook(hook)
    try:
        with torch.no_grad():
            return meter.subject.model(torch.tensor([ids])).logits[0]
    finally:
        handle.remove()


def _contribution(sae: SparseAutoencoder, x: torch.Tensor, z: torch.Tensor, latent: int) -> torch.Tensor:
    """What the dictionary's own reconstruction loses when it decodes without the latent."""
    one = torch.zeros(len(x), sae.latent_count)
    one[:, latent] = z
    statistics = sae.normalization.apply(x)[1]
    undo = sae.normalization.undo
    return undo(sae.decode(one), statistics) - undo(sae.decode(torch.zeros_like(one)), statistics)


@pytest.mark.parametrize("normalization", ["layer_norm", "none"])
@pytest.mark.parametrize("kind", ["top_k", "jump"])
def test_ablation_is_the_true_residual_without_the_contribution(kind: str, normalization: str) -> None:
    meter = _meter(kind, ContextOptions(context_length=20), normalization=normalization, batch_tokens=64)
    sae, tokenizer = meter.checkpoint.sae, meter.subject.tokenizer
    examples = meter.activations(range(48), TEXTS)
    firing = [latent for latent in range(48) if any(example.fires for example in examples[latent])][:3]
    silent = [latent for latent in range(48) if not any(example.fires for example in examples[latent])][:1]
    chosen = {latent: examples[latent] for latent in [*firing, *silent]}
    found = meter.ablation_effects(chosen, count=5)
    assert found.keys() == chosen.keys()
    for latent in silent:
        assert found[latent].position_count == 0 and found[latent].lowered == ()
    for latent in firing:
        changes = []
        for example in chosen[latent]:
            ids = [tokenizer.bos_token_id, *example.token_ids]
            kept: list[torch.Tensor] = []
            clean = _hooked_logits(meter, ids, lambda x, kept=kept: kept.append(x[0].clone()) or x)
            z = sae.encode(kept[0])[:, latent]
            without = _hooked_logits(
                meter, ids, lambda x, z=z, n=latent: x - _contribution(sae, x[0], z, n)[None]
            )
            changes.append((without.log_softmax(-1) - clean.log_softmax(-1))[z != 0])
        mean = torch.cat(changes).double().mean(dim=0)
        effects = found[latent]
        assert effects.position_count == sum(map(len, changes))
        values, order = mean.sort()
        np.testing.assert_allclose([value for _, value in effects.lowered], values[:5], atol=1e-5)
        np.testing.assert_allclose([value for _, value in effects.raised], values.flip(0)[:5], atol=1e-5)
        assert effects.lowered[0][0] == tokenizer.decode([order[0]])


@pytest.mark.parametrize("normalization", ["layer_norm", "none"])
def test_steering_adds_the_contribution_at_every_token(normalization: str) -> None:
    meter = _meter("jump", normalization=normalization, batch_tokens=40)
    sae, tokenizer = meter.checkpoint.sae, meter.subject.tokenizer
    prompts = ["the", "another inner thing, then"]
    options = SteeringOptions(new_tokens=6)
    found = meter.steered(7, prompts, strength=4.0, maximum=2.5, options=options)
    for prompt, continuation in zip(prompts, found, strict=True):
        for amount, text in ((0.0, continuation.plain), (10.0, continuation.steered)):
            begin = [tokenizer.bos_token_id, *tokenizer(prompt)["input_ids"]]
            ids = list(begin)
            for _ in range(6):
                logits = _hooked_logits(
                    meter,
                    ids,
                    lambda x, a=amount: x + _contribution(sae, x[0], torch.full((x.shape[1],), a), 7)[None],
                )
                token = int(logits[-1].argmax())
                if token == tokenizer.eos_token_id:
                    break
                ids.append(token)
            decoded = tokenizer.decode(ids, skip_special_tokens=True)
            assert text == decoded[len(tokenizer.decode(begin, skip_special_tokens=True)) :]
    assert any(continuation.plain != continuation.steered for continuation in found)


def test_draws_repeat_by_seed_and_no_strength_changes_nothing() -> None:
    meter = _meter("jump")

    def drawn(seed: int, strength: float):
        options = SteeringOptions(new_tokens=12, temperature=1.0, seed=seed)
        return meter.steered(7, ["the", "on"], strength=strength, maximum=2.0, options=options)

    assert drawn(0, 3.0) == drawn(0, 3.0)
    assert drawn(0, 3.0) != drawn(1, 3.0)
    for continuation in drawn(0, 0.0):
        assert continuation.plain == continuation.steered != ""


def test_continuations_end_at_the_subjects_limit() -> None:
    meter = _meter("jump", ContextOptions(context_length=128))
    (found,) = meter.steered(3, ["z" * 300], strength=1.0, maximum=1.0, options=SteeringOptions(new_tokens=4))
    assert found.plain and found.prompt == "z" * 300
