import pytest
import torch

from autointerp.testing.tiny_subject import TINY_FAMILIES, tiny_subject

# Where each family keeps its blocks and what in them writes to the residual stream: written down here by
# hand, from the models' sources, as the oracle for what the package finds out by itself.
BLOCKS = {
    "llama": "model.layers",
    "mistral": "model.layers",
    "qwen3": "model.layers",
    "gemma2": "model.layers",
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "gpt_neox_sequential": "gpt_neox.layers",
    "opt": "model.decoder.layers",
    "bloom": "transformer.h",
    "falcon": "transformer.h",
}
ATTENTION = {
    "llama": "self_attn",
    "mistral": "self_attn",
    "qwen3": "self_attn",
    "gemma2": "post_attention_layernorm",
    "gpt2": "attn",
    "gpt_neox": "attention",
    "gpt_neox_sequential": "attention",
    "opt": "self_attn",
    "bloom": "self_attention.dense",
    "falcon": "self_attention",
}
MLP = {
    "llama": "mlp",
    "mistral": "mlp",
    "qwen3": "mlp",
    "gemma2": "post_feedforward_layernorm",
    "gpt2": "mlp",
    "gpt_neox": "mlp",
    "gpt_neox_sequential": "mlp",
    "opt": "fc2",
    "bloom": "mlp.dense_4h_to_h",
    "falcon": "mlp",
}


class Family:
    """A tiny subject with the oracle's knowledge of its modules."""

    def __init__(self, name):
        self.name = name
        self.subject = tiny_subject(name)
        self.model = self.subject.model
        self.blocks = list(self.model.get_submodule(BLOCKS[name]))
        self.is_parallel = name in ("gpt_neox", "falcon")

    def block_path(self, layer):
        return f"{BLOCKS[self.name]}.{layer}"

    def attention(self, layer):
        return self.blocks[layer].get_submodule(ATTENTION[self.name])

    def mlp(self, layer):
        return self.blocks[layer].get_submodule(MLP[self.name])

    def block_sites(self, layer):
        kinds = ["resid_pre", "resid_post", "mlp_out", "attn_out"] + ["resid_mid"] * (not self.is_parallel)
        return [f"blocks.{layer}.hook_{kind}" for kind in kinds]


@pytest.fixture(scope="session")
def families():
    made = {}

    def get(name):
        if name not in made:
            made[name] = Family(name)
        return made[name]

    return get


@pytest.fixture(params=sorted(TINY_FAMILIES))
def family(request, families):
    return families(request.param)


@pytest.fixture
def llama(families):
    return families("llama")


@pytest.fixture(scope="session")
def tokens():
    return torch.randint(3, 290, (3, 10), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="session")
def mask():
    mask = torch.ones(3, 10, dtype=torch.bool)
    mask[1, 6:] = False
    mask[2, 9:] = False
    return mask
