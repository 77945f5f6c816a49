"""Which explainers and which tests a run has, and whether its LLM can do what they need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autointerp.config import Suite
from autointerp.errors import EndpointError, SuiteError
from autointerp.explaining.catalogue import EXPLAINER_NAMES, explainer_names
from autointerp.explaining.explainer import Explainer
from autointerp.explanation_sections import ExplanationSection, LlmSection
from autointerp.llm.language_model import LanguageModel, lacking
from autointerp.llm.open_models import ROLES, Role

__all__ = ["Plan", "has_llm", "plan_of", "publishable_llm", "refuse_lacking", "roles_of", "same_explanations"]

_OWN = {"token_table": "token_statistics", "graph": "neuron_to_graph"}
"""Tests that ask the data of an explanation itself, with whose explanations have such."""
_WITH_LLM = ("detection", "fuzzing")
_NO_LLM = frozenset({*_OWN, "embedding"})
_ROLE: Mapping[str, Role] = {"simulation": "simulator", "generation": "explainer"}
"""Who is asked for a test; the judge for all others."""
_HOW_ASKED = frozenset(
    {
        *("attempts", "timeout_seconds", "concurrency", "requests_per_minute", "tokens_per_minute"),
        *("prices", "budget_usd", "budget_tokens", "offline", "batch", "api_key_env"),
    }
)
"""Settings that change how answers are come by, not what they are."""


@dataclass(frozen=True)
class Plan:
    """What is done for every dictionary."""

    explainers: tuple[str, ...]
    """The first one's scores are the headline."""
    methods: tuple[str, ...]

    @property
    def asks_llm(self) -> bool:
        """Whether anything of it needs an LLM."""
        return bool(self.llm_explainers or self.llm_methods)

    @property
    def llm_explainers(self) -> tuple[str, ...]:
        """Explainers that ask an LLM."""
        return tuple(name for name in self.explainers if EXPLAINER_NAMES[name].needs_llm)

    @property
    def llm_methods(self) -> tuple[str, ...]:
        """Tests that ask an LLM."""
        return tuple(name for name in self.methods if name not in _NO_LLM)

    def tests(self, explainer: str) -> tuple[str, ...]:
        """How an explainer's explanations are tested.

        Tables test what has a table, graphs what has a graph. What an LLM wrote is judged by the LLM; token
        statistics and graphs too where no explainer asks an LLM but a judge is named.
        """
        own = [name for name in self.methods if _OWN.get(name) == explainer]
        judged = explainer in self.llm_explainers or not self.llm_explainers
        return (*own, *(name for name in self.methods if name not in _OWN and judged))


def has_llm(section: LlmSection) -> bool:
    """Whether some role has a model."""
    return any(section.role(role)["model"] for role in ROLES)


def plan_of(suite: Suite) -> Plan:
    """What a suite asks for, with the defaults that depend on whether there is an LLM.

    Raises:
        SuiteError: something needs an LLM and none is named, or graphs and there are none.
    """
    section: ExplanationSection = suite.explanations
    asked = has_llm(suite.llm)
    has_graphs = "n2g" in suite.metrics.families
    explainers = section.explainers or explainer_names(section, has_llm=asked, has_graphs=has_graphs)
    if "neuron_to_graph" in explainers and not has_graphs:
        raise SuiteError(
            "neuron_to_graph explains with the graphs of family n2g, which the suite leaves out",
            where="explanations.explainers",
            remedy="add n2g to metrics.families, or leave it out",
        )
    own = ("token_table", *(("graph",) if "neuron_to_graph" in explainers else ()))
    methods = section.methods or (*own, *(_WITH_LLM if asked else ()))
    plan = Plan(tuple(dict.fromkeys(explainers)), tuple(dict.fromkeys(methods)))
    needing = [*plan.llm_explainers, *plan.llm_methods]
    if needing and not asked:
        raise SuiteError(
            f"explanations need an LLM for {needing[0]!r}, and no model is named",
            where="suite",
            remedy="set llm.model (and llm.base_url), or leave it out of [explanations]",
        )
    return plan


def roles_of(plan: Plan) -> tuple[Role, ...]:
    """Who will be asked."""
    wanted: set[Role] = {_ROLE.get(name, "judge") for name in plan.llm_methods}
    wanted |= {"explainer"} if plan.llm_explainers else set()
    return tuple(role for role in ROLES if role in wanted)


def refuse_lacking(explainers: Sequence[Explainer], model: LanguageModel | None) -> None:
    """Say what an endpoint cannot do before anything is spent on it.

    Raises:
        EndpointError: it lacks something that an explainer needs.
    """
    for explainer in explainers if model is not None else ():
        missing = lacking(model, explainer.needs)
        if missing:
            raise EndpointError(
                f"{explainer.name} needs {', '.join(missing)}, which {model.identity.model} does not give",
                where=model.identity.endpoint,
                remedy="leave it out of explanations.explainers, or name another endpoint",
            )


def same_explanations(earlier: Mapping[str, Any], suite: Suite) -> bool:
    """Whether a finished run's suite, as its report has it, explains and judges as this one does."""
    now = publishable_llm(suite.model_dump(mode="json", exclude_none=True, include={"explanations", "llm"}))
    return all(_what(earlier.get(name, {})) == _what(now[name]) for name in ("explanations", "llm"))


def _what(section: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in _HOW_ASKED}


def publishable_llm(content: dict[str, Any]) -> dict[str, Any]:
    """A dumped suite whose local models are named by their folders alone."""
    section = content["llm"]
    for part in (section, *(section[role] for role in ROLES)):
        if "model" in part and Path(part["model"]).is_absolute():
            part["model"] = Path(part["model"]).name
    return content
