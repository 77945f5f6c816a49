"""What a suite names -> opened, checked and described; nothing is computed here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from autointerp import __version__
from autointerp.checkpoints.load import read_checkpoint
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.config import CheckpointSection, CorpusSection, CurvePoint, SubjectSection, Suite
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
    "placed",
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
        special_tokens=corpus.special_tokens,
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
    return [_opened(entry, suite) for entry in suite.checkpoints]


def _opened(entry: CheckpointSection, suite: Suite) -> Measurable:
    path, name = entry.path, entry.name or entry.path
    location = demo_checkpoint(path.removeprefix("demo:")) if path.startswith("demo:") else Path(path)
    loaded = read_checkpoint(location)
    sae = loaded.sae
    site = _site_of(sae, suite.site, given=entry.site, where=path)
    summary = CheckpointSummary(
        name=name,
        path=path if path.startswith("demo:") else location.name,
        sha256=loaded.sha256,
        format=loaded.format,
        architecture=loaded.architecture,
        latent_count=sae.latent_count,
        d_model=sae.d_model,
        site=site,
        role="checkpoint",
        normalization=loaded.normalization,
        notes=(*sae.metadata.notes, *_absent_note(loaded.missing), *_contradictions(sae, site, suite)),
    )
    return Measurable(Checkpoint(name, sae, site), summary)


def _contradictions(sae: SparseAutoencoder, site: str, suite: Suite) -> list[str]:
    """Where the run differs from what the checkpoint says of its training."""
    said, corpus = sae.metadata, suite.corpus
    notes = []
    if said.site not in (None, site):
        notes.append(f"measured at {site}, as the suite says; the checkpoint says {said.site}")
    if said.context_length not in (None, corpus.context_length):
        notes.append(
            f"trained on contexts of {said.context_length} tokens, measured on {corpus.context_length}"
        )
    if said.prepend_bos not in (None, corpus.prepend_bos):
        words = {True: "with", False: "without"}
        trained, measured = words[bool(said.prepend_bos)], words[corpus.prepend_bos]
        notes.append(f"trained {trained} a beginning-of-text token, measured {measured}")
    return notes


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


def _site_of(sae: SparseAutoencoder, default: str | None, *, given: str | None = None, where: str) -> str:
    """The site given for this very checkpoint, else what it says itself, else the suite's."""
    site = given or sae.metadata.site or default
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
        separator=section.separator,
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
    subject = SubjectModel.load(
        name, revision=section.revision, dtype=getattr(torch, section.dtype), device=device
    )
    if section.model == "demo":
        subject.name = "demo"  # its folder's name says nothing
    return subject


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


def placed(entry: Measurable, subject: SubjectModel) -> Measurable:
    """The dictionary on the subject's device, its site under the one name that all aliases share.

    Raises:
        CheckpointError: its width is not the site's.
        SiteError: the subject has no such site.
    """
    site = subject.canonical_site(entry.summary.site)
    width = subject.width(site)
    if width != entry.summary.d_model:
        raise CheckpointError(
            f"has width {entry.summary.d_model}, the site {site} of {subject.name} has {width}",
            where=entry.summary.name,
            remedy="give the subject and site that it was trained on",
        )
    checkpoint = Checkpoint(entry.summary.name, entry.checkpoint.sae.to(subject.device), site)
    return Measurable(checkpoint, replace(entry.summary, site=site))
