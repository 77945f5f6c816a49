"""Gemma Scope: one NumPy archive, params.npz, of an autoencoder or a transcoder on Gemma 2.

Keys W_enc[d,n], W_dec[n,d], b_enc[n], b_dec[d], threshold[n]; some files write w_enc and w_dec, and add a
scaling_factor of ones. The archive says nothing of its origin and looks the same for both kinds: subject and
site are taken from the path where the file lies as it was published,

    gemma-scope-{2b,9b,27b}-{pt,it}-{res,mlp,att,transcoders}/layer_{L}/width_{W}/average_l0_{N}/params.npz

Source: Lieberum et al. 2024 (arXiv 2408.05147v2); names and the scaling factor: SAELens 6.54.12.
"""

import re
import zipfile
from pathlib import Path

import torch

from autointerp.checkpoints.activation_functions import JumpReLU
from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata, SparseAutoencoder
from autointerp.checkpoints.stored_values import TensorTable
from autointerp.checkpoints.tensor_files import read_npz
from autointerp.errors import CheckpointError

__all__ = ["LAYOUT", "NAME", "files", "read", "recognises"]

NAME = "gemma_scope"
LAYOUT = "a NumPy archive with W_enc, W_dec, b_enc, b_dec and threshold, or a folder with params.npz"

_ARCHIVE = "params.npz"
_KEYS = {"w_enc", "w_dec", "b_enc", "b_dec", "threshold"}
_DAMAGED_ARCHIVE = (zipfile.BadZipFile, ArithmeticError, EOFError, LookupError, RuntimeError, ValueError)
_PUBLISHED = re.compile(
    r"(?:.*/|.*--)?gemma-scope-(?P<size>2b|9b|27b)-(?P<training>pt|it)-(?P<release>res|mlp|att|transcoders)"
    r"(?:-canonical)?(?:/.*)?/layer_(?P<layer>\d+)/width_[^/]+/[^/]+"
)
_EMBEDDING = re.compile(r".*/embedding/width_[^/]+/[^/]+")
_SITES = {
    "res": ("hook_resid_post", None),
    "mlp": ("hook_mlp_out", None),
    "att": ("attn.hook_z", None),
    # The gain of the norm before the MLP is folded into the MLP, so the norm is read without it (page 18).
    "transcoders": ("ln2.hook_normalized", "hook_mlp_out"),
}
_FROM_THE_PATH = "subject and site were taken from the path, the file does not say them"
_NORM_WITHOUT_GAIN = "the transcoder reads the norm before the MLP without its gain, as the paper describes"
_UNKNOWN_ORIGIN = "neither file nor path says the site, or whether it is a transcoder: name them in the suite"


def recognises(path: Path) -> bool:
    """An archive with most of the format's keys; one too damaged to list them must be called params.npz."""
    file = _archive(path)
    if not file.is_file():
        return False
    with file.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(file) as archive:
            names = {name.removesuffix(".npy").lower() for name in archive.namelist()}
    except _DAMAGED_ARCHIVE:
        return file.name == _ARCHIVE
    return len(_KEYS & names) >= len(_KEYS) - 1


def files(path: Path) -> tuple[Path, ...]:
    """The archive."""
    return (_archive(path),)


def read(path: Path) -> tuple[SparseAutoencoder, tuple[str, ...]]:
    """`p = x W_enc + b_enc`, `z = relu(p) (p > threshold)`, `x^ = z W_dec + b_dec`; nothing is subtracted."""
    file = _archive(path)
    if _EMBEDDING.fullmatch(_folder(file)):
        raise CheckpointError(
            "an embedding autoencoder of Gemma Scope is not supported: "
            "sources disagree on which side of the factor sqrt(d) its input lies",
            where=path,
        )
    table = TensorTable(file, read_npz(file))
    output = "d_out" if _is_transcoder(file) else "d_model"
    metadata = _metadata(file)
    sae = SparseAutoencoder(
        encoder_weight=table.take(_either(table, "W_enc", "w_enc"), "d_model latent").T,
        encoder_bias=table.take("b_enc", "latent"),
        decoder_weight=table.take(_either(table, "W_dec", "w_dec"), f"latent {output}"),
        decoder_bias=table.take("b_dec", output),
        pre_bias=None,
        activation=JumpReLU(table.take("threshold", "latent")),
        metadata=metadata,
    )
    _refuse_scaling(table)
    table.finish()
    return sae, metadata.absent


def _archive(path: Path) -> Path:
    return path / _ARCHIVE if path.is_dir() else path


def _folder(file: Path) -> str:
    """Where the file is said to lie, links not followed: a hub client's cache links to nameless files."""
    return file.absolute().parent.as_posix()


def _either(table: TensorTable, name: str, other: str) -> str:
    return other if name not in table.tensors and other in table.tensors else name


def _is_transcoder(file: Path) -> bool:
    published = _PUBLISHED.fullmatch(_folder(file))
    return published is not None and published["release"] == "transcoders"


def _metadata(file: Path) -> CheckpointMetadata:
    published = _PUBLISHED.fullmatch(_folder(file))
    if published is None:
        return CheckpointMetadata(notes=(_UNKNOWN_ORIGIN,))
    block = f"blocks.{int(published['layer'])}"
    hook, output_hook = _SITES[published["release"]]
    trained_further = "-it" if published["training"] == "it" else ""
    return CheckpointMetadata(
        site=f"{block}.{hook}",
        output_site=None if output_hook is None else f"{block}.{output_hook}",
        subject=f"google/gemma-2-{published['size']}{trained_further}",
        notes=(_FROM_THE_PATH,) if output_hook is None else (_FROM_THE_PATH, _NORM_WITHOUT_GAIN),
    )


def _refuse_scaling(table: TensorTable) -> None:
    """A factor of ones changes nothing; what any other one would do is nowhere said."""
    if "scaling_factor" not in table.tensors:
        return
    if not torch.equal(factor := table.take("scaling_factor", "latent"), torch.ones_like(factor)):
        raise CheckpointError("a scaling_factor other than 1 is not supported", where=table.where)
