"""LatentMatches -> the section "Latents across checkpoints": which are found again, lost, gained, split."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, zip_longest
from typing import Any

from autointerp.records import EvaluationReport
from autointerp.reporting import numbers
from autointerp.reporting.latent_browser import latent_address
from autointerp.reporting.latent_browser_packing import shown_text
from autointerp.reporting.latent_matches import LatentMatches, LatentShare, PairMatches
from autointerp.reporting.parts import Badge, Callout, Cell, Column, Link, Part, Row, Section, Table
from autointerp.sampling.latents.tables import LEAST_MATCH_COSINE

__all__ = ["across_sections"]

_KINDS = ("lost", "gained", "split")
_MOST_EXAMPLES = 60
_MOST_OF_A_KIND = 8
_MOST_PARTS = 6
_LONGEST_SAID = 160
_COLUMNS = (
    Column("Checkpoint", hint="whose latents are looked for"),
    Column("Other", hint="where they are looked for"),
    Column("Matched", is_numeric=True, hint="share matched one-to-one"),
    Column("With a null", is_numeric=True, hint="the same share with the null of the site that has most"),
    Column("Lost", is_numeric=True, hint="share that no latent of the other is like"),
    Column("Gained", is_numeric=True, hint="share of the other's latents that no latent here is like"),
    Column("Split", is_numeric=True, hint="share that is the nearest of two or more of the other's latents"),
    Column("Median cosine", is_numeric=True, hint="to the nearest latent there, of all that were looked at"),
    Column("Co-activation", is_numeric=True, hint="median, of latents alike enough to match: tokens on which "
           "both fire over those on which either does"),
)  # fmt: skip


def across_sections(
    report: EvaluationReport, matches: LatentMatches | None, explained: Sequence[Mapping[str, Any]] = ()
) -> tuple[Section, ...]:
    """The section; none where the run has no such table, or no two checkpoints on a site.

    Args:
        report: what the run found.
        matches: its table.
        explained: explanations, of which the first of a latent stands beside it.
    """
    if matches is None:
        return ()
    if matches.trouble:
        return (_section("", (Callout("The matches cannot be shown", (matches.trouble,), "bad"),)),)
    level = float(report.suite.get("estimates", {}).get("level", 0.95))
    judged = [each.name for each in report.checkpoints if each.role == "checkpoint"]
    pairs = [matches.pair(one, other, level=level) for one in judged for other in judged if one != other]
    found = [pair for pair in pairs if pair is not None]
    left_out = [(name, why) for name, why in matches.left_out if name in judged]
    if not found:
        return ()
    parts: list[Part] = [_shares_table(report, matches, found, level)]
    examples = _examples_table(matches, judged, _said(explained))
    parts += [examples] if examples.rows else []
    if left_out:
        lines = tuple(f"{shown_text(name)}: {shown_text(why, 400)}" for name, why in left_out)
        parts.append(Callout("Latents that were not sampled", lines, "neutral"))
    return (_section(_lead(matches, found, level), tuple(parts)),)


def _section(lead: str, parts: tuple[Part, ...]) -> Section:
    return Section("across", "Latents across checkpoints", lead, parts)


def _lead(matches: LatentMatches, found: Sequence[PairMatches], level: float) -> str:
    words = (
        "Two latents are matched one-to-one where each is the other's nearest by the cosine of their decoder "
        f"directions, and that is at least {LEAST_MATCH_COSINE}. Lost: no latent of the other dictionary is "
        "so near; gained: the same of the other's latents; split: two or more of the other's, each so near, "
        "have it as their nearest."
    )
    counts = sorted({pair.matched.n for pair in found})
    sampled = numbers.count(counts[0])
    if len(counts) > 1:
        sampled += f" to {numbers.count(counts[-1])}"
    if not all(matches.is_random(name) for name in {pair.checkpoint for pair in found}):
        return (
            f"{words} Shares are of the latents that the suite names, {sampled} of each checkpoint; they "
            "speak for no others."
        )
    if all(pair.matched.low is None for pair in found):
        return f"{words} Shares are of all live latents, {sampled} of each checkpoint, and exact."
    return (
        f"{words} Shares of all live latents, estimated from {sampled} sampled ones of each checkpoint, with "
        f"{100 * level:g} % intervals (Wilson)."
    )


def _shares_table(
    report: EvaluationReport, matches: LatentMatches, found: Sequence[PairMatches], level: float
) -> Table:
    nulls = [each.name for each in report.checkpoints if each.role == "null"]
    of_nulls = {name: _best_null(matches, name, nulls, level) for name in {pair.checkpoint for pair in found}}
    rows = tuple(_pair_row(pair, of_nulls[pair.checkpoint]) for pair in found)
    return Table("across", "Where latents are found again", _COLUMNS, rows, is_filterable=len(rows) > 12)


def _pair_row(pair: PairMatches, null: PairMatches | None) -> Row:
    without = {
        "null": "no null was sampled on this site",
        "gained": "none of the other's latents was sampled",
        "together": "none is alike enough, or firings were not kept",
    }
    return Row(
        (
            Cell(shown_text(pair.checkpoint), sort=pair.checkpoint),
            Cell(shown_text(pair.other), sort=pair.other),
            _share_cell(pair.matched),
            _missing(without["null"]) if null is None else _null_cell(null),
            _share_cell(pair.lost),
            _missing(without["gained"]) if pair.gained is None else _share_cell(pair.gained),
            _share_cell(pair.split),
            _number_cell(pair.median_cosine),
            _missing(without["together"])
            if pair.median_co_firing is None
            else _number_cell(pair.median_co_firing),
        )
    )


def _number_cell(value: float) -> Cell:
    return Cell(numbers.fixed(value, 2), sort=value, kind="number")


def _best_null(
    matches: LatentMatches, checkpoint: str, nulls: Sequence[str], level: float
) -> PairMatches | None:
    pairs = [matches.pair(checkpoint, null, level=level) for null in nulls]
    found = [pair for pair in pairs if pair is not None]
    return max(found, key=lambda pair: pair.matched.value, default=None)


def _missing(why: str) -> Cell:
    return Cell("—", kind="missing", hint=why)


def _share_words(share: LatentShare) -> tuple[str, str]:
    """`44 %` and its interval."""
    if share.low is None or share.high is None:
        return f"{numbers.plain(round(100 * share.value, 1))} %", ""
    decimals = numbers.decimals_for(100 * share.low, 100 * share.high)
    return (
        f"{numbers.fixed(100 * share.value, decimals)} %",
        numbers.interval(100 * share.low, 100 * share.high, decimals=decimals),
    )


def _share_cell(share: LatentShare) -> Cell:
    text, detail = _share_words(share)
    return Cell(
        text, sort=share.value, kind="number", detail=detail, hint=f"n = {numbers.count(share.n)} latents"
    )


def _null_cell(null: PairMatches) -> Cell:
    """In the small grey letters of a detail: it is no result."""
    text, ends = _share_words(null.matched)
    return Cell(
        "",
        sort=null.matched.value,
        kind="number",
        detail=f"{text} {ends}".strip(),
        hint=f"{shown_text(null.other)}, n = {numbers.count(null.matched.n)} latents",
    )


def _said(explained: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], str]:
    """The first explanation of each latent."""
    found: dict[tuple[str, int], str] = {}
    for line in explained:
        if line.get("status") == "explained":
            found.setdefault((line["checkpoint"], line["latent"]), str(line.get("text") or ""))
    return found


def _examples_table(
    matches: LatentMatches, judged: Sequence[str], said: Mapping[tuple[str, int], str]
) -> Table:
    """Some of each kind and pair, in turns, so that no pair takes all the room."""
    lists = [
        [(place, kind, row) for row in rows]
        for place, (one, other) in enumerate(combinations(judged, 2))
        for kind, rows in _kinds(matches, one, other, said)
    ]
    turns = [each for turn in zip_longest(*lists) for each in turn if each is not None]
    chosen = sorted(turns[:_MOST_EXAMPLES], key=lambda each: (each[0], _KINDS.index(each[1])))
    is_said = any((row["checkpoint"], row["latent"]) in said for _, _, row in chosen)
    columns = (
        Column("Latent", hint="opens it in the list of latents"),
        Column("Of checkpoint"),
        Column("What"),
        Column("Compared with"),
        Column("There", hint="the nearest latent; of a split all that have it as their nearest"),
        Column("Cosine", is_numeric=True, hint="to the nearest"),
        Column("Fires on", is_numeric=True, hint="share of tokens"),
        *([Column("Said to be")] if is_said else []),
    )
    rows = tuple(Row(_example_cells(matches, kind, row, said)[: len(columns)]) for _, kind, row in chosen)
    caption = "Lost, gained and split latents: explained ones first, then the most active"
    return Table("across-examples", caption, columns, rows, is_filterable=len(rows) > 12)


def _kinds(
    matches: LatentMatches, one: str, other: str, said: Mapping[tuple[str, int], str]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    there, back = matches.of(one, other), matches.of(other, one)
    found = (there.filter("is_lost"), back.filter("is_lost"), there.filter("is_split"))
    for kind, rows in zip(_KINDS, found, strict=True):
        ordered = sorted(
            rows.iter_rows(named=True),
            key=lambda row: ((row["checkpoint"], row["latent"]) not in said, -(row["mass"] or 0.0)),
        )
        yield kind, ordered[:_MOST_OF_A_KIND]


def _example_cells(
    matches: LatentMatches, kind: str, row: Mapping[str, Any], said: Mapping[tuple[str, int], str]
) -> tuple[Cell, ...]:
    one, other, latent = row["checkpoint"], row["other_checkpoint"], row["latent"]
    there = row["followers"] if kind == "split" else [row["other_latent"]]
    more = len(there) - _MOST_PARTS
    density = row["density"]
    cells = (
        _links(matches, one, [latent]),
        Cell(shown_text(one), sort=one),
        Cell("", sort=kind, badges=(Badge(kind),)),
        Cell(shown_text(other), sort=other),
        _links(matches, other, there[:_MOST_PARTS], more=f"and {more} more" if more > 0 else ""),
        _number_cell(row["cosine"]),
        _missing("")
        if density is None
        else Cell(f"{numbers.plain(float(f'{100 * density:.2g}'))} %", sort=density, kind="number"),
    )
    text = said.get((one, latent))
    return (*cells, Cell(shown_text(text, _LONGEST_SAID)) if text else _missing("not explained"))


def _links(matches: LatentMatches, checkpoint: str, latents: Sequence[int], *, more: str = "") -> Cell:
    links = tuple(
        Link(
            str(latent), latent_address(checkpoint, latent) if (checkpoint, latent) in matches.listed else ""
        )
        for latent in latents
    )
    return Cell(", ".join(map(str, latents)), sort=latents[0], links=links, detail=more)
