"""A backend that cannot do all: it ignores parameters, refuses others, or takes few calls at once."""

from collections.abc import Collection, Mapping
from typing import Any

from autointerp.testing.tiny_chat_server.exchange import Answer, Backend, Call, error_answer
from autointerp.testing.tiny_chat_server.faults import rate_limited

__all__ = ["RestrictedBackend"]


class RestrictedBackend:
    """Behaves as real servers do that speak the protocol only in part."""

    def __init__(
        self,
        backend: Backend,
        *,
        ignores: Collection[str] = (),
        refuses: Collection[str] = (),
        has_not: Collection[str] = (),
        capacity: int | None = None,
        most_prompt_characters: int | None = None,
    ) -> None:
        """Remember what is not done.

        Args:
            backend: who answers.
            ignores: names in a request's body that are taken out without a word (`logprobs`, `seed`).
            refuses: names that give status 400 (`max_tokens`, `response_format`).
            has_not: paths that give status 404 (`/v1/completions`).
            capacity: how many calls are answered at once; more give status 429.
            most_prompt_characters: longer prompts give status 400, code `context_length_exceeded`.
        """
        self.model = backend.model
        self._backend, self._ignores = backend, frozenset(ignores)
        self._refuses, self._has_not = frozenset(refuses), frozenset(has_not)
        self._capacity, self._most_characters = capacity, most_prompt_characters

    async def answer(self, call: Call) -> Answer:
        """The other backend's answer to what is left of the call, or why there is none."""
        if call.path in self._has_not:
            return error_answer(404, f"no such address: {call.path}")
        if self._capacity is not None and call.in_flight > self._capacity:
            return rate_limited(form="none")(call, Answer({}))
        for name in sorted(self._refuses & call.body.keys()):
            return error_answer(
                400, f"Unsupported parameter: '{name}' is not supported.", code="unsupported_parameter"
            )
        if self._most_characters is not None and len(call.prompt) > self._most_characters:
            return error_answer(
                400,
                f"This model's maximum context length is {self._most_characters} characters.",
                code="context_length_exceeded",
            )
        left: Mapping[str, Any] = {
            name: value for name, value in call.body.items() if name not in self._ignores
        }
        return await self._backend.answer(
            Call(call.path, left, call.headers, call.number, call.earlier, call.in_flight)
        )
