"""Small random language models with a byte-level tokenizer, made on the spot, for tests without a network."""

from pathlib import Path
from typing import Any

import torch

from autointerp.errors import SubjectError
from autointerp.subject.quiet import quiet_transformers
from autointerp.subject.subject_model import SubjectModel

__all__ = ["TINY_FAMILIES", "tiny_subject", "tiny_tokenizer", "write_tiny_subject"]

_MERGED = """th he in er an re on at en nd ti es or te of ed is it al ar st to nt ng se ha as ou io le
the ing and ion""".split()  # noqa: SIM905 - a list of 34 strings reads worse
_SPECIAL = ("<|bos|>", "<|endoftext|>", "<|pad|>")

_LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
_GPT_NEOX: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}

_GPT2: dict[str, Any] = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
_MIXED_LAYERS = ["sliding_attention", "full_attention", "sliding_attention"]

TINY_FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", _LLAMA_LIKE),
    "mistral": ("mistral", _LLAMA_LIKE | {"sliding_window": 8}),
    "qwen2": ("qwen2", _LLAMA_LIKE),
    "qwen3": ("qwen3", _LLAMA_LIKE),
    "gemma2": ("gemma2", _LLAMA_LIKE | {"query_pre_attn_scalar": 8, "sliding_window": 8}),
    "gemma3": (
        "gemma3_text",
        _LLAMA_LIKE | {"query_pre_attn_scalar": 8, "sliding_window": 4, "layer_types": _MIXED_LAYERS},
    ),
    "granite": ("granite", _LLAMA_LIKE | {"residual_multiplier": 0.3, "attention_multiplier": 0.3}),
    "olmo2": ("olmo2", _LLAMA_LIKE),
    "phi3": ("phi3", _LLAMA_LIKE),
    "starcoder2": ("starcoder2", _LLAMA_LIKE | {"sliding_window": None}),
    "stablelm": ("stablelm", _LLAMA_LIKE),
    "cohere": ("cohere", _LLAMA_LIKE),
    "mixtral": ("mixtral", _LLAMA_LIKE | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "phi": ("phi", _GPT_NEOX),
    "gpt2": ("gpt2", _GPT2),
    "gptj": ("gptj", _GPT2 | {"rotary_dim": 4}),
    "codegen": ("codegen", _GPT2 | {"rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", _GPT_NEOX | {"use_parallel_residual": True}),
    "gpt_neox_sequential": ("gpt_neox", _GPT_NEOX | {"use_parallel_residual": False}),
    "opt": (
        "opt",
        {
            "hidden_size": 32,
            "word_embed_proj_dim": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
        },
    ),
    "falcon": (
        "falcon",
        {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128},
    ),
    "bloom": ("bloom", {"hidden_size": 32, "n_layer": 3, "n_head": 4}),
    "mpt": ("mpt", {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 128}),
}
"""Name of a family -> its `model_type` and the configuration that makes it small."""


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer with 256 bytes, 34 merges and 3 special tokens: 293 ids.

    Every text can be encoded, and decoding gives it back.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    symbols = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *_MERGED]
    merges = [(word[:-1], word[-1]) for word in _MERGED]
    model = models.BPE(vocab={symbol: index for index, symbol in enumerate(symbols)}, merges=merges)
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    bos, eos, pad = _SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos, pad_token=pad)


def tiny_subject(
    family: str = "llama", *, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any
) -> SubjectModel:
    """A random model of a family: 3 blocks, 32 wide, 128 positions, the vocabulary of `tiny_tokenizer`.

    The weights depend on `family`, `seed` and the configuration only; the global generator is left as it was.

    Args:
        family: a name in `TINY_FAMILIES`.
        seed: of the weights.
        dtype: of the weights.
        overrides: keys of the model's configuration to set otherwise.

    Raises:
        SubjectError: the family is unknown.
    """
    model, tokenizer = _tiny_parts(family, seed=seed, overrides=overrides)
    return SubjectModel(model.to(dtype), tokenizer, name=f"tiny-{family}-{seed}")


def write_tiny_subject(path: str | Path, family: str = "llama", *, seed: int = 0, **overrides: Any) -> Path:
    """Save what `tiny_subject` makes as a folder that `SubjectModel.load` reads; returns the path."""
    model, tokenizer = _tiny_parts(family, seed=seed, overrides=overrides)
    with quiet_transformers():
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)
    return Path(path)


def _tiny_parts(family: str, *, seed: int, overrides: dict[str, Any]) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModelForCausalLM

    if family not in TINY_FAMILIES:
        raise SubjectError(f"no tiny family {family!r}", remedy=f"there are {', '.join(TINY_FAMILIES)}")
    model_type, settings = TINY_FAMILIES[family]
    tokenizer = tiny_tokenizer()
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "vocab_size": len(tokenizer),
    }
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        config = AutoConfig.for_model(model_type, **settings | ids | overrides)
        model = AutoModelForCausalLM.from_config(config)
    _fill(model, torch.Generator().manual_seed(seed))
    return model.eval(), tokenizer


def _fill(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights large enough that every block changes the residual stream, and logits differ."""
    with torch.no_grad():
        for _, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                weight.copy_(noise * weight.shape[-1] ** -0.5)
            else:
                weight.add_(0.1 * noise)
