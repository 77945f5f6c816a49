"""Llama Scope: a folder with hyperparams.json and checkpoints/final.safetensors, as OpenMOSS published them.

Tensors encoder.weight[n,d], encoder.bias[n], decoder.weight[d,n], decoder.bias[d]. The weights are stored for
activations scaled to a mean norm of sqrt(d), but the threshold is one on latents in the activations' own
units: the library that published them (lm-saes) moved the weights there when it loaded a file, and gave every
direction norm 1. Its latents are what is read here. With s = sqrt(d) / dataset_average_activation_norm,

    p = (x s_in) W_enc^T + b_enc,    z = p ||W_dec|| / s_out,    where z > jump_relu_threshold, else 0
    y = z W_dec / ||W_dec|| + b_dec / s_out

`topk` with a threshold is read as the threshold alone, as there. Refused by name: GLU encoders, batch-wise
norms. (SAELens 6.54.12 compares p / s_in with the threshold, without ||W_dec||: autoencoders with directions
of norm 1 fire alike there, others do not. Llama Scope R1 Distill is in the format llamascopium.)

Source: He et al. 2024 (arXiv 2410.20526); OpenMOSS/Language-Model-SAEs, sae.py of November 2024.
"""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.activation_functions import ActivationFunction, JumpReLU, ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import Configuration, TensorTable, read_configuration, row_norms
from autointerp.checkpoints.tensor_files import read_safetensors, read_torch_file
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises"]

NAME = "llama_scope"
LAYOUT = "a folder with hyperparams.json and checkpoints/final.safetensors"

_CONFIGURATION, _SUBJECT, _OF_LATER_VERSIONS = "hyperparams.json", "lm_config.json", "config.json"
_WEIGHTS = tuple(
    f"{name}.{suffix}"
    for name in ("sae_weights", "checkpoints/pruned", "checkpoints/final")
    for suffix in ("safetensors", "pt")
)
"""Where the library looked for weights; the first that is there counts."""
_MUST_BE_SAID = ("act_fn", "norm_activation")
_FLAGS_THAT_MUST_BE_SAID = (
    "apply_decoder_bias_to_pre_encoder", "sparsity_include_decoder_norm", "use_decoder_bias",
)  # fmt: skip
_PUBLISHED = re.compile(r"Llama3_1-8B-Base-L\d+(?:R|A|M|TC)-\d+x")
_PUBLISHED_SUBJECT = "meta-llama/Llama-3.1-8B"
_FROM_THE_PATH = "the subject was taken from the folder's name"
_UNITS = "latents are in the activations' own units, directions of norm 1, as the publishing library has them"
_THRESHOLD = "act_fn topk with a jump_relu_threshold: read as jumprelu, as the publishing library does"


class _Scales(NamedTuple):
    """`sqrt(d) / norm` of what is read and of what is predicted; 1 where no number scales them."""

    read: float
    predicted: float


def recognises(path: Path) -> bool:
    """A folder with the hyperparameters and weights; with a config.json it is of a later version."""
    if not (path / _CONFIGURATION).is_file() or (path / _OF_LATER_VERSIONS).exists():
        return False
    return any((path / name).is_file() for name in _WEIGHTS)


def files(path: Path) -> tuple[Path, ...]:
    """Hyperparameters and weights, and the language model's configuration where there is one."""
    subject = path / _SUBJECT
    return (path / _CONFIGURATION, _weights(path), *([subject] if subject.is_file() else []))


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """Norms and scales go into the normalisation and into a scale per latent; no matrix is changed."""
    configuration = read_configuration(path / _CONFIGURATION)
    _refuse_what_is_left_open(configuration)
    weights = _weights(path)
    sizes = (("d_model", configuration.size("d_model")), ("latent", configuration.size("d_sae")))
    table = TensorTable(weights, _stored(weights), {axis: size for axis, size in sizes if size})
    encoder_weight = table.take("encoder.weight", "latent d_model")
    decoder_weight = table.take("decoder.weight", "d_model latent").T
    decoder_bias = _decoder_bias(configuration, table)
    normalization, scales = _normalization(configuration, table)
    metadata = _metadata(configuration, path)
    sae = SparseAutoencoder(
        encoder_weight=encoder_weight,
        encoder_bias=table.take("encoder.bias", "latent"),
        decoder_weight=decoder_weight,
        decoder_bias=decoder_bias,
        pre_bias=_pre_bias(configuration, decoder_bias, scales),
        activation=_activation(configuration, table),
        normalization=normalization,
        latent_scale=_latent_scale(configuration, table, decoder_weight, scales),
        metadata=metadata,
    )
    table.finish()
    return sae, metadata.absent


def _refuse_what_is_left_open(configuration: Configuration) -> None:
    """Versions of the library differ in what they take for a value that is not there."""
    said = [name for name in _MUST_BE_SAID if configuration.text(name)]
    said += [name for name in _FLAGS_THAT_MUST_BE_SAID if configuration.flag(name) is not None]
    unsaid = [name for name in (*_MUST_BE_SAID, *_FLAGS_THAT_MUST_BE_SAID) if name not in said]
    if unsaid:
        raise CheckpointError(f"says no {unsaid[0]}", where=configuration.where)
    if configuration.flag("use_glu_encoder"):
        raise CheckpointError(
            "a gated linear unit as encoder (use_glu_encoder) is not supported", where=configuration.where
        )


def _weights(path: Path) -> Path:
    """The file that the library took."""
    return next((file for name in _WEIGHTS if (file := path / name).is_file()), path / _WEIGHTS[-2])


def _stored(weights: Path) -> dict[str, Any]:
    """The tensors; a torch file keeps them under `sae`, beside the library's version."""
    if weights.suffix == ".safetensors":
        return dict(read_safetensors(weights))
    content = read_torch_file(weights)
    if not isinstance(content, dict) or not isinstance(content.get("sae"), dict):
        raise CheckpointError("should hold a dictionary with the tensors under 'sae'", where=weights)
    unknown = sorted(map(str, content.keys() - {"sae", "version"}))
    if unknown:
        raise CheckpointError(f"unknown content {unknown[0][:60]!r} beside 'sae'", where=weights)
    return content["sae"]


def _decoder_bias(configuration: Configuration, table: TensorTable) -> Float[Tensor, " d_model"]:
    if configuration.flag("use_decoder_bias"):
        return table.take("decoder.bias", "d_model")
    return torch.zeros(table.sizes["d_model"])


def _normalization(configuration: Configuration, table: TensorTable) -> tuple[InputNormalization, _Scales]:
    kind, (read_at, predicted) = configuration.text("norm_activation"), _hook_points(configuration)
    if kind in {"inference", "none"}:
        return InputNormalization(), _Scales(1.0, 1.0)
    if kind == "dataset-wise":
        root = math.sqrt(table.sizes["d_model"])
        scales = _Scales(root / _norm(configuration, "in"), root / _norm(configuration, "out"))
        return InputNormalization("scale", scale=scales.read, output_scale=scales.predicted), scales
    if kind == "token-wise" and read_at == predicted:
        return InputNormalization("constant_norm"), _Scales(1.0, 1.0)
    of_what = " of a transcoder" if kind == "token-wise" else ""
    raise CheckpointError(f"norm_activation {kind!r}{of_what} is not supported", where=configuration.where)


def _norm(configuration: Configuration, side: str) -> float:
    norms = configuration.section("dataset_average_activation_norm")
    norm = None if norms is None else norms.number(side)
    if norm is None or not 1e-10 < norm < 1e10:  # beyond it a float32 overflows
        raise CheckpointError(
            f"norm_activation dataset-wise, but no positive dataset_average_activation_norm {side!r}",
            where=configuration.where,
        )
    return norm


def _pre_bias(
    configuration: Configuration, decoder_bias: Float[Tensor, " d_model"], scales: _Scales
) -> Float[Tensor, " d_model"] | None:
    """`b_dec / s_out` is subtracted from raw activations: `b_dec s_in / s_out` from the scaled ones."""
    if not configuration.flag("apply_decoder_bias_to_pre_encoder"):
        return None
    return decoder_bias * (scales.read / scales.predicted)


def _activation(configuration: Configuration, table: TensorTable) -> ActivationFunction:
    kind = str(configuration.text("act_fn")).lower()
    if kind not in {"relu", "jumprelu", "topk"}:
        raise CheckpointError(f"act_fn {kind!r} is not supported", where=configuration.where)
    if kind == "relu":
        return ReLU()
    threshold = configuration.number("jump_relu_threshold")
    if threshold is None or not 0 <= threshold < 1e30:
        raise CheckpointError("says no jump_relu_threshold from 0 to 1e30", where=configuration.where)
    if kind == "jumprelu" or threshold > 0:
        return JumpReLU(torch.full((table.sizes["latent"],), threshold))
    k = configuration.whole_number("top_k")
    if k is None:
        raise CheckpointError("says no top_k", where=configuration.where)
    return TopK(k)


def _latent_scale(
    configuration: Configuration,
    table: TensorTable,
    decoder_weight: Float[Tensor, "latent d_model"],
    scales: _Scales,
) -> Float[Tensor, " latent"]:
    """`||W_dec|| / s_out`, or `1 / s_in` where directions keep their norms."""
    if not configuration.flag("sparsity_include_decoder_norm"):
        return torch.full((table.sizes["latent"],), 1 / scales.read)
    norms = row_norms(decoder_weight)
    if not bool((norms > 0).all()):
        raise CheckpointError(
            "a direction of norm 0: with sparsity_include_decoder_norm all are divided by their norms",
            where=table.where,
            remedy="remove the dead latents, and save it again",
        )
    return norms / scales.predicted


def _hook_points(configuration: Configuration) -> tuple[str, str]:
    read_at = configuration.text("hook_point_in")
    if not read_at:
        raise CheckpointError("says no hook_point_in", where=configuration.where)
    return read_at, configuration.text("hook_point_out") or read_at


def _metadata(configuration: Configuration, path: Path) -> CheckpointMetadata:
    read_at, predicted = _hook_points(configuration)
    file = path / _SUBJECT
    subject = read_configuration(file).text("model_name") if file.is_file() else None
    notes = [_UNITS]
    if subject is None and _PUBLISHED.fullmatch(path.absolute().name):
        subject = _PUBLISHED_SUBJECT
        notes.append(_FROM_THE_PATH)
    if str(configuration.text("act_fn")).lower() == "topk" and configuration.number("jump_relu_threshold"):
        notes.append(_THRESHOLD)
    return CheckpointMetadata(
        site=read_at,
        output_site=None if predicted == read_at else predicted,
        subject=subject,
        notes=tuple(notes),
    )
