"""A judge that asks about numbered passages in one request, or about one alone: detection and fuzzing."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from autointerp.explanation_records import Explanation, Judgement, Passage, Refusal
from autointerp.llm.language_model import SECOND_TEMPERATURE, Capability
from autointerp.llm.requests import Message, Reply, Request
from autointerp.simulating.answer_masses import answer_masses, normalised
from autointerp.simulating.asking import Asking, all_of, explanation_line, shuffled, whole_lines
from autointerp.simulating.numbered_answers import Answered, answer_token, read_answers

__all__ = ["ALTERNATIVES", "LEAST_MASS", "NumberedJudge"]

ALTERNATIVES = 5
"""Asked for at each token of a reply. More cost time and no accuracy: both answers are among the first five,
or the one that is not has less mass than the fifth."""

LEAST_MASS = 0.1
"""Probability that 0 and 1 must have together where a passage is asked about alone. The model may be about to
say something else; below this, what it thinks of the two is no answer to the question."""

_ALTERNATIVES_ALONE = 20
_ANSWERS = ("0", "1")
_DIVISIBLE = ("content_filter", "too_long")  # may be one passage's fault
_ASKED_AGAIN = ("unparsable", "empty", "missing_logprobs", "cut_off")


class NumberedJudge(Asking, ABC):
    """Yes or no to several passages, as lines `number: 1` or `number: 0`.

    The value is P(1) / (P(0) + P(1)) at the answer's token where the endpoint gives alternatives, else the
    answer itself, 0 or 1; a probability in both cases. Where only one of the answers is among the
    alternatives the other counts as 0, which is wrong by less than the least alternative's probability.

    What is the same in all requests comes first, then the explanation, then the passages, so that a
    provider's prefix cache is of use. Passages are asked in an order that hangs on the explanation and on
    themselves alone. A request that is refused for what may be one passage's fault is asked again in halves.

    Passages whose line cannot be read are asked again. Where the endpoint gives alternatives each is asked
    about alone, as it is from the start if `passages_per_prompt` is 1: then one token is generated, and P(1)
    and P(0) are read at it whatever it is, if they have `LEAST_MASS` together. Small models that do not keep
    to a form of several lines can be judges so. Without alternatives the unread passages are asked about
    together, warmer (`language_model.SECOND_TEMPERATURE`).
    """

    name: str
    prompt_version: str
    metric: str
    needs: frozenset[Capability] = frozenset({"chat"})
    is_probability = True

    @abstractmethod
    def prefix(self) -> tuple[Message, ...]:
        """Instructions and a solved example: the same for all explanations and passages."""

    @abstractmethod
    def prefix_alone(self) -> tuple[Message, ...]:
        """The same for the question about one passage."""

    @abstractmethod
    def shown(self, passage: Passage) -> str:
        """The passage on one line.

        Raises:
            ValueError: it cannot be asked about.
        """

    async def judge(self, explanation: Explanation, passages: Sequence[Passage]) -> list[Judgement | Refusal]:
        """One answer for each passage, in their order."""
        order = shuffled(f"{self.name} {explanation.text}", passages)
        size = max(1, self.options.passages_per_prompt)
        groups = [order[first : first + size] for first in range(0, len(order), size)]
        asked = [self._ask(explanation, [passages[place] for place in group], 0) for group in groups]
        answers = await all_of(asked)
        found: dict[int, Judgement | Refusal] = {}
        for group, answered in zip(groups, answers, strict=True):
            found.update(zip(group, answered, strict=True))
        return [found[place] for place in range(len(passages))]

    def request(
        self, explanation: Explanation, passages: Sequence[Passage], *, replicate: int = 0
    ) -> Request:
        """The question about these passages, numbered from 1 in this order."""
        lines = "\n".join(f"{number}. {self.shown(passage)}" for number, passage in enumerate(passages, 1))
        has_alternatives = "top_logprobs" in self.model.capabilities
        return Request(
            messages=(
                *self.prefix(),
                Message("user", f"{explanation_line(explanation)}\n\nExcerpts:\n{lines}"),
            ),
            max_tokens=8 * len(passages) + 32,  # a greeting, perhaps
            may_cut=True,  # what follows the lines is not read
            temperature=self.options.temperature,
            seed=self.options.seed,
            top_logprobs=ALTERNATIVES if has_alternatives else None,
            replicate=replicate,
            metric=self.options.metric or self.metric,
        )

    def request_alone(self, explanation: Explanation, passage: Passage, *, replicate: int = 0) -> Request:
        """The question about one passage, whose answer is one token."""
        said = f"{explanation_line(explanation)}\n\nExcerpt: {self.shown(passage)}"
        return Request(
            messages=(*self.prefix_alone(), Message("user", said)),
            max_tokens=1,
            temperature=self.options.temperature,
            seed=self.options.seed,
            top_logprobs=_ALTERNATIVES_ALONE,
            replicate=replicate,
            metric=self.options.metric or self.metric,
        )

    async def _ask(
        self, explanation: Explanation, passages: Sequence[Passage], attempt: int
    ) -> list[Judgement | Refusal]:
        is_alone = attempt > 0 or self.options.passages_per_prompt <= 1
        if is_alone and "top_logprobs" in self.model.capabilities:
            return await all_of(self._ask_alone(explanation, passage, attempt) for passage in passages)
        request = self.request(explanation, passages, replicate=attempt)
        if attempt:
            request = replace(request, least_temperature=SECOND_TEMPERATURE)
        reply = await self.model.ask(request)
        if isinstance(reply, Refusal):
            if reply.cause in _DIVISIBLE and len(passages) > 1:
                middle = len(passages) // 2
                halves = (passages[:middle], passages[middle:])
                answers = await all_of(self._ask(explanation, half, attempt) for half in halves)
                return [*answers[0], *answers[1]]
            found: list[Judgement | Refusal] = [reply] * len(passages)
        else:
            found = self._read(reply, passages)
        again = [
            place
            for place, answer in enumerate(found)
            if isinstance(answer, Refusal) and answer.cause in _ASKED_AGAIN
        ]
        if again and attempt + 1 < self.options.attempts:
            pending = [passages[place] for place in again]
            for place, answer in zip(again, await self._ask(explanation, pending, attempt + 1), strict=True):
                found[place] = answer
        return found

    async def _ask_alone(
        self, explanation: Explanation, passage: Passage, attempt: int
    ) -> Judgement | Refusal:
        reply = await self.model.ask(self.request_alone(explanation, passage, replicate=attempt))
        if isinstance(reply, Refusal):
            return reply
        if not reply.logprobs or not reply.logprobs[0].top:
            return Refusal("missing_logprobs", "the reply has no alternatives to its token")
        masses = answer_masses(reply.logprobs[0], _ANSWERS)
        mass = sum(masses.values())
        if mass < LEAST_MASS:
            return Refusal("unparsable", f"0 and 1 have a probability of {mass:.2g} together")
        return Judgement(passage.id, normalised(masses).get("1", 0.0))

    def _read(self, reply: Reply, passages: Sequence[Passage]) -> list[Judgement | Refusal]:
        answers = read_answers(whole_lines(reply), len(passages), _ANSWERS)
        found: list[Judgement | Refusal] = []
        for number, (passage, answered) in enumerate(zip(passages, answers, strict=True), 1):
            value = answered
            if isinstance(answered, Answered):
                value = self._probability(reply, number, answered.answer)
            found.append(value if isinstance(value, Refusal) else Judgement(passage.id, value))
        return found

    def _probability(self, reply: Reply, number: int, answer: str) -> float | Refusal:
        if "top_logprobs" not in self.model.capabilities:
            return float(answer)
        if reply.logprobs is None:
            return Refusal("missing_logprobs", "the reply has no log-probabilities")
        found = answer_token(reply, number, answer)
        if found is None:
            return Refusal("missing_logprobs", f"no log-probability belongs to the answer to number {number}")
        entry, prefix = found
        if not entry.top:
            return Refusal("missing_logprobs", f"no alternatives to the answer to number {number}")
        masses = normalised(answer_masses(entry, _ANSWERS, prefix=prefix))
        if not masses:
            return Refusal("missing_logprobs", f"neither 0 nor 1 is an alternative at number {number}")
        return masses.get("1", 0.0)
