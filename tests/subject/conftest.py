from dataclasses import dataclass, replace

import pytest
import torch

from autointerp.testing.tiny_subject import TINY_FAMILIES, tiny_subject


@dataclass(frozen=True)
class Wiring:
    """Which modules of a block do what.

    Written down here by hand, from the models' sources, as the oracle for what the package finds out by
    itself. Paths are those within a block.
    """

    blocks: str
    """Path of the list of blocks."""
    attention: str
    """Returns what is added to the residual stream first."""
    mlp: str
    """Returns what is added last."""
    z: str
    """Is given the heads' outputs side by side."""
    post: str | None
    """Is given what the MLP's nonlinearity gives; None for a mixture of experts."""
    norms: tuple[str, str] | None
    """Return what attention and MLP are given."""
    own_attention: str = ""
    """Returns what the attention computes; the same as `attention` where that is left out."""
    own_mlp: str = ""
    attention_in: str = ""
    """Is given what the attention is given; the same as `own_attention` where that is left out."""
    mlp_in: str = ""
    is_parallel: bool = False
    factor: float = 1.0
    """What both are multiplied by before they are added."""


LLAMA = Wiring(
    "model.layers",
    "self_attn",
    "mlp",
    "self_attn.o_proj",
    "mlp.down_proj",
    ("input_layernorm", "post_attention_layernorm"),
)
GEMMA = Wiring(
    "model.layers",
    "post_attention_layernorm",
    "post_feedforward_layernorm",
    "self_attn.o_proj",
    "mlp.down_proj",
    ("input_layernorm", "pre_feedforward_layernorm"),
    own_attention="self_attn",
    own_mlp="mlp",
)
GPT2 = Wiring("transformer.h", "attn", "mlp", "attn.c_proj", "mlp.c_proj", ("ln_1", "ln_2"))
GPTJ = Wiring(
    "transformer.h", "attn", "mlp", "attn.out_proj", "mlp.fc_out", ("ln_1", "ln_1"), is_parallel=True
)
GPT_NEOX = Wiring(
    "gpt_neox.layers",
    "attention",
    "mlp",
    "attention.dense",
    "mlp.dense_4h_to_h",
    ("input_layernorm", "post_attention_layernorm"),
)
BLOOM = Wiring(
    "transformer.h",
    "self_attention.dense",
    "mlp.dense_4h_to_h",
    "self_attention.dense",
    "mlp.dense_4h_to_h",
    ("input_layernorm", "post_attention_layernorm"),
    attention_in="self_attention",
    mlp_in="mlp",
)
ONE_NORM = ("input_layernorm", "input_layernorm")
WIRINGS = {
    "llama": LLAMA,
    "mistral": LLAMA,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "granite": replace(LLAMA, factor=0.3),
    "phi3": LLAMA,
    "stablelm": LLAMA,
    "starcoder2": replace(LLAMA, post="mlp.c_proj"),
    "mixtral": replace(LLAMA, post=None),
    "cohere": replace(LLAMA, norms=ONE_NORM, is_parallel=True),
    "phi": replace(LLAMA, z="self_attn.dense", post="mlp.fc2", norms=ONE_NORM, is_parallel=True),
    "gemma2": GEMMA,
    "gemma3": GEMMA,
    "olmo2": replace(GEMMA, norms=None),
    "gpt2": GPT2,
    "gptj": GPTJ,
    "codegen": GPTJ,
    "gpt_neox": replace(GPT_NEOX, is_parallel=True),
    "gpt_neox_sequential": GPT_NEOX,
    "opt": Wiring(
        "model.decoder.layers",
        "self_attn",
        "fc2",
        "self_attn.out_proj",
        "fc2",
        ("self_attn_layer_norm", "final_layer_norm"),
        mlp_in="fc1",
    ),
    "falcon": Wiring(
        "transformer.h",
        "self_attention",
        "mlp",
        "self_attention.dense",
        "mlp.dense_4h_to_h",
        ONE_NORM,
        is_parallel=True,
    ),
    "bloom": BLOOM,
    "mpt": Wiring(
        "transformer.blocks",
        "attn",
        "ffn.down_proj",
        "attn.out_proj",
        "ffn.down_proj",
        ("norm_1", "norm_2"),
        mlp_in="ffn",
    ),
}


class Family:
    """A tiny subject with the oracle's knowledge of its modules."""

    def __init__(self, name):
        self.name = name
        self.subject = tiny_subject(name)
        self.model = self.subject.model
        self.wiring = WIRINGS[name]
        self.blocks = list(self.model.get_submodule(self.wiring.blocks))
        self.is_parallel = self.wiring.is_parallel

    def block_path(self, layer):
        return f"{self.wiring.blocks}.{layer}"

    def attention(self, layer):
        return self.blocks[layer].get_submodule(self.wiring.attention)

    def mlp(self, layer):
        return self.blocks[layer].get_submodule(self.wiring.mlp)

    def norm(self, layer, branch):
        return self.blocks[layer].get_submodule(self.wiring.norms[branch])

    def path_of(self, module):
        return next(path for path, other in self.model.named_modules() if other is module)

    def mlp_of(self, layer, x):
        """What the block's MLP makes of what it is given, by the model's own modules."""
        block, wiring = self.blocks[layer], self.wiring
        if self.name == "opt":
            return block.fc2(block.activation_fn(block.fc1(x)))
        if wiring.mlp_in:  # returns its output with the residual added
            return block.get_submodule(wiring.mlp_in)(x, torch.zeros((*x.shape[:2], 32)))
        own = block.get_submodule(wiring.own_mlp or wiring.mlp)(x)
        return self.mlp(layer)(own) if wiring.own_mlp else own

    def places(self, layer):
        """The sites of a block that are one side of one module: name -> module, side."""
        wiring, block = self.wiring, self.blocks[layer]
        own_attention = wiring.own_attention or wiring.attention
        own_mlp = wiring.own_mlp or wiring.mlp
        paths = {
            "hook_resid_pre": ("", "input"),
            "hook_resid_post": ("", "output"),
            "hook_attn_out": (wiring.attention, "output"),
            "hook_mlp_out": (wiring.mlp, "output"),
            "attn.hook_in": (wiring.attention_in or own_attention, "input"),
            "mlp.hook_in": (wiring.mlp_in or own_mlp, "input"),
            "attn.hook_z": (wiring.z, "input"),
            "attn.hook_out": (own_attention, "output"),
            "mlp.hook_out": (own_mlp, "output"),
        }
        if wiring.post:
            paths["mlp.hook_post"] = (wiring.post, "input")
        return {
            f"blocks.{layer}.{name}": (block.get_submodule(path), side)
            for name, (path, side) in paths.items()
        }

    def block_sites(self, layer):
        """All sites of a block that have a name of their own."""
        more = ["hook_resid_mid"] * (not self.is_parallel)
        more += ["ln1.hook_normalized", "ln2.hook_normalized"] * (self.wiring.norms is not None)
        return [*self.places(layer), *(f"blocks.{layer}.{name}" for name in more)]


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
