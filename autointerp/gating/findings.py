"""A number and its limit -> a check: what was found, what it says of a rule, what more would decide it."""

from dataclasses import dataclass, replace
from typing import Literal

from autointerp.gating.evidence import RunEvidence
from autointerp.gating.normal_tests import Uncertain, units_needed
from autointerp.gating.policy import Rule
from autointerp.gating.price import latent_price
from autointerp.report_keys import slice_key

__all__ = ["Check", "held_to_limit", "not_met", "priced", "shown"]


@dataclass(frozen=True)
class Check:
    """One rule at one checkpoint."""

    rule: Rule
    checkpoint: str
    finding: Literal["met", "not met", "open"]
    """`open`: not clearly met; whether it is violated is for Holm's correction to say, over all rules."""
    statement: str
    """One line: the number, its bound, the limit; or why there is none."""
    p_violated: float | None = None
    """One-sided p-value for the rule being violated; None where no number was tested."""
    needed: str = ""
    """What more would decide an open one, and what that takes."""
    needed_latents: int = 0
    """How many of these are further latents."""
    needed_usd: float | None = None
    """Dollars, at this run's price per latent; None where none are due or there is no price."""
    needed_tokens: int | None = None
    """Of an LLM, where it was asked but has no price."""
    value: float | None = None
    bound: float | None = None
    """The one-sided bound, at the policy's level, that the limit was held against."""
    limit: float | None = None


def held_to_limit(
    rule: Rule,
    checkpoint: str,
    found: Uncertain,
    limit: float,
    level: float,
    *,
    words: str,
    is_upper: bool | None = None,
    is_strict: bool = False,
) -> Check:
    """A number against a limit, by one-sided tests.

    Args:
        rule: whose limit it is.
        checkpoint: of the number.
        found: the number, or a difference turned so that more is worse.
        limit: in the same unit.
        level: one-sided.
        words: what comes first in the statement.
        is_upper: whether the limit may not be exceeded; None: as the rule says.
        is_strict: whether a number without a width must lie beyond the limit, not on it.
    """
    is_upper = rule.is_upper if is_upper is None else is_upper
    turned, held = (found, limit) if is_upper else (found.negated(), -limit)
    bound = turned.upper(level)
    # A difference without any width, 0 exactly, is no better than the null, and no worse than the baseline.
    is_met = bound < held if is_strict and rule.kind == "better_than_null" else bound <= held
    edge = bound if is_upper else -bound
    asked = f"bound {shown(edge)}, {'at most' if is_upper else 'at least'} {limit:g} asked"
    if rule.kind == "no_worse_than":
        asked = f"worse by at most {shown(bound)}, margin {limit:g}"
    elif rule.kind == "better_than_null":
        asked = f"better by at least {shown(-bound)}, more than {-limit or 0.0:g} asked"
    statement = (
        f"{words}; {asked}{'' if found.has_width else f' (exact: {found.n:,} x {found.sampled}, all alike)'}"
    )
    needed, more = ("", 0) if is_met else _needed(turned, held, level)
    return Check(
        rule,
        checkpoint,
        "met" if is_met else "open",
        statement,
        p_violated=turned.p_above(held),
        needed=needed,
        needed_latents=more if found.sampled == "latent" else 0,
        value=found.value,
        bound=edge,
        limit=limit,
    )


def _needed(found: Uncertain, limit: float, level: float) -> tuple[str, int]:
    """What more would decide, in words, and how many units that is."""
    total = units_needed(found, limit, level=level)
    if total is None:
        return "it lies on the limit: no number of further units is sure to decide", 0
    if total <= found.n:
        return "violated by itself, but not clearly after Holm's correction for all rules", 0
    more = total - found.n
    return f"about {more:,} more of what it rests on ({found.n:,} x {found.sampled}) would decide", more


def priced(check: Check, run: RunEvidence, *, runs: int = 1) -> Check:
    """The same, with what further latents cost where an LLM explains or judges them.

    Args:
        check: of a number.
        run: whose price per latent it is.
        runs: in how many runs so many more are needed: two where a baseline's are other latents.
    """
    rule, latents = check.rule, runs * check.needed_latents
    if not latents:
        return check
    result = run.results.get((check.checkpoint, rule.metric, slice_key(rule.slice)), {})
    if result.get("functional") == "unseen_fraction":
        return replace(check, needed="more text: all its latents are counted already", needed_latents=0)
    price = latent_price(run.report, rule.metric, rule.slice)
    if price is None:
        return check
    both = " in each of the two runs" if runs > 1 else ""
    needed = f"{check.needed}{both}: {price.words(latents)}"
    if price.usd is None:
        return replace(check, needed=needed, needed_tokens=round(price.tokens * latents))
    return replace(check, needed=needed, needed_usd=price.usd * latents)


def not_met(rule: Rule, checkpoint: str, statement: str) -> Check:
    """What does not meet a rule without any test: missing, failed, skipped, another corpus."""
    return Check(rule, checkpoint, "not met", statement)


def shown(value: float, *, sign: bool = False) -> str:
    """Four digits of a number."""
    return f"{value:+.4g}" if sign else f"{value:.4g}"
