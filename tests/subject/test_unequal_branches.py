"""Sites inside a block are found where one branch writes far more than the other, or than the stream."""

import pytest
import torch

from autointerp.errors import SiteError
from autointerp.testing.tiny_subject import tiny_subject

ATTENTION = {"llama": "model.layers.0.self_attn", "gpt2": "transformer.h.0.attn"}
FIRST_MLPS = ("layers.0.mlp.down_proj", "h.0.mlp.c_proj", "layers.0.mlp.dense_4h_to_h")


def unequal(family: str, mlp_scale: float):
    """A subject whose embeddings are small and whose first MLP writes `mlp_scale` times as much."""
    subject = tiny_subject(family)
    with torch.no_grad():
        for name, weight in subject.model.named_parameters():
            if any(word in name for word in ("embed", "wte", "wpe")):
                weight.mul_(0.1)
            if any(word in name for word in FIRST_MLPS):
                weight.mul_(mlp_scale)
    return subject


@pytest.mark.parametrize("mlp_scale", [1.0, 30.0, 100.0])
@pytest.mark.parametrize("family", ATTENTION)
def test_the_middle_is_the_stream_plus_the_attentions_output(family, mlp_scale):
    subject = unequal(family, mlp_scale)
    tokens = torch.arange(10, 30)[None]
    read = subject.read(
        tokens, ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_mid", "blocks.0.hook_attn_out"]
    )
    attention = subject.read(tokens, [ATTENTION[family]])[ATTENTION[family]]
    torch.testing.assert_close(read["blocks.0.hook_attn_out"], attention)
    expected = read["blocks.0.hook_resid_pre"] + attention
    torch.testing.assert_close(read["blocks.0.hook_resid_mid"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mlp_scale", [1.0, 30.0, 100.0])
def test_a_parallel_block_still_has_no_middle(mlp_scale):
    subject = unequal("gpt_neox", mlp_scale)
    with pytest.raises(SiteError, match="no residual lies between"):
        subject.read(torch.arange(10, 30)[None], ["blocks.0.hook_resid_mid"])
