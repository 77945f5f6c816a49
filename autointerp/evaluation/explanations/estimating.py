"""What the LLM will be asked, counted on a few latents before anything is sent."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from autointerp.explanation_records import Refusal
from autointerp.llm.cost_plan import CostRange, PlannedCalls
from autointerp.llm.language_model import Capability, LanguageModel, ModelIdentity
from autointerp.llm.requests import Reply, Request, Usage, request_key

__all__ = ["CountingModel", "cost_words", "planned_calls"]

_EXPLANATION = "Explanation: " + "what a sentence of the usual length says of a latent, " * 3
_SHORTEST_REPLY = 8
"""Tokens; of a replies' range the low end, where it is not cut shorter."""


class CountingModel:
    """Stands in for a model: notes what it is asked, and answers nothing but made-up explanations.

    No two of them are the same, since equal candidates would be tested once.
    """

    def __init__(self, model: LanguageModel) -> None:
        """In the place of that one, with its abilities."""
        self._model = model
        self.requests: list[Request] = []

    @property
    def identity(self) -> ModelIdentity:
        """Of the model it stands for."""
        return self._model.identity

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Of the model it stands for."""
        return self._model.capabilities

    async def ask(self, request: Request) -> Reply | Refusal:
        """Nothing is sent."""
        self.requests.append(request)
        if self.identity.role == "explainer" and request.metric.startswith("explaining"):
            return Reply(
                f"{_EXPLANATION}{len(self.requests)}", self.identity.model, "", Usage(0, 0, is_estimated=True)
            )
        return Refusal("failed_request", "not asked: this is an estimate")


def planned_calls(models: Mapping[str, CountingModel], *, factor: float) -> Sequence[PlannedCalls]:
    """The calls that were counted, by model, role and metric, times `factor`.

    The same question costs once, whoever asks.
    """
    found: dict[tuple[str, str, str], list[Request]] = defaultdict(list)
    seen: set[str] = set()
    for counted in models.values():
        who = counted.identity
        for request in counted.requests:
            key = request_key(who.endpoint, who.model, request)
            if key not in seen:
                seen.add(key)
                found[who.model, who.role, request.metric].append(request)
    return [
        PlannedCalls(
            *account,
            calls=round(factor * len(requests)),
            prompt_bytes=_mean([_size(request) for request in requests]),
            completion_tokens=(
                min(_SHORTEST_REPLY, *(request.max_tokens for request in requests)),
                _mean([float(request.max_tokens) for request in requests]),
            ),
            shared_bytes=min(_shared(request) for request in requests),
        )
        for account, requests in sorted(found.items())
    ]


def _size(request: Request) -> float:
    texts = [message.text for message in request.messages] or [request.prompt or ""]
    return float(sum(len(text.encode("utf-8", "surrogatepass")) for text in texts))


def _shared(request: Request) -> float:
    """The system message; it is the same for all latents."""
    first = request.messages[0] if request.messages else None
    return float(len(first.text.encode())) if first is not None and first.role == "system" else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def cost_words(estimate: CostRange | None) -> str:
    """` (about 1.2 to 3.4 million tokens, 0.31 to 0.95 USD)`; nothing without an estimate."""
    if estimate is None:
        return ""
    low, high = (count / 1e6 for count in estimate.tokens)
    dollars = "" if estimate.usd is None else f", {estimate.usd[0]:.2f} to {estimate.usd[1]:.2f} USD"
    return f" (about {low:.2g} to {high:.2g} million tokens{dollars})"
