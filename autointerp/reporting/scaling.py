"""EvaluationReport -> the section on scaling: laws in width and sparsity, measured against fitted."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.records import EvaluationReport
from autointerp.reporting import numbers
from autointerp.reporting.comparison import headline
from autointerp.reporting.parts import Axis, Cell, ChartPoint, Column, Part, Row, ScatterChart, Section, Table

__all__ = ["scaling_sections"]

_MSE = "reconstruction.normalized_mse"
_TITLES = {
    "joint": "Width and sparsity, all six constants",
    "product": "Width and sparsity, a plain product",
    "power": "Width, a power law",
    "offset": "Width, a power law above a floor",
    "loss": "Loss against error",
}
_WORDS = {
    "alpha": "α",
    "beta_k": "β_k",
    "beta_n": "β_n",
    "gamma": "γ",
    "zeta": "ζ",
    "eta": "η",
    "beta": "β",
}
_PAPER = {
    "alpha": -0.50,
    "beta_k": 0.26,
    "beta_n": -0.017,
    "gamma": -0.042,
    "zeta": -1.32,
    "eta": -0.085,
}
"""Of the joint law on GPT-4 (Gao et al. 2024, section 3)."""
_DRAWN = ("joint", "product")
"""Of these the first that could be fitted is set against what was measured."""
_COLUMNS = (
    Column("Law"),
    Column("k", is_numeric=True, hint="active latents, where the law is of checkpoints that share them"),
    Column("Constant"),
    Column("Value", is_numeric=True),
    Column("GPT-4", is_numeric=True, hint="the paper's constant, another subject and other text"),
    Column(
        "Scatter", is_numeric=True, hint="standard deviation of ln(measured / fitted), per degree of freedom"
    ),
)


def scaling_sections(report: EvaluationReport) -> tuple[Section, ...]:
    """The section, or none where no checkpoints of one architecture differ in width or sparsity."""
    facts = report.studies.get("scaling")
    if not facts or not facts.get("groups"):
        return ()
    parts: list[Part] = []
    for place, group in enumerate(facts["groups"]):
        parts += _group_parts(report, place, group)
    return (
        Section(
            name="scaling",
            title="How does quality scale?",
            lead="L is the normalised MSE, D the delta CE, n the latents, k those active on a token (L0 as "
            "measured). Laws are fitted in logarithms; intervals come from drawing the results anew about "
            "the law, with their own uncertainty and the scatter about it. They say nothing of widths beyond "
            "those fitted.",
            parts=tuple(parts),
        ),
    )


def _group_parts(report: EvaluationReport, place: int, group: Mapping[str, Any]) -> list[Part]:
    where = f"{group['architecture']} at {group['site']}"
    rows = [row for fit in group["fits"] for row in _law_rows(fit)]
    parts: list[Part] = [Table(f"scaling-{place}", f"Laws of {where}", _COLUMNS, tuple(rows))]
    drawn = next((f for f in group["fits"] if f["law"] in _DRAWN and f["status"] == "measured"), None)
    if drawn is not None:
        parts.append(_fitted_table(place, where, drawn, group))
        parts.append(_fitted_chart(report, place, drawn, group))
    return parts


def _law_rows(fit: Mapping[str, Any]) -> list[Row]:
    """A row each constant, or one with the reason for there being none."""
    law = Cell(_TITLES.get(fit["law"], fit["law"]), sort=fit["law"], detail=_formula(fit))
    k = _plain(fit["k"]) if "k" in fit else Cell("all", sort=-1)
    none = Cell("—", kind="missing")
    if fit["status"] != "measured":
        names = Cell(", ".join(_WORDS.get(name, name) for name in fit["constant_names"]))
        return [Row((law, k, names, Cell("—", kind="missing", detail=fit["reason"]), none, none))]
    scatter = _plain(fit["residual_deviation"])
    return [
        Row(
            (
                law,
                k,
                Cell(_WORDS.get(constant["name"], constant["name"]), sort=place),
                _with_interval(constant["value"], constant["low"], constant["high"], fit),
                _paper_cell(fit, constant["name"]),
                scatter,
            )
        )
        for place, constant in enumerate(fit["constants"])
    ]


def _formula(fit: Mapping[str, Any]) -> str:
    """With the constants' signs in place of their names, the longer names first."""
    text = str(fit["formula"])
    for name in sorted(_WORDS, key=len, reverse=True):
        text = re.sub(rf"\b{name}\b", _WORDS[name], text)
    return text


def _paper_cell(fit: Mapping[str, Any], name: str) -> Cell:
    return _plain(_PAPER[name]) if fit["law"] == "joint" else Cell("—", kind="missing")


def _plain(value: float) -> Cell:
    return Cell(numbers.plain(value), sort=value, kind="number")


def _with_interval(value: float, low: float, high: float, fit: Mapping[str, Any]) -> Cell:
    decimals = numbers.decimals_for(low, high)
    return Cell(
        numbers.fixed(value, decimals),
        sort=value,
        kind="number",
        detail=numbers.interval(low, high, decimals=decimals),
        hint=f"{100 * fit['level']:g} % interval by parametric bootstrap",
    )


def _fitted_table(place: int, where: str, fit: Mapping[str, Any], group: Mapping[str, Any]) -> Table:
    members = {member["name"]: member for member in group["checkpoints"]}
    columns = (
        Column("Checkpoint"),
        Column("n", is_numeric=True),
        Column("k", is_numeric=True),
        Column("L, measured", is_numeric=True),
        Column("L, fitted", is_numeric=True),
        Column("Measured over fitted", is_numeric=True),
    )
    rows = tuple(
        Row(
            (
                Cell(point["checkpoint"], sort=point["checkpoint"]),
                Cell(
                    numbers.count(round(members[point["checkpoint"]]["n"])),
                    sort=members[point["checkpoint"]]["n"],
                    kind="number",
                ),
                _plain(members[point["checkpoint"]]["k"]),
                _plain(point["measured"]),
                _plain(point["fitted"]),
                _plain(point["measured"] / point["fitted"]),
            )
        )
        for point in fit["points"]
    )
    caption = f"Measured against fitted, {where}: {_TITLES[fit['law']].lower()}"
    return Table(f"scaling-{place}-fitted", caption, columns, rows, is_filterable=len(rows) > 12)


def _fitted_chart(
    report: EvaluationReport, place: int, fit: Mapping[str, Any], group: Mapping[str, Any]
) -> ScatterChart:
    values = headline(report)
    sparsity = {member["name"]: member["k"] for member in group["checkpoints"]}
    points = []
    for point in fit["points"]:
        name, fitted = point["checkpoint"], point["fitted"]
        measured = values.get((name, _MSE))
        low, high = (measured.low, measured.high) if measured else (point["measured"], point["measured"])
        points.append(
            ChartPoint(
                label=name,
                series=f"k = {round(sparsity[name])}",
                x=fitted,
                x_low=fitted,
                x_high=fitted,
                y=point["measured"],
                y_low=low,
                y_high=high,
            )
        )
    return ScatterChart(
        name=f"scaling-{place}-chart",
        title=f"Measured against fitted, {group['architecture']}",
        caption=f"{_formula(fit)}. A law that holds has its marks on the diagonal; lines join checkpoints "
        "of one sparsity.",
        x=Axis("Normalised MSE, fitted (ratio)", _scale(points, "x")),
        y=Axis("Normalised MSE, measured (ratio)", _scale(points, "y"), "lower"),
        points=tuple(points),
    )


def _scale(points: Sequence[ChartPoint], axis: str) -> Any:
    values = [getattr(point, name) for point in points for name in (axis, f"{axis}_low", f"{axis}_high")]
    return "log" if min(values) > 0 else "linear"
