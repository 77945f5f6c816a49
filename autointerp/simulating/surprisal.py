"""Surprisal: by how much an explanation in front of a passage raises its log-likelihood under an LLM."""

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from autointerp.explanation_records import Explanation, Judgement, Passage, Refusal
from autointerp.llm.language_model import Capability, ask_parsed
from autointerp.llm.requests import Reply, Request
from autointerp.simulating.asking import Asking, all_of, explanation_line
from autointerp.simulating.echo_alignment import token_begins

__all__ = ["PROMPT_VERSION", "SurprisalJudge"]

PROMPT_VERSION = "surprisal-1"

_HEAD = "What the explanation says is found in the text below it."

_Logprobs = dict[int, float]
"""Log-probability of each token of a passage, by where it begins in the passage."""


class SurprisalJudge(Asking):
    """How much less a language model is surprised by a passage when it has read the explanation.

    Value: mean over the passage's tokens of log p(token | explanation, text before) - log p(token | neutral,
    text before), in nats per token; above 0 where the explanation helps. The neutral prompt has the same
    form, with "(no explanation)" in its place, so an explanation without text gets 0 everywhere. The tokens
    are the server's; of those that begin before the passage none counts. No probability, for ranking only:
    how it is to be compared among passages of unlike kinds is open.
    """

    name = "surprisal"
    prompt_version = PROMPT_VERSION
    needs: frozenset[Capability] = frozenset({"completions", "echo"})
    is_probability = False

    async def judge(self, explanation: Explanation, passages: Sequence[Passage]) -> list[Judgement | Refusal]:
        """One answer for each passage, in their order."""
        return await all_of(self._judge(explanation, passage) for passage in passages)

    async def _judge(self, explanation: Explanation, passage: Passage) -> Judgement | Refusal:
        neutral = replace(explanation, text="")
        if not explanation.text.strip():
            with_it = without = await self._logprobs(neutral, passage)
        else:
            with_it, without = await all_of(
                (self._logprobs(explanation, passage), self._logprobs(neutral, passage))
            )
        for found in (with_it, without):
            if isinstance(found, Refusal):
                return found
        assert isinstance(with_it, dict) and isinstance(without, dict)
        if with_it.keys() != without.keys():
            return Refusal("missing_logprobs", "the passage's tokens differ between the two prompts")
        gains = [with_it[begin] - without[begin] for begin in sorted(with_it)]
        return Judgement(passage.id, sum(gains) / len(gains))

    async def _logprobs(self, explanation: Explanation, passage: Passage) -> _Logprobs | Refusal:
        head = f"{_HEAD}\n\n{explanation_line(explanation)}\n\nText:\n"
        # What cannot be sent as UTF-8 is sent as U+FFFD.
        text = passage.text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        request = Request(
            prompt=head + text,
            max_tokens=1,
            temperature=self.options.temperature,
            seed=self.options.seed,
            top_logprobs=1,
            echo=True,
            metric=self.options.metric or "explanation.surprisal_auroc",
        )

        def parse(reply: Reply) -> _Logprobs | Refusal:
            return _read(reply, head, text)

        return await ask_parsed(self.model, request, parse, attempts=self.options.attempts)


def _read(reply: Reply, head: str, text: str) -> _Logprobs | Refusal:
    entries = reply.logprobs or ()
    found = {}
    for begin, entry in zip(token_begins(head + text, entries), entries, strict=True):
        if begin is not None and begin >= len(head):
            if entry.logprob is None or not isfinite(entry.logprob):
                return Refusal("missing_logprobs", "a token of the passage has no log-probability")
            found[begin - len(head)] = entry.logprob
    return found or Refusal("missing_logprobs", "no token of the passage has a log-probability")
