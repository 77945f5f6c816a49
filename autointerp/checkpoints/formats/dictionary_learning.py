"""saprmarks/dictionary_learning: a folder with ae.pt (a state dictionary) and config.json.

All seven classes of release 0.1.0 are read, as they lie in the file. The library's own numbers differ in two
cases: `AutoEncoder.from_pretrained` by default moves the decoder's norms into the encoder, and
`AutoEncoderNew.forward` multiplies the features that it returns by them. Both are ours times those norms.

| dict_class             | h        | z of p = W_enc h + b_enc                                  |
|------------------------|----------|-----------------------------------------------------------|
| AutoEncoder            | x - bias | relu                                                      |
| AutoEncoderNew         | x        | relu                                                      |
| GatedAutoEncoder       | x - bias | gated                                                     |
| JumpReluAutoEncoder    | x        | jumprelu                                                  |
| AutoEncoderTopK        | x - bias | top k of each token, of a relu; a threshold is not used   |
| BatchTopKSAE           | x - bias | jumprelu with one threshold for all                       |
| MatryoshkaBatchTopKSAE | x - bias | the same; its groups are all active once it is loaded     |

Intermediate weights lie in `checkpoints/ae_STEP.pt` inside the run's folder and share its config.json.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from autointerp.checkpoints.activation_functions import ActivationFunction, Gated, JumpReLU, ReLU
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import Configuration, TensorTable, read_configuration
from autointerp.checkpoints.tensor_files import read_torch_file, write_folder
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises", "write"]

NAME = "dictionary_learning"
LAYOUT = "a folder with ae.pt and config.json, or a checkpoints/ae_STEP.pt inside it"

_CONFIGURATION, _WEIGHTS = "config.json", "ae.pt"
_STEPS, _STEP = "checkpoints", re.compile(r"ae_\w+\.pt")
_SUBMODULE = re.compile(r"(resid_pre|resid_mid|resid_post|mlp_out|attn_out)_layer_(\d+)")
_SITE = re.compile(r"blocks\.(\d+)\.hook_(resid_pre|resid_mid|resid_post|mlp_out|attn_out)")
_UNUSED_THRESHOLD = (
    "the file's threshold is not used: the top k of each token are kept, as the library does by default"
)
_INPUT = "buffer.io says the input was recorded; one buffer of the library recorded the output even then"
_NO_THRESHOLD = (
    "batch top-k without a threshold: the top k of each token are kept, as in a batch of one token; "
    "in training they were k times the tokens of a batch, wherever they fell"
)


@dataclass
class _Stored:
    """What a file says, and what is made of it on the way."""

    table: TensorTable
    trainer: Configuration
    factor: float
    """What biases and thresholds must be multiplied by."""
    notes: list[str] = field(default_factory=list)

    def vector(self, name: str, axes: str) -> Tensor:
        """A bias or threshold in the space of the model's activations."""
        return self.table.take(name, axes) * self.factor


class _Class(NamedTuple):
    """How one of the library's classes stores and computes."""

    bias: str
    """Name of what is added after decoding."""
    activation: Callable[[_Stored], ActivationFunction]
    is_subtracted: bool = True
    """Whether the same bias is subtracted before encoding."""
    names: tuple[str, str, str] = ("encoder.weight", "encoder.bias", "decoder.weight")
    """Of the modules or parameters that hold the rest."""


def recognises(path: Path) -> bool:
    """A folder with both files, or a step's weights in a folder inside one with the configuration."""
    return (path.is_dir() or _is_step(path)) and all(file.is_file() for file in files(path))


def files(path: Path) -> tuple[Path, ...]:
    """Configuration and weights; intermediate checkpoints and results beside them are others."""
    if _is_step(path):
        return (path.absolute().parent.parent / _CONFIGURATION, path.absolute())
    return (path / _CONFIGURATION, path / _WEIGHTS)


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`z = act(W_enc h + b_enc)`, `x^ = z W_dec + bias`; h and act are the class's."""
    configuration_file, weights_file = files(path)
    configuration = read_configuration(configuration_file)
    trainer = configuration.section("trainer")
    if trainer is None:
        raise CheckpointError("has no section 'trainer'", where=configuration.where)
    kind = trainer.text("dict_class")
    if kind not in _CLASSES:
        raise CheckpointError(
            f"dict_class {kind!r} is not supported",
            where=configuration.where,
            remedy=f"known are {', '.join(_CLASSES)}",
        )
    stored = _read_state(weights_file, trainer)
    sae = _autoencoder(stored, _CLASSES[kind], configuration.section("buffer"))
    stored.table.finish(ignored=("group_sizes",) if kind == "MatryoshkaBatchTopKSAE" else ())
    return sae, sae.metadata.absent


def write(sae: SparseAutoencoder, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Store it as AutoEncoder (ReLU) or AutoEncoderTopK.

    Raises:
        CheckpointError: another activation, a normalisation, two different biases, or a transcoder.
    """
    kind, extra = _stored_activation(sae.activation)
    if sae.normalization.kind != "none" or sae.latent_scale is not None:
        raise CheckpointError(
            "the dictionary_learning format has no normalisation", remedy="write it as saelens"
        )
    if sae.is_transcoder or sae.skip_weight is not None:
        raise CheckpointError("the dictionary_learning format has no transcoders and no skip connections")
    weights: dict[str, Tensor] = {
        _CLASSES[kind].bias: sae.shared_bias(NAME),
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


def _autoencoder(stored: _Stored, chosen: _Class, buffer: Configuration | None) -> SparseAutoencoder:
    encoder, encoder_bias, decoder = chosen.names
    is_linear = encoder == "encoder.weight"  # torch's Linear stores [out, in], a parameter here [in, out]
    encoder_weight = stored.table.take(encoder, "latent d_model" if is_linear else "d_model latent")
    decoder_weight = stored.table.take(decoder, "d_model latent" if is_linear else "latent d_model")
    activation = chosen.activation(stored)
    bias = stored.vector(chosen.bias, "d_model")
    return SparseAutoencoder(
        encoder_weight=encoder_weight if is_linear else encoder_weight.T,
        encoder_bias=torch.zeros(stored.table.sizes["latent"])
        if isinstance(activation, Gated)
        else stored.vector(encoder_bias, "latent"),
        decoder_weight=decoder_weight.T if is_linear else decoder_weight,
        decoder_bias=bias,
        pre_bias=bias if chosen.is_subtracted else None,
        activation=activation,
        metadata=_metadata(stored, buffer),
    )


def _read_state(path: Path, trainer: Configuration) -> _Stored:
    """The weights, and what their biases must be multiplied by.

    Finished files have the training's activation scale in their biases and thresholds already. A backup wraps
    the weights in a dictionary beside the optimizer, still in the scaled space; the library's `scale_biases`
    brings them back.
    """
    state = read_torch_file(path)
    if not isinstance(state, Mapping):
        raise CheckpointError(f"holds a {type(state).__name__}, no state dictionary", where=path)
    factor, notes = 1.0, []
    if "ae" in state:
        factor = _norm_factor(state, path)
        notes = [f"a training backup: biases and thresholds multiplied by its norm_factor {factor:g}"]
        state = state["ae"]
    sizes = {
        axis: size
        for axis, key in (("d_model", "activation_dim"), ("latent", "dict_size"))
        if (size := trainer.size(key))
    }
    return _Stored(TensorTable(path, state, sizes), trainer, factor, notes)


def _norm_factor(backup: Mapping[Any, Any], path: Path) -> float:
    factor = backup.get("norm_factor")
    factor = factor.item() if isinstance(factor, Tensor) and factor.numel() == 1 else factor
    if (
        not isinstance(backup["ae"], Mapping)
        or not isinstance(factor, int | float)
        or not 0 < factor < math.inf
    ):
        raise CheckpointError(
            "a training backup without weights or norm_factor", where=path, remedy="use the final ae.pt"
        )
    return float(factor)


def _relu(_: _Stored) -> ReLU:
    return ReLU()


def _gated(stored: _Stored) -> Gated:
    scale = stored.table.take("r_mag", "latent").exp()
    if not bool(scale.isfinite().all()):
        raise CheckpointError("the exponential of tensor 'r_mag' is infinite", where=stored.table.where)
    return Gated(
        gate_bias=stored.vector("gate_bias", "latent"),
        magnitude_scale=scale,
        magnitude_bias=stored.vector("mag_bias", "latent"),
    )


def _jumprelu(stored: _Stored) -> JumpReLU:
    return JumpReLU(stored.vector("threshold", "latent"))


def _topk(stored: _Stored) -> TopK:
    k, threshold = _k(stored), _threshold(stored)
    if threshold is not None:
        stored.notes.append(_UNUSED_THRESHOLD)
    return TopK(k)


def _batch_topk(stored: _Stored) -> ActivationFunction:
    k, threshold = _k(stored), _threshold(stored)
    if threshold is not None:
        return JumpReLU(threshold.repeat(stored.table.sizes["latent"]))
    stored.notes.append(_NO_THRESHOLD)
    return TopK(k)


def _matryoshka(stored: _Stored) -> ActivationFunction:
    """Latents beyond the active groups would be zero, but how many are active is not stored: all of them."""
    latent_count = stored.table.sizes["latent"]
    sizes = _few_whole_numbers(stored.table.tensors.get("group_sizes"), at_most=latent_count)
    if min(sizes, default=0) < 1 or sum(sizes) != latent_count:
        raise CheckpointError(
            f"'group_sizes' should be whole numbers that add up to the {latent_count} latents",
            where=stored.table.where,
        )
    return _batch_topk(stored)


def _few_whole_numbers(tensor: object, *, at_most: int) -> list[int]:
    """A stored list; empty when it is none, or too long to be looked at."""
    if (
        not isinstance(tensor, Tensor)
        or (tensor.dtype, tensor.layout, tensor.device.type) != (torch.int64, torch.strided, "cpu")
        or tensor.ndim != 1
        or tensor.shape[0] > at_most
    ):
        return []
    return [int(number) for number in tensor.tolist()]


def _k(stored: _Stored) -> int:
    """Of the weights, or of the configuration in files from before it was among them."""
    stated = stored.trainer.whole_number("k")
    k = stored.table.whole_number("k") if "k" in stored.table.tensors else stated
    if k is None:
        raise CheckpointError(
            f"{stored.trainer.text('dict_class')} without k, in the weights or in the configuration",
            where=stored.trainer.where,
        )
    if stated not in {None, k}:
        raise CheckpointError(
            f"k is {stated} in the configuration and {k} in the weights", where=stored.trainer.where
        )
    return k


def _threshold(stored: _Stored) -> Tensor | None:
    """One number for all latents; None where there is none, or a negative one, before training set it."""
    if "threshold" not in stored.table.tensors:
        return None
    threshold = stored.vector("threshold", "")
    return threshold if threshold >= 0 else None


_PARAMETERS = ("W_enc", "b_enc", "W_dec")
_CLASSES = {
    "AutoEncoder": _Class("bias", _relu),
    "AutoEncoderNew": _Class("decoder.bias", _relu, is_subtracted=False),
    "GatedAutoEncoder": _Class("decoder_bias", _gated),
    "JumpReluAutoEncoder": _Class("b_dec", _jumprelu, is_subtracted=False, names=_PARAMETERS),
    "AutoEncoderTopK": _Class("b_dec", _topk),
    "BatchTopKSAE": _Class("b_dec", _batch_topk),
    "MatryoshkaBatchTopKSAE": _Class("b_dec", _matryoshka, names=_PARAMETERS),
}


def _metadata(stored: _Stored, buffer: Configuration | None) -> CheckpointMetadata:
    site, notes = _site(stored.trainer, buffer)
    return CheckpointMetadata(
        site=site,
        subject=stored.trainer.text("lm_name"),
        context_length=buffer.size("ctx_len") if buffer else None,
        notes=(*stored.notes, *notes),
    )


def _site(trainer: Configuration, buffer: Configuration | None) -> tuple[str | None, tuple[str, ...]]:
    """The site, and what is uncertain about it; `buffer.io` says which end of the module was recorded."""
    submodule, layer = trainer.text("submodule_name"), trainer.whole_number("layer")
    side = (buffer and buffer.text("io")) or "out"
    if side == "in_and_out":
        # The release records such pairs, but none of its trainers learns one from the other.
        raise CheckpointError("a transcoder (buffer.io in_and_out) is not supported", where=trainer.where)
    if side not in {"in", "out"}:
        raise CheckpointError(f"buffer.io {side[:60]!r} is not known", where=trainer.where)
    if buffer and "layer" in buffer.values:
        return None, ("recorded head by head (HeadActivationBuffer): name the site in the suite",)
    if side == "in":
        if submodule and "." in submodule:
            return f"{submodule}:input", (_INPUT,)
        where = submodule or f"layer {layer}"
        return None, (f"the file says the input of {where}: name the site in the suite",)
    if submodule and (match := _SUBMODULE.fullmatch(submodule)):
        return f"blocks.{int(match[2])}.hook_{match[1]}", ()
    if submodule or layer is None:
        return submodule, ()
    return f"blocks.{layer}.hook_resid_post", ("the file says the layer only: its output taken as the site",)


def _is_step(path: Path) -> bool:
    """Whether it is one of a run's intermediate weights."""
    in_its_place = path.absolute().parent.name == _STEPS and _STEP.fullmatch(path.name) is not None
    return in_its_place and path.is_file()


def _stored_activation(activation: ActivationFunction) -> tuple[str, dict[str, Tensor]]:
    if isinstance(activation, ReLU):
        return "AutoEncoder", {}
    if isinstance(activation, TopK) and activation == TopK(activation.k):
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
