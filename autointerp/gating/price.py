"""A run's cost -> what further latents would take, in dollars or tokens, at this run's price of one."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["LatentPrice", "latent_price"]


@dataclass(frozen=True)
class LatentPrice:
    """What explaining and judging one more latent takes, if it takes as much as one of this run's."""

    tokens: float
    """Prompt and reply together."""
    usd: float | None
    """None where a model has no price, or where it is 0 (a model of one's own): then tokens are told."""
    latent_count: int
    """How many latents it is a mean of: all that this run explained, of all its dictionaries."""

    def words(self, latents: int) -> str:
        """What so many more take; of the run's means, so it is no more than about that."""
        mean = f"over {self.latent_count:,} explained"
        if self.usd is None:
            tokens = f"about {round(self.tokens * latents):,} tokens more"
            return f"{tokens} at this run's use of {round(self.tokens):,} a latent ({mean})"
        dollars = self.usd * latents
        said = "less than $0.01 more" if dollars < 0.005 else f"about ${dollars:,.2f} more"
        price = f"{self.usd:,.2f}" if self.usd >= 1 else f"{self.usd:.6f}".rstrip("0")
        return f"{said} at this run's price per latent (${price}, {mean})"


def latent_price(report: Mapping[str, Any], metric: str, settings: Mapping[str, Any]) -> LatentPrice | None:
    """The price of one more latent for a metric at a slice.

    It is of everything that this run asked about a latent: by all explainers and all methods.

    Args:
        report: report.json; what it says of cost may be missing.
        metric: its name.
        settings: its slice.

    Returns:
        None where the number needs no LLM, or where the run asked none.
    """
    spent = _part(_part(report, "cost"), "llm")
    needed, many = _part(spent, "needed"), _part(spent, "per_million_latents")
    used, tokens, wanted = _tokens(needed), _tokens(many), _amount(many.get("latents"))
    if not used or not tokens or not wanted or not _asks(report, spent, metric, settings):
        return None
    dollars = _amount(many.get("usd"))
    usd = dollars / wanted if dollars else None
    return LatentPrice(tokens / wanted, usd, max(1, round(wanted * used / tokens)))


def _asks(
    report: Mapping[str, Any], spent: Mapping[str, Any], metric: str, settings: Mapping[str, Any]
) -> bool:
    """Whether an LLM explained, or judged, what the number is of."""
    family, _, name = metric.partition(".")
    if family != "explanation":
        return False
    rows = spent.get("rows")
    asked = {
        str(row.get("metric"))
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, dict) and (row.get("calls") or row.get("from_cache_calls"))
    }
    explainers = _part(report, "explanations").get("explainers")
    first = explainers[0] if isinstance(explainers, list) and explainers else ""
    method = str(settings.get("method", "")) if name == "refusal_fraction" else name.partition("_")[0]
    return f"explaining.{settings.get('explainer', first)}" in asked or any(
        each.startswith(f"explanation.{method}") for each in asked
    )


def _part(whole: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = whole.get(key)
    return found if isinstance(found, dict) else {}


def _tokens(counts: Mapping[str, Any]) -> float | None:
    found = [_amount(counts.get(key)) for key in ("prompt_tokens", "completion_tokens")]
    return None if found[0] is None or found[1] is None else found[0] + found[1]


def _amount(value: object) -> float | None:
    """A finite number from 0 on, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
