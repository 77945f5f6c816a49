"""What tests of checkpoints share: random dictionaries, and raw files made without our writers."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import safetensors.torch
import torch
from torch import Tensor

from autointerp.checkpoints.activation_functions import ActivationFunction
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK

LATENTS, WIDTH = 30, 6
_TOP_5, _NO_METADATA = TopK(5), CheckpointMetadata()


@pytest.fixture
def unchecked_annotations(monkeypatch):
    """As for users: annotations are not checked at run time, so our own checks must do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def draw() -> Callable[..., Tensor]:
    """Normal numbers of a shape, the same in every run."""
    generator = torch.Generator().manual_seed(20)
    return lambda *shape: torch.randn(*shape, generator=generator)


@pytest.fixture
def autoencoder(draw: Callable[..., Tensor]) -> Callable[..., SparseAutoencoder]:
    """A random dictionary; `shared` decides whether it subtracts its decoder's bias."""

    def make(
        activation: ActivationFunction = _TOP_5,
        normalization: str = "none",
        *,
        shared: bool = True,
        latents: int = LATENTS,
        width: int = WIDTH,
        metadata: CheckpointMetadata = _NO_METADATA,
    ) -> SparseAutoencoder:
        bias = draw(width)
        return SparseAutoencoder(
            encoder_weight=draw(latents, width),
            encoder_bias=draw(latents),
            decoder_weight=draw(latents, width),
            decoder_bias=bias,
            pre_bias=bias if shared else None,
            activation=activation,
            normalization=InputNormalization(normalization),
            metadata=metadata,
        )

    return make


def _openai(
    path: Path, draw: Callable[..., Tensor]
) -> tuple[dict[str, Any], Callable[[dict[str, Any]], Path]]:
    state = {
        "pre_bias": draw(WIDTH),
        "encoder.weight": draw(LATENTS, WIDTH),
        "latent_bias": draw(LATENTS),
        "decoder.weight": draw(WIDTH, LATENTS),
        "stats_last_nonzero": torch.zeros(LATENTS, dtype=torch.int64),
        "latents_activation_frequency": torch.ones(LATENTS),
        "latents_mean_square": torch.zeros(LATENTS),
        "activation": "TopK",
        "activation_state_dict": {"k": 5, "postact_fn": "ReLU"},
    }

    def store(content: dict[str, Any]) -> Path:
        torch.save(content, path / "6.pt")
        return path / "6.pt"

    return state, store


@pytest.fixture
def openai_file(tmp_path, draw):
    """A published-style state dictionary, and a function that stores one."""
    return _openai(tmp_path, draw)


def _folder(
    path: Path, config_name: str, weights_name: str
) -> Callable[[dict[str, Any], dict[str, Any]], Path]:
    def store(config: dict[str, Any], tensors: dict[str, Any]) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        (path / config_name).write_text(json.dumps(config))
        if weights_name.endswith(".pt"):
            torch.save(tensors, path / weights_name)
        else:
            safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, path / weights_name)
        return path

    return store


@pytest.fixture
def saelens_folder(tmp_path, draw):
    """A SAELens 6 configuration, its tensors, and a function that stores the two."""
    config = {
        "architecture": "topk",
        "d_in": WIDTH,
        "d_sae": LATENTS,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "k": 5,
        "rescale_acts_by_decoder_norm": False,
        "metadata": {
            "model_name": "gpt2-small",
            "hook_name": "blocks.8.hook_resid_pre",
            "hook_head_index": None,
            "prepend_bos": True,
            "context_size": 128,
        },
    }
    tensors = {
        "W_enc": draw(WIDTH, LATENTS),
        "b_enc": draw(LATENTS),
        "W_dec": draw(LATENTS, WIDTH),
        "b_dec": draw(WIDTH),
    }
    return config, tensors, _folder(tmp_path / "saelens", "cfg.json", "sae_weights.safetensors")


@pytest.fixture
def sparsify_folder(tmp_path, draw):
    """A sparsify configuration, its tensors, and a function that stores the two in `layers.4`."""
    config = {
        "activation": "topk",
        "expansion_factor": 5,
        "normalize_decoder": True,
        "num_latents": 0,
        "k": 5,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": WIDTH,
        "of_a_later_version": 1,
    }
    tensors = {
        "encoder.weight": draw(LATENTS, WIDTH),
        "encoder.bias": draw(LATENTS),
        "W_dec": draw(LATENTS, WIDTH),
        "b_dec": draw(WIDTH),
    }
    return config, tensors, _folder(tmp_path / "layers.4", "cfg.json", "sae.safetensors")


@pytest.fixture
def dictionary_learning_folder(tmp_path, draw):
    """A dictionary_learning configuration, its state dictionary, and a function that stores the two."""
    config = {
        "trainer": {
            "trainer_class": "TrainerTopK",
            "dict_class": "AutoEncoderTopK",
            "activation_dim": WIDTH,
            "dict_size": LATENTS,
            "k": 5,
            "layer": 4,
            "lm_name": "EleutherAI/pythia-70m-deduped",
            "submodule_name": "resid_post_layer_4",
        },
        "buffer": {"d_submodule": WIDTH, "io": "out", "ctx_len": 1024},
    }
    tensors = {
        "encoder.weight": draw(LATENTS, WIDTH),
        "encoder.bias": draw(LATENTS),
        "decoder.weight": draw(WIDTH, LATENTS),
        "b_dec": draw(WIDTH),
        "k": torch.tensor(5),
        "threshold": torch.tensor(-1.0),
    }
    return config, tensors, _folder(tmp_path / "trainer_0", "config.json", "ae.pt")
