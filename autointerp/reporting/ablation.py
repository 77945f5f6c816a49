"""EvaluationReport -> the section on ablations: how sparse, how large and how direct effects are."""

from collections.abc import Mapping, Sequence
from typing import Any

from autointerp.records import Better, EvaluationReport, MetricResult
from autointerp.reporting import numbers
from autointerp.reporting.parts import Badge, Callout, Cell, Column, Part, Row, Section, Table
from autointerp.reporting.summary import measure_cell

__all__ = ["ablation_sections"]

_Wanted = tuple[str, Mapping[str, Any]]
"""Metric and slice of a column."""

_RANDOM, _CHANNELS = {"null": "random_directions"}, {"null": "channels"}
_FIRST, _DIRECT, _MEDIATED = {"horizon": 1}, {"path": "direct"}, {"path": "mediated"}
_SPARSITY, _OVER = "ablation.sparsity", "ablation.sparsity_over_random"
_CONCENTRATION, _EFFECT = "ablation.token_concentration", "ablation.effect_kl_nats"
_SHARE = "ablation.direct_share"
_AS_LONG = "null: random directions as long as what was subtracted, at the same tokens"
_ONE_CHANNEL = "null: one channel of the site set to its mean, at the same tokens"


def ablation_sections(report: EvaluationReport) -> tuple[Section, ...]:
    """The section, or none where nothing was ablated."""
    facts = report.studies.get("ablation")
    if facts is None:
        return ()
    parts: list[Part] = [_sparsity_table(report, facts), _effect_table(report)]
    parts += _callouts(facts)
    return (
        Section(
            name="ablation",
            title="What does one latent change?",
            lead=_lead(facts),
            parts=tuple(parts),
        ),
    )


def _lead(facts: Mapping[str, Any]) -> str:
    if not facts:
        return "No token could be ablated."
    horizon = facts["horizon"]
    from_what = {
        "activation": "from what the model computes itself",
        "reconstruction": "from the checkpoint's reconstruction, which stands at the site at all tokens",
    }[facts["subtract_from"]]
    samples, documents, late = (
        numbers.count(facts[name]) for name in ("sample_count", "document_count", "too_late_token_count")
    )
    return (
        f"{samples} tokens of {documents} documents were drawn, the same for all. At each, the contribution "
        f"of one active latent is subtracted {from_what}, and the change of all logits is followed over T = "
        f"{horizon} tokens. Sparsity is 1 where all logits change alike, near 0 where few do. It says how "
        "sparse a change is, not how large: that is the effect. It is lower at later layers whatever is "
        "ablated, so compare with the nulls beside it and with checkpoints of the same site. Tokens with "
        f"fewer than {horizon - 1} after them in their context ({late}) cannot be drawn."
    )


def _callouts(facts: Mapping[str, Any]) -> list[Part]:
    parts: list[Part] = []
    if facts and facts["precision"] in ("bfloat16", "float16"):
        line = (
            f"The subject computes in {facts['precision']}: changes of its logits below about a hundredth of "
            "them are rounding, which makes small effects look spread out. Load it in float32 to trust them."
        )
        parts.append(Callout("Small effects drown in rounding", (line,), "bad"))
    slow = facts.get("whole_contexts", {})
    if slow:
        lines = tuple(f"{site}: {reason}." for site, reason in slow.items())
        parts.append(
            Callout("Whole contexts were run anew for each ablation: slower, same numbers", lines, "neutral")
        )
    return parts


def _sparsity_table(report: EvaluationReport, facts: Mapping[str, Any]) -> Table:
    horizon = facts.get("horizon", 1)
    several = f"T = {horizon}"
    columns: list[tuple[Column, _Wanted]] = [
        (_column("Sparsity", several, "lower", "of latents"), (_SPARSITY, {})),
        (_column("Random directions", several, hint=_AS_LONG), (_SPARSITY, _RANDOM)),
        (_column("Channels", several, hint=_ONE_CHANNEL), (_SPARSITY, _CHANNELS)),
        (_column("Over random", several, "lower", "ratio of the two sums, at the same tokens"), (_OVER, {})),
    ]
    if horizon > 1:
        columns += [
            (_column("Sparsity", "T = 1", "lower", "at the ablated token alone"), (_SPARSITY, _FIRST)),
            (_column("Random directions", "T = 1", hint=_AS_LONG), (_SPARSITY, {**_RANDOM, **_FIRST})),
            (_column("Channels", "T = 1", hint=_ONE_CHANNEL), (_SPARSITY, {**_CHANNELS, **_FIRST})),
            (
                _column("Over random", "T = 1", "lower", "ratio of the two sums, at the same tokens"),
                (_OVER, _FIRST),
            ),
        ]
    return _table(report, "ablation", "How few logits an ablation changes, (L1 / L2)² / (V T)", columns)


def _effect_table(report: EvaluationReport) -> Table:
    columns: list[tuple[Column, _Wanted]] = [
        (_column("Token concentration", hint="1/T: one token; 1: all T alike"), (_CONCENTRATION, {})),
        (_column("of random directions", hint=_AS_LONG), (_CONCENTRATION, _RANDOM)),
        (_column("Effect", "nats", hint="KL, summed over the T tokens"), (_EFFECT, {})),
        (_column("of random directions", "nats", hint=_AS_LONG), (_EFFECT, _RANDOM)),
        (_column("Direct share", hint="of the squared change of logits"), (_SHARE, {})),
        (_column("of random directions", hint=_AS_LONG), (_SHARE, _RANDOM)),
        (_column("Sparsity, direct", hint="through final norm and unembedding"), (_SPARSITY, _DIRECT)),
        (_column("Sparsity, mediated", hint="all else, over T tokens"), (_SPARSITY, _MEDIATED)),
    ]
    caption = "How far, how much and by which way an ablation reaches the logits"
    return _table(report, "ablation-effect", caption, columns)


def _column(title: str, unit: str = "", better: Better = "neither", hint: str = "") -> Column:
    return Column(title, unit, better, hint, is_numeric=True)


def _table(
    report: EvaluationReport, name: str, caption: str, columns: Sequence[tuple[Column, _Wanted]]
) -> Table:
    found = {(r.checkpoint, r.metric, _key(r.slice)): r for r in report.results}
    rows = []
    for checkpoint in report.checkpoints:
        is_null = checkpoint.role == "null"
        badges = (Badge("null", "null", "A control run through the same pipeline"),) if is_null else ()
        first = Cell(checkpoint.name, sort=checkpoint.name, detail=checkpoint.site, badges=badges)
        cells = [_cell(found, checkpoint.name, wanted) for _, wanted in columns]
        rows.append(Row((first, *cells), is_null=is_null))
    titles = (Column("Checkpoint"), *(column for column, _ in columns))
    return Table(name, caption, titles, tuple(rows), is_filterable=len(rows) > 12)


def _cell(found: Mapping[tuple[str, str, str], MetricResult], checkpoint: str, wanted: _Wanted) -> Cell:
    """The slice's number; where that was not observed, why the metric itself has none."""
    metric, settings = wanted
    result = found.get((checkpoint, metric, _key(settings)))
    if result is None:
        headline = found.get((checkpoint, metric, _key({})))
        missing = headline is not None and headline.outcome.status != "measured"
        return measure_cell(headline.outcome if headline is not None and missing else None)
    return measure_cell(result.outcome)


def _key(settings: Mapping[str, Any]) -> str:
    return repr(sorted(settings.items()))
