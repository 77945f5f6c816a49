"""A seeded mix of faults over any other backend."""

import hashlib
from collections.abc import Sequence

from autointerp.testing.tiny_chat_server.exchange import Answer, Backend, Call
from autointerp.testing.tiny_chat_server.faults import FAULTS, LASTING_FAULTS, PASSING_FAULTS, apply_fault

__all__ = ["FaultyBackend"]


class FaultyBackend:
    """Another backend, some of whose answers are faulty; which ones depends on seed and body alone.

    Not on when or in which order the calls come: a run that is cut and goes on ends like one that is not.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        faults: float = 0.3,
        kinds: Sequence[str] = (*PASSING_FAULTS, *LASTING_FAULTS),
        seed: int = 0,
        most_in_a_row: int = 3,
    ) -> None:
        """Remember what to do how often.

        Args:
            backend: whose answers they are.
            faults: share of the first answers that are faulty, in [0, 1].
            kinds: names of FAULTS; equally frequent. A lasting or fatal one is chosen once for a body,
                a passing one for each time that the body is sent.
            seed: of the choice.
            most_in_a_row: from this many calls with a body on no fault of a passing kind comes.
        """
        unknown = set(kinds) - set(FAULTS)
        assert not unknown, f"no such faults: {sorted(unknown)}"
        self.model = backend.model
        self._backend, self._seed, self._most = backend, seed, most_in_a_row
        self._passing = [kind for kind in kinds if kind in PASSING_FAULTS]
        self._lasting = [kind for kind in kinds if kind not in PASSING_FAULTS]
        self._passing_share = faults * len(self._passing) / max(len(kinds), 1)
        self._lasting_share = faults * len(self._lasting) / max(len(kinds), 1)

    def fault_of(self, key: str, earlier: int) -> str | None:
        """Which fault a call gets, or None.

        Args:
            key: see `exchange.body_key`.
            earlier: how many calls with this body came before.
        """
        place = self._uniform(key)
        if place < self._lasting_share:
            return self._lasting[int(place / self._lasting_share * len(self._lasting))]
        chance = self._passing_share / (1 - self._lasting_share)
        place = self._uniform(f"{key} {earlier}")
        if earlier < self._most and place < chance:
            return self._passing[int(place / chance * len(self._passing))]
        return None

    async def answer(self, call: Call) -> Answer:
        """The other backend's answer, or a fault."""
        name = self.fault_of(call.key, call.earlier)
        proper = await self._backend.answer(call)
        return proper if name is None else apply_fault(name, call, proper)

    def _uniform(self, text: str) -> float:
        """In [0, 1), the same for the same text and seed."""
        digest = hashlib.sha256(f"{self._seed} {text}".encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56
