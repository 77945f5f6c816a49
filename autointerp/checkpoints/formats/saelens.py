"""SAELens: a folder with cfg.json and sae_weights.safetensors, of version 6 or before.

Tensors W_enc[d,n], b_enc[n], W_dec[n,d_out], b_dec[d_out]. With N the normalisation, h = N(x) - b_dec if
`apply_b_dec_to_input` (which is the default) and p = h W_enc + b_enc:

| architecture            | latents z                                                                      |
|-------------------------|--------------------------------------------------------------------------------|
| standard                | relu(p)                                                                        |
| gated                   | (h W_enc + b_gate > 0) relu(exp(r_mag) h W_enc + b_mag), there is no b_enc     |
| topk, abstopk           | the k largest p after relu, the k largest abs(p) with their sign               |
| jumprelu                | relu(p) (p > threshold)                                                        |
| batchtopk,              | of a run that goes on: jumprelu with the one threshold `topk_threshold`, as    |
| matryoshka_batchtopk    | the finished run stores it                                                     |
| matching_pursuit        | see `matching_pursuit`; W_enc is W_dec, nothing is added unless b_dec is       |
|                         | subtracted                                                                     |
| transcoder and its kin: | relu or jumprelu of N(x) W_enc + b_enc; no b_dec is subtracted; x W_skip^T of  |
| [jumprelu_][skip_]      | the raw input is added last                                                    |

and x^ = N^-1(z W_dec + b_dec). `rescale_acts_by_decoder_norm` (the top-k ones): p ||W_dec|| is chosen by and
returned, and divided by ||W_dec|| again when decoding.

`normalize_activations`: none; layer_norm; constant_norm_rescale; expected_average_only_in, one factor, and
covariance_whitening, `(x - mean) M`: a finished run has folded the last two into its weights, a checkpoint of
a run that goes on keeps them in files beside it (`saelens_run_state`). A transcoder that normalises is
refused: the library does not undo it on the output. `reshape_activations` hook_z joins the heads, which the
site already gives joined.

Source: SAELens 6.54.12, `saes/*.py` and `training/activation_scaler.py`. The library rounds everything to the
`dtype` of the configuration; here the stored numbers are kept and computed with in float32.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autointerp.checkpoints.activation_functions import ActivationFunction, Gated, JumpReLU, ReLU
from autointerp.checkpoints.formats.saelens_before_6 import in_todays_words, is_before_6
from autointerp.checkpoints.formats.saelens_run_state import average_norm, state_files, with_whitening_folded
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.matching_pursuit import MatchingPursuit
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import Configuration, TensorTable, read_configuration, row_norms
from autointerp.checkpoints.tensor_files import read_safetensors, write_folder
from autointerp.checkpoints.topk_functions import AbsTopK, TopK
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises", "write"]

NAME = "saelens"
LAYOUT = "a folder with cfg.json and sae_weights.safetensors"

_CONFIGURATION, _WEIGHTS = "cfg.json", "sae_weights.safetensors"
_FINETUNED = ("scaling_factor", "finetuning_scaling_factor")
_VERSION_WRITTEN = "6.54.12"


class _Kind(NamedTuple):
    """What an architecture is made of."""

    activation: str
    transcodes: bool = False
    skips: bool = False


_ARCHITECTURES = {
    "standard": _Kind("relu"),
    "gated": _Kind("gated"),
    "topk": _Kind("topk"),
    "abstopk": _Kind("abstopk"),
    "jumprelu": _Kind("jumprelu"),
    "batchtopk": _Kind("batchtopk"),
    "matryoshka_batchtopk": _Kind("batchtopk"),
    "matching_pursuit": _Kind("matching_pursuit"),
    "transcoder": _Kind("relu", transcodes=True),
    "skip_transcoder": _Kind("relu", transcodes=True, skips=True),
    "jumprelu_transcoder": _Kind("jumprelu", transcodes=True),
    "jumprelu_skip_transcoder": _Kind("jumprelu", transcodes=True, skips=True),
}
_WITHOUT_B_ENC = {"gated", "matching_pursuit"}
_NORMALIZATIONS = {
    "none": InputNormalization(),
    "layer_norm": InputNormalization("layer_norm"),
    "constant_norm_rescale": InputNormalization("constant_norm"),
}
_KNOWN_KEYS = {
    "apply_b_dec_to_input", "architecture", "d_in", "d_out", "d_sae", "device", "dtype",
    "finetuning_scaling_factor", "k", "max_iterations", "metadata", "normalize_activations",
    "rescale_acts_by_decoder_norm", "reshape_activations", "residual_threshold", "stop_on_duplicate_support",
}  # fmt: skip
_MOST_NAMED = 12

_AS_JUMPRELU = "a batch-top-k run that goes on: read as the jumprelu that the finished run stores"
_WHITENING_FOLDED = "covariance_whitening was folded into the weights, as the finished run does"
_UNKNOWN_OUTPUT = (
    "a transcoder that does not say what it predicts (metadata.hook_name_out): name it in the suite"
)


def recognises(path: Path) -> bool:
    """A folder with both files."""
    return (path / _CONFIGURATION).is_file() and (path / _WEIGHTS).is_file()


def files(path: Path) -> tuple[Path, ...]:
    """Configuration and weights, and those of a run's other files that hold its normalisation."""
    normalization = in_todays_words(read_configuration(path / _CONFIGURATION)).text("normalize_activations")
    return (path / _CONFIGURATION, path / _WEIGHTS, *state_files(path, normalization or "none"))


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """The dictionary by the formulas of the module's docstring."""
    stored = read_configuration(path / _CONFIGURATION)
    configuration, weights = in_todays_words(stored), path / _WEIGHTS
    kind = _kind(configuration)
    table = TensorTable(weights, read_safetensors(weights), _sizes(configuration, kind))
    normalization, notes = _normalization(configuration, kind, path, is_old=is_before_6(stored))
    sae = _dictionary(configuration, kind, table, normalization)
    sae = _finetuned(sae, configuration, table)
    table.finish()
    if configuration.text("normalize_activations") == "covariance_whitening":
        sae = with_whitening_folded(sae, path)
    metadata = _metadata(configuration, kind, notes)
    return replace(sae, metadata=metadata), metadata.absent


def _kind(configuration: Configuration) -> _Kind:
    architecture = configuration.text("architecture")
    if architecture is None:
        raise CheckpointError("says no architecture", where=configuration.where)
    if architecture not in _ARCHITECTURES:
        raise CheckpointError(f"architecture {architecture!r} is not supported", where=configuration.where)
    reshape = configuration.text("reshape_activations") or "none"
    if reshape not in {"none", "hook_z"}:
        raise CheckpointError(f"reshape_activations {reshape!r} is not supported", where=configuration.where)
    return _ARCHITECTURES[architecture]


def _sizes(configuration: Configuration, kind: _Kind) -> dict[str, int]:
    keys = {"d_model": "d_in", "latent": "d_sae"} | ({"d_out": "d_out"} if kind.transcodes else {})
    return {axis: size for axis, key in keys.items() if (size := configuration.size(key))}


def _dictionary(
    configuration: Configuration, kind: _Kind, table: TensorTable, normalization: InputNormalization
) -> SparseAutoencoder:
    output = "d_out" if kind.transcodes else "d_model"
    decoder_weight, decoder_bias = table.take("W_dec", f"latent {output}"), table.take("b_dec", output)
    subtracts = _subtracts(configuration, kind)
    if kind.activation == "matching_pursuit":
        return _pursuit(configuration, decoder_weight, decoder_bias if subtracts else None, normalization)
    encoder_weight = table.take("W_enc", "d_model latent").T
    latent_scale = None
    if _is_rescaled(configuration, kind):
        latent_scale = _decoder_norms(decoder_weight, table.where) / normalization.scale
    return SparseAutoencoder(
        encoder_weight=encoder_weight,
        encoder_bias=(
            torch.zeros(len(encoder_weight))
            if kind.activation in _WITHOUT_B_ENC
            else table.take("b_enc", "latent")
        ),
        decoder_weight=decoder_weight,
        decoder_bias=decoder_bias,
        pre_bias=decoder_bias if subtracts else None,
        activation=_activation(
            configuration, kind, table, 1.0 if latent_scale is None else normalization.scale
        ),
        normalization=normalization,
        latent_scale=latent_scale,
        skip_weight=table.take("W_skip", "d_out d_model") if kind.skips else None,
    )


def _subtracts(configuration: Configuration, kind: _Kind) -> bool:
    said = configuration.flag("apply_b_dec_to_input")
    if kind.transcodes and said is not False:
        raise CheckpointError(
            "a transcoder with apply_b_dec_to_input: its b_dec is not of the input's space",
            where=configuration.where,
        )
    return said is not False


def _activation(
    configuration: Configuration, kind: _Kind, table: TensorTable, unit: float
) -> ActivationFunction:
    """`unit` is what divides a run's threshold on rescaled latents when the run's factor is folded."""
    match kind.activation:
        case "relu":
            return ReLU()
        case "jumprelu":
            return JumpReLU(_threshold(table))
        case "batchtopk":
            threshold = table.take("topk_threshold", "") / unit
            return JumpReLU(threshold.expand(table.sizes["latent"]).clone())
        case "gated":
            return Gated(
                gate_bias=table.take("b_gate", "latent"),
                magnitude_scale=table.take("r_mag", "latent").exp(),
                magnitude_bias=table.take("b_mag", "latent"),
            )
    k = configuration.whole_number("k")
    if k is None:
        raise CheckpointError(
            f"architecture {configuration.text('architecture')!r} without k", where=configuration.where
        )
    return TopK(k) if kind.activation == "topk" else AbsTopK(k)


def _threshold(table: TensorTable) -> Tensor:
    """Some checkpoints of runs hold its logarithm."""
    if "log_threshold" in table.tensors and "threshold" not in table.tensors:
        return table.take("log_threshold", "latent").exp()
    return table.take("threshold", "latent")


def _pursuit(
    configuration: Configuration, directions: Tensor, bias: Tensor | None, normalization: InputNormalization
) -> SparseAutoencoder:
    """A run's factor is folded here: latents, threshold and bias are in units of the raw input."""
    where, unit = configuration.where, normalization.scale
    threshold, stops = (
        configuration.number("residual_threshold"),
        configuration.flag("stop_on_duplicate_support"),
    )
    if threshold is None or stops is None:
        raise CheckpointError("says no residual_threshold or stop_on_duplicate_support", where=where)
    pre_bias = None if bias is None else bias / unit
    return SparseAutoencoder(
        encoder_weight=directions,
        encoder_bias=torch.zeros(len(directions)),
        decoder_weight=directions,
        decoder_bias=torch.zeros(directions.shape[1]) if pre_bias is None else pre_bias,
        pre_bias=pre_bias,
        activation=MatchingPursuit(
            directions,
            residual_threshold=threshold / unit,
            max_iterations=configuration.size("max_iterations"),
            stop_on_duplicate_support=stops,
        ),
        normalization=InputNormalization() if normalization.kind == "scale" else normalization,
    )


def _is_rescaled(configuration: Configuration, kind: _Kind) -> bool:
    said = configuration.flag("rescale_acts_by_decoder_norm")
    if kind.activation == "batchtopk" and said is None:
        raise CheckpointError("says no rescale_acts_by_decoder_norm", where=configuration.where)
    return bool(said) and kind.activation in {"topk", "abstopk", "batchtopk"}


def _decoder_norms(decoder_weight: Tensor, where: Path) -> Tensor:
    norms = row_norms(decoder_weight)
    if not bool((norms > 0).all()):
        raise CheckpointError("rescale_acts_by_decoder_norm with a decoder row of norm 0", where=where)
    return norms


def _normalization(
    configuration: Configuration, kind: _Kind, path: Path, *, is_old: bool
) -> tuple[InputNormalization, tuple[str, ...]]:
    """What is done to the input at run time, and what to say about it."""
    name, where = configuration.text("normalize_activations") or "none", configuration.where
    if name != "none" and kind.transcodes:
        raise CheckpointError(
            f"a transcoder with normalize_activations {name!r} is not supported: its output stays normalised",
            where=where,
        )
    if name == "expected_average_only_in":
        return average_norm(path, is_old=is_old)
    if name == "covariance_whitening":
        if kind.activation == "matching_pursuit":
            raise CheckpointError("matching_pursuit with covariance_whitening is not supported", where=where)
        return InputNormalization(), (_WHITENING_FOLDED,)
    if name not in _NORMALIZATIONS:
        raise CheckpointError(f"normalize_activations {name!r} is not supported", where=where)
    return _NORMALIZATIONS[name], ()


def _finetuned(sae: SparseAutoencoder, configuration: Configuration, table: TensorTable) -> SparseAutoencoder:
    """Before version 6 latents could be multiplied by a factor each when decoding; mostly it is 1."""
    name = next((name for name in _FINETUNED if name in table.tensors), None)
    said = configuration.flag("finetuning_scaling_factor")
    if name is None and not said:
        return sae
    factor = table.take(name or _FINETUNED[-1], "latent")
    if torch.allclose(factor, torch.ones_like(factor)):
        return sae
    if said is False:
        raise CheckpointError(
            f"{name} is not 1, while finetuning_scaling_factor is false", where=configuration.where
        )
    return replace(sae, decoder_weight=sae.decoder_weight.float() * factor.unsqueeze(1))


def _metadata(configuration: Configuration, kind: _Kind, notes: tuple[str, ...]) -> CheckpointMetadata:
    origin = configuration.section("metadata") or Configuration(configuration.where, {})
    for key in ("hook_head_index", "hook_head_index_out"):
        if origin.values.get(key) is not None:
            raise CheckpointError(
                f"metadata.{key} (one attention head) is not supported", where=configuration.where
            )
    output_site = origin.text("hook_name_out") if kind.transcodes else None
    said = [
        *notes,
        *([_AS_JUMPRELU] if kind.activation == "batchtopk" else []),
        *([_UNKNOWN_OUTPUT] if kind.transcodes and output_site is None else []),
        *_further_notes(configuration, origin),
    ]
    return CheckpointMetadata(
        site=origin.text("hook_name"),
        output_site=output_site,
        hides_output=kind.transcodes and output_site is None,
        subject=origin.text("model_name"),
        context_length=origin.size("context_size"),
        prepend_bos=origin.flag("prepend_bos"),
        notes=tuple(said),
    )


def _further_notes(configuration: Configuration, origin: Configuration) -> list[str]:
    notes = []
    if settings := origin.values.get("model_from_pretrained_kwargs"):
        notes.append(f"trained on the subject as loaded with {str(settings)[:200]}")
    if unknown := sorted(configuration.values.keys() - _KNOWN_KEYS):
        more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
        named = ", ".join(unknown[:_MOST_NAMED])
        notes.append(f"configuration keys without meaning here, ignored: {named}{more}")
    return notes


def write(sae: SparseAutoencoder, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Store it as SAELens 6 does.

    Raises:
        CheckpointError: another activation, a transcoder, scales of latents that are not the decoder's norms,
            or a pre-bias that is neither absent nor the decoder's bias.
    """
    if sae.pre_bias is not None:
        sae.shared_bias(NAME)
    if sae.is_transcoder or sae.skip_weight is not None:
        raise CheckpointError("transcoders are not written in the saelens format")
    architecture, extra = _stored_activation(sae)
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
            "sae_lens_version": _VERSION_WRITTEN,
            "model_name": sae.metadata.subject,
            "hook_name": sae.metadata.site,
            "prepend_bos": sae.metadata.prepend_bos,
            "context_size": sae.metadata.context_length,
        },
        **extra,
    }
    weights = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    write_folder(path, configuration=(_CONFIGURATION, configuration), weights=(_WEIGHTS, weights))


def _stored_activation(sae: SparseAutoencoder) -> tuple[str, dict[str, Any]]:
    activation = sae.activation
    is_topk = isinstance(activation, TopK) and activation.postact == "relu" and activation.weight is None
    if sae.latent_scale is not None:
        norms = row_norms(sae.decoder_weight)
        if not is_topk or not torch.allclose(sae.latent_scale, norms.to(sae.latent_scale), rtol=1e-5):
            raise CheckpointError("the saelens format cannot hold these scales of the latents")
    if isinstance(activation, TopK) and is_topk:
        return "topk", {"k": activation.k, "rescale_acts_by_decoder_norm": sae.latent_scale is not None}
    if isinstance(activation, ReLU):
        return "standard", {}
    if isinstance(activation, JumpReLU):
        return "jumprelu", {}
    raise CheckpointError(f"the saelens format cannot hold the activation {activation.describe()}")


def _stored_normalization(normalization: InputNormalization) -> str:
    for name, stored in _NORMALIZATIONS.items():
        if stored == normalization:
            return name
    raise CheckpointError(f"the saelens format cannot hold the normalisation {normalization}")
