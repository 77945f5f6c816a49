"""A checkpoint -> what `autointerp inspect` shows of it, as plain values."""

from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.load import read_checkpoint
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder

__all__ = ["inspection"]


def inspection(path: str | Path) -> dict[str, Any]:
    """Format, architecture, shapes, site, norms, size, hash and what is missing; JSON-able.

    Norms are Euclidean, of the rows that belong to a latent: least, mean and largest.

    Raises:
        CheckpointError: it cannot be loaded.
    """
    checkpoint = read_checkpoint(path)
    sae = checkpoint.sae
    return {
        "path": str(checkpoint.path),
        "format": checkpoint.format,
        "sha256": checkpoint.sha256,
        "file_size_bytes": checkpoint.file_size_bytes,
        "architecture": checkpoint.architecture,
        "normalization": checkpoint.normalization,
        "latent_count": sae.latent_count,
        "d_model": sae.d_model,
        "site": sae.metadata.site,
        "subject": sae.metadata.subject,
        "context_length": sae.metadata.context_length,
        "prepend_bos": sae.metadata.prepend_bos,
        "shapes": _shapes(sae),
        "encoder_norm": _spread(sae.encoder_weight.norm(dim=1)),
        "decoder_norm": _spread(sae.decoder_weight.norm(dim=1)),
        "encoder_bias_norm": float(sae.encoder_bias.norm()),
        "decoder_bias_norm": float(sae.decoder_bias.norm()),
        "subtracts_bias_from_input": sae.pre_bias is not None,
        "missing": list(checkpoint.missing),
        "notes": list(sae.metadata.notes),
    }


def _shapes(sae: SparseAutoencoder) -> dict[str, list[int]]:
    names = ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias", "pre_bias")
    parts = {name: getattr(sae, name) for name in names} | {
        "threshold": getattr(sae.activation, "threshold", None)
    }
    return {name: list(tensor.shape) for name, tensor in parts.items() if tensor is not None}


def _spread(norms: Float[Tensor, " latent"]) -> dict[str, float]:
    return {"least": float(norms.min()), "mean": float(norms.mean()), "largest": float(norms.max())}
