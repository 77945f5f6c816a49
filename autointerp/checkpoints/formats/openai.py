"""OpenAI's sparse_autoencoder: one torch file that holds a state dictionary, tensors and two settings.

Keys: pre_bias[d], encoder.weight[n,d], latent_bias[n], decoder.weight[d,n] (tied:
decoder.linear.weight[n,d]), three statistics buffers, `activation` (a name) and `activation_state_dict` (its
settings). There is no flag for the normalisation: it is layer_norm exactly when the activation is TopK. TopK
files may also carry flat `activation.*` keys, which repeat the settings and are dropped. The file says
nothing of its origin: subject and site are taken from the path where it lies as it was published,
`gpt2-small/{location}{version}/autoencoders/{layer}.pt`.

Source: openai/sparse_autoencoder, model.py, paths.py and README.md.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autointerp.checkpoints.activation_functions import ActivationFunction, Identity, ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import TensorTable
from autointerp.checkpoints.tensor_files import is_torch_file, read_torch_file, write_torch_file
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises", "write"]

NAME = "openai"
LAYOUT = "a torch file with pre_bias, encoder.weight and latent_bias"

_STATISTICS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")
_SETTINGS = ("activation", "activation_state_dict")
_POSTACTS = {"ReLU": "relu", "Identity": "identity"}
_HOOKS = {
    "mlp_post_act": "mlp.hook_post",
    "resid_delta_attn": "hook_attn_out",
    "resid_post_attn": "hook_resid_mid",
    "resid_delta_mlp": "hook_mlp_out",
    "resid_post_mlp": "hook_resid_post",
}
_PUBLISHED = re.compile(
    rf".*?/(?P<subject>gpt2-small/)?(?P<location>{'|'.join(_HOOKS)})(?:_v4|_v5_32k|_v5_128k)?"
    r"/autoencoders/(?P<layer>\d+)\.pt"
)
_FROM_THE_PATH = "{} taken from the path, the file does not say it"
_NO_ACTIVATION = "the file names no activation: ReLU taken, as the format's own loader does"


def recognises(path: Path) -> bool:
    """A torch file whose dictionary has at least two of the format's own keys."""
    if not path.is_file() or not is_torch_file(path):
        return False
    state = read_torch_file(path)
    return isinstance(state, Mapping) and len({"pre_bias", "latent_bias", "encoder.weight"} & set(state)) >= 2


def files(path: Path) -> tuple[Path, ...]:
    """The file itself."""
    return (path,)


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`z = act((LN?(x) - pre_bias) W_enc^T + latent_bias)`, `x^ = LN?^-1(z W_dec^T + pre_bias)`."""
    state = {str(key): value for key, value in read_torch_file(path).items()}
    activation, notes = _activation(state, path)
    table = TensorTable(path, state)
    encoder_weight = table.take("encoder.weight", "latent d_model")
    bias = table.take("pre_bias", "d_model")
    latent_bias = table.take("latent_bias", "latent")
    decoder_weight = _decoder_weight(table, encoder_weight)
    table.finish(ignored=(*_STATISTICS, *_SETTINGS, *(key for key in state if key.startswith("activation."))))
    metadata = _metadata(path, notes)
    sae = SparseAutoencoder(
        encoder_weight=encoder_weight,
        encoder_bias=latent_bias,
        decoder_weight=decoder_weight,
        decoder_bias=bias,
        pre_bias=bias,
        activation=activation,
        normalization=InputNormalization("layer_norm" if isinstance(activation, TopK) else "none"),
        metadata=metadata,
    )
    return sae, metadata.absent


def write(sae: SparseAutoencoder, path: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Store it with the statistics buffers that the format's own loader asks for, all zero.

    Raises:
        CheckpointError: another activation, two different biases, or a layer_norm that does not go with it.
    """
    settings = _stored_activation(sae.activation)
    expected = InputNormalization("layer_norm" if isinstance(sae.activation, TopK) else "none")
    if sae.normalization != expected:
        raise CheckpointError(
            f"normalisation {sae.normalization.describe()} with {sae.activation.describe()}: "
            "the openai format has layer_norm exactly when the activation is top-k",
            remedy="write it as saelens",
        )
    weights = {
        "pre_bias": sae.shared_bias(NAME),
        "encoder.weight": sae.encoder_weight,
        "latent_bias": sae.encoder_bias,
        "decoder.weight": sae.decoder_weight.T.contiguous(),
    }
    state: OrderedDict[str, Any] = OrderedDict((name, weight.to(dtype)) for name, weight in weights.items())
    state["stats_last_nonzero"] = torch.zeros(sae.latent_count, dtype=torch.int64)
    state["latents_activation_frequency"] = torch.zeros(sae.latent_count)
    state["latents_mean_square"] = torch.zeros(sae.latent_count)
    write_torch_file(OrderedDict(state, **settings), path)


def _metadata(path: Path, notes: tuple[str, ...]) -> CheckpointMetadata:
    """Locations as the README translates them; the subject only where the model's folder is in the path."""
    published = _PUBLISHED.fullmatch(path.absolute().as_posix())
    if published is None:
        return CheckpointMetadata(notes=notes)
    subject = "gpt2" if published["subject"] else None
    return CheckpointMetadata(
        site=f"blocks.{int(published['layer'])}.{_HOOKS[published['location']]}",
        subject=subject,
        notes=(*notes, _FROM_THE_PATH.format("site" if subject is None else "site and subject were")),
    )


def _activation(state: Mapping[str, Any], path: Path) -> tuple[ActivationFunction, tuple[str, ...]]:
    name = state.get("activation")
    if name is None:
        return ReLU(), (_NO_ACTIVATION,)
    if name == "ReLU":
        return ReLU(), ()
    if name == "Identity":
        return Identity(), ()
    if name != "TopK":
        raise CheckpointError(f"activation {str(name)[:60]!r} is not supported yet", where=path)
    settings = state.get("activation_state_dict")
    if not isinstance(settings, Mapping) or type(settings.get("k")) is not int:
        raise CheckpointError("activation TopK without a whole k in activation_state_dict", where=path)
    postact = _POSTACTS.get(str(settings.get("postact_fn")))
    if postact is None:
        raise CheckpointError(
            f"postact_fn {str(settings.get('postact_fn'))[:60]!r} is not supported yet", where=path
        )
    return TopK(settings["k"], postact), ()  # type: ignore[arg-type]


def _stored_activation(activation: ActivationFunction) -> dict[str, Any]:
    if isinstance(activation, TopK):
        postact = {value: key for key, value in _POSTACTS.items()}[activation.postact]
        return {"activation": "TopK", "activation_state_dict": {"k": activation.k, "postact_fn": postact}}
    if isinstance(activation, ReLU | Identity):
        return {"activation": type(activation).__name__, "activation_state_dict": {}}
    raise CheckpointError(f"the openai format cannot hold the activation {activation.describe()}")


def _decoder_weight(table: TensorTable, encoder_weight: Tensor) -> Tensor:
    if "decoder.linear.weight" not in table.tensors:
        return table.take("decoder.weight", "d_model latent").T
    tied = table.take("decoder.linear.weight", "latent d_model")
    if not torch.equal(tied, encoder_weight):
        raise CheckpointError("the tied decoder differs from the encoder", where=table.where)
    return tied
