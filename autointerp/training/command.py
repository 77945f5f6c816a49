"""From the words of `autointerp train` to a checkpoint on disk: one autoencoder on one site."""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from autointerp.atomic_files import reported
from autointerp.checkpoints.activation_functions import ReLU
from autointerp.checkpoints.input_normalization import InputNormalization
from autointerp.checkpoints.load import write_checkpoint
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.checkpoints.topk_functions import TopK
from autointerp.errors import BadInputError
from autointerp.progress import SILENT, Progress
from autointerp.sampling.contexts import ContextOptions, CorpusChunk, corpus_chunks, describe_contexts
from autointerp.sampling.corpus import Corpus, open_corpus
from autointerp.subject.subject_model import SubjectModel
from autointerp.training.export import write_record
from autointerp.training.options import Architecture, TrainingOptions
from autointerp.training.trainer import (
    RunSettings,
    TrainedAutoencoder,
    TrainingProgress,
    train_autoencoders,
)

__all__ = ["corpus_kind", "normalization_for", "train_checkpoint"]

_CHUNK_TOKENS = 32_768
_BATCH_TOKENS = 4096
_SUFFIX_KINDS = {".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}


def train_checkpoint(  # noqa: PLR0913 - one argument per flag of the verb
    *,
    subject: str,
    site: str,
    out: Path,
    corpus: str,
    kind: str,
    architecture: Architecture,
    latent_count: int,
    k: int,
    l1_coefficient: float,
    token_count: int,
    context_length: int,
    form: str,
    seed: int,
    device: str,
    text_field: str = "text",
    separator: str | None = None,
    revision: str | None = None,
    prepend_bos: bool = True,
    progress: Progress = SILENT,
) -> dict[str, Any]:
    """Train an autoencoder and write it at `out`; a run that was stopped goes on when called again.

    Beside the checkpoint lies `<out>.training.json`, the record that is also returned; while training lasts,
    `<out>.state/` holds what resuming needs. `k` counts for TopK and Multi-TopK only, `l1_coefficient`
    for ReLU only; `text_field` for kinds with fields, `separator` for `text` only,
    `revision` for `datasets` only.

    Raises:
        BadInputError: something is at `out` already, the options cannot be trained, or `<out>.state/` holds
            work on another text or with other options.
        CheckpointError: the format cannot hold this kind of autoencoder (said before training).
        SubjectError: the subject cannot be loaded or has no such site.
        CorpusError: there is no text, or too little.
        RunStoreError: nothing can be written there.
    """
    if out.exists():
        raise BadInputError(
            "something is there already", where=out, remedy="choose another --out or delete it"
        )
    with reported(out):  # now, and not after an hour of training
        out.parent.mkdir(parents=True, exist_ok=True)
    is_relu = architecture == "relu"
    options = TrainingOptions(
        latent_count,
        architecture,
        k=None if is_relu else k,
        l1_coefficient=l1_coefficient if is_relu else 0.0,
        normalization=normalization_for(form, architecture),
        token_budget=token_count,
        seed=seed,
    )
    _refuse_unfit_format(options, form)
    model = SubjectModel.load(subject, device=_chosen_device(device))
    texts = _opened_text(corpus, kind, text_field=text_field, separator=separator, revision=revision)
    contexts = ContextOptions(context_length=context_length, prepend_bos=prepend_bos)
    state = out.with_name(f"{out.name}.state")
    with progress.step("training", total=options.steps * options.batch_tokens, unit="tokens") as advance:
        trained = train_autoencoders(
            model,
            site,
            _chunks(texts, model, contexts),
            [options],
            state,
            settings=RunSettings(
                context_length=context_length,
                prepend_bos=prepend_bos,
                seed=seed,
                text_identity=_text_identity(texts, model, contexts),
            ),
            progress=_Advances(advance),
        )[0]
    _write(trained, out, form)
    shutil.rmtree(state)
    return trained.record


def _opened_text(
    corpus: str, kind: str, *, text_field: str, separator: str | None, revision: str | None = None
) -> Corpus:
    if kind == "auto":
        kind = corpus_kind(corpus)
    if separator == "":
        raise BadInputError("the separator is empty", where=corpus, remedy="leave it out")
    if separator is not None and kind != "text":
        raise BadInputError(
            f"a corpus of kind {kind!r} has no separator", where=corpus, remedy="leave it out"
        )
    if revision is not None and kind != "datasets":
        raise BadInputError(f"a corpus of kind {kind!r} has no revision", where=corpus, remedy="leave it out")
    return open_corpus(kind, path=corpus, text_field=text_field, separator=separator, revision=revision)


def _chunks(
    texts: Corpus, model: SubjectModel, contexts: ContextOptions
) -> Callable[[], Iterator[CorpusChunk]]:
    """Starts the text from its beginning."""
    return lambda: corpus_chunks(
        texts, model.tokenizer, contexts, batch_tokens=_BATCH_TOKENS, chunk_tokens=_CHUNK_TOKENS
    )


def _text_identity(texts: Corpus, model: SubjectModel, contexts: ContextOptions) -> str:
    """What the activations depend on, beside the subject's weights and the site."""
    described = {
        "corpus": texts.fingerprint(),
        "contexts": describe_contexts(contexts, model.tokenizer),
        "batch_tokens": _BATCH_TOKENS,
        "chunk_tokens": _CHUNK_TOKENS,
        "torch": str(torch.__version__),
        "device": model.device.type,
    }
    return json.dumps(described, sort_keys=True)


def corpus_kind(corpus: str) -> str:
    """The kind that `auto` means: by the name, by what a folder holds; what is no path is a data set."""
    if corpus == "stdlib":
        return "stdlib"
    path = Path(corpus).expanduser()
    if path.is_dir():
        suffixes = {each.suffix for each in path.rglob("*") if each.is_file()}
        return next((kind for suffix, kind in _SUFFIX_KINDS.items() if suffix in suffixes), "text")
    if path.suffix in _SUFFIX_KINDS:
        return _SUFFIX_KINDS[path.suffix]
    return "text" if path.exists() or path.suffix else "datasets"


def normalization_for(form: str, architecture: Architecture) -> Any:
    """layer_norm where the format can hold it: saelens always, openai for TopK; elsewhere raw activations."""
    holds = form == "saelens" or (form == "openai" and architecture != "relu")
    return "layer_norm" if holds else "none"


class _Advances:
    """Turns "so far" into "more"."""

    def __init__(self, advance: Any) -> None:
        self._advance, self._shown = advance, 0

    def __call__(self, progress: TrainingProgress) -> None:
        self._advance(progress.tokens - self._shown)
        self._shown = progress.tokens


def _chosen_device(device: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _refuse_unfit_format(options: TrainingOptions, form: str) -> None:
    """Write a dictionary of two latents, so that an hour of training does not end in a refusal."""
    tiny = SparseAutoencoder(
        encoder_weight=torch.eye(2),
        encoder_bias=torch.zeros(2),
        decoder_weight=torch.eye(2),
        decoder_bias=torch.zeros(2),
        pre_bias=torch.zeros(2),
        activation=ReLU() if options.k is None else TopK(1),
        normalization=InputNormalization(options.normalization),
    )
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(tiny, Path(folder) / ("sae.pt" if form == "openai" else "sae"), format=form)


def _write(trained: TrainedAutoencoder, out: Path, form: str) -> None:
    """The record, then the checkpoint in one move: what lies at `out` is whole, however this is stopped."""
    unfinished = out.with_name(f".{out.name}.unfinished")
    with reported(out):
        _remove(unfinished)
        write_checkpoint(trained.sae, unfinished, format=form)
        write_record(trained, out.with_name(f"{out.name}.training.json"))
        unfinished.rename(out)


def _remove(path: Path) -> None:
    """What an earlier run left there, file or folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
