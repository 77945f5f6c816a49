"""The one in-memory sparse autoencoder that every on-disk format becomes.

With x a token's activation at the site, N the input normalisation and act the activation function:

    h  = N(x) - pre_bias            (pre_bias may be absent)
    p  = W_enc h + b_enc            pre-activations      encoder_weight [latent d_model]
    z  = act(p)                     latents
    x^ = N^-1(z W_dec + b_dec)      reconstruction       decoder_weight [latent d_model], row = direction

`encode`, `pre_activations` and `decode` are dense; `encode_sparse`, `decode_sparse` and `reconstruct_sparse`
give the same numbers without ever holding an array of shape (all tokens, latents). Computation happens in
the precision of the weights; inputs of another precision are converted, results come in the weights'.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from autointerp.checkpoints.activation_functions import ActivationFunction, JumpReLU, TopK
from autointerp.errors import CheckpointError

__all__ = ["CheckpointMetadata", "InputNormalization", "SparseAutoencoder", "SparseLatents", "Statistics"]

_BLOCK_BYTES = 16 * 2**20
_LARGEST_BLOCK_BYTES = 256 * 2**20
_EFFICIENT_BLOCK = 512
"""Tokens: every block reads the whole encoder again, which shorter blocks would mostly do."""


@dataclass(frozen=True, eq=False)
class SparseLatents:
    """What fires, in compressed rows: the latents of token t lie at `offsets[t]:offsets[t + 1]`.

    Within a token the latent indices ascend. No value is exactly zero. Memory: 12 bytes per firing latent
    (float32) + 8 per token.
    """

    indices: Int[Tensor, " active"]
    values: Float[Tensor, " active"]
    offsets: Int[Tensor, " token_and_end"]
    latent_count: int

    @property
    def token_count(self) -> int:
        """Number of tokens, silent ones included."""
        return self.offsets.shape[0] - 1

    def active_count_per_token(self) -> Int[Tensor, " token"]:
        """How many latents fire on each token (its L0)."""
        return self.offsets.diff()

    def token_indices(self) -> Int[Tensor, " active"]:
        """The token of each entry of `indices`."""
        tokens = torch.arange(self.token_count, device=self.indices.device)
        return tokens.repeat_interleave(self.active_count_per_token(), output_size=self.indices.shape[0])

    def dense(self) -> Float[Tensor, "token latent"]:
        """The same latents as a dense array: for tests and small inputs."""
        z = self.values.new_zeros(self.token_count, self.latent_count)
        return z.index_put_((self.token_indices(), self.indices), self.values)


class Statistics(NamedTuple):
    """What a normalisation took out of each token, needed to put it back."""

    mean: Float[Tensor, "token 1"]
    std: Float[Tensor, "token 1"]


@dataclass(frozen=True)
class InputNormalization:
    """What a dictionary does to its input first, and undoes on its output.

    `none`: nothing. `layer_norm`: `(x - mean) / (std + eps)` with mean and unbiased standard deviation over
    d_model of each token; undone by `* std + mean`, without eps, as the libraries that trained them do.
    """

    kind: Literal["none", "layer_norm"] = "none"
    eps: float = 1e-5

    def apply(self, x: Float[Tensor, "token d_model"]) -> tuple[Float[Tensor, "token d_model"], Statistics]:
        """The normalised input, and what `undo` needs (mean 0 and std 1 for `none`)."""
        if self.kind == "none":
            return x, Statistics(x.new_zeros(x.shape[0], 1), x.new_ones(x.shape[0], 1))
        mean = x.mean(dim=1, keepdim=True)
        centred = x - mean
        std = centred.norm(dim=1, keepdim=True) / math.sqrt(x.shape[1] - 1)
        return centred / (std + self.eps), Statistics(mean, std)

    def undo(
        self, x_hat: Float[Tensor, "token d_model"], statistics: Statistics
    ) -> Float[Tensor, "token d_model"]:
        """A reconstruction of the normalised input, brought back into the space of the input."""
        return x_hat if self.kind == "none" else x_hat * statistics.std + statistics.mean

    def describe(self) -> str:
        """`none` or `layer_norm`."""
        return self.kind


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says about its origin; None where it says nothing."""

    site: str | None = None
    """Where it attaches: `blocks.4.hook_resid_post`, or a module path."""
    subject: str | None = None
    """The language model it was trained on."""
    context_length: int | None = None
    prepend_bos: bool | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the report should know: guesses made, fields ignored."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the fields about which the checkpoint says nothing."""
        names = ("site", "subject", "context_length", "prepend_bos")
        return tuple(name for name in names if getattr(self, name) is None)


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A dictionary of directions, with the encoder that finds them. Formulas: see the module's docstring."""

    encoder_weight: Float[Tensor, "latent d_model"]
    encoder_bias: Float[Tensor, " latent"]
    decoder_weight: Float[Tensor, "latent d_model"]
    """Row i is the direction of latent i."""
    decoder_bias: Float[Tensor, " d_model"]
    pre_bias: Float[Tensor, " d_model"] | None
    """Subtracted from the (normalised) input before encoding; None: nothing is."""
    activation: ActivationFunction
    normalization: InputNormalization = field(default_factory=InputNormalization)
    metadata: CheckpointMetadata = field(default_factory=CheckpointMetadata)

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        _refuse_misfits(self)

    @property
    def latent_count(self) -> int:
        """Number of latents."""
        return self.encoder_weight.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the site it reads and reconstructs."""
        return self.encoder_weight.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights, hence of every result."""
        return self.encoder_weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder_weight.device

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> "SparseAutoencoder":
        """The same dictionary elsewhere or in another precision; `self` is left as it is."""
        moved = {
            name: tensor.to(device=device, dtype=dtype)
            for name in ("encoder_weight", "encoder_bias", "decoder_weight", "decoder_bias", "pre_bias")
            if (tensor := getattr(self, name)) is not None
        }
        return replace(self, **moved, activation=self.activation.to(device=device, dtype=dtype))

    def shared_bias(self, format_name: str) -> Float[Tensor, " d_model"]:
        """The one bias of formats that subtract before encoding what they add after decoding.

        Raises:
            CheckpointError: this dictionary has two different ones, which such a format cannot hold.
        """
        subtracted = torch.zeros_like(self.decoder_bias) if self.pre_bias is None else self.pre_bias
        if not torch.equal(subtracted, self.decoder_bias):
            raise CheckpointError(
                f"the {format_name} format subtracts the decoder's bias from its input, this one does not",
                remedy="write it as saelens",
            )
        return self.decoder_bias

    def pre_activations(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token latent"]:
        """`p = W_enc (N(x) - pre_bias) + b_enc`, dense."""
        encoder_input, _ = self._encoder_input(x)
        return functional.linear(encoder_input, self.encoder_weight, self.encoder_bias)

    def encode(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token latent"]:
        """The latents `act(p)`, dense."""
        return self.activation(self.pre_activations(x))

    def decode(self, z: Float[Tensor, "token latent"]) -> Float[Tensor, "token d_model"]:
        """`z W_dec + b_dec`: the reconstruction in the dictionary's own (normalised) space."""
        return torch.addmm(self.decoder_bias, z.to(self.dtype), self.decoder_weight)

    def reconstruct(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_model"]:
        """The reconstruction in the space of x: the normalisation is undone."""
        encoder_input, statistics = self._encoder_input(x)
        pre = functional.linear(encoder_input, self.encoder_weight, self.encoder_bias)
        return self.normalization.undo(self.decode(self.activation(pre)), statistics)

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        """The latents that fire: the same as `encode`, without its dense (token, latent) array.

        Tokens go by in blocks of 512, of more where 16 MiB of pre-activations hold more, of fewer where 512
        would need over 256 MiB (from 131,073 latents in float32 on). So the memory is the result plus a small
        multiple of a block of 16 to 256 MiB, or of one token's latents if those are more. The time is that of
        the matrix product; choosing the top k adds a few percent at d_model 768. No gradients.
        """
        encoder_input, _ = self._encoder_input(x)
        return self._encode_blocks(encoder_input)

    @torch.no_grad()
    def decode_sparse(
        self, latents: SparseLatents, statistics: Statistics | None = None
    ) -> Float[Tensor, "token d_model"]:
        """`sum_j z_j W_dec[j] + b_dec` over the latents that fire, no dense array. No gradients.

        With `statistics` the normalisation is undone, without it the result is in the dictionary's own space,
        as with `decode`. A token on which nothing fires becomes b_dec. Cost: one row of W_dec read per firing
        latent, memory: the result. (embedding_bag: on 2 cores three times as fast as a sparse CSR product at
        512 to 4096 tokens.)
        """
        summed = functional.embedding_bag(
            latents.indices,
            self.decoder_weight,
            latents.offsets,
            mode="sum",
            per_sample_weights=latents.values.to(self.dtype),
            include_last_offset=True,
        )
        x_hat = summed.add_(self.decoder_bias)
        return x_hat if statistics is None else self.normalization.undo(x_hat, statistics)

    @torch.no_grad()
    def reconstruct_sparse(
        self, x: Float[Tensor, "token d_model"]
    ) -> tuple[Float[Tensor, "token d_model"], SparseLatents]:
        """The reconstruction in the space of x and the latents behind it, from one encoding. No gradients."""
        encoder_input, statistics = self._encoder_input(x)
        latents = self._encode_blocks(encoder_input)
        return self.decode_sparse(latents, statistics), latents

    def _encoder_input(
        self, x: Float[Tensor, "token d_model"]
    ) -> tuple[Float[Tensor, "token d_model"], Statistics]:
        normalised, statistics = self.normalization.apply(x.to(device=self.device, dtype=self.dtype))
        return (normalised if self.pre_bias is None else normalised - self.pre_bias), statistics

    def _encode_blocks(self, encoder_input: Float[Tensor, "token d_model"]) -> SparseLatents:
        rows = self._block_rows(encoder_input.shape[0])
        buffer = encoder_input.new_empty(rows, self.latent_count)
        transposed = self.encoder_weight.T
        firings, counts = [], [torch.zeros(1, dtype=torch.int64, device=self.device)]
        for block in encoder_input.split(rows):
            # One buffer for all blocks: fresh memory for each costs more than choosing the top k.
            pre = torch.addmm(self.encoder_bias, block, transposed, out=buffer[: block.shape[0]])
            firing = self.activation.firing(pre)
            firings.append(firing)
            counts.append(torch.bincount(firing.tokens, minlength=block.shape[0]))
        return SparseLatents(
            indices=torch.cat([firing.latents for firing in firings]),
            values=torch.cat([firing.values for firing in firings]),
            offsets=torch.cat(counts).cumsum(0),
            latent_count=self.latent_count,
        )

    def _block_rows(self, token_count: int) -> int:
        """Tokens a block, evenly dealt: a short last block would be as slow as a full one."""
        token_bytes = self.latent_count * self.dtype.itemsize
        efficient = min(_EFFICIENT_BLOCK, _LARGEST_BLOCK_BYTES // token_bytes)
        largest = max(1, efficient, _BLOCK_BYTES // token_bytes)
        block_count = max(1, math.ceil(token_count / largest))
        return max(1, math.ceil(token_count / block_count))


def _refuse_misfits(sae: SparseAutoencoder) -> None:
    """Every shape against the encoder's, and the activation against the number of latents."""
    if sae.encoder_weight.ndim != 2 or 0 in sae.encoder_weight.shape:
        raise CheckpointError(f"the encoder must be (latents, width), got {tuple(sae.encoder_weight.shape)}")
    latent_count, d_model = sae.encoder_weight.shape
    threshold = sae.activation.threshold if isinstance(sae.activation, JumpReLU) else None
    parts = {
        "encoder_bias": (sae.encoder_bias, (latent_count,)),
        "decoder_weight": (sae.decoder_weight, (latent_count, d_model)),
        "decoder_bias": (sae.decoder_bias, (d_model,)),
        "pre_bias": (sae.pre_bias, (d_model,)),
        "threshold": (threshold, (latent_count,)),
    }
    for name, (tensor, shape) in parts.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise CheckpointError(f"{name} has shape {tuple(tensor.shape)}, the encoder asks for {shape}")
    if isinstance(sae.activation, TopK) and sae.activation.k > latent_count:
        raise CheckpointError(f"top-k with k = {sae.activation.k}, more than the {latent_count} latents")
    if sae.normalization.kind == "layer_norm" and d_model < 2:
        raise CheckpointError("layer_norm needs a width of at least 2: one number has no standard deviation")
