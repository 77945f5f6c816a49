import pytest
from torch import nn

from autointerp.errors import SiteError, SubjectError
from autointerp.subject.sites import Site, block_site_name, find_blocks, parse_site


@pytest.mark.parametrize("kind", ["resid_pre", "resid_mid", "resid_post", "mlp_out", "attn_out"])
def test_a_transformer_lens_name_is_a_block_and_a_side(kind):
    name = f"blocks.11.hook_{kind}"
    assert parse_site(name) == Site(name, kind, layer=11)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("attn.hook_in", "attn_in"),
        ("attn.hook_z", "z"),
        ("attn.hook_out", "attn_own_out"),
        ("mlp.hook_in", "mlp_in"),
        ("mlp.hook_post", "mlp_post"),
        ("mlp.hook_out", "mlp_own_out"),
        ("ln1.hook_normalized", "attn_normalized"),
        ("ln2.hook_normalized", "mlp_normalized"),
    ],
)
def test_places_within_attention_and_mlp_have_names_too(suffix, kind):
    name = f"blocks.0.{suffix}"
    assert parse_site(name) == Site(name, kind, layer=0)
    assert block_site_name(0, kind) == name


@pytest.mark.parametrize("path", ["model.layers.3.mlp", "transformer.h.0", "lm_head", "model.norm_2"])
def test_any_other_dotted_name_is_a_module_path(path):
    assert parse_site(path) == Site(path, "module_output", module=path)
    assert parse_site(f"{path}:input") == Site(f"{path}:input", "module_input", module=path)


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "a..b", "a b", "ä.b", "1.a", ":input", "a:output", "a:input:input", "a: input"),
        *("blocks.-1.hook_resid_post", "blocks.1.hook_z", "blocks.1.attn.hook_q", "hook_embed"),
        *("blocks.1.hook_resid_post:input", "blocks.1.ln_final.hook_normalized", "blocks.1.attn.hook_z.x"),
    ],
)
def test_what_is_no_name_of_a_site_is_refused_with_the_names_there_are(text):
    with pytest.raises(SiteError, match="hook_resid_post"):
        parse_site(text)


class Attention(nn.Module):
    pass


class Block(nn.Module):
    def __init__(self, expert_count=0):
        super().__init__()
        self.self_attn = Attention()
        self.experts = nn.ModuleList(nn.Linear(2, 2) for _ in range(expert_count))


def model(**lists):
    root = nn.Module()
    for name, modules in lists.items():
        setattr(root, name, nn.ModuleList(modules))
    return root


def test_blocks_are_the_longest_list_with_attention():
    found = find_blocks(model(norms=[nn.LayerNorm(2)] * 9, few=[Block()], layers=[Block() for _ in range(3)]))
    assert found.path == "layers"
    assert len(found.modules) == 3


def test_experts_inside_blocks_are_no_blocks():
    assert find_blocks(model(layers=[Block(expert_count=8) for _ in range(2)])).path == "layers"


def test_the_configured_number_of_blocks_wins_over_a_longer_tower():
    both = model(vision=[Block() for _ in range(4)], text=[Block() for _ in range(2)])
    assert find_blocks(both, expected_count=2).path == "text"
    assert find_blocks(both).path == "vision"


def test_a_chain_without_attention_is_still_a_chain_of_blocks():
    assert find_blocks(model(layers=[nn.Linear(2, 2) for _ in range(3)])).path == "layers"


def test_a_model_without_blocks_is_refused():
    with pytest.raises(SubjectError, match="no list of transformer blocks"):
        find_blocks(nn.Linear(2, 2))


def test_a_path_tells_its_block():
    found = find_blocks(model(layers=[Block() for _ in range(12)]))
    assert found.layer_of("layers.11.self_attn") == 11
    assert found.layer_of("layers.1") == 1
    assert found.layer_of("norm") is None
    assert found.is_block("layers.11")
    assert not found.is_block("layers.11.self_attn")
    assert not found.is_block("norm")
