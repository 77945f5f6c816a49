"""circuit-tracer: one layer of a set of transcoders, layer_{i}.safetensors, with the set's config.yaml.

Tensors W_enc[n,d], W_dec[n,d], b_enc[n], b_dec[d]; where there is `activation_function.threshold`[n] it is a
JumpReLU, else a ReLU; W_skip[d,d] where there is a skip connection. The configuration lies beside the file or
one folder up: `model_name`, and `feature_input_hook` and `feature_output_hook`, which are what follows
`blocks.{i}.` in TransformerLens's names. Without it nothing says what a file reads and predicts.

Refused by name: cross-layer transcoders (W_enc_{i}.safetensors, W_dec_{i}.safetensors).

Source: circuit-tracer 0.5.0 (transcoder/single_layer_transcoder.py, utils/hf_utils.py).
"""

import re
from pathlib import Path

import yaml
from jaxtyping import Float
from torch import Tensor

from autointerp.checkpoints.activation_functions import JumpReLU, ReLU
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import Configuration, TensorTable
from autointerp.checkpoints.tensor_files import read_safetensors, safetensors_names
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises"]

NAME = "circuit_tracer"
LAYOUT = "a file layer_{i}.safetensors with W_enc, W_dec, b_enc and b_dec, and the set's config.yaml"

_CONFIGURATION = "config.yaml"
_LARGEST_CONFIGURATION_BYTES, _DEEPEST_CONFIGURATION, _LONGEST_VALUE = 2**16, 10, 2048
_LAYER = re.compile(r"layer_(\d{1,6})\.safetensors", re.ASCII)
_CROSS_LAYER = re.compile(r"W_(?:enc|dec)_\d+\.safetensors", re.ASCII)
_LISTED = re.compile(r"(?:.*/)?([^/?]+)(?:\?.*)?")
_HOOK = re.compile(r"\w+(?:\.\w+)*", re.ASCII)
_NAMES = {"W_enc", "W_dec", "b_enc", "b_dec"}
_THRESHOLD, _SKIP = "activation_function.threshold", "W_skip"
_HOOKS = ("feature_input_hook", "feature_output_hook")
_ACTIVATION_KEYS = ("activation", "activation_function", "k")
"""What other libraries add to the configuration; circuit-tracer does not read them."""
_OPENING = (
    yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken, yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)  # fmt: skip
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)

# What PyYAML raises on damaged text: errors of its own, and those of whatever turns a text into a value.
_DAMAGE = (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


def recognises(path: Path) -> bool:
    """A layer's file by its name and tensors; also a part, or the folder, of a cross-layer transcoder."""
    if path.is_dir():
        return any(_CROSS_LAYER.fullmatch(file.name) for file in path.glob("W_*_0.safetensors"))
    if not path.is_file():
        return False
    if _CROSS_LAYER.fullmatch(path.name):
        return True
    if not _LAYER.fullmatch(path.name):
        return False
    names = safetensors_names(path)
    return not names or bool(names & _NAMES)


def files(path: Path) -> tuple[Path, ...]:
    """The layer's file and the set's configuration."""
    configuration = _configuration_file(path)
    return (path,) if configuration is None else (path, configuration)


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`z = act(x W_enc^T + b_enc)`, `y = z W_dec + b_dec + x W_skip^T`."""
    layer = _LAYER.fullmatch(path.name)
    if layer is None:
        raise _cross_layer(path)
    configuration = _configuration(path)
    metadata = _metadata(configuration, int(layer[1]), path.name)
    table = TensorTable(path, read_safetensors(path))
    _refuse_another_activation(configuration, table)
    encoder_weight = table.take("W_enc", "latent d_model")
    sae = SparseAutoencoder(
        encoder_weight=encoder_weight,
        encoder_bias=table.take("b_enc", "latent"),
        decoder_weight=table.take("W_dec", "latent d_model"),
        decoder_bias=table.take("b_dec", "d_model"),
        pre_bias=None,
        activation=JumpReLU(_threshold(table)) if _THRESHOLD in table.tensors else ReLU(),
        skip_weight=table.take(_SKIP, "d_model d_model") if _SKIP in table.tensors else None,
        metadata=metadata,
    )
    table.finish()
    return sae, metadata.absent


def _cross_layer(where: Path) -> CheckpointError:
    return CheckpointError(
        "a cross-layer transcoder, which writes to several layers, is not supported",
        where=where,
        remedy="take a set of transcoders of one layer each (layer_{i}.safetensors)",
    )


def _threshold(table: TensorTable) -> Float[Tensor, " latent"]:
    """The library lets negative latents above a negative threshold pass; nobody means that."""
    threshold = table.take(_THRESHOLD, "latent")
    if bool((threshold < 0).any()):
        raise CheckpointError(f"a negative threshold in {_THRESHOLD!r} is not supported", where=table.where)
    return threshold


def _refuse_another_activation(configuration: Configuration, table: TensorTable) -> None:
    loaded = "jumprelu" if _THRESHOLD in table.tensors else "relu"
    for key in _ACTIVATION_KEYS:
        said = configuration.values.get(key)
        if said is not None and str(said).lower().replace("_", "") != loaded:
            raise CheckpointError(
                f"{key} {str(said)[:60]!r} is not supported: circuit-tracer takes a {loaded} from this file",
                where=configuration.where,
            )


def _metadata(configuration: Configuration, layer: int, file_name: str) -> CheckpointMetadata:
    _refuse_contradictions(configuration, layer, file_name)
    reads, predicts = (_site(configuration, key, layer) for key in _HOOKS)
    return CheckpointMetadata(
        site=reads,
        output_site=None if predicts == reads else predicts,
        subject=configuration.text("model_name"),
    )


def _site(configuration: Configuration, key: str, layer: int) -> str:
    hook = configuration.text(key)
    if hook is None:
        raise CheckpointError(f"says no {key}", where=configuration.where)
    if not _HOOK.fullmatch(hook):
        raise CheckpointError(f"{key} {hook[:80]!r} is no name of a hook", where=configuration.where)
    return f"blocks.{layer}.{hook}"


def _refuse_contradictions(configuration: Configuration, layer: int, file_name: str) -> None:
    kind = configuration.text("model_kind")
    if kind == "cross_layer_transcoder":
        raise _cross_layer(configuration.where)
    if kind not in {None, "transcoder_set"}:
        raise CheckpointError(f"model_kind {kind!r} is not supported", where=configuration.where)
    listed = configuration.values.get("transcoders")
    names = [_LISTED.fullmatch(str(entry)) for entry in listed] if isinstance(listed, list) else []
    places = [place for place, name in enumerate(names) if name and name[1] == file_name]
    if places and layer not in places:
        raise CheckpointError(
            f"lists {file_name} as the transcoder of layer {places[0]}", where=configuration.where
        )


def _configuration_file(path: Path) -> Path | None:
    folder = path.absolute().parent
    return next((file for each in (folder, folder.parent) if (file := each / _CONFIGURATION).is_file()), None)


def _configuration(path: Path) -> Configuration:
    """The set's YAML: plain values only."""
    file = _configuration_file(path)
    if file is None:
        raise CheckpointError(
            "a transcoder without config.yaml, so what it reads and predicts is unknown",
            where=path,
            remedy="put the set's config.yaml beside it, with feature_input_hook and feature_output_hook",
        )
    if file.stat().st_size > _LARGEST_CONFIGURATION_BYTES:
        raise CheckpointError(
            "a configuration of more than 64 KiB", where=file, remedy="is it the right file?"
        )
    try:
        text = file.read_bytes()
        _refuse_bombs(text, file)
        values = yaml.safe_load(text)
    except _DAMAGE as error:
        raise CheckpointError(f"no readable YAML ({str(error)[:160]})", where=file) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"should hold a mapping, holds a {type(values).__name__}", where=file)
    return Configuration(file, values)


def _refuse_bombs(text: bytes, file: Path) -> None:
    """Aliases unfold to any size, deep nesting takes the parser long, long numbers cannot be shown again."""
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        if isinstance(token, yaml.AliasToken):
            raise CheckpointError("a configuration with aliases (*name) is not supported", where=file)
        if isinstance(token, yaml.ScalarToken) and len(token.value) > _LONGEST_VALUE:
            raise CheckpointError(f"a value of more than {_LONGEST_VALUE} characters", where=file)
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > _DEEPEST_CONFIGURATION:
            raise CheckpointError(f"nested more than {_DEEPEST_CONFIGURATION} levels deep", where=file)
