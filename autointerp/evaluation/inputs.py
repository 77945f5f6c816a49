"""What a suite names -> opened, checked and described; nothing is computed here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autointerp import __version__
from autointerp.checkpoints.load import read_checkpoint
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.config import CorpusSection, CurvePoint, SubjectSection, Suite
from autointerp.demo import demo_checkpoint, demo_curve, demo_subject
from autointerp.errors import CheckpointError, SuiteError
from autointerp.records import CheckpointSummary
from autointerp.sampling.contexts import ContextOptions
from autointerp.sampling.corpus import open_corpus
from autointerp.sampling.readings import Checkpoint
from autointerp.subject.subject_model import SubjectModel

__all__ = [
    "Measurable",
    "context_options",
    "identity_of",
    "in_memory",
    "loaded_subject",
    "opened_checkpoints",
    "opened_corpus",
    "refuse_misfit",
    "summary_of",
    "with_demo_curve",
]


@dataclass(frozen=True, eq=False)
class Measurable:
    """A dictionary ready to be measured, with what the report says of it."""

    checkpoint: Checkpoint
    summary: CheckpointSummary


def context_options(corpus: CorpusSection) -> ContextOptions:
    """How documents become contexts, out of the suite's section."""
    return ContextOptions(
        context_length=corpus.context_length,
        prepend_bos=corpus.prepend_bos,
        packing=corpus.packing,
        drop_remainder=corpus.drop_remainder,
        max_contexts_per_document=corpus.max_contexts_per_document,
        chat_template=corpus.chat_template,
    )


def with_demo_curve(suite: Suite) -> Suite:
    """The embedded subject brings the losses of its family, unless the suite gives others."""
    if suite.subject.model != "demo" or suite.metrics.compute_curve:
        return suite
    points = tuple(CurvePoint(flops=flops, loss_nats=loss) for flops, loss in demo_curve())
    return suite.model_copy(update={"metrics": suite.metrics.model_copy(update={"compute_curve": points})})


def opened_checkpoints(suite: Suite) -> list[Measurable]:
    """Every checkpoint of the suite, read and described.

    Raises:
        SuiteError: the suite names none.
        CheckpointError: one cannot be used; the message says which and why.
    """
    if not suite.checkpoints:
        raise SuiteError(
            "the suite names no checkpoint",
            where=suite.name,
            remedy="add [[checkpoints]] or --checkpoint PATH",
        )
    return [
        _opened(entry.path, entry.name or entry.path, entry.site or suite.site) for entry in suite.checkpoints
    ]


def _opened(path: str, name: str, site: str | None) -> Measurable:
    location = demo_checkpoint(path.removeprefix("demo:")) if path.startswith("demo:") else Path(path)
    loaded = read_checkpoint(location)
    sae = loaded.sae
    summary = CheckpointSummary(
        name=name,
        path=path if path.startswith("demo:") else location.name,
        sha256=loaded.sha256,
        format=loaded.format,
        architecture=loaded.architecture,
        latent_count=sae.latent_count,
        d_model=sae.d_model,
        site=_site_of(sae, site, where=path),
        role="checkpoint",
        normalization=loaded.normalization,
        notes=(*sae.metadata.notes, *_absent_note(loaded.missing)),
    )
    return Measurable(Checkpoint(name, sae, summary.site), summary)


def in_memory(name: str, sae: SparseAutoencoder, suite: Suite) -> Measurable:
    """A dictionary that was never on disk.

    Raises:
        CheckpointError: neither it nor the suite says where it attaches.
    """
    site = _site_of(sae, suite.site, where=name)
    return Measurable(Checkpoint(name, sae, site), summary_of(name, sae, site, role="checkpoint"))


def summary_of(name: str, sae: SparseAutoencoder, site: str, *, role: str) -> CheckpointSummary:
    """What the report says of a dictionary that has no file: one in memory, or a null."""
    return CheckpointSummary(
        name=name,
        path="",
        sha256="",
        format="in memory",
        architecture=sae.activation.describe(),
        latent_count=sae.latent_count,
        d_model=sae.d_model,
        site=site,
        role=role,
        normalization=sae.normalization.describe(),
        notes=sae.metadata.notes,
    )


def _site_of(sae: SparseAutoencoder, given: str | None, *, where: str) -> str:
    site = given or sae.metadata.site
    if site is None:
        raise CheckpointError(
            "does not say where it attaches",
            where=where,
            remedy="give `site` in the suite, e.g. blocks.8.hook_resid_post",
        )
    return site


def _absent_note(missing: Sequence[str]) -> list[str]:
    return [f"the file does not say: {', '.join(missing)}"] if missing else []


def opened_corpus(section: CorpusSection) -> Any:
    """The text that the suite names.

    Raises:
        CorpusError: it is not there or cannot be read.
    """
    return open_corpus(
        kind=section.kind,
        path=section.path,
        text_field=section.text_field,
        config=section.config,
        split=section.split,
        revision=section.revision,
    )


def loaded_subject(section: SubjectSection) -> SubjectModel:
    """The language model that the suite names, on its device.

    Raises:
        SubjectError: it cannot be loaded.
    """
    device = section.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    name = str(demo_subject()) if section.model == "demo" else section.model
    return SubjectModel.load(
        name, revision=section.revision, dtype=getattr(torch, section.dtype), device=device
    )


def identity_of(
    suite: Suite, subject: SubjectModel, entries: Sequence[Measurable], corpus: Any
) -> dict[str, Any]:
    """All that the numbers depend on; a run directory holds one such thing."""
    settings = suite.model_dump(mode="json", exclude={"checkpoints"})
    settings["subject"].pop("model")
    settings["corpus"].pop("path")
    return {
        "suite": settings,
        "subject": subject.sha256,
        "checkpoints": {entry.summary.name: [entry.summary.sha256, entry.summary.site] for entry in entries},
        "corpus": corpus.fingerprint(),
        "device": subject.device.type,
        "autointerp": __version__,
        "torch": torch.__version__,
    }


def refuse_misfit(entry: Measurable, subject: SubjectModel) -> None:
    """Stop before any number is computed if a dictionary has another width than its site.

    Raises:
        CheckpointError: it has.
        SiteError: the subject has no such site.
    """
    site, width = entry.summary.site, subject.width(entry.summary.site)
    if width != entry.summary.d_model:
        raise CheckpointError(
            f"has width {entry.summary.d_model}, the site {site} of {subject.name} has {width}",
            where=entry.summary.name,
            remedy="give the subject and site that it was trained on",
        )
