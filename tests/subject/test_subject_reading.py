from contextlib import ExitStack

import pytest
import torch

from autointerp.errors import SiteError, SubjectError
from autointerp.testing.tiny_subject import tiny_subject


def first(output):
    return output[0] if isinstance(output, tuple) else output


def captured(model, tokens, mask=None, *, outputs=(), inputs=()):
    """Outputs and inputs of modules in a full pass, by plain hooks: the oracle."""
    seen = {}
    with ExitStack() as stack, torch.no_grad():
        for module in outputs:

            def keep_output(module, args, output):
                seen["output", module] = first(output).clone()

            stack.callback(module.register_forward_hook(keep_output).remove)
        for module in inputs:

            def keep_input(module, args, kwargs):
                seen["input", module] = (args[0] if args else kwargs["hidden_states"]).clone()

            stack.callback(module.register_forward_pre_hook(keep_input, with_kwargs=True).remove)
        mask = None if mask is None else mask.long()
        seen["logits"] = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    return seen


@pytest.mark.parametrize("masked", [False, True])
def test_a_site_is_what_plain_hooks_on_the_familys_module_see(family, tokens, mask, masked):
    used = mask if masked else None
    places = {site: place for layer in range(3) for site, place in family.places(layer).items()}
    outputs = [module for module, side in places.values() if side == "output"]
    inputs = [module for module, side in places.values() if side == "input"]
    oracle = captured(family.model, tokens, used, outputs=outputs, inputs=inputs)
    read = family.subject.read(tokens, list(places), used)
    for site, (module, side) in places.items():
        assert torch.equal(read[site], oracle[side, module].view(3, 10, -1)), site


def test_many_sites_of_one_pass_are_what_each_is_alone(family, tokens, mask):
    sites = [site for layer in (2, 0, 1) for site in family.block_sites(layer)]
    together = family.subject.read(tokens, sites, mask)
    assert list(together) != sorted(together)  # in order of the pass
    for site in family.block_sites(1)[2:]:
        assert torch.equal(family.subject.read(tokens, [site], mask)[site], together[site]), site


@pytest.mark.parametrize("branch", [0, 1])
def test_a_normalized_residual_is_it_over_its_root_mean_square(family, tokens, mask, branch):
    site = f"blocks.1.ln{branch + 1}.hook_normalized"
    if family.wiring.norms is None:
        with pytest.raises(SiteError, match=r"not seen to come from a norm.*blocks\.1\.(attn|mlp)\.hook_in"):
            family.subject.read(tokens, [site])
        return
    norm = family.norm(1, branch)
    oracle = captured(family.model, tokens, mask, inputs=[norm], outputs=[norm])
    read = family.subject.read(tokens, [site], mask)[site]
    x = oracle["input", norm].view(3, 10, -1)
    if "LayerNorm" in type(norm).__name__:
        x = x - x.mean(dim=-1, keepdim=True)
    expected = x / (x.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(read, expected, atol=1e-3, rtol=1e-4)  # epsilon is 1e-5 or 1e-6
    gain = norm.weight + (1 if family.name.startswith("gemma") else 0)
    whole = read * gain + (0 if getattr(norm, "bias", None) is None else norm.bias)
    torch.testing.assert_close(oracle["output", norm].view(3, 10, -1), whole, atol=1e-5, rtol=1e-5)


def test_residual_sites_agree_with_the_models_own_hidden_states_below_the_last_block(family, tokens):
    with torch.no_grad():
        states = family.model(input_ids=tokens, output_hidden_states=True, use_cache=False).hidden_states
    sites = ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post", "blocks.1.hook_resid_post"]
    read = family.subject.read(tokens, sites)
    for site, state in zip(sites, states, strict=False):
        assert torch.equal(read[site], state)


def test_branch_sites_are_what_the_familys_branches_add_to_the_residual_stream(family, tokens, mask):
    attention, mlp, block = family.attention(1), family.mlp(1), family.blocks[1]
    oracle = captured(family.model, tokens, mask, outputs=[attention, mlp, block], inputs=[block])
    read = family.subject.read(tokens, ["blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"], mask)
    added_first = oracle["output", attention].view(3, 10, -1)
    added_last = oracle["output", mlp].view(3, 10, -1)
    assert torch.equal(read["blocks.1.hook_attn_out"], added_first)
    assert torch.equal(read["blocks.1.hook_mlp_out"], added_last)
    total = oracle["input", block] + family.wiring.factor * (added_first + added_last)
    torch.testing.assert_close(total, oracle["output", block], atol=1e-5, rtol=1e-5)


def test_the_residual_in_the_middle_is_input_plus_attention(family, tokens):
    if family.is_parallel:
        with pytest.raises(SiteError, match="read the same input"):
            family.subject.read(tokens, ["blocks.1.hook_resid_mid"])
        return
    sites = ["blocks.1.hook_resid_pre", "blocks.1.hook_attn_out", "blocks.1.hook_resid_mid"]
    before, attention, middle = family.subject.read(tokens, sites).values()
    expected = before + family.wiring.factor * attention
    torch.testing.assert_close(middle, expected, atol=1e-5, rtol=1e-5)


def test_a_module_path_means_what_the_module_returns_or_is_given(family, tokens):
    attention, head = family.attention(2), family.model.get_output_embeddings()
    oracle = captured(family.model, tokens, outputs=[attention, head], inputs=[attention, head])
    inner, top = family.path_of(attention), family.path_of(head)
    read = family.subject.read(tokens, [inner, f"{inner}:input", f"{top}:input", top])
    assert torch.equal(read[inner], oracle["output", attention].view(3, 10, -1))
    assert torch.equal(read[f"{inner}:input"], oracle["input", attention].view(3, 10, -1))
    assert torch.equal(read[f"{top}:input"], oracle["input", head])
    assert torch.equal(read[top], oracle["output", head])


def test_a_transcoder_reads_two_sites_of_one_pass(family, tokens, mask):
    sites = ["blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"]
    given, returned = family.subject.read(tokens, sites, mask).values()
    with torch.no_grad():
        torch.testing.assert_close(family.mlp_of(1, given), returned, atol=1e-6, rtol=1e-6)


def test_reading_with_logits_gives_the_same_activations_and_the_models_logits(family, tokens, mask):
    sites = family.block_sites(1)
    clean = family.subject.read_with_logits(tokens, sites, mask)
    read = family.subject.read(tokens, sites, mask)
    assert torch.equal(clean.logits, captured(family.model, tokens, mask)["logits"])
    assert clean.activations.keys() == read.keys() == set(sites)
    assert all(torch.equal(clean.activations[site], read[site]) for site in sites)


def test_reading_stops_at_the_deepest_site(family, tokens):
    calls = []
    head = family.model.get_output_embeddings()
    with ExitStack() as stack:
        for layer in range(3):
            hook = family.mlp(layer).register_forward_hook(lambda *_, layer=layer: calls.append(layer))
            stack.callback(hook.remove)
        stack.callback(head.register_forward_hook(lambda *_: calls.append("head")).remove)
        family.subject.read(tokens, ["blocks.1.hook_resid_post", "blocks.0.hook_resid_pre"])
        assert calls == [0, 1]
        calls.clear()
        family.subject.read(tokens, ["blocks.0.hook_resid_pre"])
        assert calls == []
        family.subject.read(tokens, ["blocks.1.attn.hook_z", "blocks.1.mlp.hook_in"])
        assert calls == [0]
        calls.clear()
        family.subject.read(tokens, ["blocks.2.hook_resid_post"])
        assert calls == [0, 1, 2]


def test_reading_leaves_no_hook_behind(family, tokens):
    def hook_count():
        modules = list(family.model.modules())
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)

    before = hook_count()
    family.subject.read(tokens, family.block_sites(0))
    with pytest.raises(SiteError):
        family.subject.read(tokens, [*family.block_sites(0), "blocks.7.hook_resid_pre"])
    family.subject.read_with_logits(tokens, family.block_sites(1))
    assert hook_count() == before


def test_what_was_read_may_take_part_in_training(llama, tokens):
    read = llama.subject.read(tokens, ["blocks.0.hook_resid_post"])["blocks.0.hook_resid_post"]
    weight = torch.ones(32, requires_grad=True)
    (read * weight).sum().backward()
    assert torch.equal(weight.grad, read.sum(dim=(0, 1)))


def test_width_is_that_of_the_vectors_read(llama, families):
    assert llama.subject.width("blocks.1.hook_resid_post") == llama.subject.d_model == 32
    assert llama.subject.width("model.layers.1.mlp.gate_proj") == 48
    assert families("opt").subject.width("model.decoder.layers.1.fc1") == 64
    assert families("opt").subject.width("blocks.1.mlp.hook_post") == 64
    assert llama.subject.width("blocks.1.attn.hook_z") == 32
    assert tiny_subject("llama", head_dim=16).width("blocks.2.attn.hook_z") == 64


def test_no_sites_read_nothing(llama, tokens):
    assert llama.subject.read(tokens, []) == {}
    assert llama.subject.read_with_logits(tokens, []).activations == {}


def test_description_has_plain_values_and_no_path(family):
    description = family.subject.describe()
    assert description["layer_count"] == 3
    assert description["d_model"] == 32
    assert description["vocabulary_size"] == 293
    assert description["context_limit"] == (None if family.name in ("bloom", "mpt") else 128)
    assert description["parameter_count"] == sum(weight.numel() for weight in set(family.model.parameters()))
    assert description["dtype"] == "float32"
    assert all(isinstance(value, str | int | None) for value in description.values())


@pytest.mark.parametrize(
    ("site", "message"),
    [
        ("blocks.3.hook_resid_post", "there is no block 3; its blocks are 0 to 2"),
        ("model.layers.1.mpl", r"no module of that name; the nearest are .*model\.layers\.1\.mlp"),
        ("model.layers.9", "no module of that name"),
        ("model.layers", "never ran it"),
        ("blocks.1.attn.hook_q", "not supported"),
        ("model.layers.1.mpl:input", r"no module of that name; the nearest are .*model\.layers\.1\.mlp"),
        ("model.embed_tokens:input", r"int64 and shape \(3, 10\)"),
        ("model.rotary_emb.original_inv_freq:input", "no module of that name"),
    ],
)
def test_a_site_that_is_not_there_is_named(llama, tokens, site, message):
    with pytest.raises(SiteError, match=message) as caught:
        llama.subject.read(tokens, [site])
    assert site in str(caught.value)


def test_a_place_without_one_vector_per_token_is_refused(llama, tokens):
    with pytest.raises(SiteError, match="shape"):
        llama.subject.read(tokens, ["model.rotary_emb"])


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.tensor([[0, 293]]), "outside the vocabulary of 293"),
        (torch.tensor([[-1, 2]]), "outside the vocabulary"),
        (torch.zeros(1, 129, dtype=torch.long), "129 positions are more than the 128"),
        (torch.zeros(0, 4, dtype=torch.long), "have shape"),
    ],
)
def test_tokens_that_do_not_fit_are_refused(llama, bad, message):
    with pytest.raises(SubjectError, match=message):
        llama.subject.read(bad, ["blocks.0.hook_resid_pre"])


def test_blocks_that_normalise_after_adding_have_no_sites_inside(tokens):
    subject = tiny_subject("opt", do_layer_norm_before=False)
    assert subject.read(tokens, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"].shape == (3, 10, 32)
    for name in ("hook_resid_mid", "attn.hook_z", "mlp.hook_in", "ln2.hook_normalized"):
        with pytest.raises(SiteError, match="residual stream"):
            subject.read(tokens, [f"blocks.1.{name}"])


def test_a_mixture_of_experts_has_no_last_projection(families, tokens):
    with pytest.raises(SiteError, match=r"no single projection .*MLP; name a module in it"):
        families("mixtral").subject.read(tokens, ["blocks.1.mlp.hook_post"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_branches_are_found_in_half_precision_too(dtype, tokens):
    subject = tiny_subject("gemma2", dtype=dtype)
    names = ("hook_attn_out", "hook_resid_mid", "hook_mlp_out", "attn.hook_z", "mlp.hook_in", "mlp.hook_out")
    read = subject.read(tokens, [f"blocks.1.{name}" for name in (*names, "ln2.hook_normalized")])
    assert {value.dtype for value in read.values()} == {dtype}
    block = subject.blocks.modules[1]
    oracle = captured(
        subject.model,
        tokens,
        outputs=[block.post_attention_layernorm, block.mlp],
        inputs=[block.self_attn.o_proj, block.mlp],
    )
    assert torch.equal(read["blocks.1.hook_attn_out"], oracle["output", block.post_attention_layernorm])
    assert torch.equal(read["blocks.1.attn.hook_z"], oracle["input", block.self_attn.o_proj])
    assert torch.equal(read["blocks.1.mlp.hook_in"], oracle["input", block.mlp])
    assert torch.equal(read["blocks.1.mlp.hook_out"], oracle["output", block.mlp])


def test_a_branch_is_found_when_other_sites_are_read_along_with_it_for_the_first_time(tokens):
    subject = tiny_subject("llama", seed=1)
    sites = ["blocks.0.hook_resid_pre", "blocks.2.hook_mlp_out", "blocks.1.hook_resid_mid"]
    read = subject.read(tokens, sites)
    assert {value.shape for value in read.values()} == {(3, 10, 32)}
