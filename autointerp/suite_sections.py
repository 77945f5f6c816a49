"""The sections of a suite: every choice that a number depends on, with its default and its reason."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from autointerp.sections.section import Section

__all__ = [
    "CheckSection",
    "CheckpointSection",
    "CorpusSection",
    "CurvePoint",
    "EstimateSection",
    "MetricSection",
    "NullSection",
    "RuntimeSection",
    "SamplingSection",
    "SubjectSection",
]

FAMILIES = ("reconstruction", "downstream")

_MOST = 2**31 - 1
"""Of a count: what every library and table below takes."""
_CHOICES = ("random", "stratified", "all")


def _without_nul(path: str) -> str:
    if "\0" in path:
        raise ValueError("a path cannot hold a NUL character")
    return path


_Location = Annotated[str, Field(min_length=1), AfterValidator(_without_nul)]


class SubjectSection(Section):
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


class CorpusSection(Section):
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
    """Of a `datasets` data set: a commit pins it. Without it the newest is read, and the report names it."""
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


class CheckpointSection(Section):
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


class NullSection(Section):
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


class CheckSection(Section):
    """What stops a checkpoint before it is measured, since its numbers would be nonsense."""

    allow_mismatch: bool = False
    """Whether a checkpoint is measured that says of itself that it belongs to another subject or site."""
    largest_normalized_mse: float = Field(default=1.5, gt=0)
    """A checkpoint whose normalised MSE on the first batch is above this fails with the likeliest causes, and
    the others go on; answering the mean scores 1. Nulls are exempt. Raise it to measure such a one anyway."""


class CurvePoint(Section):
    """One member of the subject's family: what it cost to train and how well it predicts."""

    flops: float = Field(gt=0)
    loss_nats: float = Field(gt=0)


class MetricSection(Section):
    """What is measured."""

    families: tuple[
        Literal["reconstruction", "downstream", "probe", "n2g", "ablation", "refinement"], ...
    ] = Field(default=FAMILIES, min_length=1)
    """Which families of metrics. The first two take one pass over the text; the others have steps, and
    sections, of their own."""
    compute_curve: tuple[CurvePoint, ...] = ()
    """Training FLOPs and held-out loss of the subject's family, the subject itself the largest. Without it
    the compute-equivalent fraction is undefined. The embedded subject brings its own."""
    compute_curve_tolerance_nats: float = Field(default=0.15, gt=0)
    """How far the subject's loss on this text may lie from the curve's before the curve is refused."""


class SamplingSection(Section):
    """Which latents are looked at, and how much text of each: what `autointerp show` shows."""

    enabled: bool = True
    """Whether every firing is kept and latents are sampled. Takes about 6 bytes a firing on disk."""
    latents: Literal["random", "stratified", "all"] | tuple[Annotated[int, Field(ge=0)], ...] = "random"
    """`random`: uniformly among the latents that fire. `stratified`: as many of each decade of density.
    `all`: all that fire. Else a list of indices, the same for all checkpoints."""
    latent_count: int = Field(default=200, ge=1, le=_MOST)
    """How many of each checkpoint, where random or stratified. An estimate over latents has a standard error
    of at most .035 with 200, for scores between 0 and 1."""
    examples: int = Field(default=20, ge=1, le=_MOST)
    """Contexts of each latent, split and sampler, at most; of `quantiles` rounded up to as many in each
    stratum."""
    strata: int = Field(default=5, ge=1, le=1000)
    """Of a latent's peaks by strength, for the sampler `quantiles`, which deals its examples among them."""
    explain_fraction: float = Field(default=0.4, gt=0, lt=1)
    """Share of the documents from which explanations are made."""
    validate_fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share of the documents on which explanations are chosen."""
    score_fraction: float = Field(default=0.4, gt=0, lt=1)
    """Share of the documents on which explanations are scored. The three add up to 1."""
    duplicate_similarity: float = Field(default=0.5, gt=0, le=1)
    """Documents whose sets of 5-token sequences overlap by this much (Jaccard, by MinHash) count as one."""
    least_documents: int = Field(default=2, ge=1, le=_MOST)
    """In how many documents of each split a latent must fire for its explanation to be scored."""
    ultra_dense: float = Field(default=0.1, gt=0, lt=1)
    """Share of tokens above which a latent that fires on them is reported as ultra-dense."""
    window_tokens: int | None = Field(default=None, ge=1, le=_MOST)
    """Tokens of an example; without it the whole context, as the subject saw it."""
    centring: Literal["focus", "random"] = "focus"
    """Where the drawn token stands in a window shorter than its context: in the middle, or anywhere."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> "SamplingSection":
        total = self.explain_fraction + self.validate_fraction + self.score_fraction
        if abs(total - 1) > 1e-9:
            raise ValueError(f"explain_fraction, validate_fraction and score_fraction add up to {total:g}")
        return self

    @field_validator("latents", mode="before")
    @classmethod
    def _choice_or_indices(cls, latents: Any) -> Any:
        """One fault in plain words, where a union would give one of each of its members."""
        is_list = isinstance(latents, list | tuple)
        if latents in _CHOICES or (is_list and all(type(index) is int and index >= 0 for index in latents)):
            return latents
        raise ValueError("must be 'random', 'stratified', 'all', or a list of indices from 0 on: [3, 17]")

    @field_validator("latents")
    @classmethod
    def _some_latents(cls, latents: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if not latents:
            raise ValueError("an empty list samples nothing; say enabled = false")
        return latents


class EstimateSection(Section):
    """How observations become estimates."""

    level: float = Field(default=0.95, gt=0.5, lt=1)
    """Coverage of the intervals."""
    resamples: int = Field(default=2000, ge=100)
    """Bootstrap resamples of documents."""


class RuntimeSection(Section):
    """What changes how long a run takes and how much memory it needs, not what it finds."""

    batch_tokens: int = Field(default=2048, ge=1)
    """Tokens (with padding) in one forward pass."""
    chunk_tokens: int = Field(default=16_384, ge=1)
    """Tokens between two savings; a killed run loses at most these."""
