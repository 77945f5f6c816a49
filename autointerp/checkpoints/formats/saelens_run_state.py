"""The normalisation that a SAELens training run has not folded into its weights yet, and keeps beside them.

`activation_scaler.json` says `scaling_factor` and `has_whitening`, `activation_whitening.safetensors` holds
mean[d], matrix[d,d] and inverse_matrix[d,d] (SAELens 6.54.12, `training/activation_scaler.py`). Version 5
kept the factor as `estimated_norm_scaling_factor` in `activations_store_state.safetensors`, and dropped it
there once it was folded, while the configuration went on naming it (5.11.0, `training/sae_trainer.py`).
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.stored_values import TensorTable, read_configuration
from autointerp.checkpoints.tensor_files import read_safetensors
from autointerp.errors import CheckpointError

__all__ = ["average_norm", "state_files", "with_whitening_folded"]

_SCALER, _WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
_STORE, _FACTOR_IN_STORE = "activations_store_state.safetensors", "estimated_norm_scaling_factor"
_FILES = {"expected_average_only_in": (_SCALER, _STORE), "covariance_whitening": (_SCALER, _WHITENING)}
_BLOCK_ROWS = 4096

_FOLDED_BEFORE = (
    "normalize_activations names a factor that the run no longer keeps: taken as folded into the weights"
)


def state_files(path: Path, normalization: str) -> tuple[Path, ...]:
    """Those files of a checkpoint's folder that the normalisation is read from."""
    return tuple(file for name in _FILES.get(normalization, ()) if (file := path / name).is_file())


def average_norm(path: Path, *, is_old: bool) -> tuple[InputNormalization, tuple[str, ...]]:
    """`x * factor`, undone by `/ factor`, and what to note.

    Raises:
        CheckpointError: the factor is nowhere to be found, or not positive.
    """
    scaler, store = path / _SCALER, path / _STORE
    factor = read_configuration(scaler).number("scaling_factor") if scaler.is_file() else None
    if factor is None and store.is_file():
        table = TensorTable(store, read_safetensors(store))
        if _FACTOR_IN_STORE in table.tensors:
            factor = float(table.take(_FACTOR_IN_STORE, ""))
        elif is_old:
            return InputNormalization(), (_FOLDED_BEFORE,)
    if factor is None:
        raise CheckpointError(
            "normalize_activations is 'expected_average_only_in', and its factor is not in the files",
            where=path,
            remedy=f'say it in {_SCALER}, {{"scaling_factor": ...}}, or if it is folded into the weights '
            "already, change normalize_activations to 'none'",
        )
    if factor <= 0:
        raise CheckpointError(f"a factor of {factor} for the input; it should be positive", where=path)
    return InputNormalization("scale", scale=factor, output_scale=factor), ()


def with_whitening_folded(sae: SparseAutoencoder, path: Path) -> SparseAutoencoder:
    """A dictionary on `(x - mean) M`, undone by `y M^-1 + mean`, as one on x.

    W_enc becomes M W_enc, W_dec becomes W_dec M^-1; mean is subtracted before, b_dec M^-1 + mean added after.
    The products are new matrices in memory, as they are in the library.

    Raises:
        CheckpointError: the matrices are not there, or do not fit.
    """
    file, scaler = path / _WHITENING, path / _SCALER
    if not file.is_file() or (scaler.is_file() and read_configuration(scaler).flag("has_whitening") is False):
        raise CheckpointError(
            "normalize_activations is 'covariance_whitening', and its matrices are not in the files",
            where=path,
            remedy=f"keep {_WHITENING} beside the weights, or save the finished run",
        )
    table = TensorTable(file, read_safetensors(file), {"d_model": sae.d_model})
    mean, matrix = table.take("mean", "d_model"), table.take("matrix", "d_model d_model")
    inverse = table.take("inverse_matrix", "d_model d_model")
    table.finish()
    bias = _rows_times(sae.decoder_bias.unsqueeze(0), inverse).squeeze(0) + mean
    return replace(
        sae,
        encoder_weight=_rows_times(sae.encoder_weight, matrix.T),
        decoder_weight=_rows_times(sae.decoder_weight, inverse),
        decoder_bias=bias,
        pre_bias=mean if sae.pre_bias is None else bias,
    )


def _rows_times(rows: Tensor, matrix: Tensor) -> Tensor:
    """`rows matrix`, computed in float64 some rows at a time, kept in float32."""
    return torch.cat([(block.double() @ matrix.double()).float() for block in rows.split(_BLOCK_ROWS)])
