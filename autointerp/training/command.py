"""What `autointerp train` asks for -> a trained checkpoint on disk, with its record beside it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from autointerp.errors import BadInputError
from autointerp.progress import SILENT, Progress
from autointerp.sampling.contexts import ContextOptions, corpus_chunks
from autointerp.sampling.corpus import Corpus, open_corpus
from autointerp.subject.subject_model import SubjectModel
from autointerp.training.export import write_record, write_trained
from autointerp.training.options import TrainingOptions
from autointerp.training.trainer import RunSettings, TrainedAutoencoder, TrainingProgress, train_autoencoders

__all__ = ["TrainingRequest", "train_checkpoint"]

_RAW_FORMATS = ("sparsify", "dictionary_learning")
_CHUNK_TOKENS = 16_384
_KIND_OF_SUFFIX = {".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True)
class TrainingRequest:
    """The command line's choices; what is not here keeps `TrainingOptions`' defaults."""

    subject: str
    site: str
    out: Path
    corpus: str = "stdlib"
    kind: str = "auto"
    architecture: Literal["topk", "multi_topk", "relu"] = "topk"
    latent_count: int = 1024
    k: int = 32
    l1_coefficient: float = 5e-3
    token_count: int = 2_000_000
    context_length: int = 64
    form: Literal["openai", "saelens", "sparsify", "dictionary_learning"] = "saelens"
    seed: int = 0
    device: str = "auto"


def train_checkpoint(request: TrainingRequest, *, progress: Progress = SILENT) -> dict[str, Any]:
    """Train, write the checkpoint and its record, and return what is worth printing.

    The checkpoint lands at `out` (a `.pt` file for `openai`, else a folder), the record at
    `<out>.training.json`, the state that a killed run goes on from in `<out>.state/`, removed at the end.

    Raises:
        BadInputError: the subject, the text, the options or the target cannot be used.
    """
    _refuse_existing(request.out)
    options = _options(request)
    corpus = _corpus(request)
    device = request.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    subject = SubjectModel.load(request.subject, device=device)
    state = request.out.with_name(request.out.name + ".state")
    with progress.step("training", total=options.token_budget, unit="token") as advance:
        [trained] = train_autoencoders(
            subject,
            request.site,
            partial(_chunks, corpus, subject, request.context_length),
            [options],
            state,
            settings=RunSettings(context_length=request.context_length, prepend_bos=True, seed=request.seed),
            progress=_teller(advance),
        )
    return _written(trained, request, state)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise BadInputError("already exists", where=out, remedy="name another --out, or move it away")


def _options(request: TrainingRequest) -> TrainingOptions:
    is_relu = request.architecture == "relu"
    is_raw = request.form in _RAW_FORMATS or (request.form == "openai" and is_relu)
    return TrainingOptions(
        latent_count=request.latent_count,
        architecture=request.architecture,
        k=None if is_relu else request.k,
        l1_coefficient=request.l1_coefficient if is_relu else 0.0,
        normalization="none" if is_raw else "layer_norm",
        token_budget=request.token_count,
        seed=request.seed,
    )


def _corpus(request: TrainingRequest) -> Corpus:
    kind = request.kind
    if kind == "auto":
        suffix = Path(request.corpus).suffix
        kind = "stdlib" if request.corpus == "stdlib" else _KIND_OF_SUFFIX.get(suffix, "text")
    return open_corpus(kind=kind, path=None if kind == "stdlib" else request.corpus)


def _chunks(corpus: Corpus, subject: SubjectModel, context_length: int) -> Any:
    options = ContextOptions(context_length=context_length)
    return corpus_chunks(corpus, subject.tokenizer, options, batch_tokens=2048, chunk_tokens=_CHUNK_TOKENS)


def _teller(advance: Callable[[float], None]) -> Callable[[TrainingProgress], None]:
    told = 0

    def tell(where: TrainingProgress) -> None:
        nonlocal told
        advance(where.tokens - told)
        told = where.tokens

    return tell


def _written(trained: TrainedAutoencoder, request: TrainingRequest, state: Path) -> dict[str, Any]:
    write_trained(trained, request.out, format=request.form)
    write_record(trained, request.out.with_name(request.out.name + ".training.json"))
    for file in state.iterdir():
        file.unlink()
    state.rmdir()
    return {"checkpoint": str(request.out), "format": request.form, **trained.record["held_out"]}
