"""Answers what a test says: a list of replies and faults, or a function of the call."""

from collections.abc import Callable, Sequence

from autointerp.testing.tiny_chat_server.exchange import Answer, Call, Choice
from autointerp.testing.tiny_chat_server.reply_bodies import reply_answer, text_answer

__all__ = ["ScriptedBackend", "Step"]

Said = str | Choice | Answer
Step = Said | Callable[[Call], Said]
"""A reply's text, a reply with its log-probabilities, a whole answer, or what makes one from the call."""


class ScriptedBackend:
    """Gives its steps one after the other, then the last one for ever; or asks a function every time.

    A text gets made-up log-probabilities where they are asked for.
    """

    def __init__(self, script: Sequence[Step] | Callable[[Call], Said], *, model: str = "scripted") -> None:
        """Remember the script.

        Args:
            script: a list with at least one step, or a function.
            model: what replies say has answered.
        """
        assert callable(script) or (script and not isinstance(script, str)), "a list of steps, or a function"
        self.model = model
        self._script, self._next = script, 0

    async def answer(self, call: Call) -> Answer:
        """The next step of the script."""
        said = self._step()
        if callable(said):
            said = said(call)
        if isinstance(said, Answer):
            return said
        if isinstance(said, str):
            return text_answer(call, said, model=self.model)
        count = int(call.body.get("n") or 1)
        lengths = len(call.prompt.split()), count * len(said.text.split())
        return reply_answer(
            call, [said] * count, model=self.model, prompt_tokens=lengths[0], completion_tokens=lengths[1]
        )

    def _step(self) -> Step:
        if callable(self._script):
            return self._script
        step = self._script[min(self._next, len(self._script) - 1)]
        self._next += 1
        return step
