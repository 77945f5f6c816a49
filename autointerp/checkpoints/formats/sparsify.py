"""EleutherAI's sparsify: a folder, named after its hook point, with cfg.json and sae.safetensors.

Tensors encoder.weight[n,d], encoder.bias[n], W_dec[n,d] (not transposed), b_dec[d] and, with skip_connection,
W_skip[d,d]. All of eai-sparsify 0.0.1 to 1.3.3 is read, and `signed` of EleutherAI/sae before it (2024).
`normalize_decoder` is already in the stored W_dec, num_latents 0 stands for d_in * expansion_factor;
other fields are for training, or unknown to the library too, and change nothing here.
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from autointerp.checkpoints.sparse_autoencoder import (
    CheckpointMetadata,
    SparseAutoencoder,
)
from autointerp.checkpoints.stored_values import Configuration, TensorTable, read_configuration
from autointerp.checkpoints.tensor_files import read_safetensors, write_folder
from autointerp.checkpoints.topk_functions import AbsTopK, GroupMax, TopK
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises", "write"]

NAME = "sparsify"
LAYOUT = "a folder with cfg.json and sae.safetensors"

_CONFIGURATION, _WEIGHTS = "cfg.json", "sae.safetensors"
_KNOWN_KEYS = {
    "activation", "d_in", "expansion_factor", "k", "multi_topk", "normalize_decoder", "num_latents", "signed",
    "skip_connection", "transcode",
}  # fmt: skip
_BLOCK = re.compile(r"(?:\w+\.)*(?:layers|h|blocks)\.(\d+)")
_INSIDE_A_BLOCK = re.compile(_BLOCK.pattern + r"(?:\.\w+)+")
_SEED = re.compile(r"seed-?\d+")
_SIGNED = "signed: the k largest by magnitude keep their sign; sparsify since 0.0.1 ignores this field"
_MULTI_TOPK = "multi_topk: k latents are kept, as by sparsify's encode; its forward answers with 4 k of them"


def recognises(path: Path) -> bool:
    """A folder with both files."""
    return all(file.is_file() for file in files(path))


def files(path: Path) -> tuple[Path, ...]:
    """Configuration and weights."""
    return (path / _CONFIGURATION, path / _WEIGHTS)


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`z = act((x - b_dec) W_enc^T + b_enc)`, `x^ = z W_dec + b_dec + x W_skip^T`.

    Without `- b_dec` when it transcodes, without W_skip when there is no skip connection; act is the top k of
    a ReLU, or its largest in each of k groups. Source: eai-sparsify 1.3.3, sparse_coder.py, fused_encoder.py.
    """
    configuration = read_configuration(path / _CONFIGURATION)
    table = TensorTable(path / _WEIGHTS, read_safetensors(path / _WEIGHTS), _sizes(configuration))
    encoder_weight = table.take("encoder.weight", "latent d_model")
    bias = table.take("b_dec", "d_model")
    metadata = _metadata(configuration, path)
    sae = SparseAutoencoder(
        encoder_weight=encoder_weight,
        encoder_bias=table.take("encoder.bias", "latent"),
        decoder_weight=table.take("W_dec", "latent d_model"),
        decoder_bias=bias,
        pre_bias=None if configuration.flag("transcode") else bias,
        activation=_activation(configuration, encoder_weight.shape[0]),
        skip_weight=_skip_weight(configuration, table),
        metadata=metadata,
    )
    table.finish()
    return sae, metadata.absent


def write(sae: SparseAutoencoder, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Store an autoencoder; the site is the folder's name, which is the caller's choice.

    Raises:
        CheckpointError: another activation than top-k with ReLU, a normalisation, two different biases, or a
            transcoder.
    """
    if not isinstance(sae.activation, TopK) or sae.activation != TopK(sae.activation.k):
        raise CheckpointError(f"the sparsify format cannot hold the activation {sae.activation.describe()}")
    if sae.normalization.kind != "none" or sae.latent_scale is not None:
        raise CheckpointError("the sparsify format has no normalisation", remedy="write it as saelens")
    if sae.is_transcoder or sae.skip_weight is not None:
        raise CheckpointError("transcoders and skip connections cannot be written in the sparsify format")
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


def _activation(configuration: Configuration, latent_count: int) -> TopK | AbsTopK | GroupMax:
    kind, k = configuration.text("activation") or "topk", configuration.whole_number("k")
    if kind not in {"topk", "groupmax"}:
        raise CheckpointError(f"activation {kind!r} is not supported", where=configuration.where)
    if k is None:
        raise CheckpointError("says no k", where=configuration.where)
    if not configuration.flag("signed"):
        return TopK(k) if kind == "topk" else GroupMax(k, latent_count)
    newer = [key for key in ("transcode", "skip_connection") if configuration.flag(key)]
    newer += ["groupmax"] if kind == "groupmax" else []
    if newer:  # when `signed` meant something, none of them was there
        raise CheckpointError(f"signed together with {newer[0]} is not supported", where=configuration.where)
    return AbsTopK(k)


def _skip_weight(configuration: Configuration, table: TensorTable) -> Tensor | None:
    return table.take("W_skip", "d_model d_model") if configuration.flag("skip_connection") else None


def _sizes(configuration: Configuration) -> dict[str, int]:
    d_model, factor = configuration.size("d_in"), configuration.size("expansion_factor")
    latent_count = configuration.whole_number("num_latents") or (
        d_model * factor if d_model and factor else None
    )
    return {axis: size for axis, size in (("d_model", d_model), ("latent", latent_count)) if size}


def _metadata(configuration: Configuration, path: Path) -> CheckpointMetadata:
    notes = _notes(configuration)
    read_site, written_site = _sites(path)
    if not configuration.flag("transcode"):
        return CheckpointMetadata(site=written_site, notes=notes)
    if written_site is None:
        raise CheckpointError(
            "a transcoder in a folder that is not named after its module, so what it predicts is unknown",
            where=path,
            remedy="give the folder the module's name, like layers.4.mlp",
        )
    return CheckpointMetadata(site=read_site, output_site=written_site, notes=notes)


def _notes(configuration: Configuration) -> tuple[str, ...]:
    meanings = (("signed", _SIGNED), ("multi_topk", _MULTI_TOPK))
    notes = [note for flag, note in meanings if configuration.flag(flag)]
    unknown = sorted(configuration.values.keys() - _KNOWN_KEYS)
    if unknown:
        notes.append(f"configuration keys ignored, as sparsify does: {', '.join(unknown)}")
    return tuple(notes)


def _sites(path: Path) -> tuple[str | None, str | None]:
    """What the module after which the folder is named is given, and what it returns.

    An autoencoder was trained on the second, a transcoder to tell it from the first (eai-sparsify 1.3.3,
    trainer.py, `hook`). `layers.4` is a whole block; runs with several seeds have `layers.4/seed0`.
    """
    for place in (path.absolute(), path.resolve()):  # a link's own name, then its target's
        name = place.parent.name if _SEED.fullmatch(place.name) else place.name
        if block := _BLOCK.fullmatch(name):
            return f"blocks.{int(block[1])}.hook_resid_pre", f"blocks.{int(block[1])}.hook_resid_post"
        if _INSIDE_A_BLOCK.fullmatch(name):
            return f"{name}:input", name
    return None, None
