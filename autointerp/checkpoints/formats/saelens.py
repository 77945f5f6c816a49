"""SAELens, version 6 and later: a folder with cfg.json and sae_weights.safetensors.

Tensors W_enc[d,n], b_enc[n], W_dec[n,d], b_dec[d]; jumprelu also threshold[n]. Architectures read: standard,
topk, jumprelu; normalisations: none, layer_norm. Everything else is refused by name. With
`rescale_acts_by_decoder_norm` a topk dictionary chooses by, and returns, `p ||W_dec||` and divides by it when
decoding: the norms are moved from the decoder into the encoder here, which gives the same latents.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autointerp.checkpoints.activation_functions import ActivationFunction, JumpReLU, ReLU, TopK
from autointerp.checkpoints.sparse_autoencoder import (
    CheckpointMetadata,
    InputNormalization,
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

NAME = "saelens"
LAYOUT = "a folder with cfg.json and sae_weights.safetensors"

_CONFIGURATION, _WEIGHTS = "cfg.json", "sae_weights.safetensors"
_KNOWN_KEYS = {
    "architecture", "apply_b_dec_to_input", "d_in", "d_sae", "device", "dtype", "k", "metadata",
    "normalize_activations", "rescale_acts_by_decoder_norm", "reshape_activations",
}  # fmt: skip
_KEYS_BEFORE_VERSION_6 = {
    "activation_fn", "activation_fn_kwargs", "activation_fn_str", "context_size", "finetuning_scaling_factor",
    "hook_name", "hook_point", "model_name", "prepend_bos",
}  # fmt: skip
_RESCALED = (
    "rescale_acts_by_decoder_norm: the decoder's norms were moved into the encoder, the latents are the same"
)


def recognises(path: Path) -> bool:
    """A folder with both files."""
    return all(file.is_file() for file in files(path))


def files(path: Path) -> tuple[Path, ...]:
    """Configuration and weights; what else lies in the folder does not change what it computes."""
    return (path / _CONFIGURATION, path / _WEIGHTS)


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`z = act((norm(x) - b_dec?) W_enc + b_enc)`, `x^ = norm^-1(z W_dec + b_dec)`."""
    configuration = read_configuration(path / _CONFIGURATION)
    architecture = _architecture(configuration)
    sizes = {
        axis: size
        for axis, key in (("d_model", "d_in"), ("latent", "d_sae"))
        if (size := configuration.size(key))
    }
    table = TensorTable(path / _WEIGHTS, read_safetensors(path / _WEIGHTS), sizes)
    encoder_weight = table.take("W_enc", "d_model latent").T.contiguous()
    encoder_bias = table.take("b_enc", "latent")
    decoder_weight = table.take("W_dec", "latent d_model")
    decoder_bias = table.take("b_dec", "d_model")
    activation = _activation(architecture, configuration, table)
    table.finish()
    notes = _notes(configuration)
    if architecture == "topk" and configuration.flag("rescale_acts_by_decoder_norm"):
        norms = _decoder_norms(decoder_weight, path)
        encoder_weight, encoder_bias = encoder_weight * norms, encoder_bias * norms.squeeze(1)
        decoder_weight = decoder_weight / norms
        notes = (*notes, _RESCALED)
    metadata = _metadata(configuration, notes)
    sae = SparseAutoencoder(
        encoder_weight=encoder_weight,
        encoder_bias=encoder_bias,
        decoder_weight=decoder_weight,
        decoder_bias=decoder_bias,
        pre_bias=None if configuration.flag("apply_b_dec_to_input") is False else decoder_bias,
        activation=activation,
        normalization=_normalization(configuration),
        metadata=metadata,
    )
    return sae, metadata.absent


def write(sae: SparseAutoencoder, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Store it as SAELens 6 does.

    Raises:
        CheckpointError: another activation, or a pre-bias that is neither absent nor the decoder's bias.
    """
    if sae.pre_bias is not None:
        sae.shared_bias(NAME)
    architecture, extra = _stored_activation(sae.activation)
    tensors: dict[str, Tensor] = {
        "W_enc": sae.encoder_weight.T,
        "b_enc": sae.encoder_bias,
        "W_dec": sae.decoder_weight,
        "b_dec": sae.decoder_bias,
    }
    if isinstance(sae.activation, JumpReLU):
        tensors["threshold"] = sae.activation.threshold
    configuration: dict[str, Any] = {
        "architecture": architecture,
        "d_in": sae.d_model,
        "d_sae": sae.latent_count,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.pre_bias is not None,
        "normalize_activations": _stored_normalization(sae.normalization),
        "reshape_activations": "none",
        "metadata": {
            "model_name": sae.metadata.subject,
            "hook_name": sae.metadata.site,
            "prepend_bos": sae.metadata.prepend_bos,
            "context_size": sae.metadata.context_length,
        },
        **extra,
    }
    weights = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    write_folder(path, configuration=(_CONFIGURATION, configuration), weights=(_WEIGHTS, weights))


def _architecture(configuration: Configuration) -> str:
    old = sorted(_KEYS_BEFORE_VERSION_6 & configuration.values.keys())
    if old or isinstance(configuration.values.get("normalize_activations"), bool):
        keys = ", ".join(old) or "normalize_activations"
        raise CheckpointError(
            f"the layout from before SAELens 6 ({keys}) is not supported yet",
            where=configuration.where,
            remedy="load and save it with SAELens 6",
        )
    architecture = configuration.text("architecture")
    if architecture is None:
        raise CheckpointError("says no architecture", where=configuration.where)
    if architecture not in {"standard", "topk", "jumprelu"}:
        raise CheckpointError(
            f"architecture {architecture!r} is not supported yet", where=configuration.where
        )
    if (configuration.text("reshape_activations") or "none") != "none":
        raise CheckpointError(
            f"reshape_activations {configuration.text('reshape_activations')!r} is not supported yet",
            where=configuration.where,
        )
    return architecture


def _activation(architecture: str, configuration: Configuration, table: TensorTable) -> ActivationFunction:
    if architecture == "standard":
        return ReLU()
    if architecture == "jumprelu":
        return JumpReLU(table.take("threshold", "latent"))
    k = configuration.whole_number("k")
    if k is None:
        raise CheckpointError("architecture 'topk' without k", where=configuration.where)
    return TopK(k)


def _normalization(configuration: Configuration) -> InputNormalization:
    kind = configuration.text("normalize_activations") or "none"
    if kind not in {"none", "layer_norm"}:
        raise CheckpointError(
            f"normalize_activations {kind!r} is not supported yet", where=configuration.where
        )
    return InputNormalization(kind)  # type: ignore[arg-type]


def _decoder_norms(decoder_weight: Tensor, path: Path) -> Tensor:
    norms = decoder_weight.norm(dim=1, keepdim=True)
    if not bool((norms > 0).all()):
        raise CheckpointError("rescale_acts_by_decoder_norm with a decoder row of norm 0", where=path)
    return norms


def _notes(configuration: Configuration) -> tuple[str, ...]:
    unknown = sorted(configuration.values.keys() - _KNOWN_KEYS)
    return (f"configuration keys without meaning here, ignored: {', '.join(unknown)}",) if unknown else ()


def _metadata(configuration: Configuration, notes: tuple[str, ...]) -> CheckpointMetadata:
    origin = configuration.section("metadata")
    if origin is None:
        return CheckpointMetadata(notes=notes)
    if origin.values.get("hook_head_index") is not None:
        raise CheckpointError(
            "metadata.hook_head_index (one attention head) is not supported yet", where=origin.where
        )
    return CheckpointMetadata(
        site=origin.text("hook_name"),
        subject=origin.text("model_name"),
        context_length=origin.size("context_size"),
        prepend_bos=origin.flag("prepend_bos"),
        notes=notes,
    )


def _stored_activation(activation: ActivationFunction) -> tuple[str, dict[str, Any]]:
    if isinstance(activation, ReLU):
        return "standard", {}
    if isinstance(activation, JumpReLU):
        return "jumprelu", {}
    if isinstance(activation, TopK) and activation.postact == "relu":
        return "topk", {"k": activation.k, "rescale_acts_by_decoder_norm": False}
    raise CheckpointError(f"the saelens format cannot hold the activation {activation.describe()}")


def _stored_normalization(normalization: InputNormalization) -> str:
    if normalization not in {InputNormalization("none"), InputNormalization("layer_norm")}:
        raise CheckpointError(f"the saelens format cannot hold a layer_norm with eps {normalization.eps}")
    return normalization.kind
