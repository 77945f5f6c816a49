"""Nulls: dictionaries that know nothing, or too little, with the shape and the sparsity of a real one.

What they score is what a dictionary scores for its size and sparsity alone; a real one must do better. All
are ordinary dictionaries, so they go through the same pipeline.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.scratch_matrix import scratch_matrix
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.topk_functions import AbsTopK, TopK
from autointerp.errors import CheckpointError

__all__ = ["basis_dictionary", "random_dictionary", "with_output_scale", "with_shuffled_decoder"]


def random_dictionary(
    like: SparseAutoencoder,
    mean: Float[Tensor, " d_model"],
    *,
    generator: torch.Generator,
    k: int | None = None,
    output_mean: Float[Tensor, " d_out"] | None = None,
) -> SparseAutoencoder:
    """A TopK dictionary whose directions are random.

    Rows are independent and uniform on the unit sphere; encoder bias 0; pre_bias = `mean`. It reads and
    writes along the same directions and its decoder bias is `mean` too, so it answers with the mean plus its
    k best-aligned directions. The null of a transcoder (`output_mean` given) writes along other random
    directions, about `output_mean`, and does not normalise. Its output still wants a scale: see
    `metrics.calibration.fit_output_scales`.

    Memory: the weights; where those of `like` are streamed, a scratch file of one precision with them.

    Args:
        like: gives the shape, the normalisation, device and dtype, and k if it is a TopK dictionary.
        mean: of the activations in the space that `like` works in, from `metrics.calibration.own_space_mean`.
        generator: on the CPU, whatever the device, so that one seed means one dictionary.
        k: latents kept per token; needed where `like` has no k to copy (its mean L0, rounded, is fair).
        output_mean: of the activations that a transcoder predicts.

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
    reads = _random_directions(like, like.d_model, generator)
    writes = reads if output_mean is None else _random_directions(like, like.d_out, generator)
    note = "null: random unit directions, encoder = decoder, biases = calibration mean"
    if output_mean is not None:
        note = "null: random unit directions to read and others to write, biases = calibration means"
    return SparseAutoencoder(
        encoder_weight=reads,
        encoder_bias=torch.zeros_like(like.encoder_bias),
        decoder_weight=writes,
        decoder_bias=(mean if output_mean is None else output_mean).to(like.encoder_bias),
        pre_bias=mean.to(like.encoder_bias),
        activation=activation if activation.weight is None else TopK(activation.k),
        normalization=like.normalization if output_mean is None else InputNormalization(),
        metadata=_null_metadata(like, note),
        is_streamed=like.is_streamed,
    )


def basis_dictionary(
    directions: Float[Tensor, "latent d_model"],
    mean: Float[Tensor, " d_model"],
    *,
    k: int,
    like: SparseAutoencoder,
    note: str,
) -> SparseAutoencoder:
    """The site in a fixed orthonormal basis: of each token the k coordinates of largest magnitude are kept.

    With the identity the latents are the site's own channels (neurons), with the principal components they
    are PCA scores; both about `mean`, in raw space. k is cut to the number of directions, with which the
    reconstruction is perfect. As the null of a transcoder it sees what it is to answer: a bound, not a fair
    opponent.
    """
    rows, bias = directions.to(like.encoder_bias).contiguous(), mean.to(like.encoder_bias)
    return SparseAutoencoder(
        encoder_weight=rows,
        encoder_bias=bias.new_zeros(len(rows)),
        decoder_weight=rows,
        decoder_bias=bias,
        pre_bias=bias,
        activation=AbsTopK(min(k, len(rows))),
        metadata=replace(_null_metadata(like, note), site=None, output_site=None, hides_output=False),
    )


def with_shuffled_decoder(sae: SparseAutoencoder, *, generator: torch.Generator) -> SparseAutoencoder:
    """The same latents, each with another one's direction: a random permutation of the rows of W_dec / s.

    Its latents fire when they did, so densities, L0 and everything read off latents alone stay; what depends
    on a latent's direction must fall.
    """
    order = torch.randperm(sae.latent_count, generator=generator)
    scale = torch.ones(sae.latent_count) if sae.latent_scale is None else sae.latent_scale.cpu()
    # A latent's direction is its row over its scale, so the row brings its length along.
    lengths = (scale / scale[order]).to(sae.encoder_bias).unsqueeze(1)

    def dealt(first: int, last: int) -> Tensor:
        rows = sae.decoder_weight[order[first:last].to(sae.decoder_weight.device)]
        return rows.to(sae.encoder_bias) * lengths[first:last]

    shuffled = _matrix_like(sae, sae.d_out, dealt)
    metadata = _null_metadata(sae, "null: the decoder's directions dealt to other latents")
    return replace(sae, decoder_weight=shuffled, metadata=metadata)


def with_output_scale(dictionary: SparseAutoencoder, scale: float) -> SparseAutoencoder:
    """The same latents, decoded `scale` times as long; biases stay."""
    decoder = dictionary.decoder_weight
    scaled = _matrix_like(dictionary, dictionary.d_out, lambda first, last: decoder[first:last] * scale)
    note = f"decoder scaled by {scale:.4g}"
    metadata = replace(dictionary.metadata, notes=(*dictionary.metadata.notes, note))
    return replace(dictionary, decoder_weight=scaled, metadata=metadata)


def _random_directions(
    like: SparseAutoencoder, width: int, generator: torch.Generator
) -> Float[Tensor, "latent width"]:
    def drawn(first: int, last: int) -> Tensor:
        normal = torch.randn(last - first, width, generator=generator, dtype=torch.float32)
        return torch.nn.functional.normalize(normal, dim=1)

    return _matrix_like(like, width, drawn)


def _matrix_like(
    like: SparseAutoencoder, width: int, rows: Callable[[int, int], Float[Tensor, "row column"]]
) -> Float[Tensor, "latent width"]:
    """A row a latent, in memory or, where the matrices of `like` stay in a file, in one too."""
    if like.is_streamed:
        return scratch_matrix((like.latent_count, width), like.decoder_weight.dtype, rows)
    return rows(0, like.latent_count).to(like.encoder_bias)


def _null_metadata(like: SparseAutoencoder, note: str) -> CheckpointMetadata:
    return replace(like.metadata, notes=(note,))
