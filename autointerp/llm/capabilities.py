"""What an endpoint and a model really do, found out with a handful of tiny calls; nobody's word is taken."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from autointerp.errors import EndpointError
from autointerp.llm.language_model import Capability, LanguageModel, lacking
from autointerp.llm.wire_format import Dialect

__all__ = ["CAPABILITIES", "Finding", "Measured", "require"]

CAPABILITIES: tuple[Capability, ...] = (
    "chat",
    "completions",
    "logprobs",
    "top_logprobs",
    "echo",
    "json_schema",
    "json_object",
    "seed",
    "n",
)


@dataclass(frozen=True)
class Finding:
    """One thing that was tried."""

    name: str
    """A capability, or `max_tokens_name`, `temperature`, `likeliest`."""
    is_given: bool
    evidence: str
    """What came back, in a few words."""


@dataclass(frozen=True)
class Measured:
    """What was found of one model at one endpoint."""

    endpoint: str
    model: str
    answered_by: str
    """As it names itself."""
    fingerprint: str
    findings: tuple[Finding, ...]
    top_logprobs: int = 0
    """How many alternatives came at most."""
    echo_max_tokens: int = 0
    """The fewest tokens with which echo works, 0 or 1."""
    max_tokens_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    takes_seed: bool = True
    """Whether a seed may be sent, repeatable or not."""
    no_penalty: str = ""
    """Parameter that must be 1, or repetitions are avoided unasked; empty: none is needed, or none helps."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Those that are given."""
        given = {finding.name for finding in self.findings if finding.is_given}
        return frozenset(name for name in CAPABILITIES if name in given)

    @property
    def dialect(self) -> Dialect:
        """How to ask it."""
        given = {finding.name for finding in self.findings if finding.is_given}
        structured: Literal["json_schema", "json_object", "none"] = "none"
        if "json_schema" in given:
            structured = "json_schema"
        elif "json_object" in given:
            structured = "json_object"
        return Dialect(
            max_tokens_name=self.max_tokens_name,
            takes_temperature="temperature" in given,
            takes_seed=self.takes_seed,
            top_logprobs=self.top_logprobs,
            echo_max_tokens=self.echo_max_tokens,
            structured=structured,
            no_penalty=self.no_penalty,
            provider_must_obey="openrouter.ai" in self.endpoint,
        )

    def rows(self) -> list[dict[str, str]]:
        """A table: endpoint, model, capability, yes or no, evidence."""
        return [
            {
                "endpoint": self.endpoint,
                "model": self.model,
                "capability": finding.name,
                "given": "yes" if finding.is_given else "no",
                "evidence": finding.evidence,
            }
            for finding in self.findings
        ]

    def to_json(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Measured":
        """What `to_json` gave."""
        findings = tuple(Finding(**finding) for finding in content["findings"])
        return cls(**{**content, "findings": findings})


def require(model: LanguageModel, needed: frozenset[Capability], *, method: str) -> None:
    """Say before anything is spent that a method cannot work with a model.

    Raises:
        EndpointError: it lacks something that the method needs.
    """
    absent = lacking(model, needed)
    if absent:
        who = model.identity
        raise EndpointError(
            f"{method} needs {', '.join(absent)}, which {who.model} was measured not to give",
            where=who.endpoint,
            remedy="see `autointerp check-endpoint`; choose another model or server, or leave the method out",
        )
