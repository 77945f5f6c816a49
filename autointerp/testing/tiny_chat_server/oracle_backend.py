"""A judge that knows what quoted words mean, and sees nothing but the body of the request.

It reads the prompts of explainers, simulators and judges as a person would, answers in the format that they
ask for, and gives log-probabilities that fit its answers. How good it is can be set (`Habits`). As an
explainer it names the words that are highlighted wherever they stand.
"""

import json
from collections.abc import Iterable, Mapping

from autointerp.testing.tiny_chat_server.exchange import Answer, Call, Choice, ScoredToken
from autointerp.testing.tiny_chat_server.json_instances import smallest_instance
from autointerp.testing.tiny_chat_server.oracle_choosing import (
    choose_continuation,
    expect_words,
    find_intruder,
)
from autointerp.testing.tiny_chat_server.oracle_explaining import explain, propose
from autointerp.testing.tiny_chat_server.oracle_habits import Habits
from autointerp.testing.tiny_chat_server.oracle_judging import (
    judge,
    simulate_in_prompt,
    simulate_in_reply,
    simulate_last_token,
)
from autointerp.testing.tiny_chat_server.oracle_pieces import Piece, scored_pieces
from autointerp.testing.tiny_chat_server.reply_bodies import reply_answer

__all__ = ["OracleBackend"]


class OracleBackend:
    """Answers what the project's own prompts ask, and `ok` to all else."""

    def __init__(
        self,
        habits: Habits | None = None,
        *,
        glossary: Mapping[str, Iterable[str]] | None = None,
        model: str = "oracle",
    ) -> None:
        """An oracle; by default one that is always right.

        Args:
            habits: how it judges and simulates; it explains as well as it can in any case.
            glossary: phrase -> words: what it understands besides quoted words.
            model: what replies say has answered.
        """
        self.model = model
        self._habits = habits or Habits()
        self._glossary = {phrase: frozenset(words) for phrase, words in (glossary or {}).items()}

    async def answer(self, call: Call) -> Answer:
        """What it thinks."""
        choice = _ended(self._reply(call), call, []) if call.is_chat else self._completion(call)
        count, prompt_tokens = int(call.body.get("n") or 1), len(scored_pieces([Piece(call.prompt)], 0))
        written = len(choice.tokens) - (prompt_tokens if call.body.get("echo") else 0)
        return reply_answer(
            call,
            [choice] * count,
            model=self.model,
            prompt_tokens=prompt_tokens,
            completion_tokens=count * max(written, 0),
        )

    def _reply(self, call: Call) -> list[Piece]:
        for read in (judge, simulate_in_reply, simulate_last_token, choose_continuation, find_intruder):
            pieces = read(call, self._habits, self._glossary)
            if pieces is not None:
                return pieces
        return [Piece(explain(call) or propose(call) or _structured(call) or "ok")]

    def _completion(self, call: Call) -> Choice:
        prompt: list[ScoredToken] = []
        if call.body.get("echo"):
            read = (
                reader(call, self._habits, self._glossary) for reader in (simulate_in_prompt, expect_words)
            )
            pieces = next((found for found in read if found is not None), [Piece(call.prompt)])
            first, *others = scored_pieces(pieces, call.top_count, plain_count=2)
            prompt = [ScoredToken(first.text, None), *others]
        return _ended([Piece(" ok")], call, prompt)


def _ended(pieces: list[Piece], call: Call, before: list[ScoredToken]) -> Choice:
    """The reply, cut where its limit is, or before the first stop in it."""
    tokens = scored_pieces(pieces, call.top_count)
    text = "".join(token.text for token in tokens)
    stops = call.body.get("stop") or ()
    places = [text.find(stop) for stop in ([stops] if isinstance(stops, str) else stops) if stop in text]
    limit = len(tokens) if call.most_tokens is None else call.most_tokens
    kept, length = [], 0
    for token in tokens[:limit]:
        if places and length >= min(places):
            break
        kept.append(token)
        length += len(token.text)
    text = text[: min([length, *places])]
    is_cut = limit < len(tokens) and not (places and length >= min(places))
    told = "".join(token.text for token in before) + text
    return Choice(told, [*before, *kept], "length" if is_cut else "stop")


def _structured(call: Call) -> str | None:
    """JSON, where the reply must be some."""
    wanted = call.body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return json.dumps(smallest_instance(wanted["json_schema"]["schema"]))
    return json.dumps({"answer": "ok"}) if wanted.get("type") == "json_object" else None
