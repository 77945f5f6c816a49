"""saprmarks/dictionary_learning: a folder with ae.pt (a state dictionary) and config.json.

Read are the classes AutoEncoder and AutoEncoderTopK; the others are refused by name. Weights are taken as
they lie in the file: the library's own `AutoEncoder.from_pretrained` by default moves the decoder's norms
into the encoder, so its activations are ours times the norm of the decoder row.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autointerp.checkpoints.activation_functions import ActivationFunction, ReLU, TopK
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import (
    Configuration,
    TensorTable,
    read_configuration,
    read_torch_file,
    write_folder,
)
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises", "write"]

NAME = "dictionary_learning"
LAYOUT = "a folder with ae.pt and config.json"

_CONFIGURATION, _WEIGHTS = "config.json", "ae.pt"
_BIAS_NAMES = {"AutoEncoder": "bias", "AutoEncoderTopK": "b_dec"}
_SUBMODULE = re.compile(r"(resid_pre|resid_mid|resid_post|mlp_out|attn_out)_layer_(\d+)")
_SITE = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|mlp_out|attn_out)")
_UNUSED_THRESHOLD = (
    "the file's threshold is not used: the top k of each token are kept, as the library does by default"
)


def recognises(path: Path) -> bool:
    """A folder with both files."""
    return all(file.is_file() for file in files(path))


def files(path: Path) -> tuple[Path, ...]:
    """Configuration and weights; intermediate checkpoints and results beside them are others."""
    return (path / _CONFIGURATION, path / _WEIGHTS)


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`z = act((x - bias) W_enc^T + b_enc)`, `x^ = z W_dec^T + bias`, act a ReLU or the top k of it."""
    configuration = read_configuration(path / _CONFIGURATION)
    trainer = configuration.section("trainer")
    if trainer is None:
        raise CheckpointError("has no section 'trainer'", where=configuration.where)
    kind = trainer.text("dict_class")
    if kind not in _BIAS_NAMES:
        raise CheckpointError(f"dict_class {kind!r} is not supported yet", where=configuration.where)
    state, factor, notes = _state(path / _WEIGHTS)
    sizes = {
        axis: size
        for axis, key in (("d_model", "activation_dim"), ("latent", "dict_size"))
        if (size := trainer.size(key))
    }
    table = TensorTable(path / _WEIGHTS, state, sizes)
    activation: ActivationFunction = ReLU()
    if kind == "AutoEncoderTopK":
        activation, more = _topk(table, trainer)
        notes = (*notes, *more)
    bias = table.take(_BIAS_NAMES[kind], "d_model") * factor
    metadata = _metadata(trainer, configuration.section("buffer"), notes)
    sae = SparseAutoencoder(
        encoder_weight=table.take("encoder.weight", "latent d_model"),
        encoder_bias=table.take("encoder.bias", "latent") * factor,
        decoder_weight=table.take("decoder.weight", "d_model latent").T.contiguous(),
        decoder_bias=bias,
        pre_bias=bias,
        activation=activation,
        metadata=metadata,
    )
    table.finish()
    return sae, metadata.absent


def write(sae: SparseAutoencoder, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Store it as AutoEncoder (ReLU) or AutoEncoderTopK.

    Raises:
        CheckpointError: another activation, a normalisation, or two different biases.
    """
    kind, extra = _stored_activation(sae.activation)
    if sae.normalization.kind != "none":
        raise CheckpointError(
            "the dictionary_learning format has no normalisation", remedy="write it as saelens"
        )
    weights: dict[str, Tensor] = {
        _BIAS_NAMES[kind]: sae.shared_bias(NAME),
        "encoder.weight": sae.encoder_weight,
        "encoder.bias": sae.encoder_bias,
        "decoder.weight": sae.decoder_weight.T,
    }
    stored = {name: tensor.to(dtype) for name, tensor in weights.items()}
    trainer: dict[str, Any] = {
        "dict_class": kind,
        "activation_dim": sae.d_model,
        "dict_size": sae.latent_count,
        "lm_name": sae.metadata.subject,
        **_stored_site(sae.metadata.site),
    }
    if isinstance(sae.activation, TopK):
        trainer["k"] = sae.activation.k
    configuration = {"trainer": trainer, "buffer": {"ctx_len": sae.metadata.context_length}}
    write_folder(path, configuration=(_CONFIGURATION, configuration), weights=(_WEIGHTS, {**stored, **extra}))


def _state(path: Path) -> tuple[Mapping[str, Any], float, tuple[str, ...]]:
    """The weights, and what their biases must be multiplied by.

    Finished files have the training's activation scale in their biases already. A backup wraps the weights in
    a dictionary beside the optimizer, its biases still in the scaled space.
    """
    stored = read_torch_file(path)
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"holds a {type(stored).__name__}, no state dictionary", where=path)
    if "ae" not in stored:
        return _named(stored), 1.0, ()
    factor = stored.get("norm_factor")
    factor = factor.item() if isinstance(factor, Tensor) and factor.numel() == 1 else factor
    if (
        not isinstance(stored["ae"], Mapping)
        or not isinstance(factor, int | float)
        or not 0 < factor < math.inf
    ):
        raise CheckpointError(
            "a training backup without weights or norm_factor", where=path, remedy="use the final ae.pt"
        )
    return (
        stored["ae"],
        float(factor),
        (f"a training backup: biases multiplied by its norm_factor {factor:g}",),
    )


def _named(state: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(name): value for name, value in state.items()}


def _topk(table: TensorTable, trainer: Configuration) -> tuple[TopK, tuple[str, ...]]:
    stated = trainer.whole_number("k")
    k = table.whole_number("k") if "k" in table.tensors else stated
    if k is None:
        raise CheckpointError(
            "AutoEncoderTopK without k, in the weights or in the configuration", where=trainer.where
        )
    if stated not in {None, k}:
        raise CheckpointError(
            f"k is {stated} in the configuration and {k} in the weights", where=trainer.where
        )
    used = float(table.take("threshold", "")) if "threshold" in table.tensors else -1.0
    return TopK(k), ((_UNUSED_THRESHOLD,) if used >= 0 else ())


def _metadata(
    trainer: Configuration, buffer: Configuration | None, notes: tuple[str, ...]
) -> CheckpointMetadata:
    site, site_notes = _site(trainer, (buffer and buffer.text("io")) or "out")
    return CheckpointMetadata(
        site=site,
        subject=trainer.text("lm_name"),
        context_length=buffer.size("ctx_len") if buffer else None,
        notes=(*notes, *site_notes),
    )


def _site(trainer: Configuration, side: str) -> tuple[str | None, tuple[str, ...]]:
    """The site, and what is uncertain about it; `side` says which end of the module was recorded."""
    submodule, layer = trainer.text("submodule_name"), trainer.whole_number("layer")
    if side == "in_and_out":
        raise CheckpointError("a transcoder (buffer.io in_and_out) is not supported yet", where=trainer.where)
    if side != "out":
        return None, (
            f"the file says the {side}put of {submodule or f'layer {layer}'}: name the site in the suite",
        )
    if submodule and (match := _SUBMODULE.fullmatch(submodule)):
        return f"blocks.{int(match[2])}.hook_{match[1]}", ()
    if submodule or layer is None:
        return submodule, ()
    return f"blocks.{layer}.hook_resid_post", ("the file says the layer only: its output taken as the site",)


def _stored_activation(activation: ActivationFunction) -> tuple[str, dict[str, Tensor]]:
    if isinstance(activation, ReLU):
        return "AutoEncoder", {}
    if isinstance(activation, TopK) and activation.postact == "relu":
        return "AutoEncoderTopK", {"k": torch.tensor(activation.k), "threshold": torch.tensor(-1.0)}
    raise CheckpointError(
        f"the dictionary_learning format cannot hold the activation {activation.describe()}"
    )


def _stored_site(site: str | None) -> dict[str, Any]:
    if site is None:
        return {}
    match = _SITE.fullmatch(site)
    return (
        {"layer": int(match[1]), "submodule_name": f"{match[2]}_layer_{match[1]}"}
        if match
        else {"submodule_name": site}
    )
