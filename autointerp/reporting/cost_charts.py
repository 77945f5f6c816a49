"""EvaluationReport of a run that asked an LLM -> what explanations cost beside how well they do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from autointerp.records import Estimate, EvaluationReport, Measured, Outcome
from autointerp.reporting.parts import Axis, ChartPoint, ScatterChart, ScatterGap

__all__ = ["cost_chart"]

_TESTS = (
    ("detection", "explanation.detection_auroc", "explanation.detection_over_borrowed"),
    ("fuzzing", "explanation.fuzzing_auroc", "explanation.fuzzing_over_borrowed"),
    ("simulation", "explanation.simulation_correlation", "explanation.simulation_over_borrowed"),
)
"""A test, what its calls are booked under, and the metric that is drawn."""
_WRITING = "explaining."
"""What calls that write explanations are booked under, before the explainer's name."""
_LOG_RATIO = 3.0

_Row = Mapping[str, Any]


class _Scored(NamedTuple):
    """How one explainer does in one test on one checkpoint."""

    explainer: str
    test: str
    checkpoint: str
    estimate: Estimate


def cost_chart(report: EvaluationReport) -> ScatterChart | None:
    """Money, or tokens where some call has no price, per latent against scores over a borrowed explanation.

    A latent costs what its explainer's calls and the test's calls came to over all sittings, by the number of
    latents explained; a test's calls are shared equally by the explainers that it tested. Tests that ask no
    LLM are left out: their scores are not comparable. None without an LLM, or with fewer than two marks.
    """
    spent = report.cost.get("llm") or {}
    rows = spent.get("rows", ())
    latents = _latent_count(spent)
    booked = {row["metric"] for row in rows}
    found = [scored for scored in _scores(report) if _account(scored.test) in booked]
    if latents is None or len(found) < 2:
        return None
    has_prices = all(row.get("usd") is not None for row in rows)
    costs = _costs(rows, found, _dollars if has_prices else _tokens, latents)
    if min(costs.values()) <= 0:
        return None
    nulls = {checkpoint.name for checkpoint in report.checkpoints if checkpoint.role == "null"}
    unit = "US $" if has_prices else "tokens"
    return ScatterChart(
        name="explanation-cost",
        title="What explanations cost, and what they tell",
        caption=f"{'Dollars' if has_prices else 'Tokens'} per explained latent, for writing and testing, "
        "over all sittings; one mark each explainer, test and checkpoint. The score is that of its own "
        "explanation less that of another's: at 0 it says nothing of this latent. AUROC and correlation are "
        "different scales: compare within a test.",
        x=Axis(f"Cost per latent ({unit})", _scale(list(costs.values()))),
        y=Axis("Own − borrowed (AUROC, or correlation)", better="higher"),
        points=tuple(
            _point(scored, costs[scored.explainer, scored.test], is_null=scored.checkpoint in nulls)
            for scored in found
        ),
        gaps=tuple(
            ScatterGap(
                checkpoint,
                f"{explainer} · {test}",
                None,
                outcome,
                is_null=checkpoint in nulls,
            )
            for explainer, test, checkpoint, outcome in _outcomes(report)
            if _account(test) in booked and not isinstance(outcome, Measured)
        ),
    )


def _account(test: str) -> str:
    return next(account for name, account, _ in _TESTS if name == test)


def _latent_count(spent: Mapping[str, Any]) -> int | None:
    """Latents that were explained, as the report scales its cost to a million of them."""
    million, needed = spent.get("per_million_latents") or {}, spent.get("needed") or {}
    if not million.get("prompt_tokens") or not needed.get("prompt_tokens"):
        return None
    return round(million["latents"] * needed["prompt_tokens"] / million["prompt_tokens"]) or None


def _scores(report: EvaluationReport) -> Iterator[_Scored]:
    for explainer, test, checkpoint, outcome in _outcomes(report):
        if isinstance(outcome, Measured):
            yield _Scored(explainer, test, checkpoint, outcome.estimate)


def _outcomes(report: EvaluationReport) -> Iterator[tuple[str, str, str, Outcome]]:
    """(explainer, test, checkpoint, outcome) of each explainer that the headline's judge was asked about."""
    explainers = report.explanations.get("explainers") or ["?"]
    names = {checkpoint.name for checkpoint in report.checkpoints}
    for test, _, metric in _TESTS:
        for result in report.results:
            is_asked = result.metric == metric and result.checkpoint in names
            if is_asked and not result.slice.keys() - {"explainer"}:
                explainer = str(result.slice.get("explainer", explainers[0]))
                yield explainer, test, result.checkpoint, result.outcome


def _costs(
    rows: Sequence[_Row], found: Sequence[_Scored], amount: Callable[[_Row], float], latents: int
) -> dict[tuple[str, str], float]:
    """Per latent, by explainer and test."""
    paid: dict[str, float] = {}
    for row in rows:
        paid[row["metric"]] = paid.get(row["metric"], 0.0) + amount(row)
    pairs = dict.fromkeys((scored.explainer, scored.test) for scored in found)
    tested = [test for _, test in pairs]
    return {
        (explainer, test): (
            paid.get(f"{_WRITING}{explainer}", 0.0) + paid[_account(test)] / tested.count(test)
        )
        / latents
        for explainer, test in pairs
    }


def _dollars(row: _Row) -> float:
    return float(row["usd"])


def _tokens(row: _Row) -> float:
    return float(row["prompt_tokens"] + row["completion_tokens"])


def _scale(costs: Sequence[float]) -> Any:
    return "log" if max(costs) / min(costs) > _LOG_RATIO else "linear"


def _point(scored: _Scored, cost: float, *, is_null: bool) -> ChartPoint:
    estimate = scored.estimate
    words = f"{scored.explainer} · {scored.test}"
    return ChartPoint(
        label=scored.checkpoint,
        series=f"null · {words}" if is_null else words,
        x=cost,
        x_low=cost,
        x_high=cost,
        y=estimate.value,
        y_low=estimate.low,
        y_high=estimate.high,
        is_null=is_null,
    )
