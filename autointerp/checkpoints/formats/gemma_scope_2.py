"""Gemma Scope 2: a folder with config.json and params.safetensors, an autoencoder or transcoder on Gemma 3.

Tensors w_enc[d,n], b_enc[n], threshold[n], w_dec[n,d_out], b_dec[d_out]; with `affine_connection` also
affine_skip_connection[d,d_out]. The configuration has `type` (sae, transcoder, crosscoder, clt),
`architecture` (jump_relu), `width`, `l0`, `model_name`, and the places read and written as paths in the
Hugging Face model (`hf_hook_point_in`, `hf_hook_point_out`: `model.layers.22.output`). What joins several
layers, with a params_layer_{L}.safetensors for each, is refused by name.

Source: the configurations of google/gemma-scope-2-*; orientations as SAELens 6.54.12 reads them.
"""

import re
from pathlib import Path

from torch import Tensor

from autointerp.checkpoints.activation_functions import JumpReLU
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import Configuration, TensorTable, read_configuration
from autointerp.checkpoints.tensor_files import read_safetensors
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises"]

NAME = "gemma_scope_2"
LAYOUT = "a folder with config.json and params.safetensors"

_CONFIGURATION, _WEIGHTS, _SKIP = "config.json", "params.safetensors", "affine_skip_connection"
_MANY_LAYERS = {"clt": "a cross-layer transcoder", "crosscoder": "a crosscoder"}
_BLOCK = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\.(.+)")
_PLACES = {
    "output": "hook_resid_post",
    "self_attn.o_proj.input": "attn.hook_z",
    "pre_feedforward_layernorm.output": "mlp.hook_in",
    "post_feedforward_layernorm.output": "hook_mlp_out",
}
_PATH = re.compile(r"([A-Za-z_]\w*(?:\.\w+)*)\.(input|output)", re.ASCII)
_RENAMED = "the file calls the subject {!r}"


def recognises(path: Path) -> bool:
    """A folder with the configuration and the weights, or the weights of several layers."""
    if not (path / _CONFIGURATION).is_file():
        return False
    return (path / _WEIGHTS).is_file() or any(path.glob("params_layer_*.safetensors"))


def files(path: Path) -> tuple[Path, ...]:
    """Configuration and weights; the examples beside them change nothing."""
    return (path / _CONFIGURATION, path / _WEIGHTS)


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`p = x w_enc + b_enc`, `z = relu(p) (p > threshold)`, `y = z w_dec + b_dec (+ x affine)`."""
    configuration = read_configuration(path / _CONFIGURATION)
    transcodes = _transcodes(configuration)
    width = configuration.size("width")
    table = TensorTable(
        path / _WEIGHTS, read_safetensors(path / _WEIGHTS), {} if width is None else {"latent": width}
    )
    output = "d_out" if transcodes else "d_model"
    metadata = _metadata(configuration, transcodes=transcodes)
    sae = SparseAutoencoder(
        encoder_weight=table.take("w_enc", "d_model latent").T,
        encoder_bias=table.take("b_enc", "latent"),
        decoder_weight=table.take("w_dec", f"latent {output}"),
        decoder_bias=table.take("b_dec", output),
        pre_bias=None,
        activation=JumpReLU(table.take("threshold", "latent")),
        skip_weight=_skip_weight(configuration, table, output),
        metadata=metadata,
    )
    table.finish()
    return sae, metadata.absent


def _transcodes(configuration: Configuration) -> bool:
    """Whether it predicts another place than it reads, once what it is has been found to be supported."""
    kind, architecture = configuration.text("type"), configuration.text("architecture")
    if kind in _MANY_LAYERS:
        raise CheckpointError(
            f"{_MANY_LAYERS[kind]} (type {kind!r}) joins several layers and is not supported",
            where=configuration.where,
            remedy="take an autoencoder or a transcoder of one layer",
        )
    if kind not in {"sae", "transcoder"}:
        raise CheckpointError(f"type {kind!r} is not supported", where=configuration.where)
    if architecture != "jump_relu":
        raise CheckpointError(f"architecture {architecture!r} is not supported", where=configuration.where)
    return kind == "transcoder"


def _skip_weight(configuration: Configuration, table: TensorTable, output: str) -> Tensor | None:
    """Stored as [d_model, d_out]: `y += x affine`. A file may not hold one that its configuration denies."""
    stated = configuration.flag("affine_connection")
    if stated is False or (stated is None and _SKIP not in table.tensors):
        return None
    return table.take(_SKIP, f"d_model {output}").T


def _metadata(configuration: Configuration, *, transcodes: bool) -> CheckpointMetadata:
    read_at, written_at = (configuration.text(f"hf_hook_point_{side}") for side in ("in", "out"))
    if transcodes != (written_at not in {None, read_at}):
        kind = "a transcoder" if transcodes else "an autoencoder"
        raise CheckpointError(
            f"{kind} by its type, but it reads {read_at!r} and writes {written_at!r}",
            where=configuration.where,
        )
    named = configuration.text("model_name")
    subject = _subject(named)
    return CheckpointMetadata(
        site=_site(read_at, configuration.where),
        output_site=_site(written_at, configuration.where) if transcodes else None,
        subject=subject,
        notes=() if subject == named else (_RENAMED.format(named),),
    )


def _site(hook_point: str | None, where: Path) -> str | None:
    """`model.layers.22.output` is blocks.22.hook_resid_post; other modules keep their path."""
    if hook_point is None:
        return None
    block, place = _BLOCK.fullmatch(hook_point), _PATH.fullmatch(hook_point)
    if block and block[2] in _PLACES:
        return f"blocks.{int(block[1])}.{_PLACES[block[2]]}"
    if place is None:
        raise CheckpointError(f"the hook point {hook_point[:80]!r} is no place of one module", where=where)
    return place[1] if place[2] == "output" else f"{place[1]}:input"


def _subject(name: str | None) -> str | None:
    """The name on the hub: `gemma-v3-1b-pt` is google/gemma-3-1b-pt, and the 270m model has no -pt there."""
    if name is None:
        return None
    full = (name if "/" in name else f"google/{name}").replace("gemma-v3-", "gemma-3-")
    return "google/gemma-3-270m" if full == "google/gemma-3-270m-pt" else full
