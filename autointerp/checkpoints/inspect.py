"""A checkpoint -> what `autointerp inspect` shows of it, as plain values."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.load import LoadedCheckpoint
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.stored_values import row_norms

__all__ = ["inspection"]


def inspection(checkpoint: LoadedCheckpoint) -> dict[str, Any]:
    """Format, architecture, shapes, site, norms, size, hash and what is missing; JSON-able.

    Norms are Euclidean, of the rows that belong to a latent: least, mean and largest. Memory: matrices are
    looked at block by block.
    """
    sae = checkpoint.sae
    return {
        "format": checkpoint.format,
        "sha256": checkpoint.sha256,
        "file_size_bytes": checkpoint.file_size_bytes,
        "architecture": checkpoint.architecture,
        "normalization": checkpoint.normalization,
        "latent_count": sae.latent_count,
        "d_model": sae.d_model,
        "site": sae.metadata.site,
        **({"output_site": sae.metadata.output_site, "d_out": sae.d_out} if sae.is_transcoder else {}),
        "subject": sae.metadata.subject,
        "context_length": sae.metadata.context_length,
        "prepend_bos": sae.metadata.prepend_bos,
        "shapes": _shapes(sae),
        "encoder_norm": _spread(row_norms(sae.encoder_weight)),
        "decoder_norm": _spread(row_norms(sae.decoder_weight)),
        "encoder_bias_norm": float(sae.encoder_bias.norm()),
        "decoder_bias_norm": float(sae.decoder_bias.norm()),
        "subtracts_bias_from_input": sae.pre_bias is not None,
        "missing": list(checkpoint.missing),
        "notes": list(sae.metadata.notes),
    }


def _shapes(sae: SparseAutoencoder) -> dict[str, list[int]]:
    parts = sae.tensors() | sae.activation.tensors()
    return {name: list(tensor.shape) for name, tensor in parts.items()}


def _spread(norms: Float[Tensor, " latent"]) -> dict[str, float]:
    return {"least": float(norms.min()), "mean": float(norms.mean()), "largest": float(norms.max())}
