"""The direct path against the derivative of the whole model, which knows nothing of its modules.

At a residual r that is orthogonal to a direction d and to the all-ones vector, neither kind of norm changes
its scale to first order when d is added to r; and as r has mean 0, that scale is one over the root mean
square of r in either kind. So this root times the logits' derivative along d is what the path gives for d.
"""

import accelerate
import pytest
import torch
from torch import nn

from autointerp.errors import SiteError
from autointerp.subject.direct_path import DirectPath, writes_to_stream
from autointerp.subject.path_trace import LogitMap, constant_multiple, logit_map, misfit
from autointerp.subject.subject_model import SubjectModel
from autointerp.testing.tiny_subject import tiny_subject

COUNT = 7


@pytest.fixture
def directions():
    return torch.randn(COUNT, 32, generator=torch.Generator().manual_seed(2))


def derivative(subject, directions, *, soft_cap=None, has_norm=True):
    """Of the logits along a direction added to what the last block returns, times sigma; a position each."""
    r = 10.0 * torch.randn(directions.shape, generator=torch.Generator().manual_seed(3))
    basis, _ = torch.linalg.qr(torch.stack([torch.ones_like(directions), directions], dim=2))
    r = r - (basis @ (basis.mT @ r[..., None]))[..., 0]
    tokens = torch.arange(3, 3 + len(directions))[None]

    def logits_of(x):
        def put_in(_module, _args, output):
            return x if isinstance(output, torch.Tensor) else (x, *output[1:])

        handle = subject.blocks.modules[-1].register_forward_hook(put_in)
        try:
            return subject.model(input_ids=tokens, use_cache=False).logits
        finally:
            handle.remove()

    logits, tangent = torch.autograd.functional.jvp(logits_of, r[None], directions[None])
    if soft_cap is not None:
        tangent = tangent / (1.0 - (logits / soft_cap).square())
    sigma = r.square().mean(dim=1, keepdim=True).sqrt() if has_norm else 1.0
    return (tangent[0] * sigma).detach()


def test_it_is_the_derivative_of_the_whole_model(family, directions):
    path = DirectPath.of(family.subject)
    expected = derivative(family.subject, directions, soft_cap=30.0 if family.name == "gemma2" else None)
    torch.testing.assert_close(path.logits(directions), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("family", "overrides", "soft_cap"),
    [
        ("granite", {"logits_scaling": 8.0}, None),
        ("cohere", {"logit_scale": 0.25}, None),
        ("gemma2", {"final_logit_softcapping": 3.0}, 3.0),
        ("gemma2", {"final_logit_softcapping": None}, None),
        ("opt", {"word_embed_proj_dim": 16}, None),
        ("llama", {"tie_word_embeddings": True}, None),
    ],
)
def test_what_else_lies_on_the_way_is_taken_in(family, overrides, soft_cap, directions):
    subject = tiny_subject(family, **overrides)
    path = DirectPath.of(subject)
    expected = derivative(subject, directions, soft_cap=soft_cap)
    torch.testing.assert_close(path.logits(directions), expected, rtol=1e-3, atol=1e-4)
    assert path.logit_map.soft_cap == (None if soft_cap is None else pytest.approx(soft_cap, rel=1e-3))


def test_without_a_final_norm_the_path_is_the_unembedding_if_blocks_only_add(directions):
    subject = tiny_subject("opt", _remove_final_layer_norm=True)
    path = DirectPath.of(subject)
    expected = derivative(subject, directions, has_norm=False)
    torch.testing.assert_close(path.logits(directions), expected, rtol=1e-3, atol=1e-4)
    reason = DirectPath.of(tiny_subject("opt", do_layer_norm_before=False))
    assert reason == "no norm lies behind its last block, and that block does not simply add to its input"


class Bent(nn.Module):
    def forward(self, x):
        return x + 0.5 * x.abs()


class Half(nn.Linear):
    """Multiplies by less than its weight."""

    def forward(self, x):
        return 0.5 * super().forward(x)


def with_bend_before_the_head(model):
    model.lm_head = nn.Sequential(Bent(), model.lm_head)


def with_another_head(model):
    head = Half(32, 293, bias=False)
    head.weight = model.lm_head.weight
    model.lm_head = head


def with_bend_behind_the_norm(model):
    norm = model.model.norm
    model.model.norm = nn.Sequential(norm, Bent())


def with_another_norm(model):
    class Squared(type(model.model.norm)):
        def forward(self, x):
            return super().forward(x) * super().forward(x)

    model.model.norm.__class__ = Squared


def with_something_between(model):
    model.model.norm.register_forward_pre_hook(lambda _module, args: (args[0] + args[0].abs(),))


def with_bent_logits(model):
    model.register_forward_hook(lambda _module, _args, output: with_logits(output, output.logits.square()))


def with_fewer_logits(model):
    model.register_forward_hook(lambda _module, _args, output: with_logits(output, output.logits[..., :290]))


def with_logits(output, logits):
    output.logits = logits
    return output


def with_no_head(model):
    model.get_output_embeddings = lambda: None


def with_an_unused_head(model):
    unused = nn.Linear(32, 293)
    model.get_output_embeddings = lambda: unused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_bend_before_the_head, "no plain matrix"),
        (with_another_head, "no plain matrix"),
        (with_bend_behind_the_norm, "lies Bent, neither a norm nor a plain matrix"),
        (with_another_norm, "lies Squared, neither a norm nor a plain matrix"),
        (with_something_between, "not seen to come from its last block"),
        (with_bent_logits, "neither its unembedding's output times a constant nor that under a soft cap"),
        (with_fewer_logits, "it has 290 logits, and its unembedding 293 outputs"),
        (with_no_head, "no unembedding that is a module of its own"),
        (with_an_unused_head, "ran 0 times"),
    ],
)
def test_what_is_not_linear_is_undefined_and_says_why(change, reason):
    plain = tiny_subject("llama")
    change(plain.model)
    found = DirectPath.of(SubjectModel(plain.model, plain.tokenizer, name="changed", sha256="0"))
    assert isinstance(found, str)
    assert reason in found


@pytest.mark.parametrize("family", ["llama", "gemma2", "cohere", "gpt2", "opt"])
def test_a_subject_in_bfloat16_has_the_path_of_its_weights_in_float32(family, directions):
    """All arithmetic is in float32, so it is the same as with these weights held in float32."""
    overrides = {"word_embed_proj_dim": 16} if family == "opt" else {}
    rounded = tiny_subject(family, dtype=torch.bfloat16, **overrides)
    held = tiny_subject(family, dtype=torch.bfloat16, **overrides).model.float()
    reference = SubjectModel(held, rounded.tokenizer, name="held")
    expected = DirectPath.of(reference).logits(directions)
    # Cohere's factor is fitted to logits that were rounded.
    torch.testing.assert_close(DirectPath.of(rounded).logits(directions), expected, rtol=1e-3, atol=1e-4)


def test_an_unembedding_in_another_precision_goes_by_in_tiles(directions, monkeypatch):
    path = DirectPath.of(tiny_subject("llama", dtype=torch.bfloat16))
    expected = path.logits(directions)
    monkeypatch.setattr("autointerp.subject.direct_path._TILE_BYTES", 1000)
    torch.testing.assert_close(path.logits(directions), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt"])
def test_weights_that_are_fetched_for_each_use_are_fetched(family, directions):
    overrides = {"word_embed_proj_dim": 16} if family == "opt" else {}
    expected = DirectPath.of(tiny_subject(family, **overrides)).logits(directions)
    plain = tiny_subject(family, **overrides)
    accelerate.cpu_offload(plain.model, execution_device="cpu")
    path = DirectPath.of(SubjectModel(plain.model, plain.tokenizer, name="offloaded", sha256="0"))
    head = plain.model.get_output_embeddings()
    assert head.weight.device.type == "meta"
    with path.at_hand():
        assert head.weight.device.type == "cpu"
        assert torch.equal(path.logits(directions), expected)
        assert head.weight.device.type == "cpu"
    assert head.weight.device.type == "meta"
    assert torch.equal(path.logits(directions), expected)


def test_it_is_linear(directions):
    path = DirectPath.of(tiny_subject("gpt2"))
    whole = path.logits(directions)
    assert torch.equal(path.logits(-directions), -whole)
    torch.testing.assert_close(path.logits(3.0 * directions), 3.0 * whole)
    both = path.logits(directions[:1] + directions[1:2])
    torch.testing.assert_close(both, whole[:1] + whole[1:2], rtol=1e-4, atol=1e-5)
    assert path.logits(directions[:0]).shape == (0, 293)


def test_looking_for_the_path_leaves_the_subject_as_it_was(tokens):
    subject = tiny_subject("cohere")
    before = subject.read_with_logits(tokens, []).logits
    DirectPath.of(subject)
    assert torch.equal(subject.read_with_logits(tokens, []).logits, before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.model.modules())


def test_another_width_has_no_direct_path():
    path = DirectPath.of(tiny_subject("llama"))
    with pytest.raises(SiteError, match="directions of width 48 have no direct path"):
        path.logits(torch.zeros(2, 48))


def test_only_what_is_added_to_the_stream_writes_to_it():
    subject = tiny_subject("gemma2")
    sites = {
        "blocks.1.hook_resid_pre": True,
        "blocks.1.hook_resid_mid": True,
        "model.layers.1": True,
        "blocks.1.hook_mlp_out": True,
        "model.layers.1.post_attention_layernorm": True,
        "model.layers.1.mlp": False,  # a norm follows
        "blocks.1.attn.hook_z": False,
        "blocks.1.mlp.hook_in": False,
        "blocks.1.ln2.hook_normalized": False,
        "blocks.1.mlp.hook_post": False,
        "model.norm": False,
    }
    assert {site: writes_to_stream(subject, site) for site in sites} == sites
    assert writes_to_stream(tiny_subject("llama"), "model.layers.1.mlp")


@pytest.mark.parametrize("size", [0.3, 3.0, 300.0])
@pytest.mark.parametrize("cap", [3.0, 30.0])
def test_a_soft_cap_is_told_from_a_factor(size, cap):
    u = size * torch.randn(12, 293, generator=torch.Generator().manual_seed(0))
    assert logit_map(u, u) == LogitMap(1.0)
    assert logit_map(u, 0.9 * u).factor == pytest.approx(0.9)
    found = logit_map(u, cap * torch.tanh(u / cap))
    # Where the cap lies far above the logits, it is no difference that float32 would show.
    assert (found.factor, found.soft_cap) == (pytest.approx(1.0, rel=1e-3), pytest.approx(cap, rel=1e-2))
    assert isinstance(logit_map(u, u.sign() * u.abs().sqrt()), str)


def test_shares_of_what_is_unexplained():
    x = torch.tensor([[3.0, 4.0]])
    assert misfit(torch.tensor([[3.0, 3.0]]), x) == pytest.approx(1 / 25)
    assert misfit(0 * x, 0 * x) == 0.0
    assert misfit(x, 0 * x) == float("inf")
    assert constant_multiple(x, -2 * x) == pytest.approx((-2.0, 0.0))
    assert constant_multiple(0 * x, x) == (0.0, 1.0)
    assert constant_multiple(x, torch.ones(1, 3)).misfit == float("inf")
