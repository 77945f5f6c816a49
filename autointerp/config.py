"""The suite: what a run measures, on which checkpoints, with which choices. Read from TOML.

Every choice that a number depends on stands here, with its default, and is written, resolved, to the
run directory. An unknown key is an error that names the nearest ones.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from autointerp.errors import SuiteError
from autointerp.suite_paths import absolute_path, resolved_model, stands_for_others
from autointerp.toml_text import toml_text

__all__ = [
    "CheckSection",
    "CheckpointSection",
    "CorpusSection",
    "CurvePoint",
    "EstimateSection",
    "MetricSection",
    "NullSection",
    "RuntimeSection",
    "SubjectSection",
    "Suite",
    "load_suite",
    "suite_from_mapping",
    "suite_toml",
]

FAMILIES = ("reconstruction", "downstream")
_WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors", ".npz")

# NumPy and torch take seeds of different widths; below this one all of them agree.
_SEEDS = 2**31


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path cannot hold a NUL character")
    return path


_Location = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class SubjectSection(_Section):
    """The language model under study."""

    model: _Location
    """A local folder (relative to the suite file), a hub name, or `demo`, which is always the embedded one: a
    folder of that name is written `./demo`."""
    revision: str | None = None
    """Of a hub model: pins it."""
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "float32"
    """What the subject computes in; `auto`: the type that it is stored in. Statistics are always accumulated
    in float64."""
    device: str = "auto"
    """`auto` takes a GPU if there is one."""
    device_map: Literal["auto"] | dict[str, str | int] | None = None
    """Spreads the subject over devices, or leaves weights off them until they are used: `auto`, or from paths
    of modules to devices; needs the package `accelerate`. `device` then says nothing."""
    quantization: str | dict[str, Any] | None = None
    """Quantises the subject while it is loaded: `bitsandbytes-4bit`, `bitsandbytes-8bit`, or a table as a
    model's config.json has it. What is stored quantised is loaded so without this."""


class CorpusSection(_Section):
    """The text that everything is measured on."""

    kind: Literal["stdlib", "text", "jsonl", "parquet", "datasets"] = "stdlib"
    """`stdlib` is the running interpreter's own library source, always there."""
    path: _Location | None = None
    """File or folder (relative to the suite file); for `datasets` the data set's name."""
    text_field: str = Field(default="text", min_length=1)
    """Which field or column holds the text."""
    separator: str | None = Field(default=None, min_length=1)
    """Of kind `text`: what stands between two documents of one file, e.g. a blank line, `"\\n\\n"`. Without
    it a file is one document; the intervals are over documents, so one big file needs a separator."""
    config: str | None = None
    """Of a `datasets` data set."""
    split: str = "train"
    """Of a `datasets` data set."""
    revision: str | None = None
    """Of a `datasets` data set: pins it."""
    context_length: int = Field(default=64, ge=2)
    """Tokens in a context, BOS included. The paper uses 64 everywhere (section 2.1)."""
    prepend_bos: bool = True
    """Whether every context begins with the tokenizer's BOS (or EOS) token."""
    packing: Literal["document", "packed"] = "document"
    """`document`: a context holds one document's text; `packed`: documents are joined by EOS."""
    drop_remainder: bool = False
    """Whether a document's last, shorter context is dropped; else it is padded."""
    max_contexts_per_document: int | None = Field(default=None, ge=1)
    """Keeps a few huge documents from dominating, and the intervals over documents from being wide."""
    special_tokens: Literal["text", "parse"] = "text"
    """`text`: a special token spelled out in a document, e.g. `<|endoftext|>`, is ordinary text; `parse`: it
    is the token."""
    chat_template: bool = False
    """Whether each document is wrapped as one user turn by the tokenizer's chat template."""
    evaluation_tokens: int = Field(default=200_000, ge=1)
    """How many tokens are evaluated, at most."""
    calibration_tokens: int = Field(default=20_000, ge=1)
    """How many tokens the mean vector and the null's scale are taken from, at most."""
    calibration_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the documents, chosen by their hash, that only calibrate and are never evaluated."""

    @model_validator(mode="after")
    def _needs_path(self) -> "CorpusSection":
        if self.kind != "stdlib" and self.path is None:
            raise ValueError(f"kind = {self.kind!r} needs a path")
        return self

    @model_validator(mode="after")
    def _separates_text(self) -> "CorpusSection":
        if self.kind != "text" and self.separator is not None:
            raise ValueError(f"kind = {self.kind!r} has no separator, only kind = 'text' has")
        return self


class CheckpointSection(_Section):
    """One autoencoder to be measured."""

    path: _Location
    """File or folder, relative to the suite file; a pattern such as `sweep/**`, which finds every checkpoint
    below; `hf:owner/name/path@revision` of the Hugging Face hub; `demo:NAME` for an embedded one; or
    `package.module:factory`, a function of yours that returns a SparseAutoencoder."""
    name: str | None = Field(default=None, min_length=1)
    """What the report calls it, or what stands before the names of what a pattern finds; default: the path's
    last part."""
    site: str | None = None
    """Where it attaches, e.g. `blocks.8.hook_resid_post`; default: what the checkpoint says."""
    output_site: str | None = None
    """Of a transcoder: what it predicts, where `site` is what it reads; default: what the checkpoint says."""


class NullSection(_Section):
    """Controls that go through the same pipeline."""

    random_dictionaries: int = Field(default=1, ge=0)
    """How many random dictionaries per site, shaped like the widest, densest TopK checkpoint there."""
    channels: bool = False
    """Whether the site's own channels (neurons) are a null: of each token the k that are farthest from their
    mean, k as for the random dictionary."""
    principal_components: bool = False
    """Whether the principal components of the site are a null: of each token the k largest scores."""
    shuffled_decoder: bool = False
    """Whether the checkpoint that the random dictionary is shaped like is a null with its directions dealt to
    other latents: its latents fire as ever, what they stand for is wrong."""


class CheckSection(_Section):
    """What stops a checkpoint before it is measured, since its numbers would be nonsense."""

    allow_mismatch: bool = False
    """Whether a checkpoint is measured that says of itself that it belongs to another subject or site."""
    largest_normalized_mse: float = Field(default=1.5, gt=0)
    """A checkpoint whose normalised MSE on the first batch is above this fails with the likeliest causes, and
    the others go on; answering the mean scores 1. Nulls are exempt. Raise it to measure such a one anyway."""


class CurvePoint(_Section):
    """One member of the subject's family: what it cost to train and how well it predicts."""

    flops: float = Field(gt=0)
    loss_nats: float = Field(gt=0)


class MetricSection(_Section):
    """What is measured."""

    families: tuple[Literal["reconstruction", "downstream"], ...] = Field(default=FAMILIES, min_length=1)
    compute_curve: tuple[CurvePoint, ...] = ()
    """Training FLOPs and held-out loss of the subject's family, the subject itself the largest. Without it
    the compute-equivalent fraction is undefined. The embedded subject brings its own."""
    compute_curve_tolerance_nats: float = Field(default=0.15, gt=0)
    """How far the subject's loss on this text may lie from the curve's before the curve is refused."""


class EstimateSection(_Section):
    """How observations become estimates."""

    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the intervals."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of documents."""


class RuntimeSection(_Section):
    """What changes how long a run takes and how much memory it needs, not what it finds."""

    batch_tokens: int = Field(default=2048, ge=1)
    """Tokens (with padding) in one forward pass."""
    chunk_tokens: int = Field(default=16_384, ge=1)
    """Tokens between two savings; a killed run loses at most these."""


class Suite(_Section):
    """A whole run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    seed: int = Field(default=0, ge=0, lt=_SEEDS)
    """Of the nulls and of the bootstrap."""
    site: str | None = None
    """Where checkpoints attach that do not say it themselves."""
    subject: SubjectSection
    corpus: CorpusSection = CorpusSection()
    checkpoints: tuple[CheckpointSection, ...] = ()
    nulls: NullSection = NullSection()
    checks: CheckSection = CheckSection()
    metrics: MetricSection = MetricSection()
    estimates: EstimateSection = EstimateSection()
    runtime: RuntimeSection = RuntimeSection()

    @field_validator("checkpoints")
    @classmethod
    def _names_differ(cls, checkpoints: tuple[CheckpointSection, ...]) -> tuple[CheckpointSection, ...]:
        names = [checkpoint_name(entry) for entry in checkpoints]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two checkpoints are called {twice[0]!r}; give one a `name`")
        return checkpoints


def checkpoint_name(entry: CheckpointSection) -> str:
    """The name that the report uses: the one given, else the path's last part, less a weight suffix.

    What a pattern or a hub's name stands for is only known when it is looked up: then the whole of it.
    """
    if entry.name is None and stands_for_others(entry.path):
        return entry.path
    last = Path(entry.path.rpartition(":")[2]).name
    short = last.removesuffix(Path(last).suffix if last.endswith(_WEIGHT_SUFFIXES) else "")
    return entry.name or short or entry.path


def load_suite(path: Path, *, overrides: Sequence[str] = (), checkpoints: Sequence[str] = ()) -> Suite:
    """The suite in a TOML file, its relative paths made absolute.

    Args:
        path: the file.
        overrides: `section.key=value` settings, values in TOML's notation (bare words are strings).
        checkpoints: paths of further checkpoints, relative to the working directory.

    Raises:
        SuiteError: unreadable, no TOML, or not a valid suite; one line says which key and what to do.
    """
    content = _parsed(_file_text(path), where=str(path))
    for override in overrides:
        _apply_override(content, override)
    suite = suite_from_mapping(content, folder=path.resolve().parent, where=str(path))
    further = [absolute_path(extra, Path.cwd(), where="--checkpoint") for extra in checkpoints]
    added = tuple(_named(CheckpointSection(path=extra)) for extra in further)
    return _validated(suite.model_dump() | {"checkpoints": suite.checkpoints + added}, where=str(path))


def _file_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SuiteError("no such suite file", where=path, remedy="give the path of a TOML file") from None
    except (OSError, ValueError) as error:  # ValueError: no UTF-8, or a path that no file can have
        raise SuiteError(f"cannot be read ({error})", where=path) from None


def _parsed(text: str, *, where: str) -> dict[str, Any]:
    """TOML, or a SuiteError; a plain TOMLDecodeError is its cause, for those who have another use for it."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SuiteError(f"is no TOML: {error}", where=where) from error
    except RecursionError:
        raise SuiteError("is nested too deeply to be read", where=where) from None
    except ValueError:  # the interpreter's limit on digits
        raise SuiteError("holds a number of too many digits", where=where) from None


def suite_from_mapping(content: Mapping[str, Any], *, folder: Path, where: str = "suite") -> Suite:
    """A validated suite; relative paths are taken from `folder`.

    Raises:
        SuiteError: one line that says which key is wrong and what to do.
    """
    suite = _validated(content, where=where)
    corpus = suite.corpus
    if corpus.path is not None and corpus.kind != "datasets":
        corpus = corpus.model_copy(update={"path": absolute_path(corpus.path, folder, where=where)})
    checkpoints = tuple(
        _named(entry.model_copy(update={"path": absolute_path(entry.path, folder, where=where)}))
        for entry in suite.checkpoints
    )
    model = resolved_model(suite.subject.model, folder, where=where)
    subject = suite.subject.model_copy(update={"model": model})
    return suite.model_copy(update={"corpus": corpus, "checkpoints": checkpoints, "subject": subject})


def _named(entry: CheckpointSection) -> CheckpointSection:
    if entry.name is None and stands_for_others(entry.path):
        return entry
    return entry.model_copy(update={"name": checkpoint_name(entry)})


def suite_toml(suite: Suite) -> str:
    """The suite as TOML, defaults included: what the run directory keeps."""
    return toml_text(suite.model_dump(exclude_none=True))


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    *sections, last = key.strip().split(".")
    if not equals or not last:
        raise SuiteError(f"--set {override!r} is no section.key=value", remedy="e.g. corpus.kind=text")
    try:
        value = _parsed(f"value = {text}", where=f"--set {key.strip()}")["value"]
    except SuiteError as error:
        if not isinstance(error.__cause__, tomllib.TOMLDecodeError):
            raise
        value = text.strip()  # a bare word
    table = content
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise SuiteError(f"--set {override!r}: {section!r} is no section")
    table[last] = value


def _validated(content: Mapping[str, Any], *, where: str) -> Suite:
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        raise SuiteError(_first_fault(error), where=where, remedy=_more(error)) from None


def _first_fault(error: ValidationError) -> str:
    # A misspelt key explains the others (a field missing), so it comes first.
    fault = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in fault["loc"]) or "suite"
    if fault["type"] == "extra_forbidden":
        return f"unknown key `{place}`{_nearest(fault['loc'])}"
    return f"`{place}`: {fault['msg'].removeprefix('Value error, ')}"


def _more(error: ValidationError) -> str:
    further = error.error_count() - 1
    return f"and {further} more such fault(s)" if further else "see `autointerp schema --suite`"


def _nearest(location: tuple[int | str, ...]) -> str:
    fields = _fields_at(location[:-1])
    close = difflib.get_close_matches(str(location[-1]), fields, n=3, cutoff=0.5)
    return f", nearest: {', '.join(close)}" if close else f", there are: {', '.join(fields)}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Suite
    for part in location:
        if isinstance(part, str) and part in model.model_fields:
            model = _section_of(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = [_section_of(inner) for inner in getattr(annotation, "__args__", ())]
    return next((section for section in found if section), None)
