"""EvaluationReport -> the section on graphs (Neuron-to-Graph): scores beside nulls, losses, some graphs."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.errors import BadInputError
from autointerp.explaining.graph_trie import Graph
from autointerp.explaining.graph_wording import drawn
from autointerp.records import EvaluationReport, Measured, Outcome, Skipped
from autointerp.reporting import numbers
from autointerp.reporting.parts import Callout, Cell, Code, Column, Part, Row, Section, Table
from autointerp.reporting.summary import measure_cell
from autointerp.reporting.token_text import cut, quoted, visible

__all__ = ["graph_sections"]

_SHOWN = 2
"""Graphs of each checkpoint that are drawn, by hash: neither the best nor the worst."""
_LINES, _WIDTH = 10, 140
_BORROWED = {"null": "borrowed"}
_SCORES = (
    ("Precision", "n2g.precision", {}, "P(the latent fires | the graph does)"),
    ("Recall", "n2g.recall", {}, "P(the graph fires | the latent does)"),
    ("F1", "n2g.f1", {}, "mean over latents of the harmonic mean of their precision and recall"),
    ("F1, borrowed", "n2g.f1", _BORROWED, "null: every latent is judged with another latent's graph"),
    ("Correlation", "n2g.correlation", {}, "of what the graph expects with the activation, over all tokens"),
    ("Correlation, borrowed", "n2g.correlation", _BORROWED, "null: with another latent's graph"),
)
_LOSSES = (("Loss", "n2g.reconstruction_delta_ce_nats"), ("KL", "n2g.reconstruction_kl_nats"))
_STAND_INS = {
    "true activations": "the dictionary's own reconstruction",
    "": "activations as the graphs expect them",
    "bigram": "a bigram model of the text instead of the subject",
    "unigram": "a unigram model instead of the subject",
    "bias": "the decoder's bias alone, no latent fires",
    "zeros": "zeros",
}
"""By the slice `baseline`."""


def graph_sections(
    report: EvaluationReport, explained: Sequence[Mapping[str, Any]] = ()
) -> tuple[Section, ...]:
    """The section, or none where no graphs were made.

    Args:
        report: what the run found.
        explained: rows of explanations.jsonl, for some graphs to be drawn.
    """
    facts = report.studies.get("n2g")
    if facts is None:
        return ()
    parts: list[Part] = [_scores_table(report, facts)]
    parts += _losses(report)
    parts += _drawings(report, explained)
    return (
        Section(
            name="graphs",
            title="Do a few tokens say when a latent fires?",
            lead=_lead(facts),
            parts=tuple(parts),
        ),
    )


def _lead(facts: Mapping[str, Any]) -> str:
    setting = facts.get("setting", {})
    if not setting:
        return "No graphs were made."
    fillers = ", ".join(quoted(str(token)) for token in setting["fillers"])
    front = "".join(map(str, setting["front"]))
    before = f"behind {visible(front)}" if front else "with nothing before them"
    precision = setting.get("precision_sequences")
    places = "all places" if precision is None else f"{numbers.count(precision)} random places"
    return (
        f"Neuron-to-Graph: up to {setting['graph_examples']} random activations of a latent are cut to the "
        f"shortest text that keeps {setting.get('suffix_share', 0.5):g} of it; tokens that can be replaced "
        f"without losing more than {setting['saliency_threshold']:g} of that become wildcards, and the paths "
        f"are joined in a trie. Fragments are run {before}, reach back {setting['prefix_tokens']} tokens at "
        f"most, and have {fillers} for a replaced token. Precision is over {places} of other documents at "
        f"which the graph fires, recall over {setting['recall_sequences']} random activations there. A path "
        "says only which tokens stand where: what it misses may be plain to a reader."
    )


def _outcomes(report: EvaluationReport) -> dict[tuple[str, str, str], Outcome]:
    return {(r.checkpoint, r.metric, _key(r.slice)): r.outcome for r in report.results}


def _key(settings: Mapping[str, Any]) -> str:
    return repr(sorted(settings.items()))


def _nulls(report: EvaluationReport) -> frozenset[str]:
    return frozenset(checkpoint.name for checkpoint in report.checkpoints if checkpoint.role == "null")


def _scores_table(report: EvaluationReport, facts: Mapping[str, Any]) -> Table:
    found, nulls = _outcomes(report), _nulls(report)
    counts = {row["checkpoint"]: row for row in facts.get("checkpoints", ())}
    scores = (
        Column(title, is_numeric=True, better="neither" if settings else "higher", hint=hint)
        for title, _, settings, hint in _SCORES
    )
    silent = "latents whose graph fires nowhere in scored text: without precision, their recall and F1 are 0"
    columns = (
        Column("Checkpoint"),
        *scores,
        Column("Silent", is_numeric=True, hint=silent),
        Column("Latents", is_numeric=True),
    )
    rows = tuple(
        Row(
            (
                Cell(checkpoint.name, sort=checkpoint.name),
                *(
                    measure_cell(found.get((checkpoint.name, metric, _key(settings))))
                    for _, metric, settings, _ in _SCORES
                ),
                _silent(found, checkpoint.name),
                _count(counts.get(checkpoint.name, {}).get("graphs")),
            ),
            is_null=checkpoint.name in nulls,
        )
        for checkpoint in report.checkpoints
    )
    return Table("graphs", "Graphs of random live latents", columns, rows)


def _silent(found: Mapping[tuple[str, str, str], Outcome], checkpoint: str) -> Cell:
    """Those with a recall and without a precision."""
    sizes = [found.get((checkpoint, metric, _key({}))) for metric in ("n2g.recall", "n2g.precision")]
    recall, precision = (each.estimate.n if isinstance(each, Measured) else None for each in sizes)
    return _count(None if recall is None else recall - (precision or 0))


def _count(number: int | None) -> Cell:
    if number is None:
        return Cell("—", kind="missing", hint="no graphs were made")
    return Cell(numbers.count(number), sort=number, kind="number")


def _losses(report: EvaluationReport) -> list[Part]:
    """A table of what was simulated; without any, a line that says why."""
    found, nulls = _outcomes(report), _nulls(report)
    rows = [
        Row(
            (
                Cell(checkpoint.name, sort=checkpoint.name),
                Cell(words),
                *(
                    measure_cell(found.get((checkpoint.name, metric, _key(_baseline(stand_in)))))
                    for _, metric in _LOSSES
                ),
            ),
            is_null=checkpoint.name in nulls,
        )
        for checkpoint in report.checkpoints
        if not isinstance(found.get((checkpoint.name, _LOSSES[0][1], _key({}))), Skipped | None)
        for stand_in, words in _STAND_INS.items()
    ]
    lines = _skipped_lines(report, found)
    skipped: list[Part] = [Callout("Not simulated", lines, "neutral")] if lines else []
    columns = (
        Column("Checkpoint"),
        Column("What stands at the site at tokens of text"),
        *(Column(title, unit="nats", better="lower", is_numeric=True) for title, _ in _LOSSES),
    )
    table = Table(
        "graph-losses", "What the subject loses when graphs stand for latents", columns, tuple(rows)
    )
    return [*([table] if rows else []), *skipped]


def _baseline(stand_in: str) -> dict[str, str]:
    return {"baseline": stand_in} if stand_in else {}


def _skipped_lines(
    report: EvaluationReport, found: Mapping[tuple[str, str, str], Outcome]
) -> tuple[str, ...]:
    by_reason: dict[str, list[str]] = {}
    for checkpoint in report.checkpoints:
        outcome = found.get((checkpoint.name, _LOSSES[0][1], _key({})))
        if isinstance(outcome, Skipped):
            reason = outcome.reason.partition(" (")[0]
            by_reason.setdefault(reason, []).append(checkpoint.name)
    return tuple(f"{', '.join(names)}: {reason}." for reason, names in by_reason.items())


def _drawings(report: EvaluationReport, explained: Sequence[Mapping[str, Any]]) -> list[Part]:
    order = {checkpoint.name: place for place, checkpoint in enumerate(report.checkpoints)}
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in explained:
        if row.get("explainer") == "neuron_to_graph" and row.get("checkpoint") in order and row.get("data"):
            rows.setdefault(row["checkpoint"], []).append(row)
    parts: list[Part] = []
    for name in sorted(rows, key=order.__getitem__):
        chosen = sorted(rows[name], key=lambda row: _hash(name, row["latent"]))[:_SHOWN]
        parts += [part for row in chosen if (part := _drawing(name, row)) is not None]
    return parts


def _hash(name: str, latent: int) -> str:
    return hashlib.sha256(f"{name}\0graph\0{latent}".encode()).hexdigest()


def _drawing(name: str, row: Mapping[str, Any]) -> Code | None:
    try:
        graph, texts = Graph.from_json(row["data"])
    except BadInputError:
        return None
    lines = [cut(line, _WIDTH) for line in drawn(graph, texts, lines=_LINES)]
    title = f"Latent {row['latent']} of {name}: token < what stands before it [its strength there]"
    return Code(title, "\n".join(lines))
