"""How good a judge the oracle is: always right, right now and then, or set in its ways."""

import hashlib
from dataclasses import dataclass
from typing import Literal

__all__ = ["Habits"]

_SURE = 0.97


@dataclass(frozen=True)
class Habits:
    """Turns what an explanation implies of an item into what the oracle believes of it."""

    skill: float = 1.0
    """Share of the items of which it believes what is implied; of the others it believes something at random,
    uniform in [0, 1]. Those are the same in every run, and fewer of the same with more skill."""
    manner: Literal["skilled", "coin", "always_no", "always_yes"] = "skilled"
    """`coin`: skill 0. The last two believe the same of everything."""
    seed: int = 0

    def belief(self, is_implied: bool, *item: str) -> float:
        """Probability that it gives to firing.

        Args:
            is_implied: whether the explanation implies it.
            item: what the item is, explanation and text: chance hangs on that alone.
        """
        if self.manner in ("always_no", "always_yes"):
            return _SURE if self.manner == "always_yes" else 1 - _SURE
        skill = 0.0 if self.manner == "coin" else self.skill
        if self._uniform("lapse", *item) >= skill:
            return 0.01 + 0.98 * self._uniform("coin", *item)
        return _SURE if is_implied else 1 - _SURE

    def _uniform(self, *parts: str) -> float:
        digest = hashlib.sha256("\0".join((str(self.seed), *parts)).encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:7], "big") / 2**56
