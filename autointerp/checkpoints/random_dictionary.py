"""A null: a dictionary of random directions, with the shape and the sparsity of a real one.

What it scores is what a dictionary scores for its size and sparsity alone.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError

__all__ = ["random_dictionary", "with_output_scale"]


def random_dictionary(
    like: SparseAutoencoder,
    mean: Float[Tensor, " d_model"],
    *,
    generator: torch.Generator,
    k: int | None = None,
) -> SparseAutoencoder:
    """A TopK dictionary whose directions are random; it reads and writes along the same ones.

    Rows are independent and uniform on the unit sphere; encoder = decoder; encoder bias 0; pre_bias =
    decoder_bias = `mean`. So it answers with the mean plus its k best-aligned directions. Its output still
    wants a scale: see `metrics.calibration.fit_output_scales`.

    Args:
        like: gives the shape, the normalisation, device and dtype, and k if it is a TopK dictionary.
        mean: of the activations in the space that `like` works in, from `metrics.calibration.own_space_mean`.
        generator: on the CPU, whatever the device, so that one seed means one dictionary.
        k: latents kept per token; needed where `like` has no k to copy (its mean L0, rounded, is fair).

    Raises:
        CheckpointError: `like` is no TopK dictionary and no k is given.
    """
    activation = like.activation if isinstance(like.activation, TopK) else None
    if k is not None:
        activation = TopK(k)
    if activation is None:
        raise CheckpointError(
            f"a random dictionary copies k, and {like.activation.describe()} has none",
            remedy="give k, or a TopK checkpoint on the same site",
        )
    directions = torch.randn(like.latent_count, like.d_model, generator=generator, dtype=torch.float32)
    directions = torch.nn.functional.normalize(directions, dim=1).to(like.encoder_weight)
    bias = mean.to(like.encoder_weight)
    return SparseAutoencoder(
        encoder_weight=directions,
        encoder_bias=torch.zeros_like(like.encoder_bias),
        decoder_weight=directions,
        decoder_bias=bias,
        pre_bias=bias,
        activation=activation,
        normalization=like.normalization,
        metadata=CheckpointMetadata(
            site=like.metadata.site,
            subject=like.metadata.subject,
            context_length=like.metadata.context_length,
            prepend_bos=like.metadata.prepend_bos,
            notes=("null: random unit directions, encoder = decoder, biases = calibration mean",),
        ),
    )


def with_output_scale(dictionary: SparseAutoencoder, scale: float) -> SparseAutoencoder:
    """The same latents, decoded `scale` times as long; biases stay."""
    note = f"decoder scaled by {scale:.4g}"
    metadata = replace(dictionary.metadata, notes=(*dictionary.metadata.notes, note))
    return replace(dictionary, decoder_weight=dictionary.decoder_weight * scale, metadata=metadata)
