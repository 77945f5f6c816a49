"""The one in-memory sparse autoencoder that every on-disk format becomes.

With x a token's activation at the site, N the input normalisation, act the activation function and s a
positive scale per latent (1 unless a format says otherwise):

    h  = N(x) - pre_bias                    (pre_bias may be absent)
    p  = s (W_enc h + b_enc)                pre-activations   encoder_weight [latent d_model]
    z  = act(p)                             latents
    x^ = N^-1((z / s) W_dec + b_dec)        reconstruction    decoder_weight [latent d_out], row = direction
         + W_skip x                         (transcoders with a skip connection)

A transcoder reads one site and predicts another (`metadata.output_site`), of width d_out; else d_out is
d_model, and x^ answers to x itself.

`encode`, `pre_activations` and `decode` are dense; `encode_sparse`, `decode_sparse` and `reconstruct_sparse`
give the same numbers without ever holding an array of shape (all tokens, latents). Computation happens in the
precision and on the device of the biases; inputs are converted, results come in it. The matrices may lie in
another precision or elsewhere, mapped from a file that is larger than memory: the sparse methods then bring
over a shard of latents at a time.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from autointerp.checkpoints.activation_functions import ActivationFunction
from autointerp.checkpoints.input_normalization import InputNormalization, Statistics
from autointerp.checkpoints.sharded_products import firing_latents, weighted_rows
from autointerp.checkpoints.sparse_latents import SparseLatents
from autointerp.errors import CheckpointError

__all__ = ["CheckpointMetadata", "SparseAutoencoder"]

_MATRICES = ("encoder_weight", "decoder_weight", "skip_weight")
_VECTORS = ("encoder_bias", "decoder_bias", "pre_bias", "latent_scale")


@dataclass(frozen=True)
class CheckpointMetadata:
    """What a checkpoint says about its origin; None where it says nothing."""

    site: str | None = None
    """Where it reads: `blocks.4.hook_resid_post`, or a module path."""
    subject: str | None = None
    """The language model it was trained on."""
    context_length: int | None = None
    prepend_bos: bool | None = None
    notes: tuple[str, ...] = ()
    """What a reader of the report should know: guesses made, fields ignored."""
    output_site: str | None = None
    """What it predicts, if that is another place than what it reads."""
    hides_output: bool = False
    """Whether it predicts another place than what it reads, and does not say which."""

    @property
    def absent(self) -> tuple[str, ...]:
        """Names of the fields about which the checkpoint says nothing."""
        names = ("site", "subject", "context_length", "prepend_bos")
        absent = tuple(name for name in names if getattr(self, name) is None)
        return (*absent, "output_site") if self.hides_output else absent


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """A dictionary of directions, with the encoder that finds them. Formulas: see the module's docstring."""

    encoder_weight: Float[Tensor, "latent d_model"]
    encoder_bias: Float[Tensor, " latent"]
    decoder_weight: Float[Tensor, "latent d_out"]
    """Row i is the direction of latent i."""
    decoder_bias: Float[Tensor, " d_out"]
    pre_bias: Float[Tensor, " d_model"] | None
    """Subtracted from the (normalised) input before encoding; None: nothing is."""
    activation: ActivationFunction
    normalization: InputNormalization = field(default_factory=InputNormalization)
    latent_scale: Float[Tensor, " latent"] | None = None
    """Positive; what latents are multiplied by and directions divided by. None: 1."""
    skip_weight: Float[Tensor, "d_out d_model"] | None = None
    """Maps the raw input straight to the output; None: nothing is added."""
    metadata: CheckpointMetadata = field(default_factory=CheckpointMetadata)
    is_streamed: bool = False
    """Whether the matrices stay where they are, in their file, and are used shard by shard."""

    def __post_init__(self) -> None:
        """Refuse parts that do not belong together."""
        _refuse_misfits(self)

    @property
    def latent_count(self) -> int:
        """Number of latents."""
        return self.encoder_weight.shape[0]

    @property
    def d_model(self) -> int:
        """Width of the site it reads."""
        return self.encoder_weight.shape[1]

    @property
    def d_out(self) -> int:
        """Width of the site it reconstructs or predicts."""
        return self.decoder_weight.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the computation, hence of every result."""
        return self.encoder_bias.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.encoder_bias.device

    @property
    def is_transcoder(self) -> bool:
        """Whether it predicts another place than the one it reads."""
        said = self.metadata
        return said.hides_output or said.output_site not in (None, said.site) or self.d_out != self.d_model

    @property
    def architecture(self) -> str:
        """`topk(k=32)`, `jumprelu transcoder + skip`."""
        words = f"{self.activation.describe()}{' transcoder' if self.is_transcoder else ''}"
        return words if self.skip_weight is None else f"{words} + skip"

    def matrices(self) -> dict[str, Tensor]:
        """Encoder, decoder and, if there is one, skip connection, by field."""
        return self.tensors(_MATRICES)

    def matrix_bytes(self, dtype: torch.dtype) -> int:
        """What the matrices take in a precision."""
        return sum(matrix.numel() for matrix in self.matrices().values()) * dtype.itemsize

    def tensors(self, names: tuple[str, ...] = (*_MATRICES, *_VECTORS)) -> dict[str, Tensor]:
        """Its own tensors that there are, by field; those of the activation function are that one's."""
        return {name: tensor for name in names if (tensor := getattr(self, name)) is not None}

    def to(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        matrices: bool = True,
    ) -> "SparseAutoencoder":
        """The same dictionary computing elsewhere or in another precision; `self` is left as it is.

        Without `matrices` these stay where they are, and come over shard by shard when used: it is streamed.
        """
        names = (*_VECTORS, *_MATRICES) if matrices else _VECTORS
        moved = {
            name: tensor.to(device=device, dtype=dtype).contiguous()
            for name, tensor in self.tensors(names).items()
        }
        activation = self.activation.to(device=device, dtype=dtype)
        return replace(self, **moved, activation=activation, is_streamed=not matrices)

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
        """`p = s (W_enc (N(x) - pre_bias) + b_enc)`, dense."""
        return self._dense_pre(self._encoder_input(x)[0])

    @torch.no_grad()
    def pre_activations_of(
        self, x: Float[Tensor, "token d_model"], latents: Int[Tensor, " chosen"]
    ) -> Float[Tensor, "token chosen"]:
        """`p` of some latents only: the columns `latents` of `pre_activations(x)`. No gradients."""
        rows = self.encoder_weight[latents.to(self.encoder_weight.device)].to(self.encoder_bias)
        pre = functional.linear(self._encoder_input(x)[0], rows, self.encoder_bias[latents])
        return pre if self.latent_scale is None else pre * self.latent_scale[latents]

    def encode(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token latent"]:
        """The latents `act(p)`, dense."""
        return self.activation(self.pre_activations(x))

    def decode(self, z: Float[Tensor, "token latent"]) -> Float[Tensor, "token d_out"]:
        """`(z / s) W_dec + b_dec`: the answer in the dictionary's own (normalised) space, without a skip."""
        z = z.to(self.encoder_bias)
        z = z if self.latent_scale is None else z / self.latent_scale
        return torch.addmm(self.decoder_bias, z, self.decoder_weight.to(self.encoder_bias))

    def reconstruct(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_out"]:
        """The reconstruction in the space of the site: normalisation undone, skip connection added."""
        h, statistics = self._encoder_input(x)
        answer = self.normalization.undo(self.decode(self.activation(self._dense_pre(h))), statistics)
        return self._with_skip(answer, x)

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "token d_model"]) -> SparseLatents:
        """The latents that fire: the same as `encode`, without its dense (token, latent) array.

        Memory: the result, and one block of pre-activations of 16 to 256 MiB; see
        `sharded_products.firing_latents`. The time is that of the matrix product; choosing the top k adds a
        few percent at d_model 768. No gradients.
        """
        return self._encode(self._encoder_input(x)[0])

    @torch.no_grad()
    def decode_sparse(
        self, latents: SparseLatents, statistics: Statistics | None = None
    ) -> Float[Tensor, "token d_out"]:
        """`sum_j (z_j / s_j) W_dec[j] + b_dec` over the latents that fire, no dense array. No gradients.

        With `statistics` the normalisation is undone, without it the result is in the dictionary's own space,
        as with `decode`; a skip connection, which needs the input, is not added. A token on which nothing
        fires becomes b_dec. Cost: see `sharded_products.weighted_rows`.
        """
        values = latents.values.to(self.encoder_bias)
        if self.latent_scale is not None:
            values = values / self.latent_scale[latents.indices]
        summed = weighted_rows(replace(latents, values=values), self.decoder_weight)
        x_hat = summed.add_(self.decoder_bias)
        return x_hat if statistics is None else self.normalization.undo(x_hat, statistics)

    @torch.no_grad()
    def reconstruct_sparse(
        self, x: Float[Tensor, "token d_model"]
    ) -> tuple[Float[Tensor, "token d_out"], SparseLatents]:
        """The reconstruction in the space of the site and the latents behind it. No gradients."""
        h, statistics = self._encoder_input(x)
        latents = self._encode(h)
        return self._with_skip(self.decode_sparse(latents, statistics), x), latents

    def _encoder_input(
        self, x: Float[Tensor, "token d_model"]
    ) -> tuple[Float[Tensor, "token d_model"], Statistics]:
        normalised, statistics = self.normalization.apply(x.to(self.encoder_bias))
        return (normalised if self.pre_bias is None else normalised - self.pre_bias), statistics

    def _encode(self, h: Float[Tensor, "token d_model"]) -> SparseLatents:
        parts = (self.encoder_weight, self.encoder_bias, self.latent_scale, self.activation)
        return firing_latents(h, *parts, in_shards=self.is_streamed)

    def _dense_pre(self, h: Float[Tensor, "token d_model"]) -> Float[Tensor, "token latent"]:
        pre = functional.linear(h, self.encoder_weight.to(self.encoder_bias), self.encoder_bias)
        return pre if self.latent_scale is None else pre * self.latent_scale

    def _with_skip(
        self, answer: Float[Tensor, "token d_out"], x: Float[Tensor, "token d_model"]
    ) -> Float[Tensor, "token d_out"]:
        return answer if self.skip_weight is None else answer + self.skipped(x)

    def skipped(self, x: Float[Tensor, "token d_model"]) -> Float[Tensor, "token d_out"]:
        """What the skip connection adds: `W_skip x`; zeros without one."""
        if self.skip_weight is None:
            return self.encoder_bias.new_zeros(x.shape[0], self.d_out)
        return x.to(self.encoder_bias) @ self.skip_weight.to(self.encoder_bias).T


def _refuse_misfits(sae: SparseAutoencoder) -> None:
    """Every shape against the two matrices, and the activation against the number of latents."""
    for name in ("encoder_weight", "decoder_weight"):
        matrix = getattr(sae, name)
        if matrix.ndim != 2 or 0 in matrix.shape:
            raise CheckpointError(f"{name} must be (latents, width), got {tuple(matrix.shape)}")
    latent_count, d_model = sae.encoder_weight.shape
    d_out = sae.decoder_weight.shape[1]
    shapes = {
        "encoder_bias": (latent_count,),
        "decoder_weight": (latent_count, d_out),
        "decoder_bias": (d_out,),
        "pre_bias": (d_model,),
        "latent_scale": (latent_count,),
        "skip_weight": (d_out, d_model),
    }
    parts = [(name, tensor, shapes[name]) for name, tensor in sae.tensors(tuple(shapes)).items()]
    parts += [(name, tensor, (latent_count,)) for name, tensor in sae.activation.tensors().items()]
    for name, tensor, shape in parts:
        if tuple(tensor.shape) != shape:
            raise CheckpointError(f"{name} has shape {tuple(tensor.shape)}, the matrices ask for {shape}")
    _refuse_settings(sae)


def _refuse_settings(sae: SparseAutoencoder) -> None:
    k = getattr(sae.activation, "k", 1)
    if k > sae.latent_count:
        raise CheckpointError(f"top-k with k = {k}, more than the {sae.latent_count} latents")
    if getattr(sae.activation, "latent_count", sae.latent_count) != sae.latent_count:
        raise CheckpointError(f"{sae.activation.describe()} is made for another number of latents")
    if sae.normalization.kind == "layer_norm" and sae.d_model < 2:
        raise CheckpointError("layer_norm needs a width of at least 2: one number has no standard deviation")
    if sae.latent_scale is not None and not bool((sae.latent_scale > 0).all()):
        raise CheckpointError("the scales of the latents must be positive, one is not")
