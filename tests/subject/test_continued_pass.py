"""Going on from one position against passes over whole contexts, for every family and kind of site."""

import pytest
import torch

from autointerp.errors import SiteError
from autointerp.subject import continued_pass
from autointerp.subject.continued_pass import ContinuedPass, Starts
from autointerp.subject.hooks import on_input
from autointerp.testing.tiny_subject import TINY_FAMILIES, tiny_subject

LENGTH = 5
KINDS = ("hook_resid_pre", "hook_resid_post", "hook_mlp_out", "hook_attn_out", "hook_resid_mid")
INNER = ("mlp.hook_in", "attn.hook_in", "attn.hook_z", "mlp.hook_post", "ln2.hook_normalized")
STARTS = Starts(torch.tensor([0, 1, 2, 2, 0]), torch.tensor([1, 9, 17, 18, 0]))


def contexts():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(3, 290, (3, 23), generator=generator)
    mask = torch.ones(3, 23, dtype=torch.bool)
    mask[1, 14:] = False
    return tokens, mask


def changed(passes, kept, site, starts=STARTS, seed=1):
    stands = starts.of(kept.activations[site], 1)[:, 0]
    return stands + torch.randn(stands.shape, generator=torch.Generator().manual_seed(seed)).to(stands)


def by_whole_pass(subject, site, starts, vectors, length=LENGTH, put=None):
    """The plain way: the clean activations with one position changed, put in at all positions."""
    tokens, mask = contexts()
    grid = subject.read(tokens, [site], mask)[site] if put is None else put
    stands = grid[starts.context].clone()
    rows = torch.arange(len(starts.context))
    stands[rows, starts.position] = vectors
    logits = subject.logits_from(site, stands, tokens[starts.context], mask[starts.context])
    return logits[rows[:, None], starts.position[:, None] + torch.arange(length)]


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.std()), rtol=0.0)


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_every_family_goes_on_from_kept_keys_and_values(family):
    subject = tiny_subject(family)
    for site in ("blocks.1.hook_resid_post", "blocks.2.hook_resid_post", "blocks.1.hook_mlp_out"):
        passes = ContinuedPass(subject, [site])
        kept = passes.keep(*contexts())
        vectors = changed(passes, kept, site)
        found = passes.logits(kept, site, STARTS, vectors, length=LENGTH)
        assert passes.why_whole == {site: ""}
        assert passes.differences[site] < 1e-4
        assert_close(found, by_whole_pass(subject, site, STARTS, vectors))


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
@pytest.mark.parametrize("kind", [*KINDS, *INNER])
def test_every_kind_of_site(family, kind):
    subject, site = tiny_subject(family), f"blocks.1.{kind}"
    passes = ContinuedPass(subject, [site, "blocks.2.hook_resid_post"])
    kept = passes.keep(*contexts())
    vectors = changed(passes, kept, site)
    found = passes.logits(kept, site, STARTS, vectors, length=LENGTH)
    assert not passes.why_whole[site]
    assert_close(found, by_whole_pass(subject, site, STARTS, vectors))


def test_what_stood_there_gives_the_clean_logits():
    subject, site = tiny_subject("qwen3"), "blocks.0.hook_resid_post"
    passes = ContinuedPass(subject, [site])
    kept = passes.keep(*contexts())
    found = passes.logits(kept, site, STARTS, STARTS.of(kept.activations[site], 1)[:, 0], length=LENGTH)
    clean = subject.read_with_logits(contexts()[0], [], contexts()[1]).logits
    assert_close(found, STARTS.of(clean, LENGTH))


def test_only_the_positions_asked_for_are_run_and_only_above_the_site():
    subject, site = tiny_subject("llama"), "blocks.1.hook_resid_post"
    passes = ContinuedPass(subject, [site])
    kept = passes.keep(*contexts())
    vectors = changed(passes, kept, site)
    passes.logits(kept, site, STARTS, vectors, length=LENGTH)  # tried once
    seen: dict[int, tuple[int, ...]] = {}
    attentions = [block.self_attn for block in subject.blocks.modules]
    with (
        on_input(attentions[0], lambda x: seen.update({0: tuple(x.shape)})),
        on_input(attentions[1], lambda x: seen.update({1: tuple(x.shape)})),
        on_input(attentions[2], lambda x: seen.update({2: tuple(x.shape)})),
    ):
        passes.logits(kept, site, STARTS, vectors, length=LENGTH)
    assert seen == {2: (5, LENGTH, 32)}


def test_of_blocks_below_all_sites_one_token_is_kept():
    site = "blocks.1.hook_resid_post"
    kept = ContinuedPass(tiny_subject("llama"), [site]).keep(*contexts())
    assert [layer.keys.shape[2] for layer in kept.cache] == [1, 1, 23]


def test_rows_do_not_depend_on_each_other_nor_on_padding():
    subject, site = tiny_subject("gpt_neox"), "blocks.0.hook_resid_post"
    passes = ContinuedPass(subject, [site])
    kept = passes.keep(*contexts())
    vectors = changed(passes, kept, site)
    together = passes.logits(kept, site, STARTS, vectors, length=LENGTH)
    for row in range(5):
        part = slice(row, row + 1)
        alone = passes.logits(kept, site, STARTS.part(part), vectors[part], length=LENGTH)
        assert_close(alone, together[part])
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_close(
        passes.logits(kept, site, STARTS.part(order), vectors[order], length=LENGTH), together[order]
    )


def test_a_shorter_continuation_is_the_beginning_of_a_longer_one():
    subject, site = tiny_subject("mistral"), "blocks.0.hook_resid_post"
    passes = ContinuedPass(subject, [site])
    kept = passes.keep(*contexts())
    vectors = changed(passes, kept, site)
    longer = passes.logits(kept, site, STARTS, vectors, length=LENGTH)
    assert_close(passes.logits(kept, site, STARTS, vectors, length=1), longer[:, :1])


def test_goes_on_from_what_was_put_at_all_positions():
    subject, site, last = tiny_subject("llama"), "blocks.0.hook_resid_post", "blocks.2.hook_resid_post"
    tokens, mask = contexts()
    put = subject.read(tokens, [site], mask)[site] * 0.8 + 0.1
    passes = ContinuedPass(subject, [site, last])
    kept = passes.keep(tokens, mask, put=(site, put))
    torch.testing.assert_close(kept.activations[site], put)
    logits = subject.logits_from(site, put, tokens, mask)
    at_end = subject.logits_from(last, kept.activations[last], tokens, mask)
    assert_close(at_end[mask], logits[mask])  # what was read above the site is what followed from it
    vectors = changed(passes, kept, site)
    found = passes.logits(kept, site, STARTS, vectors, length=LENGTH)
    assert not passes.why_whole[site]
    assert_close(found, by_whole_pass(subject, site, STARTS, vectors, put=put))


def test_a_module_outside_the_blocks_takes_whole_contexts():
    subject, site = tiny_subject("llama"), "model.norm"
    passes = ContinuedPass(subject, [site, "blocks.1.hook_resid_post"])
    kept = passes.keep(*contexts())
    vectors = changed(passes, kept, site)
    found = passes.logits(kept, site, STARTS, vectors, length=LENGTH)
    assert passes.why_whole[site] == "it lies outside the blocks"
    assert_close(found, by_whole_pass(subject, site, STARTS, vectors))


def test_a_model_that_keeps_something_else_takes_whole_contexts(monkeypatch):
    monkeypatch.setattr(continued_pass, "_empty_cache", _Refusing)
    subject, site = tiny_subject("llama"), "blocks.1.hook_resid_post"
    passes = ContinuedPass(subject, [site])
    kept = passes.keep(*contexts())
    assert kept.cache == ()
    vectors = changed(passes, kept, site)
    found = passes.logits(kept, site, STARTS, vectors, length=LENGTH)
    assert passes.why_whole[site] == "the model keeps no keys and values that can be gone on from"
    assert_close(found, by_whole_pass(subject, site, STARTS, vectors))


class _Refusing:
    def __getattr__(self, name):
        raise AttributeError(name)


@pytest.mark.parametrize("fault", ["other logits", "raises"])
def test_where_going_on_fails_whole_contexts_are_run_and_it_is_said(monkeypatch, fault):
    subject, site = tiny_subject("llama"), "blocks.1.hook_resid_post"
    passes = ContinuedPass(subject, [site])
    right = passes._continued

    def wrong(*args):
        if fault == "raises":
            raise RuntimeError("no such thing")
        return right(*args) * 1.01

    monkeypatch.setattr(passes, "_continued", wrong)
    kept = passes.keep(*contexts())
    vectors = changed(passes, kept, site)
    found = passes.logits(kept, site, STARTS, vectors, length=LENGTH)
    assert passes.why_whole[site].startswith("going on from keys and values")
    assert_close(found, by_whole_pass(subject, site, STARTS, vectors))


def test_half_precision_is_allowed_its_rounding():
    subject = tiny_subject("llama", dtype=torch.bfloat16)
    site = "blocks.1.hook_resid_post"
    passes = ContinuedPass(subject, [site])
    kept = passes.keep(*contexts())
    found = passes.logits(kept, site, STARTS, changed(passes, kept, site), length=LENGTH)
    assert passes.why_whole[site] == ""
    assert found.dtype == torch.bfloat16


def test_an_unknown_site_is_refused():
    with pytest.raises(SiteError):
        ContinuedPass(tiny_subject("llama"), ["blocks.9.hook_resid_post"])
