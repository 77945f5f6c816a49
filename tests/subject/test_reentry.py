"""Where a block needs more of the lower ones than the residual stream, the whole model is run."""

import pytest
import torch

from autointerp.testing.tiny_subject import tiny_subject


def handing_on(hand_over, take):
    """A subject whose block 0 hands something to block 2 past the residual stream, in one pass."""
    subject = tiny_subject("llama")
    blocks = subject.blocks.modules
    store = {}
    forwards = [block.forward for block in blocks]

    def first(hidden_states, **kwargs):
        store["value"] = hand_over(hidden_states)
        return forwards[0](hidden_states, **kwargs)

    def last(hidden_states, **kwargs):
        return forwards[2](take(hidden_states, store), **kwargs)

    blocks[0].forward, blocks[2].forward = first, last
    subject.model.get_input_embeddings().register_forward_hook(lambda *_: store.clear())
    return subject


def silent(x, store):
    return x + store.get("value", 0.0)


def loud(x, store):
    return x + store["value"]


@pytest.mark.parametrize("take", [silent, loud])
def test_reentering_equals_a_full_pass_all_the_same(take, tokens, mask):
    subject = handing_on(lambda x: 3 * x.flip(0), take)
    for name in ("hook_resid_pre", "hook_resid_post", "mlp.hook_in", "attn.hook_z"):
        site = f"blocks.1.{name}"
        clean = subject.read_with_logits(tokens, [site], mask)
        again = subject.logits_from(site, clean.activations[site], clean)
        assert torch.equal(again, clean.logits), site


def test_blocks_above_the_last_that_hands_on_are_started_at_as_ever(tokens):
    subject = handing_on(lambda x: x, loud)
    site = "blocks.2.hook_resid_post"
    clean = subject.read_with_logits(tokens, [site])
    subject.logits_from(site, clean.activations[site], clean)
    ran = []
    handle = subject.blocks.modules[0].mlp.register_forward_hook(lambda *_: ran.append(0))
    assert torch.equal(subject.logits_from(site, clean.activations[site], clean), clean.logits)
    handle.remove()
    assert not ran
