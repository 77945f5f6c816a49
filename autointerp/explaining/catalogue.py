"""Every explainer: what it means, in reading order, and how to make those that a suite asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autointerp.errors import SuiteError
from autointerp.explaining.best_of import BestOf, ScoreFunction
from autointerp.explaining.contrastive import Contrastive
from autointerp.explaining.explainer import Explainer
from autointerp.explaining.graph_explainer import GraphExplainer
from autointerp.explaining.highlighted import Highlighted
from autointerp.explaining.input_output import InputOutput
from autointerp.explaining.output_centric import OutputCentric
from autointerp.explaining.prompted import PromptedExplainer, PromptOptions
from autointerp.explaining.revise import MeasureFunction, Revise
from autointerp.explaining.token_activation_pairs import TokenActivationPairs
from autointerp.explaining.token_statistics import TokenStatistics
from autointerp.explanation_sections import ExplanationSection, LlmSection
from autointerp.llm.language_model import LanguageModel

__all__ = ["EXPLAINER_NAMES", "ExplainerEntry", "explainer_names", "make_explainers"]


@dataclass(frozen=True)
class ExplainerEntry:
    """What a reader and a run need to know of an explainer before it is made."""

    meaning: str
    """One line."""
    needs_llm: bool
    needs_effects: bool = False
    """Whether it reads what the latent does to the next token (promoted, demoted, ablated)."""


EXPLAINER_NAMES: dict[str, ExplainerEntry] = {
    "highlighted": ExplainerEntry(
        "An LLM reads contexts of all strengths with the firing tokens highlighted.", needs_llm=True
    ),
    "token_activation_pairs": ExplainerEntry(
        "An LLM reads the strongest contexts token by token, each with its strength from 0 to 10.",
        needs_llm=True,
    ),
    "contrastive": ExplainerEntry(
        "An LLM reads highlighted contexts beside similar ones in which the latent is silent.", needs_llm=True
    ),
    "output_centric": ExplainerEntry(
        "An LLM reads which next tokens the latent makes likelier and less likely.",
        needs_llm=True,
        needs_effects=True,
    ),
    "input_output": ExplainerEntry(
        "An LLM reads highlighted contexts and the next tokens that the latent makes likelier.",
        needs_llm=True,
        needs_effects=True,
    ),
    "token_statistics": ExplainerEntry(
        "No LLM: the tokens on which it fires, and those before them, by how often it does.", needs_llm=False
    ),
    "neuron_to_graph": ExplainerEntry(
        "No LLM: paths of tokens that make it fire, found by cutting text and replacing tokens (family n2g).",
        needs_llm=False,
    ),
}
"""By name, as in a suite, in reading order."""

_PROMPTED: dict[str, type[PromptedExplainer]] = {
    "highlighted": Highlighted,
    "token_activation_pairs": TokenActivationPairs,
    "contrastive": Contrastive,
    "output_centric": OutputCentric,
    "input_output": InputOutput,
}


def explainer_names(
    section: ExplanationSection, *, has_llm: bool, has_graphs: bool = False
) -> tuple[str, ...]:
    """The suite's explainers, or its default.

    That is `highlighted` where there is an LLM, then `token_statistics`, then `neuron_to_graph` where there
    are graphs.

    Raises:
        SuiteError: one is asked for that needs an LLM, and there is none.
    """
    if section.explainers is None:
        graphs = ("neuron_to_graph",) if has_graphs else ()
        return (*(("highlighted",) if has_llm else ()), "token_statistics", *graphs)
    lacking = [name for name in section.explainers if EXPLAINER_NAMES[name].needs_llm and not has_llm]
    if lacking:
        raise SuiteError(
            f"{', '.join(lacking)} asks a language model, and the suite names none",
            where="explanations.explainers",
            remedy="set llm.model (and llm.base_url), or leave out this explainer",
        )
    return tuple(section.explainers)


def make_explainers(
    section: ExplanationSection,
    models: Mapping[str, LanguageModel],
    *,
    llm: LlmSection | None = None,
    score: ScoreFunction | None = None,
    measure: MeasureFunction | None = None,
    graphs: Mapping[int, Mapping[str, Any]] | None = None,
) -> tuple[Explainer, ...]:
    """The explainers that a suite asks for, in its order.

    Args:
        section: which, and how much they show.
        models: by role; `explainer` is asked. Empty: no LLM.
        llm: temperature, seed and attempts of the explainer's requests.
        score: of an explanation on its latent's validate split; `best_of` above 1 needs it, `revisions` keeps
            what does better by it.
        measure: runs a latent on texts; `revisions` needs it.
        graphs: of the dictionary's latents, for `neuron_to_graph`; None: there are none.

    Raises:
        SuiteError: something is asked for that needs what is not there.
    """
    model = models.get("explainer")
    names = explainer_names(section, has_llm=model is not None, has_graphs=graphs is not None)
    options = _options(section, llm or LlmSection())
    made: list[Explainer] = []
    for name in names:
        if name == "neuron_to_graph":
            made.append(GraphExplainer(graphs or {}))
        elif model is None or name not in _PROMPTED:
            made.append(TokenStatistics())
        else:
            made.append(_wrapped(_PROMPTED[name](model, options), section, score, measure))
    return tuple(made)


def _options(section: ExplanationSection, llm: LlmSection) -> PromptOptions:
    role = llm.role("explainer")
    return PromptOptions(
        examples=section.explain_examples,
        passage_tokens=section.passage_tokens,
        chain_of_thought=section.chain_of_thought,
        temperature=role["temperature"],
        seed=role["seed"],
        attempts=llm.unreadable_attempts,
    )


def _wrapped(
    explainer: PromptedExplainer,
    section: ExplanationSection,
    score: ScoreFunction | None,
    measure: MeasureFunction | None,
) -> Explainer:
    best: BestOf | None = None
    if section.best_of > 1:
        if score is None:
            raise SuiteError(
                "candidates are chosen by a score, and no method of the suite gives one",
                where="explanations.best_of",
                remedy="add detection to explanations.methods, or set best_of = 1",
            )
        temperature = explainer.options.temperature
        best = BestOf(
            explainer, score, count=section.best_of, temperature=temperature if temperature > 0 else 1.0
        )
    if section.revisions > 0:
        if measure is None:
            raise SuiteError(
                "revisions run the latent on new texts, and that is not possible here",
                where="explanations.revisions",
                remedy="set revisions = 0",
            )
        return Revise(explainer, measure, rounds=section.revisions, score=score, first=best)
    return best or explainer
