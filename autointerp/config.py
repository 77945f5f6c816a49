"""The suite: what a run measures, on which checkpoints, with which choices. Read from TOML.

Every choice that a number depends on stands here, with its default, and is written, resolved, to the
run directory. An unknown key is an error that names the nearest ones.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator

from autointerp.errors import SuiteError
from autointerp.explanation_sections import ExplanationSection, LlmSection
from autointerp.sections.ablation import AblationSection
from autointerp.sections.graphs import GraphSection
from autointerp.sections.probes import PROBE_SETS, ProbeSection
from autointerp.sections.refinement import RefinementSection
from autointerp.sections.section import Section
from autointerp.suite_paths import absolute_path, resolved_model, stands_for_others
from autointerp.suite_sections import (
    CheckpointSection,
    CheckSection,
    CorpusSection,
    CurvePoint,
    EstimateSection,
    MetricSection,
    NullSection,
    RuntimeSection,
    SamplingSection,
    SubjectSection,
)
from autointerp.toml_text import toml_text

__all__ = [
    "AblationSection",
    "CheckSection",
    "CheckpointSection",
    "CorpusSection",
    "CurvePoint",
    "EstimateSection",
    "ExplanationSection",
    "GraphSection",
    "LlmSection",
    "MetricSection",
    "NullSection",
    "ProbeSection",
    "RefinementSection",
    "RuntimeSection",
    "SamplingSection",
    "SubjectSection",
    "Suite",
    "llm_section",
    "load_suite",
    "suite_from_mapping",
    "suite_toml",
]

_WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors", ".npz")

# NumPy and torch take seeds of different widths; below this one all of them agree.
_SEEDS = 2**31


class Suite(Section):
    """A whole run."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$")
    seed: int = Field(default=0, ge=0, lt=_SEEDS)
    """Of the nulls and of the bootstrap."""
    site: str | None = None
    """Where checkpoints attach that do not say it themselves."""
    dictionary_dtype: Literal["float32", "bfloat16"] = "float32"
    """What dictionaries compute in. bfloat16 is faster where the processor has it (about twice on a CPU, more
    on a GPU), and changes which latents fire: 1 to 3 % of the firings of a random TopK dictionary with n =
    32768 and k = 32. A release is to be judged in float32."""
    subject: SubjectSection
    corpus: CorpusSection = CorpusSection()
    checkpoints: tuple[CheckpointSection, ...] = ()
    nulls: NullSection = NullSection()
    checks: CheckSection = CheckSection()
    metrics: MetricSection = MetricSection()
    sampling: SamplingSection = SamplingSection()
    probes: ProbeSection = ProbeSection()
    graphs: GraphSection = GraphSection()
    ablation: AblationSection = AblationSection()
    refinement: RefinementSection = RefinementSection()
    explanations: ExplanationSection = ExplanationSection()
    llm: LlmSection = LlmSection()
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
    # Folders of one's own; names of shipped sets go first, whatever lies beside the suite.
    tasks = tuple(
        str(folder / task) if task.partition("/")[0] not in PROBE_SETS and (folder / task).is_dir() else task
        for task in suite.probes.tasks
    )
    update = {"corpus": corpus, "checkpoints": checkpoints, "subject": subject}
    return suite.model_copy(update=update | {"probes": suite.probes.model_copy(update={"tasks": tasks})})


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


def llm_section(**settings: Any) -> LlmSection:
    """A suite's `[llm]` section by itself.

    Raises:
        SuiteError: a setting has no such name or value; what it is set to is not shown, for an address may
            hold a password.
    """
    try:
        return LlmSection.model_validate(settings)
    except ValidationError as error:
        raise SuiteError(_first_fault(error), where="llm", remedy="see `autointerp schema --suite`") from None


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
