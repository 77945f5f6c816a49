"""The other side of `sampling.py`: the loop that one would write down to keep every firing of one checkpoint.

The whole model with a hook, a dense latent array, its non-zeros saved per chunk; nothing is sampled. Also
what is compared before a ratio is printed.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from plain_loop import DenseTopK
from torch import Tensor
from workload import LAYER, Workload

from autointerp.sampling.readings import Checkpoint

TOLERANCE = 1e-4
"""Largest difference of an activation between the two sides, as a share of the largest one."""

Triples = dict[str, np.ndarray]
"""Non-zero latents of one checkpoint: `token` (number in the corpus), `latent`, `value`, in that order."""


@torch.inference_mode()
def plain_loop(workload: Workload, checkpoint: Checkpoint, folder: Path, *, keep: bool) -> Triples | None:
    """Runs the whole model with a hook, makes the dense latents, and saves their non-zeros per chunk."""
    model = workload.subject.model
    sae = DenseTopK(checkpoint.sae, workload.k)
    kept: list[Tensor] = []
    block = model.transformer.h[LAYER]
    handle = block.register_forward_hook(
        lambda _module, _args, output: kept.append(output if isinstance(output, Tensor) else output[0])
    )
    parts: list[dict[str, np.ndarray]] = []
    before = 0
    try:
        for chunk in workload.chunks():
            found: list[tuple[Tensor, ...]] = []
            for batch in chunk.batches:
                tokens = batch.tokens.to(workload.device)
                kept.clear()
                model(tokens, use_cache=False)
                z, _, _ = sae.encode(kept[0].flatten(0, 1))
                z.view(*tokens.shape, -1)[:, 0] = 0  # a beginning-of-text token is no text
                token, latent = z.nonzero(as_tuple=True)
                found.append((token + before, latent, z[token, latent]))
                before += tokens.numel()
            columns = [torch.cat(part).cpu().numpy() for part in zip(*found, strict=True)]
            part = dict(zip(("token", "latent", "value"), columns, strict=True))
            np.savez(folder / f"{checkpoint.name}-{chunk.index}.npz", **part)
            if keep:
                parts.append(part)
    finally:
        handle.remove()
    if not keep:
        return None
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def plain(workload: Workload, checkpoints: Sequence[Checkpoint], *, keep: bool = False) -> list[Triples]:
    """The loop, once for each checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        found = [plain_loop(workload, entry, Path(folder), keep=keep) for entry in checkpoints]
    return [triples for triples in found if triples is not None]


@torch.inference_mode()
def bare_model(workload: Workload) -> None:
    """The model and nothing else, for the rate that bounds the plain loop."""
    for chunk in workload.chunks():
        for batch in chunk.batches:
            workload.subject.model(batch.tokens.to(workload.device), use_cache=False)


# ---- do they agree --------------------------------------------------------------------------------------


def differences(mine: Triples, other: Triples, latent_count: int) -> dict[str, float]:
    """Share of the firings that only one side has, and the largest difference among the common ones."""
    codes = [side["token"].astype(np.int64) * latent_count + side["latent"] for side in (mine, other)]
    common, left, right = np.intersect1d(*codes, assume_unique=True, return_indices=True)
    scale = float(np.abs(other["value"]).max())
    apart = np.abs(mine["value"][left] - other["value"][right])
    return {
        "only_one_side": 1 - 2 * len(common) / (len(codes[0]) + len(codes[1])),
        "largest": float(apart.max()) / scale,
        "firings": float(len(codes[0])),
    }


def refuse_disagreement(gaps: Sequence[dict[str, float]]) -> None:
    """No ratio between two programs that keep different things."""
    for gap in gaps:
        if not (gap["only_one_side"] <= TOLERANCE and gap["largest"] <= TOLERANCE and gap["firings"]):
            sys.exit(f"the two sides disagree by more than {TOLERANCE}, so there is no ratio: {gap}")
