"""One place of a subject has one canonical name, however it is written."""

import pytest

from autointerp.errors import SiteError


def test_every_way_to_write_a_place_has_one_canonical_name(family):
    canonical = family.subject.canonical_site
    for layer in (0, 2):
        assert canonical(family.block_path(layer)) == f"blocks.{layer}.hook_resid_post"
        assert canonical(f"{family.block_path(layer)}:input") == f"blocks.{layer}.hook_resid_pre"
        named = {}
        for name, place in family.places(layer).items():
            # A branch without a norm of its output returns what is added to the stream.
            named.setdefault(place, name)
            assert canonical(name) == named[place]
            assert canonical(name.replace("blocks.", "blocks.0")) == named[place]
            module, side = place
            path = family.path_of(module)
            assert canonical(path if side == "output" else f"{path}:input") == named[place]
        for name in set(family.block_sites(layer)) - set(family.places(layer)):
            assert canonical(name) == name


def test_what_a_norm_is_given_is_not_the_middle_since_replacing_it_leaves_the_stream_alone(llama):
    path = "model.layers.1.post_attention_layernorm:input"
    assert llama.subject.canonical_site(path) == path


def test_where_the_mlp_is_given_the_stream_itself_the_two_keep_their_names(families):
    canonical = families("olmo2").subject.canonical_site
    assert canonical("model.layers.1.mlp:input") == "blocks.1.mlp.hook_in"
    assert canonical("blocks.1.hook_resid_mid") == "blocks.1.hook_resid_mid"


def test_a_place_without_a_transformer_lens_name_keeps_its_path(llama):
    for path in (
        *("model.layers.1.mlp.act_fn", "model.norm", "lm_head", "lm_head:input"),
        *("model.layers.1.mlp.gate_proj:input", "model.layers.1.mlp.down_proj"),
    ):
        assert llama.subject.canonical_site(path) == path


def test_a_site_that_is_not_there_has_no_canonical_name(llama):
    for name in ("blocks.9.mlp.hook_in", "model.layers.1.nothing", "model.nothing:input", "a b"):
        with pytest.raises(SiteError):
            llama.subject.canonical_site(name)
