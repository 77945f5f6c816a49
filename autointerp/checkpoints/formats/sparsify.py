"""EleutherAI's sparsify: a folder, named after its site, with cfg.json and sae.safetensors.

Tensors encoder.weight[n,d], encoder.bias[n], W_dec[n,d] (not transposed), b_dec[d]. Read: activation topk
without skip connection and not transcoding. groupmax and the rest are refused by name. `normalize_decoder` is
already in the stored W_dec; other fields are for training, or unknown, and change nothing here.
"""

import re
from pathlib import Path

import torch

from autointerp.checkpoints.activation_functions import TopK
from autointerp.checkpoints.sparse_autoencoder import (
    CheckpointMetadata,
    SparseAutoencoder,
)
from autointerp.checkpoints.stored_values import (
    Configuration,
    TensorTable,
    read_configuration,
    read_safetensors,
    write_folder,
)
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises", "write"]

NAME = "sparsify"
LAYOUT = "a folder with cfg.json and sae.safetensors"

_CONFIGURATION, _WEIGHTS = "cfg.json", "sae.safetensors"
_BLOCK = re.compile(r"(?:\w+\.)*(?:layers|h|blocks)\.(\d+)")
_INSIDE_A_BLOCK = re.compile(_BLOCK.pattern + r"(?:\.\w+)+")


def recognises(path: Path) -> bool:
    """A folder with both files."""
    return all(file.is_file() for file in files(path))


def files(path: Path) -> tuple[Path, ...]:
    """Configuration and weights."""
    return (path / _CONFIGURATION, path / _WEIGHTS)


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`z = topk(relu((x - b_dec) W_enc^T + b_enc))`, `x^ = z W_dec + b_dec`."""
    configuration = read_configuration(path / _CONFIGURATION)
    _refuse_variants(configuration)
    table = TensorTable(path / _WEIGHTS, read_safetensors(path / _WEIGHTS), _sizes(configuration))
    k = configuration.whole_number("k")
    if k is None:
        raise CheckpointError("says no k", where=configuration.where)
    bias = table.take("b_dec", "d_model")
    metadata = CheckpointMetadata(site=_site(path))
    sae = SparseAutoencoder(
        encoder_weight=table.take("encoder.weight", "latent d_model"),
        encoder_bias=table.take("encoder.bias", "latent"),
        decoder_weight=table.take("W_dec", "latent d_model"),
        decoder_bias=bias,
        pre_bias=bias,
        activation=TopK(k),
        metadata=metadata,
    )
    table.finish()
    return sae, metadata.absent


def write(sae: SparseAutoencoder, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Store it; the site is the folder's name, which is the caller's choice.

    Raises:
        CheckpointError: another activation than top-k with ReLU, a normalisation, or two different biases.
    """
    if not isinstance(sae.activation, TopK) or sae.activation.postact != "relu":
        raise CheckpointError(f"the sparsify format cannot hold the activation {sae.activation.describe()}")
    if sae.normalization.kind != "none":
        raise CheckpointError("the sparsify format has no normalisation", remedy="write it as saelens")
    weights = {
        "encoder.weight": sae.encoder_weight,
        "encoder.bias": sae.encoder_bias,
        "W_dec": sae.decoder_weight,
        "b_dec": sae.shared_bias(NAME),
    }
    configuration = {
        "activation": "topk",
        "expansion_factor": max(1, sae.latent_count // sae.d_model),
        "normalize_decoder": False,
        "num_latents": sae.latent_count,
        "k": sae.activation.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_model,
    }
    stored = {name: tensor.to(dtype) for name, tensor in weights.items()}
    write_folder(path, configuration=(_CONFIGURATION, configuration), weights=(_WEIGHTS, stored))


def _refuse_variants(configuration: Configuration) -> None:
    activation = configuration.text("activation") or "topk"
    if activation != "topk":
        raise CheckpointError(f"activation {activation!r} is not supported yet", where=configuration.where)
    for flag in ("skip_connection", "transcode", "signed"):
        if configuration.flag(flag):
            raise CheckpointError(f"{flag} is not supported yet", where=configuration.where)


def _sizes(configuration: Configuration) -> dict[str, int]:
    d_model, factor = configuration.size("d_in"), configuration.size("expansion_factor")
    latent_count = configuration.whole_number("num_latents") or (
        d_model * factor if d_model and factor else None
    )
    return {axis: size for axis, size in (("d_model", d_model), ("latent", latent_count)) if size}


def _site(path: Path) -> str | None:
    """The folder's name when it is a module path: `layers.4` is what block 4 returns."""
    for name in (path.absolute().name, path.resolve().name):  # a link's own name, then its target's
        if block := _BLOCK.fullmatch(name):
            return f"blocks.{int(block[1])}.hook_resid_post"
        if _INSIDE_A_BLOCK.fullmatch(name):
            return name
    return None
