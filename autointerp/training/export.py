"""Writes a trained autoencoder in one of the on-disk formats, with the record that says how it was made."""

import json
from pathlib import Path

import torch

from autointerp.checkpoints.load import write_checkpoint
from autointerp.training.trainer import TrainedAutoencoder

__all__ = ["write_record", "write_trained"]


def write_trained(
    trained: TrainedAutoencoder, path: Path, *, format: str, dtype: torch.dtype = torch.float32
) -> None:
    """Write the checkpoint at `path` (a file for `openai`, else a folder), the weights rounded to `dtype`.

    Which formats can hold it follows from its normalisation: `openai` TopK and `saelens` hold layer_norm,
    `sparsify` and `dictionary_learning` only none.

    Raises:
        CheckpointError: the format is not known or cannot hold this autoencoder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(trained.sae, path, format=format, dtype=dtype)


def write_record(trained: TrainedAutoencoder, path: Path) -> None:
    """Write the training record as JSON."""
    path.write_text(json.dumps(trained.record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
