"""Latents of two runs matched -> the section that says which were kept, lost, gained, split and merged."""

from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.reporting import numbers
from autointerp.reporting.latent_browser_packing import shown_text
from autointerp.reporting.parts import Badge, Callout, Cell, Column, Part, Row, Section, Table

__all__ = ["latents_sections"]

_SHOWN = 30
_COLUMNS = (
    Column("A"),
    Column("B"),
    Column("Kept", is_numeric=True, hint="B's latents that are matched one-to-one in A"),
    Column("Lost", is_numeric=True, hint="B's latents that no latent of A is like"),
    Column("Gained", is_numeric=True, hint="A's latents that no latent of B is like"),
    Column("Split", is_numeric=True, hint="B's latents that are the nearest of two or more of A's"),
    Column("Merged", is_numeric=True, hint="A's latents that are the nearest of two or more of B's"),
    Column("Median cosine", is_numeric=True, hint="of matched pairs"),
    Column("Co-activation", is_numeric=True, hint="median, of matched pairs: tokens of common text on which "
           "both fire over those on which either does"),
)  # fmt: skip


def latents_sections(matched: Sequence[Mapping[str, Any]]) -> tuple[Section, ...]:
    """The section; none where latents were not asked for.

    Args:
        matched: as `evaluation.matching.matching_json` gives them.
    """
    if not matched:
        return ()
    measured = [each for each in matched if each["status"] == "measured"]
    skipped = [each for each in matched if each["status"] != "measured"]
    parts: list[Part] = []
    if measured:
        parts.append(Table("latents", "Latents of A against B", _COLUMNS, tuple(map(_row, measured))))
        examples = tuple(row for each in measured for row in _examples(each))
        columns = (Column("What"), Column("A"), Column("B"), Column("Latents"))
        if examples:
            parts.append(Table("latents-examples", f"Which, up to {_SHOWN} of a kind", columns, examples))
    if skipped:
        lines = tuple(
            f"{_name(each['checkpoint'])} against {_name(each['reference'])}: "
            f"{shown_text(each['reason'], 400)}"
            for each in skipped
        )
        parts.append(Callout("Skipped", lines, "neutral"))
    least = next((each["least_cosine"] for each in measured), None)
    criterion = "" if least is None else f", and that is at least {least:g}"
    lead = (
        "Two latents are matched one-to-one where each is the other's nearest by the cosine of their decoder "
        f"directions{criterion}. Counts are of all latents that fire in each run's text, so they are exact."
    )
    return (Section("latents", "Kept, lost, gained and split latents", lead, tuple(parts)),)


def _name(name: str) -> str:
    return shown_text(str(name))


def _row(each: Mapping[str, Any]) -> Row:
    theirs, mine = each["reference_live_count"], each["live_count"]
    return Row(
        (
            Cell(_name(each["checkpoint"]), sort=each["checkpoint"]),
            Cell(_name(each["reference"]), sort=each["reference"]),
            _share_cell(each["matched_count"], theirs, "B"),
            _share_cell(each["lost_count"], theirs, "B"),
            _share_cell(each["gained_count"], mine, "A"),
            _share_cell(each["split_count"], theirs, "B"),
            _share_cell(each["merged_count"], mine, "A"),
            _number_cell(each.get("median_cosine"), "nothing was matched"),
            _number_cell(each.get("median_co_firing"), "the runs share no text, or kept no firings"),
        )
    )


def _share_cell(count: int, total: int, side: str) -> Cell:
    share = count / total
    return Cell(
        f"{numbers.fixed(100 * share, 1)} %",
        sort=share,
        kind="number",
        detail=f"{numbers.count(count)} of {numbers.count(total)}",
        hint=f"of the latents of {side} that fire",
    )


def _number_cell(value: float | None, why: str) -> Cell:
    if value is None:
        return Cell("—", kind="missing", hint=why)
    return Cell(numbers.fixed(value, 2), sort=value, kind="number")


def _examples(each: Mapping[str, Any]) -> list[Row]:
    """A row of each kind that there is: the numbers of the latents."""
    rows = []
    for kind, side in (("lost", "B"), ("gained", "A"), ("split", "B"), ("merged", "A")):
        found = each[kind]
        if not found:
            continue
        words = (
            [f"{one} → {', '.join(map(str, several))}" for one, several in list(found.items())[:_SHOWN]]
            if isinstance(found, Mapping)
            else list(map(str, found[:_SHOWN]))
        )
        more = each[f"{kind}_count"] - len(words)
        rows.append(
            Row(
                (
                    Cell("", sort=kind, badges=(Badge(kind),)),
                    Cell(_name(each["checkpoint"]), sort=each["checkpoint"]),
                    Cell(_name(each["reference"]), sort=each["reference"]),
                    Cell(
                        ("; " if isinstance(found, Mapping) else ", ").join(words),
                        detail=f"latents of {side}"
                        + (f", and {numbers.count(more)} more" if more > 0 else ""),
                    ),
                )
            )
        )
    return rows
