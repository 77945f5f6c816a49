"""One place of a subject has one canonical name, however it is written."""

import pytest

from autointerp.errors import SiteError


def test_every_way_to_write_a_place_has_one_canonical_name(family):
    canonical = family.subject.canonical_site
    for layer in (0, 2):
        block = family.block_path(layer)
        assert canonical(block) == f"blocks.{layer}.hook_resid_post"
        paths = {id(module): path for path, module in family.model.named_modules()}
        for kind, module in (("mlp_out", family.mlp(layer)), ("attn_out", family.attention(layer))):
            assert canonical(paths[id(module)]) == f"blocks.{layer}.hook_{kind}"
        for name in family.block_sites(layer):
            assert canonical(name) == name
            assert canonical(name.replace("blocks.", "blocks.0")) == name


def test_a_place_without_a_transformer_lens_name_keeps_its_path(llama):
    for path in ("model.layers.1.mlp.act_fn", "model.norm", "lm_head"):
        assert llama.subject.canonical_site(path) == path


def test_a_site_that_is_not_there_has_no_canonical_name(llama):
    for name in ("blocks.9.hook_resid_post", "model.layers.1.nothing", "a b"):
        with pytest.raises(SiteError):
            llama.subject.canonical_site(name)
