"""Paths that begin at the base model, as sparsify names its folders, are the full ones."""

import pytest

from autointerp.errors import SiteError
from autointerp.testing.tiny_subject import tiny_subject


@pytest.mark.parametrize(
    ("family", "short", "full"),
    [
        ("gpt_neox", "layers.1.mlp.act", "gpt_neox.layers.1.mlp.act"),
        ("llama", "layers.1.mlp.up_proj", "model.layers.1.mlp.up_proj"),
        ("gpt2", "h.1.mlp.c_fc", "transformer.h.1.mlp.c_fc"),
    ],
)
def test_a_path_below_the_head_is_the_full_path(family, short, full, tokens):
    subject = tiny_subject(family)
    read = subject.read(tokens, [short, full, f"{short}:input", f"{full}:input"])
    assert read[short].equal(read[full]) and read[f"{short}:input"].equal(read[f"{full}:input"])
    assert subject.width(short) == subject.width(full)
    clean = subject.read_with_logits(tokens, [short])
    assert subject.logits_from(short, clean.activations[short] * 2, clean).equal(
        subject.logits_from(full, clean.activations[short] * 2, clean)
    )


def test_branches_and_blocks_keep_their_one_name():
    subject = tiny_subject("gpt_neox_sequential")
    assert subject.canonical_site("layers.1.mlp") == "blocks.1.hook_mlp_out"
    assert subject.canonical_site("layers.1") == "blocks.1.hook_resid_post"
    with pytest.raises(SiteError, match="no module of that name"):
        subject.canonical_site("layers.1.nothing")
