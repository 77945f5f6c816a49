"""Every simulator and judge: what it means and needs, and how it is made."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from autointerp.errors import EndpointError
from autointerp.llm.language_model import Capability, LanguageModel, lacking
from autointerp.simulating.all_at_once import AllAtOnceSimulator
from autointerp.simulating.as_passage_judge import SimulatorJudge
from autointerp.simulating.asking import AskOptions
from autointerp.simulating.constant import ConstantJudge
from autointerp.simulating.detection import DetectionJudge
from autointerp.simulating.embedding import EmbeddingJudge, SentenceEncoder
from autointerp.simulating.fuzzing import FuzzingJudge
from autointerp.simulating.graph import GraphSimulator
from autointerp.simulating.intruder import IntruderJudge
from autointerp.simulating.simulator import PassageJudge, TokenSimulator
from autointerp.simulating.structured import StructuredSimulator
from autointerp.simulating.surprisal import SurprisalJudge
from autointerp.simulating.token_by_token import TokenByTokenSimulator
from autointerp.simulating.token_table import TokenTableSimulator

__all__ = [
    "JUDGE_NAMES",
    "SIMULATOR_NAMES",
    "MethodEntry",
    "make_intruder_judge",
    "make_judge",
    "make_simulator",
    "simulator_for",
]


@dataclass(frozen=True)
class MethodEntry:
    """What a reader and a run need to know before a simulator or judge is made."""

    meaning: str
    """One line."""
    needs: frozenset[Capability]
    """Of its LLM; empty: it asks none."""
    is_probability: bool
    """Whether it says probabilities; else numbers in a scale of its own."""
    prompt_version: str
    """Empty without an LLM."""


def _entry(method: Any, meaning: str) -> MethodEntry:
    """Of a class; a simulator of tokens says no probabilities."""
    return MethodEntry(meaning, method.needs, getattr(method, "is_probability", False), method.prompt_version)


SIMULATOR_NAMES: dict[str, MethodEntry] = {
    "all_at_once": _entry(
        AllAtOnceSimulator, "An LLM's expected strength on every token, all read from one echoed prompt."
    ),
    "token_by_token": _entry(
        TokenByTokenSimulator, "An LLM's expected strength on every token, one question a token."
    ),
    "structured": _entry(
        StructuredSimulator, "A whole number that an LLM writes behind every token, one question a passage."
    ),
    "token_table": _entry(
        TokenTableSimulator, "What the explanation's own token statistics expect of every token."
    ),
    "graph": _entry(GraphSimulator, "What the explanation's own graph expects of every token."),
}
"""Token simulators by name, in reading order."""

JUDGE_NAMES: dict[str, MethodEntry] = {
    "detection": _entry(DetectionJudge, "Whether the latent fires anywhere in a passage, by an LLM."),
    "fuzzing": _entry(FuzzingJudge, "Whether the latent fires on a passage's marked tokens, by an LLM."),
    "intruder": _entry(
        IntruderJudge, "Which of five passages has random marks, by an LLM without the explanation."
    ),
    "embedding": _entry(EmbeddingJudge, "How near passage and explanation are for a sentence encoder."),
    "surprisal": _entry(
        SurprisalJudge, "How much likelier an LLM finds a passage after the explanation, in nats per token."
    ),
    "constant": _entry(ConstantJudge, "Null: always says no."),
}
"""Judges by name, in reading order."""

_LLM_SIMULATORS: dict[str, Callable[[LanguageModel, AskOptions | None], TokenSimulator]] = {
    "all_at_once": AllAtOnceSimulator,
    "token_by_token": TokenByTokenSimulator,
    "structured": StructuredSimulator,
}
_LLM_JUDGES: dict[str, Callable[[LanguageModel, AskOptions | None], PassageJudge]] = {
    "detection": DetectionJudge,
    "fuzzing": FuzzingJudge,
    "surprisal": SurprisalJudge,
}


def simulator_for(
    simulation: Literal["auto", "all_at_once", "token_by_token", "structured"],
    capabilities: frozenset[Capability],
) -> str:
    """The name of the simulator that a suite's `simulation` means at an endpoint.

    `auto`: all at once where the endpoint echoes prompts with log-probabilities, else structured.
    """
    if simulation != "auto":
        return simulation
    return "all_at_once" if SIMULATOR_NAMES["all_at_once"].needs <= capabilities else "structured"


def make_simulator(
    name: str, model: LanguageModel | None = None, options: AskOptions | None = None
) -> TokenSimulator:
    """A token simulator.

    Args:
        name: in `SIMULATOR_NAMES`.
        model: who is asked, by those that ask.
        options: how.

    Raises:
        KeyError: there is no such simulator.
        EndpointError: the model cannot do what it needs.
    """
    _check(name, SIMULATOR_NAMES[name], model)
    if name == "token_table":
        return TokenTableSimulator()
    if name == "graph":
        return GraphSimulator()
    assert model is not None
    return _LLM_SIMULATORS[name](model, options)


def make_judge(
    name: str,
    model: LanguageModel | None = None,
    options: AskOptions | None = None,
    *,
    encoder: SentenceEncoder | None = None,
) -> PassageJudge:
    """A judge of passages.

    Args:
        name: in `JUDGE_NAMES` but for `intruder`; or `token_table/detection`, `token_table/fuzzing`,
            `graph/detection`, `graph/fuzzing`: what a table or a graph expects as answers to these questions.
        model: who is asked, by those that ask.
        options: how.
        encoder: of `embedding`; default: the one of the extra `embeddings`.

    Raises:
        KeyError: there is no such judge.
        EndpointError: the model cannot do what it needs.
        SuiteError: `embedding` without an encoder.
    """
    asks: Literal["detection", "fuzzing"] = "detection" if name.endswith("detection") else "fuzzing"
    if name in ("graph/detection", "graph/fuzzing"):
        return SimulatorJudge(GraphSimulator(predicts="share"), asks)
    if name in ("token_table/detection", "token_table/fuzzing"):
        return SimulatorJudge(TokenTableSimulator(predicts="probability"), asks, is_probability=True)
    _check(name, JUDGE_NAMES[name], model)
    if name == "constant":
        return ConstantJudge()
    if name == "embedding":
        return EmbeddingJudge(encoder)
    judge = _LLM_JUDGES[name]
    assert model is not None
    return judge(model, options)


def make_intruder_judge(model: LanguageModel, options: AskOptions | None = None) -> IntruderJudge:
    """The judge of intruder trials.

    Raises:
        EndpointError: the model cannot do what it needs.
    """
    _check("intruder", JUDGE_NAMES["intruder"], model)
    return IntruderJudge(model, options)


def _check(name: str, entry: MethodEntry, model: LanguageModel | None) -> None:
    if not entry.needs:
        return
    if model is None:
        raise EndpointError(f"method {name} needs an LLM", remedy="set llm.model")
    missing = lacking(model, entry.needs)
    if missing:
        raise EndpointError(
            f"method {name} needs {', '.join(missing)}, which was not found there",
            where=model.identity.endpoint,
            remedy="choose another method or endpoint",
        )
