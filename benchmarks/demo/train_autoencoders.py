"""Train the demo's autoencoders on the demo subject, reading the subject's training text.

    python benchmarks/demo/train_autoencoders.py --tokens 10000000

The six are trained at once on the same batches and written to `autointerp/demo/checkpoints`. The text is
the token stream that `train_subject.py` left in `benchmarks/demo/build`: sources of installed packages, never
the standard library, which is held out. A killed run continues when started again.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from train_subject import held_out_contexts
from transformers import PreTrainedTokenizerFast

from autointerp.checkpoints.load import load_checkpoint
from autointerp.subject.subject_model import SubjectModel
from autointerp.training.export import write_trained
from autointerp.training.options import TrainingOptions
from autointerp.training.quality import sample_quality
from autointerp.training.trainer import RunSettings, TrainedAutoencoder, TrainingProgress, train_autoencoders

HERE = Path(__file__).resolve().parent
DEMO = HERE.parents[1] / "autointerp" / "demo"
SITE = "blocks.4.hook_resid_post"
CONTEXT = 128
BATCH_CONTEXTS = 32
CHUNK_CONTEXTS = 256
BEGIN = 0
DTYPE = torch.bfloat16

log = logging.getLogger("train_autoencoders")


@dataclass(frozen=True)
class Recipe:
    """One checkpoint of the demo: how it is trained, and in which format it is shipped."""

    name: str
    format: Literal["openai", "saelens", "sparsify", "dictionary_learning"]
    options: TrainingOptions


def recipes(tokens: int) -> tuple[Recipe, ...]:
    """The demo's set. sparsify and dictionary_learning hold no per-token normalisation: raw activations."""

    def topk(latents: int, k: int) -> TrainingOptions:
        return TrainingOptions(latents, k=k, token_budget=tokens)

    multi = TrainingOptions(
        2048,
        architecture="multi_topk",
        k=16,
        normalization="none",
        token_budget=tokens,
    )
    relu = [
        TrainingOptions(
            1024,
            architecture="relu",
            l1_coefficient=coefficient,
            normalization="none",
            token_budget=tokens,
        )
        for coefficient in RELU_L1_COEFFICIENTS
    ]
    return (
        Recipe("topk-1024-k8", "openai", topk(1024, 8)),
        Recipe("topk-1024-k32", "saelens", topk(1024, 32)),
        Recipe("topk-4096-k8", "saelens", topk(4096, 8)),
        Recipe("topk-4096-k32", "openai", topk(4096, 32)),
        Recipe("multi-topk-2048-k16", "sparsify", multi),
        *(Recipe(RELU_NAME, "dictionary_learning", options) for options in relu),
    )


RELU_NAME = "relu-1024"
RELU_L1_COEFFICIENTS = (0.13, 0.2)
"""An L1 penalty cannot ask for an L0: all are trained, the one nearest to `RELU_L0` is shipped."""
RELU_L0 = 24.0


class Batch(NamedTuple):
    """Contexts without padding."""

    tokens: Tensor
    attention_mask: Tensor


class Chunk(NamedTuple):
    """What the trainer asks of a chunk."""

    batches: tuple[Batch, ...]


def as_chunk(contexts: Tensor) -> Chunk:
    """Cut contexts into batches."""
    return Chunk(
        tuple(Batch(part, torch.ones_like(part, dtype=torch.bool)) for part in contexts.split(BATCH_CONTEXTS))
    )


@dataclass(frozen=True)
class TokenStream:
    """The subject's training text as windows in random order, each behind one beginning-of-text token."""

    path: Path
    seed: int = 0

    def __call__(self) -> Iterator[Chunk]:
        """All chunks, from the first, the same each time."""
        stream = np.memmap(self.path, dtype=np.uint16, mode="r")
        windows = stream[: len(stream) // (CONTEXT - 1) * (CONTEXT - 1)].reshape(-1, CONTEXT - 1)
        order = np.random.default_rng([self.seed, 1]).permutation(len(windows))
        for start in range(0, len(order), CHUNK_CONTEXTS):
            text = windows[np.sort(order[start : start + CHUNK_CONTEXTS])].astype(np.int64)
            contexts = np.insert(text, 0, BEGIN, axis=1)
            yield as_chunk(torch.from_numpy(contexts))


def standard_library_activations(subject: SubjectModel, contexts: int) -> Tensor:
    """Activations on held-out text, without those of the beginning-of-text token."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DEMO / "subject")
    chunk = as_chunk(held_out_contexts(tokenizer, contexts, CONTEXT))
    read = [subject.read(batch.tokens, [SITE])[SITE][:, 1:].flatten(0, 1).float() for batch in chunk.batches]
    return torch.cat(read)


def report(progress: TrainingProgress) -> None:
    """Log where the run stands."""
    terms = (
        f"{name} " + " ".join(f"{term}={value:.4g}" for term, value in losses.items())
        for name, losses in progress.losses.items()
    )
    left = (progress.token_budget - progress.tokens) / progress.tokens_per_second / 60
    log.info(
        "%d/%d tokens, %.0f tokens/s, %.1f min left\n  %s",
        progress.tokens,
        progress.token_budget,
        progress.tokens_per_second,
        left,
        "\n  ".join(terms),
    )


def byte_count(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return sum(
        each.stat().st_size for each in (path.rglob("*") if path.is_dir() else [path]) if each.is_file()
    )


def export(recipe: Recipe, trained: TrainedAutoencoder, folder: Path, held_out: Tensor) -> dict[str, object]:
    """Write one checkpoint, read it back, and return its record with figures of what was read back."""
    path = folder / (f"{recipe.name}.pt" if recipe.format == "openai" else recipe.name)
    write_trained(trained, path, format=recipe.format, dtype=DTYPE)
    stored = sample_quality(load_checkpoint(path), held_out)._asdict()
    exact = sample_quality(trained.sae, held_out)
    log.info("%s: %s (float32: %s)", recipe.name, stored, exact.normalized_mse)
    return {
        **trained.record,
        "name": recipe.name,
        "file": path.name,
        "format": recipe.format,
        "stored_dtype": str(DTYPE).removeprefix("torch."),
        "bytes": byte_count(path),
        "held_out_standard_library": stored,
        "normalized_mse_before_rounding": exact.normalized_mse,
    }


def chosen_relu(pairs: list[tuple[Recipe, TrainedAutoencoder]]) -> list[tuple[Recipe, TrainedAutoencoder]]:
    """Of the ReLU candidates keep the one whose held-out L0 is nearest to the wanted one, by ratio."""

    def distance(pair: tuple[Recipe, TrainedAutoencoder]) -> float:
        return abs(math.log(max(pair[1].record["held_out"]["l0"], 0.01) / RELU_L0))

    candidates = [pair for pair in pairs if pair[0].name == RELU_NAME]
    for recipe, trained in candidates:
        log.info("%s with %g: %s", recipe.name, recipe.options.l1_coefficient, trained.record["held_out"])
    return [pair for pair in pairs if pair not in candidates] + sorted(candidates, key=distance)[:1]


def replace_checkpoints(
    chosen: list[tuple[Recipe, TrainedAutoencoder]], subject: SubjectModel, target: Path
) -> None:
    """Write the whole set beside the old one, then move it into its place."""
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    held_out = standard_library_activations(subject, 1000)
    records = [export(recipe, trained, partial, held_out) for recipe, trained in chosen]
    subject_record = json.loads((DEMO / "subject" / "training.json").read_text(encoding="utf-8"))
    everything = {
        "subject": {"tokens": subject_record["tokens"], "sha256": subject.sha256},
        "text": "benchmarks/demo/build/tokens.uint16, made by benchmarks/demo/train_subject.py",
        "held_out_standard_library": "1000 contexts, the beginning-of-text token left out",
        "written": time.strftime("%Y-%m-%d", time.gmtime()),
        "total_bytes": sum(record["bytes"] for record in records),
        "checkpoints": records,
    }
    (partial / "training.json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    log.info("%d bytes in all", everything["total_bytes"])


def main() -> None:
    """Train the set, or some of it, and write it."""
    parser = argparse.ArgumentParser(description="Train the demo's autoencoders.")
    parser.add_argument("--build", type=Path, default=HERE / "build")
    parser.add_argument("--out", type=Path, default=DEMO / "checkpoints")
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument(
        "--only", nargs="*", default=[], help="names of the checkpoints to train; default: all"
    )
    parser.add_argument("--state", type=Path, default=HERE / "build" / "autoencoders", help="for resuming")
    parser.add_argument("--workers", type=int, default=2, help="threads, each with one torch thread")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    subject = SubjectModel.load(DEMO / "subject")
    subject.name = "demo"  # what the checkpoints say of their subject
    chosen = [recipe for recipe in recipes(given.tokens) if not given.only or recipe.name in given.only]
    trained = train_autoencoders(
        subject,
        SITE,
        TokenStream(given.build / "tokens.uint16"),
        [recipe.options for recipe in chosen],
        given.state,
        settings=RunSettings(context_length=CONTEXT, prepend_bos=True, workers=given.workers),
        progress=report,
    )
    replace_checkpoints(chosen_relu(list(zip(chosen, trained, strict=True))), subject, given.out)


if __name__ == "__main__":
    main()
