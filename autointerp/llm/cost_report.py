"""What a run asked and paid, as JSON: by model, role and metric; and what more latents would cost."""

from collections.abc import Mapping
from typing import Any

from autointerp.llm.prices import usd
from autointerp.llm.requests import Usage
from autointerp.llm.response_cache import ResponseCache
from autointerp.llm.spending import Ledger
from autointerp.llm.tally import Tally

__all__ = ["cost_report", "scaled_cost"]

_SUMMED = ("calls", "from_cache_calls", "retries", "prompt_tokens", "cached_tokens", "completion_tokens")


def cost_report(
    cache: ResponseCache, ledger: Ledger, from_cache: Mapping[tuple[str, str, str], int], tally: Tally
) -> dict[str, Any]:
    """The `cost` section of a report, of all sittings together; JSON-able.

    `rows`: of each (model, role, metric) `calls` that were answered, `from_cache_calls` of this sitting that
    cost nothing, `retries`, `refusals` by cause, tokens, and `usd` (None where the model has no price).
    `without_answer`: what was perhaps billed though nothing usable came, at most, and what measuring took.
    The totals are of both. `needed`: what this sitting's own questions take, whenever they were answered;
    less than the totals where the run was explained otherwise before.
    """
    rows = {(row["model"], row["role"], row["metric"]): _row(row, ledger) for row in cache.totals()}
    for account, count in from_cache.items():
        rows.setdefault(account, _empty_row(account))["from_cache_calls"] = count
    for row in cache.refusals():
        rows[row["model"], row["role"], row["metric"]]["refusals"][row["cause"]] = row["calls"]
    losses = [{**row, "usd": _dollars(row, ledger)} for row in cache.losses()]
    for loss in losses:
        del loss["unpriced_calls"]
    ordered = [rows[account] for account in sorted(rows)]
    totals: dict[str, Any] = {name: sum(row[name] for row in ordered) for name in _SUMMED}
    for name in ("prompt_tokens", "completion_tokens"):
        totals[name] += sum(loss[name] for loss in losses)
    dollars = [row["usd"] for row in [*ordered, *losses]]
    totals["usd"] = None if None in dollars else sum(dollars)
    return {"rows": ordered, "without_answer": losses, "totals": totals, "needed": tally.totals()}


def scaled_cost(report: Mapping[str, Any], *, latents: int, wanted: int = 1_000_000) -> dict[str, Any]:
    """What `wanted` latents would take, if each takes as much as one of the `latents` that the report is of.

    Raises:
        ValueError: the report is of no latent.
    """
    if latents < 1:
        raise ValueError("a cost per latent needs at least one latent")
    totals, factor = report["needed"], wanted / latents
    names = ("calls", "prompt_tokens", "cached_tokens", "completion_tokens")
    scaled: dict[str, Any] = {name: round(totals[name] * factor) for name in names}
    dollars = totals["usd"]
    return {"latents": wanted, **scaled, "usd": None if dollars is None else dollars * factor}


def _row(row: Mapping[str, Any], ledger: Ledger) -> dict[str, Any]:
    kept = {name: value for name, value in row.items() if name != "unpriced_calls"}
    return kept | {"from_cache_calls": 0, "refusals": {}, "usd": _dollars(row, ledger)}


def _empty_row(account: tuple[str, str, str]) -> dict[str, Any]:
    model, role, metric = account
    numbers = dict.fromkeys((*_SUMMED, "estimated_calls", "batch_calls"), 0)
    return {"model": model, "role": role, "metric": metric, **numbers, "refusals": {}, "usd": 0.0}


def _dollars(row: Mapping[str, Any], ledger: Ledger) -> float | None:
    """As it was booked; where some calls had no price then, all at the price that is known now."""
    if not row["unpriced_calls"]:
        return row["usd"]
    usage = Usage(row["prompt_tokens"], row["completion_tokens"], row.get("cached_tokens", 0))
    return usd(ledger.price(row["model"]), usage)
