from contextlib import ExitStack

import pytest
import torch

from autointerp.errors import SiteError
from autointerp.testing.tiny_subject import tiny_subject


def noise(like, seed=3):
    return like + 0.5 * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed))


def full_pass(family, tokens, mask, replacements):
    """Logits of a full pass in which plain hooks replace what modules return or are given: the oracle."""
    with ExitStack() as stack, torch.no_grad():
        for module, new, *side in replacements:

            def hook(_module, _args, output, new=new):
                if isinstance(output, tuple):
                    return (new.view(output[0].shape), *output[1:])
                return new.view(output.shape).clone()

            def pre_hook(_module, args, kwargs, new=new):
                if args:
                    return (new.view(args[0].shape).clone(), *args[1:]), kwargs
                return args, {**kwargs, "hidden_states": new.view(kwargs["hidden_states"].shape).clone()}

            if side == ["input"]:
                stack.callback(module.register_forward_pre_hook(pre_hook, with_kwargs=True).remove)
            else:
                stack.callback(module.register_forward_hook(hook).remove)
        mask = None if mask is None else mask.long()
        return family.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits


@pytest.mark.parametrize("masked", [False, True])
def test_replacing_a_site_by_itself_changes_no_bit(family, tokens, mask, masked):
    used, layers = (mask, [1]) if masked else (None, [0, 1, 2])
    sites = [site for layer in layers for site in family.block_sites(layer)]
    clean = family.subject.read_with_logits(tokens, sites, used)
    for site in sites:
        again = family.subject.logits_from(site, clean.activations[site], clean)
        assert torch.equal(again, clean.logits), site
    for site in family.block_sites(1) if masked else []:
        bare = family.subject.logits_from(site, clean.activations[site], tokens, used)
        assert torch.equal(bare, clean.logits), site


@pytest.mark.parametrize(("layer", "masked"), [(0, False), (1, True)])
def test_reentering_anywhere_in_a_block_equals_a_full_pass_with_plain_hooks(
    family, tokens, mask, layer, masked
):
    used = mask if masked else None
    places = family.places(layer)
    clean = family.subject.read_with_logits(tokens, list(places), used)
    for site, (module, side) in places.items():
        new = noise(clean.activations[site])
        logits = family.subject.logits_from(site, new, clean)
        assert torch.equal(logits, full_pass(family, tokens, used, [(module, new, side)])), site
        assert not torch.allclose(logits, clean.logits, atol=1e-3), site


@pytest.mark.parametrize("branch", [0, 1])
def test_replacing_a_normalized_residual_gives_its_branch_another_input(family, tokens, mask, branch):
    names = ["attn", "mlp"]
    site, given = f"blocks.1.ln{branch + 1}.hook_normalized", f"blocks.1.{names[branch]}.hook_in"
    if family.wiring.norms is None:
        with pytest.raises(SiteError, match="norm with a gain"):
            family.subject.logits_from(site, torch.zeros(3, 10, 32), tokens)
        return
    clean = family.subject.read_with_logits(tokens, [site], mask)
    new = noise(clean.activations[site])
    norm, (module, side) = family.norm(1, branch), family.places(1)[given]
    gain = norm.weight + (1 if family.name.startswith("gemma") else 0)
    bias = 0 if getattr(norm, "bias", None) is None else norm.bias
    oracle = full_pass(family, tokens, mask, [(module, new * gain + bias, side)])
    for source in (clean, tokens):
        logits = family.subject.logits_from(site, new, source, None if source is clean else mask)
        torch.testing.assert_close(logits, oracle, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(oracle, clean.logits, atol=1e-2)


def test_a_transcoder_that_predicts_what_the_mlp_does_changes_nothing(family, tokens, mask):
    given, output = "blocks.1.mlp.hook_in", "blocks.1.hook_mlp_out"
    clean = family.subject.read_with_logits(tokens, [given, output], mask)
    with torch.no_grad():
        prediction = family.mlp_of(1, clean.activations[given])
    logits = family.subject.logits_from(output, prediction, clean)
    torch.testing.assert_close(logits, clean.logits, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(family.subject.logits_from(output, noise(prediction), clean), logits, atol=1e-2)


@pytest.mark.parametrize("masked", [False, True])
def test_reentering_after_a_block_is_reentering_before_the_next_one(family, tokens, mask, masked):
    used = mask if masked else None
    for layer in range(3):
        site, next_site = f"blocks.{layer}.hook_resid_post", f"blocks.{layer + 1}.hook_resid_pre"
        clean = family.subject.read_with_logits(tokens, [site], used)
        new = noise(clean.activations[site])
        logits = family.subject.logits_from(site, new, clean)
        assert torch.equal(logits, full_pass(family, tokens, used, [(family.blocks[layer], new)]))
        if layer < 2:
            assert torch.equal(family.subject.logits_from(next_site, new, clean), logits)


def test_replacing_the_middle_equals_a_full_pass_with_another_attention_output(family, tokens, mask):
    sites = ["blocks.1.hook_resid_pre", "blocks.1.hook_resid_mid"]
    if family.is_parallel:
        with pytest.raises(SiteError, match="read the same input"):
            family.subject.logits_from(sites[1], torch.zeros(3, 10, 32), tokens)
        return
    clean = family.subject.read_with_logits(tokens, sites, mask)
    before, middle = clean.activations.values()
    new = noise(middle)
    logits = family.subject.logits_from(sites[1], new, clean)
    added = (new - before) / family.wiring.factor
    oracle = full_pass(family, tokens, mask, [(family.attention(1), added)])
    torch.testing.assert_close(logits, oracle, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(logits, clean.logits, atol=1e-2)


@pytest.mark.parametrize("side", ["output", "input"])
def test_replacing_a_module_inside_a_block_equals_a_full_pass(llama, tokens, mask, side):
    path = "model.layers.1.mlp.gate_proj"
    site = path if side == "output" else f"{path}:input"
    clean = llama.subject.read_with_logits(tokens, [site], mask)
    new = noise(clean.activations[site])
    oracle = full_pass(llama, tokens, mask, [(llama.model.get_submodule(path), new, side)])
    assert torch.equal(llama.subject.logits_from(site, new, clean), oracle)
    assert torch.equal(llama.subject.logits_from(site, new, tokens, mask), oracle)


@pytest.mark.parametrize("site", ["model.embed_tokens", "model.norm", "model.norm:input", "lm_head:input"])
def test_replacing_a_module_outside_the_blocks_equals_a_full_pass(llama, tokens, site):
    clean = llama.subject.read_with_logits(tokens, [site])
    new = noise(clean.activations[site])
    path, _, side = site.partition(":")
    oracle = full_pass(llama, tokens, None, [(llama.model.get_submodule(path), new, side)])
    assert torch.equal(llama.subject.logits_from(site, new, clean), oracle)


@pytest.mark.parametrize(
    ("kind", "mlps", "attentions"),
    [
        ("resid_pre", [1, 2], [1, 2]),
        ("resid_post", [2], [2]),
        ("attn_out", [1, 2], [1, 2]),
        ("mlp_out", [1, 2], [1, 2]),
    ],
)
def test_blocks_below_the_site_are_not_run(family, tokens, kind, mlps, attentions):
    site = f"blocks.1.hook_{kind}"
    clean = family.subject.read_with_logits(tokens, [site])
    family.subject.logits_from(site, clean.activations[site], clean)  # the first time it is tried out
    calls = {"mlp": [], "attention": []}
    with ExitStack() as stack:
        for layer in range(3):
            for name, module in (("mlp", family.mlp(layer)), ("attention", family.attention(layer))):
                hook = module.register_forward_hook(
                    lambda *_, name=name, layer=layer: calls[name].append(layer)
                )
                stack.callback(hook.remove)
        family.subject.logits_from(site, clean.activations[site], clean)
    assert calls == {"mlp": mlps, "attention": attentions}


def test_replacing_leaves_activations_and_clean_pass_as_they_were(family, tokens):
    sites = [f"blocks.1.{name}" for name in ("hook_resid_post", "hook_mlp_out", "attn.hook_z", "mlp.hook_in")]
    clean = family.subject.read_with_logits(tokens, sites)
    before = {site: clean.activations[site].clone() for site in sites}
    inputs = {layer: value.clone() for layer, value in clean.block_inputs.items()}
    for site in sites:
        family.subject.logits_from(site, clean.activations[site], clean)
        assert torch.equal(clean.activations[site], before[site]), site
    assert all(torch.equal(clean.block_inputs[layer], inputs[layer]) for layer in inputs)


def test_several_sites_of_one_pass_can_each_be_replaced(family, tokens, mask):
    sites = [
        "blocks.0.hook_resid_post",
        "blocks.1.hook_mlp_out",
        "blocks.2.attn.hook_z",
        "blocks.2.mlp.hook_in",
    ]
    together = family.subject.read_with_logits(tokens, sites, mask)
    for site in sites:
        alone = family.subject.read_with_logits(tokens, [site], mask)
        new = noise(alone.activations[site])
        first = family.subject.logits_from(site, new, together)
        assert torch.equal(first, family.subject.logits_from(site, new, alone))


def test_the_model_is_as_before_after_replacing_and_after_an_error_in_it(family, tokens):
    site = "blocks.1.hook_resid_post"
    clean = family.subject.read_with_logits(tokens, [site])
    family.subject.logits_from(site, noise(clean.activations[site]), clean)
    assert torch.equal(family.subject.read_with_logits(tokens, []).logits, clean.logits)

    class BrokenError(RuntimeError):
        pass

    def fail(*_):
        raise BrokenError

    hook = family.mlp(2).register_forward_hook(fail)
    with pytest.raises(BrokenError):
        family.subject.logits_from(site, noise(clean.activations[site]), clean)
    hook.remove()
    assert all("forward" not in block.__dict__ for block in family.blocks)
    assert torch.equal(family.subject.read_with_logits(tokens, []).logits, clean.logits)


def test_a_forward_that_a_block_instance_carries_is_put_back(tokens):
    subject = tiny_subject("llama")
    block = subject.blocks.modules[0]
    own = block.forward

    def patched(*args, **kwargs):
        return own(*args, **kwargs)

    block.forward = patched
    site = "blocks.1.hook_resid_post"
    clean = subject.read_with_logits(tokens, [site])
    assert torch.equal(subject.logits_from(site, clean.activations[site], clean), clean.logits)
    assert block.__dict__["forward"] is patched


def test_activations_of_another_shape_are_refused(llama, tokens):
    clean = llama.subject.read_with_logits(tokens, ["blocks.1.hook_resid_post"])
    with pytest.raises(SiteError, match=r"shape \(3, 10, 31\), the site has \(3, 10, 32\)"):
        llama.subject.logits_from("blocks.1.hook_resid_post", torch.zeros(3, 10, 31), clean)


def test_activations_of_another_type_are_taken_in_the_subjects_own(llama, tokens):
    site = "blocks.1.hook_resid_post"
    clean = llama.subject.read_with_logits(tokens, [site])
    logits = llama.subject.logits_from(site, clean.activations[site].double(), clean)
    assert torch.equal(logits, clean.logits)


def test_replacing_by_itself_is_close_in_bfloat16(tokens, mask):
    subject = tiny_subject("qwen3", dtype=torch.bfloat16)
    names = ("hook_resid_post", "hook_resid_mid", "hook_mlp_out", "attn.hook_z", "ln2.hook_normalized")
    for site in (f"blocks.1.{name}" for name in names):
        clean = subject.read_with_logits(tokens, [site], mask)
        assert torch.equal(subject.logits_from(site, clean.activations[site], clean), clean.logits)
