"""llamascopium, formerly lm-saes: a folder with config.json and sae_weights.safetensors.

The weights may also be sae_weights.pt, or lie in checkpoints/ as pruned or final. Tensors W_E[d,n], b_E[n],
W_D[n,d], b_D[d], with jumprelu `activation_function.log_jumprelu_threshold`[n]; lm-saes of early 2025 (Llama
Scope R1 Distill) wrote encoder.weight[n,d], encoder.bias, decoder.weight[d,n], decoder.bias and
log_jumprelu_threshold. `dataset_average_activation_norm.HOOK_POINT` is a number each: with `norm_activation`
dataset-wise, what is read is scaled to a mean norm of sqrt(d), and what is predicted is scaled back with its
own hook point's norm. With `inference` both are folded into the weights already.

Read: sae_type sae, as autoencoder or transcoder, with relu, jumprelu or topk. Refused by name: other types,
GLU encoders, and what depends on the other tokens of a batch.

Source: llamascopium 2.0.0b34 (models/sae.py, models/sparse_dictionary.py); OpenMOSS/Language-Model-SAEs of
early 2025 (sae.py).
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, zeros

from autointerp.checkpoints.activation_functions import ActivationFunction, JumpReLU, ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import Configuration, TensorTable, read_configuration, row_norms
from autointerp.checkpoints.tensor_files import read_safetensors, read_torch_file
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises"]

NAME = "llamascopium"
LAYOUT = "a folder with config.json (sae_type) and sae_weights.safetensors or checkpoints/final.safetensors"

_CONFIGURATION, _SUBJECT = "config.json", "lm_config.json"
_WEIGHTS = tuple(
    f"{name}.{suffix}"
    for name in ("sae_weights", "checkpoints/pruned", "checkpoints/final")
    for suffix in ("safetensors", "pt", "dcp")
)
"""Where the library looks for weights; the first that is there counts."""
_OTHER_KINDS = {
    "crosscoder": "a crosscoder",
    "clt": "a cross-layer transcoder",
    "lorsa": "a low-rank sparse attention",
    "molt": "a mixture of linear transforms",
    "mixcoder": "a mixcoder",
}
_OF_A_BATCH = ("batchtopk", "batchlayertopk")
_REASONS = {
    "batch-wise": "it divides by the mean norm of a batch, so a token's latents depend on the others",
    "token-wise": "a transcoder's output is put back with the norm of the very activation it predicts",
}
_TRAINING_STATE = ("tokens_since_last_activation", "is_dead")
_NORM = "dataset_average_activation_norm."
_DEFAULTS: dict[str, Any] = {
    "act_fn": "relu",
    "norm_activation": "dataset-wise",
    "sparsity_include_decoder_norm": True,
    "use_decoder_bias": True,
}
_ASSUMED = "the configuration leaves out {}; taken as llamascopium's own defaults"


class _Names(NamedTuple):
    encoder_weight: str
    encoder_bias: str
    decoder_weight: str
    decoder_bias: str
    log_threshold: str


_TODAY = _Names("W_E", "b_E", "W_D", "b_D", "activation_function.log_jumprelu_threshold")
_IN_2025 = _Names(
    "encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias", "log_jumprelu_threshold"
)


def recognises(path: Path) -> bool:
    """A folder with the configuration and one of the library's files of weights."""
    return (path / _CONFIGURATION).is_file() and any((path / name).exists() for name in _WEIGHTS)


def files(path: Path) -> tuple[Path, ...]:
    """Configuration and weights, and the language model's configuration where there is one."""
    subject = path / _SUBJECT
    return (path / _CONFIGURATION, _weights(path), *([subject] if subject.is_file() else []))


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`p = (x s_in) W_E + b_E`, `z = act(p ||W_D||) / ||W_D||`, `y = (z W_D + b_D) / s_out`.

    Without the norms of the directions where `sparsity_include_decoder_norm` is false; s = sqrt(d) / norm.
    """
    configuration = read_configuration(path / _CONFIGURATION)
    _refuse_other_kinds(configuration)
    weights = _weights(path)
    d_model = configuration.size("d_model")
    table = TensorTable(weights, _stored(weights), {} if d_model is None else {"d_model": d_model})
    names = _IN_2025 if any(name in table.tensors for name in _IN_2025) else _TODAY
    encoder_weight, decoder_weight = _matrices(table, names)
    _refuse_another_size(configuration, encoder_weight)
    encoder_bias = table.take(names.encoder_bias, "latent")
    decoder_bias = _decoder_bias(configuration, table, names)
    metadata = _metadata(configuration, path)
    sae = SparseAutoencoder(
        encoder_weight=encoder_weight,
        encoder_bias=encoder_bias,
        decoder_weight=decoder_weight,
        decoder_bias=decoder_bias,
        pre_bias=decoder_bias if _subtracts(configuration, names) else None,
        activation=_activation(configuration, table, names, decoder_weight),
        normalization=_normalization(configuration, table),
        metadata=metadata,
    )
    norms_unused = (name for name in table.tensors if isinstance(name, str) and name.startswith(_NORM))
    table.finish(ignored=(*_TRAINING_STATE, *norms_unused))
    return sae, metadata.absent


def _refuse_other_kinds(configuration: Configuration) -> None:
    kind = configuration.text("sae_type")
    if kind is None:
        raise CheckpointError("says no sae_type", where=configuration.where)
    if kind != "sae":
        named = f"{_OTHER_KINDS[kind]} (sae_type {kind!r})" if kind in _OTHER_KINDS else f"sae_type {kind!r}"
        raise CheckpointError(
            f"{named} is not supported",
            where=configuration.where,
            remedy="take an autoencoder or a transcoder of one layer",
        )
    if configuration.flag("use_glu_encoder"):
        raise CheckpointError(
            "a gated linear unit as encoder (use_glu_encoder) is not supported", where=configuration.where
        )


def _weights(path: Path) -> Path:
    """The file that the library takes."""
    return next((file for name in _WEIGHTS if (file := path / name).exists()), path / _WEIGHTS[0])


def _stored(weights: Path) -> dict[str, Any]:
    """The tensors; a torch file keeps them under `sae`, beside the library's version."""
    if weights.suffix == ".dcp":
        raise CheckpointError(
            "a distributed checkpoint (.dcp) is not supported",
            where=weights,
            remedy="load it with llamascopium and save it as .safetensors",
        )
    if weights.suffix == ".safetensors":
        return dict(read_safetensors(weights))
    content = read_torch_file(weights)
    if not isinstance(content, dict) or not isinstance(content.get("sae"), dict):
        raise CheckpointError("should hold a dictionary with the tensors under 'sae'", where=weights)
    unknown = sorted(map(str, content.keys() - {"sae", "version"}))
    if unknown:
        raise CheckpointError(f"unknown content {unknown[0][:60]!r} beside 'sae'", where=weights)
    return content["sae"]


def _matrices(
    table: TensorTable, names: _Names
) -> tuple[Float[Tensor, "latent d_model"], Float[Tensor, "latent d_model"]]:
    if names == _TODAY:
        return table.take(names.encoder_weight, "d_model latent").T, table.take(
            names.decoder_weight, "latent d_model"
        )
    encoder_weight = table.take(names.encoder_weight, "latent d_model")
    return encoder_weight, table.take(names.decoder_weight, "d_model latent").T


def _refuse_another_size(
    configuration: Configuration, encoder_weight: Float[Tensor, "latent d_model"]
) -> None:
    """The library makes int(d_model * expansion_factor) latents."""
    latent_count, d_model = encoder_weight.shape
    factor = configuration.number("expansion_factor")
    if factor is not None and not latent_count <= d_model * factor < latent_count + 1:
        raise CheckpointError(
            f"expansion_factor {factor:g} at width {d_model} is not the weights' {latent_count} latents",
            where=configuration.where,
        )


def _decoder_bias(
    configuration: Configuration, table: TensorTable, names: _Names
) -> Float[Tensor, " d_model"]:
    if configuration.flag("use_decoder_bias") is False:
        return zeros(table.sizes["d_model"])
    return table.take(names.decoder_bias, "d_model")


def _subtracts(configuration: Configuration, names: _Names) -> bool:
    """Whether the (normalised) input is shifted by the decoder's bias, as lm-saes still could."""
    if not configuration.flag("apply_decoder_bias_to_pre_encoder"):
        return False
    if names == _TODAY:
        raise CheckpointError(
            "apply_decoder_bias_to_pre_encoder is not supported: today's library ignores it",
            where=configuration.where,
        )
    return True


def _activation(
    configuration: Configuration,
    table: TensorTable,
    names: _Names,
    decoder_weight: Float[Tensor, "latent d_model"],
) -> ActivationFunction:
    """A threshold on `p ||W_D||` is one divided by the norm on p; the k largest are those of `p ||W_D||`."""
    kind = (configuration.text("act_fn") or _DEFAULTS["act_fn"]).lower()
    if kind in _OF_A_BATCH:
        raise CheckpointError(
            f"act_fn {kind!r} is not supported: which latents of a token it keeps depends on the whole batch",
            where=configuration.where,
            remedy="give it thresholds (act_fn jumprelu) that stand for its mean L0, and save it again",
        )
    if kind not in {"relu", "jumprelu", "topk"}:
        raise CheckpointError(f"act_fn {kind!r} is not supported", where=configuration.where)
    norms = _direction_norms(configuration, table, decoder_weight)
    if kind == "relu":
        return ReLU()
    if kind == "jumprelu":
        threshold = table.take(names.log_threshold, "latent").exp()
        return JumpReLU(threshold if norms is None else threshold / norms)
    if names == _IN_2025:
        raise CheckpointError(
            "topk as lm-saes stored it in early 2025 is not supported: it kept more than k on some tokens",
            where=configuration.where,
        )
    k = configuration.whole_number("top_k")
    if k is None:
        raise CheckpointError("says no top_k", where=configuration.where)
    return TopK(k, weight=norms)


def _direction_norms(
    configuration: Configuration, table: TensorTable, decoder_weight: Float[Tensor, "latent d_model"]
) -> Float[Tensor, " latent"] | None:
    if configuration.flag("sparsity_include_decoder_norm") is False:
        return None
    norms = row_norms(decoder_weight)
    if not bool((norms > 0).all()):
        raise CheckpointError(
            "a direction of norm 0: with sparsity_include_decoder_norm the library divides by it",
            where=table.where,
            remedy="remove the dead latents, and save it again",
        )
    return norms


def _normalization(configuration: Configuration, table: TensorTable) -> InputNormalization:
    kind = configuration.text("norm_activation") or _DEFAULTS["norm_activation"]
    read_at, written_at = _hook_points(configuration)
    if kind == "inference":
        return InputNormalization()
    if kind == "dataset-wise":
        root = math.sqrt(table.sizes["d_model"])
        return InputNormalization(
            "scale", scale=root / _norm(table, read_at), output_scale=root / _norm(table, written_at)
        )
    if kind == "token-wise" and read_at == written_at:
        return InputNormalization("constant_norm")
    reason = _REASONS.get(kind)
    raise CheckpointError(
        f"norm_activation {kind!r} is not supported{f': {reason}' if reason else ''}",
        where=configuration.where,
    )


def _norm(table: TensorTable, hook_point: str) -> float:
    """The mean norm at a hook point. Before it is known, the library stores whatever lay in memory there."""
    name = f"{_NORM}{hook_point}"
    norm = float(table.take(name, ""))
    if not 1e-10 < norm < 1e10:  # beyond it a float32 cannot hold what is scaled by it
        raise CheckpointError(f"{name!r} is {norm:g}, no mean of norms: was it measured?", where=table.where)
    return norm


def _hook_points(configuration: Configuration) -> tuple[str, str]:
    read_at = configuration.text("hook_point_in")
    if not read_at:
        raise CheckpointError("says no hook_point_in", where=configuration.where)
    return read_at, configuration.text("hook_point_out") or read_at


def _metadata(configuration: Configuration, path: Path) -> CheckpointMetadata:
    read_at, written_at = _hook_points(configuration)
    file = path / _SUBJECT
    subject = read_configuration(file) if file.is_file() else Configuration(file, {})
    left_out = [name for name in _DEFAULTS if configuration.values.get(name) is None]
    return CheckpointMetadata(
        site=read_at,
        output_site=None if written_at == read_at else written_at,
        subject=subject.text("model_name"),
        prepend_bos=subject.flag("prepend_bos"),
        notes=(_ASSUMED.format(", ".join(left_out)),) if left_out else (),
    )
