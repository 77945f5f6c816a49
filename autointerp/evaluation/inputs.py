"""What a suite names -> opened, checked and described; nothing is computed here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from autointerp import __version__
from autointerp.checkpoints.load import ROOM_BYTES
from autointerp.checkpoints.load import placed as on_device
from autointerp.checkpoints.sparse_autoencoder import SparseAutoencoder
from autointerp.config import CheckpointSection, CorpusSection, CurvePoint, SubjectSection, Suite
from autointerp.demo import demo_curve, demo_subject
from autointerp.errors import BadInputError, CheckpointError, SiteError, SuiteError
from autointerp.evaluation.agreement import agreement_notes
from autointerp.evaluation.sources import Source, find_sources
from autointerp.progress import SILENT, Progress
from autointerp.records import CheckpointSummary
from autointerp.sampling.contexts import ContextOptions
from autointerp.sampling.corpus import open_corpus
from autointerp.sampling.readings import Checkpoint
from autointerp.subject.subject_model import SubjectModel

__all__ = [
    "Measurable",
    "computing",
    "context_options",
    "identity_of",
    "in_memory",
    "loaded_subject",
    "opened_checkpoints",
    "opened_corpus",
    "placed",
    "placed_all",
    "refuse_all",
    "summary_of",
    "with_demo_curve",
]

_LAYOUT = 2
"""Of the shards that a pass leaves. Raised by one when a shard gets other columns or another meaning, so that
what an older version began is refused in words and not misread."""
_MOST_SAID = 8
_ROOM_FOR_ALL = 4 * 2**30
"""Bytes of all checkpoints' matrices that are held in memory; beyond, those of a long sweep stay in files."""


@dataclass(frozen=True, eq=False)
class Measurable:
    """A dictionary ready to be measured, with what the report says of it."""

    checkpoint: Checkpoint
    summary: CheckpointSummary
    mapped: tuple["FileState", ...] = ()
    """Of files that the dictionary reads its weights from while the run goes."""

    def check_unchanged(self) -> None:
        """Refuse to go on with weights that are no longer those whose hash the report has.

        Raises:
            CheckpointError: a file was written to, replaced or taken away.
        """
        for state in self.mapped:
            if FileState.of(state.path) != state:
                raise CheckpointError(
                    "was changed while the run read its weights from it",
                    where=self.summary.name,
                    remedy="leave large checkpoints alone during a run, and begin anew in another --out",
                )


def refuse_all(errors: Sequence[BadInputError], *, of: int) -> None:
    """Say of all checkpoints that cannot be used why, so that nobody has to find out one after the other.

    Raises:
        BadInputError: there is one.
    """
    if len(errors) == 1:
        raise errors[0]
    if errors:
        each = " | ".join(str(error) for error in errors[:_MOST_SAID])
        more = f" | and {len(errors) - _MOST_SAID} more" if len(errors) > _MOST_SAID else ""
        raise CheckpointError(f"{len(errors)} of {of} checkpoints cannot be used: {each}{more}")


class FileState(NamedTuple):
    """What changes when a file does."""

    path: Path
    byte_count: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> "FileState | None":
        """Of a file as it is now; None where there is none."""
        try:
            found = path.stat()
        except OSError:
            return None
        return cls(path, found.st_size, found.st_mtime_ns, found.st_ino)


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


def opened_checkpoints(suite: Suite, *, progress: Progress = SILENT) -> list[Measurable]:
    """Every checkpoint of the suite, found, read and described.

    Raises:
        SuiteError: the suite names none, or two would have one name.
        CheckpointError: one cannot be used; the message says which and why.
    """
    if not suite.checkpoints:
        raise SuiteError(
            "the suite names no checkpoint",
            where=suite.name,
            remedy="add [[checkpoints]] or --checkpoint PATH",
        )
    opened: list[Measurable] = []
    unusable: list[BadInputError] = []
    room = _ROOM_FOR_ALL
    for entry in suite.checkpoints:
        for source in find_sources(entry.path, name=entry.name, progress=progress):
            try:
                opened.append(_opened(source, entry, suite, room=min(room, ROOM_BYTES)))
            except BadInputError as error:
                unusable.append(error)
                continue
            held = opened[-1].checkpoint.sae.matrix_bytes(torch.float32)
            room -= held if held <= min(room, ROOM_BYTES) else 0
    refuse_all(unusable, of=len(opened) + len(unusable))
    names = [entry.summary.name for entry in opened]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SuiteError(
            f"two checkpoints are called {twice[0]!r}", where=suite.name, remedy="give one a `name`"
        )
    return opened


def _opened(source: Source, entry: CheckpointSection, suite: Suite, *, room: int) -> Measurable:
    loaded = source.read(room)
    if loaded.sae.metadata.hides_output and entry.output_site is None:
        raise CheckpointError(
            "is a transcoder and does not say what it predicts",
            where=source.shown,
            remedy="give `output_site` in the suite, e.g. blocks.8.hook_mlp_out",
        )
    checkpoint = _attached(
        source.name,
        loaded.sae,
        suite.site,
        site=entry.site,
        output_site=entry.output_site,
        where=source.shown,
    )
    summary = replace(
        summary_of(source.name, loaded.sae, checkpoint, role="checkpoint"),
        path=source.shown,
        sha256=loaded.sha256,
        format=loaded.format,
        notes=(*source.notes, *loaded.sae.metadata.notes, *_absent_note(loaded.missing)),
    )
    states = tuple(filter(None, map(FileState.of, loaded.files))) if loaded.sae.is_streamed else ()
    return Measurable(checkpoint, summary, states)


def in_memory(name: str, sae: SparseAutoencoder, suite: Suite) -> Measurable:
    """A dictionary that was never on disk.

    Raises:
        CheckpointError: neither it nor the suite says where it attaches.
    """
    if not isinstance(name, str) or not name:
        raise CheckpointError("an autoencoder's name is no text", where=repr(name), remedy="name it")
    if not isinstance(sae, SparseAutoencoder):
        raise CheckpointError(f"is a {type(sae).__name__}, no SparseAutoencoder", where=name)
    checkpoint = _attached(name, sae, suite.site, where=name)
    return Measurable(checkpoint, summary_of(name, sae, checkpoint, role="checkpoint"))


def summary_of(name: str, sae: SparseAutoencoder, checkpoint: Checkpoint, *, role: str) -> CheckpointSummary:
    """What the report says of a dictionary that has no file: one in memory, or a null."""
    return CheckpointSummary(
        name=name,
        path="",
        sha256="",
        format="in memory",
        architecture=sae.architecture,
        latent_count=sae.latent_count,
        d_model=sae.d_model,
        site=checkpoint.site,
        role=role,
        normalization=sae.normalization.describe(),
        notes=sae.metadata.notes,
        input_site=checkpoint.input_site,
    )


def _attached(
    name: str,
    sae: SparseAutoencoder,
    default: str | None,
    *,
    where: str,
    site: str | None = None,
    output_site: str | None = None,
) -> Checkpoint:
    """The sites given for this very checkpoint, else what it says itself, else the suite's."""
    reads = site or sae.metadata.site or default
    if reads is None:
        raise CheckpointError(
            "does not say where it attaches",
            where=where,
            remedy="give `site` in the suite, e.g. blocks.8.hook_resid_post",
        )
    # A transcoder moved to another input keeps nothing of what its file says of the output.
    judged = output_site or (sae.metadata.output_site if site in (None, sae.metadata.site) else None) or reads
    return Checkpoint(name, sae, judged, None if judged == reads else reads)


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
        name,
        revision=section.revision,
        dtype="auto" if section.dtype == "auto" else getattr(torch, section.dtype),
        device=device,
        device_map=section.device_map,
        quantization=section.quantization,
    )
    if section.model == "demo":
        subject.name = "demo"  # its folder's name says nothing
    return subject


def identity_of(
    suite: Suite, subject: SubjectModel, entries: Sequence[Measurable], corpus: Any
) -> dict[str, Any]:
    """All that the numbers depend on; a run directory holds one such thing."""
    # Explanations are made anew of what the pass left, so that a finished run can be given an LLM.
    settings = suite.model_dump(mode="json", exclude={"checkpoints", "explanations", "llm"})
    settings["subject"].pop("model")
    settings["corpus"].pop("path")
    if corpus.revision:
        # Named or not, the same commit is the same text: so a run whose data set has moved on can be resumed.
        settings["corpus"]["revision"] = corpus.revision
    return {
        "suite": settings,
        "subject": subject.sha256,
        "checkpoints": {entry.summary.name: _identity(entry.summary) for entry in entries},
        "corpus": corpus.fingerprint(),
        "device": subject.device.type,
        "autointerp": __version__,
        "layout": _LAYOUT,
        "torch": torch.__version__,
    }


def placed_all(entries: Sequence[Measurable], subject: SubjectModel, suite: Suite) -> list[Measurable]:
    """`placed` for each; what cannot be is said of all at once."""
    found, unusable = [], []
    for entry in entries:
        try:
            found.append(placed(entry, subject, suite))
        except BadInputError as error:
            unusable.append(error)
    refuse_all(unusable, of=len(entries))
    return found


def _identity(summary: CheckpointSummary) -> list[str]:
    return [summary.sha256, summary.site, *([summary.input_site] if summary.input_site else [])]


def placed(entry: Measurable, subject: SubjectModel, suite: Suite) -> Measurable:
    """The dictionary where its site is, under the one name that all aliases of that share, and checked.

    Raises:
        CheckpointError: its width is not the site's, or it says that it belongs elsewhere.
        SiteError: the subject has no such site.
    """
    given = entry.checkpoint
    try:
        site, reads = subject.canonical_site(given.site), subject.canonical_site(given.reads)
    except SiteError as error:
        raise SiteError(error.what, where=f"{given.name}, {error.where}", remedy=error.remedy) from error
    for name, width in ((reads, given.sae.d_model), (site, given.sae.d_out)):
        if subject.width(name) != width:
            raise CheckpointError(
                f"has width {width}, the site {name} of {subject.name} has {subject.width(name)}",
                where=given.name,
                remedy="give the subject and site that it was trained on",
            )
    notes = agreement_notes(given, subject, suite)
    input_site = None if reads == site else reads
    at_home = given.sae.device == subject.device
    sae = computing(given.sae if at_home else on_device(given.sae, device=subject.device), suite)
    checkpoint = Checkpoint(given.name, sae, site, input_site)
    summary = replace(entry.summary, site=site, input_site=input_site, notes=(*entry.summary.notes, *notes))
    return replace(entry, checkpoint=checkpoint, summary=summary)


def computing(sae: SparseAutoencoder, suite: Suite) -> SparseAutoencoder:
    """The dictionary in the precision that the suite asks for, if that is not the usual one."""
    if suite.dictionary_dtype == "float32":
        return sae
    return on_device(sae, device=sae.device, dtype=getattr(torch, suite.dictionary_dtype))
