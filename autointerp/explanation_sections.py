"""Sections of a suite about the LLM and about explanations: every choice with its default and its reason."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

__all__ = ["ExplanationSection", "LlmSection", "PriceSection", "RoleSection"]

ExplainerName = Literal[
    "token_statistics",
    "neuron_to_graph",
    "highlighted",
    "token_activation_pairs",
    "contrastive",
    "output_centric",
    "input_output",
]
MethodName = Literal[
    "token_table", "graph", "simulation", "detection", "fuzzing", "intruder", "embedding", "surprisal",
    "generation", "steering",
]  # fmt: skip


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class PriceSection(_Section):
    """What a model's tokens cost, in US dollars per million."""

    input: float = Field(ge=0)
    cached_input: float | None = Field(default=None, ge=0)
    """Of prompt tokens that the provider had cached; default: as `input`."""
    output: float = Field(ge=0)


def _without_credentials(base_url: str) -> str:
    """An address of which nothing must be kept secret: it stands in files of the run."""
    if base_url == "local":
        return base_url
    try:
        parts = urlsplit(base_url)
    except ValueError:
        raise ValueError("is no address") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be `local` or begin with http:// or https://")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("holds more than host and path; a key belongs into the variable of api_key_env")
    return base_url


_Address = Annotated[str, AfterValidator(_without_credentials)]


class RoleSection(_Section):
    """What one role does differently: explainer, simulator or judge."""

    base_url: _Address | None = None
    model: str | None = None
    api_key_env: str | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    seed: int | None = None


class LlmSection(_Section):
    """The language model that explains and judges; without `model` nothing is asked and nothing is paid."""

    base_url: _Address = "https://api.openai.com/v1"
    """Of any server that speaks OpenAI's protocol (OpenAI, vLLM, Ollama, llama.cpp, OpenRouter); `local`: the
    model is loaded in this process by transformers, and `model` is a folder or a hub name."""
    model: str | None = None
    """E.g. `gpt-4o-mini`."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; the key itself is read nowhere else and written nowhere."""
    temperature: float = Field(default=0.0, ge=0, le=2)
    seed: int | None = 0
    explainer: RoleSection = RoleSection()
    simulator: RoleSection = RoleSection()
    judge: RoleSection = RoleSection()
    attempts: int = Field(default=6, ge=1)
    """How often a request is sent at most, where the failure may heal (429, 5xx, timeouts, dropped)."""
    unreadable_attempts: int = Field(default=2, ge=1)
    """How often a question is asked at most, where the reply cannot be read."""
    timeout_seconds: float = Field(default=120, gt=0)
    concurrency: int = Field(default=64, ge=1)
    """Requests under way at once, at most; fewer where the endpoint refuses so many."""
    requests_per_minute: float | None = Field(default=None, gt=0)
    tokens_per_minute: float | None = Field(default=None, gt=0)
    prices: dict[str, PriceSection] = Field(default_factory=dict)
    """By model. Without a price costs are told in tokens only, and `budget_usd` is refused."""
    budget_usd: float | None = Field(default=None, gt=0)
    """Of the whole run, earlier sittings included; a call is made only if it cannot exceed it."""
    budget_tokens: int | None = Field(default=None, gt=0)
    offline: bool = False
    """Whether answers come from the run's own llm_replies.sqlite alone."""
    batch: bool = False
    """Whether requests go through the endpoint's batch interface: half the price, hours of waiting."""

    def role(self, name: Literal["explainer", "simulator", "judge"]) -> dict[str, Any]:
        """What holds of a role: its own settings over the common ones; keys as in RoleSection."""
        own: RoleSection = getattr(self, name)
        common = {key: getattr(self, key) for key in RoleSection.model_fields}
        return common | own.model_dump(exclude_none=True)


class ExplanationSection(_Section):
    """How latents are explained, and how the explanations are tested. Needs `[sampling]`."""

    enabled: bool = True
    explainers: tuple[ExplainerName, ...] | None = None
    """In order; the first one's scores are the headline. Default: `highlighted` where there is an LLM, and
    `token_statistics` always; then `neuron_to_graph` where `metrics.families` has `n2g`, which it needs."""
    methods: tuple[MethodName, ...] | None = None
    """How explanations are tested. Default: `token_table` for token statistics and `graph` for graphs; with
    an LLM also `detection` and `fuzzing`."""
    latent_count: int | None = Field(default=None, ge=1)
    """Of each checkpoint's sampled latents, at most; drawn at random. Default: all. An LLM's cost is in
    proportion to it."""
    best_of: int = Field(default=1, ge=1)
    """Candidates of each LLM explanation; the best on the validate split, by the AUROC of method `detection`,
    is kept."""
    revisions: int = Field(default=0, ge=0)
    """Rounds in which the LLM proposes texts, sees what the latent does on them, and corrects itself."""
    chain_of_thought: bool = False
    """Whether the explainer thinks aloud first; published comparisons found no gain."""
    simulation: Literal["auto", "all_at_once", "token_by_token", "structured"] = "auto"
    """`auto`: all at once where the endpoint gives prompt log-probabilities, else structured."""
    explain_examples: int = Field(default=20, ge=1)
    """Contexts that an explainer sees, dealt over the strata."""
    judged_examples: int = Field(default=20, ge=1)
    """Of each latent: active contexts, as many random silent ones, and as many hard ones."""
    passages_per_prompt: int = Field(default=10, ge=1)
    """Judged together in one request."""
    passage_tokens: int = Field(default=32, ge=4)
    """Tokens of an example around its focus, for judges and explainers."""
    nulls: tuple[Literal["borrowed", "empty"], ...] = ("borrowed", "empty")
    """Explanations that should fail: another latent's, and none."""
    null_latents: int = Field(default=50, ge=0)
    """For how many of a checkpoint's latents an LLM also judges the nulls; without an LLM: all."""
    written_texts: int = Field(default=5, ge=1)
    """Of method `generation`: texts that should fire a latent, and as many that should not."""
    intruder_trials: int = Field(default=5, ge=1)
    """Of method `intruder`: questions about a latent, of five passages each."""
    steering_prompts: int = Field(default=5, ge=1)
    """Of method `steering`: texts that the subject continues."""
    steering_strength: float = 4.0
    """Of method `steering`: how strongly a latent is raised, in units of its largest activation."""
    calibration: Literal["none", "linear", "percentile"] = "none"
    """Of a simulator's expectations before R^2 and deviation, fitted on the validate split; the correlation
    is of the uncalibrated ones."""
