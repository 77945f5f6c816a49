"""EvaluationReport -> the section on explanations: how well they predict beside nulls, and some of them."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.records import EvaluationReport, MetricResult, Outcome
from autointerp.reporting import numbers
from autointerp.reporting.cost_charts import cost_chart
from autointerp.reporting.parts import Callout, Cell, Code, Column, Part, Row, Section, Table
from autointerp.reporting.quantile_charts import quantile_charts
from autointerp.reporting.summary import measure_cell
from autointerp.reporting.token_text import visible

__all__ = ["explanation_sections", "with_scores"]

_SHOWN = 8
"""Explanations of each checkpoint, drawn by hash: neither the best nor the worst."""
_FAMILIES = (
    ("Detection", "explanation.detection_auroc", "explanation.detection_over_borrowed"),
    ("Fuzzing", "explanation.fuzzing_auroc", "explanation.fuzzing_over_borrowed"),
    ("Simulation", "explanation.simulation_correlation", "explanation.simulation_over_borrowed"),
)
_HARD = {"negatives": "hard"}
_COLUMNS = (
    Column("Checkpoint"),
    Column("Tested by"),
    Column("Own", is_numeric=True, hint="its own explanations, on text that they were not made from"),
    Column("Borrowed", is_numeric=True, hint="null: every latent is given another latent's explanation"),
    Column("Empty", is_numeric=True, hint="null: the judge is told nothing"),
    Column("Own − borrowed", is_numeric=True, hint="paired, latent by latent"),
    Column("Hard", is_numeric=True, hint="own, where silent text resembles the active one"),
    Column("Refused", is_numeric=True, hint="share of questions without a usable answer"),
    Column("Latents", is_numeric=True),
)
_ADD_LLM = (
    "autointerp evaluate SUITE.toml --out RUN \\\n"
    "    --set llm.base_url=http://localhost:8000/v1 --set llm.model=NAME    # any OpenAI-compatible server\n"
    "OPENAI_API_KEY=... autointerp evaluate SUITE.toml --out RUN \\\n"
    "    --set llm.model=gpt-4o-mini --budget-tokens 2000000"
)


def explanation_sections(
    report: EvaluationReport, explained: Sequence[Mapping[str, Any]] = ()
) -> tuple[Section, ...]:
    """The section, or none where no explanations were made.

    Args:
        report: what the run found.
        explained: as from `with_scores`; without them no explanation is shown.
    """
    facts = report.explanations
    if not facts:
        return ()
    asked_llm = bool(facts.get("models"))
    parts: list[Part] = [_scores_table(report, facts), *quantile_charts(report)]
    shown = _shown(report, explained)
    if shown:
        parts.append(_text_table(shown, _nulls(report)))
    if asked_llm:
        parts.append(_models_table(facts))
        parts.append(_cost_table(report))
        cost = cost_chart(report)
        parts += [] if cost is None else [cost]
        parts += _outlook(report)
    else:
        parts.append(
            Callout(
                "No language model was asked",
                (
                    "These explanations are made from counts of tokens, and tested with the same counts. An "
                    "LLM explains and judges as soon as one is named; a finished run is then only explained "
                    "anew.",
                ),
                "neutral",
            )
        )
        parts.append(Code("Add a language model", _ADD_LLM))
    return (
        Section(
            name="explanations",
            title="Do explanations predict?",
            lead="An explanation is made from some documents and must tell, on others, where its latent "
            "fires. Means over the sampled latents, weighted to stand for all scorable ones; intervals are "
            "over latents. AUROC and correlation at the nulls say what the text alone gives away.",
            parts=tuple(parts),
        ),
    )


def with_scores(
    explanations: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Rows of explanations.jsonl, each with the `scores` of its latent and explainer from scores.jsonl."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for line in scores:
        key = (line["checkpoint"], line["latent"], line["explainer"])
        kind = {"explanation": line["explanation"]}
        found.setdefault(key, []).extend(score | kind for score in line["scores"])
    return [
        {**row, "scores": found.get((row["checkpoint"], row["latent"], row["explainer"]), [])}
        for row in explanations
    ]


def _scores_table(report: EvaluationReport, facts: Mapping[str, Any]) -> Table:
    nulls = _nulls(report)
    found = {(r.checkpoint, r.metric, _key(r.slice)): r for r in report.results}
    rows = []
    for checkpoint in report.checkpoints:
        for title, metric, lift in _FAMILIES:
            for settings in _sources(report, checkpoint.name, metric):
                cells = _score_cells(found, checkpoint.name, (metric, lift), settings)
                words = _tested_by(title, settings, facts)
                name = Cell(checkpoint.name, sort=checkpoint.name)
                rows.append(Row((name, words, *cells), is_null=checkpoint.name in nulls))
    return Table(
        "explanations", "Scores of explanations", _COLUMNS, tuple(rows), is_filterable=len(rows) > 12
    )


def _nulls(report: EvaluationReport) -> frozenset[str]:
    return frozenset(checkpoint.name for checkpoint in report.checkpoints if checkpoint.role == "null")


def _sources(report: EvaluationReport, checkpoint: str, metric: str) -> list[dict[str, Any]]:
    """Who explained and who judged: the slices that differ in nothing else, the headline first."""
    slices = [dict(r.slice) for r in report.results if (r.checkpoint, r.metric) == (checkpoint, metric)]
    named = [
        s for s in slices if s.keys() <= {"explainer", "method", "judge"} and s.get("judge") != "constant"
    ]
    return sorted(named, key=lambda s: (len(s), _key(s)))


def _score_cells(
    found: Mapping[tuple[str, str, str], MetricResult],
    checkpoint: str,
    metrics: tuple[str, str],
    settings: Mapping[str, Any],
) -> tuple[Cell, ...]:
    metric, lift = metrics

    def outcome(name: str, **further: Any) -> Outcome | None:
        result = found.get((checkpoint, name, _key({**settings, **further})))
        return result.outcome if result else None

    own = outcome(metric)
    counted = Cell("—", kind="missing", hint="without a number there are no latents that it is of")
    if own is not None and own.status == "measured":
        counted = Cell(numbers.count(own.estimate.n), sort=own.estimate.n, kind="number")
    return (
        measure_cell(own),
        measure_cell(outcome(metric, explanation="borrowed")),
        measure_cell(outcome(metric, explanation="empty")),
        measure_cell(outcome(lift)),
        measure_cell(outcome(metric, **_HARD)),
        measure_cell(_refused(found, checkpoint, metric, settings)),
        counted,
    )


def _refused(
    found: Mapping[tuple[str, str, str], MetricResult],
    checkpoint: str,
    metric: str,
    settings: Mapping[str, Any],
) -> Outcome | None:
    """Of the questions behind a row; of all of its explainer's, where a headline has another method."""
    explainer = {key: value for key, value in settings.items() if key == "explainer"}
    family = metric.removeprefix("explanation.").partition("_")[0]
    for about in (explainer | {"method": settings.get("method", family)}, explainer):
        result = found.get((checkpoint, "explanation.refusal_fraction", _key(about)))
        if result is not None:
            return result.outcome
    return None


def _tested_by(title: str, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> Cell:
    explainers = facts.get("explainers") or ["?"]
    explainer = settings.get("explainer", explainers[0])
    judge = settings.get("judge") or settings.get("method") or ""
    detail = f"{explainer}{' · ' if judge else ''}{judge}"
    return Cell(title, sort=f"{title} {detail}", detail=detail)


def _key(settings: Mapping[str, Any]) -> str:
    return repr(sorted(settings.items()))


def _shown(report: EvaluationReport, explained: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    order = {checkpoint.name: place for place, checkpoint in enumerate(report.checkpoints)}
    by_checkpoint: dict[str, list[Mapping[str, Any]]] = {}
    for row in explained:
        if row.get("checkpoint") in order:
            by_checkpoint.setdefault(row["checkpoint"], []).append(row)
    shown: list[Mapping[str, Any]] = []
    for name in sorted(by_checkpoint, key=order.__getitem__):
        latents = sorted({row["latent"] for row in by_checkpoint[name]}, key=lambda i: _hash(name, i))[
            :_SHOWN
        ]
        shown += [row for latent in latents for row in by_checkpoint[name] if row["latent"] == latent]
    return shown


def _hash(name: str, latent: int) -> str:
    return hashlib.sha256(f"{name}\0{latent}".encode()).hexdigest()


def _text_table(rows: Sequence[Mapping[str, Any]], nulls: frozenset[str]) -> Table:
    columns = (
        Column("Checkpoint"),
        Column("Latent", is_numeric=True),
        Column("Explanation"),
        Column("Detection AUROC", is_numeric=True, better="higher"),
        Column("Borrowed", is_numeric=True),
        Column("Correlation", is_numeric=True, better="higher"),
    )
    drawn = tuple(
        Row(
            (
                Cell(row["checkpoint"], sort=row["checkpoint"]),
                Cell(str(row["latent"]), sort=row["latent"], kind="number"),
                _explanation_cell(row),
                _latent_cell(row, "explanation.detection_auroc", "own"),
                _latent_cell(row, "explanation.detection_auroc", "borrowed"),
                _latent_cell(row, "explanation.simulation_correlation", "own"),
            ),
            is_null=row["checkpoint"] in nulls,
        )
        for row in rows
    )
    caption = f"Explanations of {_SHOWN} latents a checkpoint, drawn at random"
    return Table("explained", caption, columns, drawn, is_filterable=True)


def _explanation_cell(row: Mapping[str, Any]) -> Cell:
    if row.get("status") == "explained":
        text = visible(str(row.get("text", "")))
        return Cell(text, sort=text, detail=str(row["explainer"]))
    words = [row.get("cause") or row.get("reason") or "", row.get("detail") or ""]
    why = visible(f"{row.get('status', '')}: {' '.join(words)}".strip())
    return Cell("—", kind="missing", detail=why, hint=str(row["explainer"]))


def _latent_cell(row: Mapping[str, Any], metric: str, kind: str) -> Cell:
    """A latent's own score, with the interval over its examples."""
    scores = [
        score
        for score in row.get("scores", ())
        if (score["metric"], score["explanation"]) == (metric, kind) and not _narrows(score)
    ]
    if not scores:
        return Cell("—", kind="missing", hint="not tested in this way")
    score = min(scores, key=lambda score: len(score.get("slice", {})))
    if "value" not in score:
        return Cell("—", kind="missing", hint=score["reason"])
    low, high = score["ci_low"], score["ci_high"]
    decimals = numbers.decimals_for(low, high)
    return Cell(
        numbers.fixed(score["value"], decimals),
        sort=score["value"],
        kind="number",
        detail=numbers.interval(low, high, decimals=decimals),
        hint=f"{score['judge']}: {score['ci_method']}",
    )


def _narrows(score: Mapping[str, Any]) -> bool:
    """Whether it is of some passages only, or of a judge that knows nothing."""
    return bool(score.get("slice", {}).keys() - {"method", "judge"}) or score["judge"] == "constant"


def _models_table(facts: Mapping[str, Any]) -> Table:
    titles = ("Role", "Model", "Answered as", "Endpoint", "Settings")
    rows = tuple(
        Row(
            (
                Cell(str(model.get("role", ""))),
                Cell(visible(str(model.get("model", "")))),
                Cell(
                    visible(str(model.get("answered_by", ""))),
                    detail=visible(str(model.get("fingerprint", ""))),
                ),
                Cell(str(model.get("endpoint", ""))),
                Cell(", ".join(f"{name} {model[name]}" for name in ("temperature", "seed") if name in model)),
            )
        )
        for model in facts["models"]
    )
    columns = tuple(Column(title) for title in titles)
    return Table("models", "Who explained and judged", columns, rows)


def _cost_table(report: EvaluationReport) -> Part:
    """What the calls cost; rows as `llm.spending` reports them."""
    spent = report.cost.get("llm", {})
    rows = tuple(
        Row(
            (
                Cell(str(row.get("model", "")), sort=str(row.get("model", ""))),
                Cell(str(row.get("role", ""))),
                Cell(str(row.get("metric", "")), sort=str(row.get("metric", ""))),
                *(_count_cell(row.get(name)) for name in _COUNTED),
                _dollars(row.get("usd")),
            )
        )
        for row in spent.get("rows", ())
    )
    if not rows:
        return Callout("No calls were made", ("All answers were kept from earlier sittings.",), "neutral")
    titles = (
        "Model",
        "Role",
        "For",
        "Calls",
        "Kept",
        "Prompt tokens",
        "of these cached",
        "Reply tokens",
        "US $",
    )
    columns = tuple(Column(title, is_numeric=place > 2) for place, title in enumerate(titles))
    return Table("llm-cost", "What the language model was asked, and what that cost", columns, rows)


def _outlook(report: EvaluationReport) -> list[Part]:
    """What a million latents would take at these settings, beside what was expected of this run."""
    spent = report.cost.get("llm", {})
    lines = []
    if (million := spent.get("per_million_latents")) is not None:
        usd = million.get("usd")
        price = "" if usd is None else f", {numbers.count(round(usd))} US $"
        lines.append(
            f"A million latents at these settings: {numbers.count(million['prompt_tokens'])} prompt tokens, "
            f"{numbers.count(million['completion_tokens'])} reply tokens{price}."
        )
    if (estimate := spent.get("estimate")) is not None:
        low, high = numbers.count(estimate["tokens_low"]), numbers.count(estimate["tokens_high"])
        lines.append(f"Estimated before it began: {low} to {high} tokens.")
    return [Callout("What more would cost", tuple(lines), "neutral")] if lines else []


_COUNTED = ("calls", "from_cache_calls", "prompt_tokens", "cached_tokens", "completion_tokens")


def _count_cell(value: int | None) -> Cell:
    if value is None:
        return Cell("—", kind="missing", hint="not counted")
    return Cell(numbers.count(value), sort=value, kind="number")


def _dollars(value: float | None) -> Cell:
    if value is None:
        return Cell("—", kind="missing", hint="the suite names no price of this model")
    return Cell(f"{value:.4f}", sort=value, kind="number")
