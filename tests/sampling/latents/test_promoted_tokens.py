from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional

from autointerp.errors import SiteError, SubjectError
from autointerp.sampling.latents import promoted_tokens as module
from autointerp.sampling.latents.promoted_tokens import PROMOTED_SCHEMA, promoted_tokens
from autointerp.subject.direct_path import DirectPath
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_subject import tiny_subject


@pytest.fixture(scope="module")
def directions():
    return torch.randn(9, 32, generator=torch.Generator().manual_seed(2))


def brute_force(logits, labels, count, tokens=range(293)):
    """Rows by the definition, from logits [latent vocabulary]; ties to the lowest token."""
    rows = []
    for label, row in zip(labels, logits.double().numpy(), strict=True):
        centred = {token: row[token] - row[list(tokens)].mean() for token in tokens}
        for sign, factor in (("promoted", 1), ("demoted", -1)):
            ranked = sorted(centred, key=lambda token: (-factor * centred[token], token))[:count]
            rows += [(label, sign, rank, token, centred[token]) for rank, token in enumerate(ranked)]
    return pl.DataFrame(rows, schema=PROMOTED_SCHEMA, orient="row")


def assert_same(found, expected):
    assert found.drop("logit").equals(expected.drop("logit"))
    np.testing.assert_allclose(found["logit"], expected["logit"], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def by_hand(family, model, x):
    """Through the modules that the model's source names: the norm's linear part, then the head."""
    if family == "gpt2":
        centred = x - x.mean(dim=1, keepdim=True)
        return model.lm_head(centred * model.transformer.ln_f.weight)
    if family == "opt":
        centred = x - x.mean(dim=1, keepdim=True)
        decoder = model.model.decoder
        return model.lm_head(decoder.project_out(centred * decoder.final_layer_norm.weight))
    if family == "gemma2":
        return model.lm_head(x * (1.0 + model.model.norm.weight))
    if family == "cohere":
        return 0.0625 * model.lm_head((x - x.mean(dim=1, keepdim=True)) * model.model.norm.weight)
    return model.lm_head(x * model.model.norm.weight)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "opt", "cohere"])
def test_the_tokens_are_those_of_the_definition(family, directions):
    subject = tiny_subject(family, **({"word_embed_proj_dim": 16} if family == "opt" else {}))
    expected = brute_force(by_hand(family, subject.model, directions), range(9), 10)
    found = promoted_tokens(subject, directions)
    assert found.schema == PROMOTED_SCHEMA
    assert_same(found, expected)


def test_a_bias_of_the_unembedding_promotes_nothing(directions):
    """It is there whatever the direction; `phi` has one."""
    subject = tiny_subject("phi")
    before = promoted_tokens(subject, directions)
    with torch.no_grad():
        subject.model.lm_head.bias += 100.0 * torch.arange(293)
    assert promoted_tokens(subject, directions).equals(before)


def test_rows_are_named_and_come_as_they_were_given(directions):
    subject = tiny_subject("llama")
    whole = promoted_tokens(subject, directions, count=3)
    order = [4, 0, 7]
    some = promoted_tokens(subject, directions[order], latents=[40, 12, 7], count=3)
    expected = pl.concat([whole.filter(pl.col("latent") == latent) for latent in order])
    names = expected["latent"].replace_strict({4: 40, 0: 12, 7: 7}, return_dtype=pl.UInt32)
    assert_same(some, expected.with_columns(latent=names))


def test_the_other_sign_swaps_promoted_and_demoted_and_scale_scales(directions):
    subject = tiny_subject("gpt2")
    whole = promoted_tokens(subject, directions)
    other = {"promoted": "demoted", "demoted": "promoted"}
    flipped = promoted_tokens(subject, -directions).with_columns(
        sign=pl.col("sign").replace(other), logit=-pl.col("logit")
    )
    by = ["latent", "sign", "rank"]
    assert flipped.sort(by).equals(whole.sort(by))
    # By a power of two, so that nothing is rounded otherwise.
    scaled = promoted_tokens(subject, 4.0 * directions)
    assert scaled.equals(whole.with_columns(pl.col("logit") * 4.0))


def test_what_all_components_or_all_tokens_share_makes_no_difference(directions):
    """A LayerNorm takes off the mean of the components, the softmax does not see that of the logits."""
    subject = tiny_subject("gpt2")
    whole = promoted_tokens(subject, directions)
    assert_same(promoted_tokens(subject, directions + 3.0), whole)
    with torch.no_grad():
        subject.model.lm_head.weight += torch.randn(32, generator=torch.Generator().manual_seed(8))
    assert_same(promoted_tokens(subject, directions), whole)


def test_blocks_of_latents_do_not_matter(directions, monkeypatch):
    subject = tiny_subject("llama")
    whole = promoted_tokens(subject, directions)
    for size in (1, 2 * 4 * 293, 4 * 4 * 293 + 1):
        monkeypatch.setattr(module, "_BLOCK_BYTES", size)
        assert_same(promoted_tokens(subject, directions), whole)


def test_what_belongs_to_no_token_is_left_out(directions):
    """Rows of the unembedding behind the tokenizer's ids, as models pad them, and in gaps between these."""
    subject = tiny_subject("llama", vocab_size=320)
    known = [token for token in range(293) if token not in (5, 200)]

    class Gappy:
        def get_vocab(self):
            return {str(token): token for token in [*known, 400]}

    with torch.no_grad():
        subject.model.lm_head.weight[[5, 200, *range(293, 320)]] *= 1000.0
        logits = by_hand("llama", subject.model, directions)
    subject.tokenizer = Gappy()
    assert_same(promoted_tokens(subject, directions), brute_force(logits, range(9), 10, known))
    everything = promoted_tokens(subject, directions[:1], count=1000)
    assert set(everything["token"]) == set(known)


def test_equal_logits_are_ranked_by_token(directions):
    subject = tiny_subject("llama")
    with torch.no_grad():
        weight = subject.model.lm_head.weight
        weight[:] = weight[torch.arange(293) // 100]
    weights_by_hand = by_hand("llama", subject.model, directions)
    levels = weights_by_hand[:, [0, 100, 200]].argsort(dim=1)
    found = promoted_tokens(subject, directions, count=5)
    for sign, place in (("promoted", -1), ("demoted", 0)):
        tokens = found.filter(pl.col("sign") == sign)["token"].to_numpy().reshape(9, 5)
        first = levels[:, place].numpy()[:, None] * 100
        assert (tokens == first + np.arange(5)).all()


def test_a_promoted_token_has_a_logit_above_the_mean():
    subject = tiny_subject("llama")
    directions = torch.zeros(3, 32)
    directions[1, 4] = 1.0
    found = promoted_tokens(subject, directions, count=293)
    assert found["latent"].unique().to_list() == [1]
    assert found["token"].n_unique() == found.height == 293
    assert (found.filter(sign="promoted")["logit"] > 0).all()
    assert (found.filter(sign="demoted")["logit"] < 0).all()
    assert promoted_tokens(subject, torch.full((2, 32), torch.nan)).is_empty()


def test_no_directions_are_no_rows():
    found = promoted_tokens(tiny_subject("llama"), torch.zeros(0, 32))
    assert found.schema == PROMOTED_SCHEMA
    assert found.is_empty()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_directions_in_another_precision(dtype, directions):
    subject = tiny_subject("llama")
    rounded = directions.to(dtype)
    assert promoted_tokens(subject, rounded).equals(promoted_tokens(subject, rounded.float()))


def test_a_subject_in_bfloat16_ranks_without_rounding(directions):
    subject = tiny_subject("gemma2", dtype=torch.bfloat16)
    gain = 1.0 + subject.model.model.norm.weight.detach().float()
    logits = functional.linear(directions * gain, subject.model.lm_head.weight.detach().float())
    assert_same(promoted_tokens(subject, directions), brute_force(logits, range(9), 10))


def test_a_path_that_was_found_before_is_used(directions):
    subject = tiny_subject("llama")
    path = DirectPath.of(subject)
    whole = promoted_tokens(subject, directions)
    assert promoted_tokens(subject, directions, path=path).equals(whole)
    doubled = replace(path, logit_map=replace(path.logit_map, factor=2.0))
    twice = whole.with_columns(pl.col("logit") * 2.0)
    assert promoted_tokens(subject, directions, path=doubled).equals(twice)


def test_what_cannot_be_done_is_said(directions):
    subject = tiny_subject("llama")
    with pytest.raises(SiteError, match="directions of width 48"):
        promoted_tokens(subject, torch.zeros(2, 48))
    with pytest.raises(ValueError, match="count is 0"):
        promoted_tokens(subject, directions, count=0)
    with pytest.raises(ValueError, match="2 labels for 9 directions"):
        promoted_tokens(subject, directions, latents=[1, 2])
    parts = tiny_subject("opt", do_layer_norm_before=False)
    post = SubjectModel(parts.model, parts.tokenizer, name="post-norm")
    with pytest.raises(SubjectError, match="post-norm: no direct path to the logits: no norm lies behind"):
        promoted_tokens(post, directions)
