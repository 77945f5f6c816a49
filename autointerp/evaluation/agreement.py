"""What a checkpoint says of its own training against what a run does with it: refused, or noted.

A dictionary put on another subject, or elsewhere in it, gives numbers that look like numbers. So what the
file says and the run contradicts is an error, unless the suite allows it (`checks.allow_mismatch`); lesser
differences, which may be on purpose, are notes in the report.
"""

from collections.abc import Iterator

from autointerp.checkpoints.sparse_autoencoder import CheckpointMetadata
from autointerp.config import Suite
from autointerp.errors import CheckpointError, SiteError
from autointerp.sampling.readings import Checkpoint
from autointerp.subject.sites import parse_site
from autointerp.subject.subject_model import SubjectModel

__all__ = ["agreement_notes", "is_same_subject"]

_OTHER_NAMES = {"gpt2-small": "gpt2"}
"""Names of TransformerLens that are no hub model's: it calls one model of the hub otherwise."""


def agreement_notes(checkpoint: Checkpoint, subject: SubjectModel, suite: Suite) -> tuple[str, ...]:
    """Notes for the report on where the run differs from what the checkpoint says.

    Raises:
        CheckpointError: it says another subject or site, and the suite does not allow that.
    """
    said = checkpoint.sae.metadata
    mismatches = [*_subject_mismatch(said, subject), *_site_mismatches(checkpoint, subject)]
    if mismatches and not suite.checks.allow_mismatch:
        raise CheckpointError(
            "; ".join(mismatches),
            where=checkpoint.name,
            remedy="give what it was trained on, or --allow-mismatch if the two are the same",
        )
    return (*mismatches, *_lesser_differences(said, suite))


def is_same_subject(said: str, known_names: tuple[str, ...]) -> bool:
    """Whether a checkpoint's word for its subject is one of the subject's names.

    Owners are left out (mirrors of one model have several) and so is case; `gpt2-small` is `gpt2`.
    """
    return _short(said) in {_short(name) for name in known_names}


def _short(name: str) -> str:
    last = name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
    return _OTHER_NAMES.get(last, last)


def _subject_mismatch(said: CheckpointMetadata, subject: SubjectModel) -> Iterator[str]:
    if said.subject is not None and not is_same_subject(said.subject, subject.known_names):
        yield f"says that it was trained on {said.subject!r}, the run's subject is {subject.name!r}"


def _site_mismatches(checkpoint: Checkpoint, subject: SubjectModel) -> Iterator[str]:
    said = checkpoint.sae.metadata
    output = said.output_site or (None if said.hides_output else said.site)
    for word, stated, used in (("reads", said.site, checkpoint.reads), ("predicts", output, checkpoint.site)):
        if stated is not None and _place(stated, subject) != _place(used, subject):
            yield f"says that it {word} {stated}, the run has it at {used}"
        if checkpoint.input_site is None and not checkpoint.sae.is_transcoder:
            return  # both are one place


def _place(name: str, subject: SubjectModel) -> str:
    """One spelling of a place: what a block is given is what the one before it returned."""
    try:
        name = subject.canonical_site(name)
        site = parse_site(name)
    except SiteError:
        return name
    if site.kind == "resid_pre" and site.layer:
        return f"blocks.{site.layer - 1}.hook_resid_post"
    return name


def _lesser_differences(said: CheckpointMetadata, suite: Suite) -> Iterator[str]:
    corpus = suite.corpus
    if said.context_length not in (None, corpus.context_length):
        yield f"trained on contexts of {said.context_length} tokens, measured on {corpus.context_length}"
    if said.prepend_bos not in (None, corpus.prepend_bos):
        words = {True: "with", False: "without"}
        trained, measured = words[bool(said.prepend_bos)], words[corpus.prepend_bos]
        yield f"trained {trained} a beginning-of-text token, measured {measured}"
